//! Independent requests from many threads and tasks, computed as batches.
//!
//! ```
//! use std::time::Duration;
//! use ndarray::Array2;
//! use seqrs::batcher::{Batcher, BatcherOptions, Failure};
//! use seqrs::{Gru, Layer, Linear, Sequential};
//!
//! let model = Sequential::<f32>::new(vec![
//!     Gru::new(8, 32).build()?,
//!     Layer::Last,
//!     Linear::new(32, 3).build()?,
//! ])?;
//! let batcher = Batcher::new(model, BatcherOptions::default())?;
//!
//! // Any number of threads may ask, with sequences of any lengths.
//! std::thread::scope(|scope| {
//!     for steps in [5, 20, 7] {
//!         let (batcher, x) = (&batcher, Array2::<f32>::ones((steps, 8)));
//!         scope.spawn(move || {
//!             let y = batcher.predict(&x).unwrap();
//!             assert_eq!(y.shape(), [3]);
//!         });
//!     }
//! });
//! let y = batcher.predict_within(&Array2::ones((4, 8)), Duration::from_secs(1))?;
//! assert_eq!(y.shape(), [3]);
//!
//! // What does not fit the model fails alone.
//! assert!(matches!(batcher.predict(&Array2::ones((4, 9))), Err(Failure::Model(_))));
//! batcher.close(true)?;
//! assert_eq!(batcher.predict(&Array2::ones((4, 8))), Err(Failure::Closed));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! A task awaits [`Batcher::predict_async`], whose future may be dropped at any time; other code
//! gives [`Batcher::submit`] a function for the answer.
//!
//! # What a batch is
//! A request that comes when nothing is computed is computed at once, by the thread that asks.
//! What comes meanwhile waits, and is then computed together, by a thread of the batcher's own:
//! up to `max_batch` requests, of lengths that differ so little that it costs at most a fifth of
//! the time. A row does not know of the others in its batch, so each answer has the bits of the
//! model's answer to that request alone.
//!
//! # Fork
//! A forked child has an empty batcher, with a thread of its own at its first use. Nobody there
//! waits for a lock that a thread of the parent held.

mod batch;
mod failure;
mod grouping;
mod queue;
mod request;
mod slot;
mod statistics;
mod stopping;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::process;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ndarray::ArrayD;
use seqrs_core::Error;

pub use batch::Served;
pub use failure::Failure;
pub use request::{Answer, Sequence};
pub use statistics::{Histogram, Statistics};

use crate::number::Number;
use queue::{Deliver, Queue, Why};
use slot::Slot;

/// How much a batcher takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatcherOptions {
    /// Requests in a batch at most, from 1 on; 64 unless said otherwise.
    pub max_batch: usize,
    /// Requests that wait at most, from 1 on; 1024 unless said otherwise. One more is refused.
    pub max_queue: usize,
    /// How long a request waits for others to share a batch with when nothing is computed, unless
    /// the batch is full before; zero unless said otherwise. One with a deadline waits half of its
    /// time at most.
    pub max_wait: Duration,
}

impl Default for BatcherOptions {
    fn default() -> Self {
        Self { max_batch: 64, max_queue: 1024, max_wait: Duration::ZERO }
    }
}

/// Takes requests for models and computes them as batches. A [`Batcher`] is one with a model of
/// its own; here each request brings the model that it is for, and those for the same one (the
/// same `Arc`) share batches.
pub struct Dispatcher<T: Number> {
    options: BatcherOptions,
    /// That of the process that made it; a child's hangs on its parent's.
    first: Generation<T>,
}

struct Generation<T: Number> {
    process: u32,
    queue: Arc<Queue<T>>,
    next: OnceLock<Box<Self>>,
}

impl<T: Number> Generation<T> {
    fn new(options: BatcherOptions, closed: bool) -> Self {
        let queue = Arc::new(Queue::new(options, closed));
        Self { process: process::id(), queue, next: OnceLock::new() }
    }
}

