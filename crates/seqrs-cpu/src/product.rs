//! y = x W^T + b for any rows of x and y.
//!
//! Rows are given by pointers, so that they may lie anywhere: in a caller's padded array,
//! in a tape, in a buffer of states. For each block of rows the panels go by once; a
//! panel's tiles follow each other, so its weights come from the cache.

use std::ops::Range;

use crate::kernel::{add_products, load_first, most_rows, store_first, tiles, with_rows};
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
        let row = PANEL * V::WIDTH;
        for (x, y) in self.x.chunks(BLOCK).zip(self.y.chunks(BLOCK)) {
            for p in self.panels.clone() {
                let panel = self.weights.panel(p);
                let columns = (self.weights.columns() - p * row).min(row);
                for tile in tiles(x.len(), most_rows::<V>(PANEL)) {
                    let (x, y) = (&x[tile.clone()], &y[tile]);
                    // SAFETY: `Product::run` passes on what its caller vouches for; a
                    // panel holds its bias and `depth` rows.
                    with_rows!(x.len(), R => unsafe {
                        product_tile::<V, R>(x, panel, self.start, y, p * row, columns);
                    });
                }
            }
        }
    }
}

/// # Safety
/// As [`Product::run`]; x and y have R rows, `columns` of y from `first` on exist.
#[inline(always)]
unsafe fn product_tile<V: Simd, const R: usize>(
    x: &[*const V::Elem],
    panel: &[V::Elem],
    start: Start,
    y: &[*mut V::Elem],
    first: usize,
    columns: usize,
) {
    let row = PANEL * V::WIDTH;
    let mut a = [std::ptr::null(); R];
    a.copy_from_slice(x);
    let mut acc = [[V::zero(); PANEL]; R];
    for r in 0..R {
        for v in 0..PANEL {
            let left = columns.saturating_sub(v * V::WIDTH).min(V::WIDTH);
            // SAFETY: a panel has a full row of biases; of y, `left` columns are touched.
            acc[r][v] = unsafe {
                match start {
                    Start::Bias => V::load(panel.as_ptr().add(v * V::WIDTH)),
                    Start::Y => load_first(y[r].wrapping_add(first + v * V::WIDTH), left),
                }
            };
        }
    }
    // SAFETY: a panel holds `depth` rows after its bias; x by the caller.
    unsafe {
        let depth = panel.len() / row - 1;
        add_products::<V, R, PANEL>(a, 1, panel.as_ptr().add(row), depth, &mut acc);
    }
    for r in 0..R {
        for v in 0..PANEL {
            let left = columns.saturating_sub(v * V::WIDTH).min(V::WIDTH);
            // SAFETY: of y, `left` columns are touched.
            unsafe { store_first(acc[r][v], y[r].wrapping_add(first + v * V::WIDTH), left) };
        }
    }
}
