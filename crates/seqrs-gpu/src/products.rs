//! Products of matrices, and sums over all items: the gradients of weights and biases.
//!
//! A sum over items goes over the pieces of the steps in ascending order, and each goes on where
//! the one before it stopped. Where there are few sums and many items, the items are shared between
//! several sums, which are added at the end (`shaders/product.wgsl`).

use crate::kernels::{Kernel, PRODUCT_TILE};
use crate::params::{self, NONE};
use crate::recorder::{Numbers, Recorder};
use crate::row_kernels::{ColumnSums, ColumnTerm, RowKernel, by_column};
use crate::rules::MOST_WORKGROUPS;

/// A matrix in a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    pub(crate) numbers: &'a Numbers,
    pub(crate) at: usize,
    /// From row to row, and from column to column.
    pub(crate) strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// With a row every `stride` numbers, the first at `at`.
    pub(crate) fn new(numbers: &'a Numbers, at: usize, stride: usize) -> Self {
        Self { numbers, at, strides: [stride, 1] }
    }

    pub(crate) fn transposed(self) -> Self {
        let [row, column] = self.strides;
        Self { strides: [column, row], ..self }
    }
}

/// What the sums of a product start from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    Zero,
    /// A number for each column, the first at this place.
    Bias(&'a Numbers, usize),
    /// What is there.
    Sum,
}

/// The items of a piece of the steps: how many, and a matrix with a row for each.
pub(crate) type Items<'a> = (usize, Matrix<'a>);

impl Recorder {
    /// c = a b, of m x k and k x n numbers, and what it starts from. The rows of c are its own.
    pub(crate) fn product(
        &self,
        [m, k, n]: [usize; 3],
        a: Matrix<'_>,
        b: Matrix<'_>,
        c: Matrix<'_>,
        start: Start<'_>,
    ) {
        self.products([m, k, n], a, b, c, start, Split { first: 0, splits: 1, stride: 0 });
    }

    fn products(
        &self,
        [m, k, n]: [usize; 3],
        a: Matrix<'_>,
        b: Matrix<'_>,
        c: Matrix<'_>,
        start: Start<'_>,
        split: Split,
    ) {
        let (bias, bias_at, add) = match start {
            Start::Zero => (b.numbers, NONE, 0),
            Start::Bias(numbers, at) => (numbers, at as u32, 0),
            Start::Sum => (b.numbers, NONE, 1),
        };
        let tiles = |n: usize| n.div_ceil(PRODUCT_TILE);
        let rows = self.most_work / (n * k).max(1) / PRODUCT_TILE;
        let rows = rows.clamp(1, MOST_WORKGROUPS) * PRODUCT_TILE;
        for from in (0..m).step_by(rows) {
            let part = rows.min(m - from);
            let params = params::Product {
                m: part as u32,
                n: n as u32,
                k: k as u32,
                a_at: (a.at + from * a.strides[0]) as u32,
                a_m: a.strides[0] as u32,
                a_k: a.strides[1] as u32,
                b_at: b.at as u32,
                b_k: b.strides[0] as u32,
                b_n: b.strides[1] as u32,
                c_at: (c.at + from * c.strides[0]) as u32,
                c_m: c.strides[0] as u32,
                bias_at,
                add,
                k_first: split.first as u32,
                splits: split.splits as u32,
                c_split: split.stride as u32,
            };
            let groups = [tiles(n), tiles(part), split.splits];
            let buffers = [a.numbers, b.numbers, bias, c.numbers];
            self.dispatch(Kernel::Product, &buffers, params.words(), groups);
        }
    }

    /// d_W += d^T x over the items of all pieces: m x n numbers of `to`, the first at `at`.
    pub(crate) fn add_products<'a>(
        &self,
        [m, n]: [usize; 2],
        d: &[Items<'a>],
        x: impl IntoIterator<Item = Matrix<'a>>,
        to: &Numbers,
        at: usize,
    ) {
        let count = d.iter().map(|(count, _)| count).sum();
        let splits = self.rules.splits_of_product(m, n, count);
        let partial;
        let (c, stride) = if splits > 1 {
            partial = self.blank_buffer(splits * m * n);
            (Matrix::new(&partial, 0, n), m * n)
        } else {
            (Matrix::new(to, at, n), 0)
        };
        let mut first = 0;
        for ((count, d), x) in d.iter().zip(x) {
            let start = if splits > 1 && first == 0 { Start::Zero } else { Start::Sum };
            let split = Split { first, splits, stride };
            self.products([m, *count, n], d.transposed(), x, c, start, split);
            first += count;
        }
        if splits > 1 {
            self.add_rows(c.numbers, splits, m * n, to, at);
        }
    }

    /// d_b += the sums of the columns of d over the items of all pieces: n numbers of `to`, the
    /// first at `at`.
    pub(crate) fn add_columns(&self, n: usize, d: &[Items<'_>], to: &Numbers, at: usize) {
        self.add_terms(n, d, None, to, at);
    }

    /// The same of the products of d and the numbers of `other`, a matrix for each piece too.
    pub(crate) fn add_dots<'a>(
        &self,
        n: usize,
        d: &[Items<'a>],
        other: impl IntoIterator<Item = Matrix<'a>>,
        to: &Numbers,
        at: usize,
    ) {
        let other: Vec<Matrix<'_>> = other.into_iter().collect();
        self.add_terms(n, d, Some(&other), to, at);
    }

    fn add_terms(
        &self,
        n: usize,
        d: &[Items<'_>],
        other: Option<&[Matrix<'_>]>,
        to: &Numbers,
        at: usize,
    ) {
        let count = d.iter().map(|(count, _)| count).sum();
        let splits = self.rules.splits_of_columns(n, count);
        let partial = (splits > 1).then(|| self.blank_buffer(splits * n));
        let term = if other.is_some() { ColumnTerm::Product } else { ColumnTerm::Number };
        let mut first = 0;
        for (k, (count, d)) in d.iter().enumerate() {
            let other = other.map(|other| other[k]);
            let params = ColumnSums {
                rows: *count as u32,
                columns: n as u32,
                from_at: d.at as u32,
                stride: d.strides[0] as u32,
                other_at: other.map_or(0, |other| other.at) as u32,
                other_stride: other.map_or(0, |other| other.strides[0]) as u32,
                to_at: if partial.is_some() { 0 } else { at as u32 },
                add: u32::from(partial.is_none() || first > 0),
                first: first as u32,
                splits: splits as u32,
            };
            let mut buffers = vec![d.numbers];
            buffers.extend(other.map(|other| other.numbers));
            buffers.push(partial.as_ref().unwrap_or(to));
            let groups = by_column(splits, n);
            self.rows(RowKernel::ColumnSums(term), &buffers, params.words(), groups);
            first += count;
        }
        if let Some(partial) = &partial {
            self.add_rows(partial, splits, n, to, at);
        }
    }

    /// Adds rows of `n` numbers to those from `at` on.
    fn add_rows(&self, from: &Numbers, rows: usize, n: usize, to: &Numbers, at: usize) {
        let params = ColumnSums {
            rows: rows as u32,
            columns: n as u32,
            from_at: 0,
            stride: n as u32,
            to_at: at as u32,
            add: 1,
            splits: 1,
            ..Default::default()
        };
        let kernel = RowKernel::ColumnSums(ColumnTerm::Number);
        self.rows(kernel, &[from, to], params.words(), by_column(1, n));
    }
}

/// How the terms of a product are shared.
#[derive(Clone, Copy)]
struct Split {
    /// Terms that came before.
    first: usize,
    splits: usize,
    /// From one sum to the next.
    stride: usize,
}
