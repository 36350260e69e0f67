//! How gradients change the parameters.
//!
//! p a parameter, g its gradient, t the update counted from 1, lr the learning rate:
//!
//! ```text
//! Sgd       g <- g + weight_decay p
//!           b <- momentum b + g                                  with momentum
//!           p <- p - lr b, or p - lr (g + momentum b)            the latter with nesterov
//! RmsProp   g <- g + weight_decay p
//!           v <- alpha v + (1 - alpha) g^2                       d = g / (sqrt(v) + eps)
//!           b <- momentum b + d                                  with momentum
//!           p <- p - lr d, or p - lr b
//! Adam      g <- g + weight_decay p
//!           m <- m + (1 - beta1) (g - m)
//!           v <- beta2 v + (1 - beta2) g^2
//!           p <- p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//! AdamW     p <- p - lr weight_decay p, then as Adam without weight_decay
//! ```
//!
//! These are PyTorch's formulas, order of operations and defaults (Rumelhart et al. 1986,
//! Sutskever et al. 2013, Tieleman and Hinton 2012, Kingma and Ba 2015, Loshchilov and
//! Hutter 2019). b, m and v are kept in the type of the parameters.

use seqrs_core::{Error, memory};
use seqrs_cpu::Cpu;
use serde::{Deserialize, Serialize};

use crate::clipping::pieces_of;
use crate::number::Number;
use crate::room::{copied, room};
use crate::schedules::{Progress, Schedule};
use crate::spread::{PIECE, spread_all};

/// An optimiser and its options.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum OptimizerSpec {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// Divided by the root of the mean square.
    RmsProp(RmsProp),
    /// Adaptive moments.
    Adam(Adam),
    /// Adaptive moments, with weight decay apart from the gradient.
    AdamW(AdamW),
}

