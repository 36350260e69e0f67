//! The handle of one layer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use seqrs::number::{DType, Number};
use seqrs::{Layer, LayerSpec, Sequential, random};
use seqrs_core::rows::Place;
use seqrs_core::{Error, memory};

use crate::arrays;
use crate::batch::{self, Axes, Layout, Live};
use crate::device::{self, Device, Late, Resident, locked};
use crate::entry::{compute, guard};
use crate::errors;
use crate::gpu::{self, Plan};
use crate::network::{Call, Network};
use crate::state::Holder;
use crate::tape::{AnyTape, Tape};
use crate::weights;

/// A layer of either number type.
#[derive(Clone)]
pub(crate) enum AnyLayer {
    F32(Layer<f32>),
    F64(Layer<f64>),
    /// Without parameters: computes in the type of what it is given.
    Either(Layer<f32>),
}

impl AnyLayer {
    fn new(spec: LayerSpec, dtype: DType) -> Result<Self, Error> {
        let count = spec.num_parameters()?;
        if count == 0 {
            return Ok(Self::Either(Layer::new(spec)?));
        }
        // Parameters that cannot be had are refused before any layer of a stack is looked
        // at: there may be more layers than could be counted in a lifetime.
        drop(arrays::room::<f32>("parameters", count)?);
        Ok(match dtype {
            DType::F32 => Self::F32(Layer::new(spec)?),
            DType::F64 => Self::F64(Layer::new(spec)?),
        })
    }

    /// Its number type, if it has one.
    pub(crate) fn dtype(&self) -> Option<DType> {
        match self {
            Self::F32(_) => Some(DType::F32),
            Self::F64(_) => Some(DType::F64),
            Self::Either(_) => None,
        }
    }

    pub(crate) fn spec(&self) -> LayerSpec {
        match self {
            Self::F32(layer) | Self::Either(layer) => layer.spec(),
            Self::F64(layer) => layer.spec(),
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) | (Self::Either(a), Self::Either(b)) => same(a, b),
            (Self::F64(a), Self::F64(b)) => same(a, b),
            _ => false,
        }
    }
}

/// Whether two layers have the same options but for the seed, and the same bits as
/// parameters.
fn same<T: Number>(a: &Layer<T>, b: &Layer<T>) -> bool {
    let options = |layer: &Layer<T>| {
        let mut options = serde_json::to_value(layer.spec()).expect("plain data");
        options.as_object_mut().expect("an object").remove("seed");
        options
    };
    let bits = |number: &T| Number::to_f64(*number).to_bits();
    let same_numbers = || {
        a.numbers().len() == b.numbers().len()
            && a.numbers().iter().zip(b.numbers()).all(|(a, b)| bits(a) == bits(b))
    };
    options(a) == options(b) && (a.version() == b.version() || same_numbers())
}

/// The number types, as layers are kept.
pub(crate) trait Kept: crate::network::Elem {
    /// The layer with this number type; none if it has the other one.
    fn layer(any: &AnyLayer) -> Result<Option<Layer<Self>>, Error>;
    /// The layer as it is kept.
    fn keep(layer: Layer<Self>) -> AnyLayer;
}

impl Kept for f32 {
    fn layer(any: &AnyLayer) -> Result<Option<Layer<Self>>, Error> {
        match any {
            AnyLayer::F32(layer) | AnyLayer::Either(layer) => Ok(Some(layer.clone())),
            AnyLayer::F64(_) => Ok(None),
        }
    }

    fn keep(layer: Layer<Self>) -> AnyLayer {
        match layer.num_parameters() {
            0 => AnyLayer::Either(layer),
            _ => AnyLayer::F32(layer),
        }
    }
}

impl Kept for f64 {
    fn layer(any: &AnyLayer) -> Result<Option<Layer<Self>>, Error> {
        match any {
            AnyLayer::F64(layer) => Ok(Some(layer.clone())),
            AnyLayer::Either(layer) => Layer::new(layer.spec()).map(Some),
            AnyLayer::F32(_) => Ok(None),
        }
    }

    fn keep(layer: Layer<Self>) -> AnyLayer {
        match layer.num_parameters() {
            0 => AnyLayer::Either(Layer::new(layer.spec()).expect("it is one already")),
            _ => AnyLayer::F64(layer),
        }
    }
}

/// A network of either number type.
pub(crate) enum AnyNetwork {
    F32(Network<f32>),
    F64(Network<f64>),
}

