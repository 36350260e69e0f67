//! Models on `ndarray` arrays.

use std::borrow::Cow;

use ndarray::{Array2, ArrayD, ArrayView, ArrayView2, ArrayView3, Dimension, IxDyn};
use seqrs_core::{Error, Steps, memory};
use seqrs_cpu::Cpu;

use crate::layer::Layer;
use crate::number::Number;
use crate::sequential::{Input, ModelState, Output, Rank, Sequential};
use crate::{Place, Rows};

/// What [`Sequential::forward`] reads: numbers (B, T, I) or ids (B, T), or with the first
/// two dimensions exchanged where the model is not batch-first; which steps are live; and
/// the initial states.
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
/// let (y, state) = model.forward(Batch::from(ids.view()).lengths(&[3, 1]))?;
/// assert_eq!(y.shape(), [2, 3, 3]);
/// assert_eq!(y[[1, 1, 0]], 0.0);
/// let (_next, _state) = model.forward(Batch::from(ids.view()).state(state))?;
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batch<'a, T: Clone> {
    x: Data<'a, T>,
    /// The first two dimensions.
    dims: (usize, usize),
    live: Live<'a>,
    state: Option<ModelState<T>>,
}

#[derive(Clone, Debug)]
enum Data<'a, T: Clone> {
    /// Rows of so many numbers.
    Numbers(Cow<'a, [T]>, usize),
    Ids(Cow<'a, [i64]>),
}

#[derive(Clone, Debug)]
enum Live<'a> {
    All,
    Lengths(&'a [usize]),
    Mask(ArrayView2<'a, bool>),
}

/// The elements in the order of the indices, copied only if they lie otherwise.
fn in_order<'a, A: Clone, D: Dimension>(view: ArrayView<'a, A, D>) -> Cow<'a, [A]> {
    match view.to_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().cloned().collect()),
    }
}

impl<'a, T: Number> From<ArrayView3<'a, T>> for Batch<'a, T> {
    fn from(x: ArrayView3<'a, T>) -> Self {
        let (first, second, width) = x.dim();
        let x = Data::Numbers(in_order(x), width);
        Self { x, dims: (first, second), live: Live::All, state: None }
    }
}

impl<'a, T: Number> From<ArrayView2<'a, i64>> for Batch<'a, T> {
    fn from(ids: ArrayView2<'a, i64>) -> Self {
        let dims = ids.dim();
        Self { x: Data::Ids(in_order(ids)), dims, live: Live::All, state: None }
    }
}

impl<'a, T: Number> Batch<'a, T> {
    /// Row b is live at its first `lengths[b]` steps only.
    #[must_use]
    pub fn lengths(mut self, lengths: &'a [usize]) -> Self {
        self.live = Live::Lengths(lengths);
        self
    }

    /// A row is live where the mask, (B, T) or (T, B) as the input, is true.
    #[must_use]
    pub fn mask(mut self, mask: ArrayView2<'a, bool>) -> Self {
        self.live = Live::Mask(mask);
        self
    }

    /// The states to begin with; zeros without any.
    #[must_use]
    pub fn state(mut self, state: ModelState<T>) -> Self {
        self.state = Some(state);
        self
    }

    /// The live steps of an array whose first dimension is the batch or, if not
    /// `batch_first`, time.
    ///
    /// # Errors
    /// [`Error::Shape`] if lengths or mask do not fit the input.
    pub fn steps(&self, batch_first: bool) -> Result<Steps, Error> {
        let (batch, time) = match batch_first {
            true => self.dims,
            false => (self.dims.1, self.dims.0),
        };
        match &self.live {
            Live::All => Steps::dense(time, batch),
            Live::Lengths(lengths) if lengths.len() != batch => {
                Err(Error::shape("lengths", format!("{batch} (one a row)"), lengths.len()))
            }
            Live::Lengths(lengths) => Steps::from_lengths(time, lengths),
            Live::Mask(mask) if mask.dim() != self.dims => {
                let expected = format!("the shape {:?}", self.dims);
                Err(Error::shape("mask", expected, format!("{:?}", mask.dim())))
            }
            Live::Mask(mask) => Steps::from_mask(time, batch, |t, b| match batch_first {
                true => mask[[b, t]],
                false => mask[[t, b]],
            }),
        }
    }

