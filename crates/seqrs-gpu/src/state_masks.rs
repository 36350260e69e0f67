//! What is done to states besides the cell: recurrent dropout and zoneout. The twin of
//! seqrs-cpu/src/state_masks.rs.
//!
//! They are dispatches of their own, after each step and before each step back. The kernels of the
//! steps know of them only that a row of h has the operand of the products at a place of its own,
//! and on the way back, where [`Masked`] says so, a mask and shares in a row of `running`.

use seqrs_core::backend::StateMasks;
use seqrs_core::spec::Shape;

use crate::kernels::{read, table, write};
use crate::params::{NONE, Step, params};
use crate::pieces;
use crate::program::Pipeline;
use crate::recorder::{Numbers, Recorder};
use crate::row_kernels::{RowKernel, by_column, rows};
use crate::rules::padded;

/// Whether something is done to states besides the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Masked {
    Yes,
    No,
}

/// A shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MaskKernel {
    /// After a step.
    Mix { has_c: bool, is_kept: bool },
    /// Before a step back.
    Restore,
    /// The operands of the products.
    SeenRows,
    /// The operand of a second product.
    ScaleRows,
}

params! {
    /// After a step; the shares are the bits of an `f32`.
    Mix {
        rows, hidden, state, states,
        items_at,
        /// Numbers of a row of h, and where in it the operand of the products begins, or [`NONE`].
        h_row, seen_at,
        c_at, y_at, y_stride,
        share_h, share_c,
        /// Whether the shares are kept already.
        is_drawn,
    }
}

params! {
    /// Before a step back.
    Restore {
        rows, hidden, state, states,
        items_at,
        /// Numbers of a row of `running`, and where in it the states after the step and the shares
        /// begin.
        running, stepped_at, shares_at,
    }
}

params! {
    /// The operands of the products, by the table of (step, row).
    SeenRows { places, rows, width, from_at, from_stride }
}

params! {
    /// Rows times their masks.
    ScaleRows { rows, width, at, stride }
}

impl MaskKernel {
    /// Each of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Mix { has_c: false, is_kept: false },
        Self::Mix { has_c: false, is_kept: true },
        Self::Mix { has_c: true, is_kept: false },
        Self::Mix { has_c: true, is_kept: true },
        Self::Restore,
        Self::SeenRows,
        Self::ScaleRows,
    ];

    pub(crate) fn pipeline(self) -> Pipeline {
        match self {
            Self::Mix { has_c, is_kept } => {
                let mut bindings =
                    vec![table("items"), read("mask"), write("before"), write("h"), write("y")];
                bindings.extend(has_c.then(|| write("c")));
                bindings.extend(is_kept.then(|| write("kept")));
                let share = match is_kept {
                    true => include_str!("shaders/masks/keep.wgsl"),
                    false => {
                        "fn kept_of(item: u32, column: u32, share: f32, stepped: f32) -> f32 {
    return share;
}
"
                    }
                };
                let c = match has_c {
                    true => include_str!("shaders/masks/mix_c.wgsl"),
                    false => "fn mix_c(item: u32, b: u32, u: u32) {}\n",
                };
                let body = include_str!("shaders/masks/mix.wgsl");
                rows("mixed states", Mix::WGSL, &bindings, &[share, c, body])
            }
            Self::Restore => {
                let bindings = [table("items"), read("kept"), write("running")];
                let body = include_str!("shaders/masks/restore.wgsl");
                rows("states before they were mixed", Restore::WGSL, &bindings, &[body])
            }
            Self::SeenRows => {
                let bindings = [table("items"), read("mask"), read("h"), write("seen")];
                let body = include_str!("shaders/masks/seen_rows.wgsl");
                rows("operands", SeenRows::WGSL, &bindings, &[body])
            }
            Self::ScaleRows => {
                let body = include_str!("shaders/masks/scale_rows.wgsl");
                let bindings = [read("mask"), write("rows")];
                rows("rows times masks", ScaleRows::WGSL, &bindings, &[body])
            }
        }
    }
}

