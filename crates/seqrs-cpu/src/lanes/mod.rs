//! Registers of numbers.
//!
//! A kernel is written once over [`Simd`] and runs on whatever register the
//! processor has: 16 or 8 numbers (AVX-512), 8 or 4 (AVX2), 4 or 2 (NEON), 4 in
//! plain Rust, or one at a time ([`single::Single`]).
//!
//! The operations are few, element-wise and rounded once each (IEEE 754), and
//! the elementary functions are one text ([`math`]) over them. So every register
//! with a fused `mul_add` gives the same bits for the same numbers; [`portable`],
//! which has no fused multiply-add, may differ in the last places.
//!
//! A register of an instruction set is named only through [`Element`], by
//! [`Level::dispatch`](crate::level::Level::dispatch): to hold one is to be on a
//! processor that has it. Everything here is `#[inline(always)]`, because an
//! intrinsic is only fast inside the function that enables its features.

use seqrs_core::lanes::Lanes;

use crate::compiled::Compiled;
use crate::level::Kernel;

mod functions;
pub mod math;
pub mod portable;
pub mod single;

// An intrinsic needs no `unsafe` where the whole program is compiled for it, as NEON
// is on most targets and all of them with `-C target-cpu=native`.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
#[allow(unused_unsafe)]
pub(crate) mod neon;

#[cfg(test)]
mod tests;

/// A number that networks are computed in: `f32` or `f64`.
#[allow(private_bounds)] // What is private here is for this crate to name alone.
pub trait Element:
    num_traits::Float
    + Lanes
    + Registers
    + Compiled
    + seqrs_core::real::Real
    + math::Coefficients
    + Default
    + Send
    + Sync
    + std::fmt::Debug
    + 'static
{
    /// The name of the type as users know it: `"float32"` or `"float64"`.
    const NAME: &'static str;
}

/// The register of each instruction set. On a processor without it a register is
/// undefined behaviour even to make, so this trait does not leave the crate.
pub(crate) trait Registers: Sized {
    #[cfg(target_arch = "x86_64")]
    type Avx512: Simd<Elem = Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx2: Simd<Elem = Self>;
    #[cfg(target_arch = "aarch64")]
    type Neon: Simd<Elem = Self>;
    type Portable: Simd<Elem = Self>;
}

/// A register of [`Simd::WIDTH`] numbers.
///
/// A comparison with NaN is false and every operation keeps a NaN in `self`; which
/// NaN (its sign and payload) is not defined.
pub trait Simd: Lanes {
    /// The type of one number.
    type Elem: Element;
    /// How many numbers there are in a register.
    const WIDTH: usize;
    /// How many such registers the processor can name: what a micro-kernel's tile
    /// of accumulators, with its operands, has to fit in.
    const REGISTERS: usize;

    /// The `WIDTH` numbers at `from`, at any alignment.
    ///
    /// # Safety
    /// `from` is valid for reading `WIDTH` numbers.
    unsafe fn load(from: *const Self::Elem) -> Self;

    /// Writes the `WIDTH` numbers to `to`, at any alignment.
    ///
    /// # Safety
    /// `to` is valid for writing `WIDTH` numbers.
    unsafe fn store(self, to: *mut Self::Elem);

    /// The first `n` numbers at `from`, then zeros; `n <= WIDTH`. Touches no memory
    /// beyond the `n`.
    ///
    /// # Safety
    /// `from` is valid for reading `n` numbers.
    unsafe fn load_partial(from: *const Self::Elem, n: usize) -> Self;

    /// Writes the first `n` numbers to `to`; `n <= WIDTH`. Touches no memory beyond
    /// the `n`.
    ///
    /// # Safety
    /// `to` is valid for writing `n` numbers.
    unsafe fn store_partial(self, to: *mut Self::Elem, n: usize);

    /// `value` in every lane.
    fn splat(value: Self::Elem) -> Self;

    /// self * a + b, rounded once; rounded twice in [`portable`].
    fn mul_add(self, a: Self, b: Self) -> Self;

    /// self / by.
    fn div(self, by: Self) -> Self;

    /// The square root.
    fn sqrt(self) -> Self;

    /// |self|.
    fn abs(self) -> Self;

    /// -|self|.
    fn negative_abs(self) -> Self;

    /// |self| with the sign of `sign`.
    fn with_sign_of(self, sign: Self) -> Self;

    /// `bound` where self < bound, else self.
    fn at_least(self, bound: Self) -> Self;

    /// `bound` where self > bound, else self.
    fn at_most(self, bound: Self) -> Self;

