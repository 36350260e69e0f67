//! What is timed.

/// Steps of a sequence.
const TIME: usize = 100;
/// Rows of a batch.
const BATCH: usize = 32;
/// Rows of a batch on a GPU.
const GPU_BATCHES: [usize; 3] = [1, 32, 128];
/// Units on a GPU.
const GPU_SIZES: [usize; 5] = [128, 256, 512, 768, 1024];
/// Rows, units and steps of the long sequence on a GPU that published numbers are of.
const GPU_LONG: (usize, usize, usize) = (16, 768, 1024);
/// Rows, units and steps where it is asked only whether everything runs.
const TRIAL: (usize, usize, usize) = (2, 16, 10);

/// Where it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Cpu,
    Gpu,
}

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
    pub(crate) device: Device,
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
    /// Every case of a device, in the order in which they are timed and shown.
    pub(crate) fn all(device: Device) -> Vec<Self> {
        match device {
            Device::Cpu => Self::on_a_processor(),
            Device::Gpu => Self::on_a_gpu(),
        }
    }

    fn on_a_gpu() -> Vec<Self> {
        let mut cases = Vec::new();
        for cell in [Cell::Lstm, Cell::Gru] {
            for batch in GPU_BATCHES {
                for size in GPU_SIZES {
                    cases.extend(Self::both_ways(cell, (batch, size, TIME)));
                }
            }
        }
        cases.extend(Self::both_ways(Cell::Lstm, GPU_LONG));
        cases
    }

    /// Sizes that a GPU made of software can do.
    pub(crate) fn trial() -> Vec<Self> {
        let cells = [Cell::Lstm, Cell::Gru].into_iter();
        cells.flat_map(|cell| Self::both_ways(cell, TRIAL)).collect()
    }

    /// Forward, and forward and backward, on a GPU.
    fn both_ways(cell: Cell, (batch, size, time): (usize, usize, usize)) -> [Self; 2] {
        let of = |task| Self { device: Device::Gpu, task, cell, batch, time, size };
        [of(Task::Infer), of(Task::Train)]
    }

    fn on_a_processor() -> Vec<Self> {
        let forms: [(Task, usize, usize, &[usize]); 4] = [
            (Task::Step, 1, 1, &[64, 128, 256, 512]),
            (Task::Infer, 1, TIME, &[64, 128, 256, 512]),
            (Task::Infer, BATCH, TIME, &[64, 128, 256, 512]),
            (Task::Train, BATCH, TIME, &[64, 128, 256]),
        ];
        let device = Device::Cpu;
        let mut cases = Vec::new();
        for (task, batch, time, sizes) in forms {
            for cell in [Cell::Lstm, Cell::Gru, Cell::GruResetBefore] {
                cases.extend(sizes.iter().map(|&size| Self {
                    device,
                    task,
                    cell,
                    batch,
                    time,
                    size,
                }));
            }
        }
        cases
    }

    /// As in `benches/python/compare.py` and, on a GPU, `benches/python/gpu.py`.
    pub(crate) fn name(&self) -> String {
        let Self { cell, batch, size, time, .. } = *self;
        let cell = cell.name();
        let task = match self.task {
            Task::Step => return format!("step/{cell}/h{size}"),
            Task::Infer => "infer",
            Task::Train => "train",
        };
        match self.device {
            Device::Cpu => format!("{task}/{cell}/b{batch}/h{size}"),
            Device::Gpu => format!("layer/{cell}/b{batch}/h{size}/t{time}/{task}"),
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
