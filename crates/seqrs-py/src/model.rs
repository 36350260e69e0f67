//! The handle of a model: layers that others may hold too.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use seqrs::number::DType;
use seqrs::{Layer, Sequential};
use seqrs_core::Error;

use crate::batch::Live;
use crate::device::{self, Device, Resident};
use crate::entry::{compute, guard};
use crate::errors;
use crate::layer::{AnyLayer, AnyNetwork, Given, Kept, PyLayer, next_handle, with_network};
use crate::network::{Call, Network};
use crate::quantised::PyQuantised;
use crate::state::Holder;
use crate::tape::Tape;
use crate::weights;

/// Layers one after the other.
#[pyclass(frozen, name = "Model", module = "seqrs._seqrs")]
pub(crate) struct PyModel {
    id: u64,
    layers: Vec<Py<PyLayer>>,
    dtype: DType,
    /// On a GPU, if it was last called there.
    resident: Mutex<Option<Arc<Resident>>>,
    /// Dropout draws made so far.
    draws: AtomicU64,
    /// To be stepped, with the number of changes of each layer when it was made.
    ready: Mutex<Option<(Vec<u64>, Arc<AnyNetwork>)>>,
}

impl PyModel {
    /// The layers of a model that was read, each in a handle of its own.
    pub(crate) fn keep<T: Kept>(py: Python<'_>, model: &Sequential<T>) -> PyResult<Self> {
        let layers = model.layers().iter();
        let layers = layers.map(|layer| Py::new(py, PyLayer::keep(T::keep(layer.clone()))));
        Ok(Self {
            id: next_handle(),
            layers: layers.collect::<PyResult<_>>()?,
            dtype: T::DTYPE,
            resident: Mutex::default(),
            draws: AtomicU64::new(0),
            ready: Mutex::default(),
        })
    }

