//! How every call from Python enters and computes.
//!
//! No panic crosses into Python: [`guard`] turns it into an `InternalError`. Computation
//! runs in [`compute`], without the GIL; between chunks of work it looks for signals.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use seqrs_core::{Error, interrupt};

use crate::errors::{Class, raise};

/// How often a computation takes the GIL back to look for signals: rarely enough to cost
/// nothing, often enough for Ctrl-C to stop it within 200 ms.
const SIGNAL_PERIOD: Duration = Duration::from_millis(50);

/// When a computation has last looked.
#[derive(Clone, Copy)]
enum LastLook {
    /// Right before it began, as Python does.
    Before,
    /// Once, some time ago: a short call looks once, and what the clock says takes 2 % of a step of
    /// 16 units.
    Once,
    At(Instant),
}

thread_local! {
    static LAST_LOOK: Cell<LastLook> = const { Cell::new(LastLook::Before) };
    static PENDING: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Runs the body of a function that Python calls.
pub(crate) fn guard<R>(py: Python<'_>, body: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    LAST_LOOK.set(LastLook::Before);
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(panic) => {
            let expected = "seqrs: expected to work, got a bug in seqrs, please report it: ";
            Err(Class::Internal.raise(py, format!("{expected}{}", words(&*panic))))
        }
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        _ => "a panic without words",
    }
}

/// Runs `work` without the GIL; Ctrl-C interrupts it.
pub(crate) fn compute<R: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<R, Error> + Send,
) -> PyResult<R> {
    py.detach(|| interrupt::scope(signal_came, work)).map_err(|error| raise(py, error))
}

/// The exception that the last signal handler raised on this thread.
pub(crate) fn pending_interrupt() -> Option<PyErr> {
    PENDING.with_borrow_mut(Option::take)
}

/// Whether a signal handler raised. Only the main thread runs handlers, so any other is
/// never interrupted, as in Python itself.
fn signal_came() -> bool {
    // A call that ends within the first period never takes the GIL back.
    match LAST_LOOK.get() {
        LastLook::Before => {
            LAST_LOOK.set(LastLook::Once);
            return false;
        }
        LastLook::Once => {
            LAST_LOOK.set(LastLook::At(Instant::now()));
            return false;
        }
        LastLook::At(last) if last.elapsed() < SIGNAL_PERIOD => return false,
        LastLook::At(_) => {}
    }
    let came = look().is_err();
    // Waiting for the GIL is not work.
    LAST_LOOK.set(LastLook::At(Instant::now()));
    came
}

/// Looks for signals at once, however long ago the last look was: for a computation that is
/// about to do what cannot be undone.
///
/// # Errors
/// [`Error::Interrupted`] if a signal handler raised.
pub(crate) fn look() -> Result<(), Error> {
    match Python::try_attach(|py| py.check_signals().err()).flatten() {
        None => Ok(()),
        raised => {
            PENDING.set(raised);
            Err(Error::Interrupted)
        }
    }
}
