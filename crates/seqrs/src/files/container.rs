//! The safetensors format: a length, a JSON header, numbers.
//!
//! ```text
//! 8 bytes: length n of the header, least significant byte first
//! n bytes: {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets": [begin, end]}, ...}
//! the rest: the tensors' bytes; offsets count from here
//! ```
//!
//! Stricter than the format asks: no key twice, nothing but spaces behind the header, a
//! small header of few tensors, and the tensors cover the rest exactly, without overlap or
//! gap. What is written is always the same for the same content.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use seqrs_core::Error;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::foreign;
use super::json::twice;
use crate::printable::printable;

/// Most tensors of a file of ours. A stack of a thousand bidirectional layers has 8000.
pub(crate) const MAX_TENSORS: usize = 10_000;

/// How large a header may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes.
    header: u64,
    tensors: usize,
}

impl Limits {
    /// Of files that are written here: [`MAX_TENSORS`] tensors take about 1 MiB.
    pub(crate) const OWN: Self = Self { header: 4 << 20, tensors: MAX_TENSORS };
    /// Of files of any library, which may hold more than a recurrent model.
    pub(crate) const FOREIGN: Self = Self { header: 16 << 20, tensors: 50_000 };
}

/// Most sizes of a tensor; no parameter of a layer has more than two.
const MAX_RANK: usize = 32;
/// The header's length.
const LENGTH: u64 = 8;
const METADATA: &str = "__metadata__";

/// What a file says about itself.
#[derive(Debug)]
pub(crate) struct Header {
    /// Free text by key.
    pub(crate) metadata: BTreeMap<String, String>,
    /// In the order in which their bytes lie.
    pub(crate) tensors: Vec<(String, Tensor)>,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tensor {
    /// Type of its numbers, such as `F32`.
    pub(crate) dtype: String,
    /// Its sizes.
    #[serde(deserialize_with = "sizes")]
    pub(crate) shape: Vec<u64>,
    /// Where its bytes begin and end, counted from the end of the header.
    pub(crate) data_offsets: (u64, u64),
}

impl Header {
    /// Reads the header of a file of `len` bytes and stops in front of the first tensor.
    pub(crate) fn read(source: &mut dyn Read, len: u64, limits: Limits) -> Result<Self, Error> {
        let wrong = |what: &str, expected: String, got: &dyn fmt::Display| {
            Err(Error::model_file(what, expected, printable(&got.to_string())))
        };
        if len < LENGTH {
            let expected = "a safetensors file, of at least 8 bytes".into();
            return wrong("length of the file", expected, &format_args!("{len} bytes"));
        }
        let mut length = [0; LENGTH as usize];
        fill(source, &mut length)?;
        let header_len = u64::from_le_bytes(length);
        if header_len > limits.header || header_len > len - LENGTH {
            let mut start = length.to_vec();
            start.resize(foreign::START.min(len as usize), 0);
            fill(source, &mut start[length.len()..])?;
            let safetensors = || "safetensors".to_string();
            if let Some(format) = foreign::recognise(&start) {
                return wrong("format of the file", safetensors(), &format);
            }
            // A length is told of where it may have been meant as one: text and most other
            // things do not begin with a number as small, nor go on with an object.
            if header_len >= 1 << 40 && start.get(LENGTH as usize) != Some(&b'{') {
                let got = format_args!("a file that begins with \"{}\"", start.escape_ascii());
                return wrong("format of the file", safetensors(), &got);
            }
            let expected = format!("at most {}", limits.header.min(len - LENGTH));
            return wrong("length of the header", expected, &header_len);
        }
        let mut bytes = vec![0; header_len as usize];
        fill(source, &mut bytes)?;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text.trim_end_matches(' '),
            Err(error) => return wrong("header", "UTF-8".into(), &error),
        };
        if !text.starts_with('{') || !text.ends_with('}') {
            let got = text.get(..20).unwrap_or(text);
            return wrong("header", "a JSON object".into(), &got);
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let entries = json
            .deserialize_map(EntriesVisitor { most: limits.tensors })
            .and_then(|entries| json.end().map(|()| entries));
        let Entries { metadata, mut tensors } = match entries {
            Ok(entries) => entries,
            Err(error) => {
                return wrong("header", "a JSON object as safetensors has it".into(), &error);
            }
        };
        tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
        let mut end = 0;
        for (name, tensor) in &tensors {
            let (begin, after) = tensor.data_offsets;
            if begin != end || after < begin {
                let what = format!("data_offsets of \"{}\"", printable(name));
                let expected = format!("[{end}, an end not below that] (no overlap and no gap)");
                return wrong(&what, expected, &format_args!("[{begin}, {after}]"));
            }
            end = after;
        }
        let data = len - LENGTH - header_len;
        if end != data {
            let expected = format!("{end} bytes, as the header says");
            return wrong("data of the file", expected, &format_args!("{data} bytes"));
        }
        Ok(Self { metadata, tensors })
    }

