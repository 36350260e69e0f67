//! What forward keeps for backward.
//!
//! Everything is packed: a (step, row) pair that is not live takes no room.

use crate::Error;
use crate::backend::{Backend, StateMasks};
use crate::spec::Shape;
use crate::steps::Steps;

/// A recorded forward pass of a stack of layers, with a `Record` of each direction of each.
#[derive(Debug)]
pub struct Tape<Scratch, Record = DirectionTape<Scratch>> {
    /// Which rows were live.
    pub steps: Steps,
    /// Inputs of the first layer.
    pub x: Scratch,
    /// A record each.
    pub layers: Vec<LayerTape<Scratch, Record>>,
}

/// The record of one layer.
#[derive(Debug)]
pub struct LayerTape<Scratch, Record = DirectionTape<Scratch>> {
    /// A record each.
    pub directions: Vec<Record>,
    /// Outputs, D times the state size each.
    pub y: Scratch,
    /// What dropout did to them on the way to the next layer.
    pub dropout: Option<Dropped<Scratch>>,
    /// What was drawn for the states, a direction each; empty where nothing was.
    pub masks: Vec<StateMasks<Scratch>>,
}

/// Outputs that went through dropout.
#[derive(Debug)]
pub struct Dropped<Scratch> {
    /// 0 or 1 / (1 - p) for each output.
    pub mask: Scratch,
    /// The outputs times the mask.
    pub y: Scratch,
}

/// The record of one direction of one layer, on the CPU.
#[derive(Debug)]
pub struct DirectionTape<Scratch> {
    /// Hidden states before the first step, (B, state size).
    pub h0: Scratch,
    /// Cell states before the first step, (B, H), for a cell that has them.
    pub c0: Option<Scratch>,
    /// For each item the saved values of the cell, (S, H).
    pub saved: Scratch,
    /// For each item the cell state after it, (H).
    pub c: Option<Scratch>,
    /// For each item the hidden state that the step gave, where zoneout mixes it with the one
    /// before.
    pub stepped_h: Option<Scratch>,
    /// For each item the cell state that the step gave, likewise.
    pub stepped_c: Option<Scratch>,
    /// What the normalisations of a cell keep.
    pub norms: Option<Norms<Scratch>>,
}

/// The normalised rows of each item.
#[derive(Debug)]
pub struct Norms<Scratch> {
    /// Of x W_ih^T, (G H).
    pub ih: Normed<Scratch>,
    /// Of h' W_hh^T, (G H).
    pub hh: Normed<Scratch>,
    /// Of the cell state, (H), for a cell that has one.
    pub c: Option<Normed<Scratch>>,
}

/// What one normalisation keeps of each item.
#[derive(Debug)]
pub struct Normed<Scratch> {
    /// The normalised row.
    pub hat: Scratch,
    /// 1 / sqrt(variance + epsilon).
    pub inverse: Scratch,
}

impl<Scratch> Norms<Scratch> {
    fn blank<B: Backend<Scratch = Scratch>>(
        backend: &B,
        shape: &Shape,
        items: usize,
    ) -> Result<Self, Error> {
        let normed = |width: usize| {
            let (hat, inverse) = (backend.blank(items * width)?, backend.blank(items)?);
            Ok::<_, Error>(Normed { hat, inverse })
        };
        Ok(Self {
            ih: normed(shape.gate_columns())?,
            hh: normed(shape.gate_columns())?,
            c: (shape.cell.states() > 1).then(|| normed(shape.hidden)).transpose()?,
        })
    }
}

impl<Scratch> DirectionTape<Scratch> {
    /// An empty one.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn blank<B: Backend<Scratch = Scratch>>(
        backend: &B,
        shape: &Shape,
        items: usize,
        batch: usize,
    ) -> Result<Self, Error> {
        let cells = |rows: usize| match shape.cell.states() {
            1 => Ok(None),
            _ => backend.blank(rows * shape.hidden).map(Some),
        };
        Ok(Self {
            h0: backend.blank(batch * shape.state)?,
            c0: cells(batch)?,
            saved: backend.blank(items * shape.cell.saved() * shape.hidden)?,
            c: cells(items)?,
            stepped_h: (shape.zoneout_h > 0.0)
                .then(|| backend.blank(items * shape.state))
                .transpose()?,
            stepped_c: (shape.zoneout_c > 0.0)
                .then(|| backend.blank(items * shape.hidden))
                .transpose()?,
            norms: (shape.norms.as_ref())
                .map(|_| Norms::blank(backend, shape, items))
                .transpose()?,
        })
    }
}

impl<Scratch, Record> Tape<Scratch, Record> {
    /// Outputs of the last layer, packed.
    ///
    /// # Panics
    /// Never: a spec has at least one layer.
    pub fn y(&self) -> &Scratch {
        &self.layers.last().expect("a spec has at least one layer").y
    }

    /// Inputs of `layer`, packed.
    pub fn input(&self, layer: usize) -> &Scratch {
        match layer.checked_sub(1).map(|below| &self.layers[below]) {
            None => &self.x,
            Some(LayerTape { dropout: Some(dropped), .. }) => &dropped.y,
            Some(LayerTape { y, .. }) => y,
        }
    }
}
