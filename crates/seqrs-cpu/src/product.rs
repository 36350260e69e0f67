//! y = x W^T + b for any rows of x and y.
//!
//! Rows are given by pointers, so that they may lie anywhere: in a caller's padded array,
//! in a tape, in a buffer of states. A panel's tiles follow each other, so its weights come from
//! the cache:
//!
//! ```text
//! for each block of rows:   for each panel:   for each tile of rows:
//!     y[tile, panel] = bias or y[tile, panel], + x[tile] panel         (micro-kernel)
//! ```
//! # Departures
//! 1. Rows go in blocks of 96, whose operands stay in L2 while all panels go by. The way back of
//!    an LSTM of 256 units on 32 rows: 67.3 to 66.3 ms; forwards it makes no difference, as a run
//!    of steps has few rows.
//! 2. A [`Slice`] is some panels and some terms of each sum, whose sums rest in y between slices:
//!    what a step of one row computes beside its own (`forward`, departure 3).

use std::ops::Range;

use crate::kernel::{
    add_products, add_products_beside, load_first, most_rows, store_first, tiles, with_rows,
};
use crate::lanes::{Element, Simd};
use crate::level::{Kernel, Level};
use crate::pack::{PANEL, Panels};

/// Rows in a block: their operands stay in L2 while all panels go by.
const BLOCK: usize = 96;

/// What the sums start from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The bias that was packed with the weights, or zero.
    Bias,
    /// What is in y already.
    Y,
}

/// A product to compute.
pub(crate) struct Product<'a, T> {
    pub(crate) x: &'a [*const T],
    pub(crate) weights: &'a Panels<T>,
    /// The panels whose columns of y are computed.
    pub(crate) panels: Range<usize>,
    pub(crate) start: Start,
    pub(crate) y: &'a [*mut T],
}

impl<T: Element> Product<'_, T> {
    /// # Safety
    /// Every x is readable for the weights' depth and every y writable (and readable) for
    /// the columns of the panels; no y overlaps another y or an x, and nobody else uses them.
    pub(crate) unsafe fn run(self, level: Level) {
        assert_eq!(self.x.len(), self.y.len(), "a row of y for every row of x");
        level.dispatch(self);
    }
}

impl<T: Element> Kernel<T> for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let depth = 0..self.weights.depth();
        for (x, y) in self.x.chunks(BLOCK).zip(self.y.chunks(BLOCK)) {
            for p in self.panels.clone() {
                let columns = Columns::of::<V>(self.weights, p);
                for tile in tiles(x.len(), most_rows::<V>(PANEL)) {
                    let (x, y) = (&x[tile.clone()], &y[tile]);
                    // SAFETY: `Product::run` passes on what its caller vouches for.
                    with_rows!(x.len(), R => unsafe {
                        columns.add::<V, R>(x, self.start, &depth, y);
                    });
                }
            }
        }
    }
}

/// A part of a product with all of x, for a kernel whose multipliers have time for it while
/// they wait for other weights: some panels, and of each sum the terms `depth`.
#[derive(Clone)]
pub(crate) struct Slice<'a, T> {
    pub(crate) x: &'a [*const T],
    pub(crate) weights: &'a Panels<T>,
    pub(crate) panels: Range<usize>,
    /// The first terms start from the bias, the others from what is in y.
    pub(crate) depth: Range<usize>,
    pub(crate) y: &'a [*mut T],
}

impl<'a, T: Element> Slice<'a, T> {
    /// The `k`-th of `of` parts of the panels.
    #[inline(always)]
    pub(crate) fn part(&self, k: usize, of: usize) -> Self {
        let cut = |k: usize| self.panels.start + self.panels.len() * k / of;
        Self { panels: cut(k)..cut(k + 1), ..self.clone() }
    }

    fn start(&self) -> Start {
        if self.depth.start == 0 { Start::Bias } else { Start::Y }
    }

    /// Its tiles, one for each panel; it has M rows.
    #[inline(always)]
    pub(crate) fn tiles<V: Simd<Elem = T>, const M: usize>(
        &self,
    ) -> impl Iterator<Item = Tile<'a, T>> + use<'a, V, T, M> {
        let Self { x, weights, y, .. } = *self;
        assert_eq!(x.len(), M, "as many rows as are computed beside another");
        let (start, depth) = (self.start(), self.depth.clone());
        self.panels.clone().map(move |p| {
            let columns = Columns::of::<V>(weights, p);
            Tile { x, columns, start, depth: depth.clone(), y }
        })
    }
}

