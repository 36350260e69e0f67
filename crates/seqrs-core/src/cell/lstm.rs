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
//! each then times the slope of its gate: s' = s(1 - s), tanh' = 1 - tanh^2.

use super::bundle::bundle;
use super::{Cell, Gradients, Hc, Nothing};
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
pub struct Lstm;

impl Cell for Lstm {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = Hc<V>;
    type Saved<V: Copy> = Gates<V>;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Nothing;

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
        _: Nothing,
    ) -> (Hc<V>, Gates<V>) {
        let i = (gx.i + gh.i).sigmoid();
        let f = (gx.f + gh.f).sigmoid();
        let g = (gx.g + gh.g).tanh();
        let o = (gx.o + gh.o).sigmoid();
        let c = f * s.c + i * g;
        let h = o * c.tanh();
        (Hc { h, c }, Gates { i, f, g, o })
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        saved: Gates<V>,
        s: Hc<V>,
        s_new: Hc<V>,
        _: Nothing,
        d_s: Hc<V>,
    ) -> Gradients<Self, V> {
        let Gates { i, f, g, o } = saved;
        let one = V::one();
        let t = s_new.c.tanh();
        let d_c = d_s.c + d_s.h * o * (one - t * t);
        let d = Gates {
            i: d_c * g * i * (one - i),
            f: d_c * s.c * f * (one - f),
            g: d_c * i * (one - g * g),
            o: d_s.h * t * o * (one - o),
        };
        let d_s = Hc { h: V::zero(), c: d_c * f };
        Gradients { d_gx: d, d_gh: d, d_s, d_p: Nothing }
    }

    #[inline(always)]
    fn unprojected<V: Lanes>(saved: Gates<V>, s_new: Hc<V>) -> V {
        saved.o * s_new.c.tanh()
    }
}
