//! One layer of any kind: what describes it, and what all layers have in common.

use std::ops::Range;

use seqrs_core::Error;
use serde::{Deserialize, Serialize};

use crate::layers::activation::Activation;
use crate::layers::dropout::Dropout;
use crate::layers::embedding::{Embedding, EmbeddingLayer};
use crate::layers::layer_norm::{LayerNorm, LayerNormLayer};
use crate::layers::linear::{Linear, LinearLayer};
use crate::layers::recurrent::{self, Described, Gru, Lstm, Recurrent, Rnn};
use crate::number::{DType, Number};
use crate::quantised::Quantisation;
use crate::quantised::tensor::Tensor;
use crate::room::room;

/// What describes a layer, without its parameters. In JSON an object with the field `kind`
/// and the options of that kind; unknown fields are refused.
///
/// ```
/// use seqrs::{Layer, LayerSpec, Linear};
/// let spec: LayerSpec = serde_json::from_str(
///     r#"{"kind": "linear", "in_features": 3, "out_features": 2, "bias": true, "seed": 1}"#,
/// ).unwrap();
/// assert_eq!(spec, LayerSpec::Linear(Linear::new(3, 2).seed(1)));
/// assert_eq!(Layer::<f32>::new(spec.clone())?.spec(), spec);
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum LayerSpec {
    /// A plain recurrent network.
    Rnn(Rnn),
    /// Long short-term memory.
    Lstm(Lstm),
    /// Gated recurrent units.
    Gru(Gru),
    /// Ids to rows of a table.
    Embedding(Embedding),
    /// A linear map of each row.
    Linear(Linear),
    /// Normalisation of each row.
    LayerNorm(LayerNorm),
    /// Dropout in training.
    Dropout(Dropout),
    /// The output of the last live step.
    Last {},
    /// The mean over live steps.
    MeanPool {},
    /// The maximum over live steps.
    MaxPool {},
    /// A function of each number or row.
    Activation {
        /// Which.
        function: Activation,
    },
}

/// A parameter of a layer: its name, its shape, and where its numbers lie among the
/// layer's, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedParameter {
    /// PyTorch's name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Where its numbers lie.
    pub range: Range<usize>,
}

impl NamedParameter {
    /// Parameters of these shapes, one after the other.
    pub(crate) fn list(shapes: &[(&str, &[usize])]) -> Vec<Self> {
        let mut end = 0;
        let place = |&(name, shape): &(&str, &[usize])| {
            let start = end;
            end += shape.iter().product::<usize>();
            Self { name: name.to_string(), shape: shape.to_vec(), range: start..end }
        };
        shapes.iter().map(place).collect()
    }
}

/// The product of two sizes plus `more`, if memory could hold as many numbers.
pub(crate) fn check_count(sizes: [(&str, usize); 2], more: usize) -> Result<usize, Error> {
    for (name, size) in sizes {
        if size == 0 {
            return Err(Error::shape(name, "an integer of at least 1", size));
        }
    }
    let [(a_name, a), (b_name, b)] = sizes;
    let count = a as u128 * b as u128 + more as u128;
    match count <= isize::MAX as u128 / 8 {
        true => Ok(count as usize),
        false => Err(Error::shape(
            format!("{a_name} and {b_name}"),
            "parameters that fit in memory",
            format!("{a} x {b}"),
        )),
    }
}

