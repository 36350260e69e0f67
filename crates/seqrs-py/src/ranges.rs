//! Whether ids and targets are in their range, told by their places in the caller's arrays.
//!
//! The computation would find them too, but knows neither the caller's names nor the order of
//! the caller's axes.

use pyo3::prelude::*;
use seqrs::losses::Loss;
use seqrs::number::Number;
use seqrs_core::Steps;

use crate::arrays::Plain;
use crate::batch::{Copied, Layout};
use crate::errors;

/// An array of a caller's: what to look at in it, and how to tell of it.
pub(crate) struct Named<'a> {
    /// What the caller calls the array.
    pub(crate) name: &'a str,
    /// Its live rows.
    pub(crate) steps: &'a Steps,
    pub(crate) layout: Layout,
}

impl Named<'_> {
    /// Refuses the first id that is not in `0..below`; `expected` says what it should be.
    ///
    /// # Errors
    /// `ShapeError`.
    pub(crate) fn check_ids(
        &self,
        py: Python<'_>,
        ids: &Copied<i64>,
        below: usize,
        expected: &str,
    ) -> PyResult<()> {
        let inside = |id: i64| usize::try_from(id).is_ok_and(|id| id < below);
        match self.first(ids, false, |id| !inside(id)) {
            None => Ok(()),
            Some((place, id)) => {
                let expected = format!("{expected} in 0..{below}");
                Err(errors::shape(py, place, expected, id))
            }
        }
    }

    /// Refuses targets that the loss does not take; a row of outputs is `width` wide.
    ///
    /// # Errors
    /// `ShapeError`.
    pub(crate) fn check_classes(
        &self,
        py: Python<'_>,
        classes: &Copied<i64>,
        width: usize,
    ) -> PyResult<()> {
        self.check_ids(py, classes, width, "a class")
    }

    /// As [`Named::check_classes`], of targets that are numbers.
    ///
    /// # Errors
    /// `ShapeError`.
    pub(crate) fn check_targets<T: Number + Plain>(
        &self,
        py: Python<'_>,
        loss: &Loss,
        targets: &Copied<T>,
    ) -> PyResult<()> {
        let Loss::BinaryCrossEntropy(_) = loss else { return Ok(()) };
        match self.first(targets, true, |y| !(0.0..=1.0).contains(&Number::to_f64(y))) {
            None => Ok(()),
            Some((place, y)) => {
                Err(errors::shape(py, place, "a number in [0, 1]", Number::to_f64(y)))
            }
        }
    }

    /// The first live element that is wrong, and its place; rows of numbers have an axis of
    /// their own, ids have none.
    fn first<E: Plain>(
        &self,
        array: &Copied<E>,
        has_last_axis: bool,
        is_wrong: impl Fn(E) -> bool,
    ) -> Option<(String, E)> {
        let Copied { data, place, width } = array;
        let mut found = None;
        self.steps.for_each(|item, t, b| {
            if found.is_some() {
                return;
            }
            let row = &data[place.offset(item, t, b)..][..*width];
            if let Some(k) = row.iter().position(|&element| is_wrong(element)) {
                found = Some((t, b, k, row[k]));
            }
        });
        let (t, b, k, element) = found?;
        let mut at = self.layout.indices(t, b);
        at.extend(has_last_axis.then_some(k));
        let at: Vec<String> = at.iter().map(ToString::to_string).collect();
        Some((format!("{}[{}]", self.name, at.join(", ")), element))
    }
}
