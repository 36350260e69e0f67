//! The parameters of one direction of one layer, packed.

use std::ops::Range;

use once_cell::race::OnceBox;
use seqrs_core::Error;
use seqrs_core::cell::Counts;
use seqrs_core::spec::Shape;

use crate::lanes::Element;
use crate::level::Level;
use crate::matrix::Matrix;
use crate::pack::{Panels, Source};
use crate::quantised;

/// The parameters of one direction of one layer, packed for the kernels.
#[derive(Debug)]
pub struct Weights<T> {
    /// gx = x W_ih^T + b_ih.
    pub(crate) input: Matrix<T>,
    /// gh = h' W_hh^T + b_hh for the gates of the first product.
    pub(crate) first: Matrix<T>,
    /// The same for those of the second, in a cell with two.
    pub(crate) second: Option<Matrix<T>>,
    /// h = m W_hr^T.
    pub(crate) projection: Option<Matrix<T>>,
    /// What only training needs, packed when it first asks.
    back: OnceBox<Back<T>>,
    shape: Shape,
    /// All parameters, or of a layer of small matrices the others: see [`Weights::small`].
    numbers: Vec<T>,
}

/// The matrices of one direction of a layer, of small numbers, packed with the biases that are added
/// to their products. Where products are normalised, biases come after that, and not with these.
#[derive(Debug)]
pub struct SmallMatrices {
    /// gx = x W_ih^T + b_ih.
    pub input: quantised::matrix::Matrix,
    /// gh = h' W_hh^T + b_hh for the gates of the first product.
    pub first: quantised::matrix::Matrix,
    /// The same for those of the second, in a cell with two.
    pub second: Option<quantised::matrix::Matrix>,
    /// h = m W_hr^T.
    pub projection: Option<quantised::matrix::Matrix>,
}

/// The same matrices for the way back.
#[derive(Debug)]
pub(crate) struct Back<T> {
    /// d_x = d_gx W_ih.
    pub(crate) input: Panels<T>,
    /// d_h' = d_gh W_hh over the gates of the first product.
    pub(crate) first: Panels<T>,
    /// d_operand, over those of the second.
    pub(crate) second: Option<Panels<T>>,
    /// d_m = d_h W_hr.
    pub(crate) projection: Option<Panels<T>>,
}

impl<T: Element> Weights<T> {
    pub(crate) fn new(level: Level, shape: &Shape, numbers: &[T]) -> Result<Self, Error> {
        let Shape { input, hidden, state, .. } = *shape;
        let Counts { gates, first_gates, fused, .. } = shape.cell.counts();
        let late = gates - first_gates;
        // What is normalised gets its bias afterwards.
        let bias = |range: &Option<Range<usize>>| match shape.norms {
            None => range.clone().map(|range| &numbers[range]),
            Some(_) => None,
        };
        let recurrent =
            |gates: Range<usize>| {
                let from = shape.weight_hh.start + gates.start * hidden * state;
                let source = Source {
                    numbers: &numbers[from..shape.weight_hh.end],
                    column: state,
                    step: 1,
                    bias: bias(&shape.bias_hh).map(|bias| &bias[gates.start * hidden..]),
                };
                match fused {
                    true => Panels::gates(level, &source, gates.len(), hidden, state)
                        .map(Matrix::by_units),
                    false => Panels::plain(level, &source, gates.len() * hidden, state)
                        .map(Matrix::plain),
                }
            };
        let ih = Source {
            numbers: &numbers[shape.weight_ih.clone()],
            column: input,
            step: 1,
            bias: bias(&shape.bias_ih),
        };
        Ok(Self {
            input: Matrix::plain(Panels::plain(level, &ih, gates * hidden, input)?),
            first: recurrent(0..first_gates)?,
            second: (late > 0).then(|| recurrent(first_gates..gates)).transpose()?,
            projection: match &shape.weight_hr {
                None => None,
                Some(range) => {
                    let hr = rows(&numbers[range.clone()], hidden);
                    Some(Matrix::plain(Panels::plain(level, &hr, state, hidden)?))
                }
            },
            back: OnceBox::new(),
            shape: shape.clone(),
            numbers: numbers.to_vec(),
        })
    }

