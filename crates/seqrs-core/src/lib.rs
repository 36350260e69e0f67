//! The mathematics of seqrs and the driver that runs it.
//!
//! A recurrent layer is a **driver** plus a **pointwise function** of (gates from x,
//! gates from h, state). The functions are in [`cell`], thirty lines each, forward
//! directly above backward. Everything else (layers, directions, lengths, products,
//! gradients) is written once and never names a cell: [`steps`] knows which rows are
//! live, [`sequence`] walks layers, [`backend`] is what a device must be able to do, and
//! [`naive`] is the plainest device there can be, the truth the kernels are tested
//! against.
#![forbid(unsafe_code)]

pub mod backend;
pub mod cell;
pub mod error;
pub mod interrupt;
pub mod lanes;
pub mod layer_norm;
pub mod memory;
pub mod naive;
pub mod real;
pub mod rows;
pub mod sequence;
pub mod spec;
pub mod steps;
pub mod tape;

pub use error::Error;
pub use spec::Spec;
pub use steps::Steps;
