//! Models on `ndarray` arrays: what a Rust program uses.
//!
//! | Python | here |
//! |---|---|
//! | `model(x, state, lengths, mask)` | [`Sequential::infer`], of a [`Batch`] |
//! | `model.step(x_t, state)` | [`Sequential::step`], [`Sequential::step_ids`] |
//! | `model.step(x_t, state, out=(y, state))` | [`Sequential::step_into`], [`Sequential::step_ids_into`] |
//! | `StreamPool(model, capacity)` | [`StreamPool::new`](crate::StreamPool::new) |
//! | `model.forward(...)`, `model.backward(...)` | [`Sequential::forward`], [`Sequential::backward`] |
//! | `Trainer(model, loss, optimizer, ...)` | [`Trainer::new`](crate::Trainer::new), options, `build()?` |
//! | `seqrs.diagnose(model, x, y, loss)` | [`diagnose`], of a [`Batch`] and [`Targets`] |
//! | `trainer.step(x, y, ...)` | [`Trainer::step`](crate::Trainer::step), of a [`Batch`] and [`Targets`] |
//!
//! A [`Layer`] alone has the same methods as a [`Sequential`]. Each is a thin coat over a
//! function of [`low_level`](crate::low_level) whose name ends in `_on`, and gives its bits.

pub mod batch;
pub mod diagnosis;
pub mod gradients;
pub mod inference;
pub mod quantised;
pub mod states;
pub mod targets;
pub mod training;

pub use batch::Batch;
pub use diagnosis::{Diagnosis, diagnose};
pub use gradients::{Gradients, Recorded};
pub use states::States;
pub use targets::Targets;
pub use training::TrainerBuilder;

use std::borrow::Cow;

use ndarray::{Array, ArrayView, ArrayViewD, Dimension, IntoDimension};
use seqrs_core::{Error, Steps, memory};

use crate::Sequential;
use crate::layer::Layer;
use crate::low_level::Place;
use crate::number::Number;

/// The first two dimensions of an array of sequences.
#[derive(Clone, Copy, Debug)]
struct Layout {
    batch_first: bool,
    time: usize,
    batch: usize,
}

impl Layout {
    /// (B, T) or (T, B).
    fn dims(self) -> (usize, usize) {
        match self.batch_first {
            true => (self.batch, self.time),
            false => (self.time, self.batch),
        }
    }

    /// Where each step's row of `width` numbers begins.
    fn place(self, width: usize) -> Place {
        match self.batch_first {
            true => Place::batch_first(self.time, width),
            false => Place::time_first(self.batch, width),
        }
    }

    /// Packed rows at their places in an array of zeros.
    fn spread<T: Number>(
        self,
        packed: Vec<T>,
        steps: &Steps,
        width: usize,
    ) -> Result<Vec<T>, Error> {
        if steps.is_dense() && !self.batch_first {
            return Ok(packed);
        }
        let bytes = [self.time, self.batch, width, T::BYTES];
        let bytes = bytes.iter().map(|&n| n as u128).try_fold(1, u128::checked_mul);
        let len = bytes.and_then(|bytes| usize::try_from(bytes / T::BYTES as u128).ok());
        let none =
            || Error::OutOfMemory { what: "output".to_owned(), bytes: bytes.unwrap_or(u128::MAX) };
        let mut padded = memory::zeros("output", len.ok_or_else(none)?)?;
        let place = self.place(width);
        steps.for_each(|item, t, b| {
            let row = &packed[item * width..][..width];
            padded[place.offset(item, t, b)..][..width].copy_from_slice(row);
        });
        Ok(padded)
    }
}

/// The elements in the order of the indices, copied only if they lie otherwise.
pub(crate) fn in_order<'a, A: Copy, D: Dimension>(
    what: &str,
    view: &ArrayView<'a, A, D>,
) -> Result<Cow<'a, [A]>, Error> {
    match view.to_slice() {
        Some(slice) => Ok(Cow::Borrowed(slice)),
        None => copied(what, view).map(Cow::Owned),
    }
}

/// A copy of the elements, in the order of the indices.
fn copied<A: Copy, D: Dimension>(what: &str, view: &ArrayView<'_, A, D>) -> Result<Vec<A>, Error> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(view.len()).map_err(|_| Error::OutOfMemory {
        what: what.to_owned(),
        bytes: view.len() as u128 * size_of::<A>() as u128,
    })?;
    copy.extend(view);
    Ok(copy)
}

/// As many numbers as the shape has places, as an array.
pub(crate) fn shaped<A, S: IntoDimension>(shape: S, numbers: Vec<A>) -> Array<A, S::Dim> {
    Array::from_shape_vec(shape.into_dimension(), numbers).expect("one number for each place")
}

/// A shape as messages have it.
fn words(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

pub(crate) fn check_shape(what: &str, got: &[usize], expected: &[usize]) -> Result<(), Error> {
    match got == expected {
        true => Ok(()),
        false => Err(Error::shape(what, format!("the shape {}", words(expected)), words(got))),
    }
}

/// Names the first id at a live step that is not below `end` by its place in the array. The
/// level below finds it too, but knows neither the order of the dimensions nor, in a chunk of
/// truncated back-propagation, where the chunk begins.
fn check_ids(
    what: &str,
    ids: &ArrayViewD<'_, i64>,
    steps: &Steps,
    layout: Layout,
    end: usize,
    range: fn(usize) -> String,
) -> Result<(), Error> {
    let mut wrong = None;
    steps.for_each(|_, t, b| {
        let place = if layout.batch_first { [b, t] } else { [t, b] };
        let id = ids[&place[..]];
        if wrong.is_none() && !usize::try_from(id).is_ok_and(|id| id < end) {
            wrong = Some((place, id));
        }
    });
    match wrong {
        None => Ok(()),
        Some(([i, j], id)) => Err(Error::shape(format!("{what}[{i}, {j}]"), range(end), id)),
    }
}

impl<T: Number> Layer<T> {
    /// As a model of one layer, which shares its parameters.
    fn alone(&self) -> Sequential<T> {
        Sequential::from(self.clone())
    }
}
