//! One layer's way back over all steps.
//!
//! Three phases, each shared between the threads along an axis on which nothing is summed:
//!
//! 1. back through time, by rows and directions: the gradients of all gates (and, by the
//!    way, of the states);
//! 2. d_x = d_gx W_ih, by items;
//! 3. d_W += d_g^T operand, by rows of d_W.
//!
//! Where rows are too few to give each thread some, phase 1 is shared as on the way forward
//! (`crew.rs`), with one meeting a step for most cells (LSTM, one row, 256 units, two
//! threads: training takes 0.56 of the time of one, 0.67 with phases 2 and 3 shared alone).
//!
//! # Memory
//! For one layer at a time, in numbers of the layer's type, for N live steps:
//! ```text
//! N D G H   gradients of the gates, twice where their parts differ (the reset-after GRU)
//! N D H     the operand of a second product (the reset-before GRU)
//! N D 3 H   what each step adds to the gradients of peepholes
//! N D (H+P) around a projection
//! N D P     what the products saw of h, with recurrent dropout
//! N D (5 G H + 2 H)  what norms leave: the second part of the gates, and what biases and norms add up
//! ```
//! They are written once and read twice; from fresh pages that took up to a third of a step
//! of training, so the buffers stay for the next (`seqrs_core::memory`).

use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use seqrs_core::backend::Backward;
use seqrs_core::cell::Counts;
use seqrs_core::layer_norm;
use seqrs_core::memory::{Lent, room, zeros};
use seqrs_core::rows::Rows;
use seqrs_core::spec::Shape;
use seqrs_core::steps::{Direction, Steps};
use seqrs_core::tape::DirectionTape;
use seqrs_core::{Error, interrupt};

use crate::cpu::Cpu;
use crate::crew::{Crew, Member};
use crate::kernels::{Back, Kernels};
use crate::lanes::Element;
use crate::level::Level;
use crate::norms::{Norms, Shown};
use crate::outer::{Outer, Term};
use crate::product::{Product, Start};
use crate::shared::{Shared, numbers, numbers_mut};
use crate::shares::{ROWS_AT_ONCE, blocks, shares, split_rows, threads};
use crate::state_masks::{Masks, add as add_to, multiply, scale};
use crate::step_back::BackRow;
use crate::team;
use crate::weights;

/// Multiply-adds between two looks at whether to stop: some tens of milliseconds.
const BLOCK: usize = 1 << 31;

/// How many times the work that is worth an awake thread is worth one that has to be called for
/// phases 2 and 3 alone: with one row of 64 units, whose phase 1 is not shared, calling took
/// training a GRU from 206 to 262 us, and an LSTM from 275 to 380.
const WORTH_A_CALL: usize = 4;

/// Items whose pointers are gathered at once.
const ITEMS: usize = 1 << 14;

/// The gradients of one direction's gates, and what else the way back through time leaves.
struct Gradients<T: Element> {
    previous: Vec<u32>,
    /// (items, G H), the part of the input.
    d_gx: Lent<T>,
    /// (items, G H), the part of the state where it differs.
    d_gh: Option<Lent<T>>,
    /// (items, H), the operand of the second product of a cell with two.
    operand: Option<Lent<T>>,
    /// (items, runs of H), of what each unit has for itself.
    d_per_unit: Option<Lent<T>>,
    /// (items, H) what went into the projection, and (items, P) the gradient of its result.
    unprojected: Option<Lent<T>>,
    d_out: Option<Lent<T>>,
    /// (items, state size), what the first product saw of h, where that is not h.
    seen: Option<Lent<T>>,
    /// (items, 4 G H + 2 H), what each item adds to the gradients of biases and norms, where there
    /// are norms ([`OfNorms`]).
    of_norms: Option<Lent<T>>,
}

/// One direction of the layer, as its workers see it.
struct Job<'a, T: Element> {
    level: Level,
    d: usize,
    shape: &'a Shape,
    steps: &'a Steps,
    back: &'a weights::Back<T>,
    per_unit: &'a [T],
    tape: &'a DirectionTape<Lent<T>>,
    y: &'a [T],
    d_y: Option<Rows<'a, [T]>>,
    previous: &'a [u32],
    /// This direction's slot of the states' gradients.
    d_h: Shared<T>,
    d_c: Shared<T>,
    d_gx: Shared<T>,
    d_gh: Shared<T>,
    operand: Shared<T>,
    d_per_unit: Shared<T>,
    unprojected: Shared<T>,
    d_out: Shared<T>,
    seen: Shared<T>,
    of_norms: Shared<T>,
    masks: Masks<'a, T>,
    norms: Option<Norms<'a, T>>,
    stop: &'a AtomicBool,
}

