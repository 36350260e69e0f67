//! The kernels against the naive backend: the same bits.
//!
//! The naive backend runs on [`Single`], which has the fused multiply-add and the elementary
//! functions of the vector levels, one number at a time. So every vector level has to agree
//! with it to the last bit, whatever the shapes, lengths, threads and tails; the scalar level,
//! which rounds twice, has to be close.

use bytemuck::{Pod, Zeroable};
use proptest::prelude::*;
use seqrs_core::backend::{Backend, State, StateMasks};
use seqrs_core::cell::CellKind;
use seqrs_core::naive::Naive;
use seqrs_core::real::Real;
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::sequence::Masks;
use seqrs_core::spec::Options;
use seqrs_core::{Spec, Steps, sequence};

use std::sync::atomic::Ordering;

use crate::Cpu;
use crate::crew;
use crate::lanes::single::Single;
use crate::lanes::{Element, Simd};
use crate::level::Level;

/// Everything that comes out of a stack of layers.
#[derive(Debug)]
struct Outcome {
    values: Vec<(&'static str, Vec<f64>)>,
}

#[derive(Clone, Debug)]
struct Case {
    options: Options,
    time: usize,
    live: Vec<Vec<bool>>,
    seed: u64,
    with_d_y: bool,
    /// Whether a training step draws masks for the states.
    drawn: bool,
}

/// Numbers in [-1, 1) that depend on the seed alone.
fn random<T: Real>(seed: u64, len: usize, to: impl Fn(f64) -> T) -> Vec<T> {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    (0..len)
        .map(|_| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            to((bits >> 40) as f64 / (1u64 << 23) as f64 - 1.0)
        })
        .collect()
}

/// What a training step draws for the states, if the case wants it drawn.
fn masks<B>(
    backend: &B,
    case: &Case,
    spec: &Spec,
    items: usize,
    to: impl Fn(f64) -> B::Elem,
) -> Masks<B::Scratch>
where
    B: Backend<Slice = [<B as Backend>::Elem]>,
{
    let (o, batch) = (spec.options(), case.live.len());
    if !case.drawn {
        return Masks::default();
    }
    let mut seed = case.seed + 11;
    let mut draw = |share: f64, kept: f64, dropped: f64, len: usize| {
        seed += 1;
        (share > 0.0).then(|| {
            let mut mask = backend.blank(len).unwrap();
            for (mask, chance) in mask.iter_mut().zip(random(seed, len, |v| v)) {
                *mask = to(if chance > 0.0 { kept } else { dropped });
            }
            mask
        })
    };
    let mut direction = || StateMasks {
        recurrent: draw(o.recurrent_dropout, 1.0 / (1.0 - o.recurrent_dropout), 0.0, {
            batch * spec.state_size()
        }),
        kept_h: draw(o.zoneout, 1.0, 0.0, items * spec.state_size()),
        kept_c: draw(o.zoneout_cell, 1.0, 0.0, items * o.hidden_size),
    };
    let layer = |_| spec.directions().iter().map(|_| direction()).collect();
    Masks { between: Vec::new(), states: (0..spec.num_layers()).map(layer).collect() }
}

