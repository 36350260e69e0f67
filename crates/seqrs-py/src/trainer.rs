//! The handle of a trainer.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use pyo3::prelude::*;
use seqrs::number::DType;
use seqrs::sequential::{ModelState, Rank};
use seqrs::targets::Target;
use seqrs::{Layer, Loss, OptimizerSpec, Sequential, Trainer, TrainerOptions};
use seqrs_core::{Error, Steps};
use serde_json::Value;

use crate::arrays::{self, Plain, copied, shape_words};
use crate::batch::{self, Axes, Copied, Given as X, Layout, Live};
use crate::device::{self, Device, Late, locked, locked_long};
use crate::entry::{compute, guard, look};
use crate::errors;
use crate::gpu::GpuTrainer;
use crate::layer::{Given, Kept};
use crate::loss;
use crate::model::PyModel;
use crate::network::{cpu, reads, takes_rows};
use crate::ranges::Named;
use crate::state::{self, Holder};

enum AnyTrainer {
    F32(Box<Trainer<f32>>),
    F64(Box<Trainer<f64>>),
    Gpu(OnGpu),
}

/// A trainer on a GPU.
struct OnGpu {
    number: usize,
    trainer: Arc<Mutex<GpuTrainer>>,
    /// Of the model's layers, when they had the parameters that the device has.
    versions: Arc<Mutex<Vec<u64>>>,
    /// What the layers wait for since the last step.
    late: Option<Arc<Late>>,
}

/// Runs the body with the trainer inside, whatever its number type and wherever it is.
macro_rules! with_trainer {
    ($py:expr, $any:expr, $trainer:ident => $body:expr) => {
        match $any {
            AnyTrainer::F32($trainer) => $body,
            AnyTrainer::F64($trainer) => $body,
            AnyTrainer::Gpu(on) => {
                let mut guard = locked_long($py, &on.trainer);
                let $trainer = &mut *guard;
                $body
            }
        }
    };
}

/// Trains a model. It works on a clone of its own and puts the parameters into the model's
/// layers when a step has succeeded, all at once, so whoever calls the model meanwhile has
/// those from before the step or those from after it.
#[pyclass(frozen, name = "Trainer", module = "seqrs._seqrs")]
pub(crate) struct PyTrainer {
    model: Py<PyModel>,
    /// Locked for the length of a call, and never waited for.
    trainer: Mutex<AnyTrainer>,
    /// The process whose call took the lock last.
    worker: AtomicU32,
}

/// Loss, norm of the gradient, final state.
type Done = (f64, f64, Py<PyAny>);

impl PyTrainer {
    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, AnyTrainer>> {
        let guard = match self.trainer.try_lock() {
            Ok(guard) => guard,
            // A panic has left the parameters of the model alone, and the trainer takes
            // them up again at the next step.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let (expected, got) = match self.worker.load(Ordering::Relaxed) == process::id() {
                    true => ("one call at a time", "a second one while the first is running"),
                    // The thread that holds the lock is not there in this process, and how far
                    // it had changed the optimiser nobody knows.
                    false => (
                        "one that was idle when this process was forked, or a new one",
                        "one that was working then in the parent process",
                    ),
                };
                return Err(errors::state(py, "trainer", expected, got));
            }
        };
        // The GIL is held since the lock was taken, so no fork comes between the two.
        self.worker.store(process::id(), Ordering::Relaxed);
        Ok(guard)
    }
}

/// What a step or an evaluation works on.
pub(crate) struct Batch<T: Plain> {
    pub(crate) x: X<T>,
    y: Y<T>,
    pub(crate) steps: Steps,
    pub(crate) layout: Layout,
}

enum Y<T: Plain> {
    Ids(Copied<i64>),
    Numbers(Copied<T>),
}

