//! One layer's way back over all steps.
//!
//! ```text
//! for each step t, the last first:              one dispatch, for a cell with two products two
//!     d_h = d_y[t] + d_h + d_gates[t + 1] W_hh  (shaders/step_back.wgsl)
//!     d_gates[t], d_h, d_c = the cell's way back
//! d_x = d_gates W_ih
//! d_W_ih += d_gates^T x      d_W_hh += d_gates^T h'      d_b += the sums of d_gates
//! ```
//! A projection comes between the two lines of a step, which are then a dispatch each, with
//! `d_m = d_h W_hr` at the start of the second; at the end `d_W_hr += d_h^T m`.

use std::ops::Range;

use seqrs_core::Error;
use seqrs_core::backend::Backward;
use seqrs_core::cell::{Cell, CellKind};
use seqrs_core::rows::Place;
use seqrs_core::spec::Shape;
use seqrs_core::steps::Direction;

use crate::forward::{at, step_groups};
use crate::kernels::{Kernel, Projected};
use crate::params::{self, NONE};
use crate::pieces;
use crate::recorder::{Numbers, Recorder};
use crate::row_kernels;

/// What the steps of a piece leave for the products over its items.
struct Left {
    /// Gradients of the gates: both parts side by side, where they differ.
    d_gates: Numbers,
    /// Operands of the second product, of a cell that has one.
    operands: Option<Numbers>,
    /// Around a projection: the gradient of what came out of it, P, and m, which went in, H.
    projection: Option<[Numbers; 2]>,
}

pub(crate) fn backward<C: Cell>(rec: &Recorder, run: Backward<'_, Recorder>) -> Result<(), Error> {
    let shape = run.shape;
    let kind: CellKind = shape.cell;
    let Shape { input, hidden, state, directions, .. } = *shape;
    let batch = run.steps.batch();
    let columns = C::GATES * hidden;
    let pieces = rec.pieces(run.steps, pieces::width::<C>(hidden))?;
    let kept = (C::SAVED + C::STATES) * hidden;
    let width = if C::ONE_GATE_GRADIENT { columns } else { 2 * columns };
    let first = C::FIRST_GATES * hidden;

    let packed;
    let d_y: Option<(&Numbers, usize, usize)> = match run.d_y {
        None => None,
        Some(rows) => Some(match rows.place {
            Place::Packed { start, stride } => (rows.data, start, stride),
            Place::Padded { .. } => {
                packed = rec.packed(rows, run.steps, directions * state);
                (&packed, 0, directions * state)
            }
        }),
    };

    for (d, weights) in run.weights.iter().enumerate() {
        let direction = Direction::BOTH[d];
        let record = &run.tape[d];
        let left = |items: usize| Left {
            d_gates: rec.blank_buffer(items * width),
            operands: (C::FIRST_GATES < C::GATES).then(|| rec.blank_buffer(items * hidden)),
            projection: (shape.weight_hr.is_some())
                .then(|| [rec.blank_buffer(items * state), rec.blank_buffer(items * hidden)]),
        };
        let left: Vec<Left> = pieces.iter().map(|piece| left(piece.items.len())).collect();

        // Gradients of the gates of the step after and of this one, in turn; with a projection one
        // place is enough.
        let mut d_after = rec.buffer(batch * columns);
        let mut d_new = rec.buffer(batch * columns);
        // A row of `running`: the gradients of the state, and the state after the step.
        let row = 2 * C::STATES * hidden;
        let running = rec.buffer(batch * row);
        let slot = (run.slot + d) * batch;
        let d_h = (&*run.d_state.h, slot * state, state);
        rec.copy_rows(batch, state, d_h, (&running, 0, row));
        if let Some(d_c) = &run.d_state.c {
            let d_c = (&**d_c, slot * hidden, hidden);
            rec.copy_rows(batch, hidden, d_c, (&running, hidden, row));
        }
        let states = C::STATES * hidden;
        rec.copy_rows(batch, states, (&record.last, 0, states), (&running, states, row));

        let mut params = params::StepBack {
            rows: batch as u32,
            units: state as u32,
            hidden: hidden as u32,
            depth: first as u32,
            columns: columns as u32,
            items_at: 0,
            weight_at: at(weights, shape.weight_hh.start),
            d_y_at: 0,
            d_y_stride: d_y.map_or(NONE, |(_, _, stride)| stride as u32),
            record: kept as u32,
            d_gates: width as u32,
            running: row as u32,
            h_at: (slot * state) as u32,
        };
        let groups = step_groups(hidden, batch);
        for k in (0..pieces.len()).rev() {
            let k = direction.step(k, pieces.len());
            let (piece, table) = (&pieces[k], &pieces[k].table);
            let (record, Left { d_gates, operands, projection }) = (&record.items[k], &left[k]);
            if let Some((_, start, stride)) = d_y {
                params.d_y_at = (start + piece.items.start * stride + d * state) as u32;
            }
            for t in (0..piece.time).rev() {
                params.items_at = (direction.step(t, piece.time) * batch) as u32;
                let d_y = d_y.map_or(&d_after, |(d_y, _, _)| d_y);
                let parameters = &*weights.numbers;
                if let (Some(range), Some([d_h, m])) = (&shape.weight_hr, projection) {
                    let buffers = [table, parameters, &d_after, d_y, &running, d_h];
                    let kernel = Kernel::ProjectBack;
                    rec.dispatch(kernel, &buffers, params.words(), step_groups(state, batch));
                    let mut inner = params;
                    (inner.units, inner.depth) = (hidden as u32, state as u32);
                    inner.weight_at = at(weights, range.start);
                    let buffers = [table, parameters, d_h, &d_after, record, &running, d_gates, m];
                    let kernel = Kernel::StepBack(kind, Projected::Yes);
                    rec.dispatch(kernel, &buffers, inner.words(), groups);
                    continue;
                }
                let buffers = [table, parameters, &d_after, &d_new, d_y, record, &running, d_gates];
                let kernel = Kernel::StepBack(kind, Projected::No);
                rec.dispatch(kernel, &buffers, params.words(), groups);
                if let Some(operands) = operands {
                    let mut close = params;
                    close.depth = (columns - first) as u32;
                    close.weight_at += (first * hidden) as u32;
                    let buffers = [table, parameters, record, d_gates, &d_new, &running, operands];
                    rec.dispatch(Kernel::Close(kind), &buffers, close.words(), groups);
                }
                std::mem::swap(&mut d_after, &mut d_new);
            }
        }
        let buffers = [&*weights.numbers, &d_after, &running, &*run.d_state.h];
        rec.dispatch(Kernel::LastBack, &buffers, params.words(), step_groups(state, batch));
        if let Some(d_c) = &run.d_state.c {
            let d_c = (&**d_c, slot * hidden, hidden);
            rec.copy_rows(batch, hidden, (&running, hidden, row), d_c);
        }

        for ((piece, left), record) in pieces.iter().zip(&left).zip(&record.items) {
            let items = &piece.items;
            if let Some(d_x) = &run.d_x {
                let params = params::Product {
                    m: items.len() as u32,
                    n: input as u32,
                    k: columns as u32,
                    a_at: 0,
                    a_m: width as u32,
                    a_k: 1,
                    b_at: at(weights, shape.weight_ih.start),
                    b_k: input as u32,
                    b_n: 1,
                    c_at: (items.start * input) as u32,
                    c_m: input as u32,
                    bias_at: NONE,
                    add: u32::from(d > 0),
                };
                rec.product(&left.d_gates, &weights.numbers, &weights.numbers, d_x, params);
            }

            let sums = Sums {
                rec,
                items: items.len(),
                d_parameters: run.d_parameters,
                start: run.d_start + d * shape.len(),
            };
            let gates = |at: usize| Columns { numbers: &left.d_gates, at, stride: width };
            // The part of the input, and the part of the state where it differs.
            let of_state = width - columns;
            let x = Columns { numbers: run.x, at: items.start * input, stride: input };
            sums.weights(gates(0), columns, x, input, shape.weight_ih.start);
            let h = Columns { numbers: record, at: C::SAVED * hidden, stride: kept };
            sums.weights(gates(of_state), first, h, state, shape.weight_hh.start);
            if let Some(operands) = &left.operands {
                let operand = Columns { numbers: operands, at: 0, stride: hidden };
                let d_w = shape.weight_hh.start + first * hidden;
                sums.weights(gates(of_state + first), columns - first, operand, hidden, d_w);
            }
            sums.biases(gates(0), columns, &shape.bias_ih);
            sums.biases(gates(of_state), columns, &shape.bias_hh);
            if let (Some(range), Some([d_h, m])) = (&shape.weight_hr, &left.projection) {
                let d_h = Columns { numbers: d_h, at: 0, stride: state };
                let m = Columns { numbers: m, at: 0, stride: hidden };
                sums.weights(d_h, state, m, hidden, range.start);
            }
        }
    }
    Ok(())
}

