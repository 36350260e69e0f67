//! Ids from a model that predicts the next one.

use pyo3::prelude::*;
use seqrs::Sampling;

use crate::arrays::{self, copied, shape_words};
use crate::entry::{compute, guard};
use crate::errors;
use crate::layer::with_network;
use crate::owner::Owner;

/// The ids that follow the prompt.
#[pyfunction]
#[pyo3(signature = (model, prompt, steps, temperature, top_k, top_p, seed))]
pub(crate) fn generate<'py>(
    model: Owner,
    prompt: &Bound<'py, PyAny>,
    steps: usize,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    seed: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let py = prompt.py();
    guard(py, || {
        let ids = arrays::integers("prompt", prompt)?;
        if ids.shape().len() != 1 {
            let got = shape_words(ids.shape());
            return Err(errors::shape(py, "prompt", "shape (P,)", got));
        }
        let prompt = copied("prompt", ids.numbers()).map_err(|error| errors::raise(py, error))?;
        let sampling = Sampling { temperature, top_k, top_p, seed };
        with_network!(model.any(py)?, network => {
            let drawn =
                compute(py, || seqrs::generate(&network.model, &prompt, steps, &sampling))?;
            arrays::new(py, &[drawn.len()], drawn)
        })
    })
}
