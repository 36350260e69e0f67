//! A stack of layers with its inputs, and everything that comes out of it on any backend.

use std::cell::Cell;
use std::ops::{Deref, DerefMut, Range};
use std::sync::OnceLock;

use seqrs_core::backend::{Backend, State, StateMasks};
use seqrs_core::cell::CellKind;
use seqrs_core::naive::Naive;
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::sequence::{self, Masks};
use seqrs_core::spec::Options;
use seqrs_core::{Error, Spec, Steps};
use seqrs_gpu::device::Gpu;
use seqrs_gpu::{Numbers, Recorder};

/// Of the largest value: f32 sums of some hundred terms (`PACKAGE_TO_REFERENCE_F32` in
/// tests/README.md).
pub(crate) const TOLERANCE: f64 = 3e-5;

/// The device of all tests.
pub(crate) fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| match Gpu::new(0) {
        Ok(gpu) => {
            eprintln!("on {:?}", gpu.description());
            Some(gpu)
        }
        Err(error) => {
            assert_ne!(std::env::var("SEQRS_REQUIRE_GPU").as_deref(), Ok("1"), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    })
    .as_ref()
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) options: Options,
    pub(crate) steps: Steps,
    /// Of the parameters.
    pub(crate) scale: f64,
    /// Of the input.
    pub(crate) x_scale: f64,
    pub(crate) with_d_y: bool,
    /// The number of the first row: each has its own inputs, whichever rows are beside it.
    pub(crate) first_row: usize,
    /// Whether training draws masks for the states.
    pub(crate) drawn: bool,
    /// A step and a row whose first input is NaN.
    pub(crate) nan: Option<(usize, usize)>,
}

/// Something that comes out.
pub(crate) struct Quantity {
    pub(crate) name: &'static str,
    layout: Layout,
    pub(crate) values: Vec<f64>,
}

/// How the numbers of a quantity lie.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// (B, T, width).
    Padded,
    /// (items, width).
    Packed,
    /// (slots, B, width).
    States,
    /// Sums over all rows.
    Summed,
}

impl Case {
    pub(crate) fn new(cell: CellKind, hidden: usize, time: usize, lengths: &[usize]) -> Self {
        Self {
            options: Options::new(cell, 5, hidden),
            steps: Steps::from_lengths(time, lengths).unwrap(),
            scale: 0.5,
            x_scale: 1.0,
            with_d_y: true,
            first_row: 0,
            drawn: false,
            nan: None,
        }
    }

    pub(crate) fn projected(hidden: usize, size: usize, time: usize, lengths: &[usize]) -> Self {
        Self::projected_of(CellKind::Lstm, hidden, size, time, lengths)
    }

    fn projected_of(
        cell: CellKind,
        hidden: usize,
        size: usize,
        time: usize,
        lengths: &[usize],
    ) -> Self {
        let mut case = Self::new(cell, hidden, time, lengths);
        case.options.proj_size = size;
        case
    }

    /// Every cell, and those that can be normalised so too.
    pub(crate) fn every_cell(hidden: usize, time: usize, lengths: &[usize]) -> Vec<Self> {
        let cells = CellKind::ALL.map(|cell| Self::new(cell, hidden, time, lengths));
        let mut all = Vec::from(cells);
        Self::add_normalised(&mut all);
        all
    }

    /// Every cell, those that can be projected so too, and those that can be normalised so too in
    /// either form, with `change` made to each.
    pub(crate) fn all_cells(
        hidden: usize,
        time: usize,
        lengths: &[usize],
        change: impl Fn(&mut Self),
    ) -> Vec<Self> {
        let cells = CellKind::ALL.map(|cell| Self::new(cell, hidden, time, lengths));
        let mut all = Vec::from(cells);
        let projected = CellKind::ALL.into_iter().filter(|cell| cell.states() > 1);
        all.extend(
            projected.map(|cell| Self::projected_of(cell, hidden, hidden / 2, time, lengths)),
        );
        Self::add_normalised(&mut all);
        all.iter_mut().for_each(change);
        all
    }

    fn add_normalised(cases: &mut Vec<Self>) {
        let can_be = cases.iter().filter(|case| case.options.cell.may_be_normalised());
        let mut normalised: Vec<Self> = can_be.cloned().collect();
        normalised.iter_mut().for_each(|case| case.options.layer_norm = true);
        cases.extend(normalised);
    }

    /// The most numbers that a buffer holds for an item: of the record, or of gradients.
    pub(crate) fn numbers_of_an_item(&self) -> usize {
        let (cell, hidden) = (self.options.cell, self.options.hidden_size);
        let counts = cell.counts();
        let parts = if counts.one_gate_gradient { 1 } else { 2 };
        let mut record = (counts.saved + cell.states()) * hidden;
        let mut gradients = (parts * counts.gates + counts.per_unit) * hidden;
        if self.options.layer_norm {
            // Of h' W_hh^T, and of c where there is one.
            let (norms, normalised) = (cell.states(), (counts.gates + cell.states() - 1) * hidden);
            record += normalised + norms;
            gradients += normalised;
        }
        // The shares of the states that zoneout keeps, and what the step gave.
        let states = if self.options.proj_size > 0 { self.options.proj_size } else { hidden };
        let mixes = self.options.zoneout > 0.0 || self.options.zoneout_cell > 0.0;
        let mixed = if mixes { 2 * (states + (cell.states() - 1) * hidden) } else { 0 };
        record.max(gradients).max(mixed)
    }

