//! What a model should have given, and where it lies in the caller's arrays.

use seqrs_core::rows::{Place, Rows};
use seqrs_core::{Error, Steps};

use crate::number::Number;
use crate::pace::for_each_item;
use crate::room::room;

/// The targets of a batch: one row of numbers, or one class, for every output of the model.
///
/// For a model with an output for every step the place is that of the steps: the caller's
/// padded array, of which only live steps are read, or packed live steps. For a model with
/// one output per row of the batch it is [`Place::Packed`], a row after the other.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a, T> {
    /// Classes, for [`CrossEntropy`](crate::losses::CrossEntropy).
    Ids(Rows<'a, [i64]>),
    /// Rows of so many numbers, for every other loss.
    Numbers(Rows<'a, [T]>, usize),
}

/// Targets one after the other, for the outputs that count and no others.
#[derive(Clone, Copy, Debug)]
pub enum Packed<'a, T> {
    /// A class each.
    Ids(&'a [i64]),
    /// A row of numbers each.
    Numbers(&'a [T]),
}

/// As [`Packed`], with memory of its own.
#[derive(Debug)]
pub(crate) enum Gathered<T> {
    Ids(Vec<i64>),
    Numbers(Vec<T>),
}

impl<T> Gathered<T> {
    pub(crate) fn packed(&self) -> Packed<'_, T> {
        match self {
            Self::Ids(ids) => Packed::Ids(ids),
            Self::Numbers(numbers) => Packed::Numbers(numbers),
        }
    }
}

/// The outputs that have a target: live steps, or rows with a live step.
#[derive(Debug)]
pub(crate) enum Outputs<'a> {
    Steps(&'a Steps),
    Rows(Vec<usize>),
}

impl<'a> Outputs<'a> {
    /// One for each live step.
    pub(crate) fn steps(steps: &'a Steps) -> Self {
        Self::Steps(steps)
    }

    /// One for each row that has a live step; the others have seen nothing that could have
    /// led to their output.
    pub(crate) fn rows(steps: &Steps) -> Result<Self, Error> {
        let live = steps.live_steps();
        let mut rows = room("rows with a target", steps.batch())?;
        rows.extend((0..steps.batch()).filter(|&b| live[b] > 0));
        Ok(Self::Rows(rows))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Steps(steps) => steps.items(),
            Self::Rows(rows) => rows.len(),
        }
    }

    /// Offset of each row of `place`, of `width` numbers, and how a message calls it.
    fn visit(
        &self,
        place: Place,
        width: usize,
        mut visit: impl FnMut(usize, Position),
    ) -> Result<(), Error> {
        match self {
            Self::Steps(steps) => for_each_item(steps, width, |item, t, b| {
                visit(place.offset(item, t, b), Position::Step { b, t });
            }),
            Self::Rows(rows) => {
                rows.iter().for_each(|&b| visit(place.offset(b, 0, b), Position::Row { b }));
                Ok(())
            }
        }
    }
}

/// A place in the caller's targets, row of the batch first.
#[derive(Clone, Copy, Debug)]
enum Position {
    Step { b: usize, t: usize },
    Row { b: usize },
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Step { b, t } => write!(f, "target[{b}, {t}]"),
            Self::Row { b } => write!(f, "target[{b}]"),
        }
    }
}

