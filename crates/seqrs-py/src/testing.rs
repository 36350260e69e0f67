//! What the tests of the package ask for, and nobody else.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::batcher::PyBatcher;
use crate::entry::{compute, guard};
use crate::{device, gpu};

/// Panics where others compute.
#[pyfunction]
pub(crate) fn _panic(py: Python<'_>, words: &str) -> PyResult<()> {
    guard(py, || compute(py, || panic!("{words}")))
}

/// Panics where a batcher computes.
#[pyfunction]
pub(crate) fn _panic_in(batcher: &Bound<'_, PyBatcher>, words: &str) -> PyResult<()> {
    guard(batcher.py(), || batcher.get().panic(batcher.py(), words))
}

/// Every shader by its name, as a program has them.
#[pyfunction]
pub(crate) fn _shaders(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    guard(py, || gpu::write_shaders(py))
}

/// What `work()` has the GPU of this number do: the programs that it runs and the numbers that it
/// gives.
#[pyfunction]
pub(crate) fn _traced<'py>(
    py: Python<'py>,
    number: usize,
    work: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyList>> {
    guard(py, || {
        let (result, events) = device::gpu(py, number)?.traced(|| work.call0());
        result?;
        gpu::write_events(py, &events)
    })
}
