//! A normalised cell (`seqrs_core::layer_norm`): what comes between its products and the cell, and
//! between its c and its h. The twin of seqrs-cpu/src/norms.rs.
//!
//! ```text
//! for each piece of the steps:
//!     gx = gamma hat(x W_ih^T) + b_ih               (shaders/rows/layer_norm.wgsl)
//!     for each step t:
//!         sums = h W_hh^T                           (shaders/add_up.wgsl)
//!         h, c = cell(gx[t], gamma hat(sums) + b_hh)    (shaders/normed/step.wgsl)
//! ```
//! and back, where `d_h` is the gradient of what came out of a step, also without a projection:
//! ```text
//! for each step t, the last first:
//!     d_h = d_y[t] + d_h + d_sums[t + 1] W_hh       (shaders/project_back.wgsl)
//!     d_gates[t], d_sums[t], d_h, d_c               (shaders/normed/step_back.wgsl)
//! d(x W_ih^T) = the norm's way back of d_gates      (shaders/rows/layer_norm_back.wgsl)
//! ```
//! A row is normalised as a whole, so such a cell is not fused with its product, nor are all its
//! steps one dispatch.

use std::ops::Range;

use seqrs_core::layer_norm::EPSILON;
use seqrs_core::spec::{self, Shape};

use crate::kernels::{Kernel, Operand, Projected, Recorded};
use crate::params::{self, NONE};
use crate::pieces::{self, Piece};
use crate::products::{Items, Matrix};
use crate::recorder::{Numbers, Record, Recorder, Weights};
use crate::row_kernels::grid;
use crate::rows::{Affine, Normal};
use crate::rules::{padded, quads};
use crate::state_masks::Masked;

/// The norms of one direction of a layer.
#[derive(Clone, Copy)]
pub(crate) struct Norms<'a> {
    rec: &'a Recorder,
    shape: &'a Shape,
    ranges: &'a spec::Norms,
    weights: &'a Weights,
    batch: usize,
}

/// What the way forward needs besides what is there for every cell.
pub(crate) struct Bench {
    /// x W_ih^T of a piece, and h W_hh^T of a step.
    pub(crate) input_sums: Numbers,
    state_sums: Numbers,
    /// Where what nobody asks for goes at inference: the norm of the input's part, and a record of
    /// the step for each row.
    unrecorded: Option<(Normal, Numbers)>,
}

/// What the way back needs likewise.
pub(crate) struct BackBench {
    /// The gradients of h of the items of a piece, where there is no projection that keeps them.
    pub(crate) d_h: Option<Numbers>,
    /// Those of what goes into the projection, for each row.
    d_m: Option<Numbers>,
}

/// The buffers of a step that every cell has.
pub(crate) struct Step<'a> {
    pub(crate) table: &'a Numbers,
    pub(crate) gx: &'a Numbers,
    /// The packed weights of the recurrent product.
    pub(crate) recurrent: &'a Numbers,
    pub(crate) h: &'a Numbers,
    /// What goes into the projection, if there is one, and else y.
    pub(crate) out: &'a Numbers,
    pub(crate) c: Option<&'a Numbers>,
    pub(crate) record: Option<&'a Numbers>,
}

/// The buffers of a step back that every cell has.
pub(crate) struct StepBack<'a> {
    pub(crate) table: &'a Numbers,
    /// By item.
    pub(crate) d_h: &'a Numbers,
    /// The packed weights of the projection, and where m goes.
    pub(crate) projection: Option<[&'a Numbers; 2]>,
    pub(crate) record: &'a Numbers,
    pub(crate) running: &'a Numbers,
    pub(crate) d_gates: &'a Numbers,
    /// What goes on to the step before.
    pub(crate) d: &'a Numbers,
}

impl<'a> Norms<'a> {
    /// None where there are none.
    pub(crate) fn new(
        rec: &'a Recorder,
        shape: &'a Shape,
        weights: &'a Weights,
        batch: usize,
    ) -> Option<Self> {
        let ranges = shape.norms.as_ref()?;
        Some(Self { rec, shape, ranges, weights, batch })
    }

    fn projected(&self) -> Projected {
        if self.shape.weight_hr.is_some() { Projected::Yes } else { Projected::No }
    }

