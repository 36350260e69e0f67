//! What a forward call leaves for backward.

use std::sync::Arc;

use pyo3::prelude::*;
use seqrs::model_tape::ModelTape;

use crate::batch::Layout;
use crate::device::Resident;
use crate::entry::guard;
use crate::gpu::GpuTape;

/// A recorded forward call of either number type.
pub(crate) enum AnyTape {
    F32(ModelTape<f32>),
    F64(ModelTape<f64>),
    Gpu(Box<OnGpu>),
}

/// A call recorded on a GPU, and the model there.
pub(crate) struct OnGpu {
    pub(crate) tape: GpuTape,
    pub(crate) resident: Arc<Resident>,
}

/// A recorded forward call. It belongs to the layer or model that gave it, for as long as
/// its weights stay as they are, and may be used any number of times.
#[pyclass(frozen, name = "Tape", module = "seqrs")]
pub(crate) struct Tape {
    pub(crate) record: AnyTape,
    /// The handle that recorded it.
    pub(crate) owner: u64,
    /// The axes of x, and of y unless there is one output per row.
    pub(crate) layout: Layout,
    /// Features of x; none for ids.
    pub(crate) width: Option<usize>,
}

#[pymethods]
impl Tape {
    /// Bytes that it holds.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<usize> {
        guard(py, || {
            Ok(match &self.record {
                AnyTape::F32(tape) => tape.nbytes(),
                AnyTape::F64(tape) => tape.nbytes(),
                AnyTape::Gpu(on) => on.tape.nbytes(),
            })
        })
    }
}
