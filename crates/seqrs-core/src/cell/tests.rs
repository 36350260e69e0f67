//! `backward` is the derivative of `forward`, proved with dual numbers: a number that
//! carries its derivative through the same text that the kernels run.

use std::ops::{Add, Mul, Neg, Sub};

use super::*;
use crate::with_cell;

/// v + e d with e^2 = 0.
#[derive(Clone, Copy, Debug)]
struct Dual {
    v: f64,
    d: f64,
}

impl Dual {
    fn constant(v: f64) -> Self {
        Self { v, d: 0.0 }
    }
}

impl Add for Dual {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Self { v: self.v + o.v, d: self.d + o.d }
    }
}
impl Sub for Dual {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Self { v: self.v - o.v, d: self.d - o.d }
    }
}
impl Mul for Dual {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        Self { v: self.v * o.v, d: self.d * o.v + self.v * o.d }
    }
}
impl Neg for Dual {
    type Output = Self;
    fn neg(self) -> Self {
        Self { v: -self.v, d: -self.d }
    }
}
impl Lanes for Dual {
    fn zero() -> Self {
        Self::constant(0.0)
    }
    fn one() -> Self {
        Self::constant(1.0)
    }
    fn sigmoid(self) -> Self {
        let v = Lanes::sigmoid(self.v);
        Self { v, d: self.d * v * (1.0 - v) }
    }
    fn tanh(self) -> Self {
        let v = self.v.tanh();
        Self { v, d: self.d * (1.0 - v * v) }
    }
    fn relu(self) -> Self {
        Self { v: Lanes::relu(self.v), d: self.d * Lanes::heaviside(self.v) }
    }
    fn heaviside(self) -> Self {
        Self::constant(Lanes::heaviside(self.v))
    }
    fn number(value: f64) -> Self {
        Self::constant(value)
    }
    fn magnitude(self) -> Self {
        if self.v < 0.0 { -self } else { self }
    }
    fn choose(self, yes: Self, no: Self) -> Self {
        if self.v > 0.0 { yes } else { no }
    }
    fn between(self, low: Self, high: Self) -> Self {
        if self.v < low.v {
            low
        } else if self.v > high.v {
            high
        } else {
            self
        }
    }
    fn exp_minus_1(self) -> Self {
        Self { v: self.v.exp_m1(), d: self.d * self.v.exp() }
    }
    fn softsign(self) -> Self {
        let below = 1.0 + self.v.abs();
        Self { v: self.v / below, d: self.d / (below * below) }
    }
    fn softplus(self) -> Self {
        Self { v: Lanes::softplus(self.v), d: self.d * Lanes::sigmoid(self.v) }
    }
}

/// Weight of the second product: the operand times this is gh of the late gates.
const SECOND: f64 = -0.7;

fn step<C: Cell, V: Lanes>(
    cell: C,
    gx: [V; MAX_BUNDLE],
    gh: [V; MAX_BUNDLE],
    s: [V; MAX_BUNDLE],
    p: [V; MAX_BUNDLE],
    second: V,
) -> (C::State<V>, C::Saved<V>) {
    let (gx, s) = (C::Gates::from_array(gx), C::State::from_array(s));
    let gates = C::GATES;
    let mut gh = gh;
    let mut early = gh;
    for late in early.iter_mut().take(gates).skip(C::FIRST_GATES) {
        *late = V::zero();
    }
    let (operand, opened) = cell.open(gx, C::Gates::from_array(early), s);
    for late in gh.iter_mut().take(gates).skip(C::FIRST_GATES) {
        *late = operand * second;
    }
    cell.forward(gx, C::Gates::from_array(gh), s, opened, C::PerUnit::from_array(p))
}

