//! Passing the time until another thread has done something.

use std::hint::spin_loop;
use std::thread::yield_now;
use std::time::{Duration, Instant};

/// Looks before the processor is offered to other threads: about ten microseconds.
const SPINS: usize = 200;

/// A wait of unknown length, one look after the other.
#[derive(Default)]
pub(crate) struct Pause {
    looks: usize,
    since: Option<Instant>,
}

impl Pause {
    /// Between two looks.
    #[inline]
    pub(crate) fn once(&mut self) {
        self.looks += 1;
        if self.looks < SPINS {
            spin_loop();
        } else {
            self.since.get_or_insert_with(Instant::now);
            yield_now();
        }
    }

    /// How long it has been, spinning aside.
    #[inline]
    pub(crate) fn length(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
