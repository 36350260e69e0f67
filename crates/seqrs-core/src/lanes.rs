//! The arithmetic a cell is written in.
//!
//! A cell computes one unit; the same text runs on one number, on a register of
//! numbers, or on a number with its derivative (which is how the tests prove that
//! `backward` is the derivative of `forward`).

use std::ops::{Add, Mul, Neg, Sub};

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
        }
    )*};
}

scalar_lanes!(f32, f64);
