//! The order of time, and which rows are live at each step.
//!
//! Nothing else in the library knows lengths or masks. Live (step, row) pairs are
//! *items*, numbered step by step and, within a step, by row. A row that is not live
//! keeps its state, outputs zero, and passes its gradient through; so every loop here
//! simply runs over items, forwards or backwards, and the work shrinks to the live rows.
//! Walking the steps in reverse order reverses each row inside its own length, because a
//! row's first live step in that order is its last one.

use std::borrow::Cow;
use std::ops::Range;

use crate::Error;
use crate::memory::{room, zeros};

/// The order in which a layer walks over the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Step 0 first.
    Forward,
    /// Step T - 1 first.
    Reverse,
}

impl Direction {
    /// Both, in the order of their weights, states and output columns.
    pub const BOTH: [Self; 2] = [Self::Forward, Self::Reverse];

    /// The `k`-th step of `time` in this order.
    #[inline]
    pub fn step(self, k: usize, time: usize) -> usize {
        match self {
            Self::Forward => k,
            Self::Reverse => time - 1 - k,
        }
    }
}

/// The live rows of a batch, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    time: usize,
    batch: usize,
    live: Live,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Live {
    /// Every row at every step; holds 0..batch.
    All { rows: Cow<'static, [u32]> },
    /// Items of step t are `offsets[t]..offsets[t + 1]`, and belong to `rows[item]`.
    Some { offsets: Vec<usize>, rows: Vec<u32> },
}

/// The rows of small batches, which take no memory of their own.
static FEW_ROWS: [u32; 256] = {
    let mut rows = [0; 256];
    let mut b = 0;
    while b < rows.len() {
        rows[b] = b as u32;
        b += 1;
    }
    rows
};

impl Steps {
    /// Every row live at every step.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more rows than a 32-bit index can name,
    /// [`Error::OutOfMemory`].
    pub fn dense(time: usize, batch: usize) -> Result<Self, Error> {
        let count = row_count(batch)?;
        let rows = match FEW_ROWS.get(..batch) {
            Some(rows) => Cow::Borrowed(rows),
            None => {
                let mut rows = room("rows of a batch", batch)?;
                rows.extend(0..count);
                Cow::Owned(rows)
            }
        };
        Ok(Self { time, batch, live: Live::All { rows } })
    }

    /// Row b live at steps `0..lengths[b]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a length is above `time`, [`Error::OutOfMemory`].
    pub fn from_lengths(time: usize, lengths: &[usize]) -> Result<Self, Error> {
        if let Some((b, &length)) = lengths.iter().enumerate().find(|&(_, &n)| n > time) {
            return Err(Error::shape(
                format!("lengths[{b}]"),
                format!("an integer in 0..={time} (the number of steps)"),
                length,
            ));
        }
        Self::from_mask(time, lengths.len(), |t, b| t < lengths[b])
    }

    /// Row b live at step t where `live(t, b)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more rows than a 32-bit index can name,
    /// [`Error::OutOfMemory`].
    pub fn from_mask(
        time: usize,
        batch: usize,
        live: impl Fn(usize, usize) -> bool,
    ) -> Result<Self, Error> {
        let count = row_count(batch)?;
        let mut offsets = room("steps of a batch", time.saturating_add(1))?;
        let items = (0..time).map(|t| (0..batch).filter(|&b| live(t, b)).count()).sum();
        let mut rows = room("live steps of a batch", items)?;
        offsets.push(0);
        for t in 0..time {
            rows.extend((0..count).filter(|&b| live(t, b as usize)));
            offsets.push(rows.len());
        }
        if rows.len() == time * batch {
            return Self::dense(time, batch);
        }
        Ok(Self { time, batch, live: Live::Some { offsets, rows } })
    }

    /// Number of steps, T.
    #[inline]
    pub fn time(&self) -> usize {
        self.time
    }

    /// Number of rows, B.
    #[inline]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Number of live (step, row) pairs.
    #[inline]
    pub fn items(&self) -> usize {
        match &self.live {
            Live::All { .. } => self.time * self.batch,
            Live::Some { rows, .. } => rows.len(),
        }
    }

    /// Whether every row is live at every step.
    #[inline]
    pub fn is_dense(&self) -> bool {
        matches!(self.live, Live::All { .. })
    }

    /// The items of step `t` and the rows they belong to, ascending.
    #[inline]
    pub fn at(&self, t: usize) -> (Range<usize>, &[u32]) {
        match &self.live {
            Live::All { rows } => (t * self.batch..(t + 1) * self.batch, rows),
            Live::Some { offsets, rows } => {
                let items = offsets[t]..offsets[t + 1];
                (items.clone(), &rows[items])
            }
        }
    }

    /// The items of step `t` whose row is in `range`, and these rows.
    #[inline]
    pub fn at_rows(&self, t: usize, range: &Range<usize>) -> (Range<usize>, &[u32]) {
        let (items, rows) = self.at(t);
        let first = rows.partition_point(|&b| (b as usize) < range.start);
        let last = rows.partition_point(|&b| (b as usize) < range.end);
        (items.start + first..items.start + last, &rows[first..last])
    }

    /// Calls `visit(item, t, b)` for every item in order.
    pub fn for_each(&self, mut visit: impl FnMut(usize, usize, usize)) {
        for t in 0..self.time {
            let (items, rows) = self.at(t);
            for (item, &b) in items.zip(rows) {
                visit(item, t, b as usize);
            }
        }
    }

    /// Whether row `b` is live at step `t`.
    pub fn is_live(&self, t: usize, b: usize) -> bool {
        self.at(t).1.binary_search(&(b as u32)).is_ok()
    }

    /// For every item, where the state before it lies in a buffer that holds the B
    /// initial states and then the state after each item: `b` for a row's first live
    /// step, else `B + its previous item` in the order of `direction`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more than a 32-bit index can name,
    /// [`Error::OutOfMemory`].
    pub fn previous(&self, direction: Direction) -> Result<Vec<u32>, Error> {
        if u32::try_from(self.batch + self.items()).is_err() {
            let expected = "at most 4294967295 steps of all rows together, for training";
            return Err(Error::shape("batch", expected, self.batch + self.items()));
        }
        let mut last = room("rows of a batch", self.batch)?;
        last.extend(0..self.batch as u32);
        let mut previous = zeros("steps of a batch", self.items())?;
        for k in 0..self.time {
            let (items, rows) = self.at(direction.step(k, self.time));
            for (item, &b) in items.zip(rows) {
                previous[item] = last[b as usize];
                last[b as usize] = (self.batch + item) as u32;
            }
        }
        Ok(previous)
    }

    /// Live steps of each row.
    pub fn live_steps(&self) -> Vec<usize> {
        let mut count = vec![0; self.batch];
        self.for_each(|_, _, b| count[b] += 1);
        count
    }

    /// The last live item of each row in the order of `direction`, if it has any.
    pub fn last(&self, direction: Direction) -> Vec<Option<usize>> {
        let mut last = vec![None; self.batch];
        self.for_each(|item, _, b| match direction {
            Direction::Forward => last[b] = Some(item),
            Direction::Reverse => last[b] = last[b].or(Some(item)),
        });
        last
    }

    /// Steps `from..to` as a batch of their own.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Self {
        let live = match &self.live {
            Live::All { rows } => Live::All { rows: rows.clone() },
            Live::Some { offsets, rows } => Live::Some {
                offsets: offsets[from..=to].iter().map(|o| o - offsets[from]).collect(),
                rows: rows[offsets[from]..offsets[to]].to_vec(),
            },
        };
        Self { time: to - from, batch: self.batch, live }
    }
}

