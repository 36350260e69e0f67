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

use std::ops::Range;

use seqrs_core::lanes::Lanes;
use seqrs_core::memory::zeros;
use seqrs_core::{Error, interrupt};

use super::ahead::Ahead;
use super::sums::{GROUP, SumKernel, SumLevel, Sums};
use super::tile::{self, with_rows};
use crate::kernel::tiles;
use crate::lanes::Simd;
use crate::pack::{LINE, PANEL};

/// The largest integer that a weight or operand becomes.
const LARGEST: f32 = 127.0;

/// Rows whose largest number is smaller count as zeros.
const SMALLEST: f32 = f32::from_bits((127 - 100) << 23);

/// Terms that a sum may have: 127 x 127 of each fit in 31 bits.
pub const MOST_TERMS: usize = (i32::MAX / (127 * 127)) as usize;

/// Rows in a block: their operands stay in L1 while all panels go by.
const BLOCK: usize = 48;

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

    pub(crate) fn level(&self) -> SumLevel {
        self.level
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
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

    /// y = x W^T + b, for rows that are integers already.
    ///
    /// # Safety
    /// Every x is what [`round`](Self::round) wrote, every y is writable for the columns; no y
    /// overlaps another y or an x, and nobody else uses them.
    pub(crate) unsafe fn product(&self, x: &[*const u8], y: &[*mut f32], downwards: bool) {
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
        x: *const u8,
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

    fn panels(&self) -> usize {
        self.scales.len() / (PANEL * self.level.lanes())
    }

    /// # Safety
    /// `S` is of the matrix's level.
    #[inline(always)]
    unsafe fn panel<S: Sums>(&self, p: usize) -> *const i8 {
        let row = PANEL * S::Float::WIDTH;
        // SAFETY: there are as many panels.
        unsafe { self.weights.as_ptr().add(self.start + p * row * self.scale_at()) }
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

/// A product of one row, and beside it a part of another of [`BESIDE`] rows.
struct Beside<'a> {
    x: *const u8,
    matrix: &'a Int8,
    y: *mut f32,
    downwards: bool,
    ahead: Ahead<'a, Int8>,
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
        let groups = matrix.depth.div_ceil(GROUP);
        for k in 0..panels {
            let p = if downwards { panels - 1 - k } else { k };
            let slot = ahead.slot(k, panels, ahead.matrix.depth.div_ceil(GROUP));
            let (first, column) = (p * width, slot.panel * width);
            // SAFETY: `Int8::product_beside` passes on what its caller vouches for.
            unsafe {
                let mut one = [matrix.starts::<S>(first)];
                let mut many = match slot.begins {
                    true => [ahead.matrix.starts::<S>(column); BESIDE],
                    false => resumed::<S>(&y_ahead, column, ahead.matrix.columns),
                };
                let panel = matrix.panel::<S>(p);
                let weights = ahead.matrix.panel::<S>(slot.panel);
                add_both::<S>(x, panel, groups, &mut one, x_ahead, weights, slot.terms, &mut many);
                finish_tile::<S, 1>(&one, &[x], matrix, first, &[y]);
                match slot.ends {
                    true => {
                        finish_tile::<S, BESIDE>(&many, &x_ahead, ahead.matrix, column, &y_ahead);
                    }
                    false => put_down::<S>(&many, &y_ahead, column, ahead.matrix.columns),
                }
            }
        }
    }
}

/// Adds the products of `groups` groups to the sums of one row, and meanwhile those of the groups
/// `other` to those of a tile.
///
/// # Safety
/// As [`add_products`], for both.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two products")]
unsafe fn add_both<S: Sums>(
    a: *const u8,
    panel: *const i8,
    groups: usize,
    one: &mut [[S; PANEL]; 1],
    x: [*const u8; BESIDE],
    weights: *const i8,
    other: Range<usize>,
    many: &mut [[S; PANEL]; BESIDE],
) {
    // One group of the tile takes as many products as BESIDE of the row.
    let rounds = other.len().min(groups / BESIDE);
    let (mut first, mut second) = (*one, *many);
    // SAFETY: by the caller.
    unsafe {
        for round in 0..rounds {
            add_products::<S, 1>([a], panel, round * BESIDE..(round + 1) * BESIDE, &mut first);
            let group = other.start + round;
            add_products::<S, BESIDE>(x, weights, group..group + 1, &mut second);
        }
        add_products::<S, 1>([a], panel, rounds * BESIDE..groups, &mut first);
        add_products::<S, BESIDE>(x, weights, other.start + rounds..other.end, &mut second);
    }
    (*one, *many) = (first, second);
}

/// Sums that lie where their floats will.
///
/// # Safety
/// y is readable for the columns.
#[inline(always)]
unsafe fn resumed<S: Sums>(
    y: &[*mut f32; BESIDE],
    first: usize,
    columns: usize,
) -> [[S; PANEL]; BESIDE] {
    let mut sums = [[S::of_bits(S::Float::zero()); PANEL]; BESIDE];
    // SAFETY: by the caller.
    let bits = unsafe { tile::load::<S::Float, BESIDE>(y, first, columns) };
    for r in 0..BESIDE {
        for v in 0..PANEL {
            sums[r][v] = S::of_bits(bits[r][v]);
        }
    }
    sums
}

/// Leaves sums where their floats will be.
///
/// # Safety
/// y is writable for the columns.
#[inline(always)]
unsafe fn put_down<S: Sums>(
    sums: &[[S; PANEL]; BESIDE],
    y: &[*mut f32; BESIDE],
    first: usize,
    columns: usize,
) {
    let mut bits = [[S::Float::zero(); PANEL]; BESIDE];
    for r in 0..BESIDE {
        for v in 0..PANEL {
            bits[r][v] = sums[r][v].to_bits();
        }
    }
    // SAFETY: by the caller.
    unsafe { tile::store::<S::Float, BESIDE>(&bits, y, first, columns) };
}

/// A product to compute.
struct Product<'a> {
    x: &'a [*const u8],
    matrix: &'a Int8,
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
                    // SAFETY: `Int8::product` passes on what its caller vouches for.
                    with_rows!(x.len(), most_rows::<S>(), R => unsafe {
                        product_tile::<S, R>(x, self.matrix, p, y);
                    });
                }
            }
        }
    }
}

