//! Work that treats every row by itself, shared among threads.
//!
//! Nothing is summed over rows, so no bit depends on how they are shared.

use std::ops::Range;

use std::sync::atomic::{AtomicBool, Ordering};

use seqrs_core::{Error, interrupt};
use seqrs_cpu::{Cpu, team};

use crate::number::Number;
use crate::pace::NUMBERS_PER_LOOK;

/// Numbers below which waking a thread takes longer than the work.
const GRAIN: usize = 1 << 14;

/// Fewer rows than this are not worth a look: a run of columns as narrow would no longer use
/// whole cache lines.
const ROWS_PER_LOOK: usize = 64;

/// Calls `work` with runs of the `rows` rows that cover all of them, and the parts of each
/// output that belong to the run. An output is given with the width of its rows; `work` is
/// about `numbers` operations for each row.
///
/// # Errors
/// [`Error::Interrupted`]; some rows are done then and some are not.
pub(crate) fn by_rows<T: Number, O: Send, const N: usize>(
    cpu: &Cpu<T>,
    rows: usize,
    numbers: usize,
    outputs: Outputs<'_, O, N>,
    work: impl Fn(Range<usize>, [&mut [O]; N]) + Sync,
) -> Result<(), Error> {
    let look = (NUMBERS_PER_LOOK / numbers.max(1)).max(ROWS_PER_LOOK);
    // Only the calling thread knows whether to stop, and tells the others.
    let stopped = &AtomicBool::new(false);
    let mut rest = outputs;
    let task = |run: Range<usize>, mut rest: Outputs<'_, O, N>| {
        for start in run.clone().step_by(look) {
            if interrupt::check().is_err() {
                stopped.store(true, Ordering::Relaxed);
            }
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let part = start..run.end.min(start + look);
            let outputs = take_rows(&mut rest, part.len());
            work(part, outputs.map(|(output, _)| output));
        }
    };
    let (task, grain) = (&task, GRAIN.div_ceil(numbers.max(1)));
    if cpu.threads() == 1 || rows <= grain {
        task(0..rows, rest);
    } else {
        let runs = team::split(rows, cpu.threads(), grain).into_iter();
        let parts = runs.map(|run| {
            let part = take_rows(&mut rest, run.len());
            move || task(run, part)
        });
        team::run(parts.collect());
    }
    match stopped.load(Ordering::Relaxed) {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}

/// Outputs with the width of their rows.
type Outputs<'a, O, const N: usize> = [(&'a mut [O], usize); N];

/// The first `rows` rows of each output, which keeps the others.
fn take_rows<'a, O, const N: usize>(
    outputs: &mut Outputs<'a, O, N>,
    rows: usize,
) -> Outputs<'a, O, N> {
    outputs.each_mut().map(|(output, width)| {
        let (part, tail) = std::mem::take(output).split_at_mut(rows * *width);
        *output = tail;
        (part, *width)
    })
}

/// How many numbers are summed side by side; fixed, so that a sum is the same at every
/// level.
const SIDE: usize = 16;

/// The sum of the numbers, in an order that depends on their count alone. Without closures,
/// which would not be compiled for the instructions of the kernel they are in.
#[inline(always)]
pub(crate) fn sum<T: Number>(a: &[T]) -> T {
    let mut sums = [num_traits::zero::<T>(); SIDE];
    let mut chunks = a.chunks_exact(SIDE);
    for a in &mut chunks {
        for k in 0..SIDE {
            sums[k] += a[k];
        }
    }
    for (sum, &a) in sums.iter_mut().zip(chunks.remainder()) {
        *sum += a;
    }
    fold(sums)
}

/// The sum of the products `a[k] * b[k]`, in the order of [`sum`].
#[inline(always)]
pub(crate) fn dot<T: Number>(a: &[T], b: &[T]) -> T {
    let mut sums = [num_traits::zero::<T>(); SIDE];
    let (mut a_chunks, mut b_chunks) = (a.chunks_exact(SIDE), b.chunks_exact(SIDE));
    for (a, b) in (&mut a_chunks).zip(&mut b_chunks) {
        for k in 0..SIDE {
            sums[k] += a[k] * b[k];
        }
    }
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    for (sum, (&a, &b)) in sums.iter_mut().zip(rest) {
        *sum += a * b;
    }
    fold(sums)
}

#[inline(always)]
fn fold<T: Number>(mut sums: [T; SIDE]) -> T {
    let mut side = SIDE;
    while side > 1 {
        side /= 2;
        for k in 0..side {
            sums[k] += sums[k + side];
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use seqrs_cpu::level::Level;

    use super::*;

    #[test]
    fn every_row_is_worked_on_once() {
        let cpu = Cpu::<f32>::with(Level::detect(), 4);
        for rows in [0, 1, 3, 20_000] {
            let (mut a, mut b) = (vec![0; rows * 2], vec![0; rows]);
            by_rows(&cpu, rows, 2, [(&mut a, 2), (&mut b, 1)], |run, [a, b]| {
                for (k, row) in run.enumerate() {
                    a[2 * k] += row;
                    a[2 * k + 1] += 2 * row;
                    b[k] += 1;
                }
            })
            .unwrap();
            assert!(b.iter().all(|&n| n == 1));
            assert!(a.chunks(2).enumerate().all(|(row, pair)| pair == [row, 2 * row]));
        }
    }

    #[test]
    fn rows_end_when_the_caller_wants_to_stop() {
        let cpu = Cpu::<f32>::with(Level::detect(), 2);
        let mut y = vec![0; 100_000];
        let never = |_: Range<usize>, [_]: [&mut [i32]; 1]| panic!("stopped before the first");
        let stopped = interrupt::scope(|| true, || by_rows(&cpu, 100, 1, [(&mut y, 1)], never));
        assert_eq!(stopped, Err(Error::Interrupted));
    }

    #[test]
    fn a_sum_has_every_term_once() {
        for len in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f64> = (1..=len).map(|k| k as f64).collect();
            assert_eq!(sum(&a), (len * (len + 1) / 2) as f64);
            assert_eq!(dot(&a, &a), (len * (len + 1) * (2 * len + 1) / 6) as f64);
        }
    }
}