/// Runs the body with the network inside, whatever its number type.
macro_rules! with_network {
    ($any:expr, $network:ident => $body:expr) => {
        match $any {
            $crate::layer::AnyNetwork::F32($network) => $body,
            $crate::layer::AnyNetwork::F64($network) => $body,
        }
    };
}
pub(crate) use with_network;

/// The arguments of `call`, `forward` and `step`, as they are passed on.
pub(crate) type Given<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

static NEXT_HANDLE: AtomicU64 = AtomicU64::new(0);

/// A number that no other handle of this process has.
pub(crate) fn next_handle() -> u64 {
    NEXT_HANDLE.fetch_add(1, Ordering::Relaxed)
}

/// One layer. It can change: whoever computes takes a cheap clone of it first, while the
/// GIL is held, so training and inference never wait for one another.
#[pyclass(frozen, name = "Layer", module = "seqrs._seqrs")]
pub(crate) struct PyLayer {
    id: u64,
    /// Locked for as long as a clone takes, and never while the GIL is released, so a fork
    /// cannot leave it locked.
    layer: Mutex<AnyLayer>,
    /// Where it computes.
    device: Mutex<Device>,
    /// As a model of its own on a GPU, if it was last called there.
    resident: Mutex<Option<Arc<Resident>>>,
    /// Newer parameters, if a trainer has some on a GPU.
    late: Mutex<Option<Arc<Late>>>,
    /// Dropout draws made so far.
    draws: AtomicU64,
    /// How often the layer was changed, and itself as a model, if a step was made since.
    changes: AtomicU64,
    ready: Mutex<Option<Arc<AnyNetwork>>>,
}

impl PyLayer {
    pub(crate) fn keep(layer: AnyLayer) -> Self {
        Self {
            id: next_handle(),
            layer: Mutex::new(layer),
            device: Mutex::new(Device::Cpu),
            resident: Mutex::default(),
            late: Mutex::default(),
            draws: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            ready: Mutex::default(),
        }
    }

    /// How often the layer was changed, after a trainer's parameters have come from a GPU.
    pub(crate) fn changes(&self, py: Python<'_>) -> PyResult<u64> {
        let late = locked(&self.late).clone();
        if let Some(late) = late {
            late.bring(py)?;
        }
        Ok(self.changes.load(Ordering::Relaxed))
    }

    /// The layer to step on the CPU: made once for all steps until it changes.
    fn ready(
        &self,
        py: Python<'_>,
        wide: impl FnOnce() -> PyResult<bool>,
    ) -> PyResult<Arc<AnyNetwork>> {
        // Also brings what may change it.
        self.changes(py)?;
        if let Some(ready) = &*locked(&self.ready) {
            return Ok(Arc::clone(ready));
        }
        let typed = self.structure().dtype().is_some();
        let made = Arc::new(self.network(py, wide)?);
        // One that may be of either type is of the one that it is asked for.
        if typed {
            *locked(&self.ready) = Some(Arc::clone(&made));
        }
        Ok(made)
    }

    /// The layer at this moment.
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<AnyLayer> {
        let late = locked(&self.late).clone();
        if let Some(late) = late {
            late.bring(py)?;
        }
        Ok(self.structure())
    }

    /// The layer, with parameters that may be older than a trainer's on a GPU.
    pub(crate) fn structure(&self) -> AnyLayer {
        locked(&self.layer).clone()
    }

    /// Puts another layer of the same structure in place.
    pub(crate) fn set(&self, layer: AnyLayer) {
        *locked(&self.late) = None;
        self.changes.fetch_add(1, Ordering::Relaxed);
        *locked(&self.ready) = None;
        let old = std::mem::replace(&mut *locked(&self.layer), layer);
        drop(old);
    }

    /// From now on a trainer has newer parameters, on a GPU.
    pub(crate) fn expect(&self, late: &Arc<Late>) {
        *locked(&self.late) = Some(Arc::clone(late));
    }

    /// Puts parameters in place if they are those that were expected.
    pub(crate) fn arrive(&self, late: &Arc<Late>, layer: AnyLayer) {
        let expected = locked(&self.late).as_ref().is_some_and(|other| Arc::ptr_eq(other, late));
        if expected {
            self.set(layer);
        }
    }

    /// Whether these are the parameters that it waits for.
    pub(crate) fn expects(&self, late: &Arc<Late>) -> bool {
        locked(&self.late).as_ref().is_some_and(|other| Arc::ptr_eq(other, late))
    }

    pub(crate) fn device(&self) -> Device {
        *locked(&self.device)
    }

