//! Programs for a GPU as Python's plain data.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use seqrs::gpu::Plan;
use seqrs::gpu::program::{Access, Command, Pipeline, Program};

/// `buffers`: for each name the id and how many numbers there are. `forward` and `backward`: the
/// programs, or None.
pub(crate) fn write<'py>(py: Python<'py>, plan: &Plan) -> PyResult<Bound<'py, PyDict>> {
    let named = PyDict::new(py);
    for buffer in &plan.buffers {
        named.set_item(buffer.name, (buffer.id.0, buffer.len))?;
    }
    let dict = PyDict::new(py);
    dict.set_item("buffers", named)?;
    dict.set_item("forward", program(py, &plan.forward)?)?;
    let backward = plan.backward.as_ref().map(|backward| program(py, backward)).transpose()?;
    dict.set_item("backward", backward)?;
    Ok(dict)
}

/// `buffers`: ids and bytes. `pipelines`: labels, sources, and of each binding whether it is only
/// read. `writes`: ids and contents. `dispatches`: indices of pipelines, ids of what is bound,
/// words of the parameters, and workgroups.
///
/// What is written is a table that no dispatch changes, so the writes may come first, and once for
/// any number of runs.
fn program<'py>(py: Python<'py>, program: &Program) -> PyResult<Bound<'py, PyDict>> {
    let (writes, dispatches) = (PyList::empty(py), PyList::empty(py));
    for command in &program.commands {
        match command {
            Command::Write { to, bytes } => writes.append((to.0, PyBytes::new(py, bytes)))?,
            Command::Dispatch { pipeline, buffers, params, workgroups: [x, y, z] } => {
                let buffers: Vec<u64> = buffers.iter().map(|id| id.0).collect();
                let params = PyBytes::new(py, bytemuck::cast_slice(params));
                dispatches.append((pipeline, buffers, params, (x, y, z)))?;
            }
        }
    }
    let buffers: Vec<(u64, u64)> =
        program.buffers.iter().map(|(id, bytes)| (id.0, *bytes)).collect();
    let pipelines = PyList::empty(py);
    for Pipeline { label, source, bindings } in &program.pipelines {
        let read: Vec<bool> = bindings.iter().map(|each| each.access == Access::Read).collect();
        pipelines.append((label, source, read))?;
    }
    let dict = PyDict::new(py);
    dict.set_item("buffers", buffers)?;
    dict.set_item("pipelines", pipelines)?;
    dict.set_item("writes", writes)?;
    dict.set_item("dispatches", dispatches)?;
    Ok(dict)
}