impl<T: Number> Target<'_, T> {
    /// Copies the targets of `outputs`; classes are checked to be in `0..width`, rows of
    /// numbers to be `width` wide.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OutOfMemory`], [`Error::Interrupted`].
    pub(crate) fn gather(&self, outputs: &Outputs<'_>, width: usize) -> Result<Gathered<T>, Error> {
        match *self {
            Self::Ids(ids) => {
                let mut gathered = room("targets", outputs.len())?;
                let mut wrong = None;
                outputs.visit(ids.place, 1, |offset, position| {
                    let id = ids.data.get(offset).copied();
                    let class = id.filter(|&id| usize::try_from(id).is_ok_and(|id| id < width));
                    match class {
                        Some(id) => gathered.push(id),
                        None if wrong.is_none() => wrong = Some((position, id)),
                        None => {}
                    }
                })?;
                match wrong {
                    None => Ok(Gathered::Ids(gathered)),
                    Some((position, Some(id))) => {
                        Err(Error::shape(position.to_string(), class_range(width), id))
                    }
                    Some((position, None)) => Err(missing(position)),
                }
            }
            Self::Numbers(_, got) if got != width => {
                let expected = format!("{width} numbers a row, as the model gives");
                Err(Error::shape("target", expected, got))
            }
            Self::Numbers(rows, _) => {
                let mut gathered = room("targets", outputs.len() * width)?;
                let mut wrong = None;
                outputs.visit(rows.place, width, |offset, position| {
                    match rows.data.get(offset..offset + width) {
                        Some(row) => gathered.extend_from_slice(row),
                        None => wrong = wrong.or(Some(position)),
                    }
                })?;
                match wrong {
                    None => Ok(Gathered::Numbers(gathered)),
                    Some(position) => Err(missing(position)),
                }
            }
        }
    }
}

fn missing(position: Position) -> Error {
    Error::shape(position.to_string(), "a target for every output", "the end of the targets")
}

/// What a class may be.
pub(crate) fn class_range(width: usize) -> String {
    format!("a class in 0..{width}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PADDED: Place = Place::Padded { start: 0, time: 1, batch: 3 };

    #[test]
    fn only_live_steps_are_read() {
        let steps = Steps::from_lengths(3, &[1, 3]).unwrap();
        let ids = [4, -1, 99, 1, 2, 3];
        let target = Target::<f32>::Ids(Rows { data: &ids, place: PADDED });
        match target.gather(&Outputs::steps(&steps), 5).unwrap() {
            Gathered::Ids(ids) => assert_eq!(ids, [4, 1, 2, 3]),
            Gathered::Numbers(_) => unreachable!("ids were given"),
        }
        let numbers = [0.0, f64::NAN, f64::NAN, 1.0, 2.0, 3.0];
        let target = Target::Numbers(Rows { data: &numbers, place: PADDED }, 1);
        match target.gather(&Outputs::steps(&steps), 1).unwrap() {
            Gathered::Numbers(numbers) => assert_eq!(numbers, [0.0, 1.0, 2.0, 3.0]),
            Gathered::Ids(_) => unreachable!("numbers were given"),
        }
    }

    #[test]
    fn a_row_without_a_live_step_has_no_target() {
        let steps = Steps::from_lengths(3, &[1, 0, 3]).unwrap();
        let target = Target::<f32>::Ids(Rows { data: &[1, -1, 2], place: Place::packed(1) });
        match target.gather(&Outputs::rows(&steps).unwrap(), 3).unwrap() {
            Gathered::Ids(ids) => assert_eq!(ids, [1, 2]),
            Gathered::Numbers(_) => unreachable!("ids were given"),
        }
    }

    #[test]
    fn a_wrong_target_is_refused_with_its_place() {
        let steps = Steps::dense(3, 2).unwrap();
        let message = |ids: &[i64]| {
            let target = Target::<f32>::Ids(Rows { data: ids, place: PADDED });
            target.gather(&Outputs::steps(&steps), 5).unwrap_err().to_string()
        };
        let expected = "target[1, 2]: expected a class in 0..5, got 5";
        assert_eq!(message(&[0, 1, 2, 3, 4, 5]), expected);
        assert!(message(&[0, 1, 2, 3, -1, 5]).ends_with("got -1"));
        assert!(message(&[0, 1, 2]).starts_with("target[1, 0]: "));
        let target = Target::Numbers(Rows { data: &[0.0; 12], place: PADDED }, 2);
        let wide = target.gather(&Outputs::steps(&steps), 3).unwrap_err().to_string();
        assert_eq!(wide, "target: expected 3 numbers a row, as the model gives, got 2");
    }
}
