//! The numbers of one parameter, small if it is a matrix.

use half::bf16;
use seqrs_core::memory::{copied, room};
use seqrs_core::{Error, interrupt};
use seqrs_cpu::quantised::int8;

use super::Quantisation;
use crate::pace::NUMBERS_PER_LOOK;

/// The numbers of one parameter, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tensor {
    /// A vector.
    F32(Vec<f32>),
    /// A matrix, in -127..=127, and the scale of each of its rows.
    Int8 { integers: Vec<i8>, scales: Vec<f32> },
    /// A matrix.
    Bf16(Vec<bf16>),
}

impl Tensor {
    /// The numbers of a parameter of this shape: a matrix becomes small.
    ///
    /// # Errors
    /// [`Error::Numerical`] if one is not finite; `title` is what a message calls the parameter.
    pub(crate) fn of(
        kind: Quantisation,
        numbers: &[f32],
        shape: &[usize],
        title: impl Fn() -> String,
    ) -> Result<Self, Error> {
        if let Some(k) = numbers.iter().position(|number| !number.is_finite()) {
            let expected = format!("finite numbers to make {kind} of");
            let got = format!("{} (number {k})", numbers[k]);
            return Err(Error::numerical(title(), expected, got));
        }
        let &[_, columns] = shape else {
            return Ok(Self::F32(copied("parameters", numbers)?));
        };
        Ok(match kind {
            Quantisation::Int8 => {
                let (integers, scales) = int8::round_rows(numbers, columns)?;
                Self::Int8 { integers, scales }
            }
            Quantisation::Bf16 => {
                let mut halves = room("weights of bf16", numbers.len())?;
                for (k, &number) in numbers.iter().enumerate() {
                    if k % NUMBERS_PER_LOOK == 0 {
                        interrupt::check()?;
                    }
                    let half = bf16::from_f32(number);
                    if !half.is_finite() {
                        let expected = "numbers that bf16 can hold (up to 3.39e38)";
                        let got = format!("{number} (number {k})");
                        return Err(Error::numerical(title(), expected, got));
                    }
                    halves.push(half);
                }
                Self::Bf16(halves)
            }
        })
    }

    /// What it became, if it is small.
    pub(crate) fn kind(&self) -> Option<Quantisation> {
        match self {
            Self::F32(_) => None,
            Self::Int8 { .. } => Some(Quantisation::Int8),
            Self::Bf16(_) => Some(Quantisation::Bf16),
        }
    }

    /// How many numbers, scales not counted.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::Int8 { integers, .. } => integers.len(),
            Self::Bf16(numbers) => numbers.len(),
        }
    }

    /// How many bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(numbers) => size_of_val(&numbers[..]),
            Self::Int8 { integers, scales } => integers.len() + size_of_val(&scales[..]),
            Self::Bf16(numbers) => size_of_val(&numbers[..]),
        }
    }

    /// A vector's numbers.
    pub(crate) fn vector(&self) -> &[f32] {
        match self {
            Self::F32(numbers) => numbers,
            Self::Int8 { .. } | Self::Bf16(_) => unreachable!("a vector is not made small"),
        }
    }
}