/// Some columns of a buffer that has a row for each item of a piece.
#[derive(Clone, Copy)]
struct Columns<'a> {
    numbers: &'a Numbers,
    at: usize,
    stride: usize,
}

/// Adds the sums over the items of a piece to the gradients of a direction's parameters.
struct Sums<'a> {
    rec: &'a Recorder,
    items: usize,
    d_parameters: &'a Numbers,
    start: usize,
}

impl Sums<'_> {
    /// d_W += d^T x, for `rows` columns of d and `depth` of x; d_W begins at `to`.
    fn weights(&self, d: Columns<'_>, rows: usize, x: Columns<'_>, depth: usize, to: usize) {
        let params = params::Product {
            m: rows as u32,
            n: depth as u32,
            k: self.items as u32,
            a_at: d.at as u32,
            a_m: 1,
            a_k: d.stride as u32,
            b_at: x.at as u32,
            b_k: x.stride as u32,
            b_n: 1,
            c_at: (self.start + to) as u32,
            c_m: depth as u32,
            bias_at: NONE,
            add: 1,
        };
        self.rec.product(d.numbers, x.numbers, x.numbers, self.d_parameters, params);
    }

    /// d_b += the sums of the columns of d.
    fn biases(&self, d: Columns<'_>, columns: usize, to: &Option<Range<usize>>) {
        let Some(to) = to else { return };
        let params = row_kernels::ColumnSums {
            rows: self.items as u32,
            columns: columns as u32,
            from_at: d.at as u32,
            stride: d.stride as u32,
            to_at: (self.start + to.start) as u32,
        };
        self.rec.column_sums(d.numbers, self.d_parameters, params);
    }
}
