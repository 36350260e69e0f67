//! One step of a model: layers over one row of numbers or one id for each row of the batch.
//!
//! It is what a sequence of one step gives, bit for bit, without what a sequence needs: nothing is
//! packed, and no list is made of what passes between the layers. Whatever passes lies in buffers
//! that the thread keeps ([`Lent`]), so that a step of a few rows takes no memory: up to 8 rows,
//! 8 recurrent layers, and as little work as one thread does by itself. What comes first in a
//! process, and with an instruction set, packs the weights.

use std::ops::{Deref, Range};

use seqrs_core::backend::State;
use seqrs_core::memory::Lent;
use seqrs_core::{Error, Steps, interrupt};
use seqrs_cpu::Cpu;

use crate::layer::Layer;
use crate::number::Number;
use crate::sequential::Sequential;
use crate::state_room::{check_count, recurrent};

/// What a model reads at one step, row by row.
#[derive(Clone, Copy, Debug)]
pub enum StepInput<'a, T> {
    /// (B, I): numbers.
    Numbers(&'a [T]),
    /// (B): ids, for a model that begins with an embedding.
    Ids(&'a [i64]),
}

impl<T> StepInput<'_, T> {
    /// Some of the `batch` rows.
    pub(crate) fn rows(&self, rows: Range<usize>, batch: usize) -> Self {
        match self {
            Self::Numbers(x) => {
                let width = x.len() / batch.max(1);
                Self::Numbers(&x[rows.start * width..rows.end * width])
            }
            Self::Ids(ids) => Self::Ids(&ids[rows]),
        }
    }
}

/// What the layers so far have given.
enum Flow<T> {
    /// Nothing: the next one reads the input.
    Input,
    /// Rows on their way.
    Between(Lent<T>),
    /// What is given out, to be changed in place by the layers that are left.
    Output,
}

impl<T: Number> Sequential<T> {
    /// One step of `batch` rows into `y`. `state` goes from its initial to its final value.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] and [`Error::State`] name what does not fit, or the layer
    /// that needs the whole sequence: nothing has changed then. [`Error::OutOfMemory`],
    /// [`Error::Interrupted`]: `state` and `y` may then be anything.
    pub fn step_on(
        &self,
        cpu: &Cpu<T>,
        x: StepInput<'_, T>,
        batch: usize,
        state: &mut [State<&mut [T]>],
        y: &mut [T],
    ) -> Result<(), Error> {
        step_layers(self.layers(), cpu, x, batch, state, y)
    }

    /// The process's instruction set and threads, as many as one step of `batch` rows is worth.
    ///
    /// # Errors
    /// As [`Cpu::new`].
    pub fn cpu_for_step(&self, batch: usize) -> Result<Cpu<T>, Error> {
        Cpu::for_work(work(self.layers()).saturating_mul(batch))
    }
}

/// Multiply-adds of one step of one row, about: each weight of a matrix is used once.
pub(crate) fn work<T: Number>(layers: &[Layer<T>]) -> usize {
    let one = |layer: &Layer<T>| match layer {
        Layer::Embedding(table) => table.options.embedding_dim,
        layer => layer.num_parameters(),
    };
    layers.iter().map(one).fold(0, usize::saturating_add)
}

/// Numbers in a row of the output of layers that read `width` numbers, or ids.
pub(crate) fn output_width<T: Number>(layers: &[Layer<T>], width: Option<usize>) -> Option<usize> {
    layers.iter().fold(width, |width, layer| layer.output_width(width))
}

/// As [`Sequential::step_on`], for layers that may be part of a model.
pub(crate) fn step_layers<T: Number>(
    layers: &[Layer<T>],
    cpu: &Cpu<T>,
    x: StepInput<'_, T>,
    batch: usize,
    state: &mut [State<&mut [T]>],
    y: &mut [T],
) -> Result<(), Error> {
    check(layers, x, batch, state, y.len())?;
    let steps = Steps::dense(1, batch)?;
    let last_writer = layers.iter().rposition(writes);
    let mut states = state.iter_mut();
    let mut flow = Flow::Input;
    let mut width = match x {
        StepInput::Numbers(x) => x.len() / batch.max(1),
        StepInput::Ids(_) => 1,
    };
    for (k, layer) in layers.iter().enumerate() {
        if k > 0 {
            interrupt::check()?;
        }
        if !writes(layer) {
            // Works in place: on the input's copy where there is nothing else.
            if let (Flow::Input, StepInput::Numbers(x)) = (&flow, x) {
                flow = match last_writer > Some(k) {
                    true => Flow::Between(copy(x)?),
                    false => {
                        y.copy_from_slice(x);
                        Flow::Output
                    }
                };
            }
            let rows = match &mut flow {
                Flow::Between(rows) => &mut rows[..],
                _ => &mut *y,
            };
            match layer {
                Layer::LayerNorm(layer) => layer.infer(cpu, rows)?,
                Layer::Activation(function) => function.forward(cpu, rows, width)?,
                // The last of one step is itself, and nothing is dropped.
                _ => {}
            }
            continue;
        }
        let below = std::mem::replace(&mut flow, Flow::Output);
        let from = match (&below, x) {
            (Flow::Between(rows), _) => &rows[..],
            (_, StepInput::Numbers(x)) => x,
            (_, StepInput::Ids(_)) => &[],
        };
        width = layer.output_width(None).expect("what writes has a width of its own");
        let mut between = match last_writer > Some(k) {
            true => Some(Lent::new("outputs between layers", batch * width)?),
            false => None,
        };
        let to = between.as_deref_mut().unwrap_or(&mut *y);
        match (layer, x) {
            (Layer::Recurrent(layer), _) => {
                let state = states.next().expect("checked above").lent();
                layer.infer_packed(cpu, from, &steps, state, to)?;
            }
            (Layer::Linear(layer), _) => layer.forward_into(cpu, from, to)?,
            (Layer::Embedding(table), StepInput::Ids(ids)) => table.look_up(ids, to),
            _ => unreachable!("does not write"),
        }
        if let Some(rows) = between {
            flow = Flow::Between(rows);
        }
    }
    Ok(())
}

