//! The steps of a batch in pieces, so that what is kept for every item fits in buffers that a
//! shader can see.
//!
//! Each piece has buffers of its own. A sum over items goes over the pieces in ascending order, and
//! each goes on where the one before it stopped: the bits are those of a single piece.

use std::ops::Range;

use seqrs_core::Error;
use seqrs_core::spec::Shape;
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

/// The most numbers that a buffer holds for an item.
pub(crate) fn width(shape: &Shape) -> usize {
    record_width(shape).max(gradients_width(shape)).max(mixed_width(shape))
}

/// Numbers of an item in the record: what the cell saved and the state before the step, H each. Of
/// a normalised cell there follow the normalised gates from the state, G H, and the normalised c, H,
/// where there is one; and behind those 1 / sqrt(variance + epsilon) of each of the two.
pub(crate) fn record_width(shape: &Shape) -> usize {
    let saved = (shape.cell.saved() + shape.cell.states()) * shape.hidden;
    match &shape.norms {
        None => saved,
        Some(norms) => {
            let of_c = norms.c.as_ref().map_or(0, |_| shape.hidden + 1);
            saved + shape.gate_columns() + 1 + of_c
        }
    }
}

/// Numbers of an item among what zoneout keeps: the shares of its states, and what the step gave.
pub(crate) fn mixed_width(shape: &Shape) -> usize {
    let mixes = shape.zoneout_h > 0.0 || shape.zoneout_c > 0.0;
    if mixes { 2 * states_width(shape) } else { 0 }
}

/// Numbers of a row of states: h and, where there is one, c.
pub(crate) fn states_width(shape: &Shape) -> usize {
    shape.state + (shape.cell.states() - 1) * shape.hidden
}

/// Numbers of an item among the gradients of the gates: those of both parts, where they differ, and
/// what they add to the gradients of what each unit has for itself. Of a normalised cell there
/// follow those of h' W_hh^T, G H, and those of the normalised c, H, where there is one.
pub(crate) fn gradients_width(shape: &Shape) -> usize {
    let counts = shape.cell.counts();
    let of_gates = gates_width(shape) + counts.per_unit * shape.hidden;
    match &shape.norms {
        None => of_gates,
        Some(norms) => {
            let of_c = norms.c.as_ref().map_or(0, |_| shape.hidden);
            of_gates + shape.gate_columns() + of_c
        }
    }
}

/// Numbers of an item that are gradients of the gates as the cell sees them.
pub(crate) fn gates_width(shape: &Shape) -> usize {
    let parts = if shape.cell.counts().one_gate_gradient { 1 } else { 2 };
    parts * shape.gate_columns()
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
