//! Tiles of sums in memory: some registers of some rows.

use crate::kernel::{load_first, store_first};
use crate::lanes::Simd;
use crate::pack::PANEL;

/// Reads a tile of the columns from `first` on, of which there are `columns` in all; zeros beyond.
///
/// # Safety
/// y has R rows that are readable for these columns.
#[inline(always)]
pub(super) unsafe fn load<V: Simd<Elem = f32>, const R: usize>(
    y: &[*mut f32; R],
    first: usize,
    columns: usize,
) -> [[V; PANEL]; R] {
    let mut tile = [[V::zero(); PANEL]; R];
    let whole = first + PANEL * V::WIDTH <= columns;
    for r in 0..R {
        for v in 0..PANEL {
            let at = first + v * V::WIDTH;
            // SAFETY: by the caller.
            tile[r][v] = unsafe {
                match whole {
                    true => V::load(y[r].add(at)),
                    false => load_first(y[r].wrapping_add(at), left::<V>(at, columns)),
                }
            };
        }
    }
    tile
}

/// Writes a tile, as [`load`] reads it.
///
/// # Safety
/// y has R rows that are writable for these columns.
#[inline(always)]
pub(super) unsafe fn store<V: Simd<Elem = f32>, const R: usize>(
    tile: &[[V; PANEL]; R],
    y: &[*mut f32],
    first: usize,
    columns: usize,
) {
    let whole = first + PANEL * V::WIDTH <= columns;
    for r in 0..R {
        for v in 0..PANEL {
            let at = first + v * V::WIDTH;
            // SAFETY: by the caller.
            unsafe {
                match whole {
                    true => tile[r][v].store(y[r].add(at)),
                    false => {
                        store_first(tile[r][v], y[r].wrapping_add(at), left::<V>(at, columns));
                    }
                }
            }
        }
    }
}

/// Calls `$tile::<..., R, ...>` for the number of rows at hand, of which there are `$most` at most:
/// nothing larger is compiled, as it is a constant of the kernel.
macro_rules! with_rows {
    ($rows:expr, $most:expr, $R:ident => $tile:expr) => {
        with_rows!(@match $rows, $most, $R => $tile; 1 2 3 4 5 6)
    };
    (@match $rows:expr, $most:expr, $R:ident => $tile:expr; $($n:literal)*) => {
        match $rows {
            $($n if $n <= $most => {
                const $R: usize = $n;
                $tile
            })*
            0 => {}
            more => unreachable!("a tile of {more} rows"),
        }
    };
}
pub(super) use with_rows;

/// How many columns of a register exist.
#[inline(always)]
fn left<V: Simd>(at: usize, columns: usize) -> usize {
    columns.saturating_sub(at).min(V::WIDTH)
}
