//! Models with weights of small numbers, in files.
//!
//! A matrix of bf16 is one tensor of that type. One of integers is two: `I8` under the parameter's
//! name, and `F32` under that name with [`SCALE`] behind it, one for each row. The wider numbers
//! come first, so that each begins at a multiple of its size.

use std::io::Read;
use std::path::Path;

use half::bf16;
use seqrs_core::{Error, memory};

use super::container::fill;
use super::contents::{PIECE, each_piece};
use super::description::{Description, wrong};
use super::{LoadOptions, from_file};
use crate::atomic;
use crate::layer::{LayerSpec, NamedParameter};
use crate::number::{DType, Number};
use crate::quantised::layer::has_matrices;
use crate::quantised::tensor::Tensor;
use crate::quantised::{Quantisation, Quantised};

/// What the name of a matrix's scales ends in.
const SCALE: &str = ".scale";

/// What a tensor of a file is of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its numbers.
    Numbers,
    /// Its 8-bit integers.
    Integers,
    /// The scales of its rows.
    Scales,
    /// Its numbers as bf16.
    Halves,
}

impl Part {
    /// The format's name for the type of its numbers; those of `Numbers` are of the model's type.
    pub(super) fn dtype(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (Self::Integers, _) => "I8",
            (Self::Halves, _) => "BF16",
            (Self::Scales, _) | (Self::Numbers, DType::F32) => "F32",
            (Self::Numbers, DType::F64) => "F64",
        }
    }

    /// Bytes of each.
    pub(super) fn width(self, dtype: DType) -> usize {
        match (self, dtype) {
            (Self::Integers, _) => 1,
            (Self::Halves, _) => 2,
            (Self::Scales, _) | (Self::Numbers, DType::F32) => 4,
            (Self::Numbers, DType::F64) => 8,
        }
    }
}

/// The tensors of a parameter: what each is, its name and its shape.
pub(super) fn parts(
    kind: Option<Quantisation>,
    layer: &LayerSpec,
    parameter: &NamedParameter,
) -> Vec<(Part, String, Vec<usize>)> {
    let (name, shape) = (parameter.name.clone(), parameter.shape.clone());
    match kind.filter(|_| has_matrices(layer) && shape.len() == 2) {
        None => vec![(Part::Numbers, name, shape)],
        Some(Quantisation::Bf16) => vec![(Part::Halves, name, shape)],
        Some(Quantisation::Int8) => {
            let scales = (Part::Scales, format!("{name}{SCALE}"), vec![shape[0]]);
            vec![(Part::Integers, name, shape), scales]
        }
    }
}

impl Tensor {
    /// The bytes of one of its tensors in a file, some at a time.
    pub(super) fn each_piece(&self, part: Part, bytes: &mut Vec<u8>, with: &mut impl FnMut(&[u8])) {
        match (part, self) {
            (Part::Numbers, Self::F32(numbers))
            | (Part::Scales, Self::Int8 { scales: numbers, .. }) => {
                each_piece(numbers, bytes, with);
            }
            (Part::Integers, Self::Int8 { integers, .. }) => {
                for integers in integers.chunks(PIECE) {
                    bytes.clear();
                    bytes.extend(integers.iter().map(|&integer| integer as u8));
                    with(bytes);
                }
            }
            (Part::Halves, Self::Bf16(halves)) => {
                for halves in halves.chunks(PIECE) {
                    bytes.clear();
                    halves.iter().for_each(|half| bytes.extend(half.to_le_bytes()));
                    with(bytes);
                }
            }
            _ => unreachable!("the parts follow from the tensor"),
        }
    }
}

/// What is read of a parameter until all of its parts are there.
#[derive(Default)]
pub(super) struct Parts {
    numbers: Vec<f32>,
    integers: Vec<i8>,
    halves: Vec<bf16>,
}

impl Parts {
    /// Reads one of its tensors, of so many numbers.
    pub(super) fn read(
        &mut self,
        source: &mut dyn Read,
        (part, name, len): (Part, &str, usize),
        options: &LoadOptions,
    ) -> Result<(), Error> {
        let what = "the numbers of a model file";
        let number = |k: usize| format!("number {k} of \"{name}\"");
        let finite = "a finite number (allow_nonfinite lets others through)";
        match part {
            Part::Numbers | Part::Scales => {
                let mut bytes = memory::zeros(what, len * 4)?;
                fill(source, &mut bytes)?;
                self.numbers = memory::room(what, len)?;
                self.numbers.extend(bytes.chunks_exact(4).map(f32::from_le));
                let odd = self.numbers.iter().position(|number| !number.is_finite());
                if let Some(k) = odd.filter(|_| !options.allow_nonfinite) {
                    return wrong(&number(k), finite, &self.numbers[k].to_string());
                }
            }
            Part::Integers => {
                let mut bytes = memory::zeros(what, len)?;
                fill(source, &mut bytes)?;
                self.integers = memory::room(what, len)?;
                self.integers.extend(bytes.iter().map(|&byte| byte as i8));
                // The kernels rely on it.
                if let Some(k) = self.integers.iter().position(|&integer| integer == i8::MIN) {
                    return wrong(&number(k), "an integer in -127..=127", "-128");
                }
            }
            Part::Halves => {
                let mut bytes = memory::zeros(what, len * 2)?;
                fill(source, &mut bytes)?;
                self.halves = memory::room(what, len)?;
                let half = |bytes: &[u8]| bf16::from_le_bytes([bytes[0], bytes[1]]);
                self.halves.extend(bytes.chunks_exact(2).map(half));
                let odd = self.halves.iter().position(|half| !half.is_finite());
                if let Some(k) = odd.filter(|_| !options.allow_nonfinite) {
                    return wrong(&number(k), finite, &self.halves[k].to_string());
                }
            }
        }
        Ok(())
    }

    /// The parameter.
    pub(super) fn tensor(self) -> Tensor {
        let Self { numbers, integers, halves } = self;
        match (integers.is_empty(), halves.is_empty()) {
            (false, _) => Tensor::Int8 { integers, scales: numbers },
            (_, false) => Tensor::Bf16(halves),
            _ => Tensor::F32(numbers),
        }
    }
}

impl Quantised {
    /// Writes a model file. The file at `path`, if there is one, is replaced as a whole or not at
    /// all.
    ///
    /// # Errors
    /// [`Error::ModelFile`] if the system refuses; [`Error::OutOfMemory`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        atomic::write(path.as_ref(), &self.to_bytes()?)
    }

    /// Reads a model file that holds one with weights of small numbers, all of them finite.
    ///
    /// # Errors
    /// [`Error::ModelFile`] says what is wrong with the file; [`Error::OutOfMemory`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        from_file(path.as_ref(), |file, len| {
            Description::read(file, len)?.quantised(file, &LoadOptions::default())
        })
    }

    /// The bytes of a model file: the same for the same model.
    ///
    /// # Errors
    /// [`Error::ModelFile`] if there are more tensors than a file may have;
    /// [`Error::OutOfMemory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.model().to_bytes()
    }

    /// A name for exactly this structure and these numbers, 16 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        self.model().fingerprint()
    }
}
