//! Whose turn it is to use a device.
//!
//! Programs run one after the other, and one may take long. A mutex would do but for this: who
//! waits for a mutex cannot change their mind.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::recorder::locked;

/// Between two looks whether the caller still wants to wait.
const LOOK: Duration = Duration::from_millis(20);

/// What is used in turn.
#[derive(Default)]
pub(crate) struct Turns<T> {
    content: Mutex<T>,
    is_taken: Mutex<bool>,
    given_back: Condvar,
}

/// A turn: the content, for as long as it lives.
pub(crate) struct Turn<'a, T> {
    pub(crate) content: MutexGuard<'a, T>,
    /// Dropped after the content, as the last field.
    _taken: Taken<'a>,
}

struct Taken<'a> {
    is_taken: &'a Mutex<bool>,
    given_back: &'a Condvar,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *locked(self.is_taken) = false;
        self.given_back.notify_one();
    }
}

impl<T> Turns<T> {
    /// Waits for a turn; none if `stops` says so before it comes.
    pub(crate) fn wait(&self, mut stops: impl FnMut() -> bool) -> Option<Turn<'_, T>> {
        let mut is_taken = locked(&self.is_taken);
        while *is_taken {
            drop(is_taken);
            if stops() {
                return None;
            }
            is_taken = locked(&self.is_taken);
            if *is_taken {
                let waited = self.given_back.wait_timeout(is_taken, LOOK);
                is_taken = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        *is_taken = true;
        drop(is_taken);
        let taken = Taken { is_taken: &self.is_taken, given_back: &self.given_back };
        Some(Turn { content: locked(&self.content), _taken: taken })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn turns_come_one_after_the_other() {
        let (turns, inside) = (Turns::<u32>::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut turn = turns.wait(|| false).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        *turn.content += 1;
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(*turns.wait(|| true).unwrap().content, 800);
    }

    #[test]
    fn who_waits_may_give_up() {
        let turns = Turns::<u32>::default();
        let turn = turns.wait(|| false);
        let mut asked = 0;
        let given_up = turns.wait(|| {
            asked += 1;
            asked == 3
        });
        assert!(given_up.is_none() && asked == 3);
        drop(turn);
        assert!(turns.wait(|| true).is_some());
    }
}
