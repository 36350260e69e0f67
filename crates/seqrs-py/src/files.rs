//! Model files.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use seqrs::files::{self, AnyModel, ForeignTensor, LoadOptions};
use seqrs_core::Error;

use crate::entry::{compute, guard};
use crate::layer::{AnyLayer, Kept, PyLayer};
use crate::model::PyModel;
use crate::quantised::PyQuantised;

/// Reads a model file: a `Layer`, a `Model` or a `QuantizedModel`.
#[pyfunction]
pub(crate) fn load(py: Python<'_>, path: PathBuf, allow_nonfinite: bool) -> PyResult<Py<PyAny>> {
    guard(py, || {
        let options = LoadOptions { allow_nonfinite };
        match compute(py, || files::load_with(&path, &options))? {
            AnyModel::LayerF32(layer) => handle(py, f32::keep(layer)),
            AnyModel::LayerF64(layer) => handle(py, f64::keep(layer)),
            AnyModel::SequentialF32(model) => {
                Ok(Py::new(py, PyModel::keep(py, &model)?)?.into_any())
            }
            AnyModel::SequentialF64(model) => {
                Ok(Py::new(py, PyModel::keep(py, &model)?)?.into_any())
            }
            AnyModel::Quantised(model) => Ok(Py::new(py, PyQuantised::keep(model))?.into_any()),
        }
    })
}

/// Name, dtype, shape, and where its bytes begin and end in the file.
type Entry = (String, String, Vec<u64>, u64, u64);

/// The arrays of a safetensors file of any library.
#[pyfunction]
pub(crate) fn foreign_tensors(py: Python<'_>, path: PathBuf) -> PyResult<Vec<Entry>> {
    guard(py, || {
        let tensors = compute(py, || files::foreign_tensors(&path))?;
        let entry = |ForeignTensor { name, dtype, shape, bytes }| {
            (name, dtype, shape, bytes.start, bytes.end)
        };
        Ok(tensors.into_iter().map(entry).collect())
    })
}

fn handle(py: Python<'_>, layer: AnyLayer) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, PyLayer::keep(layer))?.into_any())
}

/// The bytes of a layer's model file.
pub(crate) fn layer_bytes(layer: &AnyLayer) -> Result<Vec<u8>, Error> {
    match layer {
        AnyLayer::F32(layer) | AnyLayer::Either(layer) => layer.to_bytes(),
        AnyLayer::F64(layer) => layer.to_bytes(),
    }
}

/// The layer of a model file's bytes. A pickle may hold any numbers.
pub(crate) fn layer_of_bytes(bytes: &[u8]) -> Result<AnyLayer, Error> {
    match AnyModel::from_bytes(bytes, &LoadOptions { allow_nonfinite: true })? {
        AnyModel::LayerF32(layer) => Ok(f32::keep(layer)),
        AnyModel::LayerF64(layer) => Ok(f64::keep(layer)),
        _ => Err(Error::model_file("structure", "a single layer", "a list of layers")),
    }
}

/// Writes a layer's model file.
pub(crate) fn save_layer(layer: &AnyLayer, path: &Path) -> Result<(), Error> {
    match layer {
        AnyLayer::F32(layer) | AnyLayer::Either(layer) => layer.save(path),
        AnyLayer::F64(layer) => layer.save(path),
    }
}
