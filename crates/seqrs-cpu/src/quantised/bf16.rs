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

use std::ops::Range;

use half::bf16;
use seqrs_core::lanes::Lanes;
use seqrs_core::memory::zeros;
use seqrs_core::{Error, interrupt};

use super::ahead::Ahead;
use super::sums::{SumKernel, SumLevel, Sums};
use super::tile::{self, with_rows};
use crate::kernel::tiles;
use crate::lanes::Simd;
use crate::pack::{LINE, PANEL};

/// Rows in a block: their operands stay in L2 while all panels go by.
const BLOCK: usize = 96;

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

    pub(crate) fn level(&self) -> SumLevel {
        self.level
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// y = x W^T + b.
    ///
    /// # Safety
    /// Every x is readable for the depth, every y writable for the columns; no y overlaps another
    /// y or an x, and nobody else uses them.
    pub(crate) unsafe fn product(&self, x: &[*const f32], y: &[*mut f32], downwards: bool) {
        assert_eq!(x.len(), y.len(), "a row of y for every row of x");
        self.level.dispatch(Product { x, matrix: self, y, downwards });
    }

    /// y = x W^T + b of one row, and beside it a part of the product of some rows with another
    /// matrix of as many columns, of the same level.
    ///
    /// # Safety
    /// As [`product`](Self::product), for both.
    pub(crate) unsafe fn product_beside(
        &self,
        x: *const f32,
        y: *mut f32,
        downwards: bool,
        ahead: Ahead<'_, Self>,
    ) {
        assert_eq!(
            (self.columns, self.level),
            (ahead.matrix.columns, ahead.matrix.level),
            "panels of the same columns"
        );
        self.level.dispatch(Beside { x, matrix: self, y, downwards, ahead });
    }

    /// What the sums of a panel start from.
    ///
    /// # Safety
    /// `S` is of the matrix's level, and `first` the first column of a panel.
    #[inline(always)]
    unsafe fn starts<S: Sums>(&self, first: usize) -> [S::Float; PANEL] {
        let mut starts = [S::Float::zero(); PANEL];
        for (v, start) in starts.iter_mut().enumerate() {
            // SAFETY: there is a whole register for each of a panel's columns.
            *start = unsafe { S::Float::load(self.bias.as_ptr().add(first + v * S::Float::WIDTH)) };
        }
        starts
    }

    /// # Safety
    /// `S` is of the matrix's level, and there is such a panel.
    #[inline(always)]
    unsafe fn panel<S: Sums>(&self, p: usize) -> *const u32 {
        let row = PANEL * S::Float::WIDTH;
        // SAFETY: by the caller.
        unsafe { self.pairs.as_ptr().add(self.start + p * row * self.depth.div_ceil(2)) }
    }

    fn panels(&self) -> usize {
        self.bias.len() / (PANEL * self.level.lanes())
    }
}

/// A product to compute.
struct Product<'a> {
    x: &'a [*const f32],
    matrix: &'a Bf16,
    y: &'a [*mut f32],
    downwards: bool,
}

impl SumKernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Sums>(self) {
        let panels = self.matrix.panels();
        for (x, y) in self.x.chunks(BLOCK).zip(self.y.chunks(BLOCK)) {
            for k in 0..panels {
                let p = if self.downwards { panels - 1 - k } else { k };
                for tile in tiles(x.len(), most_rows::<S>()) {
                    let (x, y) = (&x[tile.clone()], &y[tile]);
                    // SAFETY: `Bf16::product` passes on what its caller vouches for.
                    with_rows!(x.len(), most_rows::<S>(), R => unsafe {
                        product_tile::<S, R>(x, self.matrix, p, y);
                    });
                }
            }
        }
    }
}

/// Most rows in a tile: as many sums as leave room for a row of pairs, what is made of them, and the
/// operands. (With 6 rows they spill, and take twice the time of floats.)
#[inline(always)]
fn most_rows<S: Sums>() -> usize {
    if S::Float::REGISTERS >= 32 { 4 } else { 2 }
}

/// # Safety
/// As [`Bf16::product`]; x and y have R rows.
#[inline(always)]
unsafe fn product_tile<S: Sums, const R: usize>(
    x: &[*const f32],
    matrix: &Bf16,
    p: usize,
    y: &[*mut f32],
) {
    let first = p * PANEL * S::Float::WIDTH;
    let mut a = [std::ptr::null(); R];
    for (a, &x) in a.iter_mut().zip(x) {
        *a = x;
    }
    // SAFETY: a panel has a whole register for each of its columns, and a row of them for every
    // two operands; x and y by the caller.
    unsafe {
        let mut sums = [matrix.starts::<S>(first); R];
        let pairs = 0..matrix.depth.div_ceil(2);
        add_products::<S, R>(a, matrix, matrix.panel::<S>(p), pairs, &mut sums);
        tile::store::<S::Float, R>(&sums, y, first, matrix.columns);
    }
}

