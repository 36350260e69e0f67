//! Where one answer waits for who asked: a thread, or a task.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use seqrs_core::{Error, interrupt};

use super::failure::Failure;
use super::request::Answer;

/// How often a thread that waits looks whether its caller wants it to stop.
const PERIOD: Duration = Duration::from_millis(50);

/// An answer that may not be there yet.
pub(super) struct Slot<T> {
    held: Mutex<Held<T>>,
    arrived: Condvar,
}

struct Held<T> {
    answer: Option<Result<Answer<T>, Failure>>,
    waker: Option<Waker>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        let held = Mutex::new(Held { answer: None, waker: None });
        Self { held, arrived: Condvar::new() }
    }
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, Held<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the answer and wakes who waits for it.
    pub(super) fn put(&self, answer: Result<Answer<T>, Failure>) {
        let mut held = self.lock();
        held.answer = Some(answer);
        let waker = held.waker.take();
        drop(held);
        self.arrived.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The answer, if it is there.
    pub(super) fn take(&self) -> Option<Result<Answer<T>, Failure>> {
        self.lock().answer.take()
    }

    /// The answer, or a waker is kept for when it comes.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Result<Answer<T>, Failure>> {
        let mut held = self.lock();
        match held.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                held.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits for the answer, until the deadline or until the caller wants to stop; every so often
    /// asks `help`, which may do something for it, and is asked again sooner if it says so.
    pub(super) fn wait(
        &self,
        deadline: Option<Instant>,
        mut help: impl FnMut() -> Option<Duration>,
    ) -> Result<Answer<T>, Failure> {
        loop {
            // Who has nobody to ask sleeps until there is an answer.
            let period = help().or_else(|| interrupt::asked().map(|_| PERIOD));
            let held = self.lock();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let none = |held: &mut Held<T>| held.answer.is_none();
            let mut held = match left.into_iter().chain(period).min() {
                None => {
                    let waited = self.arrived.wait_while(held, none);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
                Some(time) => {
                    let waited = self.arrived.wait_timeout_while(held, time, none);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            if let Some(answer) = held.answer.take() {
                return answer;
            }
            drop(held);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Failure::Late);
            }
            if interrupt::check().is_err() {
                return Err(Failure::Model(Error::Interrupted));
            }
        }
    }
}
