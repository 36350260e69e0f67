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
//! `d_m = d_h W_hr` at the start of the second; at the end `d_W_hr += d_h^T m`. Where the weights are
//! few, all steps are one dispatch (shaders/all_steps.wgsl). What is different in a normalised cell
//! stands in norms.rs.

use std::ops::Range;

use seqrs_core::Error;
use seqrs_core::backend::Backward;
use seqrs_core::rows::Place;
use seqrs_core::spec::Shape;
use seqrs_core::steps::Direction;

use crate::forward::items_step;
use crate::kernels::{Kernel, Projected};
use crate::norms::{self, Norms};
use crate::params::{self, NONE};
use crate::pieces;
use crate::products::{Items, Matrix, Start};
use crate::recorder::{Numbers, Recorder};
use crate::rules::{padded, quads};
use crate::state_masks::{Masked, Masks};
use crate::weights::Product;

/// What the steps of a piece leave for the products over its items.
struct Left {
    /// Gradients of the gates and what belongs to them ([`pieces::gradients_width`]).
    d_gates: Numbers,
    /// Operands of the second product, of a cell that has one.
    operands: Option<Numbers>,
    /// Around a projection: the gradient of what came out of it, P and zeros up to a multiple of
    /// four, and m, which went in, H.
    projection: Option<[Numbers; 2]>,
}

