//! How far small weights lead, on arrays.

use seqrs_core::Error;
use seqrs_cpu::Cpu;

use super::Batch;
use crate::quantised::Quantised;
use crate::quantised::report::QuantisationReport;

impl Quantised {
    /// How far the model is from the `f32` model that it was made of, on this batch.
    ///
    /// # Errors
    /// [`Error::State`] if that is not known: the model was read from a file, or has given it up;
    /// else as [`Sequential::infer`](crate::Sequential::infer).
    pub fn report<'a>(
        &self,
        batch: impl Into<Batch<'a, f32>>,
    ) -> Result<QuantisationReport, Error> {
        let batch = batch.into().read(self.model())?;
        self.report_on(&Cpu::new()?, batch.input(), &batch.steps, &batch.state)
    }
}
