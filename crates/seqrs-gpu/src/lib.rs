//! Recurrent networks in WGSL compute shaders: the GPU backend of seqrs.
//!
//! A [`Recorder`] is a [`seqrs_core::backend::Backend`] that computes nothing: it writes down
//! what a device has to do, as a [`program::Program`]. A [`device::Gpu`] runs that.
//!
//! ```text
//! Recorder  --(plain data)-->  Program  --(wgpu)-->  Gpu
//! ```

mod backward;
pub mod device;
mod executor;
mod forward;
mod functions;
mod kernels;
mod norms;
mod pace;
mod params;
mod pieces;
mod pool;
mod products;
pub mod program;
mod recorder;
mod released;
mod row_kernels;
mod rows;
mod rules;
mod state_masks;
mod trace;
mod turn;
mod weights;

pub use kernels::shaders;
pub use recorder::{Numbers, Record, Recorder, Weights};
pub use row_kernels::{Function, Term};
pub use rows::{Clip, Groups, Linear, Normal, Rule};
pub use rules::{Rules, Tile};
pub use trace::Event;
