//! Which requests share a batch.
//!
//! At each step a batch works on the rows that are live, so what lies past a row's length costs
//! nothing by itself. What costs is that the last steps of a batch have few rows. A step of n
//! rows takes about as long as [`STEP`] + n rows, so of n sequences of together s steps, the
//! longest of which has l, a batch takes
//! ```text
//! STEP * l + s        and would take        STEP * s/n + s
//! ```
//! if all had the same length. What it takes more, as a share, is what padding costs, and no batch
//! is formed where that is above [`MOST`]. A request that is much longer than the others so gets
//! a batch of its own, and the others are not held up by it.

use std::cmp::Ordering;

/// What a step costs beside its rows, in rows. Measured for LSTM and GRU of 64 to 512 units: 0.3
/// to 0.5 on one thread, up to 2.1 on two, which a single row cannot keep busy. The largest, so
/// that what is promised holds for all.
const STEP: f64 = 2.0;

/// The share of its time that a batch may lose to unequal lengths.
const MOST: f64 = 0.2;

/// Sequences that run together, by their lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Group {
    rows: usize,
    /// Steps of all together, and of the longest.
    steps: usize,
    longest: usize,
}

impl Group {
    /// One more.
    #[must_use]
    pub(super) fn with(self, length: usize) -> Self {
        Self { rows: self.rows + 1, steps: self.steps + length, longest: self.longest.max(length) }
    }

    /// Steps of all together.
    pub(super) fn steps(self) -> usize {
        self.steps
    }

    /// Steps if all were as long as the longest.
    pub(super) fn places(self) -> usize {
        self.rows * self.longest
    }

    /// What the batch takes, in rows of a step, and how much of it for unequal lengths.
    pub(super) fn cost(self) -> (f64, f64) {
        let mean = self.steps as f64 / self.rows.max(1) as f64;
        let extra = STEP * (self.longest as f64 - mean);
        (STEP * self.longest as f64 + self.steps as f64, extra)
    }

    fn is_even(self) -> bool {
        let (all, extra) = self.cost();
        extra <= MOST * all
    }
}

/// A request that waits: its length, and its number, which grows from one to the next.
pub(super) type Waiting = (usize, u64);

/// The numbers of `first` and of others that share a batch with it, at most `most`; of equal ones
/// those that came first. Leaves `waiting`, of which `first` is one, in any order.
pub(super) fn choose(waiting: &mut [Waiting], first: u64, most: usize) -> Vec<u64> {
    let all = waiting.iter().fold(Group::default(), |group, &(length, _)| group.with(length));
    if waiting.len() <= most && all.is_even() {
        return waiting.iter().map(|&(_, id)| id).collect();
    }
    waiting.sort_unstable();
    let at = waiting.iter().position(|&(_, id)| id == first).expect("it waits");
    // The run below..above grows by the nearer of its two neighbours.
    let (mut below, mut above) = (at, at + 1);
    let mut group = Group::default().with(waiting[at].0);
    while above - below < most {
        let shorter = below.checked_sub(1).map(|k| (k, group.with(waiting[k].0)));
        let longer = (above < waiting.len()).then(|| (above, group.with(waiting[above].0)));
        let next = [shorter, longer].into_iter().flatten().filter(|(_, group)| group.is_even());
        let nearer = |a: &(usize, Group), b: &(usize, Group)| {
            let share = |group: Group| group.cost().1 / group.cost().0;
            share(a.1).partial_cmp(&share(b.1)).unwrap_or(Ordering::Equal)
        };
        let Some((k, grown)) = next.min_by(nearer) else { break };
        group = grown;
        if k < below { below = k } else { above = k + 1 }
    }
    waiting[below..above].iter().map(|&(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(lengths: &[usize], first: u64, most: usize) -> Vec<u64> {
        let mut waiting: Vec<Waiting> = lengths.iter().copied().zip(0..).collect();
        let mut ids = choose(&mut waiting, first, most);
        ids.sort_unstable();
        ids
    }

    #[test]
    fn equal_lengths_go_in_the_order_they_came() {
        assert_eq!(chosen(&[7; 5], 0, 3), [0, 1, 2]);
        assert_eq!(chosen(&[7; 5], 0, 9), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn lengths_that_differ_a_little_go_together_and_a_giant_goes_alone() {
        assert_eq!(chosen(&[10, 12, 9, 11], 0, 64), [0, 1, 2, 3]);
        assert_eq!(chosen(&[10, 1000, 12], 0, 64), [0, 2]);
        assert_eq!(chosen(&[1000, 10, 12], 0, 64), [0]);
        assert_eq!(chosen(&[0, 0], 0, 64), [0, 1]);
        assert_eq!(chosen(&[0, 100], 1, 64), [1]);
    }

    #[test]
    fn where_more_wait_than_a_batch_holds_the_nearest_go() {
        assert_eq!(chosen(&[50, 90, 51, 10, 49], 0, 3), [0, 2, 4]);
    }

    proptest! {
        #[test]
        fn a_batch_has_its_first_and_loses_no_more_than_it_may(
            lengths in proptest::collection::vec(0_usize..200, 1..40),
            first in any::<prop::sample::Index>(),
            most in 1_usize..20,
        ) {
            let first = first.index(lengths.len()) as u64;
            let ids = chosen(&lengths, first, most);
            prop_assert!(ids.contains(&first) && ids.len() <= most);
            prop_assert!(ids.windows(2).all(|two| two[0] < two[1]));
            let group =
                ids.iter().fold(Group::default(), |group, &id| group.with(lengths[id as usize]));
            let (all, extra) = group.cost();
            prop_assert!(extra <= 0.2 * all);
            // A batch of one loses nothing, whatever its length.
            prop_assert!(ids.len() > 1 || extra == 0.0);
        }
    }
}
