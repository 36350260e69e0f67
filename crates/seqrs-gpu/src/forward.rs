//! One layer over all steps.
//!
//! ```text
//! for each piece of the steps:
//!     gx = b_ih + x W_ih^T                      one product for all its steps
//!     for each step t:                          one dispatch, for a cell with two products two
//!         h, c = cell(gx[t], b_hh + h W_hh^T)   (shaders/step.wgsl)
//!         h = h W_hr^T                          one more for a projection (shaders/project.wgsl)
//! ```
//! Where the weights are few, all steps are one dispatch (shaders/all_steps.wgsl). Where something is
//! done to states besides the cell, that is one more after each step (state_masks.rs). What is
//! different in a normalised cell stands in norms.rs.

use std::ops::Range;

use seqrs_core::Error;
use seqrs_core::backend::Forward;
use seqrs_core::rows::Place;
use seqrs_core::spec::Shape;
use seqrs_core::steps::Direction;

use crate::kernels::{Kernel, Projected, Recorded};
use crate::norms::{self, Norms};
use crate::params;
use crate::pieces::{self, Piece};
use crate::products::{Matrix, Start};
use crate::recorder::{Numbers, Recorder};
use crate::rules::{padded, quads};
use crate::state_masks::Masks;
use crate::weights::{Packed, Product};

/// From the table of items of a step to that of the next in this direction; `u32` goes round.
pub(crate) fn items_step(direction: Direction, batch: usize) -> u32 {
    match direction {
        Direction::Forward => batch as u32,
        Direction::Reverse => (batch as u32).wrapping_neg(),
    }
}

