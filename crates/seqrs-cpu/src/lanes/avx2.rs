//! AVX2 with FMA: 8 `f32` or 4 `f64` in a register, 16 registers; a partial load or
//! store is masked by the sign bits of a vector of integers.

use super::Simd;
use crate::level::Kernel;
use std::arch::x86_64::*;

/// An intrinsic of this instruction set.
macro_rules! avx2 {
    ($call:expr) => {
        // SAFETY: this module's types are named only by `Level::dispatch`, after AVX2
        // and FMA were detected.
        unsafe { $call }
    };
}

/// Ones, then zeros: a window on it is a mask of the first lanes.
static ONES_32: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
/// As [`ONES_32`].
static ONES_64: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

macro_rules! register {
    (
        $(#[$doc:meta])* $name:ident = $raw:ty: [$elem:ty; $width:literal], mask $ones:ident;
        $loadu:ident $storeu:ident $maskload:ident $maskstore:ident
        $set1:ident $setzero:ident $add:ident $sub:ident $mul:ident $div:ident $fmadd:ident $sqrt:ident
        $min:ident $max:ident $and:ident $andnot:ident $or:ident $xor:ident
        $cmp:ident $blendv:ident $to_int:ident $from_int:ident $shift:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[repr(transparent)]
        pub(crate) struct $name(pub(crate) $raw);

        impl $name {
            /// Selects the first `n` lanes.
            #[inline(always)]
            fn first(n: usize) -> __m256i {
                let window = &$ones[$width - n..][..$width];
                // SAFETY: AVX2 as above; `window` has the 32 bytes that are read.
                unsafe { _mm256_loadu_si256(window.as_ptr().cast()) }
            }
        }

        super::lanes! {
            [] $name;
            add = |a: Self, b: Self| Self(avx2!($add(a.0, b.0))),
            sub = |a: Self, b: Self| Self(avx2!($sub(a.0, b.0))),
            mul = |a: Self, b: Self| Self(avx2!($mul(a.0, b.0))),
            neg = |a: Self| Self(avx2!($xor(a.0, $set1(-0.0))))
        }

        impl Simd for $name {
            type Elem = $elem;
            const WIDTH: usize = $width;
            const REGISTERS: usize = 16;

            #[inline(always)]
            unsafe fn load(from: *const $elem) -> Self {
                // SAFETY: AVX2 as above; the caller vouches for `WIDTH` numbers.
                Self(unsafe { $loadu(from) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $elem) {
                // SAFETY: AVX2 as above; the caller vouches for `WIDTH` numbers.
                unsafe { $storeu(to, self.0) }
            }
            #[inline(always)]
            unsafe fn load_partial(from: *const $elem, n: usize) -> Self {
                // SAFETY: AVX2 as above; the mask selects the `n` numbers that the
                // caller vouches for, and a masked-off lane is not read.
                Self(unsafe { $maskload(from, Self::first(n)) })
            }
            #[inline(always)]
            unsafe fn store_partial(self, to: *mut $elem, n: usize) {
                // SAFETY: AVX2 as above; the mask selects the `n` numbers that the
                // caller vouches for, and a masked-off lane is not written.
                unsafe { $maskstore(to, Self::first(n), self.0) }
            }
            #[inline(always)]
            fn splat(value: $elem) -> Self {
                Self(avx2!($set1(value)))
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                Self(avx2!($fmadd(self.0, a.0, b.0)))
            }
            #[inline(always)]
            fn div(self, by: Self) -> Self {
                Self(avx2!($div(self.0, by.0)))
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Self(avx2!($sqrt(self.0)))
            }
            #[inline(always)]
            fn abs(self) -> Self {
                Self(avx2!($andnot($set1(-0.0), self.0)))
            }
            #[inline(always)]
            fn negative_abs(self) -> Self {
                Self(avx2!($or($set1(-0.0), self.0)))
            }
            #[inline(always)]
            fn with_sign_of(self, sign: Self) -> Self {
                let bit = Self::splat(-0.0);
                Self(avx2!($or($and(bit.0, sign.0), $andnot(bit.0, self.0))))
            }
            #[inline(always)]
            fn at_least(self, bound: Self) -> Self {
                // The second operand comes back when they are equal or one is NaN.
                Self(avx2!($max(bound.0, self.0)))
            }
            #[inline(always)]
            fn at_most(self, bound: Self) -> Self {
                // As in `at_least`.
                Self(avx2!($min(bound.0, self.0)))
            }
            #[inline(always)]
            fn if_positive(self, yes: Self, no: Self) -> Self {
                Self(avx2!($blendv(no.0, yes.0, $cmp::<_CMP_GT_OQ>(self.0, $setzero()))))
            }
            #[inline(always)]
            fn if_sign(self, yes: Self, no: Self) -> Self {
                Self(avx2!($blendv(no.0, yes.0, self.0)))
            }
            #[inline(always)]
            fn out_of_line<K: Kernel<$elem>>(kernel: K) -> K::Output {
                avx2!(crate::level::run_avx2(kernel))
            }
            #[inline(always)]
            fn low_bits_to_exponent(self) -> Self {
                const BITS: i32 = <$elem>::MANTISSA_DIGITS as i32 - 1;
                Self(avx2!($from_int($shift::<BITS>($to_int(self.0)))))
            }
        }
    };
}

register! {
    /// 8 `f32`.
    F32x8 = __m256: [f32; 8], mask ONES_32;
    _mm256_loadu_ps _mm256_storeu_ps _mm256_maskload_ps _mm256_maskstore_ps
    _mm256_set1_ps _mm256_setzero_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps _mm256_fmadd_ps _mm256_sqrt_ps
    _mm256_min_ps _mm256_max_ps _mm256_and_ps _mm256_andnot_ps _mm256_or_ps _mm256_xor_ps
    _mm256_cmp_ps _mm256_blendv_ps _mm256_castps_si256 _mm256_castsi256_ps _mm256_slli_epi32
}

register! {
    /// 4 `f64`.
    F64x4 = __m256d: [f64; 4], mask ONES_64;
    _mm256_loadu_pd _mm256_storeu_pd _mm256_maskload_pd _mm256_maskstore_pd
    _mm256_set1_pd _mm256_setzero_pd _mm256_add_pd _mm256_sub_pd _mm256_mul_pd _mm256_div_pd _mm256_fmadd_pd _mm256_sqrt_pd
    _mm256_min_pd _mm256_max_pd _mm256_and_pd _mm256_andnot_pd _mm256_or_pd _mm256_xor_pd
    _mm256_cmp_pd _mm256_blendv_pd _mm256_castpd_si256 _mm256_castsi256_pd _mm256_slli_epi64
}
