//! Training: forward, loss, backward, clipping and update as one call.
//!
//! ```
//! use ndarray::Array2;
//! use seqrs::{Adam, CrossEntropy, Embedding, Gru, Linear, Sequential, Trainer};
//!
//! // To say the next of the numbers 0 1 2 3 4 0 1 2 ...
//! let model = Sequential::<f32>::new(vec![
//!     Embedding::new(5, 8).build()?,
//!     Gru::new(8, 16).build()?,
//!     Linear::new(16, 5).build()?,
//! ])?;
//! let mut trainer = Trainer::new(model, CrossEntropy::mean(), Adam::new(0.01)).build()?;
//! let x = Array2::from_shape_fn((1, 20), |(_, t)| t as i64 % 5); // one row of 20 steps
//! let y = x.mapv(|id| (id + 1) % 5);
//! let mut losses = Vec::new();
//! for _ in 0..60 {
//!     losses.push(trainer.step(&x, &y)?.loss);
//! }
//! assert!(losses[59] < 0.1 * losses[0]);
//! # Ok::<(), seqrs::Error>(())
//! ```
//!
//! A step that fails, for whatever reason, leaves the model, the optimiser and all counters
//! as they were: the one thing that changes them, the update, comes last, has the memory that
//! it needs before it begins, and is not interrupted; with truncated back-propagation, where
//! there are several, a copy is worked on.

use seqrs_core::rows::{Place, Rows};
use seqrs_core::{Error, Steps, interrupt, memory};
use seqrs_cpu::Cpu;
use serde::{Deserialize, Serialize};

use crate::clipping::{Clipping, global_norm};
use crate::layer::Layer;
use crate::losses::Loss;
use crate::model_tape::OutputRef;
use crate::number::Number;
use crate::optimizers::{Optimizer, OptimizerSpec};
use crate::random::mix;
use crate::room::{copied_states, room};
use crate::sequential::{Input, ModelState, Rank, Sequential};
use crate::targets::{Gathered, Outputs, Target};

/// How a model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerOptions {
    /// What is made small.
    pub loss: Loss,
    /// How.
    pub optimizer: OptimizerSpec,
    /// The largest norm of the gradient; a larger one is scaled down to it.
    #[serde(default)]
    pub clip_norm: Option<f64>,
    /// The largest absolute value of an element of the gradient, after `clip_norm`.
    #[serde(default)]
    pub clip_value: Option<f64>,
    /// Steps in a chunk of truncated back-propagation through time (Williams and Peng
    /// 1990): the sequence is cut into chunks, one update each, and only the state, not its
    /// gradient, passes from one to the next. None takes the sequence as a whole.
    #[serde(default)]
    pub bptt: Option<usize>,
    /// Where dropout masks come from.
    #[serde(default)]
    pub seed: u64,
}

impl TrainerOptions {
    /// Norms up to 1, whole sequences, seed 0: the defaults of the Python class.
    pub fn new(loss: impl Into<Loss>, optimizer: impl Into<OptimizerSpec>) -> Self {
        Self {
            loss: loss.into(),
            optimizer: optimizer.into(),
            clip_norm: Some(1.0),
            clip_value: None,
            bptt: None,
            seed: 0,
        }
    }

    /// With another largest norm of the gradient, or with none.
    #[must_use]
    pub fn clip_norm(self, norm: impl Into<Option<f64>>) -> Self {
        Self { clip_norm: norm.into(), ..self }
    }

    /// With a largest absolute value of an element of the gradient, or with none.
    #[must_use]
    pub fn clip_value(self, value: impl Into<Option<f64>>) -> Self {
        Self { clip_value: value.into(), ..self }
    }

    /// With truncated back-propagation through chunks of so many steps, or through all.
    #[must_use]
    pub fn bptt(self, steps: impl Into<Option<usize>>) -> Self {
        Self { bptt: steps.into(), ..self }
    }

    /// With another seed of the dropout masks.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    fn clipping(&self) -> Clipping {
        Clipping { norm: self.clip_norm, value: self.clip_value }
    }
}

/// A model in training.
#[derive(Clone, Debug)]
pub struct Trainer<T: Number> {
    /// The model. Its parameters may be replaced, its structure may not.
    pub model: Sequential<T>,
    pub(crate) options: TrainerOptions,
    pub(crate) optimizer: Optimizer<T>,
    /// Numbers in each layer.
    sizes: Vec<usize>,
}

