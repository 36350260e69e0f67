//! The products of a packed matrix of small numbers: which tiles there are, in which order, and
//! what goes on beside a single row.
//!
//! ```text
//! for each block of rows:   for each panel:   for each tile of rows:
//!     y[tile, panel] = x[tile] W[panel]^T + b
//! ```
//! A panel is `PANEL` registers of columns wide. Its rows are *groups*: the weights of each column
//! for a few consecutive operands.

use std::ops::Range;

use seqrs_core::lanes::Lanes;

use super::ahead::Ahead;
use super::sums::{SumKernel, SumLevel, Sums};
use super::tile::{self, with_rows};
use crate::kernel::tiles;
use crate::lanes::Simd;
use crate::pack::PANEL;

/// The sums of R rows.
pub(super) type Tile<M, S, const R: usize> = [[<M as Packed>::Sum<S>; PANEL]; R];

/// A packed matrix. The bytes of an operand are those that it says a row is.
pub(super) trait Packed {
    /// A register of sums.
    type Sum<S: Sums>: Copy;
    /// What a panel is made of.
    type Number;
    /// Rows in a block: their operands stay in a near cache while all panels go by.
    const BLOCK: usize;

    /// Whose registers it is packed for.
    fn level(&self) -> SumLevel;

    /// Columns of the product.
    fn columns(&self) -> usize;

    /// Columns of all panels.
    fn padded_columns(&self) -> usize;

    /// Groups of a panel.
    fn groups(&self) -> usize;

    /// Those whose operands are all there to be read.
    fn whole_groups(&self) -> usize;

    /// Most rows in a tile.
    fn most_rows<S: Sums>() -> usize;

    /// A panel.
    ///
    /// # Safety
    /// `S` is of the matrix's level, and there is such a panel.
    unsafe fn panel<S: Sums>(&self, p: usize) -> *const Self::Number;

    /// What the sums of a panel start from.
    ///
    /// # Safety
    /// `S` is of the matrix's level, and `first` the first column of a panel.
    unsafe fn starts<S: Sums>(&self, first: usize) -> [Self::Sum<S>; PANEL];

    /// Adds the products of one of the whole groups to the sums of a tile.
    ///
    /// # Safety
    /// Each `a` is readable for the group, and the panel is one of a matrix like this.
    unsafe fn add_group<S: Sums, const R: usize>(
        a: [*const u8; R],
        panel: *const Self::Number,
        group: usize,
        sums: &mut Tile<Self, S, R>,
    );

    /// Adds the products of what follows the whole groups, if anything does.
    ///
    /// # Safety
    /// Each `a` is an operand of this matrix, and the panel one of it.
    unsafe fn add_last<S: Sums, const R: usize>(
        &self,
        a: [*const u8; R],
        panel: *const Self::Number,
        sums: &mut Tile<Self, S, R>,
    );

    /// What complete sums become.
    ///
    /// # Safety
    /// Each `a` is an operand of this matrix, and `first` the first column of a panel.
    unsafe fn results<S: Sums, const R: usize>(
        &self,
        sums: Tile<Self, S, R>,
        a: [*const u8; R],
        first: usize,
    ) -> [[S::Float; PANEL]; R];

    /// The bits of sums that are not complete, to be kept where their results will be.
    fn to_bits<S: Sums>(sums: Self::Sum<S>) -> S::Float;

    /// The sums of these bits.
    fn of_bits<S: Sums>(bits: S::Float) -> Self::Sum<S>;
}

/// y = x W^T + b; the panels are walked from the last to the first where that is asked for.
///
/// # Safety
/// Every x is an operand of the matrix, every y writable for the columns; no y overlaps another y or
/// an x, and nobody else uses them.
pub(super) unsafe fn product<M: Packed>(
    matrix: &M,
    x: &[*const u8],
    y: &[*mut f32],
    downwards: bool,
) {
    assert_eq!(x.len(), y.len(), "a row of y for every row of x");
    matrix.level().dispatch(Product { x, matrix, y, downwards });
}