impl<T: Element> Job<'_, T> {
    /// Whether h shows a cell state after its norm.
    fn shows(&self) -> bool {
        self.norms.as_ref().is_some_and(|norms| norms.c.is_some())
    }

    /// What the step gave as h at `item`, before zoneout.
    fn stepped_h(&self, item: usize) -> *const T {
        match &self.tape.stepped_h {
            Some(stepped) => stepped[item * self.shape.state..][..self.shape.state].as_ptr(),
            None => self.h_at(item),
        }
    }

    /// Output of `item` in this direction.
    fn h_at(&self, item: usize) -> *const T {
        let Shape { state, directions, .. } = *self.shape;
        self.y[(item * directions + self.d) * state..][..state].as_ptr()
    }

    /// Hidden and cell state before `item`; null cells for a cell without.
    fn before(&self, item: usize) -> (*const T, *const T) {
        let Shape { hidden, state, .. } = *self.shape;
        let batch = self.steps.batch();
        let at = self.previous[item] as usize;
        let row = |buffer: &Option<Lent<T>>, at: usize| match buffer {
            Some(buffer) => buffer[at * hidden..][..hidden].as_ptr(),
            None => std::ptr::null(),
        };
        match at.checked_sub(batch) {
            None => (self.tape.h0[at * state..][..state].as_ptr(), row(&self.tape.c0, at)),
            Some(item) => (self.h_at(item), row(&self.tape.c, item)),
        }
    }
}

