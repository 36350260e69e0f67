//! One number as a register of width 1, with a fused multiply-add: the plain twin of
//! the vector registers, equal to each of their lanes bit for bit.

use super::{Element, Simd, math::Coefficients};
use crate::level::Kernel;

/// One number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(transparent)]
pub struct Single<T>(pub T);

super::lanes! {
    [T: Element] Single<T>;
    add = |a: Self, b: Self| Self(a.0 + b.0),
    sub = |a: Self, b: Self| Self(a.0 - b.0),
    mul = |a: Self, b: Self| Self(a.0 * b.0),
    neg = |a: Self| Self(-a.0)
}

impl<T: Element> Simd for Single<T> {
    type Elem = T;
    const WIDTH: usize = 1;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller vouches for one number.
        Self(unsafe { from.read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: the caller vouches for one number.
        unsafe { to.write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const T, n: usize) -> Self {
        if n == 0 {
            return Self(num_traits::zero());
        }
        // SAFETY: the caller vouches for `n` = 1 number.
        unsafe { Self::load(from) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut T, n: usize) {
        if n != 0 {
            // SAFETY: the caller vouches for `n` = 1 number.
            unsafe { self.store(to) }
        }
    }
    #[inline(always)]
    fn splat(value: T) -> Self {
        Self(value)
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Self(num_traits::Float::mul_add(self.0, a.0, b.0))
    }
    #[inline(always)]
    fn div(self, by: Self) -> Self {
        Self(self.0 / by.0)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.sqrt())
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.abs())
    }
    #[inline(always)]
    fn negative_abs(self) -> Self {
        Self(-self.0.abs())
    }
    #[inline(always)]
    fn with_sign_of(self, sign: Self) -> Self {
        Self(self.0.copysign(sign.0))
    }
    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        if self.0 < bound.0 { bound } else { self }
    }
    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        if self.0 > bound.0 { bound } else { self }
    }
    #[inline(always)]
    fn if_positive(self, yes: Self, no: Self) -> Self {
        if self.0 > num_traits::zero() { yes } else { no }
    }
    #[inline(always)]
    fn if_sign(self, yes: Self, no: Self) -> Self {
        if self.0.is_sign_negative() { yes } else { no }
    }
    #[inline(never)]
    fn out_of_line<K: Kernel<T>>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        Self(Coefficients::low_bits_to_exponent(self.0))
    }
}
