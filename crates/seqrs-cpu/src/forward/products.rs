//! The products of a step, and the cell on their sums.

use std::ops::Range;

use seqrs_core::cell::Counts;

use super::Job;
use crate::crew::Member;
use crate::kernels::{Kernels, Pass};
use crate::lanes::Element;
use crate::matrix::{Ahead, How, Matrix};
use crate::shared::{Shared, numbers_mut};
use crate::step::{Pointwise, Row, Step};

/// Units that members of a crew do not divide further: the widest register.
const GROUP: usize = 16;

/// The products of the steps of some rows.
pub(super) struct Products<'a, T> {
    /// What there is how many of in the cell.
    pub(super) counts: Counts,
    /// Lists of as many rows as there may be, to be used again.
    pub(super) x: &'a mut [*const T],
    pub(super) y: &'a mut [*mut T],
    /// Room for what becomes of the rows.
    pub(super) operands: Shared<u8>,
    /// Whether panels are walked from the last to the first.
    pub(super) downwards: bool,
}

impl<T: Element> Products<'_, T> {
    /// One pass of one step, this member's share of it, and on the way a part of the product of the
    /// steps ahead; nothing if the crew was given up.
    ///
    /// # Safety
    /// As [`Step::run`].
    #[expect(clippy::too_many_arguments, reason = "what a step is, and who does which part of it")]
    pub(super) unsafe fn pass(
        &mut self,
        cell: &dyn Kernels<T>,
        pass: Pass,
        job: &Job<'_, T>,
        rows: &[Row<T>],
        weights: &Matrix<T>,
        member: &mut Member<'_>,
        ahead: Option<Ahead<'_, T>>,
    ) -> Option<()> {
        let hidden = job.shape.hidden;
        let share = member.meet()?;
        let parts = share.range(weights.parts());
        if let Some(weights) = weights.of_fused_step() {
            let ahead = ahead.map(|ahead| ahead.slice(share.range(ahead.matrix.parts())));
            let downwards = self.downwards;
            let step = Step { rows, weights, panels: parts, hidden, downwards, ahead };
            // SAFETY: by the caller.
            unsafe { cell.step(pass, step, job.level) };
            return Some(());
        }
        let from = pass.gates(&self.counts).start * hidden;
        let pairs = rows.iter().map(|row| (pass.operand(row), row.gh.wrapping_add(from)));
        // SAFETY: by the caller; each row has room for the sums of all gates.
        unsafe {
            self.product(job, weights, pairs, parts, ahead);
            if let Some(norms) = &job.norms {
                for row in rows {
                    norms.hh.apply(row.item, numbers_mut(row.gh, job.shape.gate_columns()));
                }
            }
        }
        let groups = member.meet()?.range(hidden.div_ceil(GROUP));
        let units = groups.start * GROUP..(groups.end * GROUP).min(hidden);
        // SAFETY: by the caller; all sums are there.
        unsafe { cell.pointwise(pass, Pointwise { rows, hidden, units }, job.level) };
        Some(())
    }

    /// The product of rows, from memory to memory.
    ///
    /// # Safety
    /// As [`Matrix::product`], with the rows as they are; the operands have room for them.
    pub(super) unsafe fn product(
        &mut self,
        job: &Job<'_, T>,
        matrix: &Matrix<T>,
        rows: impl Iterator<Item = (*const T, *mut T)>,
        parts: Range<usize>,
        ahead: Option<Ahead<'_, T>>,
    ) {
        let bytes = matrix.operand_bytes();
        let lists = self.x.iter_mut().zip(&mut *self.y);
        let mut count = 0;
        for ((x, y), (to_x, to_y)) in rows.zip(lists) {
            // SAFETY: by the caller.
            *to_x = unsafe { matrix.operand(x, self.operands.at(count * bytes)) };
            *to_y = y;
            count += 1;
        }
        let how = How { parts, downwards: self.downwards, ahead };
        // SAFETY: by the caller.
        unsafe { matrix.product(job.level, &self.x[..count], &self.y[..count], how) };
    }
}
