//! The device: an instruction set and a number of threads.

use std::marker::PhantomData;
use std::ptr::{null, null_mut};

use seqrs_core::backend::{Backend, Backward, Forward};
use seqrs_core::memory::{Lent, zeros};
use seqrs_core::rows::Rows;
use seqrs_core::spec::Shape;
use seqrs_core::tape::DirectionTape;
use seqrs_core::{Error, Steps};

use crate::lanes::Element;
use crate::level::Level;
use crate::matrix::Matrix;
use crate::outer::{Outer, Term};
use crate::pack::Panels;
use crate::quantised;
use crate::shared::Shared;
use crate::shares::WORTH_A_THREAD;
use crate::team;
use crate::weights::{Weights, columns, rows};

/// Rows whose pointers are gathered at once; a multiple of the rows that a product keeps in L2.
const ROWS: usize = 960;

/// Likewise where there are no more.
const FEW_ROWS: usize = 8;

/// Items whose pointers are gathered at once; a multiple of a chunk of a sum.
const ITEMS: usize = 2048;

/// The processor, as a backend for numbers of type `T`.
#[derive(Clone, Copy, Debug)]
pub struct Cpu<T> {
    level: Level,
    threads: usize,
    number: PhantomData<T>,
}

/// A matrix packed for [`Cpu::product`].
#[derive(Debug)]
pub struct Packed<T>(Matrix<T>);

impl<T: Element> Packed<T> {
    /// Of small numbers.
    ///
    /// # Panics
    /// If T is not `f32`.
    pub fn small(matrix: quantised::matrix::Matrix) -> Self {
        Self(Matrix::small(matrix))
    }

    fn plain(panels: Panels<T>) -> Self {
        Self(Matrix::plain(panels))
    }

    /// Columns of the product.
    pub fn columns(&self) -> usize {
        self.0.columns()
    }

    /// Terms of each sum.
    pub fn depth(&self) -> usize {
        self.0.depth()
    }
}

impl<T: Element> Cpu<T> {
    /// With the instruction set and number of threads that the process is set to.
    ///
    /// # Errors
    /// [`Error::Option`] names an environment variable that cannot be followed.
    pub fn new() -> Result<Self, Error> {
        let level = Level::from_env().map_err(|e| Error::option(e.what, e.expected, e.got))?;
        Ok(Self::with(level, team::num_threads()?))
    }

    /// As [`new`](Self::new), for `multiply_adds` altogether: where one thread does them by itself,
    /// nobody asks the system how many there are. (That is 0.2 us of a step of 2 us.)
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_work(multiply_adds: usize) -> Result<Self, Error> {
        // What is wrong with the environment has to be said at first use, whatever that is.
        if multiply_adds >= WORTH_A_THREAD || !team::knows_num_threads() {
            return Self::new();
        }
        let level = Level::from_env().map_err(|e| Error::option(e.what, e.expected, e.got))?;
        Ok(Self::with(level, 1))
    }

    /// With a given instruction set, and the work cut for a given number of threads; as many
    /// run it as [`team::num_threads`] says.
    pub fn with(level: Level, threads: usize) -> Self {
        Self { level, threads: threads.max(1), number: PhantomData }
    }

    /// The instruction set.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// How many threads `multiply_adds` are worth.
    pub fn threads_for(&self, multiply_adds: usize) -> usize {
        self.threads.min(multiply_adds / WORTH_A_THREAD + 1)
    }

    /// `weight` (n, k) packed for x W^T + bias.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    ///
    /// # Panics
    /// If the slice is not n k numbers long.
    pub fn pack(
        &self,
        weight: &[T],
        bias: Option<&[T]>,
        n: usize,
        k: usize,
    ) -> Result<Packed<T>, Error> {
        assert_eq!(weight.len(), n * k, "a weight of {n} x {k}");
        let source = crate::pack::Source { bias, ..rows(weight, k) };
        T::plain(self.level, &source, n, k).map(Packed::plain)
    }

    /// `weight` (k, n) packed for x W.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    ///
    /// # Panics
    /// If the slice is not k n numbers long.
    pub fn pack_transposed(&self, weight: &[T], k: usize, n: usize) -> Result<Packed<T>, Error> {
        assert_eq!(weight.len(), n * k, "a weight of {k} x {n}");
        T::plain(self.level, &columns(weight, n), n, k).map(Packed::plain)
    }

    /// y (rows, columns) = x (rows, depth) times the packed matrix, plus its bias.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], of small numbers alone.
    ///
    /// # Panics
    /// If the lengths of x and y are not those of the same number of rows.
    pub fn product(&self, x: &[T], weights: &Packed<T>, y: &mut [T]) -> Result<(), Error> {
        let (n, k) = (weights.columns(), weights.depth());
        let count = y.len() / n.max(1);
        assert_eq!((count * n, count * k), (y.len(), x.len()), "x and y of as many rows");
        let threads = self.threads_for(count * n * k).min(count);
        if threads <= 1 {
            return self.product_here(x, &weights.0, y);
        }
        let ranges = team::split(count, threads, 1);
        let mut results = vec![Ok(()); ranges.len()];
        let tasks = ranges
            .into_iter()
            .scan(y, |rest, range| {
                let (y, after) = std::mem::take(rest).split_at_mut(range.len() * n);
                *rest = after;
                Some((range, y))
            })
            .zip(&mut results)
            .map(|((range, y), result)| {
                move || {
                    let x = &x[range.start * k..range.end * k];
                    *result = self.product_here(x, &weights.0, y);
                }
            })
            .collect();
        team::run(tasks);
        results.into_iter().collect()
    }

