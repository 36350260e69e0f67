//! Gradients that are too large, made smaller.
//!
//! ```text
//! norm    g <- g clip_norm / |g|   where |g| > clip_norm      (Pascanu et al. 2013)
//! value   g <- min(max(g, -clip_value), clip_value)
//! ```
//!
//! |g| is the Euclidean norm of all parameters' gradients together, summed in `f64` in a
//! fixed order. Nothing is added to it, so what was scaled has the norm asked for, to the
//! last rounding.

use seqrs_core::{Error, memory};
use seqrs_cpu::Cpu;
use serde::{Deserialize, Serialize};

use crate::number::Number;
use crate::optimizers::finite_above_0;
use crate::room::room;
use crate::spread::{PIECE, spread};

/// How gradients are clipped: by norm, then by value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clipping {
    /// The largest norm; none leaves the norm as it is.
    pub norm: Option<f64>,
    /// The largest absolute value of an element; none leaves them as they are.
    pub value: Option<f64>,
}

impl Clipping {
    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Option`] names the one that is not a finite number above 0.
    pub fn check(&self) -> Result<(), Error> {
        self.norm.map_or(Ok(()), |norm| finite_above_0("clip_norm", norm))?;
        self.value.map_or(Ok(()), |value| finite_above_0("clip_value", value))
    }

    /// Clips `gradients`, whose norm is `norm`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Interrupted`]; some gradients are clipped then and
    /// some are not.
    pub fn apply<T: Number>(
        &self,
        cpu: &Cpu<T>,
        gradients: &mut [Vec<T>],
        norm: f64,
    ) -> Result<(), Error> {
        let factor = self.norm.filter(|&most| norm > most).map(|most| most / norm);
        if factor.is_none() && self.value.is_none() {
            return Ok(());
        }
        let (factor, most) = (factor.unwrap_or(1.0), self.value.unwrap_or(f64::INFINITY));
        let numbers = gradients.iter().map(Vec::len).sum();
        let mut pieces = room("pieces of the gradient", pieces_of(gradients))?;
        pieces.extend(gradients.iter_mut().flat_map(|g| g.chunks_mut(PIECE)));
        spread(pieces, numbers, cpu.threads(), |piece| {
            for g in piece.iter_mut() {
                *g = T::from_f64((g.to_f64() * factor).clamp(-most, most));
            }
            Ok(())
        })
    }
}

/// The Euclidean norm of all gradients together. It is not finite only if a gradient is not,
/// or if it is itself too large for `f64`.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Interrupted`].
pub fn global_norm<T: Number>(cpu: &Cpu<T>, gradients: &[Vec<T>]) -> Result<f64, Error> {
    let squares = sum_of_squares(cpu, gradients, 1.0)?;
    // The squares of numbers that f64 can hold may be too large for it, or vanish.
    if squares.is_normal() || T::BYTES < size_of::<f64>() {
        return Ok(squares.sqrt());
    }
    let largest = gradients.iter().flatten().fold(0.0, |most: f64, &g| match g.to_f64().abs() {
        g if g > most || g.is_nan() => g,
        _ => most,
    });
    if !largest.is_normal() {
        return Ok(largest);
    }
    // A power of two: the products lose nothing.
    let unit = 2.0_f64.powi(-(largest.log2() as i32).clamp(-1000, 1000));
    Ok(sum_of_squares(cpu, gradients, unit)?.sqrt() / unit)
}

/// How many pieces the gradients are cut into.
pub(crate) fn pieces_of<T>(gradients: &[Vec<T>]) -> usize {
    gradients.iter().map(|g| g.len().div_ceil(PIECE)).sum()
}