pub(crate) fn forward(rec: &Recorder, run: Forward<'_, Recorder>) -> Result<(), Error> {
    let shape = run.shape;
    let Shape { cell: kind, input, hidden, state, directions, .. } = *shape;
    let (counts, states) = (kind.counts(), kind.states());
    let (items, batch) = (run.steps.items(), run.steps.batch());
    let columns = counts.gates * hidden;
    let pieces = rec.pieces(run.steps, pieces::width(shape))?;

    // Rows of x one after the other, and rows of y likewise.
    let packed;
    let (x, x_at, x_stride) = match run.x.place {
        Place::Packed { start, stride } => (run.x.data, start, stride),
        Place::Padded { .. } => {
            packed = rec.packed(run.x, run.steps, input);
            (&packed, 0, input)
        }
    };
    let width = directions * state;
    let unpacked;
    let (y, y_at, y_stride) = match run.y.place {
        Place::Packed { start, stride } => (&*run.y.data, start, stride),
        Place::Padded { .. } => {
            unpacked = rec.blank_buffer(items * width);
            (&unpacked, 0, width)
        }
    };

    for (d, weights) in run.weights.iter().enumerate() {
        let direction = Direction::BOTH[d];
        let kept = pieces::record_width(shape);
        let masks = Masks::new(shape, batch, run.masks.get(d));
        let mut record = run.tape.get_mut(d);
        if let Some(record) = &mut record {
            record.items =
                pieces.iter().map(|piece| rec.blank_buffer(piece.items.len() * kept)).collect();
            let of_piece = |piece: &Piece| {
                masks.and_then(|masks| masks.kept(rec, piece.items.start, piece.items.len()))
            };
            record.mixed = pieces.iter().filter_map(of_piece).collect();
        }
        // The pieces take turns in it.
        let longest = pieces.iter().map(|piece| piece.items.len()).max().unwrap_or(0);
        let gx = rec.blank_buffer(longest * columns);
        let norms = Norms::new(rec, shape, weights, batch);
        let normed =
            norms.map(|norms| (norms, norms.bench(&pieces, longest, record.as_deref_mut())));
        let slot = (run.slot + d) * batch;
        // The state before a step and after it, in turn; with a projection h stays where it is, and
        // what is projected has H numbers a row.
        let (h_row, seen_at) = masks.map_or((padded(state), 0), |masks| masks.h_row());
        let new_row = if shape.weight_hr.is_some() { padded(hidden) } else { h_row };
        let mut h = rec.buffer(batch * h_row);
        let mut h_new = rec.buffer(batch * new_row);
        let initial = (&*run.state.h, slot * state);
        rec.copy_rows(batch, state, (initial.0, initial.1, state), (&h, 0, h_row));
        let mixing = masks.map(|masks| {
            let c = run.state.c.as_deref().map(|c| (c, slot * hidden));
            masks.begin(rec, initial, &h, c)
        });

        let (first, last) = (counts.first_gates, counts.gates - counts.first_gates);
        let of_gates = |from: usize, gates: usize| {
            let skipped = |range: &Range<usize>| weights.at + range.start + from * hidden;
            let weight_at = weights.at + shape.weight_hh.start + from * hidden * state;
            // Where there are norms, the biases come behind them.
            let bias = shape.bias_hh.as_ref().filter(|_| norms.is_none());
            Product::forward(gates, hidden, state, weight_at, bias.map(skipped))
        };
        let mut products = vec![of_gates(0, first)];
        products.extend((last > 0).then(|| of_gates(first, last)));
        let per_unit =
            Product::per_unit(counts.per_unit, hidden, weights.at + shape.per_unit.start);
        products.extend((counts.per_unit > 0).then_some(per_unit));
        let recurrent = rec.packed_weights(&weights.numbers, &products);
        let project = shape.weight_hr.as_ref().map(|range| {
            let product = Product::forward(1, state, hidden, weights.at + range.start, None);
            rec.packed_weights(&weights.numbers, &[product])
        });
        let projected = if project.is_some() { Projected::Yes } else { Projected::No };
        let recorded = if record.is_some() { Recorded::Yes } else { Recorded::No };
        let opened_row = (1 + counts.opened) * padded(hidden);
        let opened = (last > 0).then(|| rec.buffer(batch * opened_row));
        let all_steps = match (&project, &mixing, &norms) {
            (None, None, None) => rec.rules.all_steps(first.max(last), counts.gates, hidden, batch),
            _ => None,
        };

        for k in 0..pieces.len() {
            let k = direction.step(k, pieces.len());
            let piece = &pieces[k];
            let from = Matrix::new(x, x_at + piece.items.start * x_stride, x_stride);
            let weight = Matrix::new(&weights.numbers, weights.at + shape.weight_ih.start, input);
            let (start, sums) = match (&shape.bias_ih, &normed) {
                (_, Some((_, bench))) => (Start::Zero, &bench.input_sums),
                (None, None) => (Start::Zero, &gx),
                (Some(range), None) => {
                    (Start::Bias(&weights.numbers, weights.at + range.start), &gx)
                }
            };
            let sizes = [piece.items.len(), input, columns];
            rec.product(sizes, from, weight.transposed(), Matrix::new(sums, 0, columns), start);
            if let Some((norms, bench)) = &normed {
                let kept = record.as_ref().map(|record| &record.inputs[k]);
                norms.inputs(bench, piece, kept, &gx);
            }
            let step = params::Step {
                rows: batch as u32,
                units: hidden as u32,
                hidden: hidden as u32,
                depth: quads(state) as u32,
                h_row: quads(h_row) as u32,
                seen_at: quads(seen_at) as u32,
                new_row: new_row as u32,
                items_at: 0,
                c_at: (slot * hidden) as u32,
                y_at: (y_at + piece.items.start * y_stride + d * state) as u32,
                y_stride: y_stride as u32,
                record: kept as u32,
                steps: 1,
                items_step: items_step(direction, batch),
                weights_at: 0,
                second_at: recurrent.second_at as u32,
                per_unit_at: recurrent.last_at as u32,
            };
            let (c, table) = (run.state.c.as_deref(), &piece.table);
            let mixed = record.as_ref().and_then(|record| record.mixed.get(k));
            let record = record.as_ref().map(|record| &record.items[k]);
            let items_at = |t: usize| (direction.step(t, piece.time) * batch) as u32;

            if let Some(tile) = all_steps {
                let mut buffers = vec![table, &gx, &recurrent.numbers, &h];
                buffers.extend(c.into_iter().chain([y]).chain(record));
                let at_once = rec.steps_at_once(batch * columns * hidden);
                for t in (0..piece.time).step_by(at_once) {
                    let steps = at_once.min(piece.time - t) as u32;
                    let params = params::Step { items_at: items_at(t), steps, ..step };
                    let kernel = Kernel::AllSteps(kind, recorded, tile);
                    rec.dispatch(kernel, &buffers, params.words(), tile.workgroups(hidden, batch));
                }
                continue;
            }
            let tile = |gates: usize, units: usize| rec.rules.tile(gates, units, batch);
            let project_h = |packed: &Packed, params: &params::Step, m: &Numbers, h: &Numbers| {
                let (units, depth) = (state as u32, quads(hidden) as u32);
                let project = params::Step { units, depth, ..*params };
                let buffers = [table, &packed.numbers, m, h, y];
                let tile = tile(1, state);
                let groups = tile.workgroups(state, batch);
                rec.dispatch(Kernel::Project(tile), &buffers, project.words(), groups);
            };
            for t in 0..piece.time {
                let mut params = params::Step { items_at: items_at(t), ..step };
                if let Some((norms, bench)) = &normed {
                    let out = if project.is_some() { &h_new } else { y };
                    let recurrent = &recurrent.numbers;
                    let buffers = norms::Step { table, gx: &gx, recurrent, h: &h, out, c, record };
                    norms.step(bench, &buffers, &params);
                    if let Some(packed) = &project {
                        project_h(packed, &params, &h_new, &h);
                    }
                    if let Some(mixing) = &mixing {
                        mixing.after_step(rec, &params, table, [&h, y], c, mixed);
                    }
                    continue;
                }
                let mut gates = first;
                let mut buffers = vec![table, &gx, &recurrent.numbers, &h];
                if let Some(opened) = &opened {
                    let tile = tile(first, hidden);
                    let first = [table, &gx, &recurrent.numbers, &h, opened];
                    let groups = tile.workgroups(hidden, batch);
                    rec.dispatch(Kernel::Open(kind, tile), &first, params.words(), groups);
                    if let Some(masks) = &masks {
                        masks.scale_opened(rec, opened, opened_row);
                    }
                    buffers.push(opened);
                    params.weights_at = params.second_at;
                    gates = last;
                }
                buffers.push(&h_new);
                buffers.extend(c);
                if projected == Projected::No {
                    buffers.push(y);
                }
                buffers.extend(record);
                let step_tile = tile(gates, hidden);
                let kernel = Kernel::Step(kind, recorded, projected, step_tile);
                let groups = step_tile.workgroups(hidden, batch);
                rec.dispatch(kernel, &buffers, params.words(), groups);
                match &project {
                    None => std::mem::swap(&mut h, &mut h_new),
                    Some(packed) => project_h(packed, &params, &h_new, &h),
                }
                if let Some(mixing) = &mixing {
                    mixing.after_step(rec, &params, table, [&h, y], c, mixed);
                }
            }
        }
        rec.copy_rows(batch, state, (&h, 0, h_row), (&*run.state.h, slot * state, state));
        if let Some(record) = record {
            let row = states * hidden;
            rec.copy_rows(batch, state, (&h, 0, h_row), (&record.last, 0, row));
            if let Some(c) = &run.state.c {
                let from = (&**c, slot * hidden, hidden);
                rec.copy_rows(batch, hidden, from, (&record.last, hidden, row));
            }
        }
    }
    if let Place::Padded { .. } = run.y.place {
        rec.unpack_rows(y, run.steps, width, run.y.data, run.y.place);
    }
    Ok(())
}
