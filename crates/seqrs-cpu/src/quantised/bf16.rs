//! A matrix of bf16, and its product with rows of floats.
//!
//! A bf16 is the upper half of an `f32`: reading it is exact, and from there on all is as in the
//! product of floats (`product.rs`): each sum is one chain of fused multiply-adds with k ascending,
//! starting from the bias. So the results are, bit for bit, those of the matrix of floats whose
//! weights were rounded to bf16.
//!
//! # Layout
//! A panel is `PANEL` registers wide. Each of its lanes holds the weights of a column for two
//! consecutive operands, the first in its lower half. Of the last row of an odd number of operands
//! the upper halves are not used.

use half::bf16;
use seqrs_core::lanes::Lanes;
use seqrs_core::memory::zeros;
use seqrs_core::{Error, interrupt};

use super::packed::{Packed, Tile};
use super::sums::{SumLevel, Sums};
use crate::lanes::Simd;
use crate::pack::{LINE, PANEL};

/// Rows of a product beside another: 12 registers of sums, 4 of pairs of weights and what is made of
/// them, beside 4 of the other's sums. (With 4 rows one sum of the loop goes to the stack, and where
/// that crosses cache lines, one run in five took a quarter more time.)
pub(super) const BESIDE: usize = 3;

/// A matrix packed for its product with rows.
#[derive(Debug)]
pub(crate) struct Bf16 {
    level: SumLevel,
    columns: usize,
    depth: usize,
    pairs: Vec<u32>,
    /// First pair on a cache line.
    start: usize,
    /// What each column's sum starts from, as many as the panels have columns.
    bias: Vec<f32>,
}

/// Numbers to pack: (columns, depth).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bf16Source<'a> {
    /// Row by row.
    pub(crate) numbers: &'a [bf16],
    /// One for each row, if there are any.
    pub(crate) bias: Option<&'a [f32]>,
}

impl Bf16 {
    pub(crate) fn pack(
        level: SumLevel,
        source: Bf16Source<'_>,
        depth: usize,
    ) -> Result<Self, Error> {
        let columns = source.numbers.len() / depth;
        assert_eq!(source.numbers.len(), columns * depth, "rows of {depth} weights");
        let row = PANEL * level.lanes();
        let (panels, half) = (columns.div_ceil(row), depth.div_ceil(2));
        let mut pairs: Vec<u32> =
            zeros("packed weights", panels * half * row + LINE / size_of::<u32>())?;
        let start = pairs.as_ptr().align_offset(LINE).min(LINE / size_of::<u32>());
        for (n, column) in source.numbers.chunks_exact(depth).enumerate() {
            if n % row == 0 {
                interrupt::check()?;
            }
            for (k, weight) in column.iter().enumerate() {
                let at = start + (n / row * half + k / 2) * row + n % row;
                pairs[at] |= u32::from(weight.to_bits()) << (16 * (k % 2));
            }
        }
        let mut bias = zeros("bias of columns", panels * row)?;
        if let Some(numbers) = source.bias {
            bias[..columns].copy_from_slice(numbers);
        }
        Ok(Self { level, columns, depth, pairs, start, bias })
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }
}

impl Packed for Bf16 {
    type Sum<S: Sums> = S::Float;
    type Number = u32;
    /// In L2.
    const BLOCK: usize = 96;

    fn level(&self) -> SumLevel {
        self.level
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn padded_columns(&self) -> usize {
        self.bias.len()
    }

    #[inline(always)]
    fn groups(&self) -> usize {
        self.depth.div_ceil(2)
    }

    #[inline(always)]
    fn whole_groups(&self) -> usize {
        self.depth / 2
    }

    /// As many sums as leave room for a row of pairs, what is made of them, and the operands. (With
    /// 6 rows they spill, and take twice the time of floats.)
    #[inline(always)]
    fn most_rows<S: Sums>() -> usize {
        if S::Float::REGISTERS >= 32 { 4 } else { 2 }
    }

    #[inline(always)]
    unsafe fn panel<S: Sums>(&self, p: usize) -> *const u32 {
        let row = PANEL * S::Float::WIDTH;
        // SAFETY: by the caller.
        unsafe { self.pairs.as_ptr().add(self.start + p * row * self.groups()) }
    }

    #[inline(always)]
    unsafe fn starts<S: Sums>(&self, first: usize) -> [S::Float; PANEL] {
        let mut starts = [S::Float::zero(); PANEL];
        for (v, start) in starts.iter_mut().enumerate() {
            // SAFETY: there is a whole register for each of a panel's columns.
            *start = unsafe { S::Float::load(self.bias.as_ptr().add(first + v * S::Float::WIDTH)) };
        }
        starts
    }

    #[inline(always)]
    unsafe fn add_group<S: Sums, const R: usize>(
        a: [*const u8; R],
        panel: *const u32,
        pair: usize,
        sums: &mut Tile<Self, S, R>,
    ) {
        // SAFETY: by the caller.
        unsafe {
            let panel = panel.add(pair * PANEL * S::Float::WIDTH);
            add_terms::<S, R, false>(a, 2 * pair, panel, sums);
            add_terms::<S, R, true>(a, 2 * pair + 1, panel, sums);
        }
    }

    #[inline(always)]
    unsafe fn add_last<S: Sums, const R: usize>(
        &self,
        a: [*const u8; R],
        panel: *const u32,
        sums: &mut Tile<Self, S, R>,
    ) {
        let half = self.whole_groups();
        // SAFETY: by the caller; there is half a pair, as there are more groups than whole ones.
        unsafe {
            let panel = panel.add(half * PANEL * S::Float::WIDTH);
            add_terms::<S, R, false>(a, 2 * half, panel, sums);
        }
    }

    #[inline(always)]
    unsafe fn results<S: Sums, const R: usize>(
        &self,
        sums: Tile<Self, S, R>,
        _: [*const u8; R],
        _: usize,
    ) -> [[S::Float; PANEL]; R] {
        sums
    }

    #[inline(always)]
    fn to_bits<S: Sums>(sums: S::Float) -> S::Float {
        sums
    }

    #[inline(always)]
    fn of_bits<S: Sums>(bits: S::Float) -> S::Float {
        bits
    }
}

/// One term to each sum of a tile, from the upper or the lower halves of a row of a panel.
///
/// # Safety
/// Each `a` is a row of floats that is readable at `at`, and `pairs` for [`PANEL`] registers.
#[inline(always)]
unsafe fn add_terms<S: Sums, const R: usize, const UPPER: bool>(
    a: [*const u8; R],
    at: usize,
    pairs: *const u32,
    sums: &mut [[S::Float; PANEL]; R],
) {
    let mut operands = [S::Float::zero(); R];
    for r in 0..R {
        // SAFETY: by the caller.
        operands[r] = S::Float::splat(unsafe { *a[r].cast::<f32>().add(at) });
    }
    for v in 0..PANEL {
        // SAFETY: by the caller.
        let weights = unsafe {
            let from = pairs.add(v * S::Float::WIDTH);
            if UPPER { S::upper(from) } else { S::lower(from) }
        };
        for r in 0..R {
            sums[r][v] = operands[r].mul_add(weights, sums[r][v]);
        }
    }
}