impl LayerSpec {
    /// The name of the kind, as the Python class has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rnn(_) => "RNN",
            Self::Lstm(_) => "LSTM",
            Self::Gru(_) => "GRU",
            Self::Embedding(_) => "Embedding",
            Self::Linear(_) => "Linear",
            Self::LayerNorm(_) => "LayerNorm",
            Self::Dropout(_) => "Dropout",
            Self::Last {} => "Last",
            Self::MeanPool {} => "MeanPool",
            Self::MaxPool {} => "MaxPool",
            Self::Activation { .. } => "Activation",
        }
    }

    /// Where the initial parameters come from; 0 for a layer without chance.
    pub fn seed(&self) -> u64 {
        match self {
            Self::Rnn(Rnn { seed, .. })
            | Self::Lstm(Lstm { seed, .. })
            | Self::Gru(Gru { seed, .. })
            | Self::Embedding(Embedding { seed, .. })
            | Self::Linear(Linear { seed, .. })
            | Self::Dropout(Dropout { seed, .. }) => *seed,
            Self::LayerNorm(_)
            | Self::Last {}
            | Self::MeanPool {}
            | Self::MaxPool {}
            | Self::Activation { .. } => 0,
        }
    }

    pub(crate) fn with_seed(mut self, new: u64) -> Self {
        match &mut self {
            Self::Rnn(Rnn { seed, .. })
            | Self::Lstm(Lstm { seed, .. })
            | Self::Gru(Gru { seed, .. })
            | Self::Embedding(Embedding { seed, .. })
            | Self::Linear(Linear { seed, .. })
            | Self::Dropout(Dropout { seed, .. }) => *seed = new,
            Self::LayerNorm(_)
            | Self::Last {}
            | Self::MeanPool {}
            | Self::MaxPool {}
            | Self::Activation { .. } => {}
        }
        self
    }

    pub(crate) fn described(&self) -> Option<Described> {
        match self {
            Self::Rnn(rnn) => Some(Described::Rnn(rnn.clone())),
            Self::Lstm(lstm) => Some(Described::Lstm(lstm.clone())),
            Self::Gru(gru) => Some(Described::Gru(gru.clone())),
            _ => None,
        }
    }

    /// How many numbers the parameters are, without making any: time and memory do not
    /// depend on the sizes.
    ///
    /// # Errors
    /// [`Error::Option`] and [`Error::Shape`] name what describes no layer.
    pub fn num_parameters(&self) -> Result<usize, Error> {
        if let Some(described) = self.described() {
            // Bounded by Spec::new, so that it fits.
            return Ok(recurrent::count(&described.stack()?) as usize);
        }
        match self {
            Self::Embedding(embedding) => embedding.count(),
            Self::Linear(linear) => linear.count(),
            Self::LayerNorm(norm) => norm.count(),
            Self::Dropout(dropout) => dropout.check().map(|()| 0),
            _ => Ok(0),
        }
    }

    /// Names, shapes and places of the parameters, in the order of their numbers.
    ///
    /// # Errors
    /// [`Error::Option`] and [`Error::Shape`] name what describes no layer.
    pub fn parameters(&self) -> Result<Vec<NamedParameter>, Error> {
        if let Some(described) = self.described() {
            return Ok(recurrent::parameters(&described.stack()?));
        }
        self.num_parameters()?;
        Ok(match self {
            Self::Embedding(embedding) => embedding.parameters(),
            Self::Linear(linear) => linear.parameters(),
            Self::LayerNorm(norm) => norm.parameters(),
            _ => Vec::new(),
        })
    }
}

/// A layer with its parameters. A clone shares them until one of the two changes them.
#[derive(Clone, Debug)]
pub enum Layer<T: Number> {
    /// RNN, LSTM or GRU: from rows to rows at each step, with a state.
    Recurrent(Recurrent<T>),
    /// From ids to rows.
    Embedding(EmbeddingLayer<T>),
    /// y = x W^T + b.
    Linear(LinearLayer<T>),
    /// Normalisation of each row.
    LayerNorm(LayerNormLayer<T>),
    /// Dropout in training.
    Dropout(Dropout),
    /// The output of the last live step; of a bidirectional layer, the last of each
    /// direction.
    Last,
    /// The mean over live steps.
    MeanPool,
    /// The maximum over live steps.
    MaxPool,
    /// A function of each number or row.
    Activation(Activation),
}

/// `self.parameters` of the layers that have some.
macro_rules! with_parameters {
    ($layer:expr, $parameters:ident => $body:expr, else $otherwise:expr) => {
        match $layer {
            Layer::Recurrent(Recurrent { parameters: $parameters, .. }) => $body,
            Layer::Embedding(EmbeddingLayer { parameters: $parameters, .. }) => $body,
            Layer::Linear(LinearLayer { parameters: $parameters, .. }) => $body,
            Layer::LayerNorm(LayerNormLayer { parameters: $parameters, .. }) => $body,
            Layer::Dropout(_)
            | Layer::Last
            | Layer::MeanPool
            | Layer::MaxPool
            | Layer::Activation(_) => $otherwise,
        }
    };
}

