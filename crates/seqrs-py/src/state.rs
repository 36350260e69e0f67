//! States in Python's form and back.
//!
//! A recurrent layer's state is h, or (h, c) for an LSTM; a model's is a tuple with one of
//! these for each recurrent layer. Alone, a layer without a state has None.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
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
fn stacks<T: Number>(model: &Sequential<T>) -> impl Iterator<Item = &Spec> {
    model.layers().iter().filter_map(|layer| match layer {
        Layer::Recurrent(recurrent) => Some(recurrent.stack()),
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
    let mut state = model.zero_state(batch).map_err(|error| errors::raise(py, error))?;
    let Some(given) = given else { return Ok(state) };
    let count = state.len();
    if holder == Holder::Layer {
        match (state.first_mut(), stacks(model).next()) {
            (Some(state), Some(stack)) => read_one(name, given, stack, batch, state)?,
            _ => return Err(errors::shape(py, name, "None (the layer has none)", "one")),
        }
        return Ok(state);
    }
    let entries = match sequence(given) {
        Some(entries) if entries.len() == count => entries,
        other => {
            let expected = format!("a tuple with the state of each recurrent layer ({count})");
            let got = match other {
                Some(entries) => format!("{} entries", entries.len()),
                None => format!("a {}", given.get_type().qualname()?),
            };
            return Err(errors::shape(py, name, expected, got));
        }
    };
    for (k, ((entry, stack), state)) in
        entries.iter().zip(stacks(model)).zip(&mut state).enumerate()
    {
        if !entry.is_none() {
            read_one(&format!("{name}[{k}]"), entry, stack, batch, state)?;
        }
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

/// Reads one layer's state over the zeros in `state`.
fn read_one<T: Number + Plain>(
    name: &str,
    given: &Bound<'_, PyAny>,
    stack: &Spec,
    batch: usize,
    state: &mut State<Vec<T>>,
) -> PyResult<()> {
    let py = given.py();
    let (slots, hidden) = (stack.slots(), stack.options().hidden_size);
    let Some(c) = &mut state.c else {
        return read_part(name, given, &[slots, batch, stack.state_size()], &mut state.h);
    };
    let parts = match sequence(given) {
        Some(parts) if parts.len() == 2 => parts,
        Some(parts) => {
            return Err(errors::shape(py, name, "(h, c)", format!("{} entries", parts.len())));
        }
        None => {
            let got = format!("a {}", given.get_type().qualname()?);
            return Err(errors::shape(py, name, "(h, c)", got));
        }
    };
    let h = format!("{name}: h");
    read_part(&h, &parts[0], &[slots, batch, stack.state_size()], &mut state.h)?;
    read_part(&format!("{name}: c"), &parts[1], &[slots, batch, hidden], c)
}

fn read_part<T: Number + Plain>(
    name: &str,
    given: &Bound<'_, PyAny>,
    shape: &[usize],
    into: &mut Vec<T>,
) -> PyResult<()> {
    let py = given.py();
    let array = arrays::real::<T>(name, given)?;
    check_shape(py, name, array.shape(), shape)?;
    *into = copied(name, array.numbers()).map_err(|error| errors::raise(py, error))?;
    Ok(())
}

/// A state in Python's form.
pub(crate) fn write<T: Number + Plain>(
    py: Python<'_>,
    state: ModelState<T>,
    model: &Sequential<T>,
    batch: usize,
    holder: Holder,
) -> PyResult<Py<PyAny>> {
    let mut entries = Vec::with_capacity(state.len());
    for (state, stack) in state.into_iter().zip(stacks(model)) {
        entries.push(write_one(py, state, stack, batch)?);
    }
    match holder {
        Holder::Layer => Ok(entries.pop().map_or_else(|| py.None(), Bound::unbind)),
        Holder::Model => Ok(PyTuple::new(py, entries)?.into_any().unbind()),
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
