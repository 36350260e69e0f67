//! One step of a layer or model for Python: what a stream waits for, so that all of it counts.
//!
//! Results are computed where they stay: in new arrays, which nobody else has before the call
//! returns, and which hold the state before the step until then. Only arrays of the caller's (`out`)
//! are written to at the end, with the GIL, as others may look at them.

use std::fmt::Display;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use seqrs::Layer;
use seqrs::layers::recurrent::Recurrent;
use seqrs::low_level::{LentStates, StepInput};
use seqrs_core::backend::State;
use seqrs_core::memory::Lent;

use crate::arrays::{self, Fresh, Target};
use crate::batch::{self, Axes, Given, Live};
use crate::entry::compute;
use crate::errors;
use crate::network::{Elem, Network, reads};
use crate::state::{self, Holder};

/// Where h or c is computed: it holds what was before the step until then.
enum Part<'py, T: Elem> {
    /// To be given back.
    Array(Fresh<'py, T>),
    /// To be copied to an array of the caller's.
    Buffer(Lent<T>),
}

/// The state of each layer, on its way.
type Parts<'py, T> = Vec<State<Part<'py, T>>>;

impl<'py, T: Elem> Part<'py, T> {
    /// The numbers that were given, or zeros.
    fn new(
        py: Python<'py>,
        name: &impl Display,
        given: Option<&Bound<'py, PyAny>>,
        shape: &[usize],
        to_keep: bool,
    ) -> PyResult<Self> {
        let mut part = match to_keep {
            true => Self::Array(Fresh::zeros(py, shape)?),
            false => {
                let buffer = Lent::new("state", shape.iter().product());
                Self::Buffer(buffer.map_err(|error| errors::raise(py, error))?)
            }
        };
        match (given, &mut part) {
            (Some(given), part) => arrays::read_into(name, given, shape, part.numbers())?,
            (None, Self::Buffer(buffer)) => buffer.fill(T::from_f64(0.0)),
            (None, Self::Array(_)) => {}
        }
        Ok(part)
    }

    fn numbers(&mut self) -> &mut [T] {
        match self {
            Self::Array(array) => array.numbers(),
            Self::Buffer(buffer) => buffer,
        }
    }

    fn given(self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self {
            Self::Array(array) => array.given(py),
            Self::Buffer(_) => unreachable!("was made to be copied"),
        }
    }
}

impl<T: Elem> Network<T> {
    /// One step of every row: y and the state after it; in `out`, if it is given.
    pub(crate) fn step<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        state: Option<&Bound<'py, PyAny>>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        let py = x.py();
        self.model.check_stepwise().map_err(|error| errors::raise(py, error))?;
        let live = Live { lengths: None, mask: None };
        let (x, steps, layout) =
            batch::read("x_t", x, reads(&self.model), Axes::Rows, false, live)?;
        if self.resident.is_some() {
            if out.is_some() {
                let got = "a model on a GPU, which brings its results itself";
                return Err(errors::state(py, "out", "None", got));
            }
            return self.infer(py, state, &x, &steps, layout);
        }
        let batch = layout.batch;
        let width = self.width_of(&x);
        let out = out.map(|out| Out::<T>::read(self, out, batch, width)).transpose()?;
        let to_keep = out.as_ref().is_none_or(|out| out.state.is_none());
        let mut parts = self.parts(py, state, batch, to_keep)?;
        match out {
            None => {
                let mut y = Fresh::zeros(py, &[batch, width])?;
                self.compute_step(py, &x, batch, lent(&mut parts), y.numbers())?;
                Ok((y.given(py), self.given(py, parts)?))
            }
            Some(out) => {
                let mut y =
                    Lent::new("output", batch * width).map_err(|error| errors::raise(py, error))?;
                self.compute_step(py, &x, batch, lent(&mut parts), &mut y)?;
                out.y.write(&y);
                match out.state {
                    None => Ok((out.y.given(), self.given(py, parts)?)),
                    Some(OutState { given, targets }) => {
                        for (target, mut part) in targets.iter().zip(parts) {
                            target.h.write(part.h.numbers());
                            if let (Some(target), Some(mut c)) = (&target.c, part.c) {
                                target.write(c.numbers());
                            }
                        }
                        Ok((out.y.given(), given.unbind()))
                    }
                }
            }
        }
    }

    fn compute_step(
        &self,
        py: Python<'_>,
        x: &Given<T>,
        batch: usize,
        mut states: LentStates<'_, T>,
        y: &mut [T],
    ) -> PyResult<()> {
        compute(py, || {
            let cpu = self.model.cpu_for_step(batch)?;
            self.model.step_on(&cpu, x.step_input(), batch, &mut states, y)
        })
    }

    /// Numbers in a row of the output.
    pub(crate) fn width_of(&self, x: &Given<T>) -> usize {
        let width = match x {
            Given::Numbers(x) => Some(x.width),
            Given::Ids(_) => None,
        };
        self.model.output_width().or(width).unwrap_or(1)
    }

    fn recurrent(&self) -> impl Iterator<Item = &Recurrent<T>> {
        self.model.layers().iter().filter_map(|layer| match layer {
            Layer::Recurrent(layer) => Some(layer),
            _ => None,
        })
    }

    /// The numbers of the state that was given, or zeros.
    fn parts<'py>(
        &self,
        py: Python<'py>,
        state: Option<&Bound<'py, PyAny>>,
        batch: usize,
        to_keep: bool,
    ) -> PyResult<Parts<'py, T>> {
        let mut parts = Vec::new();
        state::each(py, "state", state, &self.model, self.holder, |name, given, layer| {
            let stack = layer.stack();
            let (slots, hidden) = (stack.slots(), stack.options().hidden_size);
            let pair = given.map(|given| state::split(name, given, stack)).transpose()?;
            let (of_h, of_c) = state::names(name, stack);
            let shape = [slots, batch, stack.state_size()];
            let given = pair.as_ref().map(|pair| &pair.h);
            let h = Part::new(py, &of_h, given, &shape, to_keep)?;
            let given = pair.as_ref().and_then(|pair| pair.c.as_ref());
            let c = match stack.cell().states() {
                1 => None,
                _ => Some(Part::new(py, &of_c, given, &[slots, batch, hidden], to_keep)?),
            };
            parts.push(State { h, c });
            Ok(())
        })?;
        Ok(parts)
    }

    /// The state in Python's form.
    fn given<'py>(&self, py: Python<'py>, parts: Parts<'py, T>) -> PyResult<Py<PyAny>> {
        let one = |part: State<Part<'py, T>>| -> PyResult<Bound<'py, PyAny>> {
            let h = part.h.given(py);
            match part.c {
                None => Ok(h),
                Some(c) => Ok(PyTuple::new(py, [h, c.given(py)])?.into_any()),
            }
        };
        let mut parts = parts.into_iter();
        match self.holder {
            Holder::Layer => {
                Ok(parts.next().map(one).transpose()?.map_or_else(|| py.None(), Bound::unbind))
            }
            Holder::Model => {
                let parts = parts.map(one).collect::<PyResult<Vec<_>>>()?;
                Ok(PyTuple::new(py, parts)?.into_any().unbind())
            }
        }
    }
}