impl<T: Number> Layer<T> {
    /// The layer, its parameters drawn from its seed.
    ///
    /// # Errors
    /// [`Error::Option`] and [`Error::Shape`] name what describes no layer;
    /// [`Error::OutOfMemory`].
    pub fn new(spec: LayerSpec) -> Result<Self, Error> {
        if let Some(described) = spec.described() {
            return Ok(Self::Recurrent(Recurrent::new(described)?));
        }
        Ok(match spec {
            LayerSpec::Embedding(options) => Self::Embedding(EmbeddingLayer::new(options)?),
            LayerSpec::Linear(options) => Self::Linear(LinearLayer::new(options)?),
            LayerSpec::LayerNorm(options) => Self::LayerNorm(LayerNormLayer::new(options)?),
            other => Self::without_parameters(other)?,
        })
    }

    /// The layer with these numbers, in the order of [`LayerSpec::parameters`]; nothing is
    /// drawn.
    ///
    /// # Errors
    /// [`Error::Option`] and [`Error::Shape`] name what describes no layer, or a wrong
    /// count of numbers.
    pub fn with_numbers(spec: LayerSpec, numbers: Vec<T>) -> Result<Self, Error> {
        use crate::parameters::Parameters;
        check_len(spec.num_parameters()?, numbers.len())?;
        if let Some(described) = spec.described() {
            return Ok(Self::Recurrent(Recurrent::with_numbers(described, numbers)?));
        }
        Ok(match spec {
            LayerSpec::Embedding(options) => {
                Self::Embedding(EmbeddingLayer { options, parameters: Parameters::new(numbers) })
            }
            LayerSpec::Linear(options) => {
                Self::Linear(LinearLayer { options, parameters: Parameters::new(numbers) })
            }
            LayerSpec::LayerNorm(options) => {
                Self::LayerNorm(LayerNormLayer { options, parameters: Parameters::new(numbers) })
            }
            other => Self::without_parameters(other)?,
        })
    }

