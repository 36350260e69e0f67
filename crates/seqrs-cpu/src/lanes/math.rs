//! exp, sigmoid, tanh and what follows from them: one polynomial, one order of operations, every
//! register.
//!
//! e^x = 2^n e^r with n = round(x / ln 2) and |r| <= (ln 2) / 2, where
//! e^r - 1 = r + r^2 p(r), p a polynomial of degree 4 (`f32`) or 9 (`f64`).
//!
//! ```text
//! sigmoid x = e / (1 + e) where x < 0, else 1 / (1 + e);   e = e^-|x|, at most 1
//! tanh    x = -sign(x) h / (1 + h);                        h = (e^-2|x| - 1) / 2
//! ```
//!
//! 1. n comes from adding a constant so large that the sum has no room for a
//!    fraction ([`Coefficients::ROUND`]). The constant includes the exponent bias, so
//!    the low bits of the sum, shifted into the exponent's place, are 2^n: no
//!    conversion to integers.
//! 2. r = x - n ln 2 with ln 2 in two parts, the first with so few bits that n times
//!    it is exact: no digits are lost, with a fused multiply-add or without.
//! 3. In `sigmoid`, e may be subnormal, which no exponent can express: 2^n is made
//!    2^[`Coefficients::LIFT`] times too large and the product brought back at the end.
//! 4. h is made as 2^n (e^r - 1)/2 + (2^n - 1)/2. Where tanh x is small, n = 0: the
//!    second part is nothing, the first is x + x^2 p(x), and no digit cancels. So
//!    tanh needs no second formula for small x. It works with half of r throughout.
//! 5. 1 + h is rounded once from its parts rather than from the rounded h.
//!
//! The arguments are first brought to where the result has become constant, so n
//! cannot overflow; NaN passes through.
//!
//! The bounds below are in units in the last place of the exact result and hold at every
//! level. All 2^32 arguments of `f32` have at most 1.08 (exp), 2.41 (sigmoid) and 2.04
//! ULP (tanh); six million of `f64`, dense where |r| is largest, 1.06, 2.32 and 2.05.
//!
//! ```text
//! e^x - 1      = 2 t / (1 - t)  for x <= 0;                t = tanh(x / 2): no digit cancels
//! log(1 + e^x) = max(x, 0) + 2 artanh(e / (2 + e));        e = e^-|x|
//! ```
//! artanh y = y (1 + y^2/3 + y^4/5 + ...), y at most 1/3.

use super::{Element, Simd};

/// Largest error of [`exp`], in ULP.
pub const EXP_ULP: f64 = 1.25;
/// Largest error of [`sigmoid`], in ULP.
pub const SIGMOID_ULP: f64 = 2.5;
/// Largest error of [`tanh`], in ULP.
pub const TANH_ULP: f64 = 2.25;
/// Largest error of [`exp_minus_1`], in ULP.
pub const EXP_MINUS_1_ULP: f64 = 5.0;
/// Largest error of [`softsign`], in ULP.
pub const SOFTSIGN_ULP: f64 = 2.0;
/// Largest error of [`softplus`], in ULP.
pub const SOFTPLUS_ULP: f64 = 5.0;

