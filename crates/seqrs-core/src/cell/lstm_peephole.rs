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
//! tanh' = 1 - tanh^2.

use super::bundle::bundle;
use super::lstm::Gates;
use super::{Cell, Gradients, Hc, Nothing};
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
pub struct LstmPeephole;

impl Cell for LstmPeephole {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = Hc<V>;
    type Saved<V: Copy> = Gates<V>;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Peepholes<V>;

    const FIRST_GATES: usize = 4;
    const ONE_GATE_GRADIENT: bool = true;

    #[inline(always)]
    fn open<V: Lanes>(_: Gates<V>, _: Gates<V>, s: Hc<V>) -> (V, Nothing) {
        (s.h, Nothing)
    }

    #[inline(always)]
    fn forward<V: Lanes>(
        gx: Gates<V>,
        gh: Gates<V>,
        s: Hc<V>,
        _: Nothing,
        p: Peepholes<V>,
    ) -> (Hc<V>, Gates<V>) {
        let i = (gx.i + gh.i + p.ci * s.c).sigmoid();
        let f = (gx.f + gh.f + p.cf * s.c).sigmoid();
        let g = (gx.g + gh.g).tanh();
        let c = f * s.c + i * g;
        let o = (gx.o + gh.o + p.co * c).sigmoid();
        let h = o * c.tanh();
        (Hc { h, c }, Gates { i, f, g, o })
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        saved: Gates<V>,
        s: Hc<V>,
        s_new: Hc<V>,
        p: Peepholes<V>,
        d_s: Hc<V>,
    ) -> Gradients<Self, V> {
        let Gates { i, f, g, o } = saved;
        let one = V::one();
        let t = s_new.c.tanh();
        let d_o = d_s.h * t * o * (one - o);
        let d_c = d_s.c + d_s.h * o * (one - t * t) + d_o * p.co;
        let d = Gates {
            i: d_c * g * i * (one - i),
            f: d_c * s.c * f * (one - f),
            g: d_c * i * (one - g * g),
            o: d_o,
        };
        Gradients {
            d_gx: d,
            d_gh: d,
            d_s: Hc { h: V::zero(), c: d_c * f + d.i * p.ci + d.f * p.cf },
            d_p: Peepholes { ci: d.i * s.c, cf: d.f * s.c, co: d_o * s_new.c },
        }
    }

    #[inline(always)]
    fn unprojected<V: Lanes>(saved: Gates<V>, s_new: Hc<V>) -> V {
        saved.o * s_new.c.tanh()
    }
}
