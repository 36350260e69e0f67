//! Models with weights of small numbers, for inference: 8-bit integers, or bf16.
//!
//! A step of one row takes as long as its weights take to come from memory, so weights of a
//! quarter of the size are several times as fast. What is made small are the matrices of recurrent
//! and linear layers; biases, states and all other layers stay `f32`.
//!
//! | | weights | operands of a product | sums |
//! |---|---|---|---|
//! | [`Quantisation::Int8`] | 8-bit integers, a scale for each row of a matrix | made 8-bit integers, a scale for each row, when they come | of integers, exact |
//! | [`Quantisation::Bf16`] | bf16 | `f32` | `f32`, in the order of all products |
//!
//! The laws of all models hold: a row has the same bits alone and in any batch, step by step and
//! as a sequence, on any number of threads, and on every vector instruction set. With bf16 they
//! are the bits of the model whose weights were rounded to bf16. With int8 a row of operands that
//! holds a NaN or an infinity gives NaN everywhere.
//!
//! ```
//! use ndarray::Array3;
//! use seqrs::{Linear, Lstm, Quantisation, Sequential};
//!
//! let model = Sequential::<f32>::new(vec![
//!     Lstm::new(8, 32).build()?,
//!     Linear::new(32, 3).build()?,
//! ])?;
//! let small = model.quantised(Quantisation::Int8)?;
//! let x = Array3::from_elem((4, 20, 8), 0.5);
//! let (y, _state) = small.model().infer(&x)?;
//! let (exact, _) = model.infer(&x)?;
//! assert!((y - exact).iter().all(|error| error.abs() < 0.02));
//! # Ok::<(), seqrs::Error>(())
//! ```

pub mod report;

pub(crate) mod layer;
pub(crate) mod tensor;

use seqrs_core::{Error, interrupt};
use serde::{Deserialize, Serialize};

use crate::layer::Layer;
use crate::number::Number;
use crate::sequential::Sequential;
use tensor::Tensor;

/// What weights become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantisation {
    /// 8-bit integers with a scale for each row of a matrix; operands too, with a scale for each
    /// row of a batch.
    Int8,
    /// The upper half of an `f32`.
    Bf16,
}

impl Quantisation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Int8, Self::Bf16];

    /// `int8` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Bf16 => "bf16",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl std::fmt::Display for Quantisation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A model with weights of small numbers, for inference. A clone shares them.
#[derive(Clone, Debug)]
pub struct Quantised {
    kind: Quantisation,
    model: Sequential<f32>,
    /// What the model was made of, for its [`report`](Quantised::report).
    original: Option<Sequential<f32>>,
}

impl Sequential<f32> {
    /// The same model with weights of small numbers, for inference. It shares all else, and keeps
    /// the `f32` weights for its [`report`](Quantised::report) ([`Quantised::without_original`]
    /// gives them up).
    ///
    /// # Errors
    /// [`Error::Option`] names a layer whose rows of weights are too long for exact sums, or says
    /// that no layer has a matrix; [`Error::State`] names one whose weights are small already;
    /// [`Error::Numerical`] names a parameter that is not finite; [`Error::OutOfMemory`],
    /// [`Error::Interrupted`].
    pub fn quantised(&self, kind: Quantisation) -> Result<Quantised, Error> {
        self.check_numbers()?;
        self.check_smallable(kind)?;
        let mut layers = Vec::with_capacity(self.layers().len());
        for (k, layer) in self.layers().iter().enumerate() {
            interrupt::check()?;
            let title = |name: &str| format!("{} of {}", name, self.title(k));
            layers.push(layer::small(kind, layer, title)?);
        }
        let original = Some(self.clone());
        Ok(Quantised { kind, model: Sequential::new(layers)?, original })
    }

    /// Whether all layers can be made small.
    fn check_smallable(&self, kind: Quantisation) -> Result<(), Error> {
        for (k, layer) in self.layers().iter().enumerate() {
            layer::check(kind, &layer.spec(), || self.title(k))?;
        }
        if !self.layers().iter().any(|layer| layer::has_matrices(&layer.spec())) {
            let expected = "a recurrent or linear layer to quantise";
            return Err(Error::option("layers", expected, "none"));
        }
        Ok(())
    }
}

impl<T: Number> Sequential<T> {
    /// Whether all weights are numbers of the model's type, as whatever else than inference needs
    /// them.
    ///
    /// # Errors
    /// [`Error::State`] names a layer whose weights are small.
    pub fn check_numbers(&self) -> Result<(), Error> {
        let mut layers = self.layers().iter().enumerate();
        match layers.find_map(|(k, layer)| Some((k, layer.quantisation()?))) {
            None => Ok(()),
            Some((k, kind)) => {
                let got = format!("{kind}, which is for inference alone");
                Err(Error::state(self.title(k), format!("weights of {}", T::NAME), got))
            }
        }
    }
}

impl Quantised {
    /// Of a model whose layers with matrices have small ones.
    pub(crate) fn of(kind: Quantisation, model: Sequential<f32>) -> Self {
        Self { kind, model, original: None }
    }

    /// What the weights became.
    pub fn kind(&self) -> Quantisation {
        self.kind
    }

    /// The model itself, to be called, stepped, pooled and served like any other. What needs the
    /// numbers of its weights refuses it ([`Sequential::check_numbers`]).
    ///
    /// ```
    /// use seqrs::{Gru, Quantisation, Sequential, StreamPool};
    ///
    /// let model = Sequential::<f32>::from(Gru::new(8, 32).build()?);
    /// let small = model.quantised(Quantisation::Bf16)?;
    /// let pool = StreamPool::new(small.model().clone(), 1000)?;
    /// # Ok::<(), seqrs::Error>(())
    /// ```
    pub fn model(&self) -> &Sequential<f32> {
        &self.model
    }

    pub(crate) fn original(&self) -> Option<&Sequential<f32>> {
        self.original.as_ref()
    }

    /// The same model without the `f32` weights of which it was made, which then can go; it has no
    /// report any more.
    #[must_use]
    pub fn without_original(self) -> Self {
        Self { original: None, ..self }
    }

    /// How many bytes the parameters take, scales included.
    pub fn parameter_bytes(&self) -> usize {
        let bytes = |layer: &Layer<f32>| match layer.tensors() {
            None => layer.num_parameters() * size_of::<f32>(),
            Some(tensors) => tensors.iter().map(Tensor::bytes).sum(),
        };
        self.model.layers().iter().map(bytes).sum()
    }
}