/// Options with their defaults, a constructor that takes the learning rate, and a method
/// for each of the others.
macro_rules! optimizers {
    ($($(#[$doc:meta])* $name:ident(lr = $lr:expr) {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $value:expr,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// The learning rate.
            pub lr: Schedule,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// With the default options.
            pub fn new(lr: impl Into<Schedule>) -> Self {
                Self { lr: lr.into(), $($field: $value,)* }
            }

            $(
                $(#[$field_doc])*
                #[must_use]
                pub fn $field(self, $field: $type) -> Self {
                    Self { $field, ..self }
                }
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new($lr)
            }
        }

        impl From<$name> for OptimizerSpec {
            fn from(optimizer: $name) -> Self {
                Self::$name(optimizer)
            }
        }
    )*};
}

optimizers! {
    /// Stochastic gradient descent, with momentum if asked for.
    Sgd(lr = 1e-3) {
        /// What part of the last change is made again, in [0, 1); 0 keeps no state.
        momentum: f64 = 0.0,
        /// Whether the gradient is corrected as if taken after the momentum's change.
        nesterov: bool = false,
        /// What part of a parameter is added to its gradient.
        weight_decay: f64 = 0.0,
    }
    /// The gradient divided by a running root mean square of it.
    RmsProp(lr = 1e-2) {
        /// What part of the running mean square is kept, in [0, 1).
        alpha: f64 = 0.99,
        /// Added to the root.
        eps: f64 = 1e-8,
        /// What part of a parameter is added to its gradient.
        weight_decay: f64 = 0.0,
        /// What part of the last change is made again, in [0, 1).
        momentum: f64 = 0.0,
    }
    /// A running mean of the gradient divided by a running root mean square of it, both
    /// corrected for having begun at zero.
    Adam(lr = 1e-3) {
        /// What part of the mean and of the mean square is kept, both in [0, 1).
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the root.
        eps: f64 = 1e-8,
        /// What part of a parameter is added to its gradient.
        weight_decay: f64 = 0.0,
    }
    /// Adam, where weight decay takes a part of the parameter itself.
    AdamW(lr = 1e-3) {
        /// What part of the mean and of the mean square is kept, both in [0, 1).
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the root.
        eps: f64 = 1e-8,
        /// What part of a parameter, times the learning rate, is taken from it.
        weight_decay: f64 = 0.01,
    }
}

impl OptimizerSpec {
    /// The learning rate.
    pub fn schedule(&self) -> &Schedule {
        match self {
            Self::Sgd(o) => &o.lr,
            Self::RmsProp(o) => &o.lr,
            Self::Adam(o) => &o.lr,
            Self::AdamW(o) => &o.lr,
        }
    }

    /// Its name in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sgd(_) => "sgd",
            Self::RmsProp(_) => "rmsprop",
            Self::Adam(_) => "adam",
            Self::AdamW(_) => "adamw",
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Option`] names the one that is at fault.
    pub fn check(&self) -> Result<(), Error> {
        self.schedule().check()?;
        match self {
            Self::Sgd(o) => {
                share("momentum", o.momentum)?;
                at_least_0("weight_decay", o.weight_decay)?;
                match o.nesterov && o.momentum == 0.0 {
                    true => Err(Error::option("nesterov", "false without momentum", "true")),
                    false => Ok(()),
                }
            }
            Self::RmsProp(o) => {
                share("alpha", o.alpha)?;
                at_least_0("eps", o.eps)?;
                at_least_0("weight_decay", o.weight_decay)?;
                share("momentum", o.momentum)
            }
            Self::Adam(Adam { betas, eps, weight_decay, .. })
            | Self::AdamW(AdamW { betas, eps, weight_decay, .. }) => {
                share("betas[0]", betas.0)?;
                share("betas[1]", betas.1)?;
                at_least_0("eps", *eps)?;
                at_least_0("weight_decay", *weight_decay)
            }
        }
    }

    /// What is kept for each parameter, by PyTorch's names.
    pub(crate) fn moments(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd(o) if o.momentum > 0.0 => &["momentum_buffer"],
            Self::Sgd(_) => &[],
            Self::RmsProp(o) if o.momentum > 0.0 => &["square_avg", "momentum_buffer"],
            Self::RmsProp(_) => &["square_avg"],
            Self::Adam(_) | Self::AdamW(_) => &["exp_avg", "exp_avg_sq"],
        }
    }
}

pub(crate) fn finite_above_0(name: &str, value: f64) -> Result<(), Error> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(Error::option(name, "a finite number above 0", value)),
    }
}

pub(crate) fn at_least_0(name: &str, value: f64) -> Result<(), Error> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(Error::option(name, "a finite number of at least 0", value)),
    }
}

fn share(name: &str, value: f64) -> Result<(), Error> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(Error::option(name, "a number in [0, 1)", value)),
    }
}

/// An optimiser at work on a model: its options, and what it remembers.
///
/// ```
/// use seqrs::low_level::Cpu;
/// use seqrs::optimizers::{Optimizer, Sgd};
///
/// let mut optimizer = Optimizer::new(Sgd::new(0.5), &[2])?;
/// let mut parameters = [1.0, 2.0];
/// optimizer.update(&Cpu::new()?, [&mut parameters[..]], &[vec![1.0, -1.0]])?;
/// assert_eq!(parameters, [0.5, 2.5]);
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer<T> {
    pub(crate) spec: OptimizerSpec,
    /// By name, then by layer.
    pub(crate) moments: Vec<Vec<Vec<T>>>,
    pub(crate) updates: u64,
    pub(crate) progress: Progress,
}

impl<T: Number> Optimizer<T> {
    /// For parameters in runs of `sizes` numbers.
    ///
    /// # Errors
    /// [`Error::Option`] names an option that is at fault; [`Error::OutOfMemory`].
    pub fn new(spec: impl Into<OptimizerSpec>, sizes: &[usize]) -> Result<Self, Error> {
        let spec = spec.into();
        spec.check()?;
        let zeros = |&size: &usize| memory::zeros("state of the optimiser", size);
        let moments = spec
            .moments()
            .iter()
            .map(|_| sizes.iter().map(zeros).collect())
            .collect::<Result<_, Error>>()?;
        Ok(Self { spec, moments, updates: 0, progress: Progress::default() })
    }

    /// A copy; [`Clone`] is for those who know that there is memory for one.
    pub(crate) fn copied(&self) -> Result<Self, Error> {
        let copy = |moment: &Vec<Vec<T>>| -> Result<Vec<Vec<T>>, Error> {
            moment.iter().map(|run| copied("state of the optimiser", run)).collect()
        };
        let moments = self.moments.iter().map(copy).collect::<Result<_, _>>()?;
        Ok(Self { spec: self.spec, moments, updates: self.updates, progress: self.progress })
    }

    /// Its options.
    pub fn spec(&self) -> &OptimizerSpec {
        &self.spec
    }

    /// Updates done.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The learning rate of the next update.
    pub fn learning_rate(&self) -> f64 {
        self.spec.schedule().at(self.updates, &self.progress)
    }

    /// The formula of the next update, for who does it elsewhere and then counts it.
    #[cfg(feature = "gpu")]
    pub(crate) fn next_rule(&self) -> Rule<T> {
        Rule::new(&self.spec, self.learning_rate(), self.updates + 1)
    }

    /// Counts an update that was done elsewhere.
    #[cfg(feature = "gpu")]
    pub(crate) fn count(&mut self) {
        self.updates += 1;
    }

    /// Shows the schedule a metric, smaller being better.
    pub fn observe(&mut self, metric: f64) {
        self.spec.schedule().observe(&mut self.progress, metric);
    }

    /// Changes the parameters, once. Every number is computed by itself, so nothing depends
    /// on the number of threads.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; nothing has changed then, and nothing else can go wrong.
    ///
    /// # Panics
    /// If the sizes are not those the optimiser was made for.
    pub fn update<'p>(
        &mut self,
        cpu: &Cpu<T>,
        parameters: impl IntoIterator<Item = &'p mut [T]>,
        gradients: &[Vec<T>],
    ) -> Result<(), Error> {
        let mut pieces = room("pieces of an update", pieces_of(gradients))?;
        let rule = Rule::new(&self.spec, self.learning_rate(), self.updates + 1);
        let (first, second) = match self.moments.as_mut_slice() {
            [] => Default::default(),
            [first] => (first.as_mut_slice(), Default::default()),
            [first, second, ..] => (first.as_mut_slice(), second.as_mut_slice()),
        };
        let first = or_empty(first.iter_mut().map(Vec::as_mut_slice));
        let second = or_empty(second.iter_mut().map(Vec::as_mut_slice));
        let mut gradients = gradients.iter();
        let mut numbers = 0;
        for ((p, a), b) in parameters.into_iter().zip(first).zip(second) {
            let g = gradients.next().expect("a gradient for each run of parameters");
            assert_eq!(p.len(), g.len(), "a gradient for each parameter");
            assert!([0, p.len()].contains(&a.len()), "what is kept, for each parameter");
            numbers += p.len();
            let (p, g) = (p.chunks_mut(PIECE), g.chunks(PIECE));
            let (a, b) = (or_empty(a.chunks_mut(PIECE)), or_empty(b.chunks_mut(PIECE)));
            pieces.extend(p.zip(g).zip(a).zip(b));
        }
        spread_all(pieces, numbers, cpu.threads(), |(((p, g), a), b)| rule.apply(p, g, a, b));
        self.updates += 1;
        Ok(())
    }
}

/// The runs, then empty ones for ever: what an optimiser does not keep.
fn or_empty<'a, T: 'a>(
    runs: impl Iterator<Item = &'a mut [T]>,
) -> impl Iterator<Item = &'a mut [T]> {
    runs.chain(std::iter::repeat_with(Default::default))
}

