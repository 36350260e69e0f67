//! Learning rates that change as training goes on.
//!
//! A schedule is a function of the number of updates done, so a resumed run needs nothing
//! but that number. The exception is [`Plateau`], which follows a metric: what it has seen
//! is its [`Progress`], which a checkpoint keeps.
//!
//! ```
//! use seqrs::schedules::{Cosine, Progress, Schedule};
//!
//! let schedule = Schedule::from(Cosine::new(1e-3, 1000).warmup(100));
//! let lr = |step| schedule.at(step, &Progress::default());
//! assert_eq!(lr(99), 1e-3); // the warmup is over
//! assert!(lr(550) < lr(100) && lr(1000) == 0.0);
//! ```

use std::f64::consts::PI;
use std::fmt;

use seqrs_core::Error;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::optimizers::{at_least_0, finite_above_0};

/// The learning rate after each number of updates. A number is a [`Constant`], in Rust by
/// `into()` and in JSON by itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Schedule {
    /// Always the same.
    Constant(Constant),
    /// Down along half a cosine.
    Cosine(Cosine),
    /// Up, then down further than it began.
    OneCycle(OneCycle),
    /// Down in steps.
    Step(Step),
    /// Down when a metric no longer falls.
    Plateau(Plateau),
}

/// The same learning rate for ever.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// The learning rate.
    pub lr: f64,
}

/// Rises linearly for `warmup` updates to `lr`, then falls along half a cosine (Loshchilov
/// and Hutter 2017, without restarts) to `lr * final_factor` at update `steps`, and stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cosine {
    /// The largest learning rate.
    pub lr: f64,
    /// Updates until the end of the fall, those of the warmup included.
    pub steps: u64,
    /// Updates of linear rise; the first has `lr / warmup`.
    #[serde(default)]
    pub warmup: u64,
    /// What part of `lr` is left at the end.
    #[serde(default)]
    pub final_factor: f64,
}

/// The one-cycle policy (Smith and Topin 2018), as PyTorch's `OneCycleLR` with cosines:
/// from `max_lr / div_factor` up to `max_lr` in the first `pct_start` of the steps, then
/// down to `max_lr / div_factor / final_div_factor`, where it stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneCycle {
    /// The largest learning rate.
    pub max_lr: f64,
    /// Updates in the whole cycle.
    pub steps: u64,
    /// Share of the steps that rise.
    #[serde(default = "OneCycle::default_pct_start")]
    pub pct_start: f64,
    /// The largest by the first learning rate.
    #[serde(default = "OneCycle::default_div_factor")]
    pub div_factor: f64,
    /// The first by the last learning rate.
    #[serde(default = "OneCycle::default_final_div_factor")]
    pub final_div_factor: f64,
}

/// Multiplied by `factor` after every `every` updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The first learning rate.
    pub lr: f64,
    /// Updates between two changes.
    pub every: u64,
    /// What the learning rate is multiplied by.
    #[serde(default = "Step::default_factor")]
    pub factor: f64,
}

/// Multiplied by `factor` when the observed metric has not fallen for more than `patience`
/// observations in a row, as PyTorch's `ReduceLROnPlateau`. A NaN is no fall.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plateau {
    /// The first learning rate.
    pub lr: f64,
    /// What the learning rate is multiplied by.
    #[serde(default = "Plateau::default_factor")]
    pub factor: f64,
    /// Observations without a fall that are still waited for.
    #[serde(default = "Plateau::default_patience")]
    pub patience: u64,
    /// A metric has fallen when it is below the best one by more than this share of it.
    #[serde(default = "Plateau::default_threshold")]
    pub threshold: f64,
    /// The learning rate is never made smaller than this.
    #[serde(default)]
    pub min_lr: f64,
}

/// What a [`Plateau`] has seen; other schedules leave it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The lowest metric; none before the first.
    best: Option<f64>,
    /// Observations since then.
    waited: u64,
    /// The learning rate, once it was reduced.
    lr: Option<f64>,
}

impl Cosine {
    /// From `lr` to 0 in `steps` updates, without warmup.
    pub fn new(lr: f64, steps: u64) -> Self {
        Self { lr, steps, warmup: 0, final_factor: 0.0 }
    }

