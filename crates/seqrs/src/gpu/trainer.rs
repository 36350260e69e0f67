//! Training steps on a device.

use std::sync::Arc;

use seqrs_core::backend::{Backend, State};
use seqrs_core::{Error, Steps};
use seqrs_gpu::device::Gpu;
use seqrs_gpu::{Clip, Numbers, Rule, Term};

use super::model::{DeviceState, GpuModel, with_its_device};
use crate::layer::Layer;
use crate::losses::{Huber, Loss};
use crate::optimizers::{self, Optimizer};
use crate::random::mix;
use crate::sequential::{Input, ModelState, Sequential};
use crate::targets::{Gathered, Outputs, Target};
use crate::trainer::{
    Evaluation, StepResult, Trainer, TrainerOptions, check_target, later, outputs, state_for,
};

/// Trains a model on a GPU, as [`Trainer`](crate::Trainer) does on the CPU: forward, loss, backward,
/// clipping and update stay on the device, and the loss, the norm of the gradient and the states
/// come back.
#[derive(Debug)]
pub struct GpuTrainer {
    model: GpuModel,
    options: TrainerOptions,
    /// Counts updates and knows the learning rate; its moments are on the device.
    optimizer: Optimizer<f32>,
    /// Of each layer, as many as the optimiser keeps.
    moments: Vec<Vec<Arc<Numbers>>>,
}

/// What one chunk adds to the result.
#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    total: f64,
    grad_norm: f64,
}

impl GpuTrainer {
    /// Takes the model to a device.
    ///
    /// # Errors
    /// [`Error::Option`] names an option that is at fault; [`Error::NoDevice`],
    /// [`Error::OutOfMemory`].
    pub fn new(
        gpu: Arc<Gpu>,
        model: Sequential<f32>,
        options: TrainerOptions,
    ) -> Result<Self, Error> {
        Self::from_cpu(gpu, Trainer::with_options(model, options)?)
    }

    /// Takes a trainer to a device, with all that its optimiser keeps.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::OutOfMemory`].
    pub fn from_cpu(gpu: Arc<Gpu>, trainer: Trainer<f32>) -> Result<Self, Error> {
        let (model, options, optimizer) = trainer.into_parts();
        let model = GpuModel::new(gpu, model)?;
        let upload = |run: &Vec<f32>| Arc::from(model.recorder.numbers(run));
        // By name, then by layer; on the device the other way round.
        let layers = 0..model.parameters.len();
        let of_layer = |k: usize| optimizer.moments.iter().map(|runs| upload(&runs[k])).collect();
        let moments = layers.map(of_layer).collect();
        let optimizer = Optimizer { moments: Vec::new(), ..optimizer };
        // A step that fails must not take them along.
        model.gpu.run_recorded(&model.recorder)?;
        Ok(Self { model, options, optimizer, moments })
    }

    /// The same trainer on the CPU: it goes on from here.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::OutOfMemory`].
    pub fn to_cpu(&self) -> Result<Trainer<f32>, Error> {
        let model = self.model.to_cpu()?;
        let wanted: Vec<&Numbers> = self.moments.iter().flatten().map(|moment| &**moment).collect();
        let found = self.model.gpu.read_all(&self.model.recorder, &wanted);
        let mut found = found.map_err(with_its_device)?.into_iter();
        let names = self.moments.first().map_or(0, Vec::len);
        let mut moments = vec![Vec::with_capacity(self.moments.len()); names];
        for _ in &self.moments {
            for runs in &mut moments {
                runs.push(found.next().expect("each was asked for"));
            }
        }
        let optimizer = Optimizer { moments, ..self.optimizer.clone() };
        Ok(Trainer::of_parts(model, self.options, optimizer))
    }

