//! One layer over all steps.
//!
//! Rows do not depend on each other, and directions neither: each worker takes some rows of
//! one direction through all steps, and never waits for another. Only where rows are too few
//! for that, workers share the units of the same rows (see `crew.rs`). What does not depend
//! on the state (x W_ih^T) is computed for a run of steps at once, as many as stay in cache.
//!
//! ```text
//! for each run of steps:
//!     gx[t][row] = b_ih + x[t][row] W_ih^T          one product for all of the run
//!     for each step t of the run:
//!         h, c = cell(gx[t], h W_hh^T)              (step.rs)
//! ```
//! # Departures
//! 1. A crew's runs are short, and its first is the shortest: a helper needs some tens of
//!    microseconds to wake up, and in one long run the leader had done the whole product
//!    before it came. LSTM, one row of 100 steps, two threads: 256 units 1000 to 765 us,
//!    512 units 3.8 to 3.2 ms.
//! 2. Crews pay early (LSTM, one row of 100 steps, two threads for one: 96 units 202 to
//!    127 us, 128 units 366 to 212 us). At 64 units one would gain a quarter, but beside a busy
//!    process be 15 % slower than alone.
//! 3. A step of one row waits for W_hh from L2 half of the time. A worker that is alone with
//!    such a row uses that for the gates of the next run (`step.rs`), 5 steps, of which each
//!    step does a slice:
//!    ```text
//!    for each step k of the run:   for each panel:
//!        h, c = cell(gx[t], h W_hh^T), and beside it
//!        gx[next run] += x[next run][slice k] W_ih[slice k]^T
//!    ```
//!    One row of 100 steps: LSTM of 128, 256, 512 units 366 to 343 us, 1.49 to 1.43 ms, 6.3 to
//!    5.7 ms; GRU (reset after) of 128 and 512 units 264 to 241 us, 4.7 to 4.3 ms; RNN of 256
//!    units 355 to 316 us. A crew gains nothing (half of both matrices is more than its L2, where
//!    half of W_hh has room), nor do weights below 128 KiB, cells with two products, and AVX2,
//!    whose registers have room for a tile of 2 rows only.
//!
//! # Memory
//! For each range of rows that a worker takes (256 at most at a time), in numbers of the
//! layer's type:
//! ```text
//! 2 rows P                    states, in turn
//! chunk rows G H              gates of a run: at most 512 KiB, or one step (departure 3: two
//!                             runs, of 5 steps)
//! rows (H + opened H)         between two products;  rows H before a projection
//! rows G H                    sums of a cell that is not fused
//! rows P                      h as recurrent dropout shows it;  rows H for zoneout of c
//! rows (1 + saved) H          c as a norm shows it
//! ```

use std::ops::{DerefMut, Range};
use std::sync::atomic::{AtomicBool, Ordering};

use seqrs_core::backend::{Backend, Forward};
use seqrs_core::cell::Counts;
use seqrs_core::memory::Lent;
use seqrs_core::rows::Place;
use seqrs_core::spec::Shape;
use seqrs_core::steps::{Direction, Steps};
use seqrs_core::tape::DirectionTape;
use seqrs_core::{Error, interrupt};
use smallvec::{SmallVec, smallvec};

use crate::cpu::Cpu;
use crate::crew::{self, Crew, Member};
use crate::kernels::{Kernels, Pass};
use crate::lanes::Element;
use crate::level::Level;
use crate::norms::{Norms, Shown};
use crate::pack::Panels;
use crate::product::{Product, Slice, Start};
use crate::state_masks::{Masks, multiply, scale};
use crate::step::{self, BESIDE, Pointwise, Row, Step};
use crate::team;
use crate::weights::Weights;

/// Bytes of gates from the input that are computed ahead: about half of a core's L2.
const AHEAD: usize = 512 << 10;

/// Items whose gates a crew computes ahead: four tiles for each read of the weights, and few
/// enough for a helper that comes late to miss little.
const AHEAD_TOGETHER: usize = 24;

/// Bytes of recurrent weights from which on a step waits for them (departure 3).
const WAITED_FOR: usize = 128 << 10;

