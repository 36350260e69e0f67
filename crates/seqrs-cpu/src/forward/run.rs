//! Steps whose gates from the input are computed together.

use std::ops::Range;

use seqrs_core::Error;

use super::{Job, Rows, reserve};
use crate::lanes::Element;
use crate::matrix::{Ahead, How};
use crate::shared::{Shared, numbers_mut};

/// Some steps of some rows.
pub(super) struct Run<T> {
    pub(super) steps: Range<usize>,
    items: Rows<usize>,
    /// What the product reads: rows of the input, or what was made of them.
    inputs: Rows<*const T>,
    pub(super) gates: Rows<*mut T>,
}

impl<T: Element> Run<T> {
    /// Of so many items at most.
    #[inline]
    pub(super) fn new(items: usize) -> Result<Self, Error> {
        let mut run =
            Self { steps: 0..0, items: Rows::new(), inputs: Rows::new(), gates: Rows::new() };
        reserve(&mut run.items, "items of a run", items)?;
        reserve(&mut run.inputs, "items of a run", items)?;
        reserve(&mut run.gates, "items of a run", items)?;
        Ok(run)
    }

    /// Its items: rows that are live at a step.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// These steps of the rows of `range`, with their gates from `gx` on, and what becomes of
    /// their inputs from `operands` on.
    ///
    /// # Safety
    /// `operands` has room for them, and nobody else uses it.
    pub(super) unsafe fn begin(
        &mut self,
        job: &Job<'_, T>,
        range: &Range<usize>,
        steps: Range<usize>,
        gx: Shared<T>,
        operands: Shared<u8>,
    ) {
        self.items.clear();
        self.inputs.clear();
        self.gates.clear();
        let (columns, matrix) = (job.shape.gate_columns(), &job.weights.input);
        let bytes = matrix.operand_bytes();
        for k in steps.clone() {
            let t = job.direction.step(k, job.steps.time());
            let (items, rows) = job.steps.at_rows(t, range);
            for (item, &b) in items.zip(rows) {
                let x = job.x_place.offset(item, t, b as usize);
                let x = job.x[x..x + job.shape.input].as_ptr();
                // SAFETY: x was sliced; the room by the caller.
                let input = unsafe { matrix.operand(x, operands.at(self.items.len() * bytes)) };
                self.inputs.push(input);
                self.gates.push(gx.at(self.gates.len() * columns));
                self.items.push(item);
            }
        }
        self.steps = steps;
    }

    /// These parts of its product.
    ///
    /// # Safety
    /// As [`Matrix::product`](crate::matrix::Matrix::product).
    pub(super) unsafe fn product(&self, job: &Job<'_, T>, parts: Range<usize>) {
        let how = How { parts, downwards: false, ahead: None };
        // SAFETY: by the caller.
        unsafe { job.weights.input.product(job.level, &self.inputs, &self.gates, how) };
    }

    /// What of it is computed beside the `part`-th of `parts` steps of one row.
    pub(super) fn ahead<'a>(
        &'a self,
        job: &'a Job<'_, T>,
        part: usize,
        parts: usize,
    ) -> Ahead<'a, T> {
        Ahead { matrix: &job.weights.input, x: &self.inputs, y: &self.gates, part, parts }
    }

    /// Normalises the gates, where that is asked for.
    ///
    /// # Safety
    /// As [`Run::product`], of a worker that is alone.
    pub(super) unsafe fn normalise(&self, job: &Job<'_, T>) {
        let Some(norms) = &job.norms else { return };
        for (&item, &gates) in self.items.iter().zip(&self.gates) {
            // SAFETY: by the caller.
            unsafe { norms.ih.apply(item, numbers_mut(gates, job.shape.gate_columns())) };
        }
    }
}
