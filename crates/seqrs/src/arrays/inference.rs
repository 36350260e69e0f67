//! Inference: sequences, and one step at a time.

use ndarray::{Array2, ArrayD, ArrayView2, IxDyn};
use seqrs_core::rows::{Place, Rows};
use seqrs_core::{Error, Steps};
use seqrs_cpu::Cpu;

use super::states::{self, States};
use super::{Batch, Layout, in_order, shaped};
use crate::layer::Layer;
use crate::number::Number;
use crate::sequential::{Input, Rank, Sequential};

impl<T: Number> Sequential<T> {
    /// Inference: the output, (B, T, F) or (T, B, F) as the input, zero at steps that are
    /// not live, or (B, F) after a pooling layer; and the final states. Keeps nothing and
    /// drops nothing.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] and [`Error::State`] name the input, id, length,
    /// mask or state that does not fit; [`Error::OutOfMemory`], [`Error::Interrupted`].
    pub fn infer<'a>(
        &self,
        batch: impl Into<Batch<'a, T>>,
    ) -> Result<(ArrayD<T>, States<T>), Error> {
        let mut batch = batch.into().read(self)?;
        let mut state = std::mem::take(&mut batch.state);
        let output = self.infer_on(&Cpu::new()?, batch.input(), &batch.steps, &mut state)?;
        let (rank, width) = (output.rank, output.width);
        let y = to_array(output.numbers, rank, width, &batch.steps, batch.layout)?;
        Ok((y, states::to_arrays(self, state, batch.layout.batch)))
    }

    /// One step of numbers, (B, I), to the output (B, F); `state` moves on by one step. The
    /// bits are those of the whole sequence.
    ///
    /// # Errors
    /// [`Error::State`] if a layer needs the whole sequence; else as [`Sequential::infer`].
    /// `state` is then as it was.
    pub fn step(&self, x: ArrayView2<'_, T>, state: &mut States<T>) -> Result<Array2<T>, Error> {
        let (batch, width) = x.dim();
        let data = &in_order("x", &x)?[..];
        let place = Place::packed(width);
        self.step_rows(Input::Numbers(Rows { data, place }, width), batch, state)
    }

    /// One step of ids, one a row, to the output (B, F); `state` moves on by one step.
    ///
    /// # Errors
    /// As [`Sequential::step`].
    pub fn step_ids(&self, ids: &[i64], state: &mut States<T>) -> Result<Array2<T>, Error> {
        let rows = Rows { data: ids, place: Place::packed(1) };
        self.step_rows(Input::Ids(rows), ids.len(), state)
    }

    fn step_rows(
        &self,
        x: Input<'_, T>,
        batch: usize,
        state: &mut States<T>,
    ) -> Result<Array2<T>, Error> {
        self.check_stepwise()?;
        let steps = Steps::dense(1, batch)?;
        let mut flat = states::to_flat("state", self, state, batch)?;
        let output = self.infer_on(&Cpu::new()?, x, &steps, &mut flat)?;
        *state = states::to_arrays(self, flat, batch);
        Ok(shaped((batch, output.width), output.numbers))
    }
}

impl<T: Number> Layer<T> {
    /// Inference of this layer alone, as [`Sequential::infer`].
    ///
    /// # Errors
    /// As [`Sequential::infer`].
    pub fn infer<'a>(
        &self,
        batch: impl Into<Batch<'a, T>>,
    ) -> Result<(ArrayD<T>, States<T>), Error> {
        self.alone().infer(batch)
    }

    /// One step of this layer alone, as [`Sequential::step`].
    ///
    /// # Errors
    /// As [`Sequential::step`].
    pub fn step(&self, x: ArrayView2<'_, T>, state: &mut States<T>) -> Result<Array2<T>, Error> {
        self.alone().step(x, state)
    }
}

/// Packed outputs as the array that belongs to them.
pub(super) fn to_array<T: Number>(
    packed: Vec<T>,
    rank: Rank,
    width: usize,
    steps: &Steps,
    layout: Layout,
) -> Result<ArrayD<T>, Error> {
    let (shape, numbers) = match rank {
        Rank::Rows => (vec![layout.batch, width], packed),
        Rank::Steps => {
            let (first, second) = layout.dims();
            (vec![first, second, width], layout.spread(packed, steps, width)?)
        }
    };
    Ok(shaped(IxDyn(&shape), numbers))
}
