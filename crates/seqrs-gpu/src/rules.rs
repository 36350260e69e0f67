//! Which shape of kernel computes what: every choice that only speed depends on.
//!
//! Tiles do not change a bit of a result (`shaders/sums.wgsl` fixes the order of every sum). How the
//! items are shared in the gradients of parameters does, and so depends on their number and on the
//! sizes of the layer alone.
//!
//! The table of tiles follows from what a step costs on a card with some hundred multiprocessors:
//! the weights of a step come from its second-level cache, so there have to be enough loads on
//! their way at once (many threads, few terms each), and each load of weights should serve as many
//! rows as registers hold.

use crate::kernels::PRODUCT_TILE;
use crate::row_kernels;

/// Multiply-adds are made four terms and four units at a time.
pub(crate) fn quads(n: usize) -> usize {
    n.div_ceil(4)
}

/// So many numbers, and zeros up to a multiple of four.
pub(crate) fn padded(n: usize) -> usize {
    4 * quads(n)
}

/// What a workgroup of `shaders/sums.wgsl` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Rows.
    pub rows: usize,
    /// Rows of a thread.
    pub share: usize,
    /// Threads among which the terms of a sum are shared: 4 or 16.
    pub parts: usize,
    /// Groups of four units.
    pub groups: usize,
}

/// Workgroups along an axis, and threads and bytes of memory of one, on every device.
pub(crate) const MOST_WORKGROUPS: usize = 65535;
pub(crate) const MOST_THREADS: usize = 256;
pub(crate) const MOST_MEMORY: usize = 16 << 10;

impl Tile {
    /// Units.
    pub(crate) fn units(self) -> usize {
        4 * self.groups
    }

    /// Threads, for sums of so many gates.
    pub(crate) fn threads(self, gates: usize) -> usize {
        self.groups * gates * (self.rows / self.share) * self.parts
    }

    /// Bytes of the parts of all sums.
    pub(crate) fn memory(self, gates: usize) -> usize {
        16 * self.parts * self.rows * self.groups * gates
    }

    /// Whether every device has the threads and the memory that it takes, for sums of at most so
    /// many gates.
    pub fn fits(self, gates: usize) -> bool {
        (1..=gates).all(|gates| {
            let tile = self.of_gates(gates);
            tile.threads(gates) <= MOST_THREADS && tile.memory(gates) <= MOST_MEMORY
        })
    }

    /// As many fewer groups as there are gates.
    fn of_gates(self, gates: usize) -> Self {
        Self { groups: (self.groups / gates).max(1), ..self }
    }

    /// Workgroups for so many units and rows.
    pub(crate) fn workgroups(self, units: usize, rows: usize) -> [usize; 3] {
        [units.div_ceil(self.units()), rows.div_ceil(self.rows), 1]
    }
}

/// The choices.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Workgroups that keep a device busy. Tiles have fewer units until there are so many.
    pub enough: usize,
    /// The tile for batches of at most so many rows, ascending. Its groups are those for sums of
    /// one gate; for several it has as many fewer.
    pub tiles: Vec<(usize, Tile)>,
    /// Bytes of a cell's recurrent weights up to which a workgroup goes through all steps with
    /// its rows, instead of a dispatch for each step.
    pub all_steps: usize,
    /// Terms of a product that are worth a workgroup, where they are shared between several.
    pub terms_of_product: usize,
    /// Rows of a column that are worth a thread, where they are shared between several.
    pub rows_of_columns: usize,
}

impl Default for Rules {
    fn default() -> Self {
        let tile = |rows, share, parts, groups| Tile { rows, share, parts, groups };
        Self {
            enough: 128,
            tiles: vec![
                (1, tile(1, 1, 16, 8)),
                (4, tile(4, 4, 16, 8)),
                (16, tile(16, 4, 16, 4)),
                (usize::MAX, tile(32, 8, 4, 8)),
            ],
            // What a multiprocessor has as its first-level cache, with room to spare.
            all_steps: 64 << 10,
            terms_of_product: 256,
            rows_of_columns: 64,
        }
    }
}

