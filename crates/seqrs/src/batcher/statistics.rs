//! What a batcher has done, in numbers.

use std::time::Duration;

use super::grouping::Group;

/// What a batcher has done since it was made, or since its process was forked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Requests that were taken: each is one of done, failed, cancelled, expired, waiting and
    /// running.
    pub submitted: u64,
    /// With an answer.
    pub done: u64,
    /// With an error of the model's.
    pub failed: u64,
    /// Given up by who asked, or when the batcher was closed without draining.
    pub cancelled: u64,
    /// Whose time was over before there was an answer.
    pub expired: u64,
    /// Not taken: the queue was full or the batcher closed.
    pub refused: u64,
    /// That wait now.
    pub waiting: usize,
    /// That are being computed now.
    pub running: usize,
    /// Batches, those of one request included.
    pub batches: u64,
    /// How many batches had k + 1 requests.
    pub batch_sizes: Vec<u64>,
    /// From being asked to the beginning of the computation, of requests that were computed.
    pub queue: Histogram,
    /// From being asked to the answer, of the same.
    pub latency: Histogram,
    /// Steps of all requests that were computed.
    pub steps: u64,
    /// Steps if in each batch all were as long as the longest. What is past a length is not
    /// computed.
    pub places: u64,
    /// What all batches took, and what part of it for unequal lengths, in rows of a step.
    pub(super) cost: f64,
    pub(super) extra: f64,
}

impl Statistics {
    pub(super) fn new(max_batch: usize) -> Self {
        Self {
            submitted: 0,
            done: 0,
            failed: 0,
            cancelled: 0,
            expired: 0,
            refused: 0,
            waiting: 0,
            running: 0,
            batches: 0,
            batch_sizes: Vec::with_capacity(max_batch.min(1024)),
            queue: Histogram::default(),
            latency: Histogram::default(),
            steps: 0,
            places: 0,
            cost: 0.0,
            extra: 0.0,
        }
    }

    pub(super) fn batch(&mut self, rows: usize, group: Group) {
        self.batches += 1;
        if self.batch_sizes.len() < rows {
            self.batch_sizes.resize(rows, 0);
        }
        self.batch_sizes[rows - 1] += 1;
        self.steps += group.steps() as u64;
        self.places += group.places() as u64;
        let (cost, extra) = group.cost();
        self.cost += cost;
        self.extra += extra;
    }

    /// The share of places in batches that are past a length: these are not computed.
    pub fn padding_share(&self) -> f64 {
        match self.places {
            0 => 0.0,
            places => 1.0 - self.steps as f64 / places as f64,
        }
    }

    /// The share of the time that batches lose to unequal lengths, estimated from the lengths.
    pub fn padding_cost(&self) -> f64 {
        if self.cost > 0.0 { self.extra / self.cost } else { 0.0 }
    }
}

/// How many times were how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    counts: [u64; Histogram::BOUNDS + 1],
    sum: Duration,
}

impl Histogram {
    const BOUNDS: usize = 23;

    /// The first bound is 2^4 us.
    const FIRST: u32 = 4;

    pub(super) fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        // The smallest power of two that is at least as large.
        let power = u64::BITS - micros.saturating_sub(1).leading_zeros();
        let bin = power.saturating_sub(Self::FIRST) as usize;
        self.counts[bin.min(Self::BOUNDS)] += 1;
        self.sum += time;
    }

    /// The bounds in seconds, 16 us to 67 s, each twice the one before.
    pub fn bounds() -> [f64; Self::BOUNDS] {
        std::array::from_fn(|k| f64::from(1_u32 << (Self::FIRST as usize + k)) * 1e-6)
    }

    /// How many times were up to each bound but above the one before; and at the end, above the
    /// last.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// All times together.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_at_the_first_bound_that_is_not_below_it() {
        let mut histogram = Histogram::default();
        for micros in [0, 16, 17, 32, 33, 1 << 26, (1 << 26) + 1, 1 << 40] {
            histogram.add(Duration::from_micros(micros));
        }
        histogram.add(Duration::from_nanos(16_001));
        let counts = histogram.counts();
        assert_eq!(counts[..3], [2, 3, 1]);
        assert_eq!((counts[22], counts[23]), (1, 2));
        let bounds = Histogram::bounds();
        assert_eq!((bounds[0], bounds[22]), (16e-6, 67.108_864));
    }
}
