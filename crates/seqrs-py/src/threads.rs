//! Threads and the machine.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use seqrs_core::Error;
use seqrs_cpu::level::Level;
use seqrs_cpu::team;

use crate::entry::guard;
use crate::errors::raise;

/// Sets the number of threads for this process.
#[pyfunction]
pub(crate) fn set_num_threads(py: Python<'_>, n: usize) -> PyResult<()> {
    guard(py, || team::set_num_threads(n).map_err(|error| raise(py, error)))
}

/// The number of threads in use.
#[pyfunction]
pub(crate) fn get_num_threads(py: Python<'_>) -> PyResult<usize> {
    guard(py, || team::num_threads().map_err(|error| raise(py, error)))
}

/// What `set_num_threads` was last given, or 0 if it was not called.
#[pyfunction]
pub(crate) fn asked_threads(py: Python<'_>) -> PyResult<usize> {
    guard(py, || Ok(team::asked()))
}

/// Goes back to what `asked_threads` gave.
#[pyfunction]
pub(crate) fn restore_threads(py: Python<'_>, asked: usize) -> PyResult<()> {
    guard(py, || {
        team::restore(asked);
        Ok(())
    })
}

/// The version, the instruction sets and the threads.
#[pyfunction]
pub(crate) fn info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    guard(py, || {
        let level = Level::from_env()
            .map_err(|error| raise(py, Error::option(error.what, error.expected, error.got)))?;
        let levels: Vec<&str> = Level::available().iter().map(|level| level.name()).collect();
        let dict = PyDict::new(py);
        dict.set_item("version", env!("CARGO_PKG_VERSION"))?;
        dict.set_item("level", level.name())?;
        dict.set_item("levels", levels)?;
        dict.set_item("threads", team::num_threads().map_err(|error| raise(py, error))?)?;
        dict.set_item("available", team::processors())?;
        Ok(dict)
    })
}
