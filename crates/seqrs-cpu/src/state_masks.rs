//! What is done to states besides the cell: recurrent dropout and zoneout.
//!
//! ```text
//! recurrent dropout    the recurrent products read m*h'             (m: of a row, at all its steps)
//! zoneout              h = k*h' + (1 - k)*h,  c likewise            (k: of an item, or one number)
//! ```
//! Backward, D the gradient of what zoneout gives:
//! ```text
//! d_h = (1 - k)*D      d_h' += k*D      d_h' += m*(d_gates W_hh)
//! ```
//! These are passes over rows before and after a step, by one worker: layers that have them are not
//! shared by units.

use std::ops::Deref;

use seqrs_core::backend::StateMasks;
use seqrs_core::spec::Shape;

use crate::lanes::Element;

/// What is done to the states of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masks<'a, T> {
    /// (B, state size), m.
    pub(crate) recurrent: Option<&'a [T]>,
    /// Zoneout of h.
    pub(crate) h: Kept<'a, T>,
    /// Zoneout of c.
    pub(crate) c: Kept<'a, T>,
}

/// The share of a state that stays as it was.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept<'a, T> {
    /// Nothing: there is no zoneout.
    Nothing,
    /// The same of every number.
    Share(T),
    /// All or nothing of each number, as it was drawn: (items, size).
    Drawn(&'a [T]),
}

impl<'a, T: Element> Masks<'a, T> {
    pub(crate) fn new<S: Deref<Target = [T]>>(
        shape: &Shape,
        drawn: Option<&'a StateMasks<S>>,
    ) -> Self {
        let kept = |share: f64, drawn: Option<&'a [T]>| match drawn {
            _ if share == 0.0 => Kept::Nothing,
            Some(drawn) => Kept::Drawn(drawn),
            None => Kept::Share(T::number(share)),
        };
        Self {
            recurrent: drawn.and_then(|drawn| drawn.recurrent.as_deref()),
            h: kept(shape.zoneout_h, drawn.and_then(|drawn| drawn.kept_h.as_deref())),
            c: kept(shape.zoneout_c, drawn.and_then(|drawn| drawn.kept_c.as_deref())),
        }
    }

    /// Whether nothing is done.
    pub(crate) fn are_none(&self) -> bool {
        self.recurrent.is_none() && !self.h.is_something() && !self.c.is_something()
    }
}

impl<T> Kept<'_, T> {
    /// Whether there is zoneout.
    pub(crate) fn is_something(&self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

impl<T: Element> Kept<'_, T> {
    /// Of number `j` of an item's `size`.
    #[inline(always)]
    fn of(&self, item: usize, size: usize, j: usize) -> T {
        match self {
            Self::Nothing => num_traits::zero(),
            Self::Share(share) => *share,
            Self::Drawn(drawn) => drawn[item * size + j],
        }
    }

    /// `new` becomes what is kept of `old` and the rest of itself.
    pub(crate) fn mix(&self, item: usize, old: &[T], new: &mut [T]) {
        let size = new.len();
        for (j, (new, &old)) in new.iter_mut().zip(old).enumerate() {
            let kept = self.of(item, size, j);
            *new = kept * old + (num_traits::one::<T>() - kept) * *new;
        }
    }

    /// `d` becomes the part of itself that goes into the step, `kept` what goes past it.
    pub(crate) fn split(&self, item: usize, d: &mut [T], kept: &mut [T]) {
        let size = d.len();
        for (j, (d, past)) in d.iter_mut().zip(kept).enumerate() {
            let kept = self.of(item, size, j);
            *past = kept * *d;
            *d = (num_traits::one::<T>() - kept) * *d;
        }
    }
}

/// to = a*b.
pub(crate) fn multiply<T: Element>(a: &[T], b: &[T], to: &mut [T]) {
    for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) {
        *to = a * b;
    }
}

/// to *= by.
pub(crate) fn scale<T: Element>(to: &mut [T], by: &[T]) {
    for (to, &by) in to.iter_mut().zip(by) {
        *to = *to * by;
    }
}

/// to += a.
pub(crate) fn add<T: Element>(to: &mut [T], a: &[T]) {
    for (to, &a) in to.iter_mut().zip(a) {
        *to = *to + a;
    }
}
