//! How a model stands on a batch, in numbers: saturated gates, dead units, gradients that
//! vanish or explode.

use std::collections::BTreeMap;

use ndarray::{ArrayView2, s};
use seqrs_core::backend::State;
use seqrs_core::cell::{Bundle, Cell, CellKind, Function, FunctionName, MAX_BUNDLE};
use seqrs_core::lanes::Lanes;
use seqrs_core::memory::Lent;
use seqrs_core::rows::{Place, Rows};
use seqrs_core::spec::Shape;
use seqrs_core::steps::Direction;
use seqrs_core::tape::DirectionTape;
use seqrs_core::tape::Tape;
use seqrs_core::{Error, Steps, memory, with_cell};
use seqrs_cpu::Cpu;
use serde::Serialize;

use super::{Batch, Targets};
use crate::layer::Layer;
use crate::layers::recurrent::Recurrent;
use crate::losses::Loss;
use crate::model_tape::{ModelGradients, Record};
use crate::number::Number;
use crate::room::{copied, room};
use crate::sequential::{Input, ModelState, Sequential};
use crate::spectrum::{spectral_norm, spectral_radius};
use crate::targets::Target;
use crate::trainer::{loss_of, outputs};

/// Where the gates of a sigmoid count as saturated: at most the first, or at least the second
/// (Karpathy, Johnson and Li 2015, arXiv 1506.02078).
const SIGMOID_ENDS: (f64, f64) = (0.1, 0.9);
/// Those of tanh: where its slope, too, is 36 % of the largest.
const TANH_ENDS: (f64, f64) = (-0.8, 0.8);
/// A ReLU is saturated where it is 0.
const RELU_ENDS: (f64, f64) = (0.0, f64::INFINITY);

/// What [`diagnose`] finds. The names are those of Python's `seqrs.diagnose`, and
/// `serde_json` makes the same JSON of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    /// L, reduced as the loss says.
    pub loss: f64,
    /// Each layer and direction, behind the index of its layer in the model:
    /// `1.l0`, `1.l0_reverse`, `1.l1` ...
    pub layers: BTreeMap<String, DirectionDiagnosis>,
    /// Each parameter, by its name in [`Sequential::parameters`].
    pub parameters: BTreeMap<String, Norms>,
}

/// One direction of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DirectionDiagnosis {
    /// Each gate: `a`, which is `a<t>` itself, of an RNN; `i`, `f`, `g`, `o` of an LSTM, g being
    /// the candidate; `r`, `z`, `n` of a GRU, z being the update gate and n the candidate.
    pub gates: BTreeMap<String, GateDiagnosis>,
    /// `a`, which is `a<t>`, and of an LSTM `c`.
    pub states: BTreeMap<String, Extent>,
    /// How many units of a ReLU are 0 at every live step of every row; none for others.
    pub dead_units: Option<usize>,
    /// For each step the norm of `dL/da<t>` over all rows; 0 where none is live.
    pub gradient_norm: Vec<f64>,
    /// That of the first live step in the order in which the direction reads.
    pub gradient_first: f64,
    /// That of the last one.
    pub gradient_last: f64,
    /// First / last: what gradients have taken on over the whole sequence. Far below 1 they
    /// vanish, far above they explode. None if the last is 0.
    pub gradient_ratio: Option<f64>,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateDiagnosis {
    /// The largest absolute value of the eigenvalues of the gate's part of W_hh, with a
    /// projection of W_hr W_hh.
    pub spectral_radius: f64,
    /// The largest singular value of the gate's part of W_hh.
    pub spectral_norm: f64,
    /// Of its activations.
    #[serde(flatten)]
    pub extent: Extent,
    /// The share of its activations at the lower end: at most 0.1 of a sigmoid, -0.8 of tanh,
    /// 0 of ReLU.
    pub saturated_low: f64,
    /// The share at the upper end: at least 0.9 of a sigmoid, 0.8 of tanh; ReLU has none.
    pub saturated_high: f64,
}

/// From where to where numbers go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Extent {
    /// The smallest.
    pub minimum: f64,
    /// The largest.
    pub maximum: f64,
}

/// Euclidean norms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Norms {
    /// Of the parameter.
    pub norm: f64,
    /// Of the gradient of the loss by it.
    pub gradient_norm: f64,
}

