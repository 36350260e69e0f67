//! Work cut into pieces that do not depend on the number of threads.
//!
//! Whoever sums adds up a piece by itself and the pieces in their order, so the bits of
//! the result are the same on one thread and on many.

use seqrs_cpu::team;

/// Numbers in a piece: 32 KiB of `f64`, which stay in the first-level cache beside as
/// many of a second array.
pub(crate) const PIECE: usize = 4096;

/// Below this many numbers, waking a thread costs more than it saves.
const ALONE: usize = 8 * PIECE;

/// Does `work` on every piece, side by side on at most `threads` threads. `numbers` is
/// how many numbers all pieces have together.
pub(crate) fn spread<P: Send>(
    pieces: Vec<P>,
    numbers: usize,
    threads: usize,
    work: impl Fn(P) + Sync,
) {
    let threads = if numbers < ALONE { 1 } else { threads };
    let ranges = team::split(pieces.len(), threads, 1);
    let mut pieces = pieces.into_iter();
    let groups: Vec<Vec<P>> =
        ranges.iter().map(|range| pieces.by_ref().take(range.len()).collect()).collect();
    let work = &work;
    team::run(groups.into_iter().map(|group| move || group.into_iter().for_each(work)).collect());
}
