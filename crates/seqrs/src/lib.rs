//! Recurrent networks: RNN, LSTM and GRU, one direction or both, training and inference.
//!
//! Arrays are [`ndarray`]'s. B sequences (rows of a batch), T steps, I numbers in, H units,
//! L layers, D directions: a batch is numbers (B, T, I) or ids (B, T).
//!
//! # Training
//! ```
//! use ndarray::{Array2, s};
//! use seqrs::{Adam, Batch, CrossEntropy, Embedding, Linear, Lstm, Sampling, Sequential, Trainer};
//!
//! // A text as ids, cut into 4 rows that are read side by side.
//! let text = "to be or not to be that is the question ".repeat(8);
//! let ids = Array2::from_shape_fn((4, 80), |(b, t)| i64::from(text.as_bytes()[b * 80 + t]));
//!
//! let model = Sequential::<f32>::new(vec![
//!     Embedding::new(128, 16).build()?,
//!     Lstm::new(16, 32).build()?,
//!     Linear::new(32, 128).build()?,
//! ])?
//! .reseeded(0)?;
//! let mut trainer = Trainer::new(model, CrossEntropy::mean(), Adam::new(0.02)).build()?;
//!
//! // To say each next character; gradients go back 20 steps, the state is carried along.
//! let mut losses = Vec::new();
//! for _ in 0..12 {
//!     let mut state = trainer.model.initial_state(4)?;
//!     for t in (0..60).step_by(20) {
//!         let (x, y) = (ids.slice(s![.., t..t + 20]), ids.slice(s![.., t + 1..t + 21]));
//!         let result = trainer.step(Batch::from(x).state(state), y)?;
//!         losses.push(result.loss);
//!         state = result.state;
//!     }
//! }
//! assert!(losses.last() < Some(&(0.6 * losses[0])));
//!
//! let ids = seqrs::generate(&trainer.model, &[i64::from(b't')], 40, &Sampling::default())?;
//! assert_eq!(ids.len(), 40);
//!
//! // The file is the one that Python's `seqrs.load` reads, and `model.save` writes.
//! # let path = std::env::temp_dir().join(format!("seqrs-doc-{}", std::process::id()));
//! trainer.model.save(&path)?;
//! let model = Sequential::<f32>::load(&path)?;
//! assert_eq!(model.fingerprint(), trainer.model.fingerprint());
//! # std::fs::remove_file(&path).unwrap();
//! # Ok::<(), seqrs::Error>(())
//! ```
//! `examples/char_lm.rs` is the same for any text, with a share of it held out.
//!
//! # Inference
//! ```
//! use ndarray::Array3;
//! use seqrs::{Batch, Layer, Linear, Lstm, Sequential};
//!
//! let model = Sequential::<f32>::new(vec![
//!     Lstm::new(8, 32).layers(2).bidirectional(true).build()?,
//!     Layer::Last,
//!     Linear::new(64, 3).build()?,
//! ])?;
//! let x = Array3::zeros((4, 20, 8)); // 4 sequences, 20 steps, 8 numbers each
//! let (y, _state) = model.infer(Batch::from(&x).lengths(&[20, 7, 1, 13]))?;
//! assert_eq!(y.shape(), [4, 3]);
//! # Ok::<(), seqrs::Error>(())
//! ```
//!
//! # Where to find what
//! - Layers: [`Rnn`], [`Lstm`], [`Gru`], [`Embedding`], [`Linear`], [`LayerNorm`],
//!   [`Dropout`], [`Activation`], [`Layer::Last`], [`Layer::MeanPool`], [`Layer::MaxPool`].
//!   Each is described by `new` and its options, and made by `build()?`; a [`Sequential`] is
//!   a list of them.
//! - [`Sequential::infer`], [`Sequential::step`] and [`Sequential::step_ids`] keep nothing;
//!   [`Sequential::forward`] keeps a tape for [`Sequential::backward`]. All read a [`Batch`].
//! - [`Sequential::step_into`] and [`Layer::step_into`] step without taking memory;
//!   [`StreamPool`] steps many streams as one batch.
//! - [`Sequential::quantised`]: weights of 8-bit integers or bf16, for inference.
//! - [`Batcher`]: independent requests from many threads and tasks, computed as batches.
//! - [`Trainer`]: [`losses`], [`optimizers`], [`schedules`], clipping, truncated
//!   back-propagation, and [`Trainer::checkpoint`], from which a run goes on bit for bit.
//! - [`diagnose`]: saturated gates, dead units, vanishing and exploding gradients, in numbers.
//! - [`Sequential::save`], [`Sequential::load`], and [`load`] where the kind of model is
//!   not known.
//! - Parameters have PyTorch's names, shapes and gate order: [`Sequential::parameters`].
//! - Threads and instruction set are those of the machine, or of `SEQRS_NUM_THREADS` and
//!   `SEQRS_LEVEL`; [`arrays`] says how the names correspond to Python's, and [`low_level`]
//!   works on slices, on a [`Cpu`](low_level::Cpu) of the caller's choice.
//!
//! - The feature `gpu` (off by default): [`gpu`](https://docs.rs/seqrs/latest/seqrs/gpu), the same
//!   layers and training on a GPU, in f32.
//!
//! # Laws
//! A step at which a row is not live (past its length, or masked) keeps the row's state and
//! outputs zero, and what the padding holds has no influence on anything. A row has the
//! same results alone and in any batch, step by step and as a sequence, on one thread and
//! on many, bit for bit. Everything random comes from explicit seeds. Whatever does not fit
//! is an [`Error`] that says what was expected and what came, and changes nothing.

pub mod arrays;
pub mod atomic;
pub mod batcher;
pub mod checkpoint;
pub mod clipping;
pub mod files;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod layer;
pub mod layers;
pub mod losses;
pub mod low_level;
pub mod model_tape;
pub mod number;
pub mod optimizers;
pub mod pace;
pub mod parameters;
pub mod quantised;
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
mod spectrum;
mod spread;
mod state_room;
pub mod stepping;
pub mod stream_pool;

pub use arrays::{
    Batch, Diagnosis, Gradients, Recorded, States, Targets, TrainerBuilder, diagnose,
};
pub use batcher::{Batcher, BatcherOptions};
pub use files::{AnyModel, LoadOptions, load, load_with};
pub use layer::{Layer, LayerSpec, NamedParameter};
pub use layers::activation::Activation;
pub use layers::dropout::Dropout;
pub use layers::embedding::Embedding;
pub use layers::layer_norm::LayerNorm;
pub use layers::linear::Linear;
pub use layers::recurrent::{Gru, Lstm, Rnn};
pub use losses::{BinaryCrossEntropy, CrossEntropy, Huber, Loss, Mae, Mse, Reduction};
pub use model_tape::ModelTape;
pub use number::{DType, Number};
pub use optimizers::{Adam, AdamW, OptimizerSpec, RmsProp, Sgd};
pub use quantised::report::{Deviation, LayerReport, QuantisationReport};
pub use quantised::{Quantisation, Quantised};
pub use sampling::{Sampling, generate};
pub use schedules::Schedule;
pub use seqrs_core::cell::{Function, FunctionName};
pub use sequential::Sequential;
pub use stream_pool::StreamPool;
pub use trainer::{Evaluation, StepResult, Trainer, TrainerOptions};

/// The version of `ndarray` whose arrays are used.
pub use ndarray;
pub use seqrs_core::Error;
pub use seqrs_core::backend::State;

/// The pages of the documentation site with examples in Rust, which are run with those of the crate.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/pages/rust.md")]
pub struct Pages;