    /// Whose matrices are of small numbers: for inference only. `others` are all other parameters
    /// of the direction (biases too), one after the other in their order.
    ///
    /// # Panics
    /// If T is not `f32`, or what is given is not of the shape's sizes.
    pub fn small(shape: &Shape, matrices: SmallMatrices, others: Vec<T>) -> Self {
        let Shape { input, hidden, state, .. } = *shape;
        let Counts { gates, first_gates, .. } = shape.cell.counts();
        let late = gates - first_gates;
        let len = shape.len() - matrices_of(shape).map(Range::len).sum::<usize>();
        assert_eq!(others.len(), len, "the parameters that are no matrices");
        let sized = |matrix: quantised::matrix::Matrix, columns: usize, depth: usize| {
            assert_eq!((matrix.columns(), matrix.depth()), (columns, depth), "sizes of a matrix");
            Matrix::small(matrix)
        };
        assert_eq!(matrices.second.is_some(), late > 0, "a matrix for each product");
        assert_eq!(matrices.projection.is_some(), shape.weight_hr.is_some(), "a projection");
        Self {
            input: sized(matrices.input, gates * hidden, input),
            first: sized(matrices.first, first_gates * hidden, state),
            second: matrices.second.map(|matrix| sized(matrix, late * hidden, state)),
            projection: matrices.projection.map(|matrix| sized(matrix, state, hidden)),
            back: OnceBox::new(),
            shape: shape.clone(),
            numbers: others,
        }
    }

    /// Whether its matrices are of small numbers.
    pub(crate) fn is_small(&self) -> bool {
        self.first.is_small()
    }

    /// What each unit has for itself: runs of H.
    pub(crate) fn per_unit(&self) -> &[T] {
        self.part(&self.shape.per_unit)
    }

    /// What a direction of the layer is.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Some of its parameters that are no matrix.
    pub(crate) fn part(&self, range: &Range<usize>) -> &[T] {
        let before = match self.is_small() {
            false => 0,
            true => matrices_of(&self.shape)
                .filter(|matrix| matrix.start < range.start)
                .map(Range::len)
                .sum(),
        };
        &self.numbers[range.start - before..range.end - before]
    }

    /// The matrices for the way back.
    pub(crate) fn back(&self, level: Level) -> Result<&Back<T>, Error> {
        assert!(!self.is_small(), "a layer of small weights is for inference only");
        self.back.get_or_try_init(|| {
            let Shape { input, hidden, state, .. } = self.shape;
            let Counts { gates, first_gates, .. } = self.shape.cell.counts();
            let hh = &self.numbers[self.shape.weight_hh.clone()];
            let ih = columns(&self.numbers[self.shape.weight_ih.clone()], input);
            let (first, late) = hh.split_at(first_gates * hidden * state);
            let late_gates = gates - first_gates;
            Ok(Box::new(Back {
                input: Panels::plain(level, &ih, input, gates * hidden)?,
                first: Panels::plain(level, &columns(first, state), state, first_gates * hidden)?,
                second: match late_gates {
                    0 => None,
                    _ => {
                        let late = columns(late, state);
                        Some(Panels::plain(level, &late, state, late_gates * hidden)?)
                    }
                },
                projection: match &self.shape.weight_hr {
                    None => None,
                    Some(range) => {
                        let hr = columns(&self.numbers[range.clone()], hidden);
                        Some(Panels::plain(level, &hr, hidden, state)?)
                    }
                },
            }))
        })
    }
}

/// Which of the parameters are matrices.
fn matrices_of(shape: &Shape) -> impl Iterator<Item = &Range<usize>> {
    [Some(&shape.weight_ih), Some(&shape.weight_hh), shape.weight_hr.as_ref()].into_iter().flatten()
}

/// A (n, depth) matrix for x W^T.
pub(crate) fn rows<T>(numbers: &[T], depth: usize) -> Source<'_, T> {
    Source { numbers, column: depth, step: 1, bias: None }
}

/// A (depth, n) matrix for x W.
pub(crate) fn columns<T>(numbers: &[T], n: usize) -> Source<'_, T> {
    Source { numbers, column: 1, step: n, bias: None }
}
