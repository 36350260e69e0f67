//! Long short-term memory that forgets as much as it takes in (coupled gates: the CIFG of Greff et
//! al. 2017; ONNX's `input_forget`), with and without peepholes.
//!
//! ```text
//! i, o = s(W [h', x] + b)               i, o = sigmoid(gx + gh)
//! c~   = tanh(W_c [h', x] + b_c)        g    = tanh(gx + gh)
//! c    = (1 - i)*c' + i*c~              c    = (1 - i)*c' + i*g
//! h    = o*tanh(c)                      h    = o*tanh(c)
//! ```
//! With peepholes (`lstm_peephole.rs`) i sees p.ci*c' and o sees p.co*c. Backward, with t = tanh(c):
//! ```text
//! d_o = d_h*t            d_c += d_h*o*(1 - t^2)  + d_o*p.co
//! d_i = d_c*(g - c')     d_g = d_c*i     d_c' = d_c*(1 - i)  + d_i*p.ci
//! ```
//! each gate's gradient times the slope of its gate before it is read. Other functions may take the
//! places of sigmoid and tanh ([`Functions`]).

use super::bundle::bundle;
use super::{Cell, Functions, Gradients, Hc, Nothing};
use crate::lanes::Lanes;

bundle! {
    /// The gates of an LSTM without a forget gate.
    Gates {
        /// Input gate.
        i,
        /// Candidate for the cell state.
        g,
        /// Output gate.
        o
    }
}

bundle! {
    /// What a unit's gates weigh its cell state with.
    Peepholes {
        /// Of the input gate.
        ci,
        /// Of the output gate.
        co
    }
}

/// The LSTM cell with coupled gates.
#[derive(Clone, Copy, Debug)]
pub struct LstmCoupled<F>(pub F);

impl<F: Functions> Cell for LstmCoupled<F> {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = Hc<V>;
    type Saved<V: Copy> = Gates<V>;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Nothing;

    const FIRST_GATES: usize = 3;
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
        let g = self.0.candidate(gx.g + gh.g);
        let o = self.0.gate(gx.o + gh.o);
        let c = (V::one() - i.value) * s.c + i.value * g.value;
        let h = o.value * self.0.output(c);
        (Hc { h, c }, Gates { i: i.kept, g: g.kept, o: o.kept })
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
        let g = self.0.candidate_again(saved.g);
        let o = self.0.gate_again(saved.o);
        let t = self.0.output_sloped(s_new.c);
        let d_c = d_s.c + d_s.h * o.value * t.slope;
        let d = Gates {
            i: d_c * (g.value - s.c) * i.slope,
            g: d_c * i.value * g.slope,
            o: d_s.h * t.value * o.slope,
        };
        let d_s = Hc { h: V::zero(), c: d_c * (V::one() - i.value) };
        Gradients { d_gx: d, d_gh: d, d_s, d_p: Nothing }
    }

    #[inline(always)]
    fn values<V: Lanes>(self, saved: Gates<V>, _: Hc<V>) -> Gates<V> {
        Gates {
            i: self.0.gate_again(saved.i).value,
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
        (Gates { i: zero, g: zero, o: d_h * t.value * o.slope }, d_h * o.value * t.slope)
    }
}

/// The LSTM cell with coupled gates and peepholes.
#[derive(Clone, Copy, Debug)]
pub struct LstmCoupledPeephole<F>(pub F);

impl<F: Functions> Cell for LstmCoupledPeephole<F> {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = Hc<V>;
    type Saved<V: Copy> = Gates<V>;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Peepholes<V>;

    const FIRST_GATES: usize = 3;
    const ONE_GATE_GRADIENT: bool = true;
    const FUSED: bool = F::FUSED;

    #[inline(always)]
    fn forward<V: Lanes>(
        self,
        gx: Gates<V>,
        gh: Gates<V>,
        s: Hc<V>,
        _: Nothing,
        p: Peepholes<V>,
    ) -> (Hc<V>, Gates<V>) {
        let i = self.0.gate(gx.i + gh.i + p.ci * s.c);
        let g = self.0.candidate(gx.g + gh.g);
        let c = (V::one() - i.value) * s.c + i.value * g.value;
        let o = self.0.gate(gx.o + gh.o + p.co * c);
        let h = o.value * self.0.output(c);
        (Hc { h, c }, Gates { i: i.kept, g: g.kept, o: o.kept })
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        self,
        saved: Gates<V>,
        s: Hc<V>,
        s_new: Hc<V>,
        p: Peepholes<V>,
        d_s: Hc<V>,
    ) -> Gradients<Self, V> {
        let i = self.0.gate_again(saved.i);
        let g = self.0.candidate_again(saved.g);
        let o = self.0.gate_again(saved.o);
        let t = self.0.output_sloped(s_new.c);
        let d_o = d_s.h * t.value * o.slope;
        let d_c = d_s.c + d_s.h * o.value * t.slope + d_o * p.co;
        let d = Gates { i: d_c * (g.value - s.c) * i.slope, g: d_c * i.value * g.slope, o: d_o };
        Gradients {
            d_gx: d,
            d_gh: d,
            d_s: Hc { h: V::zero(), c: d_c * (V::one() - i.value) + d.i * p.ci },
            d_p: Peepholes { ci: d.i * s.c, co: d_o * s_new.c },
        }
    }

    #[inline(always)]
    fn values<V: Lanes>(self, saved: Gates<V>, s_new: Hc<V>) -> Gates<V> {
        LstmCoupled(self.0).values(saved, s_new)
    }

    #[inline(always)]
    fn unprojected<V: Lanes>(self, saved: Gates<V>, s_new: Hc<V>) -> V {
        LstmCoupled(self.0).unprojected(saved, s_new)
    }
}
