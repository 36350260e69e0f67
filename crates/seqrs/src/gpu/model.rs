//! A model whose parameters are on a device.

use std::sync::Arc;

use seqrs_core::backend::{State, StateMasks};
use seqrs_core::memory::Lent;
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::sequence::{self, BackendTape, Masks, StackWeights};
use seqrs_core::spec::Spec;
use seqrs_core::steps::Direction;
use seqrs_core::{Error, Steps, memory};
use seqrs_cpu::Cpu;
use seqrs_gpu::device::{Gpu, GpuError};
use seqrs_gpu::{Function, Linear, Normal, Numbers, Recorder, Weights};

use crate::layer::Layer;
use crate::layers::activation::Activation;
use crate::layers::dropout::{self, Places};
use crate::layers::recurrent::Recurrent;
use crate::model_tape::ModelGradients;
use crate::pace::for_each_item;
use crate::sequential::{Input, Link, ModelState, Output, Rank, Sequential};

/// A model on a GPU.
#[derive(Debug)]
pub struct GpuModel {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) recorder: Recorder,
    /// What it is made of. While it is trained its parameters are older than those of the device.
    pub(crate) model: Sequential<f32>,
    /// The parameters of each layer, in their order.
    pub(crate) parameters: Vec<Arc<Numbers>>,
    weights: Vec<StackWeights<Recorder>>,
}

/// A recorded pass through a [`GpuModel`]. It can be gone back any number of times.
#[derive(Debug)]
pub struct GpuTape {
    pub(crate) steps: Steps,
    /// The packed input, unless the first layer keeps it or reads ids.
    x: Option<Box<Numbers>>,
    records: Vec<Record>,
    links: Vec<Link>,
    pub(crate) width: usize,
    pub(crate) rank: Rank,
}

/// What one layer keeps.
#[derive(Debug)]
enum Record {
    Recurrent(BackendTape<Recorder>),
    Embedding { ids: Vec<usize>, y: Box<Numbers> },
    LayerNorm { kept: Normal, y: Box<Numbers> },
    Dropped { mask: Box<Numbers>, y: Box<Numbers> },
    MaxPool { sources: Numbers, y: Box<Numbers> },
    Rows { y: Box<Numbers> },
    Passed,
}

/// Gradients on the device: of each layer's parameters, and of the packed input where they flow.
pub(crate) type DeviceGradients = (Vec<Box<Numbers>>, Option<Box<Numbers>>);

/// States on the device.
pub(crate) type DeviceState = Vec<State<Box<Numbers>>>;

impl GpuModel {
    /// Takes the model to a device.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::OutOfMemory`]; [`Error::State`] if weights are small ones.
    pub fn new(gpu: Arc<Gpu>, model: Sequential<f32>) -> Result<Self, Error> {
        model.check_numbers()?;
        let recorder = gpu.recorder();
        let parameters = uploaded(&recorder, &model);
        let weights = weights_of_all(&model, &parameters);
        gpu.run_recorded(&recorder)?;
        Ok(Self { gpu, recorder, model, parameters, weights })
    }

    /// Puts the parameters of a model of the same structure in place, all or none.
    pub(crate) fn put(&mut self, model: &Sequential<f32>) -> Result<(), Error> {
        let parameters = uploaded(&self.recorder, model);
        self.gpu.run_recorded(&self.recorder)?;
        self.replace(parameters);
        self.model = model.clone();
        Ok(())
    }

    /// Goes on with other buffers of the device as parameters; gives those of before.
    pub(crate) fn replace(&mut self, parameters: Vec<Arc<Numbers>>) -> Vec<Arc<Numbers>> {
        self.weights = weights_of_all(&self.model, &parameters);
        std::mem::replace(&mut self.parameters, parameters)
    }