/// An optimiser's formula with the numbers of one update filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule<T> {
    Sgd { lr: T, momentum: T, nesterov: bool, decay: T },
    RmsProp { lr: T, alpha: T, new: T, eps: T, decay: T, momentum: T },
    Adam { step: T, new1: T, beta2: T, new2: T, root: T, eps: T, decay: T, keep: T },
}

impl<T: Number> Rule<T> {
    /// For update number `t`, counted from 1. Numbers are computed in `f64` and rounded once.
    fn new(spec: &OptimizerSpec, lr: f64, t: u64) -> Self {
        let n = T::from_f64;
        let adam = |betas: (f64, f64), eps, decay, keep| Self::Adam {
            step: n(lr / (1.0 - betas.0.powf(t as f64))),
            new1: n(1.0 - betas.0),
            beta2: n(betas.1),
            new2: n(1.0 - betas.1),
            root: n((1.0 - betas.1.powf(t as f64)).sqrt()),
            eps: n(eps),
            decay: n(decay),
            keep: n(keep),
        };
        match *spec {
            OptimizerSpec::Sgd(o) => Self::Sgd {
                lr: n(lr),
                momentum: n(o.momentum),
                nesterov: o.nesterov,
                decay: n(o.weight_decay),
            },
            OptimizerSpec::RmsProp(o) => Self::RmsProp {
                lr: n(lr),
                alpha: n(o.alpha),
                new: n(1.0 - o.alpha),
                eps: n(o.eps),
                decay: n(o.weight_decay),
                momentum: n(o.momentum),
            },
            OptimizerSpec::Adam(o) => adam(o.betas, o.eps, o.weight_decay, 1.0),
            OptimizerSpec::AdamW(o) => adam(o.betas, o.eps, 0.0, 1.0 - lr * o.weight_decay),
        }
    }

