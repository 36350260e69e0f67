//! The cells: what one unit does at one step.
//!
//! A cell is a pointwise function. Products, time, layers and lengths are elsewhere; a
//! cell sees the gates' pre-activations of one unit, split into the part that came from
//! the input (`gx = x W_ih^T + b_ih`) and the part that came from the hidden state
//! (`gh = h' W_hh^T + b_hh`), and the unit's state. The parts stay apart because the
//! reset-after GRU multiplies one of them. The text of a cell is generic over
//! [`Lanes`], so that one number and a register of them share it.
//!
//! Letters: a prime marks the previous step (`s` is the state before, `s_new` after);
//! gradients of the loss take the prefix `d_`.

mod bundle;
mod gru;
mod lstm;
mod lstm_peephole;
mod rnn;

pub use bundle::{Bundle, H, Hc, MAX_BUNDLE, Nothing};
pub use gru::{GruResetAfter, GruResetBefore};
pub use lstm::Lstm;
pub use lstm_peephole::LstmPeephole;
pub use rnn::{Activation, Relu, Rnn, Tanh};

use serde::{Deserialize, Serialize};

use crate::lanes::Lanes;

/// The gradients that [`Cell::backward`] gives.
#[derive(Clone, Copy, Debug)]
pub struct Gradients<C: Cell, V: Copy> {
    /// Of the gates, the part of the input.
    pub d_gx: C::Gates<V>,
    /// Of the gates, the part of the hidden state.
    pub d_gh: C::Gates<V>,
    /// Of the state before the step, as far as it does not go through a product.
    pub d_s: C::State<V>,
    /// What this step adds to those of the unit's own parameters.
    pub d_p: C::PerUnit<V>,
}

/// One unit of a recurrent layer at one step.
pub trait Cell: Copy + Send + Sync + 'static {
    /// The gates, in the order of their columns in the weights.
    type Gates<V: Copy>: Bundle<V>;
    /// What is carried from step to step; the first field is the hidden state h.
    type State<V: Copy>: Bundle<V>;
    /// What forward keeps for backward, besides the states.
    type Saved<V: Copy>: Bundle<V>;
    /// What [`Cell::open`] hands to [`Cell::forward`].
    type Opened<V: Copy>: Bundle<V>;
    /// Parameters that each unit has for itself, besides its rows of the weights and biases; they
    /// are called `weight_` and the name of the field.
    type PerUnit<V: Copy>: Bundle<V>;

    /// Number of gates, G.
    const GATES: usize = <Self::Gates<f32> as Bundle<f32>>::NAMES.len();
    /// Number of states a unit carries: 1 (h) or 2 (h, c).
    const STATES: usize = <Self::State<f32> as Bundle<f32>>::NAMES.len();
    /// Numbers a unit keeps for backward at each step, besides its states.
    const SAVED: usize = <Self::Saved<f32> as Bundle<f32>>::NAMES.len();
    /// Number of parameters that each unit has for itself.
    const PER_UNIT: usize = <Self::PerUnit<f32> as Bundle<f32>>::NAMES.len();
    /// Gates whose recurrent product is with h'. The remaining ones multiply an operand
    /// that [`Cell::open`] makes of the first; most cells have none of these.
    const FIRST_GATES: usize;
    /// Whether d_gx and d_gh are always the same, so that one buffer can hold both.
    const ONE_GATE_GRADIENT: bool;

    /// First stage of a cell with two products: from the first gates to the operand of
    /// the second product. The later fields of `gh` are zero. Not called for other cells.
    fn open<V: Lanes>(
        gx: Self::Gates<V>,
        gh: Self::Gates<V>,
        s: Self::State<V>,
    ) -> (V, Self::Opened<V>);

    /// One step: the new state, and what backward will need.
    fn forward<V: Lanes>(
        gx: Self::Gates<V>,
        gh: Self::Gates<V>,
        s: Self::State<V>,
        opened: Self::Opened<V>,
        p: Self::PerUnit<V>,
    ) -> (Self::State<V>, Self::Saved<V>);

    /// One step back: from the gradient of the state after the step to the gradients of
    /// the gates, of the state before and of the unit's own parameters. For a cell with two
    /// products the gradients of the first gates are completed by [`Cell::close`].
    fn backward<V: Lanes>(
        saved: Self::Saved<V>,
        s: Self::State<V>,
        s_new: Self::State<V>,
        p: Self::PerUnit<V>,
        d_s: Self::State<V>,
    ) -> Gradients<Self, V>;

    /// What [`Cell::forward`] gave as h, from what was saved: a layer with a projection
    /// keeps only the projected h.
    fn unprojected<V: Lanes>(saved: Self::Saved<V>, s_new: Self::State<V>) -> V {
        let _ = saved;
        s_new.get(0)
    }

    /// The operand of the second product, from what was saved.
    fn operand<V: Lanes>(saved: Self::Saved<V>, s: Self::State<V>) -> V {
        let _ = saved;
        s.get(0)
    }

    /// Second stage back: from the gradient of the operand to what it adds to the
    /// gradients of the first gates and of h'.
    fn close<V: Lanes>(
        saved: Self::Saved<V>,
        s: Self::State<V>,
        d_operand: V,
    ) -> (Self::Gates<V>, V) {
        let _ = (saved, s, d_operand);
        (Self::Gates::filled(V::zero()), V::zero())
    }
}

