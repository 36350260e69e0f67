//! One layer over all steps.
//!
//! ```text
//! for each piece of the steps:
//!     gx = b_ih + x W_ih^T                      one product for all its steps
//!     for each step t:                          one dispatch, for a cell with two products two
//!         h, c = cell(gx[t], b_hh + h W_hh^T)   (shaders/step.wgsl)
//!         h = h W_hr^T                          one more for a projection (shaders/project.wgsl)
//! ```

use std::ops::Range;

use seqrs_core::Error;
use seqrs_core::backend::Forward;
use seqrs_core::cell::{Bundle, Cell, CellKind};
use seqrs_core::rows::Place;
use seqrs_core::spec::Shape;
use seqrs_core::steps::Direction;

use crate::kernels::{Kernel, Projected, ROWS, Recorded, UNITS};
use crate::params::{self, NONE};
use crate::pieces;
use crate::recorder::{Numbers, Recorder, Weights};

/// Where a part of the parameters begins.
pub(crate) fn at(weights: &Weights, start: usize) -> u32 {
    (weights.at + start) as u32
}

/// Workgroups of a step.
pub(crate) fn step_groups(units: usize, rows: usize) -> [usize; 3] {
    [units.div_ceil(UNITS), rows.div_ceil(ROWS), 1]
}

pub(crate) fn forward<C: Cell>(rec: &Recorder, run: Forward<'_, Recorder>) -> Result<(), Error> {
    let shape = run.shape;
    let kind: CellKind = shape.cell;
    let Shape { input, hidden, state, directions, .. } = *shape;
    let (items, batch) = (run.steps.items(), run.steps.batch());
    let columns = C::GATES * hidden;
    let pieces = rec.pieces(run.steps, pieces::width::<C>(hidden))?;

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
        let bias = |range: &Option<Range<usize>>| {
            range.as_ref().map_or(NONE, |range| at(weights, range.start))
        };
        let kept = (C::SAVED + C::STATES) * hidden;
        let mut record = run.tape.get_mut(d);
        if let Some(record) = &mut record {
            record.items =
                pieces.iter().map(|piece| rec.blank_buffer(piece.items.len() * kept)).collect();
        }
        // The pieces take turns in it.
        let longest = pieces.iter().map(|piece| piece.items.len()).max().unwrap_or(0);
        let gx = rec.blank_buffer(longest * columns);
        let slot = (run.slot + d) * batch;
        // The state before a step and after it, in turn; with a projection h stays where it is, and
        // what is projected has H numbers a row.
        let mut h = rec.buffer(batch * state);
        let mut h_new = rec.buffer(batch * hidden);
        rec.copy_rows(1, batch * state, (&run.state.h, slot * state, 0), (&h, 0, 0));
        let opened_width = (1 + <C::Opened<f32> as Bundle<f32>>::NAMES.len()) * hidden;
        let opened = (C::FIRST_GATES < C::GATES).then(|| rec.buffer(batch * opened_width));
        let recorded = if record.is_some() { Recorded::Yes } else { Recorded::No };
        let projected = if shape.weight_hr.is_some() { Projected::Yes } else { Projected::No };

        for k in 0..pieces.len() {
            let k = direction.step(k, pieces.len());
            let piece = &pieces[k];
            let product = params::Product {
                m: piece.items.len() as u32,
                n: columns as u32,
                k: input as u32,
                a_at: (x_at + piece.items.start * x_stride) as u32,
                a_m: x_stride as u32,
                a_k: 1,
                b_at: at(weights, shape.weight_ih.start),
                b_k: 1,
                b_n: input as u32,
                c_at: 0,
                c_m: columns as u32,
                bias_at: bias(&shape.bias_ih),
                add: 0,
            };
            rec.product(x, &weights.numbers, &weights.numbers, &gx, product);
            let mut params = params::Step {
                rows: batch as u32,
                units: hidden as u32,
                hidden: hidden as u32,
                depth: state as u32,
                items_at: 0,
                weight_at: at(weights, shape.weight_hh.start),
                bias_at: bias(&shape.bias_hh),
                c_at: (slot * hidden) as u32,
                y_at: (y_at + piece.items.start * y_stride + d * state) as u32,
                y_stride: y_stride as u32,
                record: kept as u32,
            };
            for t in 0..piece.time {
                params.items_at = (direction.step(t, piece.time) * batch) as u32;
                let mut finish = params;
                let mut buffers: Vec<&Numbers> = vec![&piece.table, &gx, &weights.numbers, &h];
                if let Some(opened) = &opened {
                    let first = [&piece.table, &gx, &*weights.numbers, &h, opened];
                    let groups = step_groups(hidden, batch);
                    rec.dispatch(Kernel::Open(kind), &first, params.words(), groups);
                    buffers.push(opened);
                    finish.weight_at += (C::FIRST_GATES * hidden * hidden) as u32;
                    if finish.bias_at != NONE {
                        finish.bias_at += (C::FIRST_GATES * hidden) as u32;
                    }
                }
                buffers.push(&h_new);
                if let Some(c) = &run.state.c {
                    buffers.push(c);
                }
                if projected == Projected::No {
                    buffers.push(y);
                }
                if let Some(record) = &record {
                    buffers.push(&record.items[k]);
                }
                let kernel = Kernel::Step(kind, recorded, projected);
                rec.dispatch(kernel, &buffers, finish.words(), step_groups(hidden, batch));
                match &shape.weight_hr {
                    None => std::mem::swap(&mut h, &mut h_new),
                    Some(range) => {
                        let mut project = params;
                        (project.units, project.depth) = (state as u32, hidden as u32);
                        project.weight_at = at(weights, range.start);
                        let buffers = [&piece.table, &*weights.numbers, &h_new, &h, y];
                        let groups = step_groups(state, batch);
                        rec.dispatch(Kernel::Project, &buffers, project.words(), groups);
                    }
                }
            }
        }
        rec.copy_rows(1, batch * state, (&h, 0, 0), (&run.state.h, slot * state, 0));
        if let Some(record) = record {
            let row = C::STATES * hidden;
            rec.copy_rows(batch, state, (&h, 0, state), (&record.last, 0, row));
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
