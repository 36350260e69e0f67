//! Products and layers against loops over numbers: the same bits.
//!
//! The loops are written from the equations of `int8.rs`; sums of integers are of 64 bits, so that
//! none can wrap. Cells run on [`Single`], as in `twin.rs`, which also compares normalisation with
//! loops. With bf16 the truth is the product of
//! floats, which `twin.rs` compares with loops, on weights that were rounded.

use std::ops::Range;

use half::bf16;
use proptest::prelude::*;
use seqrs_core::backend::{Backend, State};
use seqrs_core::cell::{Bundle, Cell, CellKind, MAX_BUNDLE};
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::spec::{Options, Shape};
use seqrs_core::steps::Steps;
use seqrs_core::{Spec, layer_norm, sequence, with_cell};

use super::int8::{self, Int8Source};
use super::matrix::Matrix;
use crate::lanes::single::Single;
use crate::level::Level;
use crate::{Cpu, Packed, SmallMatrices, Weights};

/// Numbers in [-1, 1) that depend on the seed alone.
fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    (0..len)
        .map(|_| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    // Which NaN it is, is not defined.
    numbers.iter().map(|number| if number.is_nan() { u32::MAX } else { number.to_bits() }).collect()
}

/// The integers of a row, and its scale.
fn rounded(x: &[f32]) -> (Vec<i64>, f32) {
    let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    if x.iter().any(|x| !x.is_finite()) {
        return (vec![0; x.len()], f32::NAN);
    }
    if largest < 2.0_f32.powi(-100) {
        return (vec![0; x.len()], 0.0);
    }
    let inverse = 127.0 / largest;
    (x.iter().map(|x| (x * inverse).round_ties_even() as i64).collect(), largest / 127.0)
}

/// One row of a product of integers.
fn product(x: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (x, scale) = rounded(x);
    let column = |(n, weights): (usize, &[f32])| {
        let (weights, own) = rounded(weights);
        let sum: i64 = x.iter().zip(&weights).map(|(x, w)| x * w).sum();
        sum as f32 * scale * own + bias.map_or(0.0, |bias| bias[n])
    };
    weights.chunks_exact(x.len()).enumerate().map(column).collect()
}

fn int8(level: Level, weights: &[f32], bias: Option<&[f32]>, depth: usize) -> Matrix {
    let (integers, scales) = int8::round_rows(weights, depth).unwrap();
    let source = Int8Source { integers: &integers, scales: &scales, bias };
    Matrix::int8(level, source, depth).unwrap()
}

