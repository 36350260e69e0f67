//! One layer over all steps.
//!
//! Rows do not depend on each other, and directions neither: each worker takes some rows of
//! one direction through all steps, and never waits for another. What does not depend on
//! the state (x W_ih^T) is computed for a run of steps at once, as many as stay in cache.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use seqrs_core::backend::Forward;
use seqrs_core::cell::{Bundle, Cell};
use seqrs_core::memory::zeros;
use seqrs_core::rows::Place;
use seqrs_core::spec::Shape;
use seqrs_core::steps::{Direction, Steps};
use seqrs_core::{Error, interrupt};

use crate::cpu::Cpu;
use crate::lanes::Element;
use crate::level::Level;
use crate::product::{Product, Start};
use crate::step::{Finish, Open, Row, Step};
use crate::team;
use crate::weights::Weights;

/// Bytes of gates from the input that are computed ahead: about half of a core's L2.
const AHEAD: usize = 512 << 10;

/// Multiply-adds that are worth a second thread: some tens of microseconds.
pub(crate) const WORTH_A_THREAD: usize = 1 << 20;

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

    pub(crate) fn of(buffer: &mut Option<Vec<T>>) -> Self {
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
    stop: &'a AtomicBool,
}

/// Cuts the rows into `parts` ranges with about as many live steps each.
pub(crate) fn split_rows(steps: &Steps, parts: usize) -> Vec<Range<usize>> {
    if parts <= 1 || steps.is_dense() {
        return team::split(steps.batch(), parts, 1);
    }
    let live = steps.live_steps();
    let total: usize = live.iter().sum();
    let mut ranges = Vec::with_capacity(parts);
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

/// How many ranges to cut the rows of each direction into.
pub(crate) fn parts<T: Element>(cpu: &Cpu<T>, shape: &Shape, steps: &Steps) -> usize {
    let work = steps.items() * shape.gate_columns() * (shape.input + shape.state);
    let threads = cpu.threads_for(work * shape.directions);
    threads.div_ceil(shape.directions)
}

pub(crate) fn forward<C: Cell, T: Element>(
    cpu: &Cpu<T>,
    run: Forward<'_, Cpu<T>>,
) -> Result<(), Error>
where
    Cpu<T>:
        seqrs_core::backend::Backend<Elem = T, Slice = [T], Buffer = Vec<T>, Weights = Weights<T>>,
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
    let jobs: Vec<Job<'_, T>> = (0..directions)
        .map(|d| {
            let slot = (run.slot + d) * batch;
            let (saved, cells) = match tape.next() {
                None => (Shared(std::ptr::null_mut()), Shared(std::ptr::null_mut())),
                Some(tape) => (Shared(tape.saved.as_mut_ptr()), Shared::of(&mut tape.c)),
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
                stop: &stop,
            }
        })
        .collect();
    let ranges = split_rows(run.steps, parts(cpu, run.shape, run.steps));
    let mut results = vec![Ok(()); jobs.len() * ranges.len()];
    let pairs = jobs.iter().flat_map(|job| ranges.iter().map(move |range| (job, range)));
    team::run(
        pairs
            .zip(&mut results)
            .map(|((job, range), result)| {
                move || {
                    // SAFETY: each worker has rows and columns of its own.
                    *result = unsafe { rows_forward::<C, T>(job, range) };
                    if result.is_err() {
                        job.stop.store(true, Ordering::Relaxed);
                    }
                }
            })
            .collect(),
    );
    results.into_iter().collect()
}