fn lent<'a, T: Elem>(parts: &'a mut Parts<'_, T>) -> LentStates<'a, T> {
    let lent = |part: &'a mut State<Part<'_, T>>| State {
        h: part.h.numbers(),
        c: part.c.as_mut().map(Part::numbers),
    };
    parts.iter_mut().map(lent).collect()
}

/// Where the caller wants the results.
struct Out<'py, T: Elem> {
    y: Target<'py, T>,
    state: Option<OutState<'py, T>>,
}

/// The state as it was given, and its arrays.
struct OutState<'py, T: Elem> {
    given: Bound<'py, PyAny>,
    targets: Vec<State<Target<'py, T>>>,
}

impl<'py, T: Elem> Out<'py, T> {
    /// `out` is an array for y, or (y, state), with the state in the form in which it is given back.
    fn read(
        network: &Network<T>,
        out: &Bound<'py, PyAny>,
        batch: usize,
        width: usize,
    ) -> PyResult<Self> {
        let py = out.py();
        let pair = match (out.cast::<PyTuple>(), out.cast::<PyList>()) {
            (Ok(tuple), _) => Some(tuple.iter().collect::<Vec<_>>()),
            (_, Ok(list)) => Some(list.iter().collect()),
            _ => None,
        };
        let (y, state) = match pair.as_deref() {
            None => (out, None),
            Some([y, state]) => (y, Some(state)),
            Some(other) => {
                let got = format!("{} entries", other.len());
                return Err(errors::shape(py, "out", "an array, or (y, state)", got));
            }
        };
        let y = Target::<T>::new("out: y", y, &[batch, width])?;
        let Some(given) = state else { return Ok(Self { y, state: None }) };
        let mut targets = Vec::new();
        let (model, holder) = (&network.model, network.holder);
        state::each(py, "out: state", Some(given), model, holder, |name, given, layer| {
            let stack = layer.stack();
            let (slots, hidden) = (stack.slots(), stack.options().hidden_size);
            let Some(given) = given else {
                return Err(errors::shape(py, name.to_string(), "arrays of the state", "None"));
            };
            let pair = state::split(name, given, stack)?;
            let (of_h, of_c) = state::names(name, stack);
            let h = Target::new(of_h, &pair.h, &[slots, batch, stack.state_size()])?;
            let c = pair.c.as_ref();
            let c = c.map(|c| Target::new(of_c, c, &[slots, batch, hidden])).transpose()?;
            targets.push(State { h, c });
            Ok(())
        })?;
        if network.recurrent().count() != targets.len() {
            return Err(errors::shape(py, "out: state", "the state of each layer", "fewer"));
        }
        let parts = targets.iter().flat_map(|part| std::iter::once(&part.h).chain(&part.c));
        let all: Vec<&Target<'_, T>> = std::iter::once(&y).chain(parts).collect();
        for (k, one) in all.iter().enumerate() {
            if all[..k].iter().any(|other| other.overlaps(one)) {
                return Err(errors::shape(py, "out", "arrays of their own", "two that overlap"));
            }
        }
        Ok(Self { y, state: Some(OutState { given: given.clone(), targets }) })
    }
}

impl<T: arrays::Plain> Given<T> {
    /// What was read for one step.
    pub(crate) fn step_input(&self) -> StepInput<'_, T> {
        match self {
            Self::Numbers(x) => StepInput::Numbers(&x.data),
            Self::Ids(ids) => StepInput::Ids(&ids.data),
        }
    }
}
