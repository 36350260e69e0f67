//! Layer normalisation (Ba et al. 2016), for every row of F numbers:
//!
//! ```text
//! x^ = (x - mean x) / sqrt(mean (x - mean x)^2 + eps)      y = weight * x^ + bias
//! ```
//! and back, with s the inverse of the root:
//! ```text
//! d_x^ = weight * d_y      d_x = s (d_x^ - mean d_x^ - x^ mean (d_x^ x^))
//! d_weight = sum of x^ d_y over rows                  d_bias = sum of d_y
//! ```

use num_traits::Float;
use seqrs_core::{Error, memory};
use seqrs_cpu::Cpu;
use seqrs_cpu::lanes::Simd;
use seqrs_cpu::level::Kernel;
use serde::{Deserialize, Serialize};

use super::by_rows::{by_rows, dot, sum};
use crate::layer::{Layer, LayerSpec, NamedParameter, check_count};
use crate::number::Number;
use crate::parameters::Parameters;

/// What describes a layer normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNorm {
    /// Numbers in a row, F.
    pub size: usize,
    /// What is added to the variance, above 0.
    pub eps: f64,
}

impl LayerNorm {
    /// Rows of `size` numbers, `eps` 1e-5.
    pub fn new(size: usize) -> Self {
        Self { size, eps: 1e-5 }
    }

    /// What is added to the variance, above 0.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// The layer: weight 1, bias 0.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::Option`] name what describes no layer;
    /// [`Error::OutOfMemory`].
    pub fn build<T: Number>(self) -> Result<Layer<T>, Error> {
        Layer::new(LayerSpec::LayerNorm(self))
    }

    pub(crate) fn count(&self) -> Result<usize, Error> {
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(Error::option("eps", "a finite number above 0", self.eps));
        }
        check_count([("size", self.size), ("size", 2)], 0)
    }

    pub(crate) fn parameters(&self) -> Vec<NamedParameter> {
        NamedParameter::list(&[("weight", &[self.size]), ("bias", &[self.size])])
    }
}

/// A layer normalisation with its parameters.
#[derive(Clone, Debug)]
pub struct LayerNormLayer<T> {
    pub(crate) options: LayerNorm,
    pub(crate) parameters: Parameters<T, ()>,
}

/// What backward needs.
#[derive(Debug)]
pub(crate) struct Normal<T> {
    /// x^, (rows, F).
    pub(crate) x: Vec<T>,
    /// 1 / sqrt(variance + eps), (rows).
    pub(crate) inverse: Vec<T>,
}

impl<T: Number> LayerNormLayer<T> {
    pub(crate) fn new(options: LayerNorm) -> Result<Self, Error> {
        let mut numbers = memory::zeros("parameters", options.count()?)?;
        numbers[..options.size].fill(num_traits::one());
        Ok(Self { options, parameters: Parameters::new(numbers) })
    }

    /// What describes it.
    pub fn options(&self) -> &LayerNorm {
        &self.options
    }

    /// y in place of x.
    pub(crate) fn infer(&self, cpu: &Cpu<T>, x: &mut [T]) -> Result<(), Error> {
        let size = self.options.size;
        by_rows(cpu, x.len() / size, size, [(x, size)], |_, [y]| {
            cpu.level().dispatch(Normalise { layer: self, y, kept: None });
        })
    }

    /// y, and what backward needs.
    pub(crate) fn record(&self, cpu: &Cpu<T>, x: &[T]) -> Result<(Vec<T>, Normal<T>), Error> {
        let size = self.options.size;
        let rows = x.len() / size;
        let mut y = memory::zeros("output of a layer normalisation", x.len())?;
        let mut kept = Normal {
            x: memory::zeros("tape of a layer normalisation", x.len())?,
            inverse: memory::zeros("tape of a layer normalisation", rows)?,
        };
        let outputs = [(&mut y[..], size), (&mut kept.x, size), (&mut kept.inverse, 1)];
        by_rows(cpu, rows, size, outputs, |run, [y, normal, inverse]| {
            y.copy_from_slice(&x[run.start * size..run.end * size]);
            let kept = Some((normal, inverse));
            cpu.level().dispatch(Normalise { layer: self, y, kept });
        })?;
        Ok((y, kept))
    }