fn row_count(batch: usize) -> Result<u32, Error> {
    u32::try_from(batch).map_err(|_| Error::shape("batch size", "at most 4294967295 rows", batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_mask_and_its_lengths_are_the_same_steps() {
        let lengths = [3, 0, 2];
        assert_eq!(
            Steps::from_lengths(4, &lengths).unwrap(),
            Steps::from_mask(4, 3, |t, b| t < lengths[b]).unwrap()
        );
        assert!(Steps::from_lengths(4, &[4, 4]).unwrap().is_dense());
    }

    #[test]
    fn previous_skips_the_steps_that_are_not_live() {
        // row 0 live at 0 and 2, row 1 at 1 and 2
        let steps = Steps::from_mask(3, 2, |t, b| t == 2 || t == b).unwrap();
        assert_eq!(steps.previous(Direction::Forward).unwrap(), [0, 1, 2, 3]);
        assert_eq!(steps.previous(Direction::Reverse).unwrap(), [4, 5, 0, 1]);
        assert_eq!(steps.last(Direction::Reverse), [Some(0), Some(1)]);
    }

    #[test]
    fn a_length_above_the_number_of_steps_is_refused_by_name() {
        let message = Steps::from_lengths(4, &[1, 5]).unwrap_err().to_string();
        assert_eq!(
            message,
            "lengths[1]: expected an integer in 0..=4 (the number of steps), got 5"
        );
    }
}
