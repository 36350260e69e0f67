//! The entry points, compiled once for each type of number.
//!
//! The kernels are generic over the cell, the number and the register. Were they generic for
//! the crates that use this one too, each of them would compile all of them again; here they
//! are called with types that are fixed, so they are compiled with this crate and nowhere else.

use seqrs_core::backend::{Backward, Forward};
use seqrs_core::spec::Shape;
use seqrs_core::{Error, with_cell};

use crate::backward::backward;
use crate::cpu::Cpu;
use crate::forward::forward;
use crate::lanes::Element;
use crate::level::Level;
use crate::matrix::{How, Matrix};
use crate::outer::Outer;
use crate::pack::{Panels, Source};
use crate::weights::Weights;

/// What this crate does with numbers of one type.
pub(crate) trait Compiled: Sized {
    /// Whether it is `f32`, which small numbers are multiplied with.
    const IS_F32: bool;

    fn weights(level: Level, shape: &Shape, numbers: &[Self]) -> Result<Weights<Self>, Error>;
    fn forward(cpu: &Cpu<Self>, run: Forward<'_, Cpu<Self>>) -> Result<(), Error>
    where
        Self: Element;
    fn backward(cpu: &Cpu<Self>, run: Backward<'_, Cpu<Self>>) -> Result<(), Error>
    where
        Self: Element;
    fn plain(
        level: Level,
        source: &Source<'_, Self>,
        columns: usize,
        depth: usize,
    ) -> Result<Panels<Self>, Error>;
    /// # Safety
    /// As [`Matrix::product`].
    unsafe fn product(level: Level, matrix: &Matrix<Self>, x: &[*const Self], y: &[*mut Self]);
    /// # Safety
    /// As [`Outer::run`].
    unsafe fn outer(level: Level, outer: Outer<'_, Self>) -> Result<(), Error>;
}

macro_rules! compiled {
    ($($number:ty: $is_f32:literal),*) => {$(
        impl Compiled for $number {
            const IS_F32: bool = $is_f32;

            fn weights(
                level: Level,
                shape: &Shape,
                numbers: &[Self],
            ) -> Result<Weights<Self>, Error> {
                Weights::new(level, shape, numbers)
            }

            fn forward(cpu: &Cpu<Self>, run: Forward<'_, Cpu<Self>>) -> Result<(), Error> {
                with_cell!(run.shape.cell, C, cell => forward(&cell, cpu, run))
            }

            fn backward(cpu: &Cpu<Self>, run: Backward<'_, Cpu<Self>>) -> Result<(), Error> {
                with_cell!(run.shape.cell, C, cell => backward(&cell, cpu, run))
            }

            fn plain(
                level: Level,
                source: &Source<'_, Self>,
                columns: usize,
                depth: usize,
            ) -> Result<Panels<Self>, Error> {
                Panels::plain(level, source, columns, depth)
            }

            unsafe fn product(
                level: Level,
                matrix: &Matrix<Self>,
                x: &[*const Self],
                y: &[*mut Self],
            ) {
                let how = How { parts: 0..matrix.parts(), downwards: false, ahead: None };
                // SAFETY: by the caller.
                unsafe { matrix.product(level, x, y, how) };
            }

            unsafe fn outer(level: Level, outer: Outer<'_, Self>) -> Result<(), Error> {
                // SAFETY: by the caller.
                unsafe { outer.run(level) }
            }
        }
    )*};
}

compiled!(f32: true, f64: false);
