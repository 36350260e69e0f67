//! The cells by name.

use serde::{Deserialize, Serialize};

use super::{Bound, Bundle, Cell, Chosen, Counts, Function, FunctionName};

/// A cell: its equations and the functions in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellKind {
    /// [`Rnn`](super::Rnn) with the hyperbolic tangent.
    RnnTanh,
    /// [`Rnn`](super::Rnn) with max(x, 0).
    RnnRelu,
    /// [`Lstm`](super::Lstm).
    Lstm,
    /// [`LstmPeephole`](super::LstmPeephole).
    LstmPeephole,
    /// [`LstmCoupled`](super::LstmCoupled).
    LstmCoupled,
    /// [`LstmCoupledPeephole`](super::LstmCoupledPeephole).
    LstmCoupledPeephole,
    /// [`GruResetBefore`](super::GruResetBefore): the textbook's GRU.
    GruResetBefore,
    /// [`GruResetAfter`](super::GruResetAfter): PyTorch's and cuDNN's GRU.
    GruResetAfter,
    /// One of these with other functions than those it is defined with.
    Chosen(Equations, Chosen),
}

/// The equations of a cell, whatever functions are in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Equations {
    /// [`Rnn`](super::Rnn).
    Rnn,
    /// [`Lstm`](super::Lstm).
    Lstm,
    /// [`LstmPeephole`](super::LstmPeephole).
    LstmPeephole,
    /// [`LstmCoupled`](super::LstmCoupled).
    LstmCoupled,
    /// [`LstmCoupledPeephole`](super::LstmCoupledPeephole).
    LstmCoupledPeephole,
    /// [`GruResetBefore`](super::GruResetBefore).
    GruResetBefore,
    /// [`GruResetAfter`](super::GruResetAfter).
    GruResetAfter,
}

/// Runs `$body` with `$cell` standing for the type of the cell that `$kind` names, and, where a
/// name for it is given too, with the cell itself.
#[macro_export]
macro_rules! with_cell {
    (@of $name:ident<$functions:ty>, $with:expr, $cell:ident, $value:ident => $body:expr) => {{
        type $cell = $crate::cell::$name<$functions>;
        let $value: $cell = $crate::cell::$name($with);
        $body
    }};
    ($kind:expr, $cell:ident => $body:expr) => {
        $crate::with_cell!($kind, $cell, _cell => $body)
    };
    ($kind:expr, $cell:ident, $value:ident => $body:expr) => {
        match $kind {
            $crate::cell::CellKind::RnnTanh => {
                $crate::with_cell!(@of Rnn<$crate::cell::Tanh>, $crate::cell::Tanh, $cell, $value => $body)
            }
            $crate::cell::CellKind::RnnRelu => {
                $crate::with_cell!(@of Rnn<$crate::cell::Relu>, $crate::cell::Relu, $cell, $value => $body)
            }
            $crate::cell::CellKind::Lstm => {
                $crate::with_cell!(@of Lstm<$crate::cell::Standard>, $crate::cell::Standard, $cell, $value => $body)
            }
            $crate::cell::CellKind::LstmPeephole => {
                $crate::with_cell!(@of LstmPeephole<$crate::cell::Standard>, $crate::cell::Standard, $cell, $value => $body)
            }
            $crate::cell::CellKind::LstmCoupled => {
                $crate::with_cell!(@of LstmCoupled<$crate::cell::Standard>, $crate::cell::Standard, $cell, $value => $body)
            }
            $crate::cell::CellKind::LstmCoupledPeephole => {
                $crate::with_cell!(@of LstmCoupledPeephole<$crate::cell::Standard>, $crate::cell::Standard, $cell, $value => $body)
            }
            $crate::cell::CellKind::GruResetBefore => {
                $crate::with_cell!(@of GruResetBefore<$crate::cell::Standard>, $crate::cell::Standard, $cell, $value => $body)
            }
            $crate::cell::CellKind::GruResetAfter => {
                $crate::with_cell!(@of GruResetAfter<$crate::cell::Standard>, $crate::cell::Standard, $cell, $value => $body)
            }
            $crate::cell::CellKind::Chosen(equations, chosen) => match equations {
                $crate::cell::Equations::Rnn => {
                    type $cell = $crate::cell::RnnChosen;
                    let $value: $cell = $crate::cell::RnnChosen(chosen);
                    $body
                }
                $crate::cell::Equations::Lstm => {
                    $crate::with_cell!(@of Lstm<$crate::cell::Chosen>, chosen, $cell, $value => $body)
                }
                $crate::cell::Equations::LstmPeephole => {
                    $crate::with_cell!(@of LstmPeephole<$crate::cell::Chosen>, chosen, $cell, $value => $body)
                }
                $crate::cell::Equations::LstmCoupled => {
                    $crate::with_cell!(@of LstmCoupled<$crate::cell::Chosen>, chosen, $cell, $value => $body)
                }
                $crate::cell::Equations::LstmCoupledPeephole => {
                    $crate::with_cell!(@of LstmCoupledPeephole<$crate::cell::Chosen>, chosen, $cell, $value => $body)
                }
                $crate::cell::Equations::GruResetBefore => {
                    $crate::with_cell!(@of GruResetBefore<$crate::cell::Chosen>, chosen, $cell, $value => $body)
                }
                $crate::cell::Equations::GruResetAfter => {
                    $crate::with_cell!(@of GruResetAfter<$crate::cell::Chosen>, chosen, $cell, $value => $body)
                }
            },
        }
    };
}

