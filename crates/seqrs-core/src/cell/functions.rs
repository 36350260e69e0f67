//! The functions of a cell: of its gates, of its candidate, and of what it shows.
//!
//! [`Standard`] is what the cells are defined with: sigmoid, tanh and tanh. [`Chosen`] is any of
//! the functions of ONNX, and a bound for their arguments. A function's value and slope are found
//! again on the way back from one number that was kept: the value, where the slope follows from it
//! (s' = s(1 - s), tanh' = 1 - tanh^2), or else the sum.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::lanes::Lanes;

/// The value of a function, and what finds it again.
#[derive(Clone, Copy, Debug)]
pub struct Kept<V> {
    /// f(sum).
    pub value: V,
    /// The value, or the sum.
    pub kept: V,
}

/// The value of a function and its derivative there.
#[derive(Clone, Copy, Debug)]
pub struct Sloped<V> {
    /// f(sum).
    pub value: V,
    /// f'(sum).
    pub slope: V,
}

/// The three functions of a cell.
pub trait Functions: Copy + Send + Sync + 'static {
    /// Whether they are few enough instructions to stand in the kernels of the products.
    const FUSED: bool;

    /// Of a gate.
    fn gate<V: Lanes>(self, sum: V) -> Kept<V>;
    /// The same from what was kept.
    fn gate_again<V: Lanes>(self, kept: V) -> Sloped<V>;
    /// Of the candidate.
    fn candidate<V: Lanes>(self, sum: V) -> Kept<V>;
    /// The same from what was kept.
    fn candidate_again<V: Lanes>(self, kept: V) -> Sloped<V>;
    /// Of the cell state, on its way into h.
    fn output<V: Lanes>(self, c: V) -> V;
    /// The same with its slope.
    fn output_sloped<V: Lanes>(self, c: V) -> Sloped<V>;
}

/// Sigmoid, tanh and tanh.
#[derive(Clone, Copy, Debug)]
pub struct Standard;

impl Functions for Standard {
    const FUSED: bool = true;

    #[inline(always)]
    fn gate<V: Lanes>(self, sum: V) -> Kept<V> {
        let value = sum.sigmoid();
        Kept { value, kept: value }
    }

    #[inline(always)]
    fn gate_again<V: Lanes>(self, value: V) -> Sloped<V> {
        Sloped { value, slope: value * (V::one() - value) }
    }

    #[inline(always)]
    fn candidate<V: Lanes>(self, sum: V) -> Kept<V> {
        let value = sum.tanh();
        Kept { value, kept: value }
    }

    #[inline(always)]
    fn candidate_again<V: Lanes>(self, value: V) -> Sloped<V> {
        Sloped { value, slope: V::one() - value * value }
    }

    #[inline(always)]
    fn output<V: Lanes>(self, c: V) -> V {
        c.tanh()
    }

    #[inline(always)]
    fn output_sloped<V: Lanes>(self, c: V) -> Sloped<V> {
        self.candidate_again(c.tanh())
    }
}

/// The names of the functions of ONNX's RNN, LSTM and GRU, with x for the argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionName {
    /// max(x, 0).
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// alpha x + beta.
    Affine,
    /// x, but alpha x where x < 0.
    LeakyRelu,
    /// x where x >= alpha, else 0.
    ThresholdedRelu,
    /// alpha tanh(beta x).
    ScaledTanh,
    /// min(max(alpha x + beta, 0), 1).
    HardSigmoid,
    /// x, but alpha (e^x - 1) where x < 0.
    Elu,
    /// x / (1 + |x|).
    Softsign,
    /// log(1 + e^x).
    Softplus,
}

impl FunctionName {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Relu,
        Self::Tanh,
        Self::Sigmoid,
        Self::Affine,
        Self::LeakyRelu,
        Self::ThresholdedRelu,
        Self::ScaledTanh,
        Self::HardSigmoid,
        Self::Elu,
        Self::Softsign,
        Self::Softplus,
    ];

    /// What alpha and beta are where nobody says; none where the function has no such number. These
    /// are the values of ONNX's operators of the same names.
    pub fn defaults(self) -> [Option<f64>; 2] {
        match self {
            Self::Relu | Self::Tanh | Self::Sigmoid | Self::Softsign | Self::Softplus => {
                [None, None]
            }
            Self::Affine => [Some(1.0), Some(0.0)],
            Self::LeakyRelu => [Some(0.01), None],
            Self::ThresholdedRelu | Self::Elu => [Some(1.0), None],
            Self::ScaledTanh => [Some(1.0), Some(1.0)],
            Self::HardSigmoid => [Some(0.2), Some(0.5)],
        }
    }
}

