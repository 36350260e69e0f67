//! seqrs on a GPU: with input and results on the device, and from host to host.

use std::sync::{Arc, OnceLock};

use seqrs::gpu::{Gpu, GpuError, GpuModel};
use seqrs::low_level::{Input, ModelGradients, ModelState, Place, Rows, RowsMut, Steps};
use seqrs::{Error, Layer, Sequential};
use seqrs_core::backend::State;
use seqrs_core::sequence::{self, Masks, StackWeights};
use seqrs_core::spec::Spec;
use seqrs_gpu::{Numbers, Recorder, Weights};

use super::Adapter;
use super::seqrs::{gradients_of, layer, outputs};
use crate::case::{Case, Task};
use crate::contender::{Built, Contender, Failure, Results};
use crate::problem::{Problem, swapped};

fn gpu() -> Result<Arc<Gpu>, GpuError> {
    static OPENED: OnceLock<Result<Arc<Gpu>, GpuError>> = OnceLock::new();
    OPENED.get_or_init(|| Gpu::new(0).map(Arc::new)).clone()
}

/// The GPU that is used: the first one.
pub(crate) fn adapter() -> Result<Adapter, Failure> {
    let gpu = gpu()?;
    let found = gpu.description();
    Ok(Adapter { name: found.name.clone(), is_software: found.is_software })
}

/// A layer as a GPU computes it, which reads and writes what lies there.
struct OnDevice {
    case: Case,
    layer: Layer<f32>,
    spec: Spec,
    gpu: Arc<Gpu>,
    recorder: Recorder,
    weights: StackWeights<Recorder>,
    /// Steps first, as everything on a device.
    x: Box<Numbers>,
    d_y: Option<Box<Numbers>>,
    done: Option<Done>,
}

/// What a call left on the device.
enum Done {
    Outputs { y: Box<Numbers>, state: State<Box<Numbers>> },
    Gradients { d_parameters: Box<Numbers>, d_x: Box<Numbers> },
}

pub(crate) fn on_device(problem: &Problem) -> Built {
    let Case { task, time, size, .. } = problem.case;
    let layer = layer::<f32>(problem)?;
    let Layer::Recurrent(recurrent) = &layer else {
        unreachable!("it was built as a recurrent layer");
    };
    let spec = recurrent.stack().clone();
    let gpu = gpu()?;
    let recorder = gpu.recorder();
    let given = |values: &[f32]| recorder.numbers(&swapped(values, time, size));
    let parameters = Arc::from(recorder.numbers(layer.numbers()));
    let (x, d_y) = (given(&problem.x), (task == Task::Train).then(|| given(&problem.d_y)));
    gpu.run_recorded(&recorder)?;
    Ok(Some(Box::new(OnDevice {
        case: problem.case,
        weights: vec![vec![Weights::new(parameters, spec.slot_range(0, 0).start)]],
        layer,
        spec,
        gpu,
        recorder,
        x,
        d_y,
        done: None,
    })))
}

impl OnDevice {
    fn zero_state(&self) -> State<Box<Numbers>> {
        let zeros = || self.recorder.zeros_of(self.case.batch * self.case.size);
        State { h: zeros(), c: (self.spec.cell().states() > 1).then(zeros) }
    }

    fn infer(&self, steps: &Steps) -> Result<Done, Error> {
        let place = Place::packed(self.case.size);
        let (mut state, mut y) =
            (self.zero_state(), self.recorder.blank_of(steps.items() * self.case.size));
        sequence::infer(
            &self.recorder,
            &self.spec,
            &self.weights,
            Rows { data: &*self.x, place },
            steps,
            &mut state,
            RowsMut { data: &mut *y, place },
        )?;
        // Waits for the device: it has done all by the time that this arrives.
        self.gpu.read(&self.recorder, &state.h)?;
        Ok(Done::Outputs { y, state })
    }

