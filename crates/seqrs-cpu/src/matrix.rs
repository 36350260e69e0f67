//! A matrix of a layer, in one of its forms, and its product from memory to memory.
//!
//! | form | what it is for |
//! |---|---|
//! | by units | floats in the order of a fused step (`step.rs`): it has no product of its own |
//! | plain | floats |
//! | small | 8-bit integers or bf16 (`quantised`), in layers of `f32` |
//!
//! What takes a layer through its steps (`forward`) asks a matrix for what depends on the form,
//! and never which it is. Sums of small matrices go to memory, and the cell is a pass over them: a
//! fused cell would be compiled once for each size of a tile and each kind of weights, and the sums
//! are a few kilobytes that never leave the nearest cache, beside weights that do. A small matrix
//! has one part only: a step of one row is too short for workers to meet.

use std::ops::Range;

use crate::lanes::Element;
use crate::level::Level;
use crate::pack::Panels;
use crate::product::{Product, Slice, Start};
use crate::quantised;
use crate::step::{self, BESIDE};

/// Bytes of gates from the input that are computed ahead: about half of a core's L2 ...
const AHEAD: usize = 512 << 10;
/// ... and beside small weights, which take less of it.
const AHEAD_OF_SMALL: usize = 128 << 10;

/// Bytes of recurrent weights from which on a step waits for them (`forward`, departure 3).
const WAITED_FOR: usize = 128 << 10;

/// A matrix, packed.
#[derive(Debug)]
pub(crate) struct Matrix<T>(Form<T>);

#[derive(Debug)]
enum Form<T> {
    ByUnits(Panels<T>),
    Plain(Panels<T>),
    /// T is `f32`.
    Small(quantised::matrix::Matrix),
}

/// A part of a product, which is computed beside the step of one row.
#[derive(Clone, Copy)]
pub(crate) struct Ahead<'a, T> {
    pub(crate) matrix: &'a Matrix<T>,
    /// What [`Matrix::operand`] gave.
    pub(crate) x: &'a [*const T],
    pub(crate) y: &'a [*mut T],
    /// The `part`-th of `parts`, which come one after the other.
    pub(crate) part: usize,
    pub(crate) parts: usize,
}

/// How a product is computed.
pub(crate) struct How<'a, T> {
    /// Which of the matrix's [`parts`](Matrix::parts).
    pub(crate) parts: Range<usize>,
    /// Whether to read small weights from the last to the first.
    pub(crate) downwards: bool,
    /// What goes on beside the product of one row with a small matrix.
    pub(crate) ahead: Option<Ahead<'a, T>>,
}

impl<T: Element> Matrix<T> {
    /// From [`Panels::gates`].
    pub(crate) fn by_units(panels: Panels<T>) -> Self {
        Self(Form::ByUnits(panels))
    }

    /// From [`Panels::plain`].
    pub(crate) fn plain(panels: Panels<T>) -> Self {
        Self(Form::Plain(panels))
    }

    /// # Panics
    /// If T is not `f32`.
    pub(crate) fn small(matrix: quantised::matrix::Matrix) -> Self {
        assert!(T::IS_F32, "small matrices are of layers of f32");
        Self(Form::Small(matrix))
    }

    /// Columns of the product.
    pub(crate) fn columns(&self) -> usize {
        match &self.0 {
            Form::ByUnits(panels) | Form::Plain(panels) => panels.columns(),
            Form::Small(matrix) => matrix.columns(),
        }
    }

    /// Terms of each sum.
    pub(crate) fn depth(&self) -> usize {
        match &self.0 {
            Form::ByUnits(panels) | Form::Plain(panels) => panels.depth(),
            Form::Small(matrix) => matrix.depth(),
        }
    }

    pub(crate) fn is_small(&self) -> bool {
        matches!(self.0, Form::Small(_))
    }

    /// The panels of a fused step, if it is for one.
    pub(crate) fn of_fused_step(&self) -> Option<&Panels<T>> {
        match &self.0 {
            Form::ByUnits(panels) => Some(panels),
            Form::Plain(_) | Form::Small(_) => None,
        }
    }

    /// Parts that workers can share.
    pub(crate) fn parts(&self) -> usize {
        match &self.0 {
            Form::ByUnits(panels) | Form::Plain(panels) => panels.count(),
            Form::Small(_) => 1,
        }
    }

    /// Columns of the product that these parts give, if it is not for a fused step.
    pub(crate) fn columns_of(&self, parts: &Range<usize>) -> Range<usize> {
        match &self.0 {
            Form::ByUnits(panels) | Form::Plain(panels) => panels.columns_of(parts),
            Form::Small(matrix) => 0..matrix.columns() * parts.len(),
        }
    }

