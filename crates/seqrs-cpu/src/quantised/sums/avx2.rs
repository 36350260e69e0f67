//! AVX2: 8 sums in a register.

use std::arch::x86_64::*;

use super::{Sums, UPPER};
use crate::lanes::avx2::F32x8;

/// 8 sums; or, where there are weights or operands in it, four bytes a lane.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Sums(__m256i);

/// An intrinsic of this instruction set.
macro_rules! avx2 {
    ($call:expr) => {
        // SAFETY: this module's type is named only by `SumLevel::dispatch`, after AVX2 was
        // detected.
        unsafe { $call }
    };
}

impl Sums for Avx2Sums {
    type Float = F32x8;
    const SHIFT: u8 = 0;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: AVX2 as above; the caller vouches for the numbers.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self {
        // SAFETY: AVX2 as above; the caller vouches for the numbers.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }
    #[inline(always)]
    unsafe fn operands(from: *const u8) -> Self {
        // SAFETY: the caller vouches for four bytes.
        let four = unsafe { from.cast::<i32>().read_unaligned() };
        Self(avx2!(_mm256_set1_epi32(four)))
    }
    #[inline(always)]
    fn add(self, operands: Self, weights: Self) -> Self {
        // Neither weights nor operands are -128, so that a sign can go from one to the other, and
        // two products fit in 16 bits.
        let positive = avx2!(_mm256_abs_epi8(operands.0));
        let signed = avx2!(_mm256_sign_epi8(weights.0, operands.0));
        let pairs = avx2!(_mm256_maddubs_epi16(positive, signed));
        let fours = avx2!(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        Self(avx2!(_mm256_add_epi32(self.0, fours)))
    }
    #[inline(always)]
    fn of_bits(floats: F32x8) -> Self {
        Self(avx2!(_mm256_castps_si256(floats.0)))
    }
    #[inline(always)]
    fn to_bits(self) -> F32x8 {
        F32x8(avx2!(_mm256_castsi256_ps(self.0)))
    }
    #[inline(always)]
    fn to_float(self) -> F32x8 {
        F32x8(avx2!(_mm256_cvtepi32_ps(self.0)))
    }
    #[inline(always)]
    unsafe fn lower(from: *const u32) -> F32x8 {
        // SAFETY: AVX2 as above; the caller vouches for the numbers.
        let pairs = unsafe { _mm256_loadu_si256(from.cast()) };
        F32x8(avx2!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs))))
    }
    #[inline(always)]
    unsafe fn upper(from: *const u32) -> F32x8 {
        // SAFETY: AVX2 as above; the caller vouches for the numbers.
        let pairs = unsafe { _mm256_loadu_si256(from.cast()) };
        let upper = avx2!(_mm256_set1_epi32(UPPER as i32));
        F32x8(avx2!(_mm256_castsi256_ps(_mm256_and_si256(pairs, upper))))
    }
}
