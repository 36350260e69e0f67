//! The cell's way back at one step, for some rows: pointwise passes between the products.
//!
//! ```text
//! d_h  = d_y + d_h        d_gx, d_gh, d_c, d_h' (direct part), d_p = cell.backward(...)
//! ```
//! The rest of d_h' is a product with the recurrent weights, which starts from the direct
//! part. A cell with two products takes a second pass, `close`, after the product that gives
//! the gradient of its operand.
//!
//! # Departures
//! 1. The usual gates were kept after their functions, so the only transcendental here is the LSTM's
//!    tanh(c). All of this is 3 % of a step of training the character model (samples of a
//!    profile), so nothing else was done for it: it is not fused with the product, which needs the
//!    gates' gradients of all units at once.

use seqrs_core::cell::{Bundle, Cell, MAX_BUNDLE};

use crate::kernels::Back;
use crate::lanes::{Element, Simd};
use crate::level::{Kernel, Level};
use crate::step::{At, load_state};

/// Where one row's values of one step lie; runs of `hidden`.
#[derive(Clone, Copy)]
pub(crate) struct BackRow<T> {
    /// The cell's saved values.
    pub(crate) saved: *const T,
    /// What each unit has for itself, the same for all rows.
    pub(crate) per_unit: *const T,
    /// States before the step; null where the cell has none, or h is projected.
    pub(crate) h: *const T,
    pub(crate) c: *const T,
    /// States after the step, likewise.
    pub(crate) h_new: *const T,
    pub(crate) c_new: *const T,
    /// Gradient of the output at this step; null means zero.
    pub(crate) d_y: *const T,
    /// Gradient of h: of the one after the step, then the direct part of that before.
    pub(crate) d_h: *mut T,
    /// Gradient of c, likewise; null for a cell without.
    pub(crate) d_c: *mut T,
    /// Gradients of the gates' two parts; the same memory where they are always equal.
    pub(crate) d_gx: *mut T,
    pub(crate) d_gh: *mut T,
    /// What the step adds to the gradients of what each unit has for itself; null where that is
    /// nothing.
    pub(crate) d_per_unit: *mut T,
    /// For a cell with two products: the operand of the second, and its gradient; else null.
    pub(crate) operand: *mut T,
    pub(crate) d_operand: *mut T,
    /// With a projection: what went into it; else null.
    pub(crate) unprojected: *mut T,
}

/// The first pass.
pub(crate) struct StepBack<'a, T, C> {
    pub(crate) back: Back<'a, T>,
    pub(crate) cell: C,
}

/// The second pass of a cell with two products.
pub(crate) struct Close<'a, T, C> {
    pub(crate) back: Back<'a, T>,
    pub(crate) cell: C,
}

impl<T: Element, C: Cell> StepBack<'_, T, C> {
    /// # Safety
    /// Every row's memory is there for the cell's runs of `hidden`, nobody else uses it, and
    /// what is written overlaps nothing else.
    pub(crate) unsafe fn run(self, level: Level) {
        level.dispatch(self);
    }
}

impl<T: Element, C: Cell> Close<'_, T, C> {
    /// # Safety
    /// As [`StepBack::run`].
    pub(crate) unsafe fn run(self, level: Level) {
        level.dispatch(self);
    }
}

impl<T: Element, C: Cell> Kernel<T> for StepBack<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let Back { rows, hidden, units } = self.back;
        for row in rows {
            for u in units.clone().step_by(V::WIDTH) {
                let at = At { u, n: (units.end - u).min(V::WIDTH) };
                // SAFETY: `StepBack::run` passes on what its caller vouches for.
                unsafe { step_back::<V, C>(self.cell, row, hidden, at) };
            }
        }
    }
}

/// # Safety
/// As [`StepBack::run`].
#[inline(always)]
unsafe fn step_back<V: Simd, C: Cell>(cell: C, row: &BackRow<V::Elem>, hidden: usize, at: At) {
    // SAFETY: by the caller.
    unsafe {
        let saved: C::Saved<V> = at.load_bundle(row.saved, hidden);
        let s = load_state::<V, C>(row.h, row.c, at);
        let s_new = load_state::<V, C>(row.h_new, row.c_new, at);
        let mut d_s = [V::zero(); MAX_BUNDLE];
        let d_y = if row.d_y.is_null() { V::zero() } else { at.load(row.d_y) };
        d_s[0] = d_y + at.load(row.d_h);
        if C::STATES > 1 {
            d_s[1] = at.load(row.d_c);
        }
        let p = at.load_bundle(row.per_unit, hidden);
        let d = cell.backward(saved, s, s_new, p, C::State::from_array(d_s));
        at.store_bundle(d.d_gx, row.d_gx, hidden);
        if !C::ONE_GATE_GRADIENT {
            at.store_bundle(d.d_gh, row.d_gh, hidden);
        }
        at.store_bundle(d.d_p, row.d_per_unit, hidden);
        let d_s = d.d_s.to_array(V::zero());
        at.store(d_s[0], row.d_h);
        if C::STATES > 1 {
            at.store(d_s[1], row.d_c);
        }
        if !row.operand.is_null() {
            at.store(cell.operand(saved, s), row.operand);
        }
        if !row.unprojected.is_null() {
            at.store(cell.unprojected(saved, s_new), row.unprojected);
        }
    }
}

impl<T: Element, C: Cell> Kernel<T> for Close<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let Back { rows, hidden, units } = self.back;
        for row in rows {
            for u in units.clone().step_by(V::WIDTH) {
                let at = At { u, n: (units.end - u).min(V::WIDTH) };
                // SAFETY: `Close::run` passes on what its caller vouches for.
                unsafe { close::<V, C>(self.cell, row, hidden, at) };
            }
        }
    }
}

/// # Safety
/// As [`StepBack::run`].
#[inline(always)]
unsafe fn close<V: Simd, C: Cell>(cell: C, row: &BackRow<V::Elem>, hidden: usize, at: At) {
    // SAFETY: by the caller.
    unsafe {
        let s = load_state::<V, C>(row.h, row.c, at);
        let d_operand: V = at.load(row.d_operand);
        let (more, d_h) = cell.close(at.load_bundle(row.saved, hidden), s, d_operand);
        let more = more.to_array(V::zero());
        for (gate, more) in more.into_iter().enumerate().take(C::FIRST_GATES) {
            let d = row.d_gx.add(gate * hidden);
            at.store(at.load::<V>(d) + more, d);
            if !C::ONE_GATE_GRADIENT {
                let d = row.d_gh.add(gate * hidden);
                at.store(at.load::<V>(d) + more, d);
            }
        }
        at.store(at.load::<V>(row.d_h) + d_h, row.d_h);
    }
}