    /// Bytes of gates from the input that are worth computing at a time, of a layer of which it
    /// is a matrix.
    pub(crate) fn bytes_ahead(&self) -> usize {
        match &self.0 {
            Form::ByUnits(_) | Form::Plain(_) => AHEAD,
            Form::Small(_) => AHEAD_OF_SMALL,
        }
    }

    /// How many rows of another product are computed beside a step of one row, if it waits for
    /// the weights of this one.
    pub(crate) fn rows_beside(&self, level: Level) -> Option<usize> {
        match &self.0 {
            Form::ByUnits(panels) => {
                let waits = panels.columns() * panels.depth() * size_of::<T>() >= WAITED_FOR;
                (waits && step::has_registers_beside::<T>(level)).then_some(BESIDE)
            }
            Form::Plain(_) => None,
            Form::Small(matrix) => matrix.rows_beside(),
        }
    }

    /// Bytes of room that [`operand`](Self::operand) needs, a multiple of 4.
    pub(crate) fn operand_bytes(&self) -> usize {
        match &self.0 {
            Form::ByUnits(_) | Form::Plain(_) => 0,
            Form::Small(matrix) => matrix.operand_bytes(),
        }
    }

    /// A row as the product reads it: itself, or what has been made of it in the room, which is no
    /// row of T then.
    ///
    /// # Safety
    /// `x` is readable for the depth, `room` writable for
    /// [`operand_bytes`](Self::operand_bytes), and nobody else uses it.
    #[inline(always)]
    pub(crate) unsafe fn operand(&self, x: *const T, room: *mut u8) -> *const T {
        match &self.0 {
            Form::ByUnits(_) | Form::Plain(_) => x,
            // SAFETY: by the caller; T is `f32`.
            Form::Small(matrix) => unsafe { matrix.operand(x.cast(), room).cast() },
        }
    }

    /// y = x W^T + b.
    ///
    /// # Safety
    /// Every x is what [`operand`](Self::operand) of this matrix gave, and is still there; every y
    /// is writable for the columns; no y overlaps another y or an x, and nobody else uses them. The
    /// same holds for what is computed beside.
    ///
    /// # Panics
    /// If it is for a fused step.
    pub(crate) unsafe fn product(
        &self,
        level: Level,
        x: &[*const T],
        y: &[*mut T],
        how: How<'_, T>,
    ) {
        let How { parts, downwards, ahead } = how;
        match &self.0 {
            Form::ByUnits(_) => unreachable!("the matrix of a fused step"),
            Form::Plain(weights) => {
                let product = Product { x, weights, panels: parts, start: Start::Bias, y };
                // SAFETY: by the caller.
                unsafe { product.run(level) };
            }
            Form::Small(matrix) => {
                let (x, y) = small_rows(x, y);
                // SAFETY: by the caller.
                unsafe {
                    match ahead {
                        None => matrix.product_of(x, y, downwards),
                        Some(ahead) => {
                            matrix.product_beside(x[0], y[0], downwards, ahead.of_small());
                        }
                    }
                }
            }
        }
    }
}

impl<'a, T: Element> Ahead<'a, T> {
    /// For a fused step that reads these panels meanwhile.
    pub(crate) fn slice(self, panels: Range<usize>) -> Slice<'a, T> {
        let Self { matrix, x, y, part, parts } = self;
        let Form::Plain(weights) = &matrix.0 else {
            unreachable!("beside a fused step goes a product of floats");
        };
        let cut = |part: usize| weights.depth() * part / parts;
        Slice { x, weights, panels, depth: cut(part)..cut(part + 1), y }
    }

    fn of_small(self) -> quantised::ahead::Ahead<'a, quantised::matrix::Matrix> {
        let Self { matrix, x, y, part, parts } = self;
        let Form::Small(matrix) = &matrix.0 else {
            unreachable!("beside a product of small numbers goes another");
        };
        let (x, y) = small_rows(x, y);
        quantised::ahead::Ahead { matrix, x, y, part, parts }
    }
}

/// Rows as a small matrix knows them.
fn small_rows<'a, T>(x: &'a [*const T], y: &'a [*mut T]) -> (&'a [*const u8], &'a [*mut f32]) {
    // SAFETY: pointers to other numbers are the same words.
    unsafe {
        (
            std::slice::from_raw_parts(x.as_ptr().cast(), x.len()),
            std::slice::from_raw_parts(y.as_ptr().cast(), y.len()),
        )
    }
}
