//! The recurrent network of Elman (1990).
//!
//! ```text
//! a<t> = g1(W_aa a<t-1> + W_ax x<t> + b_a)        h = g(a),  a = gx + gh
//! ```
//! with g = tanh or relu. The derivative of either follows from its value, so nothing is
//! saved: tanh' = 1 - h^2, relu' = (h > 0). For any other function ([`Chosen`]) the sum is.

use super::bundle::bundle;
use super::{Cell, Chosen, Functions, Gradients, H, Nothing};
use crate::lanes::Lanes;

bundle! {
    /// The one pre-activation of an RNN.
    Gates {
        /// Pre-activation.
        a
    }
}

/// The function around the sum, with its derivative in terms of its value.
pub trait Activation: Copy + Send + Sync + 'static {
    /// g(a).
    fn value<V: Lanes>(a: V) -> V;
    /// g'(a) where h = g(a).
    fn slope<V: Lanes>(h: V) -> V;
}

/// g = tanh.
#[derive(Clone, Copy, Debug)]
pub struct Tanh;

impl Activation for Tanh {
    #[inline(always)]
    fn value<V: Lanes>(a: V) -> V {
        a.tanh()
    }
    #[inline(always)]
    fn slope<V: Lanes>(h: V) -> V {
        V::one() - h * h
    }
}

/// g = max(x, 0).
#[derive(Clone, Copy, Debug)]
pub struct Relu;

impl Activation for Relu {
    #[inline(always)]
    fn value<V: Lanes>(a: V) -> V {
        a.relu()
    }
    #[inline(always)]
    fn slope<V: Lanes>(h: V) -> V {
        h.heaviside()
    }
}

/// The RNN cell.
#[derive(Clone, Copy, Debug)]
pub struct Rnn<A>(pub A);

impl<A: Activation> Cell for Rnn<A> {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = H<V>;
    type Saved<V: Copy> = Nothing;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Nothing;

    const FIRST_GATES: usize = 1;
    const ONE_GATE_GRADIENT: bool = true;
    const FUSED: bool = true;

    #[inline(always)]
    fn forward<V: Lanes>(
        self,
        gx: Gates<V>,
        gh: Gates<V>,
        _: H<V>,
        _: Nothing,
        _: Nothing,
    ) -> (H<V>, Nothing) {
        let h = A::value(gx.a + gh.a);
        (H { h }, Nothing)
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        self,
        _: Nothing,
        _: H<V>,
        s_new: H<V>,
        _: Nothing,
        d_s: H<V>,
    ) -> Gradients<Self, V> {
        let d = Gates { a: d_s.h * A::slope(s_new.h) };
        Gradients { d_gx: d, d_gh: d, d_s: H { h: V::zero() }, d_p: Nothing }
    }

    #[inline(always)]
    fn values<V: Lanes>(self, _: Nothing, s_new: H<V>) -> Gates<V> {
        Gates { a: s_new.h }
    }
}

/// The RNN cell with a chosen function, [`Chosen::candidate`].
#[derive(Clone, Copy, Debug)]
pub struct RnnChosen(pub Chosen);

impl Cell for RnnChosen {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = H<V>;
    type Saved<V: Copy> = Gates<V>;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Nothing;

    const FIRST_GATES: usize = 1;
    const ONE_GATE_GRADIENT: bool = true;
    const FUSED: bool = false;

    #[inline(always)]
    fn forward<V: Lanes>(
        self,
        gx: Gates<V>,
        gh: Gates<V>,
        _: H<V>,
        _: Nothing,
        _: Nothing,
    ) -> (H<V>, Gates<V>) {
        let h = self.0.candidate(gx.a + gh.a);
        (H { h: h.value }, Gates { a: h.kept })
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        self,
        saved: Gates<V>,
        _: H<V>,
        _: H<V>,
        _: Nothing,
        d_s: H<V>,
    ) -> Gradients<Self, V> {
        let d = Gates { a: d_s.h * self.0.candidate_again(saved.a).slope };
        Gradients { d_gx: d, d_gh: d, d_s: H { h: V::zero() }, d_p: Nothing }
    }

    #[inline(always)]
    fn values<V: Lanes>(self, saved: Gates<V>, _: H<V>) -> Gates<V> {
        Gates { a: self.0.candidate_again(saved.a).value }
    }
}