/// How a model stands on a batch. Nothing is changed, and nothing dropped. A layer alone is
/// `Sequential::from(layer)`.
///
/// All of it is what the model itself computes, in its type of numbers; Python's
/// [widens](Sequential::widened) the model first.
///
/// ```
/// use ndarray::{Array2, Array3};
/// use seqrs::{CrossEntropy, Linear, Lstm, Sequential, diagnose};
///
/// let model = Sequential::<f32>::new(vec![
///     Lstm::new(3, 8).build()?,
///     Linear::new(8, 2).build()?,
/// ])?;
/// let (x, y) = (Array3::from_elem((4, 50, 3), 0.5), Array2::<i64>::zeros((4, 50)));
/// let found = diagnose(&model, &x, &y, CrossEntropy::mean())?;
/// let lstm = &found.layers["0.l0"];
/// assert!(lstm.gates["f"].extent.minimum > 0.5); // its bias starts at 1
/// assert_eq!(lstm.gradient_norm.len(), 50);
/// assert!(found.parameters["0.weight_hh_l0"].gradient_norm > 0.0);
/// # Ok::<(), seqrs::Error>(())
/// ```
///
/// # Errors
/// [`Error::Option`] if the model has no recurrent layer; [`Error::Numerical`] names a
/// parameter that is NaN or infinite; [`Error::Shape`], [`Error::DType`] and
/// [`Error::State`] what does not fit, or that no step is live; [`Error::OutOfMemory`],
/// [`Error::Interrupted`].
pub fn diagnose<'a, 'b, T: Number>(
    model: &Sequential<T>,
    batch: impl Into<Batch<'a, T>>,
    targets: impl Into<Targets<'b, T>>,
    loss: impl Into<Loss>,
) -> Result<Diagnosis, Error> {
    let loss = loss.into();
    loss.check()?;
    let batch = batch.into().read(model)?;
    let targets = targets.into().read(&loss, model, &batch)?;
    model.check_state(&batch.state, batch.layout.batch)?;
    diagnose_on(
        &Cpu::new()?,
        model,
        batch.input(),
        batch.steps.clone(),
        &batch.state,
        targets.target(),
        loss,
    )
}

/// As [`diagnose`], of rows where they lie. The loss, the targets and the states have been
/// checked by who has read them.
///
/// # Errors
/// [`Error::Option`] if the model has no recurrent layer; [`Error::Numerical`] names a
/// parameter that is NaN or infinite; [`Error::Shape`] that no step is live;
/// [`Error::OutOfMemory`], [`Error::Interrupted`].
pub fn diagnose_on<T: Number>(
    cpu: &Cpu<T>,
    model: &Sequential<T>,
    x: Input<'_, T>,
    steps: Steps,
    state: &ModelState<T>,
    target: Target<'_, T>,
    loss: Loss,
) -> Result<Diagnosis, Error> {
    if model.recurrent().next().is_none() {
        return Err(Error::option("model", "an RNN, LSTM or GRU in it", "none"));
    }
    check_finite(model)?;
    if steps.items() == 0 {
        return Err(Error::shape("x", "at least one live step", "none"));
    }
    let batch = steps.batch();
    let unrolled = Unrolled::new(model)?;
    let mut state = taken_apart(model, state, batch)?;
    let tape = unrolled.model.record_on(cpu, x, steps, &mut state, None)?;
    let output = tape.output();
    let wanted = outputs(model, tape.steps())?;
    let target = target.gather(&wanted, output.width)?;
    let (total, d_y) = loss_of(cpu, loss, output, &wanted, &target)?;
    let terms = loss.terms(wanted.len() * output.width, output.width);

    let mut layers = BTreeMap::new();
    let mut d_state = unrolled.model.zero_state(batch)?;
    let mut seen = |k: usize, d_y: Option<&[T]>| {
        let (layer, record) = (&unrolled.model.layers()[k], &tape.records[k]);
        if let (Layer::Recurrent(layer), Record::Recurrent(record)) = (layer, record) {
            let (index, depth) = unrolled.origin[k];
            for (d, &direction) in layer.stack().directions().iter().enumerate() {
                let suffix = match direction {
                    Direction::Forward => "",
                    Direction::Reverse => "_reverse",
                };
                let name = format!("{index}.l{depth}{suffix}");
                layers.insert(name, described(cpu, layer, d, record, d_y)?);
            }
        }
        Ok(())
    };
    let gradients =
        unrolled.model.backward_seen_on(cpu, &tape, Some(&d_y), &mut d_state, false, &mut seen)?;
    Ok(Diagnosis {
        loss: loss.reduce(total, terms),
        layers,
        parameters: unrolled.norms(model, &gradients)?,
    })
}

