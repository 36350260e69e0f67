//! The CPU backend of seqrs.
//!
//! [`Cpu`] is a [`Backend`](seqrs_core::backend::Backend) for `f32` and `f64`, and offers
//! the products that layers around the recurrent ones need.
//!
//! From the processor upwards: [`level`] finds the instruction set, [`lanes`] are its
//! registers; `kernel` is the one loop that multiplies; `pack` lays weights out for it;
//! `product`, `step` and `outer` are what is computed with it; [`quantised`] are matrices of small
//! numbers; `forward` and `backward` take a layer through all steps; [`team`] shares work between
//! threads, [`words`] are what threads share.

pub mod lanes;
pub mod level;
pub mod quantised;
pub mod team;
pub mod words;

mod backward;
mod compiled;
mod cpu;
mod crew;
mod forward;
mod kernel;
mod kernels;
mod matrix;
mod norms;
mod outer;
mod pack;
mod pause;
mod product;
mod shared;
mod shares;
mod state_masks;
mod step;
mod step_back;
mod weights;

pub use cpu::{Cpu, Packed};
pub use weights::{SmallMatrices, Weights};

#[cfg(test)]
mod twin;
