//! Stopping what is computed: when its time is over, when the batcher is shut at once, or when the
//! caller wants it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use seqrs_core::interrupt::{self, Question};

/// What has stopped a computation, if it was not its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The deadline.
    Late,
    /// The flag.
    Shut,
}

struct Limit {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
    /// The caller's own question.
    outer: Option<Question>,
    stopped: Option<Stopped>,
}

thread_local! {
    static LIMIT: RefCell<Option<Limit>> = const { RefCell::new(None) };
}

/// Runs `work`, which is interrupted when the flag is set, at the deadline, or when the caller wants
/// it to stop; and says which of the first two it was.
pub(super) fn within<R>(
    flag: &Arc<AtomicBool>,
    deadline: Option<Instant>,
    work: impl FnOnce() -> R,
) -> (R, Option<Stopped>) {
    let outer = interrupt::asked();
    let limit = Limit { flag: Arc::clone(flag), deadline, outer, stopped: None };
    let before = LIMIT.replace(Some(limit));
    let result = interrupt::scope(is_over, work);
    let limit = LIMIT.replace(before);
    (result, limit.and_then(|limit| limit.stopped))
}

fn is_over() -> bool {
    let outer = LIMIT.with_borrow_mut(|limit| {
        let limit = limit.as_mut()?;
        if limit.flag.load(Ordering::Relaxed) {
            limit.stopped = Some(Stopped::Shut);
        } else if limit.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            limit.stopped = Some(Stopped::Late);
        }
        match limit.stopped {
            Some(_) => Some(Err(())),
            None => limit.outer.map(Ok),
        }
    });
    match outer {
        Some(Err(())) => true,
        Some(Ok(stop)) => stop(),
        None => false,
    }
}