    /// The bytes in front of the tensors' bytes, which follow in the order of
    /// `self.tensors`.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let too_large = |what: &str, most: u64, got: usize| {
            Err(Error::model_file(what, format!("at most {most}"), got))
        };
        if self.tensors.len() > MAX_TENSORS {
            return too_large("tensors of a file", MAX_TENSORS as u64, self.tensors.len());
        }
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let metadata: Vec<String> =
            self.metadata.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
        let mut text = format!("{{{}:{{{}}}", quoted(METADATA), metadata.join(","));
        for (name, Tensor { dtype, shape, data_offsets: (begin, end) }) in &self.tensors {
            let sizes: Vec<String> = shape.iter().map(u64::to_string).collect();
            text += &format!(
                ",{}:{{\"dtype\":{},\"shape\":[{}],\"data_offsets\":[{begin},{end}]}}",
                quoted(name),
                quoted(dtype),
                sizes.join(",")
            );
        }
        text.push('}');
        // Numbers begin at a multiple of their size.
        while text.len() % 8 != 0 {
            text.push(' ');
        }
        let most = Limits::OWN.header;
        if text.len() as u64 > most {
            return too_large("length of the header", most, text.len());
        }
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        Ok(bytes)
    }
}

/// Fills the buffer from the source.
pub(crate) fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> Result<(), Error> {
    source
        .read_exact(buffer)
        .map_err(|error| Error::model_file("content of the file", "to be readable", error))
}

struct Entries {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Tensor)>,
}

struct EntriesVisitor {
    most: usize,
}

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Entries, A::Error> {
        let mut metadata = None;
        let mut tensors = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key == METADATA {
                if metadata.is_some() {
                    return Err(twice(&key));
                }
                let Texts(texts) = entries.next_value()?;
                metadata = Some(texts);
            } else if tensors.contains_key(&key) {
                return Err(twice(&key));
            } else if tensors.len() == self.most {
                return Err(A::Error::custom(format_args!("more than {} tensors", self.most)));
            } else {
                let tensor: Tensor = entries.next_value()?;
                tensors.insert(key, tensor);
            }
        }
        let metadata = metadata.unwrap_or_default();
        Ok(Entries { metadata, tensors: tensors.into_iter().collect() })
    }
}

/// Sizes, not more than [`MAX_RANK`]; what comes after these is not even looked at.
fn sizes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
    from.deserialize_seq(SizesVisitor)
}

struct SizesVisitor;

impl<'de> Visitor<'de> for SizesVisitor {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<u64>, A::Error> {
        let mut sizes = Vec::new();
        while let Some(size) = items.next_element()? {
            if sizes.len() == MAX_RANK {
                return Err(A::Error::custom(format_args!("more than {MAX_RANK} sizes")));
            }
            sizes.push(size);
        }
        Ok(sizes)
    }
}

