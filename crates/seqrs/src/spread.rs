//! Work cut into pieces that do not depend on the number of threads.
//!
//! Whoever sums adds up a piece by itself and the pieces in their order, so the bits of
//! the result are the same on one thread and on many.

use std::sync::OnceLock;

use seqrs_core::{Error, interrupt};
use seqrs_cpu::team;

/// Numbers in a piece: 32 KiB of `f64`, which stay in the first-level cache beside as
/// many of a second array.
pub(crate) const PIECE: usize = 4096;

/// Below this many numbers, waking a thread costs more than it saves.
const ALONE: usize = 8 * PIECE;

/// Does `work` on every piece, side by side on at most `threads` threads, until a piece fails
/// or the caller wants to stop. `numbers` is how many numbers all pieces have together.
///
/// # Errors
/// That of a piece, or [`Error::Interrupted`]; some pieces are done then and some are not.
pub(crate) fn spread<P: Send>(
    pieces: Vec<P>,
    numbers: usize,
    threads: usize,
    work: impl Fn(&mut P) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    // Only the calling thread knows whether to stop, and tells the others.
    let failed = OnceLock::new();
    spread_all(pieces, numbers, threads, |piece| {
        if failed.get().is_none()
            && let Err(error) = interrupt::check().and_then(|()| work(piece))
        {
            // If two fail, one of the errors is as good as the other.
            let _ = failed.set(error);
        }
    });
    failed.into_inner().map_or(Ok(()), Err)
}

/// As [`spread`], but does every piece whatever comes: for work that must not be left half
/// done. It asks for no memory that depends on the number of pieces.
pub(crate) fn spread_all<P: Send>(
    mut pieces: Vec<P>,
    numbers: usize,
    threads: usize,
    work: impl Fn(&mut P) + Sync,
) {
    let threads = if numbers < ALONE { 1 } else { threads };
    let mut rest = &mut pieces[..];
    let mut tasks = Vec::new();
    for range in team::split(rest.len(), threads, 1) {
        let (group, tail) = std::mem::take(&mut rest).split_at_mut(range.len());
        rest = tail;
        let work = &work;
        tasks.push(move || group.iter_mut().for_each(work));
    }
    team::run(tasks);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn an_error_or_an_interrupt_ends_the_work() {
        let done = AtomicUsize::new(0);
        let work = |k: &mut usize| {
            done.fetch_add(1, Ordering::Relaxed);
            match *k {
                3 => Err(Error::state("piece", "others", "3")),
                _ => Ok(()),
            }
        };
        for threads in [1, 3] {
            let failed = spread((0..100).collect(), ALONE, threads, work);
            assert_eq!(failed, Err(Error::state("piece", "others", "3")));
        }
        done.store(0, Ordering::Relaxed);
        let stopped = interrupt::scope(|| true, || spread((4..100).collect(), 0, 1, work));
        assert_eq!((stopped, done.into_inner()), (Err(Error::Interrupted), 0));
    }

    #[test]
    fn every_piece_is_done_once() {
        for threads in [1, 4] {
            let done: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
            interrupt::scope(
                || true,
                || {
                    spread_all((0..50).collect(), ALONE, threads, |&mut k: &mut usize| {
                        done[k].fetch_add(1, Ordering::Relaxed);
                    });
                },
            );
            assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }
}