    pub(crate) fn move_to(&self, device: Device) {
        *locked(&self.device) = device;
        *locked(&self.resident) = None;
    }

    /// Refuses a number type that a GPU does not compute in.
    pub(crate) fn check_device(&self, py: Python<'_>, name: &str, device: Device) -> PyResult<()> {
        match (device, self.structure().dtype()) {
            (Device::Gpu(_), Some(DType::F64)) => {
                Err(errors::dtype(py, name, "float32 on a GPU", DType::F64))
            }
            _ => Ok(()),
        }
    }

    /// The layer as a model of its own; `wide` says whether one without parameters is to
    /// compute in f64.
    fn network(
        &self,
        py: Python<'_>,
        wide: impl FnOnce() -> PyResult<bool>,
    ) -> PyResult<AnyNetwork> {
        let layer = self.get(py)?;
        let f64 = match layer.dtype() {
            Some(dtype) => dtype == DType::F64,
            None => wide()?,
        };
        match f64 {
            true => Ok(AnyNetwork::F64(self.of::<f64>(py, &layer)?)),
            false => Ok(AnyNetwork::F32(self.of::<f32>(py, &layer)?)),
        }
    }

    /// As [`network`](Self::network), to compute on its device.
    fn placed(
        &self,
        py: Python<'_>,
        wide: impl FnOnce() -> PyResult<bool>,
    ) -> PyResult<AnyNetwork> {
        let mut any = self.network(py, wide)?;
        match (&mut any, self.device()) {
            (AnyNetwork::F64(_), Device::Gpu(_)) => {
                return Err(errors::dtype(py, "x", "float32 on a GPU", DType::F64));
            }
            (AnyNetwork::F32(network), Device::Gpu(number)) => {
                let resident = device::resident(py, number, &network.model, &self.resident)?;
                network.resident = Some(resident);
            }
            (_, Device::Cpu) => {}
        }
        Ok(any)
    }

    fn of<T: Kept>(&self, py: Python<'_>, layer: &AnyLayer) -> PyResult<Network<T>> {
        let model = || -> Result<Sequential<T>, Error> {
            let layer = T::layer(layer)?.expect("a layer has one number type");
            Sequential::new(vec![layer])
        };
        let model = model().map_err(|error| errors::raise(py, error))?;
        Ok(Network { model, holder: Holder::Layer, owner: self.id, resident: None })
    }

    fn any(&self, py: Python<'_>) -> PyResult<AnyNetwork> {
        self.network(py, || Ok(false))
    }
}

/// What describes a layer, as Python passes it.
fn described(py: Python<'_>, spec_json: &str, dtype: &str) -> PyResult<(LayerSpec, DType)> {
    let spec = serde_json::from_str(spec_json)
        .map_err(|error| errors::raise(py, Error::option("layer", "a layer", error)))?;
    match dtype {
        "float32" => Ok((spec, DType::F32)),
        "float64" => Ok((spec, DType::F64)),
        _ => Err(errors::dtype(py, "dtype", "float32 or float64", dtype)),
    }
}

fn loaded<T: Kept>(spec: LayerSpec, mapping: &Bound<'_, PyDict>) -> PyResult<AnyLayer> {
    let py = mapping.py();
    let blank = || -> Result<Sequential<T>, Error> {
        let numbers = memory::zeros("parameters", spec.num_parameters()?)?;
        Sequential::new(vec![Layer::with_numbers(spec.clone(), numbers)?])
    };
    let blank = blank().map_err(|error| errors::raise(py, error))?;
    let numbers = weights::read(&blank, Holder::Layer, mapping, true)?.layers.swap_remove(0);
    Layer::with_numbers(spec, numbers).map(T::keep).map_err(|error| errors::raise(py, error))
}

#[pymethods]
impl PyLayer {
    /// A layer from its description, initialised from its seed.
    #[new]
    fn new(py: Python<'_>, spec_json: &str, dtype: &str) -> PyResult<Self> {
        guard(py, || {
            let (spec, dtype) = described(py, spec_json, dtype)?;
            Ok(Self::keep(compute(py, || AnyLayer::new(spec, dtype))?))
        })
    }

    /// A layer from its description, with exactly these parameters; nothing is drawn.
    #[staticmethod]
    fn with_parameters(
        py: Python<'_>,
        spec_json: &str,
        dtype: &str,
        mapping: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        guard(py, || {
            let (spec, dtype) = described(py, spec_json, dtype)?;
            Ok(Self::keep(match dtype {
                DType::F32 => loaded::<f32>(spec, mapping)?,
                DType::F64 => loaded::<f64>(spec, mapping)?,
            }))
        })
    }

