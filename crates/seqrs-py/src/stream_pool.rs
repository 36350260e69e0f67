//! Pools of streams for Python.
//!
//! The books of a pool are looked at with the GIL, and a step is computed without it: so a process
//! that is forked while another thread steps finds the books free and whole.

use std::time::Duration;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use seqrs::StreamPool;
use seqrs::stream_pool::Stream;
use seqrs_core::memory::Lent;

use crate::arrays::{Fresh, Target, room};
use crate::batch::{self, Axes, Live};
use crate::device::Device;
use crate::entry::{compute, guard};
use crate::errors;
use crate::layer::AnyNetwork;
use crate::network::{Elem, Network, reads};
use crate::owner::Owner;

/// A stream of a pool.
#[pyclass(frozen, eq, hash, name = "Stream", module = "seqrs._seqrs")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PyStream(Stream);

#[pymethods]
impl PyStream {
    fn __repr__(&self) -> String {
        format!("<{}>", self.0)
    }
}

/// A pool of either number type, and its model as calls read their arguments for it.
struct Typed<T: Elem> {
    pool: StreamPool<T>,
    network: Network<T>,
}

enum AnyPool {
    F32(Typed<f32>),
    F64(Typed<f64>),
}

/// Runs the body with the pool inside, whatever its number type.
macro_rules! with_pool {
    ($any:expr, $typed:ident => $body:expr) => {
        match &$any.0 {
            AnyPool::F32($typed) => $body,
            AnyPool::F64($typed) => $body,
        }
    };
}

/// The states of many streams.
#[pyclass(frozen, name = "StreamPool", module = "seqrs._seqrs")]
pub(crate) struct PyStreamPool(AnyPool);

impl<T: Elem> Typed<T> {
    fn new(py: Python<'_>, network: Network<T>, capacity: usize) -> PyResult<Self> {
        let model = network.model.clone();
        let pool = compute(py, || StreamPool::new(model, capacity))?;
        Ok(Self { pool, network })
    }

    /// Without the GIL, as it takes a while; all else of an export is done with it.
    fn prepare_to_export(&self, py: Python<'_>) -> PyResult<()> {
        compute(py, || {
            self.pool.prepare_to_export();
            Ok(())
        })
    }

    fn step<'py>(
        &self,
        streams: &[Stream],
        x: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = x.py();
        let raise = |error| errors::raise(py, error);
        let live = Live { lengths: None, mask: None };
        let reads = reads(&self.network.model);
        let (x, _, layout) = batch::read("x", x, reads, Axes::Rows, false, live)?;
        if layout.batch != streams.len() {
            let expected = format!("{} rows (one for each of sids)", streams.len());
            return Err(errors::shape(py, "x", expected, layout.batch));
        }
        let shape = [layout.batch, self.network.width_of(&x)];
        let run = |y: &mut [T]| -> PyResult<()> {
            // If it fails, the claim goes, and every stream is where it was.
            let mut claim = self.pool.claim(streams).map_err(raise)?;
            compute(py, || claim.step_on(x.step_input(), y))?;
            claim.finish();
            Ok(())
        };
        match out {
            None => {
                let mut y = Fresh::zeros(py, &shape)?;
                run(y.numbers())?;
                Ok(y.given(py))
            }
            Some(out) => {
                let out = Target::<T>::new("out", out, &shape)?;
                let mut y = Lent::new("output", shape[0] * shape[1]).map_err(raise)?;
                run(&mut y)?;
                out.write(&y);
                Ok(out.given())
            }
        }
    }
}

/// The handles in a sequence.
fn streams(sids: &Bound<'_, PyAny>) -> PyResult<Vec<Stream>> {
    if let Ok(tuple) = sids.cast::<PyTuple>() {
        return lent(tuple);
    }
    if let Ok(list) = sids.cast::<PyList>() {
        return lent(&list.as_sequence().to_tuple()?);
    }
    if sids.is_instance_of::<PyStream>() || sids.try_iter().is_err() {
        let got = sids.get_type().qualname()?;
        return Err(errors::dtype(sids.py(), "sids", "a sequence of handles", format!("a {got}")));
    }
    sids.try_iter()?.enumerate().map(|(k, item)| handle(k, &item?)).collect()
}

/// The handles in a tuple. It lends them without a count of who has them, so that the processor
/// can fetch the next ones while it reads one: they lie anywhere.
fn lent(sids: &Bound<'_, PyTuple>) -> PyResult<Vec<Stream>> {
    let mut found = room("handles", sids.len()).map_err(|error| errors::raise(sids.py(), error))?;
    for (k, item) in sids.iter_borrowed().enumerate() {
        found.push(handle(k, &item)?);
    }
    Ok(found)
}

fn handle(k: usize, item: &Bound<'_, PyAny>) -> PyResult<Stream> {
    match item.cast::<PyStream>() {
        Ok(stream) => Ok(stream.get().0),
        Err(_) => Err(no_handle(item.py(), &format!("sids[{k}]"), item)),
    }
}

fn no_handle(py: Python<'_>, name: &str, given: &Bound<'_, PyAny>) -> PyErr {
    let got = given.repr().map_or_else(|_| "something else".to_owned(), |repr| repr.to_string());
    errors::state(py, name, "a handle that open() gave", got)
}

