//! What goes into a model file.

use std::collections::BTreeMap;

use seqrs_core::Error;
use xxhash_rust::xxh64::Xxh64;

use super::container::{Header, Tensor as Entry};
use super::quantised::{Part, parts};
use crate::layer::{Layer, LayerSpec};
use crate::number::{DType, Number};
use crate::quantised::Quantisation;
use crate::quantised::layer::has_matrices;
use crate::quantised::tensor::Tensor;
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
/// Numbers whose bytes are made at a time.
pub(super) const PIECE: usize = 4096;

/// A layer or model to be written.
pub(super) struct Contents<'a, T: Number> {
    layers: Vec<&'a Layer<T>>,
    /// Whether it is one layer and no model.
    alone: bool,
    /// In the order of their bytes.
    tensors: Vec<Written<'a, T>>,
}

/// One tensor of a file.
struct Written<'a, T> {
    part: Part,
    name: String,
    shape: Vec<usize>,
    numbers: Source<'a, T>,
}

/// Where the numbers of a tensor are.
enum Source<'a, T> {
    Numbers(&'a [T]),
    Small(&'a Tensor),
}

impl<'a, T: Number> From<&'a Layer<T>> for Contents<'a, T> {
    fn from(layer: &'a Layer<T>) -> Self {
        Self::new(vec![layer], true)
    }
}

impl<'a, T: Number> From<&'a Sequential<T>> for Contents<'a, T> {
    fn from(model: &'a Sequential<T>) -> Self {
        Self::new(model.layers().iter().collect(), false)
    }
}

impl<'a, T: Number> Contents<'a, T> {
    fn new(layers: Vec<&'a Layer<T>>, alone: bool) -> Self {
        let mut tensors = Vec::new();
        for (k, layer) in layers.iter().enumerate() {
            let prefix = if alone { String::new() } else { prefix(k) };
            let (spec, kind) = (layer.spec(), layer.quantisation());
            for (at, parameter) in layer.parameters().iter().enumerate() {
                for (part, name, shape) in parts(kind, &spec, parameter) {
                    let numbers = match layer.tensors() {
                        None => Source::Numbers(&layer.numbers()[parameter.range.clone()]),
                        Some(tensors) => Source::Small(&tensors[at]),
                    };
                    tensors.push(Written { part, name: format!("{prefix}{name}"), shape, numbers });
                }
            }
        }
        // The wider numbers come first, so that each begins at a multiple of its size; of one size
        // they stay in the order of the layers.
        tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.part.width(T::DTYPE)));
        Self { layers, alone, tensors }
    }

    fn metadata(&self, structure: String) -> BTreeMap<String, String> {
        metadata(T::DTYPE, structure, self.kind())
    }

    /// What the weights became, where some are small.
    fn kind(&self) -> Option<Quantisation> {
        self.layers.iter().find_map(|layer| layer.quantisation())
    }

    /// Whether it is what a reader of small weights takes: a model of which all are of one kind.
    fn check_kinds(&self) -> Result<(), Error> {
        let Some(kind) = self.kind() else { return Ok(()) };
        let expected = format!("a model of {kind} weights in all layers that have matrices");
        let differs =
            |layer: &&&Layer<T>| has_matrices(&layer.spec()) && layer.quantisation() != Some(kind);
        match self.layers.iter().find(differs) {
            _ if self.alone => Err(Error::state("what is saved", expected, "a single layer")),
            Some(layer) => {
                let other = layer.quantisation().map_or(T::NAME, Quantisation::name);
                let got = format!("one of {other} weights beside it ({})", layer.name());
                Err(Error::state("what is saved", expected, got))
            }
            None => Ok(()),
        }
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.check_kinds()?;
        let structure = self.structure(Layer::spec);
        if structure.len() > MAX_STRUCTURE {
            let expected = format!("at most {MAX_STRUCTURE} bytes of JSON");
            return Err(Error::model_file("structure", expected, structure.len()));
        }
        let mut entries = Vec::new();
        let mut end = 0;
        for Written { part, name, shape, .. } in &self.tensors {
            let begin = end;
            let len: usize = shape.iter().product();
            end += (len * part.width(T::DTYPE)) as u64;
            let entry = Entry {
                dtype: part.dtype(T::DTYPE).to_owned(),
                shape: shape.iter().map(|&size| size as u64).collect(),
                data_offsets: (begin, end),
            };
            entries.push((name.clone(), entry));
        }
        let metadata = self.metadata(structure);
        let mut bytes = Header { metadata, tensors: entries }.to_bytes()?;
        bytes.try_reserve_exact(end as usize).map_err(|_| Error::OutOfMemory {
            what: "a model file".into(),
            bytes: u128::from(end),
        })?;
        self.each_piece(|piece| bytes.extend_from_slice(piece));
        Ok(bytes)
    }

    /// Of all that decides the outputs: seeds, which have done their work, are not among it.
    pub(super) fn fingerprint(&self) -> String {
        let structure = self.structure(|layer| layer.spec().with_seed(0));
        let mut hash = Xxh64::new(0);
        hash.update(digits(checksum(&self.metadata(structure))).as_bytes());
        self.each_piece(|piece| hash.update(piece));
        digits(hash.digest())
    }

    /// The bytes of all tensors, some at a time.
    fn each_piece(&self, mut with: impl FnMut(&[u8])) {
        let mut bytes = Vec::new();
        for Written { part, numbers, .. } in &self.tensors {
            match *numbers {
                Source::Small(tensor) => tensor.each_piece(*part, &mut bytes, &mut with),
                Source::Numbers(numbers) => each_piece(numbers, &mut bytes, &mut with),
            }
        }
    }

    fn structure(&self, describe: impl Fn(&Layer<T>) -> LayerSpec) -> String {
        let specs: Vec<LayerSpec> = self.layers.iter().map(|layer| describe(layer)).collect();
        if self.alone { json(&specs[0]) } else { json(&specs) }
    }
}

/// The bytes of numbers, some at a time.
pub(super) fn each_piece<T: Number>(
    numbers: &[T],
    bytes: &mut Vec<u8>,
    with: &mut impl FnMut(&[u8]),
) {
    for numbers in numbers.chunks(PIECE) {
        bytes.clear();
        numbers.iter().for_each(|number| number.append_le(bytes));
        with(bytes);
    }
}

/// What a file says of itself; the kind of small numbers, if its matrices are such.
fn metadata(
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

fn json(structure: &impl serde::Serialize) -> String {
    serde_json::to_string(structure).expect("a structure is plain data")
}
