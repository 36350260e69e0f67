//! Inference with weights of small numbers: 8-bit integers, or bf16.
//!
//! A step of one row is a product with all recurrent weights, and takes as long as these take to
//! come from the cache they lie in. Weights of a quarter of the size come in a quarter of the
//! time, and fit in a nearer cache.
//!
//! `sums` are registers of small numbers; [`int8`] and `bf16` are a matrix each, and `packed` is the
//! products of both; [`matrix`] is either. [`Weights::small`](crate::Weights::small) makes weights of a
//! layer of them.

pub mod int8;
pub mod matrix;

pub(crate) mod ahead;
mod bf16;
mod packed;
mod sums;
mod tile;

#[cfg(test)]
mod tests;