    /// The number type of all layers that have one; f32 if none has.
    fn common_dtype(py: Python<'_>, layers: &[Py<PyLayer>]) -> PyResult<DType> {
        let mut found: Option<(usize, DType)> = None;
        for (k, layer) in layers.iter().enumerate() {
            let layer = layer.get().structure();
            let Some(dtype) = layer.dtype() else { continue };
            match found {
                None => found = Some((k, dtype)),
                Some((first, other)) if other != dtype => {
                    return Err(errors::dtype(
                        py,
                        format!("layer {k} ({})", layer.spec().name()),
                        format!("{other}, as layer {first} has"),
                        dtype,
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(found.map_or(DType::F32, |(_, dtype)| dtype))
    }

    fn sequential<T: Kept>(layers: &[AnyLayer]) -> Result<Sequential<T>, Error> {
        let of = |layer: &AnyLayer| Ok(T::layer(layer)?.expect("compared when the model was made"));
        Sequential::new(layers.iter().map(of).collect::<Result<_, Error>>()?)
    }

    /// The model at this moment.
    pub(crate) fn network<T: Kept>(&self, py: Python<'_>) -> PyResult<Network<T>> {
        let layers = self.layers.iter().map(|layer| layer.get().get(py));
        let layers = layers.collect::<PyResult<Vec<AnyLayer>>>()?;
        let model = Self::sequential(&layers).map_err(|error| errors::raise(py, error))?;
        Ok(Network { model, holder: Holder::Model, owner: self.id, resident: None })
    }

    /// The model, to look at; whoever computes takes it where it is [`placed`](Self::placed).
    pub(crate) fn any(&self, py: Python<'_>) -> PyResult<AnyNetwork> {
        Ok(match self.dtype {
            DType::F32 => AnyNetwork::F32(self.network(py)?),
            DType::F64 => AnyNetwork::F64(self.network(py)?),
        })
    }

    /// The model to step on the CPU: made once for all steps until a layer changes.
    fn ready(&self, py: Python<'_>) -> PyResult<Arc<AnyNetwork>> {
        let mut ready = device::locked(&self.ready).take();
        for (k, layer) in self.layers.iter().enumerate() {
            let changes = layer.get().changes(py)?;
            ready = ready.filter(|(before, _)| before[k] == changes);
        }
        let (before, network) = match ready {
            Some(ready) => ready,
            None => {
                let changes = self.layers.iter().map(|layer| layer.get().changes(py));
                (changes.collect::<PyResult<_>>()?, Arc::new(self.any(py)?))
            }
        };
        let found = Arc::clone(&network);
        *device::locked(&self.ready) = Some((before, network));
        Ok(found)
    }

    /// The model, to compute on its device.
    pub(crate) fn placed(&self, py: Python<'_>) -> PyResult<AnyNetwork> {
        let device = self.device(py)?;
        let mut any = self.any(py)?;
        if let (AnyNetwork::F32(network), Device::Gpu(number)) = (&mut any, device) {
            network.resident = Some(device::resident(py, number, &network.model, &self.resident)?);
        }
        Ok(any)
    }

    /// Where all of its layers compute.
    pub(crate) fn device(&self, py: Python<'_>) -> PyResult<Device> {
        let mut devices = self.layers.iter().map(|layer| layer.get().device()).enumerate();
        let first = devices.next().map_or(Device::Cpu, |(_, device)| device);
        match devices.find(|(_, device)| *device != first) {
            None => Ok(first),
            Some((k, device)) => {
                let expected = format!("{}, as layer 0", first.name());
                Err(errors::state(py, format!("device of layer {k}"), expected, device.name()))
            }
        }
    }

    /// Its layers.
    pub(crate) fn handles(&self) -> &[Py<PyLayer>] {
        &self.layers
    }

    /// The number type of its layers.
    pub(crate) fn number_type(&self) -> DType {
        self.dtype
    }

    /// Puts the parameters of these layers in place, all of them before anyone else looks:
    /// the GIL is held throughout.
    pub(crate) fn put<T: Kept>(&self, _py: Python<'_>, layers: &[Layer<T>]) {
        // It would keep the parameters from before.
        *device::locked(&self.ready) = None;
        for (handle, layer) in self.layers.iter().zip(layers) {
            handle.get().set(T::keep(layer.clone()));
        }
    }

    fn reseed<T: Kept>(&self, py: Python<'_>, seed: u64) -> PyResult<()> {
        let network = self.network::<T>(py)?;
        let model = compute(py, || network.model.reseeded(seed))?;
        self.put(py, model.layers());
        Ok(())
    }
}

#[pymethods]
impl PyModel {
    /// A model of these layers; a seed initialises them anew.
    #[new]
    #[pyo3(signature = (layers, seed))]
    fn new(py: Python<'_>, layers: Vec<Py<PyLayer>>, seed: Option<u64>) -> PyResult<Self> {
        guard(py, || {
            let dtype = Self::common_dtype(py, &layers)?;
            let (resident, draws) = (Mutex::default(), AtomicU64::new(0));
            let ready = Mutex::default();
            let model = Self { id: next_handle(), layers, dtype, resident, draws, ready };
            // Refuses layers that do not fit.
            model.any(py)?;
            match (seed, dtype) {
                (None, _) => {}
                (Some(seed), DType::F32) => model.reseed::<f32>(py, seed)?,
                (Some(seed), DType::F64) => model.reseed::<f64>(py, seed)?,
            }
            Ok(model)
        })
    }

    /// The layers.
    #[getter]
    fn layers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        guard(py, || PyList::new(py, &self.layers))
    }

    /// "float32" or "float64".
    #[getter]
    fn dtype(&self, py: Python<'_>) -> PyResult<&'static str> {
        guard(py, || Ok(self.dtype.name()))
    }

    /// "cpu", or "gpu:" and a number.
    #[getter(device)]
    fn device_name(&self, py: Python<'_>) -> PyResult<String> {
        guard(py, || Ok(self.device(py)?.name()))
    }

    /// Computes there from now on, and its layers too.
    fn to(&self, py: Python<'_>, device: &str) -> PyResult<()> {
        guard(py, || {
            let device = Device::parse(py, device)?;
            for (k, layer) in self.layers.iter().enumerate() {
                layer.get().check_device(py, &format!("dtype of layer {k}"), device)?;
            }
            if let Device::Gpu(number) = device {
                device::gpu(py, number)?;
            }
            self.layers.iter().for_each(|layer| layer.get().move_to(device));
            *device::locked(&self.resident) = None;
            Ok(())
        })
    }

    /// Numbers in all parameters.
    #[getter]
    fn num_parameters(&self, py: Python<'_>) -> PyResult<usize> {
        guard(py, || Ok(with_network!(self.any(py)?, network => network.model.num_parameters())))
    }

    /// Features of y, or None.
    #[getter]
    fn output_size(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        guard(py, || Ok(with_network!(self.any(py)?, network => network.model.output_width())))
    }

    /// A hash of structure and parameters.
    #[getter]
    fn fingerprint(&self, py: Python<'_>) -> PyResult<String> {
        guard(
            py,
            || with_network!(self.any(py)?, network => compute(py, || Ok(network.model.fingerprint()))),
        )
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
            with_network!(self.placed(x.py())?, network => network.call(&call))
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
            with_network!(self.placed(x.py())?, network => {
                let draw = || network.model.draw(self.draws.fetch_add(1, Ordering::Relaxed));
                network.forward(&call, training.then(draw))
            })
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
        guard(
            py,
            || with_network!(self.placed(py)?, network => network.backward(py, tape.get(), dy, dstate)),
        )
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
            if let Device::Gpu(_) = self.device(py)? {
                return with_network!(self.placed(py)?, network => network.step(x_t, state, out));
            }
            with_network!(&*self.ready(py)?, network => network.step(x_t, state, out))
        })
    }

    /// Runs zeros through it, so that the first call that counts finds everything there.
    fn warm_up(&self, py: Python<'_>, batch: usize, steps: usize) -> PyResult<()> {
        guard(py, || with_network!(self.placed(py)?, network => network.warm_up(py, batch, steps)))
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
                let found = weights::read(&network.model, Holder::Model, mapping, strict)?;
                let mut layers = network.model.layers().to_vec();
                for (layer, numbers) in layers.iter_mut().zip(found.layers) {
                    layer.set_numbers(numbers).map_err(|error| errors::raise(py, error))?;
                }
                self.put(py, &layers);
                Ok((found.missing, found.unexpected))
            })
        })
    }

    /// The model with small weights.
    fn quantize(&self, py: Python<'_>, kind: &str) -> PyResult<PyQuantised> {
        guard(py, || match self.dtype {
            DType::F32 => PyQuantised::of(py, &self.network(py)?.model, kind),
            DType::F64 => Err(errors::dtype(py, "quantize", "a float32 model", DType::F64)),
        })
    }

    /// Writes a model file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        guard(py, || {
            let network = self.any(py)?;
            compute(py, || with_network!(&network, network => network.model.save(&path)))
        })
    }
}
