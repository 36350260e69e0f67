//! The arithmetic a cell is written in.
//!
//! A cell computes one unit; the same text runs on one number, on a register of
//! numbers, or on a number with its derivative (which is how the tests prove that
//! `backward` is the derivative of `forward`).

use std::ops::{Add, Mul, Neg, Sub};

use crate::cell::{Function, Sloped};

/// One or several numbers that go through the same arithmetic side by side.
///
/// Every operation is element-wise and propagates NaN.
pub trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Neg<Output = Self>
{
    /// 0 in every lane.
    fn zero() -> Self;
    /// 1 in every lane.
    fn one() -> Self;
    /// The logistic function, 1 / (1 + e^-x).
    fn sigmoid(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// max(x, 0); NaN stays NaN.
    fn relu(self) -> Self;
    /// The derivative of [`Lanes::relu`]: 1 where x > 0, else 0; NaN stays NaN.
    fn heaviside(self) -> Self;
    /// `value`, rounded, in every lane.
    fn number(value: f64) -> Self;
    /// |x|.
    fn magnitude(self) -> Self;
    /// `yes` where x > 0, else (NaN too) `no`.
    fn choose(self, yes: Self, no: Self) -> Self;
    /// `low` where x is below it, `high` where x is above it; NaN stays NaN.
    fn between(self, low: Self, high: Self) -> Self;
    /// e^x - 1 for x <= 0; above, whatever it is.
    fn exp_minus_1(self) -> Self;
    /// x / (1 + |x|).
    fn softsign(self) -> Self;
    /// log(1 + e^x).
    fn softplus(self) -> Self;

    /// [`Function::value`], which a register calls where a cell has its text in many places.
    fn value_of(self, function: Function) -> Self {
        function.value(self)
    }
    /// [`Function::sloped`], likewise.
    fn sloped_of(self, function: Function) -> Sloped<Self> {
        function.sloped(self)
    }
}

macro_rules! scalar_lanes {
    ($($float:ty),*) => {$(
        impl Lanes for $float {
            fn zero() -> Self {
                0.0
            }
            fn one() -> Self {
                1.0
            }
            fn sigmoid(self) -> Self {
                // The form that never overflows: e^-|x| is in (0, 1].
                let e = (-self.abs()).exp();
                if self < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
            }
            fn tanh(self) -> Self {
                <$float>::tanh(self)
            }
            fn relu(self) -> Self {
                if self < 0.0 { 0.0 } else { self }
            }
            fn heaviside(self) -> Self {
                if self > 0.0 {
                    1.0
                } else if self <= 0.0 {
                    0.0
                } else {
                    self
                }
            }
            fn number(value: f64) -> Self {
                value as $float
            }
            fn magnitude(self) -> Self {
                self.abs()
            }
            fn choose(self, yes: Self, no: Self) -> Self {
                if self > 0.0 { yes } else { no }
            }
            fn between(self, low: Self, high: Self) -> Self {
                if self < low {
                    low
                } else if self > high {
                    high
                } else {
                    self
                }
            }
            fn exp_minus_1(self) -> Self {
                self.exp_m1()
            }
            fn softsign(self) -> Self {
                // Infinity over infinity would be NaN.
                let x = self.clamp(<$float>::MIN, <$float>::MAX);
                x / (1.0 + x.abs())
            }
            fn softplus(self) -> Self {
                // The form that never overflows: e^-|x| is in (0, 1].
                (-self.abs()).exp().ln_1p() + Lanes::relu(self)
            }
        }
    )*};
}

scalar_lanes!(f32, f64);
