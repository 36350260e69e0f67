//! exp, sigmoid and tanh to about 100 bits, as the unevaluated sum of two `f64`.

use std::ops::{Add, Div, Mul, Neg};

/// hi + lo, |lo| at most half an ULP of hi.
#[derive(Clone, Copy, Debug)]
struct Double {
    hi: f64,
    lo: f64,
}

/// value times 2^n, so that what no `f64` can hold can be compared with one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaled {
    value: Double,
    n: i32,
}

impl Scaled {
    /// How far `got` is from this, in ULP; infinity counts as the number after the
    /// largest, and the ULP of a subnormal is the smallest subnormal.
    pub(super) fn error(self, got: f64) -> f64 {
        let Self { value, n } = self;
        if value.hi == 0.0 {
            // 0 is exact only at 0.
            return if got == 0.0 { 0.0 } else { f64::INFINITY };
        }
        let exponent = exponent(value.hi) + n;
        let ulp = exponent.clamp(-1022, 1023) - 52;
        // Two steps of 2^-n, as it may not be a number; each is exact.
        let got = if got.is_infinite() {
            got.signum() * 2_f64.powi(1023 - n) * 2.0
        } else {
            got * 2_f64.powi(-(n / 2)) * 2_f64.powi(-(n - n / 2))
        };
        if exponent > 1023 {
            return if got >= 2_f64.powi(1023 - n) * 2.0 { 0.0 } else { f64::INFINITY };
        }
        let difference = (got - value.hi) - value.lo;
        difference.abs() / 2_f64.powi(ulp - n)
    }
}

/// e^x.
pub(super) fn exp(x: f64) -> Scaled {
    // ln 2 in three parts; n times the first is exact, as is its difference from x.
    const LN_2: [f64; 3] =
        [0.693_147_180_559_663, 2.823_529_056_303_157_7e-13, 1.947_045_092_380_75e-31];
    let x = x.clamp(-800.0, 800.0);
    let n = (x / std::f64::consts::LN_2).round();
    let r = exact(x - n * LN_2[0]) + -(product(n, LN_2[1]) + exact(n * LN_2[2]));
    // 0.35^28 / 28! is below 2^-140.
    let sum = (1..=28).rev().fold(exact(1.0), |sum, k| exact(1.0) + r * sum / exact(f64::from(k)));
    Scaled { value: sum, n: n as i32 }
}

/// 1 / (1 + e^-x).
pub(super) fn sigmoid(x: f64) -> Scaled {
    let e = exp(-x.abs());
    if e.n < -200 {
        // 1 + e is 1.
        return if x < 0.0 { e } else { plain(exact(1.0)) };
    }
    let e = e.unscaled();
    let top = if x < 0.0 { e } else { exact(1.0) };
    plain(top / (exact(1.0) + e))
}

/// The hyperbolic tangent.
pub(super) fn tanh(x: f64) -> Scaled {
    let a = x.abs();
    let value = if a < 2_f64.powi(-30) {
        // x - x^3 / 3; the next term is 2^-120 of x.
        Double { hi: a, lo: -a * a * a / 3.0 }
    } else if a > 100.0 {
        exact(1.0)
    } else {
        let e = exp(-2.0 * a).unscaled();
        (exact(1.0) + -e) / (exact(1.0) + e)
    };
    plain(if x.is_sign_negative() { -value } else { value })
}

fn plain(value: Double) -> Scaled {
    Scaled { value, n: 0 }
}

impl Scaled {
    fn unscaled(self) -> Double {
        let power = 2_f64.powi(self.n);
        Double { hi: self.value.hi * power, lo: self.value.lo * power }
    }
}

fn exact(hi: f64) -> Double {
    Double { hi, lo: 0.0 }
}

/// floor(log2 |x|) for x not 0.
fn exponent(x: f64) -> i32 {
    if x.abs() < f64::MIN_POSITIVE {
        return exponent(x * 2_f64.powi(100)) - 100;
    }
    ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

/// a + b, where |a| >= |b|.
fn ordered_sum(a: f64, b: f64) -> Double {
    let hi = a + b;
    Double { hi, lo: b - (hi - a) }
}

/// a + b.
fn sum(a: f64, b: f64) -> Double {
    let hi = a + b;
    let b_part = hi - a;
    Double { hi, lo: (a - (hi - b_part)) + (b - b_part) }
}

/// a * b.
fn product(a: f64, b: f64) -> Double {
    let hi = a * b;
    Double { hi, lo: a.mul_add(b, -hi) }
}

impl Add for Double {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let hi = sum(self.hi, other.hi);
        let lo = sum(self.lo, other.lo);
        let hi = ordered_sum(hi.hi, hi.lo + lo.hi);
        ordered_sum(hi.hi, hi.lo + lo.lo)
    }
}

