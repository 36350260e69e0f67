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
mod functions;
mod gru;
mod kind;
mod lstm;
mod lstm_coupled;
mod lstm_peephole;
mod rnn;

pub use bundle::{Bundle, H, Hc, MAX_BUNDLE, Nothing};
pub use functions::{Bound, Chosen, Function, FunctionName, Functions, Kept, Sloped, Standard};
pub use gru::{GruResetAfter, GruResetBefore};
pub use kind::{CellKind, Equations};
pub use lstm::Lstm;
pub use lstm_coupled::{LstmCoupled, LstmCoupledPeephole};
pub use lstm_peephole::LstmPeephole;
pub use rnn::{Activation, Relu, Rnn, RnnChosen, Tanh};

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

/// What there is how many of in a cell.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// [`Cell::GATES`].
    pub gates: usize,
    /// [`Cell::FIRST_GATES`].
    pub first_gates: usize,
    /// [`Cell::SAVED`].
    pub saved: usize,
    /// Fields of [`Cell::Opened`].
    pub opened: usize,
    /// [`Cell::PER_UNIT`].
    pub per_unit: usize,
    /// [`Cell::ONE_GATE_GRADIENT`].
    pub one_gate_gradient: bool,
    /// [`Cell::FUSED`].
    pub fused: bool,
}

impl Counts {
    /// [`Cell::TWO_PRODUCTS`].
    pub const fn two_products(&self) -> bool {
        self.first_gates < self.gates
    }
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
    /// These numbers for who need not know the cell.
    const COUNTS: Counts = Counts {
        gates: Self::GATES,
        first_gates: Self::FIRST_GATES,
        saved: Self::SAVED,
        opened: <Self::Opened<f32> as Bundle<f32>>::NAMES.len(),
        per_unit: Self::PER_UNIT,
        one_gate_gradient: Self::ONE_GATE_GRADIENT,
        fused: Self::FUSED,
    };
    /// Whether there are two products, one after the other.
    const TWO_PRODUCTS: bool = Self::FIRST_GATES < Self::GATES;
    /// Gates whose recurrent product is with h'. The remaining ones multiply an operand
    /// that [`Cell::open`] makes of the first; most cells have none of these.
    const FIRST_GATES: usize;
    /// Whether d_gx and d_gh are always the same, so that one buffer can hold both.
    const ONE_GATE_GRADIENT: bool;
    /// Whether the text is short enough to stand in the kernels of the products, once for each
    /// size of a tile.
    const FUSED: bool;

    /// Whether a norm may come between c and h: there is a c, no gate sees it, and the cell is not
    /// fused.
    const MAY_BE_NORMALISED: bool = Self::STATES > 1 && Self::PER_UNIT == 0 && !Self::FUSED;

    /// First stage of a cell with two products: from the first gates to the operand of
    /// the second product. The later fields of `gh` are zero.
    fn open<V: Lanes>(
        self,
        gx: Self::Gates<V>,
        gh: Self::Gates<V>,
        s: Self::State<V>,
    ) -> (V, Self::Opened<V>) {
        let _ = (gx, gh);
        (s.get(0), Self::Opened::filled(V::zero()))
    }

    /// One step: the new state, and what backward will need.
    fn forward<V: Lanes>(
        self,
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
        self,
        saved: Self::Saved<V>,
        s: Self::State<V>,
        s_new: Self::State<V>,
        p: Self::PerUnit<V>,
        d_s: Self::State<V>,
    ) -> Gradients<Self, V>;

    /// The gates' values, from what was saved: those after their functions.
    fn values<V: Lanes>(self, saved: Self::Saved<V>, s_new: Self::State<V>) -> Self::Gates<V>;

    /// What [`Cell::forward`] gave as h, from what was saved: a layer with a projection
    /// keeps only the projected h.
    fn unprojected<V: Lanes>(self, saved: Self::Saved<V>, s_new: Self::State<V>) -> V {
        let _ = saved;
        s_new.get(0)
    }

    /// The way back of [`Cell::unprojected`]: what the gradient of that h adds to those of the gates
    /// and, given apart, of the c in `s_new`. Only cells with a c have it.
    fn unprojected_back<V: Lanes>(
        self,
        saved: Self::Saved<V>,
        s_new: Self::State<V>,
        d_h: V,
    ) -> (Self::Gates<V>, V) {
        let _ = (saved, s_new, d_h);
        (Self::Gates::filled(V::zero()), V::zero())
    }

    /// The operand of the second product, from what was saved.
    fn operand<V: Lanes>(self, saved: Self::Saved<V>, s: Self::State<V>) -> V {
        let _ = saved;
        s.get(0)
    }

    /// Second stage back: from the gradient of the operand to what it adds to the
    /// gradients of the first gates and of h'.
    fn close<V: Lanes>(
        self,
        saved: Self::Saved<V>,
        s: Self::State<V>,
        d_operand: V,
    ) -> (Self::Gates<V>, V) {
        let _ = (saved, s, d_operand);
        (Self::Gates::filled(V::zero()), V::zero())
    }
}

#[cfg(test)]
mod tests;
