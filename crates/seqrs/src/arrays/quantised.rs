//! Inference with small weights, on arrays: as [`inference`](super::inference).

use ndarray::{Array2, ArrayD, ArrayView2};
use seqrs_core::rows::{Place, Rows};
use seqrs_core::{Error, Steps};
use seqrs_cpu::Cpu;

use super::inference::to_array;
use super::states::{self, States};
use super::{Batch, in_order, shaped};
use crate::quantised::Quantised;
use crate::quantised::report::QuantisationReport;
use crate::sequential::Input;

impl Quantised {
    /// Inference, as [`Sequential::infer`](crate::Sequential::infer).
    ///
    /// # Errors
    /// As there.
    pub fn infer<'a>(
        &self,
        batch: impl Into<Batch<'a, f32>>,
    ) -> Result<(ArrayD<f32>, States<f32>), Error> {
        let model = self.structure();
        let mut batch = batch.into().read(model)?;
        let mut state = std::mem::take(&mut batch.state);
        let output = self.infer_on(&Cpu::new()?, batch.input(), &batch.steps, &mut state)?;
        let y = to_array(output.numbers, output.rank, output.width, &batch.steps, batch.layout)?;
        Ok((y, states::to_arrays(model, state, batch.layout.batch)))
    }

    /// One step of numbers, as [`Sequential::step`](crate::Sequential::step).
    ///
    /// # Errors
    /// As there.
    pub fn step(
        &self,
        x: ArrayView2<'_, f32>,
        state: &mut States<f32>,
    ) -> Result<Array2<f32>, Error> {
        let (batch, width) = x.dim();
        let data = &in_order("x", &x)?[..];
        let rows = Rows { data, place: Place::packed(width) };
        self.step_rows(Input::Numbers(rows, width), batch, state)
    }

    /// One step of ids, as [`Sequential::step_ids`](crate::Sequential::step_ids).
    ///
    /// # Errors
    /// As there.
    pub fn step_ids(&self, ids: &[i64], state: &mut States<f32>) -> Result<Array2<f32>, Error> {
        let rows = Rows { data: ids, place: Place::packed(1) };
        self.step_rows(Input::Ids(rows), ids.len(), state)
    }

    fn step_rows(
        &self,
        x: Input<'_, f32>,
        batch: usize,
        state: &mut States<f32>,
    ) -> Result<Array2<f32>, Error> {
        let model = self.structure();
        model.check_stepwise()?;
        let steps = Steps::dense(1, batch)?;
        let mut flat = states::to_flat("state", model, state, batch)?;
        let output = self.infer_on(&Cpu::new()?, x, &steps, &mut flat)?;
        *state = states::to_arrays(model, flat, batch);
        Ok(shaped((batch, output.width), output.numbers))
    }

    /// Zero states for `batch` rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn initial_state(&self, batch: usize) -> Result<States<f32>, Error> {
        self.structure().initial_state(batch)
    }

    /// How far the model is from the `f32` model that it was made of, on this batch.
    ///
    /// # Errors
    /// [`Error::State`] if that is not known: the model was read from a file, or has given it up;
    /// else as [`Quantised::infer`].
    pub fn report<'a>(
        &self,
        batch: impl Into<Batch<'a, f32>>,
    ) -> Result<QuantisationReport, Error> {
        let batch = batch.into().read(self.structure())?;
        self.report_on(&Cpu::new()?, batch.input(), &batch.steps, &batch.state)
    }
}