/// The cells by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellKind {
    /// [`Rnn`] with the hyperbolic tangent.
    RnnTanh,
    /// [`Rnn`] with max(x, 0).
    RnnRelu,
    /// [`Lstm`].
    Lstm,
    /// [`LstmPeephole`].
    LstmPeephole,
    /// [`GruResetBefore`]: the textbook's GRU.
    GruResetBefore,
    /// [`GruResetAfter`]: PyTorch's and cuDNN's GRU.
    GruResetAfter,
}

/// Runs `$body` with `$cell` standing for the type of the cell that `$kind` names.
#[macro_export]
macro_rules! with_cell {
    ($kind:expr, $cell:ident => $body:expr) => {
        match $kind {
            $crate::cell::CellKind::RnnTanh => {
                type $cell = $crate::cell::Rnn<$crate::cell::Tanh>;
                $body
            }
            $crate::cell::CellKind::RnnRelu => {
                type $cell = $crate::cell::Rnn<$crate::cell::Relu>;
                $body
            }
            $crate::cell::CellKind::Lstm => {
                type $cell = $crate::cell::Lstm;
                $body
            }
            $crate::cell::CellKind::LstmPeephole => {
                type $cell = $crate::cell::LstmPeephole;
                $body
            }
            $crate::cell::CellKind::GruResetBefore => {
                type $cell = $crate::cell::GruResetBefore;
                $body
            }
            $crate::cell::CellKind::GruResetAfter => {
                type $cell = $crate::cell::GruResetAfter;
                $body
            }
        }
    };
}

impl CellKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::RnnTanh,
        Self::RnnRelu,
        Self::Lstm,
        Self::LstmPeephole,
        Self::GruResetBefore,
        Self::GruResetAfter,
    ];

    /// Number of gates, G.
    pub fn gates(self) -> usize {
        with_cell!(self, C => <C as Cell>::GATES)
    }

    /// Number of states a unit carries: 1 (h) or 2 (h, c).
    pub fn states(self) -> usize {
        with_cell!(self, C => <C as Cell>::STATES)
    }

    /// Numbers a unit keeps for backward at each step, besides its states.
    pub fn saved(self) -> usize {
        with_cell!(self, C => <C as Cell>::SAVED)
    }

    /// The names of the parameters that each unit has for itself.
    pub fn per_unit(self) -> &'static [&'static str] {
        with_cell!(self, C => <<C as Cell>::PerUnit<f32> as Bundle<f32>>::NAMES)
    }

    /// Which of the gates is a forget gate, if any.
    pub fn forget_gate(self) -> Option<usize> {
        let gates = with_cell!(self, C => <<C as Cell>::Gates<f32> as Bundle<f32>>::NAMES);
        gates.iter().position(|&gate| gate == "f")
    }

    /// Whether the gates have a bias on the side of the hidden state too. The reset-before
    /// GRU is defined with one bias a gate.
    pub fn has_recurrent_bias(self) -> bool {
        self != Self::GruResetBefore
    }
}

#[cfg(test)]
mod tests;