fn to_bf16(weights: &[f32]) -> Vec<bf16> {
    weights.iter().map(|&weight| bf16::from_f32(weight)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn products_of_integers_are_exact_at_every_level(
        (rows, depth, columns) in (0..15_usize, 1..150_usize, 1..150_usize),
        seed in any::<u32>(), with_bias in any::<bool>(),
    ) {
        let seed = u64::from(seed);
        let mut x = random(seed, rows * depth);
        // Rows that have no scale, and some of very different size.
        for (r, row) in x.chunks_exact_mut(depth).enumerate() {
            match r % 6 {
                1 => row.fill(0.0),
                2 => row[depth / 2] = f32::NAN,
                3 => row[depth - 1] = f32::NEG_INFINITY,
                4 => row.iter_mut().for_each(|x| *x *= 1e30),
                5 => row.iter_mut().for_each(|x| *x *= 1e-33),
                _ => {}
            }
        }
        let mut weights = random(seed + 1, columns * depth);
        weights[..depth].fill(0.0);
        let bias = random(seed + 2, columns);
        let bias = with_bias.then_some(&bias[..]);
        let truth: Vec<f32> =
            x.chunks_exact(depth).flat_map(|row| product(row, &weights, bias)).collect();
        for level in Level::available() {
            for threads in [1, 3] {
                let mut y = vec![7.0; rows * columns];
                let matrix = Packed::small(int8(level, &weights, bias, depth));
                Cpu::with(level, threads).product(&x, &matrix, &mut y).unwrap();
                prop_assert_eq!(bits(&y), bits(&truth), "{} {}", level, threads);
            }
        }
    }

    #[test]
    fn products_of_bf16_are_those_of_the_rounded_floats(
        (rows, depth, columns) in (0..15_usize, 1..150_usize, 1..150_usize),
        seed in any::<u32>(), with_bias in any::<bool>(),
    ) {
        let seed = u64::from(seed);
        let x = random(seed, rows * depth);
        let halves = to_bf16(&random(seed + 1, columns * depth));
        let floats: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
        let bias = random(seed + 2, columns);
        let bias = with_bias.then_some(&bias[..]);
        for level in Level::available() {
            let cpu = Cpu::with(level, 1);
            let (mut truth, mut y) = (vec![0.0; rows * columns], vec![7.0; rows * columns]);
            let packed = cpu.pack(&floats, bias, columns, depth).unwrap();
            cpu.product(&x, &packed, &mut truth).unwrap();
            let matrix = Packed::small(Matrix::bf16(level, &halves, bias, depth).unwrap());
            cpu.product(&x, &matrix, &mut y).unwrap();
            prop_assert_eq!(bits(&y), bits(&truth), "{}", level);
        }
    }
}

/// Sums that 16 bits do not hold, and the most that 31 bits have to.
#[test]
fn the_largest_sums_are_exact() {
    for depth in [2, 64, 1000, int8::MOST_TERMS] {
        for sign in [1.0_f32, -1.0] {
            let (x, weights) = (vec![sign; depth], vec![1.0; depth]);
            let truth = (127 * 127 * depth as i64) as f32 * sign * (1.0 / 127.0) * (1.0 / 127.0);
            for level in Level::available() {
                let mut y = [0.0];
                let matrix = Packed::small(int8(level, &weights, None, depth));
                Cpu::with(level, 1).product(&x, &matrix, &mut y).unwrap();
                assert_eq!(y[0].to_bits(), truth.to_bits(), "{level} {depth}");
            }
        }
    }
}

/// Some rows of a layer of one direction or both.
#[derive(Clone, Debug)]
struct Case {
    options: Options,
    time: usize,
    live: Vec<Vec<bool>>,
    seed: u64,
}

/// Outputs (rows, steps, D state), and final states.
type Outcome = (Vec<f32>, Vec<f32>, Vec<f32>);

impl Case {
    fn spec(&self) -> Spec {
        Spec::new(self.options.clone()).unwrap()
    }

    fn parameters(&self, spec: &Spec) -> Vec<f32> {
        random(self.seed, spec.len()).into_iter().map(|v| v * 0.5).collect()
    }

    fn x(&self) -> Vec<f32> {
        random(self.seed + 1, self.live.len() * self.time * self.options.input_size)
    }

    fn state(&self, spec: &Spec) -> State<Vec<f32>> {
        let rows = spec.slots() * self.live.len();
        State {
            h: random(self.seed + 2, rows * spec.state_size()),
            c: (spec.cell().states() > 1)
                .then(|| random(self.seed + 3, rows * self.options.hidden_size)),
        }
    }

    fn steps(&self) -> Steps {
        Steps::from_mask(self.time, self.live.len(), |t, b| self.live[b][t]).unwrap()
    }

    fn ours(
        &self,
        level: Level,
        threads: usize,
        matrix: impl Fn(&[f32], Option<&[f32]>, usize) -> Matrix,
    ) -> Outcome {
        let spec = self.spec();
        let parameters = self.parameters(&spec);
        let cpu = Cpu::with(level, threads);
        self.outcome(&cpu, &spec, |shape, range| small(shape, &parameters[range], &matrix))
    }

    /// The layer of floats whose weights were rounded to bf16.
    fn rounded_floats(&self, level: Level) -> Outcome {
        let (spec, cpu) = (self.spec(), Cpu::<f32>::with(level, 1));
        let parameters = self.parameters(&spec);
        self.outcome(&cpu, &spec, |shape, range| {
            let mut p = parameters[range].to_vec();
            let matrices =
                [Some(&shape.weight_ih), Some(&shape.weight_hh), shape.weight_hr.as_ref()];
            for range in matrices.into_iter().flatten() {
                p[range.clone()].iter_mut().for_each(|w| *w = bf16::from_f32(*w).to_f32());
            }
            cpu.weights(shape, &p).unwrap()
        })
    }

    /// What the driver makes of the weights of each direction.
    fn outcome(
        &self,
        cpu: &Cpu<f32>,
        spec: &Spec,
        weights: impl Fn(&Shape, Range<usize>) -> Weights<f32>,
    ) -> Outcome {
        let of_layer = |layer: usize| {
            let shape = spec.shape(layer);
            (0..shape.directions).map(|d| weights(&shape, spec.slot_range(layer, d))).collect()
        };
        let weights = (0..spec.num_layers()).map(of_layer).collect();
        let (x, width) = (self.x(), spec.output_size());
        let mut y = vec![0.0; self.live.len() * self.time * width];
        let mut state = self.state(spec);
        let from =
            Rows { data: &x[..], place: Place::batch_first(self.time, spec.options().input_size) };
        let to = RowsMut { data: &mut y[..], place: Place::batch_first(self.time, width) };
        sequence::infer(cpu, spec, &weights, from, &self.steps(), state.lent(), to).unwrap();
        (y, state.h, state.c.unwrap_or_default())
    }

    /// The layers of integers, in loops.
    fn loops(&self) -> Outcome {
        let spec = self.spec();
        let parameters = self.parameters(&spec);
        let State { mut h, c } = self.state(&spec);
        let mut c = c.unwrap_or_default();
        let (batch, width) = (self.live.len(), spec.output_size());
        let mut x = self.x();
        for layer in 0..spec.num_layers() {
            let shape = spec.shape(layer);
            let mut y = vec![0.0; batch * self.time * width];
            for d in 0..shape.directions {
                let p = &parameters[spec.slot_range(layer, d)];
                for b in 0..batch {
                    let at = (layer * shape.directions + d) * batch + b;
                    let h = &mut h[at * shape.state..][..shape.state];
                    let c = match c.is_empty() {
                        true => &mut [],
                        false => &mut c[at * shape.hidden..][..shape.hidden],
                    };
                    for k in 0..self.time {
                        let t = if d == 0 { k } else { self.time - 1 - k };
                        if self.live[b][t] {
                            let x = &x[(b * self.time + t) * shape.input..][..shape.input];
                            with_cell!(shape.cell, C, cell => step(cell, &shape, p, x, h, c));
                            let to = (b * self.time + t) * width + d * shape.state;
                            y[to..][..shape.state].copy_from_slice(h);
                        }
                    }
                }
            }
            x = y;
        }
        (x, h, c)
    }
}

/// Weights of one direction, of the matrices that are made of rows, the bias of each and how long
/// they are.
fn small(
    shape: &Shape,
    p: &[f32],
    matrix: impl Fn(&[f32], Option<&[f32]>, usize) -> Matrix,
) -> Weights<f32> {
    let part = |range: &Range<usize>| &p[range.clone()];
    let bias = |range: &Option<Range<usize>>| match shape.norms {
        None => range.clone().map(|range| &p[range]),
        Some(_) => None,
    };
    let early = shape.cell.counts().first_gates * shape.hidden;
    let (hh, late) = part(&shape.weight_hh).split_at(early * shape.state);
    let b_hh = bias(&shape.bias_hh).map(|bias| bias.split_at(early));
    let matrices = SmallMatrices {
        input: matrix(part(&shape.weight_ih), bias(&shape.bias_ih), shape.input),
        first: matrix(hh, b_hh.map(|(early, _)| early), shape.state),
        second: (!late.is_empty()).then(|| matrix(late, b_hh.map(|(_, late)| late), shape.state)),
        projection: (shape.weight_hr.as_ref()).map(|range| matrix(part(range), None, shape.hidden)),
    };
    let is_matrix = |at: &usize| {
        [Some(&shape.weight_ih), Some(&shape.weight_hh), shape.weight_hr.as_ref()]
            .into_iter()
            .flatten()
            .any(|range| range.contains(at))
    };
    let others = (0..shape.len()).filter(|at| !is_matrix(at)).map(|at| p[at]).collect();
    Weights::small(shape, matrices, others)
}

/// One step of one row.
fn step<C: Cell>(cell: C, shape: &Shape, p: &[f32], x: &[f32], h: &mut [f32], c: &mut [f32]) {
    let hidden = shape.hidden;
    let part = |range: &Range<usize>| &p[range.clone()];
    let (b_ih, b_hh) = (shape.bias_ih.as_ref().map(part), shape.bias_hh.as_ref().map(part));
    // A bias comes after the norm, if there is one.
    let norms = shape.norms.as_ref();
    let normalised = |mut sums: Vec<f32>, gamma: &Range<usize>, bias| {
        layer_norm::normalise(&mut sums);
        layer_norm::scale_and_shift(&mut sums, part(gamma), bias);
        sums
    };
    let gx = match norms {
        None => product(x, part(&shape.weight_ih), b_ih),
        Some(norms) => normalised(product(x, part(&shape.weight_ih), None), &norms.ih, b_ih),
    };
    let early = C::FIRST_GATES * hidden;
    let (hh, late) = part(&shape.weight_hh).split_at(early * shape.state);
    let mut gh = match norms {
        None => product(h, hh, b_hh.map(|b| &b[..early])),
        Some(norms) => normalised(product(h, hh, None), &norms.hh, b_hh),
    };
    let runs = |from: &[f32], u: usize| {
        let mut values = [Single(0.0); MAX_BUNDLE];
        from.iter().skip(u).step_by(hidden).zip(&mut values).for_each(|(v, to)| *to = Single(*v));
        values
    };
    let gates = |from: &[f32], u: usize| C::Gates::from_array(runs(from, u));
    let state = |h: &[f32], c: &[f32], u: usize| {
        let mut state = [Single(0.0); MAX_BUNDLE];
        state[0] = Single(h.get(u).copied().unwrap_or_default());
        state[1] = Single(c.get(u).copied().unwrap_or_default());
        C::State::from_array(state)
    };
    let mut opened = vec![C::Opened::filled(Single(0.0)); hidden];
    if C::TWO_PRODUCTS {
        let mut operand = vec![0.0; hidden];
        for u in 0..hidden {
            let (value, open) = cell.open(gates(&gx, u), gates(&gh, u), state(h, c, u));
            (operand[u], opened[u]) = (value.0, open);
        }
        gh.extend(product(&operand, late, b_hh.map(|b| &b[early..])));
    }
    let (mut new, mut new_c, mut saved) = (vec![0.0; hidden], vec![0.0; hidden], Vec::new());
    for u in 0..hidden {
        let own = C::PerUnit::from_array(runs(part(&shape.per_unit), u));
        let (gx, gh) = (gates(&gx, u), gates(&gh, u));
        let (s, kept) = cell.forward(gx, gh, state(h, c, u), opened[u], own);
        let s = s.to_array(Single(0.0));
        (new[u], new_c[u]) = (s[0].0, s[1].0);
        saved.push(kept);
    }
    let mixed = |share: f64, old: &mut [f32], new: &[f32]| {
        let kept = share as f32;
        for (old, &new) in old.iter_mut().zip(new) {
            *old = if share > 0.0 { kept * *old + (1.0 - kept) * new } else { new };
        }
    };
    mixed(shape.zoneout_c, c, &new_c);
    if let Some([gamma, beta]) = norms.and_then(|norms| norms.c.as_ref()) {
        let shown = normalised(new_c, gamma, Some(part(beta)));
        for (u, kept) in saved.into_iter().enumerate() {
            new[u] = cell.unprojected(kept, state(&[], &shown, u)).0;
        }
    }
    match &shape.weight_hr {
        None => mixed(shape.zoneout_h, h, &new),
        Some(range) => mixed(shape.zoneout_h, h, &product(&new, part(range), None)),
    }
}

fn compare(case: &Case) {
    let same = |what: &str, level: Level, ours: &Outcome, truth: &Outcome| {
        let lists = [(&ours.0, &truth.0), (&ours.1, &truth.1), (&ours.2, &truth.2)];
        for ((ours, truth), name) in lists.into_iter().zip(["y", "h", "c"]) {
            assert_eq!(bits(ours), bits(truth), "{what} {level} {name} in {case:?}");
        }
    };
    let truth = case.loops();
    for level in Level::available() {
        for threads in [1, 3] {
            let ours = case.ours(level, threads, |w, b, k| int8(level, w, b, k));
            // The cells of the scalar level round otherwise, and what they differ by may make
            // another integer of an operand.
            if !level.is_scalar() {
                same("int8", level, &ours, &truth);
            }
            let ours = case
                .ours(level, threads, |w, b, k| Matrix::bf16(level, &to_bf16(w), b, k).unwrap());
            same("bf16", level, &ours, &case.rounded_floats(level));
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1..20_usize, 1..70_usize, 1..3_usize, any::<bool>(), any::<bool>());
    let batch = (0..9_usize, 0..9_usize, any::<u32>(), 0..3_u8, 0..10_usize);
    let around = (0..4_u8, 0..4_u8, any::<bool>());
    (prop::sample::select(CellKind::ALL.to_vec()), sizes, batch, around).prop_map(
        |(cell, (input, hidden, layers, bias, both), (batch, time, seed, how, proj), around)| {
            let mut options = Options::new(cell, input, hidden);
            (options.num_layers, options.bias, options.bidirectional) = (layers, bias, both);
            let (zoneout, zoneout_cell, layer_norm) = around;
            options.zoneout = f64::from(zoneout) / 8.0;
            options.zoneout_cell =
                if cell.states() > 1 { f64::from(zoneout_cell) / 8.0 } else { 0.0 };
            options.layer_norm = layer_norm && cell.may_be_normalised() && hidden > 1;
            if cell.states() > 1 && proj < hidden {
                options.proj_size = proj;
            }
            let chance = random(u64::from(seed), batch * (time + 1));
            let live = |b: usize| {
                let row = &chance[b * (time + 1)..];
                let length = ((row[0] + 1.0) / 2.0 * (time + 1) as f32) as usize;
                let is_live = |t: usize| match how {
                    0 => true,
                    1 => t < length,
                    _ => row[t + 1] > -0.2,
                };
                (0..time).map(is_live).collect()
            };
            let live = (0..batch).map(live).collect();
            Case { options, time, live, seed: u64::from(seed) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn layers_give_the_bits_of_loops(case in cases()) {
        compare(&case);
    }
}

/// Single rows with weights beyond L1, whose gates from the input are computed beside the steps.
#[test]
fn single_rows_give_the_bits_of_loops() {
    for (cell, input, hidden) in [
        (CellKind::RnnTanh, 50, 197),
        (CellKind::RnnRelu, 201, 160),
        (CellKind::Lstm, 131, 99),
        (CellKind::Lstm, 7, 128),
        (CellKind::GruResetAfter, 3, 113),
        (CellKind::GruResetBefore, 30, 113),
        (CellKind::LstmPeephole, 40, 90),
        (CellKind::LstmCoupled, 9, 120),
    ] {
        for time in [19, 20, 23, 41] {
            // All steps; holes; runs without a live step.
            let hows: [fn(usize) -> bool; 3] = [|_| true, |t| t % 7 > 2, |t| t % 13 == 0];
            for live in hows {
                let options = Options::new(cell, input, hidden);
                let live = vec![(0..time).map(live).collect()];
                compare(&Case { options, time, live, seed: 3 });
            }
        }
    }
}

/// More rows than a worker takes through all steps at a time, or than a block of a product has.
#[test]
fn many_rows_give_the_bits_of_loops() {
    for cell in CellKind::ALL {
        let mut options = Options::new(cell, 3, 5);
        options.bidirectional = true;
        let (time, batch) = (4, 600);
        let live = (0..batch).map(|b| (0..time).map(|t| (t + b) % 7 != 0).collect()).collect();
        compare(&Case { options, time, live, seed: 1 });
    }
}

/// Normalised layers whose gates are computed beside the steps.
#[test]
fn single_normalised_rows_give_the_bits_of_loops() {
    for (cell, input, hidden) in [(CellKind::Lstm, 31, 99), (CellKind::GruResetAfter, 40, 113)] {
        for time in [20, 23, 41] {
            let mut options = Options::new(cell, input, hidden);
            options.layer_norm = true;
            let live = vec![(0..time).map(|t| t % 9 != 3).collect()];
            compare(&Case { options, time, live, seed: 5 });
        }
    }
}

/// A small layer of one direction, and what runs it.
fn of_one_unit() -> (Spec, sequence::StackWeights<Cpu<f32>>, Cpu<f32>) {
    let (spec, level) = (Spec::new(Options::new(CellKind::Lstm, 2, 1)).unwrap(), Level::detect());
    let parameters = random(1, spec.len());
    let weights = small(&spec.shape(0), &parameters, |w, b, k| int8(level, w, b, k));
    (spec, vec![vec![weights]], Cpu::with(level, 1))
}

#[test]
#[should_panic(expected = "a layer of small weights is for inference only")]
fn nothing_is_recorded() {
    let (spec, weights, cpu) = of_one_unit();
    let mut state = State { h: vec![0.0], c: Some(vec![0.0]) };
    let x = Rows { data: &[0.0, 1.0][..], place: Place::packed(2) };
    let steps = Steps::dense(1, 1).unwrap();
    let _ = sequence::record(&cpu, &spec, &weights, x, steps, &mut state, Default::default());
}

#[test]
#[should_panic(expected = "a layer of small weights is for inference only")]
fn there_is_no_way_back() {
    let (_, weights, cpu) = of_one_unit();
    let _ = weights[0][0].back(cpu.level());
}

#[test]
#[should_panic(expected = "small matrices are of layers of f32")]
fn layers_of_f64_have_no_small_matrices() {
    let (spec, level) =
        (Spec::new(Options::new(CellKind::RnnTanh, 2, 1)).unwrap(), Level::detect());
    let matrix = |depth: usize| int8(level, &vec![1.0; depth], None, depth);
    let matrices =
        SmallMatrices { input: matrix(2), first: matrix(1), second: None, projection: None };
    Weights::<f64>::small(&spec.shape(0), matrices, vec![0.0; 2]);
}
