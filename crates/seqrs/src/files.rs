//! Model files: one safetensors file, numbers and structure, nothing else.
//!
//! The structure is JSON in the file's metadata, in a closed language: the kinds of layers
//! there are and their options. There is no code in a file, no name to import, no path and
//! no address. Reading is done in this order, each check before the next thing is looked
//! at:
//!
//! 1. it is a regular file and its header describes its bytes exactly;
//! 2. the metadata is ours, of a version that this reader knows, and undamaged;
//! 3. the structure describes layers that fit together;
//! 4. every tensor's name, shape and type follow from the structure: none missing, none too
//!    many;
//! 5. only now memory is asked for, as many numbers as the file has, and filled;
//! 6. the numbers are finite, unless the caller allows others.
//!
//! # Metadata
//! | key | value |
//! |---|---|
//! | `format` | `seqrs` |
//! | `format_version` | the version that was written, 1; 2 with `quantisation` |
//! | `min_reader` | the lowest version whose readers understand the file, the same |
//! | `dtype` | `float32` or `float64` |
//! | `quantisation` | `int8` or `bf16`, only where matrices are such ([`quantised`](crate::quantised)) |
//! | `structure` | a [`LayerSpec`](crate::layer::LayerSpec), or a list of them for a [`Sequential`] |
//! | `checksum` | XXH64 of the other entries, each `key NUL value NUL`, sorted by key |
//!
//! Tensors have the parameters' names; in a list, `{index}.{parameter}`. A matrix of 8-bit integers
//! has a second one with the scales of its rows, of the same name and `.scale`.

pub(crate) mod container;
mod contents;
mod description;
mod foreign;
pub(crate) mod json;
pub(crate) mod quantised;
pub(crate) mod regular;

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use seqrs_core::Error;

use crate::atomic;
use crate::layer::Layer;
use crate::number::{DType, Number};
use crate::quantised::Quantised;
use crate::sequential::Sequential;
use container::{Header, Limits, Tensor};
use contents::Contents;
use description::{Description, Model};

/// Whatever a model file holds.
#[derive(Clone, Debug)]
pub enum AnyModel {
    /// A single layer in `f32`.
    LayerF32(Layer<f32>),
    /// A single layer in `f64`.
    LayerF64(Layer<f64>),
    /// A model in `f32`.
    SequentialF32(Sequential<f32>),
    /// A model in `f64`.
    SequentialF64(Sequential<f64>),
    /// A model with weights of small numbers.
    Quantised(Quantised),
}

/// What a reader lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether numbers may be NaN or infinite.
    pub allow_nonfinite: bool,
}

/// Reads a model file, whatever it holds.
///
/// # Errors
/// [`Error::ModelFile`] says what is wrong with the file; [`Error::OutOfMemory`].
pub fn load(path: impl AsRef<Path>) -> Result<AnyModel, Error> {
    load_with(path, &LoadOptions::default())
}

/// Reads a model file, whatever it holds.
///
/// # Errors
/// [`Error::ModelFile`] says what is wrong with the file; [`Error::OutOfMemory`].
pub fn load_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<AnyModel, Error> {
    from_file(path.as_ref(), |file, len| read_any(file, len, options))
}

/// What the header of a safetensors file says of one of its arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTensor {
    /// Its name.
    pub name: String,
    /// The format's word for the type of its numbers, such as `F32`, known here or not.
    pub dtype: String,
    /// Its sizes.
    pub shape: Vec<u64>,
    /// Where its bytes lie in the file.
    pub bytes: Range<u64>,
}

/// The arrays of a safetensors file of any library, in the order of their bytes, which cover
/// the rest of the file exactly; none is read. How many bytes a type of numbers takes is not
/// known here.
///
/// # Errors
/// [`Error::ModelFile`] says what is wrong with the file.
pub fn foreign_tensors(path: impl AsRef<Path>) -> Result<Vec<ForeignTensor>, Error> {
    from_file(path.as_ref(), |file, len| {
        let Header { tensors, .. } = Header::read(file, len, Limits::FOREIGN)?;
        let data = len - tensors.last().map_or(0, |(_, tensor)| tensor.data_offsets.1);
        let tensor = |(name, Tensor { dtype, shape, data_offsets: (begin, end) })| ForeignTensor {
            name,
            dtype,
            shape,
            bytes: data + begin..data + end,
        };
        Ok(tensors.into_iter().map(tensor).collect())
    })
}

