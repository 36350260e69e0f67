//! One layer with weights of small numbers over all steps, at inference.
//!
//! As in `forward.rs`, each worker takes some rows of one direction through all steps, and the
//! product with the input is computed for a run of steps at once. What is different:
//!
//! ```text
//! for each run of steps:
//!     q_x = operand(x)      gx = b_ih + q_x W_ih^T         one product for all of the run
//!     for each step of the run:
//!         q_h = operand(h)  gh = b_hh + q_h W_hh^T         to memory
//!         h, c = cell(gx, gh)                              a pass over it (`cells.rs`)
//! ```
//! Sums go to memory, so that products need not know of cells. An operand is a copy of h (or, for
//! bf16, gh is there before h changes), so h stays in one place. Rows are not shared by workers: a
//! step of one row would be too short for them to meet.
//!
//! # Departures
//! (measured on one core of an AMD EPYC with AVX-512 VNNI and 1 MB of L2; LSTM, one row of 100
//! steps; seqrs in floats takes 95, 348, 1440 and 5770 us for 64, 128, 256 and 512 units)
//!
//! 1. A step of one row whose weights come from L2 or beyond computes gates of the next run beside
//!    its own (`ahead.rs`). int8, 128, 256 and 512 units: 123, 420 and 1720 us to 118, 390 and
//!    1600; bf16: 375, 1230 and 4650 us to 270, 1030 and 4130. At 512 units a step of int8 then
//!    takes 13.4 us, where the weights alone take 9.6 to come: with W_ih in the nearest cache it
//!    would be 12.2. Tiles of 10 rows of 2 registers, which read W_ih half as often, gain nothing,
//!    as a run that is computed beside no other becomes twice as long.
//! 2. Panels are walked alternately up and down, as in `step.rs`.
//!
//! # Memory
//! For each range of rows that a worker takes (256 at most at a time), where `rounded(n)` is the
//! bytes of a row of int8 operands, n + 4 (0 for bf16):
//! ```text
//! chunk rows 4 G H            gates of a run: at most 128 KiB, or one step (beside: two runs)
//! rows 4 G H                  sums of the gates from the state
//! rows 4 (H + opened H)       between two products;  rows 4 H before a projection
//! chunk rows rounded(I) + rows rounded(H)
//! ```

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use seqrs_core::backend::State;
use seqrs_core::memory::{Lent, room};
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::spec::Shape;
use seqrs_core::steps::{Direction, Steps};
use seqrs_core::{Error, interrupt};

use super::ahead::Ahead;
use super::cells;
use super::matrix::Matrix;
use crate::cpu::Cpu;
use crate::forward::{Few, ROWS_AT_ONCE, Shared, blocks, split_rows, threads};
use crate::kernels::Pass;
use crate::level::Level;
use crate::step::{Pointwise, Row};
use crate::team;

/// Bytes of gates from the input that are computed ahead.
const AHEAD: usize = 128 << 10;

/// Runs that are worth a first one that is computed beside no other.
const WORTH_BESIDE: usize = 4;

/// The matrices of one direction of a layer.
#[derive(Debug)]
pub struct Weights {
    /// gx = x W_ih^T + b_ih.
    pub input: Matrix,
    /// gh = h' W_hh^T + b_hh for the gates of the first product.
    pub first: Matrix,
    /// The same for those of the second, in a cell with two.
    pub second: Option<Matrix>,
    /// h = m W_hr^T.
    pub projection: Option<Matrix>,
}

/// One layer's way forward; the fields of [`Forward`](seqrs_core::backend::Forward) that inference
/// has.
#[derive(Debug)]
pub struct Infer<'a> {
    /// Sizes of each direction.
    pub shape: &'a Shape,
    /// Which rows are live.
    pub steps: &'a Steps,
    /// The parameters, a direction each, packed for the level of the processor.
    pub weights: &'a [&'a Weights],
    /// Inputs, I numbers each.
    pub x: Rows<'a, [f32]>,
    /// States of the whole stack; each slot goes from its initial to its final value.
    pub state: State<&'a mut [f32]>,
    /// This layer's first slot in them.
    pub slot: usize,
    /// Outputs of live items, D times the state size each.
    pub y: RowsMut<'a, [f32]>,
}

/// One direction of the layer, as its workers see it.
struct Job<'a> {
    level: Level,
    shape: &'a Shape,
    steps: &'a Steps,
    direction: Direction,
    weights: &'a Weights,
    x: &'a [f32],
    x_place: Place,
    y: Shared<f32>,
    y_place: Place,
    /// This direction's slot of the states.
    h: Shared<f32>,
    c: Shared<f32>,
    stop: &'a AtomicBool,
}

