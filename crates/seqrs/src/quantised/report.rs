//! How far a model with small weights is from the `f32` model that it was made of.

use seqrs_core::{Error, Steps};
use seqrs_cpu::Cpu;

use super::{Quantisation, Quantised};
use crate::number::Number;
use crate::room::{copied, copied_states};
use crate::sequential::{Input, ModelState};

/// The difference between numbers and those of the `f32` model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deviation {
    /// The largest.
    pub largest: f64,
    /// The root of the mean of its square.
    pub rms: f64,
    /// The same over that of the `f32` model's numbers; 0 where both are 0.
    pub relative: f64,
}

impl Deviation {
    fn between(small: &[f32], exact: &[f32]) -> Self {
        let (mut largest, mut squares, mut of_exact) = (0.0_f64, 0.0, 0.0);
        for (&small, &exact) in small.iter().zip(exact) {
            let (small, exact) = (Number::to_f64(small), Number::to_f64(exact));
            let error = (small - exact).abs();
            // Once it is NaN, none is larger.
            if error > largest || error.is_nan() {
                largest = error;
            }
            squares += error * error;
            of_exact += exact * exact;
        }
        let rms = (squares / exact.len().max(1) as f64).sqrt();
        let relative = if squares == 0.0 { 0.0 } else { (squares / of_exact).sqrt() };
        Self { largest, rms, relative }
    }
}

/// The deviation of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerReport {
    /// Its place in the model.
    pub layer: usize,
    /// What kind it is, as the Python class is called.
    pub name: &'static str,
    /// That of its output, where it is given what the `f32` model gives the layer.
    pub deviation: Deviation,
}

/// The deviation of a model on some input.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantisationReport {
    /// What the weights became.
    pub kind: Quantisation,
    /// Of each layer with small weights, by itself.
    pub layers: Vec<LayerReport>,
    /// Of the model's output, all layers together.
    pub output: Deviation,
    /// Bytes of all parameters, and those that they had in `f32`.
    pub bytes: [usize; 2],
}

impl Quantised {
    /// How far the model is from the one that it was made of, on this input and from this state.
    ///
    /// # Errors
    /// [`Error::State`] if that is not known: the model was read from a file, or has given it up;
    /// else as [`Sequential::infer_on`](crate::Sequential::infer_on).
    pub fn report_on(
        &self,
        cpu: &Cpu<f32>,
        x: Input<'_, f32>,
        steps: &Steps,
        state: &ModelState<f32>,
    ) -> Result<QuantisationReport, Error> {
        let Some(original) = self.original() else {
            let expected = "a model that was just quantised, with the float32 one to compare with";
            return Err(Error::state("quantization_report", expected, "one from a file"));
        };
        let links = self.model().chain_for(&x, steps)?;
        self.model().check_state(state, steps.batch())?;
        let mut exact_state = copied_states(state)?;
        let mut flow: Option<Vec<f32>> = None;
        let mut layers = Vec::new();
        for (k, link) in links.iter().enumerate() {
            let (exact, small) = (&original.layers()[k], &self.model().layers()[k]);
            let below = flow.as_deref().map(|flow| copied("rows", flow)).transpose()?;
            let y = exact.infer_within(cpu, link, steps, x, below, &mut exact_state)?;
            if small.quantisation().is_some() {
                // Of the states only the layer's own is touched.
                let mut small_state = copied_states(state)?;
                let small_y = small.infer_within(cpu, link, steps, x, flow, &mut small_state)?;
                let deviation = Deviation::between(&small_y, &y);
                layers.push(LayerReport { layer: k, name: small.name(), deviation });
            }
            flow = Some(y);
        }
        let output = self.model().infer_on(cpu, x, steps, &mut copied_states(state)?)?;
        Ok(QuantisationReport {
            kind: self.kind(),
            layers,
            output: Deviation::between(&output.numbers, &flow.unwrap_or_default()),
            bytes: [self.parameter_bytes(), original.num_parameters() * size_of::<f32>()],
        })
    }
}
