//! Buffers that nobody needs any more, on their way to the device that has them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::program::BufferId;
use crate::recorder::locked;

/// Those of one recorder. Its next program takes them along; when it is gone, the device that it
/// was for takes them itself.
#[derive(Debug, Default)]
pub(crate) struct Released {
    ids: Mutex<Vec<BufferId>>,
    is_abandoned: AtomicBool,
}

impl Released {
    pub(crate) fn push(&self, id: BufferId) {
        locked(&self.ids).push(id);
    }

    pub(crate) fn take(&self) -> Vec<BufferId> {
        std::mem::take(&mut *locked(&self.ids))
    }

    /// Takes back the one of the least cost, among those that have one.
    pub(crate) fn take_back(&self, cost: impl Fn(BufferId) -> Option<u64>) -> Option<BufferId> {
        let mut ids = locked(&self.ids);
        let costs = ids.iter().enumerate().filter_map(|(k, &id)| Some((cost(id)?, k)));
        let (_, at) = costs.min()?;
        Some(ids.remove(at))
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
