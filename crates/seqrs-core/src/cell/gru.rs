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
//! Other functions may take the places of sigmoid and tanh ([`Functions`]).

use super::bundle::bundle;
use super::{Cell, Functions, Gradients, H, Nothing};
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
    /// What is kept of the first product of the reset-before form.
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
pub struct GruResetBefore<F>(pub F);

impl<F: Functions> Cell for GruResetBefore<F> {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = H<V>;
    type Saved<V: Copy> = Gates<V>;
    type Opened<V: Copy> = Opened<V>;
    type PerUnit<V: Copy> = Nothing;

    const FIRST_GATES: usize = 2;
    const ONE_GATE_GRADIENT: bool = true;
    const FUSED: bool = F::FUSED;

    #[inline(always)]
    fn open<V: Lanes>(self, gx: Gates<V>, gh: Gates<V>, s: H<V>) -> (V, Opened<V>) {
        let r = self.0.gate(gx.r + gh.r);
        let z = self.0.gate(gx.z + gh.z);
        (r.value * s.h, Opened { r: r.kept, z: z.kept })
    }

    #[inline(always)]
    fn forward<V: Lanes>(
        self,
        gx: Gates<V>,
        gh: Gates<V>,
        s: H<V>,
        opened: Opened<V>,
        _: Nothing,
    ) -> (H<V>, Gates<V>) {
        let z = self.0.gate_again(opened.z).value;
        let n = self.0.candidate(gx.n + gh.n);
        let h = z * s.h + (V::one() - z) * n.value;
        (H { h }, Gates { r: opened.r, z: opened.z, n: n.kept })
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        self,
        saved: Gates<V>,
        s: H<V>,
        _: H<V>,
        _: Nothing,
        d_s: H<V>,
    ) -> Gradients<Self, V> {
        let z = self.0.gate_again(saved.z);
        let n = self.0.candidate_again(saved.n);
        let d = Gates {
            r: V::zero(),
            z: d_s.h * (s.h - n.value) * z.slope,
            n: d_s.h * (V::one() - z.value) * n.slope,
        };
        Gradients { d_gx: d, d_gh: d, d_s: H { h: d_s.h * z.value }, d_p: Nothing }
    }

    #[inline(always)]
    fn values<V: Lanes>(self, saved: Gates<V>, _: H<V>) -> Gates<V> {
        Gates {
            r: self.0.gate_again(saved.r).value,
            z: self.0.gate_again(saved.z).value,
            n: self.0.candidate_again(saved.n).value,
        }
    }

    #[inline(always)]
    fn operand<V: Lanes>(self, saved: Gates<V>, s: H<V>) -> V {
        self.0.gate_again(saved.r).value * s.h
    }

    #[inline(always)]
    fn close<V: Lanes>(self, saved: Gates<V>, s: H<V>, d_operand: V) -> (Gates<V>, V) {
        let r = self.0.gate_again(saved.r);
        let zero = V::zero();
        (Gates { r: d_operand * s.h * r.slope, z: zero, n: zero }, d_operand * r.value)
    }
}

/// The GRU of PyTorch and cuDNN: the reset gate acts on the product.
#[derive(Clone, Copy, Debug)]
pub struct GruResetAfter<F>(pub F);

impl<F: Functions> Cell for GruResetAfter<F> {
    type Gates<V: Copy> = Gates<V>;
    type State<V: Copy> = H<V>;
    type Saved<V: Copy> = SavedAfter<V>;
    type Opened<V: Copy> = Nothing;
    type PerUnit<V: Copy> = Nothing;

    const FIRST_GATES: usize = 3;
    const ONE_GATE_GRADIENT: bool = false;
    const FUSED: bool = F::FUSED;

    #[inline(always)]
    fn forward<V: Lanes>(
        self,
        gx: Gates<V>,
        gh: Gates<V>,
        s: H<V>,
        _: Nothing,
        _: Nothing,
    ) -> (H<V>, SavedAfter<V>) {
        let r = self.0.gate(gx.r + gh.r);
        let z = self.0.gate(gx.z + gh.z);
        let n = self.0.candidate(gx.n + r.value * gh.n);
        let h = z.value * s.h + (V::one() - z.value) * n.value;
        (H { h }, SavedAfter { r: r.kept, z: z.kept, n: n.kept, m: gh.n })
    }

    #[inline(always)]
    fn backward<V: Lanes>(
        self,
        saved: SavedAfter<V>,
        s: H<V>,
        _: H<V>,
        _: Nothing,
        d_s: H<V>,
    ) -> Gradients<Self, V> {
        let r = self.0.gate_again(saved.r);
        let z = self.0.gate_again(saved.z);
        let n = self.0.candidate_again(saved.n);
        let d_n = d_s.h * (V::one() - z.value) * n.slope;
        let d_r = d_n * saved.m * r.slope;
        let d_z = d_s.h * (s.h - n.value) * z.slope;
        let d_gx = Gates { r: d_r, z: d_z, n: d_n };
        let d_gh = Gates { r: d_r, z: d_z, n: d_n * r.value };
        Gradients { d_gx, d_gh, d_s: H { h: d_s.h * z.value }, d_p: Nothing }
    }

    #[inline(always)]
    fn values<V: Lanes>(self, saved: SavedAfter<V>, _: H<V>) -> Gates<V> {
        Gates {
            r: self.0.gate_again(saved.r).value,
            z: self.0.gate_again(saved.z).value,
            n: self.0.candidate_again(saved.n).value,
        }
    }
}
