//! What a model file says it holds, checked, and then the model itself.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use seqrs_core::{Error, memory};
use serde_json::Value;

use super::LoadOptions;
use super::container::{Header, Limits, MAX_TENSORS, Tensor, fill};
use super::contents::{FORMAT, MAX_STRUCTURE, QUANTISATION, VERSION, checksum, digits, prefix};
use super::json::Distinct;
use super::quantised::{Part, Parts, parts};
use crate::layer::{Layer, LayerSpec};
use crate::layers::recurrent::{Gru, Lstm, Rnn};
use crate::number::{DType, Number};
use crate::printable::printable;
use crate::quantised::layer::{check, has_matrices, with_tensors};
use crate::quantised::{Quantisation, Quantised};
use crate::sequential::Sequential;

/// Metadata that there is, and all there may be.
const KEYS: [&str; 6] =
    ["checksum", "dtype", "format", "format_version", "min_reader", "structure"];
/// Bytes read at a time; a multiple of every number's size.
const CHUNK: usize = 1 << 16;

/// What a file holds.
pub(super) enum Model<T: Number> {
    Layer(Layer<T>),
    Sequential(Sequential<T>),
}

/// A file's description of its content, every check passed that needs no numbers.
#[derive(Debug)]
pub(super) struct Description {
    dtype: DType,
    quantisation: Option<Quantisation>,
    structure: Structure,
    /// Where each tensor goes, in the order in which their bytes lie.
    places: Vec<Place>,
}

#[derive(Debug)]
struct Structure {
    layers: Vec<LayerSpec>,
    /// Whether it is a single layer and no list.
    single: bool,
}

#[derive(Debug)]
struct Place {
    name: String,
    layer: usize,
    /// Which of the layer's parameters, and what of it.
    parameter: usize,
    part: Part,
    range: Range<usize>,
}

impl Description {
    /// Reads a file of `len` bytes up to the first number.
    pub(super) fn read(source: &mut dyn Read, len: u64) -> Result<Self, Error> {
        let Header { metadata, tensors } = Header::read(source, len, Limits::OWN)?;
        check_metadata(&metadata)?;
        let dtype = match metadata["dtype"].as_str() {
            "float32" => DType::F32,
            "float64" => DType::F64,
            other => return wrong("dtype", "float32 or float64", other),
        };
        let quantisation = match metadata.get(QUANTISATION) {
            None => None,
            Some(_) if dtype != DType::F32 => {
                return wrong("dtype", "float32, with small weights", dtype.name());
            }
            Some(name) => match Quantisation::of_name(name) {
                None => return wrong(QUANTISATION, "int8 or bf16", name),
                known => known,
            },
        };
        let structure = Structure::parse(&metadata["structure"])?;
        structure.check_sizes(dtype, quantisation, &tensors)?;
        if let Some(kind) = quantisation {
            structure.check_small(kind)?;
        }
        let places = structure.places(dtype, quantisation, tensors)?;
        Ok(Self { dtype, quantisation, structure, places })
    }

    pub(super) fn quantisation(&self) -> Option<Quantisation> {
        self.quantisation
    }