/// Steps that are worth a first run that is computed beside no other.
const WORTH_BESIDE: usize = 4 * BESIDE;

/// Steps of the first run of a crew.
const TO_WAKE_UP: usize = 4;

/// Multiply-adds that are worth a second thread: some tens of microseconds.
pub(crate) const WORTH_A_THREAD: usize = 1 << 20;

/// Steps that are worth the wait until the helpers of a crew run.
const WORTH_MEETING: usize = 16;

/// Multiply-adds of each member that are worth a meeting (departure 2).
const WORTH_A_MEETING: usize = 9 << 10;

/// Units that members of a crew do not divide further: the widest register.
const GROUP: usize = 16;

/// Rows that keep the multipliers busy while the weights come from L2 ...
const ROWS: usize = 4;
/// ... and from beyond.
const ROWS_BEYOND_L2: usize = 12;

/// Bytes of weights that stay in a core's L2 from one step to the next.
const L2: usize = 3 << 19;

/// What there is one of in a short call, which is to take no memory for its own sake (with a piece
/// for each list, a step of 16 units from Python took 1.97 us, and takes 1.7).
pub(crate) type Few<T> = SmallVec<[T; 1]>;

/// Likewise, of rows and items.
type Rows<T> = SmallVec<[T; 8]>;

/// An empty list with room for `len`.
fn rows_of<T>(what: &str, len: usize) -> Result<Rows<T>, Error> {
    let mut list = Rows::new();
    list.try_reserve_exact(len).map_err(|_| Error::OutOfMemory {
        what: what.to_owned(),
        bytes: len as u128 * size_of::<T>() as u128,
    })?;
    Ok(list)
}

/// A pointer that may go to another thread.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);

// SAFETY: workers use disjoint memory behind it; each use says which.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer `offset` numbers on, or null if this one is.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> *mut T {
        if self.0.is_null() { self.0 } else { self.0.wrapping_add(offset) }
    }

    pub(crate) fn of(buffer: &mut Option<impl DerefMut<Target = [T]>>) -> Self {
        Self(buffer.as_mut().map_or(std::ptr::null_mut(), |buffer| buffer.as_mut_ptr()))
    }
}

/// One direction of the layer, as its workers see it.
struct Job<'a, T> {
    level: Level,
    shape: &'a Shape,
    steps: &'a Steps,
    direction: Direction,
    weights: &'a Weights<T>,
    x: &'a [T],
    x_place: Place,
    y: Shared<T>,
    y_place: Place,
    /// This direction's slot of the states.
    h: Shared<T>,
    c: Shared<T>,
    /// This direction's tape, null at inference.
    saved: Shared<T>,
    cells: Shared<T>,
    /// What the steps gave before zoneout, null without.
    stepped_h: Shared<T>,
    stepped_c: Shared<T>,
    masks: Masks<'a, T>,
    norms: Option<Norms<'a, T>>,
    stop: &'a AtomicBool,
}

impl<T: Element> Job<'_, T> {
    /// Whether y is not written by the steps themselves.
    fn copies_y(&self) -> bool {
        let normalised = self.norms.as_ref().is_some_and(|norms| norms.c.is_some());
        self.shape.weight_hr.is_some() || self.masks.h.is_something() || normalised
    }

    /// Whether something is done to whole rows between products and cell, so that no crew can
    /// share their units.
    fn has_passes_over_rows(&self) -> bool {
        !self.masks.are_none() || self.norms.is_some()
    }
}

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

