//! The micro-kernel: a tile of sums in registers.
//!
//! Every product in the library, forwards and back, comes down to this loop: R rows of
//! operands against N registers of a panel.
//!
//! ```text
//! for k:  for each row r:  for each register v:  acc[r][v] += a[r][k] * panel[k][v]
//! ```
//! Each sum is one chain of fused multiply-adds with k ascending, whatever R and N are, so
//! the result of a row does not depend on which rows share its tile. R x N accumulators
//! hide the latency of the multiply-add (4 cycles x 2 units: 8 chains) and let each weight
//! that is loaded be used R times: with 6 rows of 4 registers, 24 multiply-adds for 4 loads
//! and 6 broadcasts.
//!
//! # Departures
//! (measured on one core of an AMD EPYC with AVX-512, 118 GFLOP/s of multiply-adds)
//!
//! 1. The loops over r and v change places where N > R, so that of operands and weights the
//!    fewer are held: R x N + min(R, N) + 1 registers have to exist. The sums are other
//!    chains, so no bit changes. AVX2 has 16 registers and tiles of 3 x 4: with the weights
//!    held they spill (41 % of the multiply-adds that the processor can do), with the
//!    operands held they do not (84 %). A cell of three gates has tiles of 3 x 3: 4 x 3 would
//!    just fit, but are compiled to something that spills (GRU of 128 units on 32 rows: 10.4
//!    to 7.4 ms).
//! 2. [`tiles`] are as equal as possible, since a tile of one or two rows waits for its own
//!    chains.
//!
//! 3. A product of one row waits for its weights: from L2 comes one register in 2 cycles, and
//!    the multipliers could do two in that time. So another product's tile, whose weights serve
//!    5 rows, goes on beside it (`add_products_beside`): 2.67 cycles for both where one after the
//!    other takes 3.06.
//!
//! A weight is not asked for ahead of its use: the processor's own streams do that, and
//! explicit prefetches took 0-20 % more time.

use std::ops::Range;

use crate::lanes::Simd;

/// Most rows in a tile with `registers` registers of columns: 24 accumulators where there
/// are 32 registers, three rows where there are 16 (departure 1).
#[inline(always)]
pub(crate) fn most_rows<V: Simd>(registers: usize) -> usize {
    if V::REGISTERS >= 32 { 24 / registers } else { 3 }
}

/// Adds `depth` terms to each sum of a tile.
///
/// # Safety
/// `a[r]` is readable at `k * step` and `panel` at `k * N * WIDTH` and the N registers
/// after it, for every k below `depth`.
#[inline(always)]
pub(crate) unsafe fn add_products<V: Simd, const R: usize, const N: usize>(
    a: [*const V::Elem; R],
    step: usize,
    panel: *const V::Elem,
    depth: usize,
    acc: &mut [[V; N]; R],
) {
    let mut sums = *acc;
    let mut weights = panel;
    for k in 0..depth {
        // SAFETY: the caller vouches for every row of the panel and step of the operands.
        unsafe {
            add_term(a, k * step, weights, &mut sums);
            weights = weights.add(N * V::WIDTH);
        }
    }
    *acc = sums;
}

/// One term to each sum.
///
/// # Safety
/// `a[r]` is readable at `at` and `weights` for N registers.
#[inline(always)]
unsafe fn add_term<V: Simd, const R: usize, const N: usize>(
    a: [*const V::Elem; R],
    at: usize,
    weights: *const V::Elem,
    sums: &mut [[V; N]; R],
) {
    // The fewer of the two are held, the others pass by one at a time: 6 x 4 sums and 4
    // weights leave room in 32 registers, 3 x 4 sums and 3 operands in 16.
    if N <= R {
        let mut w = [V::zero(); N];
        for (v, w) in w.iter_mut().enumerate() {
            // SAFETY: by the caller.
            *w = unsafe { V::load(weights.add(v * V::WIDTH)) };
        }
        for r in 0..R {
            // SAFETY: by the caller.
            let operand = V::splat(unsafe { *a[r].add(at) });
            for v in 0..N {
                sums[r][v] = operand.mul_add(w[v], sums[r][v]);
            }
        }
    } else {
        let mut operands = [V::zero(); R];
        for r in 0..R {
            // SAFETY: by the caller.
            operands[r] = V::splat(unsafe { *a[r].add(at) });
        }
        for v in 0..N {
            // SAFETY: by the caller.
            let w = unsafe { V::load(weights.add(v * V::WIDTH)) };
            for r in 0..R {
                sums[r][v] = operands[r].mul_add(w, sums[r][v]);
            }
        }
    }
}

/// Adds `depth` terms to each sum of one row, and meanwhile `other` terms to each of a tile of
/// M rows: the first wait for their weights, the others have the multipliers to themselves.
///
/// # Safety
/// As [`add_products`], for both.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn add_products_beside<
    V: Simd,
    const N: usize,
    const M: usize,
    const W: usize,
