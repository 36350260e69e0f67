//! The handle of a model with small weights, which computes and never changes.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use seqrs::files::{AnyModel, LoadOptions};
use seqrs::{Deviation, Quantisation, Quantised};
use seqrs_core::Error;

use crate::batch::Live;
use crate::entry::{compute, guard};
use crate::errors;
use crate::layer::{Given, next_handle};
use crate::network::{Call, Network, cpu};
use crate::state::{self, Holder};

/// A model with weights of small numbers.
#[pyclass(frozen, name = "QuantizedModel", module = "seqrs._seqrs")]
pub(crate) struct PyQuantised {
    model: Quantised,
    /// The model to compute with, as one of numbers is: made once, as it never changes.
    network: Network<f32>,
}

impl PyQuantised {
    /// Keeps a model.
    pub(crate) fn keep(model: Quantised) -> Self {
        let network = Network {
            model: model.model().clone(),
            holder: Holder::Model,
            owner: next_handle(),
            resident: None,
        };
        Self { model, network }
    }

    /// The model to compute with, for one who keeps it.
    pub(crate) fn network(&self) -> Network<f32> {
        let Network { model, holder, owner, .. } = &self.network;
        Network { model: model.clone(), holder: *holder, owner: *owner, resident: None }
    }

    /// Makes one of a model.
    pub(crate) fn of(py: Python<'_>, model: &seqrs::Sequential<f32>, kind: &str) -> PyResult<Self> {
        let kind = Quantisation::of_name(kind).ok_or_else(|| {
            errors::raise(py, Error::option("kind", "\"bf16\" or \"int8\"", format!("{kind:?}")))
        })?;
        Ok(Self::keep(compute(py, || model.quantised(kind))?))
    }
}

fn deviation<'py>(py: Python<'py>, of: Deviation) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("max", of.largest)?;
    dict.set_item("rms", of.rms)?;
    dict.set_item("relative", of.relative)?;
    Ok(dict)
}

#[pymethods]
impl PyQuantised {
    /// "bf16" or "int8".
    #[getter]
    fn kind(&self, py: Python<'_>) -> PyResult<&'static str> {
        guard(py, || Ok(self.model.kind().name()))
    }

    /// What describes each layer, as JSON.
    #[getter]
    fn layers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        guard(py, || {
            let layers = self.model.model().layers().iter();
            let json = layers.map(|layer| serde_json::to_string(&layer.spec()));
            let json = json.collect::<Result<Vec<String>, _>>();
            PyList::new(py, json.expect("a description is plain data"))
        })
    }

    /// Whether x is (B, T, ...).
    #[getter]
    fn batch_first(&self, py: Python<'_>) -> PyResult<bool> {
        guard(py, || Ok(self.model.model().batch_first()))
    }

    /// Numbers in all parameters.
    #[getter]
    fn num_parameters(&self, py: Python<'_>) -> PyResult<usize> {
        guard(py, || Ok(self.model.model().num_parameters()))
    }

    /// Bytes of all parameters.
    #[getter]
    fn parameter_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        guard(py, || Ok(self.model.parameter_bytes()))
    }

    /// Features of y, or None.
    #[getter]
    fn output_size(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        guard(py, || Ok(self.model.model().output_width()))
    }

    /// A hash of structure and parameters.
    #[getter]
    fn fingerprint(&self, py: Python<'_>) -> PyResult<String> {
        guard(py, || compute(py, || Ok(self.model.fingerprint())))
    }

    /// Inference.
    #[pyo3(signature = (x, state, lengths, mask))]
    fn call<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        state: Given<'_, 'py>,
        lengths: Given<'_, 'py>,
        mask: Given<'_, 'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        guard(x.py(), || {
            let network = &self.network;
            let batch_first = network.model.batch_first();
            network.call(&Call { x, state, live: Live { lengths, mask }, batch_first })
        })
    }

    /// One step.
    #[pyo3(signature = (x_t, state, out))]
    fn step<'py>(
        &self,
        x_t: &Bound<'py, PyAny>,
        state: Given<'_, 'py>,
        out: Given<'_, 'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        guard(x_t.py(), || self.network.step(x_t, state, out))
    }

    /// Runs zeros through it, so that the first call that counts finds everything there.
    fn warm_up(&self, py: Python<'_>, batch: usize, steps: usize) -> PyResult<()> {
        guard(py, || self.network.warm_up(py, batch, steps))
    }

    /// How far it is from the model that it was made of.
    #[pyo3(signature = (x, state, lengths, mask))]
    fn report<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        state: Given<'_, 'py>,
        lengths: Given<'_, 'py>,
        mask: Given<'_, 'py>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = x.py();
        guard(py, || {
            let network = &self.network;
            let batch_first = network.model.batch_first();
            let call = Call { x, state, live: Live { lengths, mask }, batch_first };
            let (x, steps, layout) = network.read(&call)?;
            let (cpu, model) = (cpu::<f32>(py)?, &network.model);
            let state = state::read(py, "state", state, model, layout.batch, Holder::Model)?;
            let report = compute(py, || self.model.report_on(&cpu, x.input(), &steps, &state))?;
            let layers = PyList::empty(py);
            for layer in report.layers {
                let dict = deviation(py, layer.deviation)?;
                dict.set_item("layer", layer.layer)?;
                dict.set_item("name", layer.name)?;
                layers.append(dict)?;
            }
            let dict = PyDict::new(py);
            dict.set_item("kind", report.kind.name())?;
            dict.set_item("output", deviation(py, report.output)?)?;
            dict.set_item("layers", layers)?;
            let [bytes, of_float32] = report.bytes;
            dict.set_item("bytes", bytes)?;
            dict.set_item("float32_bytes", of_float32)?;
            Ok(dict)
        })
    }

    /// The zero state.
    fn initial_state(&self, py: Python<'_>, batch: usize) -> PyResult<Py<PyAny>> {
        guard(py, || self.network.initial_state(py, batch))
    }

    /// Writes a model file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        guard(py, || compute(py, || self.model.save(&path)))
    }

    /// The bytes of a model file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        guard(py, || Ok(PyBytes::new(py, &compute(py, || self.model.to_bytes())?)))
    }

    /// The model of a model file's bytes. A pickle may hold any numbers.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        guard(py, || {
            let options = LoadOptions { allow_nonfinite: true };
            compute(py, || match AnyModel::from_bytes(data, &options)? {
                AnyModel::Quantised(model) => Ok(Self::keep(model)),
                _ => Err(Error::model_file("weights", "small ones (int8 or bf16)", "others")),
            })
        })
    }
}