/// The sum of the squares of g times `unit`.
fn sum_of_squares<T: Number>(cpu: &Cpu<T>, gradients: &[Vec<T>], unit: f64) -> Result<f64, Error> {
    /// So many sums are made side by side, as one alone would wait for each addition.
    const SUMS: usize = 8;
    let numbers = gradients.iter().map(Vec::len).sum();
    let count = pieces_of(gradients);
    let mut squares = memory::zeros::<f64>("squares of the gradient", count)?;
    let mut jobs = room("pieces of the gradient", count)?;
    jobs.extend(gradients.iter().flat_map(|g| g.chunks(PIECE)).zip(&mut squares));
    spread(jobs, numbers, cpu.threads(), |(piece, square)| {
        let mut sums = [0.0; SUMS];
        for run in piece.chunks(SUMS) {
            for (sum, &g) in sums.iter_mut().zip(run) {
                let g = g.to_f64() * unit;
                *sum += g * g;
            }
        }
        **square = sums.iter().sum();
        Ok(())
    })?;
    Ok(squares.iter().fold(0.0, |total, square| total + square))
}

#[cfg(test)]
mod tests {
    use seqrs_cpu::level::Level;

    use super::*;
    use crate::random::Stream;

    fn cpu<T: Number>(threads: usize) -> Cpu<T> {
        Cpu::with(Level::detect(), threads)
    }

    #[test]
    fn the_norm_is_that_of_all_parameters_together() {
        let gradients = vec![vec![3.0_f32], vec![], vec![0.0, -4.0]];
        assert_eq!(global_norm(&cpu(1), &gradients).unwrap(), 5.0);
        assert_eq!(global_norm(&cpu::<f32>(1), &[]).unwrap(), 0.0);
    }

    #[test]
    fn only_what_is_too_large_is_scaled() {
        let clip = |norm, value, mut gradients: Vec<Vec<f64>>| {
            let clipping = Clipping { norm, value };
            clipping.check().unwrap();
            let before = global_norm(&cpu(1), &gradients).unwrap();
            clipping.apply(&cpu(1), &mut gradients, before).unwrap();
            gradients
        };
        let gradients = || vec![vec![3.0], vec![-4.0]];
        assert_eq!(clip(Some(5.0), None, gradients()), gradients());
        assert_eq!(clip(Some(2.5), None, gradients()), [[1.5], [-2.0]]);
        assert_eq!(clip(None, Some(3.5), gradients()), [[3.0], [-3.5]]);
        assert_eq!(clip(Some(2.5), Some(1.75), gradients()), [[1.5], [-1.75]]);
        assert_eq!(clip(None, None, gradients()), gradients());
    }

    #[test]
    fn the_norm_of_the_largest_and_smallest_numbers_is_exact() {
        assert_eq!(global_norm(&cpu(1), &[vec![3e300, -4e300]]).unwrap(), 5e300);
        assert_eq!(global_norm(&cpu(1), &[vec![3e-200, 4e-200]]).unwrap(), 5e-200);
        assert_eq!(global_norm(&cpu(1), &[vec![3e30_f32], vec![4e30]]).unwrap() as f32, 5e30);
        assert!(global_norm(&cpu(1), &[vec![f64::NAN, 1e300, 1.0]]).unwrap().is_nan());
        assert_eq!(global_norm(&cpu(1), &[vec![f64::INFINITY, 1.0]]).unwrap(), f64::INFINITY);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let mut stream = Stream::new(1, 0);
        let mut draw = |len| (0..len).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
        let gradients = vec![draw(50_001), draw(3), draw(20_000)];
        let run = |threads| {
            let mut gradients = gradients.clone();
            let norm = global_norm(&cpu(threads), &gradients).unwrap();
            Clipping { norm: Some(1.0), value: Some(0.01) }
                .apply(&cpu(threads), &mut gradients, norm)
                .unwrap();
            (norm, gradients)
        };
        let one = run(1);
        assert!((2..5).all(|threads| run(threads) == one));
    }

    #[test]
    fn what_is_no_bound_is_refused_by_name() {
        let message = |norm, value| Clipping { norm, value }.check().unwrap_err().to_string();
        assert!(message(Some(0.0), None).starts_with("clip_norm: "));
        assert!(message(Some(1.0), Some(f64::NAN)).starts_with("clip_value: "));
    }
}
