//! How many dispatches a submission holds.
//!
//! A caller who wants to stop is heard between submissions, so none should take long. But each
//! costs as much as dozens of small dispatches, so none should hold few without need. How long a
//! dispatch takes is known when some were done: a program begins with few, and goes on with twice
//! as many for as long as they are done in time.

use std::time::Duration;

/// Dispatches of the first submission of a program, on a GPU and on a device made of software.
const FIRST: [usize; 2] = [32, 1];

/// The most in one: while the device does these, the next are recorded.
const MOST: usize = 256;

/// How long one should take.
const GOAL: Duration = Duration::from_millis(25);

/// Of one program.
pub(crate) struct Pace {
    dispatches: usize,
}

impl Pace {
    pub(crate) fn new(is_software: bool) -> Self {
        Self { dispatches: FIRST[usize::from(is_software)] }
    }

    /// Dispatches of the next submission: at least one.
    pub(crate) fn dispatches(&self) -> usize {
        self.dispatches
    }

    /// To be told how long so many have taken.
    pub(crate) fn took(&mut self, dispatches: usize, time: Duration) {
        let in_time = dispatches as f64 * GOAL.as_secs_f64() / time.as_secs_f64().max(1e-9);
        self.dispatches = (in_time as usize).clamp(1, MOST).min(2 * self.dispatches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The submissions of so many dispatches of this length, to a device made of software.
    fn submissions(dispatches: usize, each: Duration) -> Vec<usize> {
        let (mut pace, mut left, mut all) = (Pace::new(true), dispatches, Vec::new());
        while left > 0 {
            let count = pace.dispatches().min(left);
            pace.took(count, each * count as u32);
            left -= count;
            all.push(count);
        }
        all
    }

    #[test]
    fn short_ones_go_together_and_long_ones_alone() {
        assert_eq!(
            submissions(1000, Duration::from_micros(5)),
            [1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 233]
        );
        assert_eq!(submissions(4, Duration::from_millis(50)), [1; 4]);
        let some = submissions(100, Duration::from_millis(5));
        assert!(some.iter().all(|&count| count <= 5), "{some:?}");
        assert_eq!(submissions(5, Duration::ZERO), [1, 2, 2]);
        // It gets slower in the middle.
        let mut pace = Pace::new(false);
        pace.took(32, Duration::from_millis(1));
        assert_eq!(pace.dispatches(), 64);
        pace.took(64, Duration::from_millis(640));
        assert_eq!(pace.dispatches(), 2);
    }
}