    /// With `updates` of linear rise before the fall.
    #[must_use]
    pub fn warmup(self, updates: u64) -> Self {
        Self { warmup: updates, ..self }
    }

    /// With `factor` of the learning rate left at the end.
    #[must_use]
    pub fn final_factor(self, factor: f64) -> Self {
        Self { final_factor: factor, ..self }
    }

    fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * ((step + 1) as f64 / self.warmup as f64);
        }
        let fall = self.steps.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f64 / fall as f64).min(1.0);
        anneal(self.lr, self.lr * self.final_factor, done)
    }
}

impl OneCycle {
    /// PyTorch's defaults: 30 % of the steps rise, from `max_lr / 25`, and the last learning
    /// rate is a ten-thousandth of the first.
    pub fn new(max_lr: f64, steps: u64) -> Self {
        Self {
            max_lr,
            steps,
            pct_start: Self::default_pct_start(),
            div_factor: Self::default_div_factor(),
            final_div_factor: Self::default_final_div_factor(),
        }
    }

    fn default_pct_start() -> f64 {
        0.3
    }

    fn default_div_factor() -> f64 {
        25.0
    }

    fn default_final_div_factor() -> f64 {
        1e4
    }

    fn at(&self, step: u64) -> f64 {
        let first = self.max_lr / self.div_factor;
        let last = first / self.final_div_factor;
        let step = step as f64;
        let top = self.pct_start * self.steps as f64 - 1.0;
        let end = self.steps as f64 - 1.0;
        if step >= end {
            last
        } else if step <= top && top > 0.0 {
            anneal(first, self.max_lr, step / top)
        } else {
            anneal(self.max_lr, last, (step - top) / (end - top))
        }
    }
}

impl Step {
    /// A tenth after every `every` updates.
    pub fn new(lr: f64, every: u64) -> Self {
        Self { lr, every, factor: Self::default_factor() }
    }

    /// With another factor.
    #[must_use]
    pub fn factor(self, factor: f64) -> Self {
        Self { factor, ..self }
    }

    fn default_factor() -> f64 {
        0.1
    }

    fn at(&self, step: u64) -> f64 {
        self.lr * self.factor.powf((step / self.every) as f64)
    }
}

impl Plateau {
    /// PyTorch's defaults: a tenth after 10 observations without a fall of 0.01 %.
    pub fn new(lr: f64) -> Self {
        Self {
            lr,
            factor: Self::default_factor(),
            patience: Self::default_patience(),
            threshold: Self::default_threshold(),
            min_lr: 0.0,
        }
    }

    /// With another factor.
    #[must_use]
    pub fn factor(self, factor: f64) -> Self {
        Self { factor, ..self }
    }

    /// With another patience.
    #[must_use]
    pub fn patience(self, observations: u64) -> Self {
        Self { patience: observations, ..self }
    }

    /// With a smallest learning rate.
    #[must_use]
    pub fn min_lr(self, min_lr: f64) -> Self {
        Self { min_lr, ..self }
    }

    fn default_factor() -> f64 {
        0.1
    }

    fn default_patience() -> u64 {
        10
    }

    fn default_threshold() -> f64 {
        1e-4
    }

    fn observe(&self, progress: &mut Progress, metric: f64) {
        let fallen = match progress.best {
            None => metric.is_finite(),
            Some(best) => metric.is_finite() && metric < best - self.threshold * best.abs(),
        };
        if fallen {
            progress.best = Some(metric);
            progress.waited = 0;
            return;
        }
        progress.waited += 1;
        if progress.waited > self.patience {
            let lr = progress.lr.unwrap_or(self.lr);
            progress.lr = Some((lr * self.factor).max(self.min_lr.min(lr)));
            progress.waited = 0;
        }
    }
}

/// From `start` to `end` along half a cosine; `done` is in [0, 1].
fn anneal(start: f64, end: f64, done: f64) -> f64 {
    end + (start - end) * ((1.0 + (PI * done).cos()) / 2.0)
}

impl Schedule {
    /// The learning rate of the update that follows `step` others.
    pub fn at(&self, step: u64, progress: &Progress) -> f64 {
        match self {
            Self::Constant(s) => s.lr,
            Self::Cosine(s) => s.at(step),
            Self::OneCycle(s) => s.at(step),
            Self::Step(s) => s.at(step),
            Self::Plateau(s) => progress.lr.unwrap_or(s.lr),
        }
    }

