//! What layers and models compute for Python. A layer alone is a model of one layer.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use seqrs::low_level::{LentStates, StepInput};
use seqrs::model_tape::{ModelGradients, ModelTape, OutputRef};
use seqrs::number::Number;
use seqrs::sequential::{Input, ModelState, Output, Rank};
use seqrs::{Layer, Sequential};
use seqrs_core::backend::State;
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::{Error, Steps, memory};
use seqrs_cpu::Cpu;

use crate::arrays::{self, Plain};
use crate::batch::{self, Axes, Given, Layout, Live, Reads};
use crate::device::Resident;
use crate::entry::compute;
use crate::errors;
use crate::gpu::{GpuModel, GpuTape};
use crate::state::{self, Holder};
use crate::tape::{AnyTape, OnGpu, Tape};

/// The number types that cross the border.
pub(crate) trait Elem: Number + Plain {
    /// Wraps a tape.
    fn any(tape: ModelTape<Self>) -> AnyTape;
    /// The tape, if it is of this type.
    fn of(tape: &AnyTape) -> Option<&ModelTape<Self>>;

    /// Inference on a GPU, which only one type has.
    fn infer_on_gpu(
        _: &GpuModel,
        _: Input<'_, Self>,
        _: &Steps,
        _: &mut ModelState<Self>,
    ) -> Result<Output<Self>, Error> {
        Err(Error::dtype("x", "float32 on a GPU", Self::NAME))
    }

    /// Training on a GPU: the outputs, and the tape.
    fn record_on_gpu(
        _: &GpuModel,
        _: Input<'_, Self>,
        _: Steps,
        _: &mut ModelState<Self>,
        _: Option<u64>,
    ) -> Result<(Vec<Self>, GpuTape), Error> {
        Err(Error::dtype("x", "float32 on a GPU", Self::NAME))
    }

    /// The way back on a GPU.
    fn backward_on_gpu(
        _: &GpuModel,
        _: &GpuTape,
        _: Option<&[Self]>,
        _: &mut ModelState<Self>,
        _: bool,
    ) -> Result<ModelGradients<Self>, Error> {
        Err(Error::dtype("dy", "float32 on a GPU", Self::NAME))
    }
}

impl Elem for f32 {
    fn any(tape: ModelTape<Self>) -> AnyTape {
        AnyTape::F32(tape)
    }
    fn of(tape: &AnyTape) -> Option<&ModelTape<Self>> {
        if let AnyTape::F32(tape) = tape { Some(tape) } else { None }
    }
    fn infer_on_gpu(
        model: &GpuModel,
        x: Input<'_, Self>,
        steps: &Steps,
        state: &mut ModelState<Self>,
    ) -> Result<Output<Self>, Error> {
        model.infer(x, steps, state)
    }
    fn record_on_gpu(
        model: &GpuModel,
        x: Input<'_, Self>,
        steps: Steps,
        state: &mut ModelState<Self>,
        dropout: Option<u64>,
    ) -> Result<(Vec<Self>, GpuTape), Error> {
        model.record(x, steps, state, dropout)
    }
    fn backward_on_gpu(
        model: &GpuModel,
        tape: &GpuTape,
        d_y: Option<&[Self]>,
        d_state: &mut ModelState<Self>,
        want_d_x: bool,
    ) -> Result<ModelGradients<Self>, Error> {
        model.backward(tape, d_y, d_state, want_d_x)
    }
}

impl Elem for f64 {
    fn any(tape: ModelTape<Self>) -> AnyTape {
        AnyTape::F64(tape)
    }
    fn of(tape: &AnyTape) -> Option<&ModelTape<Self>> {
        if let AnyTape::F64(tape) = tape { Some(tape) } else { None }
    }
}

/// A model at one moment, and how its caller sees it.
pub(crate) struct Network<T: Number> {
    pub(crate) model: Sequential<T>,
    pub(crate) holder: Holder,
    /// The handle that it was taken from.
    pub(crate) owner: u64,
    /// The same model on a GPU, if it computes there.
    pub(crate) resident: Option<Arc<Resident>>,
}

/// The arguments of a call.
pub(crate) struct Call<'a, 'py> {
    pub(crate) x: &'a Bound<'py, PyAny>,
    pub(crate) state: Option<&'a Bound<'py, PyAny>>,
    pub(crate) live: Live<'a, 'py>,
    pub(crate) batch_first: bool,
}