    /// What it is made of. Its parameters may be older than those of the device.
    pub fn structure(&self) -> &Sequential<f32> {
        &self.model
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The model with the parameters that the device has now.
    ///
    /// # Errors
    /// [`Error::NoDevice`], which says so if they are lost with it; [`Error::OutOfMemory`],
    /// [`Error::Interrupted`].
    pub fn to_cpu(&self) -> Result<Sequential<f32>, Error> {
        let wanted: Vec<&Numbers> = self.parameters.iter().map(|numbers| &**numbers).collect();
        let found = self.gpu.read_all(&self.recorder, &wanted).map_err(with_its_device)?;
        let mut model = self.model.clone();
        for (layer, numbers) in model.layers_mut().iter_mut().zip(found) {
            layer.set_numbers(numbers)?;
        }
        Ok(model)
    }

    /// Inference, as [`Sequential::infer_on`].
    ///
    /// # Errors
    /// As there, and [`Error::NoDevice`].
    pub fn infer(
        &self,
        x: Input<'_, f32>,
        steps: &Steps,
        state: &mut ModelState<f32>,
    ) -> Result<Output<f32>, Error> {
        let mut device = self.upload_state(state, steps.batch())?;
        let (y, width, rank) = self.infer_flow(x, steps, &mut device)?;
        let found = self.download(&[&y], &device)?;
        let [numbers] = <[Vec<f32>; 1]>::try_from(found.numbers).expect("one was asked for");
        *state = found.state;
        Ok(Output { numbers, width, rank })
    }

    /// Training: as [`GpuModel::infer`], but keeps what [`GpuModel::backward`] needs.
    ///
    /// # Errors
    /// As there.
    pub fn record(
        &self,
        x: Input<'_, f32>,
        steps: Steps,
        state: &mut ModelState<f32>,
        dropout: Option<u64>,
    ) -> Result<(Vec<f32>, GpuTape), Error> {
        let mut device = self.upload_state(state, steps.batch())?;
        let tape = self.record_flow(x, steps, &mut device, dropout)?;
        let found = self.download(&[tape.output()?], &device)?;
        let [y] = <[Vec<f32>; 1]>::try_from(found.numbers).expect("one was asked for");
        *state = found.state;
        Ok((y, tape))
    }

    /// The gradients, as [`Sequential::backward_on`].
    ///
    /// # Errors
    /// [`Error::Shape`] if `d_y` or `d_state` has another size than what it is the gradient of;
    /// [`Error::NoDevice`], [`Error::OutOfMemory`].
    pub fn backward(
        &self,
        tape: &GpuTape,
        d_y: Option<&[f32]>,
        d_state: &mut ModelState<f32>,
        want_d_x: bool,
    ) -> Result<ModelGradients<f32>, Error> {
        let len = tape.output()?.len();
        if let Some(d_y) = d_y
            && d_y.len() != len
        {
            let expected = format!("{len} numbers, as the output has");
            return Err(Error::shape("d_y", expected, d_y.len()));
        }
        let mut device = self.upload_state(d_state, tape.steps.batch())?;
        let d_y = d_y.map(|d_y| self.recorder.numbers(d_y));
        let (gradients, d_x) = self.backward_flow(tape, d_y, &mut device, want_d_x)?;
        let mut wanted: Vec<&Numbers> = gradients.iter().map(|numbers| &**numbers).collect();
        wanted.extend(d_x.as_deref());
        let mut found = self.download(&wanted, &device)?;
        *d_state = found.state;
        let x = match (&d_x, want_d_x && !self.model.takes_ids()) {
            (Some(_), _) => found.numbers.pop(),
            (None, true) => {
                let width = tape.links[0].input.unwrap_or(0);
                Some(memory::zeros("gradient of the input", tape.steps.items() * width)?)
            }
            (None, false) => None,
        };
        Ok(ModelGradients { layers: found.numbers, x })
    }

    // --- on the device

    pub(crate) fn upload_state(
        &self,
        state: &ModelState<f32>,
        batch: usize,
    ) -> Result<DeviceState, Error> {
        self.model.check_state(state, batch)?;
        let upload = |state: &State<Vec<f32>>| State {
            h: self.recorder.numbers(&state.h),
            c: state.c.as_ref().map(|c| self.recorder.numbers(c)),
        };
        Ok(state.iter().map(upload).collect())
    }

    /// Some buffers, and the states.
    pub(crate) fn download(
        &self,
        wanted: &[&Numbers],
        state: &DeviceState,
    ) -> Result<Downloaded, Error> {
        let mut all = wanted.to_vec();
        for State { h, c } in state {
            all.push(h);
            all.extend(c.as_deref());
        }
        let mut numbers = self.gpu.read_all(&self.recorder, &all)?;
        let mut states = numbers.split_off(wanted.len()).into_iter();
        let mut next = || states.next().expect("each was asked for");
        let state =
            state.iter().map(|State { c, .. }| State { h: next(), c: c.as_ref().map(|_| next()) });
        let state = state.collect();
        Ok(Downloaded { numbers, state })
    }

    /// The live rows of the input.
    fn packed(
        &self,
        rows: Rows<'_, [f32]>,
        steps: &Steps,
        width: usize,
    ) -> Result<Box<Numbers>, Error> {
        let mut packed = memory::room("packed rows", steps.items() * width)?;
        for_each_item(steps, width, |item, t, b| {
            packed.extend_from_slice(&rows.data[rows.place.offset(item, t, b)..][..width]);
        })?;
        Ok(self.recorder.numbers(&packed))
    }

    pub(crate) fn infer_flow(
        &self,
        x: Input<'_, f32>,
        steps: &Steps,
        state: &mut DeviceState,
    ) -> Result<(Box<Numbers>, usize, Rank), Error> {
        let tape = self.record_flow_if(x, steps.clone(), state, None, false)?;
        let (width, rank) = (tape.width, tape.rank);
        Ok((tape.take_output()?, width, rank))
    }

    pub(crate) fn record_flow(
        &self,
        x: Input<'_, f32>,
        steps: Steps,
        state: &mut DeviceState,
        dropout: Option<u64>,
    ) -> Result<GpuTape, Error> {
        self.record_flow_if(x, steps, state, dropout, true)
    }

    fn record_flow_if(
        &self,
        x: Input<'_, f32>,
        steps: Steps,
        state: &mut DeviceState,
        dropout: Option<u64>,
        recorded: bool,
    ) -> Result<GpuTape, Error> {
        let links = self.model.chain_for(&x, &steps)?;
        let last = links.last().expect("a model has at least one layer");
        let (width, rank) = (last.output.or(last.input).unwrap_or(0), self.model.output_rank());
        let packed = match x {
            Input::Numbers(rows, width) => Some(self.packed(rows, &steps, width)?),
            Input::Ids(_) => None,
        };
        let records = Vec::with_capacity(links.len());
        let mut tape = GpuTape { steps, x: packed, records, links, width, rank };
        for (k, layer) in self.model.layers().iter().enumerate() {
            let record = match (layer, x) {
                (Layer::Embedding(layer), Input::Ids(ids)) => {
                    let ids = layer.gather(ids, &tape.steps)?;
                    let rows: Vec<Option<usize>> = ids.iter().copied().map(Some).collect();
                    let width = layer.options().embedding_dim;
                    Record::Embedding {
                        y: self.recorder.rows_at(&self.parameters[k], &rows, width),
                        ids,
                    }
                }
                (Layer::Recurrent(layer), _) => {
                    let state = &mut state[tape.links[k].state];
                    self.recurrent(layer, k, &tape, state, dropout, recorded)?
                }
                _ => self.rows(layer, k, &tape, dropout)?,
            };
            let kept = if recorded { record } else { tape.replaced_by(record) };
            tape.records.push(kept);
        }
        Ok(tape)
    }

    fn recurrent(
        &self,
        layer: &Recurrent<f32>,
        k: usize,
        tape: &GpuTape,
        state: &mut State<Box<Numbers>>,
        dropout: Option<u64>,
        recorded: bool,
    ) -> Result<Record, Error> {
        let (stack, steps) = (layer.stack(), &tape.steps);
        let place = Place::packed(stack.options().input_size);
        let x = Rows { data: tape.input(k)?, place };
        let weights = &self.weights[k];
        if !recorded {
            let mut y = self.recorder.blank_of(steps.items() * stack.output_size());
            let to = RowsMut { data: &mut *y, place: Place::packed(stack.output_size()) };
            sequence::infer(&self.recorder, stack, weights, x, steps, state.lent(), to)?;
            return Ok(Record::Rows { y });
        }
        // The same masks as on the CPU, which draws them.
        let dropout = dropout.map(|draw| (draw, k));
        let masks = dropout::masks(&Cpu::new()?, stack, steps, dropout)?;
        let upload = |mask: Lent<f32>| self.recorder.numbers(&mask);
        let between = masks.between.into_iter().map(upload).collect();
        let of_states = |drawn: StateMasks<Lent<f32>>| StateMasks {
            recurrent: drawn.recurrent.map(upload),
            kept_h: drawn.kept_h.map(upload),
            kept_c: drawn.kept_c.map(upload),
        };
        let of_layer = |drawn: Vec<_>| drawn.into_iter().map(of_states).collect();
        let states = masks.states.into_iter().map(of_layer).collect();
        let masks = Masks { between, states };
        let recorded =
            sequence::record(&self.recorder, stack, weights, x, steps.clone(), state, masks)?;
        Ok(Record::Recurrent(recorded))
    }

    /// The layers that have no state, on packed rows.
    fn rows(
        &self,
        layer: &Layer<f32>,
        k: usize,
        tape: &GpuTape,
        dropout: Option<u64>,
    ) -> Result<Record, Error> {
        let (rec, link, steps) = (&self.recorder, &tape.links[k], &tape.steps);
        let (x, width) = (tape.input(k)?, link.input.unwrap_or(1));
        let parameters = &self.parameters[k];
        Ok(match layer {
            Layer::Linear(layer) => {
                let rows = x.len() / width.max(1);
                Record::Rows { y: rec.linear(sizes(layer.options()), x, rows, parameters) }
            }
            Layer::LayerNorm(layer) => {
                let (y, kept) = rec.layer_norm(x, width, layer.options().eps as f32, parameters);
                Record::LayerNorm { kept, y }
            }
            Layer::Activation(Activation::Softmax) => Record::Rows { y: rec.softmax(x, width) },
            Layer::Activation(activation) => {
                Record::Rows { y: rec.function(function(*activation), x) }
            }
            Layer::Dropout(dropped) => match dropout {
                Some(draw) if dropped.p > 0.0 => {
                    let places = match link.rank {
                        Rank::Steps => Places::of_steps(steps)?,
                        Rank::Rows => Places::All(steps.batch()),
                    };
                    let at = (k, 0);
                    let mask = dropout::mask(&Cpu::new()?, draw, at, dropped.p, &places, width)?;
                    let mask = rec.numbers(&mask);
                    let y = seqrs_core::backend::Backend::times(rec, x, &mask)?;
                    Record::Dropped { y, mask }
                }
                _ => Record::Passed,
            },
            Layer::Last => {
                let mut y = None;
                for (columns, rows) in last_items(steps, width, link.both_ways) {
                    y = Some(rec.columns_at(x, &rows, columns, width, y));
                }
                Record::Rows { y: y.expect("columns of at least one direction") }
            }
            Layer::MeanPool => {
                let y = rec.zeros_of(steps.batch() * width);
                rec.sum_rows(x, &rec.groups(&items_of_rows(steps), width), width, true, &y);
                Record::Rows { y }
            }
            Layer::MaxPool => {
                let groups = rec.groups(&items_of_rows(steps), width);
                let (y, sources) = rec.largest_rows(x, &groups, width);
                Record::MaxPool { sources, y }
            }
            Layer::Embedding(_) | Layer::Recurrent(_) => unreachable!("reads no rows"),
        })
    }

    /// The way back of [`record_flow`](Self::record_flow); the input's gradient if it is asked for.
    pub(crate) fn backward_flow(
        &self,
        tape: &GpuTape,
        d_y: Option<Box<Numbers>>,
        d_state: &mut DeviceState,
        want_d_x: bool,
    ) -> Result<DeviceGradients, Error> {
        let rec = &self.recorder;
        let zeros = |layer: &Layer<f32>| rec.zeros_of(layer.num_parameters());
        let mut gradients: Vec<Box<Numbers>> = self.model.layers().iter().map(zeros).collect();
        let mut flow = d_y;
        for (k, layer) in self.model.layers().iter().enumerate().rev() {
            let want = (k > 0 || want_d_x) && !matches!(layer, Layer::Embedding(_));
            flow = match (layer, &tape.records[k]) {
                (Layer::Recurrent(layer), Record::Recurrent(record)) => {
                    let place = Place::packed(layer.stack().output_size());
                    let d_y = flow.as_deref().map(|data| Rows { data, place });
                    let d_state = &mut d_state[tape.links[k].state];
                    let weights = &self.weights[k];
                    let stack = layer.stack();
                    let d_parameters = &mut gradients[k];
                    sequence::backward(
                        rec,
                        stack,
                        weights,
                        record,
                        d_y,
                        d_state,
                        d_parameters,
                        want,
                    )?
                }
                (layer, record) => match flow {
                    None => None,
                    Some(d_y) => {
                        self.rows_back(layer, k, tape, record, d_y, &gradients[k], want)?
                    }
                },
            };
        }
        Ok((gradients, flow))
    }

    #[expect(clippy::too_many_arguments, reason = "each is a quantity of the algorithm")]
    fn rows_back(
        &self,
        layer: &Layer<f32>,
        k: usize,
        tape: &GpuTape,
        record: &Record,
        d_y: Box<Numbers>,
        d_parameters: &Numbers,
        want_d_x: bool,
    ) -> Result<Option<Box<Numbers>>, Error> {
        let (rec, link, steps) = (&self.recorder, &tape.links[k], &tape.steps);
        let width = link.input.unwrap_or(1);
        let parameters = &self.parameters[k];
        let d_items = || rec.zeros_of(steps.items() * width);
        Ok(match (layer, record) {
            (Layer::Embedding(layer), Record::Embedding { ids, .. }) => {
                let width = layer.options().embedding_dim;
                let padding = layer.options().padding_idx;
                let groups = rec.groups(&items_of_ids(ids, padding), width);
                rec.sum_rows(&d_y, &groups, width, false, d_parameters);
                None
            }
            (Layer::Linear(layer), Record::Rows { .. }) => {
                let x = tape.input(k)?;
                let rows = x.len() / width.max(1);
                let layer = sizes(layer.options());
                rec.linear_back(layer, x, &d_y, rows, parameters, d_parameters, want_d_x)
            }
            (Layer::LayerNorm(_), Record::LayerNorm { kept, .. }) => {
                Some(rec.layer_norm_back(kept, &d_y, width, parameters, d_parameters))
            }
            (Layer::Activation(Activation::Softmax), Record::Rows { y }) => {
                Some(rec.softmax_back(y, &d_y, width))
            }
            (Layer::Activation(activation), Record::Rows { y }) => {
                Some(rec.function_back(function(*activation), y, &d_y))
            }
            (Layer::Dropout(_), Record::Passed) => Some(d_y),
            (Layer::Dropout(_), Record::Dropped { mask, .. }) => {
                Some(seqrs_core::backend::Backend::times(rec, &d_y, mask)?)
            }
            (Layer::Last, Record::Rows { .. }) => {
                let d_x = d_items();
                for (columns, rows) in last_items(steps, width, link.both_ways) {
                    rec.columns_to(&d_y, &rows, columns, width, &d_x);
                }
                Some(d_x)
            }
            (Layer::MeanPool, Record::Rows { .. }) => {
                let d_x = d_items();
                rec.spread_mean(&d_y, &rec.groups(&items_of_rows(steps), width), width, &d_x);
                Some(d_x)
            }
            (Layer::MaxPool, Record::MaxPool { sources, .. }) => {
                let d_x = d_items();
                rec.largest_rows_back(&d_y, sources, steps.batch(), width, &d_x);
                Some(d_x)
            }
            (layer, _) => {
                let expected = format!("the record of a layer like {}", layer.name());
                return Err(Error::state("tape", expected, "that of another kind"));
            }
        })
    }
}

/// What came from the device.
pub(crate) struct Downloaded {
    pub(crate) numbers: Vec<Vec<f32>>,
    pub(crate) state: ModelState<f32>,
}

impl GpuTape {
    /// Which rows were live.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Numbers in a row of the output.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What the rows of the output belong to.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Bytes of everything that was kept on the device.
    pub fn nbytes(&self) -> usize {
        let records = self.records.iter().map(|record| match record {
            Record::Recurrent(tape) => recurrent_numbers(tape),
            Record::LayerNorm { kept, y } => kept.len() + y.len(),
            Record::Dropped { mask, y } => mask.len() + y.len(),
            Record::MaxPool { sources, y } => sources.len() + y.len(),
            Record::Embedding { y, .. } | Record::Rows { y } => y.len(),
            Record::Passed => 0,
        });
        let x = self.x.as_ref().map_or(0, |x| x.len());
        size_of::<f32>() * (x + records.sum::<usize>())
    }