    /// Goes on with other parameters, those of a model of the same structure.
    ///
    /// # Errors
    /// [`Error::State`] for a model of another structure; [`Error::NoDevice`],
    /// [`Error::OutOfMemory`].
    pub fn set_model(&mut self, model: &Sequential<f32>) -> Result<(), Error> {
        let sizes = |model: &Sequential<f32>| {
            model.layers().iter().map(Layer::num_parameters).collect::<Vec<_>>()
        };
        if sizes(model) != sizes(&self.model.model) {
            let expected = "the structure that the trainer was made for";
            return Err(Error::state("model of the trainer", expected, "another"));
        }
        self.model.put(model)
    }

    /// Shows the learning rate's schedule a metric, smaller being better.
    pub fn observe(&mut self, metric: f64) {
        self.optimizer.observe(metric);
    }

    /// How the model is trained.
    pub fn options(&self) -> &TrainerOptions {
        &self.options
    }

    /// The model, on the device.
    pub fn model(&self) -> &GpuModel {
        &self.model
    }

    /// Updates done.
    pub fn steps_done(&self) -> u64 {
        self.optimizer.updates()
    }

    /// The learning rate of the next update.
    pub fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    /// One update, or one for each chunk with `bptt`; as
    /// [`Trainer::step_on`](crate::Trainer::step_on).
    ///
    /// # Errors
    /// As there, and [`Error::NoDevice`]. Nothing has changed then, unless the device is lost. It is
    /// interrupted as there: until the update begins.
    pub fn step(
        &mut self,
        x: Input<'_, f32>,
        target: Target<'_, f32>,
        steps: &Steps,
        state: Option<ModelState<f32>>,
    ) -> Result<StepResult<ModelState<f32>>, Error> {
        let (structure, loss) = (&self.model.model, self.options.loss);
        let (count, width) = check_target(structure, loss, &x, &target, steps)?;
        let state = state_for(structure, state, steps.batch())?;
        if count == 0 {
            return Ok(StepResult { loss: 0.0, grad_norm: 0.0, state });
        }
        let chunk = self.options.bptt.unwrap_or(usize::MAX).min(steps.time());
        let mut device = self.model.upload_state(&state, steps.batch())?;
        let (mut sum, mut after) = (Chunk::default(), None);
        if chunk == steps.time() {
            (sum, after) = self.chunk(x, target, width, steps, &mut device)?;
        } else {
            // Wrong targets at the end are found before the beginning is learnt.
            target.gather(&outputs(structure, steps)?, width)?;
            let before = self.branch()?;
            for from in (0..steps.time()).step_by(chunk) {
                let part = steps.slice(from, (from + chunk).min(steps.time()));
                let (x, target) = later(x, target, steps, from);
                match self.chunk(x, target, width, &part, &mut device) {
                    Ok((found, state)) => {
                        sum.total += found.total;
                        sum.grad_norm = sum.grad_norm.max(found.grad_norm);
                        after = state.or(after);
                    }
                    Err(error) => {
                        self.go_back(before);
                        return Err(error);
                    }
                }
            }
        }
        let loss = loss.reduce(sum.total, loss.terms(count * width, width));
        // Where no step is live the states stay.
        let state = after.unwrap_or(state);
        Ok(StepResult { loss, grad_norm: sum.grad_norm, state })
    }

    /// The loss without an update; as [`Trainer::evaluate_on`](crate::Trainer::evaluate_on).
    ///
    /// # Errors
    /// As [`GpuTrainer::step`].
    pub fn evaluate(
        &self,
        x: Input<'_, f32>,
        target: Target<'_, f32>,
        steps: &Steps,
        state: Option<ModelState<f32>>,
    ) -> Result<Evaluation<ModelState<f32>>, Error> {
        let (structure, loss) = (&self.model.model, self.options.loss);
        let (count, width) = check_target(structure, loss, &x, &target, steps)?;
        let state = state_for(structure, state, steps.batch())?;
        if count == 0 {
            return Ok(Evaluation { loss: 0.0, count, state });
        }
        let outputs = outputs(structure, steps)?;
        let target = target.gather(&outputs, width)?;
        let mut device = self.model.upload_state(&state, steps.batch())?;
        let (y, ..) = self.model.infer_flow(x, steps, &mut device)?;
        let report = self.model.recorder.zeros_of(2);
        self.loss(&y, width, &outputs, &target, &report)?;
        let found = self.model.download(&[&report], &device)?;
        let total = f64::from(found.numbers[0][0]);
        let loss = loss.reduce(total, loss.terms(count * width, width));
        Ok(Evaluation { loss, count, state: found.state })
    }

