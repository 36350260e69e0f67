//! What is computed beside a product of one row, as that waits for its weights.
//!
//! A row's sums are added up no faster than its weights come from the cache; in that time the
//! multipliers could do as much again. So they do a part of the product with the input of some of
//! the next steps, whose weights serve as many rows each; sums that are not complete
//! rest where their results will be (`forward`, departure 3, is the same
//! with floats).

use std::ops::Range;

/// Some groups of one panel.
pub(super) struct Slot {
    pub(super) panel: usize,
    pub(super) groups: Range<usize>,
    /// Whether the sums start.
    pub(super) begins: bool,
    /// Whether they are complete then.
    pub(super) ends: bool,
}

/// A part of a product.
#[derive(Debug)]
pub(crate) struct Ahead<'a, M> {
    pub(crate) matrix: &'a M,
    pub(crate) x: &'a [*const u8],
    pub(crate) y: &'a [*mut f32],
    /// The `part`-th of `parts`, which come one after the other.
    pub(crate) part: usize,
    pub(crate) parts: usize,
}

impl<'a, M> Ahead<'a, M> {
    /// Its rows.
    ///
    /// # Panics
    /// If there are more or fewer.
    #[inline(always)]
    pub(super) fn rows<const N: usize>(&self) -> ([*const u8; N], [*mut f32; N]) {
        let rows = self.x.try_into().ok().zip(self.y.try_into().ok());
        rows.expect("as many rows as are computed beside another")
    }

    /// What is computed beside the `k`-th of `panels` panels, where a panel has so many groups.
    ///
    /// Panels are taken one after the other, each in as many slots as there are parts, so that
    /// their weights are read from front to back, and few sums have to rest: those of the panel
    /// that a part ends in.
    #[inline(always)]
    pub(super) fn slot(&self, k: usize, panels: usize, groups: usize) -> Slot {
        let all = self.part * panels + k;
        let (panel, slot) = (all / self.parts, all % self.parts);
        Slot {
            panel,
            groups: groups * slot / self.parts..groups * (slot + 1) / self.parts,
            begins: slot == 0,
            ends: slot + 1 == self.parts,
        }
    }

    /// The same part of the product with another form of the matrix.
    pub(super) fn with<N>(&self, matrix: &'a N) -> Ahead<'a, N> {
        Ahead { matrix, x: self.x, y: self.y, part: self.part, parts: self.parts }
    }
}