/// What a training step found; S is [`States`](crate::States), or on the level below
/// [`ModelState`].
#[derive(Clone, Debug, PartialEq)]
pub struct StepResult<S> {
    /// The loss before the update, or, with `bptt`, of each chunk before its update.
    pub loss: f64,
    /// The norm of the gradient before clipping; with `bptt` the largest of the chunks'.
    pub grad_norm: f64,
    /// The states after the last step, to go on from with the next batch.
    pub state: S,
}

/// What [`Trainer::evaluate`] found; S as in [`StepResult`].
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation<S> {
    /// The loss.
    pub loss: f64,
    /// Outputs it was made of: live steps, or rows with a live step for a model with one
    /// output per row.
    pub count: usize,
    /// The states after the last step.
    pub state: S,
}

/// What one chunk adds to the result.
#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    /// The sum of the losses of its outputs.
    total: f64,
    grad_norm: f64,
}

impl<T: Number> Trainer<T> {
    /// Takes over the model; a clone of it elsewhere keeps its parameters. [`Trainer::new`]
    /// is the same with the options one by one.
    ///
    /// # Errors
    /// [`Error::Option`] names an option that is at fault, `bptt` too where the model needs
    /// the whole sequence; [`Error::State`] if weights are small ones; [`Error::OutOfMemory`].
    pub fn with_options(model: Sequential<T>, options: TrainerOptions) -> Result<Self, Error> {
        model.check_numbers()?;
        options.loss.check()?;
        options.clipping().check()?;
        check_bptt(&model, options.bptt)?;
        let sizes: Vec<usize> = model.layers().iter().map(Layer::num_parameters).collect();
        let optimizer = Optimizer::new(options.optimizer, &sizes)?;
        Ok(Self { model, options, optimizer, sizes })
    }

    /// What it is made of.
    #[cfg(feature = "gpu")]
    pub(crate) fn into_parts(self) -> (Sequential<T>, TrainerOptions, Optimizer<T>) {
        (self.model, self.options, self.optimizer)
    }