    pub(crate) fn row(&self, b: usize) -> Self {
        let mut alone = self.clone();
        let live = |t: usize, _: usize| self.steps.is_live(t, b);
        alone.steps = Steps::from_mask(self.steps.time(), 1, live).unwrap();
        alone.first_row += b;
        alone
    }

    fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row + self.steps.batch()
    }

    /// The values of row `b` in `quantity`, bit for bit; none of what is summed over rows.
    pub(crate) fn bits_of_row(&self, quantity: &Quantity, b: usize) -> Vec<u64> {
        let (values, batch) = (&quantity.values, self.steps.batch());
        let slots = self.options.num_layers * (1 + usize::from(self.options.bidirectional));
        let rows = match quantity.layout {
            _ if values.is_empty() => vec![],
            Layout::Summed => vec![],
            Layout::Padded => vec![(b, values.len() / batch)],
            Layout::States => {
                (0..slots).map(|s| (s * batch + b, values.len() / slots / batch)).collect()
            }
            Layout::Packed => {
                let mut rows = Vec::new();
                self.steps.for_each(|item, _, row| {
                    if row == b {
                        rows.push((item, values.len() / self.steps.items()));
                    }
                });
                rows
            }
        };
        rows.into_iter().flat_map(|(at, width)| bits(&values[at * width..][..width])).collect()
    }
}

pub(crate) fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Numbers in [-1, 1) that f32 holds exactly.
pub(crate) fn random(seed: u64, len: usize) -> Vec<f64> {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    (0..len)
        .map(|_| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            (bits >> 40) as f64 / f64::from(1u32 << 23) - 1.0
        })
        .collect()
}

fn random_rows(seed: u64, rows: Range<usize>, width: usize) -> Vec<f64> {
    rows.flat_map(|row| random(1000 * seed + row as u64, width)).collect()
}

/// What training draws for the states, if it does. That of a row depends on the number of the row.
fn masks<Buffer>(
    case: &Case,
    spec: &Spec,
    upload: impl Fn(&[f64]) -> Buffer,
) -> Vec<Vec<StateMasks<Buffer>>> {
    if !case.drawn {
        return vec![];
    }
    let (o, steps) = (spec.options(), &case.steps);
    let draw = |seed: usize, share: f64, kept: f64, width: usize, times: usize| {
        let chosen = |v: f64| if v > 2.0 * share - 1.0 { 0.0 } else { kept };
        let rows = random_rows(seed as u64, case.rows(), times * width);
        rows.into_iter().map(chosen).collect::<Vec<f64>>()
    };
    let kept = |seed: usize, share: f64, width: usize| {
        (share > 0.0).then(|| {
            let drawn = draw(seed, share, 1.0, width, steps.time());
            let mut packed = vec![0.0; steps.items() * width];
            steps.for_each(|item, t, b| {
                let row = &drawn[(b * steps.time() + t) * width..][..width];
                packed[item * width..][..width].copy_from_slice(row);
            });
            upload(&packed)
        })
    };
    let recurrent = |seed: usize| {
        let left = 1.0 - o.recurrent_dropout;
        let mask = || draw(seed, left, 1.0 / left, spec.state_size(), 1);
        (o.recurrent_dropout > 0.0).then(|| upload(&mask()))
    };
    let slot = |slot: usize| StateMasks {
        recurrent: recurrent(1000 + 3 * slot),
        kept_h: kept(1001 + 3 * slot, o.zoneout, spec.state_size()),
        kept_c: kept(1002 + 3 * slot, o.zoneout_cell, o.hidden_size),
    };
    let directions = spec.directions().len();
    let layer = |l: usize| (l * directions..(l + 1) * directions).map(slot).collect();
    (0..spec.num_layers()).map(layer).collect()
}