    /// The same layer in `f64`, of the same numbers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn widened(&self) -> Result<Layer<f64>, Error> {
        let mut numbers = room("parameters", self.numbers().len())?;
        numbers.extend(self.numbers().iter().map(|&number| Number::to_f64(number)));
        Layer::with_numbers(self.spec(), numbers)
    }

    fn without_parameters(spec: LayerSpec) -> Result<Self, Error> {
        spec.num_parameters()?;
        Ok(match spec {
            LayerSpec::Dropout(dropout) => Self::Dropout(dropout),
            LayerSpec::Last {} => Self::Last,
            LayerSpec::MeanPool {} => Self::MeanPool,
            LayerSpec::MaxPool {} => Self::MaxPool,
            LayerSpec::Activation { function } => Self::Activation(function),
            other => unreachable!("{} has parameters", other.name()),
        })
    }

    /// What describes the layer.
    pub fn spec(&self) -> LayerSpec {
        match self {
            Self::Recurrent(layer) => match layer.described() {
                Described::Rnn(rnn) => LayerSpec::Rnn(rnn.clone()),
                Described::Lstm(lstm) => LayerSpec::Lstm(lstm.clone()),
                Described::Gru(gru) => LayerSpec::Gru(gru.clone()),
            },
            Self::Embedding(layer) => LayerSpec::Embedding(layer.options.clone()),
            Self::Linear(layer) => LayerSpec::Linear(layer.options.clone()),
            Self::LayerNorm(layer) => LayerSpec::LayerNorm(layer.options.clone()),
            Self::Dropout(dropout) => LayerSpec::Dropout(dropout.clone()),
            Self::Last => LayerSpec::Last {},
            Self::MeanPool => LayerSpec::MeanPool {},
            Self::MaxPool => LayerSpec::MaxPool {},
            Self::Activation(function) => LayerSpec::Activation { function: *function },
        }
    }

    /// A layer of the same description but for the seed, with fresh parameters.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn reseeded(&self, seed: u64) -> Result<Self, Error> {
        Self::new(self.spec().with_seed(seed))
    }

    /// Names, shapes and places of the parameters, in the order of their numbers.
    pub fn parameters(&self) -> Vec<NamedParameter> {
        match self {
            Self::Recurrent(layer) => recurrent::parameters(layer.stack()),
            Self::Embedding(layer) => layer.options.parameters(),
            Self::Linear(layer) => layer.options.parameters(),
            Self::LayerNorm(layer) => layer.options.parameters(),
            _ => Vec::new(),
        }
    }

    /// The numbers of all parameters; none of a layer with small weights
    /// ([`quantised`](crate::quantised)).
    pub fn numbers(&self) -> &[T] {
        with_parameters!(self, parameters => parameters.numbers(), else &[])
    }

    /// The parameters of a layer with small weights, in the order of [`Layer::parameters`].
    pub(crate) fn tensors(&self) -> Option<&[Tensor]> {
        with_parameters!(self, parameters => parameters.tensors(), else None)
    }

    /// What the weights became, where they are small.
    pub fn quantisation(&self) -> Option<Quantisation> {
        self.tensors()?.iter().find_map(Tensor::kind)
    }

    /// Puts other numbers in place.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more or fewer of them.
    pub fn set_numbers(&mut self, numbers: Vec<T>) -> Result<(), Error> {
        check_len(self.num_parameters(), numbers.len())?;
        with_parameters!(self, parameters => parameters.replace(numbers), else ());
        Ok(())
    }

    /// The numbers of all parameters, to be changed. If a clone shares them, this layer
    /// gets a copy of its own first. None of a layer with small weights.
    pub fn numbers_mut(&mut self) -> &mut [T] {
        with_parameters!(self, parameters => parameters.make_mut(), else &mut [])
    }

    /// Takes a copy of the numbers where a clone shares them, so that
    /// [`Layer::numbers_mut`] needs no memory.
    pub(crate) fn unshare(&mut self) -> Result<(), Error> {
        with_parameters!(self, parameters => parameters.unshare(), else Ok(()))
    }

    /// A number that is another one after every change of the parameters, and that no
    /// other layer of this process has unless it shares them; 0 without parameters.
    pub fn version(&self) -> u64 {
        with_parameters!(self, parameters => parameters.version(), else 0)
    }

    /// How many numbers the parameters are.
    pub fn num_parameters(&self) -> usize {
        with_parameters!(self, parameters => parameters.count(), else 0)
    }

    /// The type of the numbers.
    pub fn dtype(&self) -> DType {
        T::DTYPE
    }

    /// Numbers a step brings; none if that is up to the layer below, or for ids.
    pub fn input_width(&self) -> Option<usize> {
        match self {
            Self::Recurrent(layer) => Some(layer.stack().options().input_size),
            Self::Linear(layer) => Some(layer.options.in_features),
            Self::LayerNorm(layer) => Some(layer.options.size),
            _ => None,
        }
    }

    /// Numbers given out for `input` numbers in; none where that is not known.
    pub fn output_width(&self, input: Option<usize>) -> Option<usize> {
        match self {
            Self::Recurrent(layer) => Some(layer.stack().output_size()),
            Self::Embedding(layer) => Some(layer.options.embedding_dim),
            Self::Linear(layer) => Some(layer.options.out_features),
            Self::LayerNorm(layer) => Some(layer.options.size),
            _ => input,
        }
    }

    /// The name of the kind, as the Python class has it.
    pub fn name(&self) -> &'static str {
        self.spec().name()
    }
}