/// A function with its two numbers, 0 where it has none.
///
/// In a file it is its name where the numbers are those by default, else a list of the name and the
/// numbers that it has.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(into = "Written", from = "Written")]
pub struct Function {
    /// Which.
    pub name: FunctionName,
    /// Its first number.
    pub alpha: f64,
    /// Its second.
    pub beta: f64,
}

/// A function as a file has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Name(FunctionName),
    WithAlpha(FunctionName, f64),
    WithBoth(FunctionName, f64, f64),
}

impl From<Function> for Written {
    fn from(function: Function) -> Self {
        let Function { name, alpha, beta } = function;
        match name.defaults() {
            _ if function == name.into() => Self::Name(name),
            [_, None] => Self::WithAlpha(name, alpha),
            [_, Some(_)] => Self::WithBoth(name, alpha, beta),
        }
    }
}

// One number too many stays in its field, where `Function::check` finds it.
impl From<Written> for Function {
    fn from(written: Written) -> Self {
        match written {
            Written::Name(name) => name.into(),
            Written::WithAlpha(name, alpha) => Self { alpha, ..name.into() },
            Written::WithBoth(name, alpha, beta) => Self { name, alpha, beta },
        }
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.bits().hash(state);
    }
}

impl From<FunctionName> for Function {
    fn from(name: FunctionName) -> Self {
        let [alpha, beta] = name.defaults().map(Option::unwrap_or_default);
        Self { name, alpha, beta }
    }
}

impl Function {
    /// The hyperbolic tangent.
    pub const TANH: Self = Self { name: FunctionName::Tanh, alpha: 0.0, beta: 0.0 };
    /// The logistic function.
    pub const SIGMOID: Self = Self { name: FunctionName::Sigmoid, alpha: 0.0, beta: 0.0 };
    /// max(x, 0).
    pub const RELU: Self = Self { name: FunctionName::Relu, alpha: 0.0, beta: 0.0 };

    fn bits(&self) -> (FunctionName, u64, u64) {
        (self.name, self.alpha.to_bits(), self.beta.to_bits())
    }

    /// # Errors
    /// [`Error::Option`], which calls the function `what`, for a number that the function does not
    /// have, and for one that is not finite.
    pub fn check(&self, what: &str) -> Result<(), Error> {
        let defaults = self.name.defaults();
        let numbers = [self.alpha, self.beta].into_iter().zip(defaults);
        for ((number, default), name) in numbers.zip(["alpha", "beta"]) {
            let what = format!("{name} of {what}");
            if !number.is_finite() {
                return Err(Error::option(&what, "a finite number", number));
            }
            if default.is_none() && number.to_bits() != 0 {
                return Err(Error::option(&what, "none (the function has no such number)", number));
            }
        }
        Ok(())
    }

    /// f(x).
    #[inline(always)]
    pub fn value<V: Lanes>(self, x: V) -> V {
        let (alpha, beta) = (V::number(self.alpha), V::number(self.beta));
        match self.name {
            FunctionName::Relu => x.relu(),
            FunctionName::Tanh => x.tanh(),
            FunctionName::Sigmoid => x.sigmoid(),
            FunctionName::Affine => alpha * x + beta,
            FunctionName::LeakyRelu => (-x).choose(alpha * x, x),
            FunctionName::ThresholdedRelu => (alpha - x).choose(V::zero(), x),
            FunctionName::ScaledTanh => alpha * (beta * x).tanh(),
            FunctionName::HardSigmoid => (alpha * x + beta).between(V::zero(), V::one()),
            FunctionName::Elu => (-x).choose(alpha * x.exp_minus_1(), x),
            FunctionName::Softsign => x.softsign(),
            FunctionName::Softplus => x.softplus(),
        }
    }

