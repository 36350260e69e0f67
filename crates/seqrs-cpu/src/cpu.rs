//! The device: an instruction set and a number of threads.

use std::marker::PhantomData;

use seqrs_core::backend::{Backend, Backward, Forward};
use seqrs_core::cell::Cell;
use seqrs_core::naive::Naive;
use seqrs_core::real::Real;
use seqrs_core::rows::Rows;
use seqrs_core::spec::Shape;
use seqrs_core::{Error, Steps};

use crate::lanes::Element;
use crate::level::Level;
use crate::team;

/// The processor, as a backend for numbers of type `T`.
#[derive(Clone, Copy, Debug)]
pub struct Cpu<T> {
    level: Level,
    threads: usize,
    number: PhantomData<T>,
}

/// The parameters of one direction of one layer, packed for the kernels.
pub type Weights<T> = seqrs_core::naive::Weights<T>;

/// A matrix packed for [`Cpu::product`].
#[derive(Debug)]
pub struct Packed<T> {
    n: usize,
    k: usize,
    numbers: Vec<T>,
}

impl<T> Packed<T> {
    /// Columns of the product.
    pub fn columns(&self) -> usize {
        self.n
    }
    /// Terms of each sum.
    pub fn depth(&self) -> usize {
        self.k
    }
}

impl<T: Element + Real> Cpu<T> {
    /// With the instruction set and number of threads that the process is set to.
    ///
    /// # Errors
    /// [`Error::Option`] names an environment variable that cannot be followed.
    pub fn new() -> Result<Self, Error> {
        let level = Level::from_env().map_err(|e| Error::option(e.what, e.expected, e.got))?;
        Ok(Self::with(level, team::num_threads()?))
    }

    /// With a given instruction set and number of threads.
    pub fn with(level: Level, threads: usize) -> Self {
        Self { level, threads, number: PhantomData }
    }

    /// The instruction set.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// `weight` (n, k) packed for x W^T.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn pack(&self, weight: &[T], n: usize, k: usize) -> Result<Packed<T>, Error> {
        Ok(Packed { n, k, numbers: weight.to_vec() })
    }

    /// `weight` (k, n) packed for x W.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn pack_transposed(&self, weight: &[T], k: usize, n: usize) -> Result<Packed<T>, Error> {
        let numbers = (0..n * k).map(|at| weight[at % k * n + at / k]).collect();
        Ok(Packed { n, k, numbers })
    }

    /// y (rows, n) = x (rows, k) W^T + bias.
    pub fn product(&self, x: &[T], w: &Packed<T>, bias: Option<&[T]>, y: &mut [T]) {
        if w.n == 0 {
            return;
        }
        for (r, y) in y.chunks_mut(w.n).enumerate() {
            for (j, y) in y.iter_mut().enumerate() {
                let mut sum = bias.map_or(<T as num_traits::Zero>::zero(), |b| b[j]);
                for k in 0..w.k {
                    sum = x[r * w.k + k] * w.numbers[j * w.k + k] + sum;
                }
                *y = sum;
            }
        }
    }

    /// d_w (n, k) += d_y (rows, n)^T x (rows, k).
    pub fn add_outer(&self, d_y: &[T], x: &[T], n: usize, k: usize, d_w: &mut [T]) {
        for r in 0..d_y.len() / n {
            for j in 0..n {
                for c in 0..k {
                    d_w[j * k + c] = d_y[r * n + j] * x[r * k + c] + d_w[j * k + c];
                }
            }
        }
    }

    /// d_b (n) += the sum of the rows of d_y (rows, n).
    pub fn add_rows(&self, d_y: &[T], d_b: &mut [T]) {
        for row in d_y.chunks(d_b.len()) {
            for (b, &d) in d_b.iter_mut().zip(row) {
                *b = *b + d;
            }
        }
    }
}

impl<T: Element + Real> Backend for Cpu<T> {
    type Elem = T;
    type Slice = [T];
    type Buffer = Vec<T>;
    type Weights = Weights<T>;

    fn zeros(&self, len: usize) -> Result<Vec<T>, Error> {
        Naive::default().zeros(len)
    }
    fn copy(&self, from: &[T]) -> Result<Vec<T>, Error> {
        Naive::default().copy(from)
    }
    fn pack_rows(&self, from: Rows<'_, [T]>, steps: &Steps, width: usize) -> Result<Vec<T>, Error> {
        Naive::default().pack_rows(from, steps, width)
    }
    fn times(&self, a: &[T], b: &[T]) -> Result<Vec<T>, Error> {
        Naive::default().times(a, b)
    }
    fn weights(&self, shape: &Shape, parameters: &[T]) -> Result<Weights<T>, Error> {
        Naive::default().weights(shape, parameters)
    }
    fn forward<C: Cell>(&self, run: Forward<'_, Self>) -> Result<(), Error> {
        let Forward { shape, steps, weights, x, state, slot, y, tape } = run;
        Naive::default().forward::<C>(Forward { shape, steps, weights, x, state, slot, y, tape })
    }
    fn backward<C: Cell>(&self, run: Backward<'_, Self>) -> Result<(), Error> {
        let Backward {
            shape,
            steps,
            weights,
            x,
            y,
            tape,
            d_y,
            d_state,
            slot,
            d_parameters,
            d_start,
            d_x,
        } = run;
        Naive::default().backward::<C>(Backward {
            shape,
            steps,
            weights,
            x,
            y,
            tape,
            d_y,
            d_state,
            slot,
            d_parameters,
            d_start,
            d_x,
        })
    }
}
