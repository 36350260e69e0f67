//! A table with a row of numbers for each id.

use seqrs_core::rows::Rows;
use seqrs_core::{Error, Steps, memory};
use seqrs_cpu::Cpu;
use serde::{Deserialize, Serialize};

use super::by_rows::by_rows;
use super::recurrent::check_rows;
use crate::init;
use crate::layer::{Layer, LayerSpec, NamedParameter, check_count};
use crate::number::Number;
use crate::pace::{Pace, for_each_item};
use crate::parameters::Parameters;
use crate::random::Stream;
use crate::room::room;

/// What describes an embedding: integer ids in, E numbers each out.
///
/// ```
/// let layer = seqrs::Embedding::new(100, 16).padding_idx(0).build::<f32>()?;
/// assert!(layer.numbers()[..16].iter().all(|&x| x == 0.0));
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Number of ids, V.
    pub num_embeddings: usize,
    /// Numbers for each, E.
    pub embedding_dim: usize,
    /// An id whose row starts as zeros and is not trained.
    pub padding_idx: Option<usize>,
    /// Where the initial parameters come from.
    #[serde(default)]
    pub seed: u64,
}

impl Embedding {
    /// Ids `0..num_embeddings`, `embedding_dim` numbers each; seed 0.
    pub fn new(num_embeddings: usize, embedding_dim: usize) -> Self {
        Self { num_embeddings, embedding_dim, padding_idx: None, seed: 0 }
    }

    /// An id whose row starts as zeros and is not trained.
    #[must_use]
    pub fn padding_idx(mut self, id: usize) -> Self {
        self.padding_idx = Some(id);
        self
    }

    /// Where the initial parameters come from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The layer, its numbers normal with mean 0 and deviation 1.
    ///
    /// # Errors
    /// [`Error::Shape`] names the size that describes no layer; [`Error::OutOfMemory`].
    pub fn build<T: Number>(self) -> Result<Layer<T>, Error> {
        Layer::new(LayerSpec::Embedding(self))
    }

    pub(crate) fn count(&self) -> Result<usize, Error> {
        if let Some(id) = self.padding_idx.filter(|&id| id >= self.num_embeddings) {
            let expected = format!("an id in 0..{}", self.num_embeddings);
            return Err(Error::shape("padding_idx", expected, id));
        }
        check_count(
            [("num_embeddings", self.num_embeddings), ("embedding_dim", self.embedding_dim)],
            0,
        )
    }

    pub(crate) fn parameters(&self) -> Vec<NamedParameter> {
        let shape = [self.num_embeddings, self.embedding_dim];
        NamedParameter::list(&[("weight", &shape)])
    }
}

/// An embedding with its parameters.
#[derive(Clone, Debug)]
pub struct EmbeddingLayer<T> {
    pub(crate) options: Embedding,
    pub(crate) parameters: Parameters<T, ()>,
}

impl<T: Number> EmbeddingLayer<T> {
    pub(crate) fn new(options: Embedding) -> Result<Self, Error> {
        let mut numbers = memory::zeros("parameters", options.count()?)?;
        init::normal(&mut Stream::new(options.seed, 0), &mut numbers)?;
        if let Some(id) = options.padding_idx {
            let row = id * options.embedding_dim..(id + 1) * options.embedding_dim;
            numbers[row].fill(num_traits::zero());
        }
        Ok(Self { options, parameters: Parameters::new(numbers) })
    }

    /// What describes it.
    pub fn options(&self) -> &Embedding {
        &self.options
    }

    /// The ids of live items, checked.
    pub(crate) fn gather(&self, ids: Rows<'_, [i64]>, steps: &Steps) -> Result<Vec<usize>, Error> {
        check_rows("ids", ids.data.len(), ids.place, steps, 1)?;
        let mut gathered = room("ids", steps.items())?;
        let mut wrong = None;
        for_each_item(steps, 1, |item, t, b| {
            let id = ids.data[ids.place.offset(item, t, b)];
            match usize::try_from(id) {
                Ok(id) if id < self.options.num_embeddings => gathered.push(id),
                _ => wrong = wrong.or(Some((id, t, b))),
            }
        })?;
        match wrong {
            None => Ok(gathered),
            Some((id, t, b)) => Err(Error::shape(
                format!("x[{b}, {t}]"),
                format!("an id in 0..{}", self.options.num_embeddings),
                id,
            )),
        }
    }

    pub(crate) fn forward(&self, cpu: &Cpu<T>, ids: &[usize]) -> Result<Vec<T>, Error> {
        let width = self.options.embedding_dim;
        let table = self.parameters.numbers();
        let mut y = memory::zeros("output of an embedding", ids.len() * width)?;
        by_rows(cpu, ids.len(), width, [(&mut y, width)], |rows, [y]| {
            for (&id, y) in ids[rows].iter().zip(y.chunks_exact_mut(width)) {
                y.copy_from_slice(&table[id * width..][..width]);
            }
        })?;
        Ok(y)
    }

    /// As [`forward`](Self::forward), of ids that were checked, to where the rows belong.
    pub(crate) fn look_up(&self, ids: &[i64], y: &mut [T]) {
        let width = self.options.embedding_dim;
        let table = self.parameters.numbers();
        for (&id, y) in ids.iter().zip(y.chunks_exact_mut(width)) {
            y.copy_from_slice(&table[id as usize * width..][..width]);
        }
    }

    /// Adds the gradient of each item to the row of its id, in the order of the items.
    pub(crate) fn backward(
        &self,
        ids: &[usize],
        d_y: &[T],
        d_numbers: &mut [T],
    ) -> Result<(), Error> {
        let width = self.options.embedding_dim;
        let mut pace = Pace::default();
        for (&id, d_y) in ids.iter().zip(d_y.chunks_exact(width)) {
            if self.options.padding_idx != Some(id) {
                let row = &mut d_numbers[id * width..][..width];
                row.iter_mut().zip(d_y).for_each(|(sum, &d)| *sum += d);
            }
            pace.done(width)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use seqrs_core::interrupt;

    use super::*;

    #[test]
    fn an_interrupt_ends_drawing_reading_and_learning() {
        let layer = EmbeddingLayer::<f32>::new(Embedding::new(3, 1 << 10)).unwrap();
        let steps = Steps::dense(1 << 20, 1).unwrap();
        let ids = vec![0; 1 << 20];
        let d_y = vec![0.0; 1 << 20];
        let stopped = |run: &dyn Fn() -> Result<(), Error>| {
            assert_eq!(interrupt::scope(|| true, run), Err(Error::Interrupted));
        };
        stopped(&|| EmbeddingLayer::<f32>::new(Embedding::new(3, 4)).map(drop));
        let place = seqrs_core::rows::Place::packed(1);
        stopped(&|| layer.gather(Rows { data: &ids, place }, &steps).map(drop));
        stopped(&|| layer.backward(&[1; 1 << 10], &d_y, &mut vec![0.0; 3 << 10]));
    }
}
