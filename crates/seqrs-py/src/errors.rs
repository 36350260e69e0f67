//! The one table from errors of seqrs to exceptions.
//!
//! The classes are Python's own, of `seqrs.errors`, so that they pickle and have their
//! documentation where users look for it; they are looked up when one is first raised.

use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use seqrs_core::Error;

/// The classes of `seqrs.errors` that are raised from here.
#[derive(Clone, Copy)]
pub(crate) enum Class {
    Shape,
    DType,
    State,
    ModelFile,
    Numerical,
    NoDevice,
    QueueFull,
    Internal,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Shape => "ShapeError",
            Self::DType => "DTypeError",
            Self::State => "StateError",
            Self::ModelFile => "ModelFileError",
            Self::Numerical => "NumericalError",
            Self::NoDevice => "NoDeviceError",
            Self::QueueFull => "QueueFullError",
            Self::Internal => "InternalError",
        }
    }

    /// An exception of this class.
    pub(crate) fn raise(self, py: Python<'_>, message: String) -> PyErr {
        const COUNT: usize = Class::Internal as usize + 1;
        static CLASSES: [PyOnceLock<Py<PyType>>; COUNT] = [const { PyOnceLock::new() }; COUNT];
        match CLASSES[self as usize].import(py, "seqrs.errors", self.name()) {
            Ok(class) => PyErr::from_type(class.clone(), message),
            Err(error) => error,
        }
    }
}

/// The exception for an error.
pub(crate) fn raise(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Shape { .. } => Class::Shape.raise(py, message),
        Error::DType { .. } => Class::DType.raise(py, message),
        Error::Option { .. } => PyValueError::new_err(message),
        Error::State { .. } => Class::State.raise(py, message),
        Error::ModelFile { .. } => Class::ModelFile.raise(py, message),
        Error::Numerical { .. } => Class::Numerical.raise(py, message),
        Error::NoDevice { .. } => Class::NoDevice.raise(py, message),
        Error::Full { .. } => Class::QueueFull.raise(py, message),
        Error::OutOfMemory { .. } => PyMemoryError::new_err(message),
        // The exception of the signal itself where the border has seen it.
        Error::Interrupted => {
            crate::entry::pending_interrupt().unwrap_or_else(|| PyKeyboardInterrupt::new_err(()))
        }
        _ => Class::Internal.raise(py, message),
    }
}

/// `what: expected ..., got ...` as a `ShapeError`.
pub(crate) fn shape(
    py: Python<'_>,
    what: impl Into<String>,
    expected: impl Into<String>,
    got: impl std::fmt::Display,
) -> PyErr {
    raise(py, Error::shape(what, expected, got))
}

/// `what: expected ..., got ...` as a `DTypeError`.
pub(crate) fn dtype(
    py: Python<'_>,
    what: impl Into<String>,
    expected: impl Into<String>,
    got: impl std::fmt::Display,
) -> PyErr {
    raise(py, Error::dtype(what, expected, got))
}

/// `what: expected ..., got ...` as a `StateError`.
pub(crate) fn state(
    py: Python<'_>,
    what: impl Into<String>,
    expected: impl Into<String>,
    got: impl std::fmt::Display,
) -> PyErr {
    raise(py, Error::state(what, expected, got))
}
