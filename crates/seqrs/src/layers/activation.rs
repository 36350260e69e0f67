//! Functions of each number, or of each row.

use seqrs_core::Error;
use seqrs_core::lanes::Lanes;
use seqrs_cpu::Cpu;
use seqrs_cpu::lanes::single::Single;
use seqrs_cpu::lanes::{Simd, math};
use seqrs_cpu::level::Kernel;
use serde::{Deserialize, Serialize};

use super::by_rows::{by_rows, dot, sum};
use crate::number::Number;

/// A layer without parameters that bends its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The hyperbolic tangent.
    Tanh,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// e^x, divided by its sum over the row.
    Softmax,
}

impl Activation {
    /// Its name: `tanh`, `relu`, `sigmoid` or `softmax`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
            Self::Softmax => "softmax",
        }
    }

    /// y in place of x, rows of `width`.
    pub(crate) fn forward<T: Number>(
        self,
        cpu: &Cpu<T>,
        x: &mut [T],
        width: usize,
    ) -> Result<(), Error> {
        by_rows(cpu, x.len() / width, 8 * width, [(x, width)], |_, [y]| {
            cpu.level().dispatch(Forward { function: self, y, width });
        })
    }

    /// d_x in place of d_y, from y, rows of `width`.
    pub(crate) fn backward<T: Number>(
        self,
        cpu: &Cpu<T>,
        y: &[T],
        d_y: &mut [T],
        width: usize,
    ) -> Result<(), Error> {
        by_rows(cpu, y.len() / width, width, [(d_y, width)], |run, [d]| {
            let y = &y[run.start * width..run.end * width];
            cpu.level().dispatch(Backward { function: self, y, d, width });
        })
    }
}

/// Works on single numbers, which the compiler turns into registers of the level: the
/// library's exponential has no branches. Without closures, which would not be compiled for
/// the level.
struct Forward<'a, T> {
    function: Activation,
    /// x, then y.
    y: &'a mut [T],
    width: usize,
}

impl<T: Number> Kernel<T> for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        match self.function {
            Activation::Tanh => {
                for y in self.y {
                    *y = Single(*y).tanh().0;
                }
            }
            Activation::Relu => {
                for y in self.y {
                    *y = Single(*y).relu().0;
                }
            }
            Activation::Sigmoid => {
                for y in self.y {
                    *y = Single(*y).sigmoid().0;
                }
            }
            Activation::Softmax => {
                for y in self.y.chunks_exact_mut(self.width) {
                    let mut largest = T::neg_infinity();
                    for &y in y.iter() {
                        largest = if y > largest { y } else { largest };
                    }
                    // What is largest becomes e^0, so nothing overflows.
                    for y in y.iter_mut() {
                        *y = math::exp(Single(*y - largest)).0;
                    }
                    let total = sum(y);
                    for y in y.iter_mut() {
                        *y /= total;
                    }
                }
            }
        }
    }
}

struct Backward<'a, T> {
    function: Activation,
    y: &'a [T],
    /// d_y, then d_x.
    d: &'a mut [T],
    width: usize,
}

impl<T: Number> Kernel<T> for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let one = num_traits::one::<T>();
        match self.function {
            Activation::Tanh => {
                for (d, &y) in self.d.iter_mut().zip(self.y) {
                    *d *= one - y * y;
                }
            }
            Activation::Relu => {
                for (d, &y) in self.d.iter_mut().zip(self.y) {
                    *d *= Single(y).heaviside().0;
                }
            }
            Activation::Sigmoid => {
                for (d, &y) in self.d.iter_mut().zip(self.y) {
                    *d *= y * (one - y);
                }
            }
            Activation::Softmax => {
                let rows = self.d.chunks_exact_mut(self.width);
                for (d, y) in rows.zip(self.y.chunks_exact(self.width)) {
                    let along = dot(d, y);
                    for (d, &y) in d.iter_mut().zip(y) {
                        *d = y * (*d - along);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use seqrs_cpu::level::Level;

    use super::*;

    #[test]
    fn functions_are_the_textbooks() {
        let cpu = Cpu::<f64>::with(Level::detect(), 1);
        let x = [-3.0, -0.0, 0.5, 700.0, 1.0, 1.0];
        let of = |function: Activation| {
            let mut y = x.to_vec();
            function.forward(&cpu, &mut y, 3).unwrap();
            y
        };
        let near = |a: f64, b: f64| (a - b).abs() < 1e-15;
        for (k, &x) in x.iter().enumerate() {
            assert!(near(of(Activation::Tanh)[k], x.tanh()));
            assert!(near(of(Activation::Sigmoid)[k], 1.0 / (1.0 + (-x).exp())));
            assert_eq!(of(Activation::Relu)[k], x.max(0.0));
        }
        let softmax = of(Activation::Softmax);
        let total = (-3.0_f64).exp() + 1.0 + 0.5_f64.exp();
        assert!(near(softmax[0], (-3.0_f64).exp() / total) && near(softmax[1], 1.0 / total));
        assert!(near(softmax[3], 1.0));
    }

    #[test]
    fn nan_stays_in_its_row_and_is_not_lost() {
        let cpu = Cpu::<f32>::with(Level::detect(), 1);
        for function in
            [Activation::Tanh, Activation::Relu, Activation::Sigmoid, Activation::Softmax]
        {
            let mut y = [f32::NAN, 1.0, 2.0, 3.0];
            function.forward(&cpu, &mut y, 2).unwrap();
            assert!(y[0].is_nan() && !y[2].is_nan() && !y[3].is_nan(), "{}", function.name());
        }
    }

    #[test]
    fn every_level_and_number_of_threads_gives_the_same_bits() {
        let x: Vec<f32> = (0..40_000).map(|k| ((k * 37 % 1000) as f32 - 500.0) / 60.0).collect();
        for function in [Activation::Tanh, Activation::Sigmoid, Activation::Softmax] {
            let mut expected = x.clone();
            function.forward(&Cpu::with(Level::detect(), 1), &mut expected, 50).unwrap();
            for level in Level::available() {
                let mut y = x.clone();
                function.forward(&Cpu::with(level, 3), &mut y, 50).unwrap();
                assert!(y.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }
}
