//! Inference and training on a GPU, in f32, through wgpu (Vulkan, Metal, DX12).
//!
//! A [`GpuModel`] has its parameters on a device; a [`GpuTrainer`] does whole training steps there
//! and brings back the loss and the norm of the gradient alone. Results are those of the CPU within
//! the rounding of f32, and the same bits from run to run.
//!
//! ```no_run
//! use std::sync::Arc;
//! use seqrs::gpu::{Gpu, GpuModel, adapters};
//! use seqrs::{Gru, Sequential};
//!
//! println!("{:?}", adapters());
//! let model = Sequential::<f32>::new(vec![Gru::new(16, 32).build()?])?;
//! let model = GpuModel::new(Arc::new(Gpu::new(0)?), model)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod model;
mod plan;
mod trainer;

pub use model::{GpuModel, GpuTape};
pub use plan::{Named, Plan};
pub use seqrs_gpu::device::{Description, Gpu, GpuError, adapters};
pub use seqrs_gpu::{Event, program, shaders};
pub use trainer::GpuTrainer;
