//! The caller's batch: x, and which rows are live at which step.
//!
//! A batch comes as (B, T, F), or (T, B, F) without batch-first; ids have no last axis.
//! Where every row is live it is copied as it is and read in place; otherwise only its
//! live rows are copied, one after the other, so that padding is never read.

use std::fmt::Display;

use pyo3::prelude::*;
use seqrs::number::Number;
use seqrs::pace::for_each_item;
use seqrs::sequential::Input;
use seqrs_core::memory::Lent;
use seqrs_core::rows::{Place, Rows};
use seqrs_core::{Error, Steps, memory};

use crate::arrays::{self, Array, Plain, copied, room, shape_words};
use crate::entry;
use crate::errors;
use crate::ranges::Named;

/// The axes before the last one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Axes {
    /// (B, T, .)
    BatchFirst,
    /// (T, B, .)
    TimeFirst,
    /// (B, .): one step, without an axis of its own.
    Rows,
}

impl Axes {
    /// Batch first or time first.
    pub(crate) fn of_sequence(batch_first: bool) -> Self {
        if batch_first { Self::BatchFirst } else { Self::TimeFirst }
    }

    /// Their names, as in a message.
    fn letters(self) -> &'static [&'static str] {
        match self {
            Self::BatchFirst => &["B", "T"],
            Self::TimeFirst => &["T", "B"],
            Self::Rows => &["B"],
        }
    }
}

/// The axes of a batch and their sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Layout {
    pub(crate) axes: Axes,
    pub(crate) time: usize,
    pub(crate) batch: usize,
}

impl Layout {
    /// Of one step of `batch` rows.
    pub(crate) fn of_rows(batch: usize) -> Self {
        Self { axes: Axes::Rows, time: 1, batch }
    }

    /// The leading axes, from an array whose shape begins with them.
    fn read(axes: Axes, shape: &[usize]) -> Self {
        match axes {
            Axes::BatchFirst => Self { axes, batch: shape[0], time: shape[1] },
            Axes::TimeFirst => Self { axes, time: shape[0], batch: shape[1] },
            Axes::Rows => Self::of_rows(shape[0]),
        }
    }

    /// (B, T), (T, B) or (B,), and `width` where there is a last axis.
    pub(crate) fn shape(&self, width: Option<usize>) -> Vec<usize> {
        let mut shape = match self.axes {
            Axes::BatchFirst => vec![self.batch, self.time],
            Axes::TimeFirst => vec![self.time, self.batch],
            Axes::Rows => vec![self.batch],
        };
        shape.extend(width);
        shape
    }

    /// The indices of step t of row b.
    pub(crate) fn indices(&self, t: usize, b: usize) -> Vec<usize> {
        match self.axes {
            Axes::BatchFirst => vec![b, t],
            Axes::TimeFirst => vec![t, b],
            Axes::Rows => vec![b],
        }
    }

    /// Where each step's row of `width` numbers begins.
    pub(crate) fn place(&self, width: usize) -> Place {
        match self.axes {
            Axes::BatchFirst => Place::batch_first(self.time, width),
            Axes::TimeFirst | Axes::Rows => Place::time_first(self.batch, width),
        }
    }

    /// Whether packed rows lie as in an array of this layout.
    pub(crate) fn is_packed(&self, steps: &Steps) -> bool {
        let in_order = self.axes != Axes::BatchFirst || self.time <= 1 || self.batch <= 1;
        in_order && steps.is_dense()
    }

    /// +0.0 for `width` numbers at every step of every row.
    pub(crate) fn zeros<T: Number>(&self, width: usize) -> Result<Vec<T>, Error> {
        let steps = self.time * self.batch;
        let len = steps.checked_mul(width).ok_or_else(|| Error::OutOfMemory {
            what: "outputs".to_owned(),
            bytes: steps as u128 * width as u128 * T::BYTES as u128,
        })?;
        memory::zeros("outputs", len)
    }

    /// Packed rows spread over an array of this layout, +0.0 where a row is not live.
    pub(crate) fn spread<T: Number>(
        &self,
        steps: &Steps,
        packed: Vec<T>,
        width: usize,
    ) -> Result<Vec<T>, Error> {
        match self.is_packed(steps) {
            true => Ok(packed),
            false => self.spread_over(steps, &packed, width),
        }
    }

    /// As [`spread`](Self::spread), for rows that stay where they are.
    pub(crate) fn spread_copy<T: Number>(
        &self,
        steps: &Steps,
        packed: &[T],
        width: usize,
    ) -> Result<Vec<T>, Error> {
        match self.is_packed(steps) {
            true => copied("outputs", packed),
            false => self.spread_over(steps, packed, width),
        }
    }