    /// The input as a model reads it.
    pub fn input(&self, batch_first: bool) -> Input<'_, T> {
        let place = |width: usize| match batch_first {
            true => Place::batch_first(self.dims.1, width),
            false => Place::time_first(self.dims.1, width),
        };
        match &self.x {
            Data::Numbers(data, width) => {
                Input::Numbers(Rows { data, place: place(*width) }, *width)
            }
            Data::Ids(data) => Input::Ids(Rows { data, place: place(1) }),
        }
    }
}

impl<T: Number> Output<T> {
    /// The output as an array: (B, T, F), or (T, B, F) if not `batch_first`, zero at steps
    /// that are not live; (B, F) where there is one row a sequence.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn into_array(self, steps: &Steps, batch_first: bool) -> Result<ArrayD<T>, Error> {
        let (time, batch, width) = (steps.time(), steps.batch(), self.width);
        let (shape, numbers) = match (self.rank, batch_first) {
            (Rank::Rows, _) => (vec![batch, width], self.numbers),
            (Rank::Steps, true) => {
                (vec![batch, time, width], spread(&self.numbers, steps, width, true)?)
            }
            (Rank::Steps, false) if steps.is_dense() => (vec![time, batch, width], self.numbers),
            (Rank::Steps, false) => {
                (vec![time, batch, width], spread(&self.numbers, steps, width, false)?)
            }
        };
        let array = ArrayD::from_shape_vec(IxDyn(&shape), numbers);
        Ok(array.expect("one number for each place"))
    }
}

/// Packed rows at their places in an array of zeros.
fn spread<T: Number>(
    packed: &[T],
    steps: &Steps,
    width: usize,
    batch_first: bool,
) -> Result<Vec<T>, Error> {
    let mut padded = memory::zeros("output", steps.time() * steps.batch() * width)?;
    let place = match batch_first {
        true => Place::batch_first(steps.time(), width),
        false => Place::time_first(steps.batch(), width),
    };
    steps.for_each(|item, t, b| {
        let row = &packed[item * width..][..width];
        padded[place.offset(item, t, b)..][..width].copy_from_slice(row);
    });
    Ok(padded)
}

impl<T: Number> Sequential<T> {
    /// Inference on arrays: the output, (B, T, F) or (T, B, F) as the input, zero at steps
    /// that are not live, or (B, F) after a pooling layer; and the final states.
    ///
    /// # Errors
    /// As [`Sequential::infer`]; [`Error::Shape`] if lengths or mask do not fit the input.
    pub fn forward<'a>(
        &self,
        batch: impl Into<Batch<'a, T>>,
    ) -> Result<(ArrayD<T>, ModelState<T>), Error> {
        let batch = batch.into();
        let batch_first = self.batch_first();
        let steps = batch.steps(batch_first)?;
        let mut state = match &batch.state {
            Some(state) => state.clone(),
            None => self.initial_state(steps.batch())?,
        };
        let output = self.infer(&Cpu::new()?, batch.input(batch_first), &steps, &mut state)?;
        Ok((output.into_array(&steps, batch_first)?, state))
    }

    /// One step of numbers, (B, I), to the output (B, F); `state` moves on by one step.
    ///
    /// # Errors
    /// [`Error::State`] if a layer needs the whole sequence; else as [`Sequential::infer`].
    pub fn step(
        &self,
        x: ArrayView2<'_, T>,
        state: &mut ModelState<T>,
    ) -> Result<Array2<T>, Error> {
        let (batch, width) = x.dim();
        let data = &in_order(x)[..];
        let place = Place::packed(width);
        self.step_on(Input::Numbers(Rows { data, place }, width), batch, state)
    }

    /// One step of ids, one a row, to the output (B, F); `state` moves on by one step.
    ///
    /// # Errors
    /// As [`Sequential::step`].
    pub fn step_ids(&self, ids: &[i64], state: &mut ModelState<T>) -> Result<Array2<T>, Error> {
        let rows = Rows { data: ids, place: Place::packed(1) };
        self.step_on(Input::Ids(rows), ids.len(), state)
    }

    fn step_on(
        &self,
        x: Input<'_, T>,
        batch: usize,
        state: &mut ModelState<T>,
    ) -> Result<Array2<T>, Error> {
        self.check_stepwise()?;
        let steps = Steps::dense(1, batch)?;
        let output = self.infer(&Cpu::new()?, x, &steps, state)?;
        let array = Array2::from_shape_vec((batch, output.width), output.numbers);
        Ok(array.expect("one row for each of the batch"))
    }
}