fn outcome<B>(
    backend: &B,
    case: &Case,
    to: impl Fn(f64) -> B::Elem + Copy,
    from: impl Fn(B::Elem) -> f64 + Copy,
) -> Outcome
where
    B: Backend<Slice = [<B as Backend>::Elem], Buffer = Vec<<B as Backend>::Elem>>,
{
    let spec = Spec::new(case.options.clone()).unwrap();
    let batch = case.live.len();
    let steps = Steps::from_mask(case.time, batch, |t, b| case.live[b][t]).unwrap();
    let o = spec.options();
    let parameters = random(case.seed, spec.len(), |v| to(v * 0.5));
    let weights: sequence::StackWeights<B> = (0..spec.num_layers())
        .map(|l| {
            (0..spec.directions().len())
                .map(|d| {
                    backend.weights(&spec.shape(l), &parameters[spec.slot_range(l, d)]).unwrap()
                })
                .collect()
        })
        .collect();
    let x = random(case.seed + 1, batch * case.time * o.input_size, to);
    let width = spec.output_size();
    let state = |seed| State {
        h: random(seed, spec.slots() * batch * spec.state_size(), to),
        c: (spec.cell().states() > 1)
            .then(|| random(seed + 7, spec.slots() * batch * o.hidden_size, to)),
    };
    let mut after = state(case.seed + 2);
    let mut y = backend.zeros(batch * case.time * width).unwrap();
    let x = Rows { data: &x[..], place: Place::batch_first(case.time, o.input_size) };
    sequence::infer(
        backend,
        &spec,
        &weights,
        x,
        &steps,
        after.lent(),
        RowsMut { data: &mut y, place: Place::batch_first(case.time, width) },
    )
    .unwrap();
    let mut recorded = state(case.seed + 2);
    let masks = masks(backend, case, &spec, steps.items(), to);
    let drawn = !masks.states.is_empty();
    let tape =
        sequence::record(backend, &spec, &weights, x, steps.clone(), &mut recorded, masks).unwrap();
    if !drawn {
        assert_eq!(recorded, after, "inference and training give the same states");
        steps.for_each(|item, t, b| {
            let padded = (b * case.time + t) * width;
            assert_eq!(tape.y()[item * width..][..width], y[padded..][..width]);
        });
    }
    let mut d_state = state(case.seed + 3);
    let mut d_parameters = backend.zeros(spec.len()).unwrap();
    let d_y = random(case.seed + 4, y.len(), to);
    let d_y = Rows { data: &d_y[..], place: Place::batch_first(case.time, width) };
    let d_x = sequence::backward(
        backend,
        &spec,
        &weights,
        &tape,
        case.with_d_y.then_some(d_y),
        &mut d_state,
        &mut d_parameters,
        true,
    )
    .unwrap()
    .unwrap();
    let list = |values: Vec<B::Elem>| values.into_iter().map(from).collect();
    Outcome {
        values: vec![
            ("y", list(y)),
            ("h", list(after.h)),
            ("c", list(after.c.unwrap_or_default())),
            ("training y", list(tape.y().to_vec())),
            ("training h", list(recorded.h)),
            ("training c", list(recorded.c.unwrap_or_default())),
            ("d_h", list(d_state.h)),
            ("d_c", list(d_state.c.unwrap_or_default())),
            ("d_x", list(d_x)),
            ("d_parameters", list(d_parameters)),
        ],
    }
}

// SAFETY: it is one number, and zero bits are the number zero.
unsafe impl<T: Element> Zeroable for Single<T> {}
// SAFETY: as above, and T has no bit pattern that is none of its numbers.
unsafe impl<T: Element> Pod for Single<T> {}

impl<T: Element> Real for Single<T> {
    fn mul_add(self, a: Self, b: Self) -> Self {
        Simd::mul_add(self, a, b)
    }

    fn inverse_root(self) -> Self {
        Self(Real::inverse_root(self.0))
    }
}

