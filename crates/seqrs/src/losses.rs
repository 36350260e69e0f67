//! How far a model's outputs are from the targets, and the gradient of that.
//!
//! ```text
//! CrossEntropy         L<t> = -y<t> log y^<t>                y^<t> = softmax(x), y<t> one-hot:
//!                      -log softmax(x)[class]                a target class each
//! BinaryCrossEntropy   max(x, 0) - x y + log(1 + e^-|x|)     x a logit, y in [0, 1]
//! Mse                  (x - y)^2
//! Mae                  |x - y|                               gradient 0 at x = y
//! Huber                d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2);  d = x - y
//! ```
//!
//! Outputs are packed: what is not live is not there. [`Reduction::Mean`] divides by the
//! number of outputs for [`CrossEntropy`], and by the numbers in them for the others;
//! [`Reduction::Sum`] adds up over all steps and rows. Definitions and results are those of
//! PyTorch's functions of the same names.
//!
//! Sums are made in `f64`, piece by piece in a fixed order, so they do not depend on the
//! number of threads.
//!
//! ```
//! use seqrs::losses::{Loss, Mse};
//! use seqrs::low_level::{Cpu, Packed};
//!
//! let loss = Loss::from(Mse::mean());
//! let (x, y) = ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 6.0]);
//! let (value, d_x) = loss.value_and_gradient(&Cpu::new()?, &x, 2, Packed::Numbers(&y))?;
//! assert_eq!((value, d_x), (1.0, vec![0.0, 0.0, 0.0, -1.0]));
//! # Ok::<(), seqrs::Error>(())
//! ```

use std::ops::Range;

use num_traits::Float;
use seqrs_core::{Error, memory};
use seqrs_cpu::Cpu;
use serde::{Deserialize, Serialize};

use crate::number::Number;
use crate::optimizers::finite_above_0;
use crate::room::room;
use crate::spread::{PIECE, spread};
use crate::targets::{Packed, class_range};

/// What becomes of the losses of all outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// A loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Loss {
    /// For one class out of several.
    CrossEntropy(CrossEntropy),
    /// For several yes or no at once.
    BinaryCrossEntropy(BinaryCrossEntropy),
    /// Mean squared error.
    Mse(Mse),
    /// Mean absolute error.
    Mae(Mae),
    /// Squared near the target, absolute far from it.
    Huber(Huber),
}

macro_rules! losses {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $value:expr)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Mean or sum.
            pub reduction: Reduction,
            $($(#[$field_doc])* pub $field: $type,)?
        }

        impl $name {
            /// With [`Reduction::Mean`].
            pub fn mean() -> Self {
                Self { reduction: Reduction::Mean, $($field: $value)? }
            }

            /// With [`Reduction::Sum`].
            pub fn sum() -> Self {
                Self { reduction: Reduction::Sum, $($field: $value)? }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::mean()
            }
        }

        impl From<$name> for Loss {
            fn from(loss: $name) -> Self {
                Self::$name(loss)
            }
        }
    )*};
}

losses! {
    /// The negative log-likelihood of the target class under the softmax of the outputs.
    /// Targets are classes in `0..width`.
    CrossEntropy {}
    /// The negative log-likelihood of each target in [0, 1] under the sigmoid of its output.
    BinaryCrossEntropy {}
    /// The squared difference.
    Mse {}
    /// The absolute difference.
    Mae {}
    /// Half the squared difference up to `delta`, then linear (Huber 1964).
    Huber {
        /// Where the square ends.
        delta: f64 = 1.0
    }
}

impl Huber {
    /// With another place where the square ends.
    #[must_use]
    pub fn delta(self, delta: f64) -> Self {
        Self { delta, ..self }
    }
}

