//! The numbers of a case, the same for every library.

use seqrs::{Error, Gru, Layer, Lstm};

use crate::case::{Case, Cell, Task};

/// Parameters with PyTorch's names and shapes, which are those of seqrs: (G H, I), (G H, H),
/// and twice (G H). The gates are i, f, g, o of an LSTM and r, z, n of a GRU. Where the reset
/// gate acts before the product two biases are one too many: the second is zeros.
pub(crate) struct Weights {
    pub(crate) weight_ih: Vec<f32>,
    pub(crate) weight_hh: Vec<f32>,
    pub(crate) bias_ih: Vec<f32>,
    pub(crate) bias_hh: Vec<f32>,
}

/// What every library gets.
pub(crate) struct Problem {
    pub(crate) case: Case,
    pub(crate) weights: Weights,
    /// Input (B, T, I).
    pub(crate) x: Vec<f32>,
    /// The state (B, H) that a step begins with; a sequence begins with zeros.
    pub(crate) h0: Vec<f32>,
    /// The same for the cell of an LSTM.
    pub(crate) c0: Vec<f32>,
    /// Gradient of the output (B, T, H), for training.
    pub(crate) d_y: Vec<f32>,
}

impl Problem {
    /// The weights are those that seqrs draws. It draws no biases, so that these are others.
    pub(crate) fn new(case: Case) -> Result<Self, Error> {
        let layer: Layer<f32> = match case.cell {
            Cell::Lstm => Lstm::new(case.size, case.size).build()?,
            Cell::Gru => Gru::new(case.size, case.size).reset_after(true).build()?,
            Cell::GruResetBefore => Gru::new(case.size, case.size).build()?,
        };
        let named = |name: &str| {
            let parameters = layer.parameters();
            let parameter = parameters.iter().find(|p| p.name == name).expect("PyTorch's names");
            layer.numbers()[parameter.range.clone()].to_vec()
        };
        let mut numbers = Numbers::new();
        let Case { cell, batch, time, size, .. } = case;
        let rows = cell.gates() * size;
        Ok(Self {
            case,
            weights: Weights {
                weight_ih: named("weight_ih_l0"),
                weight_hh: named("weight_hh_l0"),
                bias_ih: numbers.take(rows),
                bias_hh: match cell {
                    Cell::GruResetBefore => vec![0.0; rows],
                    Cell::Lstm | Cell::Gru => numbers.take(rows),
                },
            },
            x: numbers.take(batch * time * size),
            h0: numbers.take(batch * size),
            c0: numbers.take(batch * size),
            d_y: match case.task {
                Task::Train => numbers.take(batch * time * size),
                Task::Step | Task::Infer => Vec::new(),
            },
        })
    }

    /// The part of a parameter that belongs to one gate.
    pub(crate) fn gate<'a, T>(&self, values: &'a [T], gate: usize) -> &'a [T] {
        let len = values.len() / self.case.cell.gates();
        &values[gate * len..][..len]
    }
}

/// Numbers in [-1, 1), always the same.
struct Numbers {
    bits: u64,
}

impl Numbers {
    fn new() -> Self {
        Self { bits: 0x9e37_79b9_7f4a_7c15 }
    }

    fn take(&mut self, count: usize) -> Vec<f32> {
        let mut next = || {
            self.bits ^= self.bits << 13;
            self.bits ^= self.bits >> 7;
            self.bits ^= self.bits << 17;
            (self.bits >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }
}

/// From (rows, columns) to (columns, rows).
pub(crate) fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|c| values[c..].iter().step_by(columns).copied()).collect()
}

/// From (outer, inner, width) to (inner, outer, width).
pub(crate) fn swapped<T: Copy>(values: &[T], inner: usize, width: usize) -> Vec<T> {
    let outer = values.len() / (inner * width);
    let rows = (0..inner).flat_map(|i| (0..outer).map(move |o| (o * inner + i) * width));
    rows.flat_map(|start| values[start..][..width].iter().copied()).collect()
}