/// Adds the products of these pairs of operands to the sums of a tile.
///
/// # Safety
/// Each `a` is readable for the operands, and the panel for the pairs.
#[inline(always)]
unsafe fn add_products<S: Sums, const R: usize>(
    a: [*const f32; R],
    matrix: &Bf16,
    panel: *const u32,
    pairs: Range<usize>,
    sums: &mut [[S::Float; PANEL]; R],
) {
    let row = PANEL * S::Float::WIDTH;
    let whole = pairs.start..pairs.end.min(matrix.depth / 2);
    let mut now = *sums;
    // SAFETY: by the caller.
    unsafe {
        for k in whole.clone() {
            add_terms::<S, R, false>(a, 2 * k, panel.add(k * row), &mut now);
            add_terms::<S, R, true>(a, 2 * k + 1, panel.add(k * row), &mut now);
        }
        if pairs.end > whole.end {
            add_terms::<S, R, false>(a, 2 * whole.end, panel.add(whole.end * row), &mut now);
        }
    }
    *sums = now;
}

/// A product of one row, and beside it a part of another of [`BESIDE`] rows.
struct Beside<'a> {
    x: *const f32,
    matrix: &'a Bf16,
    y: *mut f32,
    downwards: bool,
    ahead: Ahead<'a, Bf16>,
}

impl SumKernel for Beside<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Sums>(self) {
        if S::Float::REGISTERS < 32 {
            // `SumLevel::holds_tile_beside` says no, and nothing is compiled for it.
            unreachable!("too few registers");
        }
        let Self { x, matrix, y, downwards, ahead } = self;
        let (panels, width) = (matrix.panels(), PANEL * S::Float::WIDTH);
        let (x_ahead, y_ahead) = ahead.rows::<BESIDE>();
        let pairs = matrix.depth.div_ceil(2);
        let rows = x_ahead.map(<*const u8>::cast);
        for k in 0..panels {
            let p = if downwards { panels - 1 - k } else { k };
            let slot = ahead.slot(k, panels, ahead.matrix.depth.div_ceil(2));
            let (first, column) = (p * width, slot.panel * width);
            // SAFETY: `Bf16::product_beside` passes on what its caller vouches for.
            unsafe {
                let mut one = [matrix.starts::<S>(first)];
                let mut many = match slot.begins {
                    true => [ahead.matrix.starts::<S>(column); BESIDE],
                    false => tile::load(&y_ahead, column, ahead.matrix.columns),
                };
                let (panel, weights) = (matrix.panel::<S>(p), ahead.matrix.panel::<S>(slot.panel));
                let other = (ahead.matrix, weights, slot.terms);
                add_both::<S>(x, (matrix, panel, 0..pairs), &mut one, rows, other, &mut many);
                tile::store(&one, &[y], first, matrix.columns);
                tile::store(&many, &y_ahead, column, ahead.matrix.columns);
            }
        }
    }
}

/// Pairs of a panel of a matrix.
type Part<'a> = (&'a Bf16, *const u32, Range<usize>);

/// Adds the products of some pairs to the sums of one row, and meanwhile those of others to those
/// of a tile.
///
/// # Safety
/// As [`add_products`], for both.
#[inline(always)]
unsafe fn add_both<S: Sums>(
    a: *const f32,
    (matrix, panel, pairs): Part<'_>,
    one: &mut [[S::Float; PANEL]; 1],
    x: [*const f32; BESIDE],
    (other, weights, others): Part<'_>,
    many: &mut [[S::Float; PANEL]; BESIDE],
) {
    // One pair of the tile takes as many products as BESIDE of the row. The last may be half a
    // pair, and is not among these.
    let rounds = others.len().min(pairs.len() / BESIDE).saturating_sub(1);
    let (mut first, mut second) = (*one, *many);
    let row = PANEL * S::Float::WIDTH;
    // SAFETY: by the caller.
    unsafe {
        for round in 0..rounds {
            for k in round * BESIDE..(round + 1) * BESIDE {
                add_terms::<S, 1, false>([a], 2 * k, panel.add(k * row), &mut first);
                add_terms::<S, 1, true>([a], 2 * k + 1, panel.add(k * row), &mut first);
            }
            let k = others.start + round;
            add_terms::<S, BESIDE, false>(x, 2 * k, weights.add(k * row), &mut second);
            add_terms::<S, BESIDE, true>(x, 2 * k + 1, weights.add(k * row), &mut second);
        }
        let rest = pairs.start + rounds * BESIDE..pairs.end;
        add_products::<S, 1>([a], matrix, panel, rest, &mut first);
        let rest = others.start + rounds..others.end;
        add_products::<S, BESIDE>(x, other, weights, rest, &mut second);
    }
    (*one, *many) = (first, second);
}

/// One term to each sum of a tile, from the upper or the lower halves of a row of a panel.
///
/// # Safety
/// Each `a` is readable at `at`, and `pairs` for [`PANEL`] registers.
#[inline(always)]
unsafe fn add_terms<S: Sums, const R: usize, const UPPER: bool>(
    a: [*const f32; R],
    at: usize,
    pairs: *const u32,
    sums: &mut [[S::Float; PANEL]; R],
) {
    let mut operands = [S::Float::zero(); R];
    for r in 0..R {
        // SAFETY: by the caller.
        operands[r] = S::Float::splat(unsafe { *a[r].add(at) });
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
