//! One layer's way back over all steps.
//!
//! ```text
//! for each step t, the last first:              one dispatch, for a cell with two products two
//!     d_h = d_y[t] + d_h + d_gates[t + 1] W_hh  (shaders/step_back.wgsl)
//!     d_gates[t], d_h, d_c = the cell's way back
//! d_x = d_gates W_ih
//! d_W_ih += d_gates^T x      d_W_hh += d_gates^T h'      d_b += the sums of d_gates
//! ```

use seqrs_core::Error;
use seqrs_core::backend::Backward;
use seqrs_core::cell::{Cell, CellKind};
use seqrs_core::rows::Place;
use seqrs_core::spec::Shape;
use seqrs_core::steps::Direction;

use crate::forward::{at, step_groups, supported};
use crate::kernels::Kernel;
use crate::params::{self, NONE};
use crate::recorder::{Numbers, Recorder};

pub(crate) fn backward<C: Cell>(rec: &Recorder, run: Backward<'_, Recorder>) -> Result<(), Error> {
    let shape = run.shape;
    supported(shape)?;
    let kind: CellKind = shape.cell;
    let Shape { input, hidden, directions, .. } = *shape;
    let (items, batch, time) = (run.steps.items(), run.steps.batch(), run.steps.time());
    let columns = C::GATES * hidden;
    let table = rec.items(run.steps);
    let two_products = C::FIRST_GATES < C::GATES;

    let packed;
    let d_y: Option<(&Numbers, usize, usize)> = match run.d_y {
        None => None,
        Some(rows) => Some(match rows.place {
            Place::Packed { start, stride } => (rows.data, start, stride),
            Place::Padded { .. } => {
                packed = rec.packed(rows, run.steps, directions * hidden);
                (&packed, 0, directions * hidden)
            }
        }),
    };

    for (d, weights) in run.weights.iter().enumerate() {
        let record = &run.tape[d];
        let kept = (C::SAVED + C::STATES) * hidden;
        // Both parts of the gates' gradients side by side, where they differ.
        let width = if C::ONE_GATE_GRADIENT { columns } else { 2 * columns };
        let d_gates = rec.buffer(items * width);
        let mut d_after = rec.buffer(batch * columns);
        let mut d_new = rec.buffer(batch * columns);
        let operands = two_products.then(|| rec.buffer(items * hidden));

        // A row of `running`: the gradients of the state, and the state after the step.
        let row = 2 * C::STATES * hidden;
        let running = rec.buffer(batch * row);
        let slot = (run.slot + d) * batch * hidden;
        rec.copy_rows(batch, hidden, (&run.d_state.h, slot, hidden), (&running, 0, row));
        if let Some(d_c) = &run.d_state.c {
            rec.copy_rows(batch, hidden, (d_c, slot, hidden), (&running, hidden, row));
        }
        let states = C::STATES * hidden;
        rec.copy_rows(batch, states, (&record.last, 0, states), (&running, states, row));

        let mut params = params::StepBack {
            rows: batch as u32,
            units: hidden as u32,
            hidden: hidden as u32,
            depth: (C::FIRST_GATES * hidden) as u32,
            columns: columns as u32,
            items_at: 0,
            weight_at: at(weights, shape.weight_hh.start),
            d_y_at: d_y.map_or(0, |(_, start, _)| (start + d * hidden) as u32),
            d_y_stride: d_y.map_or(NONE, |(_, _, stride)| stride as u32),
            record: kept as u32,
            d_gates: width as u32,
            running: row as u32,
            h_at: slot as u32,
        };
        let groups = step_groups(hidden, batch);
        for k in (0..time).rev() {
            params.items_at = (Direction::BOTH[d].step(k, time) * batch) as u32;
            let outside = d_y.map_or(&d_after, |(d_y, _, _)| d_y);
            let buffers = [
                &*table,
                &*weights.numbers,
                &d_after,
                &d_new,
                outside,
                &record.items,
                &running,
                &d_gates,
            ];
            rec.dispatch(Kernel::StepBack(kind), &buffers, params.words(), groups);
            if let Some(operands) = &operands {
                let mut close = params;
                close.depth = (columns - C::FIRST_GATES * hidden) as u32;
                close.weight_at += (C::FIRST_GATES * hidden * hidden) as u32;
                let buffers = [
                    &*table,
                    &*weights.numbers,
                    &record.items,
                    &d_gates,
                    &d_new,
                    &running,
                    operands,
                ];
                rec.dispatch(Kernel::Close(kind), &buffers, close.words(), groups);
            }
            std::mem::swap(&mut d_after, &mut d_new);
        }
        let buffers = [&*weights.numbers, &d_after, &running, &*run.d_state.h];
        rec.dispatch(Kernel::LastBack, &buffers, params.words(), groups);
        if let Some(d_c) = &run.d_state.c {
            rec.copy_rows(batch, hidden, (&running, hidden, row), (d_c, slot, hidden));
        }

        if let Some(d_x) = &run.d_x {
            let params = params::Product {
                m: items as u32,
                n: input as u32,
                k: columns as u32,
                a_at: 0,
                a_m: width as u32,
                a_k: 1,
                b_at: at(weights, shape.weight_ih.start),
                b_k: input as u32,
                b_n: 1,
                c_at: 0,
                c_m: input as u32,
                bias_at: NONE,
                add: u32::from(d > 0),
            };
            rec.product(&d_gates, &weights.numbers, &weights.numbers, d_x, params);
        }

        // d_W += d_gates^T operand, for some of the gates, with the sums of their columns.
        let start = run.d_start + d * shape.len();
        let d_parameters = &*run.d_parameters;
        let weights_of = |gates_at: usize, count: usize, x: Operand<'_>, d_w: usize| {
            let params = params::Product {
                m: count as u32,
                n: x.depth as u32,
                k: items as u32,
                a_at: gates_at as u32,
                a_m: 1,
                a_k: width as u32,
                b_at: x.at as u32,
                b_k: x.stride as u32,
                b_n: 1,
                c_at: (start + d_w) as u32,
                c_m: x.depth as u32,
                bias_at: NONE,
                add: 1,
            };
            rec.product(&d_gates, x.numbers, x.numbers, d_parameters, params);
        };
        let biases_of = |gates_at: usize, range: &Option<std::ops::Range<usize>>| {
            let Some(range) = range else { return };
            let params = params::ColumnSums {
                rows: items as u32,
                columns: columns as u32,
                from_at: gates_at as u32,
                stride: width as u32,
                to_at: (start + range.start) as u32,
            };
            rec.column_sums(&d_gates, d_parameters, params);
        };
        // The part of the input, and the part of the state where it differs.
        let of_state = width - columns;
        let x = Operand { numbers: run.x, at: 0, stride: input, depth: input };
        weights_of(0, columns, x, shape.weight_ih.start);
        let first = C::FIRST_GATES * hidden;
        let h =
            Operand { numbers: &record.items, at: C::SAVED * hidden, stride: kept, depth: hidden };
        weights_of(of_state, first, h, shape.weight_hh.start);
        if let Some(operands) = &operands {
            let x = Operand { numbers: operands, at: 0, stride: hidden, depth: hidden };
            let d_w = shape.weight_hh.start + first * hidden;
            weights_of(of_state + first, columns - first, x, d_w);
        }
        biases_of(0, &shape.bias_ih);
        biases_of(of_state, &shape.bias_hh);
    }
    Ok(())
}

/// Rows that a product multiplied its weights with.
#[derive(Clone, Copy)]
struct Operand<'a> {
    numbers: &'a Numbers,
    at: usize,
    stride: usize,
    depth: usize,
}
