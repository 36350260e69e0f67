//! The memory in which rows are taken through all steps.
//!
//! For each range of rows that a worker takes (256 at most at a time), in numbers of the
//! layer's type:
//! ```text
//! 2 rows P                    states, in turn
//! chunk rows G H              gates of a run: at most 512 KiB, or 128 with small weights, or one
//!                             step (departure 3: two runs, of 3 or 5 steps)
//! rows (H + opened H)         between two products;  rows H before a projection
//! rows G H                    sums of a cell that is not fused, or whose weights are small
//! rows P                      h as recurrent dropout shows it;  rows H for zoneout of c
//! rows (1 + saved) H          c as a norm shows it
//! ```
//! and for 8-bit weights, where a row of n operands takes n + 4 bytes:
//! ```text
//! chunk rows (I + 4) + rows (max(H, P) + 4)
//! ```
//! All of it is one buffer, as a short step takes longer to ask for several.

use seqrs_core::Error;
use seqrs_core::cell::Counts;
use seqrs_core::memory::Lent;
use seqrs_core::spec::Shape;

use super::Job;
use crate::lanes::Element;
use crate::matrix::Matrix;
use crate::pack::LINE;
use crate::shared::Shared;

/// Items whose gates a crew computes ahead: four tiles for each read of the weights, and few
/// enough for a helper that comes late to miss little.
const AHEAD_TOGETHER: usize = 24;

/// Runs that are worth a first one that is computed beside no other.
const WORTH_BESIDE: usize = 4;

/// What a crew works with, for the rows that it takes at a time.
pub(super) struct Room<T: Element> {
    bench: Bench<T>,
    /// What it points into.
    _memory: Lent<T>,
}

/// Places in a buffer, each at the beginning of a cache line.
struct Layout {
    /// Numbers in a cache line, and in all places.
    line: usize,
    len: usize,
}

impl Layout {
    /// A place for so many numbers, if they are needed.
    #[inline]
    fn place(&mut self, needed: bool, len: usize) -> Option<usize> {
        let at = self.len;
        needed.then(|| {
            self.len = at.saturating_add(len.div_ceil(self.line).saturating_mul(self.line));
            at
        })
    }
}

impl<T: Element> Room<T> {
    pub(super) fn new(
        counts: Counts,
        job: &Job<'_, T>,
        rows: usize,
        shared: bool,
    ) -> Result<Self, Error> {
        let Shape { hidden, state, .. } = *job.shape;
        let weights = job.weights;
        let (second, projection) = (weights.second.as_ref(), weights.projection.as_ref());
        let time = job.steps.time();
        let columns = counts.gates * hidden;
        let shows = job.norms.as_ref().is_some_and(|norms| norms.c.is_some());
        let beside = match rows == 1 && !shared && second.is_none() {
            true => weights.first.rows_beside(job.level),
            false => None,
        };
        let beside = beside.filter(|beside| time >= WORTH_BESIDE * beside);
        let bytes = (rows * columns * size_of::<T>()).max(1);
        let chunk = match (beside, weights.input.bytes_ahead() / bytes) {
            (Some(beside), _) => beside,
            (None, most) if shared => most.min(AHEAD_TOGETHER / rows.max(1)),
            (None, most) => most,
        };
        let chunk = chunk.clamp(1, time.max(1));
        let items = chunk.min(time) * rows;
        let runs = if beside.is_some() { 2 } else { 1 };
        let of_steps = [Some(&weights.first), second, projection].into_iter().flatten();
        let input_bytes = items * weights.input.operand_bytes();
        let state_bytes = rows * of_steps.map(Matrix::operand_bytes).max().unwrap_or(0);

        let mut layout = Layout { line: LINE / size_of::<T>(), len: 0 };
        let two_products = second.is_some();
        let places = layout.place(true, 2 * rows * state);
        let gx = layout.place(true, runs * items * columns);
        let gh = layout.place(weights.first.of_fused_step().is_none(), rows * columns);
        let operand = layout.place(two_products, rows * hidden);
        let opened = layout.place(two_products, rows * counts.opened * hidden);
        let unprojected = layout.place(projection.is_some(), rows * hidden);
        let seen = layout.place(job.masks.recurrent.is_some(), rows * state);
        let old_c = layout.place(job.masks.c.is_something(), rows * hidden);
        let shown = layout.place(shows, rows * hidden);
        let saved = layout.place(shows && job.saved.0.is_null(), rows * counts.saved * hidden);
        let inputs = layout.place(input_bytes > 0, input_bytes.div_ceil(size_of::<T>()));
        let states = layout.place(state_bytes > 0, state_bytes.div_ceil(size_of::<T>()));

        let mut memory = Lent::<T>::new("workspace of a layer", layout.len)?;
        let start = Shared(memory.as_mut_ptr());
        let at = |place: Option<usize>| {
            Shared(place.map_or(std::ptr::null_mut(), |place| start.at(place)))
        };
        let bytes = |place| Shared(at(place).0.cast());
        let bench = Bench {
            chunk,
            beside: beside.is_some(),
            places: at(places),
            gx: at(gx),
            gh: at(gh),
            operand: at(operand),
            opened: at(opened),
            unprojected: at(unprojected),
            seen: at(seen),
            old_c: at(old_c),
            shown: at(shown),
            saved: at(saved),
            inputs: bytes(inputs),
            states: bytes(states),
        };
        Ok(Self { bench, _memory: memory })
    }

    /// As the members of a crew see it.
    pub(super) fn bench(&self) -> &Bench<T> {
        &self.bench
    }
}

/// Where in a [`Room`] what is. What there is no need of is null.
pub(super) struct Bench<T> {
    /// Steps that gates are computed ahead for.
    pub(super) chunk: usize,
    /// Whether they are computed while the steps before wait for their weights.
    pub(super) beside: bool,
    /// Two places for the hidden state of each row, used in turn, as a step reads all of h'
    /// while it writes h. A row's turn changes only when it is live.
    pub(super) places: Shared<T>,
    /// Gates from the input of a run of steps, or of two.
    pub(super) gx: Shared<T>,
    /// Gates from the state, where the step is not fused.
    pub(super) gh: Shared<T>,
    /// Between the products of a cell that has two.
    pub(super) operand: Shared<T>,
    pub(super) opened: Shared<T>,
    /// The output before the projection.
    pub(super) unprojected: Shared<T>,
    /// What the recurrent products see of h, where that is not h.
    pub(super) seen: Shared<T>,
    /// The cell state before the step, for zoneout.
    pub(super) old_c: Shared<T>,
    /// The cell state that h shows, where that is normalised, and at inference what the cell saves
    /// to show it.
    pub(super) shown: Shared<T>,
    pub(super) saved: Shared<T>,
    /// What 8-bit matrices multiply: made of the inputs of a run, and of the rows of a step.
    pub(super) inputs: Shared<u8>,
    pub(super) states: Shared<u8>,
}
