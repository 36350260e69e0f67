//! JSON as a file may have it: no key twice.
//!
//! JSON leaves open which of two equal keys counts, so one reader can be shown a different
//! file than another. Keys are compared after their escapes are resolved. Depth is limited
//! by serde_json.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::printable::printable;

/// Any JSON value in which no object has a key twice.
pub(crate) struct Distinct(pub(crate) Value);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DistinctVisitor).map(Self)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Distinct(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if values.contains_key(&key) {
                return Err(twice(&key));
            }
            let Distinct(value) = entries.next_value()?;
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}

/// The error for a key that came before.
pub(crate) fn twice<E: Error>(key: &str) -> E {
    E::custom(format_args!("the key \"{}\" twice", printable(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Value, String> {
        serde_json::from_str(text).map(|Distinct(value)| value).map_err(|e| e.to_string())
    }

    #[test]
    fn values_are_those_of_serde_json() {
        for text in ["null", "[1,-2,0.5,true]", r#"{"a":{"b":[]},"c":"d"}"#, "18446744073709551615"]
        {
            assert_eq!(parse(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn a_key_twice_is_refused_also_when_escaped() {
        assert!(parse(r#"{"kind":1,"kind":1}"#).unwrap_err().contains("\"kind\" twice"));
        assert!(parse(r#"[{"kind":1,"\u006bind":1}]"#).unwrap_err().contains("\"kind\" twice"));
    }

    #[test]
    fn depth_is_limited() {
        assert!(parse(&"[".repeat(100_000)).unwrap_err().contains("recursion limit"));
    }
}
