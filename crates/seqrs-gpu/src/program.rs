//! A recorded computation, as plain data.
//!
//! Nothing here knows a driver: the shaders are text, buffers are numbers. Whoever has a device
//! can run it (`executor.rs` does with the `wgpu` crate).

use std::fmt::Write;

/// A buffer of the device. No two have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u64);

/// Whether a shader writes what is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It only reads it.
    Read,
    /// It reads and writes it.
    Write,
}

/// A storage buffer that a shader sees. They are bound in order, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its name in the shader.
    pub name: &'static str,
    /// `f32` or `u32`.
    pub number: &'static str,
    /// What the shader does with it.
    pub access: Access,
}

/// A shader with one entry point, `main`. At binding 0 it has the uniform `p: Params`, a run of
/// `u32`, found by a dynamic offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// What it is, for messages.
    pub label: String,
    /// WGSL.
    pub source: String,
    /// What is bound besides the parameters.
    pub bindings: Vec<Binding>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Write to the start of a buffer of this program, before anything else uses it.
    Write {
        /// Where to.
        to: BufferId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Run a shader.
    Dispatch {
        /// Index of the program's pipeline.
        pipeline: usize,
        /// What is bound, in the pipeline's order.
        buffers: Vec<BufferId>,
        /// The words of `Params`.
        params: Vec<u32>,
        /// Workgroups along each axis.
        workgroups: [u32; 3],
    },
}

/// Buffers to make, what to do, and buffers that nobody needs any more when that is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// To be made, with their sizes in bytes, filled with zeros.
    pub buffers: Vec<(BufferId, u64)>,
    /// Those of them that may hold anything: each number is written before it is read.
    pub blank: Vec<BufferId>,
    /// All that dispatches refer to.
    pub pipelines: Vec<Pipeline>,
    /// In order.
    pub commands: Vec<Command>,
    /// From this command on it is done to the end: what these change would be of no use half done.
    /// Until there it may be stopped, and has changed nothing that somebody else knows.
    pub whole_from: Option<usize>,
    /// Whether several threads have recorded it. Then no one of them may stop it.
    pub is_shared: bool,
    /// To be released.
    pub released: Vec<BufferId>,
}

impl Pipeline {
    /// The declarations of the bindings.
    pub(crate) fn declarations(bindings: &[Binding]) -> String {
        let mut text = String::from("@group(0) @binding(0) var<uniform> p: Params;\n");
        for (k, Binding { name, number, access }) in bindings.iter().enumerate() {
            let access = match access {
                Access::Read => "read",
                Access::Write => "read_write",
            };
            let at = k + 1;
            writeln!(
                text,
                "@group(0) @binding({at}) var<storage, {access}> {name}: array<{number}>;"
            )
            .expect("a string takes everything");
        }
        text
    }
}
