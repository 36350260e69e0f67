//! Parameters by name, from Python's mappings into layers.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use seqrs::{LayerSpec, Sequential};

use crate::arrays::{self, shape_words};
use crate::errors;
use crate::network::Elem;
use crate::state::Holder;

/// At most so many names in a message.
const SHOWN: usize = 6;

/// What a mapping has for a model.
pub(crate) struct Found<T> {
    /// The new numbers of each layer.
    pub(crate) layers: Vec<Vec<T>>,
    /// Parameters that the mapping does not name.
    pub(crate) missing: Vec<String>,
    /// Names of no parameter.
    pub(crate) unexpected: Vec<String>,
}

/// The new numbers of each layer of `model`. Nothing is changed here, so that one array that
/// does not fit leaves all as it was.
///
/// # Errors
/// `ShapeError` for names and shapes that do not fit, `DTypeError` for other data.
pub(crate) fn read<T: Elem>(
    model: &Sequential<T>,
    holder: Holder,
    mapping: &Bound<'_, PyDict>,
    strict: bool,
) -> PyResult<Found<T>> {
    let py = mapping.py();
    let mut unexpected: Vec<String> = mapping.keys().extract()?;
    let mut missing = Vec::new();
    let mut all = Vec::new();
    for (k, layer) in model.layers().iter().enumerate() {
        let prefix = match holder {
            Holder::Layer => String::new(),
            Holder::Model => format!("{k}."),
        };
        let parameters = layer.parameters();
        for parameter in &parameters {
            let name = format!("{prefix}{}", parameter.name);
            match unexpected.iter().position(|other| *other == name) {
                Some(at) => drop(unexpected.remove(at)),
                None => missing.push(name),
            }
        }
        refuse_other_gru(py, &layer.spec(), &prefix, &unexpected, &missing, mapping)?;
        all.push((prefix, parameters));
    }
    if strict && !(missing.is_empty() && unexpected.is_empty()) {
        let what = match holder {
            Holder::Layer => format!("exactly the parameters of this {}", model.layers()[0].name()),
            Holder::Model => "exactly the parameters of this model".to_owned(),
        };
        let mut got = Vec::new();
        if !missing.is_empty() {
            got.push(format!("none named {}", listed(&missing)));
        }
        if !unexpected.is_empty() {
            got.push(format!("also {}", listed(&unexpected)));
        }
        return Err(errors::shape(py, "state_dict", what, got.join(" and ")));
    }
    let mut layers = Vec::new();
    for (layer, (prefix, parameters)) in model.layers().iter().zip(all) {
        let mut numbers = arrays::copied("parameters", layer.numbers())
            .map_err(|error| errors::raise(py, error))?;
        for parameter in parameters {
            let name = format!("{prefix}{}", parameter.name);
            let Some(given) = mapping.get_item(&name)? else { continue };
            let array = arrays::real::<T>(&name, &given)?;
            if array.shape() != parameter.shape {
                let expected = format!("shape {}", shape_words(&parameter.shape));
                return Err(errors::shape(py, name, expected, shape_words(array.shape())));
            }
            numbers[parameter.range].copy_from_slice(array.numbers());
        }
        layers.push(numbers);
    }
    Ok(Found { layers, missing, unexpected })
}

/// The two forms of the GRU are different functions. Their weights differ by `bias_hh`, so
/// weights of one in the other are told by it, and refused whether or not names must match.
fn refuse_other_gru(
    py: Python<'_>,
    spec: &LayerSpec,
    prefix: &str,
    unexpected: &[String],
    missing: &[String],
    mapping: &Bound<'_, PyDict>,
) -> PyResult<()> {
    let LayerSpec::Gru(gru) = spec else { return Ok(()) };
    let bias_hh = format!("{prefix}bias_hh_l");
    let found = unexpected.iter().find(|name| name.starts_with(&bias_hh));
    if let Some(name) = found.filter(|_| !gru.reset_after) {
        let expected = "no such parameter in a GRU with reset_after=False";
        let got = "weights of a GRU with reset_after=True (PyTorch's), which is another function";
        return Err(errors::shape(py, name, expected, got));
    }
    let absent = missing.iter().find(|name| name.starts_with(&bias_hh));
    if let Some(name) = absent.filter(|_| gru.reset_after)
        && mapping.contains(name.replacen("bias_hh_l", "bias_ih_l", 1))?
    {
        let expected = "this parameter of a GRU with reset_after=True";
        let got = "none: weights of a GRU with reset_after=False, which is another function";
        return Err(errors::shape(py, name, expected, got));
    }
    Ok(())
}

/// The first names, escaped.
fn listed(names: &[String]) -> String {
    let mut words: Vec<String> =
        names.iter().take(SHOWN).map(|name| format!("'{}'", name.escape_debug())).collect();
    if names.len() > SHOWN {
        words.push(format!("{} more", names.len() - SHOWN));
    }
    words.join(", ")
}
