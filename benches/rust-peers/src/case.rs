//! What is timed.

/// Steps of a sequence.
const TIME: usize = 100;
/// Rows of a batch.
const BATCH: usize = 32;

/// The function that a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Lstm,
    /// The reset gate acts after the product with the hidden state, as in PyTorch.
    Gru,
    /// The reset gate acts on the hidden state before the product, as in the textbook.
    GruResetBefore,
}

impl Cell {
    fn name(self) -> &'static str {
        match self {
            Self::Lstm => "lstm",
            Self::Gru => "gru",
            Self::GruResetBefore => "gru-reset-before",
        }
    }

    /// Blocks of H rows in a weight.
    pub(crate) fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru | Self::GruResetBefore => 3,
        }
    }
}

/// What is computed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// One step of one row, from a given state.
    Step,
    /// A sequence, from a state of zeros.
    Infer,
    /// The same, and the gradients of the input and of all parameters.
    Train,
}

/// One layer of `size` units that reads as many numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) task: Task,
    pub(crate) cell: Cell,
    /// Rows, B.
    pub(crate) batch: usize,
    /// Steps, T.
    pub(crate) time: usize,
    /// Units, H, and numbers that a step brings, I.
    pub(crate) size: usize,
}

impl Case {
    /// Every case, in the order in which they are timed and shown.
    pub(crate) fn all() -> Vec<Self> {
        let forms: [(Task, usize, usize, &[usize]); 4] = [
            (Task::Step, 1, 1, &[64, 128, 256, 512]),
            (Task::Infer, 1, TIME, &[64, 128, 256, 512]),
            (Task::Infer, BATCH, TIME, &[64, 128, 256, 512]),
            (Task::Train, BATCH, TIME, &[64, 128, 256]),
        ];
        let mut cases = Vec::new();
        for (task, batch, time, sizes) in forms {
            for cell in [Cell::Lstm, Cell::Gru, Cell::GruResetBefore] {
                cases.extend(sizes.iter().map(|&size| Self { task, cell, batch, time, size }));
            }
        }
        cases
    }

    /// As in `benches/python/compare.py`.
    pub(crate) fn name(&self) -> String {
        let Self { cell, batch, size, .. } = *self;
        let cell = cell.name();
        match self.task {
            Task::Step => format!("step/{cell}/h{size}"),
            Task::Infer => format!("infer/{cell}/b{batch}/h{size}"),
            Task::Train => format!("train/{cell}/b{batch}/h{size}"),
        }
    }

    /// Whether the name is like this pattern, in which `*` stands for anything.
    pub(crate) fn is_like(&self, pattern: &str) -> bool {
        let name = self.name();
        let Some((first, others)) = pattern.split_once('*') else { return name == pattern };
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let (middle, last) = others.rsplit_once('*').unwrap_or(("", others));
        for part in middle.split('*') {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}
