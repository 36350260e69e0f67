//! The cells that there are products of small numbers for, on sums that lie in memory.
//!
//! A fused cell would be compiled once for each size of a tile and each kind of weights; its sums
//! are a few kilobytes that never leave the nearest cache, beside weights that do.

use seqrs_core::cell::{CellKind, GruResetAfter, GruResetBefore, Lstm, Relu, Rnn, Standard, Tanh};

use crate::kernels::Pass;
use crate::level::Level;
use crate::step::{Finish, Open, Pointwise};

/// Whether there are kernels for a cell.
pub fn has(cell: CellKind) -> bool {
    matches!(
        cell,
        CellKind::RnnTanh
            | CellKind::RnnRelu
            | CellKind::Lstm
            | CellKind::GruResetBefore
            | CellKind::GruResetAfter
    )
}

/// A pass of a cell, on the sums of all of its gates.
///
/// # Safety
/// As [`Pointwise::run`]. Where a row's h_new is its h, each unit is read before it is written.
pub(super) unsafe fn pass(cell: CellKind, pass: Pass, on: Pointwise<'_, f32>, level: Level) {
    // SAFETY: by the caller.
    unsafe {
        match (cell, pass) {
            (CellKind::RnnTanh, Pass::Finish) => on.run(Finish(Rnn(Tanh)), level),
            (CellKind::RnnRelu, Pass::Finish) => on.run(Finish(Rnn(Relu)), level),
            (CellKind::Lstm, Pass::Finish) => on.run(Finish(Lstm(Standard)), level),
            (CellKind::GruResetAfter, Pass::Finish) => {
                on.run(Finish(GruResetAfter(Standard)), level);
            }
            (CellKind::GruResetBefore, Pass::Open) => {
                on.run(Open(GruResetBefore(Standard)), level);
            }
            (CellKind::GruResetBefore, Pass::Finish) => {
                on.run(Finish(GruResetBefore(Standard)), level);
            }
            _ => unreachable!("{cell:?} has no kernels for small numbers"),
        }
    }
}
