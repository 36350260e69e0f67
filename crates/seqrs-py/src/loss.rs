//! Losses on their own.

use pyo3::prelude::*;
use seqrs::losses::Loss;
use seqrs::targets::Packed;
use seqrs_core::memory::Lent;
use seqrs_core::{Error, Steps};

use crate::arrays::{self, Plain, shape_words};
use crate::batch::{self, Axes, Given as X, Layout, Live, Reads};
use crate::entry::{compute, guard};
use crate::errors;
use crate::layer::Given;
use crate::network::{Elem, cpu};
use crate::ranges::Named;

/// A loss from its description.
pub(crate) fn parse(py: Python<'_>, json: &str) -> PyResult<Loss> {
    serde_json::from_str(json)
        .map_err(|error| errors::raise(py, Error::option("loss", "a loss", error)))
}

/// The loss of outputs.
#[pyfunction]
#[pyo3(signature = (loss_json, y_pred, y, lengths, mask))]
pub(crate) fn loss_value<'py>(
    loss_json: &str,
    y_pred: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    lengths: Given<'_, 'py>,
    mask: Given<'_, 'py>,
) -> PyResult<f64> {
    let py = y_pred.py();
    guard(py, || {
        let loss = parse(py, loss_json)?;
        let live = Live { lengths, mask };
        match arrays::is_wide("y_pred", y_pred)? {
            true => Pair::<f64>::read(&loss, y_pred, y, live)?.value(py, &loss),
            false => Pair::<f32>::read(&loss, y_pred, y, live)?.value(py, &loss),
        }
    })
}

/// Its gradient there.
#[pyfunction]
#[pyo3(signature = (loss_json, y_pred, y, lengths, mask))]
pub(crate) fn loss_gradient<'py>(
    loss_json: &str,
    y_pred: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    lengths: Given<'_, 'py>,
    mask: Given<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = y_pred.py();
    guard(py, || {
        let loss = parse(py, loss_json)?;
        let live = Live { lengths, mask };
        match arrays::is_wide("y_pred", y_pred)? {
            true => Pair::<f64>::read(&loss, y_pred, y, live)?.gradient(py, &loss),
            false => Pair::<f32>::read(&loss, y_pred, y, live)?.gradient(py, &loss),
        }
    })
}

/// Outputs and targets, packed.
struct Pair<T: Plain> {
    outputs: Lent<T>,
    width: usize,
    targets: Targets<T>,
    steps: Steps,
    layout: Layout,
}

enum Targets<T: Plain> {
    Ids(Lent<i64>),
    Numbers(Lent<T>),
}

impl<T: Elem> Pair<T> {
    fn read(
        loss: &Loss,
        y_pred: &Bound<'_, PyAny>,
        y: &Bound<'_, PyAny>,
        live: Live<'_, '_>,
    ) -> PyResult<Self> {
        let py = y.py();
        let reads = Reads::Numbers(None);
        let (outputs, steps, layout) =
            batch::read::<T>("y_pred", y_pred, reads, Axes::BatchFirst, true, live)?;
        let X::Numbers(outputs) = outputs else { unreachable!("numbers were asked for") };
        let width = outputs.width;
        if width == 0 {
            let got = shape_words(&layout.shape(Some(0)));
            return Err(errors::shape(py, "y_pred", "at least 1 number in the last axis", got));
        }
        let named = Named { name: "y", steps: &steps, layout };
        let targets = if loss.wants_classes() {
            let classes = batch::read_ids("y", y, &steps, layout)?;
            named.check_classes(py, &classes, width)?;
            Targets::Ids(compute(py, || batch::packed(classes, &steps))?)
        } else {
            let numbers = batch::read_numbers("y", y, &steps, layout, width)?;
            named.check_targets(py, loss, &numbers)?;
            Targets::Numbers(compute(py, || batch::packed(numbers, &steps))?)
        };
        let outputs = compute(py, || batch::packed(outputs, &steps))?;
        Ok(Self { outputs, width, targets, steps, layout })
    }

    fn targets(&self) -> Packed<'_, T> {
        match &self.targets {
            Targets::Ids(ids) => Packed::Ids(ids),
            Targets::Numbers(numbers) => Packed::Numbers(numbers),
        }
    }

    fn value(&self, py: Python<'_>, loss: &Loss) -> PyResult<f64> {
        let cpu = cpu::<T>(py)?;
        compute(py, || loss.value(&cpu, &self.outputs, self.width, self.targets()))
    }

    fn gradient<'py>(&self, py: Python<'py>, loss: &Loss) -> PyResult<Bound<'py, PyAny>> {
        let cpu = cpu::<T>(py)?;
        let gradient = compute(py, || {
            let (_, gradient) =
                loss.value_and_gradient(&cpu, &self.outputs, self.width, self.targets())?;
            Ok(gradient)
        })?;
        batch::spread(py, self.layout, &self.steps, gradient, self.width)
    }
}
