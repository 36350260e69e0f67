//! Where the rows of a batch lie in memory.
//!
//! An *item* is one live (step, row) pair. A layer reads one row of numbers for each
//! item and writes another; whether these lie packed in the order of the items, or in a
//! caller's (B, T, F) or (T, B, F) array with padding between them, is a [`Place`].

/// Finds the first number of an item's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Items one after the other.
    Packed {
        /// Offset of the first row.
        start: usize,
        /// From one item to the next.
        stride: usize,
    },
    /// An array with a place for every (step, row), live or not.
    Padded {
        /// Offset of the row at step 0 of row 0.
        start: usize,
        /// From one step to the next.
        time: usize,
        /// From one row of the batch to the next.
        batch: usize,
    },
}

impl Place {
    /// Items one after the other, `width` numbers each.
    pub fn packed(width: usize) -> Self {
        Self::Packed { start: 0, stride: width }
    }

    /// A contiguous (B, T, width) array.
    pub fn batch_first(time: usize, width: usize) -> Self {
        Self::Padded { start: 0, time: width, batch: time * width }
    }

    /// A contiguous (T, B, width) array.
    pub fn time_first(batch: usize, width: usize) -> Self {
        Self::Padded { start: 0, time: batch * width, batch: width }
    }

    /// The same rows, beginning `columns` numbers later.
    #[must_use]
    pub fn shifted(self, columns: usize) -> Self {
        match self {
            Self::Packed { start, stride } => Self::Packed { start: start + columns, stride },
            Self::Padded { start, time, batch } => {
                Self::Padded { start: start + columns, time, batch }
            }
        }
    }

    /// Offset of the row of `item`, which is step `t` of row `b`.
    #[inline(always)]
    pub fn offset(self, item: usize, t: usize, b: usize) -> usize {
        match self {
            Self::Packed { start, stride } => start + item * stride,
            Self::Padded { start, time, batch } => start + t * time + b * batch,
        }
    }
}

/// Rows to read.
#[derive(Debug)]
pub struct Rows<'a, S: ?Sized> {
    /// The numbers.
    pub data: &'a S,
    /// Where each item's row begins.
    pub place: Place,
}

impl<S: ?Sized> Clone for Rows<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Rows<'_, S> {}

/// Rows to write.
#[derive(Debug)]
pub struct RowsMut<'a, S: ?Sized> {
    /// The numbers.
    pub data: &'a mut S,
    /// Where each item's row begins.
    pub place: Place,
}