fn check_finite<T: Number>(model: &Sequential<T>) -> Result<(), Error> {
    for (k, layer) in model.layers().iter().enumerate() {
        for parameter in layer.parameters() {
            let numbers = &layer.numbers()[parameter.range];
            if let Some(&number) = numbers.iter().find(|number| !number.is_finite()) {
                let name = format!("{k}.{}", parameter.name);
                return Err(Error::numerical(name, "finite numbers", number.to_f64()));
            }
        }
    }
    Ok(())
}

/// A model whose recurrent layers are taken apart: each layer of a stack is one of the model,
/// so that the gradients of its outputs pass by.
struct Unrolled<T: Number> {
    model: Sequential<T>,
    /// For each layer its place in the model as it was, and in the stack there.
    origin: Vec<(usize, usize)>,
}

impl<T: Number> Unrolled<T> {
    fn new(model: &Sequential<T>) -> Result<Self, Error> {
        let (mut layers, mut origin) = (Vec::new(), Vec::new());
        for (k, layer) in model.layers().iter().enumerate() {
            match layer {
                Layer::Recurrent(layer) => {
                    for depth in 0..layer.stack().num_layers() {
                        layers.push(Layer::Recurrent(layer.part(depth, None)?));
                        origin.push((k, depth));
                    }
                }
                layer => {
                    layers.push(layer.clone());
                    origin.push((k, 0));
                }
            }
        }
        Ok(Self { model: Sequential::new(layers)?, origin })
    }

    fn norms(
        &self,
        model: &Sequential<T>,
        gradients: &ModelGradients<T>,
    ) -> Result<BTreeMap<String, Norms>, Error> {
        let mut norms = BTreeMap::new();
        for (k, layer) in model.layers().iter().enumerate() {
            let mut gradient = room("gradients", layer.num_parameters())?;
            for (own, &(origin, _)) in gradients.layers.iter().zip(&self.origin) {
                if origin == k {
                    gradient.extend_from_slice(own);
                }
            }
            for parameter in layer.parameters() {
                let range = parameter.range;
                let own = Norms {
                    norm: norm(&layer.numbers()[range.clone()]),
                    gradient_norm: norm(&gradient[range]),
                };
                norms.insert(format!("{k}.{}", parameter.name), own);
            }
        }
        Ok(norms)
    }
}

/// The states of a model's stacks as those of [`Unrolled`]: they lie layer by layer.
fn taken_apart<T: Number>(
    model: &Sequential<T>,
    states: &ModelState<T>,
    batch: usize,
) -> Result<ModelState<T>, Error> {
    let mut parts = Vec::new();
    for ((_, layer), state) in model.recurrent().zip(states) {
        let stack = layer.stack();
        let rows = stack.directions().len() * batch;
        let c = |c: &[T], depth: usize| {
            let own = rows * stack.options().hidden_size;
            copied("state", &c[depth * own..][..own])
        };
        for (depth, h) in state.h.chunks_exact(rows * stack.state_size()).enumerate() {
            let c = state.c.as_deref().map(|all| c(all, depth)).transpose()?;
            parts.push(State { h: copied("state", h)?, c });
        }
    }
    Ok(parts)
}