/// A tile of a [`Slice`].
pub(crate) struct Tile<'a, T> {
    x: &'a [*const T],
    columns: Columns<'a, T>,
    start: Start,
    depth: Range<usize>,
    y: &'a [*mut T],
}

impl<T: Element> Tile<'_, T> {
    /// Computes it while `depth` terms are added to each of the sums `acc` of one row.
    ///
    /// # Safety
    /// As [`Product::run`] and [`add_products`]; the tile has M rows.
    #[inline(always)]
    pub(crate) unsafe fn beside<V: Simd<Elem = T>, const N: usize, const M: usize>(
        self,
        a: *const T,
        panel: *const T,
        depth: usize,
        acc: &mut [[V; N]; 1],
    ) {
        let Self { columns, start, depth: slice, y, .. } = self;
        let mut x = [std::ptr::null(); M];
        for (x, from) in x.iter_mut().zip(self.x) {
            *x = from.wrapping_add(slice.start);
        }
        // SAFETY: by the caller.
        unsafe {
            let mut sums = columns.load::<V, M>(start, y);
            let weights = columns.row::<V>(slice.start);
            add_products_beside(a, panel, depth, acc, x, weights, slice.len(), &mut sums);
            columns.store(sums, y);
        }
    }
}

/// The columns of y that one panel gives.
struct Columns<'a, T> {
    panel: &'a [T],
    first: usize,
    count: usize,
}

impl<'a, T: Element> Columns<'a, T> {
    #[inline(always)]
    fn of<V: Simd<Elem = T>>(weights: &'a Panels<T>, p: usize) -> Self {
        let row = PANEL * V::WIDTH;
        Self {
            panel: weights.panel(p),
            first: p * row,
            count: (weights.columns() - p * row).min(row),
        }
    }

    /// The weights that the `k`-th operand multiplies.
    ///
    /// # Safety
    /// The panel is that deep: it holds its bias and `depth` rows.
    #[inline(always)]
    unsafe fn row<V: Simd<Elem = T>>(&self, k: usize) -> *const T {
        // SAFETY: by the caller.
        unsafe { self.panel.as_ptr().add((k + 1) * PANEL * V::WIDTH) }
    }

    /// # Safety
    /// As [`Product::run`]; x and y have R rows.
    #[inline(always)]
    unsafe fn add<V: Simd<Elem = T>, const R: usize>(
        &self,
        x: &[*const T],
        start: Start,
        depth: &Range<usize>,
        y: &[*mut T],
    ) {
        let mut a = [std::ptr::null(); R];
        for (a, x) in a.iter_mut().zip(x) {
            *a = x.wrapping_add(depth.start);
        }
        // SAFETY: by the caller.
        unsafe {
            let mut acc = self.load::<V, R>(start, y);
            add_products::<V, R, PANEL>(a, 1, self.row::<V>(depth.start), depth.len(), &mut acc);
            self.store(acc, y);
        }
    }

    /// # Safety
    /// y has R rows that are readable for these columns, if the sums start from it.
    #[inline(always)]
    unsafe fn load<V: Simd<Elem = T>, const R: usize>(
        &self,
        start: Start,
        y: &[*mut T],
    ) -> [[V; PANEL]; R] {
        let mut acc = [[V::zero(); PANEL]; R];
        let whole = self.count == PANEL * V::WIDTH;
        for r in 0..R {
            let y = y[r].wrapping_add(self.first);
            for v in 0..PANEL {
                let at = v * V::WIDTH;
                let left = self.count.saturating_sub(at).min(V::WIDTH);
                // SAFETY: a panel has a full row of biases; of y, `left` columns are touched.
                acc[r][v] = unsafe {
                    match start {
                        Start::Bias => V::load(self.panel.as_ptr().add(at)),
                        Start::Y if whole => V::load(y.add(at)),
                        Start::Y => load_first(y.wrapping_add(at), left),
                    }
                };
            }
        }
        acc
    }

    /// # Safety
    /// y has R rows that are writable for these columns.
    #[inline(always)]
    unsafe fn store<V: Simd<Elem = T>, const R: usize>(&self, acc: [[V; PANEL]; R], y: &[*mut T]) {
        let whole = self.count == PANEL * V::WIDTH;
        for r in 0..R {
            let y = y[r].wrapping_add(self.first);
            for v in 0..PANEL {
                let at = v * V::WIDTH;
                let left = self.count.saturating_sub(at).min(V::WIDTH);
                // SAFETY: of y, `left` columns are touched.
                unsafe {
                    match whole {
                        true => acc[r][v].store(y.add(at)),
                        false => store_first(acc[r][v], y.wrapping_add(at), left),
                    }
                }
            }
        }
    }
}
