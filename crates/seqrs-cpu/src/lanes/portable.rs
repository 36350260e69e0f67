//! Four numbers in plain Rust, for any processor: each lane multiplies, rounds, adds
//! and rounds again, as no fused multiply-add can be assumed. The compiler makes of
//! it what the target's baseline has.

use super::{Element, Simd, math::Coefficients};
use crate::level::Kernel;

const WIDTH: usize = 4;

/// Four numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(transparent)]
pub struct Portable<T>([T; WIDTH]);

impl<T: Element> Portable<T> {
    #[inline(always)]
    fn map(self, f: impl Fn(T) -> T) -> Self {
        let [a, b, c, d] = self.0;
        Self([f(a), f(b), f(c), f(d)])
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        let ([a, b, c, d], [p, q, r, s]) = (self.0, other.0);
        Self([f(a, p), f(b, q), f(c, r), f(d, s)])
    }

    /// `yes` where `test`, else `no`.
    #[inline(always)]
    fn choose(self, test: impl Fn(T) -> bool, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|k| if test(self.0[k]) { yes.0[k] } else { no.0[k] }))
    }
}

super::lanes! {
    [T: Element] Portable<T>;
    add = |a: Self, b: Self| a.zip(b, |a, b| a + b),
    sub = |a: Self, b: Self| a.zip(b, |a, b| a - b),
    mul = |a: Self, b: Self| a.zip(b, |a, b| a * b),
    neg = |a: Self| a.map(|a| -a)
}

impl<T: Element> Simd for Portable<T> {
    type Elem = T;
    const WIDTH: usize = WIDTH;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller vouches for `WIDTH` numbers; an array of four has no padding.
        Self(unsafe { from.cast::<[T; WIDTH]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: the caller vouches for `WIDTH` numbers; an array of four has no padding.
        unsafe { to.cast::<[T; WIDTH]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const T, n: usize) -> Self {
        let mut lanes = [num_traits::zero(); WIDTH];
        for (k, lane) in lanes[..n].iter_mut().enumerate() {
            // SAFETY: `k` < `n`, and the caller vouches for `n` numbers.
            *lane = unsafe { from.add(k).read_unaligned() };
        }
        Self(lanes)
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut T, n: usize) {
        for (k, &lane) in self.0[..n].iter().enumerate() {
            // SAFETY: `k` < `n`, and the caller vouches for `n` numbers.
            unsafe { to.add(k).write_unaligned(lane) }
        }
    }
    #[inline(always)]
    fn splat(value: T) -> Self {
        Self([value; WIDTH])
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        self * a + b
    }
    #[inline(always)]
    fn div(self, by: Self) -> Self {
        self.zip(by, |a, b| a / b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(|a| a.sqrt())
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(|a| a.abs())
    }
    #[inline(always)]
    fn negative_abs(self) -> Self {
        self.map(|a| -a.abs())
    }
    #[inline(always)]
    fn with_sign_of(self, sign: Self) -> Self {
        self.zip(sign, |a, sign| a.copysign(sign))
    }
    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        self.zip(bound, |a, bound| if a < bound { bound } else { a })
    }
    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        self.zip(bound, |a, bound| if a > bound { bound } else { a })
    }
    #[inline(always)]
    fn if_positive(self, yes: Self, no: Self) -> Self {
        self.choose(|a| a > num_traits::zero(), yes, no)
    }
    #[inline(always)]
    fn if_sign(self, yes: Self, no: Self) -> Self {
        self.choose(|a| a.is_sign_negative(), yes, no)
    }
    #[inline(never)]
    fn out_of_line<K: Kernel<T>>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        self.map(Coefficients::low_bits_to_exponent)
    }
}