impl<T: Number> Layer<T> {
    /// Inference of this layer alone, as [`Sequential::forward`].
    ///
    /// # Errors
    /// As [`Sequential::forward`].
    pub fn forward<'a>(
        &self,
        batch: impl Into<Batch<'a, T>>,
    ) -> Result<(ArrayD<T>, ModelState<T>), Error> {
        Sequential::new(vec![self.clone()])?.forward(batch)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Axis, array};

    use super::*;
    use crate::layers::embedding::Embedding;
    use crate::layers::recurrent::Gru;

    fn numbers() -> Array3<f64> {
        Array3::from_shape_fn((3, 4, 2), |(b, t, k)| ((b * 8 + t * 2 + k) as f64).sin())
    }

    fn gru(batch_first: bool) -> Sequential<f64> {
        let layer = Gru::new(2, 3).batch_first(batch_first).build().unwrap();
        Sequential::new(vec![layer]).unwrap()
    }

    #[test]
    fn time_first_is_the_same_with_dimensions_exchanged() {
        let x = numbers();
        let lengths = [4, 0, 2];
        let (y, state) = gru(true).forward(Batch::from(x.view()).lengths(&lengths)).unwrap();
        // This view does not lie in the order of its indices.
        let exchanged = x.view().permuted_axes([1, 0, 2]);
        let (y_t, state_t) = gru(false).forward(Batch::from(exchanged).lengths(&lengths)).unwrap();
        assert_eq!(y.shape(), [3, 4, 3]);
        assert_eq!(y, y_t.permuted_axes(IxDyn(&[1, 0, 2])));
        assert_eq!(state, state_t);
        assert!(y.index_axis(Axis(0), 1).iter().all(|y| y.to_bits() == 0));
    }

    #[test]
    fn lengths_and_their_mask_are_the_same() {
        let x = numbers();
        let mask = array![
            [true, true, true, true],
            [false, false, false, false],
            [true, true, false, false]
        ];
        let by_mask = gru(true).forward(Batch::from(x.view()).mask(mask.view())).unwrap();
        assert_eq!(by_mask, gru(true).forward(Batch::from(x.view()).lengths(&[4, 0, 2])).unwrap());
    }

    #[test]
    fn lengths_and_masks_of_other_shapes_are_refused() {
        let x = numbers();
        let refused = |batch: Batch<f64>| gru(true).forward(batch).unwrap_err().to_string();
        assert_eq!(
            refused(Batch::from(x.view()).lengths(&[4, 4])),
            "lengths: expected 3 (one a row), got 2"
        );
        let mask = array![[true, false]];
        assert_eq!(
            refused(Batch::from(x.view()).mask(mask.view())),
            "mask: expected the shape (3, 4), got (1, 2)"
        );
        assert!(refused(Batch::from(x.view()).lengths(&[4, 4, 5])).starts_with("lengths[2]"));
    }

    #[test]
    fn steps_make_the_sequence() {
        let (x, model) = (numbers(), gru(true));
        let (y, expected) = model.forward(x.view()).unwrap();
        let mut state = model.initial_state(3).unwrap();
        for t in 0..4 {
            let y_t = model.step(x.index_axis(Axis(1), t), &mut state).unwrap();
            assert_eq!(y_t.into_dyn(), y.index_axis(Axis(1), t));
        }
        assert_eq!(state, expected);

        let embedding = Embedding::new(5, 2).build().unwrap();
        let model = Sequential::new(vec![embedding, model.layers()[0].clone()]).unwrap();
        let ids = array![[1_i64], [4]];
        let (y, expected) = model.forward(ids.view()).unwrap();
        let mut state = model.initial_state(2).unwrap();
        let y_t = model.step_ids(&[1, 4], &mut state).unwrap();
        assert_eq!(y_t.into_dyn(), y.index_axis(Axis(1), 0));
        assert_eq!(state, expected);
        let (alone, _) = model.layers()[1].forward(numbers().view()).unwrap();
        assert_eq!(alone.shape(), [3, 4, 3]);
    }
}
