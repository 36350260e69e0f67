//! Recurrent networks: RNN, LSTM and GRU, one direction or both, training and inference.
//!
//! ```
//! use ndarray::Array3;
//! use seqrs::{Layer, Linear, Lstm, Sequential};
//!
//! let model = Sequential::<f32>::new(vec![
//!     Lstm::new(8, 32).layers(2).bidirectional(true).build()?,
//!     Layer::Last,
//!     Linear::new(64, 3).build()?,
//! ])?;
//! let x = Array3::zeros((4, 20, 8)); // 4 sequences, 20 steps, 8 numbers each
//! let (y, _state) = model.forward(x.view())?;
//! assert_eq!(y.shape(), [4, 3]);
//! # Ok::<(), seqrs::Error>(())
//! ```
//!
//! # Names
//! B sequences (rows of a batch), T steps, I numbers in, H units, L layers, D directions.
//! Parameters have PyTorch's names, shapes and gate order.
//!
//! # Laws
//! A step at which a row is not live (past its length, or masked) keeps the row's state and
//! outputs zero, and what the padding holds has no influence on anything. A row has the
//! same results alone and in any batch, step by step and as a sequence, on one thread and
//! on many, bit for bit. Everything random comes from explicit seeds.

pub mod arrays;
pub mod atomic;
pub mod checkpoint;
pub mod clipping;
pub mod files;
pub mod layer;
pub mod layers;
pub mod losses;
pub mod model_tape;
pub mod number;
pub mod optimizers;
pub mod pace;
pub mod parameters;
pub mod random;
pub mod sampling;
pub mod schedules;
pub mod sequential;
pub mod targets;
pub mod trainer;

mod init;
mod printable;
mod room;
#[cfg(test)]
mod scratch;
mod spread;

pub use arrays::Batch;
pub use files::{AnyModel, LoadOptions, load, load_with};
pub use layer::{Layer, LayerSpec, NamedParameter};
pub use layers::activation::Activation;
pub use layers::dropout::Dropout;
pub use layers::embedding::Embedding;
pub use layers::layer_norm::LayerNorm;
pub use layers::linear::Linear;
pub use layers::recurrent::{Gru, Lstm, Nonlinearity, Rnn};
pub use losses::{BinaryCrossEntropy, CrossEntropy, Huber, Loss, Mae, Mse, Reduction};
pub use model_tape::{ModelGradients, ModelTape, OutputRef};
pub use number::{DType, Number};
pub use optimizers::{Adam, AdamW, OptimizerSpec, RmsProp, Sgd};
pub use sampling::{Sampling, generate};
pub use schedules::Schedule;
pub use sequential::{Input, ModelState, Output, Rank, Sequential};
pub use targets::Target;
pub use trainer::{Evaluation, StepResult, Trainer, TrainerOptions};

pub use seqrs_core::backend::State;
pub use seqrs_core::rows::{Place, Rows, RowsMut};
pub use seqrs_core::{Error, Steps};
pub use seqrs_cpu::Cpu;
