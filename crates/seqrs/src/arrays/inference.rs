//! Inference: sequences, and one step at a time.

use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewMut2, IxDyn};
use seqrs_core::memory::{Lent, zeros};
use seqrs_core::{Error, Steps};
use seqrs_cpu::Cpu;

use super::states::{self, States};
use super::{Batch, Layout, check_shape, in_order, shaped};
use crate::layer::Layer;
use crate::number::Number;
use crate::sequential::{Rank, Sequential};
use crate::state_room::StateRoom;
use crate::stepping::{self, StepInput};

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
        step(self.layers(), x, state)
    }

    /// As [`step`](Self::step), into `y` (B, F). When the process has made some steps of the
    /// model, another takes no memory: up to 8 rows and 8 recurrent layers, if one thread does it
    /// and `x` and `y` are in the order of their indices.
    ///
    /// ```
    /// use ndarray::Array2;
    /// use seqrs::{Gru, Linear, Sequential};
    ///
    /// let model = Sequential::<f32>::new(vec![Gru::new(3, 8).build()?, Linear::new(8, 2).build()?])?;
    /// let (x, mut y) = (Array2::zeros((1, 3)), Array2::zeros((1, 2)));
    /// let mut state = model.initial_state(1)?;
    /// for _ in 0..10 {
    ///     model.step_into(x.view(), &mut state, y.view_mut())?;
    /// }
    /// # Ok::<(), seqrs::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`step`](Self::step); what is in `y` may be anything then.
    pub fn step_into(
        &self,
        x: ArrayView2<'_, T>,
        state: &mut States<T>,
        y: ArrayViewMut2<'_, T>,
    ) -> Result<(), Error> {
        step_into(self.layers(), x, state, y)
    }

    /// One step of ids, one a row, to the output (B, F); `state` moves on by one step.
    ///
    /// # Errors
    /// As [`Sequential::step`].
    pub fn step_ids(&self, ids: &[i64], state: &mut States<T>) -> Result<Array2<T>, Error> {
        let mut y = blank(self.layers(), None, ids.len())?;
        self.step_ids_into(ids, state, y.view_mut())?;
        Ok(y)
    }

    /// As [`step_ids`](Self::step_ids), into `y` (B, F); see [`step_into`](Self::step_into).
    ///
    /// # Errors
    /// As [`step_into`](Self::step_into).
    pub fn step_ids_into(
        &self,
        ids: &[i64],
        state: &mut States<T>,
        y: ArrayViewMut2<'_, T>,
    ) -> Result<(), Error> {
        step_rows(self.layers(), StepInput::Ids(ids), None, ids.len(), state, y)
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
        step(std::slice::from_ref(self), x, state)
    }

    /// One step of this layer alone, as [`Sequential::step_into`].
    ///
    /// # Errors
    /// As [`Sequential::step_into`].
    pub fn step_into(
        &self,
        x: ArrayView2<'_, T>,
        state: &mut States<T>,
        y: ArrayViewMut2<'_, T>,
    ) -> Result<(), Error> {
        step_into(std::slice::from_ref(self), x, state, y)
    }
}

fn step<T: Number>(
    layers: &[Layer<T>],
    x: ArrayView2<'_, T>,
    state: &mut States<T>,
) -> Result<Array2<T>, Error> {
    let mut y = blank(layers, Some(x.ncols()), x.nrows())?;
    step_into(layers, x, state, y.view_mut())?;
    Ok(y)
}

fn step_into<T: Number>(
    layers: &[Layer<T>],
    x: ArrayView2<'_, T>,
    state: &mut States<T>,
    y: ArrayViewMut2<'_, T>,
) -> Result<(), Error> {
    let (batch, width) = x.dim();
    let numbers = in_order("x", &x)?;
    step_rows(layers, StepInput::Numbers(&numbers), Some(width), batch, state, y)
}

/// Zeros where the output of one step goes.
fn blank<T: Number>(
    layers: &[Layer<T>],
    width: Option<usize>,
    batch: usize,
) -> Result<Array2<T>, Error> {
    let width = stepping::output_width(layers, width).unwrap_or(0);
    Ok(shaped((batch, width), zeros("output", batch.saturating_mul(width))?))
}

/// One step on a copy of the states, which is put in their place when it has succeeded.
fn step_rows<T: Number>(
    layers: &[Layer<T>],
    x: StepInput<'_, T>,
    width: Option<usize>,
    batch: usize,
    state: &mut States<T>,
    mut y: ArrayViewMut2<'_, T>,
) -> Result<(), Error> {
    states::check("state", layers, state, batch)?;
    let width = stepping::output_width(layers, width).unwrap_or(0);
    check_shape("y", y.shape(), &[batch, width])?;
    let mut room = StateRoom::new(layers, batch)?;
    let mut lent = room.lend();
    for (to, from) in lent.iter_mut().zip(state.iter()) {
        to.h.iter_mut().zip(&from.h).for_each(|(to, &from)| *to = from);
        if let (Some(to), Some(from)) = (&mut to.c, &from.c) {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
        }
    }
    let cpu = Cpu::for_work(stepping::work(layers).saturating_mul(batch))?;
    match y.as_slice_mut() {
        Some(y) => stepping::step_layers(layers, &cpu, x, batch, &mut lent, y)?,
        None => {
            let mut rows = Lent::new("output", y.len())?;
            stepping::step_layers(layers, &cpu, x, batch, &mut lent, &mut rows)?;
            y.iter_mut().zip(rows.iter()).for_each(|(to, &from)| *to = from);
        }
    }
    for (to, from) in state.iter_mut().zip(&lent) {
        to.h.iter_mut().zip(from.h.iter()).for_each(|(to, &from)| *to = from);
        if let (Some(to), Some(from)) = (&mut to.c, &from.c) {
            to.iter_mut().zip(from.iter()).for_each(|(to, &from)| *to = from);
        }
    }
    Ok(())
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