    /// One update, on these steps as a whole, and the states after it; neither if no step is live.
    fn chunk(
        &mut self,
        x: Input<'_, f32>,
        target: Target<'_, f32>,
        width: usize,
        steps: &Steps,
        state: &mut DeviceState,
    ) -> Result<(Chunk, Option<ModelState<f32>>), Error> {
        let outputs = outputs(&self.model.model, steps)?;
        if outputs.len() == 0 {
            return Ok((Chunk::default(), None));
        }
        let update = self.optimizer.updates() + 1;
        let target = target.gather(&outputs, width)?;
        let draw = mix(self.options.seed, update);
        let rec = &self.model.recorder;
        let tape = self.model.record_flow(x, steps.clone(), state, Some(draw))?;
        let report = rec.zeros_of(2);
        let d_y = self.loss(tape.output()?, width, &outputs, &target, &report)?;
        let zeros = |numbers: &Numbers| rec.zeros_of(numbers.len());
        let mut d_state: DeviceState =
            state.iter().map(|s| State { h: zeros(&s.h), c: s.c.as_deref().map(zeros) }).collect();
        let (gradients, _) = self.model.backward_flow(&tape, Some(d_y), &mut d_state, false)?;
        let all: Vec<&Numbers> = gradients.iter().map(|numbers| &**numbers).collect();
        rec.reduce(&all, true, &report, 1);
        // Whoever wants to stop may do so until here.
        rec.begin_whole();
        let rule = rule(&self.optimizer);
        let clip = Clip {
            norm: self.options.clip_norm.map_or(f32::INFINITY, |norm| norm as f32),
            value: self.options.clip_value.map_or(f32::INFINITY, |value| value as f32),
        };
        for ((gradients, numbers), moments) in
            gradients.iter().zip(&self.model.parameters).zip(&self.moments)
        {
            rec.update(&rule, clip, gradients, &report, numbers, moments);
        }
        let found = self.model.download(&[&report], state)?;
        let (total, grad_norm) = (f64::from(found.numbers[0][0]), f64::from(found.numbers[0][1]));
        if !total.is_finite() {
            let what = format!("loss at step {update}");
            return Err(Error::numerical(what, "a finite number", total));
        }
        if !grad_norm.is_finite() {
            return Err(self.not_finite(&gradients, update, grad_norm));
        }
        self.optimizer.count();
        Ok((Chunk { total, grad_norm }, Some(found.state)))
    }

    /// Leaves the sum of the losses in `report[0]`, and gives the gradient at all outputs.
    fn loss(
        &self,
        y: &Numbers,
        width: usize,
        outputs: &Outputs<'_>,
        target: &Gathered<f32>,
        report: &Numbers,
    ) -> Result<Box<Numbers>, Error> {
        let rec = &self.model.recorder;
        // The rows that have a target, where not all have one.
        let chosen: Option<Vec<Option<usize>>> = match outputs {
            Outputs::Rows(rows) if rows.len() * width < y.len() => {
                Some(rows.iter().copied().map(Some).collect())
            }
            _ => None,
        };
        let of_chosen = chosen.as_ref().map(|rows| rec.rows_at(y, rows, width));
        let x = of_chosen.as_deref().unwrap_or(y);
        let terms = self.options.loss.terms(x.len(), width);
        let scale = self.options.loss.scale(terms) as f32;
        self.options.loss.check_range(width, target.packed())?;
        let (losses, d_x) = match (self.options.loss, target) {
            (Loss::CrossEntropy(_), Gathered::Ids(classes)) => {
                let classes: Vec<u32> = classes.iter().map(|&class| class as u32).collect();
                rec.cross_entropy(x, width, &classes, scale)
            }
            (loss, Gathered::Numbers(target)) => {
                let (term, delta) = match loss {
                    Loss::BinaryCrossEntropy(_) => (Term::BinaryCrossEntropy, 0.0),
                    Loss::Mse(_) => (Term::Squared, 0.0),
                    Loss::Mae(_) => (Term::Absolute, 0.0),
                    Loss::Huber(Huber { delta, .. }) => (Term::Huber, delta as f32),
                    Loss::CrossEntropy(_) => unreachable!("check_kind has refused these targets"),
                };
                rec.loss(term, x, &rec.numbers(target), delta, scale)
            }
            (_, Gathered::Ids(_)) => unreachable!("check_kind has refused these targets"),
        };
        rec.reduce(&[&losses], false, report, 0);
        Ok(match &chosen {
            None => d_x,
            Some(rows) => {
                let d_y = rec.zeros_of(y.len());
                rec.columns_to(&d_x, rows, 0..width, width, &d_y);
                d_y
            }
        })
    }