>(
    a: *const V::Elem,
    panel: *const V::Elem,
    depth: usize,
    acc: &mut [[V; N]; 1],
    x: [*const V::Elem; M],
    weights: *const V::Elem,
    other: usize,
    sums: &mut [[V; W]; M],
) {
    let (mut one, mut many) = (*acc, *sums);
    let (mut panel, mut weights) = (panel, weights);
    let rounds = other.min(depth / M);
    // One row of the tile's weights serves M rows, so it takes M of the others to keep pace.
    for round in 0..rounds {
        // SAFETY: `rounds` is at most `other`, and `rounds * M` at most `depth`.
        unsafe {
            for k in round * M..(round + 1) * M {
                add_term([a], k, panel, &mut one);
                panel = panel.add(N * V::WIDTH);
            }
            add_term(x, round, weights, &mut many);
            weights = weights.add(W * V::WIDTH);
        }
    }
    let done = rounds * M;
    // SAFETY: what is left of both.
    unsafe {
        add_products([a.add(done)], 1, panel, depth - done, &mut one);
        add_products(x.map(|x| x.add(rounds)), 1, weights, other - rounds, &mut many);
    }
    (*acc, *sums) = (one, many);
}

/// The first `n` numbers at `from`, then zeros: most registers of a tile are whole, those that
/// hang over its end are cut.
///
/// # Safety
/// `from` is readable for `n` numbers.
#[inline(always)]
pub(crate) unsafe fn load_first<V: Simd>(from: *const V::Elem, n: usize) -> V {
    // SAFETY: by the caller.
    unsafe {
        match n {
            n if n == V::WIDTH => V::load(from),
            0 => V::zero(),
            n => V::load_partial(from, n),
        }
    }
}

/// Writes the first `n` numbers to `to`.
///
/// # Safety
/// `to` is writable for `n` numbers.
#[inline(always)]
pub(crate) unsafe fn store_first<V: Simd>(value: V, to: *mut V::Elem, n: usize) {
    // SAFETY: by the caller.
    unsafe {
        match n {
            n if n == V::WIDTH => value.store(to),
            0 => {}
            n => value.store_partial(to, n),
        }
    }
}

/// `rows` cut into as few tiles of at most `most` rows as possible, as equal as possible:
/// 32 rows are 6 + 6 + 5 + 5 + 5 + 5, not 5 x 6 + 2.
#[inline(always)]
pub(crate) fn tiles(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let Cut { count, each, more } = Cut::of(rows, most);
    (0..count).map(move |k| {
        let start = k * each + k.min(more);
        start..start + each + usize::from(k < more)
    })
}

/// So many tiles of `each` rows, the first `more` of them of one row more.
struct Cut {
    count: usize,
    each: usize,
    more: usize,
}

impl Cut {
    #[inline(always)]
    fn of(rows: usize, most: usize) -> Self {
        let count = rows.div_ceil(most).max(1);
        Self { count, each: rows / count, more: rows % count }
    }
}

/// Neighbouring tiles of the same size.
pub(crate) struct Run {
    /// Their rows.
    pub(crate) rows: Range<usize>,
    /// Rows in each.
    pub(crate) each: usize,
}

/// The tiles of [`tiles`] as at most two runs of equal ones.
#[inline(always)]
pub(crate) fn runs(rows: usize, most: usize) -> impl Iterator<Item = Run> {
    let Cut { each, more, .. } = Cut::of(rows, most);
    let cut = more * (each + 1);
    let runs = [Run { rows: 0..cut, each: each + 1 }, Run { rows: cut..rows, each }];
    runs.into_iter().filter(|run| !run.rows.is_empty())
}

/// Calls `$tile::<..., R, ...>` for the number of rows at hand.
macro_rules! with_rows {
    ($rows:expr, $R:ident => $tile:expr) => {
        match $rows {
            0 => {}
            1 => {
                const $R: usize = 1;
                $tile
            }
            2 => {
                const $R: usize = 2;
                $tile
            }
            3 => {
                const $R: usize = 3;
                $tile
            }
            4 => {
                const $R: usize = 4;
                $tile
            }
            5 => {
                const $R: usize = 5;
                $tile
            }
            6 => {
                const $R: usize = 6;
                $tile
            }
            7 => {
                const $R: usize = 7;
                $tile
            }
            8 => {
                const $R: usize = 8;
                $tile
            }
            more => unreachable!("a tile of {more} rows"),
        }
    };
}
pub(crate) use with_rows;

#[cfg(test)]
mod tests {
    use super::{runs, tiles};

    #[test]
    fn tiles_are_few_and_equal() {
        for most in 1..9 {
            for rows in 1..70 {
                let lens: Vec<usize> = tiles(rows, most).map(|t| t.len()).collect();
                assert_eq!(lens.iter().sum::<usize>(), rows);
                assert_eq!(lens.len(), rows.div_ceil(most));
                assert!(lens.iter().max().unwrap() - lens.iter().min().unwrap() <= 1);
                let by_runs: Vec<usize> =
                    runs(rows, most).flat_map(|r| r.rows.step_by(r.each)).collect();
                assert_eq!(by_runs, tiles(rows, most).map(|t| t.start).collect::<Vec<_>>());
            }
        }
        assert_eq!(tiles(32, 6).map(|t| t.len()).collect::<Vec<_>>(), [6, 6, 5, 5, 5, 5]);
    }
}
