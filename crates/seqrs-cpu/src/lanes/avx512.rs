//! AVX-512 (F, BW, VL, DQ): 16 `f32` or 8 `f64` in a register, 32 registers, a mask
//! for each partial load and store.

use super::Simd;
use crate::level::Kernel;
use std::arch::x86_64::*;

/// An intrinsic of this instruction set.
macro_rules! avx512 {
    ($call:expr) => {
        // SAFETY: this module's types are named only by `Level::dispatch`, after
        // AVX-512 F, BW, VL and DQ were detected.
        unsafe { $call }
    };
}

macro_rules! register {
    (
        $(#[$doc:meta])* $name:ident = $raw:ty: [$elem:ty; $width:literal], mask $mask:ty;
        $loadu:ident $storeu:ident $maskz_loadu:ident $mask_storeu:ident
        $set1:ident $setzero:ident $add:ident $sub:ident $mul:ident $div:ident $fmadd:ident $sqrt:ident
        $min:ident $max:ident $and:ident $andnot:ident $or:ident $xor:ident
        $cmp:ident $blend:ident $signs:ident $to_int:ident $from_int:ident $shift:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[repr(transparent)]
        pub(crate) struct $name(pub(crate) $raw);

        super::lanes! {
            [] $name;
            add = |a: Self, b: Self| Self(avx512!($add(a.0, b.0))),
            sub = |a: Self, b: Self| Self(avx512!($sub(a.0, b.0))),
            mul = |a: Self, b: Self| Self(avx512!($mul(a.0, b.0))),
            neg = |a: Self| Self(avx512!($xor(a.0, $set1(-0.0))))
        }

        impl Simd for $name {
            type Elem = $elem;
            const WIDTH: usize = $width;
            const REGISTERS: usize = 32;

            #[inline(always)]
            unsafe fn load(from: *const $elem) -> Self {
                // SAFETY: AVX-512 as above; the caller vouches for `WIDTH` numbers.
                Self(unsafe { $loadu(from) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $elem) {
                // SAFETY: AVX-512 as above; the caller vouches for `WIDTH` numbers.
                unsafe { $storeu(to, self.0) }
            }
            #[inline(always)]
            unsafe fn load_partial(from: *const $elem, n: usize) -> Self {
                // SAFETY: AVX-512 as above; the mask selects the `n` numbers that the
                // caller vouches for, and a masked-off lane is not read.
                Self(unsafe { $maskz_loadu(((1_u32 << n) - 1) as $mask, from) })
            }
            #[inline(always)]
            unsafe fn store_partial(self, to: *mut $elem, n: usize) {
                // SAFETY: AVX-512 as above; the mask selects the `n` numbers that the
                // caller vouches for, and a masked-off lane is not written.
                unsafe { $mask_storeu(to, ((1_u32 << n) - 1) as $mask, self.0) }
            }
            #[inline(always)]
            fn splat(value: $elem) -> Self {
                Self(avx512!($set1(value)))
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                Self(avx512!($fmadd(self.0, a.0, b.0)))
            }
            #[inline(always)]
            fn div(self, by: Self) -> Self {
                Self(avx512!($div(self.0, by.0)))
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Self(avx512!($sqrt(self.0)))
            }
            #[inline(always)]
            fn abs(self) -> Self {
                Self(avx512!($andnot($set1(-0.0), self.0)))
            }
            #[inline(always)]
            fn negative_abs(self) -> Self {
                Self(avx512!($or($set1(-0.0), self.0)))
            }
            #[inline(always)]
            fn with_sign_of(self, sign: Self) -> Self {
                let bit = Self::splat(-0.0);
                Self(avx512!($or($and(bit.0, sign.0), $andnot(bit.0, self.0))))
            }
            #[inline(always)]
            fn at_least(self, bound: Self) -> Self {
                // The second operand comes back when they are equal or one is NaN.
                Self(avx512!($max(bound.0, self.0)))
            }
            #[inline(always)]
            fn at_most(self, bound: Self) -> Self {
                // As in `at_least`.
                Self(avx512!($min(bound.0, self.0)))
            }
            #[inline(always)]
            fn if_positive(self, yes: Self, no: Self) -> Self {
                Self(avx512!($blend($cmp::<_CMP_GT_OQ>(self.0, $setzero()), no.0, yes.0)))
            }
            #[inline(always)]
            fn if_sign(self, yes: Self, no: Self) -> Self {
                Self(avx512!($blend($signs($to_int(self.0)), no.0, yes.0)))
            }
            #[inline(always)]
            fn out_of_line<K: Kernel<$elem>>(kernel: K) -> K::Output {
                avx512!(crate::level::run_avx512(kernel))
            }
            #[inline(always)]
            fn low_bits_to_exponent(self) -> Self {
                const BITS: u32 = <$elem>::MANTISSA_DIGITS - 1;
                Self(avx512!($from_int($shift::<BITS>($to_int(self.0)))))
            }
        }
    };
}

register! {
    /// 16 `f32`.
    F32x16 = __m512: [f32; 16], mask __mmask16;
    _mm512_loadu_ps _mm512_storeu_ps _mm512_maskz_loadu_ps _mm512_mask_storeu_ps
    _mm512_set1_ps _mm512_setzero_ps _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps _mm512_fmadd_ps _mm512_sqrt_ps
    _mm512_min_ps _mm512_max_ps _mm512_and_ps _mm512_andnot_ps _mm512_or_ps _mm512_xor_ps
    _mm512_cmp_ps_mask _mm512_mask_blend_ps _mm512_movepi32_mask _mm512_castps_si512 _mm512_castsi512_ps _mm512_slli_epi32
}

register! {
    /// 8 `f64`.
    F64x8 = __m512d: [f64; 8], mask __mmask8;
    _mm512_loadu_pd _mm512_storeu_pd _mm512_maskz_loadu_pd _mm512_mask_storeu_pd
    _mm512_set1_pd _mm512_setzero_pd _mm512_add_pd _mm512_sub_pd _mm512_mul_pd _mm512_div_pd _mm512_fmadd_pd _mm512_sqrt_pd
    _mm512_min_pd _mm512_max_pd _mm512_and_pd _mm512_andnot_pd _mm512_or_pd _mm512_xor_pd
    _mm512_cmp_pd_mask _mm512_mask_blend_pd _mm512_movepi64_mask _mm512_castpd_si512 _mm512_castsi512_pd _mm512_slli_epi64
}
