//! The books: which places have a stream, which of its two states is the present one, and in which
//! order they were last used.
//!
//! Free places and open streams are two lists that run through the same table: the first to take
//! from, the second from the longest unused to the last used. A stream that is claimed is in
//! neither.

use std::hint::black_box;
use std::process;

use seqrs_core::Error;

use crate::room::room;

/// No place.
const NONE: u32 = u32::MAX;

/// Which state of a stream is the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// Neither: it is zero.
    Zero,
    First,
    Second,
}

impl Half {
    /// The one that a step writes.
    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Zero | Self::Second => Self::First,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Free,
    Open,
    /// By the claim of this number, made in a process.
    Claimed(u64, u32),
    /// On its way out: its state can still be read.
    Leaving,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    status: Status,
    half: Half,
    generation: u64,
    /// When it was last used, in the pool's time.
    used: u64,
    before: u32,
    after: u32,
}

/// The number that the documentation of the memory has.
const _: () = assert!(size_of::<Place>() == 48);

/// A list through the table.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

const EMPTY: List = List { first: NONE, last: NONE };

#[derive(Debug)]
pub(super) struct Places {
    /// As many as have been needed so far; there is room for `capacity`.
    places: Vec<Place>,
    capacity: usize,
    free: List,
    /// The longest unused first.
    used: List,
    open: usize,
    claims: u64,
}

impl Places {
    pub(super) fn new(capacity: usize) -> Result<Self, Error> {
        let places = room("places of streams", capacity)?;
        Ok(Self { places, capacity, free: EMPTY, used: EMPTY, open: 0, claims: 0 })
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn nbytes(&self) -> usize {
        self.capacity * size_of::<Place>()
    }

    /// Streams that are open, those that are claimed among them.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn claimed(&self) -> usize {
        let claimed = |place: &&Place| matches!(place.status, Status::Claimed(..));
        self.places.iter().filter(claimed).count()
    }

    /// A place for a new stream, in the zero state, and its generation.
    pub(super) fn open_one(&mut self, now: u64) -> Option<(u32, u64)> {
        let place = match self.free.first {
            NONE if self.places.len() == self.capacity => return None,
            NONE => {
                let generation = 0;
                self.places.push(Place {
                    status: Status::Free,
                    half: Half::Zero,
                    generation,
                    used: now,
                    before: NONE,
                    after: NONE,
                });
                self.places.len() as u32 - 1
            }
            first => {
                self.take(first, |places| &mut places.free);
                first
            }
        };
        let at = &mut self.places[place as usize];
        (at.status, at.half, at.used) = (Status::Open, Half::Zero, now);
        let generation = at.generation;
        self.append(place, |places| &mut places.used);
        self.open += 1;
        Some((place, generation))
    }

