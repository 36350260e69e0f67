//! The handle of a model with small weights, which computes and never changes.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use seqrs::files::{AnyModel, LoadOptions};
use seqrs::sequential::Rank;
use seqrs::{Deviation, Quantisation, Quantised};
use seqrs_core::{Error, Steps};

use crate::arrays;
use crate::batch::{self, Axes, Given, Layout, Live};
use crate::entry::{compute, guard};
use crate::errors;
use crate::layer::Given as Argument;
use crate::network::{cpu, reads, takes_rows};
use crate::state::{self, Holder};

/// A model with weights of small numbers.
#[pyclass(frozen, name = "QuantizedModel", module = "seqrs._seqrs")]
pub(crate) struct PyQuantised {
    model: Arc<Quantised>,
}

impl PyQuantised {
    /// Keeps a model.
    pub(crate) fn keep(model: Quantised) -> Self {
        Self { model: Arc::new(model) }
    }

    /// The model, which never changes.
    pub(crate) fn shared(&self) -> Arc<Quantised> {
        Arc::clone(&self.model)
    }

    /// Makes one of a model.
    pub(crate) fn of(py: Python<'_>, model: &seqrs::Sequential<f32>, kind: &str) -> PyResult<Self> {
        let kind = Quantisation::of_name(kind).ok_or_else(|| {
            errors::raise(py, Error::option("kind", "\"bf16\" or \"int8\"", format!("{kind:?}")))
        })?;
        Ok(Self::keep(compute(py, || model.quantised(kind))?))
    }

    fn infer<'py>(
        &self,
        py: Python<'py>,
        state: Argument<'_, 'py>,
        (x, steps, layout): &(Given<f32>, Steps, Layout),
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        let (cpu, model) = (cpu::<f32>(py)?, self.model.structure());
        let mut state = state::read(py, "state", state, model, layout.batch, Holder::Model)?;
        let (numbers, width, rank) = compute(py, || {
            let output = self.model.infer_on(&cpu, x.input(), steps, &mut state)?;
            let numbers = match output.rank {
                Rank::Steps => layout.spread(steps, output.numbers, output.width)?,
                Rank::Rows => output.numbers,
            };
            Ok((numbers, output.width, output.rank))
        })?;
        let shape = match rank {
            Rank::Steps => layout.shape(Some(width)),
            Rank::Rows => vec![layout.batch, width],
        };
        let y = arrays::new(py, &shape, numbers)?;
        Ok((y, state::write(py, state, model, layout.batch, Holder::Model)?))
    }

    fn read(
        &self,
        x: &Bound<'_, PyAny>,
        lengths: Argument<'_, '_>,
        mask: Argument<'_, '_>,
    ) -> PyResult<(Given<f32>, Steps, Layout)> {
        let model = self.model.structure();
        let axes = Axes::of_sequence(model.batch_first());
        batch::read("x", x, reads(model), axes, takes_rows(model), Live { lengths, mask })
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
            let layers = self.model.structure().layers().iter();
            let json = layers.map(|layer| serde_json::to_string(&layer.spec()));
            let json = json.collect::<Result<Vec<String>, _>>();
            PyList::new(py, json.expect("a description is plain data"))
        })
    }

    /// Whether x is (B, T, ...).
    #[getter]
    fn batch_first(&self, py: Python<'_>) -> PyResult<bool> {
        guard(py, || Ok(self.model.structure().batch_first()))
    }

    /// Numbers in all parameters.
    #[getter]
    fn num_parameters(&self, py: Python<'_>) -> PyResult<usize> {
        guard(py, || Ok(self.model.num_parameters()))
    }

    /// Bytes of all parameters.
    #[getter]
    fn parameter_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        guard(py, || Ok(self.model.parameter_bytes()))
    }

    /// Features of y, or None.
    #[getter]
    fn output_size(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        guard(py, || Ok(self.model.structure().output_width()))
    }

    /// A hash of structure and parameters.
    #[getter]
    fn fingerprint(&self, py: Python<'_>) -> PyResult<String> {
        guard(py, || compute(py, || self.model.fingerprint()))
    }

    /// Inference.
    #[pyo3(signature = (x, state, lengths, mask))]
    fn call<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        state: Argument<'_, 'py>,
        lengths: Argument<'_, 'py>,
        mask: Argument<'_, 'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        guard(x.py(), || self.infer(x.py(), state, &self.read(x, lengths, mask)?))
    }

    /// One step.
    #[pyo3(signature = (x_t, state))]
    fn step<'py>(
        &self,
        x_t: &Bound<'py, PyAny>,
        state: Argument<'_, 'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        let py = x_t.py();
        guard(py, || {
            let model = self.model.structure();
            model.check_stepwise().map_err(|error| errors::raise(py, error))?;
            let live = Live { lengths: None, mask: None };
            let read = batch::read("x_t", x_t, reads(model), Axes::Rows, false, live)?;
            self.infer(py, state, &read)
        })
    }

    /// How far it is from the model that it was made of.
    #[pyo3(signature = (x, state, lengths, mask))]
    fn report<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        state: Argument<'_, 'py>,
        lengths: Argument<'_, 'py>,
        mask: Argument<'_, 'py>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = x.py();
        guard(py, || {
            let (x, steps, layout) = self.read(x, lengths, mask)?;
            let (cpu, model) = (cpu::<f32>(py)?, self.model.structure());
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
        guard(py, || {
            // Also refuses more rows than a batch can have.
            Steps::dense(0, batch).map_err(|error| errors::raise(py, error))?;
            let model = self.model.structure();
            let state = model.zero_state(batch).map_err(|error| errors::raise(py, error))?;
            state::write(py, state, model, batch, Holder::Model)
        })
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
