//! States in Python's form and back.
//!
//! A recurrent layer's state is h, or (h, c) for an LSTM; a model's is a tuple with one of
//! these for each recurrent layer. Alone, a layer without a state has None.

use std::fmt::{self, Arguments, Display};

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
    let mut state = Vec::new();
    each(py, name, given, model, holder, |name, given, layer| {
        state.push(match given {
            None => layer.initial_state(batch).map_err(|error| errors::raise(py, error))?,
            Some(given) => read_one(name, given, layer.stack(), batch)?,
        });
        Ok(())
    })?;
    Ok(state)
}

/// Calls `visit` with each recurrent layer, what Python gave for its state, and how messages call
/// that.
pub(crate) fn each<'py, T: Number + Plain>(
    py: Python<'py>,
    name: &str,
    given: Option<&Bound<'py, PyAny>>,
    model: &Sequential<T>,
    holder: Holder,
    mut visit: impl FnMut(Arguments<'_>, Option<&Bound<'py, PyAny>>, &Recurrent<T>) -> PyResult<()>,
) -> PyResult<()> {
    let Some(given) = given else {
        return recurrent(model).try_for_each(|layer| visit(format_args!("{name}"), None, layer));
    };
    if holder == Holder::Layer {
        return match recurrent(model).next() {
            Some(layer) => visit(format_args!("{name}"), Some(given), layer),
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
    for (k, (entry, layer)) in entries.iter().zip(recurrent(model)).enumerate() {
        visit(format_args!("{name}[{k}]"), Some(entry).filter(|entry| !entry.is_none()), layer)?;
    }
    Ok(())
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

/// One layer's state, as it was given.
pub(crate) struct Pair<'py> {
    pub(crate) h: Bound<'py, PyAny>,
    pub(crate) c: Option<Bound<'py, PyAny>>,
}

/// How messages call h and c of the state of this name.
pub(crate) fn names<'a>(name: Arguments<'a>, stack: &Spec) -> (Part<'a>, Part<'a>) {
    let letters = if stack.cell().states() > 1 { [": h", ": c"] } else { [""; 2] };
    let [h, c] = letters.map(|letter| Part { name, letter });
    (h, c)
}

/// The name of a part of a state.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    name: Arguments<'a>,
    letter: &'static str,
}

impl Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.letter)
    }
}

/// h and c of what was given as one layer's state.
pub(crate) fn split<'py>(
    name: Arguments<'_>,
    given: &Bound<'py, PyAny>,
    stack: &Spec,
) -> PyResult<Pair<'py>> {
    if stack.cell().states() == 1 {
        return Ok(Pair { h: given.clone(), c: None });
    }
    let (h, c) = match given.cast::<PyTuple>() {
        Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
        _ => match sequence(given).map(<[_; 2]>::try_from) {
            Some(Ok([h, c])) => (h, c),
            other => {
                let got = kind_of(given, other.and_then(Result::err))?;
                return Err(errors::shape(given.py(), name.to_string(), "(h, c)", got));
            }
        },
    };
    Ok(Pair { h, c: Some(c) })
}

/// Reads one layer's state.
fn read_one<T: Number + Plain>(
    name: Arguments<'_>,
    given: &Bound<'_, PyAny>,
    stack: &Spec,
    batch: usize,
) -> PyResult<State<Vec<T>>> {
    let (slots, hidden) = (stack.slots(), stack.options().hidden_size);
    let pair = split(name, given, stack)?;
    let (of_h, of_c) = names(name, stack);
    let c = pair.c.as_ref().map(|c| read_part(of_c, c, &[slots, batch, hidden])).transpose()?;
    Ok(State { h: read_part(of_h, &pair.h, &[slots, batch, stack.state_size()])?, c })
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