/// Assortments for [`CellKind::ALL`].
const SOME: Chosen = Chosen {
    gate: Function { name: FunctionName::HardSigmoid, alpha: 0.25, beta: 0.5 },
    candidate: Function { name: FunctionName::LeakyRelu, alpha: 0.125, beta: 0.0 },
    output: Function { name: FunctionName::Softsign, alpha: 0.0, beta: 0.0 },
    clip: Some(Bound(1.5)),
};
const SOME_OF_GRU: Chosen = Chosen { output: Function::TANH, ..SOME };
const SOME_OF_RNN: Chosen = Chosen { gate: Function::SIGMOID, ..SOME_OF_GRU };

impl CellKind {
    /// Each, and each of the equations with some chosen functions.
    pub const ALL: [Self; 15] = [
        Self::RnnTanh,
        Self::RnnRelu,
        Self::Lstm,
        Self::LstmPeephole,
        Self::LstmCoupled,
        Self::LstmCoupledPeephole,
        Self::GruResetBefore,
        Self::GruResetAfter,
        Self::Chosen(Equations::Rnn, SOME_OF_RNN),
        Self::Chosen(Equations::Lstm, SOME),
        Self::Chosen(Equations::LstmPeephole, SOME),
        Self::Chosen(Equations::LstmCoupled, SOME),
        Self::Chosen(Equations::LstmCoupledPeephole, SOME),
        Self::Chosen(Equations::GruResetBefore, SOME_OF_GRU),
        Self::Chosen(Equations::GruResetAfter, SOME_OF_GRU),
    ];

