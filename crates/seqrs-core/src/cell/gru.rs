//! Gated recurrent units (Cho et al. 2014), in the two forms that are in use.
//!
//! Reset before the product (arXiv 1406.1078v3, the textbook's):
//! ```text
//! u  = s(W_u [c', x] + b_u)             z = sigmoid(gx.z + gh.z)
//! r  = s(W_r [c', x] + b_r)             r = sigmoid(gx.r + gh.r)
//! c~ = tanh(W_c [r*c', x] + b_c)        n = tanh(gx.n + gh.n),  gh.n = (r*h') R_n^T
//! c  = u*c' + (1-u)*c~,  a = c          h = z*h' + (1-z)*n
//! ```
//! Reset after the product (1406.1078v1; PyTorch, cuDNN, Keras by default):
//! ```text
//! n = tanh(gx.n + r*gh.n),  gh.n = h' R_n^T + c_n
//! ```
//! The two are different functions; no weights of one give the other. In both, z keeps
//! the old state.
//!
//! Backward, with slopes s' = s(1 - s) and tanh' = 1 - tanh^2:
//! ```text
//! d_z = d_h*(h' - n)      d_n = d_h*(1 - z)      d_h' = d_h*z
//! after:   d_gh.n = d_gx.n*r,  d_r = d_gx.n*gh.n
//! before:  d_(r*h') = d_gx.n R_n,  d_r = d_(r*h')*h',  d_h' += d_(r*h')*r
//! ```

use super::bundle::bundle;
use super::{Cell, Gradients, H, Nothing};
use crate::lanes::Lanes;

bundle! {
    /// The gates of a GRU: pre-activations, values or gradients.
    Gates {
        /// Reset gate.
        r,
        /// Update gate: what it keeps of the old state.
        z,
        /// Candidate for the new state.
        n
    }
}

bundle! {
    /// What the first product of the reset-before form gives.
    Opened {
        /// Reset gate.
        r,
        /// Update gate.
        z
    }
}

bundle! {
    /// What the reset-after form keeps: its gates, and the recurrent part of the candidate.
    SavedAfter {
        /// Reset gate.
        r,
        /// Update gate.
        z,
        /// Candidate.
        n,
        /// gh.n, which the reset gate multiplied.
        m
    }
}

/// The GRU of the textbook: the reset gate acts on the state before the product.
#[derive(Clone, Copy, Debug)]
pub struct GruResetBefore;

impl Cell for GruResetBefore {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = H<V>;
    type Saved<V: Copy> = Gates<V>;
    type Opened<V: Copy> = Opened<V>;
    type PerUnit<V: Copy> = Nothing;

    const FIRST_GATES: usize = 2;
    const ONE_GATE_GRADIENT: bool = true;

    #[inline(always)]
    fn open<V: Lanes>(gx: Gates<V>, gh: Gates<V>, s: H<V>) -> (V, Opened<V>) {
        let r = (gx.r + gh.r).sigmoid();
        let z = (gx.z + gh.z).sigmoid();
        (r * s.h, Opened { r, z })
    }

    #[inline(always)]
    fn forward<V: Lanes>(
        gx: Gates<V>,
        gh: Gates<V>,
        s: H<V>,
        opened: Opened<V>,
        _: Nothing,
    ) -> (H<V>, Gates<V>) {
        let Opened { r, z } = opened;
        let n = (gx.n + gh.n).tanh();
        let h = z * s.h + (V::one() - z) * n;
        (H { h }, Gates { r, z, n })
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        saved: Gates<V>,
        s: H<V>,
        _: H<V>,
        _: Nothing,
        d_s: H<V>,
    ) -> Gradients<Self, V> {
        let Gates { z, n, .. } = saved;
        let one = V::one();
        let d = Gates {
            r: V::zero(),
            z: d_s.h * (s.h - n) * z * (one - z),
            n: d_s.h * (one - z) * (one - n * n),
        };
        Gradients { d_gx: d, d_gh: d, d_s: H { h: d_s.h * z }, d_p: Nothing }
    }

    #[inline(always)]
    fn operand<V: Lanes>(saved: Gates<V>, s: H<V>) -> V {
        saved.r * s.h
    }

    #[inline(always)]
    fn close<V: Lanes>(saved: Gates<V>, s: H<V>, d_operand: V) -> (Gates<V>, V) {
        let r = saved.r;
        let zero = V::zero();
        let d_r = d_operand * s.h * r * (V::one() - r);
        (Gates { r: d_r, z: zero, n: zero }, d_operand * r)
    }
}

/// The GRU of PyTorch and cuDNN: the reset gate acts on the product.
#[derive(Clone, Copy, Debug)]
pub struct GruResetAfter;

impl Cell for GruResetAfter {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = H<V>;
    type Saved<V: Copy> = SavedAfter<V>;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Nothing;

    const FIRST_GATES: usize = 3;
    const ONE_GATE_GRADIENT: bool = false;

    #[inline(always)]
    fn open<V: Lanes>(_: Gates<V>, _: Gates<V>, s: H<V>) -> (V, Nothing) {
        (s.h, Nothing)
    }

    #[inline(always)]
    fn forward<V: Lanes>(
        gx: Gates<V>,
        gh: Gates<V>,
        s: H<V>,
        _: Nothing,
        _: Nothing,
    ) -> (H<V>, SavedAfter<V>) {
        let r = (gx.r + gh.r).sigmoid();
        let z = (gx.z + gh.z).sigmoid();
        let n = (gx.n + r * gh.n).tanh();
        let h = z * s.h + (V::one() - z) * n;
        (H { h }, SavedAfter { r, z, n, m: gh.n })
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        saved: SavedAfter<V>,
        s: H<V>,
        _: H<V>,
        _: Nothing,
        d_s: H<V>,
    ) -> Gradients<Self, V> {
        let SavedAfter { r, z, n, m } = saved;
        let one = V::one();
        let d_n = d_s.h * (one - z) * (one - n * n);
        let d_r = d_n * m * r * (one - r);
        let d_z = d_s.h * (s.h - n) * z * (one - z);
        let d_gx = Gates { r: d_r, z: d_z, n: d_n };
        let d_gh = Gates { r: d_r, z: d_z, n: d_n * r };
        Gradients { d_gx, d_gh, d_s: H { h: d_s.h * z }, d_p: Nothing }
    }
}
