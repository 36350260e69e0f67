//! Layers one after the other: forwards, and back.
//!
//! What one layer gives out is what the next reads. What passes between them is worked out
//! before anything is computed, and layers that do not fit are refused.

use std::borrow::Cow;

use seqrs_core::backend::{Backend, State};
use seqrs_core::memory::Lent;
use seqrs_core::rows::{Place, Rows};
use seqrs_core::{Error, Steps, interrupt, memory};
use seqrs_cpu::Cpu;

use crate::layer::{Layer, NamedParameter};
use crate::layers::dropout::{self, Places};
use crate::layers::pooling;
use crate::layers::recurrent::{Recurrent, check_rows};
use crate::model_tape::{ModelGradients, ModelTape, Record};
use crate::number::Number;
use crate::random::mix;
use crate::room::{copied_states, owned};
use crate::state_room::check_count;

/// What a model reads: a row of numbers, or an id, for each item (live step of a row).
#[derive(Clone, Copy, Debug)]
pub enum Input<'a, T> {
    /// Rows of so many numbers.
    Numbers(Rows<'a, [T]>, usize),
    /// Ids, for a model that begins with an embedding.
    Ids(Rows<'a, [i64]>),
}

/// What the rows of an output belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// One row for each live step of each sequence.
    Steps,
    /// One row for each sequence: the output of a pooling layer, or what follows it.
    Rows,
}

/// What a model gives out, packed: one row after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Output<T> {
    /// The numbers.
    pub numbers: Vec<T>,
    /// Numbers in a row.
    pub width: usize,
    /// What the rows belong to.
    pub rank: Rank,
}

/// The states of the recurrent layers of a model, in order.
pub type ModelState<T> = Vec<State<Vec<T>>>;

/// What looks on as gradients go back through a model: it is shown each layer by its index, with
/// the gradient of what it gave out.
pub(crate) type Seen<'a, T> = dyn FnMut(usize, Option<&[T]>) -> Result<(), Error> + 'a;

/// Layers one after the other. A clone shares the parameters until one of the two changes
/// them.
///
/// ```
/// use seqrs::{Embedding, Gru, Linear, Sequential};
///
/// let model = Sequential::<f32>::new(vec![
///     Embedding::new(100, 16).build()?,
///     Gru::new(16, 32).build()?,
///     Linear::new(32, 100).build()?,
/// ])?;
/// assert_eq!(model.parameters()[1].name, "1.weight_ih_l0");
/// let error = Sequential::<f32>::new(vec![Gru::new(16, 32).build()?, Linear::new(33, 2).build()?]);
/// assert_eq!(
///     error.unwrap_err().to_string(),
///     "layer 1 (Linear): expected layer 0 (GRU) to give the 33 numbers that it takes, got 32"
/// );
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sequential<T: Number> {
    layers: Vec<Layer<T>>,
}

impl<T: Number> From<Layer<T>> for Sequential<T> {
    /// A model of one layer.
    fn from(layer: Layer<T>) -> Self {
        Self { layers: vec![layer] }
    }
}

/// What a layer reads and gives out within a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Numbers in a row that it reads; none for ids and where only the input decides.
    pub(crate) input: Option<usize>,
    /// Numbers in a row that it gives.
    pub(crate) output: Option<usize>,
    /// What the rows that it reads belong to.
    pub(crate) rank: Rank,
    /// Whether the columns it reads are the two directions of a bidirectional layer.
    pub(crate) both_ways: bool,
    /// Which of the model's states is its own.
    pub(crate) state: usize,
}

impl<T: Number> Sequential<T> {
    /// Layers that fit: each takes as many numbers as the one before gives, an embedding
    /// comes first, and nothing that needs steps comes after a pooling layer.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Option`] names the layers that do not fit.
    pub fn new(layers: Vec<Layer<T>>) -> Result<Self, Error> {
        let model = Self { layers };
        model.chain(None)?;
        Ok(model)
    }