/// y = x W^T + b of one row, and beside it a part of the product of N rows with another matrix of as
/// many columns, of the same level.
///
/// # Safety
/// As [`product`], for both.
pub(super) unsafe fn product_beside<M: Packed, const N: usize>(
    matrix: &M,
    x: *const u8,
    y: *mut f32,
    downwards: bool,
    ahead: Ahead<'_, M>,
) {
    let shape = |matrix: &M| (matrix.columns(), matrix.level());
    assert_eq!(shape(matrix), shape(ahead.matrix), "panels of the same columns");
    matrix.level().dispatch(Beside::<M, N> { x, matrix, y, downwards, ahead });
}

/// The panels in their order.
#[inline(always)]
fn walk<M: Packed, S: Sums>(matrix: &M, downwards: bool) -> impl Iterator<Item = usize> {
    let panels = matrix.padded_columns() / (PANEL * S::Float::WIDTH);
    (0..panels).map(move |k| if downwards { panels - 1 - k } else { k })
}

/// A product to compute.
struct Product<'a, M> {
    x: &'a [*const u8],
    matrix: &'a M,
    y: &'a [*mut f32],
    downwards: bool,
}

impl<M: Packed> SumKernel for Product<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Sums>(self) {
        let Self { x, matrix, y, downwards } = self;
        for (x, y) in x.chunks(M::BLOCK).zip(y.chunks(M::BLOCK)) {
            for p in walk::<M, S>(matrix, downwards) {
                for tile in tiles(x.len(), M::most_rows::<S>()) {
                    let (x, y) = (&x[tile.clone()], &y[tile]);
                    // SAFETY: `product` passes on what its caller vouches for.
                    with_rows!(x.len(), M::most_rows::<S>(), R => unsafe {
                        product_tile::<M, S, R>(x, matrix, p, y);
                    });
                }
            }
        }
    }
}

/// # Safety
/// As [`product`]; x and y have R rows.
#[inline(always)]
unsafe fn product_tile<M: Packed, S: Sums, const R: usize>(
    x: &[*const u8],
    matrix: &M,
    p: usize,
    y: &[*mut f32],
) {
    let mut a = [std::ptr::null(); R];
    for (a, &x) in a.iter_mut().zip(x) {
        *a = x;
    }
    let first = p * PANEL * S::Float::WIDTH;
    // SAFETY: by the caller; there is such a panel.
    unsafe {
        let mut sums = [matrix.starts::<S>(first); R];
        add_groups::<M, S, R>(a, &Part::whole::<S>(matrix, p), 0, &mut sums);
        tile::store(&matrix.results::<S, R>(sums, a, first), y, first, matrix.columns());
    }
}

/// A product of one row, and beside it a part of another of N rows.
struct Beside<'a, M, const N: usize> {
    x: *const u8,
    matrix: &'a M,
    y: *mut f32,
    downwards: bool,
    ahead: Ahead<'a, M>,
}

impl<M: Packed, const N: usize> SumKernel for Beside<'_, M, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Sums>(self) {
        if S::Float::REGISTERS < 32 {
            // `SumLevel::holds_tile_beside` says no, and nothing is compiled for it.
            unreachable!("too few registers");
        }
        let Self { x, matrix, y, downwards, ahead } = self;
        let width = PANEL * S::Float::WIDTH;
        let panels = matrix.padded_columns() / width;
        let (x_ahead, y_ahead) = ahead.rows::<N>();
        let other = ahead.matrix;
        for (k, p) in walk::<M, S>(matrix, downwards).enumerate() {
            let slot = ahead.slot(k, panels, other.groups());
            let (first, column) = (p * width, slot.panel * width);
            // SAFETY: `product_beside` passes on what its caller vouches for.
            unsafe {
                let mut one = [matrix.starts::<S>(first)];
                let mut many = match slot.begins {
                    true => [other.starts::<S>(column); N],
                    false => take_up::<M, S, N>(tile::load(&y_ahead, column, other.columns())),
                };
                let row = Part::whole::<S>(matrix, p);
                let part = Part { groups: slot.groups, ..Part::whole::<S>(other, slot.panel) };
                add_both::<M, S, N>(x, &row, &mut one, x_ahead, &part, &mut many);
                let one = matrix.results::<S, 1>(one, [x], first);
                tile::store(&one, &[y], first, matrix.columns());
                let many = match slot.ends {
                    true => other.results::<S, N>(many, x_ahead, column),
                    false => put_down::<M, S, N>(many),
                };
                tile::store(&many, &y_ahead, column, other.columns());
            }
        }
    }
}

