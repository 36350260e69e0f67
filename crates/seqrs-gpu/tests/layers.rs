//! Layers on a device against the naive backend in f64: outputs, states and all gradients.
//!
//! They need an adapter, of software too; without one they say so and pass, unless
//! SEQRS_REQUIRE_GPU is 1.

use std::sync::OnceLock;

use seqrs_core::backend::{Backend, State};
use seqrs_core::cell::CellKind;
use seqrs_core::naive::Naive;
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::spec::Options;
use seqrs_core::{Spec, Steps, sequence};
use seqrs_gpu::Recorder;
use seqrs_gpu::device::Gpu;

/// Of the largest value: f32 sums of some hundred terms (`PACKAGE_TO_REFERENCE_F32` in
/// tests/README.md).
const TOLERANCE: f64 = 3e-5;

fn gpu() -> Option<&'static Gpu> {
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
struct Case {
    options: Options,
    time: usize,
    lengths: Vec<usize>,
    scale: f64,
    with_d_y: bool,
}

impl Case {
    fn new(cell: CellKind, hidden: usize, time: usize, lengths: &[usize]) -> Self {
        Self {
            options: Options::new(cell, 5, hidden),
            time,
            lengths: lengths.to_vec(),
            scale: 0.5,
            with_d_y: true,
        }
    }
}

/// Numbers in [-1, 1) that f32 holds exactly.
fn random(seed: u64, len: usize) -> Vec<f64> {
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

type Outcome = Vec<(&'static str, Vec<f64>)>;

/// Everything that comes out of a stack of layers on `backend`, whose buffers `upload` makes and
/// `read` reads.
fn outcome<B: Backend>(
    backend: &B,
    case: &Case,
    upload: impl Fn(&[f64]) -> B::Buffer,
    read: impl Fn(&B::Slice) -> Vec<f64>,
) -> Outcome {
    let spec = Spec::new(case.options.clone()).unwrap();
    let batch = case.lengths.len();
    let steps = Steps::from_lengths(case.time, &case.lengths).unwrap();
    let o = spec.options();
    let parameters: Vec<f64> = random(1, spec.len()).iter().map(|v| v * case.scale).collect();
    let weights: sequence::StackWeights<B> = (0..spec.num_layers())
        .map(|l| {
            (0..spec.directions().len())
                .map(|d| {
                    let part = upload(&parameters[spec.slot_range(l, d)]);
                    backend.weights(&spec.shape(l), &part).unwrap()
                })
                .collect()
        })
        .collect();
    let x = upload(&random(2, batch * case.time * o.input_size));
    let x = Rows { data: &*x, place: Place::batch_first(case.time, o.input_size) };
    let width = spec.output_size();
    let state = |seed| State {
        h: upload(&random(seed, spec.slots() * batch * spec.state_size())),
        c: (spec.cell().states() > 1)
            .then(|| upload(&random(seed + 7, spec.slots() * batch * o.hidden_size))),
    };
    let mut after = state(3);
    let mut y = backend.zeros(batch * case.time * width).unwrap();
    let place = Place::batch_first(case.time, width);
    let to = RowsMut { data: &mut *y, place };
    sequence::infer(backend, &spec, &weights, x, &steps, &mut after, to).unwrap();
    let mut recorded = state(3);
    let tape =
        sequence::record(backend, &spec, &weights, x, steps.clone(), &mut recorded, None).unwrap();
    let mut d_state = state(4);
    let mut d_parameters = backend.zeros(spec.len()).unwrap();
    let d_y = upload(&random(5, batch * case.time * width));
    let d_x = sequence::backward(
        backend,
        &spec,
        &weights,
        &tape,
        case.with_d_y.then_some(Rows { data: &*d_y, place }),
        &mut d_state,
        &mut d_parameters,
        true,
    )
    .unwrap()
    .unwrap();
    let cells = |state: &State<B::Buffer>| state.c.as_ref().map_or(vec![], |c| read(c));
    vec![
        ("y", read(&y)),
        ("y of training", read(tape.y())),
        ("h", read(&after.h)),
        ("c", cells(&after)),
        ("h of training", read(&recorded.h)),
        ("d_h", read(&d_state.h)),
        ("d_c", cells(&d_state)),
        ("d_x", read(&d_x)),
        ("d_parameters", read(&d_parameters)),
    ]
}

fn on_gpu(gpu: &Gpu, case: &Case) -> Outcome {
    let recorder = Recorder::new();
    outcome(
        &recorder,
        case,
        |v| recorder.numbers(&v.iter().map(|&v| v as f32).collect::<Vec<_>>()),
        |numbers| gpu.read(&recorder, numbers).unwrap().into_iter().map(f64::from).collect(),
    )
}

fn check(case: &Case) {
    let Some(gpu) = gpu() else { return };
    let truth = outcome(&Naive::<f64>::default(), case, <[f64]>::to_vec, <[f64]>::to_vec);
    for ((name, want), (_, got)) in truth.iter().zip(on_gpu(gpu, case)) {
        assert_eq!(want.len(), got.len(), "{name} of {case:?}");
        let largest = want.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        for (k, (want, got)) in want.iter().zip(&got).enumerate() {
            assert!(
                (want - got).abs() <= TOLERANCE * largest,
                "{name}[{k}] of {case:?}: expected {want}, got {got}"
            );
        }
    }
}

#[test]
fn every_cell_at_every_size() {
    for cell in CellKind::ALL {
        for hidden in [1, 7, 33, 64, 65] {
            for (time, lengths) in [(1, vec![1]), (2, vec![2; 3]), (17, vec![17; 5])] {
                check(&Case::new(cell, hidden, time, &lengths));
            }
        }
    }
}

#[test]
fn lengths() {
    for cell in CellKind::ALL {
        check(&Case::new(cell, 7, 6, &[6, 0, 3, 5]));
        check(&Case::new(cell, 18, 4, &[0, 0]));
        let rows: Vec<usize> = (0..37).map(|b| b % 5).collect();
        check(&Case::new(cell, 20, 4, &rows));
    }
}

#[test]
fn layers_and_directions() {
    for cell in CellKind::ALL {
        let mut case = Case::new(cell, 6, 5, &[5, 2, 0, 4]);
        case.options.num_layers = 3;
        case.options.bidirectional = true;
        check(&case);
        case.options.bias = false;
        case.with_d_y = false;
        check(&case);
    }
}

#[test]
fn a_hundred_steps() {
    for cell in [CellKind::Lstm, CellKind::GruResetBefore] {
        check(&Case::new(cell, 16, 100, &[100, 63]));
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    for cell in CellKind::ALL {
        let case = Case::new(cell, 33, 9, &[9, 4, 7]);
        assert_eq!(on_gpu(gpu, &case), on_gpu(gpu, &case), "{cell:?}");
    }
}