/// Runs the layer.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Interrupted`].
///
/// # Panics
/// If x, y or the states are too short for the steps, or there are no kernels for the cell.
pub fn infer(cpu: &Cpu<f32>, mut run: Infer<'_>) -> Result<(), Error> {
    let Shape { hidden, state, directions, .. } = *run.shape;
    let batch = run.steps.batch();
    // Workers write through pointers.
    let slots = (run.slot + directions) * batch;
    assert!(run.state.h.len() >= slots * state, "an h for every row");
    assert!(run.state.c.as_ref().is_none_or(|c| c.len() >= slots * hidden), "a c for every row");
    assert_eq!(run.state.c.is_some(), run.shape.cell.states() > 1, "a c for a cell that has one");
    assert!(run.y.data.len() >= end_of(run.y.place, run.steps, directions * state), "rows of y");
    let stop = AtomicBool::new(false);
    let y = Shared(run.y.data.as_mut_ptr());
    let h = Shared(run.state.h.as_mut_ptr());
    let c = Shared::of(&mut run.state.c);
    let jobs: Few<Job<'_>> = (0..directions)
        .map(|d| {
            let slot = (run.slot + d) * batch;
            Job {
                level: cpu.level(),
                shape: run.shape,
                steps: run.steps,
                direction: Direction::BOTH[d],
                weights: run.weights[d],
                x: run.x.data,
                x_place: run.x.place,
                y,
                y_place: run.y.place.shifted(d * state),
                h: Shared(h.at(slot * state)),
                c: Shared(c.at(slot * hidden)),
                stop: &stop,
            }
        })
        .collect();
    let threads = threads(cpu, run.shape, run.steps);
    let ranges = split_rows(run.steps, threads.div_ceil(directions).min(batch.max(1)));
    let pairs = || jobs.iter().flat_map(|job| ranges.iter().map(move |range| (job, range)));
    let mut results: Few<Result<(), Error>> = pairs().map(|_| Ok(())).collect();
    let tasks = pairs().zip(&mut results).map(|((job, range), result)| {
        move || {
            *result = Bench::new(job, range.len().min(ROWS_AT_ONCE)).and_then(|mut bench| {
                blocks(range).try_for_each(|range| {
                    // SAFETY: each worker has rows of its own.
                    unsafe { rows_forward(job, &range, &mut bench) }
                })
            });
            if result.is_err() {
                job.stop.store(true, Ordering::Relaxed);
            }
        }
    });
    team::run_within(threads, tasks);
    results.into_iter().collect()
}

/// Where the last of rows of this width ends.
fn end_of(place: Place, steps: &Steps, width: usize) -> usize {
    let last = |count: usize, stride: usize| count.saturating_sub(1) * stride;
    match (steps.items(), place) {
        (0, _) => 0,
        (items, Place::Packed { start, stride }) => start + last(items, stride) + width,
        (_, Place::Padded { start, time, batch }) => {
            start + last(steps.time(), time) + last(steps.batch(), batch) + width
        }
    }
}

/// What a worker works with, for the rows that it takes at a time.
struct Bench {
    /// Steps that gates are computed ahead for.
    chunk: usize,
    /// Whether they are computed while the steps before wait for their weights.
    beside: bool,
    /// Gates from the input of a run of steps, or of two.
    gx: Lent<f32>,
    /// Sums of the gates from the state.
    gh: Lent<f32>,
    /// Between the products of a cell that has two.
    between: Lent<f32>,
    opened: Lent<f32>,
    /// The output before the projection.
    unprojected: Lent<f32>,
    /// Operands of the product with the input, and of the others.
    inputs: Lent<u8>,
    operands: Lent<u8>,
    run: Run,
    next: Run,
    /// Lists of rows, to be used again.
    x: Vec<*const u8>,
    y: Vec<*mut f32>,
    live: Vec<Row<f32>>,
}

