//! Which instruction set to compute with, decided once and carried as a token.
//!
//! This is the only place that asks the processor what it has. A [`Level`] can only
//! be had from here, and only for what was found, so whoever holds one may run its
//! instructions: [`Level::dispatch`] is safe.

use crate::lanes::{Element, Simd};
use std::sync::OnceLock;
use std::{env, fmt};

/// An instruction set that this processor has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Level(Set);

/// The instruction sets, by rising speed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Set {
    Scalar,
    Neon,
    Avx2,
    Avx512,
}

/// What runs on the registers of a level.
pub trait Kernel<T: Element> {
    /// What it gives back.
    type Output;

    /// The work, on registers `V`. It must be `#[inline(always)]`, and so must all
    /// that it calls with a `V`: only inside [`Level::dispatch`] are the instructions
    /// enabled, elsewhere they are calls, an order of magnitude slower.
    fn run<V: Simd<Elem = T>>(self) -> Self::Output;
}

/// The environment variable names no level of this processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelError {
    /// What was asked: the name of the variable.
    pub what: &'static str,
    /// The names that this processor accepts.
    pub expected: String,
    /// What came instead.
    pub got: String,
}

impl Level {
    /// The variable that forces a level.
    pub const VARIABLE: &'static str = "SEQRS_LEVEL";

    /// The fastest level that the processor has.
    pub fn detect() -> Self {
        Self(Set::ALL.into_iter().rev().find(|set| set.is_here()).unwrap_or(Set::Scalar))
    }

    /// The level that `SEQRS_LEVEL` names (`scalar`, `avx2`, `avx512` or `neon`), or
    /// the fastest where it is not set; once it was found, it stays for the process.
    ///
    /// # Errors
    /// The value is not one of these names, or this processor lacks the level.
    pub fn from_env() -> Result<Self, LevelError> {
        static FOUND: OnceLock<Level> = OnceLock::new();
        if let Some(&found) = FOUND.get() {
            return Ok(found);
        }
        let level = match env::var_os(Self::VARIABLE) {
            None => Self::detect(),
            Some(value) => Self::parse(&value.to_string_lossy())?,
        };
        Ok(*FOUND.get_or_init(|| level))
    }

    /// All levels that the processor has, by rising speed.
    pub fn available() -> Vec<Self> {
        Set::ALL.into_iter().filter(|set| set.is_here()).map(Self).collect()
    }

    /// The name: `scalar`, `avx2`, `avx512` or `neon`.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Whether this is plain Rust, without a fused multiply-add: its results may
    /// differ from the other levels' in the last places.
    pub fn is_scalar(self) -> bool {
        self.0 == Set::Scalar
    }

    /// Which instruction set it is.
    pub(crate) fn set(self) -> Set {
        self.0
    }

    /// Whether the processor also has the instructions of AVX-512 for products of bytes.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_products_of_bytes(self) -> bool {
        self.0 == Set::Avx512 && is_x86_feature_detected!("avx512vnni")
    }

    /// Runs `kernel` on the registers of this level, compiled for its instructions.
    #[inline]
    #[allow(unused_unsafe)] // Where the whole program is compiled for the level.
    pub fn dispatch<T: Element, K: Kernel<T>>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: a `Level` is only made of a set that `Set::is_here` found.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: a `Level` is only made of a set that `Set::is_here` found.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: a `Level` is only made of a set that `Set::is_here` found.
            #[cfg(target_arch = "aarch64")]
            Set::Neon => unsafe { run_neon(kernel) },
            _ => kernel.run::<T::Portable>(),
        }
    }

    fn parse(value: &str) -> Result<Self, LevelError> {
        let error = |got: String| LevelError {
            what: Self::VARIABLE,
            expected: Self::available()
                .iter()
                .map(|level| level.name())
                .collect::<Vec<_>>()
                .join(", "),
            got,
        };
        match Set::ALL.into_iter().find(|set| set.name() == value) {
            None => Err(error(format!("{value:?}"))),
            Some(set) if !set.is_here() => {
                Err(error(format!("{value:?}, which this processor lacks")))
            }
            Some(set) => Ok(Self(set)),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
#[inline(never)]
pub(crate) fn run_avx512<T: Element, K: Kernel<T>>(kernel: K) -> K::Output {
    kernel.run::<T::Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
pub(crate) fn run_avx2<T: Element, K: Kernel<T>>(kernel: K) -> K::Output {
    kernel.run::<T::Avx2>()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
#[inline(never)]
pub(crate) fn run_neon<T: Element, K: Kernel<T>>(kernel: K) -> K::Output {
    kernel.run::<T::Neon>()
}

impl Set {
    const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether the processor has all of the features that `dispatch` enables.
    fn is_here(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_here()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Level({})", self.name())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for LevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected one of {}; got {}", self.what, self.expected, self.got)
    }
}

impl std::error::Error for LevelError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_level_is_parsed_and_the_last_is_detected() {
        let available = Level::available();
        assert!(available[0].is_scalar());
        for &level in &available {
            assert_eq!(Level::parse(level.name()), Ok(level));
        }
        assert_eq!(available.last(), Some(&Level::detect()));
    }

    #[test]
    fn a_wrong_name_says_what_was_expected_and_what_came() {
        for value in ["", "AVX2", "avx", "scalar "] {
            let message = Level::parse(value).unwrap_err().to_string();
            assert!(message.starts_with("SEQRS_LEVEL: expected one of scalar"), "{message}");
            assert!(message.ends_with(&format!("got {value:?}")), "{message}");
        }
    }

    #[test]
    fn a_level_the_processor_lacks_is_refused() {
        for set in Set::ALL.into_iter().filter(|set| !set.is_here()) {
            let message = Level::parse(set.name()).unwrap_err().to_string();
            assert!(message.ends_with("which this processor lacks"), "{message}");
        }
    }
}
