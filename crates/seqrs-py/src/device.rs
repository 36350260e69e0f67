//! Where layers compute: on the CPU, or on a GPU that has a copy of their parameters.

use std::collections::HashMap;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyDict, PyList};
use seqrs::{Layer, Sequential};
use seqrs_core::Error;

use crate::entry::{compute, guard};
use crate::errors;
use crate::gpu::{Description, Gpu, GpuModel, GpuTrainer, adapters};
use crate::layer::{Kept, PyLayer};

/// The GPUs that are open, and the process that has opened them.
struct Open {
    process: u32,
    gpus: HashMap<usize, Arc<Gpu>>,
}

static OPEN: Mutex<Option<Open>> = Mutex::new(None);

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`locked`], without the GIL while it waits: who has the mutex for the length of a computation
/// looks for signals meanwhile, and needs the GIL for that.
pub(crate) fn locked_long<'a, T>(py: Python<'_>, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    mutex.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
}

/// Which device, as `to` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Cpu,
    Gpu(usize),
}

impl Device {
    /// "cpu", "gpu" or "gpu:1".
    pub(crate) fn parse(py: Python<'_>, name: &str) -> PyResult<Self> {
        let number = match name {
            "cpu" => return Ok(Self::Cpu),
            "gpu" => Some(0),
            _ => name.strip_prefix("gpu:").and_then(|number| number.parse().ok()),
        };
        number.map(Self::Gpu).ok_or_else(|| {
            let expected = "'cpu', 'gpu' or 'gpu:' and the number of an adapter";
            errors::raise(py, Error::option("device", expected, format!("{name:?}")))
        })
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Gpu(number) => format!("gpu:{number}"),
        }
    }
}

/// The GPU of this number, opened when it is first asked for.
pub(crate) fn gpu(py: Python<'_>, number: usize) -> PyResult<Arc<Gpu>> {
    {
        let mut open = locked(&OPEN);
        let Open { process, gpus } = open.get_or_insert_with(Open::default);
        if *process != process::id() {
            // A driver does not survive a fork.
            let expected = "a process that has opened it itself";
            let got = "one that was forked from such a process (start it by spawn, or open the GPU \
                       after the fork)";
            return Err(errors::state(py, "GPU", expected, got));
        }
        // One that is lost is opened again.
        if let Some(gpu) = gpus.get(&number)
            && !gpu.is_lost()
        {
            return Ok(Arc::clone(gpu));
        }
    }
    // Two threads may open it at once; one of the two stays.
    let gpu = Arc::new(compute(py, || Ok(Gpu::new(number)?))?);
    let mut open = locked(&OPEN);
    let Open { gpus, .. } = open.get_or_insert_with(Open::default);
    if gpus.get(&number).is_some_and(|gpu| gpu.is_lost()) {
        gpus.remove(&number);
    }
    Ok(Arc::clone(gpus.entry(number).or_insert(gpu)))
}

impl Default for Open {
    fn default() -> Self {
        Self { process: process::id(), gpus: HashMap::new() }
    }
}

/// A model on a GPU, and the versions of the parameters that it was made of.
pub(crate) struct Resident {
    pub(crate) model: GpuModel,
    pub(crate) versions: Vec<u64>,
}

pub(crate) fn versions(layers: &[Layer<f32>]) -> Vec<u64> {
    layers.iter().map(Layer::version).collect()
}

/// The model on the GPU: the one of the last call, while the parameters are the same.
pub(crate) fn resident(
    py: Python<'_>,
    number: usize,
    model: &Sequential<f32>,
    last: &Mutex<Option<Arc<Resident>>>,
) -> PyResult<Arc<Resident>> {
    // Also refuses a process that was forked.
    let gpu = gpu(py, number)?;
    let versions = versions(model.layers());
    if let Some(last) = &*locked(last)
        && last.versions == versions
        && Arc::ptr_eq(last.model.gpu(), &gpu)
    {
        return Ok(Arc::clone(last));
    }
    let made =
        compute(py, || Ok(Resident { model: GpuModel::new(gpu, model.clone())?, versions }))?;
    let made = Arc::new(made);
    *locked(last) = Some(Arc::clone(&made));
    Ok(made)
}

/// Parameters that a trainer has on a GPU, newer than those of these layers.
pub(crate) struct Late {
    pub(crate) trainer: Arc<Mutex<GpuTrainer>>,
    pub(crate) layers: Vec<Py<PyLayer>>,
    /// Of the layers, once the parameters are there.
    pub(crate) versions: Arc<Mutex<Vec<u64>>>,
}

impl Late {
    /// Puts them in place, in all layers that still wait for them.
    pub(crate) fn bring(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let model = compute(py, || locked(&self.trainer).model().to_cpu())?;
        *locked(&self.versions) = versions(model.layers());
        for (handle, layer) in self.layers.iter().zip(model.layers()) {
            handle.get().arrive(self, f32::keep(layer.clone()));
        }
        Ok(())
    }
}

/// What each adapter of this machine is.
#[pyfunction]
pub(crate) fn gpu_adapters(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    guard(py, || {
        let found = compute(py, || Ok(adapters()))?;
        let list = PyList::empty(py);
        for Description { name, driver, api, is_software, largest_binding } in found {
            let dict = PyDict::new(py);
            dict.set_item("name", name)?;
            dict.set_item("driver", driver)?;
            dict.set_item("api", api)?;
            dict.set_item("software", is_software)?;
            dict.set_item("largest_buffer", largest_binding)?;
            list.append(dict)?;
        }
        Ok(list)
    })
}