    /// f(x) and f'(x).
    #[inline(always)]
    pub fn sloped<V: Lanes>(self, x: V) -> Sloped<V> {
        let (alpha, beta) = (V::number(self.alpha), V::number(self.beta));
        let (zero, one) = (V::zero(), V::one());
        let value = self.value(x);
        let slope = match self.name {
            FunctionName::Relu => x.heaviside(),
            FunctionName::Tanh => one - value * value,
            FunctionName::Sigmoid => value * (one - value),
            FunctionName::Affine => alpha,
            FunctionName::LeakyRelu => (-x).choose(alpha, one),
            FunctionName::ThresholdedRelu => (alpha - x).choose(zero, one),
            FunctionName::ScaledTanh => {
                let t = (beta * x).tanh();
                alpha * beta * (one - t * t)
            }
            FunctionName::HardSigmoid => {
                let x = alpha * x + beta;
                alpha * (x.heaviside() * (one - x).heaviside())
            }
            FunctionName::Elu => (-x).choose(value + alpha, one),
            FunctionName::Softsign => {
                let rest = one - value.magnitude();
                rest * rest
            }
            FunctionName::Softplus => x.sigmoid(),
        };
        Sloped { value, slope }
    }
}

/// Functions that were chosen, and a bound for their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// Of the gates.
    pub gate: Function,
    /// Of the candidate; of an RNN's sum.
    pub candidate: Function,
    /// Of an LSTM's cell state.
    pub output: Function,
    /// The sums of gates and candidate are cut to [-clip, clip].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<Bound>,
}

/// A positive number.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bound(pub f64);

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Bound {}

impl Hash for Bound {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.0.to_bits().hash(state);
    }
}

impl Default for Chosen {
    fn default() -> Self {
        Self {
            gate: Function::SIGMOID,
            candidate: Function::TANH,
            output: Function::TANH,
            clip: None,
        }
    }
}

impl Chosen {
    /// # Errors
    /// [`Error::Option`] names the function or bound that is none.
    pub fn check(&self) -> Result<(), Error> {
        self.gate.check("gate_activation")?;
        self.candidate.check("candidate_activation")?;
        self.output.check("output_activation")?;
        match self.clip {
            Some(Bound(clip)) if !(clip > 0.0 && clip.is_finite()) => {
                Err(Error::option("clip", "a finite number above 0", clip))
            }
            _ => Ok(()),
        }
    }

    #[inline(always)]
    fn cut<V: Lanes>(self, sum: V) -> V {
        match self.clip {
            None => sum,
            Some(Bound(clip)) => sum.between(-V::number(clip), V::number(clip)),
        }
    }

    /// The value and slope of `function` of the cut sum: the slope is 0 beyond the bound.
    #[inline(always)]
    fn again<V: Lanes>(self, function: Function, sum: V) -> Sloped<V> {
        let Sloped { value, slope } = self.cut(sum).sloped_of(function);
        match self.clip {
            None => Sloped { value, slope },
            Some(Bound(clip)) => {
                let beyond = (sum.magnitude() - V::number(clip)).heaviside();
                Sloped { value, slope: slope * (V::one() - beyond) }
            }
        }
    }
}

impl Functions for Chosen {
    const FUSED: bool = false;

    #[inline(always)]
    fn gate<V: Lanes>(self, sum: V) -> Kept<V> {
        Kept { value: self.cut(sum).value_of(self.gate), kept: sum }
    }

    #[inline(always)]
    fn gate_again<V: Lanes>(self, sum: V) -> Sloped<V> {
        self.again(self.gate, sum)
    }

    #[inline(always)]
    fn candidate<V: Lanes>(self, sum: V) -> Kept<V> {
        Kept { value: self.cut(sum).value_of(self.candidate), kept: sum }
    }

    #[inline(always)]
    fn candidate_again<V: Lanes>(self, sum: V) -> Sloped<V> {
        self.again(self.candidate, sum)
    }

    #[inline(always)]
    fn output<V: Lanes>(self, c: V) -> V {
        c.value_of(self.output)
    }

    #[inline(always)]
    fn output_sloped<V: Lanes>(self, c: V) -> Sloped<V> {
        c.sloped_of(self.output)
    }
}
