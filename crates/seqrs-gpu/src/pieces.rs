//! The steps of a batch in pieces, so that what is kept for every item fits in buffers that a
//! shader can see.
//!
//! Each piece has buffers of its own. A sum over items goes over the pieces in ascending order, and
//! each goes on where the one before it stopped: the bits are those of a single piece.

use std::ops::Range;

use seqrs_core::Error;
use seqrs_core::cell::{CellKind, Counts};
use seqrs_core::steps::Steps;

use crate::kernels::PRODUCT_TILE;
use crate::recorder::Numbers;
use crate::rules::MOST_WORKGROUPS;

/// Steps that follow each other.
#[derive(Debug)]
pub(crate) struct Piece {
    /// How many there are.
    pub(crate) time: usize,
    /// Their items.
    pub(crate) items: Range<usize>,
    /// For each step and row its item, counted from the first of the piece, or
    /// [`crate::params::NONE`]: (time, B).
    pub(crate) table: Numbers,
}

/// The most numbers that a buffer holds for an item: those of the record, or the gradients of the
/// gates, with what they add to those of what each unit has for itself.
pub(crate) fn width(kind: CellKind, hidden: usize) -> usize {
    let Counts { gates, saved, per_unit, .. } = kind.counts();
    (saved + kind.states()).max(2 * gates + per_unit) * hidden
}

/// Cuts `steps` of at most `most_rows` rows into ranges whose rows, were all of them live, fit in
/// `most` numbers, `width` each.
pub(crate) fn cut(
    steps: &Steps,
    width: usize,
    most: usize,
    most_rows: usize,
) -> Result<Vec<Range<usize>>, Error> {
    let (time, batch) = (steps.time(), steps.batch().max(1));
    let rows = (most / width).min(most_rows);
    if batch > rows {
        let expected = format!("at most {rows} rows on a GPU ({width} numbers each in a buffer)");
        return Err(Error::shape("batch", expected, batch));
    }
    let length = (most / width).min(MOST_WORKGROUPS * PRODUCT_TILE) / batch;
    Ok((0..time).step_by(length).map(|start| start..time.min(start + length)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_and_follow_each_other() {
        let steps = Steps::dense(10, 3).unwrap();
        assert_eq!(cut(&steps, 5, 1000, 1000).unwrap(), vec![0..10; 1]);
        assert_eq!(cut(&steps, 5, 5 * 3 * 4 + 14, 1000).unwrap(), [0..4, 4..8, 8..10]);
        assert_eq!(cut(&Steps::dense(0, 3).unwrap(), 5, 1000, 1000).unwrap(), []);
        assert_eq!(cut(&Steps::dense(2, 0).unwrap(), 5, 5, 1000).unwrap(), [0..1, 1..2]);
    }

    #[test]
    fn a_step_that_does_not_fit_is_refused_by_name() {
        let steps = Steps::dense(10, 3).unwrap();
        let message = cut(&steps, 5, 14, 1000).unwrap_err().to_string();
        assert_eq!(
            message,
            "batch: expected at most 2 rows on a GPU (5 numbers each in a buffer), got 3"
        );
    }
}