/// Whether a layer has as many numbers as its description says.
pub(crate) fn check_len(expected: usize, got: usize) -> Result<(), Error> {
    match expected == got {
        true => Ok(()),
        false => Err(Error::shape("parameters", format!("{expected} numbers"), got)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<LayerSpec> {
        vec![
            LayerSpec::Rnn(Rnn::new(2, 3).layers(2).bidirectional(true)),
            LayerSpec::Lstm(Lstm::new(2, 5).proj_size(3).layers(3).seed(1 << 63)),
            LayerSpec::Lstm(Lstm::new(2, 5).peepholes(true).bidirectional(true)),
            LayerSpec::Gru(Gru::new(2, 3).bias(false).batch_first(false)),
            LayerSpec::Embedding(Embedding::new(7, 2).padding_idx(6)),
            LayerSpec::Linear(Linear::new(2, 4).bias(false)),
            LayerSpec::LayerNorm(LayerNorm::new(6)),
            LayerSpec::Dropout(Dropout::new(0.25)),
            LayerSpec::Last {},
            LayerSpec::MeanPool {},
            LayerSpec::MaxPool {},
            LayerSpec::Activation { function: Activation::Softmax },
        ]
    }

    #[test]
    fn every_layer_comes_back_from_json_and_from_its_numbers() {
        for spec in specs() {
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<LayerSpec>(&json).unwrap(), spec, "{json}");
            let layer = Layer::<f32>::new(spec.clone()).unwrap();
            assert_eq!(layer.spec(), spec);
            assert_eq!(spec.num_parameters().unwrap(), layer.num_parameters());
            assert_eq!(spec.parameters().unwrap(), layer.parameters());
            let again = Layer::with_numbers(spec.clone(), layer.numbers().to_vec()).unwrap();
            assert_eq!(again.numbers(), layer.numbers());
            assert!(Layer::<f32>::with_numbers(spec, vec![0.0; 1000]).is_err());
            let end = layer.parameters().last().map_or(0, |p| p.range.end);
            assert_eq!(end, layer.num_parameters());
        }
    }

    #[test]
    fn unknown_kinds_fields_and_types_are_refused() {
        for json in [
            r#"{"kind": "last", "of": 1}"#,
            r#"{"kind": "lost"}"#,
            r#"{"kind": "dropout", "p": 0.5, "q": 1}"#,
            r#"{"kind": "linear", "in_features": 3.0, "out_features": 2, "bias": true}"#,
            r#"{"kind": "linear", "in_features": "3", "out_features": 2, "bias": true}"#,
            r#"{"kind": "linear", "in_features": -3, "out_features": 2, "bias": true}"#,
            r#"{"kind": "linear", "in_features": 3, "out_features": 2}"#,
            r#"{"kind": "activation", "function": "exec"}"#,
            r#"{"in_features": 3, "out_features": 2, "bias": true}"#,
        ] {
            assert!(serde_json::from_str::<LayerSpec>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn what_describes_no_layer_is_refused_by_name_before_memory_is_asked_for() {
        let huge = usize::MAX / 4;
        for (spec, name) in [
            (LayerSpec::Lstm(Lstm::new(0, 3)), "input_size"),
            (LayerSpec::Lstm(Lstm::new(3, 3).forget_bias(f64::NAN)), "forget_bias"),
            (LayerSpec::Lstm(Lstm::new(3, 1 << 40)), "hidden_size"),
            (LayerSpec::Gru(Gru::new(3, 3).dropout(1.0)), "dropout"),
            (LayerSpec::Rnn(Rnn::new(1, 1).layers(1_000_000_000)), "num_layers"),
            (LayerSpec::Linear(Linear::new(3, 0)), "out_features"),
            (LayerSpec::Linear(Linear::new(huge, huge)), "in_features"),
            (LayerSpec::Embedding(Embedding::new(4, 2).padding_idx(4)), "padding_idx"),
            (LayerSpec::Embedding(Embedding::new(huge, 1)), "num_embeddings"),
            (LayerSpec::LayerNorm(LayerNorm::new(4).eps(0.0)), "eps"),
            (LayerSpec::LayerNorm(LayerNorm::new(0)), "size"),
            (LayerSpec::Dropout(Dropout::new(f64::NAN)), "p:"),
        ] {
            let message = Layer::<f32>::new(spec).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        let deep = LayerSpec::Rnn(Rnn::new(1, 1).layers(1_000));
        assert_eq!(deep.num_parameters().unwrap(), 4_000);
    }

    #[test]
    fn a_seed_decides_the_parameters() {
        for spec in specs() {
            let layer = Layer::<f64>::new(spec).unwrap();
            let again = layer.reseeded(layer.spec().seed()).unwrap();
            assert_eq!(layer.numbers(), again.numbers());
            let other = layer.reseeded(77).unwrap();
            if !matches!(layer, Layer::LayerNorm(_)) && layer.num_parameters() > 0 {
                assert_ne!(layer.numbers(), other.numbers());
                assert_eq!(other.spec().seed(), 77);
            }
        }
    }

    #[test]
    fn a_change_of_the_numbers_is_a_new_version() {
        let mut layer = Linear::new(2, 2).build::<f32>().unwrap();
        let clone = layer.clone();
        assert_eq!(layer.version(), clone.version());
        layer.numbers_mut()[0] = 9.0;
        assert_ne!(layer.version(), clone.version());
        assert_ne!(layer.numbers()[0], clone.numbers()[0]);
        assert!(layer.set_numbers(vec![0.0; 5]).is_err());
        layer.set_numbers(vec![0.0; 6]).unwrap();
        assert_eq!(Layer::<f32>::Last.version(), 0);
    }
}