impl Bench {
    fn new(job: &Job<'_>, rows: usize) -> Result<Self, Error> {
        let Shape { hidden, .. } = *job.shape;
        let counts = job.shape.cell.counts();
        let columns = counts.gates * hidden;
        let time = job.steps.time();
        let Weights { input, first, second, projection } = job.weights;
        let beside = first
            .rows_beside()
            .filter(|beside| rows == 1 && second.is_none() && time >= WORTH_BESIDE * beside);
        let chunk = match beside {
            Some(rows) => rows,
            None => (AHEAD / (rows * columns * size_of::<f32>()).max(1)).clamp(1, time.max(1)),
        };
        let items = chunk * rows;
        let runs = if beside.is_some() { 2 } else { 1 };
        let others = [Some(first), second.as_ref(), projection.as_ref()];
        let bytes = others.into_iter().flatten().map(Matrix::operand_bytes).max().unwrap_or(0);
        let workspace =
            |used: bool, len| Lent::new("workspace of a layer", if used { len } else { 0 });
        Ok(Self {
            chunk,
            beside: beside.is_some(),
            gx: Lent::new("inputs of the gates", runs * items * columns)?,
            gh: Lent::new("sums of the gates", rows * columns)?,
            between: workspace(second.is_some(), rows * hidden)?,
            opened: workspace(second.is_some(), rows * counts.opened * hidden)?,
            unprojected: workspace(projection.is_some(), rows * hidden)?,
            inputs: Lent::new("operands", runs * items * input.operand_bytes())?,
            operands: Lent::new("operands", rows * bytes)?,
            run: Run::new(items)?,
            next: Run::new(items)?,
            x: room("rows", rows)?,
            y: room("rows", rows)?,
            live: room("rows", rows)?,
        })
    }
}

/// A buffer that is not there is a null pointer, as the cells expect.
fn start_of(buffer: &mut Lent<f32>) -> Shared<f32> {
    Shared(if buffer.is_empty() { std::ptr::null_mut() } else { buffer.as_mut_ptr() })
}

/// The product with the input for some steps of some rows.
struct Run {
    steps: Range<usize>,
    x: Vec<*const u8>,
    gates: Vec<*mut f32>,
}

impl Run {
    fn new(items: usize) -> Result<Self, Error> {
        let (x, gates) = (room("items of a run", items)?, room("items of a run", items)?);
        Ok(Self { steps: 0..0, x, gates })
    }

    /// These steps of the rows of `range`, their operands and gates from here on.
    ///
    /// # Safety
    /// Both have room for them, and nobody else uses it.
    unsafe fn begin(
        &mut self,
        job: &Job<'_>,
        range: &Range<usize>,
        steps: Range<usize>,
        operands: Shared<u8>,
        gates: Shared<f32>,
    ) {
        self.x.clear();
        self.gates.clear();
        let (columns, matrix) = (job.shape.gate_columns(), &job.weights.input);
        for k in steps.clone() {
            let t = job.direction.step(k, job.steps.time());
            let (items, rows) = job.steps.at_rows(t, range);
            for (item, &b) in items.zip(rows) {
                let place = job.x_place.offset(item, t, b as usize);
                let x = job.x[place..][..job.shape.input].as_ptr();
                let to = operands.at(self.x.len() * matrix.operand_bytes());
                // SAFETY: by the caller.
                self.x.push(unsafe { matrix.operand(x, to) });
                self.gates.push(gates.at(self.gates.len() * columns));
            }
        }
        self.steps = steps;
    }

    /// # Safety
    /// As [`begin`](Self::begin).
    unsafe fn product(&self, job: &Job<'_>) {
        // SAFETY: by the caller; each x was sliced.
        unsafe { job.weights.input.product_of(&self.x, &self.gates, false) };
    }

    /// What of it is computed beside the `part`-th of `parts` products of one row.
    fn ahead<'a>(&'a self, job: &'a Job<'_>, part: usize, parts: usize) -> Ahead<'a, Matrix> {
        Ahead { matrix: &job.weights.input, x: &self.x, y: &self.gates, part, parts }
    }
}

/// One product of a step with all rows that are live, from memory to memory.
struct Recurrent<'a> {
    operands: Shared<u8>,
    x: &'a mut Vec<*const u8>,
    y: &'a mut Vec<*mut f32>,
    downwards: bool,
}

impl Recurrent<'_> {
    /// # Safety
    /// As [`Matrix::product_of`], with the rows as they are; the operands have room for them.
    unsafe fn product(
        &mut self,
        matrix: &Matrix,
        rows: impl Iterator<Item = (*const f32, *mut f32)>,
        ahead: Option<Ahead<'_, Matrix>>,
    ) {
        self.x.clear();
        self.y.clear();
        for (x, y) in rows {
            let to = self.operands.at(self.x.len() * matrix.operand_bytes());
            // SAFETY: by the caller.
            self.x.push(unsafe { matrix.operand(x, to) });
            self.y.push(y);
        }
        // SAFETY: by the caller.
        unsafe {
            match ahead {
                None => matrix.product_of(self.x, self.y, self.downwards),
                Some(ahead) => {
                    matrix.product_beside(self.x[0], self.y[0], self.downwards, ahead);
                }
            }
        }
    }
}