/// What a model reads at each step.
pub(crate) fn reads<T: Number>(model: &Sequential<T>) -> Reads {
    match model.layers().first() {
        Some(Layer::Embedding(table)) => Reads::Ids(table.options().num_embeddings),
        _ => Reads::Numbers(model.input_width()),
    }
}

/// Whether x may be (B, F): no layer looks at more than one step.
pub(crate) fn takes_rows<T: Number>(model: &Sequential<T>) -> bool {
    model.layers().iter().all(|layer| {
        matches!(
            layer,
            Layer::Linear(_) | Layer::LayerNorm(_) | Layer::Dropout(_) | Layer::Activation(_)
        )
    })
}

/// The backend that the process is set to.
pub(crate) fn cpu<T: Number>(py: Python<'_>) -> PyResult<Cpu<T>> {
    Cpu::new().map_err(|error| errors::raise(py, error))
}

impl<T: Elem> Network<T> {
    pub(crate) fn read(&self, call: &Call<'_, '_>) -> PyResult<(Given<T>, Steps, Layout)> {
        let axes = Axes::of_sequence(call.batch_first);
        let or_rows = takes_rows(&self.model);
        batch::read("x", call.x, reads(&self.model), axes, or_rows, call.live)
    }

    /// Inference: y and the final state.
    pub(crate) fn call<'py>(
        &self,
        call: &Call<'_, 'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        let py = call.x.py();
        let (x, steps, layout) = self.read(call)?;
        self.infer(py, call.state, &x, &steps, layout)
    }

    pub(crate) fn infer<'py>(
        &self,
        py: Python<'py>,
        state: Option<&Bound<'py, PyAny>>,
        x: &Given<T>,
        steps: &Steps,
        layout: Layout,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        let cpu = cpu::<T>(py)?;
        let mut state = state::read(py, "state", state, &self.model, layout.batch, self.holder)?;
        let (numbers, width, rank) = compute(py, || {
            if let Some(resident) = &self.resident {
                let output = T::infer_on_gpu(&resident.model, x.input(), steps, &mut state)?;
                let numbers = match output.rank {
                    Rank::Steps => layout.spread(steps, output.numbers, output.width)?,
                    Rank::Rows => output.numbers,
                };
                return Ok((numbers, output.width, output.rank));
            }
            // A recurrent layer alone writes to where its outputs belong.
            if let ([Layer::Recurrent(layer)], Given::Numbers(x), [state]) =
                (self.model.layers(), x, &mut state[..])
            {
                let width = layer.stack().output_size();
                let mut y = layout.zeros(width)?;
                let to = RowsMut { data: &mut y[..], place: layout.place(width) };
                layer.infer_over(&cpu, x.rows(), steps, state, to)?;
                return Ok((y, width, Rank::Steps));
            }
            let output = self.model.infer_on(&cpu, x.input(), steps, &mut state)?;
            let numbers = match output.rank {
                Rank::Steps => layout.spread(steps, output.numbers, output.width)?,
                Rank::Rows => output.numbers,
            };
            Ok((numbers, output.width, output.rank))
        })?;
        let shape = match rank {
            Rank::Steps => layout.shape(Some(width)),
            Rank::Rows => vec![layout.batch, width],
        };
        let y = arrays::new(py, &shape, numbers)?;
        Ok((y, state::write(py, state, &self.model, layout.batch, self.holder)?))
    }

    /// Runs zeros through it: `steps` steps of `batch` rows at once and, where it can be stepped,
    /// one step. Weights are packed then, threads begun, and buffers there.
    pub(crate) fn warm_up(&self, py: Python<'_>, batch: usize, steps: usize) -> PyResult<()> {
        let dense = Steps::dense(steps, batch).map_err(|error| errors::raise(py, error))?;
        let width = match reads(&self.model) {
            Reads::Ids(_) => None,
            Reads::Numbers(width) => Some(width.unwrap_or(1)),
        };
        let cpu = cpu::<T>(py)?;
        compute(py, || {
            let mut state = self.model.zero_state(batch)?;
            let ids = memory::zeros::<i64>("ids", steps * batch)?;
            let numbers = memory::zeros::<T>("inputs", steps * batch * width.unwrap_or(0))?;
            let x = match width {
                None => Input::Ids(Rows { data: &ids, place: Place::packed(1) }),
                Some(n) => Input::Numbers(Rows { data: &numbers, place: Place::packed(n) }, n),
            };
            if let Some(resident) = &self.resident {
                return T::infer_on_gpu(&resident.model, x, &dense, &mut state).map(drop);
            }
            self.model.infer_on(&cpu, x, &dense, &mut state)?;
            if self.model.is_stepwise() && steps > 0 {
                let x = match width {
                    None => StepInput::Ids(&ids[..batch]),
                    Some(n) => StepInput::Numbers(&numbers[..batch * n]),
                };
                let width = self.model.output_width().or(width).unwrap_or(1);
                let mut y = memory::zeros("output", batch * width)?;
                let cpu = self.model.cpu_for_step(batch)?;
                let mut state: LentStates<'_, T> = state.iter_mut().map(State::lent).collect();
                self.model.step_on(&cpu, x, batch, &mut state, &mut y)?;
            }
            Ok(())
        })
    }

    /// As [`Network::call`], and a tape for [`Network::backward`].
    pub(crate) fn forward<'py>(
        &self,
        call: &Call<'_, 'py>,
        dropout: Option<u64>,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>, Tape)> {
        let py = call.x.py();
        let (x, steps, layout) = self.read(call)?;
        let cpu = cpu::<T>(py)?;
        let mut state =
            state::read(py, "state", call.state, &self.model, layout.batch, self.holder)?;
        let (tape, numbers) = compute(py, || {
            if let Some(resident) = &self.resident {
                let model = &resident.model;
                let (numbers, tape) =
                    T::record_on_gpu(model, x.input(), steps.clone(), &mut state, dropout)?;
                let numbers = match tape.rank() {
                    Rank::Steps => {
                        let width = tape.width();
                        (layout.spread(&steps, numbers, width)?, layout.shape(Some(width)))
                    }
                    Rank::Rows => (numbers, vec![layout.batch, tape.width()]),
                };
                let resident = Arc::clone(resident);
                return Ok((AnyTape::Gpu(Box::new(OnGpu { tape, resident })), numbers));
            }
            let tape = self.model.record_on(&cpu, x.input(), steps.clone(), &mut state, dropout)?;
            let OutputRef { numbers, width, rank } = tape.output();
            let (numbers, shape) = match rank {
                Rank::Steps => {
                    (layout.spread_copy(&steps, numbers, width)?, layout.shape(Some(width)))
                }
                Rank::Rows => (arrays::copied("outputs", numbers)?, vec![layout.batch, width]),
            };
            Ok((T::any(tape), (numbers, shape)))
        })?;
        let (numbers, shape) = numbers;
        let y = arrays::new(py, &shape, numbers)?;
        let state = state::write(py, state, &self.model, layout.batch, self.holder)?;
        let width = match &x {
            Given::Numbers(numbers) => Some(numbers.width),
            Given::Ids(_) => None,
        };
        Ok((y, state, Tape { record: tape, owner: self.owner, layout, width }))
    }

    /// The gradients of x (None for ids), of the initial state, and of each parameter.
    pub(crate) fn backward<'py>(
        &self,
        py: Python<'py>,
        tape: &Tape,
        dy: Option<&Bound<'py, PyAny>>,
        dstate: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Py<PyAny>, Py<PyAny>, Bound<'py, PyDict>)> {
        let foreign = || {
            let what = match self.holder {
                Holder::Layer => "one that this layer recorded",
                Holder::Model => "one that this model recorded",
            };
            errors::state(py, "tape", what, "another one's")
        };
        if tape.owner != self.owner {
            return Err(foreign());
        }
        let record = Recorded::<T>::of(&tape.record).ok_or_else(foreign)?;
        if dy.is_none() && dstate.is_none() {
            return Err(errors::shape(py, "dy and dstate", "at least one of them", "neither"));
        }
        if let Recorded::Gpu(OnGpu { resident, .. }) = record {
            let present = self.model.layers().iter().map(Layer::version);
            if !present.eq(resident.versions.iter().copied()) {
                let expected = "one recorded with the present parameters";
                return Err(errors::state(py, "tape", expected, "one from before they changed"));
            }
        }
        let (steps, layout) = (record.steps(), tape.layout);
        let (width, rank) = record.output();
        let dense;
        let (dy_steps, dy_layout) = match rank {
            Rank::Steps => (steps, layout),
            Rank::Rows => {
                let rows = Steps::dense(1, layout.batch);
                dense = rows.map_err(|error| errors::raise(py, error))?;
                (&dense, Layout::of_rows(layout.batch))
            }
        };
        let dy = match dy {
            None => None,
            Some(dy) => Some(batch::read_numbers::<T>("dy", dy, dy_steps, dy_layout, width)?),
        };
        let cpu = cpu::<T>(py)?;
        let mut d_state =
            state::read(py, "dstate", dstate, &self.model, layout.batch, self.holder)?;
        let want_d_x = tape.width.is_some();
        let (gradients, d_x) = compute(py, || {
            let dy = dy.map(|dy| batch::packed(dy, dy_steps)).transpose()?;
            let dy = dy.as_deref();
            let mut gradients = match record {
                Recorded::Cpu(record) => {
                    self.model.backward_on(&cpu, record, dy, &mut d_state, want_d_x)?
                }
                Recorded::Gpu(OnGpu { tape, resident }) => {
                    T::backward_on_gpu(&resident.model, tape, dy, &mut d_state, want_d_x)?
                }
            };
            let d_x = match (gradients.x.take(), tape.width) {
                (Some(d_x), Some(width)) => Some((layout.spread(steps, d_x, width)?, width)),
                _ => None,
            };
            Ok((gradients, d_x))
        })?;
        let d_x = match d_x {
            None => py.None(),
            Some((d_x, width)) => arrays::new(py, &layout.shape(Some(width)), d_x)?.unbind(),
        };
        let d_state = state::write(py, d_state, &self.model, layout.batch, self.holder)?;
        let layers = gradients.layers.iter().map(Vec::as_slice);
        Ok((d_x, d_state, dict(py, &self.model, self.holder, layers)?))
    }

    /// The zero state.
    pub(crate) fn initial_state(&self, py: Python<'_>, batch: usize) -> PyResult<Py<PyAny>> {
        // Also refuses more rows than a batch can have.
        Steps::dense(0, batch).map_err(|error| errors::raise(py, error))?;
        let state = self.model.zero_state(batch).map_err(|error| errors::raise(py, error))?;
        state::write(py, state, &self.model, batch, self.holder)
    }

    /// Copies of the parameters by name.
    pub(crate) fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, &self.model, self.holder, self.model.layers().iter().map(Layer::numbers))
    }
}

