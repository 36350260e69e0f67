//! Stopping what is computed: when time is over, or when the batcher is shut at once.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use seqrs_core::interrupt::{self, Question};

#[derive(Clone, Copy)]
struct Limit {
    deadline: Instant,
    /// The caller's own question.
    outer: Option<Question>,
    /// Whether it was the deadline that stopped the work.
    passed: bool,
}

thread_local! {
    static LIMIT: Cell<Option<Limit>> = const { Cell::new(None) };
    static FLAG: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Runs `work`, which is interrupted at the deadline, and says whether it was, or when the caller
/// wants it to stop.
pub(super) fn by<R>(deadline: Option<Instant>, work: impl FnOnce() -> R) -> (R, bool) {
    let Some(deadline) = deadline else { return (work(), false) };
    let outer = interrupt::asked();
    let before = LIMIT.replace(Some(Limit { deadline, outer, passed: false }));
    let result = interrupt::scope(over, work);
    let limit = LIMIT.replace(before);
    (result, limit.is_some_and(|limit| limit.passed))
}

fn over() -> bool {
    let Some(limit) = LIMIT.get() else { return false };
    if Instant::now() >= limit.deadline {
        LIMIT.set(Some(Limit { passed: true, ..limit }));
        return true;
    }
    limit.outer.is_some_and(|stop| stop())
}

/// Runs `work`, which is interrupted when the flag is set.
pub(super) fn while_unset<R>(flag: &Arc<AtomicBool>, work: impl FnOnce() -> R) -> R {
    let before = FLAG.replace(Some(Arc::clone(flag)));
    let result = interrupt::scope(is_set, work);
    FLAG.set(before);
    result
}

fn is_set() -> bool {
    FLAG.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)))
}
