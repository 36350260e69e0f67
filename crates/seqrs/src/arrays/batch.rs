//! What a model reads.

use std::borrow::Cow;

use ndarray::{Array2, Array3, ArrayView2, ArrayView3};
use seqrs_core::rows::Rows;
use seqrs_core::{Error, Steps};

use super::states::{self, States};
use super::{Layout, check_ids, check_shape, in_order};
use crate::layer::Layer;
use crate::number::Number;
use crate::sequential::{Input, ModelState, Sequential};

/// What a model reads: numbers (B, T, I) or ids (B, T), or with the first two dimensions
/// exchanged where the model is not batch-first; which steps are live, all unless said
/// otherwise; and the states to begin with, zeros unless given.
///
/// A view or a reference to an array is a batch too, wherever one is asked for. What does
/// not fit the model is refused by the call that gets the batch.
///
/// ```
/// use ndarray::array;
/// use seqrs::{Batch, Embedding, Gru, Sequential};
///
/// let model = Sequential::<f64>::new(vec![
///     Embedding::new(5, 2).build()?,
///     Gru::new(2, 3).build()?,
/// ])?;
/// let ids = array![[1, 2, 3], [4, 0, 0]];
/// let (y, state) = model.infer(Batch::from(&ids).lengths(&[3, 1]))?;
/// assert_eq!(y.shape(), [2, 3, 3]);
/// assert_eq!(y[[1, 1, 0]], 0.0);
/// let (_next, _state) = model.infer(Batch::from(&ids).state(state))?;
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batch<'a, T> {
    x: X<'a, T>,
    lengths: Option<&'a [usize]>,
    mask: Option<ArrayView2<'a, bool>>,
    state: Option<States<T>>,
}

#[derive(Clone, Debug)]
enum X<'a, T> {
    Numbers(ArrayView3<'a, T>),
    Ids(ArrayView2<'a, i64>),
}

impl<'a, T: Number> From<ArrayView3<'a, T>> for Batch<'a, T> {
    fn from(x: ArrayView3<'a, T>) -> Self {
        Self { x: X::Numbers(x), lengths: None, mask: None, state: None }
    }
}

impl<'a, T: Number> From<ArrayView2<'a, i64>> for Batch<'a, T> {
    fn from(ids: ArrayView2<'a, i64>) -> Self {
        Self { x: X::Ids(ids), lengths: None, mask: None, state: None }
    }
}

impl<'a, T: Number> From<&'a Array3<T>> for Batch<'a, T> {
    fn from(x: &'a Array3<T>) -> Self {
        x.view().into()
    }
}

impl<'a, T: Number> From<&'a Array2<i64>> for Batch<'a, T> {
    fn from(ids: &'a Array2<i64>) -> Self {
        ids.view().into()
    }
}

impl<'a, T: Number> Batch<'a, T> {
    /// Row b is live at its first `lengths[b]` steps only. At most one of lengths and mask
    /// may be given.
    #[must_use]
    pub fn lengths(mut self, lengths: &'a [usize]) -> Self {
        self.lengths = Some(lengths);
        self
    }

    /// A row is live where the mask, (B, T) or (T, B) as the input, is true. At most one of
    /// lengths and mask may be given.
    #[must_use]
    pub fn mask(mut self, mask: ArrayView2<'a, bool>) -> Self {
        self.mask = Some(mask);
        self
    }

    /// The states to begin with; zeros without any.
    #[must_use]
    pub fn state(mut self, state: States<T>) -> Self {
        self.state = Some(state);
        self
    }

    /// The batch as `model` reads it, checked but for the input's last dimension.
    pub(super) fn read(self, model: &Sequential<T>) -> Result<Read<'a, T>, Error> {
        let (first, second) = match &self.x {
            X::Numbers(x) => (x.dim().0, x.dim().1),
            X::Ids(ids) => ids.dim(),
        };
        let layout = match model.batch_first() {
            true => Layout { batch_first: true, batch: first, time: second },
            false => Layout { batch_first: false, time: first, batch: second },
        };
        let steps = self.steps(layout)?;
        let state = match &self.state {
            Some(given) => states::to_flat("state", model, given, layout.batch)?,
            None => model.zero_state(layout.batch)?,
        };
        if let (X::Ids(ids), Some(Layer::Embedding(table))) = (&self.x, model.layers().first()) {
            let (ids, end) = (ids.view().into_dyn(), table.options.num_embeddings);
            check_ids("x", &ids, &steps, layout, end, |end| format!("an id in 0..{end}"))?;
        }
        let x = match &self.x {
            X::Numbers(x) => Data::Numbers(in_order("x", x)?, x.dim().2),
            X::Ids(ids) => Data::Ids(in_order("x", ids)?),
        };
        Ok(Read { x, layout, steps, state })
    }

    fn steps(&self, layout: Layout) -> Result<Steps, Error> {
        let Layout { batch_first, time, batch } = layout;
        match (self.lengths, self.mask) {
            (None, None) => Steps::dense(time, batch),
            (Some(_), Some(_)) => {
                Err(Error::shape("lengths and mask", "at most one of them", "both"))
            }
            (Some(lengths), None) if lengths.len() != batch => {
                Err(Error::shape("lengths", format!("{batch} (one a row)"), lengths.len()))
            }
            (Some(lengths), None) => Steps::from_lengths(time, lengths),
            (None, Some(mask)) => {
                let (first, second) = layout.dims();
                check_shape("mask", mask.shape(), &[first, second])?;
                Steps::from_mask(time, batch, |t, b| match batch_first {
                    true => mask[[b, t]],
                    false => mask[[t, b]],
                })
            }
        }
    }
}

/// A batch in the form of the level below.
pub(super) struct Read<'a, T: Clone> {
    x: Data<'a, T>,
    pub(super) layout: Layout,
    pub(super) steps: Steps,
    pub(super) state: ModelState<T>,
}

enum Data<'a, T: Clone> {
    /// Rows of so many numbers.
    Numbers(Cow<'a, [T]>, usize),
    Ids(Cow<'a, [i64]>),
}

impl<T: Number> Read<'_, T> {
    pub(super) fn input(&self) -> Input<'_, T> {
        match &self.x {
            Data::Numbers(data, width) => {
                Input::Numbers(Rows { data, place: self.layout.place(*width) }, *width)
            }
            Data::Ids(data) => Input::Ids(Rows { data, place: self.layout.place(1) }),
        }
    }

    /// Numbers in a row of the input; none for ids.
    pub(super) fn width(&self) -> Option<usize> {
        match self.x {
            Data::Numbers(_, width) => Some(width),
            Data::Ids(_) => None,
        }
    }
}
