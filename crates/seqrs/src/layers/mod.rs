//! The layers, one file each: what describes the layer (and builds it), the layer with its
//! parameters, and its gradient.
//!
//! A layer works on *packed* rows: one row of numbers for each live (step, row) pair, in
//! the order of [`Steps`](seqrs_core::Steps). So padding is neither read nor computed.

pub mod activation;
pub mod dropout;
pub mod embedding;
pub mod layer_norm;
pub mod linear;
pub mod recurrent;

pub(crate) mod by_rows;
pub(crate) mod pooling;
