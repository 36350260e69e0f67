//! The libraries, each in a file of its own.

mod burn;
mod candle;
mod rust_lstm;
mod seqrs;
mod tract;

pub(crate) use self::seqrs::level;

use crate::case::Cell;
use crate::contender::Library;

/// Outputs, and gradients, which are sums over up to 3200 items.
const SINGLE: (f64, f64) = (3e-5, 1e-4);
const DOUBLE: (f64, f64) = (1e-11, 1e-11);

/// seqrs comes first: what others are compared with. rust-lstm knows f64 alone.
pub(crate) const LIBRARIES: [Library; 6] = [
    Library {
        name: "seqrs",
        build: seqrs::build::<f32>,
        reference: "seqrs",
        tolerance: SINGLE,
        goal: None,
    },
    Library {
        name: "seqrs f64",
        // For rust-lstm, which has no such GRU.
        build: |problem| match problem.case.cell {
            Cell::Gru => Ok(None),
            Cell::Lstm | Cell::GruResetBefore => seqrs::build::<f64>(problem),
        },
        reference: "seqrs",
        tolerance: SINGLE,
        goal: None,
    },
    Library {
        name: "burn",
        build: burn::build,
        reference: "seqrs",
        tolerance: SINGLE,
        goal: Some(|_| 3.0),
    },
    Library {
        name: "candle",
        build: candle::build,
        reference: "seqrs",
        tolerance: SINGLE,
        goal: Some(|_| 3.0),
    },
    Library {
        name: "tract",
        build: tract::build,
        reference: "seqrs",
        tolerance: SINGLE,
        goal: Some(|units| if units <= 128 { 1.5 } else { 1.2 }),
    },
    Library {
        name: "rust-lstm",
        build: rust_lstm::build,
        reference: "seqrs f64",
        tolerance: DOUBLE,
        goal: Some(|_| 3.0),
    },
];