/// Takes the rows of `range` through all steps.
///
/// # Safety
/// Nobody else uses these rows of the job's direction.
unsafe fn rows_forward<C: Cell, T: Element>(
    job: &Job<'_, T>,
    range: &Range<usize>,
) -> Result<(), Error> {
    let Shape { hidden, state, ref weight_hr, .. } = *job.shape;
    let columns = C::GATES * hidden;
    let (rows, time) = (range.len(), job.steps.time());
    let two_products = C::FIRST_GATES < C::GATES;
    let opened_len = <C::Opened<f32> as Bundle<f32>>::NAMES.len() * hidden;

    // Two places for the hidden state of each row, used in turn, as a step reads all of h'
    // while it writes h. A row's turn changes only when it is live.
    let mut places = zeros::<T>("states", 2 * rows * state)?;
    for (k, b) in range.clone().enumerate() {
        // SAFETY: row b of this direction's h.
        let h = unsafe { std::slice::from_raw_parts(job.h.at(b * state), state) };
        places[k * state..][..state].copy_from_slice(h);
    }
    let places = Shared(places.as_mut_ptr());
    let mut turn = vec![0; rows];

    let mut operand = optional::<T>(two_products, rows * hidden)?;
    let mut opened = optional::<T>(two_products, rows * opened_len)?;
    let mut unprojected = optional::<T>(weight_hr.is_some(), rows * hidden)?;
    let operand = Shared::of(&mut operand);
    let opened = Shared::of(&mut opened);
    let m = Shared::of(&mut unprojected);

    let chunk = (AHEAD / (rows * columns * size_of::<T>()).max(1)).clamp(1, time.max(1));
    let mut gx = zeros::<T>("inputs of the gates", chunk.min(time) * rows * columns)?;
    let gx_start = Shared(gx.as_mut_ptr());
    let mut inputs: Vec<*const T> = Vec::with_capacity(chunk * rows);
    let mut gates: Vec<*mut T> = Vec::with_capacity(chunk * rows);
    let mut live: Vec<Row<T>> = Vec::with_capacity(rows);
    let mut downwards = false;

    for first in (0..time).step_by(chunk) {
        interrupt::check()?;
        if job.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let steps = first..(first + chunk).min(time);
        inputs.clear();
        gates.clear();
        for k in steps.clone() {
            let t = job.direction.step(k, time);
            let (items, rows) = job.steps.at_rows(t, range);
            for (item, &b) in items.zip(rows) {
                let x = job.x_place.offset(item, t, b as usize);
                inputs.push(job.x[x..x + job.shape.input].as_ptr());
                gates.push(gx_start.at(gates.len() * columns));
            }
        }
        // SAFETY: each x was sliced; each gx is a run of the buffer of its own.
        unsafe {
            Product { x: &inputs, weights: &job.weights.input, start: Start::Bias, y: &gates }
                .run(job.level);
        }
        let mut next = 0;
        for k in steps {
            let t = job.direction.step(k, time);
            let (items, rows_here) = job.steps.at_rows(t, range);
            live.clear();
            for (item, &b) in items.zip(rows_here) {
                let (b, row) = (b as usize, b as usize - range.start);
                let place = |turn: usize| places.at((turn * rows + row) * state);
                let y = job.y.at(job.y_place.offset(item, t, b));
                let projected = !m.0.is_null();
                live.push(Row {
                    gx: gates[next],
                    h: place(turn[row]),
                    h_new: if projected { m.at(row * hidden) } else { place(1 - turn[row]) },
                    c: job.c.at(b * hidden),
                    operand: operand.at(row * hidden),
                    opened: opened.at(row * opened_len),
                    y: if projected { std::ptr::null_mut() } else { y },
                    saved: job.saved.at(item * C::SAVED * hidden),
                    cells: job.cells.at(item * hidden),
                });
                turn[row] = 1 - turn[row];
                next += 1;
            }
            let weights = job.weights;
            // SAFETY: the rows above lie in buffers of this worker, or in this worker's
            // rows of the job's; h and h_new are different places.
            unsafe {
                if let Some(second) = &weights.second {
                    step::<C, T, Open>(job, &live, &weights.first, downwards);
                    step::<C, T, Finish>(job, &live, second, downwards);
                } else {
                    step::<C, T, Finish>(job, &live, &weights.first, downwards);
                }
            }
            downwards = !downwards;
            if let Some(projection) = &weights.projection {
                let x: Vec<*const T> = live.iter().map(|row| row.h_new.cast_const()).collect();
                let (items, rows_here) = job.steps.at_rows(t, range);
                let h: Vec<*mut T> = rows_here
                    .iter()
                    .map(|&b| b as usize - range.start)
                    .map(|row| places.at((turn[row] * rows + row) * state))
                    .collect();
                // SAFETY: m and the places are buffers of this worker.
                unsafe {
                    Product { x: &x, weights: projection, start: Start::Bias, y: &h }
                        .run(job.level);
                }
                for ((item, &b), h) in items.zip(rows_here).zip(h) {
                    let y = job.y.at(job.y_place.offset(item, t, b as usize));
                    // SAFETY: the output of this worker's row.
                    unsafe { std::ptr::copy_nonoverlapping(h, y, state) };
                }
            }
        }
    }
    for (k, b) in range.clone().enumerate() {
        let from = places.at((turn[k] * rows + k) * state);
        // SAFETY: row b of this direction's h, from a place of this worker.
        unsafe { std::ptr::copy_nonoverlapping(from, job.h.at(b * state), state) };
    }
    Ok(())
}

/// # Safety
/// As [`Step::run`].
unsafe fn step<C: Cell, T: Element, S: crate::step::Stage>(
    job: &Job<'_, T>,
    rows: &[Row<T>],
    weights: &crate::pack::Panels<T>,
    downwards: bool,
) {
    let step = Step::<'_, T, C, S> {
        rows,
        weights,
        hidden: job.shape.hidden,
        downwards,
        cell: PhantomData,
    };
    // SAFETY: by the caller.
    unsafe { step.run(job.level) };
}

/// A buffer, if it is needed.
fn optional<T: Element>(needed: bool, len: usize) -> Result<Option<Vec<T>>, Error> {
    needed.then(|| zeros("workspace", len)).transpose()
}