    fn spread_over<T: Number>(
        &self,
        steps: &Steps,
        packed: &[T],
        width: usize,
    ) -> Result<Vec<T>, Error> {
        let mut padded = self.zeros(width)?;
        let place = self.place(width);
        for_each_item(steps, width, |item, t, b| {
            padded[place.offset(item, t, b)..][..width]
                .copy_from_slice(&packed[item * width..][..width]);
        })?;
        Ok(padded)
    }
}

/// A copy of rows of the caller's, and where they lie in it.
pub(crate) struct Copied<T: Plain> {
    pub(crate) data: Lent<T>,
    pub(crate) place: Place,
    pub(crate) width: usize,
}

impl<T: Plain> Copied<T> {
    pub(crate) fn rows(&self) -> Rows<'_, [T]> {
        Rows { data: &self.data, place: self.place }
    }
}

impl<T: Number + Plain> Copied<T> {
    /// The same rows in f64.
    pub(crate) fn widened(&self, name: &str) -> Result<Copied<f64>, Error> {
        let mut data = Lent::new(name, self.data.len())?;
        for (to, &from) in data.iter_mut().zip(self.data.iter()) {
            *to = Number::to_f64(from);
        }
        Ok(Copied { data, place: self.place, width: self.width })
    }
}

/// What a model reads.
pub(crate) enum Given<T: Plain> {
    Numbers(Copied<T>),
    Ids(Copied<i64>),
}

impl<T: Plain> Given<T> {
    pub(crate) fn input(&self) -> Input<'_, T> {
        match self {
            Self::Numbers(numbers) => Input::Numbers(numbers.rows(), numbers.width),
            Self::Ids(ids) => Input::Ids(ids.rows()),
        }
    }
}

/// What the first layer reads at each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reads {
    /// So many numbers, or any number of them.
    Numbers(Option<usize>),
    /// One id, in 0 to so many.
    Ids(usize),
}

/// The lengths or the mask, as the caller gave them.
#[derive(Clone, Copy)]
pub(crate) struct Live<'a, 'py> {
    pub(crate) lengths: Option<&'a Bound<'py, PyAny>>,
    pub(crate) mask: Option<&'a Bound<'py, PyAny>>,
}

/// Reads x and which of its rows are live. `axes` are those it must have; where `or_rows`
/// is set, (B, F) is one step of B rows.
pub(crate) fn read<T: Number + Plain>(
    name: &str,
    x: &Bound<'_, PyAny>,
    reads: Reads,
    axes: Axes,
    or_rows: bool,
    live: Live<'_, '_>,
) -> PyResult<(Given<T>, Steps, Layout)> {
    let py = x.py();
    match reads {
        Reads::Ids(below) => {
            let ids = arrays::integers(name, x)?;
            let layout = layout_of(py, name, ids.shape(), axes, false, &[])?;
            let steps = read_live(py, live, layout)?;
            let ids = copy_live(py, name, &ids, &steps, layout, 1)?;
            Named { name, steps: &steps, layout }.check_ids(py, &ids, below, "an id")?;
            Ok((Given::Ids(ids), steps, layout))
        }
        Reads::Numbers(width) => {
            let numbers = arrays::real::<T>(name, x)?;
            let layout = layout_of(py, name, numbers.shape(), axes, or_rows, &[width])?;
            let width = *numbers.shape().last().expect("a last axis");
            let steps = read_live(py, live, layout)?;
            let copied = copy_live(py, name, &numbers, &steps, layout, width)?;
            Ok((Given::Numbers(copied), steps, layout))
        }
    }
}

/// The layout of an array of this shape, whose axes after the leading ones are `last`.
fn layout_of(
    py: Python<'_>,
    name: &str,
    shape: &[usize],
    axes: Axes,
    or_rows: bool,
    last: &[Option<usize>],
) -> PyResult<Layout> {
    let axes = match or_rows && shape.len() == 1 + last.len() {
        true => Axes::Rows,
        false => axes,
    };
    let leading = axes.letters().len();
    let fits = shape.len() == leading + last.len()
        && last.iter().zip(&shape[leading..]).all(|(want, got)| want.is_none_or(|w| w == *got));
    if !fits {
        let mut words: Vec<String> = axes.letters().iter().map(ToString::to_string).collect();
        words.extend(last.iter().map(|n| n.map_or_else(|| "F".to_owned(), |n| n.to_string())));
        let comma = if words.len() == 1 { "," } else { "" };
        let expected = format!("shape ({}{comma})", words.join(", "));
        return Err(errors::shape(py, name, expected, shape_words(shape)));
    }
    Ok(Layout::read(axes, shape))
}