pub(crate) fn forward<T: Element>(
    cell: &dyn Kernels<T>,
    cpu: &Cpu<T>,
    mut run: Forward<'_, Cpu<T>>,
) -> Result<(), Error>
where
    Cpu<T>: Backend<
            Elem = T,
            Slice = [T],
            Buffer = Vec<T>,
            Weights = Weights<T>,
            Record = DirectionTape<Lent<T>>,
        >,
{
    let Shape { hidden, state, directions, .. } = *run.shape;
    let batch = run.steps.batch();
    for (d, tape) in run.tape.iter_mut().enumerate() {
        let slot = run.slot + d;
        tape.h0.copy_from_slice(&run.state.h[slot * batch * state..][..batch * state]);
        if let (Some(c0), Some(c)) = (&mut tape.c0, &run.state.c) {
            c0.copy_from_slice(&c[slot * batch * hidden..][..batch * hidden]);
        }
    }
    let stop = AtomicBool::new(false);
    let y = Shared(run.y.data.as_mut_ptr());
    let h = Shared(run.state.h.as_mut_ptr());
    let c = Shared::of(&mut run.state.c);
    let mut tape = run.tape.iter_mut();
    let mut job = |d: usize| {
        let slot = (run.slot + d) * batch;
        let mut tape = tape.next();
        let norms = Norms::new(&run.weights[d], tape.as_deref_mut());
        let [saved, cells, stepped_h, stepped_c] = match tape {
            None => [Shared(std::ptr::null_mut()); 4],
            Some(tape) => [
                Shared(tape.saved.as_mut_ptr()),
                Shared::of(&mut tape.c),
                Shared::of(&mut tape.stepped_h),
                Shared::of(&mut tape.stepped_c),
            ],
        };
        Job {
            level: cpu.level(),
            shape: run.shape,
            steps: run.steps,
            direction: Direction::BOTH[d],
            weights: &run.weights[d],
            x: run.x.data,
            x_place: run.x.place,
            y,
            y_place: run.y.place.shifted(d * state),
            h: Shared(h.at(slot * state)),
            c: Shared(c.at(slot * hidden)),
            saved,
            cells,
            stepped_h,
            stepped_c,
            masks: Masks::new(run.shape, run.masks.get(d)),
            norms,
            stop: &stop,
        }
    };
    let threads = threads(cpu, run.shape, run.steps);
    if threads == 1 {
        // Whoever works alone needs none of the lists below, which cost a short step dearly.
        let alone = Crew::new(0);
        for d in 0..directions {
            let job = job(d);
            let mut room = Room::new(cell.counts(), &job, batch.min(ROWS_AT_ONCE), false)?;
            let bench = room.view();
            for range in blocks(&(0..batch)) {
                // SAFETY: there is nobody else, and room for these rows.
                unsafe { rows_forward(cell, &job, &range, &bench, alone.member(0)) }?;
            }
        }
        return Ok(());
    }
    let jobs: Few<Job<'_, T>> = (0..directions).map(job).collect();
    let most = match jobs[0].has_passes_over_rows() {
        true => 1,
        false => run.weights[0].first.count(),
    };
    let (parts, crew) = shares::<T>(threads, most, run.shape, run.steps);
    let ranges = split_rows(run.steps, parts.min(run.steps.batch()));
    let pairs = jobs.iter().flat_map(|job| ranges.iter().map(move |range| (job, range)));
    let mut rooms: Few<Room<T>> = pairs
        .clone()
        .map(|(job, range)| Room::new(cell.counts(), job, range.len().min(ROWS_AT_ONCE), crew > 1))
        .collect::<Result<_, Error>>()?;
    let crews: Few<Crew> = rooms.iter().map(|_| Crew::new(crew - 1)).collect();
    let views: Few<Bench<T>> = rooms.iter_mut().map(Room::view).collect();
    let mut results: Few<Result<(), Error>> = smallvec![Ok(()); views.len() * crew];
    let threads = threads.min(results.len());
    let workers = pairs.zip(&views).zip(&crews).flat_map(|(((job, range), bench), crew)| {
        (0..crew.len()).map(move |k| (job, range, bench, crew, k))
    });
    let tasks = workers.zip(&mut results).map(|((job, range, bench, crew, k), result)| {
        move || {
            *result = blocks(range).try_for_each(|range| {
                // SAFETY: each crew has rows and columns of its own, and room for them.
                unsafe { rows_forward(cell, job, &range, bench, crew.member(k)) }
            });
            if result.is_err() {
                job.stop.store(true, Ordering::Relaxed);
            }
        }
    });
    team::run_within(threads, tasks);
    crews.into_iter().for_each(Crew::disband);
    results.into_iter().collect()
}