fn stream(sid: &Bound<'_, PyAny>) -> PyResult<Stream> {
    match sid.cast::<PyStream>() {
        Ok(stream) => Ok(stream.get().0),
        Err(_) => Err(no_handle(sid.py(), "sid", sid)),
    }
}

#[pymethods]
impl PyStreamPool {
    /// A pool for streams of the model as it is now.
    #[new]
    fn new(py: Python<'_>, model: Owner, capacity: usize) -> PyResult<Self> {
        guard(py, || {
            let device = model.device(py)?;
            if device != Device::Cpu {
                return Err(errors::state(py, "device of the model", "cpu", device.name()));
            }
            Ok(Self(match model.any(py)? {
                AnyNetwork::F32(network) => AnyPool::F32(Typed::new(py, network, capacity)?),
                AnyNetwork::F64(network) => AnyPool::F64(Typed::new(py, network, capacity)?),
            }))
        })
    }

    /// A new stream.
    fn open(&self, py: Python<'_>) -> PyResult<PyStream> {
        guard(py, || {
            let opened = with_pool!(self, typed => typed.pool.open());
            opened.map(PyStream).map_err(|error| errors::raise(py, error))
        })
    }

    /// Puts a stream back to the zero state.
    fn reset(&self, sid: &Bound<'_, PyAny>) -> PyResult<()> {
        guard(sid.py(), || {
            let stream = stream(sid)?;
            let done = with_pool!(self, typed => typed.pool.reset(stream));
            done.map_err(|error| errors::raise(sid.py(), error))
        })
    }

    /// Ends a stream.
    fn close(&self, sid: &Bound<'_, PyAny>) -> PyResult<()> {
        guard(sid.py(), || {
            let stream = stream(sid)?;
            let done = with_pool!(self, typed => typed.pool.close(stream));
            done.map_err(|error| errors::raise(sid.py(), error))
        })
    }

    /// One step of some streams.
    #[pyo3(signature = (sids, x, out))]
    fn step<'py>(
        &self,
        sids: &Bound<'py, PyAny>,
        x: &Bound<'py, PyAny>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        guard(x.py(), || {
            let streams = streams(sids)?;
            with_pool!(self, typed => typed.step(&streams, x, out))
        })
    }

    /// The state of a stream as bytes.
    fn export_state<'py>(&self, sid: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let py = sid.py();
        guard(py, || {
            let stream = stream(sid)?;
            with_pool!(self, typed => {
                typed.prepare_to_export(py)?;
                let bytes = typed.pool.export_state(stream);
                Ok(PyBytes::new(py, &bytes.map_err(|error| errors::raise(py, error))?))
            })
        })
    }

    /// A new stream with the state of these bytes.
    fn import_state(
        &self,
        py: Python<'_>,
        state: &[u8],
        allow_nonfinite: bool,
    ) -> PyResult<PyStream> {
        guard(py, || {
            with_pool!(self, typed => {
                typed.prepare_to_export(py)?;
                let opened = typed.pool.import_state_with(state, allow_nonfinite);
                opened.map(PyStream).map_err(|error| errors::raise(py, error))
            })
        })
    }

    /// Ends the streams that were idle for so many seconds; `leaving` is called with each before.
    /// Gives how many they were.
    #[pyo3(signature = (seconds, leaving))]
    fn evict_idle(
        &self,
        py: Python<'_>,
        seconds: f64,
        leaving: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        guard(py, || {
            let idle = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            let mut raised = None;
            let mut told = |stream| {
                let Some(leaving) = leaving else { return };
                match leaving.call1((PyStream(stream),)) {
                    Ok(_) => {}
                    Err(error) if error.is_instance_of::<PyException>(py) => {
                        error.write_unraisable(py, Some(leaving));
                    }
                    // Ctrl-C and the like are for whoever called.
                    Err(error) => raised = raised.take().or(Some(error)),
                }
            };
            let count = with_pool!(self, typed => typed.pool.evict_idle(idle, &mut told));
            raised.map_or(Ok(count), Err)
        })
    }

    /// What was done so far.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        guard(py, || {
            let (stats, bytes) =
                with_pool!(self, typed => (typed.pool.stats(), typed.pool.nbytes()));
            let dict = PyDict::new(py);
            dict.set_item("open", stats.open)?;
            dict.set_item("capacity", stats.capacity)?;
            dict.set_item("stepping", stats.stepping)?;
            dict.set_item("opened", stats.opened)?;
            dict.set_item("closed", stats.closed)?;
            dict.set_item("evicted", stats.evicted)?;
            dict.set_item("refused", stats.refused)?;
            dict.set_item("steps", stats.steps)?;
            dict.set_item("failed_steps", stats.failed_steps)?;
            dict.set_item("stream_steps", stats.stream_steps)?;
            dict.set_item("seconds", stats.nanoseconds as f64 * 1e-9)?;
            dict.set_item("batch_sizes", histogram(py, &stats.batch_sizes)?)?;
            dict.set_item("microseconds", histogram(py, &stats.microseconds)?)?;
            dict.set_item("bytes", bytes)?;
            Ok(dict)
        })
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        guard(py, || Ok(with_pool!(self, typed => typed.pool.len())))
    }
}

/// {2^k: how many}, without those of which there are none.
fn histogram<'py>(py: Python<'py>, counts: &[u64]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (k, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
        dict.set_item(1_u64 << k, count)?;
    }
    Ok(dict)
}
