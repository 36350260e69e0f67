//! A matrix of 8-bit integers, and its product with rows of floats.
//!
//! Each row of the matrix (a column of the product) has a scale of its own, s_w; its weights are
//! whole multiples of it, q_w in -127..=127. Each operand is made such integers when it comes,
//! with one scale for the whole row, s_x:
//!
//! ```text
//! s_x = largest |x| / 127        q_x[k] = x[k] / s_x to the nearest, to the even of two
//! y[n] = (sum over k of q_x[k] q_w[n][k]) s_x s_w[n] + b[n]
//! ```
//! The sum is of integers and exact, and what follows it is rounded once for each operation, so
//! that every instruction set gives the same bits. Nothing but the row itself decides its scale,
//! so the bits of a row do not depend on its batch.
//!
//! A row that holds a NaN or an infinity gives NaN in all columns. One whose largest number is
//! below 2^-100 counts as zeros: its scale could not be inverted.
//!
//! # Layout
//! A panel is `PANEL` registers wide. Each of its lanes holds four consecutive weights of a
//! column, which one instruction multiplies with four operands:
//! ```text
//! panel: [ group 0: register 0 | .. | register 3 ] [ group 1: ... ]        group = 4 operands
//! ```
//! Columns and operands that pad it are zeros.

use seqrs_core::lanes::Lanes;
use seqrs_core::memory::zeros;
use seqrs_core::{Error, interrupt};

use super::packed::{Packed, Tile};
use super::sums::{GROUP, SumKernel, SumLevel, Sums};
use crate::lanes::Simd;
use crate::pack::{LINE, PANEL};

/// The largest integer that a weight or operand becomes.
const LARGEST: f32 = 127.0;

/// Rows whose largest number is smaller count as zeros.
const SMALLEST: f32 = f32::from_bits((127 - 100) << 23);

/// Terms that a sum may have: 127 x 127 of each fit in 31 bits.
pub const MOST_TERMS: usize = (i32::MAX / (127 * 127)) as usize;

/// A float whose lowest bits are the integer that is added to it, rounded to the even of two.
const TO_INTEGER: f32 = 12_582_912.0; // 1.5 x 2^23

/// The scale of numbers of which the largest has these bits, and what to multiply them with.
#[inline(always)]
fn scale_of(largest: u32) -> (f32, f32) {
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < SMALLEST {
        (0.0, 0.0)
    } else {
        (largest / LARGEST, LARGEST / largest)
    }
}

/// The bits of the largest |x|; those of a NaN or infinity are larger than those of any number.
#[inline(always)]
fn largest_bits(x: &[f32]) -> u32 {
    let mut largest = 0;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7fff_ffff);
    }
    largest
}

/// Writes the integers that are x times `inverse`, and `shift` added to each.
#[inline(always)]
fn to_integers(x: &[f32], inverse: f32, shift: u8, to: &mut [u8]) {
    for (to, x) in to.iter_mut().zip(x) {
        // What is not finite is multiplied with 0; its NaN becomes some integer.
        let integer = (x * inverse + TO_INTEGER).to_bits() as u8;
        *to = integer.wrapping_add(shift);
    }
}

/// Rounds the rows of a matrix, each to multiples of a scale of its own: the integers, and the
/// scales.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Interrupted`].
///
/// # Panics
/// If the weights are no rows of `depth`.
pub fn round_rows(weights: &[f32], depth: usize) -> Result<(Vec<i8>, Vec<f32>), Error> {
    assert!(weights.len().is_multiple_of(depth), "rows of {depth} weights");
    let mut integers: Vec<i8> = zeros("weights of 8 bits", weights.len())?;
    let mut scales: Vec<f32> = zeros("scales of weights", weights.len() / depth)?;
    let rows = integers.chunks_exact_mut(depth).zip(weights.chunks_exact(depth));
    for ((to, row), kept) in rows.zip(&mut scales) {
        interrupt::check()?;
        let (scale, inverse) = scale_of(largest_bits(row));
        for (to, weight) in to.iter_mut().zip(row) {
            *to = (weight * inverse + TO_INTEGER).to_bits() as i8;
        }
        *kept = scale;
    }
    Ok((integers, scales))
}

