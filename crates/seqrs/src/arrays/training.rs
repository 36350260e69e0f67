//! Training on arrays.

use seqrs_core::Error;
use seqrs_cpu::Cpu;

use super::states::{self, States};
use super::{Batch, Targets};
use crate::losses::Loss;
use crate::number::Number;
use crate::optimizers::OptimizerSpec;
use crate::sequential::Sequential;
use crate::trainer::{Evaluation, StepResult, Trainer, TrainerOptions};

/// A trainer to be: its options, each with Python's default.
#[derive(Clone, Debug)]
#[must_use = "`build` makes the trainer"]
pub struct TrainerBuilder<T: Number> {
    model: Sequential<T>,
    options: TrainerOptions,
}

impl<T: Number> TrainerBuilder<T> {
    /// The largest norm of the gradient, 1 unless told otherwise; a larger gradient is
    /// scaled down to it (Pascanu et al. 2013). `None` leaves it as it is.
    pub fn clip_norm(mut self, norm: impl Into<Option<f64>>) -> Self {
        self.options = self.options.clip_norm(norm);
        self
    }

    /// The largest absolute value of an element of the gradient, after `clip_norm`; `None`,
    /// the default, leaves them as they are.
    pub fn clip_value(mut self, value: impl Into<Option<f64>>) -> Self {
        self.options = self.options.clip_value(value);
        self
    }

    /// Truncated back-propagation through time: the sequence is cut into chunks of so many
    /// steps, one update each, and only the state, not its gradient, passes from one to the
    /// next. `None`, the default, takes the sequence as a whole.
    pub fn bptt(mut self, steps: impl Into<Option<usize>>) -> Self {
        self.options = self.options.bptt(steps);
        self
    }

    /// Where dropout masks come from, 0 unless told otherwise.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options = self.options.seed(seed);
        self
    }

    /// The trainer.
    ///
    /// # Errors
    /// [`Error::Option`] names an option that is at fault, `bptt` too where the model needs
    /// the whole sequence; [`Error::OutOfMemory`].
    pub fn build(self) -> Result<Trainer<T>, Error> {
        Trainer::with_options(self.model, self.options)
    }
}

impl<T: Number> Trainer<T> {
    /// Begins a trainer of this model, or of a single layer: options follow, then `build`,
    /// as for layers. A clone of the model elsewhere keeps its parameters.
    ///
    /// ```
    /// use seqrs::{Adam, Gru, Mse, Trainer};
    ///
    /// let layer = Gru::new(3, 8).build::<f32>()?;
    /// let trainer = Trainer::new(layer, Mse::mean(), Adam::new(2e-3)).bptt(50).build()?;
    /// assert_eq!(trainer.options().clip_norm, Some(1.0));
    /// # Ok::<(), seqrs::Error>(())
    /// ```
    #[expect(clippy::new_ret_no_self, reason = "everything with options here ends in `build`")]
    pub fn new(
        model: impl Into<Sequential<T>>,
        loss: impl Into<Loss>,
        optimizer: impl Into<OptimizerSpec>,
    ) -> TrainerBuilder<T> {
        TrainerBuilder { model: model.into(), options: TrainerOptions::new(loss, optimizer) }
    }

    /// One update from one batch; with `bptt`, one for each chunk of steps. A batch without
    /// a live step has loss 0 and changes nothing. The state in the result is detached:
    /// given to the next batch by [`Batch::state`], it goes on from there.
    ///
    /// # Errors
    /// [`Error::Numerical`] names a loss or gradient that is NaN or infinite and the update
    /// (counted from 1) it was for; [`Error::Shape`], [`Error::DType`] and [`Error::State`]
    /// what does not fit; [`Error::OutOfMemory`], [`Error::Interrupted`]. Nothing has
    /// changed then.
    pub fn step<'a, 'b>(
        &mut self,
        batch: impl Into<Batch<'a, T>>,
        targets: impl Into<Targets<'b, T>>,
    ) -> Result<StepResult<States<T>>, Error> {
        let mut batch = batch.into().read(&self.model)?;
        let targets = targets.into().read(&self.options.loss, &self.model, &batch)?;
        let state = std::mem::take(&mut batch.state);
        let (input, steps) = (batch.input(), batch.steps.clone());
        let found = self.step_on(&Cpu::new()?, input, targets.target(), steps, Some(state))?;
        Ok(StepResult {
            loss: found.loss,
            grad_norm: found.grad_norm,
            state: states::to_arrays(&self.model, found.state, batch.layout.batch),
        })
    }

    /// The loss on a batch, without dropout and without learning anything. It may be NaN or
    /// infinite.
    ///
    /// # Errors
    /// As [`Trainer::step`], but for [`Error::Numerical`].
    pub fn evaluate<'a, 'b>(
        &self,
        batch: impl Into<Batch<'a, T>>,
        targets: impl Into<Targets<'b, T>>,
    ) -> Result<Evaluation<States<T>>, Error> {
        let mut batch = batch.into().read(&self.model)?;
        let targets = targets.into().read(&self.options.loss, &self.model, &batch)?;
        let state = std::mem::take(&mut batch.state);
        let (input, target) = (batch.input(), targets.target());
        let found = self.evaluate_on(&Cpu::new()?, input, target, &batch.steps, Some(state))?;
        Ok(Evaluation {
            loss: found.loss,
            count: found.count,
            state: states::to_arrays(&self.model, found.state, batch.layout.batch),
        })
    }
}