impl<T: Number> fmt::Debug for Dispatcher<T> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Dispatcher").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<T: Number> Dispatcher<T> {
    /// An empty one, without a thread.
    ///
    /// # Errors
    /// [`Error::Option`] if a number is 0 that has to be at least 1.
    pub fn new(options: BatcherOptions) -> Result<Self, Error> {
        for (name, number) in [("max_batch", options.max_batch), ("max_queue", options.max_queue)] {
            if number == 0 {
                return Err(Error::option(name, "an integer of at least 1", number));
            }
        }
        Ok(Self { options, first: Generation::new(options, false) })
    }

    /// What it was made with.
    pub fn options(&self) -> BatcherOptions {
        self.options
    }

    /// The queue of this process. A child's is made by the first who asks, or by who calls this
    /// right after the fork.
    fn queue(&self) -> &Arc<Queue<T>> {
        let mut last = &self.first;
        while let Some(next) = last.next.get() {
            last = next;
        }
        if last.process == process::id() {
            return &last.queue;
        }
        let fresh = || {
            // Never freed: at the fork a thread of the parent may have been changing it.
            mem::forget(Arc::clone(&last.queue));
            Box::new(Generation::new(self.options, last.queue.is_closed()))
        };
        &last.next.get_or_init(fresh).queue
    }

    /// Makes itself at home in a child that was just forked, while it has one thread alone. Without
    /// it the first use does.
    pub fn after_fork(&self) {
        self.queue();
    }

    /// The answer to one request: what the model gives for it alone, bit for bit. Waits for it.
    ///
    /// # Errors
    /// [`Failure::Model`] for what a direct call would say; [`Failure::Full`]; [`Failure::Late`]
    /// after the deadline; [`Failure::Closed`].
    pub fn predict(
        &self,
        model: Arc<dyn Served<T>>,
        x: impl Into<Sequence<T>>,
        deadline: Option<Instant>,
    ) -> Result<Answer<T>, Failure> {
        self.queue().predict(model, x.into(), deadline)
    }

    /// Takes a request, and later calls `done` with the answer, on another thread, which does
    /// nothing else meanwhile. A request that is given up is not answered. If its deadline passes
    /// while it waits, that is told when the computation before it has ended.
    ///
    /// # Errors
    /// As [`Dispatcher::predict`], but the deadline's; [`Failure::NoThread`]. Then `done` is not
    /// called.
    pub fn submit(
        &self,
        model: Arc<dyn Served<T>>,
        x: impl Into<Sequence<T>>,
        deadline: Option<Instant>,
        done: impl FnOnce(Result<Answer<T>, Failure>) + Send + 'static,
    ) -> Result<Ticket<T>, Failure> {
        let queue = self.queue();
        let id = queue.submit(model, x.into(), deadline, Deliver::Call(Box::new(done)))?;
        Ok(Ticket { queue: Arc::clone(queue), id })
    }

    /// The answer, for a task. Dropping the future gives the request up.
    ///
    /// # Errors
    /// As [`Dispatcher::submit`], before it is taken.
    pub fn predict_async(
        &self,
        model: Arc<dyn Served<T>>,
        x: impl Into<Sequence<T>>,
    ) -> Result<Pending<T>, Failure> {
        let (queue, slot) = (self.queue(), Arc::new(Slot::default()));
        let id = queue.submit(model, x.into(), None, Deliver::To(Arc::clone(&slot)))?;
        Ok(Pending { ticket: Ticket { queue: Arc::clone(queue), id }, slot })
    }

    /// Counts a request as failed that was none, so that it could not be given to it.
    pub fn count_failed(&self) {
        self.queue().count_failed();
    }

    /// Takes no more requests, and returns when nothing waits or is computed and the thread has
    /// ended. What waits is computed first if `drain` is set; otherwise it is answered with
    /// [`Failure::Closed`], as is what is being computed.
    ///
    /// # Errors
    /// [`Error::Interrupted`]: it is closed then, but something may be computed still.
    pub fn close(&self, drain: bool) -> Result<(), Error> {
        let queue = self.queue();
        queue.shut(drain);
        queue.join()
    }

    /// Whether it takes no more requests.
    pub fn is_closed(&self) -> bool {
        self.queue().is_closed()
    }

    /// What it has done.
    pub fn statistics(&self) -> Statistics {
        self.queue().statistics()
    }
}

impl<T: Number> Drop for Dispatcher<T> {
    /// Gives up what waits, and waits for nothing.
    fn drop(&mut self) {
        self.queue().shut(false);
    }
}

/// A request that was taken.
pub struct Ticket<T: Number> {
    queue: Arc<Queue<T>>,
    id: u64,
}

