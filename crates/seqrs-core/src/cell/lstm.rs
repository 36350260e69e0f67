//! Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000).
//!
//! ```text
//! f, i, o = s(W [h', x] + b)      i, f, o = sigmoid(gx + gh)
//! c~      = tanh(W_c [h', x] + b_c)     g = tanh(gx + gh)
//! c       = f*c' + i*c~                 c = f*c' + i*g
//! h       = o*tanh(c)                   h = o*tanh(c)
//! ```
//! Backward, with t = tanh(c):
//! ```text
//! d_o = d_h*t             d_c += d_h*o*(1 - t^2)
//! d_i = d_c*g     d_f = d_c*c'     d_g = d_c*i     d_c' = d_c*f
//! ```
//! each then times the slope of its gate: s' = s(1 - s), tanh' = 1 - tanh^2. Other functions may
//! take the places of sigmoid and the two tanh ([`Functions`]).

use super::bundle::bundle;
use super::{Cell, Functions, Gradients, Hc, Nothing};
use crate::lanes::Lanes;

bundle! {
    /// The gates of an LSTM: pre-activations, values or gradients.
    Gates {
        /// Input gate.
        i,
        /// Forget gate.
        f,
        /// Candidate for the cell state.
        g,
        /// Output gate.
        o
    }
}

/// The LSTM cell.
#[derive(Clone, Copy, Debug)]
pub struct Lstm<F>(pub F);

impl<F: Functions> Cell for Lstm<F> {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = Hc<V>;
    type Saved<V: Copy> = Gates<V>;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Nothing;

    const FIRST_GATES: usize = 4;
    const ONE_GATE_GRADIENT: bool = true;
    const FUSED: bool = F::FUSED;

    #[inline(always)]
    fn forward<V: Lanes>(
        self,
        gx: Gates<V>,
        gh: Gates<V>,
        s: Hc<V>,
        _: Nothing,
        _: Nothing,
    ) -> (Hc<V>, Gates<V>) {
        let i = self.0.gate(gx.i + gh.i);
        let f = self.0.gate(gx.f + gh.f);
        let g = self.0.candidate(gx.g + gh.g);
        let o = self.0.gate(gx.o + gh.o);
        let c = f.value * s.c + i.value * g.value;
        let h = o.value * self.0.output(c);
        (Hc { h, c }, Gates { i: i.kept, f: f.kept, g: g.kept, o: o.kept })
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        self,
        saved: Gates<V>,
        s: Hc<V>,
        s_new: Hc<V>,
        _: Nothing,
        d_s: Hc<V>,
    ) -> Gradients<Self, V> {
        let i = self.0.gate_again(saved.i);
        let f = self.0.gate_again(saved.f);
        let g = self.0.candidate_again(saved.g);
        let o = self.0.gate_again(saved.o);
        let t = self.0.output_sloped(s_new.c);
        let d_c = d_s.c + d_s.h * o.value * t.slope;
        let d = Gates {
            i: d_c * g.value * i.slope,
            f: d_c * s.c * f.slope,
            g: d_c * i.value * g.slope,
            o: d_s.h * t.value * o.slope,
        };
        let d_s = Hc { h: V::zero(), c: d_c * f.value };
        Gradients { d_gx: d, d_gh: d, d_s, d_p: Nothing }
    }

    #[inline(always)]
    fn values<V: Lanes>(self, saved: Gates<V>, _: Hc<V>) -> Gates<V> {
        Gates {
            i: self.0.gate_again(saved.i).value,
            f: self.0.gate_again(saved.f).value,
            g: self.0.candidate_again(saved.g).value,
            o: self.0.gate_again(saved.o).value,
        }
    }

    #[inline(always)]
    fn unprojected<V: Lanes>(self, saved: Gates<V>, s_new: Hc<V>) -> V {
        self.0.gate_again(saved.o).value * self.0.output(s_new.c)
    }

    #[inline(always)]
    fn unprojected_back<V: Lanes>(self, saved: Gates<V>, s_new: Hc<V>, d_h: V) -> (Gates<V>, V) {
        let o = self.0.gate_again(saved.o);
        let t = self.0.output_sloped(s_new.c);
        let zero = V::zero();
        (Gates { i: zero, f: zero, g: zero, o: d_h * t.value * o.slope }, d_h * o.value * t.slope)
    }
}
