//! Why a request has no answer.

use std::fmt;

use seqrs_core::Error;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// What the model itself says of the request, as when it is called directly.
    Model(Error),
    /// So many requests wait, which is as many as may.
    Full(usize),
    /// Its time was over. If nobody had begun with it, it is not computed.
    Late,
    /// The batcher is closed, or was while the request waited.
    Closed,
    /// The system gives no thread for what nobody waits for.
    NoThread,
    /// A bug in seqrs, or in the [`Served`](super::Served) of a caller: the words of the panic.
    Panicked(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Model(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(error) => error.fmt(to),
            Self::Full(limit) => {
                write!(to, "queue: expected fewer than {limit} requests that wait, got {limit}")
            }
            Self::Late => write!(to, "request: expected an answer in time, got none"),
            Self::Closed => write!(to, "batcher: expected an open one, got one that is closed"),
            Self::NoThread => write!(to, "batcher: expected a thread of the system, got none"),
            Self::Panicked(words) => {
                write!(to, "seqrs: expected to work, got a bug in seqrs, please report it: {words}")
            }
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Model(error) => Some(error),
            _ => None,
        }
    }
}