impl<T: Kept> Batch<T> {
    pub(crate) fn read<'py>(
        (model, loss): (&Sequential<T>, &Loss),
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        live: Live<'_, 'py>,
        batch_first: bool,
    ) -> PyResult<Self> {
        let py = x.py();
        let axes = Axes::of_sequence(batch_first);
        let (x, steps, layout) =
            batch::read::<T>("x", x, reads(model), axes, takes_rows(model), live)?;
        let (rows, live_rows);
        let (y_steps, y_live, y_layout) = match model.output_rank() {
            Rank::Steps => (&steps, &steps, layout),
            Rank::Rows => {
                let raise = |error| errors::raise(py, error);
                rows = Steps::dense(1, layout.batch).map_err(raise)?;
                // A row without a live step has no target.
                let live = steps.live_steps();
                live_rows = Steps::from_mask(1, layout.batch, |_, b| live[b] > 0).map_err(raise)?;
                (&rows, &live_rows, Layout::of_rows(layout.batch))
            }
        };
        let width = match (&x, model.output_width()) {
            (_, Some(width)) => width,
            (X::Numbers(x), None) => x.width,
            (X::Ids(_), None) => 1,
        };
        let named = Named { name: "y", steps: y_live, layout: y_layout };
        let y = match loss.wants_classes() {
            true => {
                let classes = batch::read_ids("y", y, y_steps, y_layout)?;
                named.check_classes(py, &classes, width)?;
                Y::Ids(classes)
            }
            false => {
                let y = with_last_axis::<T>(y, y_layout, width)?;
                let numbers = batch::read_numbers("y", &y, y_steps, y_layout, width)?;
                named.check_targets(py, loss, &numbers)?;
                Y::Numbers(numbers)
            }
        };
        Ok(Self { x, y, steps, layout })
    }

    /// The same batch in f64.
    pub(crate) fn widened(self) -> Result<Batch<f64>, Error> {
        let x = match self.x {
            X::Ids(ids) => X::Ids(ids),
            X::Numbers(x) => X::Numbers(x.widened("x")?),
        };
        let y = match self.y {
            Y::Ids(ids) => Y::Ids(ids),
            Y::Numbers(y) => Y::Numbers(y.widened("y")?),
        };
        Ok(Batch { x, y, steps: self.steps, layout: self.layout })
    }

    pub(crate) fn target(&self) -> Target<'_, T> {
        match &self.y {
            Y::Ids(ids) => Target::Ids(ids.rows()),
            Y::Numbers(numbers) => Target::Numbers(numbers.rows(), numbers.width),
        }
    }
}

/// Targets of one number each may come without the last axis.
fn with_last_axis<'py, T: Kept>(
    y: &Bound<'py, PyAny>,
    layout: Layout,
    width: usize,
) -> PyResult<Bound<'py, PyAny>> {
    if width != 1 {
        return Ok(y.clone());
    }
    let numbers = arrays::real::<T>("y", y)?;
    let (full, short) = (layout.shape(Some(1)), layout.shape(None));
    if numbers.shape() == short {
        let numbers = copied("y", numbers.numbers()).map_err(|e| errors::raise(y.py(), e))?;
        return arrays::new(y.py(), &full, numbers);
    }
    if numbers.shape() != full {
        let expected = format!("shape {} or {}", shape_words(&full), shape_words(&short));
        return Err(errors::shape(y.py(), "y", expected, shape_words(numbers.shape())));
    }
    Ok(y.clone())
}

/// The arguments of `step` and `evaluate`.
struct Args<'a, 'py> {
    x: &'a Bound<'py, PyAny>,
    y: &'a Bound<'py, PyAny>,
    live: Live<'a, 'py>,
    state: Given<'a, 'py>,
    batch_first: bool,
}

impl<'py> Args<'_, 'py> {
    fn batch<T: Kept>(&self, of: (&Sequential<T>, &Loss)) -> PyResult<Batch<T>> {
        Batch::read(of, self.x, self.y, self.live, self.batch_first)
    }

    fn state<T: Kept>(
        &self,
        model: &Sequential<T>,
        rows: usize,
    ) -> PyResult<Option<ModelState<T>>> {
        let py = self.x.py();
        match self.state {
            None => Ok(None),
            some => state::read(py, "state", some, model, rows, Holder::Model).map(Some),
        }
    }
}

impl OnGpu {
    fn new(py: Python<'_>, number: usize, trainer: Trainer<f32>) -> PyResult<Self> {
        let gpu = device::gpu(py, number)?;
        let versions = device::versions(trainer.model.layers());
        let trainer = compute(py, || GpuTrainer::from_cpu(gpu, trainer))?;
        Ok(Self {
            number,
            trainer: Arc::new(Mutex::new(trainer)),
            versions: Arc::new(Mutex::new(versions)),
            late: None,
        })
    }