    /// What the model gave out.
    pub(crate) fn output(&self) -> Result<&Numbers, Error> {
        self.input(self.records.len())
    }

    /// The packed rows that layer `k` read: what the one before it gave.
    fn input(&self, k: usize) -> Result<&Numbers, Error> {
        let given = self.records[..k].iter().rev().find_map(Record::y).or(self.x.as_deref());
        given.ok_or_else(|| Error::dtype("x", "numbers", "ids"))
    }

    /// As [`output`](Self::output), for good.
    fn take_output(mut self) -> Result<Box<Numbers>, Error> {
        let given = self.records.into_iter().rev().find_map(Record::into_y).or(self.x.take());
        given.ok_or_else(|| Error::dtype("x", "numbers", "ids"))
    }

    /// What inference keeps of a layer: its output, and nothing more of those before it, whose
    /// buffers are for what comes next.
    fn replaced_by(&mut self, record: Record) -> Record {
        let Some(y) = record.into_y() else { return Record::Passed };
        self.x = None;
        self.records.fill_with(|| Record::Passed);
        Record::Rows { y }
    }
}

impl Record {
    /// The layer's output, unless it is what the one before it gave.
    fn y(&self) -> Option<&Numbers> {
        match self {
            Self::Recurrent(tape) => Some(tape.y()),
            Self::Embedding { y, .. }
            | Self::LayerNorm { y, .. }
            | Self::Dropped { y, .. }
            | Self::MaxPool { y, .. }
            | Self::Rows { y } => Some(y),
            Self::Passed => None,
        }
    }