/// What a crew works with, for the rows that it takes at a time.
struct Room<T: Element> {
    /// Steps that gates are computed ahead for.
    chunk: usize,
    /// Whether they are computed while the steps before wait for their weights.
    beside: bool,
    places: Lent<T>,
    gx: Lent<T>,
    gh: Option<Lent<T>>,
    operand: Option<Lent<T>>,
    opened: Option<Lent<T>>,
    unprojected: Option<Lent<T>>,
    seen: Option<Lent<T>>,
    old_c: Option<Lent<T>>,
    shown: Option<Lent<T>>,
    saved: Option<Lent<T>>,
}

impl<T: Element> Room<T> {
    fn new(counts: Counts, job: &Job<'_, T>, rows: usize, shared: bool) -> Result<Self, Error> {
        let Shape { hidden, state, ref weight_hr, .. } = *job.shape;
        let time = job.steps.time();
        let columns = counts.gates * hidden;
        let two_products = counts.two_products();
        let shows = job.norms.as_ref().is_some_and(|norms| norms.c.is_some());
        let opened = counts.opened * hidden;
        let beside = counts.fused
            && rows == 1
            && !shared
            && !two_products
            && step::has_registers_beside::<T>(job.level)
            && columns * state * size_of::<T>() >= WAITED_FOR
            && time >= WORTH_BESIDE;
        let most = match (beside, shared) {
            (true, _) => BESIDE,
            (_, true) => AHEAD_TOGETHER / rows.max(1),
            _ => time,
        };
        let chunk =
            (AHEAD / (rows * columns * size_of::<T>()).max(1)).min(most).clamp(1, time.max(1));
        let runs = if beside { 2 } else { 1 };
        let optional =
            |needed: bool, len| needed.then(|| Lent::new("workspace of a layer", len)).transpose();
        Ok(Self {
            chunk,
            beside,
            places: Lent::new("states", 2 * rows * state)?,
            gx: Lent::new("inputs of the gates", runs * chunk.min(time) * rows * columns)?,
            gh: optional(!counts.fused, rows * columns)?,
            operand: optional(two_products, rows * hidden)?,
            opened: optional(two_products, rows * opened)?,
            unprojected: optional(weight_hr.is_some(), rows * hidden)?,
            seen: optional(job.masks.recurrent.is_some(), rows * state)?,
            old_c: optional(job.masks.c.is_something(), rows * hidden)?,
            shown: optional(shows, rows * hidden)?,
            saved: optional(shows && job.saved.0.is_null(), rows * counts.saved * hidden)?,
        })
    }

    fn view(&mut self) -> Bench<T> {
        Bench {
            chunk: self.chunk,
            beside: self.beside,
            places: Shared(self.places.as_mut_ptr()),
            gx: Shared(self.gx.as_mut_ptr()),
            gh: Shared::of(&mut self.gh),
            operand: Shared::of(&mut self.operand),
            opened: Shared::of(&mut self.opened),
            unprojected: Shared::of(&mut self.unprojected),
            seen: Shared::of(&mut self.seen),
            old_c: Shared::of(&mut self.old_c),
            shown: Shared::of(&mut self.shown),
            saved: Shared::of(&mut self.saved),
        }
    }
}

/// A [`Room`] as the members of a crew see it.
struct Bench<T> {
    chunk: usize,
    beside: bool,
    /// Two places for the hidden state of each row, used in turn, as a step reads all of h'
    /// while it writes h. A row's turn changes only when it is live.
    places: Shared<T>,
    /// Gates from the input of a run of steps, or of two.
    gx: Shared<T>,
    /// Gates from the state, of a cell that is not fused.
    gh: Shared<T>,
    /// Between the products of a cell that has two.
    operand: Shared<T>,
    opened: Shared<T>,
    /// The output before the projection.
    unprojected: Shared<T>,
    /// What the recurrent products see of h, where that is not h.
    seen: Shared<T>,
    /// The cell state before the step, for zoneout.
    old_c: Shared<T>,
    /// The cell state that h shows, where that is normalised, and at inference what the cell saves
    /// to show it.
    shown: Shared<T>,
    saved: Shared<T>,
}