    /// Gives the trainer the model's present parameters, unless they are its own.
    fn take_up(&mut self, py: Python<'_>, model: &PyModel) -> PyResult<()> {
        // Also refuses a process that was forked.
        device::gpu(py, self.number)?;
        if let Some(late) = &self.late
            && model.handles().iter().all(|layer| layer.get().expects(late))
        {
            return Ok(());
        }
        let present = model.network::<f32>(py)?.model;
        let versions = device::versions(present.layers());
        if *locked(&self.versions) != versions {
            compute(py, || locked(&self.trainer).set_model(&present))?;
            *locked(&self.versions) = versions;
        }
        self.late = None;
        Ok(())
    }

    /// The layers of the model wait for the parameters that the device has now.
    fn leave(&mut self, py: Python<'_>, model: &PyModel) {
        let layers = model.handles().iter().map(|layer| layer.clone_ref(py)).collect();
        let (trainer, versions) = (Arc::clone(&self.trainer), Arc::clone(&self.versions));
        let late = Arc::new(Late { trainer, layers, versions });
        model.handles().iter().for_each(|layer| layer.get().expect(&late));
        self.late = Some(late);
    }

    fn structure(&self, py: Python<'_>) -> (Sequential<f32>, Loss) {
        let trainer = locked_long(py, &self.trainer);
        (trainer.model().structure().clone(), trainer.options().loss)
    }

    fn step(&mut self, py: Python<'_>, model: &PyModel, args: &Args<'_, '_>) -> PyResult<Done> {
        self.take_up(py, model)?;
        let (structure, loss) = self.structure(py);
        let batch = args.batch((&structure, &loss))?;
        let rows = batch.layout.batch;
        let state = args.state(&structure, rows)?;
        let result = compute(py, || {
            look()?;
            locked(&self.trainer).step(batch.x.input(), batch.target(), &batch.steps, state)
        })?;
        self.leave(py, model);
        let state = state::write(py, result.state, &structure, rows, Holder::Model)?;
        Ok((result.loss, result.grad_norm, state))
    }

    fn evaluate(
        &mut self,
        py: Python<'_>,
        model: &PyModel,
        args: &Args<'_, '_>,
    ) -> PyResult<(f64, usize, Py<PyAny>)> {
        self.take_up(py, model)?;
        let (structure, loss) = self.structure(py);
        let batch = args.batch((&structure, &loss))?;
        let rows = batch.layout.batch;
        let state = args.state(&structure, rows)?;
        let result = compute(py, || {
            locked(&self.trainer).evaluate(batch.x.input(), batch.target(), &batch.steps, state)
        })?;
        let state = state::write(py, result.state, &structure, rows, Holder::Model)?;
        Ok((result.loss, result.count, state))
    }

    fn checkpoint(
        &mut self,
        py: Python<'_>,
        model: &PyModel,
        path: &Path,
        extra: &Value,
    ) -> PyResult<()> {
        self.take_up(py, model)?;
        compute(py, || locked(&self.trainer).to_cpu()?.checkpoint(path, extra))
    }

    fn restore(&mut self, py: Python<'_>, model: &PyModel, path: &Path) -> PyResult<Value> {
        let (trainer, extra) = compute(py, || {
            let mut trainer = locked(&self.trainer).to_cpu()?;
            let extra = trainer.restore(path)?;
            Ok((trainer, extra))
        })?;
        let layers = trainer.model.layers().to_vec();
        *self = Self::new(py, self.number, trainer)?;
        model.put(py, &layers);
        Ok(extra)
    }
}