    /// The cell of these equations and functions; those that no equation has do not count.
    pub fn of(equations: Equations, chosen: Chosen) -> Self {
        let of_an_rnn =
            Chosen { candidate: chosen.candidate, clip: chosen.clip, ..Chosen::default() };
        let of_a_gru = Chosen { output: Function::TANH, ..chosen };
        let relu = Chosen { candidate: Function::RELU, ..Chosen::default() };
        match equations {
            Equations::Rnn if of_an_rnn == relu => Self::RnnRelu,
            Equations::Rnn if of_an_rnn == Chosen::default() => Self::RnnTanh,
            Equations::Rnn => Self::Chosen(equations, of_an_rnn),
            Equations::GruResetBefore | Equations::GruResetAfter
                if of_a_gru != Chosen::default() =>
            {
                Self::Chosen(equations, of_a_gru)
            }
            Equations::Lstm
            | Equations::LstmPeephole
            | Equations::LstmCoupled
            | Equations::LstmCoupledPeephole
                if chosen != Chosen::default() =>
            {
                Self::Chosen(equations, chosen)
            }
            Equations::Lstm => Self::Lstm,
            Equations::LstmPeephole => Self::LstmPeephole,
            Equations::LstmCoupled => Self::LstmCoupled,
            Equations::LstmCoupledPeephole => Self::LstmCoupledPeephole,
            Equations::GruResetBefore => Self::GruResetBefore,
            Equations::GruResetAfter => Self::GruResetAfter,
        }
    }

    /// Its equations.
    pub fn equations(self) -> Equations {
        match self {
            Self::RnnTanh | Self::RnnRelu => Equations::Rnn,
            Self::Lstm => Equations::Lstm,
            Self::LstmPeephole => Equations::LstmPeephole,
            Self::LstmCoupled => Equations::LstmCoupled,
            Self::LstmCoupledPeephole => Equations::LstmCoupledPeephole,
            Self::GruResetBefore => Equations::GruResetBefore,
            Self::GruResetAfter => Equations::GruResetAfter,
            Self::Chosen(equations, _) => equations,
        }
    }

    /// The same cell, not fused with its products.
    #[must_use]
    pub fn unfused(self) -> Self {
        Self::Chosen(self.equations(), self.functions())
    }

    /// Whether it may be normalised: an LSTM without peepholes, and a GRU whose reset gate acts
    /// after the product.
    pub fn may_be_normalised(self) -> bool {
        use Equations::{GruResetAfter, Lstm, LstmCoupled};
        matches!(self.equations(), Lstm | LstmCoupled | GruResetAfter)
    }

    /// The functions in it.
    pub fn functions(self) -> Chosen {
        match self {
            Self::Chosen(_, chosen) => chosen,
            Self::RnnRelu => Chosen { candidate: Function::RELU, ..Chosen::default() },
            _ => Chosen::default(),
        }
    }

    /// What there is how many of.
    pub fn counts(self) -> Counts {
        with_cell!(self, C => <C as Cell>::COUNTS)
    }

    /// Number of gates, G.
    pub fn gates(self) -> usize {
        self.counts().gates
    }

    /// The gates' names, in the order of their columns in the weights.
    pub fn gate_names(self) -> &'static [&'static str] {
        with_cell!(self, C => <<C as Cell>::Gates<f32> as Bundle<f32>>::NAMES)
    }

    /// Number of states a unit carries: 1 (h) or 2 (h, c).
    pub fn states(self) -> usize {
        with_cell!(self, C => <C as Cell>::STATES)
    }

    /// Numbers a unit keeps for backward at each step, besides its states.
    pub fn saved(self) -> usize {
        self.counts().saved
    }

    /// The names of the parameters that each unit has for itself.
    pub fn per_unit(self) -> &'static [&'static str] {
        with_cell!(self, C => <<C as Cell>::PerUnit<f32> as Bundle<f32>>::NAMES)
    }

    /// Which gate decides what is forgotten, and with which sign its sum does: the forget gate, or
    /// the input gate that is coupled with it.
    pub fn forgetting(self) -> Option<(usize, f64)> {
        if self.states() == 1 {
            return None;
        }
        let place = |name| self.gate_names().iter().position(|&gate| gate == name);
        place("f").map(|gate| (gate, 1.0)).or(place("i").map(|gate| (gate, -1.0)))
    }

    /// Whether the gates have a bias on the side of the hidden state too. The reset-before
    /// GRU is defined with one bias a gate.
    pub fn has_recurrent_bias(self) -> bool {
        self.equations() != Equations::GruResetBefore
    }
}