    /// The same layers with fresh parameters: layer k is drawn from `seed` and k.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn reseeded(&self, seed: u64) -> Result<Self, Error> {
        let layers = self.layers.iter().enumerate();
        let layers = layers.map(|(k, layer)| layer.reseeded(mix(seed, k as u64)));
        Ok(Self { layers: layers.collect::<Result<_, _>>()? })
    }

    /// The same model in `f64`, of the same numbers.
    ///
    /// # Errors
    /// [`Error::State`] if weights are small ones; [`Error::OutOfMemory`].
    pub fn widened(&self) -> Result<Sequential<f64>, Error> {
        self.check_numbers()?;
        Sequential::new(self.layers.iter().map(Layer::widened).collect::<Result<_, _>>()?)
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer<T>] {
        &self.layers
    }

    /// The layers, to change their parameters. Layers that do not fit are refused when the
    /// model is used.
    pub fn layers_mut(&mut self) -> &mut [Layer<T>] {
        &mut self.layers
    }

    /// Names (`{index}.{parameter}`), shapes and places of the parameters; a place is among
    /// the numbers of the parameter's layer.
    pub fn parameters(&self) -> Vec<NamedParameter> {
        let layers = self.layers.iter().enumerate();
        layers
            .flat_map(|(k, layer)| {
                layer.parameters().into_iter().map(move |parameter| NamedParameter {
                    name: format!("{k}.{}", parameter.name),
                    ..parameter
                })
            })
            .collect()
    }

    /// How many numbers the parameters are.
    pub fn num_parameters(&self) -> usize {
        self.layers.iter().map(Layer::num_parameters).sum()
    }

    /// The seed of the `call`-th draw of dropout for callers that have no seed of their
    /// own: made of the seeds of all layers.
    pub fn draw(&self, call: u64) -> u64 {
        mix(self.layers.iter().fold(0, |seed, layer| mix(seed, layer.spec().seed())), call)
    }

    /// Whether the model reads ids.
    pub fn takes_ids(&self) -> bool {
        matches!(self.layers.first(), Some(Layer::Embedding(_)))
    }

    /// Numbers a step brings; none for ids, and where any number will do.
    pub fn input_width(&self) -> Option<usize> {
        if self.takes_ids() {
            return None;
        }
        // The layers that take any width give out the same.
        self.layers.iter().find_map(Layer::input_width)
    }

    /// Numbers in a row of the output; none where it is that of the input, which may be
    /// any.
    pub fn output_width(&self) -> Option<usize> {
        let first = self.input_width();
        self.layers.iter().fold(first, |width, layer| layer.output_width(width))
    }

    /// What the rows of the output belong to.
    pub fn output_rank(&self) -> Rank {
        match self.layers.iter().any(is_pooling) {
            true => Rank::Rows,
            false => Rank::Steps,
        }
    }

    /// Whether callers' arrays are (B, T, ...), not (T, B, ...): as the first recurrent
    /// layer says.
    pub fn batch_first(&self) -> bool {
        self.recurrent().next().is_none_or(|(_, layer)| layer.batch_first())
    }

    pub(crate) fn recurrent(&self) -> impl Iterator<Item = (usize, &Recurrent<T>)> {
        self.layers.iter().enumerate().filter_map(|(k, layer)| match layer {
            Layer::Recurrent(layer) => Some((k, layer)),
            _ => None,
        })
    }

    /// Zero states for `batch` rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn zero_state(&self, batch: usize) -> Result<ModelState<T>, Error> {
        self.recurrent().map(|(_, layer)| layer.initial_state(batch)).collect()
    }

    /// Whether the model can be run one step at a time with the results of the whole
    /// sequence.
    ///
    /// # Errors
    /// [`Error::State`] names a layer that needs the whole sequence: a bidirectional one,
    /// or the mean or maximum over steps.
    pub fn check_stepwise(&self) -> Result<(), Error> {
        for (k, layer) in self.layers.iter().enumerate() {
            match layer {
                Layer::Recurrent(layer) => layer.check_stepwise(|| self.title(k))?,
                Layer::MeanPool | Layer::MaxPool => {
                    let expected = "a layer that works step by step";
                    return Err(Error::state(self.title(k), expected, "one over all steps"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether [`Sequential::check_stepwise`] finds nothing.
    pub fn is_stepwise(&self) -> bool {
        self.check_stepwise().is_ok()
    }

    /// How messages call layer `k`.
    pub(crate) fn title(&self, k: usize) -> String {
        format!("layer {k} ({})", self.layers[k].name())
    }

    /// What passes between the layers, if they fit each other and an input of `width`.
    pub(crate) fn chain(&self, width: Option<usize>) -> Result<Vec<Link>, Error> {
        if self.layers.is_empty() {
            return Err(Error::option("layers", "at least one layer", "none"));
        }
        let mut width = width.or(self.input_width());
        let (mut rank, mut both_ways, mut state) = (Rank::Steps, false, 0);
        let mut links = Vec::with_capacity(self.layers.len());
        for (k, layer) in self.layers.iter().enumerate() {
            if matches!(layer, Layer::Embedding(_)) && k > 0 {
                let expected = "to be the first layer, as it takes ids";
                let got = format!("numbers from {}", self.title(k - 1));
                return Err(Error::option(self.title(k), expected, got));
            }
            if let (Some(takes), Some(gets)) = (layer.input_width(), width)
                && takes != gets
            {
                // Before layer k there may be some that pass on what they are given.
                let giver = self.layers[..k].iter().rposition(|l| l.output_width(None).is_some());
                let giver = giver.map_or("the input".to_string(), |g| self.title(g));
                let expected = format!("{giver} to give the {takes} numbers that it takes");
                return Err(Error::shape(self.title(k), expected, gets));
            }
            if rank == Rank::Rows && (is_pooling(layer) || matches!(layer, Layer::Recurrent(_))) {
                let pooling = self.layers[..k].iter().position(is_pooling).unwrap_or(0);
                let got = format!("one row a sequence from {}", self.title(pooling));
                return Err(Error::option(self.title(k), "an output at every step", got));
            }
            let output = layer.output_width(width);
            links.push(Link { input: width, output, rank, both_ways, state });
            width = output;
            match layer {
                Layer::Recurrent(layer) => {
                    both_ways = layer.stack().options().bidirectional;
                    state += 1;
                }
                Layer::Embedding(_) | Layer::Linear(_) => both_ways = false,
                Layer::Last | Layer::MeanPool | Layer::MaxPool => rank = Rank::Rows,
                Layer::LayerNorm(_) | Layer::Dropout(_) | Layer::Activation(_) => {}
            }
        }
        Ok(links)
    }

    /// The chain for this input, if the input fits it.
    pub(crate) fn chain_for(&self, x: &Input<'_, T>, steps: &Steps) -> Result<Vec<Link>, Error> {
        match (x, self.takes_ids()) {
            (Input::Ids(_), true) => self.chain(None),
            (&Input::Numbers(rows, width), false) => {
                let expected = self.input_width().unwrap_or(width);
                if width != expected || width == 0 {
                    let expected = format!("{} numbers a step", expected.max(1));
                    return Err(Error::shape("x", expected, width));
                }
                check_rows("x", rows.data.len(), rows.place, steps, width)?;
                self.chain(Some(width))
            }
            (Input::Ids(_), false) => {
                let expected = format!("numbers, as {} takes", self.title(0));
                Err(Error::dtype("x", expected, "ids"))
            }
            (Input::Numbers(..), true) => {
                let expected = format!("integer ids, as {} takes", self.title(0));
                Err(Error::dtype("x", expected, T::NAME))
            }
        }
    }

    /// Checks that the states are of this model and of `batch` rows.
    ///
    /// # Errors
    /// [`Error::State`] for those of another model, [`Error::Shape`] for those of another
    /// batch.
    pub fn check_state(&self, state: &ModelState<T>, batch: usize) -> Result<(), Error> {
        check_count(&self.layers, state)?;
        for ((k, layer), state) in self.recurrent().zip(state) {
            layer.check_state(|| format!("state of {}", self.title(k)), state, batch)?;
        }
        Ok(())
    }

    /// Inference. `state` goes from its initial to its final value.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] and [`Error::State`] name the input, id or state
    /// that does not fit; [`Error::OutOfMemory`], [`Error::Interrupted`]. The state is then
    /// as it was.
    pub fn infer_on(
        &self,
        cpu: &Cpu<T>,
        x: Input<'_, T>,
        steps: &Steps,
        state: &mut ModelState<T>,
    ) -> Result<Output<T>, Error> {
        let links = self.chain_for(&x, steps)?;
        self.check_state(state, steps.batch())?;
        let mut new = copied_states(state)?;
        let (mut width, mut rank) = (0, Rank::Steps);
        // What the layers before gave; none before the first.
        let mut flow: Option<Vec<T>> = None;
        for (layer, link) in self.layers.iter().zip(&links) {
            flow = Some(layer.infer_within(cpu, link, steps, x, flow, &mut new)?);
            width = link.output.or(link.input).unwrap_or(1);
            if is_pooling(layer) {
                rank = Rank::Rows;
            }
        }
        *state = new;
        Ok(Output { numbers: flow.unwrap_or_default(), width, rank })
    }

    /// Training: as [`Sequential::infer_on`], but keeps what [`Sequential::backward_on`] needs.
    /// `dropout` is the seed of this draw of dropout masks; without one nothing is dropped.
    ///
    /// # Errors
    /// As [`Sequential::infer_on`].
    pub fn record_on(
        &self,
        cpu: &Cpu<T>,
        x: Input<'_, T>,
        steps: Steps,
        state: &mut ModelState<T>,
        dropout: Option<u64>,
    ) -> Result<ModelTape<T>, Error> {
        self.check_numbers()?;
        let links = self.chain_for(&x, &steps)?;
        self.check_state(state, steps.batch())?;
        let mut new = copied_states(state)?;
        // A recurrent layer keeps its input itself.
        let packed = match (x, &self.layers[0]) {
            (Input::Numbers(rows, width), first) if !matches!(first, Layer::Recurrent(_)) => {
                let mut packed = Lent::new("packed rows", steps.items() * width)?;
                cpu.pack_rows(rows, &steps, width, &mut packed);
                Some(packed)
            }
            _ => None,
        };
        let last = links.last().expect("a model has at least one layer");
        let mut tape = ModelTape {
            steps,
            x: packed,
            records: Vec::with_capacity(self.layers.len()),
            versions: self.versions(),
            width: last.output.or(last.input).unwrap_or(0),
            rank: self.output_rank(),
            inputs: links.iter().map(|link| link.input.unwrap_or(0)).collect(),
        };
        for (k, (layer, link)) in self.layers.iter().zip(&links).enumerate() {
            interrupt::check()?;
            let record = match (layer, x) {
                (Layer::Recurrent(layer), _) => {
                    let given = match (k, x) {
                        (0, Input::Numbers(rows, _)) => rows,
                        _ => packed_rows(tape.input(k), tape.inputs[k]),
                    };
                    let dropout = dropout.map(|draw| (draw, k));
                    let state = &mut new[link.state];
                    Record::Recurrent(layer.record(cpu, given, &tape.steps, state, dropout)?)
                }
                (Layer::Embedding(layer), Input::Ids(ids)) => {
                    let ids = layer.gather(ids, &tape.steps)?;
                    Record::Embedding { y: layer.forward(cpu, &ids)?, ids }
                }
                _ => {
                    let draw = dropout.map(|draw| (draw, k));
                    record_rows(cpu, layer, link, &tape.steps, tape.input(k), draw)?
                }
            };
            tape.records.push(record);
        }
        *state = new;
        Ok(tape)
    }

    /// Checks that the tape is of this model with its present parameters.
    pub(crate) fn check_tape(&self, tape: &ModelTape<T>) -> Result<(), Error> {
        match tape.versions == self.versions() {
            true => Ok(()),
            false => {
                let expected = "one recorded by this model with its present parameters";
                let got = "one of another model, or from before the parameters changed";
                Err(Error::state("tape", expected, got))
            }
        }
    }

    fn versions(&self) -> Vec<u64> {
        self.layers.iter().map(Layer::version).collect()
    }

    /// The gradients of every parameter and, if asked, of the input, by back-propagation
    /// through all layers and steps. `d_y` is that of the output, in the layout of
    /// [`ModelTape::output`]; none means zero. `d_state` goes from the gradients of the
    /// final states to those of the initial ones.
    ///
    /// # Errors
    /// [`Error::State`] if the tape was recorded by another model, or before the parameters
    /// changed; [`Error::Shape`] if `d_y` or `d_state` has another size than what it is the
    /// gradient of; [`Error::OutOfMemory`], [`Error::Interrupted`]. `d_state` is then as it
    /// was.
    pub fn backward_on(
        &self,
        cpu: &Cpu<T>,
        tape: &ModelTape<T>,
        d_y: Option<&[T]>,
        d_state: &mut ModelState<T>,
        want_d_x: bool,
    ) -> Result<ModelGradients<T>, Error> {
        self.backward_seen_on(cpu, tape, d_y, d_state, want_d_x, &mut |_, _| Ok(()))
    }

    /// As [`Sequential::backward_on`], and shows `seen` the gradient of each layer's output,
    /// packed, the last layer first; none where it is zero.
    pub(crate) fn backward_seen_on(
        &self,
        cpu: &Cpu<T>,
        tape: &ModelTape<T>,
        d_y: Option<&[T]>,
        d_state: &mut ModelState<T>,
        want_d_x: bool,
        seen: &mut Seen<'_, T>,
    ) -> Result<ModelGradients<T>, Error> {
        self.check_tape(tape)?;
        let first = match self.takes_ids() {
            true => None,
            false => tape.inputs.first().copied(),
        };
        let links = self.chain(first)?;
        if let Some(d_y) = d_y
            && d_y.len() != tape.output().numbers.len()
        {
            let expected = format!("{} numbers, as the output has", tape.output().numbers.len());
            return Err(Error::shape("d_y", expected, d_y.len()));
        }
        self.check_state(d_state, tape.steps.batch())?;
        let mut d_new = copied_states(d_state)?;
        let zeros = |layer: &Layer<T>| memory::zeros("gradients", layer.num_parameters());
        let mut gradients = self.layers.iter().map(zeros).collect::<Result<Vec<_>, _>>()?;
        let mut flow = d_y.map(Cow::Borrowed);
        for (k, (layer, link)) in self.layers.iter().zip(&links).enumerate().rev() {
            interrupt::check()?;
            seen(k, flow.as_deref())?;
            let want = (k > 0 || want_d_x) && !matches!(layer, Layer::Embedding(_));
            let d_numbers = &mut gradients[k][..];
            flow = match (layer, &tape.records[k]) {
                (Layer::Recurrent(layer), Record::Recurrent(record)) => {
                    let d_state = &mut d_new[link.state];
                    let d_y = flow.as_deref();
                    let d_x = layer.backward(cpu, record, d_y, d_state, d_numbers, want)?;
                    d_x.map(Cow::Owned)
                }
                (layer, record) => match flow {
                    None => None,
                    Some(d_y) => {
                        let x = tape.input(k);
                        let steps = &tape.steps;
                        let d_x =
                            backward_rows(cpu, layer, link, steps, x, record, d_y, d_numbers, want);
                        d_x?.map(Cow::Owned)
                    }
                },
            };
        }
        let x = match (want_d_x, first) {
            (true, Some(width)) => Some(match flow {
                Some(d_x) => owned("gradient of the input", d_x)?,
                None => memory::zeros("gradient of the input", tape.steps.items() * width)?,
            }),
            _ => None,
        };
        *d_state = d_new;
        Ok(ModelGradients { layers: gradients, x })
    }
}

impl<T: Number> Layer<T> {
    /// What it gives out as part of a model, packed. `below` is what the layer before gave; none
    /// for the first, which reads x.
    pub(crate) fn infer_within(
        &self,
        cpu: &Cpu<T>,
        link: &Link,
        steps: &Steps,
        x: Input<'_, T>,
        below: Option<Vec<T>>,
        states: &mut ModelState<T>,
    ) -> Result<Vec<T>, Error> {
        interrupt::check()?;
        match (self, below, x) {
            (Layer::Recurrent(layer), below, x) => {
                let given = match (&below, x) {
                    (None, Input::Numbers(rows, _)) => rows,
                    _ => packed_rows(below.as_deref().unwrap_or_default(), link.input.unwrap_or(1)),
                };
                let len = steps.items() * layer.stack().output_size();
                let mut y = memory::zeros("output of a recurrent layer", len)?;
                layer.infer(cpu, given, steps, states[link.state].lent(), &mut y)?;
                Ok(y)
            }
            (Layer::Embedding(layer), _, Input::Ids(ids)) => {
                layer.forward(cpu, &layer.gather(ids, steps)?)
            }
            (_, None, Input::Numbers(rows, width)) => {
                let mut packed = memory::zeros("packed rows", steps.items() * width)?;
                cpu.pack_rows(rows, steps, width, &mut packed);
                infer_rows(cpu, self, link, steps, packed)
            }
            (_, below, _) => infer_rows(cpu, self, link, steps, below.unwrap_or_default()),
        }
    }
}

fn packed_rows<T>(data: &[T], width: usize) -> Rows<'_, [T]> {
    Rows { data, place: Place::packed(width) }
}

fn is_pooling<T: Number>(layer: &Layer<T>) -> bool {
    matches!(layer, Layer::Last | Layer::MeanPool | Layer::MaxPool)
}

/// Inference of the layers that have no state, on packed rows.
fn infer_rows<T: Number>(
    cpu: &Cpu<T>,
    layer: &Layer<T>,
    link: &Link,
    steps: &Steps,
    mut x: Vec<T>,
) -> Result<Vec<T>, Error> {
    let width = link.input.unwrap_or(1);
    Ok(match layer {
        Layer::Linear(layer) => layer.forward(cpu, &x)?,
        Layer::LayerNorm(layer) => {
            layer.infer(cpu, &mut x)?;
            x
        }
        Layer::Activation(function) => {
            function.forward(cpu, &mut x, width)?;
            x
        }
        Layer::Last => pooling::last(steps, &x, width, link.both_ways)?,
        Layer::MeanPool => pooling::mean(steps, &x, width)?,
        Layer::MaxPool => pooling::max(steps, &x, width)?.0,
        Layer::Dropout(_) => x,
        // The chain has ids before an embedding, and the caller takes recurrent layers.
        Layer::Embedding(_) | Layer::Recurrent(_) => unreachable!("reads no rows"),
    })
}

/// Training of the layers that have no state, on packed rows. `draw` is the seed of the
/// dropout masks and the number of the layer.
fn record_rows<T: Number>(
    cpu: &Cpu<T>,
    layer: &Layer<T>,
    link: &Link,
    steps: &Steps,
    x: &[T],
    draw: Option<(u64, usize)>,
) -> Result<Record<T>, Error> {
    let width = link.input.unwrap_or(1);
    Ok(match layer {
        Layer::Linear(layer) => Record::Rows { y: layer.forward(cpu, x)? },
        Layer::LayerNorm(layer) => {
            let (y, kept) = layer.record(cpu, x)?;
            Record::LayerNorm { kept, y }
        }
        Layer::Activation(function) => {
            let mut y = cpu.copy(x)?;
            function.forward(cpu, &mut y, width)?;
            Record::Rows { y }
        }
        Layer::Dropout(dropout) => match draw {
            Some((draw, k)) if dropout.p > 0.0 => {
                let places = match link.rank {
                    Rank::Steps => Places::of_steps(steps)?,
                    Rank::Rows => Places::All(steps.batch()),
                };
                let mask = dropout::mask(cpu, draw, (k, 0), dropout.p, &places, width)?;
                Record::Dropped { y: cpu.times(x, &mask)?, mask }
            }
            _ => Record::Passed,
        },
        Layer::Last => Record::Rows { y: pooling::last(steps, x, width, link.both_ways)? },
        Layer::MeanPool => Record::Rows { y: pooling::mean(steps, x, width)? },
        Layer::MaxPool => {
            let (y, from) = pooling::max(steps, x, width)?;
            Record::MaxPool { from, y }
        }
        Layer::Embedding(_) | Layer::Recurrent(_) => unreachable!("reads no rows"),
    })
}

/// The way back of [`record_rows`] and of embeddings.
#[expect(clippy::too_many_arguments, reason = "each is a quantity of the algorithm")]
fn backward_rows<T: Number>(
    cpu: &Cpu<T>,
    layer: &Layer<T>,
    link: &Link,
    steps: &Steps,
    x: &[T],
    record: &Record<T>,
    d_y: Cow<'_, [T]>,
    d_numbers: &mut [T],
    want_d_x: bool,
) -> Result<Option<Vec<T>>, Error> {
    let width = link.input.unwrap_or(1);
    Ok(match (layer, record) {
        (Layer::Embedding(layer), Record::Embedding { ids, .. }) => {
            layer.backward(ids, &d_y, d_numbers)?;
            None
        }
        (Layer::Linear(layer), Record::Rows { .. }) => {
            layer.backward(cpu, x, &d_y, d_numbers, want_d_x)?
        }
        (Layer::LayerNorm(layer), Record::LayerNorm { kept, .. }) => {
            let mut d = owned("gradient of a layer", d_y)?;
            layer.backward(cpu, kept, &mut d, d_numbers)?;
            Some(d)
        }
        (Layer::Activation(function), Record::Rows { y }) => {
            let mut d = owned("gradient of a layer", d_y)?;
            function.backward(cpu, y, &mut d, width)?;
            Some(d)
        }
        (Layer::Dropout(_), Record::Passed) => Some(owned("gradient of a layer", d_y)?),
        (Layer::Dropout(_), Record::Dropped { mask, .. }) => {
            let mut d = owned("gradient of a layer", d_y)?;
            d.iter_mut().zip(&mask[..]).for_each(|(d, &mask)| *d *= mask);
            Some(d)
        }
        (Layer::Last, Record::Rows { .. }) => {
            Some(pooling::last_back(steps, &d_y, width, link.both_ways)?)
        }
        (Layer::MeanPool, Record::Rows { .. }) => Some(pooling::mean_back(steps, &d_y, width)?),
        (Layer::MaxPool, Record::MaxPool { from, .. }) => {
            Some(pooling::max_back(steps, from, &d_y, width)?)
        }
        (layer, _) => {
            let expected = format!("the record of a layer like {}", layer.name());
            return Err(Error::state("tape", expected, "that of another kind"));
        }
    })
}

#[cfg(test)]
mod tests;
