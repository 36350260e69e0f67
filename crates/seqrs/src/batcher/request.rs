//! What a request brings, and what it gets.

use ndarray::{Array1, Array2, ArrayD, ArrayView1, ArrayView2, IxDyn};
use seqrs_core::rows::{Place, Rows};
use seqrs_core::{Error, Steps};

use crate::layer::Layer;
use crate::number::Number;
use crate::sequential::{Input, Sequential};

/// One sequence, of any length: numbers (T, I), or ids (T).
#[derive(Clone, Debug, PartialEq)]
pub enum Sequence<T> {
    /// Rows of so many numbers, one for each step.
    Numbers {
        /// The numbers, one step after the other.
        data: Vec<T>,
        /// How many a step brings.
        width: usize,
        /// T, which the numbers do not tell where a step brings none.
        steps: usize,
    },
    /// An id for each step, for a model that begins with an embedding.
    Ids(Vec<i64>),
}

impl<T: Number> From<ArrayView2<'_, T>> for Sequence<T> {
    fn from(x: ArrayView2<'_, T>) -> Self {
        let (steps, width) = x.dim();
        Self::Numbers { data: x.iter().copied().collect(), width, steps }
    }
}

impl<T: Number> From<&Array2<T>> for Sequence<T> {
    fn from(x: &Array2<T>) -> Self {
        x.view().into()
    }
}

impl<T> From<ArrayView1<'_, i64>> for Sequence<T> {
    fn from(ids: ArrayView1<'_, i64>) -> Self {
        Self::Ids(ids.to_vec())
    }
}

impl<T> From<&Array1<i64>> for Sequence<T> {
    fn from(ids: &Array1<i64>) -> Self {
        ids.view().into()
    }
}

impl<T> From<Vec<i64>> for Sequence<T> {
    fn from(ids: Vec<i64>) -> Self {
        Self::Ids(ids)
    }
}

impl<T: Number> Sequence<T> {
    /// Its length, T.
    pub fn steps(&self) -> usize {
        match self {
            Self::Numbers { steps, .. } => *steps,
            Self::Ids(ids) => ids.len(),
        }
    }

    /// Whether a model reads the same at each of their steps.
    pub(super) fn shares_rows_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Numbers { width: a, .. }, Self::Numbers { width: b, .. }) => a == b,
            (Self::Ids(_), Self::Ids(_)) => true,
            _ => false,
        }
    }

    /// As a model reads it when it reads nothing else.
    pub(super) fn input(&self) -> Input<'_, T> {
        match self {
            Self::Numbers { data, width, .. } => {
                Input::Numbers(Rows { data, place: Place::packed(*width) }, *width)
            }
            Self::Ids(ids) => Input::Ids(Rows { data: ids, place: Place::packed(1) }),
        }
    }

    /// Refuses what the model would refuse, so that it is never in a batch with others.
    pub(super) fn check(&self, model: &Sequential<T>) -> Result<(), Error> {
        let steps = Steps::dense(self.steps(), 1)?;
        model.chain_for(&self.input(), &steps)?;
        if let (Self::Ids(ids), Some(Layer::Embedding(table))) = (self, model.layers().first()) {
            let end = table.options.num_embeddings;
            let wrong = ids.iter().enumerate();
            let mut wrong = wrong.filter(|(_, id)| !usize::try_from(**id).is_ok_and(|id| id < end));
            if let Some((t, id)) = wrong.next() {
                return Err(Error::shape(format!("x[{t}]"), format!("an id in 0..{end}"), id));
            }
        }
        Ok(())
    }
}

/// The output of one sequence: (T, F), or (F) where the model has a pooling layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// The numbers, one row after the other.
    pub numbers: Vec<T>,
    /// F.
    pub width: usize,
    /// T; none for an output of the whole sequence.
    pub steps: Option<usize>,
}

impl<T: Number> Answer<T> {
    /// As an array.
    pub fn into_array(self) -> ArrayD<T> {
        let shape = self.shape();
        ArrayD::from_shape_vec(IxDyn(&shape), self.numbers).expect("one number for each place")
    }

    /// (T, F) or (F).
    pub fn shape(&self) -> Vec<usize> {
        self.steps.into_iter().chain([self.width]).collect()
    }
}
