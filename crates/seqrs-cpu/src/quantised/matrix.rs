//! A matrix of small numbers, of whichever kind.

use seqrs_core::Error;

use super::ahead::Ahead;
use super::bf16::{self, Bf16, Bf16Source};
use super::int8::{self, Int8, Int8Source};
use super::packed::{self, Packed};
use super::sums::SumLevel;
use crate::level::Level;

/// Bytes of weights that do not stay in the nearest cache beside what else a step needs.
const WAITED_FOR: usize = 24 << 10;

/// A matrix of small numbers, packed for its product with rows of floats.
#[derive(Debug)]
pub struct Matrix(Form);

#[derive(Debug)]
enum Form {
    Int8(Int8),
    Bf16(Bf16),
}

impl Matrix {
    /// Rows of 8-bit integers, `depth` each.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Interrupted`].
    ///
    /// # Panics
    /// If the counts do not go together, or rows are longer than
    /// [`MOST_TERMS`](super::int8::MOST_TERMS).
    pub fn int8(level: Level, source: Int8Source<'_>, depth: usize) -> Result<Self, Error> {
        Ok(Self(Form::Int8(Int8::pack(SumLevel::of(level), source, depth)?)))
    }

    /// Rows of bf16, `depth` each.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Interrupted`].
    ///
    /// # Panics
    /// If the counts do not go together.
    pub fn bf16(
        level: Level,
        numbers: &[half::bf16],
        bias: Option<&[f32]>,
        depth: usize,
    ) -> Result<Self, Error> {
        let source = Bf16Source { numbers, bias };
        Ok(Self(Form::Bf16(Bf16::pack(SumLevel::of(level), source, depth)?)))
    }

    /// Columns of the product.
    pub fn columns(&self) -> usize {
        match &self.0 {
            Form::Int8(matrix) => matrix.columns(),
            Form::Bf16(matrix) => matrix.columns(),
        }
    }

    /// Terms of each sum.
    pub fn depth(&self) -> usize {
        match &self.0 {
            Form::Int8(matrix) => matrix.depth(),
            Form::Bf16(matrix) => matrix.depth(),
        }
    }

    /// Bytes of room that [`operand`](Self::operand) needs, a multiple of 4.
    pub(crate) fn operand_bytes(&self) -> usize {
        match &self.0 {
            Form::Int8(matrix) => matrix.operand_bytes(),
            Form::Bf16(_) => 0,
        }
    }

    /// A row as the product reads it: itself, or what has been made of it in the room.
    ///
    /// # Safety
    /// `x` is readable for the depth, `room` writable for
    /// [`operand_bytes`](Self::operand_bytes), and nobody else uses it.
    #[inline(always)]
    pub(crate) unsafe fn operand(&self, x: *const f32, room: *mut u8) -> *const u8 {
        match &self.0 {
            Form::Int8(matrix) => {
                // SAFETY: by the caller.
                unsafe { matrix.round(x, room) };
                room.cast_const()
            }
            Form::Bf16(_) => x.cast(),
        }
    }

    /// y = x W^T + b; the panels are walked from the last to the first where that is asked for.
    ///
    /// # Safety
    /// Every x is what [`operand`](Self::operand) of this matrix gave, and is still there; every y
    /// is writable for the columns; no y overlaps another y or an x, and nobody else uses them.
    pub(crate) unsafe fn product_of(&self, x: &[*const u8], y: &[*mut f32], downwards: bool) {
        // SAFETY: by the caller.
        unsafe {
            match &self.0 {
                Form::Int8(matrix) => packed::product(matrix, x, y, downwards),
                Form::Bf16(matrix) => packed::product(matrix, x, y, downwards),
            }
        }
    }

    /// How many rows of another product [`product_beside`](Self::product_beside) takes, if it is
    /// worth it: the weights do not come from the nearest cache, and the processor has the
    /// registers.
    pub(crate) fn rows_beside(&self) -> Option<usize> {
        let (level, bytes, rows) = match &self.0 {
            Form::Int8(matrix) => (matrix.level(), 1, int8::BESIDE),
            Form::Bf16(matrix) => (matrix.level(), 2, bf16::BESIDE),
        };
        let waits = self.columns() * self.depth() * bytes >= WAITED_FOR;
        (waits && level.holds_tile_beside()).then_some(rows)
    }

    /// y = x W^T + b of one row, and beside it a part of another product of as many columns.
    ///
    /// # Safety
    /// As [`product_of`](Self::product_of), for both.
    ///
    /// # Panics
    /// If the other matrix is of another kind, or its rows are not as many as
    /// [`rows_beside`](Self::rows_beside) says.
    pub(crate) unsafe fn product_beside(
        &self,
        x: *const u8,
        y: *mut f32,
        downwards: bool,
        ahead: Ahead<'_, Self>,
    ) {
        // SAFETY: by the caller.
        unsafe {
            match (&self.0, &ahead.matrix.0) {
                (Form::Int8(matrix), Form::Int8(other)) => {
                    const N: usize = int8::BESIDE;
                    packed::product_beside::<_, N>(matrix, x, y, downwards, ahead.with(other));
                }
                (Form::Bf16(matrix), Form::Bf16(other)) => {
                    const N: usize = bf16::BESIDE;
                    packed::product_beside::<_, N>(matrix, x, y, downwards, ahead.with(other));
                }
                _ => panic!("matrices of one kind"),
            }
        }
    }
}
