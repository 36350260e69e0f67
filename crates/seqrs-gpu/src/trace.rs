//! What a device has done, as plain data, so that it can be done again elsewhere.

use std::sync::Mutex;

use crate::device::Gpu;
use crate::program::{BufferId, Program};
use crate::recorder::locked;

/// Something that a device did.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It ran a program.
    Ran(Program),
    /// It gave what is in a buffer.
    Gave(BufferId, Vec<f32>),
}

/// Takes down what happens, while somebody wants to know.
#[derive(Debug, Default)]
pub(crate) struct Trace(Mutex<Option<Vec<Event>>>);

impl Trace {
    pub(crate) fn note(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &mut *locked(&self.0) {
            events.push(event());
        }
    }
}

impl Gpu {
    /// Does `work`, and gives all that the device did meanwhile, in order. One at a time.
    pub fn traced<R>(&self, work: impl FnOnce() -> R) -> (R, Vec<Event>) {
        *locked(&self.trace.0) = Some(Vec::new());
        let result = work();
        let events = locked(&self.trace.0).take();
        (result, events.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use seqrs_core::backend::Backend;

    use super::*;

    #[test]
    fn what_ran_and_what_came_back_is_taken_down_while_it_is_asked_for() {
        let gpu = Gpu::noop();
        let recorder = gpu.recorder();
        let ones = recorder.numbers(&[1.0; 3]);
        let ((), events) = gpu.traced(|| gpu.run_recorded(&recorder).unwrap());
        let [Event::Ran(program)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(program.buffers, [(ones.id(), 12)]);

        let sum = recorder.times(&ones, &ones).unwrap();
        let (found, events) = gpu.traced(|| gpu.read(&recorder, &sum).unwrap());
        let [Event::Ran(program), gave] = &events[..] else { panic!("{events:?}") };
        assert_eq!(program.commands.len(), 1);
        assert_eq!(*gave, Event::Gave(sum.id(), found));

        gpu.run_recorded(&recorder).unwrap();
        assert_eq!(gpu.traced(|| ()).1, []);
    }
}
