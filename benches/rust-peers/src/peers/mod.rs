//! The libraries, each in a file of its own.

mod burn;
mod candle;
mod rust_lstm;
mod seqrs;
#[cfg(feature = "gpu")]
mod seqrs_gpu;
mod tract;

pub(crate) use self::seqrs::level;
#[cfg(feature = "gpu")]
pub(crate) use self::seqrs_gpu::adapter;

use crate::case::{Cell, Device};
#[cfg(not(feature = "gpu"))]
use crate::contender::Failure;
use crate::contender::Library;

/// Outputs, and gradients, which are sums over all items.
const SINGLE: (f64, f64) = (3e-5, 1e-4);
const DOUBLE: (f64, f64) = (1e-11, 1e-11);

/// The name of seqrs on the processor, with which everything is compared, itself or through
/// another form of seqrs.
pub(crate) const REFERENCE: &str = "seqrs";

/// seqrs comes first: what others are compared with. rust-lstm knows f64 alone. On a GPU there
/// are two races: with input and results on the device, and from host to host.
pub(crate) const LIBRARIES: &[Library] = &[
    Library {
        name: REFERENCE,
        device: Device::Cpu,
        build: seqrs::build::<f32>,
        reference: REFERENCE,
        tolerance: SINGLE,
        goal: None,
    },
    Library {
        name: "seqrs f64",
        device: Device::Cpu,
        // For rust-lstm, which has no such GRU.
        build: |problem| match problem.case.cell {
            Cell::Gru => Ok(None),
            Cell::Lstm | Cell::GruResetBefore => seqrs::build::<f64>(problem),
        },
        reference: REFERENCE,
        tolerance: SINGLE,
        goal: None,
    },
    Library {
        name: "burn",
        device: Device::Cpu,
        build: burn::on_processor,
        reference: REFERENCE,
        tolerance: SINGLE,
        goal: Some(|_| 3.0),
    },
    Library {
        name: "candle",
        device: Device::Cpu,
        build: candle::build,
        reference: REFERENCE,
        tolerance: SINGLE,
        goal: Some(|_| 3.0),
    },
    Library {
        name: "tract",
        device: Device::Cpu,
        build: tract::build,
        reference: REFERENCE,
        tolerance: SINGLE,
        goal: Some(|units| if units <= 128 { 1.5 } else { 1.2 }),
    },
    Library {
        name: "rust-lstm",
        device: Device::Cpu,
        build: rust_lstm::build,
        reference: "seqrs f64",
        tolerance: DOUBLE,
        goal: Some(|_| 3.0),
    },
    #[cfg(feature = "gpu")]
    Library {
        name: "seqrs GPU",
        device: Device::Gpu,
        build: seqrs_gpu::on_device,
        reference: REFERENCE,
        tolerance: SINGLE,
        goal: None,
    },
    #[cfg(feature = "gpu")]
    Library {
        name: "seqrs GPU, host",
        device: Device::Gpu,
        build: seqrs_gpu::from_host,
        reference: REFERENCE,
        tolerance: SINGLE,
        goal: None,
    },
    #[cfg(feature = "gpu")]
    Library {
        name: "burn wgpu",
        device: Device::Gpu,
        build: burn::on_gpu,
        reference: "seqrs GPU",
        tolerance: SINGLE,
        goal: Some(|_| 10.0),
    },
    #[cfg(feature = "gpu")]
    Library {
        name: "burn wgpu, host",
        device: Device::Gpu,
        build: burn::from_host,
        reference: "seqrs GPU, host",
        tolerance: SINGLE,
        goal: Some(|_| 10.0),
    },
];

/// A GPU, as its driver describes it.
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) name: String,
    /// Whether it is made of software.
    pub(crate) is_software: bool,
}

/// The GPU that is used.
#[cfg(not(feature = "gpu"))]
pub(crate) fn adapter() -> Result<Adapter, Failure> {
    Err("--device gpu: expected a build with the feature gpu (make bench-rust-peers-gpu)".into())
}