fn compare<T: Element>(case: &Case, to: impl Fn(f64) -> T + Copy, tolerance: f64) {
    let truth = outcome(
        &Naive::<Single<T>>::default(),
        case,
        |v| Single(to(v)),
        |v| num_traits::ToPrimitive::to_f64(&v.0).unwrap(),
    );
    for level in Level::available() {
        for threads in [1, 3] {
            let ours = outcome(&Cpu::<T>::with(level, threads), case, to, |v| {
                num_traits::ToPrimitive::to_f64(&v).unwrap()
            });
            for ((name, truth), (_, ours)) in truth.values.iter().zip(&ours.values) {
                let largest = truth.iter().fold(1.0_f64, |most, v| most.max(v.abs()));
                for (at, (a, b)) in ours.iter().zip(truth).enumerate() {
                    let right = match level.is_scalar() {
                        true => (a - b).abs() <= tolerance * largest,
                        false => a == b,
                    };
                    assert!(right, "{level} {threads} {name}[{at}]: {a} is not {b} in {case:?}");
                }
            }
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1..20_usize, 1..40_usize, 1..3_usize, any::<bool>(), any::<bool>());
    let kind = prop::sample::select(CellKind::ALL.to_vec());
    let batch = (0..9_usize, 0..7_usize, any::<u64>(), 0..3_u8, any::<bool>(), 0..10_usize);
    (kind, sizes, batch).prop_map(
        |(cell, (input, hidden, layers, bias, both), (batch, time, seed, how, with_d_y, proj))| {
            let mut options = Options::new(cell, input, hidden);
            options.num_layers = layers;
            options.bias = bias;
            options.bidirectional = both;
            if cell.states() > 1 && proj < hidden {
                options.proj_size = proj;
            }
            let share = |k: u32| f64::from((seed >> (20 + 2 * k)) as u8 % 4) / 8.0;
            if seed % 3 == 0 {
                (options.recurrent_dropout, options.zoneout) = (share(0), share(1));
                options.zoneout_cell = if cell.states() > 1 { share(2) } else { 0.0 };
            }
            let chance = random::<f64>(seed, batch * (time + 1), |v| v);
            let live = (0..batch)
                .map(|b| {
                    let row = &chance[b * (time + 1)..];
                    let length = ((row[0] + 1.0) / 2.0 * (time + 1) as f64) as usize;
                    (0..time)
                        .map(|t| match how {
                            0 => true,
                            1 => t < length,
                            _ => row[t + 1] > -0.2,
                        })
                        .collect()
                })
                .collect();
            options.layer_norm = cell.may_be_normalised() && hidden > 1 && seed % 4 == 1;
            Case { options, time, live, seed: seed >> 8, with_d_y, drawn: seed % 2 == 0 }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_level_gives_the_bits_of_the_naive_twin_in_f32(case in cases()) {
        compare::<f32>(&case, |v| v as f32, 1e-5);
    }

    #[test]
    fn every_level_gives_the_bits_of_the_naive_twin_in_f64(case in cases()) {
        compare::<f64>(&case, |v| v, 1e-12);
    }
}

/// Few rows and many units, the case that workers share by units.
#[test]
fn a_crew_gives_the_bits_of_one_worker() {
    let before = crew::SHARED.load(Ordering::Relaxed);
    // A crew may be in need of a rest, or its helpers late.
    for round in 0..200 {
        for (k, cell) in CellKind::ALL.into_iter().enumerate() {
            for (batch, both) in [(1, false), (3, false), (2, true)] {
                let mut options = Options::new(cell, 9, 211);
                options.bidirectional = both;
                options.proj_size = if cell.states() > 1 && batch == 1 { 131 } else { 0 };
                let time = 60;
                let live = |b: usize| (0..time).map(|t| t % (b + 5) != 3).collect();
                let live = (0..batch).map(live).collect();
                let case =
                    Case { options, time, live, seed: k as u64, with_d_y: true, drawn: false };
                threads_agree(&case, [2, 3, 5]);
            }
        }
        if round > 1 && crew::SHARED.load(Ordering::Relaxed) > before {
            return;
        }
    }
    panic!("no crew has come together");
}

fn threads_agree(case: &Case, threads: [usize; 3]) {
    let of = |threads| {
        let cpu = Cpu::<f32>::with(Level::detect(), threads);
        outcome(&cpu, case, |v| v as f32, f64::from)
    };
    let bits = |list: &[f64]| list.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let one = of(1);
    for threads in threads {
        for ((name, one), (_, more)) in one.values.iter().zip(&of(threads).values) {
            assert_eq!(bits(one), bits(more), "{threads} threads, {name}, {case:?}");
        }
    }
}

/// More rows than a worker takes through all steps at a time.
#[test]
fn many_rows_give_the_bits_of_the_naive_twin() {
    for cell in [CellKind::Lstm, CellKind::LstmPeephole, CellKind::GruResetBefore] {
        let mut options = Options::new(cell, 3, 5);
        options.bidirectional = true;
        (options.recurrent_dropout, options.zoneout) = (0.25, 0.25);
        options.zoneout_cell = if cell.states() > 1 { 0.25 } else { 0.0 };
        let (time, batch) = (4, 600);
        let live = (0..batch).map(|b| (0..time).map(|t| (t + b) % 7 != 0).collect()).collect();
        let case = Case { options, time, live, seed: 1, with_d_y: true, drawn: true };
        compare::<f32>(&case, |v| v as f32, 1e-5);
    }
}

/// Single rows with weights beyond L1, whose gates from the input are computed beside the steps.
#[test]
fn single_rows_give_the_bits_of_the_naive_twin() {
    let sizes =
        [(CellKind::RnnTanh, 50, 197), (CellKind::Lstm, 131, 99), (CellKind::LstmPeephole, 7, 99)];
    for (cell, input, hidden) in sizes.into_iter().chain([(CellKind::GruResetAfter, 3, 113)]) {
        for (batch, time) in [(1, 23), (3, 41)] {
            let options = Options::new(cell, input, hidden);
            // Holes, and a row that is live nowhere.
            let live = |b: usize| (0..time).map(|t| b != 1 && (b == 0 || t % 7 > 2)).collect();
            let live = (0..batch).map(live).collect();
            let case = Case { options, time, live, seed: 3, with_d_y: true, drawn: false };
            // So many units amplify what the scalar level rounds otherwise from step to step.
            compare::<f32>(&case, |v| v as f32, f64::INFINITY);
            compare::<f64>(&case, |v| v, f64::INFINITY);
        }
    }
}