impl Loss {
    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Option`] names the one that is at fault.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Huber(huber) => finite_above_0("delta", huber.delta),
            _ => Ok(()),
        }
    }

    /// Mean or sum.
    pub fn reduction(&self) -> Reduction {
        match self {
            Self::CrossEntropy(loss) => loss.reduction,
            Self::BinaryCrossEntropy(loss) => loss.reduction,
            Self::Mse(loss) => loss.reduction,
            Self::Mae(loss) => loss.reduction,
            Self::Huber(loss) => loss.reduction,
        }
    }

    /// Whether targets are classes, not numbers.
    pub fn wants_classes(&self) -> bool {
        matches!(self, Self::CrossEntropy(_))
    }

    /// The loss of `output`, packed rows of `width` numbers; 0 if there are none.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, a class is not in `0..width`, or a target of
    /// [`BinaryCrossEntropy`] is not in [0, 1];
    /// [`Error::DType`] if the loss takes the other kind of targets; [`Error::OutOfMemory`],
    /// [`Error::Interrupted`].
    pub fn value<T: Number>(
        &self,
        cpu: &Cpu<T>,
        output: &[T],
        width: usize,
        target: Packed<'_, T>,
    ) -> Result<f64, Error> {
        let terms = self.check_sizes(output, width, target)?;
        let total = self.run(cpu, output, width, target, None)?;
        Ok(self.reduce(total, terms))
    }

    /// The loss of `output`, packed rows of `width` numbers, and its gradient there.
    ///
    /// # Errors
    /// As [`Loss::value`].
    pub fn value_and_gradient<T: Number>(
        &self,
        cpu: &Cpu<T>,
        output: &[T],
        width: usize,
        target: Packed<'_, T>,
    ) -> Result<(f64, Vec<T>), Error> {
        let (total, gradient) = self.total_and_gradient(cpu, output, width, target)?;
        Ok((self.reduce(total, self.terms(output.len(), width)), gradient))
    }

    /// The sum over all outputs, whatever the reduction, and the gradient of the loss.
    pub(crate) fn total_and_gradient<T: Number>(
        &self,
        cpu: &Cpu<T>,
        output: &[T],
        width: usize,
        target: Packed<'_, T>,
    ) -> Result<(f64, Vec<T>), Error> {
        let terms = self.check_sizes(output, width, target)?;
        let scale = self.scale(terms);
        let mut gradient = memory::zeros("gradient of the loss", output.len())?;
        let total = self.run(cpu, output, width, target, Some((&mut gradient, scale)))?;
        Ok((total, gradient))
    }

    /// What a mean over `numbers` numbers in rows of `width` divides by.
    pub(crate) fn terms(&self, numbers: usize, width: usize) -> usize {
        if self.wants_classes() { numbers / width } else { numbers }
    }

    /// What the gradient of each of so many terms is multiplied with.
    pub(crate) fn scale(&self, terms: usize) -> f64 {
        match self.reduction() {
            Reduction::Mean => 1.0 / terms as f64,
            Reduction::Sum => 1.0,
        }
    }

    /// A sum over `terms` terms, reduced.
    pub(crate) fn reduce(&self, total: f64, terms: usize) -> f64 {
        match self.reduction() {
            Reduction::Mean if terms > 0 => total / terms as f64,
            _ => total,
        }
    }

    /// Whether targets of this kind go with the loss.
    ///
    /// # Errors
    /// [`Error::DType`].
    pub(crate) fn check_kind(&self, classes: bool) -> Result<(), Error> {
        match (self.wants_classes(), classes) {
            (true, false) => Err(Error::dtype("target", "integers (a class each)", "numbers")),
            (false, true) => Err(Error::dtype("target", "numbers, as the outputs", "integers")),
            _ => Ok(()),
        }
    }

    /// Gives the number of terms.
    fn check_sizes<T: Number>(
        &self,
        output: &[T],
        width: usize,
        target: Packed<'_, T>,
    ) -> Result<usize, Error> {
        if width == 0 || !output.len().is_multiple_of(width) {
            let expected = format!("rows of {width} numbers (at least 1)");
            return Err(Error::shape("output", expected, format!("{} numbers", output.len())));
        }
        self.check_kind(matches!(target, Packed::Ids(_)))?;
        let items = output.len() / width;
        let (expected, got) = match target {
            Packed::Ids(ids) => (items, ids.len()),
            Packed::Numbers(numbers) => (output.len(), numbers.len()),
        };
        if expected != got {
            return Err(Error::shape("target", format!("{expected} numbers, as the output"), got));
        }
        self.check_range(width, target)?;
        Ok(self.terms(output.len(), width))
    }

    /// Whether the targets are where this loss has them.
    ///
    /// # Errors
    /// [`Error::Shape`] for a class that is not in `0..width`, and for a target of
    /// [`BinaryCrossEntropy`] that is not in [0, 1].
    pub(crate) fn check_range<T: Number>(
        &self,
        width: usize,
        target: Packed<'_, T>,
    ) -> Result<(), Error> {
        match (self, target) {
            (_, Packed::Ids(ids)) => {
                let outside = |id: &i64| usize::try_from(*id).map_or(true, |id| id >= width);
                if let Some(k) = ids.iter().position(outside) {
                    return Err(Error::shape(format!("target[{k}]"), class_range(width), ids[k]));
                }
            }
            // Beyond, the loss has no smallest value and training would run away.
            (Self::BinaryCrossEntropy(_), Packed::Numbers(numbers)) => {
                let unit = T::from_f64(0.0)..=T::from_f64(1.0);
                if let Some(y) = numbers.iter().find(|y| !unit.contains(y)) {
                    return Err(Error::shape("target", "numbers in [0, 1]", Number::to_f64(*y)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The sum over all outputs; writes the gradient, times the factor with it.
    fn run<T: Number>(
        &self,
        cpu: &Cpu<T>,
        x: &[T],
        width: usize,
        target: Packed<'_, T>,
        gradient: Gradient<'_, T>,
    ) -> Result<f64, Error> {
        match (*self, target) {
            (Self::CrossEntropy(_), Packed::Ids(classes)) => {
                in_pieces(cpu, x, width, gradient, |items, x, gradient| {
                    cross_entropy(x, width, &classes[items], gradient)
                })
            }
            (Self::BinaryCrossEntropy(_), Packed::Numbers(y)) => {
                pointwise(cpu, x, y, gradient, binary_cross_entropy)
            }
            (Self::Mse(_), Packed::Numbers(y)) => {
                pointwise(cpu, x, y, gradient, |x, y| ((x - y) * (x - y), 2.0 * (x - y)))
            }
            (Self::Mae(_), Packed::Numbers(y)) => {
                pointwise(cpu, x, y, gradient, |x, y| ((x - y).abs(), sign(x - y)))
            }
            (Self::Huber(Huber { delta, .. }), Packed::Numbers(y)) => {
                pointwise(cpu, x, y, gradient, move |x, y| huber(x - y, delta))
            }
            _ => unreachable!("check_kind has refused these targets"),
        }
    }
}

/// The loss at logit x and target y, and its derivative at x.
fn binary_cross_entropy(x: f64, y: f64) -> (f64, f64) {
    // e^-|x| is in (0, 1], so nothing overflows.
    let e = (-x.abs()).exp();
    let sigmoid = if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) };
    // Not f64::max, which would lose a NaN.
    let positive = if x < 0.0 { 0.0 } else { x };
    (positive - x * y + e.ln_1p(), sigmoid - y)
}

fn huber(d: f64, delta: f64) -> (f64, f64) {
    match d.abs() <= delta {
        true => (0.5 * d * d, d),
        false => (delta * (d.abs() - 0.5 * delta), delta * sign(d)),
    }
}

/// -1, 0 or 1; NaN stays NaN.
fn sign(d: f64) -> f64 {
    if d == 0.0 { 0.0 } else { d.signum() }
}

/// Sums `term(x, y).0` and writes `term(x, y).1` times the factor.
fn pointwise<T: Number>(
    cpu: &Cpu<T>,
    x: &[T],
    y: &[T],
    gradient: Gradient<'_, T>,
    term: impl Fn(f64, f64) -> (f64, f64) + Sync,
) -> Result<f64, Error> {
    in_pieces(cpu, x, 1, gradient, |items, x, gradient| {
        let y = &y[items];
        Ok(match gradient {
            None => x.iter().zip(y).map(|(&x, &y)| term(x.to_f64(), y.to_f64()).0).sum(),
            Some((gradient, scale)) => {
                let mut sum = 0.0;
                for ((&x, &y), g) in x.iter().zip(y).zip(gradient) {
                    let (value, derivative) = term(x.to_f64(), y.to_f64());
                    sum += value;
                    *g = T::from_f64(derivative * scale);
                }
                sum
            }
        })
    })
}

/// The sum over some rows.
///
/// With m the largest number of a row, e_j = exp(x_j - m), r the sum of e_j over all j but
/// the class y, and s = r + e_y, the loss is log s - (x_y - m) and the gradient e_j / s, but
/// -r / s at the class. As r is a sum of its own, a loss and a gradient that are nearly zero
/// keep all their digits.
fn cross_entropy<T: Number>(
    x: &[T],
    width: usize,
    classes: &[i64],
    gradient: Gradient<'_, T>,
) -> Result<f64, Error> {
    let (mut gradient, scale) = match gradient {
        None => (None, 0.0),
        Some((gradient, scale)) => (Some(gradient), scale),
    };
    let mut exponentials = memory::zeros::<T>("exponentials of a row", width)?;
    let mut total = 0.0;
    for (item, (x, &class)) in x.chunks_exact(width).zip(classes).enumerate() {
        let class = class as usize;
        let m = x.iter().copied().fold(T::neg_infinity(), |m, x| if x > m { x } else { m });
        let mut sum_of = |range: Range<usize>| {
            exponentials[range.clone()].iter_mut().zip(&x[range]).fold(0.0, |sum, (e, &x)| {
                *e = Float::exp(x - m);
                sum + e.to_f64()
            })
        };
        let r = sum_of(0..class) + sum_of(class + 1..width);
        let e_y = sum_of(class..class + 1);
        let s = r + e_y;
        let log_s = if e_y == 1.0 { r.ln_1p() } else { s.ln() };
        total += log_s - (x[class] - m).to_f64();
        if let Some(gradient) = &mut gradient {
            let row = &mut gradient[item * width..][..width];
            let factor = scale / s;
            for (g, &e) in row.iter_mut().zip(&exponentials) {
                *g = T::from_f64(e.to_f64() * factor);
            }
            row[class] = T::from_f64(-r * factor);
        }
    }
    Ok(total)
}

/// Where to write the gradient of a run of rows, and what to multiply it with.
type Gradient<'a, T> = Option<(&'a mut [T], f64)>;

/// The sums that `work` gives for pieces of whole rows, added up in order.
fn in_pieces<T: Number>(
    cpu: &Cpu<T>,
    x: &[T],
    width: usize,
    gradient: Gradient<'_, T>,
    work: impl Fn(Range<usize>, &[T], Gradient<'_, T>) -> Result<f64, Error> + Sync,
) -> Result<f64, Error> {
    let rows = (PIECE / width).max(1);
    let mut sums = memory::zeros("sums of the loss", (x.len() / width).div_ceil(rows))?;
    let (gradient, scale) = match gradient {
        None => (None, 0.0),
        Some((gradient, scale)) => (Some(gradient), scale),
    };
    let mut gradients = gradient.map(|gradient| gradient.chunks_mut(rows * width));
    let mut pieces = room("pieces of the loss", sums.len())?;
    pieces.extend(x.chunks(rows * width).zip(&mut sums).enumerate().map(|(k, (x, sum))| {
        let gradient = gradients.as_mut().and_then(Iterator::next).map(|g| (g, scale));
        (k * rows..k * rows + x.len() / width, x, gradient, sum)
    }));
    spread(pieces, x.len(), cpu.threads(), |(items, x, gradient, sum)| {
        **sum = work(items.clone(), x, gradient.take())?;
        Ok(())
    })?;
    Ok(sums.iter().fold(0.0, |total, sum| total + sum))
}

#[cfg(test)]
mod tests {
    use seqrs_cpu::level::Level;

    use super::*;
    use crate::random::Stream;

    const ALL: [(Loss, &str); 5] = [
        (Loss::CrossEntropy(CrossEntropy { reduction: Reduction::Mean }), "cross_entropy"),
        (
            Loss::BinaryCrossEntropy(BinaryCrossEntropy { reduction: Reduction::Mean }),
            "binary_cross_entropy",
        ),
        (Loss::Mse(Mse { reduction: Reduction::Mean }), "mse"),
        (Loss::Mae(Mae { reduction: Reduction::Mean }), "mae"),
        (Loss::Huber(Huber { reduction: Reduction::Mean, delta: 1.0 }), "huber"),
    ];

    fn cpu<T: Number>(threads: usize) -> Cpu<T> {
        Cpu::with(Level::detect(), threads)
    }

    fn draw<T: Number>(seed: u64, len: usize) -> Vec<T> {
        let mut stream = Stream::new(seed, 0);
        (0..len).map(|_| T::from_f64(2.0 * stream.normal())).collect()
    }

    /// Targets that every loss takes.
    fn shares<T: Number>(len: usize) -> Vec<T> {
        let mut stream = Stream::new(2, 0);
        (0..len).map(|_| T::from_f64(stream.uniform())).collect()
    }

    fn classes(len: usize, width: usize) -> Vec<i64> {
        let mut stream = Stream::new(3, 1);
        (0..len).map(|_| stream.below(width as u64) as i64).collect()
    }

    fn target<'a, T>(loss: &Loss, classes: &'a [i64], numbers: &'a [T]) -> Packed<'a, T> {
        if loss.wants_classes() { Packed::Ids(classes) } else { Packed::Numbers(numbers) }
    }

    #[test]
    fn values_are_the_definitions() {
        let (width, x, y) = (3, draw::<f64>(1, 12), shares::<f64>(12));
        let ids = classes(4, width);
        let pairs = || x.iter().zip(&y).map(|(&x, &y)| (x, y));
        for (loss, name) in ALL {
            let expected: f64 = match name {
                "cross_entropy" => (0..4)
                    .map(|k| {
                        let row = &x[k * width..][..width];
                        let sum: f64 = row.iter().map(|x| x.exp()).sum();
                        -(row[ids[k] as usize].exp() / sum).ln() / 4.0
                    })
                    .sum(),
                "binary_cross_entropy" => pairs()
                    .map(|(x, y)| {
                        let p = 1.0 / (1.0 + (-x).exp());
                        -(y * p.ln() + (1.0 - y) * (1.0 - p).ln()) / 12.0
                    })
                    .sum(),
                "mse" => pairs().map(|(x, y)| (x - y).powi(2) / 12.0).sum(),
                "mae" => pairs().map(|(x, y)| (x - y).abs() / 12.0).sum(),
                _ => pairs()
                    .map(|(x, y)| match (x - y).abs() {
                        d if d <= 1.0 => d * d / 2.0 / 12.0,
                        d => (d - 0.5) / 12.0,
                    })
                    .sum(),
            };
            let value = loss.value(&cpu(1), &x, width, target(&loss, &ids, &y)).unwrap();
            assert!((value - expected).abs() < 1e-13, "{name}: {value} {expected}");
        }
    }

    #[test]
    fn gradients_are_the_derivatives() {
        let (width, step) = (3, 1e-6);
        let (x, y) = (draw::<f64>(1, 12), shares::<f64>(12));
        let ids = classes(4, width);
        let sums = [CrossEntropy::sum().into(), Huber::sum().delta(0.3).into()];
        for loss in ALL.into_iter().map(|(loss, _)| loss).chain(sums) {
            let y = target(&loss, &ids, &y);
            let (value, gradient) = loss.value_and_gradient(&cpu(1), &x, width, y).unwrap();
            assert_eq!(value, loss.value(&cpu(1), &x, width, y).unwrap());
            for (k, d) in gradient.iter().enumerate() {
                let at = |by: f64| {
                    let mut x = x.clone();
                    x[k] += by;
                    loss.value(&cpu(1), &x, width, y).unwrap()
                };
                let difference = (at(step) - at(-step)) / (2.0 * step);
                assert!((d - difference).abs() < 1e-8, "{loss:?}: {d} {difference}");
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (rows, width) = (3001, 17);
        let (x, y) = (draw::<f32>(1, rows * width), shares::<f32>(rows * width));
        let ids = classes(rows, width);
        for (loss, name) in ALL {
            let run = |threads| {
                let y = target(&loss, &ids, &y);
                loss.value_and_gradient(&cpu(threads), &x, width, y).unwrap()
            };
            let one = run(1);
            for threads in [2, 3, 7] {
                assert_eq!(run(threads), one, "{name} on {threads} threads");
            }
        }
    }

    #[test]
    fn extreme_logits_are_exact() {
        let run =
            |loss: Loss, x: &[f32], y| loss.value_and_gradient(&cpu(1), x, x.len(), y).unwrap();
        let (value, gradient) =
            run(CrossEntropy::mean().into(), &[1e30, -1e30, f32::NEG_INFINITY], Packed::Ids(&[0]));
        assert_eq!((value, gradient), (0.0, vec![0.0; 3]));
        // The right class is the likeliest by far: what is nearly zero keeps its digits.
        let (value, gradient) = run(CrossEntropy::sum().into(), &[60.0, 0.0], Packed::Ids(&[0]));
        let e = (-60.0_f32).exp();
        assert_eq!((value, gradient), (f64::from(e), vec![-e, e]));
        let (value, gradient) =
            run(BinaryCrossEntropy::sum().into(), &[1e30, -1e30], Packed::Numbers(&[1.0, 0.0]));
        assert_eq!((value, gradient), (0.0, vec![0.0; 2]));
        let (value, gradient) = run(Mae::sum().into(), &[2.0, 1.0], Packed::Numbers(&[2.0, 3.0]));
        assert_eq!((value, gradient), (2.0, vec![0.0, -1.0]));
    }

    #[test]
    fn what_is_not_a_number_stays_one() {
        let x = [0.0, f64::NAN, 1.0];
        for (loss, name) in ALL {
            let y = target(&loss, &[2], &[0.0; 3]);
            let (value, gradient) = loss.value_and_gradient(&cpu(1), &x, 3, y).unwrap();
            assert!(value.is_nan() && gradient[1].is_nan(), "{name}");
        }
    }

    #[test]
    fn nothing_has_no_loss() {
        for (loss, _) in ALL {
            let y = target::<f32>(&loss, &[], &[]);
            assert_eq!(loss.value_and_gradient(&cpu(1), &[], 3, y), Ok((0.0, vec![])));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let error = |loss: Loss, y| loss.value(&cpu::<f32>(1), &[0.0; 6], 3, y).unwrap_err();
        let loss = Loss::from(CrossEntropy::mean());
        assert_eq!(
            error(loss, Packed::Ids(&[0, 3])).to_string(),
            "target[1]: expected a class in 0..3, got 3"
        );
        assert!(matches!(error(loss, Packed::Ids(&[0])), Error::Shape { .. }));
        assert!(matches!(error(loss, Packed::Numbers(&[0.0; 6])), Error::DType { .. }));
        assert!(matches!(error(Mse::mean().into(), Packed::Ids(&[0, 1])), Error::DType { .. }));
        for outside in [-0.1, 1.1, f32::NAN] {
            let target = [0.0, 1.0, 0.5, outside, 0.0, 1.0];
            let loss = Loss::from(BinaryCrossEntropy::mean());
            let refused = loss.value(&cpu(1), &[0.0; 6], 3, Packed::Numbers(&target));
            assert!(
                refused
                    .unwrap_err()
                    .to_string()
                    .starts_with("target: expected numbers in [0, 1], got ")
            );
        }
        assert!(Loss::from(Huber::mean().delta(0.0)).check().is_err());
    }

    #[test]
    fn json_is_closed_and_has_defaults() {
        let read = |json: &str| serde_json::from_str::<Loss>(json);
        for (loss, name) in ALL {
            assert_eq!(read(&format!(r#"{{"kind": "{name}"}}"#)).unwrap(), loss);
            assert_eq!(read(&serde_json::to_string(&loss).unwrap()).unwrap(), loss);
        }
        let sum = read(r#"{"kind": "mse", "reduction": "sum"}"#).unwrap();
        assert_eq!(sum, Mse::sum().into());
        assert!(read(r#"{"kind": "mse", "delta": 1.0}"#).is_err());
        assert!(read(r#"{"kind": "hinge"}"#).is_err());
    }
}
