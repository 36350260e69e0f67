//! A library with a case before it, and what it gives.

use crate::case::Device;
use crate::problem::Problem;

/// What went wrong in one of the libraries.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Arrays by name, rows of the batch first: `y`, the last `h` and `c`, and the gradients
/// `d_x`, `d_weight_ih`, `d_weight_hh`, `d_bias_ih`, `d_bias_hh`.
pub(crate) type Results = Vec<(&'static str, Vec<f64>)>;

/// A library that is ready to compute a case.
pub(crate) trait Contender {
    /// Computes. What it computed before is dropped; that is part of the time, as in a program
    /// that goes on.
    fn run(&mut self) -> Result<(), Failure>;

    /// What was computed last.
    fn results(&self) -> Result<Results, Failure>;
}

/// A library that is ready, or nothing if it has no such layer or does not train.
pub(crate) type Built = Result<Option<Box<dyn Contender>>, Failure>;

/// A library.
pub(crate) struct Library {
    pub(crate) name: &'static str,
    /// Whose cases it is timed at.
    pub(crate) device: Device,
    pub(crate) build: fn(&Problem) -> Built,
    /// What its results are compared with.
    pub(crate) reference: &'static str,
    /// Largest difference, of the largest value in the array: outputs and states, gradients.
    pub(crate) tolerance: (f64, f64),
    /// How many times the reference's time it shall need at least, by the number of units.
    pub(crate) goal: Option<fn(usize) -> f64>,
}

/// Numbers of any type as f64.
pub(crate) fn widened<T: Copy + Into<f64>>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

/// The largest difference between two results, of the largest value in the array, or what is
/// too far apart.
pub(crate) fn compared(
    results: &Results,
    reference: &Results,
    (outputs, gradients): (f64, f64),
) -> Result<f64, Failure> {
    let mut worst = 0.0_f64;
    if results.is_empty() {
        return Err("no results".into());
    }
    for (name, values) in results {
        let Some((_, expected)) = reference.iter().find(|(n, _)| n == name) else {
            return Err(format!("{name}: not in the reference").into());
        };
        if values.len() != expected.len() {
            return Err(format!("{name}: {} numbers, not {}", values.len(), expected.len()).into());
        }
        let scale = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let pairs = values.iter().zip(expected);
        // A sum, so that what is not a number stays that.
        let most = pairs.fold(0.0, |most: f64, (a, b)| match (a - b).abs() {
            d if d <= most => most,
            d => d,
        });
        let difference = most / scale.max(f64::MIN_POSITIVE);
        let tolerance = if name.starts_with("d_") { gradients } else { outputs };
        if difference.is_nan() || difference > tolerance {
            let message = format!("{name}: {difference:.1e} apart, more than {tolerance:.0e}");
            return Err(message.into());
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}
