//! The recurrent layers: RNN, LSTM and GRU.

use std::ops::Deref;

use seqrs_core::backend::State;
use seqrs_core::cell::{Bound, CellKind, Chosen, Equations, Function};
use seqrs_core::memory::Lent;
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::sequence::{self, StackWeights};
use seqrs_core::spec::{Options, Spec};
use seqrs_core::tape::Tape;
use seqrs_core::{Error, Steps, memory};
use seqrs_cpu::Cpu;
use serde::{Deserialize, Serialize};

use super::dropout;
use crate::init;
use crate::layer::{Layer, LayerSpec, NamedParameter, check_len};
use crate::number::Number;
use crate::parameters::{Form, Parameters};
use crate::quantised::layer as small;
use crate::room::{copied, copied_state};
use crate::state_room::StateRoom;

// A layer's file says nothing of what is as it is by default, so that the file of a plain layer is
// the one that it was before there was anything else.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn sigmoid() -> Function {
    Function::SIGMOID
}

fn is_sigmoid(function: &Function) -> bool {
    *function == Function::SIGMOID
}

fn tanh() -> Function {
    Function::TANH
}

fn is_tanh(function: &Function) -> bool {
    *function == Function::TANH
}

/// A plain recurrent network (Elman 1990): `a<t> = g1(W_aa a<t-1> + W_ax x<t> + b_a)`, g1 =
/// tanh or relu; W_aa is `weight_hh`, W_ax `weight_ih`, b_a the sum of both biases.
///
/// ```
/// let layer = seqrs::Rnn::new(3, 8).layers(2).build::<f64>()?;
/// assert_eq!(layer.num_parameters(), (3 + 8 + 2) * 8 + (8 + 8 + 2) * 8);
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rnn {
    /// Numbers a step brings, I.
    pub input_size: usize,
    /// Units, H.
    pub hidden_size: usize,
    /// Layers on top of each other, L.
    pub num_layers: usize,
    /// What each unit does to its sum.
    pub nonlinearity: Function,
    /// The sums are cut to [-clip, clip] before it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clip: Option<f64>,
    /// Whether there are biases.
    pub bias: bool,
    /// Whether each layer also has a direction from the last step to the first.
    pub bidirectional: bool,
    /// Share of the outputs between two layers that training sets to zero, in [0, 1).
    pub dropout: f64,
    /// Share of h' that the recurrent products of a training step do not see, the same units at all
    /// steps of a sequence (Gal and Ghahramani 2016), in [0, 1).
    #[serde(default, skip_serializing_if = "is_default")]
    pub recurrent_dropout: f64,
    /// Share of h that stays as it was before a step (zoneout: Krueger et al. 2017), in [0, 1): by
    /// chance in training, the mean of both otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub zoneout: f64,
    /// Whether callers' arrays are (B, T, I), not (T, B, I).
    pub batch_first: bool,
    /// Where the initial parameters come from.
    #[serde(default)]
    pub seed: u64,
}

/// Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et
/// al. 2000): f, i, o = s(W [h', x] + b), c~ = tanh(W_c [h', x] + b_c), c = f*c' + i*c~,
/// h = o*tanh(c). With peepholes (Gers and Schmidhuber 2000) each gate also sees its unit's cell
/// state, times one number a unit: i and f see c', o sees c.
///
/// ```
/// let layer = seqrs::Lstm::new(64, 256).layers(2).bidirectional(true).build::<f32>()?;
/// assert_eq!(layer.parameters()[0].name, "weight_ih_l0");
/// assert_eq!(layer.parameters()[0].shape, [4 * 256, 64]);
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lstm {
    /// Numbers a step brings, I.
    pub input_size: usize,
    /// Units, H.
    pub hidden_size: usize,
    /// Layers on top of each other, L.
    pub num_layers: usize,
    /// Whether there are biases.
    pub bias: bool,
    /// Whether each layer also has a direction from the last step to the first.
    pub bidirectional: bool,
    /// Share of the outputs between two layers that training sets to zero, in [0, 1).
    pub dropout: f64,
    /// Share of h' that the recurrent products of a training step do not see, the same units at all
    /// steps of a sequence (Gal and Ghahramani 2016), in [0, 1).
    #[serde(default, skip_serializing_if = "is_default")]
    pub recurrent_dropout: f64,
    /// Share of h that stays as it was before a step (zoneout: Krueger et al. 2017), in [0, 1): by
    /// chance in training, the mean of both otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub zoneout: f64,
    /// The same of the cell state.
    #[serde(default, skip_serializing_if = "is_default")]
    pub zoneout_cell: f64,
    /// Size P of the projected hidden state (Sak et al. 2014), or 0 for none.
    pub proj_size: usize,
    /// Whether gates see the cell state: `weight_ci`, `weight_cf` and `weight_co`, (H) each.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peepholes: bool,
    /// Whether there is no forget gate: f = 1 - i (the CIFG of Greff et al. 2017).
    #[serde(default, skip_serializing_if = "is_default")]
    pub coupled: bool,
    /// The function of the gates, in place of the sigmoid.
    #[serde(default = "sigmoid", skip_serializing_if = "is_sigmoid")]
    pub gate_activation: Function,
    /// That of the candidate, in place of tanh.
    #[serde(default = "tanh", skip_serializing_if = "is_tanh")]
    pub candidate_activation: Function,
    /// That of the cell state on its way into h, in place of tanh.
    #[serde(default = "tanh", skip_serializing_if = "is_tanh")]
    pub output_activation: Function,
    /// The sums of gates and candidate are cut to [-clip, clip] before their functions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clip: Option<f64>,
    /// Whether x W_ih^T, h' W_hh^T and, of an LSTM, the c that h shows are normalised (Ba et al.
    /// 2016, as haste has it): `norm_ih`, `norm_hh` (G H), `norm_c`, `norm_bias_c` (H). Not with
    /// peepholes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub layer_norm: bool,
    /// Initial value of the forget gate's part of `bias_ih`; with coupled gates that of the input
    /// gate is minus it, which is the same.
    pub forget_bias: f64,
    /// Whether callers' arrays are (B, T, I), not (T, B, I).
    pub batch_first: bool,
    /// Where the initial parameters come from.
    #[serde(default)]
    pub seed: u64,
}

/// Gated recurrent units (Cho et al. 2014): u, r = s(W [c', x] + b),
/// c~ = tanh(W_c [r*c', x] + b_c), c = u*c' + (1-u)*c~, a = c.
///
/// ```
/// let layer = seqrs::Gru::new(4, 16).reset_after(true).build::<f32>()?;
/// assert_eq!(layer.parameters().len(), 4);
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gru {
    /// Numbers a step brings, I.
    pub input_size: usize,
    /// Units, H.
    pub hidden_size: usize,
    /// Layers on top of each other, L.
    pub num_layers: usize,
    /// Whether the reset gate acts after the product with the hidden state (PyTorch,
    /// cuDNN), not on the hidden state before it (the textbook). Two different functions.
    pub reset_after: bool,
    /// The function of the gates, in place of the sigmoid.
    #[serde(default = "sigmoid", skip_serializing_if = "is_sigmoid")]
    pub gate_activation: Function,
    /// That of the candidate, in place of tanh.
    #[serde(default = "tanh", skip_serializing_if = "is_tanh")]
    pub candidate_activation: Function,
    /// The sums of gates and candidate are cut to [-clip, clip] before their functions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clip: Option<f64>,
    /// Whether x W_ih^T and h' W_hh^T are normalised (Ba et al. 2016, as haste has it): `norm_ih`,
    /// `norm_hh` (G H). With `reset_after` only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub layer_norm: bool,
    /// Whether there are biases.
    pub bias: bool,
    /// Whether each layer also has a direction from the last step to the first.
    pub bidirectional: bool,
    /// Share of the outputs between two layers that training sets to zero, in [0, 1).
    pub dropout: f64,
    /// Share of h' that the recurrent products of a training step do not see, the same units at all
    /// steps of a sequence (Gal and Ghahramani 2016), in [0, 1).
    #[serde(default, skip_serializing_if = "is_default")]
    pub recurrent_dropout: f64,
    /// Share of h that stays as it was before a step (zoneout: Krueger et al. 2017), in [0, 1): by
    /// chance in training, the mean of both otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub zoneout: f64,
    /// Whether callers' arrays are (B, T, I), not (T, B, I).
    pub batch_first: bool,
    /// Where the initial parameters come from.
    #[serde(default)]
    pub seed: u64,
}