    /// The other way round.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_parts(
        model: Sequential<T>,
        options: TrainerOptions,
        optimizer: Optimizer<T>,
    ) -> Self {
        let sizes = model.layers().iter().map(Layer::num_parameters).collect();
        Self { model, options, optimizer, sizes }
    }

    /// How the model is trained.
    pub fn options(&self) -> &TrainerOptions {
        &self.options
    }

    /// The learning rate of the next update.
    pub fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    /// Updates done: one for each step, or for each chunk with `bptt`, that had a live step.
    pub fn steps_done(&self) -> u64 {
        self.optimizer.updates()
    }

    /// Shows the learning rate's schedule a metric, smaller being better; only
    /// [`Plateau`](crate::schedules::Plateau) looks at it.
    pub fn observe(&mut self, metric: f64) {
        self.optimizer.observe(metric);
    }

    /// [`Trainer::step`] of the level below: x and target as `steps` says, `state` the states to
    /// begin with (zeros if none). A batch without a live step has loss 0 and changes
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Numerical`] names a loss or gradient that is NaN or infinite and the update
    /// (counted from 1) it was for; [`Error::Shape`], [`Error::DType`] and [`Error::State`]
    /// what does not fit; [`Error::OutOfMemory`], [`Error::Interrupted`]. Nothing has
    /// changed then.
    pub fn step_on(
        &mut self,
        cpu: &Cpu<T>,
        x: Input<'_, T>,
        target: Target<'_, T>,
        steps: Steps,
        state: Option<ModelState<T>>,
    ) -> Result<StepResult<ModelState<T>>, Error> {
        self.step_if(cpu, x, target, steps, state, || Ok(()))
    }

    /// As [`Trainer::step_on`], for a caller who may change their mind until the last moment:
    /// `agreed` is asked when everything is ready and the update is all that is left to do,
    /// which nothing interrupts.
    ///
    /// # Errors
    /// As [`Trainer::step_on`], and those of `agreed`. Nothing has changed then.
    pub fn step_if(
        &mut self,
        cpu: &Cpu<T>,
        x: Input<'_, T>,
        target: Target<'_, T>,
        steps: Steps,
        state: Option<ModelState<T>>,
        agreed: impl FnOnce() -> Result<(), Error>,
    ) -> Result<StepResult<ModelState<T>>, Error> {
        let (count, width) = self.check(&x, &target, &steps)?;
        let mut state = state_for(&self.model, state, steps.batch())?;
        if count == 0 {
            return Ok(StepResult { loss: 0.0, grad_norm: 0.0, state });
        }
        let chunk = self.options.bptt.unwrap_or(usize::MAX).min(steps.time());
        let mut sum = Chunk::default();
        if chunk == steps.time() {
            sum = self.chunk(cpu, x, target, steps, &mut state, agreed)?;
        } else {
            // Wrong targets at the end are found before the beginning is learnt.
            target.gather(&outputs(&self.model, &steps)?, width)?;
            let mut work = self.copied()?;
            for from in (0..steps.time()).step_by(chunk) {
                let part = steps.slice(from, (from + chunk).min(steps.time()));
                let (x, target) = later(x, target, &steps, from);
                let found = work.chunk(cpu, x, target, part, &mut state, || Ok(()))?;
                sum.total += found.total;
                sum.grad_norm = sum.grad_norm.max(found.grad_norm);
            }
            agreed()?;
            *self = work;
        }
        let loss = self.options.loss;
        let loss = loss.reduce(sum.total, loss.terms(count * width, width));
        Ok(StepResult { loss, grad_norm: sum.grad_norm, state })
    }

    /// [`Trainer::evaluate`] of the level below.
    ///
    /// # Errors
    /// As [`Trainer::step_on`], but for [`Error::Numerical`].
    pub fn evaluate_on(
        &self,
        cpu: &Cpu<T>,
        x: Input<'_, T>,
        target: Target<'_, T>,
        steps: &Steps,
        state: Option<ModelState<T>>,
    ) -> Result<Evaluation<ModelState<T>>, Error> {
        let (count, width) = self.check(&x, &target, steps)?;
        let mut state = state_for(&self.model, state, steps.batch())?;
        if count == 0 {
            return Ok(Evaluation { loss: 0.0, count, state });
        }
        let outputs = outputs(&self.model, steps)?;
        let target = target.gather(&outputs, width)?;
        let output = self.model.infer_on(cpu, x, steps, &mut state)?;
        let numbers = chosen(&output.numbers, width, &outputs)?;
        let numbers = numbers.as_deref().unwrap_or(&output.numbers);
        let loss = self.options.loss.value(cpu, numbers, width, target.packed())?;
        Ok(Evaluation { loss, count, state })
    }

    /// Checks what can be checked without looking at numbers. Gives how many outputs have a
    /// target, and the width of an output.
    fn check(
        &self,
        x: &Input<'_, T>,
        target: &Target<'_, T>,
        steps: &Steps,
    ) -> Result<(usize, usize), Error> {
        if !self.model.layers().iter().map(Layer::num_parameters).eq(self.sizes.iter().copied()) {
            let expected = "the structure that the trainer was made for";
            return Err(Error::state("model of the trainer", expected, "another"));
        }
        check_target(&self.model, self.options.loss, x, target, steps)
    }

    /// A copy; [`Clone`] is for those who know that there is memory for one.
    pub(crate) fn copied(&self) -> Result<Self, Error> {
        let (model, sizes) = (self.model.clone(), self.sizes.clone());
        Ok(Self { model, options: self.options, optimizer: self.optimizer.copied()?, sizes })
    }

    /// One update, on these steps as a whole; none if none of them is live.
    fn chunk(
        &mut self,
        cpu: &Cpu<T>,
        x: Input<'_, T>,
        target: Target<'_, T>,
        steps: Steps,
        state: &mut ModelState<T>,
        agreed: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Chunk, Error> {
        let outputs = outputs(&self.model, &steps)?;
        if outputs.len() == 0 {
            return Ok(Chunk::default());
        }
        let update = self.optimizer.updates() + 1;
        let (_, width) = self.check(&x, &target, &steps)?;
        let target = target.gather(&outputs, width)?;
        let draw = mix(self.options.seed, update);
        let mut after = copied_states(state)?;
        let tape = self.model.record_on(cpu, x, steps.clone(), &mut after, Some(draw))?;
        let (total, d_y) = loss_of(cpu, self.options.loss, tape.output(), &outputs, &target)?;
        if !total.is_finite() {
            let what = format!("loss at step {update}");
            return Err(Error::numerical(what, "a finite number", total));
        }
        interrupt::check()?;
        let mut d_state = self.model.zero_state(steps.batch())?;
        let mut gradients = self.model.backward_on(cpu, &tape, Some(&d_y), &mut d_state, false)?;
        drop(tape);
        let grad_norm = global_norm(cpu, &gradients.layers)?;
        if !grad_norm.is_finite() {
            return Err(self.not_finite(&gradients.layers, update));
        }
        self.options.clipping().apply(cpu, &mut gradients.layers, grad_norm)?;
        interrupt::check()?;
        self.model.layers_mut().iter_mut().try_for_each(Layer::unshare)?;
        agreed()?;
        let parameters = self.model.layers_mut().iter_mut().map(Layer::numbers_mut);
        self.optimizer.update(cpu, parameters, &gradients.layers)?;
        *state = after;
        Ok(Chunk { total, grad_norm })
    }

    /// The error for gradients whose norm is not finite.
    fn not_finite(&self, gradients: &[Vec<T>], update: u64) -> Error {
        for (k, (layer, gradient)) in self.model.layers().iter().zip(gradients).enumerate() {
            for parameter in layer.parameters() {
                let numbers = &gradient[parameter.range];
                if let Some(&number) = numbers.iter().find(|number| !number.is_finite()) {
                    let what = format!("gradient of {k}.{} at step {update}", parameter.name);
                    return Error::numerical(what, "finite numbers", number.to_f64());
                }
            }
        }
        let what = format!("norm of the gradient at step {update}");
        Error::numerical(what, "a finite number", f64::INFINITY)
    }
}

fn check_bptt<T: Number>(model: &Sequential<T>, bptt: Option<usize>) -> Result<(), Error> {
    let Some(chunk) = bptt else { return Ok(()) };
    if chunk == 0 {
        return Err(Error::option("bptt", "an integer of at least 1, or none", chunk));
    }
    let whole = |layer: &Layer<T>| match layer {
        Layer::Recurrent(layer) => layer.stack().options().bidirectional,
        Layer::Last | Layer::MeanPool | Layer::MaxPool => true,
        _ => false,
    };
    match model.layers().iter().position(whole) {
        None => Ok(()),
        Some(k) => {
            let name = model.layers()[k].name();
            let expected = format!("none, as layer {k} ({name}) needs the whole sequence");
            Err(Error::option("bptt", expected, chunk))
        }
    }
}

/// How many outputs of the model have a target, and the width of an output.
///
/// # Errors
/// [`Error::DType`] if the loss takes the other kind of targets; [`Error::OutOfMemory`].
pub(crate) fn check_target<T: Number>(
    model: &Sequential<T>,
    loss: Loss,
    x: &Input<'_, T>,
    target: &Target<'_, T>,
    steps: &Steps,
) -> Result<(usize, usize), Error> {
    loss.check_kind(matches!(target, Target::Ids(_)))?;
    let width = match (model.output_width(), x) {
        (Some(width), _) | (None, &Input::Numbers(_, width)) => width,
        // Ids go to an embedding, whose width is known: the model will refuse them.
        (None, Input::Ids(_)) => 1,
    };
    Ok((outputs(model, steps)?.len(), width))
}

/// The states to begin with.
///
/// # Errors
/// As [`Sequential::check_state`]; [`Error::OutOfMemory`].
pub(crate) fn state_for<T: Number>(
    model: &Sequential<T>,
    state: Option<ModelState<T>>,
    batch: usize,
) -> Result<ModelState<T>, Error> {
    match state {
        None => model.zero_state(batch),
        Some(state) => model.check_state(&state, batch).map(|()| state),
    }
}

/// The outputs of the model that have a target.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn outputs<'s, T: Number>(
    model: &Sequential<T>,
    steps: &'s Steps,
) -> Result<Outputs<'s>, Error> {
    match model.output_rank() {
        Rank::Steps => Ok(Outputs::steps(steps)),
        Rank::Rows => Outputs::rows(steps),
    }
}

/// What a model reads, and its targets, from step `from` on.
pub(crate) fn later<'a, T>(
    x: Input<'a, T>,
    target: Target<'a, T>,
    steps: &Steps,
    from: usize,
) -> (Input<'a, T>, Target<'a, T>) {
    let x = match x {
        Input::Numbers(rows, width) => Input::Numbers(later_rows(rows, steps, from), width),
        Input::Ids(rows) => Input::Ids(later_rows(rows, steps, from)),
    };
    let target = match target {
        Target::Numbers(rows, width) => Target::Numbers(later_rows(rows, steps, from), width),
        Target::Ids(rows) => Target::Ids(later_rows(rows, steps, from)),
    };
    (x, target)
}

/// The same rows from step `from` on, for a slice of the steps that begins there.
fn later_rows<'a, S: ?Sized>(rows: Rows<'a, S>, steps: &Steps, from: usize) -> Rows<'a, S> {
    let place = match rows.place {
        Place::Packed { start, stride } => {
            Place::Packed { start: start + steps.at(from).0.start * stride, stride }
        }
        Place::Padded { start, time, batch } => {
            Place::Padded { start: start + from * time, time, batch }
        }
    };
    Rows { data: rows.data, place }
}

/// The sum over the outputs that have a target, and the gradient of the loss at all outputs.
///
/// # Errors
/// As [`Loss::value`].
pub(crate) fn loss_of<T: Number>(
    cpu: &Cpu<T>,
    loss: Loss,
    output: OutputRef<'_, T>,
    outputs: &Outputs<'_>,
    target: &Gathered<T>,
) -> Result<(f64, Vec<T>), Error> {
    let width = output.width;
    let Some(numbers) = chosen(output.numbers, width, outputs)? else {
        return loss.total_and_gradient(cpu, output.numbers, width, target.packed());
    };
    let (total, d_chosen) = loss.total_and_gradient(cpu, &numbers, width, target.packed())?;
    let mut d_y = memory::zeros("gradient of the loss", output.numbers.len())?;
    if let Outputs::Rows(rows) = outputs {
        for (&row, d) in rows.iter().zip(d_chosen.chunks_exact(width)) {
            d_y[row * width..][..width].copy_from_slice(d);
        }
    }
    Ok((total, d_y))
}

/// The rows that have a target, if not all have one.
fn chosen<T: Number>(
    numbers: &[T],
    width: usize,
    outputs: &Outputs<'_>,
) -> Result<Option<Vec<T>>, Error> {
    match outputs {
        Outputs::Rows(rows) if rows.len() * width < numbers.len() => {
            let mut chosen = room("outputs with a target", rows.len() * width)?;
            rows.iter().for_each(|&b| chosen.extend_from_slice(&numbers[b * width..][..width]));
            Ok(Some(chosen))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use seqrs_cpu::level::Level;

    use super::*;
    use crate::losses::{CrossEntropy, Mse};
    use crate::optimizers::{Adam, Sgd};
    use crate::random::Stream;
    use crate::{Dropout, Embedding, Gru, Linear, Lstm};

    const TIME: usize = 7;
    const BATCH: usize = 3;
    const CLASSES: usize = 5;
    const PLACE: Place = Place::Padded { start: 0, time: 1, batch: TIME };

    fn cpu<T: Number>(threads: usize) -> Cpu<T> {
        Cpu::with(Level::detect(), threads)
    }

    fn ids(seed: u64) -> Vec<i64> {
        let mut stream = Stream::new(seed, 0);
        (0..TIME * BATCH).map(|_| stream.below(CLASSES as u64) as i64).collect()
    }

    fn lengths() -> Steps {
        Steps::from_lengths(TIME, &[7, 0, 5]).unwrap()
    }

    fn input<T>(ids: &[i64]) -> Input<'_, T> {
        Input::Ids(Rows { data: ids, place: PLACE })
    }

    fn target<T>(ids: &[i64]) -> Target<'_, T> {
        Target::Ids(Rows { data: ids, place: PLACE })
    }

    /// Ids to classes at every step, with dropout within and between layers.
    fn model<T: Number>() -> Sequential<T> {
        let layers = vec![
            Embedding::new(CLASSES, 4).build().unwrap(),
            Lstm::new(4, 6).layers(2).dropout(0.3).build().unwrap(),
            Dropout::new(0.2).build().unwrap(),
            Linear::new(6, CLASSES).build().unwrap(),
        ];
        Sequential::new(layers).unwrap().reseeded(3).unwrap()
    }

    fn options() -> TrainerOptions {
        TrainerOptions::new(CrossEntropy::mean(), Adam::new(0.01)).clip_norm(0.5).seed(9)
    }

    fn numbers<T: Number>(trainer: &Trainer<T>) -> Vec<Vec<T>> {
        trainer.model.layers().iter().map(|layer| layer.numbers().to_vec()).collect()
    }

    /// Everything that a step may change.
    type Content<T> = (Vec<Vec<T>>, Vec<u64>, Optimizer<T>);

    fn content<T: Number>(trainer: &Trainer<T>) -> Content<T> {
        let versions = trainer.model.layers().iter().map(Layer::version).collect();
        (numbers(trainer), versions, trainer.optimizer.clone())
    }

    #[test]
    fn training_makes_the_loss_small() {
        fn run<T: Number>() {
            let (x, y) = (ids(1), ids(2));
            let mut trainer = Trainer::<T>::with_options(model(), options()).unwrap();
            let mut step = || {
                let result = trainer.step_on(&cpu(1), input(&x), target(&y), lengths(), None);
                result.unwrap().loss
            };
            let first = step();
            let last = (0..300).map(|_| step()).last().unwrap();
            assert!(last < 0.5 * first, "{first} {last}");
            assert_eq!(trainer.steps_done(), 301);
        }
        run::<f32>();
        run::<f64>();
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (x, y) = (ids(1), ids(2));
        let run = |threads| {
            let mut trainer = Trainer::<f32>::with_options(model(), options().bptt(4)).unwrap();
            let step =
                |_| trainer.step_on(&cpu(threads), input(&x), target(&y), lengths(), None).unwrap();
            let results: Vec<_> = (0..5).map(step).collect();
            (results, numbers(&trainer))
        };
        let one = run(1);
        assert!((2..5).all(|threads| run(threads) == one));
    }

    #[test]
    fn truncated_chunks_are_steps_that_carry_the_state() {
        let (x, y) = (ids(1), ids(2));
        let (steps, chunk) = (lengths(), 3);
        let mut whole = Trainer::<f64>::with_options(model(), options().bptt(chunk)).unwrap();
        let mut parts = Trainer::<f64>::with_options(model(), options()).unwrap();
        for _ in 0..3 {
            let ours = whole.step_on(&cpu(1), input(&x), target(&y), steps.clone(), None).unwrap();
            let (mut state, mut total, mut norm) = (None, 0.0, 0.0_f64);
            for from in [0, 3, 6] {
                let part = steps.slice(from, (from + chunk).min(TIME));
                let at =
                    |data| Rows { data, place: Place::Padded { start: from, time: 1, batch: 7 } };
                let (x, y) = (Input::Ids(at(&x[..])), Target::Ids(at(&y[..])));
                let items = part.items() as f64;
                let result = parts.step_on(&cpu(1), x, y, part, state).unwrap();
                total += result.loss * items;
                norm = norm.max(result.grad_norm);
                state = Some(result.state);
            }
            assert!((ours.loss - total / steps.items() as f64).abs() < 1e-14);
            assert_eq!((ours.grad_norm, ours.state), (norm, state.unwrap()));
            assert_eq!(numbers(&whole), numbers(&parts));
            assert_eq!(whole.optimizer, parts.optimizer);
        }
        assert_eq!(whole.steps_done(), 9);
    }

    #[test]
    fn a_chunk_as_long_as_the_sequence_changes_nothing() {
        let (x, y) = (ids(1), ids(2));
        let run = |options| {
            let mut trainer = Trainer::<f32>::with_options(model(), options).unwrap();
            let result = trainer.step_on(&cpu(1), input(&x), target(&y), lengths(), None).unwrap();
            (result, numbers(&trainer))
        };
        assert_eq!(run(options()), run(options().bptt(TIME)));
        assert_eq!(run(options()), run(options().bptt(usize::MAX)));
    }

    fn regression() -> Sequential<f32> {
        let layers = vec![Gru::new(1, 3).build().unwrap(), Linear::new(3, 1).build().unwrap()];
        Sequential::new(layers).unwrap()
    }

    #[test]
    fn a_number_that_is_none_leaves_everything_as_it_was() {
        let steps = || Steps::dense(TIME, 1).unwrap();
        let rows = |data| Rows { data, place: PLACE };
        let good = [0.5_f32; TIME];
        let mut late = good;
        late[TIME - 1] = f32::NAN;
        for options in [
            TrainerOptions::new(Mse::mean(), Adam::new(0.01)),
            TrainerOptions::new(Mse::mean(), Adam::new(0.01)).bptt(2),
        ] {
            let mut trainer = Trainer::with_options(regression(), options).unwrap();
            let mut step = |x, y, check: &dyn Fn(Result<_, Error>)| {
                let before = content(&trainer);
                let (x, y) = (Input::Numbers(rows(x), 1), Target::Numbers(rows(y), 1));
                let result = trainer.step_on(&cpu(1), x, y, steps(), None);
                assert_eq!(result.is_err(), content(&trainer) == before);
                check(result.map(|result| result.loss));
            };
            let fine = |result: Result<f64, Error>| assert!(result.unwrap().is_finite());
            let fails = |result: Result<f64, Error>| {
                let error = result.unwrap_err();
                let at = if options.bptt.is_some() { "step 8" } else { "step 2" };
                assert!(matches!(error, Error::Numerical { .. }), "{error:?}");
                assert!(error.to_string().starts_with(&format!("loss at {at}: ")), "{error}");
            };
            step(&good, &good, &fine);
            step(&late, &good, &fails);
            step(&good, &late, &fails);
            step(&good, &good, &fine);
        }
    }

    #[test]
    fn an_infinite_gradient_is_named_by_its_parameter() {
        let model = Sequential::new(vec![Linear::new(1, 1).bias(false).build::<f32>().unwrap()]);
        let options = TrainerOptions::new(Mse::sum(), Sgd::new(0.1));
        let mut trainer = Trainer::with_options(model.unwrap(), options).unwrap();
        let x = Input::Numbers(Rows { data: &[1e20][..], place: PLACE }, 1);
        let y = Target::Numbers(Rows { data: &[0.0][..], place: PLACE }, 1);
        let before = content(&trainer);
        let error = trainer.step_on(&cpu(1), x, y, Steps::dense(1, 1).unwrap(), None).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("gradient of 0.weight at step 1: expected finite"),
            "{message}"
        );
        assert_eq!(content(&trainer), before);
    }

    #[test]
    fn an_interrupt_leaves_everything_as_it_was() {
        let (x, y) = (ids(1), ids(2));
        let mut trainer = Trainer::<f32>::with_options(model(), options().bptt(2)).unwrap();
        let before = content(&trainer);
        let result = interrupt::scope(
            || true,
            || trainer.step_on(&cpu(1), input(&x), target(&y), lengths(), None),
        );
        assert_eq!(result, Err(Error::Interrupted));
        assert_eq!(content(&trainer), before);
    }

    #[test]
    fn who_does_not_agree_keeps_everything_as_it_was() {
        let (x, y) = (ids(1), ids(2));
        for options in [options(), options().bptt(2)] {
            let mut trainer = Trainer::<f32>::with_options(model(), options).unwrap();
            let mut step = |agreed: fn() -> Result<(), Error>| {
                let before = content(&trainer);
                let (x, y) = (input(&x), target(&y));
                let result = trainer.step_if(&cpu(1), x, y, lengths(), None, agreed);
                (result, before == content(&trainer))
            };
            assert_eq!(step(|| Err(Error::Interrupted)), (Err(Error::Interrupted), true));
            let (done, same) = step(|| Ok(()));
            assert!(done.is_ok() && !same);
        }
    }

    #[test]
    fn without_a_live_step_nothing_changes() {
        let (x, y) = (ids(1), ids(2));
        for options in [options(), options().bptt(2)] {
            let mut trainer = Trainer::<f32>::with_options(model(), options).unwrap();
            let before = content(&trainer);
            let steps = Steps::from_lengths(TIME, &[0, 0, 0]).unwrap();
            let mut state = trainer.model.zero_state(BATCH).unwrap();
            state[0].h[0] = 0.5;
            let result =
                trainer.step_on(&cpu(1), input(&x), target(&y), steps.clone(), Some(state.clone()));
            assert_eq!(result, Ok(StepResult { loss: 0.0, grad_norm: 0.0, state }));
            let found = trainer.evaluate_on(&cpu(1), input(&x), target(&y), &steps, None).unwrap();
            assert_eq!((found.loss, found.count), (0.0, 0));
            assert_eq!(content(&trainer), before);
        }
    }

    #[test]
    fn a_row_without_a_live_step_is_as_if_it_were_not_there() {
        let layers = vec![
            Embedding::new(CLASSES, 4).build().unwrap(),
            Gru::new(4, 6).bidirectional(true).build().unwrap(),
            Layer::Last,
            Linear::new(12, CLASSES).build().unwrap(),
        ];
        let model = Sequential::<f64>::new(layers).unwrap();
        let run = |x: &[i64], y: &[i64], lengths: &[usize]| {
            let mut trainer = Trainer::with_options(model.clone(), options()).unwrap();
            let steps = Steps::from_lengths(TIME, lengths).unwrap();
            let y = Target::Ids(Rows { data: y, place: Place::packed(1) });
            let found = trainer.evaluate_on(&cpu(1), input(x), y, &steps, None).unwrap();
            let result = trainer.step_on(&cpu(1), input(x), y, steps, None).unwrap();
            assert_eq!((found.loss, found.count), (result.loss, 2));
            (result.loss, result.grad_norm, numbers(&trainer))
        };
        let mut x = ids(1);
        let with = run(&x, &[1, -1, 2], &[4, 0, 7]);
        x.drain(TIME..2 * TIME);
        assert_eq!(with, run(&x, &[1, 2], &[4, 7]));
    }

    #[test]
    fn evaluation_drops_nothing_and_learns_nothing() {
        let (x, y) = (ids(1), ids(2));
        let trainer = Trainer::<f32>::with_options(model(), options()).unwrap();
        let mut still = model();
        for layer in still.layers_mut() {
            let mut spec = serde_json::to_value(layer.spec()).unwrap();
            if let Some(p) = spec.get_mut("dropout").filter(|p| p.is_number()) {
                *p = 0.0.into();
            }
            if let Some(p) = spec.get_mut("p") {
                *p = 0.0.into();
            }
            let spec = serde_json::from_value(spec).unwrap();
            *layer = Layer::with_numbers(spec, layer.numbers().to_vec()).unwrap();
        }
        let mut still = Trainer::with_options(still, options()).unwrap();
        let found = trainer.evaluate_on(&cpu(1), input(&x), target(&y), &lengths(), None).unwrap();
        let expected = still.step_on(&cpu(1), input(&x), target(&y), lengths(), None).unwrap();
        assert_eq!((found.loss, found.state), (expected.loss, expected.state));
        assert_eq!(found.count, 12);
    }

    #[test]
    fn a_wrong_target_at_the_end_is_found_before_anything_is_learnt() {
        let (x, mut y) = (ids(1), ids(2));
        y[BATCH * TIME - 3] = 7;
        let mut trainer = Trainer::<f32>::with_options(model(), options().bptt(2)).unwrap();
        let before = content(&trainer);
        let error = trainer.step_on(&cpu(1), input(&x), target(&y), lengths(), None).unwrap_err();
        assert_eq!(error.to_string(), "target[2, 4]: expected a class in 0..5, got 7");
        let numbers = Target::Numbers(Rows { data: &[0.0; 200], place: PLACE }, CLASSES);
        let error = trainer.step_on(&cpu(1), input(&x), numbers, lengths(), None).unwrap_err();
        assert!(matches!(error, Error::DType { .. }), "{error:?}");
        assert_eq!(content(&trainer), before);
    }

    #[test]
    fn options_that_do_not_go_with_the_model_are_refused_by_name() {
        let message = |model, options: TrainerOptions| {
            Trainer::<f32>::with_options(model, options).unwrap_err().to_string()
        };
        assert!(message(model(), options().bptt(0)).starts_with("bptt: "));
        assert!(message(model(), options().clip_norm(-1.0)).starts_with("clip_norm: "));
        assert!(message(model(), options().clip_value(0.0)).starts_with("clip_value: "));
        let both_ways = Gru::new(1, 2).bidirectional(true).build().unwrap();
        let model = Sequential::new(vec![both_ways]).unwrap();
        assert_eq!(
            message(model, options().bptt(5)),
            "bptt: expected none, as layer 0 (GRU) needs the whole sequence, got 5"
        );
    }

    #[test]
    fn another_structure_in_the_trainer_is_refused() {
        let (x, y) = (ids(1), ids(2));
        let mut trainer = Trainer::<f32>::with_options(model(), options()).unwrap();
        trainer.model = regression();
        let error = trainer.step_on(&cpu(1), input(&x), target(&y), lengths(), None).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error:?}");
    }
}