/// Rows of a product beside another: 20 registers of sums and 4 of weights, beside 4 of the other's
/// sums.
pub(super) const BESIDE: usize = 5;

/// A matrix packed for its product with rows.
#[derive(Debug)]
pub(crate) struct Int8 {
    level: SumLevel,
    columns: usize,
    depth: usize,
    weights: Vec<i8>,
    /// First weight on a cache line.
    start: usize,
    /// What each column's sum starts from, with which it is multiplied, and what is added then; as
    /// many as the panels have columns.
    sums: Vec<i32>,
    scales: Vec<f32>,
    bias: Vec<f32>,
}

/// Numbers to pack: (columns, depth).
#[derive(Clone, Copy, Debug)]
pub struct Int8Source<'a> {
    /// Row by row, in -127..=127.
    pub integers: &'a [i8],
    /// One for each row.
    pub scales: &'a [f32],
    /// One for each row, if there are any.
    pub bias: Option<&'a [f32]>,
}

impl Int8 {
    pub(crate) fn pack(
        level: SumLevel,
        source: Int8Source<'_>,
        depth: usize,
    ) -> Result<Self, Error> {
        let columns = source.scales.len();
        assert_eq!(source.integers.len(), columns * depth, "{columns} rows of {depth} weights");
        assert!(depth <= MOST_TERMS, "at most {MOST_TERMS} terms of a sum");
        let lanes = level.lanes();
        let row = PANEL * lanes;
        let (panels, groups) = (columns.div_ceil(row), depth.div_ceil(GROUP));
        let mut weights: Vec<i8> = zeros("packed weights", panels * groups * row * GROUP + LINE)?;
        let start = weights.as_ptr().align_offset(LINE).min(LINE);
        let padded = |what, numbers: &[f32]| {
            let mut padded = zeros(what, panels * row)?;
            padded[..columns].copy_from_slice(numbers);
            Ok::<_, Error>(padded)
        };
        let mut sums = zeros("sums of columns", panels * row)?;
        let shift = level.shift();
        for (n, column) in source.integers.chunks_exact(depth).enumerate() {
            if n % row == 0 {
                interrupt::check()?;
            }
            let mut sum = 0_i32;
            for (k, &weight) in column.iter().enumerate() {
                let (group, place) = (k / GROUP, k % GROUP);
                let at = (n / row * groups + group) * row + n % row;
                weights[start + at * GROUP + place] = weight;
                sum += i32::from(weight);
            }
            // Takes off again what is added to each operand.
            sums[n] = sum.wrapping_mul(-i32::from(shift));
        }
        Ok(Self {
            level,
            columns,
            depth,
            weights,
            start,
            sums,
            scales: padded("scales of columns", source.scales)?,
            bias: match source.bias {
                Some(bias) => padded("bias of columns", bias)?,
                None => zeros("bias of columns", panels * row)?,
            },
        })
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Bytes that a row of operands takes as integers, its scale behind them.
    pub(crate) fn operand_bytes(&self) -> usize {
        self.scale_at() + size_of::<f32>()
    }

    fn scale_at(&self) -> usize {
        self.depth.next_multiple_of(GROUP)
    }

    /// Makes integers of a row.
    ///
    /// # Safety
    /// `x` is readable for the depth, `to` writable for [`operand_bytes`](Self::operand_bytes),
    /// at a multiple of 4 bytes, and nobody else uses it.
    pub(crate) unsafe fn round(&self, x: *const f32, to: *mut u8) {
        self.level.dispatch(Round { x, depth: self.depth, scale_at: self.scale_at(), to });
    }
}

/// Makes integers of a row.
struct Round {
    x: *const f32,
    depth: usize,
    scale_at: usize,
    to: *mut u8,
}

impl SumKernel for Round {
    type Output = ();