fn check<C: Cell>(cell: C, seed: u64) {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = || {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        (bits >> 11) as f64 / (1u64 << 52) as f64 * 2.0 - 2.0
    };
    let mut four = || [random(), random(), random(), random()];
    let (gx, gh, s, d_new, p) = (four(), four(), four(), four(), four());
    let (gates, states) = (C::GATES, C::STATES);

    let (s_new, saved) = step::<C, f64>(cell, gx, gh, s, p, SECOND);
    let state = C::State::from_array(s);
    let d_new_state = C::State::from_array(d_new);
    let d = cell.backward(saved, state, s_new, C::PerUnit::from_array(p), d_new_state);
    let (mut d_gx, mut d_gh) = (d.d_gx.to_array(0.0), d.d_gh.to_array(0.0));
    let (mut d_s, d_p) = (d.d_s.to_array(0.0), d.d_p.to_array(0.0));
    if C::FIRST_GATES < gates {
        let d_operand = (C::FIRST_GATES..gates).map(|k| d_gh[k] * SECOND).sum();
        let (more, d_h) = cell.close(saved, state, d_operand);
        let more = more.to_array(0.0);
        for k in 0..gates {
            d_gx[k] += more[k];
            d_gh[k] += more[k];
        }
        d_s[0] += d_h;
        assert_eq!(cell.operand(saved, state) * SECOND, {
            let (operand, _) = cell.open(C::Gates::from_array(gx), C::Gates::from_array(gh), state);
            operand * SECOND
        });
    }
    if C::ONE_GATE_GRADIENT {
        assert_eq!(d_gx[..gates], d_gh[..gates]);
    }

    // d_new . d(new state)/d(input) for one input at a time
    let directional = |which: usize, k: usize| {
        let mut inputs = [gx, gh, s, p].map(|values| values.map(Dual::constant));
        inputs[which][k].d = 1.0;
        let [gx, gh, s, p] = inputs;
        let (s_new, _) = step::<C, Dual>(cell, gx, gh, s, p, Dual::constant(SECOND));
        let s_new = s_new.to_array(Dual::zero());
        (0..states).map(|j| d_new[j] * s_new[j].d).sum::<f64>()
    };
    let close = |a: f64, b: f64, what: &str| {
        assert!((a - b).abs() <= 1e-13 * (1.0 + b.abs()), "{what}: {a} is not {b}");
    };
    for k in 0..gates {
        close(d_gx[k], directional(0, k), "d_gx");
        if k < C::FIRST_GATES {
            close(d_gh[k], directional(1, k), "d_gh");
        }
    }
    for k in 0..states {
        close(d_s[k], directional(2, k), "d_s");
    }
    for k in 0..C::PER_UNIT {
        close(d_p[k], directional(3, k), "d_p");
    }
}

#[test]
fn backward_is_the_derivative_of_forward() {
    for kind in CellKind::ALL {
        for seed in 1..200 {
            with_cell!(kind, C, cell => check::<C>(cell, seed));
        }
    }
}

#[test]
fn the_order_of_the_gates_is_that_of_pytorch() {
    assert_eq!(CellKind::Lstm.gate_names(), ["i", "f", "g", "o"]);
    assert_eq!(CellKind::LstmCoupled.gate_names(), ["i", "g", "o"]);
    assert_eq!(CellKind::GruResetAfter.gate_names(), ["r", "z", "n"]);
    assert_eq!(CellKind::GruResetBefore.gate_names(), ["r", "z", "n"]);
}

#[test]
fn every_function_has_its_slope() {
    for name in FunctionName::ALL {
        let mut function = Function::from(name);
        for (given, number) in name.defaults().into_iter().zip([0.75, -0.25]) {
            let place = if number > 0.0 { &mut function.alpha } else { &mut function.beta };
            *place = given.map_or(0.0, |_| number);
        }
        function.check("function").unwrap();
        for k in -400..400 {
            // Between the corners, which are multiples of 1/3.
            let x = f64::from(k) / 64.0 + 1e-3;
            let Sloped { value, slope } = function.sloped(x);
            let dual = function.value(Dual { v: x, d: 1.0 });
            assert_eq!(value, dual.v, "{name:?}({x})");
            assert!((slope - dual.d).abs() <= 1e-14, "{name:?}'({x}): {slope} is not {}", dual.d);
        }
        let nan = function.sloped(f64::NAN);
        assert!(nan.value.is_nan(), "{name:?} of NaN is {}", nan.value);
        let far = [f64::INFINITY, f64::NEG_INFINITY].map(|x| function.value(x));
        assert!(far.iter().all(|value| !value.is_nan()), "{name:?} far away is {far:?}");
    }
}

