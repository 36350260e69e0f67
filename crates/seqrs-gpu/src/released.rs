//! Buffers that nobody needs any more, on their way to the device that has them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::program::BufferId;

/// Those of one recorder. Its next program takes them along; when it is gone, the device that it
/// was for takes them itself.
#[derive(Debug, Default)]
pub(crate) struct Released {
    ids: Mutex<Vec<BufferId>>,
    is_abandoned: AtomicBool,
}

impl Released {
    pub(crate) fn push(&self, id: BufferId) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    pub(crate) fn take(&self) -> Vec<BufferId> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The recorder is gone.
    pub(crate) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Release);
    }

    /// Whether the recorder is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }
}
