//! The CPU backend of seqrs.
//!
//! [`Cpu`] is a [`Backend`](seqrs_core::backend::Backend) for `f32` and `f64`, and offers
//! the products that layers around the recurrent ones need.

pub mod lanes;
pub mod level;
pub mod team;

mod cpu;
pub use cpu::{Cpu, Packed, Weights};