/// A tape of numbers of type T, wherever it was recorded.
#[derive(Clone, Copy)]
enum Recorded<'a, T: Number> {
    Cpu(&'a ModelTape<T>),
    Gpu(&'a OnGpu),
}

impl<'a, T: Elem> Recorded<'a, T> {
    fn of(tape: &'a AnyTape) -> Option<Self> {
        match tape {
            AnyTape::Gpu(tape) => Some(Self::Gpu(tape)),
            tape => T::of(tape).map(Self::Cpu),
        }
    }

    fn steps(self) -> &'a Steps {
        match self {
            Self::Cpu(tape) => tape.steps(),
            Self::Gpu(OnGpu { tape, .. }) => tape.steps(),
        }
    }

    /// Numbers in a row of the output, and what the rows belong to.
    fn output(self) -> (usize, Rank) {
        match self {
            Self::Cpu(tape) => (tape.output().width, tape.output().rank),
            Self::Gpu(OnGpu { tape, .. }) => (tape.width(), tape.rank()),
        }
    }
}

/// One array for each parameter of each layer, from the layers' numbers.
fn dict<'py, 'a, T: Elem>(
    py: Python<'py>,
    model: &Sequential<T>,
    holder: Holder,
    numbers: impl Iterator<Item = &'a [T]>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (k, (layer, numbers)) in model.layers().iter().zip(numbers).enumerate() {
        for parameter in layer.parameters() {
            let copy = arrays::copied(&parameter.name, &numbers[parameter.range])
                .map_err(|error: Error| errors::raise(py, error))?;
            let name = match holder {
                Holder::Layer => parameter.name,
                Holder::Model => format!("{k}.{}", parameter.name),
            };
            dict.set_item(name, arrays::new(py, &parameter.shape, copy)?)?;
        }
    }
    Ok(dict)
}