impl Neg for Double {
    type Output = Self;
    fn neg(self) -> Self {
        Self { hi: -self.hi, lo: -self.lo }
    }
}

impl Mul for Double {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let p = product(self.hi, other.hi);
        ordered_sum(p.hi, p.lo + (self.hi * other.lo + self.lo * other.hi))
    }
}

impl Div for Double {
    type Output = Self;
    fn div(self, by: Self) -> Self {
        let mut rest = self;
        let mut quotient = exact(0.0);
        for _ in 0..3 {
            let digit = exact(rest.hi / by.hi);
            rest = rest + -(by * digit);
            quotient = quotient + digit;
        }
        quotient
    }
}

/// Against values from 400-bit arithmetic (mpmath), to 2^-95 of each.
#[test]
fn the_oracle_is_right() {
    for [x, exp_hi, exp_lo, sigmoid_hi, sigmoid_lo, tanh_hi, tanh_lo] in EXACT {
        for (name, got, hi, lo) in [
            ("exp", exp(x), exp_hi, exp_lo),
            ("sigmoid", sigmoid(x), sigmoid_hi, sigmoid_lo),
            ("tanh", tanh(x), tanh_hi, tanh_lo),
        ] {
            let got = got.unscaled();
            let error = ((got.hi - hi) + (got.lo - lo)) / hi;
            assert!(error.abs() < 2_f64.powi(-95), "{name} of {x}: {got:?}, off by {error:e}");
        }
    }
}

/// x, then exp x, sigmoid x and tanh x as hi and lo.
#[allow(clippy::approx_constant)] // e and 1 / sqrt 2 happen to be values.
const EXACT: [[f64; 7]; 9] = [
    [
        1.0,
        2.718_281_828_459_045,
        1.445_646_891_729_250_2e-16,
        0.731_058_578_630_004_9,
        -1.679_727_399_649_845e-17,
        0.761_594_155_955_764_9,
        3.709_021_448_216_492_4e-17,
    ],
    [
        -0.346_573_590_279_972_6,
        0.707_106_781_186_547_6,
        -8.850_864_603_713_092e-19,
        0.414_213_562_373_095_1,
        -2.487_904_246_386_907_7e-17,
        -0.333_333_333_333_333_26,
        -1.436_474_804_124_214_4e-17,
    ],
    [
        0.346_573_590_279_972_7,
        1.414_213_562_373_095_1,
        -3.456_644_747_993_813e-17,
        0.585_786_437_626_905,
        -3.693_581_012_318_848e-18,
        0.333_333_333_333_333_37,
        2.028_936_656_518_185e-18,
    ],
    [
        1.0e-5,
        1.000_010_000_05,
        9.701_884_258_585_04e-17,
        0.500_002_5,
        -3.721_113_888_476_053e-17,
        9.999_999_999_666_668e-6,
        -4.575_870_152_693_7e-22,
    ],
    [
        -20.5,
        1.250_152_866_386_742_6e-9,
        6.448_235_878_237_776e-26,
        1.250_152_864_823_860_5e-9,
        -4.250_589_114_969_652_5e-26,
        -1.0,
        3.125_764_378_669_977_6e-18,
    ],
    [300.25, 2.494_124_861_534_921_3e130, -6.154_945_403_062_824e113, 1.0, 0.0, 1.0, 0.0],
    [
        -37.123,
        7.545_463_946_346_382e-17,
        2.419_164_210_217_289e-33,
        7.545_463_946_346_382e-17,
        -3.274_238_406_344_023e-33,
        -1.0,
        1.138_680_523_312_262_5e-32,
    ],
    [
        -3.0e-10,
        0.999_999_999_7,
        2.486_711_130_171_765e-17,
        0.499_999_999_925,
        6.205_527_825_431_1e-18,
        -3.0e-10,
        9.0e-30,
    ],
    [
        0.7,
        2.013_752_707_470_476_6,
        -2.005_824_354_976_479_3e-16,
        0.668_187_772_168_166,
        4.688_266_281_783_103_4e-17,
        0.604_367_777_117_163_5,
        -2.791_618_001_542_534_6e-17,
    ],
];