    /// The description.
    #[getter]
    fn spec_json(&self, py: Python<'_>) -> PyResult<String> {
        guard(py, || Ok(serde_json::to_string(&self.structure().spec()).expect("plain data")))
    }

    /// "float32" or "float64".
    #[getter]
    fn dtype(&self, py: Python<'_>) -> PyResult<&'static str> {
        guard(py, || Ok(self.structure().dtype().unwrap_or(DType::F32).name()))
    }

    /// "cpu", or "gpu:" and a number.
    #[getter(device)]
    fn device_name(&self, py: Python<'_>) -> PyResult<String> {
        guard(py, || Ok(self.device().name()))
    }

    /// Computes there from now on.
    fn to(&self, py: Python<'_>, device: &str) -> PyResult<()> {
        guard(py, || {
            let device = Device::parse(py, device)?;
            self.check_device(py, "dtype", device)?;
            if let Device::Gpu(number) = device {
                device::gpu(py, number)?;
            }
            self.move_to(device);
            Ok(())
        })
    }

    /// Numbers in all parameters.
    #[getter]
    fn num_parameters(&self, py: Python<'_>) -> PyResult<usize> {
        guard(py, || {
            Ok(match self.structure() {
                AnyLayer::F32(layer) | AnyLayer::Either(layer) => layer.num_parameters(),
                AnyLayer::F64(layer) => layer.num_parameters(),
            })
        })
    }

    /// Features of y, or None.
    #[getter]
    fn output_size(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        guard(py, || Ok(with_network!(self.any(py)?, network => network.model.output_width())))
    }

    /// A hash of structure and parameters.
    #[getter]
    fn fingerprint(&self, py: Python<'_>) -> PyResult<String> {
        guard(py, || {
            let layer = self.get(py)?;
            compute(py, || {
                Ok(match &layer {
                    AnyLayer::F32(layer) | AnyLayer::Either(layer) => layer.fingerprint(),
                    AnyLayer::F64(layer) => layer.fingerprint(),
                })
            })
        })
    }

    /// Inference.
    #[pyo3(signature = (x, state, lengths, mask, batch_first))]
    fn call<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        state: Given<'_, 'py>,
        lengths: Given<'_, 'py>,
        mask: Given<'_, 'py>,
        batch_first: bool,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        guard(x.py(), || {
            let call = Call { x, state, live: Live { lengths, mask }, batch_first };
            let network = self.placed(x.py(), || arrays::is_wide("x", x))?;
            with_network!(network, network => network.call(&call))
        })
    }