pub(crate) fn backward<T: Element>(
    cell: &dyn Kernels<T>,
    cpu: &Cpu<T>,
    run: Backward<'_, Cpu<T>>,
) -> Result<(), Error> {
    let Shape { hidden, state, directions, ref weight_hr, .. } = *run.shape;
    let (items, batch) = (run.steps.items(), run.steps.batch());
    let counts = cell.counts();
    let columns = counts.gates * hidden;
    let of_units = counts.per_unit * hidden;
    // Their norms make the gradients of the two sums differ.
    let one_gate_gradient = counts.one_gate_gradient && run.shape.norms.is_none();
    let of_norms = OfNorms { columns, hidden };
    let stop = AtomicBool::new(false);

    let mut backs = Vec::with_capacity(directions);
    let mut gradients = Vec::with_capacity(directions);
    for d in 0..directions {
        let optional = |needed: bool, len| {
            needed.then(|| Lent::<T>::new("workspace of the way back", len)).transpose()
        };
        backs.push(run.weights[d].back(cpu.level())?);
        gradients.push(Gradients {
            previous: run.steps.previous(Direction::BOTH[d])?,
            d_gx: Lent::new("gradients of the gates", items * columns)?,
            d_gh: optional(!one_gate_gradient, items * columns)?,
            operand: optional(counts.two_products(), items * hidden)?,
            d_per_unit: optional(counts.per_unit > 0, items * of_units)?,
            unprojected: optional(weight_hr.is_some(), items * hidden)?,
            d_out: optional(weight_hr.is_some(), items * state)?,
            seen: optional(
                run.masks.get(d).is_some_and(|masks| masks.recurrent.is_some()),
                items * state,
            )?,
            of_norms: optional(run.shape.norms.is_some(), items * of_norms.len())?,
        });
    }

    let d_h = Shared(run.d_state.h.as_mut_ptr());
    let d_c = Shared::of(&mut run.d_state.c);
    let jobs: Vec<Job<'_, T>> = gradients
        .iter_mut()
        .enumerate()
        .map(|(d, gradients)| {
            let slot = (run.slot + d) * batch;
            let d_gx = Shared(gradients.d_gx.as_mut_ptr());
            Job {
                level: cpu.level(),
                d,
                shape: run.shape,
                steps: run.steps,
                back: backs[d],
                per_unit: run.weights[d].per_unit(),
                tape: &run.tape[d],
                y: run.y,
                d_y: run.d_y.map(|d_y| Rows { place: d_y.place.shifted(d * state), ..d_y }),
                previous: &gradients.previous,
                d_h: Shared(d_h.at(slot * state)),
                d_c: Shared(d_c.at(slot * hidden)),
                d_gx,
                d_gh: match &mut gradients.d_gh {
                    Some(d_gh) => Shared(d_gh.as_mut_ptr()),
                    None => d_gx,
                },
                operand: Shared::of(&mut gradients.operand),
                d_per_unit: Shared::of(&mut gradients.d_per_unit),
                unprojected: Shared::of(&mut gradients.unprojected),
                d_out: Shared::of(&mut gradients.d_out),
                seen: Shared::of(&mut gradients.seen),
                of_norms: Shared::of(&mut gradients.of_norms),
                masks: Masks::new(run.shape, run.masks.get(d)),
                norms: Norms::new(&run.weights[d], None),
                stop: &stop,
            }
        })
        .collect();

    // 1. back through time
    let threads = threads(cpu, run.shape, run.steps);
    let alone = !jobs[0].masks.are_none() || jobs[0].norms.is_some();
    let parts = if alone { 1 } else { backs[0].first.count() };
    let (ranges, crew) = shares::<T>(threads, parts, run.shape, run.steps);
    let ranges = split_rows(run.steps, ranges);
    let pairs = jobs.iter().flat_map(|job| ranges.iter().map(move |range| (job, range)));
    let mut rooms: Vec<Room<T>> = pairs
        .clone()
        .map(|(job, range)| Room::new(job, range.len().min(ROWS_AT_ONCE)))
        .collect::<Result<_, Error>>()?;
    let crews: Vec<Crew> = rooms.iter().map(|_| Crew::new(crew - 1)).collect();
    let worth = if threads.min(rooms.len() * crew) > 1 { 1 } else { WORTH_A_CALL };
    let benches: Vec<Bench<T>> = rooms.iter_mut().map(Room::view).collect();
    let mut results = vec![Ok(()); benches.len() * crew];
    let workers = pairs.zip(&benches).zip(&crews).flat_map(|(((job, range), bench), crew)| {
        (0..crew.len()).map(move |k| (job, range, bench, crew, k))
    });
    let tasks = workers.zip(&mut results).map(|((job, range, bench, crew, k), result)| {
        move || {
            *result = blocks(range).try_for_each(|range| {
                // SAFETY: each crew has rows of one direction and room for them to itself.
                unsafe { rows_backward(cell, job, &range, bench, crew.member(k)) }
            });
            if result.is_err() {
                job.stop.store(true, Ordering::Relaxed);
            }
        }
    });
    team::run_within(threads, tasks);
    crews.into_iter().for_each(Crew::disband);
    results.into_iter().collect::<Result<(), Error>>()?;

    // 2. the gradients of the inputs, the directions one after the other
    let work = items * columns * run.shape.input * directions;
    if let Some(d_x) = run.d_x {
        let input = run.shape.input;
        let d_x = Shared(d_x.as_mut_ptr());
        let by_items = |range: Range<usize>| {
            let block = (BLOCK / (columns * input)).clamp(1, ITEMS);
            let mut x = room("items of a block", block)?;
            let mut y = room("items of a block", block)?;
            for first in range.clone().step_by(block) {
                interrupt::check()?;
                let items = first..(first + block).min(range.end);
                y.clear();
                y.extend(items.clone().map(|item| d_x.at(item * input)));
                for job in &jobs {
                    x.clear();
                    x.extend(items.clone().map(|item| job.d_gx.at(item * columns).cast_const()));
                    let start = if job.d == 0 { Start::Bias } else { Start::Y };
                    let weights = &job.back.input;
                    let product = Product { x: &x, weights, panels: weights.all(), start, y: &y };
                    // SAFETY: the gates' gradients are only read from here on; each worker
                    // has items of d_x to itself.
                    unsafe { product.run(cpu.level()) };
                }
            }
            Ok(())
        };
        let ranges = team::split(items, cpu.threads_for(work / worth), 1);
        let mut results = vec![Ok(()); ranges.len()];
        team::run(
            ranges
                .into_iter()
                .zip(&mut results)
                .map(|(range, result)| || *result = by_items(range))
                .collect(),
        );
        results.into_iter().collect::<Result<(), Error>>()?;
    }

    // 3. the gradients of the weights
    for job in &jobs {
        let shape = run.shape;
        let d_parameters =
            &mut run.d_parameters[run.d_start + job.d * shape.len()..][..shape.len()];
        let x = |item: usize| run.x[item * shape.input..][..shape.input].as_ptr();
        let before = |item: usize| match job.masks.recurrent {
            None => job.before(item).0,
            Some(_) => job.seen.at(item * state).cast_const(),
        };
        let (d_gx, d_gh) = (job.d_gx, job.d_gh);
        let d_gx = move |item: usize| d_gx.at(item * columns).cast_const();
        let d_gh = move |item: usize| d_gh.at(item * columns).cast_const();
        let (operand, m, d_out) = (job.operand, job.unprojected, job.d_out);
        let d_per_unit = job.d_per_unit;
        let d_per_unit = move |item: usize| d_per_unit.at(item * of_units).cast_const();
        let operand = move |item: usize| operand.at(item * hidden).cast_const();
        let m = move |item: usize| m.at(item * hidden).cast_const();
        let d_out = move |item: usize| d_out.at(item * state).cast_const();

        // Biases come after the norms.
        let start = |range: &Option<Range<usize>>| match shape.norms {
            None => range.as_ref().map(|range| range.start),
            Some(_) => None,
        };
        let of_x = Factor {
            x: &x,
            depth: shape.input,
            d_w: shape.weight_ih.start,
            d_b: start(&shape.bias_ih),
        };
        let of_h =
            |x| Factor { x, depth: state, d_w: shape.weight_hh.start, d_b: start(&shape.bias_hh) };
        let first = counts.first_gates * hidden;
        let stages: [(Range<usize>, Factor<'_, T>); 2] =
            [(0..first, of_h(&before)), (first..columns, of_h(&operand))];
        if one_gate_gradient {
            for (gates, of_h) in stages {
                add(cpu, worth, items, &d_gx, gates, &[of_x, of_h], d_parameters)?;
            }
        } else {
            add(cpu, worth, items, &d_gx, 0..columns, &[of_x], d_parameters)?;
            for (gates, of_h) in stages {
                add(cpu, worth, items, &d_gh, gates, &[of_h], d_parameters)?;
            }
        }
        if let Some(w_hr) = weight_hr {
            let of_m = Factor { x: &m, depth: hidden, d_w: w_hr.start, d_b: None };
            add(cpu, worth, items, &d_out, 0..state, &[of_m], d_parameters)?;
        }
        // Summed as a bias is: there is no operand.
        let alone = Factor { x: &d_per_unit, depth: 0, d_w: 0, d_b: Some(shape.per_unit.start) };
        add(cpu, worth, items, &d_per_unit, 0..of_units, &[alone], d_parameters)?;
        for (from, range) in of_norms.parts(shape) {
            let rows = job.of_norms;
            let d = move |item: usize| rows.at(item * of_norms.len() + from).cast_const();
            let alone = Factor { x: &d, depth: 0, d_w: 0, d_b: Some(range.start) };
            add(cpu, worth, items, &d, 0..range.len(), &[alone], d_parameters)?;
        }
    }
    Ok(())
}

/// A row of what an item adds to the gradients of biases and norms: G H for each of `bias_ih`,
/// `bias_hh`, `norm_ih` and `norm_hh`, H for each of `norm_c` and `norm_bias_c`.
#[derive(Clone, Copy)]
struct OfNorms {
    columns: usize,
    hidden: usize,
}

impl OfNorms {
    fn len(self) -> usize {
        4 * self.columns + 2 * self.hidden
    }

    /// Where in the row what belongs to which parameters is.
    fn parts(self, shape: &Shape) -> Vec<(usize, Range<usize>)> {
        let Some(norms) = &shape.norms else { return Vec::new() };
        let gates = [&shape.bias_ih, &shape.bias_hh].map(Clone::clone);
        let gates =
            gates.into_iter().chain([&norms.ih, &norms.hh].map(|range| Some(range.clone())));
        let gates = gates.enumerate().map(|(k, range)| (k * self.columns, range));
        let c = norms.c.iter().flatten().cloned().enumerate();
        let c = c.map(|(k, range)| (4 * self.columns + k * self.hidden, Some(range)));
        gates.chain(c).filter_map(|(from, range)| Some((from, range?))).collect()
    }
}

/// What a product multiplied its weights with, and where the gradients of these and of the
/// bias begin among the parameters.
#[derive(Clone, Copy)]
struct Factor<'a, T> {
    x: &'a dyn Fn(usize) -> *const T,
    /// Numbers in an operand, and in a row of the matrix.
    depth: usize,
    d_w: usize,
    d_b: Option<usize>,
}

/// Adds the sum over the items of d_y(item)^T x(item), for some columns of d_y, to the gradient
/// of each factor's matrix; another thread takes `worth` times the usual work.
fn add<T: Element>(
    cpu: &Cpu<T>,
    worth: usize,
    items: usize,
    d_y: &dyn Fn(usize) -> *const T,
    columns: Range<usize>,
    factors: &[Factor<'_, T>],
    d_parameters: &mut [T],
) -> Result<(), Error> {
    if columns.is_empty() {
        return Ok(());
    }
    let start = Shared(d_parameters.as_mut_ptr());
    // A sum without a product is one addition for each item.
    let depth = factors.iter().map(|factor| factor.depth).sum::<usize>();
    let work = columns.len() * depth.max(1);
    let block = (BLOCK / work).clamp(1, ITEMS);
    let mut gradients = room("items of a block", block)?;
    let mut operands = Vec::with_capacity(factors.len());
    for _ in factors {
        operands.push(room("items of a block", block)?);
    }
    for first in (0..items).step_by(block) {
        interrupt::check()?;
        let block = first..(first + block).min(items);
        gradients.clear();
        gradients.extend(block.clone().map(d_y));
        for (operands, factor) in operands.iter_mut().zip(factors) {
            operands.clear();
            operands.extend(block.clone().map(factor.x));
        }
        let d_y = Items(&gradients);
        let terms: Vec<(Items<'_, T>, usize, usize, Option<usize>)> = operands
            .iter()
            .zip(factors)
            .map(|(operands, factor)| (Items(operands), factor.depth, factor.d_w, factor.d_b))
            .collect();
        let terms = &terms[..];
        let ranges = team::split(columns.len(), cpu.threads_for(block.len() * work / worth), 1);
        let mut results = vec![Ok(()); ranges.len()];
        let tasks = ranges
            .into_iter()
            .zip(&mut results)
            .map(|(range, result)| {
                let columns = columns.start + range.start..columns.start + range.end;
                move || {
                    let terms: Vec<Term<'_, T>> = terms
                        .iter()
                        .map(|&(x, depth, d_w, d_b)| Term {
                            x: x.get(),
                            depth,
                            d_w: start.at(d_w + columns.start * depth),
                            d_b: d_b.map_or(null_mut(), |d_b| start.at(d_b + columns.start)),
                        })
                        .collect();
                    let outer = Outer { d_y: d_y.get(), columns, terms: &terms };
                    // SAFETY: every pointer leads to a row of the buffers of the way back, and
                    // each worker has rows of d_W and entries of d_b to itself.
                    *result = unsafe { outer.run(cpu.level()) };
                }
            })
            .collect();
        team::run(tasks);
        results.into_iter().collect::<Result<(), Error>>()?;
    }
    Ok(())
}

/// Rows that are only read.
#[derive(Clone, Copy)]
struct Items<'a, T>(&'a [*const T]);

// SAFETY: what the pointers lead to is only read while workers hold them.
unsafe impl<T: Sync> Send for Items<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Items<'_, T> {}

impl<'a, T> Items<'a, T> {
    fn get(self) -> &'a [*const T] {
        self.0
    }
}

// SAFETY: as for `Items`; what is written is `Shared`, with disjoint rows for each worker.
unsafe impl<T: Element> Sync for Job<'_, T> {}

/// What a crew works with, for the rows that it takes at a time.
struct Room<T> {
    /// Gradient of what goes into the projection.
    d_m: Option<Vec<T>>,
    /// Gradient of the operand of the second product.
    d_operand: Option<Vec<T>>,
    /// Gradient of what the first product saw of h, where that is not h.
    d_seen: Option<Vec<T>>,
    /// What goes past the step to the states before it, with zoneout.
    past_h: Option<Vec<T>>,
    past_c: Option<Vec<T>>,
    /// The cell state that h shows, where that is normalised, and then its gradient; what h adds to
    /// the gradients of the gates, and its gradient.
    shown: Option<Vec<T>>,
    of_shown: Option<Vec<T>>,
    d_shown: Option<Vec<T>>,
}

impl<T: Element> Room<T> {
    fn new(job: &Job<'_, T>, rows: usize) -> Result<Self, Error> {
        let Shape { hidden, state, .. } = *job.shape;
        let optional = |needed: bool, size: usize| {
            needed.then(|| zeros::<T>("workspace of the way back", rows * size)).transpose()
        };
        Ok(Self {
            d_m: optional(job.back.projection.is_some(), hidden)?,
            d_operand: optional(job.back.second.is_some(), hidden)?,
            d_seen: optional(job.masks.recurrent.is_some(), state)?,
            past_h: optional(job.masks.h.is_something(), state)?,
            past_c: optional(job.masks.c.is_something(), hidden)?,
            shown: optional(job.shows(), 2 * hidden)?,
            of_shown: optional(job.shows(), job.shape.gate_columns())?,
            d_shown: optional(job.shows(), hidden)?,
        })
    }

    fn view(&mut self) -> Bench<T> {
        Bench {
            d_m: Shared::of(&mut self.d_m),
            d_operand: Shared::of(&mut self.d_operand),
            d_seen: Shared::of(&mut self.d_seen),
            past_h: Shared::of(&mut self.past_h),
            past_c: Shared::of(&mut self.past_c),
            shown: Shared::of(&mut self.shown),
            of_shown: Shared::of(&mut self.of_shown),
            d_shown: Shared::of(&mut self.d_shown),
        }
    }
}

/// A [`Room`] as the members of a crew see it.
struct Bench<T> {
    d_m: Shared<T>,
    d_operand: Shared<T>,
    d_seen: Shared<T>,
    past_h: Shared<T>,
    past_c: Shared<T>,
    shown: Shared<T>,
    of_shown: Shared<T>,
    d_shown: Shared<T>,
}

/// Takes the rows of `range` back through all steps: one member of a crew does its share of
/// the columns of d_h, and of the units that these belong to.
///
/// A product needs all gradients of the gates, so before each the members meet. What follows
/// it, down to the gates of the step before, needs only the columns that a member has itself
/// computed.
///
/// # Safety
/// Nobody but the crew uses these rows of the job's direction and this bench.
unsafe fn rows_backward<T: Element>(
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
    let direction = Direction::BOTH[job.d];
    let projected = job.back.projection.is_some();
    let late = counts.first_gates * hidden;
    let first = &job.back.first;
    let Masks { recurrent, h: kept_h, c: kept_c } = job.masks;
    // Past a projection d_h' is the product alone, unless zoneout adds to it.
    let first_start = if projected && !kept_h.is_something() { Start::Bias } else { Start::Y };
    let mut live: Vec<BackRow<T>> = Vec::with_capacity(rows);
    // Rows of a product: gradients of the gates of the step after, and of h between the two ...
    let mut d_gates: Vec<*const T> = Vec::with_capacity(rows);
    let mut d_h: Vec<*mut T> = Vec::with_capacity(rows);
    let mut rows_after: &[u32] = &[];
    // ... and of the products within a step.
    let mut x: Vec<*const T> = Vec::with_capacity(rows);
    let mut y: Vec<*mut T> = Vec::with_capacity(rows);
    let look = (BLOCK / (rows * columns * state).max(1)).clamp(1, 1024);

    for k in (0..time).rev() {
        if member.leads() && k % look == 0 {
            interrupt::check()?;
            if job.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        let Some(share) = member.meet() else { return Ok(()) };
        let panels = share.range(first.count());
        let mine = first.columns_of(&panels);
        if !d_gates.is_empty() {
            // SAFETY: the gates' gradients of a step that is done, and this member's columns of
            // the crew's rows of d_h.
            unsafe {
                through_product(job, bench, range, panels, first_start, &d_gates, rows_after, &d_h);
            }
        }
        let t = direction.step(k, time);
        let (items, rows_here) = job.steps.at_rows(t, range);
        live.clear();
        for (item, &b) in items.clone().zip(rows_here) {
            let (b, row) = (b as usize, b as usize - range.start);
            let (h, c) = job.before(item);
            if let Some(mask) = recurrent {
                // SAFETY: the item is this row's; h' lies in what forward left.
                let (h, seen) =
                    unsafe { (numbers(h, state), numbers_mut(job.seen.at(item * state), state)) };
                multiply(&mask[b * state..][..state], h, seen);
            }
            let mut d_y = match job.d_y {
                None => std::ptr::null(),
                Some(d_y) => d_y.data[d_y.place.offset(item, t, b)..][..state].as_ptr(),
            };
            let null = std::ptr::null();
            // SAFETY: a worker that is alone with its rows, where there are masks.
            unsafe {
                if kept_h.is_something() {
                    let d_h = numbers_mut(job.d_h.at(b * state), state);
                    if !d_y.is_null() {
                        // In the order in which the step adds them.
                        let d_y = numbers(d_y, state);
                        d_h.iter_mut().zip(d_y).for_each(|(d_h, &d_y)| *d_h = d_y + *d_h);
                    }
                    d_y = null;
                    kept_h.split(item, d_h, numbers_mut(bench.past_h.at(row * state), state));
                }
                if kept_c.is_something() {
                    let d_c = numbers_mut(job.d_c.at(b * hidden), hidden);
                    kept_c.split(item, d_c, numbers_mut(bench.past_c.at(row * hidden), hidden));
                }
            }
            live.push(BackRow {
                saved: job.tape.saved[item * counts.saved * hidden..].as_ptr(),
                per_unit: job.per_unit.as_ptr(),
                h: if projected { null } else { h },
                c,
                h_new: if projected { null } else { job.stepped_h(item) },
                c_new: match job.tape.stepped_c.as_ref().or(job.tape.c.as_ref()) {
                    Some(cells) => cells[item * hidden..][..hidden].as_ptr(),
                    None => null,
                },
                d_y: if projected { null } else { d_y },
                d_h: if projected { bench.d_m.at(row * hidden) } else { job.d_h.at(b * state) },
                d_c: job.d_c.at(b * hidden),
                d_gx: job.d_gx.at(item * columns),
                d_gh: job.d_gh.at(item * columns),
                d_per_unit: job.d_per_unit.at(item * counts.per_unit * hidden),
                operand: job.operand.at(item * hidden),
                d_operand: bench.d_operand.at(row * hidden),
                unprojected: job.unprojected.at(item * hidden),
            });
            if projected {
                for j in mine.clone() {
                    // SAFETY: this member's columns of the item's row of d_out and of the
                    // row's d_h; d_y, where there is one, was sliced.
                    unsafe {
                        let from_y = if d_y.is_null() { T::default() } else { *d_y.add(j) };
                        *job.d_out.at(item * state + j) = from_y + *job.d_h.at(b * state + j);
                    }
                }
            }
        }
        let mut units = mine;
        if let Some(projection) = &job.back.projection {
            x.clear();
            x.extend(items.clone().map(|item| job.d_out.at(item * state).cast_const()));
            y.clear();
            y.extend(live.iter().map(|row| row.d_h));
            let Some(share) = member.meet() else { return Ok(()) };
            let panels = share.range(projection.count());
            units = projection.columns_of(&panels);
            let start = Start::Bias;
            // SAFETY: d_out is complete; this member's columns of the crew's d_m.
            unsafe { Product { x: &x, weights: projection, panels, start, y: &y }.run(job.level) };
        }
        // SAFETY: a worker that is alone with its rows, where there are norms.
        unsafe { show_back(cell, job, bench, items.clone(), &mut live) };
        // SAFETY: the rows lie in buffers of the crew, or in its rows of the job's, and these
        // units of them are this member's.
        unsafe { cell.step_back(Back { rows: &live, hidden, units }, job.level) };
        if let Some(second) = &job.back.second {
            x.clear();
            // SAFETY: the late gates of a row of d_gh.
            x.extend(live.iter().map(|row| unsafe { row.d_gh.add(late).cast_const() }));
            y.clear();
            y.extend(live.iter().map(|row| row.d_operand));
            let Some(share) = member.meet() else { return Ok(()) };
            let panels = share.range(second.count());
            let units = second.columns_of(&panels);
            let start = Start::Bias;
            // SAFETY: the late gates' gradients are complete; then as for `StepBack`.
            unsafe {
                Product { x: &x, weights: second, panels, start, y: &y }.run(job.level);
                if let Some(mask) = recurrent {
                    for (row, &b) in live.iter().zip(rows_here) {
                        let mask = &mask[b as usize * state..][..state];
                        scale(numbers_mut(row.operand, state), mask);
                        scale(numbers_mut(row.d_operand, state), mask);
                    }
                }
                cell.close(Back { rows: &live, hidden, units }, job.level);
            }
        }
        // SAFETY: a worker that is alone with its rows, where there are norms.
        unsafe { norms_back(&counts, job, bench, items, &live) };
        if !job.masks.are_none() {
            for &b in rows_here {
                let (b, row) = (b as usize, b as usize - range.start);
                // SAFETY: a worker that is alone with its rows.
                unsafe {
                    let d_h = numbers_mut(job.d_h.at(b * state), state);
                    if projected {
                        // What reaches it comes through the product, or past the step.
                        d_h.fill(T::default());
                    }
                    if kept_h.is_something() {
                        add_to(d_h, numbers(bench.past_h.at(row * state), state));
                    }
                    if kept_c.is_something() {
                        let d_c = numbers_mut(job.d_c.at(b * hidden), hidden);
                        add_to(d_c, numbers(bench.past_c.at(row * hidden), hidden));
                    }
                }
            }
        }
        rows_after = rows_here;
        d_gates.clear();
        d_gates.extend(live.iter().map(|row| row.d_gh.cast_const()));
        d_h.clear();
        d_h.extend(rows_here.iter().map(|&b| job.d_h.at(b as usize * state)));
    }
    let Some(share) = member.meet() else { return Ok(()) };
    let panels = share.range(first.count());
    // SAFETY: as in the loop.
    unsafe {
        through_product(job, bench, range, panels, first_start, &d_gates, rows_after, &d_h);
    }
    member.finish();
    Ok(())
}

/// d_h' += d_gates W_hh, or with recurrent dropout m times that: a member's share of it.
///
/// # Safety
/// The gates' gradients are complete, and nobody else uses these columns of the rows of d_h.
#[expect(clippy::too_many_arguments, reason = "a product, and what may come between")]
unsafe fn through_product<T: Element>(
    job: &Job<'_, T>,
    bench: &Bench<T>,
    range: &Range<usize>,
    panels: Range<usize>,
    start: Start,
    d_gates: &[*const T],
    rows: &[u32],
    d_h: &[*mut T],
) {
    let weights = &job.back.first;
    let Some(mask) = job.masks.recurrent else {
        // SAFETY: by the caller.
        unsafe { Product { x: d_gates, weights, panels, start, y: d_h }.run(job.level) };
        return;
    };
    let state = job.shape.state;
    let d_seen = |&b: &u32| bench.d_seen.at((b as usize - range.start) * state);
    let y: Vec<*mut T> = rows.iter().map(d_seen).collect();
    // SAFETY: by the caller; a worker that is alone with its rows.
    unsafe {
        Product { x: d_gates, weights, panels, start: Start::Bias, y: &y }.run(job.level);
        for ((&b, &d_seen), &d_h) in rows.iter().zip(&y).zip(d_h) {
            let d_seen = numbers_mut(d_seen, state);
            scale(d_seen, &mask[b as usize * state..][..state]);
            add_to(numbers_mut(d_h, state), d_seen);
        }
    }
}

/// The gradient of h goes through the norm of c, where there is one: to the gates that show it, and
/// to that of c.
///
/// # Safety
/// As [`StepBack::run`](crate::step_back::StepBack::run), of a worker that is alone.
unsafe fn show_back<T: Element>(
    cell: &dyn Kernels<T>,
    job: &Job<'_, T>,
    bench: &Bench<T>,
    items: Range<usize>,
    live: &mut [BackRow<T>],
) {
    let (Some(norm), Some(kept)) = (
        job.norms.as_ref().and_then(|norms| norms.c.as_ref()),
        job.tape.norms.as_ref().and_then(|norms| norms.c.as_ref()),
    ) else {
        return;
    };
    let hidden = job.shape.hidden;
    let hat = |item: usize| &kept.hat[item * hidden..][..hidden];
    let mut rows = Vec::with_capacity(live.len());
    for (k, (item, row)) in items.clone().zip(&mut *live).enumerate() {
        let (shown, d_c) = (bench.shown.at(2 * k * hidden), bench.shown.at((2 * k + 1) * hidden));
        let (d_h, d_gates) =
            (bench.d_shown.at(k * hidden), bench.of_shown.at(k * job.shape.gate_columns()));
        // SAFETY: by the caller; the bench has a run for each row.
        unsafe {
            let to = numbers_mut(shown, hidden);
            to.copy_from_slice(hat(item));
            layer_norm::scale_and_shift(to, norm.gamma, norm.beta);
            numbers_mut(d_c, hidden).copy_from_slice(to);
            let of_h = numbers_mut(row.d_h, hidden);
            let d_h = numbers_mut(d_h, hidden);
            d_h.copy_from_slice(of_h);
            if !row.d_y.is_null() {
                add_to(d_h, numbers(row.d_y, hidden));
            }
            of_h.fill(T::default());
        }
        row.d_y = std::ptr::null();
        row.c_new = shown;
        rows.push(Shown { saved: row.saved, c: d_c, h: d_h, d_gates });
    }
    // SAFETY: by the caller.
    unsafe { cell.show_back(&rows, hidden, job.level) };
    let of_norms = OfNorms { columns: job.shape.gate_columns(), hidden };
    for ((item, row), shown) in items.zip(live).zip(rows) {
        let at = item * of_norms.len() + 4 * of_norms.columns;
        // SAFETY: by the caller; the item is this row's.
        unsafe {
            let d_c = numbers_mut(shown.c, hidden);
            let d_gamma = numbers_mut(job.of_norms.at(at), hidden);
            numbers_mut(job.of_norms.at(at + hidden), hidden).copy_from_slice(d_c);
            layer_norm::backward(d_c, hat(item), kept.inverse[item], norm.gamma, d_gamma);
            add_to(numbers_mut(row.d_c, hidden), d_c);
        }
    }
}

/// The gradients of the gates go through the norms of their two sums, where there are some.
///
/// # Safety
/// As [`StepBack::run`](crate::step_back::StepBack::run), of a worker that is alone.
unsafe fn norms_back<T: Element>(
    counts: &Counts,
    job: &Job<'_, T>,
    bench: &Bench<T>,
    items: Range<usize>,
    live: &[BackRow<T>],
) {
    let (Some(norms), Some(kept)) = (&job.norms, &job.tape.norms) else { return };
    let columns = job.shape.gate_columns();
    let of_norms = OfNorms { columns, hidden: job.shape.hidden };
    for (k, (item, row)) in items.zip(live).enumerate() {
        // SAFETY: by the caller; the item is this row's.
        unsafe {
            let (d_gx, d_gh) = (numbers_mut(row.d_gx, columns), numbers_mut(row.d_gh, columns));
            if job.shows() {
                add_to(d_gx, numbers(bench.of_shown.at(k * columns), columns));
            }
            if counts.one_gate_gradient {
                d_gh.copy_from_slice(d_gx);
            }
            let sides = [(d_gx, norms.ih, &kept.ih), (d_gh, norms.hh, &kept.hh)];
            for (side, (d, norm, kept)) in sides.into_iter().enumerate() {
                let at = |part: usize| job.of_norms.at(item * of_norms.len() + part * columns);
                numbers_mut(at(side), columns).copy_from_slice(d);
                let d_gamma = numbers_mut(at(2 + side), columns);
                let hat = &kept.hat[item * columns..][..columns];
                layer_norm::backward(d, hat, kept.inverse[item], norm.gamma, d_gamma);
            }
        }
    }
}
