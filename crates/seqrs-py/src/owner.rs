//! The handle of a model, whatever its weights are.

use pyo3::prelude::*;
use seqrs::number::DType;

use crate::device::Device;
use crate::layer::AnyNetwork;
use crate::model::PyModel;
use crate::quantised::PyQuantised;

/// A model as Python has it.
#[derive(FromPyObject)]
pub(crate) enum Owner {
    /// Of layers that may change.
    Model(Py<PyModel>),
    /// With weights of small numbers, which never changes.
    Quantised(Py<PyQuantised>),
}

impl Owner {
    pub(crate) fn number_type(&self) -> DType {
        match self {
            Self::Model(model) => model.get().number_type(),
            Self::Quantised(_) => DType::F32,
        }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Model(model) => Self::Model(model.clone_ref(py)),
            Self::Quantised(model) => Self::Quantised(model.clone_ref(py)),
        }
    }

    /// Where it computes.
    pub(crate) fn device(&self, py: Python<'_>) -> PyResult<Device> {
        match self {
            Self::Model(model) => model.get().device(py),
            Self::Quantised(_) => Ok(Device::Cpu),
        }
    }

    /// The model at this moment, as it is on the CPU.
    pub(crate) fn any(&self, py: Python<'_>) -> PyResult<AnyNetwork> {
        match self {
            Self::Model(model) => model.get().any(py),
            Self::Quantised(model) => Ok(AnyNetwork::F32(model.get().network())),
        }
    }

    /// The model at this moment, to compute on its device.
    pub(crate) fn placed(&self, py: Python<'_>) -> PyResult<AnyNetwork> {
        match self {
            Self::Model(model) => model.get().placed(py),
            Self::Quantised(_) => self.any(py),
        }
    }
}