    /// Changes p; `first` and `second` are the moments, as far as there are any.
    fn apply(self, p: &mut [T], g: &[T], first: &mut [T], second: &mut [T]) {
        let pairs = p.iter_mut().zip(g);
        match self {
            Self::Sgd { lr, momentum, nesterov, decay } => {
                if first.is_empty() {
                    pairs.for_each(|(p, &g)| *p -= lr * (g + decay * *p));
                    return;
                }
                for ((p, &g), b) in pairs.zip(first) {
                    let g = g + decay * *p;
                    *b = momentum * *b + g;
                    *p -= lr * if nesterov { g + momentum * *b } else { *b };
                }
            }
            Self::RmsProp { lr, alpha, new, eps, decay, momentum } => {
                let divided = |p: T, g: T, v: &mut T| {
                    let g = g + decay * p;
                    *v = alpha * *v + new * (g * g);
                    g / (v.sqrt() + eps)
                };
                if second.is_empty() {
                    pairs.zip(first).for_each(|((p, &g), v)| *p -= lr * divided(*p, g, v));
                    return;
                }
                for (((p, &g), v), b) in pairs.zip(first).zip(second) {
                    *b = momentum * *b + divided(*p, g, v);
                    *p -= lr * *b;
                }
            }
            Self::Adam { step, new1, beta2, new2, root, eps, decay, keep } => {
                for (((p, &g), m), v) in pairs.zip(first).zip(second) {
                    let kept = keep * *p;
                    let g = g + decay * kept;
                    *m += new1 * (g - *m);
                    *v = beta2 * *v + new2 * (g * g);
                    *p = kept - step * (*m / (v.sqrt() / root + eps));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use seqrs_cpu::level::Level;

    use super::*;
    use crate::random::Stream;
    use crate::schedules::Step;

    fn cpu<T: Number>(threads: usize) -> Cpu<T> {
        Cpu::with(Level::detect(), threads)
    }

    fn runs<T>(parameters: &mut [Vec<T>]) -> impl Iterator<Item = &mut [T]> {
        parameters.iter_mut().map(Vec::as_mut_slice)
    }

    fn every_kind() -> Vec<OptimizerSpec> {
        vec![
            Sgd::new(0.1).into(),
            Sgd::new(0.1).weight_decay(0.01).into(),
            Sgd::new(0.1).momentum(0.9).into(),
            Sgd::new(0.1).momentum(0.9).nesterov(true).weight_decay(0.01).into(),
            RmsProp::new(0.01).into(),
            RmsProp::new(0.01).momentum(0.9).weight_decay(0.1).into(),
            Adam::new(0.01).into(),
            Adam::new(Step::new(0.01, 3)).betas((0.8, 0.9)).weight_decay(0.1).into(),
            AdamW::new(0.01).into(),
        ]
    }

    /// One parameter through all updates, written from the papers, with sums in place of
    /// running means.
    fn expected(spec: &OptimizerSpec, p: f64, gradients: &[f64]) -> f64 {
        let mut p = p;
        let mut gs = Vec::new();
        let mut divided = Vec::new();
        let weighted = |beta: f64, values: &mut dyn DoubleEndedIterator<Item = f64>| -> f64 {
            values.rev().enumerate().map(|(age, value)| beta.powi(age as i32) * value).sum()
        };
        for (k, &g) in gradients.iter().enumerate() {
            let lr = spec.schedule().at(k as u64, &Progress::default());
            let t = k as i32 + 1;
            match *spec {
                OptimizerSpec::Sgd(o) => {
                    gs.push(g + o.weight_decay * p);
                    let b = weighted(o.momentum, &mut gs.iter().copied());
                    p -= lr * if o.nesterov { gs[k] + o.momentum * b } else { b };
                }
                OptimizerSpec::RmsProp(o) => {
                    gs.push(g + o.weight_decay * p);
                    let v = (1.0 - o.alpha) * weighted(o.alpha, &mut gs.iter().map(|g| g * g));
                    divided.push(gs[k] / (v.sqrt() + o.eps));
                    p -= lr * weighted(o.momentum, &mut divided.iter().copied());
                }
                OptimizerSpec::Adam(Adam { betas, eps, weight_decay, .. })
                | OptimizerSpec::AdamW(AdamW { betas, eps, weight_decay, .. }) => {
                    if matches!(spec, OptimizerSpec::Adam(_)) {
                        gs.push(g + weight_decay * p);
                    } else {
                        gs.push(g);
                        p -= lr * weight_decay * p;
                    }
                    let m = (1.0 - betas.0) * weighted(betas.0, &mut gs.iter().copied());
                    let v = (1.0 - betas.1) * weighted(betas.1, &mut gs.iter().map(|g| g * g));
                    let (m, v) = (m / (1.0 - betas.0.powi(t)), v / (1.0 - betas.1.powi(t)));
                    p -= lr * m / (v.sqrt() + eps);
                }
            }
        }
        p
    }

    #[test]
    fn updates_are_the_formulas() {
        let mut stream = Stream::new(5, 0);
        let p0: Vec<f64> = (0..6).map(|_| stream.normal()).collect();
        let gradients: Vec<Vec<f64>> =
            (0..10).map(|_| (0..6).map(|_| stream.normal()).collect()).collect();
        for spec in every_kind() {
            let mut p = [p0[..2].to_vec(), vec![], p0[2..].to_vec()];
            let mut optimizer = Optimizer::new(spec, &[2, 0, 4]).unwrap();
            for g in &gradients {
                let g = [g[..2].to_vec(), vec![], g[2..].to_vec()];
                optimizer.update(&cpu(1), runs(&mut p), &g).unwrap();
            }
            assert_eq!(optimizer.updates(), 10);
            for (k, p) in p.iter().flatten().enumerate() {
                let gradients: Vec<f64> = gradients.iter().map(|g| g[k]).collect();
                let expected = expected(&spec, p0[k], &gradients);
                assert!((p - expected).abs() < 1e-12, "{spec:?}: {p} {expected}");
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let mut stream = Stream::new(5, 0);
        let mut draw = |len| (0..len).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
        let sizes = [30_001, 7, 20_000];
        let (p, g) = (sizes.map(&mut draw), sizes.map(&mut draw));
        for spec in every_kind() {
            let run = |threads| {
                let (mut p, mut optimizer) = (p.clone(), Optimizer::new(spec, &sizes).unwrap());
                for _ in 0..2 {
                    optimizer.update(&cpu(threads), runs(&mut p), &g).unwrap();
                }
                (p, optimizer)
            };
            let one = run(1);
            assert!((2..5).all(|threads| run(threads) == one), "{spec:?}");
        }
    }

    #[test]
    fn json_is_closed_and_has_pytorchs_defaults() {
        let read = |json: &str| serde_json::from_str::<OptimizerSpec>(json);
        for spec in every_kind() {
            assert_eq!(read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
        }
        assert_eq!(read(r#"{"kind": "rmsprop"}"#).unwrap(), RmsProp::new(0.01).into());
        let adamw = r#"{"kind": "adamw", "lr": {"kind": "step", "lr": 0.1, "every": 2}}"#;
        assert_eq!(read(adamw).unwrap(), AdamW::new(Step::new(0.1, 2)).into());
        for wrong in [r#"{"kind": "adam", "momentum": 0.9}"#, r#"{"kind": "lion", "lr": 1}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_optimiser_is_refused_by_name() {
        let wrong: [(OptimizerSpec, &str); 8] = [
            (Sgd::new(-0.1).into(), "lr"),
            (Sgd::new(0.1).momentum(1.0).into(), "momentum"),
            (Sgd::new(0.1).nesterov(true).into(), "nesterov"),
            (Sgd::new(0.1).weight_decay(-1.0).into(), "weight_decay"),
            (RmsProp::new(0.1).alpha(f64::NAN).into(), "alpha"),
            (Adam::new(0.1).betas((0.9, 1.0)).into(), "betas[1]"),
            (Adam::new(0.1).eps(-1.0).into(), "eps"),
            (AdamW::new(f64::INFINITY).into(), "lr"),
        ];
        for (spec, name) in wrong {
            let message = Optimizer::<f32>::new(spec, &[1]).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{name}: ")), "{message}");
        }
    }
}
