//! What a pool has done, in numbers.

use std::time::Duration;

use super::places::Places;

/// Powers of two that are counted apart: up to half a million rows, or half a second.
const BUCKETS: usize = 20;

/// What a pool has done so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Streams that are open now.
    pub open: usize,
    /// Streams that there may be.
    pub capacity: usize,
    /// Streams that are being stepped now.
    pub stepping: usize,
    /// Streams that were opened, those that were imported among them.
    pub opened: u64,
    /// Streams that were closed.
    pub closed: u64,
    /// Streams that were closed because nothing had happened to them for long.
    pub evicted: u64,
    /// Streams that were refused because there was no place.
    pub refused: u64,
    /// Steps that succeeded, of any number of streams each.
    pub steps: u64,
    /// Steps that did not.
    pub failed_steps: u64,
    /// Steps that succeeded, counted for each stream.
    pub stream_steps: u64,
    /// Nanoseconds of the clock in steps that succeeded, from the claim to the end.
    pub nanoseconds: u64,
    /// Steps by the number of their streams: entry k has those of at most 2^k, and more than half
    /// of it; the last one has all that were larger.
    pub batch_sizes: Vec<u64>,
    /// Steps by the microseconds that they took, likewise.
    pub microseconds: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) evicted: u64,
    pub(super) refused: u64,
    steps: u64,
    failed_steps: u64,
    stream_steps: u64,
    nanoseconds: u64,
    batch_sizes: [u64; BUCKETS],
    microseconds: [u64; BUCKETS],
}

impl Counts {
    /// A step of so many streams is over.
    pub(super) fn step(&mut self, succeeded: bool, streams: usize, took: Duration) {
        if !succeeded {
            self.failed_steps += 1;
            return;
        }
        self.steps += 1;
        self.stream_steps += streams as u64;
        self.nanoseconds += took.as_nanos() as u64;
        self.batch_sizes[bucket(streams as u64)] += 1;
        self.microseconds[bucket((took.as_nanos() as u64).div_ceil(1000))] += 1;
    }

    pub(super) fn stats(&self, places: &Places) -> Stats {
        Stats {
            open: places.open(),
            capacity: places.capacity(),
            stepping: places.claimed(),
            opened: self.opened,
            closed: self.closed,
            evicted: self.evicted,
            refused: self.refused,
            steps: self.steps,
            failed_steps: self.failed_steps,
            stream_steps: self.stream_steps,
            nanoseconds: self.nanoseconds,
            batch_sizes: self.batch_sizes.to_vec(),
            microseconds: self.microseconds.to_vec(),
        }
    }
}

/// The least k with `count` <= 2^k, or the last one.
fn bucket(count: u64) -> usize {
    (count.max(1).next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_at_powers_of_two() {
        let found = [0, 1, 2, 3, 4, 5, 1 << 19, (1 << 19) + 1, 1 << 60].map(bucket);
        assert_eq!(found, [0, 0, 1, 2, 2, 3, 19, 19, 19]);
    }
}