    /// Reads the numbers of a model with small weights.
    pub(super) fn quantised(
        self,
        source: &mut dyn Read,
        options: &LoadOptions,
    ) -> Result<Quantised, Error> {
        let Some(kind) = self.quantisation else {
            return wrong("weights", "small ones (int8 or bf16)", self.dtype.name());
        };
        let Structure { layers: specs, .. } = &self.structure;
        let mut parameters: Vec<Vec<Parts>> = Vec::new();
        for (k, spec) in specs.iter().enumerate() {
            let count = spec.parameters().map_err(|error| self.structure.error(k, error))?.len();
            parameters.push((0..count).map(|_| Parts::default()).collect());
        }
        for Place { name, layer, parameter, part, range } in &self.places {
            let tensor = (*part, name.as_str(), range.len());
            parameters[*layer][*parameter].read(source, tensor, options)?;
        }
        let mut layers = Vec::new();
        for (k, (spec, parameters)) in specs.iter().zip(parameters).enumerate() {
            let tensors: Vec<_> = parameters.into_iter().map(Parts::tensor).collect();
            let layer = match has_matrices(spec) {
                true => with_tensors(spec.clone(), tensors),
                false => {
                    let mut numbers = memory::room("parameters", spec.num_parameters()?)?;
                    tensors.iter().for_each(|tensor| numbers.extend(tensor.vector()));
                    Layer::with_numbers(spec.clone(), numbers)
                }
            };
            layers.push(layer.map_err(|error| self.structure.error(k, error))?);
        }
        let model = Sequential::new(layers).map_err(|error| in_file("structure: ", error))?;
        Ok(Quantised::of(kind, model))
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Reads the numbers.
    pub(super) fn model<T: Number>(
        self,
        source: &mut dyn Read,
        options: &LoadOptions,
    ) -> Result<Model<T>, Error> {
        if let Some(kind) = self.quantisation {
            return wrong("weights", T::DTYPE.name(), &format!("{kind} (`seqrs::load` reads it)"));
        }
        if T::DTYPE != self.dtype {
            return wrong("dtype", T::DTYPE.name(), self.dtype.name());
        }
        let mut numbers = Vec::new();
        for (k, spec) in self.structure.layers.iter().enumerate() {
            let count = spec.num_parameters().map_err(|error| self.structure.error(k, error))?;
            numbers.push(memory::zeros::<T>("the numbers of a model file", count)?);
        }
        for Place { name, layer, range, .. } in &self.places {
            let target = &mut numbers[*layer][range.clone()];
            read_numbers(source, target)?;
            if !options.allow_nonfinite
                && let Some(k) =
                    target.iter().position(|number| !Number::to_f64(*number).is_finite())
            {
                let what = format!("number {k} of \"{name}\"");
                let expected = "a finite number (allow_nonfinite lets others through)";
                return wrong(&what, expected, &Number::to_f64(target[k]).to_string());
            }
        }
        let Structure { layers: specs, single } = &self.structure;
        let layers = specs.iter().zip(numbers).enumerate().map(|(k, (spec, numbers))| {
            Layer::with_numbers(spec.clone(), numbers)
                .map_err(|error| self.structure.error(k, error))
        });
        let mut layers = layers.collect::<Result<Vec<_>, Error>>()?;
        Ok(match single {
            true => Model::Layer(layers.remove(0)),
            false => {
                let model = Sequential::new(layers);
                Model::Sequential(model.map_err(|error| in_file("structure: ", error))?)
            }
        })
    }
}

fn read_numbers<T: Number>(source: &mut dyn Read, target: &mut [T]) -> Result<(), Error> {
    let mut bytes = [0; CHUNK];
    for part in target.chunks_mut(CHUNK / T::BYTES) {
        let bytes = &mut bytes[..part.len() * T::BYTES];
        fill(source, bytes)?;
        for (number, bytes) in part.iter_mut().zip(bytes.chunks_exact(T::BYTES)) {
            *number = T::from_le(bytes);
        }
    }
    Ok(())
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Error> {
    let expected = "\"seqrs\" (a file that seqrs saved)";
    match metadata.get("format").map(String::as_str) {
        Some(FORMAT) => {}
        Some(other) => return wrong("format in the metadata", expected, &format!("\"{other}\"")),
        None => return wrong("format in the metadata", expected, "none"),
    }
    let version = |key: &str| {
        let text = metadata.get(key).map_or("none", String::as_str);
        match text.parse::<u32>() {
            Ok(number) if number > 0 && number.to_string() == text => Ok(number),
            _ => wrong(key, "an integer of at least 1", text),
        }
    };
    let (written, readable) = (version("format_version")?, version("min_reader")?);
    if readable > VERSION {
        let expected = format!("at most {VERSION} (a newer seqrs reads this file)");
        return wrong("min_reader", &expected, &readable.to_string());
    }
    if written < readable {
        let expected = format!("at least {readable} (min_reader)");
        return wrong("format_version", &expected, &written.to_string());
    }
    for key in KEYS {
        if !metadata.contains_key(key) {
            return wrong("metadata", &format!("the key \"{key}\""), "none");
        }
    }
    let known = |key: &str| KEYS.contains(&key) || (written > 1 && key == QUANTISATION);
    if let Some(key) = metadata.keys().find(|key| !known(key)) {
        return wrong("metadata", &format!("the keys {}", KEYS.join(", ")), key);
    }
    let expected = digits(checksum(metadata));
    match metadata["checksum"] == expected {
        true => Ok(()),
        false => wrong("checksum of the metadata", &expected, &metadata["checksum"]),
    }
}

impl Structure {
    fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_STRUCTURE {
            let expected = format!("at most {MAX_STRUCTURE} bytes of JSON");
            return wrong("structure", &expected, &text.len().to_string());
        }
        let expected = "a layer or a list of layers, as JSON";
        let Distinct(value) = serde_json::from_str(text)
            .or_else(|error| wrong("structure", expected, &error.to_string()))?;
        let (values, single) = match value {
            Value::Object(_) => (vec![value], true),
            Value::Array(values) => (values, false),
            other => return wrong("structure", expected, &other.to_string()),
        };
        let mut structure = Self { layers: Vec::new(), single };
        for (k, value) in values.into_iter().enumerate() {
            let what = structure.title(k);
            if !value.is_object() {
                return wrong(&what, "an object that describes a layer", &value.to_string());
            }
            let layer: LayerSpec = serde_json::from_value(value)
                .or_else(|error| wrong(&what, "a known layer", &error.to_string()))?;
            structure.layers.push(layer);
        }
        match structure.layers.is_empty() {
            false => Ok(structure),
            true => wrong("structure", "at least one layer", "none"),
        }
    }

    /// Whether there are as many numbers as the structure needs; takes no memory, however
    /// large the sizes.
    fn check_sizes(
        &self,
        dtype: DType,
        quantisation: Option<Quantisation>,
        tensors: &[(String, Tensor)],
    ) -> Result<(), Error> {
        let mut count = 0;
        for (k, layer) in self.layers.iter().enumerate() {
            count += layer.num_parameters().map_err(|error| self.error(k, error))? as u128;
            let (LayerSpec::Rnn(Rnn { num_layers, .. })
            | LayerSpec::Lstm(Lstm { num_layers, .. })
            | LayerSpec::Gru(Gru { num_layers, .. })) = layer
            else {
                continue;
            };
            // Each has two weights at least.
            if *num_layers > MAX_TENSORS.min(tensors.len()) / 2 {
                let what = format!("{}.num_layers", self.title(k));
                let expected = format!("no more than the file's {} tensors make", tensors.len());
                return wrong(&what, &expected, &num_layers.to_string());
            }
        }
        let got = tensors.last().map_or(0, |(_, tensor)| tensor.data_offsets.1);
        if let Some(kind) = quantisation {
            // Exactly how many follows from the tensors; this bounds how many there can be.
            let least = count * if kind == Quantisation::Bf16 { 2 } else { 1 };
            return match u128::from(got) >= least {
                true => Ok(()),
                false => wrong(
                    "data of the file",
                    &format!("at least {least} bytes, for {count} numbers of the structure"),
                    &format!("{got} bytes"),
                ),
            };
        }
        let expected = count * Part::Numbers.width(dtype) as u128;
        match u128::from(got) == expected {
            true => Ok(()),
            false => wrong(
                "data of the file",
                &format!("{expected} bytes, for {count} numbers of the structure"),
                &format!("{got} bytes"),
            ),
        }
    }

    /// Whether it is a model whose weights may be small numbers.
    fn check_small(&self, kind: Quantisation) -> Result<(), Error> {
        if self.single {
            return wrong("structure", "a list of layers, with small weights", "a single layer");
        }
        for (k, spec) in self.layers.iter().enumerate() {
            check(kind, spec, || spec.name().to_owned()).map_err(|error| self.error(k, error))?;
        }
        Ok(())
    }

    /// Where each tensor goes, if they are those of the structure.
    fn places(
        &self,
        dtype: DType,
        quantisation: Option<Quantisation>,
        tensors: Vec<(String, Tensor)>,
    ) -> Result<Vec<Place>, Error> {
        let mut expected = BTreeMap::new();
        for (layer, spec) in self.layers.iter().enumerate() {
            let prefix = if self.single { String::new() } else { prefix(layer) };
            let all = spec.parameters().map_err(|error| self.error(layer, error))?;
            for (k, parameter) in all.into_iter().enumerate() {
                for (part, name, shape) in parts(quantisation, spec, &parameter) {
                    let len: usize = shape.iter().product();
                    let range = match part {
                        Part::Scales => 0..len,
                        _ => parameter.range.clone(),
                    };
                    expected.insert(format!("{prefix}{name}"), (layer, k, part, shape, range));
                }
            }
        }
        let mut places = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let Some((layer, parameter, part, shape, range)) = expected.remove(&name) else {
                let got = format!("\"{name}\"");
                return wrong("tensors of the file", "those of the structure only", &got);
            };
            check_tensor(&name, &tensor, (part, dtype), &shape)?;
            places.push(Place { name, layer, parameter, part, range });
        }
        match expected.first_key_value() {
            None => Ok(places),
            Some((name, _)) => wrong("tensors of the file", &format!("\"{name}\""), "none"),
        }
    }