/// Takes the rows of `range` through all steps.
///
/// # Safety
/// Nobody else uses these rows of the job's direction.
unsafe fn rows_forward(
    job: &Job<'_>,
    range: &Range<usize>,
    bench: &mut Bench,
) -> Result<(), Error> {
    let Shape { cell, hidden, state, .. } = *job.shape;
    let counts = cell.counts();
    let columns = counts.gates * hidden;
    let (rows, time) = (range.len(), job.steps.time());
    let Weights { input, first, second, projection } = job.weights;
    let projected = projection.is_some();
    let gx = start_of(&mut bench.gx);
    let gh = start_of(&mut bench.gh);
    let between = start_of(&mut bench.between);
    let opened = start_of(&mut bench.opened);
    let unprojected = start_of(&mut bench.unprojected);
    let inputs = Shared(bench.inputs.as_mut_ptr());
    let operands = Shared(bench.operands.as_mut_ptr());
    let Bench { chunk, beside, run, next, x, y, live, .. } = bench;
    let (chunk, beside) = (*chunk, *beside);
    let mut recurrent = Recurrent { operands, x, y, downwards: false };
    let mut other = false;
    // SAFETY: this worker's room; each half is used by one run at a time.
    unsafe {
        run.begin(job, range, 0..chunk.min(time), inputs, gx);
        run.product(job);
    }
    while !run.steps.is_empty() {
        interrupt::check()?;
        if job.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let following = run.steps.end..(run.steps.end + chunk).min(time);
        if beside {
            other = !other;
            let half = usize::from(other) * chunk * rows;
            let operands = inputs.at(half * input.operand_bytes());
            // SAFETY: as above.
            unsafe {
                let gates = Shared(gx.at(half * columns));
                next.begin(job, range, following.clone(), Shared(operands), gates);
            }
        }
        // A shorter one is computed by itself, and one after a run without a live step too.
        let beside_now = beside && next.x.len() == chunk && !run.x.is_empty();
        let mut done = 0;
        for k in run.steps.clone() {
            let t = job.direction.step(k, time);
            let (items, rows) = job.steps.at_rows(t, range);
            live.clear();
            for (item, &b) in items.zip(rows) {
                let (b, row) = (b as usize, b as usize - range.start);
                let h = job.h.at(b * state);
                live.push(Row {
                    gx: run.gates[done + live.len()],
                    gh: gh.at(row * columns),
                    per_unit: std::ptr::null(),
                    h,
                    seen: h,
                    h_new: if projected { unprojected.at(row * hidden) } else { h },
                    c: job.c.at(b * hidden),
                    operand: between.at(row * hidden),
                    opened: opened.at(row * counts.opened * hidden),
                    y: match projected {
                        true => std::ptr::null_mut(),
                        false => job.y.at(job.y_place.offset(item, t, b)),
                    },
                    item,
                    saved: std::ptr::null_mut(),
                    cells: std::ptr::null_mut(),
                });
            }
            if live.is_empty() {
                continue;
            }
            // Of a single row, each item of the run is a step.
            let ahead = beside_now.then(|| next.ahead(job, done, run.x.len()));
            done += live.len();
            // SAFETY: the rows lie in this worker's room, or are its rows of the states and of y.
            unsafe {
                let cell_pass = |pass| {
                    let on = Pointwise { rows: live, hidden, units: 0..hidden };
                    cells::pass(cell, pass, on, job.level);
                };
                recurrent.product(first, live.iter().map(|row| (row.h, row.gh)), ahead);
                if let Some(second) = second {
                    cell_pass(Pass::Open);
                    let late = counts.first_gates * hidden;
                    let rows = live.iter();
                    let rows =
                        rows.map(|row| (row.operand.cast_const(), row.gh.wrapping_add(late)));
                    recurrent.product(second, rows, None);
                }
                cell_pass(Pass::Finish);
                if let Some(projection) = projection {
                    let rows = live.iter();
                    let rows = rows.map(|row| (row.h_new.cast_const(), row.h.cast_mut()));
                    recurrent.product(projection, rows, None);
                    let (items, rows) = job.steps.at_rows(t, range);
                    for ((item, &b), row) in items.zip(rows).zip(live.iter()) {
                        let y = job.y.at(job.y_place.offset(item, t, b as usize));
                        std::ptr::copy_nonoverlapping(row.h, y, state);
                    }
                }
            }
            recurrent.downwards = !recurrent.downwards;
        }
        // SAFETY: as above; what was read of the one buffer is done with, if there is one.
        unsafe {
            if !beside {
                next.begin(job, range, following, inputs, gx);
            }
            if !beside_now {
                next.product(job);
            }
        }
        std::mem::swap(run, next);
    }
    Ok(())
}