/// What is done to the states of one direction of a layer.
#[derive(Clone, Copy)]
pub(crate) struct Masks<'a> {
    shape: &'a Shape,
    batch: usize,
    /// What was drawn, if anything was.
    drawn: Option<&'a StateMasks<Box<Numbers>>>,
}

impl<'a> Masks<'a> {
    /// None where nothing is done.
    pub(crate) fn new(
        shape: &'a Shape,
        batch: usize,
        drawn: Option<&'a StateMasks<Box<Numbers>>>,
    ) -> Option<Self> {
        let masks = Self { shape, batch, drawn };
        (masks.recurrent().is_some() || pieces::mixed_width(shape) > 0).then_some(masks)
    }

    /// What the recurrent products read is h' times this.
    pub(crate) fn recurrent(&self) -> Option<&'a Numbers> {
        self.drawn.and_then(|drawn| drawn.recurrent.as_deref())
    }

    /// Numbers of a row of h, where the operand of the products may have a place of its own, and
    /// that place.
    pub(crate) fn h_row(&self) -> (usize, usize) {
        let row = padded(self.shape.state);
        match self.recurrent() {
            Some(_) => (2 * row, row),
            None => (row, 0),
        }
    }

    /// Numbers of a row of `running` behind those that it always has: mask and shares.
    pub(crate) fn behind_running(&self) -> usize {
        3 * self.shape.hidden
    }

    /// What zoneout keeps of these items for the way back: the shares, and what the steps gave.
    pub(crate) fn kept(&self, rec: &Recorder, first: usize, items: usize) -> Option<Numbers> {
        let Shape { state, hidden, .. } = *self.shape;
        let row = pieces::mixed_width(self.shape);
        if row == 0 {
            return None;
        }
        let kept = rec.buffer(items * row);
        if let Some(drawn) = self.drawn {
            if let Some(h) = &drawn.kept_h {
                rec.copy_rows(items, state, (h, first * state, state), (&kept, 0, row));
            }
            if let Some(c) = &drawn.kept_c {
                rec.copy_rows(items, hidden, (c, first * hidden, hidden), (&kept, state, row));
            }
        }
        Some(kept)
    }

    /// Makes ready for the first step, where h and c begin with these rows and h has been copied to
    /// its buffer.
    pub(crate) fn begin(
        self,
        rec: &Recorder,
        initial: (&Numbers, usize),
        h: &Numbers,
        c: Option<(&Numbers, usize)>,
    ) -> Mixing<'a> {
        let Shape { state, hidden, .. } = *self.shape;
        let (initial, at) = initial;
        if let Some(mask) = self.recurrent() {
            let (h_row, seen_at) = self.h_row();
            rec.copy_rows(self.batch, state, (initial, at, state), (h, seen_at, h_row));
            self.scale(rec, mask, h, seen_at, h_row);
        }
        let row = pieces::states_width(self.shape);
        let before = rec.blank_buffer(self.batch * row);
        rec.copy_rows(self.batch, state, (initial, at, state), (&before, 0, row));
        if let Some((c, at)) = c {
            rec.copy_rows(self.batch, hidden, (c, at, hidden), (&before, state, row));
        }
        Mixing { masks: self, before, c_at: c.map_or(0, |(_, at)| at) }
    }

    /// Rows of numbers, the first at `at`, times their masks.
    fn scale(&self, rec: &Recorder, mask: &Numbers, numbers: &Numbers, at: usize, stride: usize) {
        let width = self.shape.state;
        let params = ScaleRows {
            rows: self.batch as u32,
            width: width as u32,
            at: at as u32,
            stride: stride as u32,
        };
        let kernel = RowKernel::Masks(MaskKernel::ScaleRows);
        rec.rows(kernel, &[mask, numbers], params.words(), by_column(self.batch, width));
    }

    /// What a first product left for the second, a row every `stride` numbers, times its mask.
    pub(crate) fn scale_opened(&self, rec: &Recorder, opened: &Numbers, stride: usize) {
        if let Some(mask) = self.recurrent() {
            self.scale(rec, mask, opened, 0, stride);
        }
    }

    /// Makes the end of the rows of `running` ready for the first step back.
    pub(crate) fn begin_back(&self, rec: &Recorder, running: &Numbers, row: usize) {
        let state = self.shape.state;
        let at = row - self.behind_running();
        let ones;
        let mask = match self.recurrent() {
            Some(mask) => mask,
            None => {
                ones = rec.numbers(&vec![1.0; self.batch * state]);
                &ones
            }
        };
        rec.copy_rows(self.batch, state, (mask, 0, state), (running, at, row));
    }

    /// Before the step back whose table begins at `items_at`.
    pub(crate) fn before_step_back(
        &self,
        rec: &Recorder,
        table: &Numbers,
        items_at: u32,
        kept: Option<&Numbers>,
        running: &Numbers,
        row: usize,
    ) {
        let Some(kept) = kept else { return };
        let Shape { state, hidden, .. } = *self.shape;
        let params = Restore {
            rows: self.batch as u32,
            hidden: hidden as u32,
            state: state as u32,
            states: pieces::states_width(self.shape) as u32,
            items_at,
            running: row as u32,
            stepped_at: (self.shape.cell.states() * hidden) as u32,
            shares_at: (row - 2 * hidden) as u32,
        };
        let kernel = RowKernel::Masks(MaskKernel::Restore);
        let groups = by_column(self.batch, hidden);
        rec.rows(kernel, &[table, kept, running], params.words(), groups);
    }

    /// What the recurrent products of a piece have read, if that is not h' itself: h' of an item
    /// begins at `at` in its row of the record.
    pub(crate) fn seen(
        &self,
        rec: &Recorder,
        table: &Numbers,
        record: (&Numbers, usize, usize),
        items: usize,
    ) -> Option<Numbers> {
        let mask = self.recurrent()?;
        let (record, at, stride) = record;
        let width = self.shape.state;
        let seen = rec.blank_buffer(items * width);
        let params = SeenRows {
            places: table.len() as u32,
            rows: self.batch as u32,
            width: width as u32,
            from_at: at as u32,
            from_stride: stride as u32,
        };
        let kernel = RowKernel::Masks(MaskKernel::SeenRows);
        let groups = by_column(table.len(), width);
        rec.rows(kernel, &[table, mask, record, &seen], params.words(), groups);
        Some(seen)
    }
}