#[test]
fn functions_are_those_of_onnx() {
    let value = |name: FunctionName, x: f64| Function::from(name).value(x);
    assert_eq!(value(FunctionName::Relu, -2.0), 0.0);
    assert_eq!(value(FunctionName::Affine, -2.0), -2.0);
    assert_eq!(value(FunctionName::LeakyRelu, -2.0), -0.02);
    assert_eq!([0.5, 1.0, 2.0].map(|x| value(FunctionName::ThresholdedRelu, x)), [0.0, 1.0, 2.0]);
    assert_eq!(value(FunctionName::HardSigmoid, 1.0), 0.7);
    assert_eq!([-9.0, 9.0].map(|x| value(FunctionName::HardSigmoid, x)), [0.0, 1.0]);
    assert_eq!(value(FunctionName::Elu, -1.0), (-1.0_f64).exp_m1());
    assert_eq!(value(FunctionName::Softsign, -3.0), -0.75);
    assert_eq!(value(FunctionName::Softplus, 0.0), 2.0_f64.ln());
    assert_eq!(value(FunctionName::ScaledTanh, 0.5), 0.5_f64.tanh());
    let scaled = Function { name: FunctionName::ScaledTanh, alpha: 2.0, beta: 3.0 };
    assert_eq!(scaled.value(0.1), 2.0 * 0.3_f64.tanh());
}

#[test]
fn a_sum_beyond_the_bound_counts_as_the_bound_and_has_no_slope() {
    let chosen = Chosen { clip: Some(Bound(0.5)), ..Chosen::default() };
    assert_eq!(chosen.gate(3.0).value, Lanes::sigmoid(0.5));
    assert_eq!(chosen.candidate(-3.0).value, (-0.5_f64).tanh());
    assert_eq!(chosen.gate_again(3.0).slope, 0.0);
    assert_eq!(chosen.candidate_again(-3.0).slope, 0.0);
    assert!(chosen.gate_again(0.5).slope > 0.0, "the bound itself is inside");
    assert!(chosen.gate(f64::NAN).value.is_nan());
}

#[test]
fn what_is_chosen_as_it_is_by_default_is_the_default() {
    let default = Chosen::default();
    assert_eq!(CellKind::of(Equations::Lstm, default), CellKind::Lstm);
    assert_eq!(CellKind::of(Equations::Rnn, default), CellKind::RnnTanh);
    let relu = Chosen { candidate: Function::RELU, output: Function::RELU, ..default };
    assert_eq!(CellKind::of(Equations::Rnn, relu), CellKind::RnnRelu);
    let output = Chosen { output: Function::RELU, ..default };
    assert_eq!(CellKind::of(Equations::GruResetAfter, output), CellKind::GruResetAfter);
    assert_eq!(CellKind::of(Equations::Lstm, output), CellKind::Chosen(Equations::Lstm, output));
}

#[test]
fn a_number_that_a_function_has_not_is_refused() {
    let named = |name, alpha, beta| Function { name, alpha, beta }.check("gate_activation");
    let message = named(FunctionName::Tanh, 1.0, 0.0).unwrap_err().to_string();
    assert!(message.contains("alpha of gate_activation"), "{message}");
    assert!(named(FunctionName::LeakyRelu, 0.1, 0.2).is_err());
    assert!(named(FunctionName::Affine, f64::NAN, 0.2).is_err());
    assert!(named(FunctionName::Affine, 0.5, 0.2).is_ok());
    let clip = |bound| Chosen { clip: Some(Bound(bound)), ..Chosen::default() }.check();
    assert!(clip(0.0).is_err() && clip(f64::INFINITY).is_err() && clip(1.0).is_ok());
}