    /// Where a parameter begins, [`NONE`] without it.
    fn at(&self, range: Option<&Range<usize>>) -> u32 {
        range.map_or(NONE, |range| (self.weights.at + range.start) as u32)
    }

    fn at_of_c(&self) -> [u32; 2] {
        let of = |k: usize| self.at(self.ranges.c.as_ref().map(|ranges| &ranges[k]));
        [of(0), of(1)]
    }

    fn of_inputs(&self) -> Affine<'a> {
        let bias_ih = self.shape.bias_ih.as_ref();
        Affine {
            parameters: &self.weights.numbers,
            weight_at: self.weights.at + self.ranges.ih.start,
            bias_at: bias_ih.map(|range| self.weights.at + range.start),
        }
    }

    // --- forward

    /// For pieces of at most so many items, and the record if there is one.
    pub(crate) fn bench(
        &self,
        pieces: &[Piece],
        longest: usize,
        record: Option<&mut Record>,
    ) -> Bench {
        let (rec, columns) = (self.rec, self.shape.gate_columns());
        let unrecorded = match record {
            None => {
                let of_rows = rec.blank_buffer(self.batch * pieces::record_width(self.shape));
                Some((Normal::blank(rec, longest, columns), of_rows))
            }
            Some(record) => {
                let normal = |piece: &Piece| Normal::blank(rec, piece.items.len(), columns);
                record.inputs = pieces.iter().map(normal).collect();
                None
            }
        };
        Bench {
            input_sums: rec.blank_buffer(longest * columns),
            state_sums: rec.blank_buffer(self.batch * columns),
            unrecorded,
        }
    }

    /// gx of the items of piece `k`, from [`Bench::input_sums`].
    pub(crate) fn inputs(&self, bench: &Bench, piece: &Piece, kept: Option<&Normal>, gx: &Numbers) {
        let sizes = [piece.items.len(), self.shape.gate_columns()];
        let kept = kept.or(bench.unrecorded.as_ref().map(|(normal, _)| normal));
        let kept = kept.expect("what is not recorded has a place");
        let eps = EPSILON as f32;
        self.rec.normalise(sizes, &bench.input_sums, eps, self.of_inputs(), gx, kept);
    }

    /// One step, but for the projection.
    pub(crate) fn step(&self, bench: &Bench, step: &Step<'_>, params: &params::Step) {
        let (rec, shape) = (self.rec, self.shape);
        let (gates, hidden) = (shape.cell.gates(), shape.hidden);
        let sums = &bench.state_sums;
        let tile = rec.rules.tile(gates, hidden, self.batch);
        rec.dispatch(
            Kernel::AddUp(Operand::OfRows, gates, tile),
            &[step.recurrent, step.h, sums],
            params.words(),
            tile.workgroups(hidden, self.batch),
        );
        let [gamma_c_at, beta_c_at] = self.at_of_c();
        let normed = params::NormedStep {
            rows: params.rows,
            units: params.units,
            hidden: params.hidden,
            depth: params.depth,
            h_row: 4 * params.h_row,
            items_at: params.items_at,
            c_at: params.c_at,
            y_at: params.y_at,
            y_stride: params.y_stride,
            record: params.record,
            gamma_hh_at: self.at(Some(&self.ranges.hh)),
            bias_hh_at: self.at(shape.bias_hh.as_ref()),
            gamma_c_at,
            beta_c_at,
        };
        let of_rows = bench.unrecorded.as_ref().map(|(_, of_rows)| of_rows);
        let record = step.record.or(of_rows).expect("what is not recorded has a place");
        let recorded = if step.record.is_some() { Recorded::Yes } else { Recorded::No };
        let parameters = &*self.weights.numbers;
        let mut buffers = vec![step.table, step.gx, sums, parameters, step.h, step.out, record];
        buffers.extend(step.c);
        let kernel = Kernel::NormedStep(shape.cell, recorded, self.projected());
        rec.dispatch(kernel, &buffers, normed.words(), grid(self.batch));
    }

    // --- back

    /// For pieces of at most so many items.
    pub(crate) fn back_bench(&self, longest: usize) -> BackBench {
        let (rec, hidden) = (self.rec, self.shape.hidden);
        match self.projected() {
            Projected::No => {
                BackBench { d_h: Some(rec.blank_buffer(longest * padded(hidden))), d_m: None }
            }
            Projected::Yes => {
                BackBench { d_h: None, d_m: Some(rec.blank_buffer(self.batch * hidden)) }
            }
        }
    }

    /// One step back, from the gradient of what came out of it.
    pub(crate) fn step_back(
        &self,
        bench: &BackBench,
        step: &StepBack<'_>,
        params: &params::StepBack,
        masked: Masked,
    ) {
        let (rec, hidden) = (self.rec, self.shape.hidden);
        let mut d_h = step.d_h;
        if let (Some([weights, _]), Some(d_m)) = (step.projection, &bench.d_m) {
            let tile = rec.rules.tile(1, hidden, self.batch);
            let params = params::Step {
                rows: params.rows,
                units: hidden as u32,
                depth: quads(self.shape.state) as u32,
                items_at: params.items_at,
                ..Default::default()
            };
            rec.dispatch(
                Kernel::AddUp(Operand::OfItems, 1, tile),
                &[step.table, weights, d_h, d_m],
                params.words(),
                tile.workgroups(hidden, self.batch),
            );
            d_h = d_m;
        }
        let [gamma_c_at, beta_c_at] = self.at_of_c();
        let normed = params::NormedStepBack {
            rows: params.rows,
            hidden: params.hidden,
            columns: params.columns,
            items_at: params.items_at,
            record: params.record,
            d_gates: params.d_gates,
            running: params.running,
            gamma_hh_at: self.at(Some(&self.ranges.hh)),
            gamma_c_at,
            beta_c_at,
        };
        let StepBack { table, record, running, d_gates, d, .. } = *step;
        let mut buffers = vec![table, &*self.weights.numbers, d_h, record, running, d_gates, d];
        buffers.extend(step.projection.map(|[_, m]| m));
        let kernel = Kernel::NormedStepBack(self.shape.cell, self.projected(), masked);
        rec.dispatch(kernel, &buffers, normed.words(), grid(self.batch));
    }

    /// The gradients of x W_ih^T, a buffer for each piece, from those of gx, which are the first
    /// columns of `d_gates`.
    pub(crate) fn inputs_back(&self, record: &Record, d_gates: &[Items<'_>]) -> Vec<Numbers> {
        let columns = self.shape.gate_columns();
        let back = |((count, d), kept): (&Items<'_>, &Normal)| {
            self.rec.normalise_back(kept, [*count, columns], *d, self.of_inputs())
        };
        d_gates.iter().zip(&record.inputs).map(back).collect()
    }

    /// What all items add to the gradients of the norms' own parameters, but for those that are
    /// biases of the gates. `d_gates` gives the gradients of the gates from a column on.
    pub(crate) fn add_parameters<'d>(
        &self,
        record: &'d Record,
        d_gates: impl Fn(usize) -> Vec<Items<'d>>,
        d_parameters: &Numbers,
        to: impl Fn(&Range<usize>) -> usize,
    ) {
        let (rec, shape) = (self.rec, self.shape);
        let (columns, hidden) = (shape.gate_columns(), shape.hidden);
        let of_gates = pieces::gates_width(shape);
        let kept = pieces::record_width(shape);
        let hats_at = (shape.cell.saved() + shape.cell.states()) * hidden;
        let hats = |at: usize| record.items.iter().map(move |items| Matrix::new(items, at, kept));
        let of_inputs = record.inputs.iter().map(|kept| Matrix::new(&kept.normals, 0, columns));
        let (ih, hh) = (to(&self.ranges.ih), to(&self.ranges.hh));
        rec.add_dots(columns, &d_gates(0), of_inputs, d_parameters, ih);
        let d_gh = d_gates(of_gates - columns);
        rec.add_dots(columns, &d_gh, hats(hats_at), d_parameters, hh);
        if let Some([gamma, beta]) = &self.ranges.c {
            let d_shown = d_gates(of_gates + columns);
            let of_c = hats(hats_at + columns);
            rec.add_dots(hidden, &d_shown, of_c, d_parameters, to(gamma));
            rec.add_columns(hidden, &d_shown, d_parameters, to(beta));
        }
    }
}
