//! The kernels of a cell, as an object.
//!
//! What runs a layer over its steps (`forward`, `backward.rs`) is compiled once for each type
//! of number and calls these; only they are compiled for each cell. A call a step costs nothing
//! that can be measured.

use std::ops::Range;

use seqrs_core::cell::{Cell, Counts};

use crate::lanes::Element;
use crate::level::Level;
use crate::norms::{Show, ShowBack, Shown};
use crate::step::{Finish, Open, Pointwise, Row, Step};
use crate::step_back::{BackRow, Close, StepBack};

/// Which of the passes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The first of a cell with two products.
    Open,
    /// The one that gives the new state.
    Finish,
}

impl Pass {
    /// The gates that it multiplies.
    pub(crate) const fn gates(self, counts: &Counts) -> Range<usize> {
        match self {
            Self::Open => 0..counts.first_gates,
            Self::Finish if counts.two_products() => counts.first_gates..counts.gates,
            Self::Finish => 0..counts.gates,
        }
    }

    /// What it multiplies them with.
    #[inline(always)]
    pub(crate) fn operand<T>(self, row: &Row<T>) -> *const T {
        match self {
            Self::Finish if !row.operand.is_null() => row.operand,
            _ => row.seen,
        }
    }
}

/// Some units of some rows at one step back.
pub(crate) struct Back<'a, T> {
    pub(crate) rows: &'a [BackRow<T>],
    pub(crate) hidden: usize,
    pub(crate) units: Range<usize>,
}

/// What is compiled for each cell.
pub(crate) trait Kernels<T: Element>: Sync {
    /// What there is how many of.
    fn counts(&self) -> Counts;

    /// A pass of a fused cell: the product and what is done with its sums.
    ///
    /// # Safety
    /// As [`Step::run`].
    unsafe fn step(&self, pass: Pass, step: Step<'_, T>, level: Level);

    /// A pass of one that is not fused, or whose weights are small, on sums that lie in memory.
    ///
    /// # Safety
    /// As [`Pointwise::run`].
    unsafe fn pointwise(&self, pass: Pass, pointwise: Pointwise<'_, T>, level: Level);

    /// h from the c that it shows, of a cell that is normalised.
    ///
    /// # Safety
    /// As [`Show::run`].
    unsafe fn show(&self, rows: &[Shown<T>], hidden: usize, level: Level);

    /// The way back of that.
    ///
    /// # Safety
    /// As [`ShowBack::run`].
    unsafe fn show_back(&self, rows: &[Shown<T>], hidden: usize, level: Level);

    /// A step back, down to the gradients of the gates.
    ///
    /// # Safety
    /// As [`StepBack::run`].
    unsafe fn step_back(&self, back: Back<'_, T>, level: Level);

    /// What follows it in a cell with two products.
    ///
    /// # Safety
    /// As [`Close::run`].
    unsafe fn close(&self, back: Back<'_, T>, level: Level);
}

// What a cell has no need of is not compiled: the conditions are constants of the cell and of the
// number.
impl<T: Element, C: Cell> Kernels<T> for C {
    fn counts(&self) -> Counts {
        C::COUNTS
    }

    unsafe fn step(&self, pass: Pass, step: Step<'_, T>, level: Level) {
        if C::FUSED {
            match pass {
                // SAFETY: by the caller.
                Pass::Finish => unsafe { step.run(Finish(*self), level) },
                Pass::Open => {
                    if C::TWO_PRODUCTS {
                        // SAFETY: by the caller.
                        unsafe { step.run(Open(*self), level) }
                    }
                }
            }
        }
    }

    unsafe fn pointwise(&self, pass: Pass, pointwise: Pointwise<'_, T>, level: Level) {
        if !C::FUSED || T::IS_F32 {
            match pass {
                // SAFETY: by the caller.
                Pass::Finish => unsafe { pointwise.run(Finish(*self), level) },
                Pass::Open => {
                    if C::TWO_PRODUCTS {
                        // SAFETY: by the caller.
                        unsafe { pointwise.run(Open(*self), level) }
                    }
                }
            }
        }
    }

    unsafe fn show(&self, rows: &[Shown<T>], hidden: usize, level: Level) {
        if C::MAY_BE_NORMALISED {
            // SAFETY: by the caller.
            unsafe { Show { rows, hidden, cell: *self }.run(level) }
        }
    }

    unsafe fn show_back(&self, rows: &[Shown<T>], hidden: usize, level: Level) {
        if C::MAY_BE_NORMALISED {
            // SAFETY: by the caller.
            unsafe { ShowBack { rows, hidden, cell: *self }.run(level) }
        }
    }

    unsafe fn step_back(&self, back: Back<'_, T>, level: Level) {
        // SAFETY: by the caller.
        unsafe { StepBack { back, cell: *self }.run(level) }
    }

    unsafe fn close(&self, back: Back<'_, T>, level: Level) {
        if C::TWO_PRODUCTS {
            // SAFETY: by the caller.
            unsafe { Close { back, cell: *self }.run(level) }
        }
    }
}