/// Whether a layer gives out other rows than those it reads, so that it cannot work in place.
fn writes<T: Number>(layer: &Layer<T>) -> bool {
    matches!(layer, Layer::Recurrent(_) | Layer::Linear(_) | Layer::Embedding(_))
}

fn copy<T: Number>(x: &[T]) -> Result<Lent<T>, Error> {
    let mut copy = Lent::new("outputs between layers", x.len())?;
    copy.copy_from_slice(x);
    Ok(copy)
}

/// The layers as a model of their own, whose functions have the words for what does not fit.
fn model<T: Number>(layers: &[Layer<T>]) -> Result<Sequential<T>, Error> {
    Sequential::new(layers.to_vec())
}

/// Compares everything with what the layers take, before anything is computed.
fn check<T: Number, S: Deref<Target = [T]>>(
    layers: &[Layer<T>],
    x: StepInput<'_, T>,
    batch: usize,
    state: &[State<S>],
    y: usize,
) -> Result<(), Error> {
    check_rows(layers, x, batch, y)?;
    check_count(layers, state)?;
    for ((k, layer), state) in recurrent(layers).zip(state) {
        let name = || format!("state of layer {k} ({})", layers[k].name());
        layer.check_state(name, state, batch)?;
    }
    Ok(())
}

/// Compares the layers with each other, the input, and the size of the output.
pub(crate) fn check_rows<T: Number>(
    layers: &[Layer<T>],
    x: StepInput<'_, T>,
    batch: usize,
    y: usize,
) -> Result<(), Error> {
    let stepwise = |layer: &Layer<T>| match layer {
        Layer::Recurrent(layer) => !layer.stack().options().bidirectional,
        layer => !matches!(layer, Layer::MeanPool | Layer::MaxPool),
    };
    if !layers.iter().all(stepwise) {
        return model(layers)?.check_stepwise();
    }
    let mut width = check_input(layers, x, batch)?;
    for (k, layer) in layers.iter().enumerate() {
        let fits = match layer {
            Layer::Embedding(_) => k == 0,
            layer => layer.input_width().is_none_or(|takes| Some(takes) == width),
        };
        if !fits {
            // It says which layers do not fit each other.
            model(layers)?;
            return Err(Error::shape("layers", "layers that fit", "others"));
        }
        width = layer.output_width(width);
    }
    let expected = width.unwrap_or(0).saturating_mul(batch);
    match y == expected {
        true => Ok(()),
        false => Err(Error::shape("y", format!("{expected} numbers"), y)),
    }
}

/// How many numbers each row of the input has, none for ids, if the first layer takes it.
fn check_input<T: Number>(
    layers: &[Layer<T>],
    x: StepInput<'_, T>,
    batch: usize,
) -> Result<Option<usize>, Error> {
    let first = || format!("layer 0 ({})", layers[0].name());
    match (x, layers.first()) {
        (_, None) => Err(Error::option("layers", "at least one layer", "none")),
        (StepInput::Ids(ids), Some(Layer::Embedding(table))) => {
            if ids.len() != batch {
                return Err(Error::shape("x", format!("{batch} ids"), ids.len()));
            }
            let end = table.options.num_embeddings;
            let wrong = |&id: &i64| usize::try_from(id).map_or(true, |id| id >= end);
            match ids.iter().position(wrong) {
                None => Ok(None),
                Some(b) => {
                    Err(Error::shape(format!("x[{b}]"), format!("an id in 0..{end}"), ids[b]))
                }
            }
        }
        (StepInput::Numbers(_), Some(Layer::Embedding(_))) => {
            Err(Error::dtype("x", format!("integer ids, as {} takes", first()), T::NAME))
        }
        (StepInput::Ids(_), Some(_)) => {
            Err(Error::dtype("x", format!("numbers, as {} takes", first()), "ids"))
        }
        (StepInput::Numbers(x), Some(_)) => {
            let width = layers.iter().find_map(Layer::input_width);
            let given = x.len().checked_div(batch).or(width).unwrap_or(1);
            let expected = width.unwrap_or(given.max(1));
            match given == expected && x.len() == batch * given {
                true => Ok(Some(given)),
                false => {
                    let expected = format!("{batch} rows of {expected} numbers");
                    Err(Error::shape("x", expected, format!("{} numbers", x.len())))
                }
            }
        }
    }
}
