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
//! let (y, _state) = small.infer(&x)?;
//! let (exact, _) = model.infer(&x)?;
//! assert!((y - exact).iter().all(|error| error.abs() < 0.02));
//! # Ok::<(), seqrs::Error>(())
//! ```

pub mod report;

pub(crate) mod layer;
pub(crate) mod tensor;

use seqrs_core::rows::{Place, RowsMut};
use seqrs_core::{Error, Steps, interrupt, memory};
use seqrs_cpu::Cpu;
use serde::{Deserialize, Serialize};

use crate::layer::{Layer, LayerSpec};
use crate::layers::linear::LinearLayer;
use crate::layers::recurrent::Recurrent;
use crate::parameters::Parameters;
use crate::room::copied_states;
use crate::sequential::{
    Input, Link, ModelState, Output, Rank, Sequential, infer_rows, is_pooling, packed_rows,
};
use layer::Small;

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
    /// The layers; those that are small have no numbers here.
    structure: Sequential<f32>,
    /// What is small of each layer.
    small: Vec<Option<Small>>,
    /// What the model was made of, for its [`report`](Quantised::report).
    original: Option<Sequential<f32>>,
}

impl Sequential<f32> {
    /// The same model with weights of small numbers, for inference. It shares all else, and keeps
    /// the `f32` weights for its [`report`](Quantised::report) ([`Quantised::without_original`]
    /// gives them up).
    ///
    /// # Errors
    /// [`Error::Option`] names a layer that there are no such kernels for (peepholes, coupled
    /// gates, functions other than those of the cell, layer normalisation in a cell, zoneout), or
    /// says that no layer has a matrix; [`Error::Numerical`] names a parameter that is not finite;
    /// [`Error::OutOfMemory`], [`Error::Interrupted`].
    pub fn quantised(&self, kind: Quantisation) -> Result<Quantised, Error> {
        self.check_smallable(kind)?;
        let mut small = Vec::with_capacity(self.layers().len());
        for (k, layer) in self.layers().iter().enumerate() {
            interrupt::check()?;
            let title = |name: &str| format!("{} of {}", name, self.title(k));
            small.push(Small::of(kind, layer, title)?);
        }
        let mut quantised = Quantised::new(kind, self, small)?;
        quantised.original = Some(self.clone());
        Ok(quantised)
    }

    /// Whether all layers can be made small.
    pub(crate) fn check_smallable(&self, kind: Quantisation) -> Result<(), Error> {
        for (k, layer) in self.layers().iter().enumerate() {
            layer::check(kind, layer, || self.title(k))?;
        }
        if !self.layers().iter().any(layer::has_matrices) {
            let expected = "a recurrent or linear layer to quantise";
            return Err(Error::option("layers", expected, "none"));
        }
        Ok(())
    }
}

/// A layer with matrices, without its numbers, which are kept elsewhere; none for other kinds.
pub(crate) fn hollow(spec: &LayerSpec) -> Result<Option<Layer<f32>>, Error> {
    if let Some(described) = spec.described() {
        return Ok(Some(Layer::Recurrent(Recurrent::with_numbers(described, Vec::new())?)));
    }
    Ok(match spec {
        LayerSpec::Linear(options) => {
            options.count()?;
            let parameters = Parameters::new(Vec::new());
            Some(Layer::Linear(LinearLayer { options: options.clone(), parameters }))
        }
        _ => None,
    })
}

impl Quantised {
    /// Of a model whose layers with matrices are small ones.
    pub(crate) fn new(
        kind: Quantisation,
        model: &Sequential<f32>,
        small: Vec<Option<Small>>,
    ) -> Result<Self, Error> {
        let of = |layer: &Layer<f32>| Ok(hollow(&layer.spec())?.unwrap_or_else(|| layer.clone()));
        let layers = model.layers().iter().map(of).collect::<Result<_, Error>>()?;
        Ok(Self { kind, structure: Sequential::new(layers)?, small, original: None })
    }

    /// What the weights became.
    pub fn kind(&self) -> Quantisation {
        self.kind
    }