pub(crate) fn backward(rec: &Recorder, run: Backward<'_, Recorder>) -> Result<(), Error> {
    let shape = run.shape;
    let Shape { cell: kind, input, hidden, state, directions, .. } = *shape;
    let (counts, states) = (kind.counts(), kind.states());
    let batch = run.steps.batch();
    let columns = counts.gates * hidden;
    let pieces = rec.pieces(run.steps, pieces::width(shape))?;
    let kept = pieces::record_width(shape);
    let of_gates = pieces::gates_width(shape);
    let of_units = counts.per_unit * hidden;
    let width = pieces::gradients_width(shape);
    let first = counts.first_gates * hidden;

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
            operands: counts.two_products().then(|| rec.blank_buffer(items * hidden)),
            projection: (shape.weight_hr.is_some())
                .then(|| [rec.buffer(items * padded(state)), rec.blank_buffer(items * hidden)]),
        };
        let left: Vec<Left> = pieces.iter().map(|piece| left(piece.items.len())).collect();
        let longest = pieces.iter().map(|piece| piece.items.len()).max().unwrap_or(0);
        let norms = Norms::new(rec, shape, weights, batch);
        let normed = norms.map(|norms| (norms, norms.back_bench(longest)));

        // Gradients of the gates of the step after and of this one, in turn; with a projection, or
        // norms, one place is enough.
        let d_row = counts.gates * padded(hidden);
        let mut d_after = rec.buffer(batch * d_row);
        let mut d_new = rec.buffer(batch * d_row);
        // A row of `running`: the gradients of the state, and the state after the step.
        let of_states = states * hidden;
        let masks = Masks::new(shape, batch, run.masks.get(d));
        let masked = if masks.is_some() { Masked::Yes } else { Masked::No };
        let row = 2 * of_states + masks.map_or(0, |masks| masks.behind_running());
        let running = rec.buffer(batch * row);
        let slot = (run.slot + d) * batch;
        let d_h = (&*run.d_state.h, slot * state, state);
        rec.copy_rows(batch, state, d_h, (&running, 0, row));
        if let Some(d_c) = &run.d_state.c {
            let d_c = (&**d_c, slot * hidden, hidden);
            rec.copy_rows(batch, hidden, d_c, (&running, hidden, row));
        }
        let last = (&record.last, 0, of_states);
        rec.copy_rows(batch, of_states, last, (&running, of_states, row));
        if let Some(masks) = &masks {
            masks.begin_back(rec, &running, row);
        }

        let last = counts.gates - counts.first_gates;
        let recurrent = |from: usize, gates: usize, units: usize| {
            let weight_at = weights.at + shape.weight_hh.start + from * hidden * units;
            Product::backward(gates, hidden, units, weight_at)
        };
        let per_unit =
            Product::per_unit(counts.per_unit, hidden, weights.at + shape.per_unit.start);
        let per_unit = (counts.per_unit > 0).then_some(per_unit);
        let mut products = vec![recurrent(0, counts.first_gates, state)];
        products.extend((last > 0).then(|| recurrent(counts.first_gates, last, hidden)));
        let depth = products[0].depth();
        products.extend(per_unit);
        let recurrent = rec.packed_weights(&weights.numbers, &products);
        let project = shape.weight_hr.as_ref().map(|range| {
            let product = Product::backward(1, state, hidden, weights.at + range.start);
            let products: Vec<Product> = [product].into_iter().chain(per_unit).collect();
            rec.packed_weights(&weights.numbers, &products)
        });
        let all_steps = match (&project, &masks, &norms) {
            (None, None, None) => rec.rules.all_steps(1, counts.gates, hidden, batch),
            _ => None,
        };
        let step = params::StepBack {
            rows: batch as u32,
            units: state as u32,
            hidden: hidden as u32,
            depth: depth as u32,
            columns: (counts.gates * quads(hidden)) as u32,
            items_at: 0,
            d_y_at: 0,
            d_y_stride: d_y.map_or(NONE, |(_, _, stride)| stride as u32),
            record: kept as u32,
            d_gates: width as u32,
            running: row as u32,
            h_at: (slot * state) as u32,
            steps: 1,
            items_step: items_step(direction, batch).wrapping_neg(),
            weights_at: 0,
            second_at: recurrent.second_at as u32,
            second_depth: (last * quads(hidden)) as u32,
            per_unit_at: project.as_ref().unwrap_or(&recurrent).last_at as u32,
        };
        let tile = |units: usize| {
            let tile = rec.rules.tile(1, units, batch);
            (tile, tile.workgroups(units, batch))
        };
        for k in (0..pieces.len()).rev() {
            let k = direction.step(k, pieces.len());
            let (piece, table) = (&pieces[k], &pieces[k].table);
            let mixed = record.mixed.get(k);
            let (record, Left { d_gates, operands, projection }) = (&record.items[k], &left[k]);
            let mut params = step;
            if let Some((_, start, stride)) = d_y {
                params.d_y_at = (start + piece.items.start * stride + d * state) as u32;
            }
            let packed = &recurrent.numbers;
            let items_at = |t: usize| (direction.step(t, piece.time) * batch) as u32;

            if let Some(tile) = all_steps {
                let d_y = d_y.map_or(record, |(d_y, _, _)| d_y);
                let mut buffers = vec![table, packed, &d_after, d_y, record, &running, d_gates];
                buffers.extend(operands);
                let at_once = rec.steps_at_once(batch * columns * hidden);
                for done in (0..piece.time).step_by(at_once) {
                    let items_at = items_at(piece.time - 1 - done);
                    let steps = at_once.min(piece.time - done) as u32;
                    let params = params::StepBack { items_at, steps, ..params };
                    let kernel = Kernel::AllStepsBack(kind, tile);
                    rec.dispatch(kernel, &buffers, params.words(), tile.workgroups(hidden, batch));
                }
                continue;
            }
            for t in (0..piece.time).rev() {
                params.items_at = items_at(t);
                if let Some(masks) = &masks {
                    masks.before_step_back(rec, table, params.items_at, mixed, &running, row);
                }
                let d_y = d_y.map_or(&d_after, |(d_y, _, _)| d_y);
                let d_h = projection.as_ref().map(|[d_h, _]| d_h);
                let d_h = d_h.or(normed.as_ref().and_then(|(_, bench)| bench.d_h.as_ref()));
                if let Some(d_h) = d_h {
                    let buffers = [table, packed, &d_after, d_y, &running, d_h];
                    let (of_state, groups) = tile(state);
                    let kernel = Kernel::ProjectBack(masked, of_state);
                    rec.dispatch(kernel, &buffers, params.words(), groups);
                }
                let around = project.as_ref().zip(projection.as_ref());
                if let (Some((norms, bench)), Some(d_h)) = (&normed, d_h) {
                    let projection = around.map(|(project, [_, m])| [&project.numbers, m]);
                    let (running, d) = (&running, &d_after);
                    let buffers =
                        norms::StepBack { table, d_h, projection, record, running, d_gates, d };
                    norms.step_back(bench, &buffers, &params, masked);
                    continue;
                }
                if let Some((project, [d_h, m])) = around {
                    let (units, depth) = (hidden as u32, quads(state) as u32);
                    let inner = params::StepBack { units, depth, ..params };
                    let buffers =
                        [table, &project.numbers, d_h, &d_after, record, &running, d_gates, m];
                    let (of_units, groups) = tile(hidden);
                    let kernel = Kernel::StepBack(kind, Projected::Yes, masked, of_units);
                    rec.dispatch(kernel, &buffers, inner.words(), groups);
                    continue;
                }
                let buffers = [table, packed, &d_after, &d_new, d_y, record, &running, d_gates];
                let (tile, groups) = tile(hidden);
                let kernel = Kernel::StepBack(kind, Projected::No, masked, tile);
                rec.dispatch(kernel, &buffers, params.words(), groups);
                if let Some(operands) = operands {
                    let (depth, weights_at) = (params.second_depth, params.second_at);
                    let close = params::StepBack { depth, weights_at, ..params };
                    let buffers = [table, packed, record, d_gates, &d_new, &running, operands];
                    let kernel = Kernel::Close(kind, masked, tile);
                    rec.dispatch(kernel, &buffers, close.words(), groups);
                }
                std::mem::swap(&mut d_after, &mut d_new);
            }
        }
        let (of_state, groups) = tile(state);
        let buffers = [&recurrent.numbers, &d_after, &running, &*run.d_state.h];
        rec.dispatch(Kernel::LastBack(masked, of_state), &buffers, step.words(), groups);
        if let Some(d_c) = &run.d_state.c {
            let d_c = (&**d_c, slot * hidden, hidden);
            rec.copy_rows(batch, hidden, (&running, hidden, row), d_c);
        }

        // The gradients of the gates from column `at` on; behind those of the input those of the
        // state, where they differ.
        let of_state = of_gates - columns;
        let gates = |at: usize| -> Vec<Items<'_>> {
            let d = left.iter().map(|left| Matrix::new(&left.d_gates, at, width));
            pieces.iter().map(|piece| piece.items.len()).zip(d).collect()
        };
        let to = |range: &Range<usize>| run.d_start + d * shape.len() + range.start;
        let d_parameters = &*run.d_parameters;

        // Those of the two products' sums, from a column on; norms make them others.
        let d_inputs = norms.map(|norms| norms.inputs_back(record, &gates(0)));
        let of_inputs: Vec<Items<'_>> = match &d_inputs {
            None => gates(0),
            Some(d) => {
                let d = d.iter().map(|d| Matrix::new(d, 0, columns));
                pieces.iter().map(|piece| piece.items.len()).zip(d).collect()
            }
        };
        let sums_at = if norms.is_some() { of_gates } else { of_state };

        if let Some(d_x) = &run.d_x {
            let weight = Matrix::new(&weights.numbers, weights.at + shape.weight_ih.start, input);
            let start = if d > 0 { Start::Sum } else { Start::Zero };
            for (piece, (count, d)) in pieces.iter().zip(&of_inputs) {
                let to = Matrix::new(d_x, piece.items.start * input, input);
                rec.product([*count, columns, input], *d, weight, to, start);
            }
        }

        let x = pieces.iter().map(|piece| Matrix::new(run.x, piece.items.start * input, input));
        rec.add_products([columns, input], &of_inputs, x, d_parameters, to(&shape.weight_ih));
        let h_at = counts.saved * hidden;
        let seen: Vec<Numbers> = (pieces.iter().zip(&record.items))
            .filter_map(|(piece, record)| {
                let record = (record, h_at, kept);
                masks.as_ref()?.seen(rec, &piece.table, record, piece.items.len())
            })
            .collect();
        let h: Vec<Matrix<'_>> = match seen.is_empty() {
            true => record.items.iter().map(|items| Matrix::new(items, h_at, kept)).collect(),
            false => seen.iter().map(|seen| Matrix::new(seen, 0, state)).collect(),
        };
        let d_w = to(&shape.weight_hh);
        rec.add_products([first, state], &gates(sums_at), h, d_parameters, d_w);
        if last > 0 {
            let operands = left.iter().filter_map(|left| left.operands.as_ref());
            let operands = operands.map(|operands| Matrix::new(operands, 0, hidden));
            let (late, d_w) = (gates(sums_at + first), d_w + first * hidden);
            rec.add_products([columns - first, hidden], &late, operands, d_parameters, d_w);
        }
        for (range, at) in [(&shape.bias_ih, 0), (&shape.bias_hh, of_state)] {
            if let Some(range) = range {
                rec.add_columns(columns, &gates(at), d_parameters, to(range));
            }
        }
        if let Some(norms) = &norms {
            norms.add_parameters(record, gates, d_parameters, to);
        }
        if of_units > 0 {
            rec.add_columns(of_units, &gates(of_gates), d_parameters, to(&shape.per_unit));
        }
        if let Some(range) = &shape.weight_hr {
            let projections = || left.iter().filter_map(|left| left.projection.as_ref());
            let d_h = projections().map(|[d_h, _]| Matrix::new(d_h, 0, padded(state)));
            let d_h: Vec<_> = pieces.iter().map(|piece| piece.items.len()).zip(d_h).collect();
            let m = projections().map(|[_, m]| Matrix::new(m, 0, hidden));
            rec.add_products([state, hidden], &d_h, m, d_parameters, to(range));
        }
    }
    Ok(())
}
