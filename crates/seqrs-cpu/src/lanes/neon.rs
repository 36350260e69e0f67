//! NEON: 4 `f32` or 2 `f64` in a register, 32 registers; partial loads and stores go
//! lane by lane through an array.

use super::Simd;
use crate::level::Kernel;
use std::arch::aarch64::*;

/// An intrinsic of this instruction set.
macro_rules! neon {
    ($call:expr) => {
        // SAFETY: this module's types are named only by `Level::dispatch`, after NEON
        // was detected.
        unsafe { $call }
    };
}

macro_rules! register {
    (
        $(#[$doc:meta])* $name:ident = $raw:ty: [$elem:ty; $width:literal];
        $load:ident $store:ident $dup:ident $add:ident $sub:ident $mul:ident $neg:ident
        $div:ident $fma:ident $sqrt:ident $abs:ident
        $less:ident $greater:ident $select:ident
        $to_uint:ident $from_uint:ident $to_int:ident $int_negative:ident
        $uint_dup:ident $shift:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[repr(transparent)]
        pub(crate) struct $name(pub(crate) $raw);

        super::lanes! {
            [] $name;
            add = |a: Self, b: Self| Self(neon!($add(a.0, b.0))),
            sub = |a: Self, b: Self| Self(neon!($sub(a.0, b.0))),
            mul = |a: Self, b: Self| Self(neon!($mul(a.0, b.0))),
            neg = |a: Self| Self(neon!($neg(a.0)))
        }

        impl Simd for $name {
            type Elem = $elem;
            const WIDTH: usize = $width;
            const REGISTERS: usize = 32;

            #[inline(always)]
            unsafe fn load(from: *const $elem) -> Self {
                // SAFETY: NEON as above; the caller vouches for `WIDTH` numbers.
                Self(unsafe { $load(from) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $elem) {
                // SAFETY: NEON as above; the caller vouches for `WIDTH` numbers.
                unsafe { $store(to, self.0) }
            }
            #[inline(always)]
            unsafe fn load_partial(from: *const $elem, n: usize) -> Self {
                let mut lanes = [0.0; $width];
                for (k, lane) in lanes[..n].iter_mut().enumerate() {
                    // SAFETY: `k` < `n`, and the caller vouches for `n` numbers.
                    *lane = unsafe { from.add(k).read_unaligned() };
                }
                // SAFETY: NEON as above; `lanes` has `WIDTH` numbers.
                Self(unsafe { $load(lanes.as_ptr()) })
            }
            #[inline(always)]
            unsafe fn store_partial(self, to: *mut $elem, n: usize) {
                let mut lanes = [0.0; $width];
                // SAFETY: NEON as above; `lanes` has `WIDTH` numbers.
                unsafe { $store(lanes.as_mut_ptr(), self.0) }
                for (k, &lane) in lanes[..n].iter().enumerate() {
                    // SAFETY: `k` < `n`, and the caller vouches for `n` numbers.
                    unsafe { to.add(k).write_unaligned(lane) }
                }
            }
            #[inline(always)]
            fn splat(value: $elem) -> Self {
                Self(neon!($dup(value)))
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                // The intrinsic's first operand is the addend.
                Self(neon!($fma(b.0, self.0, a.0)))
            }
            #[inline(always)]
            fn div(self, by: Self) -> Self {
                Self(neon!($div(self.0, by.0)))
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Self(neon!($sqrt(self.0)))
            }
            #[inline(always)]
            fn abs(self) -> Self {
                Self(neon!($abs(self.0)))
            }
            #[inline(always)]
            fn negative_abs(self) -> Self {
                Self(neon!($neg($abs(self.0))))
            }
            #[inline(always)]
            fn with_sign_of(self, sign: Self) -> Self {
                // A bit-wise select: the sign bit of `sign`, the rest of self.
                let bit = neon!($uint_dup((-0.0 as $elem).to_bits()));
                Self(neon!($select(bit, sign.0, self.0)))
            }
            #[inline(always)]
            fn at_least(self, bound: Self) -> Self {
                // Not the maximum, which makes +0.0 of (+0.0, -0.0).
                Self(neon!($select($less(self.0, bound.0), bound.0, self.0)))
            }
            #[inline(always)]
            fn at_most(self, bound: Self) -> Self {
                // As in `at_least`.
                Self(neon!($select($greater(self.0, bound.0), bound.0, self.0)))
            }
            #[inline(always)]
            fn if_positive(self, yes: Self, no: Self) -> Self {
                Self(neon!($select($greater(self.0, $dup(0.0)), yes.0, no.0)))
            }
            #[inline(always)]
            fn if_sign(self, yes: Self, no: Self) -> Self {
                Self(neon!($select($int_negative($to_int(self.0)), yes.0, no.0)))
            }
            #[inline(always)]
            fn out_of_line<K: Kernel<$elem>>(kernel: K) -> K::Output {
                neon!(crate::level::run_neon(kernel))
            }
            #[inline(always)]
            fn low_bits_to_exponent(self) -> Self {
                const BITS: i32 = <$elem>::MANTISSA_DIGITS as i32 - 1;
                Self(neon!($from_uint($shift::<BITS>($to_uint(self.0)))))
            }
        }
    };
}

register! {
    /// 4 `f32`.
    F32x4 = float32x4_t: [f32; 4];
    vld1q_f32 vst1q_f32 vdupq_n_f32 vaddq_f32 vsubq_f32 vmulq_f32 vnegq_f32
    vdivq_f32 vfmaq_f32 vsqrtq_f32 vabsq_f32
    vcltq_f32 vcgtq_f32 vbslq_f32
    vreinterpretq_u32_f32 vreinterpretq_f32_u32 vreinterpretq_s32_f32 vcltzq_s32
    vdupq_n_u32 vshlq_n_u32
}

register! {
    /// 2 `f64`.
    F64x2 = float64x2_t: [f64; 2];
    vld1q_f64 vst1q_f64 vdupq_n_f64 vaddq_f64 vsubq_f64 vmulq_f64 vnegq_f64
    vdivq_f64 vfmaq_f64 vsqrtq_f64 vabsq_f64
    vcltq_f64 vcgtq_f64 vbslq_f64
    vreinterpretq_u64_f64 vreinterpretq_f64_u64 vreinterpretq_s64_f64 vcltzq_s64
    vdupq_n_u64 vshlq_n_u64
}