    /// Shows the schedule a metric, smaller being better; only [`Plateau`] looks at it.
    pub fn observe(&self, progress: &mut Progress, metric: f64) {
        if let Self::Plateau(s) = self {
            s.observe(progress, metric);
        }
    }

    /// Checks that every learning rate will be a finite number, at least 0.
    ///
    /// # Errors
    /// [`Error::Option`] names the field that is at fault.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Constant(s) => at_least_0("lr", s.lr),
            Self::Cosine(s) => {
                at_least_0("lr", s.lr)?;
                at_least_1("steps", s.steps)?;
                if s.warmup > s.steps {
                    let expected = format!("an integer in 0..={} (at most steps)", s.steps);
                    return Err(Error::option("warmup", expected, s.warmup));
                }
                at_least_0("final_factor", s.final_factor)
            }
            Self::OneCycle(s) => {
                at_least_0("max_lr", s.max_lr)?;
                at_least_1("steps", s.steps)?;
                if !(0.0..=1.0).contains(&s.pct_start) {
                    return Err(Error::option("pct_start", "a number in [0, 1]", s.pct_start));
                }
                finite_above_0("div_factor", s.div_factor)?;
                finite_above_0("final_div_factor", s.final_div_factor)
            }
            Self::Step(s) => {
                at_least_0("lr", s.lr)?;
                at_least_1("every", s.every)?;
                share_above_0("factor", s.factor)
            }
            Self::Plateau(s) => {
                at_least_0("lr", s.lr)?;
                share_above_0("factor", s.factor)?;
                at_least_0("threshold", s.threshold)?;
                at_least_0("min_lr", s.min_lr)
            }
        }
    }
}

fn at_least_1(name: &str, value: u64) -> Result<(), Error> {
    match value {
        0 => Err(Error::option(name, "an integer of at least 1", value)),
        _ => Ok(()),
    }
}

/// A factor above 1 would let the learning rate grow without bound.
fn share_above_0(name: &str, value: f64) -> Result<(), Error> {
    match value > 0.0 && value <= 1.0 {
        true => Ok(()),
        false => Err(Error::option(name, "a number in (0, 1]", value)),
    }
}

macro_rules! schedule_from {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Schedule {
            fn from(schedule: $kind) -> Self {
                Self::$kind(schedule)
            }
        }
    )*};
}

schedule_from!(Constant, Cosine, OneCycle, Step, Plateau);

impl From<f64> for Schedule {
    fn from(lr: f64) -> Self {
        Self::Constant(Constant { lr })
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrObject)
    }
}

/// Reads `0.1` as well as `{"kind": "cosine", ...}`.
struct NumberOrObject;

