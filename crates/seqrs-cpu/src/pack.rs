//! Weights in the order in which the kernels read them.
//!
//! A *panel* is a few registers wide and as long as the sums are deep: row k holds the
//! weights that the k-th operand multiplies, so a kernel walks it from front to back and
//! never skips. Before the first row stands the bias, from which the sums start (zeros
//! without one). Columns that pad the last panel are zero.
//!
//! ```text
//! panel 0: [ bias | k = 0 | k = 1 | ... ]   panel 1: [ bias | k = 0 | ... ]
//!             ^ registers x width columns
//! ```
//! Which column of the product a panel's column is, is free: a plain product takes them in
//! order; a recurrent step puts the gates of the same units side by side, one register
//! each, so that the cell can run on the sums before they leave the registers.

use std::ops::Range;

use seqrs_core::memory::zeros;
use seqrs_core::{Error, interrupt};

use crate::lanes::{Element, Simd};
use crate::level::{Kernel, Level};

/// Registers in a row of a plain product's panel.
pub(crate) const PANEL: usize = 4;

/// Cache line in bytes: panels start on one.
pub(crate) const LINE: usize = 64;

/// Numbers in a register of `level`.
pub(crate) fn width<T: Element>(level: Level) -> usize {
    struct Width;
    impl<T: Element> Kernel<T> for Width {
        type Output = usize;
        #[inline(always)]
        fn run<V: Simd<Elem = T>>(self) -> usize {
            V::WIDTH
        }
    }
    level.dispatch::<T, _>(Width)
}

/// A matrix packed in panels.
#[derive(Debug)]
pub(crate) struct Panels<T> {
    numbers: Vec<T>,
    /// First number on a cache line.
    start: usize,
    /// Numbers in a row of a panel.
    row: usize,
    columns: usize,
    depth: usize,
}

/// A matrix of weights to pack, and the bias of each of its columns.
pub(crate) struct Source<'a, T> {
    /// Column `n` at depth `k` is `numbers[n * column + k * step]`.
    pub(crate) numbers: &'a [T],
    pub(crate) column: usize,
    pub(crate) step: usize,
    pub(crate) bias: Option<&'a [T]>,
}

impl<T: Element> Panels<T> {
    /// A plain product's panels: columns in order, [`PANEL`] registers to a row.
    pub(crate) fn plain(
        level: Level,
        source: &Source<'_, T>,
        columns: usize,
        depth: usize,
    ) -> Result<Self, Error> {
        let row = PANEL * width::<T>(level);
        Self::pack(source, columns, depth, row, columns.div_ceil(row), |at| {
            Some(at).filter(|&n| n < columns)
        })
    }

    /// A recurrent step's panels: `gates` registers of the same units side by side, or as
    /// many groups of units as fit; column n belongs to unit n % hidden.
    pub(crate) fn gates(
        level: Level,
        source: &Source<'_, T>,
        gates: usize,
        hidden: usize,
        depth: usize,
    ) -> Result<Self, Error> {
        let width = width::<T>(level);
        let units = PANEL / gates * width;
        Self::pack(source, gates * hidden, depth, gates * units, hidden.div_ceil(units), |at| {
            let (panel, column) = (at / (gates * units), at % (gates * units));
            let unit = panel * units + column % units;
            Some(column / units * hidden + unit).filter(|_| unit < hidden)
        })
    }

    fn pack(
        source: &Source<'_, T>,
        columns: usize,
        depth: usize,
        row: usize,
        panels: usize,
        column_at: impl Fn(usize) -> Option<usize>,
    ) -> Result<Self, Error> {
        let len = panels * row * (depth + 1);
        let mut numbers: Vec<T> = zeros("packed weights", len + LINE / size_of::<T>())?;
        let start = numbers.as_ptr().align_offset(LINE).min(LINE / size_of::<T>());
        for (p, panel) in numbers[start..start + len].chunks_mut(row * (depth + 1)).enumerate() {
            interrupt::check()?;
            for j in 0..row {
                let Some(n) = column_at(p * row + j) else { continue };
                if let Some(bias) = source.bias {
                    panel[j] = bias[n];
                }
                let from = source.numbers[n * source.column..].iter().step_by(source.step);
                for (to, &weight) in panel[row + j..].iter_mut().step_by(row).zip(from) {
                    *to = weight;
                }
            }
        }
        Ok(Self { numbers, start, row, columns, depth })
    }

    /// Columns of the product.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Terms of each sum.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// The columns of plain panels.
    pub(crate) fn columns_of(&self, panels: &Range<usize>) -> Range<usize> {
        let end = |p: usize| (p * self.row).min(self.columns);
        end(panels.start)..end(panels.end)
    }

    /// Number of panels.
    pub(crate) fn count(&self) -> usize {
        (self.numbers.len() - LINE / size_of::<T>()) / self.len()
    }

    /// All panels.
    pub(crate) fn all(&self) -> Range<usize> {
        0..self.count()
    }

    /// Panel `p`, its bias first.
    #[inline(always)]
    pub(crate) fn panel(&self, p: usize) -> &[T] {
        &self.numbers[self.start + p * self.len()..][..self.len()]
    }

    fn len(&self) -> usize {
        self.row * (self.depth + 1)
    }
}
