//! The twin of `gpu.rs` in a module that is built without GPUs: the same names, of what nobody can
//! have.

use std::convert::Infallible;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use seqrs::model_tape::ModelGradients;
use seqrs::sequential::{Input, ModelState, Output, Rank};
use seqrs::targets::Target;
use seqrs::trainer::{Evaluation, StepResult};
use seqrs::{Sequential, Trainer, TrainerOptions};
use seqrs_core::rows::Place;
use seqrs_core::spec::Spec;
use seqrs_core::{Error, Steps};

pub(crate) struct Gpu(Infallible);
pub(crate) struct GpuModel(Infallible);
pub(crate) struct GpuTape(Infallible);
pub(crate) struct GpuTrainer(Infallible);
pub(crate) struct Plan(Infallible);
pub(crate) struct Event(Infallible);

pub(crate) struct Description {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) api: String,
    pub(crate) is_software: bool,
    pub(crate) largest_binding: u64,
}

/// Why there is none.
pub(crate) struct Absent;

impl From<Absent> for Error {
    fn from(_: Absent) -> Self {
        let expected = "a build of seqrs with GPU support (feature `gpu` of the crate seqrs-py)";
        Self::no_device("GPU", expected, "one without")
    }
}

pub(crate) fn adapters() -> Vec<Description> {
    Vec::new()
}

pub(crate) fn write_plan<'py>(_: Python<'py>, plan: &Plan) -> PyResult<Bound<'py, PyDict>> {
    match plan.0 {}
}

pub(crate) fn write_events<'py>(py: Python<'py>, _: &[Event]) -> PyResult<Bound<'py, PyList>> {
    Ok(PyList::empty(py))
}

pub(crate) fn write_shaders(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    Ok(PyDict::new(py))
}

impl Gpu {
    pub(crate) fn new(_: usize) -> Result<Self, Absent> {
        Err(Absent)
    }

    pub(crate) fn is_lost(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn traced<R>(&self, _: impl FnOnce() -> R) -> (R, Vec<Event>) {
        match self.0 {}
    }
}

impl Plan {
    pub(crate) fn new(
        _: &Spec,
        _: &Steps,
        _: impl Fn(usize) -> Place,
        _: bool,
        _: u64,
    ) -> Result<Self, Error> {
        Err(Absent.into())
    }
}

impl GpuModel {
    pub(crate) fn new(gpu: Arc<Gpu>, _: Sequential<f32>) -> Result<Self, Error> {
        match gpu.0 {}
    }

    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        match self.0 {}
    }

    pub(crate) fn structure(&self) -> &Sequential<f32> {
        match self.0 {}
    }

    pub(crate) fn to_cpu(&self) -> Result<Sequential<f32>, Error> {
        match self.0 {}
    }

    pub(crate) fn infer(
        &self,
        _: Input<'_, f32>,
        _: &Steps,
        _: &mut ModelState<f32>,
    ) -> Result<Output<f32>, Error> {
        match self.0 {}
    }

    pub(crate) fn record(
        &self,
        _: Input<'_, f32>,
        _: Steps,
        _: &mut ModelState<f32>,
        _: Option<u64>,
    ) -> Result<(Vec<f32>, GpuTape), Error> {
        match self.0 {}
    }

    pub(crate) fn backward(
        &self,
        _: &GpuTape,
        _: Option<&[f32]>,
        _: &mut ModelState<f32>,
        _: bool,
    ) -> Result<ModelGradients<f32>, Error> {
        match self.0 {}
    }
}

impl GpuTape {
    pub(crate) fn steps(&self) -> &Steps {
        match self.0 {}
    }

    pub(crate) fn width(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn rank(&self) -> Rank {
        match self.0 {}
    }

    pub(crate) fn nbytes(&self) -> usize {
        match self.0 {}
    }
}

impl GpuTrainer {
    pub(crate) fn from_cpu(gpu: Arc<Gpu>, _: Trainer<f32>) -> Result<Self, Error> {
        match gpu.0 {}
    }

    pub(crate) fn to_cpu(&self) -> Result<Trainer<f32>, Error> {
        match self.0 {}
    }

    pub(crate) fn set_model(&mut self, _: &Sequential<f32>) -> Result<(), Error> {
        match self.0 {}
    }

    pub(crate) fn observe(&mut self, _: f64) {
        match self.0 {}
    }

    pub(crate) fn options(&self) -> &TrainerOptions {
        match self.0 {}
    }

    pub(crate) fn model(&self) -> &GpuModel {
        match self.0 {}
    }

    pub(crate) fn steps_done(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn learning_rate(&self) -> f64 {
        match self.0 {}
    }

    pub(crate) fn step(
        &mut self,
        _: Input<'_, f32>,
        _: Target<'_, f32>,
        _: &Steps,
        _: Option<ModelState<f32>>,
    ) -> Result<StepResult<ModelState<f32>>, Error> {
        match self.0 {}
    }

    pub(crate) fn evaluate(
        &self,
        _: Input<'_, f32>,
        _: Target<'_, f32>,
        _: &Steps,
        _: Option<ModelState<f32>>,
    ) -> Result<Evaluation<ModelState<f32>>, Error> {
        match self.0 {}
    }
}
