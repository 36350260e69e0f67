//! What a model keeps for its way back, and what it gives there.

use seqrs_core::Steps;
use seqrs_core::memory::Lent;
use seqrs_core::tape::Tape;

use crate::layers::layer_norm::Normal;
use crate::number::Number;
use crate::sequential::Rank;

/// A recorded pass through a model. It can be gone back any number of times.
#[derive(Debug)]
pub struct ModelTape<T: Number> {
    pub(crate) steps: Steps,
    /// The packed input, unless the first layer keeps it or reads ids.
    pub(crate) x: Option<Lent<T>>,
    /// What each layer keeps.
    pub(crate) records: Vec<Record<T>>,
    /// The versions of the layers' parameters.
    pub(crate) versions: Vec<u64>,
    /// Numbers in a row that each layer read; 0 for ids.
    pub(crate) inputs: Vec<usize>,
    pub(crate) width: usize,
    pub(crate) rank: Rank,
}

/// What one layer keeps.
#[derive(Debug)]
pub(crate) enum Record<T: Number> {
    Recurrent(Tape<Lent<T>>),
    Embedding {
        ids: Vec<usize>,
        y: Vec<T>,
    },
    LayerNorm {
        kept: Normal<T>,
        y: Vec<T>,
    },
    Dropped {
        mask: Lent<T>,
        y: Lent<T>,
    },
    MaxPool {
        from: Vec<Option<usize>>,
        y: Vec<T>,
    },
    /// The output alone.
    Rows {
        y: Vec<T>,
    },
    /// Nothing: what came in went out.
    Passed,
}

/// What a recorded model gave out.
#[derive(Clone, Copy, Debug)]
pub struct OutputRef<'a, T> {
    /// The numbers, packed.
    pub numbers: &'a [T],
    /// Numbers in a row.
    pub width: usize,
    /// What the rows belong to.
    pub rank: Rank,
}

/// Gradients of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelGradients<T> {
    /// Those of each layer's numbers, in the same order.
    pub layers: Vec<Vec<T>>,
    /// Those of the input, packed, if asked for; none for ids.
    pub x: Option<Vec<T>>,
}

impl<T: Number> ModelTape<T> {
    /// What the model gave out.
    pub fn output(&self) -> OutputRef<'_, T> {
        let numbers = self.input(self.records.len());
        OutputRef { numbers, width: self.width, rank: self.rank }
    }

    /// Which rows were live.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Numbers in a row of the input; 0 for ids.
    pub(crate) fn input_width(&self) -> usize {
        self.inputs.first().copied().unwrap_or(0)
    }

    /// The packed rows that layer `k` read: what the one before it gave.
    pub(crate) fn input(&self, k: usize) -> &[T] {
        for record in self.records[..k].iter().rev() {
            match record {
                Record::Recurrent(tape) => return tape.y(),
                Record::Dropped { y, .. } => return y,
                Record::Embedding { y, .. }
                | Record::LayerNorm { y, .. }
                | Record::MaxPool { y, .. }
                | Record::Rows { y } => return y,
                Record::Passed => {}
            }
        }
        self.x.as_deref().unwrap_or_default()
    }
}

impl<T: Number> ModelTape<T> {
    /// Bytes of everything that was kept.
    pub fn nbytes(&self) -> usize {
        let ids = size_of::<usize>();
        let records = self.records.iter().map(|record| match record {
            Record::Recurrent(tape) => recurrent_numbers(tape) * T::BYTES,
            Record::Embedding { ids: kept, y } => kept.len() * ids + y.len() * T::BYTES,
            Record::LayerNorm { kept, y } => {
                (kept.x.len() + kept.inverse.len() + y.len()) * T::BYTES
            }
            Record::Dropped { mask, y } => (mask.len() + y.len()) * T::BYTES,
            Record::MaxPool { from, y } => {
                from.len() * size_of::<Option<usize>>() + y.len() * T::BYTES
            }
            Record::Rows { y } => y.len() * T::BYTES,
            Record::Passed => 0,
        });
        self.x.as_ref().map_or(0, |x| x.len()) * T::BYTES + records.sum::<usize>()
    }
}

fn recurrent_numbers<T: Number>(tape: &Tape<Lent<T>>) -> usize {
    let len = |numbers: &Option<Lent<T>>| numbers.as_ref().map_or(0, |numbers| numbers.len());
    let layers = tape.layers.iter().map(|layer| {
        let directions = layer.directions.iter().map(|direction| {
            let states = direction.h0.len() + len(&direction.c0) + len(&direction.c);
            let stepped = len(&direction.stepped_h) + len(&direction.stepped_c);
            let norms = direction.norms.as_ref().map_or(0, |norms| {
                let gates = [&norms.ih, &norms.hh].into_iter().chain(&norms.c);
                gates.map(|norm| norm.hat.len() + norm.inverse.len()).sum()
            });
            states + stepped + norms + direction.saved.len()
        });
        let masks = layer
            .masks
            .iter()
            .map(|masks| len(&masks.recurrent) + len(&masks.kept_h) + len(&masks.kept_c));
        let dropped = layer.dropout.as_ref().map_or(0, |d| d.mask.len() + d.y.len());
        directions.sum::<usize>() + masks.sum::<usize>() + layer.y.len() + dropped
    });
    tape.x.len() + layers.sum::<usize>()
}
