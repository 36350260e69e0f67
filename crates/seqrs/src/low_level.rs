//! The level below [`arrays`](crate::arrays): rows of numbers where they lie, on a
//! [`Cpu`] with the caller's choice of threads and instruction set.
//!
//! It is for code that moves between memories of its own, as the Python package does. Names
//! of functions end in `_on` where the level above has one of the same name:
//! [`Sequential::infer_on`](crate::Sequential::infer_on),
//! [`record_on`](crate::Sequential::record_on) (above: `forward`),
//! [`backward_on`](crate::Sequential::backward_on),
//! [`Trainer::step_on`](crate::Trainer::step_on) and
//! [`evaluate_on`](crate::Trainer::evaluate_on), [`diagnose_on`]. Input and targets are [`Rows`]: a slice,
//! and the [`Place`] of each row in it. Which rows are live is said by [`Steps`]. Outputs
//! and gradients are packed, one live row after the other; states are flat.
//!
//! ```
//! use seqrs::low_level::{Cpu, Input, Place, Rows, Steps, Target};
//! use seqrs::{Gru, Linear, Mse, Sequential, Sgd, Trainer, TrainerOptions};
//!
//! let model = Sequential::<f32>::new(vec![Gru::new(2, 8).build()?, Linear::new(8, 1).build()?])?;
//! let (time, batch) = (10, 3);
//! let (x, y) = (vec![0.5; batch * time * 2], vec![0.25; batch * time]);
//! let input = Input::Numbers(Rows { data: &x, place: Place::batch_first(time, 2) }, 2);
//! let target = Target::Numbers(Rows { data: &y, place: Place::batch_first(time, 1) }, 1);
//!
//! let cpu = Cpu::new()?;
//! let options = TrainerOptions::new(Mse::mean(), Sgd::new(0.1));
//! let mut trainer = Trainer::with_options(model, options)?;
//! let first = trainer.step_on(&cpu, input, target, Steps::dense(time, batch)?, None)?;
//! let second = trainer.step_on(&cpu, input, target, Steps::dense(time, batch)?, None)?;
//! assert!(second.loss < first.loss);
//! # Ok::<(), seqrs::Error>(())
//! ```

pub use crate::arrays::diagnosis::diagnose_on;
pub use crate::model_tape::{ModelGradients, OutputRef};
pub use crate::sequential::{Input, ModelState, Output, Rank};
pub use crate::state_room::LentStates;
pub use crate::stepping::StepInput;
pub use crate::targets::{Packed, Target};

pub use seqrs_core::Steps;
pub use seqrs_core::rows::{Place, Rows, RowsMut};
pub use seqrs_cpu::Cpu;