/// On the way forward, the states before each step.
pub(crate) struct Mixing<'a> {
    pub(crate) masks: Masks<'a>,
    before: Numbers,
    c_at: usize,
}

impl Mixing<'_> {
    /// After the step of `step`, which has left its states in h and c.
    pub(crate) fn after_step(
        &self,
        rec: &Recorder,
        step: &Step,
        table: &Numbers,
        [h, y]: [&Numbers; 2],
        c: Option<&Numbers>,
        kept: Option<&Numbers>,
    ) {
        let masks = &self.masks;
        let Shape { state, hidden, zoneout_h, zoneout_c, .. } = *masks.shape;
        let (h_row, seen_at) = masks.h_row();
        let recurrent = masks.recurrent();
        let params = Mix {
            rows: masks.batch as u32,
            hidden: hidden as u32,
            state: state as u32,
            states: pieces::states_width(masks.shape) as u32,
            items_at: step.items_at,
            h_row: h_row as u32,
            seen_at: recurrent.map_or(NONE, |_| seen_at as u32),
            c_at: self.c_at as u32,
            y_at: step.y_at,
            y_stride: step.y_stride,
            share_h: (zoneout_h as f32).to_bits(),
            share_c: (zoneout_c as f32).to_bits(),
            is_drawn: u32::from(masks.drawn.is_some()),
        };
        let mut buffers = vec![table, recurrent.unwrap_or(table), &self.before, h, y];
        buffers.extend(c);
        buffers.extend(kept);
        let kernel = MaskKernel::Mix { has_c: c.is_some(), is_kept: kept.is_some() };
        let groups = by_column(masks.batch, hidden);
        rec.rows(RowKernel::Masks(kernel), &buffers, params.words(), groups);
    }
}
