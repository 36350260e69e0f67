//! What a model should have given.

use std::borrow::Cow;

use ndarray::{Array, ArrayView, ArrayViewD, Dimension};
use seqrs_core::Error;
use seqrs_core::rows::{Place, Rows};

use super::batch::Read;
use super::{check_ids, check_shape, in_order};
use crate::losses::Loss;
use crate::number::Number;
use crate::sequential::{Rank, Sequential};
use crate::targets::{Target, class_range};

/// What a model should have given: for [`CrossEntropy`](crate::CrossEntropy) a class for
/// every output, (B, T), or (B,) after a pooling layer; for every other loss numbers,
/// (B, T, F) or (B, F), as the output, where the last dimension may be missing if F is 1. T
/// comes first where the model is not batch-first. Only what belongs to live steps, or to rows that have some, is looked at.
///
/// A view or a reference to an array, of `i64` for classes, is a `Targets` wherever one is
/// asked for.
#[derive(Clone, Debug)]
pub struct Targets<'a, T> {
    given: Given<'a, T>,
}

#[derive(Clone, Debug)]
enum Given<'a, T> {
    Classes(ArrayViewD<'a, i64>),
    Numbers(ArrayViewD<'a, T>),
}

impl<'a, T: Number, D: Dimension> From<ArrayView<'a, i64, D>> for Targets<'a, T> {
    fn from(classes: ArrayView<'a, i64, D>) -> Self {
        Self { given: Given::Classes(classes.into_dyn()) }
    }
}

impl<'a, T: Number, D: Dimension> From<ArrayView<'a, T, D>> for Targets<'a, T> {
    fn from(numbers: ArrayView<'a, T, D>) -> Self {
        Self { given: Given::Numbers(numbers.into_dyn()) }
    }
}

impl<'a, T: Number, D: Dimension> From<&'a Array<i64, D>> for Targets<'a, T> {
    fn from(classes: &'a Array<i64, D>) -> Self {
        classes.view().into()
    }
}

impl<'a, T: Number, D: Dimension> From<&'a Array<T, D>> for Targets<'a, T> {
    fn from(numbers: &'a Array<T, D>) -> Self {
        numbers.view().into()
    }
}

impl<'a, T: Number> Targets<'a, T> {
    /// The targets in the form of the level below, for this loss of `model` on `batch`.
    pub(super) fn read(
        self,
        loss: &Loss,
        model: &Sequential<T>,
        batch: &Read<'_, T>,
    ) -> Result<ReadTargets<'a, T>, Error> {
        loss.check_kind(matches!(self.given, Given::Classes(_)))?;
        // Ids go to an embedding, whose width is known.
        let width = model.output_width().or(batch.width()).unwrap_or(1);
        let (first, second) = batch.layout.dims();
        let mut shape = match model.output_rank() {
            Rank::Steps => vec![first, second],
            Rank::Rows => vec![batch.layout.batch],
        };
        let place = |width| match model.output_rank() {
            Rank::Steps => batch.layout.place(width),
            Rank::Rows => Place::packed(width),
        };
        Ok(match self.given {
            Given::Classes(classes) => {
                check_shape("target", classes.shape(), &shape)?;
                if model.output_rank() == Rank::Steps {
                    let (steps, layout) = (&batch.steps, batch.layout);
                    check_ids("target", &classes, steps, layout, width, class_range)?;
                }
                ReadTargets::Classes(in_order("target", &classes)?, place(1))
            }
            Given::Numbers(numbers) => {
                if width > 1 || numbers.ndim() > shape.len() {
                    shape.push(width);
                }
                check_shape("target", numbers.shape(), &shape)?;
                ReadTargets::Numbers(in_order("target", &numbers)?, place(width), width)
            }
        })
    }
}

/// Targets whose shape was checked.
pub(super) enum ReadTargets<'a, T: Clone> {
    Classes(Cow<'a, [i64]>, Place),
    /// Rows of so many numbers.
    Numbers(Cow<'a, [T]>, Place, usize),
}

impl<T: Number> ReadTargets<'_, T> {
    pub(super) fn target(&self) -> Target<'_, T> {
        match self {
            Self::Classes(data, place) => Target::Ids(Rows { data, place: *place }),
            Self::Numbers(data, place, width) => {
                Target::Numbers(Rows { data, place: *place }, *width)
            }
        }
    }
}
