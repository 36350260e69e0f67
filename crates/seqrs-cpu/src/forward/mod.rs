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
//!    Only a whole run is computed so, and only beside steps that there are: a shorter one is
//!    computed by itself.
//!
//!    One row of 100 steps: LSTM of 128, 256, 512 units 366 to 343 us, 1.49 to 1.43 ms, 6.3 to
//!    5.7 ms; GRU (reset after) of 128 and 512 units 264 to 241 us, 4.7 to 4.3 ms; RNN of 256
//!    units 355 to 316 us. A crew gains nothing (half of both matrices is more than its L2, where
//!    half of W_hh has room), nor do weights below 128 KiB, cells with two products, and AVX2,
//!    whose registers have room for a tile of 2 rows only.
//! 4. With small weights (`quantised`) the product of a step goes to memory (`matrix.rs`), and a run
//!    takes 128 KiB at most. Departure 3 is then of 5 steps of 8-bit weights and of 3 of bf16, from
//!    24 KiB of them on. int8, LSTM of 128, 256 and 512 units: 123, 420 and 1720 us to 118, 390 and
//!    1600; bf16: 375, 1230 and 4650 us to 270, 1030 and 4130. At 512 units a step of int8 then
//!    takes 13.4 us, where the weights alone take 9.6 to come: with W_ih in the nearest cache it
//!    would be 12.2. Tiles of 10 rows of 2 registers, which read W_ih half as often, gain nothing,
//!    as a run that is computed beside no other becomes twice as long. Panels are walked alternately
//!    up and down, as in `step.rs`.

mod products;
mod room;
mod run;

use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use seqrs_core::backend::{Backend, Forward, State};
use seqrs_core::memory::Lent;
use seqrs_core::rows::Place;
use seqrs_core::spec::Shape;
use seqrs_core::steps::{Direction, Steps};
use seqrs_core::tape::DirectionTape;
use seqrs_core::{Error, interrupt};
use smallvec::{SmallVec, smallvec};

use crate::cpu::Cpu;
use crate::crew::{Crew, Member};
use crate::kernels::{Kernels, Pass};
use crate::lanes::Element;
use crate::level::Level;
use crate::norms::{Norms, Shown};
use crate::shared::{Shared, numbers, numbers_mut};
use crate::shares::{Few, ROWS_AT_ONCE, blocks, shares, split_rows, threads};
use crate::state_masks::{Masks, multiply, scale};
use crate::step::Row;
use crate::team;
use crate::weights::Weights;
use products::Products;
use room::{Bench, Room};
use run::Run;

/// Steps of the first run of a crew.
const TO_WAKE_UP: usize = 4;

/// A list of rows or items; as [`Few`], few of them take no memory.
type Rows<T> = SmallVec<[T; 8]>;

/// Makes room for `len` in an empty list.
#[inline]
fn reserve<T>(list: &mut Rows<T>, what: &str, len: usize) -> Result<(), Error> {
    if len <= list.capacity() {
        return Ok(());
    }
    list.try_reserve_exact(len).map_err(|_| Error::OutOfMemory {
        what: what.to_owned(),
        bytes: len as u128 * size_of::<T>() as u128,
    })
}

