//! `backward` is the derivative of `forward`, proved with dual numbers: a number that
//! carries its derivative through the same text that the kernels run.

use std::ops::{Add, Mul, Neg, Sub};

use super::*;

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
}

/// Weight of the second product: the operand times this is gh of the late gates.
const SECOND: f64 = -0.7;

fn step<C: Cell, V: Lanes>(
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
    let (operand, opened) = C::open(gx, C::Gates::from_array(early), s);
    for late in gh.iter_mut().take(gates).skip(C::FIRST_GATES) {
        *late = operand * second;
    }
    C::forward(gx, C::Gates::from_array(gh), s, opened, C::PerUnit::from_array(p))
}

fn check<C: Cell>(seed: u64) {
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

    let (s_new, saved) = step::<C, f64>(gx, gh, s, p, SECOND);
    let state = C::State::from_array(s);
    let d_new_state = C::State::from_array(d_new);
    let d = C::backward(saved, state, s_new, C::PerUnit::from_array(p), d_new_state);
    let (mut d_gx, mut d_gh) = (d.d_gx.to_array(0.0), d.d_gh.to_array(0.0));
    let (mut d_s, d_p) = (d.d_s.to_array(0.0), d.d_p.to_array(0.0));
    if C::FIRST_GATES < gates {
        let d_operand = (C::FIRST_GATES..gates).map(|k| d_gh[k] * SECOND).sum();
        let (more, d_h) = C::close(saved, state, d_operand);
        let more = more.to_array(0.0);
        for k in 0..gates {
            d_gx[k] += more[k];
            d_gh[k] += more[k];
        }
        d_s[0] += d_h;
        assert_eq!(C::operand(saved, state) * SECOND, {
            let (operand, _) = C::open(C::Gates::from_array(gx), C::Gates::from_array(gh), state);
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
        let (s_new, _) = step::<C, Dual>(gx, gh, s, p, Dual::constant(SECOND));
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
            with_cell!(kind, C => check::<C>(seed));
        }
    }
}

#[test]
fn the_order_of_the_gates_is_that_of_pytorch() {
    let names =
        |kind| with_cell!(kind, C => <<C as Cell>::Gates<f32> as Bundle<f32>>::NAMES.to_vec());
    assert_eq!(names(CellKind::Lstm), ["i", "f", "g", "o"]);
    assert_eq!(names(CellKind::GruResetAfter), ["r", "z", "n"]);
    assert_eq!(names(CellKind::GruResetBefore), ["r", "z", "n"]);
}
