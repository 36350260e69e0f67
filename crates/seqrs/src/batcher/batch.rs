//! Sequences as one batch, and the output of each again.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use seqrs_core::rows::{Place, Rows};
use seqrs_core::{Error, Steps, memory};
use seqrs_cpu::Cpu;

use super::failure::Failure;
use super::request::{Answer, Sequence};
use crate::number::Number;
use crate::sequential::{Input, Output, Rank, Sequential};

/// A model as a batcher serves it: on the CPU, or wherever else it computes.
pub trait Served<T: Number>: Send + Sync {
    /// The model, by which requests are checked.
    fn model(&self) -> &Sequential<T>;

    /// Its outputs, from states of zero.
    ///
    /// # Errors
    /// As [`Sequential::infer_on`].
    fn infer(&self, x: Input<'_, T>, steps: &Steps) -> Result<Output<T>, Error>;
}

impl<T: Number> Served<T> for Sequential<T> {
    fn model(&self) -> &Sequential<T> {
        self
    }

    fn infer(&self, x: Input<'_, T>, steps: &Steps) -> Result<Output<T>, Error> {
        let mut state = self.zero_state(steps.batch())?;
        self.infer_on(&Cpu::new()?, x, steps, &mut state)
    }
}

#[cfg(feature = "gpu")]
impl Served<f32> for crate::gpu::GpuModel {
    fn model(&self) -> &Sequential<f32> {
        self.structure()
    }

    fn infer(&self, x: Input<'_, f32>, steps: &Steps) -> Result<Output<f32>, Error> {
        let mut state = self.structure().zero_state(steps.batch())?;
        Self::infer(self, x, steps, &mut state)
    }
}

/// The answer to one sequence.
pub(super) fn alone<T: Number>(
    model: &dyn Served<T>,
    x: &Sequence<T>,
) -> Result<Answer<T>, Failure> {
    unharmed(|| {
        let steps = Steps::dense(x.steps(), 1)?;
        let Output { numbers, width, rank } = model.infer(x.input(), &steps)?;
        let steps = (rank == Rank::Steps).then_some(x.steps());
        Ok(Answer { numbers, width, steps })
    })
}

/// The answers to several sequences of one kind, computed as one batch.
pub(super) fn together<T: Number>(
    model: &dyn Served<T>,
    sequences: &[&Sequence<T>],
) -> Vec<Result<Answer<T>, Failure>> {
    if let [one] = sequences {
        return vec![alone(model, one)];
    }
    match unharmed(|| batch(model, sequences)) {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        // What is too much for all may be enough for each.
        Err(Failure::Model(error)) if error != Error::Interrupted => {
            sequences.iter().map(|x| alone(model, x)).collect()
        }
        Err(failure) => sequences.iter().map(|_| Err(failure.clone())).collect(),
    }
}

fn batch<T: Number>(
    model: &dyn Served<T>,
    sequences: &[&Sequence<T>],
) -> Result<Vec<Answer<T>>, Error> {
    let lengths: Vec<usize> = sequences.iter().map(|x| x.steps()).collect();
    let steps = Steps::from_lengths(lengths.iter().copied().max().unwrap_or(0), &lengths)?;
    let ids;
    let numbers;
    let input = match sequences.first() {
        Some(Sequence::Numbers { width, .. }) => {
            numbers = gathered(sequences, &steps, *width, |x, t| match x {
                Sequence::Numbers { data, width, .. } => &data[t * width..][..*width],
                Sequence::Ids(_) => &[],
            })?;
            Input::Numbers(Rows { data: &numbers[..], place: Place::packed(*width) }, *width)
        }
        _ => {
            ids = gathered(sequences, &steps, 1, |x, t| match x {
                Sequence::Ids(ids) => &ids[t..=t],
                Sequence::Numbers { .. } => &[],
            })?;
            Input::Ids(Rows { data: &ids[..], place: Place::packed(1) })
        }
    };
    let Output { numbers: y, width, rank } = model.infer(input, &steps)?;
    let mut answers = Vec::with_capacity(sequences.len());
    for (b, &length) in lengths.iter().enumerate() {
        answers.push(match rank {
            Rank::Steps => {
                let numbers = memory::zeros("outputs", length * width)?;
                Answer { numbers, width, steps: Some(length) }
            }
            Rank::Rows => {
                let numbers = memory::copied("outputs", &y[b * width..][..width])?;
                Answer { numbers, width, steps: None }
            }
        });
    }
    if rank == Rank::Steps {
        steps.for_each(|item, t, b| {
            answers[b].numbers[t * width..][..width].copy_from_slice(&y[item * width..][..width]);
        });
    }
    Ok(answers)
}

/// What each live step brings, one after the other.
fn gathered<T: Number, N: Copy>(
    sequences: &[&Sequence<T>],
    steps: &Steps,
    width: usize,
    of: impl for<'a> Fn(&'a Sequence<T>, usize) -> &'a [N],
) -> Result<Vec<N>, Error> {
    let mut gathered = memory::room("inputs", steps.items() * width)?;
    steps.for_each(|_, t, b| gathered.extend_from_slice(of(sequences[b], t)));
    assert_eq!(gathered.len(), steps.items() * width, "sequences of one kind share a batch");
    Ok(gathered)
}

/// What `work` gives, and a panic as a failure.
fn unharmed<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Failure::Model),
        Err(panic) => Err(Failure::Panicked(words(&*panic).to_owned())),
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        _ => "a panic without words",
    }
}
