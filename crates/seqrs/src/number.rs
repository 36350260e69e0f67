//! The number types that networks are computed in, and their names.

use num_traits::NumAssignOps;
use seqrs_core::real::Real;
use seqrs_cpu::lanes::Element;
use serde::{Deserialize, Serialize};

/// `f32` or `f64`.
///
/// It brings [`num_traits::Float`] with it. Where a name is there twice, as `tanh`, the
/// one of `Float` is the system's and the one of
/// [`Lanes`](seqrs_core::lanes::Lanes) the library's own.
pub trait Number: Element + Real + NumAssignOps {
    /// The name of the type at run time.
    const DTYPE: DType;
    /// Bytes of one number.
    const BYTES: usize;

    /// The nearest number of this type.
    fn from_f64(value: f64) -> Self;
    /// The same number as `f64`, exactly.
    fn to_f64(self) -> f64;
    /// Appends the number's bytes, the least significant first.
    fn append_le(self, bytes: &mut Vec<u8>);
    /// The number of [`Number::BYTES`] bytes, the least significant first.
    ///
    /// # Panics
    /// If there are more or fewer bytes.
    fn from_le(bytes: &[u8]) -> Self;
}

macro_rules! numbers {
    ($($float:ident $dtype:ident $bytes:literal;)*) => {$(
        impl Number for $float {
            const DTYPE: DType = DType::$dtype;
            const BYTES: usize = $bytes;

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $float
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn append_le(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn from_le(bytes: &[u8]) -> Self {
                let bytes = bytes.try_into().expect("as many bytes as a number has");
                <$float>::from_le_bytes(bytes)
            }
        }
    )*};
}

numbers! {
    f32 F32 4;
    f64 F64 8;
}

/// A type of numbers, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DType {
    /// `f32`.
    #[serde(rename = "float32")]
    F32,
    /// `f64`.
    #[serde(rename = "float64")]
    F64,
}

impl DType {
    /// `"float32"` or `"float64"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => f32::NAME,
            Self::F64 => f64::NAME,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_json_and_in_messages() {
        for dtype in [DType::F32, DType::F64] {
            assert_eq!(serde_json::to_string(&dtype).unwrap(), format!("\"{dtype}\""));
        }
    }

    #[test]
    fn bytes_come_back_as_the_same_number() {
        fn check<T: Number>() {
            for value in [0.0, -0.0, 1.5, f64::INFINITY] {
                let mut bytes = Vec::new();
                T::from_f64(value).append_le(&mut bytes);
                assert_eq!(bytes.len(), T::BYTES);
                assert_eq!(T::from_le(&bytes).to_f64().to_bits(), value.to_bits());
            }
        }
        check::<f32>();
        check::<f64>();
    }
}