/// Most rows in a tile: 24 registers of sums where there are 32, and 8 where there are 16, which
/// also have to hold what comes between two products.
#[inline(always)]
fn most_rows<S: Sums>() -> usize {
    if S::Float::REGISTERS >= 32 { 6 } else { 2 }
}

/// # Safety
/// As [`Int8::product`]; x and y have R rows.
#[inline(always)]
unsafe fn product_tile<S: Sums, const R: usize>(
    x: &[*const u8],
    matrix: &Int8,
    p: usize,
    y: &[*mut f32],
) {
    let mut a = [std::ptr::null(); R];
    for (a, &x) in a.iter_mut().zip(x) {
        *a = x;
    }
    let first = p * PANEL * S::Float::WIDTH;
    // SAFETY: a panel has a whole register of each of its columns.
    unsafe {
        let mut sums = [matrix.starts::<S>(first); R];
        let groups = 0..matrix.depth.div_ceil(GROUP);
        add_products::<S, R>(a, matrix.panel::<S>(p), groups, &mut sums);
        finish_tile::<S, R>(&sums, x, matrix, first, y);
    }
}

/// Adds the products of these groups to the sums of a tile.
///
/// # Safety
/// Each `a` and the panel are readable for the groups.
#[inline(always)]
unsafe fn add_products<S: Sums, const R: usize>(
    a: [*const u8; R],
    panel: *const i8,
    groups: Range<usize>,
    sums: &mut [[S; PANEL]; R],
) {
    let register = S::Float::WIDTH * GROUP;
    let mut now = *sums;
    for group in groups {
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
                    now[r][v] = now[r][v].add(operands, weights[v]);
                }
            }
        }
    }
    *sums = now;
}

/// Makes floats of a tile's sums.
///
/// # Safety
/// As [`Int8::product`]; x and y have R rows.
#[inline(always)]
unsafe fn finish_tile<S: Sums, const R: usize>(
    sums: &[[S; PANEL]; R],
    x: &[*const u8],
    matrix: &Int8,
    first: usize,
    y: &[*mut f32],
) {
    let mut values = [[S::Float::zero(); PANEL]; R];
    for r in 0..R {
        // SAFETY: by the caller: the row's scale, and whole registers of what the columns have.
        unsafe {
            let scale = x[r].add(matrix.scale_at()).cast::<f32>().read_unaligned();
            let scale = S::Float::splat(scale);
            for v in 0..PANEL {
                let at = first + v * S::Float::WIDTH;
                let column_scale = S::Float::load(matrix.scales.as_ptr().add(at));
                let bias = S::Float::load(matrix.bias.as_ptr().add(at));
                values[r][v] = sums[r][v].to_float() * scale * column_scale + bias;
            }
        }
    }
    // SAFETY: by the caller.
    unsafe { tile::store::<S::Float, R>(&values, y, first, matrix.columns) };
}