impl AnyModel {
    /// Reads the bytes of a model file.
    ///
    /// # Errors
    /// [`Error::ModelFile`] says what is wrong with them; [`Error::OutOfMemory`].
    pub fn from_bytes(mut bytes: &[u8], options: &LoadOptions) -> Result<Self, Error> {
        let len = bytes.len() as u64;
        read_any(&mut bytes, len, options)
    }

    /// The bytes of a model file: the same for the same model.
    ///
    /// # Errors
    /// [`Error::ModelFile`] if there are more tensors than a file may have;
    /// [`Error::OutOfMemory`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::LayerF32(layer) => layer.to_bytes(),
            Self::LayerF64(layer) => layer.to_bytes(),
            Self::SequentialF32(model) => model.to_bytes(),
            Self::SequentialF64(model) => model.to_bytes(),
            Self::Quantised(model) => model.to_bytes(),
        }
    }

    /// The type of its numbers.
    pub fn dtype(&self) -> DType {
        match self {
            Self::LayerF32(_) | Self::SequentialF32(_) | Self::Quantised(_) => DType::F32,
            Self::LayerF64(_) | Self::SequentialF64(_) => DType::F64,
        }
    }
}

macro_rules! files_of {
    ($model:ident) => {
        impl<T: Number> $model<T> {
            /// Writes a model file. The file at `path`, if there is one, is replaced as a
            /// whole or not at all.
            ///
            /// # Errors
            /// [`Error::ModelFile`] if the system refuses; as [`to_bytes`](Self::to_bytes).
            pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
                atomic::write(path.as_ref(), &self.to_bytes()?)
            }

            /// Reads a model file that holds one of this kind and type of numbers, all of
            /// them finite; [`load_with`](crate::files::load_with) reads any.
            ///
            /// # Errors
            /// [`Error::ModelFile`] says what is wrong with the file;
            /// [`Error::OutOfMemory`].
            pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
                from_file(path.as_ref(), |file, len| {
                    let description = Description::read(file, len)?;
                    let model = description.model::<T>(file, &LoadOptions::default())?;
                    model.try_into()
                })
            }

            /// The bytes of a model file: the same for the same model.
            ///
            /// # Errors
            /// [`Error::ModelFile`] if there are more tensors than a file may have;
            /// [`Error::State`] if weights are small ones and it is no model, or they are of
            /// several kinds; [`Error::OutOfMemory`].
            pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
                Contents::from(self).to_bytes()
            }

            /// A name for exactly this structure and these numbers, 16 hexadecimal digits:
            /// other models have others, but for chance (1 in 2^64).
            pub fn fingerprint(&self) -> String {
                Contents::from(self).fingerprint()
            }
        }
    };
}

files_of!(Layer);
files_of!(Sequential);

fn read_any(source: &mut dyn Read, len: u64, options: &LoadOptions) -> Result<AnyModel, Error> {
    let description = Description::read(source, len)?;
    if description.quantisation().is_some() {
        return Ok(AnyModel::Quantised(description.quantised(source, options)?));
    }
    Ok(match description.dtype() {
        DType::F32 => match description.model(source, options)? {
            Model::Layer(layer) => AnyModel::LayerF32(layer),
            Model::Sequential(model) => AnyModel::SequentialF32(model),
        },
        DType::F64 => match description.model(source, options)? {
            Model::Layer(layer) => AnyModel::LayerF64(layer),
            Model::Sequential(model) => AnyModel::SequentialF64(model),
        },
    })
}

/// Reads a file; errors about it name it.
fn from_file<R>(
    path: &Path,
    read: impl FnOnce(&mut dyn Read, u64) -> Result<R, Error>,
) -> Result<R, Error> {
    let (mut file, len) = regular::open(path)?;
    read(&mut file, len).map_err(|error| match error {
        Error::ModelFile { what, expected, got } => {
            Error::ModelFile { what: format!("{path:?}: {what}"), expected, got }
        }
        other => other,
    })
}
