//! Losses on their own.

use pyo3::prelude::*;
use seqrs::losses::Loss;
use seqrs::targets::Packed;
use seqrs_core::{Error, Steps};

use crate::arrays::{self, shape_words};
use crate::batch::{self, Axes, Copied, Given as X, Layout, Live, Reads};
use crate::entry::{compute, guard};
use crate::errors;
use crate::layer::Given;
use crate::network::{Elem, cpu};
use crate::trainer::called_y;

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
struct Pair<T> {
    outputs: Vec<T>,
    width: usize,
    targets: Targets<T>,
    steps: Steps,
    layout: Layout,
}

enum Targets<T> {
    Ids(Vec<i64>),
    Numbers(Vec<T>),
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
        let pack = |error| errors::raise(py, error);
        let targets = if loss.wants_classes() {
            let classes = batch::read_ids("y", y, &steps, layout)?;
            check_classes(py, &classes, &steps, layout, width)?;
            Targets::Ids(batch::packed(classes, &steps).map_err(pack)?)
        } else {
            let numbers = batch::read_numbers("y", y, &steps, layout, width)?;
            Targets::Numbers(batch::packed(numbers, &steps).map_err(pack)?)
        };
        let outputs = batch::packed(outputs, &steps).map_err(pack)?;
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
        let value = || loss.value(&cpu, &self.outputs, self.width, self.targets());
        compute(py, || value().map_err(|error| called_y(error, true)))
    }

    fn gradient<'py>(&self, py: Python<'py>, loss: &Loss) -> PyResult<Bound<'py, PyAny>> {
        let cpu = cpu::<T>(py)?;
        let both = || loss.value_and_gradient(&cpu, &self.outputs, self.width, self.targets());
        let (_, gradient) = compute(py, || both().map_err(|error| called_y(error, true)))?;
        batch::spread(py, self.layout, &self.steps, gradient, self.width)
    }
}

/// Names the first class that is none, by its place in the caller's array.
fn check_classes(
    py: Python<'_>,
    classes: &Copied<i64>,
    steps: &Steps,
    layout: Layout,
    width: usize,
) -> PyResult<()> {
    let mut wrong = None;
    steps.for_each(|item, t, b| {
        let class = classes.data[classes.place.offset(item, t, b)];
        if wrong.is_none() && !usize::try_from(class).is_ok_and(|class| class < width) {
            wrong = Some((t, b, class));
        }
    });
    let Some((t, b, class)) = wrong else { return Ok(()) };
    let what = match layout.axes {
        Axes::BatchFirst => format!("y[{b}, {t}]"),
        Axes::TimeFirst => format!("y[{t}, {b}]"),
        Axes::Rows => format!("y[{b}]"),
    };
    Err(errors::shape(py, what, format!("a class in 0..{width}"), class))
}
