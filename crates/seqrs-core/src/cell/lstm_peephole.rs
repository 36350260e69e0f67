//! Long short-term memory whose gates see the cell state (Gers and Schmidhuber 2000).
//!
//! ```text
//! f, i = s(W [h', x] + p*c' + b)        i, f    = sigmoid(gx + gh + p*c')
//! c~   = tanh(W_c [h', x] + b_c)        g       = tanh(gx + gh)
//! c    = f*c' + i*c~                    c       = f*c' + i*g
//! o    = s(W_o [h', x] + p_o*c + b_o)   o       = sigmoid(gx + gh + p.co*c)
//! h    = o*tanh(c)                      h       = o*tanh(c)
//! ```
//! p*c is element-wise: a unit's gates see its own cell state alone, through one weight each, those
//! of i and f the one before the step, that of o the new one.
//!
//! Backward, with t = tanh(c):
//! ```text
//! d_o = d_h*t     d_c += d_h*o*(1 - t^2) + d_o*p.co
//! d_i = d_c*g     d_f = d_c*c'     d_g = d_c*i     d_c' = d_c*f + d_i*p.ci + d_f*p.cf
//! d_p.ci = d_i*c'     d_p.cf = d_f*c'     d_p.co = d_o*c
//! ```
//! each of d_i, d_f, d_g, d_o times the slope of its gate before it is read: s' = s(1 - s),
//! tanh' = 1 - tanh^2. Other functions may take their places ([`Functions`]).

use super::bundle::bundle;
use super::lstm::Gates;
use super::{Cell, Functions, Gradients, Hc, Nothing};
use crate::lanes::Lanes;

bundle! {
    /// What a unit's gates weigh its cell state with.
    Peepholes {
        /// Of the input gate.
        ci,
        /// Of the forget gate.
        cf,
        /// Of the output gate.
        co
    }
}

/// The LSTM cell with peepholes.
#[derive(Clone, Copy, Debug)]
pub struct LstmPeephole<F>(pub F);

impl<F: Functions> Cell for LstmPeephole<F> {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = Hc<V>;
    type Saved<V: Copy> = Gates<V>;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Peepholes<V>;

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
        p: Peepholes<V>,
    ) -> (Hc<V>, Gates<V>) {
        let i = self.0.gate(gx.i + gh.i + p.ci * s.c);
        let f = self.0.gate(gx.f + gh.f + p.cf * s.c);
        let g = self.0.candidate(gx.g + gh.g);
        let c = f.value * s.c + i.value * g.value;
        let o = self.0.gate(gx.o + gh.o + p.co * c);
        let h = o.value * self.0.output(c);
        (Hc { h, c }, Gates { i: i.kept, f: f.kept, g: g.kept, o: o.kept })
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
        let f = self.0.gate_again(saved.f);
        let g = self.0.candidate_again(saved.g);
        let o = self.0.gate_again(saved.o);
        let t = self.0.output_sloped(s_new.c);
        let d_o = d_s.h * t.value * o.slope;
        let d_c = d_s.c + d_s.h * o.value * t.slope + d_o * p.co;
        let d = Gates {
            i: d_c * g.value * i.slope,
            f: d_c * s.c * f.slope,
            g: d_c * i.value * g.slope,
            o: d_o,
        };
        Gradients {
            d_gx: d,
            d_gh: d,
            d_s: Hc { h: V::zero(), c: d_c * f.value + d.i * p.ci + d.f * p.cf },
            d_p: Peepholes { ci: d.i * s.c, cf: d.f * s.c, co: d_o * s_new.c },
        }
    }

    #[inline(always)]
    fn values<V: Lanes>(self, saved: Gates<V>, s_new: Hc<V>) -> Gates<V> {
        super::Lstm(self.0).values(saved, s_new)
    }

    #[inline(always)]
    fn unprojected<V: Lanes>(self, saved: Gates<V>, s_new: Hc<V>) -> V {
        super::Lstm(self.0).unprojected(saved, s_new)
    }
}
