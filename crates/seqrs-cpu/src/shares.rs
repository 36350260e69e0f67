//! How the rows of a layer are cut, and how many workers share them.

use std::ops::Range;

use seqrs_core::spec::Shape;
use seqrs_core::steps::Steps;
use smallvec::{SmallVec, smallvec};

use crate::cpu::Cpu;
use crate::crew;
use crate::lanes::Element;
use crate::team;

/// Multiply-adds that are worth a second thread: some tens of microseconds.
pub(crate) const WORTH_A_THREAD: usize = 1 << 20;

/// Steps that are worth the wait until the helpers of a crew run.
const WORTH_MEETING: usize = 16;

/// Multiply-adds of each member that are worth a meeting (`forward`, departure 2).
const WORTH_A_MEETING: usize = 9 << 10;

/// Rows that keep the multipliers busy while the weights come from L2 ...
const ROWS: usize = 4;
/// ... and from beyond.
const ROWS_BEYOND_L2: usize = 12;

/// Bytes of weights that stay in a core's L2 from one step to the next.
const L2: usize = 3 << 19;

/// What there is one of in a short call, which is to take no memory for its own sake (with a piece
/// for each list, a step of 16 units from Python took 1.97 us, and takes 1.7).
pub(crate) type Few<T> = SmallVec<[T; 1]>;

/// Cuts the rows into `parts` ranges with about as many live steps each.
pub(crate) fn split_rows(steps: &Steps, parts: usize) -> Few<Range<usize>> {
    if parts <= 1 {
        return smallvec![0..steps.batch()];
    }
    if steps.is_dense() {
        return team::split(steps.batch(), parts, 1).into();
    }
    let live = steps.live_steps();
    let total: usize = live.iter().sum();
    let mut ranges = Few::with_capacity(parts);
    let (mut start, mut sum) = (0, 0);
    for (b, live) in live.iter().enumerate() {
        sum += live;
        if sum * parts >= total * (ranges.len() + 1) && ranges.len() + 1 < parts {
            ranges.push(start..b + 1);
            start = b + 1;
        }
    }
    ranges.push(start..steps.batch());
    ranges
}

/// Rows that one worker takes through all steps at a time: enough to keep its multipliers
/// busy, few enough for their states to stay in its cache.
pub(crate) const ROWS_AT_ONCE: usize = 256;

/// A worker's rows, as many at a time as it takes through all steps.
pub(crate) fn blocks(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.clone().step_by(ROWS_AT_ONCE).map(move |b| b..(b + ROWS_AT_ONCE).min(end))
}

/// How many threads all directions of the layer are worth.
pub(crate) fn threads<T: Element>(cpu: &Cpu<T>, shape: &Shape, steps: &Steps) -> usize {
    let work = steps.items() * shape.gate_columns() * (shape.input + shape.state);
    cpu.threads_for(work * shape.directions)
}

/// Into how many ranges to cut the rows of each direction, and how many workers share one.
///
/// Rows are independent, so ranges of them need no meetings; but a worker whose rows are few
/// spends its time on reading weights, and half of the weights are read in half the time.
/// A product has `parts` that can be shared.
pub(crate) fn shares<T: Element>(
    threads: usize,
    parts: usize,
    shape: &Shape,
    steps: &Steps,
) -> (usize, usize) {
    let workers = threads.div_ceil(shape.directions);
    let recurrent = shape.gate_columns() * shape.state;
    let enough = if recurrent * size_of::<T>() > L2 { ROWS_BEYOND_L2 } else { ROWS };
    let ranges = (steps.batch() / enough).clamp(1, workers);
    let crew = (workers / ranges).min(parts);
    let rows = steps.batch().div_ceil(ranges);
    if crew < 2 || steps.time() < WORTH_MEETING || rows * recurrent / crew < WORTH_A_MEETING {
        (workers, 1)
    } else {
        (ranges, if crew::is_rested() { crew } else { 1 })
    }
}