macro_rules! builder {
    ($name:ident {$($extra:ident: $value:expr),*} {$(#[$doc:meta] $option:ident: $type:ty;)*}) => {
        impl $name {
            /// `input_size` numbers a step, `hidden_size` units: one layer, forwards, with
            /// biases, batch first, seed 0.
            pub fn new(input_size: usize, hidden_size: usize) -> Self {
                Self {
                    input_size,
                    hidden_size,
                    num_layers: 1,
                    bias: true,
                    bidirectional: false,
                    dropout: 0.0,
                    recurrent_dropout: 0.0,
                    zoneout: 0.0,
                    batch_first: true,
                    seed: 0,
                    $($extra: $value,)*
                }
            }

            /// Layers on top of each other, L.
            #[must_use]
            pub fn layers(mut self, num_layers: usize) -> Self {
                self.num_layers = num_layers;
                self
            }

            /// Whether there are biases.
            #[must_use]
            pub fn bias(mut self, bias: bool) -> Self {
                self.bias = bias;
                self
            }

            /// Whether each layer also has a direction from the last step to the first.
            #[must_use]
            pub fn bidirectional(mut self, bidirectional: bool) -> Self {
                self.bidirectional = bidirectional;
                self
            }

            /// Share of the outputs between two layers that training sets to zero, in [0, 1).
            #[must_use]
            pub fn dropout(mut self, dropout: f64) -> Self {
                self.dropout = dropout;
                self
            }

            /// Share of h' that the recurrent products of a training step do not see, the same
            /// units at all steps of a sequence (Gal and Ghahramani 2016), in [0, 1).
            #[must_use]
            pub fn recurrent_dropout(mut self, recurrent_dropout: f64) -> Self {
                self.recurrent_dropout = recurrent_dropout;
                self
            }

            /// Share of h that stays as it was before a step (zoneout: Krueger et al. 2017), in
            /// [0, 1): by chance in training, the mean of both otherwise.
            #[must_use]
            pub fn zoneout(mut self, zoneout: f64) -> Self {
                self.zoneout = zoneout;
                self
            }

            /// Whether callers' arrays are (B, T, I), not (T, B, I).
            #[must_use]
            pub fn batch_first(mut self, batch_first: bool) -> Self {
                self.batch_first = batch_first;
                self
            }

            /// Where the initial parameters come from.
            #[must_use]
            pub fn seed(mut self, seed: u64) -> Self {
                self.seed = seed;
                self
            }

            $(
                #[$doc]
                #[must_use]
                pub fn $option(mut self, $option: $type) -> Self {
                    self.$option = $option.into();
                    self
                }
            )*

            /// The layer, with its initial parameters.
            ///
            /// # Errors
            /// [`Error::Option`] and [`Error::Shape`] name the option that describes no
            /// layer; [`Error::OutOfMemory`].
            pub fn build<T: Number>(self) -> Result<Layer<T>, Error> {
                Layer::new(LayerSpec::$name(self))
            }

            fn options(&self, cell: CellKind) -> Options {
                Options {
                    num_layers: self.num_layers,
                    bias: self.bias,
                    bidirectional: self.bidirectional,
                    dropout: self.dropout,
                    recurrent_dropout: self.recurrent_dropout,
                    zoneout: self.zoneout,
                    ..Options::new(cell, self.input_size, self.hidden_size)
                }
            }
        }
    };
}

builder!(Rnn { nonlinearity: Function::TANH, clip: None } {
    #[doc = "What each unit does to its sum, such as `FunctionName::Relu`."]
    nonlinearity: impl Into<Function>;
    #[doc = "The sums are cut to [-clip, clip] before it."]
    clip: f64;
});
builder!(Lstm {
    proj_size: 0,
    peepholes: false,
    coupled: false,
    gate_activation: Function::SIGMOID,
    candidate_activation: Function::TANH,
    output_activation: Function::TANH,
    clip: None,
    zoneout_cell: 0.0,
    layer_norm: false,
    forget_bias: 1.0
} {
    #[doc = "Whether x W_ih^T, h' W_hh^T and the c that h shows are normalised (Ba et al. 2016)."]
    layer_norm: bool;
    #[doc = "Share of c that stays as it was before a step, as `zoneout` is of h."]
    zoneout_cell: f64;
    #[doc = "Size P of the projected hidden state (Sak et al. 2014), or 0 for none."]
    proj_size: usize;
    #[doc = "Whether gates see the cell state: `weight_ci`, `weight_cf` and `weight_co`, (H) each."]
    peepholes: bool;
    #[doc = "Whether there is no forget gate: f = 1 - i (the CIFG of Greff et al. 2017)."]
    coupled: bool;
    #[doc = "The function of the gates, in place of the sigmoid."]
    gate_activation: impl Into<Function>;
    #[doc = "That of the candidate, in place of tanh."]
    candidate_activation: impl Into<Function>;
    #[doc = "That of the cell state on its way into h, in place of tanh."]
    output_activation: impl Into<Function>;
    #[doc = "The sums of gates and candidate are cut to [-clip, clip] before their functions."]
    clip: f64;
    #[doc = "Initial value of the forget gate's part of `bias_ih`."]
    forget_bias: f64;
});
builder!(Gru {
    reset_after: false,
    gate_activation: Function::SIGMOID,
    candidate_activation: Function::TANH,
    clip: None,
    layer_norm: false
} {
    #[doc = "Whether x W_ih^T and h' W_hh^T are normalised (Ba et al. 2016)."]
    layer_norm: bool;
    #[doc = "Whether the reset gate acts after the product with the hidden state (PyTorch, cuDNN)."]
    reset_after: bool;
    #[doc = "The function of the gates, in place of the sigmoid."]
    gate_activation: impl Into<Function>;
    #[doc = "That of the candidate, in place of tanh."]
    candidate_activation: impl Into<Function>;
    #[doc = "The sums of gates and candidate are cut to [-clip, clip] before their functions."]
    clip: f64;
});

/// What describes a recurrent layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Described {
    Rnn(Rnn),
    Lstm(Lstm),
    Gru(Gru),
}

impl Described {
    /// The stack of cells that is described.
    pub(crate) fn stack(&self) -> Result<Spec, Error> {
        let (equations, chosen) = self.cell();
        chosen.check()?;
        let cell = CellKind::of(equations, chosen);
        Spec::new(match self {
            Self::Rnn(rnn) => rnn.options(cell),
            Self::Lstm(lstm) => {
                if !lstm.forget_bias.is_finite() {
                    let expected = "a finite number";
                    return Err(Error::option("forget_bias", expected, lstm.forget_bias));
                }
                Options {
                    proj_size: lstm.proj_size,
                    zoneout_cell: lstm.zoneout_cell,
                    layer_norm: lstm.layer_norm,
                    ..lstm.options(cell)
                }
            }
            Self::Gru(gru) => Options { layer_norm: gru.layer_norm, ..gru.options(cell) },
        })
    }

    /// The equations, and the functions in them.
    fn cell(&self) -> (Equations, Chosen) {
        match self {
            Self::Rnn(rnn) => (
                Equations::Rnn,
                Chosen {
                    candidate: rnn.nonlinearity,
                    clip: rnn.clip.map(Bound),
                    ..Chosen::default()
                },
            ),
            Self::Lstm(lstm) => (
                match (lstm.coupled, lstm.peepholes) {
                    (false, false) => Equations::Lstm,
                    (false, true) => Equations::LstmPeephole,
                    (true, false) => Equations::LstmCoupled,
                    (true, true) => Equations::LstmCoupledPeephole,
                },
                Chosen {
                    gate: lstm.gate_activation,
                    candidate: lstm.candidate_activation,
                    output: lstm.output_activation,
                    clip: lstm.clip.map(Bound),
                },
            ),
            Self::Gru(gru) => (
                if gru.reset_after { Equations::GruResetAfter } else { Equations::GruResetBefore },
                Chosen {
                    gate: gru.gate_activation,
                    candidate: gru.candidate_activation,
                    clip: gru.clip.map(Bound),
                    ..Chosen::default()
                },
            ),
        }
    }

    fn seed(&self) -> u64 {
        match self {
            Self::Rnn(rnn) => rnn.seed,
            Self::Lstm(lstm) => lstm.seed,
            Self::Gru(gru) => gru.seed,
        }
    }
}

/// Numbers of all parameters of a stack, without a loop over its layers.
pub(crate) fn count(stack: &Spec) -> u128 {
    let directions = stack.directions().len() as u128;
    let above = match stack.num_layers() {
        1 => 0,
        layers => (layers as u128 - 1) * stack.shape(1).len() as u128,
    };
    directions * (stack.shape(0).len() as u128 + above)
}

/// Names, shapes and places of the parameters of a stack.
pub(crate) fn parameters(stack: &Spec) -> Vec<NamedParameter> {
    let parameters = stack.parameters().into_iter();
    parameters.map(|p| NamedParameter { name: p.name, shape: p.shape, range: p.range }).collect()
}

/// A recurrent layer with its parameters.
#[derive(Clone, Debug)]
pub struct Recurrent<T: Number> {
    described: Box<Described>,
    stack: Spec,
    pub(crate) parameters: Parameters<T, StackWeights<Cpu<T>>>,
}

impl<T: Number> Recurrent<T> {
    pub(crate) fn new(described: Described) -> Result<Self, Error> {
        let stack = described.stack()?;
        let forget_bias = match &described {
            Described::Lstm(lstm) => lstm.forget_bias,
            Described::Rnn(_) | Described::Gru(_) => 0.0,
        };
        let numbers = init::recurrent(&stack, described.seed(), forget_bias)?;
        Ok(Self { described: Box::new(described), stack, parameters: Parameters::new(numbers) })
    }

    /// With numbers whose count was checked.
    pub(crate) fn with_numbers(described: Described, numbers: Vec<T>) -> Result<Self, Error> {
        Self::with_parameters(described, Parameters::new(numbers))
    }

    /// With parameters that were checked.
    pub(crate) fn with_parameters(
        described: Described,
        parameters: Parameters<T, StackWeights<Cpu<T>>>,
    ) -> Result<Self, Error> {
        let stack = described.stack()?;
        Ok(Self { described: Box::new(described), stack, parameters })
    }

    /// One layer of the stack, or one direction of it, as a layer of its own, which walks
    /// forwards if it is a direction.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn part(&self, layer: usize, direction: Option<usize>) -> Result<Self, Error> {
        let mut described = (*self.described).clone();
        let (input_size, num_layers, bidirectional) = match &mut described {
            Described::Rnn(o) => (&mut o.input_size, &mut o.num_layers, &mut o.bidirectional),
            Described::Lstm(o) => (&mut o.input_size, &mut o.num_layers, &mut o.bidirectional),
            Described::Gru(o) => (&mut o.input_size, &mut o.num_layers, &mut o.bidirectional),
        };
        *input_size = self.stack.shape(layer).input;
        *num_layers = 1;
        *bidirectional &= direction.is_none();
        let last = self.stack.directions().len() - 1;
        let start = self.stack.slot_range(layer, direction.unwrap_or(0)).start;
        let end = self.stack.slot_range(layer, direction.unwrap_or(last)).end;
        let numbers = copied("parameters", &self.parameters.numbers()[start..end])?;
        Self::with_numbers(described, numbers)
    }

    /// The stack of cells: sizes, layers, directions.
    pub fn stack(&self) -> &Spec {
        &self.stack
    }

    /// Whether callers' arrays are (B, T, I), not (T, B, I).
    pub fn batch_first(&self) -> bool {
        match &*self.described {
            Described::Rnn(rnn) => rnn.batch_first,
            Described::Lstm(lstm) => lstm.batch_first,
            Described::Gru(gru) => gru.batch_first,
        }
    }

    pub(crate) fn described(&self) -> &Described {
        &self.described
    }

    /// Zero states for `batch` rows: h (L D, B, state size) and, for an LSTM, c (L D, B, H).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn initial_state(&self, batch: usize) -> Result<State<Vec<T>>, Error> {
        let rows = self.stack.slots() * batch;
        let c = match self.stack.cell().states() {
            1 => None,
            _ => Some(memory::zeros("state", rows * self.stack.options().hidden_size)?),
        };
        Ok(State { h: memory::zeros("state", rows * self.stack.state_size())?, c })
    }

    /// Inference without a copy of inputs or outputs: reads the rows of live items from
    /// `x`, I numbers each, and writes theirs to `y`, D times the state size each; the rest
    /// of `y` is left as it is. `state` goes from its initial to its final value.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x`, `y` or `state` is too short for the batch;
    /// [`Error::OutOfMemory`], [`Error::Interrupted`]. The state is then as it was.
    pub fn infer_into(
        &self,
        cpu: &Cpu<T>,
        x: Rows<'_, [T]>,
        steps: &Steps,
        state: &mut State<Vec<T>>,
        y: RowsMut<'_, [T]>,
    ) -> Result<(), Error> {
        let mut new = copied_state(state)?;
        self.infer_over(cpu, x, steps, &mut new, y)?;
        *state = new;
        Ok(())
    }

    /// As [`infer_into`](Self::infer_into), for who needs `state` no more if that fails: it may
    /// be anything then, and is not copied first.
    ///
    /// # Errors
    /// As [`infer_into`](Self::infer_into).
    pub fn infer_over(
        &self,
        cpu: &Cpu<T>,
        x: Rows<'_, [T]>,
        steps: &Steps,
        state: &mut State<Vec<T>>,
        y: RowsMut<'_, [T]>,
    ) -> Result<(), Error> {
        check_rows("x", x.data.len(), x.place, steps, self.stack.options().input_size)?;
        check_rows("y", y.data.len(), y.place, steps, self.stack.output_size())?;
        self.check_state(|| "state".to_string(), state, steps.batch())?;
        sequence::infer(cpu, &self.stack, &*self.weights(cpu)?, x, steps, state.lent(), y)
    }

    /// One step: `x` (B, I), `y` (B, state size).
    ///
    /// # Errors
    /// [`Error::State`] for a bidirectional layer, which needs the whole sequence;
    /// otherwise as [`Recurrent::infer_into`].
    pub fn step_into(
        &self,
        cpu: &Cpu<T>,
        x: &[T],
        batch: usize,
        state: &mut State<Vec<T>>,
        y: &mut [T],
    ) -> Result<(), Error> {
        self.check_stepwise(|| "step".to_string())?;
        let steps = Steps::dense(1, batch)?;
        check_rows("x", x.len(), Place::packed(self.input_size()), &steps, self.input_size())?;
        let width = self.stack.output_size();
        check_rows("y", y.len(), Place::packed(width), &steps, width)?;
        self.check_state(|| "state".to_string(), state, batch)?;
        let mut room = StateRoom::of([self.state_lens(batch)])?;
        let mut lent = room.lend();
        lent[0].h.copy_from_slice(&state.h);
        if let (Some(to), Some(c)) = (&mut lent[0].c, &state.c) {
            to.copy_from_slice(c);
        }
        self.infer_packed(cpu, x, &steps, lent[0].lent(), y)?;
        state.h.copy_from_slice(lent[0].h);
        if let (Some(c), Some(from)) = (&mut state.c, &lent[0].c) {
            c.copy_from_slice(from);
        }
        Ok(())
    }

    fn input_size(&self) -> usize {
        self.stack.options().input_size
    }

    /// `title` is what a message calls the layer.
    pub(crate) fn check_stepwise(&self, title: impl Fn() -> String) -> Result<(), Error> {
        if self.stack.options().bidirectional {
            let expected = "a layer that walks forwards only";
            let got = "a bidirectional one, whose reverse direction begins at the last step";
            return Err(Error::state(title(), expected, got));
        }
        Ok(())
    }

    /// `title` is what a message calls the state.
    pub(crate) fn check_state<S: Deref<Target = [T]>>(
        &self,
        title: impl Fn() -> String,
        state: &State<S>,
        batch: usize,
    ) -> Result<(), Error> {
        let slots = self.stack.slots();
        let check = |letter: &str, len: usize, size: usize| match len == slots * batch * size {
            true => Ok(()),
            false => Err(Error::shape(
                format!("{}: {letter}", title()),
                format!("{slots} x {batch} x {size} numbers"),
                len,
            )),
        };
        check("h", state.h.len(), self.stack.state_size())?;
        self.check_parts(&title, state)?;
        match &state.c {
            Some(c) => check("c", c.len(), self.stack.options().hidden_size),
            None => Ok(()),
        }
    }

    /// Whether there is a c is that of the layer.
    pub(crate) fn check_parts<S>(
        &self,
        title: impl Fn() -> String,
        state: &State<S>,
    ) -> Result<(), Error> {
        match (&state.c, self.stack.cell().states()) {
            (Some(_), 2) | (None, 1) => Ok(()),
            (Some(_), _) => Err(Error::state(title(), "h alone", "h and c (those of an LSTM)")),
            (None, _) => Err(Error::state(title(), "h and c", "h alone")),
        }
    }

    /// One step, or more of one row, of what was checked: packed `x` to packed `y`.
    pub(crate) fn infer_packed(
        &self,
        cpu: &Cpu<T>,
        x: &[T],
        steps: &Steps,
        state: State<&mut [T]>,
        y: &mut [T],
    ) -> Result<(), Error> {
        let x = Rows { data: x, place: Place::packed(self.input_size()) };
        self.infer(cpu, x, steps, state, y)
    }

    /// Inference within a model, which has checked x and the state, to packed `y`.
    pub(crate) fn infer(
        &self,
        cpu: &Cpu<T>,
        x: Rows<'_, [T]>,
        steps: &Steps,
        state: State<&mut [T]>,
        y: &mut [T],
    ) -> Result<(), Error> {
        let y = RowsMut { data: y, place: Place::packed(self.stack.output_size()) };
        sequence::infer(cpu, &self.stack, &*self.weights(cpu)?, x, steps, state, y)
    }

    fn weights(&self, cpu: &Cpu<T>) -> Result<Form<'_, StackWeights<Cpu<T>>>, Error> {
        use seqrs_core::backend::Backend;
        self.parameters.packed(cpu.level(), |numbers| {
            if let Some(tensors) = self.parameters.tensors() {
                return small::packed_stack(cpu.level(), &self.stack, tensors);
            }
            check_len(self.stack.len(), numbers.len())?;
            let layers = 0..self.stack.num_layers();
            let pack = |layer: usize| {
                let shape = self.stack.shape(layer);
                let directions = 0..shape.directions;
                let pack = |d| cpu.weights(&shape, &numbers[self.stack.slot_range(layer, d)]);
                directions.map(pack).collect()
            };
            layers.map(pack).collect()
        })
    }

    /// Training; `dropout` is the seed of the draw and the number of the layer.
    pub(crate) fn record(
        &self,
        cpu: &Cpu<T>,
        x: Rows<'_, [T]>,
        steps: &Steps,
        state: &mut State<Vec<T>>,
        dropout: Option<(u64, usize)>,
    ) -> Result<Tape<Lent<T>>, Error> {
        let masks = dropout::masks(cpu, &self.stack, steps, dropout)?;
        let weights = self.weights(cpu)?;
        sequence::record(cpu, &self.stack, &weights, x, steps.clone(), state, masks)
    }

    pub(crate) fn backward(
        &self,
        cpu: &Cpu<T>,
        tape: &Tape<Lent<T>>,
        d_y: Option<&[T]>,
        d_state: &mut State<Vec<T>>,
        d_numbers: &mut [T],
        want_d_x: bool,
    ) -> Result<Option<Vec<T>>, Error> {
        let place = Place::packed(self.stack.output_size());
        let d_y = d_y.map(|data| Rows { data, place });
        let weights = self.weights(cpu)?;
        sequence::backward(cpu, &self.stack, &weights, tape, d_y, d_state, d_numbers, want_d_x)
    }
}

/// Checks that an array of `len` numbers holds a row of `width` for every item.
pub(crate) fn check_rows(
    what: &str,
    len: usize,
    place: Place,
    steps: &Steps,
    width: usize,
) -> Result<(), Error> {
    if steps.items() == 0 {
        return Ok(());
    }
    let end = |start: usize, last: &[(usize, usize)]| {
        last.iter().try_fold(start.checked_add(width)?, |end, &(count, stride)| {
            end.checked_add((count - 1).checked_mul(stride)?)
        })
    };
    let end = match place {
        Place::Packed { start, stride } => end(start, &[(steps.items(), stride)]),
        Place::Padded { start, time, batch } => {
            end(start, &[(steps.time(), time), (steps.batch(), batch)])
        }
    };
    match end {
        Some(end) if end <= len => Ok(()),
        _ => Err(Error::shape(
            what,
            format!("{} rows of {width} numbers", steps.items()),
            format!("{len} numbers"),
        )),
    }
}