impl Rules {
    /// The largest batch that the table of tiles has workgroups for.
    pub(crate) fn most_rows(&self) -> usize {
        MOST_WORKGROUPS * self.tiles.last().map_or(1, |(_, tile)| tile.rows)
    }

    /// The tile for sums of `gates` gates of `units` units in `rows` rows.
    pub(crate) fn tile(&self, gates: usize, units: usize, rows: usize) -> Tile {
        let fits = self.tiles.iter().find(|(most, _)| rows <= *most);
        let (_, tile) = fits.or(self.tiles.last()).expect("a table of tiles has an entry");
        let mut tile = tile.of_gates(gates);
        while tile.groups > 1
            && tile.workgroups(units, rows).iter().product::<usize>() < self.enough
        {
            tile.groups /= 2;
        }
        tile
    }

    /// Workgroups that share the `terms` terms of m x n sums, each of which has sums of its own.
    pub(crate) fn splits_of_product(&self, m: usize, n: usize, terms: usize) -> usize {
        let tiles = m.div_ceil(PRODUCT_TILE) * n.div_ceil(PRODUCT_TILE);
        let wanted = 2 * self.enough / tiles.max(1);
        wanted.min(terms / self.terms_of_product).max(1)
    }

    /// Threads that share the rows of each of n columns.
    pub(crate) fn splits_of_columns(&self, n: usize, rows: usize) -> usize {
        let wanted = self.enough * row_kernels::THREADS / n.max(1);
        wanted.min(rows / self.rows_of_columns).max(1)
    }

    /// The tile of a workgroup that goes through all steps with its rows, where it can: its sums
    /// are of at most `gates` gates at a time, and a cell has `all_gates`.
    pub(crate) fn all_steps(
        &self,
        gates: usize,
        all_gates: usize,
        hidden: usize,
        batch: usize,
    ) -> Option<Tile> {
        let groups = quads(hidden).next_power_of_two();
        let rows = batch.clamp(1, 2);
        // A thread has one unit of a row, and what goes from step to step lies beside the sums.
        let fits = |tile: &Tile| {
            let units = tile.rows * tile.units();
            let memory = tile.memory(gates) + 4 * units * all_gates.max(2);
            tile.threads(gates).max(units) <= MOST_THREADS && memory <= MOST_MEMORY
        };
        let tile = |parts| Tile { rows, share: rows, parts, groups };
        let tile = [16, 4].map(tile).into_iter().find(fits)?;
        let is_small = 4 * all_gates * hidden * hidden <= self.all_steps;
        (is_small && batch.div_ceil(rows) <= MOST_WORKGROUPS).then_some(tile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_is_within_the_limits_of_every_device() {
        let rules = Rules::default();
        for gates in 1..=4 {
            for units in [1, 5, 64, 100, 768, 4096] {
                for rows in [1, 2, 4, 5, 16, 17, 128, 1000] {
                    let tile = rules.tile(gates, units, rows);
                    assert!(tile.threads(gates) <= MOST_THREADS, "{tile:?}");
                    assert!(tile.memory(gates) <= MOST_MEMORY, "{tile:?}");
                    assert_eq!(tile.rows % tile.share, 0);
                    assert_eq!(tile.groups.max(1), tile.groups);
                }
            }
        }
    }

    #[test]
    fn a_few_rows_of_many_units_have_enough_workgroups() {
        let rules = Rules::default();
        for rows in [1, 4, 16, 32] {
            let [x, y, _] = rules.tile(4, 768, rows).workgroups(768, rows);
            assert!(x * y >= 96, "{rows} rows: {x} x {y}");
        }
    }

    #[test]
    fn small_layers_go_through_all_steps_in_a_workgroup() {
        let rules = Rules::default();
        assert!(rules.all_steps(4, 4, 64, 32).is_some());
        assert_eq!(rules.all_steps(4, 4, 65, 32), None);
        assert!(rules.all_steps(1, 1, 128, 1).is_some());
        assert_eq!(Rules { all_steps: 0, ..rules }.all_steps(1, 1, 1, 1), None);
    }
}