    /// Forward with a tape.
    #[pyo3(signature = (x, state, lengths, mask, batch_first, training))]
    fn forward<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        state: Given<'_, 'py>,
        lengths: Given<'_, 'py>,
        mask: Given<'_, 'py>,
        batch_first: bool,
        training: bool,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>, Tape)> {
        guard(x.py(), || {
            let call = Call { x, state, live: Live { lengths, mask }, batch_first };
            let network = self.placed(x.py(), || arrays::is_wide("x", x))?;
            let dropout = training.then(|| {
                let seed = self.structure().spec().seed();
                random::mix(seed, self.draws.fetch_add(1, Ordering::Relaxed))
            });
            with_network!(network, network => network.forward(&call, dropout))
        })
    }

    /// The way back.
    #[pyo3(signature = (tape, dy, dstate))]
    fn backward<'py>(
        &self,
        py: Python<'py>,
        tape: &Bound<'py, Tape>,
        dy: Given<'_, 'py>,
        dstate: Given<'_, 'py>,
    ) -> PyResult<(Py<PyAny>, Py<PyAny>, Bound<'py, PyDict>)> {
        guard(py, || {
            let tape = tape.get();
            let network = self.placed(py, || Ok(matches!(tape.record, AnyTape::F64(_))))?;
            with_network!(network, network => network.backward(py, tape, dy, dstate))
        })
    }

    /// One step.
    #[pyo3(signature = (x_t, state, out))]
    fn step<'py>(
        &self,
        x_t: &Bound<'py, PyAny>,
        state: Given<'_, 'py>,
        out: Given<'_, 'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        let py = x_t.py();
        guard(py, || {
            let wide = || arrays::is_wide("x_t", x_t);
            if let Device::Gpu(_) = self.device() {
                let network = self.placed(py, wide)?;
                return with_network!(&network, network => network.step(x_t, state, out));
            }
            let network = self.ready(py, wide)?;
            with_network!(&*network, network => network.step(x_t, state, out))
        })
    }

    /// Runs zeros through it, so that the first call that counts finds everything there.
    fn warm_up(&self, py: Python<'_>, batch: usize, steps: usize) -> PyResult<()> {
        guard(py, || {
            let network = self.placed(py, || Ok(false))?;
            with_network!(network, network => network.warm_up(py, batch, steps))
        })
    }

    /// The programs of a recurrent layer on a GPU of the caller's, for a batch of one shape.
    #[expect(clippy::too_many_arguments, reason = "each is an argument in Python")]
    #[pyo3(signature = (batch, time, lengths, mask, batch_first, gradients, largest_buffer))]
    fn plan<'py>(
        &self,
        py: Python<'py>,
        batch: usize,
        time: usize,
        lengths: Given<'_, 'py>,
        mask: Given<'_, 'py>,
        batch_first: bool,
        gradients: bool,
        largest_buffer: u64,
    ) -> PyResult<Bound<'py, PyDict>> {
        guard(py, || {
            self.check_device(py, "dtype", Device::Gpu(0))?;
            let AnyLayer::F32(Layer::Recurrent(layer)) = self.structure() else {
                unreachable!("Python passes recurrent layers alone");
            };
            let layout = Layout { axes: Axes::of_sequence(batch_first), time, batch };
            let steps = batch::read_live(py, Live { lengths, mask }, layout)?;
            let place = |width| match layout.is_packed(&steps) {
                true => Place::packed(width),
                false => layout.place(width),
            };
            let stack = layer.stack();
            let plan = compute(py, || Plan::new(stack, &steps, place, gradients, largest_buffer))?;
            gpu::write_plan(py, &plan)
        })
    }

    /// How it stands on a batch, in numbers.
    #[expect(clippy::too_many_arguments, reason = "each is an argument in Python")]
    #[pyo3(signature = (loss_json, x, y, state, lengths, mask, batch_first))]
    fn diagnose<'py>(
        &self,
        loss_json: &str,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        state: Given<'_, 'py>,
        lengths: Given<'_, 'py>,
        mask: Given<'_, 'py>,
        batch_first: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        guard(x.py(), || {
            let call = Call { x, state, live: Live { lengths, mask }, batch_first };
            with_network!(self.any(x.py())?, network => network.diagnose(&call, y, loss_json))
        })
    }

    /// The zero state.
    fn initial_state(&self, py: Python<'_>, batch: usize) -> PyResult<Py<PyAny>> {
        guard(py, || with_network!(self.any(py)?, network => network.initial_state(py, batch)))
    }

    /// Copies of the parameters by name.
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        guard(py, || with_network!(self.any(py)?, network => network.state_dict(py)))
    }

    /// Takes over parameters by name; gives the names of parameters that are missing, and of
    /// arrays that are of no parameter.
    fn load_state_dict(
        &self,
        mapping: &Bound<'_, PyDict>,
        strict: bool,
    ) -> PyResult<(Vec<String>, Vec<String>)> {
        let py = mapping.py();
        guard(py, || {
            with_network!(self.any(py)?, network => {
                let found = weights::read(&network.model, Holder::Layer, mapping, strict)?;
                for (layer, numbers) in network.model.layers().iter().zip(found.layers) {
                    let mut layer = layer.clone();
                    layer.set_numbers(numbers).map_err(|error| errors::raise(py, error))?;
                    self.set(Kept::keep(layer));
                }
                Ok((found.missing, found.unexpected))
            })
        })
    }

    /// The same layer in a handle of its own.
    fn clone(&self, py: Python<'_>) -> PyResult<Self> {
        guard(py, || {
            let clone = Self::keep(self.get(py)?);
            clone.move_to(self.device());
            Ok(clone)
        })
    }

    /// Whether both compute the same bits.
    fn equals(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<bool> {
        guard(py, || {
            let (a, b) = (self.get(py)?, other.get().get(py)?);
            compute(py, || Ok(a.same(&b)))
        })
    }

    /// The layer as a model file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        guard(py, || {
            let layer = self.get(py)?;
            let bytes = compute(py, || crate::files::layer_bytes(&layer))?;
            Ok(PyBytes::new(py, &bytes))
        })
    }

    /// The layer of a model file.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        guard(py, || Ok(Self::keep(compute(py, || crate::files::layer_of_bytes(data))?)))
    }

    /// Writes a model file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        guard(py, || {
            let layer = self.get(py)?;
            compute(py, || crate::files::save_layer(&layer, &path))
        })
    }
}