    /// The model's structure: its layers, without the numbers of those that are small. It is for
    /// questions about widths, states and steps; such a layer computes nothing
    /// ([`Error::Shape`]).
    pub fn structure(&self) -> &Sequential<f32> {
        &self.structure
    }

    pub(crate) fn small(&self) -> &[Option<Small>] {
        &self.small
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

    /// How many numbers the parameters are, scales not counted.
    pub fn num_parameters(&self) -> usize {
        let layers = self.structure.layers().iter().zip(&self.small);
        let numbers = |(layer, small): (&Layer<f32>, &Option<Small>)| match small {
            None => layer.num_parameters(),
            Some(small) => small.num_parameters(),
        };
        layers.map(numbers).sum()
    }

    /// How many bytes they take, scales included.
    pub fn parameter_bytes(&self) -> usize {
        let layers = self.structure.layers().iter().zip(&self.small);
        let bytes = |(layer, small): (&Layer<f32>, &Option<Small>)| match small {
            None => layer.num_parameters() * size_of::<f32>(),
            Some(small) => small.bytes(),
        };
        layers.map(bytes).sum()
    }

    /// Inference. `state` goes from its initial to its final value.
    ///
    /// # Errors
    /// As [`Sequential::infer_on`].
    pub fn infer_on(
        &self,
        cpu: &Cpu<f32>,
        x: Input<'_, f32>,
        steps: &Steps,
        state: &mut ModelState<f32>,
    ) -> Result<Output<f32>, Error> {
        let links = self.structure.chain_for(&x, steps)?;
        self.structure.check_state(state, steps.batch())?;
        let mut new = copied_states(state)?;
        let (mut width, mut rank) = (0, Rank::Steps);
        let mut flow: Option<Vec<f32>> = None;
        for (k, link) in links.iter().enumerate() {
            let layer = (&self.structure.layers()[k], self.small[k].as_ref());
            flow = Some(infer_layer(cpu, layer, link, steps, x, flow, &mut new)?);
            width = link.output.or(link.input).unwrap_or(1);
            if is_pooling(layer.0) {
                rank = Rank::Rows;
            }
        }
        *state = new;
        Ok(Output { numbers: flow.unwrap_or_default(), width, rank })
    }
}

/// What one layer of a model gives out, packed: small where it is, else as it is. `below` is what
/// the layer before gave; none for the first, which reads x.
pub(crate) fn infer_layer(
    cpu: &Cpu<f32>,
    (layer, small): (&Layer<f32>, Option<&Small>),
    link: &Link,
    steps: &Steps,
    x: Input<'_, f32>,
    below: Option<Vec<f32>>,
    states: &mut ModelState<f32>,
) -> Result<Vec<f32>, Error> {
    use seqrs_core::backend::Backend;
    interrupt::check()?;
    let input = link.input.unwrap_or(1);
    match (layer, below, x) {
        (Layer::Recurrent(layer), below, x) => {
            let given = match (&below, x) {
                (None, Input::Numbers(rows, _)) => rows,
                _ => packed_rows(below.as_deref().unwrap_or_default(), input),
            };
            let width = layer.stack().output_size();
            let mut y = memory::zeros("output of a recurrent layer", steps.items() * width)?;
            let state = &mut states[link.state];
            match small {
                None => layer.infer(cpu, given, steps, state.lent(), &mut y)?,
                Some(small) => {
                    let y = RowsMut { data: &mut y[..], place: Place::packed(width) };
                    small.infer(cpu, layer.stack(), given, steps, state, y)?;
                }
            }
            Ok(y)
        }
        (Layer::Embedding(layer), _, Input::Ids(ids)) => {
            layer.forward(cpu, &layer.gather(ids, steps)?)
        }
        (_, below, x) => {
            let rows = match (below, x) {
                (None, Input::Numbers(rows, width)) => {
                    let mut packed = memory::zeros("packed rows", steps.items() * width)?;
                    cpu.pack_rows(rows, steps, width, &mut packed);
                    packed
                }
                (below, _) => below.unwrap_or_default(),
            };
            match small {
                None => infer_rows(cpu, layer, link, steps, rows),
                Some(small) => small.product(cpu, &rows, link),
            }
        }
    }
}
