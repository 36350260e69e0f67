//! States in Python's form and back.
//!
//! A recurrent layer's state is h, or (h, c) for an LSTM; a model's is a tuple with one of
//! these for each recurrent layer. Alone, a layer without a state has None.

use std::fmt::Display;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use seqrs::layers::recurrent::Recurrent;
use seqrs::number::Number;
use seqrs::sequential::ModelState;
use seqrs::{Layer, Sequential};
use seqrs_core::backend::State;
use seqrs_core::spec::Spec;

use crate::arrays::{self, Plain, copied};
use crate::batch::check_shape;
use crate::errors;

/// Whether the caller holds a single layer or a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Holder {
    Layer,
    Model,
}

/// The recurrent layers, in order.
fn recurrent<T: Number>(model: &Sequential<T>) -> impl Iterator<Item = &Recurrent<T>> {
    model.layers().iter().filter_map(|layer| match layer {
        Layer::Recurrent(recurrent) => Some(recurrent),
        _ => None,
    })
}

/// The state that Python gave, named `name` in messages; zeros where it gave none.
pub(crate) fn read<T: Number + Plain>(
    py: Python<'_>,
    name: &str,
    given: Option<&Bound<'_, PyAny>>,
    model: &Sequential<T>,
    batch: usize,
    holder: Holder,
) -> PyResult<ModelState<T>> {
    let Some(given) = given else {
        return model.zero_state(batch).map_err(|error| errors::raise(py, error));
    };
    if holder == Holder::Layer {
        return match recurrent(model).next() {
            Some(layer) => Ok(vec![read_one(name, given, layer.stack(), batch)?]),
            None => Err(errors::shape(py, name, "None (the layer has none)", "one")),
        };
    }
    let count = recurrent(model).count();
    let entries = match sequence(given) {
        Some(entries) if entries.len() == count => entries,
        other => {
            let expected = format!("a tuple with the state of each recurrent layer ({count})");
            return Err(errors::shape(py, name, expected, kind_of(given, other)?));
        }
    };
    let mut state = Vec::with_capacity(count);
    for (k, (entry, layer)) in entries.iter().zip(recurrent(model)).enumerate() {
        state.push(match entry.is_none() {
            true => layer.initial_state(batch).map_err(|error| errors::raise(py, error))?,
            false => read_one(format_args!("{name}[{k}]"), entry, layer.stack(), batch)?,
        });
    }
    Ok(state)
}

/// The entries of a tuple or list.
fn sequence<'py>(given: &Bound<'py, PyAny>) -> Option<Vec<Bound<'py, PyAny>>> {
    if let Ok(tuple) = given.cast::<PyTuple>() {
        return Some(tuple.iter().collect());
    }
    given.cast::<PyList>().ok().map(|list| list.iter().collect())
}

/// What came instead of a sequence of another length, for a message.
fn kind_of(given: &Bound<'_, PyAny>, entries: Option<Vec<Bound<'_, PyAny>>>) -> PyResult<String> {
    Ok(match entries {
        Some(entries) => format!("{} entries", entries.len()),
        None => format!("a {}", given.get_type().qualname()?),
    })
}

/// Reads one layer's state.
fn read_one<T: Number + Plain>(
    name: impl Display,
    given: &Bound<'_, PyAny>,
    stack: &Spec,
    batch: usize,
) -> PyResult<State<Vec<T>>> {
    let (slots, hidden) = (stack.slots(), stack.options().hidden_size);
    let shape = [slots, batch, stack.state_size()];
    if stack.cell().states() == 1 {
        return Ok(State { h: read_part(name, given, &shape)?, c: None });
    }
    let pair = match given.cast::<PyTuple>() {
        Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
        _ => match sequence(given).map(<[_; 2]>::try_from) {
            Some(Ok([h, c])) => (h, c),
            other => {
                let got = kind_of(given, other.and_then(Result::err))?;
                return Err(errors::shape(given.py(), name.to_string(), "(h, c)", got));
            }
        },
    };
    Ok(State {
        h: read_part(format_args!("{name}: h"), &pair.0, &shape)?,
        c: Some(read_part(format_args!("{name}: c"), &pair.1, &[slots, batch, hidden])?),
    })
}

fn read_part<T: Number + Plain>(
    name: impl Display,
    given: &Bound<'_, PyAny>,
    shape: &[usize],
) -> PyResult<Vec<T>> {
    let py = given.py();
    let array = arrays::real::<T>(&name, given)?;
    check_shape(py, &name, array.shape(), shape)?;
    copied("a state", array.numbers()).map_err(|error| errors::raise(py, error))
}

/// A state in Python's form.
pub(crate) fn write<T: Number + Plain>(
    py: Python<'_>,
    state: ModelState<T>,
    model: &Sequential<T>,
    batch: usize,
    holder: Holder,
) -> PyResult<Py<PyAny>> {
    let mut entries = state.into_iter().zip(recurrent(model));
    let one = |(state, layer): (_, &Recurrent<T>)| write_one(py, state, layer.stack(), batch);
    match holder {
        Holder::Layer => {
            Ok(entries.next().map(one).transpose()?.map_or_else(|| py.None(), Bound::unbind))
        }
        Holder::Model => {
            let entries: Vec<_> = entries.map(one).collect::<PyResult<_>>()?;
            Ok(PyTuple::new(py, entries)?.into_any().unbind())
        }
    }
}

fn write_one<'py, T: Number + Plain>(
    py: Python<'py>,
    state: State<Vec<T>>,
    stack: &Spec,
    batch: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let h = arrays::new(py, &[stack.slots(), batch, stack.state_size()], state.h)?;
    match state.c {
        None => Ok(h),
        Some(c) => {
            let c = arrays::new(py, &[stack.slots(), batch, stack.options().hidden_size], c)?;
            Ok(PyTuple::new(py, [h, c])?.into_any())
        }
    }
}