/// Everything that comes out of a stack of layers on `backend`, whose buffers `upload` makes and
/// `read` reads.
///
/// # Errors
/// Those of the backend.
pub(crate) fn outcome<B, Buffer>(
    backend: &B,
    case: &Case,
    upload: impl Fn(&[f64]) -> Buffer,
    read: impl Fn(&B::Slice) -> Vec<f64>,
) -> Result<Vec<Quantity>, Error>
where
    B: Backend<Buffer = Buffer, Scratch = Buffer>,
    Buffer: Deref<Target = B::Slice> + DerefMut + Send + Sync,
{
    let spec = Spec::new(case.options.clone())?;
    let steps = &case.steps;
    let (time, batch) = (steps.time(), steps.batch());
    let o = spec.options();
    let parameters: Vec<f64> = random(1, spec.len()).iter().map(|v| v * case.scale).collect();
    let weights: sequence::StackWeights<B> = (0..spec.num_layers())
        .map(|l| {
            (0..spec.directions().len())
                .map(|d| {
                    let part = upload(&parameters[spec.slot_range(l, d)]);
                    backend.weights(&spec.shape(l), &part)
                })
                .collect()
        })
        .collect::<Result<_, _>>()?;
    let mut x = random_rows(2, case.rows(), time * o.input_size);
    x.iter_mut().for_each(|value| *value *= case.x_scale);
    if let Some((t, b)) = case.nan {
        x[(b * time + t) * o.input_size] = f64::NAN;
    }
    let x = upload(&x);
    let x = Rows { data: &*x, place: Place::batch_first(time, o.input_size) };
    let width = spec.output_size();
    let state = |seed: u64| {
        let of = |seed: u64, size: usize| -> Vec<f64> {
            let slots = 0..spec.slots() as u64;
            slots.flat_map(|slot| random_rows(seed + slot, case.rows(), size)).collect()
        };
        State {
            h: upload(&of(seed, spec.state_size())),
            c: (spec.cell().states() > 1).then(|| upload(&of(seed + 50, o.hidden_size))),
        }
    };
    let mut after = state(100);
    let mut y = backend.zeros(batch * time * width)?;
    let place = Place::batch_first(time, width);
    let to = RowsMut { data: &mut *y, place };
    sequence::infer(backend, &spec, &weights, x, steps, after.lent(), to)?;
    let mut recorded = state(100);
    let tape = sequence::record(
        backend,
        &spec,
        &weights,
        x,
        steps.clone(),
        &mut recorded,
        Masks { between: vec![], states: masks(case, &spec, &upload) },
    )?;
    let mut d_state = state(200);
    let mut d_parameters = backend.zeros(spec.len())?;
    let d_y = upload(&random_rows(5, case.rows(), time * width));
    let d_x = sequence::backward(
        backend,
        &spec,
        &weights,
        &tape,
        case.with_d_y.then_some(Rows { data: &*d_y, place }),
        &mut d_state,
        &mut d_parameters,
        true,
    )?
    .expect("it was asked for");
    let cells = |state: &State<B::Buffer>| state.c.as_ref().map_or(vec![], |c| read(c));
    let quantity = |name, layout, values| Quantity { name, layout, values };
    Ok(vec![
        quantity("y", Layout::Padded, read(&y)),
        quantity("y of training", Layout::Packed, read(tape.y())),
        quantity("h", Layout::States, read(&after.h)),
        quantity("c", Layout::States, cells(&after)),
        quantity("h of training", Layout::States, read(&recorded.h)),
        quantity("c of training", Layout::States, cells(&recorded)),
        quantity("d_h", Layout::States, read(&d_state.h)),
        quantity("d_c", Layout::States, cells(&d_state)),
        quantity("d_x", Layout::Packed, read(&d_x)),
        quantity("d_parameters", Layout::Summed, read(&d_parameters)),
    ])
}

pub(crate) fn upload(recorder: &Recorder, values: &[f64]) -> Box<Numbers> {
    recorder.numbers(&values.iter().map(|&value| value as f32).collect::<Vec<_>>())
}

pub(crate) fn recorded_by(
    recorder: &Recorder,
    gpu: &Gpu,
    case: &Case,
) -> Result<Vec<Quantity>, Error> {
    let failed = Cell::new(None);
    let found = outcome(
        recorder,
        case,
        |v| upload(recorder, v),
        |numbers| match gpu.read(recorder, numbers) {
            Ok(found) => found.into_iter().map(f64::from).collect(),
            Err(error) => {
                failed.set(Some(failed.take().unwrap_or(error)));
                vec![0.0; numbers.len()]
            }
        },
    );
    match failed.into_inner() {
        Some(error) => Err(error.into()),
        None => found,
    }
}

pub(crate) fn on_gpu(gpu: &Gpu, case: &Case) -> Vec<Quantity> {
    recorded_by(&gpu.recorder(), gpu, case).unwrap()
}

/// That the device gives what the naive backend gives in f64.
pub(crate) fn check(case: &Case) {
    let Some(gpu) = gpu() else { return };
    assert_true(case, &on_gpu(gpu, case));
}

/// That what was found is what the naive backend finds in f64.
pub(crate) fn assert_true(case: &Case, found: &[Quantity]) {
    let truth = outcome(&Naive::<f64>::default(), case, <[f64]>::to_vec, <[f64]>::to_vec).unwrap();
    for got in found {
        let name = got.name;
        let want = truth.iter().find(|want| want.name == name).expect("every name is there");
        assert_eq!(want.values.len(), got.values.len(), "{name} of {case:?}");
        let largest = want.values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        for (k, (want, got)) in want.values.iter().zip(&got.values).enumerate() {
            assert!(
                (want - got).abs() <= TOLERANCE * largest,
                "{name}[{k}] of {case:?}: expected {want}, got {got}"
            );
        }
    }
}

/// That two outcomes are the same, bit for bit.
pub(crate) fn assert_same_bits(case: &Case, want: &[Quantity], got: &[Quantity]) {
    for (want, got) in want.iter().zip(got) {
        assert_eq!(bits(&want.values), bits(&got.values), "{} of {case:?}", want.name);
    }
}
