//! AVX-512 with its instructions for products of bytes: 16 sums in a register.

use std::arch::x86_64::*;

use super::{Sums, UPPER};
use crate::lanes::avx512::F32x16;

/// 16 sums; or, where there are weights or operands in it, four bytes a lane.
#[derive(Clone, Copy)]
pub(crate) struct VnniSums(__m512i);

/// An intrinsic of this instruction set.
macro_rules! vnni {
    ($call:expr) => {
        // SAFETY: this module's type is named only by `SumLevel::dispatch`, after AVX-512 F, BW,
        // VL, DQ and VNNI were detected.
        unsafe { $call }
    };
}

impl Sums for VnniSums {
    type Float = F32x16;
    const SHIFT: u8 = 128;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: AVX-512 as above; the caller vouches for the numbers.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self {
        // SAFETY: AVX-512 as above; the caller vouches for the numbers.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }
    #[inline(always)]
    unsafe fn operands(from: *const u8) -> Self {
        // SAFETY: the caller vouches for four bytes.
        let four = unsafe { from.cast::<i32>().read_unaligned() };
        Self(vnni!(_mm512_set1_epi32(four)))
    }
    #[inline(always)]
    fn add(self, operands: Self, weights: Self) -> Self {
        Self(vnni!(_mm512_dpbusd_epi32(self.0, operands.0, weights.0)))
    }
    #[inline(always)]
    fn of_bits(floats: F32x16) -> Self {
        Self(vnni!(_mm512_castps_si512(floats.0)))
    }
    #[inline(always)]
    fn to_bits(self) -> F32x16 {
        F32x16(vnni!(_mm512_castsi512_ps(self.0)))
    }
    #[inline(always)]
    fn to_float(self) -> F32x16 {
        F32x16(vnni!(_mm512_cvtepi32_ps(self.0)))
    }
    #[inline(always)]
    unsafe fn lower(from: *const u32) -> F32x16 {
        // SAFETY: AVX-512 as above; the caller vouches for the numbers.
        let pairs = unsafe { _mm512_loadu_si512(from.cast()) };
        F32x16(vnni!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))))
    }
    #[inline(always)]
    unsafe fn upper(from: *const u32) -> F32x16 {
        // SAFETY: AVX-512 as above; the caller vouches for the numbers.
        let pairs = unsafe { _mm512_loadu_si512(from.cast()) };
        let upper = vnni!(_mm512_set1_epi32(UPPER as i32));
        F32x16(vnni!(_mm512_castsi512_ps(_mm512_and_si512(pairs, upper))))
    }
}