    #[inline(always)]
    fn run<S: Sums>(self) {
        // SAFETY: `Int8::round` passes on what its caller vouches for.
        unsafe {
            let x = std::slice::from_raw_parts(self.x, self.depth);
            let to = std::slice::from_raw_parts_mut(self.to, self.depth);
            let (scale, inverse) = scale_of(largest_bits(x));
            to_integers(x, inverse, S::SHIFT, to);
            self.to.add(self.scale_at).cast::<f32>().write_unaligned(scale);
        }
    }
}

impl Packed for Int8 {
    type Sum<S: Sums> = S;
    type Number = i8;
    /// In L1.
    const BLOCK: usize = 48;

    fn level(&self) -> SumLevel {
        self.level
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn padded_columns(&self) -> usize {
        self.scales.len()
    }

    #[inline(always)]
    fn groups(&self) -> usize {
        self.depth.div_ceil(GROUP)
    }

    /// What pads the last is multiplied with zeros.
    #[inline(always)]
    fn whole_groups(&self) -> usize {
        self.groups()
    }

    /// 24 registers of sums where there are 32, and 8 where there are 16, which also have to hold
    /// what comes between two products.
    #[inline(always)]
    fn most_rows<S: Sums>() -> usize {
        if S::Float::REGISTERS >= 32 { 6 } else { 2 }
    }

    #[inline(always)]
    unsafe fn panel<S: Sums>(&self, p: usize) -> *const i8 {
        let row = PANEL * S::Float::WIDTH;
        // SAFETY: by the caller.
        unsafe { self.weights.as_ptr().add(self.start + p * row * self.scale_at()) }
    }

    #[inline(always)]
    unsafe fn starts<S: Sums>(&self, first: usize) -> [S; PANEL] {
        // SAFETY: there is a whole register for each of a panel's columns.
        unsafe {
            let from = self.sums.as_ptr().add(first);
            let mut starts = [S::load(from); PANEL];
            for (v, start) in starts.iter_mut().enumerate() {
                *start = S::load(from.add(v * S::Float::WIDTH));
            }
            starts
        }
    }

    #[inline(always)]
    unsafe fn add_group<S: Sums, const R: usize>(
        a: [*const u8; R],
        panel: *const i8,
        group: usize,
        sums: &mut Tile<Self, S, R>,
    ) {
        let register = S::Float::WIDTH * GROUP;
        // SAFETY: by the caller.
        unsafe {
            let from = panel.add(group * PANEL * register);
            let mut weights = [S::weights(from); PANEL];
            for (v, weights) in weights.iter_mut().enumerate() {
                *weights = S::weights(from.add(v * register));
            }
            for r in 0..R {
                let operands = S::operands(a[r].add(group * GROUP));
                for v in 0..PANEL {
                    sums[r][v] = sums[r][v].add(operands, weights[v]);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add_last<S: Sums, const R: usize>(
        &self,
        _: [*const u8; R],
        _: *const i8,
        _: &mut Tile<Self, S, R>,
    ) {
        // All groups are whole.
    }

    #[inline(always)]
    unsafe fn results<S: Sums, const R: usize>(
        &self,
        sums: Tile<Self, S, R>,
        a: [*const u8; R],
        first: usize,
    ) -> [[S::Float; PANEL]; R] {
        let mut values = [[S::Float::zero(); PANEL]; R];
        for r in 0..R {
            // SAFETY: by the caller: the row's scale, and whole registers of what the columns have.
            unsafe {
                let scale = a[r].add(self.scale_at()).cast::<f32>().read_unaligned();
                let scale = S::Float::splat(scale);
                for v in 0..PANEL {
                    let at = first + v * S::Float::WIDTH;
                    let column_scale = S::Float::load(self.scales.as_ptr().add(at));
                    let bias = S::Float::load(self.bias.as_ptr().add(at));
                    values[r][v] = sums[r][v].to_float() * scale * column_scale + bias;
                }
            }
        }
        values
    }

    #[inline(always)]
    fn to_bits<S: Sums>(sums: S) -> S::Float {
        sums.to_bits()
    }

    #[inline(always)]
    fn of_bits<S: Sums>(bits: S::Float) -> S {
        S::of_bits(bits)
    }
}
