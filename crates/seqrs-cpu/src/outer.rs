//! d_W += d_y^T x: the gradient of a matrix of weights, summed over items.
//!
//! Seen as a product, the items are the depth: a tile holds R rows of d_W against the
//! registers of a row of x.
//!
//! ```text
//! for each chunk of items:
//!     copy d_y into tiles of R columns        a[tile][item][r]
//!     for each operand x of d_y:
//!         copy x into panels                  panel[p][item][v]
//!         for each panel p, each tile:        d_W[tile, p] += a[tile]^T panel[p]
//! ```
//! Between chunks the sums rest in d_W. A sum is one chain over the items, ascending, so it
//! does not depend on how rows of d_W were shared between threads, nor on the chunks.
//!
//! # Departures
//! 1. One copy of d_y serves the input's matrix and the state's, where their gates have the
//!    same gradient.
//! 2. The copy runs over the items and, within an item, over tiles whose width the compiler
//!    knows, so that a tile's row is a move or two. Tile by tile, d_y's rows would be read a
//!    page apart, from one set of the cache. For 3200 items, the fastest of 100 calls: with
//!    512 x 128 weights 5.0 to 4.6 ms, with 1024 x 256 17.7 to 17.3 ms. (What 1 saves was
//!    not told from the noise.)
//! 3. Both copies lie in buffers that are used again, the panels on cache lines.

use std::ops::Range;

use seqrs_core::Error;
use seqrs_core::memory::Lent;

use crate::kernel::{add_products, load_first, most_rows, runs, store_first, tiles, with_rows};
use crate::lanes::{Element, Simd};
use crate::level::{Kernel, Level};
use crate::pack::{PANEL, width};

/// Items in a chunk: a panel of them (64 columns of f32) takes 32 KB and stays in L1 while
/// all rows of d_W go by.
const CHUNK: usize = 128;

/// Rows of one or more matrices' gradients that come from the same gradients of products.
pub(crate) struct Outer<'a, T> {
    /// For each item the gradient of the products' columns.
    pub(crate) d_y: &'a [*const T],
    /// Which columns of it.
    pub(crate) columns: Range<usize>,
    /// What it is multiplied with.
    pub(crate) terms: &'a [Term<'a, T>],
}

/// An operand, and where its matrix and the bias that goes with it have their gradients.
pub(crate) struct Term<'a, T> {
    /// For each item the operand.
    pub(crate) x: &'a [*const T],
    /// Numbers in an operand.
    pub(crate) depth: usize,
    /// Row `columns.start` of d_W; a row is `depth` numbers.
    pub(crate) d_w: *mut T,
    /// Entry `columns.start` of d_b, or null. With operands of depth 0 that is all there is.
    pub(crate) d_b: *mut T,
}

impl<T: Element> Outer<'_, T> {
    /// # Safety
    /// Every d_y is readable for `columns`, every x for its `depth`; the rows of d_W and
    /// entries of d_b are writable and nobody else uses them.
    pub(crate) unsafe fn run(self, level: Level) -> Result<(), Error> {
        for term in self.terms {
            assert_eq!(term.x.len(), self.d_y.len(), "an operand for every gradient");
        }
        let row = PANEL * width::<T>(level);
        let depth = self.terms.iter().map(|term| term.depth).max().unwrap_or(0);
        let operands = Lent::new("operands of a sum", depth.div_ceil(row) * row * CHUNK)?;
        // A bias alone needs no tiles.
        let tiled = if depth > 0 { self.columns.len() } else { 0 };
        let gradients = Lent::new("gradients of a sum", tiled * CHUNK)?;
        level.dispatch(Packed { outer: self, operands, gradients });
        Ok(())
    }
}

/// With room for a chunk of operands by panels and of gradients by tiles.
struct Packed<'a, T: Element> {
    outer: Outer<'a, T>,
    operands: Lent<T>,
    gradients: Lent<T>,
}