    /// `yes` where self > 0, else `no`.
    fn if_positive(self, yes: Self, no: Self) -> Self;

    /// `yes` where the sign bit of self is set (so also at -0.0), else `no`.
    fn if_sign(self, yes: Self, no: Self) -> Self;

    /// Runs `kernel` on these registers, as a call.
    fn out_of_line<K: Kernel<Self::Elem>>(kernel: K) -> K::Output;

    /// The bits shifted left until the low bits of the significand are the sign and
    /// exponent, zeros coming in: an integer becomes a power of two (see [`math`]).
    fn low_bits_to_exponent(self) -> Self;
}

/// [`Lanes`] and its operators for a register, from the given element-wise
/// functions and the rest of [`Simd`].
macro_rules! lanes {
    (
        [$($generics:tt)*] $register:ty;
        add = $add:expr, sub = $sub:expr, mul = $mul:expr, neg = $neg:expr
    ) => {
        impl<$($generics)*> ::std::ops::Add for $register {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                $add(self, other)
            }
        }

        impl<$($generics)*> ::std::ops::Sub for $register {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                $sub(self, other)
            }
        }

        impl<$($generics)*> ::std::ops::Mul for $register {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                $mul(self, other)
            }
        }

        impl<$($generics)*> ::std::ops::Neg for $register {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                $neg(self)
            }
        }

        impl<$($generics)*> ::seqrs_core::lanes::Lanes for $register {
            #[inline(always)]
            fn zero() -> Self {
                <Self as $crate::lanes::Simd>::splat(::num_traits::Zero::zero())
            }
            #[inline(always)]
            fn one() -> Self {
                <Self as $crate::lanes::Simd>::splat(::num_traits::One::one())
            }
            #[inline(always)]
            fn sigmoid(self) -> Self {
                $crate::lanes::math::sigmoid(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $crate::lanes::math::tanh(self)
            }
            #[inline(always)]
            fn relu(self) -> Self {
                $crate::lanes::Simd::at_least(self, Self::zero())
            }
            #[inline(always)]
            fn heaviside(self) -> Self {
                // Where not positive: 0, or NaN; the sum makes -0.0 a zero.
                let zero = Self::zero();
                let otherwise = $crate::lanes::Simd::at_least(self, zero) + zero;
                $crate::lanes::Simd::if_positive(self, Self::one(), otherwise)
            }
            #[inline(always)]
            fn number(value: f64) -> Self {
                <Self as $crate::lanes::Simd>::splat(::seqrs_core::lanes::Lanes::number(value))
            }
            #[inline(always)]
            fn magnitude(self) -> Self {
                $crate::lanes::Simd::abs(self)
            }
            #[inline(always)]
            fn choose(self, yes: Self, no: Self) -> Self {
                $crate::lanes::Simd::if_positive(self, yes, no)
            }
            #[inline(always)]
            fn between(self, low: Self, high: Self) -> Self {
                let least = $crate::lanes::Simd::at_least(self, low);
                $crate::lanes::Simd::at_most(least, high)
            }
            #[inline(always)]
            fn exp_minus_1(self) -> Self {
                $crate::lanes::math::exp_minus_1(self)
            }
            #[inline(always)]
            fn softsign(self) -> Self {
                $crate::lanes::math::softsign(self)
            }
            #[inline(always)]
            fn softplus(self) -> Self {
                $crate::lanes::math::softplus(self)
            }
            #[inline(always)]
            fn value_of(self, function: ::seqrs_core::cell::Function) -> Self {
                $crate::lanes::functions::value_of(self, function)
            }
            #[inline(always)]
            fn sloped_of(
                self,
                function: ::seqrs_core::cell::Function,
            ) -> ::seqrs_core::cell::Sloped<Self> {
                $crate::lanes::functions::sloped_of(self, function)
            }
        }
    };
}
use lanes;

macro_rules! elements {
    ($($float:ty, $name:literal, $avx512:ident, $avx2:ident, $neon:ident;)*) => {$(
        impl Element for $float {
            const NAME: &'static str = $name;
        }

        impl Registers for $float {
            #[cfg(target_arch = "x86_64")]
            type Avx512 = avx512::$avx512;
            #[cfg(target_arch = "x86_64")]
            type Avx2 = avx2::$avx2;
            #[cfg(target_arch = "aarch64")]
            type Neon = neon::$neon;
            type Portable = portable::Portable<$float>;
        }
    )*};
}

elements! {
    f32, "float32", F32x16, F32x8, F32x4;
    f64, "float64", F64x8, F64x4, F64x2;
}