/// Takes the trainer to where the model is.
fn settle(py: Python<'_>, any: &mut AnyTrainer, model: &PyModel) -> PyResult<()> {
    match (&mut *any, model.device(py)?) {
        (AnyTrainer::Gpu(on), Device::Gpu(number)) if on.number == number => Ok(()),
        (AnyTrainer::Gpu(on), device) => {
            // What another process left on a device is out of reach.
            device::gpu(py, on.number)?;
            let trainer = compute(py, || locked(&on.trainer).to_cpu())?;
            // The layers have the same parameters, or newer ones.
            *any = AnyTrainer::F32(Box::new(trainer));
            match device {
                Device::Cpu => Ok(()),
                Device::Gpu(_) => settle(py, any, model),
            }
        }
        (AnyTrainer::F32(trainer), Device::Gpu(number)) => {
            take_up(py, trainer, model)?;
            *any = AnyTrainer::Gpu(OnGpu::new(py, number, (**trainer).clone())?);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Gives the trainer the model's present parameters.
fn take_up<T: Kept>(py: Python<'_>, trainer: &mut Trainer<T>, model: &PyModel) -> PyResult<()> {
    let present = model.network::<T>(py)?.model;
    let versions = |layers: &[Layer<T>]| layers.iter().map(Layer::version).collect::<Vec<_>>();
    if versions(present.layers()) != versions(trainer.model.layers()) {
        trainer.model = present;
    }
    Ok(())
}

fn step<T: Kept>(
    py: Python<'_>,
    trainer: &mut Trainer<T>,
    model: &PyModel,
    args: &Args<'_, '_>,
) -> PyResult<Done> {
    take_up(py, trainer, model)?;
    let batch = args.batch((&trainer.model, &trainer.options().loss))?;
    let rows = batch.layout.batch;
    let state = args.state(&trainer.model, rows)?;
    let cpu = cpu::<T>(py)?;
    let result = compute(py, || {
        let (x, y) = (batch.x.input(), batch.target());
        // Until here Ctrl-C leaves everything as it was; from here on the step is done.
        trainer.step_if(&cpu, x, y, batch.steps.clone(), state, look)
    })?;
    model.put(py, trainer.model.layers());
    let state = state::write(py, result.state, &trainer.model, rows, Holder::Model)?;
    Ok((result.loss, result.grad_norm, state))
}

fn evaluate<T: Kept>(
    py: Python<'_>,
    trainer: &mut Trainer<T>,
    model: &PyModel,
    args: &Args<'_, '_>,
) -> PyResult<(f64, usize, Py<PyAny>)> {
    take_up(py, trainer, model)?;
    let batch = args.batch((&trainer.model, &trainer.options().loss))?;
    let rows = batch.layout.batch;
    let state = args.state(&trainer.model, rows)?;
    let cpu = cpu::<T>(py)?;
    let result = compute(py, || {
        trainer.evaluate_on(&cpu, batch.x.input(), batch.target(), &batch.steps, state)
    })?;
    let state = state::write(py, result.state, &trainer.model, rows, Holder::Model)?;
    Ok((result.loss, result.count, state))
}

fn checkpoint<T: Kept>(
    py: Python<'_>,
    trainer: &mut Trainer<T>,
    model: &PyModel,
    path: &Path,
    extra: &Value,
) -> PyResult<()> {
    take_up(py, trainer, model)?;
    compute(py, || trainer.checkpoint(path, extra))
}

fn restore<T: Kept>(
    py: Python<'_>,
    trainer: &mut Trainer<T>,
    model: &PyModel,
    path: &Path,
) -> PyResult<Value> {
    let extra = compute(py, || trainer.restore(path))?;
    model.put(py, trainer.model.layers());
    Ok(extra)
}

fn parse_optimizer(py: Python<'_>, json: &str) -> PyResult<OptimizerSpec> {
    serde_json::from_str(json)
        .map_err(|error| errors::raise(py, Error::option("optimizer", "an optimiser", error)))
}

#[pymethods]
impl PyTrainer {
    /// A trainer of this model.
    #[new]
    #[pyo3(signature = (model, loss_json, optimizer_json, clip_norm, clip_value, bptt, seed))]
    #[expect(clippy::too_many_arguments, reason = "the options of a trainer")]
    fn new(
        py: Python<'_>,
        model: Py<PyModel>,
        loss_json: &str,
        optimizer_json: &str,
        clip_norm: Option<f64>,
        clip_value: Option<f64>,
        bptt: Option<usize>,
        seed: u64,
    ) -> PyResult<Self> {
        guard(py, || {
            let loss = loss::parse(py, loss_json)?;
            let optimizer = parse_optimizer(py, optimizer_json)?;
            let options = TrainerOptions { loss, optimizer, clip_norm, clip_value, bptt, seed };
            let handle = model.get();
            let raise = |error| errors::raise(py, error);
            let trainer = match handle.number_type() {
                DType::F32 => {
                    let model = handle.network::<f32>(py)?.model;
                    AnyTrainer::F32(Box::new(Trainer::with_options(model, options).map_err(raise)?))
                }
                DType::F64 => {
                    let model = handle.network::<f64>(py)?.model;
                    AnyTrainer::F64(Box::new(Trainer::with_options(model, options).map_err(raise)?))
                }
            };
            let trainer = Mutex::new(trainer);
            Ok(Self { model, trainer, worker: AtomicU32::new(process::id()) })
        })
    }

    /// One update, or one for each chunk: loss, norm of the gradient, final state.
    #[pyo3(signature = (x, y, lengths, mask, state, batch_first))]
    fn step<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        lengths: Given<'_, 'py>,
        mask: Given<'_, 'py>,
        state: Given<'_, 'py>,
        batch_first: bool,
    ) -> PyResult<Done> {
        let py = x.py();
        guard(py, || {
            let args = Args { x, y, live: Live { lengths, mask }, state, batch_first };
            let (mut any, model) = (self.lock(py)?, self.model.get());
            settle(py, &mut any, model)?;
            match &mut *any {
                AnyTrainer::F32(trainer) => step(py, trainer, model, &args),
                AnyTrainer::F64(trainer) => step(py, trainer, model, &args),
                AnyTrainer::Gpu(on) => on.step(py, model, &args),
            }
        })
    }

    /// The loss, how many outputs it is of, the final state.
    #[pyo3(signature = (x, y, lengths, mask, state, batch_first))]
    fn evaluate<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        lengths: Given<'_, 'py>,
        mask: Given<'_, 'py>,
        state: Given<'_, 'py>,
        batch_first: bool,
    ) -> PyResult<(f64, usize, Py<PyAny>)> {
        let py = x.py();
        guard(py, || {
            let args = Args { x, y, live: Live { lengths, mask }, state, batch_first };
            let (mut any, model) = (self.lock(py)?, self.model.get());
            settle(py, &mut any, model)?;
            match &mut *any {
                AnyTrainer::F32(trainer) => evaluate(py, trainer, model, &args),
                AnyTrainer::F64(trainer) => evaluate(py, trainer, model, &args),
                AnyTrainer::Gpu(on) => on.evaluate(py, model, &args),
            }
        })
    }

    /// Shows the schedule a metric.
    fn observe(&self, py: Python<'_>, metric: f64) -> PyResult<()> {
        guard(py, || {
            with_trainer!(py, &mut *self.lock(py)?, trainer => trainer.observe(metric));
            Ok(())
        })
    }

    /// The learning rate of the next update.
    #[getter]
    fn lr(&self, py: Python<'_>) -> PyResult<f64> {
        guard(py, || Ok(with_trainer!(py, &*self.lock(py)?, trainer => trainer.learning_rate())))
    }

    /// Updates done.
    #[getter]
    fn steps_done(&self, py: Python<'_>) -> PyResult<u64> {
        guard(py, || Ok(with_trainer!(py, &*self.lock(py)?, trainer => trainer.steps_done())))
    }

    /// Writes everything that the rest of the run depends on, and `extra_json` with it.
    fn checkpoint(&self, py: Python<'_>, path: PathBuf, extra_json: &str) -> PyResult<()> {
        guard(py, || {
            let extra = serde_json::from_str(extra_json).map_err(|error| {
                errors::raise(py, Error::option("extra_json", "a JSON text", error))
            })?;
            let (mut any, model) = (self.lock(py)?, self.model.get());
            settle(py, &mut any, model)?;
            match &mut *any {
                AnyTrainer::F32(trainer) => checkpoint(py, trainer, model, &path, &extra),
                AnyTrainer::F64(trainer) => checkpoint(py, trainer, model, &path, &extra),
                AnyTrainer::Gpu(on) => on.checkpoint(py, model, &path, &extra),
            }
        })
    }

    /// Goes back to what `checkpoint` wrote; gives `extra_json`.
    fn restore(&self, py: Python<'_>, path: PathBuf) -> PyResult<String> {
        guard(py, || {
            let (mut any, model) = (self.lock(py)?, self.model.get());
            settle(py, &mut any, model)?;
            let extra = match &mut *any {
                AnyTrainer::F32(trainer) => restore(py, trainer, model, &path),
                AnyTrainer::F64(trainer) => restore(py, trainer, model, &path),
                AnyTrainer::Gpu(on) => on.restore(py, model, &path),
            }?;
            Ok(extra.to_string())
        })
    }
}
