//! How a model stands on a batch, as dictionaries.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use seqrs::arrays::diagnosis::{Diagnosis, DirectionDiagnosis, Extent, Norms};
use seqrs::low_level::diagnose_on;
use seqrs::{Layer, Sequential, State};
use seqrs_core::cell::{Bundle, Cell, CellKind};
use seqrs_core::steps::Direction;
use seqrs_core::{Error, with_cell};

use crate::entry::compute;
use crate::layer::Kept;
use crate::loss;
use crate::network::{Call, Network, cpu};
use crate::state::{self, Holder};
use crate::trainer::Batch;

impl<T: Kept> Network<T> {
    /// What `seqrs.diagnose` finds: in f64, from the numbers that the model computes with.
    pub(crate) fn diagnose<'py>(
        &self,
        call: &Call<'_, 'py>,
        y: &Bound<'py, PyAny>,
        loss_json: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = call.x.py();
        let loss = loss::parse(py, loss_json)?;
        let batch = Batch::read((&self.model, &loss), call.x, y, call.live, call.batch_first)?;
        let rows = batch.layout.batch;
        let state = state::read(py, "state", call.state, &self.model, rows, self.holder)?;
        let cpu = cpu::<f64>(py)?;
        let found = compute(py, || {
            let (model, batch) = (self.model.widened()?, batch.widened()?);
            let state = state.iter().map(widened).collect::<Result<_, _>>()?;
            let steps = batch.steps.clone();
            diagnose_on(&cpu, &model, batch.x.input(), steps, &state, batch.target(), loss)
        })?;
        write(py, &self.model, self.holder, &found)
    }
}

fn widened<T: Kept>(state: &State<Vec<T>>) -> Result<State<Vec<f64>>, Error> {
    let wide = |numbers: &[T]| -> Result<Vec<f64>, Error> {
        let mut wide = crate::arrays::room("state", numbers.len())?;
        wide.extend(numbers.iter().map(|&number| seqrs::Number::to_f64(number)));
        Ok(wide)
    };
    Ok(State { h: wide(&state.h)?, c: state.c.as_deref().map(wide).transpose()? })
}

/// Layers, parameters and gates in the order of the model.
fn write<'py, T: Kept>(
    py: Python<'py>,
    model: &Sequential<T>,
    holder: Holder,
    found: &Diagnosis,
) -> PyResult<Bound<'py, PyDict>> {
    let (layers, parameters) = (PyDict::new(py), PyDict::new(py));
    for (k, layer) in model.layers().iter().enumerate() {
        let set = |dict: &Bound<'py, PyDict>, name: &str, about: Bound<'py, PyDict>| match holder {
            Holder::Layer => dict.set_item(name, about),
            Holder::Model => dict.set_item(format!("{k}.{name}"), about),
        };
        if let Layer::Recurrent(layer) = layer {
            let stack = layer.stack();
            for depth in 0..stack.num_layers() {
                for &direction in stack.directions() {
                    let name = match direction {
                        Direction::Forward => format!("l{depth}"),
                        Direction::Reverse => format!("l{depth}_reverse"),
                    };
                    let about = &found.layers[&format!("{k}.{name}")];
                    set(&layers, &name, write_direction(py, stack.shape(depth).cell, about)?)?;
                }
            }
        }
        for parameter in layer.parameters() {
            let Norms { norm, gradient_norm } =
                found.parameters[&format!("{k}.{}", parameter.name)];
            let about = PyDict::new(py);
            about.set_item("norm", norm)?;
            about.set_item("gradient_norm", gradient_norm)?;
            set(&parameters, &parameter.name, about)?;
        }
    }
    let dict = PyDict::new(py);
    dict.set_item("loss", found.loss)?;
    dict.set_item("layers", layers)?;
    dict.set_item("parameters", parameters)?;
    Ok(dict)
}

fn write_direction<'py>(
    py: Python<'py>,
    cell: CellKind,
    about: &DirectionDiagnosis,
) -> PyResult<Bound<'py, PyDict>> {
    let names = with_cell!(cell, C => <<C as Cell>::Gates<f32> as Bundle<f32>>::NAMES);
    let gates = PyDict::new(py);
    for &name in names {
        let gate = &about.gates[name];
        let dict = PyDict::new(py);
        dict.set_item("spectral_radius", gate.spectral_radius)?;
        dict.set_item("spectral_norm", gate.spectral_norm)?;
        write_extent(&dict, gate.extent)?;
        dict.set_item("saturated_low", gate.saturated_low)?;
        dict.set_item("saturated_high", gate.saturated_high)?;
        gates.set_item(name, dict)?;
    }
    let states = PyDict::new(py);
    for (letter, &extent) in &about.states {
        let dict = PyDict::new(py);
        write_extent(&dict, extent)?;
        states.set_item(letter, dict)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("gates", gates)?;
    dict.set_item("states", states)?;
    dict.set_item("dead_units", about.dead_units)?;
    dict.set_item("gradient_norm", &about.gradient_norm)?;
    dict.set_item("gradient_first", about.gradient_first)?;
    dict.set_item("gradient_last", about.gradient_last)?;
    dict.set_item("gradient_ratio", about.gradient_ratio)?;
    Ok(dict)
}

fn write_extent(dict: &Bound<'_, PyDict>, extent: Extent) -> PyResult<()> {
    dict.set_item("minimum", extent.minimum)?;
    dict.set_item("maximum", extent.maximum)
}