    /// The same, on this thread.
    fn product_here(&self, x: &[T], weights: &Matrix<T>, y: &mut [T]) -> Result<(), Error> {
        match y.len() / weights.columns().max(1) {
            // Filling lists of pointers for many rows takes longer than the product of a few.
            0..=FEW_ROWS => self.product_of_rows::<FEW_ROWS>(x, weights, y),
            _ => self.product_of_rows::<ROWS>(x, weights, y),
        }
    }

    /// The same, N rows at a time.
    fn product_of_rows<const N: usize>(
        &self,
        x: &[T],
        weights: &Matrix<T>,
        y: &mut [T],
    ) -> Result<(), Error> {
        let (n, k) = (weights.columns(), weights.depth());
        let bytes = weights.operand_bytes();
        let rows = N.min(y.len() / n.max(1));
        let mut room = (bytes > 0).then(|| Lent::new("operands", rows * bytes)).transpose()?;
        let room = Shared::of(&mut room);
        let (mut from, mut to) = ([null(); N], [null_mut(); N]);
        for (x, y) in x.chunks(N * k.max(1)).zip(y.chunks_mut(N * n.max(1))) {
            let count = y.len() / n;
            for r in 0..count {
                // SAFETY: a row of x, and room that is its own.
                from[r] = unsafe { weights.operand(x[r * k..][..k].as_ptr(), room.at(r * bytes)) };
                to[r] = y[r * n..][..n].as_mut_ptr();
            }
            // SAFETY: rows of the two slices.
            unsafe { T::product(self.level, weights, &from[..count], &to[..count]) };
        }
        Ok(())
    }

    /// d_w (n, k) += d_y (rows, n)^T x (rows, k), and d_b (n) += the sum of d_y's rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    ///
    /// # Panics
    /// If the lengths do not go together.
    pub fn add_outer(
        &self,
        d_y: &[T],
        x: &[T],
        n: usize,
        k: usize,
        d_w: &mut [T],
        d_b: Option<&mut [T]>,
    ) -> Result<(), Error> {
        let count = d_y.len() / n.max(1);
        assert_eq!((count * n, count * k), (d_y.len(), x.len()), "d_y and x of as many rows");
        assert_eq!(d_w.len(), n * k, "a gradient of {n} x {k}");
        let d_b = match d_b {
            None => Shared(null_mut()),
            Some(d_b) => {
                assert_eq!(d_b.len(), n, "a bias of {n}");
                Shared(d_b.as_mut_ptr())
            }
        };
        let d_w = Shared(d_w.as_mut_ptr());
        let ranges = team::split(n, self.threads_for(count * n * k), 1);
        let mut results = vec![Ok(()); ranges.len()];
        let tasks = ranges
            .into_iter()
            .zip(&mut results)
            .map(|(columns, result)| {
                move || {
                    let (d_w, d_b) = (d_w.at(columns.start * k), d_b.at(columns.start));
                    let (mut gradients, mut operands) = ([null(); ITEMS], [null(); ITEMS]);
                    for first in (0..count).step_by(ITEMS) {
                        let items = first..(first + ITEMS).min(count);
                        for (at, item) in items.clone().enumerate() {
                            gradients[at] = d_y[item * n..][..n].as_ptr();
                            operands[at] = x[item * k..][..k].as_ptr();
                        }
                        let (d_y, x) = (&gradients[..items.len()], &operands[..items.len()]);
                        let columns = columns.clone();
                        let terms = &[Term { x, depth: k, d_w, d_b }];
                        let outer = Outer { d_y, columns, terms };
                        // SAFETY: rows of the slices; each worker has rows of d_w to itself.
                        *result = unsafe { T::outer(self.level, outer) };
                        if result.is_err() {
                            return;
                        }
                    }
                }
            })
            .collect();
        team::run(tasks);
        results.into_iter().collect()
    }
}

impl<T: Element> Backend for Cpu<T> {
    type Elem = T;
    type Slice = [T];
    type Buffer = Vec<T>;
    type Scratch = Lent<T>;
    type Weights = Weights<T>;
    type Record = DirectionTape<Lent<T>>;

    fn zeros(&self, len: usize) -> Result<Vec<T>, Error> {
        zeros("buffer", len)
    }

    fn blank(&self, len: usize) -> Result<Lent<T>, Error> {
        Lent::new("buffer", len)
    }

    fn copy(&self, from: &[T]) -> Result<Vec<T>, Error> {
        let mut to = zeros("copy of a buffer", from.len())?;
        to.copy_from_slice(from);
        Ok(to)
    }

    fn pack_rows(&self, from: Rows<'_, [T]>, steps: &Steps, width: usize, to: &mut [T]) {
        steps.for_each(|item, t, b| {
            let row = &from.data[from.place.offset(item, t, b)..][..width];
            to[item * width..][..width].copy_from_slice(row);
        });
    }

    fn times(&self, a: &[T], b: &[T]) -> Result<Lent<T>, Error> {
        let mut product = Lent::new("outputs between layers", a.len())?;
        for ((product, &a), &b) in product.iter_mut().zip(a).zip(b) {
            *product = a * b;
        }
        Ok(product)
    }

    fn weights(&self, shape: &Shape, parameters: &[T]) -> Result<Weights<T>, Error> {
        T::weights(self.level, shape, parameters)
    }

    fn record(
        &self,
        shape: &Shape,
        items: usize,
        batch: usize,
    ) -> Result<DirectionTape<Lent<T>>, Error> {
        DirectionTape::blank(self, shape, items, batch)
    }

    fn forward(&self, run: Forward<'_, Self>) -> Result<(), Error> {
        T::forward(self, run)
    }

    fn backward(&self, run: Backward<'_, Self>) -> Result<(), Error> {
        T::backward(self, run)
    }
}