    /// d_x in place of d_y; adds to the gradients of the parameters.
    pub(crate) fn backward(
        &self,
        cpu: &Cpu<T>,
        kept: &Normal<T>,
        d_y: &mut [T],
        d_numbers: &mut [T],
    ) -> Result<(), Error> {
        let size = self.options.size;
        let rows = kept.inverse.len();
        let (d_weight, d_bias) = d_numbers.split_at_mut(size);
        // Shared by columns: the sum of each runs over all rows in their order.
        by_rows(cpu, size, rows, [(d_weight, 1), (d_bias, 1)], |columns, [d_weight, d_bias]| {
            let sums = Sums { x: &kept.x, d_y, size, first: columns.start, d_weight, d_bias };
            cpu.level().dispatch(sums);
        })?;
        by_rows(cpu, rows, size, [(d_y, size)], |run, [d]| {
            let x = &kept.x[run.start * size..run.end * size];
            let inverse = &kept.inverse[run];
            let weight = &self.parameters.numbers()[..size];
            cpu.level().dispatch(Back { weight, x, inverse, d });
        })
    }
}

struct Normalise<'a, T> {
    layer: &'a LayerNormLayer<T>,
    /// x, then y.
    y: &'a mut [T],
    /// Where to keep x^ and the inverse of the deviation.
    kept: Option<(&'a mut [T], &'a mut [T])>,
}

impl<T: Number> Kernel<T> for Normalise<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let size = self.layer.options.size;
        let (weight, bias) = self.layer.parameters.numbers().split_at(size);
        let (count, eps) = (T::from_f64(size as f64), T::from_f64(self.layer.options.eps));
        let mut kept = self.kept;
        for (row, y) in self.y.chunks_exact_mut(size).enumerate() {
            let mean = sum(y) / count;
            for y in y.iter_mut() {
                *y -= mean;
            }
            let variance = dot(y, y) / count;
            let inverse = num_traits::one::<T>() / Float::sqrt(variance + eps);
            for y in y.iter_mut() {
                *y *= inverse;
            }
            if let Some((normal, inverses)) = &mut kept {
                normal[row * size..][..size].copy_from_slice(y);
                inverses[row] = inverse;
            }
            for ((y, &weight), &bias) in y.iter_mut().zip(weight).zip(bias) {
                *y = *y * weight + bias;
            }
        }
    }
}

/// The gradients of the parameters: sums over rows, for a run of columns.
struct Sums<'a, T> {
    /// x^ of the way forward.
    x: &'a [T],
    d_y: &'a [T],
    size: usize,
    /// The first column of the run.
    first: usize,
    d_weight: &'a mut [T],
    d_bias: &'a mut [T],
}

impl<T: Number> Kernel<T> for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let count = self.d_weight.len();
        for (x, d) in self.x.chunks_exact(self.size).zip(self.d_y.chunks_exact(self.size)) {
            let (x, d) = (&x[self.first..][..count], &d[self.first..][..count]);
            for k in 0..count {
                self.d_weight[k] += x[k] * d[k];
                self.d_bias[k] += d[k];
            }
        }
    }
}

/// The gradient of the input.
struct Back<'a, T> {
    weight: &'a [T],
    /// x^ of the way forward.
    x: &'a [T],
    inverse: &'a [T],
    /// d_y, then d_x.
    d: &'a mut [T],
}

impl<T: Number> Kernel<T> for Back<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let size = self.weight.len();
        let count = T::from_f64(size as f64);
        let rows = self.x.chunks_exact(size).zip(self.d.chunks_exact_mut(size));
        for ((x, d), &inverse) in rows.zip(self.inverse) {
            for (d, &weight) in d.iter_mut().zip(self.weight) {
                *d *= weight;
            }
            let (mean, along) = (sum(d) / count, dot(d, x) / count);
            for (d, &x) in d.iter_mut().zip(x) {
                *d = inverse * (*d - mean - x * along);
            }
        }
    }
}