/// Copies an array of this layout, or only its live rows of `width` elements.
fn copy_live<T: Plain>(
    py: Python<'_>,
    name: &str,
    array: &Array<'_, T>,
    steps: &Steps,
    layout: Layout,
    width: usize,
) -> PyResult<Copied<T>> {
    let copy = || -> Result<Copied<T>, Error> {
        let (numbers, place) = (array.numbers(), layout.place(width));
        if steps.is_dense() {
            let mut data = Lent::new(name, numbers.len())?;
            data.copy_from_slice(numbers);
            return Ok(Copied { data, place, width });
        }
        let mut data = Lent::new(name, steps.items() * width)?;
        steps.for_each(|item, t, b| {
            let row = &numbers[place.offset(item, t, b)..][..width];
            data[item * width..][..width].copy_from_slice(row);
        });
        Ok(Copied { data, place: Place::packed(width), width })
    };
    copy().map_err(|error| errors::raise(py, error))
}

/// Reads an array of numbers that must have this layout and width.
pub(crate) fn read_numbers<T: Number + Plain>(
    name: &str,
    given: &Bound<'_, PyAny>,
    steps: &Steps,
    layout: Layout,
    width: usize,
) -> PyResult<Copied<T>> {
    let numbers = arrays::real::<T>(name, given)?;
    check_shape(given.py(), name, numbers.shape(), &layout.shape(Some(width)))?;
    copy_live(given.py(), name, &numbers, steps, layout, width)
}

/// Reads an array of ids that must have this layout.
pub(crate) fn read_ids(
    name: &str,
    given: &Bound<'_, PyAny>,
    steps: &Steps,
    layout: Layout,
) -> PyResult<Copied<i64>> {
    let ids = arrays::integers(name, given)?;
    check_shape(given.py(), name, ids.shape(), &layout.shape(None))?;
    copy_live(given.py(), name, &ids, steps, layout, 1)
}

/// The rows of `copied`, packed: as they are unless they lie batch-first.
pub(crate) fn packed<T: Plain>(copied: Copied<T>, steps: &Steps) -> Result<Lent<T>, Error> {
    let Copied { data, place, width } = copied;
    let in_order = match place {
        Place::Packed { .. } => true,
        Place::Padded { time, .. } => {
            steps.time() <= 1 || steps.batch() <= 1 || time == steps.batch() * width
        }
    };
    if in_order {
        return Ok(data);
    }
    let mut rows = Lent::new("rows", data.len())?;
    for_each_item(steps, width, |item, t, b| {
        let row = &data[place.offset(item, t, b)..][..width];
        rows[item * width..][..width].copy_from_slice(row);
    })?;
    Ok(rows)
}

/// Compares a shape with the only one that fits.
pub(crate) fn check_shape(
    py: Python<'_>,
    name: impl Display,
    got: &[usize],
    expected: &[usize],
) -> PyResult<()> {
    match got == expected {
        true => Ok(()),
        false => {
            let expected = format!("shape {}", shape_words(expected));
            Err(errors::shape(py, name.to_string(), expected, shape_words(got)))
        }
    }
}

/// Which rows are live.
pub(crate) fn read_live(py: Python<'_>, live: Live<'_, '_>, layout: Layout) -> PyResult<Steps> {
    let Layout { axes, time, batch } = layout;
    let steps = match (live.lengths, live.mask) {
        (None, None) => Steps::dense(time, batch),
        (Some(_), Some(_)) => {
            return Err(errors::shape(py, "lengths and mask", "at most one of them", "both"));
        }
        (lengths, _) if axes == Axes::Rows => {
            let name = if lengths.is_some() { "lengths" } else { "mask" };
            return Err(errors::shape(py, name, "None where there are no steps", "an array"));
        }
        (Some(lengths), None) => {
            let array = arrays::integers("lengths", lengths)?;
            check_shape(py, "lengths", array.shape(), &[batch])?;
            let mut lengths = room("lengths", batch).map_err(|error| errors::raise(py, error))?;
            for (b, &length) in array.numbers().iter().enumerate() {
                let Ok(length) = usize::try_from(length) else {
                    let expected = format!("an integer in 0..={time} (the number of steps)");
                    return Err(errors::shape(py, format!("lengths[{b}]"), expected, length));
                };
                lengths.push(length);
            }
            Steps::from_lengths(time, &lengths)
        }
        (None, Some(mask)) => {
            let array = arrays::booleans("mask", mask)?;
            check_shape(py, "mask", array.shape(), &layout.shape(None))?;
            let (mask, place) = (array.numbers(), layout.place(1));
            Steps::from_mask(time, batch, |t, b| mask[place.offset(0, t, b)] != 0)
        }
    };
    steps.map_err(|error| errors::raise(py, error))
}

/// Results spread over an array of this layout.
pub(crate) fn spread<'py, T: Number + Plain>(
    py: Python<'py>,
    layout: Layout,
    steps: &Steps,
    packed: Vec<T>,
    width: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let padded = match layout.is_packed(steps) {
        true => packed,
        false => entry::compute(py, || layout.spread(steps, packed, width))?,
    };
    arrays::new(py, &layout.shape(Some(width)), padded)
}