/// Text by key, no key twice.
struct Texts(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Texts, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some((key, text)) = entries.next_entry::<String, String>()? {
            if texts.contains_key(&key) {
                return Err(twice(&key));
            }
            texts.insert(key, text);
        }
        Ok(Texts(texts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Header, Error> {
        Header::read(&mut &bytes[..], bytes.len() as u64, Limits::OWN)
    }

    fn message(bytes: &[u8]) -> String {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, Error::ModelFile { .. }), "{error:?}");
        error.to_string()
    }

    #[test]
    fn what_was_written_is_read_and_the_crate_of_the_format_agrees() {
        let tensor = |shape: &[u64], begin, end| Tensor {
            dtype: "F32".into(),
            shape: shape.to_vec(),
            data_offsets: (begin, end),
        };
        let header = Header {
            metadata: [("a\"\n".to_owned(), "\u{e9}".to_owned())].into(),
            tensors: vec![("z".into(), tensor(&[2, 3], 0, 24)), ("a".into(), tensor(&[], 24, 28))],
        };
        let mut bytes = header.to_bytes().unwrap();
        assert_eq!(bytes.len() % 8, 0);
        bytes.resize(bytes.len() + 28, 0);
        let back = read(&bytes).unwrap();
        assert_eq!((&back.metadata, &back.tensors), (&header.metadata, &header.tensors));
        let peer = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(peer.tensor("z").unwrap().shape(), [2, 3]);
    }

    #[test]
    fn hostile_headers_are_refused_by_what_is_wrong() {
        let one = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        assert!(read(&file(one, 4)).is_ok());
        let with = |from: &str, to: &str| file(&one.replace(from, to), 4);
        let entry = r#""dtype":"F32","shape":[1],"data_offsets""#;
        let two =
            |a: &str, b: &str| file(&format!(r#"{{"a":{{{entry}:{a}}},"b":{{{entry}:{b}}}}}"#), 8);
        let length = |n: u64| [n.to_le_bytes().as_slice(), b"{}"].concat();
        for (bytes, expected) in [
            (vec![], "got 0 bytes"),
            (vec![0; 7], "got 7 bytes"),
            (length(1 << 63), "length of the header: expected at most 2, got 9223372036854775808"),
            (length(3), "length of the header: expected at most 2, got 3"),
            (length(0), "header: expected a JSON object, got "),
            (file(&" ".repeat(100 << 20), 0), "length of the header: expected at most 4194304"),
            (file(&" ".repeat(4 << 20), 0), "header: expected a JSON object"),
            (file("\u{feff}{}", 0), "header: expected a JSON object"),
            ([&length(1)[..8], b"\xff"].concat(), "header: expected UTF-8"),
            (file("[]", 0), "header: expected a JSON object, got []"),
            (file("7", 0), "header: expected a JSON object, got 7"),
            (file("null", 0), "header: expected a JSON object, got null"),
            (file("{}\n", 0), "header: expected a JSON object"),
            (file("{} {}", 0), "trailing characters"),
            (file(&format!("{{\"a\":{}}}", "[".repeat(100_000)), 0), "invalid type: sequence"),
            (with("[1]", &"[".repeat(100_000)), "invalid type"),
            (file(r#"{"__metadata__":{"k":"","\u006b":""}}"#, 0), "the key \"k\" twice"),
            (file(r#"{"__metadata__":{},"__metad\u0061ta__":{}}"#, 0), "twice"),
            (file(r#"{"__metadata__":{"k":1}}"#, 0), "invalid type: integer"),
            (file(&format!(r#"{{"a":{{{entry}:[0,4]}},"\u0061":{{{entry}:[4,8]}}}}"#), 8), "twice"),
            (with(r#""dtype":"F32""#, r#""dtype":"F32","dtyp\u0065":"F32""#), "duplicate field"),
            (with("shape", r"sh\u001bpe"), "unknown field `sh\\u{1b}pe`"),
            (with(r#""dtype":"F32","#, ""), "missing field `dtype`"),
            (two("[0,4]", "[2,6]"), "data_offsets of \"b\": expected [4,"),
            (two("[0,4]", "[5,8]"), "no gap"),
            (two("[0,4]", "[4,2]"), "data_offsets of \"b\": expected [4,"),
            (two("[0,4]", "[4,7]"), "data of the file: expected 7 bytes"),
            (two("[0,4]", "[4,9]"), "data of the file: expected 9 bytes"),
            (with("[1]", "[-1]"), "invalid value: integer `-1`"),
            (with("[1]", "[4.0]"), "invalid type: floating point `4.0`"),
            (with("[1]", "[18446744073709551616]"), "invalid type"),
            (with("[0,4]", "[0,4,8]"), "trailing characters"),
        ] {
            let message = message(&bytes);
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }

    #[test]
    fn too_many_tensors_are_refused() {
        let entries: Vec<String> = (0..40_000)
            .map(|k| format!(r#""{k}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
            .collect();
        let bytes = file(&format!("{{{}}}", entries.join(",")), 0);
        assert!(message(&bytes).contains("more than 10000 tensors"));
        let entries = entries.iter().cycle().take(200_000).cloned().collect::<Vec<_>>();
        let bytes = file(&format!("{{{}}}", entries.join(",")), 0);
        assert!(message(&bytes).contains("length of the header"));
    }

    #[test]
    fn files_of_other_formats_are_named() {
        for (start, name) in [
            (&b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00"[..], "zip"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
            (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "GGUF"),
            (b"\x89HDF\r\n\x1a\n\x00\x00\x00", "HDF5"),
            (b"\x08\x08\x12\x07pytorch\x1a\x03", "ONNX"),
        ] {
            let text = message(start);
            assert!(text.contains(name), "{text}");
        }
    }
}
