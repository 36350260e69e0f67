//! The normalisations of a cell (`seqrs_core::layer_norm`): of rows of sums before the cell reads
//! them, and of its c before h shows it.
//!
//! A row is normalised as a whole, so layers that have them are not shared by units, and not fused
//! with their products. What the way back needs is kept for each item.

use seqrs_core::cell::{Bundle, Cell, MAX_BUNDLE};
use seqrs_core::layer_norm;
use seqrs_core::memory::Lent;
use seqrs_core::tape::{self, DirectionTape};

use crate::lanes::{Element, Simd};
use crate::level::{Kernel, Level};
use crate::shared::{Shared, numbers_mut};
use crate::step::At;
use crate::weights::Weights;

/// One normalisation on the way forward: its parameters, and where it keeps what it finds.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a, T> {
    pub(crate) gamma: &'a [T],
    pub(crate) beta: Option<&'a [T]>,
    /// (items, width) and (items); null at inference.
    hat: Shared<T>,
    inverse: Shared<T>,
}

/// Those of a cell.
#[derive(Clone, Copy)]
pub(crate) struct Norms<'a, T> {
    pub(crate) ih: Norm<'a, T>,
    pub(crate) hh: Norm<'a, T>,
    pub(crate) c: Option<Norm<'a, T>>,
}

impl<'a, T: Element> Norms<'a, T> {
    /// None where there are none.
    pub(crate) fn new(
        weights: &'a Weights<T>,
        tape: Option<&mut DirectionTape<Lent<T>>>,
    ) -> Option<Self> {
        let shape = weights.shape();
        let ranges = shape.norms.as_ref()?;
        let bias = |range: &Option<_>| range.clone().map(|range| weights.part(&range));
        let null = Shared(std::ptr::null_mut());
        let keep = |kept: Option<&mut tape::Normed<Lent<T>>>| match kept {
            None => (null, null),
            Some(kept) => (Shared(kept.hat.as_mut_ptr()), Shared(kept.inverse.as_mut_ptr())),
        };
        let (ih, hh, c) = match tape.and_then(|tape| tape.norms.as_mut()) {
            None => (keep(None), keep(None), keep(None)),
            Some(kept) => {
                (keep(Some(&mut kept.ih)), keep(Some(&mut kept.hh)), keep(kept.c.as_mut()))
            }
        };
        let norm = |gamma, beta, (hat, inverse)| Norm { gamma, beta, hat, inverse };
        Some(Self {
            ih: norm(weights.part(&ranges.ih), bias(&shape.bias_ih), ih),
            hh: norm(weights.part(&ranges.hh), bias(&shape.bias_hh), hh),
            c: ranges
                .c
                .as_ref()
                .map(|[gamma, beta]| norm(weights.part(gamma), Some(weights.part(beta)), c)),
        })
    }
}

impl<T: Element> Norm<'_, T> {
    /// Normalises the row of an item.
    ///
    /// # Safety
    /// Nobody else uses what is kept of the item.
    pub(crate) unsafe fn apply(&self, item: usize, row: &mut [T]) {
        let inverse = layer_norm::normalise(row);
        if !self.hat.0.is_null() {
            // SAFETY: by the caller; the tape has room for every item.
            unsafe {
                numbers_mut(self.hat.at(item * row.len()), row.len()).copy_from_slice(row);
                *self.inverse.at(item) = inverse;
            }
        }
        layer_norm::scale_and_shift(row, self.gamma, self.beta);
    }
}

/// Where h of a row is made of the c that it shows: runs of H.
#[derive(Clone, Copy)]
pub(crate) struct Shown<T> {
    /// What the cell saved.
    pub(crate) saved: *const T,
    /// The c that is shown; on the way back its gradient is written here.
    pub(crate) c: *mut T,
    /// h, or on the way back its gradient.
    pub(crate) h: *mut T,
    /// On the way back: what this adds to the gradients of the gates, G runs.
    pub(crate) d_gates: *mut T,
}

/// h from what was saved and c.
pub(crate) struct Show<'a, T, C> {
    pub(crate) rows: &'a [Shown<T>],
    pub(crate) hidden: usize,
    pub(crate) cell: C,
}

/// The way back of [`Show`].
pub(crate) struct ShowBack<'a, T, C> {
    pub(crate) rows: &'a [Shown<T>],
    pub(crate) hidden: usize,
    pub(crate) cell: C,
}

impl<T: Element, C: Cell> Show<'_, T, C> {
    /// # Safety
    /// Every row's memory is there, nobody else uses it, and what is written overlaps nothing else.
    pub(crate) unsafe fn run(self, level: Level) {
        level.dispatch(self);
    }
}

impl<T: Element, C: Cell> ShowBack<'_, T, C> {
    /// # Safety
    /// As [`Show::run`].
    pub(crate) unsafe fn run(self, level: Level) {
        level.dispatch(self);
    }
}

/// A state of c alone.
#[inline(always)]
fn of_c<V: Simd, C: Cell>(c: V) -> C::State<V> {
    let mut state = [V::zero(); MAX_BUNDLE];
    state[1] = c;
    C::State::from_array(state)
}

impl<T: Element, C: Cell> Kernel<T> for Show<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let Self { rows, hidden, cell } = self;
        for row in rows {
            for u in (0..hidden).step_by(V::WIDTH) {
                let at = At { u, n: (hidden - u).min(V::WIDTH) };
                // SAFETY: `Show::run` passes on what its caller vouches for.
                unsafe {
                    let saved = at.load_bundle(row.saved, hidden);
                    let c = at.load::<V>(row.c);
                    at.store(cell.unprojected(saved, of_c::<V, C>(c)), row.h);
                }
            }
        }
    }
}

impl<T: Element, C: Cell> Kernel<T> for ShowBack<'_, T, C> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let Self { rows, hidden, cell } = self;
        for row in rows {
            for u in (0..hidden).step_by(V::WIDTH) {
                let at = At { u, n: (hidden - u).min(V::WIDTH) };
                // SAFETY: `ShowBack::run` passes on what its caller vouches for.
                unsafe {
                    let saved = at.load_bundle(row.saved, hidden);
                    let state = of_c::<V, C>(at.load(row.c));
                    let (gates, d_c) = cell.unprojected_back(saved, state, at.load(row.h));
                    at.store_bundle(gates, row.d_gates, hidden);
                    at.store(d_c, row.c);
                }
            }
        }
    }
}
