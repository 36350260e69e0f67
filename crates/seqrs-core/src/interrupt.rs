//! Stopping a long computation.
//!
//! The thread that starts a computation may leave a question with [`scope`]; loops ask
//! it between chunks of work by [`check`]. Nothing has to pass a handle along, and a
//! computation without a question pays for one thread-local read a chunk.

use std::cell::Cell;

use crate::Error;

/// Answers whether the computation should stop.
pub type Question = fn() -> bool;

thread_local! {
    static ASKED: Cell<Option<Question>> = const { Cell::new(None) };
}

/// Puts the question of the scope around this one back, also on a panic.
struct Restore(Option<Question>);

impl Drop for Restore {
    fn drop(&mut self) {
        ASKED.set(self.0);
    }
}

/// Runs `work`; while it runs, [`check`] on this thread asks `stop`.
pub fn scope<R>(stop: Question, work: impl FnOnce() -> R) -> R {
    let _restore = Restore(ASKED.replace(Some(stop)));
    work()
}

/// The question of the innermost [`scope`], for one inside it that asks it too.
pub fn asked() -> Option<Question> {
    ASKED.get()
}

/// Asks the question left by [`scope`].
///
/// # Errors
/// [`Error::Interrupted`] when it is answered with yes.
pub fn check() -> Result<(), Error> {
    match ASKED.get() {
        Some(stop) if stop() => Err(Error::Interrupted),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_lives_as_long_as_its_scope() {
        assert_eq!(check(), Ok(()));
        scope(
            || true,
            || {
                assert_eq!(check(), Err(Error::Interrupted));
                assert!(asked().is_some_and(|stop| stop()));
                scope(|| false, || assert_eq!(check(), Ok(())));
                assert_eq!(check(), Err(Error::Interrupted));
            },
        );
        assert_eq!(check(), Ok(()));
        assert!(asked().is_none());
    }
}