impl<T: Number> fmt::Debug for Ticket<T> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Ticket").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<T: Number> Ticket<T> {
    /// Gives the request up: it is not computed if nobody has begun with it, and its place is free.
    /// False if it has been answered, or given up, before.
    pub fn cancel(&self) -> bool {
        self.queue.give_up(self.id, Why::Cancelled)
    }

    /// As [`Ticket::cancel`], counted as one whose time was over.
    pub fn expire(&self) -> bool {
        self.queue.give_up(self.id, Why::Expired)
    }
}

/// An answer that comes later. Dropped before, it gives the request up.
pub struct Pending<T: Number> {
    ticket: Ticket<T>,
    slot: Arc<Slot<T>>,
}

impl<T: Number> fmt::Debug for Pending<T> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_tuple("Pending").field(&self.ticket).finish()
    }
}

impl<T: Number> Future for Pending<T> {
    type Output = Result<Answer<T>, Failure>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.slot.poll(context)
    }
}

impl<T: Number> Drop for Pending<T> {
    fn drop(&mut self) {
        self.ticket.cancel();
    }
}

/// Takes requests for a model and computes them as batches.
pub struct Batcher<T: Number> {
    dispatcher: Dispatcher<T>,
    model: RwLock<Arc<dyn Served<T>>>,
}

impl<T: Number> fmt::Debug for Batcher<T> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dispatcher.fmt(to)
    }
}

impl<T: Number> Batcher<T> {
    /// For this model; starts no thread.
    ///
    /// # Errors
    /// [`Error::Option`] if a number is 0 that has to be at least 1.
    pub fn new(model: impl Served<T> + 'static, options: BatcherOptions) -> Result<Self, Error> {
        let model: Arc<dyn Served<T>> = Arc::new(model);
        Ok(Self { dispatcher: Dispatcher::new(options)?, model: RwLock::new(model) })
    }

    /// Another model for all requests from now on. Those that wait keep theirs.
    pub fn swap(&self, model: impl Served<T> + 'static) {
        let model: Arc<dyn Served<T>> = Arc::new(model);
        let mut place = self.model.write().unwrap_or_else(PoisonError::into_inner);
        let before = mem::replace(&mut *place, model);
        drop(place);
        drop(before);
    }

    fn model(&self) -> Arc<dyn Served<T>> {
        Arc::clone(&self.model.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The output for one sequence, (T, F), or (F) where the model has a pooling layer: that of
    /// [`Sequential::infer`](crate::Sequential::infer) for it alone, bit for bit.
    ///
    /// # Errors
    /// [`Failure::Model`] for what a direct call would say; [`Failure::Full`];
    /// [`Failure::Closed`].
    pub fn predict(&self, x: impl Into<Sequence<T>>) -> Result<ArrayD<T>, Failure> {
        Ok(self.dispatcher.predict(self.model(), x, None)?.into_array())
    }

    /// As [`Batcher::predict`], in at most `time`.
    ///
    /// # Errors
    /// Also [`Failure::Late`].
    pub fn predict_within(
        &self,
        x: impl Into<Sequence<T>>,
        time: Duration,
    ) -> Result<ArrayD<T>, Failure> {
        // What the clock cannot show is no limit.
        let deadline = Instant::now().checked_add(time);
        Ok(self.dispatcher.predict(self.model(), x, deadline)?.into_array())
    }

    /// As [`Batcher::predict`], for a task: blocks no thread, on any executor. Dropping the future
    /// gives the request up.
    ///
    /// # Errors
    /// Also [`Failure::NoThread`].
    pub async fn predict_async(&self, x: impl Into<Sequence<T>>) -> Result<ArrayD<T>, Failure> {
        Ok(self.dispatcher.predict_async(self.model(), x)?.await?.into_array())
    }

    /// As [`Batcher::predict`]: `done` is called with the output, on another thread.
    ///
    /// # Errors
    /// As [`Dispatcher::submit`].
    pub fn submit(
        &self,
        x: impl Into<Sequence<T>>,
        done: impl FnOnce(Result<Answer<T>, Failure>) + Send + 'static,
    ) -> Result<Ticket<T>, Failure> {
        self.dispatcher.submit(self.model(), x, None, done)
    }

    /// As [`Dispatcher::close`].
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn close(&self, drain: bool) -> Result<(), Error> {
        self.dispatcher.close(drain)
    }

    /// What it has done.
    pub fn statistics(&self) -> Statistics {
        self.dispatcher.statistics()
    }
}
