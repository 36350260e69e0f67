//! The parameters of one direction of one layer, packed.

use std::any::TypeId;

use once_cell::race::OnceBox;
use seqrs_core::Error;
use seqrs_core::cell::Counts;
use seqrs_core::spec::Shape;

use crate::lanes::Element;
use crate::level::Level;
use crate::pack::{Panels, Source};
use crate::quantised;

/// The parameters of one direction of one layer, packed for the kernels.
#[derive(Debug)]
pub struct Weights<T> {
    /// gx = x W_ih^T + b_ih.
    pub(crate) input: Panels<T>,
    /// gh = h' W_hh^T + b_hh for the gates of the first product.
    pub(crate) first: Panels<T>,
    /// The same for those of the second, in a cell with two.
    pub(crate) second: Option<Panels<T>>,
    /// h = m W_hr^T.
    pub(crate) projection: Option<Panels<T>>,
    /// What only training needs, packed when it first asks.
    back: OnceBox<Back<T>>,
    shape: Shape,
    numbers: Vec<T>,
    small: Option<Box<quantised::layer::Weights>>,
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
        let bias = |range: &Option<std::ops::Range<usize>>| match shape.norms {
            None => range.clone().map(|range| &numbers[range]),
            Some(_) => None,
        };
        let recurrent = |gates: std::ops::Range<usize>| {
            let from = shape.weight_hh.start + gates.start * hidden * state;
            let source = Source {
                numbers: &numbers[from..shape.weight_hh.end],
                column: state,
                step: 1,
                bias: bias(&shape.bias_hh).map(|bias| &bias[gates.start * hidden..]),
            };
            match fused {
                true => Panels::gates(level, &source, gates.len(), hidden, state),
                false => Panels::plain(level, &source, gates.len() * hidden, state),
            }
        };
        let ih = Source {
            numbers: &numbers[shape.weight_ih.clone()],
            column: input,
            step: 1,
            bias: bias(&shape.bias_ih),
        };
        Ok(Self {
            input: Panels::plain(level, &ih, gates * hidden, input)?,
            first: recurrent(0..first_gates)?,
            second: (late > 0).then(|| recurrent(first_gates..gates)).transpose()?,
            projection: match &shape.weight_hr {
                None => None,
                Some(range) => {
                    let hr = rows(&numbers[range.clone()], hidden);
                    Some(Panels::plain(level, &hr, state, hidden)?)
                }
            },
            back: OnceBox::new(),
            shape: shape.clone(),
            numbers: numbers.to_vec(),
            small: None,
        })
    }

    /// Whose matrices are of small numbers: for inference only.
    ///
    /// # Panics
    /// If T is not `f32`.
    pub fn small(shape: &Shape, matrices: quantised::layer::Weights) -> Self {
        assert_eq!(TypeId::of::<T>(), TypeId::of::<f32>(), "small weights are of f32 layers");
        Self {
            input: Panels::none(),
            first: Panels::none(),
            second: None,
            projection: None,
            back: OnceBox::new(),
            shape: shape.clone(),
            numbers: Vec::new(),
            small: Some(Box::new(matrices)),
        }
    }

    pub(crate) fn small_matrices(&self) -> Option<&quantised::layer::Weights> {
        self.small.as_deref()
    }

    /// What each unit has for itself: runs of H.
    pub(crate) fn per_unit(&self) -> &[T] {
        &self.numbers[self.shape.per_unit.clone()]
    }

    /// What a direction of the layer is.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Some of its parameters.
    pub(crate) fn part(&self, range: &std::ops::Range<usize>) -> &[T] {
        &self.numbers[range.clone()]
    }

    /// The matrices for the way back.
    pub(crate) fn back(&self, level: Level) -> Result<&Back<T>, Error> {
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

/// A (n, depth) matrix for x W^T.
pub(crate) fn rows<T>(numbers: &[T], depth: usize) -> Source<'_, T> {
    Source { numbers, column: depth, step: 1, bias: None }
}

/// A (depth, n) matrix for x W.
pub(crate) fn columns<T>(numbers: &[T], n: usize) -> Source<'_, T> {
    Source { numbers, column: 1, step: n, bias: None }
}
