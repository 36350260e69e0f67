//! What forward keeps for backward.
//!
//! Everything is packed: a (step, row) pair that is not live takes no room.

use crate::Spec;
use crate::steps::Steps;

/// A recorded forward pass of a stack of layers.
#[derive(Debug)]
pub struct Tape<Buffer> {
    /// Which rows were live.
    pub steps: Steps,
    /// Inputs of the first layer.
    pub x: Buffer,
    /// A record each.
    pub layers: Vec<LayerTape<Buffer>>,
}

/// The record of one layer.
#[derive(Debug)]
pub struct LayerTape<Buffer> {
    /// A record each.
    pub directions: Vec<DirectionTape<Buffer>>,
    /// Outputs, D times the state size each.
    pub y: Buffer,
    /// What dropout did to them on the way to the next layer.
    pub dropout: Option<Dropped<Buffer>>,
}

/// Outputs that went through dropout.
#[derive(Debug)]
pub struct Dropped<Buffer> {
    /// 0 or 1 / (1 - p) for each output.
    pub mask: Buffer,
    /// The outputs times the mask.
    pub y: Buffer,
}

/// The record of one direction of one layer.
#[derive(Debug)]
pub struct DirectionTape<Buffer> {
    /// Hidden states before the first step, (B, state size).
    pub h0: Buffer,
    /// Cell states before the first step, (B, H), for a cell that has them.
    pub c0: Option<Buffer>,
    /// For each item the saved values of the cell, (S, H).
    pub saved: Buffer,
    /// For each item the cell state after it, (H).
    pub c: Option<Buffer>,
}

impl<Buffer> Tape<Buffer> {
    /// Outputs of the last layer, packed.
    ///
    /// # Panics
    /// Never: a spec has at least one layer.
    pub fn y(&self) -> &Buffer {
        &self.layers.last().expect("a spec has at least one layer").y
    }

    /// Inputs of `layer`, packed.
    pub fn input(&self, layer: usize) -> &Buffer {
        match layer.checked_sub(1).map(|below| &self.layers[below]) {
            None => &self.x,
            Some(LayerTape { dropout: Some(dropped), .. }) => &dropped.y,
            Some(LayerTape { y, .. }) => y,
        }
    }
}

/// Numbers in a tape of `spec` over `items` live (step, row) pairs of `batch` rows:
/// the input, and for every direction of every layer the cell's saved values, its states
/// after each item and its states before the first; twice the outputs between two layers
/// for dropout.
pub fn len(spec: &Spec, items: usize, batch: usize) -> usize {
    let o = spec.options();
    let cells = (o.cell.states() - 1) * o.hidden_size;
    let each = o.cell.saved() * o.hidden_size + cells + spec.state_size();
    let dropped = if o.dropout > 0.0 { 2 * spec.output_size() * (o.num_layers - 1) } else { 0 };
    items * (o.input_size + spec.slots() * each + dropped)
        + batch * spec.slots() * (spec.state_size() + cells)
}
