//! GPUs, and what runs there as Python's plain data. Its twin is `no_gpu.rs`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use seqrs::gpu::program::{Access, BufferId, Command, Pipeline, Program};
pub(crate) use seqrs::gpu::{Description, Gpu, GpuModel, GpuTape, GpuTrainer, Plan, adapters};
use seqrs::gpu::{Event, shaders};

/// `buffers`: for each name the id and how many numbers there are. `forward` and `backward`: the
/// programs, or None.
pub(crate) fn write_plan<'py>(py: Python<'py>, plan: &Plan) -> PyResult<Bound<'py, PyDict>> {
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

/// What a device did: a program that it ran, or the id of a buffer and the bytes that were in it.
pub(crate) fn write_events<'py>(py: Python<'py>, events: &[Event]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for event in events {
        match event {
            Event::Ran(ran) => list.append(program(py, ran)?)?,
            Event::Gave(id, numbers) => {
                list.append((id.0, PyBytes::new(py, bytemuck::cast_slice(numbers))))?;
            }
        }
    }
    Ok(list)
}

/// The name of every shader that a program may have, and the shader.
pub(crate) fn write_shaders(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for (name, shader) in shaders() {
        dict.set_item(name, pipeline(&shader))?;
    }
    Ok(dict)
}

/// Label, source, and of each binding whether it is only read.
fn pipeline(Pipeline { label, source, bindings }: &Pipeline) -> (&str, &str, Vec<bool>) {
    (label, source, bindings.iter().map(|each| each.access == Access::Read).collect())
}

/// `buffers`: ids and bytes; `blank`: those of them that need not be zeros; `released`: ids that
/// no later program has. `pipelines`: the shaders. `writes`: ids and contents. `dispatches`: indices of pipelines, ids of what is bound,
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
    let ids = |ids: &[BufferId]| ids.iter().map(|id| id.0).collect::<Vec<u64>>();
    let pipelines: Vec<_> = program.pipelines.iter().map(pipeline).collect();
    let dict = PyDict::new(py);
    dict.set_item("buffers", buffers)?;
    dict.set_item("blank", ids(&program.blank))?;
    dict.set_item("released", ids(&program.released))?;
    dict.set_item("pipelines", pipelines)?;
    dict.set_item("writes", writes)?;
    dict.set_item("dispatches", dispatches)?;
    Ok(dict)
}