impl<T: Element> Kernel<T> for Packed<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let Self { outer: this, mut operands, mut gradients } = self;
        let row = PANEL * V::WIDTH;
        let rows = this.columns.len();
        let most = most_rows::<V>(PANEL);
        for (chunk, d_y) in this.d_y.chunks(CHUNK).enumerate() {
            let items = d_y.len();
            let tiled = if gradients.is_empty() { 0 } else { rows };
            for run in runs(tiled, most) {
                let first = this.columns.start + run.rows.start;
                let to = &mut gradients[run.rows.start * items..run.rows.end * items];
                // SAFETY: the caller vouches for `columns` of each gradient.
                with_rows!(run.each, R => unsafe { gather::<V::Elem, R>(d_y, first, to) });
            }
            for term in this.terms {
                let depth = term.depth;
                let x = &term.x[chunk * CHUNK..][..items];
                // SAFETY: the caller vouches for `depth` numbers of each operand.
                unsafe { fill_panels(x, depth, row, &mut operands) };
                for (p, panel) in operands.chunks(row * CHUNK).take(depth.div_ceil(row)).enumerate()
                {
                    let columns = (depth - p * row).min(row);
                    for tile in tiles(rows, most) {
                        let a = gradients[tile.start * items..].as_ptr();
                        // SAFETY: row tile.start, column p * row of d_W.
                        let d_w = unsafe { term.d_w.add(tile.start * depth + p * row) };
                        // SAFETY: `a` holds tile.len() numbers and `panel` a row for each
                        // item; the tile's rows of d_W are ours.
                        with_rows!(tile.len(), R => unsafe {
                            outer_tile::<V, R>(a, panel.as_ptr(), items, d_w, depth, columns);
                        });
                    }
                }
                if !term.d_b.is_null() {
                    // SAFETY: `rows` entries of d_b are ours; the caller vouches for `columns`.
                    unsafe { add_rows(d_y, &this.columns, term.d_b) };
                }
            }
        }
    }
}

/// d_b += the sum of some columns of all items.
///
/// # Safety
/// Every item is readable there; d_b has as many entries, which are ours.
#[inline(always)]
unsafe fn add_rows<T: Element>(items: &[*const T], columns: &Range<usize>, d_b: *mut T) {
    // SAFETY: by the caller.
    let d_b = unsafe { std::slice::from_raw_parts_mut(d_b, columns.len()) };
    for &item in items {
        // SAFETY: by the caller.
        let d = unsafe { std::slice::from_raw_parts(item.add(columns.start), columns.len()) };
        d_b.iter_mut().zip(d).for_each(|(b, &d)| *b = *b + d);
    }
}

/// Every operand cut into rows of panels, which have room for [`CHUNK`] items each.
///
/// # Safety
/// Every operand is readable for `depth` numbers.
#[inline(always)]
unsafe fn fill_panels<T: Element>(x: &[*const T], depth: usize, row: usize, panels: &mut [T]) {
    for (item, &x) in x.iter().enumerate() {
        // SAFETY: by the caller.
        let x = unsafe { std::slice::from_raw_parts(x, depth) };
        for (p, x) in x.chunks(row).enumerate() {
            panels[(p * CHUNK + item) * row..][..x.len()].copy_from_slice(x);
        }
    }
}

/// Tiles of R columns from `first` on, as many as `to` has room for: of each tile the items
/// one after the other.
///
/// # Safety
/// Every item is readable there.
#[inline(always)]
unsafe fn gather<T: Copy, const R: usize>(items: &[*const T], first: usize, to: &mut [T]) {
    let tiles = to.len() / (R * items.len());
    for (at, &item) in items.iter().enumerate() {
        for tile in 0..tiles {
            // SAFETY: by the caller; an array of numbers needs no more than their alignment.
            let from = unsafe { *item.add(first + tile * R).cast::<[T; R]>() };
            // SAFETY: `to` holds R numbers for each item of each tile.
            unsafe { *to.as_mut_ptr().add((tile * items.len() + at) * R).cast::<[T; R]>() = from };
        }
    }
}

/// # Safety
/// `a` holds R numbers and `panel` a row for each of `items`; R rows of d_W, `stride` apart,
/// are ours for `columns` numbers.
#[inline(always)]
unsafe fn outer_tile<V: Simd, const R: usize>(
    a: *const V::Elem,
    panel: *const V::Elem,
    items: usize,
    d_w: *mut V::Elem,
    stride: usize,
    columns: usize,
) {
    let mut acc = [[V::zero(); PANEL]; R];
    let mut operands = [a; R];
    for r in 0..R {
        // SAFETY: `a` holds R numbers for each item.
        operands[r] = unsafe { a.add(r) };
        for v in 0..PANEL {
            let left = columns.saturating_sub(v * V::WIDTH).min(V::WIDTH);
            // SAFETY: `left` numbers of row r are ours.
            acc[r][v] = unsafe { load_first(d_w.wrapping_add(r * stride + v * V::WIDTH), left) };
        }
    }
    // SAFETY: by the caller.
    unsafe { add_products::<V, R, PANEL>(operands, R, panel, items, &mut acc) };
    for r in 0..R {
        for v in 0..PANEL {
            let left = columns.saturating_sub(v * V::WIDTH).min(V::WIDTH);
            // SAFETY: `left` numbers of row r are ours.
            unsafe { store_first(acc[r][v], d_w.wrapping_add(r * stride + v * V::WIDTH), left) };
        }
    }
}
