//! NEON: 4 sums in a register.

use std::arch::aarch64::*;

use super::{Sums, UPPER};
use crate::lanes::neon::F32x4;

/// 4 sums; or, where there are weights or operands in it, four bytes a lane.
#[derive(Clone, Copy)]
pub(crate) struct NeonSums(int32x4_t);

/// An intrinsic of this instruction set.
macro_rules! neon {
    ($call:expr) => {
        // SAFETY: this module's type is named only by `SumLevel::dispatch`, after NEON was
        // detected.
        unsafe { $call }
    };
}

impl Sums for NeonSums {
    type Float = F32x4;
    const SHIFT: u8 = 0;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: NEON as above; the caller vouches for the numbers.
        Self(unsafe { vld1q_s32(from) })
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self {
        // SAFETY: NEON as above; the caller vouches for the numbers.
        Self(unsafe { vreinterpretq_s32_s8(vld1q_s8(from)) })
    }
    #[inline(always)]
    unsafe fn operands(from: *const u8) -> Self {
        // SAFETY: the caller vouches for four bytes.
        let four = unsafe { from.cast::<i32>().read_unaligned() };
        Self(neon!(vdupq_n_s32(four)))
    }
    #[inline(always)]
    fn add(self, operands: Self, weights: Self) -> Self {
        let (a, w) = neon!((vreinterpretq_s8_s32(operands.0), vreinterpretq_s8_s32(weights.0)));
        // Products of the first two lanes and of the last two, then sums of two, then of four.
        let first = neon!(vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(w))));
        let last = neon!(vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(w))));
        Self(neon!(vaddq_s32(self.0, vpaddq_s32(first, last))))
    }
    #[inline(always)]
    fn of_bits(floats: F32x4) -> Self {
        Self(neon!(vreinterpretq_s32_f32(floats.0)))
    }
    #[inline(always)]
    fn to_bits(self) -> F32x4 {
        F32x4(neon!(vreinterpretq_f32_s32(self.0)))
    }
    #[inline(always)]
    fn to_float(self) -> F32x4 {
        F32x4(neon!(vcvtq_f32_s32(self.0)))
    }
    #[inline(always)]
    unsafe fn lower(from: *const u32) -> F32x4 {
        // SAFETY: NEON as above; the caller vouches for the numbers.
        let pairs = unsafe { vld1q_u32(from) };
        F32x4(neon!(vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs))))
    }
    #[inline(always)]
    unsafe fn upper(from: *const u32) -> F32x4 {
        // SAFETY: NEON as above; the caller vouches for the numbers.
        let pairs = unsafe { vld1q_u32(from) };
        F32x4(neon!(vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(UPPER)))))
    }
}