impl<'de> Visitor<'de> for NumberOrObject {
    type Value = Schedule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a schedule")
    }

    fn visit_f64<E: de::Error>(self, lr: f64) -> Result<Schedule, E> {
        Ok(lr.into())
    }

    fn visit_u64<E: de::Error>(self, lr: u64) -> Result<Schedule, E> {
        Ok((lr as f64).into())
    }

    fn visit_i64<E: de::Error>(self, lr: i64) -> Result<Schedule, E> {
        Ok((lr as f64).into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Schedule, A::Error> {
        #[derive(Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        enum Object {
            Constant(Constant),
            Cosine(Cosine),
            OneCycle(OneCycle),
            Step(Step),
            Plateau(Plateau),
        }
        Ok(match Object::deserialize(MapAccessDeserializer::new(map))? {
            Object::Constant(s) => s.into(),
            Object::Cosine(s) => s.into(),
            Object::OneCycle(s) => s.into(),
            Object::Step(s) => s.into(),
            Object::Plateau(s) => s.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: impl Into<Schedule>, steps: u64) -> Vec<f64> {
        let schedule = schedule.into();
        schedule.check().unwrap();
        (0..steps).map(|s| schedule.at(s, &Progress::default())).collect()
    }

    fn assert_close(ours: &[f64], expected: &[f64]) {
        assert_eq!(ours.len(), expected.len());
        for (a, b) in ours.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-12 * b.abs().max(1e-12), "{ours:?} {expected:?}");
        }
    }

    #[test]
    fn a_cosine_rises_and_falls_between_its_ends() {
        let schedule = Cosine::new(1.0, 6).warmup(2).final_factor(0.5);
        let quarter = 0.5 + 0.25 * (1.0 + (PI / 4.0).cos());
        let three = 0.5 + 0.25 * (1.0 + (3.0 * PI / 4.0).cos());
        assert_close(&rates(schedule, 8), &[0.5, 1.0, 1.0, quarter, 0.75, three, 0.5, 0.5]);
    }

    /// The definition written as PyTorch's source has it: two phases, each with its first
    /// and last step.
    #[test]
    fn one_cycle_has_pytorchs_phases() {
        let (max, steps) = (0.1, 20);
        let cos = |a: f64, b: f64, p: f64| b + (a - b) / 2.0 * (1.0 + (PI * p).cos());
        let (first, last) = (max / 25.0, max / 25.0 / 1e4);
        let expected: Vec<f64> = (0..steps)
            .map(|s| match s {
                0..=5 => cos(first, max, s as f64 / 5.0),
                _ => cos(max, last, (s as f64 - 5.0) / 14.0),
            })
            .collect();
        assert_close(&rates(OneCycle::new(max, steps), steps), &expected);
        assert_eq!(rates(OneCycle::new(max, steps), 40)[39], last);
        assert!(rates(OneCycle::new(max, 1), 3).iter().all(|lr| lr.is_finite()));
        assert!(rates(OneCycle { pct_start: 1.0, ..OneCycle::new(max, 9) }, 12)[8] == last);
    }

    #[test]
    fn step_multiplies_every_n_updates() {
        let schedule = Step::new(1.0, 2).factor(0.5);
        assert_close(&rates(schedule, 6), &[1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
    }

    #[test]
    fn plateau_waits_then_reduces_down_to_its_floor() {
        let schedule = Schedule::from(Plateau::new(1.0).factor(0.5).patience(1).min_lr(0.3));
        let mut progress = Progress::default();
        let mut seen = Vec::new();
        for metric in [3.0, 2.0, 2.0, f64::NAN, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0] {
            schedule.observe(&mut progress, metric);
            seen.push(schedule.at(0, &progress));
        }
        assert_eq!(seen, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]);
        let json = serde_json::to_string(&progress).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&json).unwrap(), progress);
    }

    #[test]
    fn a_number_in_json_is_a_constant() {
        let read = |json: &str| serde_json::from_str::<Schedule>(json);
        assert_eq!(read("0.1").unwrap(), 0.1.into());
        assert_eq!(read("1").unwrap(), 1.0.into());
        let one_cycle = read(r#"{"kind": "one_cycle", "max_lr": 0.1, "steps": 20}"#).unwrap();
        assert_eq!(one_cycle, OneCycle::new(0.1, 20).into());
        let json = serde_json::to_string(&one_cycle).unwrap();
        assert_eq!(read(&json).unwrap(), one_cycle);
        for wrong in [r#""fast""#, r#"{"kind": "cosine", "lr": 1}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let unknown = read(r#"{"kind": "constant", "lr": 1, "warmup": 3}"#).unwrap_err();
        assert!(unknown.to_string().contains("warmup"), "{unknown}");
    }

    #[test]
    fn what_is_no_schedule_is_refused_by_name() {
        let wrong: [(Schedule, &str); 9] = [
            ((-1e-3).into(), "lr"),
            (f64::NAN.into(), "lr"),
            (Cosine::new(1.0, 0).into(), "steps"),
            (Cosine::new(1.0, 5).warmup(6).into(), "warmup"),
            (Cosine::new(1.0, 5).final_factor(-1.0).into(), "final_factor"),
            (OneCycle { pct_start: 1.5, ..OneCycle::new(1.0, 5) }.into(), "pct_start"),
            (Step::new(1.0, 0).into(), "every"),
            (Step::new(1.0, 1).factor(0.0).into(), "factor"),
            (Plateau::new(1.0).min_lr(f64::INFINITY).into(), "min_lr"),
        ];
        for (schedule, name) in wrong {
            let message = schedule.check().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{name}: ")), "{message}");
        }
    }
}