/// e^x.
#[inline(always)]
pub fn exp<V: Simd>(x: V) -> V {
    let c = V::splat;
    let x = x.at_least(c(V::Elem::EXP_ZERO)).at_most(c(V::Elem::EXP_INFINITE));
    let n = x.mul_add(c(V::Elem::LOG2_E), c(V::Elem::ROUND)) - c(V::Elem::ROUND);
    let r = reduce(x, n);
    let q = (r * r).mul_add(V::Elem::p(r), r);
    // 2^n in two factors, as n may be beyond either end of the exponents.
    let half = n.mul_add(c(V::Elem::HALF), c(V::Elem::ROUND));
    let rest = n - (half - c(V::Elem::ROUND)) + c(V::Elem::ROUND);
    let first = half.low_bits_to_exponent();
    q.mul_add(first, first) * rest.low_bits_to_exponent()
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<V: Simd>(x: V) -> V {
    let c = V::splat;
    let a = x.negative_abs().at_least(c(V::Elem::EXP_ZERO));
    let lifted = a.mul_add(c(V::Elem::LOG2_E), c(V::Elem::ROUND_LIFTED));
    let n = lifted - c(V::Elem::ROUND_LIFTED);
    let r = reduce(a, n);
    let q = (r * r).mul_add(V::Elem::p(r), r);
    let power = lifted.low_bits_to_exponent();
    let e_lifted = q.mul_add(power, power);
    let e = e_lifted * c(V::Elem::UNLIFT);
    let e_plus_1 = e_lifted.mul_add(c(V::Elem::UNLIFT), V::one());
    x.if_sign(e, V::one()).div(e_plus_1)
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh<V: Simd>(x: V) -> V {
    let c = V::splat;
    let a = x.negative_abs().at_least(c(V::Elem::TANH_ONE));
    let round = a.mul_add(c(V::Elem::LOG2_E_TWICE), c(V::Elem::ROUND));
    let n = round - c(V::Elem::ROUND);
    let r = n.mul_add(c(V::Elem::MINUS_HALF_LN_2_REST), n.mul_add(c(V::Elem::MINUS_HALF_LN_2), a));
    let q = (r * r).mul_add(V::Elem::p_of_twice(r), r);
    let power = round.low_bits_to_exponent();
    let half = c(V::Elem::HALF);
    let h = q.mul_add(power, power.mul_add(half, -half));
    let h_plus_1 = q.mul_add(power, power.mul_add(half, half));
    h.with_sign_of(x).div(h_plus_1)
}

/// e^x - 1 for x <= 0.
#[inline(always)]
pub fn exp_minus_1<V: Simd>(x: V) -> V {
    let half = V::splat(V::Elem::HALF);
    let t = tanh(x * half);
    (t + t).div(V::one() - t)
}

/// x / (1 + |x|).
#[inline(always)]
pub fn softsign<V: Simd>(x: V) -> V {
    // Infinity over infinity would be NaN.
    let largest = V::splat(<V::Elem as num_traits::Float>::max_value());
    let x = x.at_least(-largest).at_most(largest);
    x.div(V::one() + Simd::abs(x))
}

/// log(1 + e^x).
#[inline(always)]
pub fn softplus<V: Simd>(x: V) -> V {
    let e = exp(x.negative_abs());
    let y = e.div(V::one() + V::one() + e);
    let y2 = y * y;
    let mut sum = V::zero();
    for k in (0..V::Elem::ARTANH_TERMS).rev() {
        sum = sum.mul_add(y2, V::number(1.0 / (2 * k + 1) as f64));
    }
    (y + y).mul_add(sum, x.relu())
}

/// x - n ln 2.
#[inline(always)]
fn reduce<V: Simd>(x: V, n: V) -> V {
    n.mul_add(V::splat(V::Elem::MINUS_LN_2_REST), n.mul_add(V::splat(V::Elem::MINUS_LN_2), x))
}

/// What differs between `f32` and `f64`.
pub trait Coefficients: Sized {
    /// Below this e^x is 0.
    const EXP_ZERO: Self;
    /// Above this e^x is infinite.
    const EXP_INFINITE: Self;
    /// Below this tanh x is -1.
    const TANH_ONE: Self;
    /// 1 / ln 2.
    const LOG2_E: Self;
    /// 2 / ln 2.
    const LOG2_E_TWICE: Self;
    /// 1.5 times 2^(bits of the fraction), plus the exponent bias.
    const ROUND: Self;
    /// [`Coefficients::ROUND`] + [`Coefficients::LIFT`].
    const ROUND_LIFTED: Self;
    /// An exponent by which the smallest subnormal becomes normal and 1 stays finite.
    const LIFT: i32;
    /// 2^-[`Coefficients::LIFT`].
    const UNLIFT: Self;
    /// -ln 2 to the precision less the bits of n.
    const MINUS_LN_2: Self;
    /// What is left of -ln 2.
    const MINUS_LN_2_REST: Self;
    /// Half of [`Coefficients::MINUS_LN_2`].
    const MINUS_HALF_LN_2: Self;
    /// Half of [`Coefficients::MINUS_LN_2_REST`].
    const MINUS_HALF_LN_2_REST: Self;
    /// 1/2.
    const HALF: Self;
    /// Terms of artanh y / y for y at most 1/3: the next would be below half an ULP.
    const ARTANH_TERMS: usize;
    /// As [`Simd::low_bits_to_exponent`], for one number.
    fn low_bits_to_exponent(self) -> Self;
    /// (e^r - 1 - r) / r^2 for |r| <= (ln 2) / 2.
    fn p<V: Simd<Elem = Self>>(r: V) -> V
    where
        Self: Element;
    /// 2 p(2 r): (e^2r - 1 - 2r) / 2r^2 for |r| <= (ln 2) / 4.
    fn p_of_twice<V: Simd<Elem = Self>>(r: V) -> V
    where
        Self: Element;
}

/// The polynomial's coefficients, lowest first.
///
/// They minimise the largest |r^2 (p(r) - exact)| / |e^r - 1|, the relative error of
/// e^r - 1, for |r| <= (1 + 2^-10) (ln 2) / 2: a Remez exchange in 300-bit arithmetic
/// on a grid of 2000 Chebyshev points, then each coefficient rounded to the type.
/// What is left is 2^-25.5 for `f32` and 2^-54.8 for `f64`.
const P_F32: [f32; 5] = [0.5, 0.166_665_43, 0.041_667_2, 0.008_366_579, 0.001_388_251_2];
/// See [`P_F32`].
const P_F64: [f64; 10] = [
    0.500_000_000_000_000_6,
    0.166_666_666_666_665_88,
    0.041_666_666_666_576_126,
    0.008_333_333_333_389_948,
    0.001_388_888_893_178_893_5,
    0.000_198_412_697_183_625_88,
    2.480_150_498_663_339_3e-5,
    2.755_740_785_274_906e-6,
    2.762_615_818_051_871_7e-7,
    2.505_377_785_919_751_4e-8,
];

macro_rules! coefficients {
    (
        $float:ident, lift = $lift:literal, p = $p:ident, artanh = $terms:literal,
        exp = $zero:literal .. $infinite:literal, tanh = $tanh:literal,
        ln_2 = $ln_2:literal + $rest:literal,
        |$c:ident, $r:ident, $r2:ident| $polynomial:expr
    ) => {
        impl Coefficients for $float {
            const EXP_ZERO: Self = $zero;
            const EXP_INFINITE: Self = $infinite;
            const TANH_ONE: Self = $tanh;
            const LOG2_E: Self = std::$float::consts::LOG2_E;
            const LOG2_E_TWICE: Self = 2.0 * Self::LOG2_E;
            const ROUND: Self = 1.5 * (1_u64 << ($float::MANTISSA_DIGITS - 1)) as $float
                + ($float::MAX_EXP - 1) as $float;
            const ROUND_LIFTED: Self = Self::ROUND + Self::LIFT as $float;
            const LIFT: i32 = $lift;
            const UNLIFT: Self = 1.0 / (1_u128 << Self::LIFT) as $float;
            const MINUS_LN_2: Self = -$ln_2;
            const MINUS_LN_2_REST: Self = -$rest;
            const MINUS_HALF_LN_2: Self = 0.5 * Self::MINUS_LN_2;
            const MINUS_HALF_LN_2_REST: Self = 0.5 * Self::MINUS_LN_2_REST;
            const HALF: Self = 0.5;
            const ARTANH_TERMS: usize = $terms;

            #[inline(always)]
            fn low_bits_to_exponent(self) -> Self {
                $float::from_bits(self.to_bits() << ($float::MANTISSA_DIGITS - 1))
            }

            #[inline(always)]
            fn p<V: Simd<Elem = Self>>($r: V) -> V {
                let $c = |k: usize| V::splat($p[k]);
                let $r2 = $r * $r;
                $polynomial
            }

            #[inline(always)]
            fn p_of_twice<V: Simd<Elem = Self>>($r: V) -> V {
                // 2^(k+1) p_k: the same polynomial to the last bit.
                const P: [$float; $p.len()] = {
                    let mut scaled = $p;
                    let mut k = 0;
                    while k < scaled.len() {
                        scaled[k] *= (2_u32 << k) as $float;
                        k += 1;
                    }
                    scaled
                };
                let $c = |k: usize| V::splat(P[k]);
                let $r2 = $r * $r;
                $polynomial
            }
        }
    };
}

// The polynomials are summed in pairs (Estrin), half as deep as one after another.
coefficients! {
    f32, lift = 32, p = P_F32, artanh = 8,
    exp = -104.0 .. 89.0, tanh = -10.0,
    ln_2 = 0.693_145_75 + 1.428_606_8e-6,
    |c, r, r2| {
        let low = r.mul_add(c(1), c(0));
        let high = r.mul_add(c(3), c(2));
        r2.mul_add(r2.mul_add(c(4), high), low)
    }
}

coefficients! {
    f64, lift = 64, p = P_F64, artanh = 17,
    exp = -746.0 .. 710.0, tanh = -20.0,
    ln_2 = 0.693_147_180_559_663 + 2.823_529_056_303_157_7e-13,
    |c, r, r2| {
        let r4 = r2 * r2;
        let p01 = r.mul_add(c(1), c(0));
        let p23 = r.mul_add(c(3), c(2));
        let p45 = r.mul_add(c(5), c(4));
        let p67 = r.mul_add(c(7), c(6));
        let p89 = r.mul_add(c(9), c(8));
        let p03 = r2.mul_add(p23, p01);
        let p47 = r2.mul_add(p67, p45);
        r4.mul_add(r4.mul_add(p89, p47), p03)
    }
}