/// Steps whose gates from the input are computed together.
struct Run<T> {
    steps: Range<usize>,
    items: Rows<usize>,
    inputs: Rows<*const T>,
    gates: Rows<*mut T>,
}

impl<T: Element> Run<T> {
    /// Of so many items at most.
    fn new(items: usize) -> Result<Self, Error> {
        Ok(Self {
            steps: 0..0,
            items: rows_of("items of a run", items)?,
            inputs: rows_of("items of a run", items)?,
            gates: rows_of("items of a run", items)?,
        })
    }

    /// These steps of the rows of `range`, with their gates from `gx` on.
    fn begin(
        &mut self,
        job: &Job<'_, T>,
        range: &Range<usize>,
        steps: Range<usize>,
        gx: Shared<T>,
    ) {
        self.items.clear();
        self.inputs.clear();
        self.gates.clear();
        let columns = job.shape.gate_columns();
        for k in steps.clone() {
            let t = job.direction.step(k, job.steps.time());
            let (items, rows) = job.steps.at_rows(t, range);
            for (item, &b) in items.zip(rows) {
                let x = job.x_place.offset(item, t, b as usize);
                self.items.push(item);
                self.inputs.push(job.x[x..x + job.shape.input].as_ptr());
                self.gates.push(gx.at(self.gates.len() * columns));
            }
        }
        self.steps = steps;
    }

    /// # Safety
    /// As [`Product::run`] for these panels of the weights of the input.
    unsafe fn product(&self, job: &Job<'_, T>, panels: Range<usize>) {
        let Self { inputs: x, gates: y, .. } = self;
        let start = Start::Bias;
        // SAFETY: by the caller.
        unsafe { Product { x, weights: &job.weights.input, panels, start, y }.run(job.level) };
    }

    /// Normalises the gates, where that is asked for.
    ///
    /// # Safety
    /// As [`Run::product`], of a worker that is alone.
    unsafe fn normalise(&self, job: &Job<'_, T>) {
        let Some(norms) = &job.norms else { return };
        for (&item, &gates) in self.items.iter().zip(&self.gates) {
            // SAFETY: by the caller.
            unsafe { norms.ih.apply(item, numbers_mut(gates, job.shape.gate_columns())) };
        }
    }

    /// The `k`-th of `of` slices of that product.
    fn slice<'a>(
        &'a self,
        job: &'a Job<'_, T>,
        panels: Range<usize>,
        (k, of): (usize, usize),
    ) -> Slice<'a, T> {
        let weights = &job.weights.input;
        let cut = |k: usize| weights.depth() * k / of;
        Slice { x: &self.inputs, weights, panels, depth: cut(k)..cut(k + 1), y: &self.gates }
    }
}