/// Sums that are not complete, as they are kept.
#[inline(always)]
fn put_down<M: Packed, S: Sums, const R: usize>(sums: Tile<M, S, R>) -> [[S::Float; PANEL]; R] {
    let mut bits = [[S::Float::zero(); PANEL]; R];
    for r in 0..R {
        for v in 0..PANEL {
            bits[r][v] = M::to_bits::<S>(sums[r][v]);
        }
    }
    bits
}

/// The same, back.
#[inline(always)]
fn take_up<M: Packed, S: Sums, const R: usize>(bits: [[S::Float; PANEL]; R]) -> Tile<M, S, R> {
    let mut sums = [[M::of_bits::<S>(S::Float::zero()); PANEL]; R];
    for r in 0..R {
        for v in 0..PANEL {
            sums[r][v] = M::of_bits::<S>(bits[r][v]);
        }
    }
    sums
}

/// Groups of a panel of a matrix.
struct Part<'a, M: Packed> {
    matrix: &'a M,
    panel: *const M::Number,
    groups: Range<usize>,
}

impl<'a, M: Packed> Part<'a, M> {
    /// All groups.
    ///
    /// # Safety
    /// As [`Packed::panel`].
    #[inline(always)]
    unsafe fn whole<S: Sums>(matrix: &'a M, p: usize) -> Self {
        // SAFETY: by the caller.
        Self { matrix, panel: unsafe { matrix.panel::<S>(p) }, groups: 0..matrix.groups() }
    }
}

/// Adds the products of the part's groups but the first `done` to the sums of a tile.
///
/// # Safety
/// Each `a` is an operand of the part's matrix.
#[inline(always)]
unsafe fn add_groups<M: Packed, S: Sums, const R: usize>(
    a: [*const u8; R],
    part: &Part<'_, M>,
    done: usize,
    sums: &mut Tile<M, S, R>,
) {
    let whole = part.groups.end.min(part.matrix.whole_groups());
    let mut now = *sums;
    // SAFETY: by the caller.
    unsafe {
        for group in part.groups.start + done..whole {
            M::add_group::<S, R>(a, part.panel, group, &mut now);
        }
        if part.groups.end > whole {
            part.matrix.add_last::<S, R>(a, part.panel, &mut now);
        }
    }
    *sums = now;
}

/// Adds the products of all groups to the sums of one row, and meanwhile those of others to those of
/// a tile.
///
/// # Safety
/// As [`add_groups`], for both.
#[inline(always)]
unsafe fn add_both<M: Packed, S: Sums, const N: usize>(
    a: *const u8,
    row: &Part<'_, M>,
    one: &mut Tile<M, S, 1>,
    x: [*const u8; N],
    tile: &Part<'_, M>,
    many: &mut Tile<M, S, N>,
) {
    // One group of the tile takes as many products as N of the row.
    let whole = tile.groups.end.min(tile.matrix.whole_groups());
    let rounds = whole.saturating_sub(tile.groups.start).min(row.matrix.whole_groups() / N);
    let (mut first, mut second) = (*one, *many);
    // SAFETY: by the caller.
    unsafe {
        for round in 0..rounds {
            for group in round * N..(round + 1) * N {
                M::add_group::<S, 1>([a], row.panel, group, &mut first);
            }
            M::add_group::<S, N>(x, tile.panel, tile.groups.start + round, &mut second);
        }
        add_groups::<M, S, 1>([a], row, rounds * N, &mut first);
        add_groups::<M, S, N>(x, tile, rounds, &mut second);
    }
    (*one, *many) = (first, second);
}
