//! What goes into a model file.

use std::collections::BTreeMap;

use seqrs_core::Error;
use xxhash_rust::xxh64::Xxh64;

use super::container::{Header, Tensor};
use super::quantised::Part;
use crate::layer::{Layer, LayerSpec};
use crate::number::{DType, Number};
use crate::quantised::Quantisation;
use crate::sequential::Sequential;

/// The value of `format`.
pub(super) const FORMAT: &str = "seqrs";
/// The highest version that is read: that of files of small numbers.
pub(super) const VERSION: u32 = 2;
/// The version of all others.
const PLAIN_VERSION: u32 = 1;
/// The key that says what matrices are made of, where they are small numbers.
pub(super) const QUANTISATION: &str = "quantisation";
/// Longest structure, in bytes: more than a thousand layers. It bounds the memory that
/// reading one takes.
pub(super) const MAX_STRUCTURE: usize = 256 << 10;

/// A layer or model to be written.
pub(super) struct Contents<'a, T: Number> {
    /// What the tensors' names begin with, layer by layer.
    layers: Vec<(String, &'a Layer<T>)>,
    /// Whether it is one layer and no model.
    alone: bool,
}

impl<'a, T: Number> From<&'a Layer<T>> for Contents<'a, T> {
    fn from(layer: &'a Layer<T>) -> Self {
        Self { layers: vec![(String::new(), layer)], alone: true }
    }
}

impl<'a, T: Number> From<&'a Sequential<T>> for Contents<'a, T> {
    fn from(model: &'a Sequential<T>) -> Self {
        let layers = model.layers().iter().enumerate();
        Self { layers: layers.map(|(k, layer)| (prefix(k), layer)).collect(), alone: false }
    }
}

impl<T: Number> Contents<'_, T> {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let structure = self.structure(Layer::spec);
        if structure.len() > MAX_STRUCTURE {
            let expected = format!("at most {MAX_STRUCTURE} bytes of JSON");
            return Err(Error::model_file("structure", expected, structure.len()));
        }
        let mut tensors = Vec::new();
        let mut end = 0;
        for (prefix, layer) in &self.layers {
            for parameter in layer.parameters() {
                let begin = end;
                end += (parameter.range.len() * T::BYTES) as u64;
                let tensor = Tensor {
                    dtype: Part::Numbers.dtype(T::DTYPE).to_owned(),
                    shape: parameter.shape.iter().map(|&size| size as u64).collect(),
                    data_offsets: (begin, end),
                };
                tensors.push((format!("{prefix}{}", parameter.name), tensor));
            }
        }
        let mut bytes =
            Header { metadata: metadata(T::DTYPE, structure, None), tensors }.to_bytes()?;
        bytes.try_reserve_exact(end as usize).map_err(|_| Error::OutOfMemory {
            what: "a model file".into(),
            bytes: u128::from(end),
        })?;
        for (_, layer) in &self.layers {
            layer.numbers().iter().for_each(|number| number.append_le(&mut bytes));
        }
        Ok(bytes)
    }

    /// Of all that decides the outputs: seeds, which have done their work, are not among it.
    pub(super) fn fingerprint(&self) -> String {
        let structure = self.structure(|layer| layer.spec().with_seed(0));
        let mut hash = Xxh64::new(0);
        hash.update(digits(checksum(&metadata(T::DTYPE, structure, None))).as_bytes());
        let mut bytes = Vec::new();
        for numbers in self.layers.iter().flat_map(|(_, layer)| layer.numbers().chunks(4096)) {
            bytes.clear();
            numbers.iter().for_each(|number| number.append_le(&mut bytes));
            hash.update(&bytes);
        }
        digits(hash.digest())
    }

    fn structure(&self, describe: impl Fn(&Layer<T>) -> LayerSpec) -> String {
        let specs: Vec<LayerSpec> = self.layers.iter().map(|(_, layer)| describe(layer)).collect();
        if self.alone { json(&specs[0]) } else { json(&specs) }
    }
}

/// What a file says of itself; the kind of small numbers, if its matrices are such.
pub(super) fn metadata(
    dtype: DType,
    structure: String,
    kind: Option<Quantisation>,
) -> BTreeMap<String, String> {
    let version = if kind.is_some() { VERSION } else { PLAIN_VERSION };
    let entries = [
        ("format", FORMAT.to_owned()),
        ("format_version", version.to_string()),
        ("min_reader", version.to_string()),
        ("dtype", dtype.name().to_owned()),
        ("structure", structure),
    ];
    let mut metadata: BTreeMap<String, String> =
        entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    if let Some(kind) = kind {
        metadata.insert(QUANTISATION.into(), kind.name().to_owned());
    }
    metadata.insert("checksum".into(), digits(checksum(&metadata)));
    metadata
}

/// XXH64 of the entries but for `checksum`, each `key NUL value NUL`, sorted by key. The
/// tensors need none: their names, shapes and places follow from the structure.
pub(super) fn checksum(metadata: &BTreeMap<String, String>) -> u64 {
    let mut hash = Xxh64::new(0);
    for (key, value) in metadata.iter().filter(|&(key, _)| key != "checksum") {
        for text in [key, value] {
            hash.update(text.as_bytes());
            hash.update(&[0]);
        }
    }
    hash.digest()
}

/// How a checksum is written.
pub(super) fn digits(checksum: u64) -> String {
    format!("{checksum:016x}")
}

/// What the tensors' names of layer `k` of a model begin with.
pub(super) fn prefix(k: usize) -> String {
    format!("{k}.")
}

pub(super) fn json(structure: &impl serde::Serialize) -> String {
    serde_json::to_string(structure).expect("a structure is plain data")
}