    /// Why this is no stream to be used, if it is none.
    pub(super) fn why_not(
        &mut self,
        place: u32,
        generation: u64,
        now: u64,
    ) -> Option<&'static str> {
        let Some(at) = self.places.get(place as usize) else { return Some("one of another pool") };
        if at.generation != generation {
            return Some("one that was closed");
        }
        match at.status {
            Status::Open => None,
            Status::Free => Some("one that was closed"),
            Status::Leaving => Some("one that is being evicted"),
            // Whoever was at it stayed behind in the parent.
            Status::Claimed(_, by) if by != process::id() => {
                self.release(place, now);
                None
            }
            Status::Claimed(..) => Some("one that is being stepped"),
        }
    }

    /// Whether the state of this stream can be read: it is open, or on its way out.
    pub(super) fn is_readable(&mut self, place: u32, generation: u64, now: u64) -> bool {
        let leaving = self
            .places
            .get(place as usize)
            .is_some_and(|at| at.generation == generation && at.status == Status::Leaving);
        leaving || self.why_not(place, generation, now).is_none()
    }

    /// Looks at places, and at those beside them in their list, so that they are near when the
    /// list is mended: they lie anywhere, but a processor fetches many at once.
    pub(super) fn fetch(&self, places: impl Iterator<Item = u32> + Clone) {
        let look = |place: u32| {
            let at = self.places.get(place as usize);
            at.map_or(0, |at| at.before ^ at.after ^ at.generation as u32 ^ at.used as u32)
        };
        let beside = |place: u32| {
            let at = self.places.get(place as usize);
            at.map_or(0, |at| look(at.before) ^ look(at.after))
        };
        black_box(places.clone().map(look).fold(0, |sum, word| sum ^ word));
        black_box(places.map(beside).fold(0, |sum, word| sum ^ word));
    }

    /// A number for a claim of this process.
    pub(super) fn new_claim(&mut self) -> Mark {
        self.claims += 1;
        Mark { number: self.claims, process: process::id() }
    }

    pub(super) fn is_claimed_by(&self, place: u32, mark: Mark) -> bool {
        let status = self.places.get(place as usize).map(|at| at.status);
        status == Some(Status::Claimed(mark.number, mark.process))
    }

    /// Takes hold of an open stream.
    pub(super) fn claim(&mut self, place: u32, mark: Mark) -> Half {
        self.take(place, |places| &mut places.used);
        let at = &mut self.places[place as usize];
        at.status = Status::Claimed(mark.number, mark.process);
        at.half
    }

    /// Lets go of a claimed stream, as used now.
    pub(super) fn release(&mut self, place: u32, now: u64) {
        let at = &mut self.places[place as usize];
        (at.status, at.used) = (Status::Open, now);
        self.append(place, |places| &mut places.used);
    }

    pub(super) fn half(&self, place: u32) -> Half {
        self.places[place as usize].half
    }

    pub(super) fn set_half(&mut self, place: u32, half: Half) {
        self.places[place as usize].half = half;
    }

    /// An open stream is used now.
    pub(super) fn touch(&mut self, place: u32, now: u64) {
        self.take(place, |places| &mut places.used);
        self.release(place, now);
    }

    /// Ends a stream that is open or on its way out.
    pub(super) fn close(&mut self, place: u32) {
        if self.places[place as usize].status == Status::Open {
            self.take(place, |places| &mut places.used);
        }
        let at = &mut self.places[place as usize];
        at.status = Status::Free;
        // More generations than a place can have in the life of a machine.
        at.generation += 1;
        self.open -= 1;
        self.append(place, |places| &mut places.free);
    }

    /// The longest unused stream, on its way out now, if it was last used at `before` or earlier.
    pub(super) fn begin_to_evict(&mut self, before: u64) -> Option<(u32, u64)> {
        let place = self.used.first;
        let at = self.places.get(place as usize).filter(|at| at.used <= before)?;
        let generation = at.generation;
        self.take(place, |places| &mut places.used);
        self.places[place as usize].status = Status::Leaving;
        Some((place, generation))
    }

    fn append(&mut self, place: u32, list: impl Fn(&mut Self) -> &mut List) {
        let last = std::mem::replace(&mut list(self).last, place);
        match last {
            NONE => list(self).first = place,
            last => self.places[last as usize].after = place,
        }
        let at = &mut self.places[place as usize];
        (at.before, at.after) = (last, NONE);
    }

    fn take(&mut self, place: u32, list: impl Fn(&mut Self) -> &mut List) {
        let Place { before, after, .. } = self.places[place as usize];
        match before {
            NONE => list(self).first = after,
            before => self.places[before as usize].after = after,
        }
        match after {
            NONE => list(self).last = before,
            after => self.places[after as usize].before = before,
        }
    }
}

/// Who claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    number: u64,
    process: u32,
}

#[cfg(test)]
impl Places {
    /// Makes a claim one of another process; gives whether there was one.
    pub(super) fn claimed_by_another_process(&mut self, place: u32) -> bool {
        match &mut self.places[place as usize].status {
            Status::Claimed(_, process) => {
                *process ^= 1;
                true
            }
            _ => false,
        }
    }
}
