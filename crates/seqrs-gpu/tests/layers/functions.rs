//! The functions that a cell may be given, and the bound of its sums.

use std::sync::Arc;

use seqrs_core::backend::{Backend, State};
use seqrs_core::cell::{Bound, CellKind, Chosen, Equations, Function, FunctionName, Functions};
use seqrs_core::rows::{Place, Rows};
use seqrs_core::sequence::{self, Masks};
use seqrs_core::spec::Options;
use seqrs_core::{Spec, Steps};
use seqrs_gpu::Weights;
use seqrs_gpu::device::Gpu;

use crate::case::{Case, TOLERANCE, check, gpu, upload};

/// Each, with other numbers than those by default; f32 holds them exactly.
fn functions() -> [Function; 11] {
    FunctionName::ALL.map(|name| {
        let [alpha, beta] = name.defaults();
        Function { name, alpha: alpha.map_or(0.0, |_| 0.75), beta: beta.map_or(0.0, |_| -0.25) }
    })
}

/// Both sides of every corner, where digits cancel, and where an exp is 0 or infinite.
fn arguments() -> Vec<f32> {
    let near = (-100_i16..=100).map(|k| f32::from(k) / 16.0 + 1e-3);
    let far = [1e-20, 1e-6, 0.75, 20.0, 80.0, 1e4, 3e38, f32::INFINITY];
    near.chain(far.into_iter().flat_map(|x| [x, -x])).chain([f32::NAN]).collect()
}

/// The values and slopes of the function of an RNN, a unit for each sum.
fn on_gpu(gpu: &Gpu, chosen: Chosen, sums: &[f32]) -> [Vec<f32>; 2] {
    let cell = CellKind::Chosen(Equations::Rnn, chosen);
    let units = sums.len();
    let spec = Spec::new(Options { bias: false, ..Options::new(cell, 1, units) }).unwrap();
    // The only input is 1 and its weight the sum; the state before is 0.
    let of_input = spec.shape(0).weight_ih;
    let mut parameters = vec![0.0; spec.len()];
    parameters[of_input.clone()].copy_from_slice(sums);
    let recorder = gpu.recorder();
    let weights = vec![vec![Weights::new(Arc::from(recorder.numbers(&parameters)), 0)]];
    let (ones, zeros) = (recorder.numbers(&vec![1.0; units]), || recorder.zeros(units).unwrap());
    let steps = Steps::dense(1, 1).unwrap();
    let x = Rows { data: &*upload(&recorder, &[1.0]), place: Place::batch_first(1, 1) };
    let mut state = State { h: zeros(), c: None };
    let tape = sequence::record(&recorder, &spec, &weights, x, steps, &mut state, Masks::default())
        .unwrap();
    let d_y = Rows { data: &*ones, place: Place::batch_first(1, units) };
    let mut d_state = State { h: zeros(), c: None };
    let mut d_parameters = recorder.zeros(spec.len()).unwrap();
    sequence::backward(
        &recorder,
        &spec,
        &weights,
        &tape,
        Some(d_y),
        &mut d_state,
        &mut d_parameters,
        false,
    )
    .unwrap();
    let values = gpu.read(&recorder, tape.y()).unwrap();
    let slopes = gpu.read(&recorder, &d_parameters).unwrap();
    [values, slopes[of_input].to_vec()]
}

#[test]
fn every_function_and_its_slope() {
    let Some(gpu) = gpu() else { return };
    for candidate in functions() {
        for clip in [None, Some(Bound(0.75))] {
            let chosen = Chosen { candidate, clip, ..Chosen::default() };
            let sums = arguments();
            let [values, slopes] = on_gpu(gpu, chosen, &sums);
            for ((&sum, &value), &slope) in sums.iter().zip(&values).zip(&slopes) {
                let want = chosen.candidate_again(f64::from(sum));
                let (value, slope) = (f64::from(value), f64::from(slope));
                // Each by itself: what is small has its digits too.
                let near = value == want.value
                    || value.is_nan() && sum.is_nan()
                    || (value - want.value).abs() <= TOLERANCE * want.value.abs();
                assert!(near, "{chosen:?} of {sum}: expected {}, got {value}", want.value);
                let near = sum.is_nan() || (slope - want.slope).abs() <= TOLERANCE;
                assert!(near, "slope of {chosen:?} at {sum}: expected {}, got {slope}", want.slope);
            }
        }
    }
}

#[test]
fn every_function_at_every_place() {
    for function in functions() {
        let default = Chosen::default();
        for chosen in [
            Chosen { gate: function, ..default },
            Chosen { candidate: function, ..default },
            Chosen { output: function, ..default },
        ] {
            check(&Case::new(CellKind::of(Equations::Lstm, chosen), 7, 3, &[3, 2]));
        }
    }
}

/// Numbers that f32 has not are its largest, or 0.
#[test]
fn numbers_beyond_those_of_the_device() {
    let Some(gpu) = gpu() else { return };
    let of = |alpha, beta, clip| {
        let candidate = Function { name: FunctionName::Affine, alpha, beta };
        let chosen = Chosen { candidate, clip: Some(Bound(clip)), ..Chosen::default() };
        on_gpu(gpu, chosen, &[0.5, -2.0])
    };
    assert_eq!(of(1.0, 0.25, 1e300), [vec![0.75, -1.75], vec![1.0, 1.0]]);
    assert_eq!(of(2.0, 1e300, 1.0)[0], [f32::MAX; 2]);
    assert_eq!(of(1e-300, 0.25, 1.0)[0], [0.25; 2]);
}