    /// As [`y`](Self::y), for good.
    fn into_y(self) -> Option<Box<Numbers>> {
        match self {
            Self::Recurrent(mut tape) => tape.layers.pop().map(|last| last.y),
            Self::Embedding { y, .. }
            | Self::LayerNorm { y, .. }
            | Self::Dropped { y, .. }
            | Self::MaxPool { y, .. }
            | Self::Rows { y } => Some(y),
            Self::Passed => None,
        }
    }
}

fn recurrent_numbers(tape: &BackendTape<Recorder>) -> usize {
    let layers = tape.layers.iter().map(|layer| {
        let directions: usize = layer.directions.iter().map(seqrs_gpu::Record::len).sum();
        let dropped = layer.dropout.as_ref().map_or(0, |d| d.mask.len() + d.y.len());
        directions + layer.y.len() + dropped
    });
    tape.x.len() + layers.sum::<usize>()
}

/// The error for parameters that cannot come back.
pub(super) fn with_its_device(error: GpuError) -> Error {
    match error {
        GpuError::DeviceLost(reason) => {
            let got = format!("a GPU that is lost with them ({reason})");
            Error::no_device("parameters", "the GPU that alone has them as they are now", got)
        }
        error => error.into(),
    }
}

/// The parameters of each layer, on the device.
fn uploaded(recorder: &Recorder, model: &Sequential<f32>) -> Vec<Arc<Numbers>> {
    let layers = model.layers().iter();
    layers.map(|layer| Arc::from(recorder.numbers(layer.numbers()))).collect()
}

fn weights_of_all(
    model: &Sequential<f32>,
    parameters: &[Arc<Numbers>],
) -> Vec<StackWeights<Recorder>> {
    let layers = model.layers().iter().zip(parameters);
    layers.map(|(layer, numbers)| weights_of(layer, numbers)).collect()
}

fn weights_of(layer: &Layer<f32>, numbers: &Arc<Numbers>) -> StackWeights<Recorder> {
    match layer {
        Layer::Recurrent(layer) => stack_weights(layer.stack(), numbers),
        _ => Vec::new(),
    }
}

/// The parameters of each layer and direction, all in one buffer.
pub(super) fn stack_weights(stack: &Spec, numbers: &Arc<Numbers>) -> StackWeights<Recorder> {
    let of_layer = |l: usize| {
        let directions = 0..stack.directions().len();
        directions
            .map(|d| Weights::new(Arc::clone(numbers), stack.slot_range(l, d).start))
            .collect()
    };
    (0..stack.num_layers()).map(of_layer).collect()
}

fn sizes(options: &crate::layers::linear::Linear) -> Linear {
    Linear { inputs: options.in_features, outputs: options.out_features, bias: options.bias }
}

fn function(activation: Activation) -> Function {
    match activation {
        Activation::Tanh => Function::Tanh,
        Activation::Relu => Function::Relu,
        Activation::Sigmoid => Function::Sigmoid,
        Activation::Softmax => unreachable!("it is no function of one number"),
    }
}

/// The columns of each direction, and for each row the item whose output is its last one.
fn last_items(
    steps: &Steps,
    width: usize,
    both_ways: bool,
) -> Vec<(std::ops::Range<usize>, Vec<Option<usize>>)> {
    let forward = steps.last(Direction::Forward);
    match both_ways {
        false => vec![(0..width, forward)],
        true => vec![(0..width / 2, forward), (width / 2..width, steps.last(Direction::Reverse))],
    }
}

/// The items of each row of the batch, in the order of time.
fn items_of_rows(steps: &Steps) -> Vec<(usize, Vec<u32>)> {
    let mut rows: Vec<(usize, Vec<u32>)> = (0..steps.batch()).map(|b| (b, Vec::new())).collect();
    steps.for_each(|item, _, b| rows[b].1.push(item as u32));
    rows
}

/// The items of each id that occurs, in order.
fn items_of_ids(ids: &[usize], padding: Option<usize>) -> Vec<(usize, Vec<u32>)> {
    let mut items = std::collections::BTreeMap::<usize, Vec<u32>>::new();
    for (item, &id) in ids.iter().enumerate().filter(|&(_, &id)| Some(id) != padding) {
        items.entry(id).or_default().push(item as u32);
    }
    items.into_iter().collect()
}
