//! Inference with weights of small numbers: 8-bit integers, or bf16.
//!
//! A step of one row is a product with all recurrent weights, and takes as long as these take to
//! come from the cache they lie in. Weights of a quarter of the size come in a quarter of the
//! time, and fit in a nearer cache.
//!
//! `sums` are registers of small numbers; [`int8`] and `bf16` are a matrix each, packed, and
//! its product; [`matrix`] is either; [`layer`] takes a layer through all steps, with the cells of
//! `seqrs_core` on the sums ([`cells`]).

pub mod cells;
pub mod int8;
pub mod layer;
pub mod matrix;

mod ahead;
mod bf16;
mod sums;
mod tile;

#[cfg(test)]
mod tests;
