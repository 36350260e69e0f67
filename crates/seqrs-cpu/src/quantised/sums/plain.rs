//! Four sums in plain Rust, for any processor.

use super::{GROUP, Sums, UPPER};
use crate::lanes::Simd;
use crate::lanes::portable::Portable;

const LANES: usize = 4;

/// Four sums; or, where there are weights or operands in it, four bytes a lane.
#[derive(Clone, Copy)]
pub(crate) struct PlainSums([i32; LANES]);

/// The product of what two lanes hold.
#[inline(always)]
fn products(a: i32, b: i32) -> i32 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    let mut sum = 0;
    for k in 0..GROUP {
        sum += i32::from(a[k] as i8) * i32::from(b[k] as i8);
    }
    sum
}

impl Sums for PlainSums {
    type Float = Portable<f32>;
    const SHIFT: u8 = 0;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: by the caller; an array of four has no padding.
        Self(unsafe { from.cast::<[i32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self {
        // SAFETY: by the caller, four bytes for each lane.
        Self(
            unsafe { from.cast::<[[u8; GROUP]; LANES]>().read_unaligned() }.map(i32::from_le_bytes),
        )
    }
    #[inline(always)]
    unsafe fn operands(from: *const u8) -> Self {
        // SAFETY: by the caller, four bytes.
        Self([i32::from_le_bytes(unsafe { from.cast::<[u8; GROUP]>().read_unaligned() }); LANES])
    }
    #[inline(always)]
    fn add(self, operands: Self, weights: Self) -> Self {
        let mut sums = self.0;
        for lane in 0..LANES {
            sums[lane] = sums[lane].wrapping_add(products(operands.0[lane], weights.0[lane]));
        }
        Self(sums)
    }
    #[inline(always)]
    fn of_bits(floats: Portable<f32>) -> Self {
        let mut bits = [0.0_f32; LANES];
        // SAFETY: the register has as many numbers as the array.
        unsafe { floats.store(bits.as_mut_ptr()) };
        Self(bits.map(|float| float.to_bits() as i32))
    }
    #[inline(always)]
    fn to_bits(self) -> Portable<f32> {
        let bits = self.0.map(|sum| f32::from_bits(sum as u32));
        // SAFETY: the array has as many numbers as the register.
        unsafe { Portable::load(bits.as_ptr()) }
    }
    #[inline(always)]
    fn to_float(self) -> Portable<f32> {
        // SAFETY: the array has as many numbers as the register.
        unsafe { Portable::load(self.0.map(|sum| sum as f32).as_ptr()) }
    }
    #[inline(always)]
    unsafe fn lower(from: *const u32) -> Portable<f32> {
        // SAFETY: by the caller.
        let pairs = unsafe { from.cast::<[u32; LANES]>().read_unaligned() };
        let lower = pairs.map(|pair| f32::from_bits(pair << 16));
        // SAFETY: the array has as many numbers as the register.
        unsafe { Portable::load(lower.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn upper(from: *const u32) -> Portable<f32> {
        // SAFETY: by the caller.
        let pairs = unsafe { from.cast::<[u32; LANES]>().read_unaligned() };
        let upper = pairs.map(|pair| f32::from_bits(pair & UPPER));
        // SAFETY: the array has as many numbers as the register.
        unsafe { Portable::load(upper.as_ptr()) }
    }
}