    fn title(&self, k: usize) -> String {
        if self.single { "structure".into() } else { format!("structure[{k}]") }
    }

    /// The error that layer `k` is not one.
    fn error(&self, k: usize, error: Error) -> Error {
        in_file(&format!("{}.", self.title(k)), error)
    }
}

fn check_tensor(
    name: &str,
    tensor: &Tensor,
    (part, dtype): (Part, DType),
    shape: &[usize],
) -> Result<(), Error> {
    let expected = part.dtype(dtype);
    if tensor.dtype != expected {
        return wrong(&format!("dtype of \"{name}\""), expected, &tensor.dtype);
    }
    let bytes = (shape.iter().product::<usize>() * part.width(dtype)) as u64;
    let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
    if tensor.shape != shape {
        let (expected, got) = (format!("{shape:?}"), format!("{:?}", tensor.shape));
        return wrong(&format!("shape of \"{name}\""), &expected, &got);
    }
    let (begin, end) = tensor.data_offsets;
    match end - begin == bytes {
        true => Ok(()),
        false => wrong(
            &format!("data_offsets of \"{name}\""),
            &format!("{bytes} bytes"),
            &format!("{} bytes", end - begin),
        ),
    }
}

/// An error about an option or size, as one about the file.
fn in_file(prefix: &str, error: Error) -> Error {
    match error {
        Error::Shape { what, expected, got }
        | Error::DType { what, expected, got }
        | Error::Option { what, expected, got } => {
            Error::ModelFile { what: format!("{prefix}{what}"), expected, got }
        }
        other => other,
    }
}

/// A [`Error::ModelFile`]; what came is from the file and is made fit to be shown.
pub(super) fn wrong<R>(what: &str, expected: &str, got: &str) -> Result<R, Error> {
    Err(Error::model_file(what, expected, printable(got)))
}

macro_rules! model_into {
    ($kind:ident, $expected:literal, $other:ident, $got:literal) => {
        impl<T: Number> TryFrom<Model<T>> for $kind<T> {
            type Error = Error;

            fn try_from(model: Model<T>) -> Result<Self, Error> {
                match model {
                    Model::$kind(model) => Ok(model),
                    Model::$other(_) => wrong("structure", $expected, $got),
                }
            }
        }
    };
}

model_into!(Layer, "a single layer", Sequential, "a list of layers");
model_into!(Sequential, "a list of layers", Layer, "a single layer");
