//! What can go wrong. Every message says what, what was expected, and what came.

/// The one error of seqrs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A size, shape, length or index does not fit.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// What was looked at.
        what: String,
        /// What would have been right.
        expected: String,
        /// What came.
        got: String,
    },
    /// An array holds numbers of the wrong kind.
    #[error("{what}: expected {expected}, got {got}")]
    DType {
        /// What was looked at.
        what: String,
        /// What would have been right.
        expected: String,
        /// What came.
        got: String,
    },
    /// An option has a value that no layer, loss or optimiser can be built with.
    #[error("{what}: expected {expected}, got {got}")]
    Option {
        /// The option's name.
        what: String,
        /// What would have been right.
        expected: String,
        /// What came.
        got: String,
    },
    /// A state, tape or handle does not belong where it was given.
    #[error("{what}: expected {expected}, got {got}")]
    State {
        /// What was looked at.
        what: String,
        /// What would have been right.
        expected: String,
        /// What came.
        got: String,
    },
    /// A model file or checkpoint cannot be read or written as such.
    #[error("{what}: expected {expected}, got {got}")]
    ModelFile {
        /// The part of the file that was looked at.
        what: String,
        /// What would have been right.
        expected: String,
        /// What came.
        got: String,
    },
    /// A loss or gradient is NaN or infinite.
    #[error("{what}: expected {expected}, got {got}")]
    Numerical {
        /// The loss or the parameter.
        what: String,
        /// What would have been right.
        expected: String,
        /// What came.
        got: String,
    },
    /// A device is not there, or is not able to do what was asked.
    #[error("{what}: expected {expected}, got {got}")]
    NoDevice {
        /// Which device, or which of its limits.
        what: String,
        /// What would have been right.
        expected: String,
        /// What there is.
        got: String,
    },
    /// Something holds as much as it may.
    #[error("{what}: expected {expected}, got {got}")]
    Full {
        /// What holds it.
        what: String,
        /// How much it may.
        expected: String,
        /// What came.
        got: String,
    },
    /// A buffer of this many bytes cannot be had.
    #[error("{what}: expected room for {bytes} bytes, got none")]
    OutOfMemory {
        /// What the buffer was for.
        what: String,
        /// Its size.
        bytes: u128,
    },
    /// The caller asked for the computation to stop.
    #[error("computation: expected to finish, got an interrupt")]
    Interrupted,
}

macro_rules! constructor {
    ($(#[$doc:meta] $name:ident $variant:ident;)*) => {$(
        #[$doc]
        pub fn $name(
            what: impl Into<String>,
            expected: impl Into<String>,
            got: impl std::fmt::Display,
        ) -> Self {
            Self::$variant { what: what.into(), expected: expected.into(), got: got.to_string() }
        }
    )*};
}

impl Error {
    constructor! {
        #[doc = "An [`Error::Shape`]."] shape Shape;
        #[doc = "An [`Error::DType`]."] dtype DType;
        #[doc = "An [`Error::Option`]."] option Option;
        #[doc = "An [`Error::State`]."] state State;
        #[doc = "An [`Error::ModelFile`]."] model_file ModelFile;
        #[doc = "An [`Error::Numerical`]."] numerical Numerical;
        #[doc = "An [`Error::NoDevice`]."] no_device NoDevice;
        #[doc = "An [`Error::Full`]."] full Full;
    }
}