/// One direction of a recurrent layer that is one layer deep. `d_y` is the gradient of the
/// layer's output, of both directions.
fn described<T: Number>(
    cpu: &Cpu<T>,
    layer: &Recurrent<T>,
    d: usize,
    record: &Tape<Lent<T>>,
    d_y: Option<&[T]>,
) -> Result<DirectionDiagnosis, Error> {
    let direction = layer.stack().directions()[d];
    let alone = layer.part(0, Some(d))?;
    let shape = alone.stack().shape(0);
    let units = shape.state;
    let (steps, tape) = (&record.steps, &record.layers[0].directions[d]);
    let output = columns(&record.layers[0].y, d, units, layer.stack().output_size())?;

    let kind = shape.cell;
    let functions = kind.functions();
    let values = with_cell!(kind, C, cell => gate_values(cell, &shape, tape, &output)?);
    let mut gates = BTreeMap::new();
    for (k, (&name, values)) in kind.gate_names().iter().zip(values).enumerate() {
        let function = match name {
            "i" | "f" | "o" | "r" | "z" => functions.gate,
            _ => functions.candidate,
        };
        gates.insert(name.to_string(), gate(&alone, k, &values, ends(function))?);
    }
    let relu = kind == CellKind::RnnRelu;
    let mut states = BTreeMap::from([("a".to_string(), extent(&output))]);
    if let Some(c) = &tape.c {
        states.insert("c".to_string(), extent(c));
    }
    let alive = |unit: usize| output.chunks_exact(units).any(|a| a[unit].to_f64() > 0.0);
    let dead_units = relu.then(|| (0..units).filter(|&unit| !alive(unit)).count());

    let d_y = match d_y {
        Some(d_y) => columns(d_y, d, units, layer.stack().output_size())?,
        None => memory::zeros("gradients", output.len())?,
    };
    let gradient_norm = flow(cpu, &alone, d, direction, record, &d_y)?;
    let order = || (0..steps.time()).map(|k| direction.step(k, steps.time()));
    let mut live = order().filter(|&t| !steps.at(t).0.is_empty());
    let first = live.next().map_or(0.0, |t| gradient_norm[t]);
    let last = live.next_back().map_or(first, |t| gradient_norm[t]);
    Ok(DirectionDiagnosis {
        gates,
        states,
        dead_units,
        gradient_norm,
        gradient_first: first,
        gradient_last: last,
        gradient_ratio: (last != 0.0).then(|| first / last),
    })
}

/// What there is to say of the `k`-th gate, from its part of W_hh and its activations.
fn gate<T: Number>(
    alone: &Recurrent<T>,
    k: usize,
    values: &[T],
    (low, high): (f64, f64),
) -> Result<GateDiagnosis, Error> {
    let shape = alone.stack().shape(0);
    let numbers = alone.parameters.numbers();
    let matrix = |range: std::ops::Range<usize>, rows: usize| {
        let view = ArrayView2::from_shape((rows, range.len() / rows), &numbers[range]);
        view.expect("a row for each unit").map(|&x| x.to_f64())
    };
    let whole = matrix(shape.weight_hh.clone(), shape.gate_columns());
    let own = whole.slice(s![k * shape.hidden..(k + 1) * shape.hidden, ..]);
    let radius = match shape.weight_hr.clone() {
        Some(range) => spectral_radius(matrix(range, shape.state).dot(&own).view())?,
        None => spectral_radius(own)?,
    };
    let share = |at_the_end: &dyn Fn(f64) -> bool| {
        let count = values.iter().filter(|&&value| at_the_end(value.to_f64())).count();
        count as f64 / values.len() as f64
    };
    Ok(GateDiagnosis {
        spectral_radius: radius,
        spectral_norm: spectral_norm(own)?,
        extent: extent(values),
        saturated_low: share(&|value| value <= low),
        saturated_high: share(&|value| value >= high),
    })
}