    /// The error for gradients whose norm is not finite.
    fn not_finite(&self, gradients: &[Box<Numbers>], update: u64, norm: f64) -> Error {
        let all: Vec<&Numbers> = gradients.iter().map(|numbers| &**numbers).collect();
        let found = match self.model.gpu.read_all(&self.model.recorder, &all) {
            Ok(found) => found,
            Err(error) => return error.into(),
        };
        for (k, (layer, gradient)) in self.model.model.layers().iter().zip(&found).enumerate() {
            for parameter in layer.parameters() {
                let numbers = &gradient[parameter.range];
                if let Some(number) = numbers.iter().find(|number| !number.is_finite()) {
                    let what = format!("gradient of {k}.{} at step {update}", parameter.name);
                    return Error::numerical(what, "finite numbers", number);
                }
            }
        }
        let what = format!("norm of the gradient at step {update}");
        Error::numerical(what, "a finite number", norm)
    }

    /// Goes on with copies of all that an update changes; gives the originals.
    fn branch(&mut self) -> Result<Kept, Error> {
        let rec = &self.model.recorder;
        let copies = |numbers: &Vec<Arc<Numbers>>| -> Result<Vec<Arc<Numbers>>, Error> {
            numbers.iter().map(|numbers| Ok(Arc::from(Backend::copy(rec, numbers)?))).collect()
        };
        let parameters = copies(&self.model.parameters)?;
        let moments = self.moments.iter().map(copies).collect::<Result<_, _>>()?;
        Ok(Kept {
            parameters: self.model.replace(parameters),
            moments: std::mem::replace(&mut self.moments, moments),
            updates: self.optimizer.clone(),
        })
    }

    /// Goes on with the originals. Nothing of it can fail: the device has no part in it.
    fn go_back(&mut self, kept: Kept) {
        self.model.replace(kept.parameters);
        (self.moments, self.optimizer) = (kept.moments, kept.updates);
    }
}

/// What a step may have to go back to.
struct Kept {
    parameters: Vec<Arc<Numbers>>,
    moments: Vec<Vec<Arc<Numbers>>>,
    updates: Optimizer<f32>,
}

/// The formula of the next update.
fn rule(optimizer: &Optimizer<f32>) -> Rule {
    match optimizer.next_rule() {
        optimizers::Rule::Sgd { lr, momentum, nesterov, decay } => {
            Rule::Sgd { lr, momentum, nesterov, decay }
        }
        optimizers::Rule::RmsProp { lr, alpha, new, eps, decay, momentum } => {
            Rule::RmsProp { lr, alpha, rest: new, eps, decay, momentum }
        }
        optimizers::Rule::Adam { step, new1, beta2, new2, root, eps, decay, keep } => {
            Rule::Adam { step, rest1: new1, beta2, rest2: new2, root, eps, decay, keep }
        }
    }
}