/// Fills an empty list with so many of the same, to be overwritten; gives them. (A list looks where
/// it lies whenever it is asked.)
#[inline]
fn fill<'a, T: Copy>(
    list: &'a mut Rows<T>,
    what: &str,
    len: usize,
    value: T,
) -> Result<&'a mut [T], Error> {
    reserve(list, what, len)?;
    for _ in 0..len {
        list.push(value);
    }
    Ok(list)
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
    check(&run);
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
            let room = Room::new(cell.counts(), &job, batch.min(ROWS_AT_ONCE), false)?;
            for range in blocks(&(0..batch)) {
                // SAFETY: there is nobody else, and room for these rows.
                unsafe { rows_forward(cell, &job, &range, room.bench(), alone.member(0)) }?;
            }
        }
        return Ok(());
    }
    let jobs: Few<Job<'_, T>> = (0..directions).map(job).collect();
    let most = match jobs[0].has_passes_over_rows() {
        true => 1,
        false => run.weights[0].first.parts(),
    };
    let (parts, crew) = shares::<T>(threads, most, run.shape, run.steps);
    let ranges = split_rows(run.steps, parts.min(run.steps.batch()));
    let pairs = jobs.iter().flat_map(|job| ranges.iter().map(move |range| (job, range)));
    let rooms: Few<Room<T>> = pairs
        .clone()
        .map(|(job, range)| Room::new(cell.counts(), job, range.len().min(ROWS_AT_ONCE), crew > 1))
        .collect::<Result<_, Error>>()?;
    let crews: Few<Crew> = rooms.iter().map(|_| Crew::new(crew - 1)).collect();
    let mut results: Few<Result<(), Error>> = smallvec![Ok(()); rooms.len() * crew];
    let threads = threads.min(results.len());
    let workers = pairs.zip(&rooms).zip(&crews).flat_map(|(((job, range), room), crew)| {
        (0..crew.len()).map(move |k| (job, range, room.bench(), crew, k))
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

/// Workers write through pointers, so there has to be what they point to.
fn check<T: Element>(run: &Forward<'_, Cpu<T>>)
where
    Cpu<T>: Backend<Elem = T, Slice = [T], Weights = Weights<T>, Record = DirectionTape<Lent<T>>>,
{
    let Shape { hidden, state, directions, .. } = *run.shape;
    let is_small = run.weights.iter().any(Weights::is_small);
    assert!(!is_small || run.weights.iter().all(Weights::is_small), "weights of one form");
    assert!(!is_small || run.tape.is_empty(), "a layer of small weights is for inference only");
    let rows = (run.slot + directions) * run.steps.batch();
    let State { h, c } = &run.state;
    assert!(h.len() >= rows * state, "an h for every row");
    assert_eq!(c.is_some(), run.shape.cell.states() > 1, "a c for a cell that has one");
    assert!(c.as_ref().is_none_or(|c| c.len() >= rows * hidden), "a c for every row");
    let width = directions * state;
    assert!(run.y.data.len() >= end_of(run.y.place, run.steps, width), "a y for every item");
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
    let Bench { unprojected: m, seen, old_c, shown, saved, inputs, states, .. } = *bench;
    let weights = job.weights;
    let per_unit = weights.per_unit().as_ptr();
    // With which of its places each row's next step begins.
    let (mut turn, mut list) = (Rows::new(), Rows::new());
    let turn = fill(&mut turn, "rows", rows, 0)?;
    let list = fill(&mut list, "rows", rows, Row::nowhere())?;
    let (mut x, mut y) = (Rows::new(), Rows::new());
    let mut products = Products {
        counts,
        x: fill(&mut x, "rows", rows, null())?,
        y: fill(&mut y, "rows", rows, null_mut())?,
        operands: states,
        downwards: false,
    };
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
    // SAFETY: the bench has room for what becomes of the inputs of a run; only those of weights that
    // no crew shares become anything.
    unsafe { run.begin(job, range, 0..first.min(time), gx, inputs) };
    let Some(share) = member.meet() else { return Ok(()) };
    // SAFETY: each gx is a run of the buffer of its own.
    unsafe {
        run.product(job, share.range(weights.input.parts()));
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
        // SAFETY: as above; the inputs of this run have been multiplied.
        unsafe { next.begin(job, range, following, Shared(gx.at(half)), inputs) };
        // Of a single row, each item is a step.
        let goes_beside = beside && next.len() == chunk && run.len() > 0;
        let mut from = 0;
        for k in run.steps.clone() {
            let t = job.direction.step(k, time);
            let (items, rows_here) = job.steps.at_rows(t, range);
            if items.is_empty() {
                continue;
            }
            let ahead = goes_beside.then(|| next.ahead(job, from, run.len()));
            let mut count = 0;
            for (item, &b) in items.clone().zip(rows_here) {
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
                list[count] = Row {
                    gx: run.gates[from + count],
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
                };
                turn[row] = 1 - turn[row];
                count += 1;
            }
            from += count;
            let live = &list[..count];
            // SAFETY: the rows above lie in the crew's buffers, or in its rows of the job's;
            // h and h_new are different places, and members write different units. The other
            // half of gx belongs to the next run.
            unsafe {
                let now = Pass::Finish;
                let (of, m) = (&mut products, &mut member);
                let done = match &weights.second {
                    None => of.pass(cell, now, job, live, &weights.first, m, ahead),
                    Some(second) => {
                        let first = of.pass(cell, Pass::Open, job, live, &weights.first, m, None);
                        first.and_then(|()| {
                            mask_operands(job, live, rows_here);
                            of.pass(cell, now, job, live, second, m, None)
                        })
                    }
                };
                if done.is_none() {
                    return Ok(());
                }
                show(cell, job, live, shown);
            }
            // Columns of h that this member has computed.
            let mut mine = 0..state;
            if let Some(projection) = &weights.projection {
                let Some(share) = member.meet() else { return Ok(()) };
                let parts = share.range(projection.parts());
                mine = projection.columns_of(&parts);
                let h = |b: u32| {
                    let row = b as usize - range.start;
                    places.at((turn[row] * rows + row) * state)
                };
                let pairs = live.iter().zip(rows_here);
                let pairs = pairs.map(|(row, &b)| (row.h_new.cast_const(), h(b)));
                // SAFETY: m and the places are the crew's, and members write different
                // columns.
                unsafe { products.product(job, projection, pairs, parts, None) };
            }
            products.downwards = !products.downwards;
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
        if !next.steps.is_empty() {
            if !goes_beside {
                let Some(share) = member.meet() else { return Ok(()) };
                // SAFETY: as above; all steps that read this buffer are done.
                unsafe { next.product(job, share.range(weights.input.parts())) };
            }
            // SAFETY: as above.
            unsafe { next.normalise(job) };
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