/// Takes the rows of `range` through all steps: one member of a crew does its share of the
/// panels of every product. Every product needs all of what the one before it wrote, so
/// before each of them the members meet.
///
/// # Safety
/// Nobody but the crew uses these rows of the job's direction and this bench.
unsafe fn rows_forward<T: Element>(
    cell: &dyn Kernels<T>,
    job: &Job<'_, T>,
    range: &Range<usize>,
    bench: &Bench<T>,
    mut member: Member<'_>,
) -> Result<(), Error> {
    let Shape { hidden, state, .. } = *job.shape;
    let counts = cell.counts();
    let columns = counts.gates * hidden;
    let (rows, time) = (range.len(), job.steps.time());
    let opened_len = counts.opened * hidden;
    let Bench { chunk, beside, places, gx, gh, operand, opened, .. } = *bench;
    let Bench { unprojected: m, seen, old_c, shown, saved, .. } = *bench;
    let weights = job.weights;
    let per_unit = weights.per_unit().as_ptr();
    // With which of its places each row's next step begins.
    let mut turn: Rows<usize> = rows_of("rows", rows)?;
    turn.resize(rows, 0);
    let mut live: Rows<Row<T>> = rows_of("rows", rows)?;
    let mut downwards = false;
    if member.leads() {
        for (k, b) in range.clone().enumerate() {
            // SAFETY: row b of this direction's h, to a place that helpers read later only.
            unsafe {
                let from = job.h.at(b * state).cast_const();
                std::ptr::copy_nonoverlapping(from, places.at(k * state), state);
            }
        }
    }

    // A crew begins with a short run, as its helpers are still waking up.
    let first = if member.has_company() { chunk.min(TO_WAKE_UP) } else { chunk };
    let mut run = Run::new(chunk.min(time) * rows)?;
    let mut next = Run::new(chunk.min(time - first.min(time)) * rows)?;
    run.begin(job, range, 0..first.min(time), gx);
    let Some(share) = member.meet() else { return Ok(()) };
    // SAFETY: each x was sliced; each gx is a run of the buffer of its own.
    unsafe {
        run.product(job, share.range(weights.input.count()));
        run.normalise(job);
    }
    let copies_y = job.copies_y();
    let mut other = false;
    while !run.steps.is_empty() {
        if member.leads() {
            interrupt::check()?;
            if job.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        let following = run.steps.end..(run.steps.end + chunk).min(time);
        other = beside && !other;
        let half = if other { chunk * rows * columns } else { 0 };
        next.begin(job, range, following, Shared(gx.at(half)));
        let mut from = 0;
        for k in run.steps.clone() {
            let t = job.direction.step(k, time);
            let (items, rows_here) = job.steps.at_rows(t, range);
            live.clear();
            for (item, &b) in items.zip(rows_here) {
                let (b, row) = (b as usize, b as usize - range.start);
                let place = |turn: usize| places.at((turn * rows + row) * state);
                let y = job.y.at(job.y_place.offset(item, t, b));
                let projected = !m.0.is_null();
                let h = place(turn[row]).cast_const();
                let c = job.c.at(b * hidden);
                let seen = match job.masks.recurrent {
                    None => h,
                    Some(mask) => {
                        let seen = seen.at(row * state);
                        // SAFETY: this row of the crew's buffers.
                        let (h, seen) = unsafe { (numbers(h, state), numbers_mut(seen, state)) };
                        multiply(&mask[b * state..][..state], h, seen);
                        seen.as_ptr()
                    }
                };
                if job.masks.c.is_something() {
                    // SAFETY: this row of the crew's buffer, and of the job's states.
                    unsafe { std::ptr::copy_nonoverlapping(c, old_c.at(row * hidden), hidden) };
                }
                let cells = if job.masks.c.is_something() { job.stepped_c } else { job.cells };
                let (saved, cells) = match saved.0.is_null() {
                    true => (job.saved.at(item * counts.saved * hidden), cells.at(item * hidden)),
                    false => (saved.at(row * counts.saved * hidden), shown.at(row * hidden)),
                };
                live.push(Row {
                    gx: run.gates[from],
                    gh: gh.at(row * columns),
                    per_unit,
                    h,
                    seen,
                    h_new: if projected { m.at(row * hidden) } else { place(1 - turn[row]) },
                    c,
                    operand: operand.at(row * hidden),
                    opened: opened.at(row * opened_len),
                    y: if copies_y { std::ptr::null_mut() } else { y },
                    item,
                    saved,
                    cells,
                });
                turn[row] = 1 - turn[row];
                from += 1;
            }
            let slice = (k - run.steps.start, run.steps.len());
            let ahead = beside.then_some((&next, slice));
            // SAFETY: the rows above lie in the crew's buffers, or in its rows of the job's;
            // h and h_new are different places, and members write different units. The other
            // half of gx belongs to the next run.
            unsafe {
                let (now, m) = (Pass::Finish, &mut member);
                let done = match &weights.second {
                    None => pass(cell, now, job, &live, &weights.first, m, downwards, ahead),
                    Some(second) => {
                        let first = &weights.first;
                        pass(cell, Pass::Open, job, &live, first, m, downwards, None).and_then(
                            |()| {
                                mask_operands(job, &live, rows_here);
                                pass(cell, now, job, &live, second, m, downwards, None)
                            },
                        )
                    }
                };
                if done.is_none() {
                    return Ok(());
                }
                show(cell, job, &live, shown);
            }
            downwards = !downwards;
            let (items, rows_here) = job.steps.at_rows(t, range);
            // Columns of h that this member has computed.
            let mut mine = 0..state;
            if let Some(projection) = &weights.projection {
                let x: Rows<*const T> = live.iter().map(|row| row.h_new.cast_const()).collect();
                let h: Rows<*mut T> = rows_here
                    .iter()
                    .map(|&b| b as usize - range.start)
                    .map(|row| places.at((turn[row] * rows + row) * state))
                    .collect();
                let Some(share) = member.meet() else { return Ok(()) };
                let panels = share.range(projection.count());
                mine = projection.columns_of(&panels);
                // SAFETY: m and the places are the crew's, and members write different
                // columns.
                unsafe {
                    let start = Start::Bias;
                    Product { x: &x, weights: projection, panels, start, y: &h }.run(job.level);
                }
            }
            if !copies_y && job.masks.are_none() {
                continue;
            }
            for (item, &b) in items.zip(rows_here) {
                let (b, row) = (b as usize, b as usize - range.start);
                let place = |turn: usize| places.at((turn * rows + row) * state);
                // SAFETY: this worker's row of all buffers: where there are masks it is alone.
                unsafe {
                    keep_some_of_c(job, item, b, old_c.at(row * hidden).cast_const());
                    let old = place(1 - turn[row]).cast_const();
                    keep_some_of_h(job, item, old, place(turn[row]));
                }
                if copies_y {
                    let y = job.y.at(job.y_place.offset(item, t, b));
                    // SAFETY: this member's columns of the output of the crew's row.
                    unsafe {
                        std::ptr::copy_nonoverlapping(
                            place(turn[row]).add(mine.start),
                            y.add(mine.start),
                            mine.len(),
                        );
                    }
                }
            }
        }
        if !beside && !next.steps.is_empty() {
            let Some(share) = member.meet() else { return Ok(()) };
            // SAFETY: as above; all steps that read this buffer are done.
            unsafe {
                next.product(job, share.range(weights.input.count()));
                next.normalise(job);
            }
        }
        std::mem::swap(&mut run, &mut next);
    }
    let leads = member.leads();
    member.finish();
    if !leads {
        return Ok(());
    }
    for (k, b) in range.clone().enumerate() {
        let from = places.at((turn[k] * rows + k) * state);
        // SAFETY: row b of this direction's h, from a place of this crew, which is done.
        unsafe { std::ptr::copy_nonoverlapping(from, job.h.at(b * state), state) };
    }
    Ok(())
}

/// Makes h of the cell state after its norm, where there is one.
///
/// # Safety
/// As [`Step::run`], of a worker that is alone; `shown` has a run of H for each row.
unsafe fn show<T: Element>(
    cell: &dyn Kernels<T>,
    job: &Job<'_, T>,
    live: &[Row<T>],
    shown: Shared<T>,
) {
    let Some(norm) = job.norms.as_ref().and_then(|norms| norms.c.as_ref()) else { return };
    let hidden = job.shape.hidden;
    let mut rows = Rows::with_capacity(live.len());
    for (k, row) in live.iter().enumerate() {
        let to = shown.at(k * hidden);
        // SAFETY: by the caller.
        unsafe {
            let c = numbers(row.c, hidden);
            let to = numbers_mut(to, hidden);
            to.copy_from_slice(c);
            norm.apply(row.item, to);
        }
        let d_gates = std::ptr::null_mut();
        rows.push(Shown { saved: row.saved, c: to, h: row.h_new, d_gates });
    }
    // SAFETY: by the caller.
    unsafe { cell.show(&rows, hidden, job.level) };
}

/// Recurrent dropout of the operands of the second product.
///
/// # Safety
/// As [`Step::run`], of a worker that is alone.
unsafe fn mask_operands<T: Element>(job: &Job<'_, T>, live: &[Row<T>], rows: &[u32]) {
    let Some(mask) = job.masks.recurrent else { return };
    let size = job.shape.state;
    for (row, &b) in live.iter().zip(rows) {
        // SAFETY: by the caller.
        let operand = unsafe { numbers_mut(row.operand, size) };
        scale(operand, &mask[b as usize * size..][..size]);
    }
}

/// Zoneout of the cell state.
///
/// # Safety
/// Nobody else uses the row; `old` is readable for it.
unsafe fn keep_some_of_c<T: Element>(job: &Job<'_, T>, item: usize, b: usize, old: *const T) {
    if !job.masks.c.is_something() {
        return;
    }
    let hidden = job.shape.hidden;
    // SAFETY: by the caller.
    let (old, c) = unsafe { (numbers(old, hidden), numbers_mut(job.c.at(b * hidden), hidden)) };
    job.masks.c.mix(item, old, c);
    if !job.cells.0.is_null() {
        // SAFETY: the item is this row's.
        unsafe { numbers_mut(job.cells.at(item * hidden), hidden) }.copy_from_slice(c);
    }
}

/// Zoneout of the hidden state.
///
/// # Safety
/// Nobody else uses the row; `old` and `new` are its, and not the same memory.
unsafe fn keep_some_of_h<T: Element>(job: &Job<'_, T>, item: usize, old: *const T, new: *mut T) {
    if !job.masks.h.is_something() {
        return;
    }
    let state = job.shape.state;
    // SAFETY: by the caller.
    let (old, new) = unsafe { (numbers(old, state), numbers_mut(new, state)) };
    if !job.stepped_h.0.is_null() {
        // SAFETY: the item is this row's.
        unsafe { numbers_mut(job.stepped_h.at(item * state), state) }.copy_from_slice(new);
    }
    job.masks.h.mix(item, old, new);
}

/// # Safety
/// As `std::slice::from_raw_parts`.
pub(crate) unsafe fn numbers<'a, T>(from: *const T, len: usize) -> &'a [T] {
    // SAFETY: by the caller.
    unsafe { std::slice::from_raw_parts(from, len) }
}

/// # Safety
/// As `std::slice::from_raw_parts_mut`.
pub(crate) unsafe fn numbers_mut<'a, T>(from: *mut T, len: usize) -> &'a mut [T] {
    // SAFETY: by the caller.
    unsafe { std::slice::from_raw_parts_mut(from, len) }
}

/// One pass of one step, this member's share of it, and on the way a slice of the product of the
/// steps ahead; nothing if the crew was given up.
///
/// # Safety
/// As [`Step::run`].
#[expect(clippy::too_many_arguments, reason = "what a step is, and who does which part of it")]
unsafe fn pass<T: Element>(
    cell: &dyn Kernels<T>,
    pass: Pass,
    job: &Job<'_, T>,
    rows: &[Row<T>],
    weights: &Panels<T>,
    member: &mut Member<'_>,
    downwards: bool,
    ahead: Option<(&Run<T>, (usize, usize))>,
) -> Option<()> {
    let hidden = job.shape.hidden;
    let share = member.meet()?;
    let panels = share.range(weights.count());
    let counts = cell.counts();
    if counts.fused {
        let ahead = ahead
            .map(|(next, slice)| next.slice(job, share.range(job.weights.input.count()), slice));
        // SAFETY: by the caller.
        unsafe {
            cell.step(pass, Step { rows, weights, panels, hidden, downwards, ahead }, job.level);
        }
        return Some(());
    }
    let x: Rows<*const T> = rows.iter().map(|row| pass.operand(row)).collect();
    let from = pass.gates(&counts).start * hidden;
    let y: Rows<*mut T> = rows.iter().map(|row| row.gh.wrapping_add(from)).collect();
    // SAFETY: by the caller; each row has room for the sums of all gates.
    unsafe {
        Product { x: &x, weights, panels, start: Start::Bias, y: &y }.run(job.level);
        if let Some(norms) = &job.norms {
            for row in rows {
                norms.hh.apply(row.item, numbers_mut(row.gh, job.shape.gate_columns()));
            }
        }
    }
    let groups = member.meet()?.range(hidden.div_ceil(GROUP));
    let units = groups.start * GROUP..(groups.end * GROUP).min(hidden);
    // SAFETY: by the caller; all sums are there.
    unsafe { cell.pointwise(pass, Pointwise { rows, hidden, units }, job.level) };
    Some(())
}