    fn train(&self, steps: Steps, d_y: &Numbers) -> Result<Done, Error> {
        let place = Place::packed(self.case.size);
        let (mut state, mut d_state) = (self.zero_state(), self.zero_state());
        let mut d_parameters = self.recorder.zeros_of(self.spec.len());
        let tape = sequence::record(
            &self.recorder,
            &self.spec,
            &self.weights,
            Rows { data: &*self.x, place },
            steps,
            &mut state,
            Masks::default(),
        )?;
        let d_x = sequence::backward(
            &self.recorder,
            &self.spec,
            &self.weights,
            &tape,
            Some(Rows { data: d_y, place }),
            &mut d_state,
            &mut d_parameters,
            true,
        )?;
        self.gpu.read(&self.recorder, &d_state.h)?;
        Ok(Done::Gradients { d_parameters, d_x: d_x.expect("it was asked for") })
    }
}

impl Contender for OnDevice {
    fn run(&mut self) -> Result<(), Failure> {
        let steps = Steps::dense(self.case.time, self.case.batch)?;
        self.done = Some(match &self.d_y {
            None => self.infer(&steps)?,
            Some(d_y) => self.train(steps, d_y)?,
        });
        Ok(())
    }

    fn results(&self) -> Result<Results, Failure> {
        let read = |numbers: &Numbers| self.gpu.read(&self.recorder, numbers);
        match self.done.as_ref().ok_or("nothing was computed")? {
            Done::Outputs { y, state } => {
                let c = state.c.as_deref().map(read).transpose()?;
                Ok(outputs(&self.case, &read(y)?, &read(&state.h)?, c.as_deref()))
            }
            Done::Gradients { d_parameters, d_x } => {
                Ok(gradients_of(&self.case, &self.layer, &read(d_parameters)?, &read(d_x)?))
            }
        }
    }
}

/// A model as one uses it: from arrays to arrays.
struct FromHost {
    case: Case,
    model: GpuModel,
    /// Steps first, as in the time that is measured nothing is to be brought in another order.
    x: Vec<f32>,
    d_y: Vec<f32>,
    y: Vec<f32>,
    state: ModelState<f32>,
    gradients: Option<ModelGradients<f32>>,
}

pub(crate) fn from_host(problem: &Problem) -> Built {
    let Case { time, size, .. } = problem.case;
    Ok(Some(Box::new(FromHost {
        case: problem.case,
        model: GpuModel::new(gpu()?, Sequential::from(layer(problem)?))?,
        x: swapped(&problem.x, time, size),
        d_y: swapped(&problem.d_y, time, size),
        y: Vec::new(),
        state: ModelState::default(),
        gradients: None,
    })))
}

impl Contender for FromHost {
    fn run(&mut self) -> Result<(), Failure> {
        let Case { task, batch, time, size, .. } = self.case;
        let steps = Steps::dense(time, batch)?;
        let x = Input::Numbers(Rows { data: &self.x, place: Place::packed(size) }, size);
        self.state = self.model.structure().zero_state(batch)?;
        if task == Task::Train {
            let (y, tape) = self.model.record(x, steps, &mut self.state, None)?;
            let mut d_state = self.model.structure().zero_state(batch)?;
            let gradients = self.model.backward(&tape, Some(&self.d_y), &mut d_state, true)?;
            (self.y, self.gradients) = (y, Some(gradients));
        } else {
            self.y = self.model.infer(x, &steps, &mut self.state)?.numbers;
        }
        Ok(())
    }

    fn results(&self) -> Result<Results, Failure> {
        let Some(gradients) = &self.gradients else {
            let State { h, c } = &self.state[0];
            return Ok(outputs(&self.case, &self.y, h, c.as_deref()));
        };
        let d_x = gradients.x.as_deref().unwrap_or_default();
        let layer = &self.model.structure().layers()[0];
        Ok(gradients_of(&self.case, layer, &gradients.layers[0], d_x))
    }
}
