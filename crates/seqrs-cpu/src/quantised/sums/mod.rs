//! Registers of integer sums, and of the small numbers that are added up in them.
//!
//! A product of 8-bit integers adds, in each lane of a register, the products of four weights of a
//! column with four operands of a row. No sum is ever rounded, so that the order of its terms does
//! not matter, and all instruction sets give the same bits.
//!
//! | set | how four products are added |
//! |---|---|
//! | [`vnni`] | one instruction, of operands without a sign: 128 is added to each, and taken off again by the sum that the column starts from |
//! | [`avx2`] | pairs of \|operand\| times weight with the operand's sign, at most 2 x 127 x 127 < 2^15, then pairs of these |
//! | [`neon`] | products of 16 bits, then pairs, then pairs of these |
//! | [`plain`] | one by one |
//!
//! Weights of 16 bits are the upper halves of `f32`, two in a lane, and become numbers of one
//! register each before they are multiplied.

#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)]
pub(super) mod avx2;
#[cfg(target_arch = "aarch64")]
#[allow(unused_unsafe)]
pub(super) mod neon;
pub(super) mod plain;
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)]
pub(super) mod vnni;

use crate::lanes::Simd;
use crate::level::{self, Level};

/// Weights and operands that one lane multiplies at a time.
pub(super) const GROUP: usize = 4;

/// The upper half of a lane.
const UPPER: u32 = 0xffff_0000;

/// A register of sums, as many as there are numbers in a register of floats.
pub(crate) trait Sums: Copy {
    /// The register of floats that they become.
    type Float: Simd<Elem = f32>;
    /// What is added to each operand, modulo 256, so that the instructions can multiply it.
    const SHIFT: u8;

    /// Sums to start from.
    ///
    /// # Safety
    /// `from` is readable for a register.
    unsafe fn load(from: *const i32) -> Self;

    /// Four weights for each lane.
    ///
    /// # Safety
    /// `from` is readable for [`GROUP`] bytes for each lane.
    unsafe fn weights(from: *const i8) -> Self;

    /// The same four operands for every lane.
    ///
    /// # Safety
    /// `from` is readable for [`GROUP`] bytes.
    unsafe fn operands(from: *const u8) -> Self;

    /// Adds the products of the operands, [`SHIFT`](Self::SHIFT) added to each, with the weights.
    fn add(self, operands: Self, weights: Self) -> Self;

    /// Sums that were kept as bits of floats.
    fn of_bits(floats: Self::Float) -> Self;

    /// The same bits, to be kept.
    fn to_bits(self) -> Self::Float;

    /// The nearest floats.
    fn to_float(self) -> Self::Float;

    /// The floats whose upper halves are the lower 16 bits of each lane.
    ///
    /// # Safety
    /// `from` is readable for a register.
    unsafe fn lower(from: *const u32) -> Self::Float;

    /// Those whose upper halves are the upper 16 bits of each lane.
    ///
    /// # Safety
    /// As [`lower`](Self::lower).
    unsafe fn upper(from: *const u32) -> Self::Float;
}

/// What runs on the registers of an instruction set; as [`Kernel`](crate::level::Kernel), it and
/// all that it calls must be `#[inline(always)]`.
pub(crate) trait SumKernel {
    /// What it gives back.
    type Output;

    /// The work, on registers `S`.
    fn run<S: Sums>(self) -> Self::Output;
}

/// An instruction set for small numbers that this processor has: that of a [`Level`], but for a
/// processor with AVX-512 and without its instructions for products of bytes, which works with
/// AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SumLevel(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // Each processor has some of them.
enum Set {
    Plain,
    Neon,
    Avx2,
    Vnni,
}

impl SumLevel {
    /// That of a level.
    pub(crate) fn of(level: Level) -> Self {
        Self(match level.set() {
            #[cfg(target_arch = "x86_64")]
            level::Set::Avx512 if level.has_products_of_bytes() => Set::Vnni,
            #[cfg(target_arch = "x86_64")]
            level::Set::Avx512 | level::Set::Avx2 => Set::Avx2,
            #[cfg(target_arch = "aarch64")]
            level::Set::Neon => Set::Neon,
            _ => Set::Plain,
        })
    }

    /// Runs `kernel` on its registers, compiled for its instructions.
    #[inline]
    #[allow(unused_unsafe)] // Where the whole program is compiled for the set.
    pub(crate) fn dispatch<K: SumKernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: made of a level, which the processor has, and of what was asked for beside.
            #[cfg(target_arch = "x86_64")]
            Set::Vnni => unsafe { run_vnni(kernel) },
            // SAFETY: as above; a level of AVX-512 has AVX2 too.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Set::Neon => unsafe { run_neon(kernel) },
            _ => kernel.run::<plain::PlainSums>(),
        }
    }

    /// [`Sums::SHIFT`].
    pub(crate) fn shift(self) -> u8 {
        struct Shift;
        impl SumKernel for Shift {
            type Output = u8;
            #[inline(always)]
            fn run<S: Sums>(self) -> u8 {
                S::SHIFT
            }
        }
        self.dispatch(Shift)
    }

    /// Whether there are registers for the sums of a row and of a tile beside it.
    pub(crate) fn holds_tile_beside(self) -> bool {
        struct Holds;
        impl SumKernel for Holds {
            type Output = bool;
            #[inline(always)]
            fn run<S: Sums>(self) -> bool {
                S::Float::REGISTERS >= 32
            }
        }
        self.dispatch(Holds)
    }

    /// Lanes of a register.
    pub(crate) fn lanes(self) -> usize {
        struct Lanes;
        impl SumKernel for Lanes {
            type Output = usize;
            #[inline(always)]
            fn run<S: Sums>(self) -> usize {
                S::Float::WIDTH
            }
        }
        self.dispatch(Lanes)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
#[inline(never)]
fn run_vnni<K: SumKernel>(kernel: K) -> K::Output {
    kernel.run::<vnni::VnniSums>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn run_avx2<K: SumKernel>(kernel: K) -> K::Output {
    kernel.run::<avx2::Avx2Sums>()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
#[inline(never)]
fn run_neon<K: SumKernel>(kernel: K) -> K::Output {
    kernel.run::<neon::NeonSums>()
}