/// The norm of `dL/da<t>` at each step, by back-propagation a step at a time: the direction
/// alone, as a layer that walks forwards, over one step after the other in its order. Steps
/// make the sequence bit by bit, so that this is what the layer did.
fn flow<T: Number>(
    cpu: &Cpu<T>,
    alone: &Recurrent<T>,
    d: usize,
    direction: Direction,
    record: &Tape<Lent<T>>,
    d_y: &[T],
) -> Result<Vec<f64>, Error> {
    let (steps, tape) = (&record.steps, &record.layers[0].directions[d]);
    let shape = alone.stack().shape(0);
    let (width, units) = (shape.input, shape.state);
    let mut state = State {
        h: copied("state", &tape.h0)?,
        c: tape.c0.as_ref().map(|c| copied("state", c)).transpose()?,
    };
    let mut walked = room("steps", steps.time())?;
    for k in 0..steps.time() {
        let t = direction.step(k, steps.time());
        let (items, _) = steps.at(t);
        let data = &record.x[items.start * width..items.end * width];
        let x = Rows { data, place: Place::packed(width) };
        walked.push((t, alone.record(cpu, x, &steps.slice(t, t + 1), &mut state, None)?));
    }
    let mut d_state = alone.initial_state(steps.batch())?;
    let mut d_numbers = memory::zeros("gradients", shape.len())?;
    let mut norms = memory::zeros("gradient norms", steps.time())?;
    for (t, tape) in walked.iter().rev() {
        let (items, rows) = steps.at(*t);
        let d_y = &d_y[items.start * units..items.end * units];
        // a<t> is seen as this step's output and through what follows.
        let both = rows.iter().zip(d_y.chunks_exact(units)).flat_map(|(&b, d_y)| {
            let later = &d_state.h[b as usize * units..][..units];
            later.iter().zip(d_y).map(|(&later, &d_y)| Number::to_f64(later + d_y))
        });
        norms[*t] = both.map(|d| d * d).sum::<f64>().sqrt();
        alone.backward(cpu, tape, Some(d_y), &mut d_state, &mut d_numbers, false)?;
    }
    Ok(norms)
}

/// The `k`-th run of `width` numbers of each row of `stride`.
fn columns<T: Number>(rows: &[T], k: usize, width: usize, stride: usize) -> Result<Vec<T>, Error> {
    let mut found = room("columns", rows.len() / stride * width)?;
    for row in rows.chunks_exact(stride) {
        found.extend_from_slice(&row[k * width..][..width]);
    }
    Ok(found)
}

/// For each gate its values, (items, H).
fn gate_values<C: Cell, T: Number>(
    cell: C,
    shape: &Shape,
    tape: &DirectionTape<Lent<T>>,
    h: &[T],
) -> Result<Vec<Vec<T>>, Error> {
    let hidden = shape.hidden;
    let items = h.len() / shape.state;
    let mut gates = Vec::with_capacity(C::GATES);
    for _ in 0..C::GATES {
        gates.push(memory::zeros("activations", items * hidden)?);
    }
    for at in 0..items * hidden {
        let (item, unit) = (at / hidden, at % hidden);
        let mut saved = [<T as Lanes>::zero(); MAX_BUNDLE];
        for (field, value) in saved.iter_mut().enumerate().take(C::SAVED) {
            *value = tape.saved[(item * C::SAVED + field) * hidden + unit];
        }
        let mut state = [<T as Lanes>::zero(); MAX_BUNDLE];
        if shape.state == hidden {
            state[0] = h[at];
        }
        if let Some(c) = &tape.c {
            state[1] = c[at];
        }
        let values = cell.values(C::Saved::from_array(saved), C::State::from_array(state));
        for (gate, value) in gates.iter_mut().zip(values.to_array(<T as Lanes>::zero())) {
            gate[at] = value;
        }
    }
    Ok(gates)
}

/// Beyond which values a function is nearly flat.
fn ends(function: Function) -> (f64, f64) {
    match function.name {
        FunctionName::Sigmoid | FunctionName::HardSigmoid => SIGMOID_ENDS,
        FunctionName::Tanh | FunctionName::Softsign => TANH_ENDS,
        FunctionName::ScaledTanh => {
            let scale = function.alpha.abs();
            (TANH_ENDS.0 * scale, TANH_ENDS.1 * scale)
        }
        FunctionName::Relu | FunctionName::ThresholdedRelu => RELU_ENDS,
        FunctionName::Elu => (TANH_ENDS.0 * function.alpha.abs(), f64::INFINITY),
        FunctionName::Affine | FunctionName::LeakyRelu | FunctionName::Softplus => {
            (f64::NEG_INFINITY, f64::INFINITY)
        }
    }
}

fn extent<T: Number>(values: &[T]) -> Extent {
    // A NaN is not hidden behind the others.
    let pick = |better: fn(f64, f64) -> bool| {
        let values = values.iter().map(|&value| value.to_f64());
        values.reduce(|a, b| if b.is_nan() || better(b, a) { b } else { a }).unwrap_or(f64::NAN)
    };
    Extent { minimum: pick(|b, a| b < a), maximum: pick(|b, a| b > a) }
}

fn norm<T: Number>(values: &[T]) -> f64 {
    values.iter().map(|&value| value.to_f64().powi(2)).sum::<f64>().sqrt()
}
