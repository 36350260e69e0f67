//! Many streams, stepped as one batch.
//!
//! A service that answers thousands of streams steps those that have something new. One by one each
//! step reads all weights for a single row; together they are read once for many rows. So a pool
//! keeps the states of all streams in one place, and a step of some of them
//!
//! ```text
//! claims them                            (nobody else steps them meanwhile)
//! for each block of rows:                (blocks share the threads)
//!     gathers their states, makes one step of the whole model, writes their new states
//! finishes                               (all new states come into force at once)
//! ```
//! Rows do not know of each other, so each stream gets the bits that it would get alone, whatever
//! it is stepped with.
//!
//! # All or nothing
//! Each stream has room for two states. A step reads one and writes the other, and to finish is to
//! say that the other is the present one. A step that fails or is interrupted has not finished:
//! every stream is where it was. Nothing is locked while a step is computed; streams that are
//! claimed are refused to everybody else.
//!
//! # Memory
//! Of a stream, with S numbers of state (of each recurrent layer L H for h, or L P with a
//! projection, and L H for an LSTM's c):
//! ```text
//! bytes = capacity (2 S bytes of a number + 48)
//! ```
//! (in float32 an odd H or P counts as the next even one). The system gives it as it is used: a place that no stream has had takes none. A step of any
//! number of streams takes the workspace of 128 rows for each thread, and 16 bytes a stream.
//!
//! # Fork
//! A child has the streams as they were; those that a thread of the parent was stepping are where
//! they were before that step.

mod blob;
mod places;
mod stats;
mod store;

use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use once_cell::race::OnceBox;
use seqrs_core::backend::State;
use seqrs_core::memory::{Lent, zeros};
use seqrs_core::{Error, interrupt};
use seqrs_cpu::{Cpu, team};

use crate::arrays::{check_shape, in_order, shaped};
use crate::number::Number;
use crate::sequential::Sequential;
use crate::state_room::{StateRoom, recurrent};
use crate::stepping::{self, StepInput, step_layers};
use places::{Half, Places};
use stats::Counts;
pub use stats::Stats;
use store::Store;

/// Rows that a thread takes through the model at a time: enough to keep its multipliers busy, and
/// few enough for their states and gates to stay in its cache (64 units: some 400 KB).
const BLOCK: usize = 128;

static NEXT_POOL: AtomicU64 = AtomicU64::new(0);

/// A stream of a pool: a handle that its pool alone accepts, until it is closed. It means nothing
/// to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    pool: u64,
    place: u32,
    /// How many streams have had the place before.
    generation: u64,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}.{} of pool {}", self.place, self.generation, self.pool)
    }
}

/// The states of many streams of one model, which is the model as it was when the pool was made.
///
/// ```
/// use ndarray::array;
/// use seqrs::{Gru, Linear, Sequential, StreamPool};
///
/// let model = Sequential::<f32>::new(vec![Gru::new(2, 8).build()?, Linear::new(8, 1).build()?])?;
/// let pool = StreamPool::new(model, 1000)?;
/// let (a, b) = (pool.open()?, pool.open()?);
/// let y = pool.step(&[b, a], array![[0.5, 1.0], [0.0, -1.0]].view())?;
/// assert_eq!(y.dim(), (2, 1));
/// let saved = pool.export_state(a)?;
/// pool.close(a)?;
/// assert!(pool.step(&[a], array![[0.5, 1.0]].view()).is_err());
/// let _again = pool.import_state(&saved)?;
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Debug)]
pub struct StreamPool<T: Number> {
    id: u64,
    model: Sequential<T>,
    output: Option<usize>,
    work: usize,
    store: Store<T>,
    /// Held for a few instructions a stream, never while anything is computed.
    books: Mutex<Books>,
    fingerprint: OnceBox<u64>,
    began: Instant,
}

#[derive(Debug)]
struct Books {
    places: Places,
    counts: Counts,
}

impl<T: Number> StreamPool<T> {
    /// A pool for at most `capacity` streams at a time.
    ///
    /// # Errors
    /// [`Error::State`] names a layer that needs the whole sequence, [`Error::Shape`] a capacity
    /// that is 0 or beyond what 32 bits count; [`Error::OutOfMemory`].
    pub fn new(model: Sequential<T>, capacity: usize) -> Result<Self, Error> {
        model.check_stepwise()?;
        if capacity == 0 || u32::try_from(capacity).is_err() {
            return Err(Error::shape("capacity", "1 to 4294967295 streams", capacity));
        }
        let stacks = || recurrent(model.layers()).map(|(_, layer)| layer.stack());
        let parts = stacks().flat_map(|stack| {
            let of_c = stack.cell().states() > 1;
            let slots = 0..stack.slots();
            let h = slots.clone().map(|_| stack.state_size());
            h.chain(slots.filter(move |_| of_c).map(|_| stack.options().hidden_size))
        });
        let record = parts.map(Store::<T>::words_of).sum();
        Ok(Self {
            id: NEXT_POOL.fetch_add(1, Ordering::Relaxed),
            output: stepping::output_width(model.layers(), model.input_width()),
            work: stepping::work(model.layers()),
            store: Store::new(capacity, record)?,
            books: Mutex::new(Books { places: Places::new(capacity)?, counts: Counts::default() }),
            model,
            fingerprint: OnceBox::new(),
            began: Instant::now(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Sequential<T> {
        &self.model
    }

    /// Streams that there may be at a time.
    pub fn capacity(&self) -> usize {
        self.books().places.capacity()
    }

    /// Streams that are open.
    pub fn len(&self) -> usize {
        self.books().places.open()
    }

    /// Whether no stream is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of states and books: capacity (2 S bytes of a number + 48).
    pub fn nbytes(&self) -> usize {
        self.store.nbytes() + self.books().places.nbytes()
    }

    /// What has been done so far.
    pub fn stats(&self) -> Stats {
        let books = self.books();
        books.counts.stats(&books.places)
    }

    /// A new stream, in the zero state.
    ///
    /// # Errors
    /// [`Error::Full`] if as many as there may be are open.
    pub fn open(&self) -> Result<Stream, Error> {
        let now = self.now();
        let mut books = self.books();
        let Books { places, counts } = &mut *books;
        match places.open_one(now) {
            Some((place, generation)) => {
                counts.opened += 1;
                Ok(Stream { pool: self.id, place, generation })
            }
            None => {
                counts.refused += 1;
                let expected = format!("fewer than {} open streams (its capacity)", places.open());
                Err(Error::full("pool", expected, places.open()))
            }
        }
    }

    /// Puts a stream back to the zero state.
    ///
    /// # Errors
    /// [`Error::State`] if the stream is not of this pool, closed, or being stepped.
    pub fn reset(&self, stream: Stream) -> Result<(), Error> {
        let now = self.now();
        let mut books = self.books();
        self.find(&mut books.places, stream, now)?;
        books.places.set_half(stream.place, Half::Zero);
        books.places.touch(stream.place, now);
        Ok(())
    }

    /// Ends a stream. Its handle is refused from now on, also when another has its place.
    ///
    /// # Errors
    /// As [`reset`](Self::reset).
    pub fn close(&self, stream: Stream) -> Result<(), Error> {
        let now = self.now();
        let mut books = self.books();
        self.find(&mut books.places, stream, now)?;
        books.places.close(stream.place);
        books.counts.closed += 1;
        Ok(())
    }

    /// Ends the streams that nothing has happened to for `idle`, the longest unused first. Before
    /// it ends, each is given to `leaving`, for which [`export_state`](Self::export_state) is the
    /// one thing that it is still good for; nothing is locked meanwhile. Gives how many they were.
    pub fn evict_idle(&self, idle: Duration, mut leaving: impl FnMut(Stream)) -> usize {
        let before = self.now().checked_sub(idle.as_nanos().try_into().unwrap_or(u64::MAX));
        let Some(before) = before else { return 0 };
        let mut count = 0;
        // One at a time, so that whoever panics leaves the others as they are.
        loop {
            let next = self.books().places.begin_to_evict(before);
            let Some((place, generation)) = next else { return count };
            let stream = Stream { pool: self.id, place, generation };
            let _end = Leaving { pool: self, place };
            leaving(stream);
            count += 1;
        }
    }

    /// One step of numbers, (n, I), of these streams, in any order: the output (n, F).
    ///
    /// # Errors
    /// [`Error::State`] names a handle that is not of this pool, closed, given twice, or of a
    /// stream that is being stepped; [`Error::Shape`] and [`Error::DType`] name what does not fit;
    /// [`Error::OutOfMemory`], [`Error::Interrupted`]. Every stream is then where it was.
    pub fn step(&self, streams: &[Stream], x: ArrayView2<'_, T>) -> Result<Array2<T>, Error> {
        let width = stepping::output_width(self.model.layers(), Some(x.ncols())).unwrap_or(0);
        let mut y = blank(streams.len(), width)?;
        self.step_into(streams, x, y.view_mut())?;
        Ok(y)
    }

    /// As [`step`](Self::step), into `y` (n, F).
    ///
    /// # Errors
    /// As [`step`](Self::step); what is in `y` may be anything then.
    pub fn step_into(
        &self,
        streams: &[Stream],
        x: ArrayView2<'_, T>,
        y: ArrayViewMut2<'_, T>,
    ) -> Result<(), Error> {
        check_shape("x", x.shape(), &[streams.len(), x.ncols()])?;
        let width = stepping::output_width(self.model.layers(), Some(x.ncols()));
        self.step_rows(streams, StepInput::Numbers(&in_order("x", &x)?), width, y)
    }

    /// One step of ids, one for each of the streams, in any order: the output (n, F).
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_ids(&self, streams: &[Stream], ids: &[i64]) -> Result<Array2<T>, Error> {
        let mut y = blank(streams.len(), self.output.unwrap_or(0))?;
        self.step_ids_into(streams, ids, y.view_mut())?;
        Ok(y)
    }

    /// As [`step_ids`](Self::step_ids), into `y` (n, F).
    ///
    /// # Errors
    /// As [`step_into`](Self::step_into).
    pub fn step_ids_into(
        &self,
        streams: &[Stream],
        ids: &[i64],
        y: ArrayViewMut2<'_, T>,
    ) -> Result<(), Error> {
        check_shape("ids", &[ids.len()], &[streams.len()])?;
        self.step_rows(streams, StepInput::Ids(ids), self.output, y)
    }

    fn step_rows(
        &self,
        streams: &[Stream],
        x: StepInput<'_, T>,
        width: Option<usize>,
        mut y: ArrayViewMut2<'_, T>,
    ) -> Result<(), Error> {
        check_shape("y", y.shape(), &[streams.len(), width.unwrap_or(0)])?;
        let mut claim = self.claim(streams)?;
        match y.as_slice_mut() {
            Some(y) => claim.step_on(x, y)?,
            None => {
                let mut rows = Lent::new("output", y.len())?;
                claim.step_on(x, &mut rows)?;
                y.iter_mut().zip(rows.iter()).for_each(|(to, &from)| *to = from);
            }
        }
        claim.finish();
        Ok(())
    }

    /// Takes hold of streams, for a step: nobody else can use them until the claim is gone.
    ///
    /// # Errors
    /// [`Error::State`] names a handle that is not of this pool, closed, given twice, or of a
    /// stream that is being stepped; [`Error::OutOfMemory`].
    pub fn claim(&self, streams: &[Stream]) -> Result<Claim<'_, T>, Error> {
        let mut rows = crate::room::room("rows of a batch", streams.len())?;
        let began = Instant::now();
        let now = self.now();
        let mut books = self.books();
        let mark = books.places.new_claim();
        books.places.fetch(streams.iter().map(|stream| stream.place));
        for (k, &stream) in streams.iter().enumerate() {
            if let Err(error) = self.find(&mut books.places, stream, now) {
                let twice = books.places.is_claimed_by(stream.place, mark);
                rows.iter().for_each(|&(place, _)| books.places.release(place, now));
                let of = |expected, got| Error::state(format!("sids[{k}]"), expected, got);
                return Err(match error {
                    Error::State { expected, .. } if twice && stream.pool == self.id => {
                        let first = streams.iter().position(|&other| other == stream);
                        of(expected, format!("the one that is sids[{}]", first.unwrap_or(0)))
                    }
                    Error::State { expected, got, .. } => of(expected, got),
                    other => other,
                });
            }
            let half = books.places.claim(stream.place, mark);
            rows.push((stream.place, half));
        }
        drop(books);
        Ok(Claim { pool: self, rows, began, computed: false, finished: false })
    }

    /// Looks a handle up.
    fn find(&self, places: &mut Places, stream: Stream, now: u64) -> Result<(), Error> {
        let got = match stream.pool == self.id {
            true => match places.why_not(stream.place, stream.generation, now) {
                None => return Ok(()),
                Some(got) => got,
            },
            false => "one of another pool",
        };
        Err(Error::state("sid", "an open stream of this pool", got))
    }

    /// A lock that is never held while anything is computed; a panic within leaves it whole.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the pool was made.
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

/// Ends an eviction, also where who was told panics.
struct Leaving<'a, T: Number> {
    pool: &'a StreamPool<T>,
    place: u32,
}

impl<T: Number> Drop for Leaving<'_, T> {
    fn drop(&mut self) {
        let mut books = self.pool.books();
        books.places.close(self.place);
        books.counts.evicted += 1;
    }
}

/// Streams that are about to be stepped. Their states are as they were until
/// [`finish`](Self::finish), and stay so if the claim is dropped before.
#[derive(Debug)]
pub struct Claim<'a, T: Number> {
    pool: &'a StreamPool<T>,
    /// Places, and which of their states is the present one.
    rows: Vec<(u32, Half)>,
    began: Instant,
    /// Whether there are new states, and whether they are to be the present ones.
    computed: bool,
    finished: bool,
}

impl<T: Number> Claim<'_, T> {
    /// Computes one step into `y`, packed, on the process's threads.
    ///
    /// # Errors
    /// As [`Sequential::step_on`].
    pub fn step_on(&mut self, x: StepInput<'_, T>, y: &mut [T]) -> Result<(), Error> {
        self.computed = false;
        self.compute(x, y)?;
        self.computed = true;
        Ok(())
    }

    fn compute(&self, x: StepInput<'_, T>, y: &mut [T]) -> Result<(), Error> {
        let (pool, count) = (self.pool, self.rows.len());
        let cpu = Cpu::<T>::for_work(pool.work.saturating_mul(count))?;
        let threads = cpu.threads_for(pool.work.saturating_mul(count));
        // What each thread computes with.
        let alone = Cpu::with(cpu.level(), 1);
        let block = count.div_ceil(threads).clamp(1, BLOCK);
        let width = y.len() / count.max(1);
        stepping::check_rows(pool.model.layers(), x, count, y.len())?;
        if count == 0 {
            return Ok(());
        }
        if count <= block {
            return pool.block(&alone, &self.rows, x, y);
        }
        let next = Mutex::new(self.rows.chunks(block).zip(y.chunks_mut(block * width)).enumerate());
        let stop = AtomicBool::new(false);
        let mut results = vec![Ok(()); threads];
        let tasks = results.iter_mut().map(|result| {
            let (next, stop, alone) = (&next, &stop, &alone);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((k, (rows, y))) = taken else { return };
                    let x = x.rows(k * block..k * block + rows.len(), count);
                    // Only the caller's thread knows whether to stop.
                    *result = interrupt::check().and_then(|()| pool.block(alone, rows, x, y));
                    if result.is_err() {
                        return stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        });
        team::run(tasks.collect());
        results.into_iter().collect()
    }

    /// The states that the last step has computed are the present ones from now on; if there was
    /// none, or it has failed, nothing has changed.
    pub fn finish(mut self) {
        self.finished = self.computed;
    }
}

impl<T: Number> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        let (now, took) = (self.pool.now(), self.began.elapsed());
        let mut books = self.pool.books();
        books.places.fetch(self.rows.iter().map(|&(place, _)| place));
        for &(place, half) in &self.rows {
            if self.finished {
                books.places.set_half(place, half.other());
            }
            books.places.release(place, now);
        }
        books.counts.step(self.finished, self.rows.len(), took);
    }
}

impl<T: Number> StreamPool<T> {
    /// One step of some rows, on one thread, into the halves that are not in force.
    fn block(
        &self,
        cpu: &Cpu<T>,
        rows: &[(u32, Half)],
        x: StepInput<'_, T>,
        y: &mut [T],
    ) -> Result<(), Error> {
        let layers = self.model.layers();
        let batch = rows.len();
        let mut room = StateRoom::new(layers, batch)?;
        let mut states = room.lend();
        // All of them at once, before they are used one after the other.
        let fetch = |&(place, half): &(u32, Half)| {
            self.store.fetch(place, half) ^ self.store.fetch(place, half.other())
        };
        black_box(rows.iter().map(fetch).fold(0, |sum, word| sum ^ word));
        self.each_part(&mut states, |at, width, numbers| {
            for (&(place, half), to) in rows.iter().zip(numbers.chunks_exact_mut(width)) {
                match half {
                    Half::Zero => to.fill(num_traits::zero()),
                    half => self.store.read(place, half, at, to),
                }
            }
        });
        step_layers(layers, cpu, x, batch, &mut states, y)?;
        self.each_part(&mut states, |at, width, numbers| {
            for (&(place, half), from) in rows.iter().zip(numbers.chunks_exact(width)) {
                self.store.write(place, half.other(), at, from);
            }
        });
        Ok(())
    }

    /// Calls `visit` with each part of the states that lies in one piece of a stream's record: where
    /// it begins there, its size, and the rows of it.
    fn each_part(
        &self,
        states: &mut [State<&mut [T]>],
        mut visit: impl FnMut(usize, usize, &mut [T]),
    ) {
        let mut at = 0;
        for ((_, layer), state) in recurrent(self.model.layers()).zip(states) {
            let stack = layer.stack();
            let slots = stack.slots();
            let mut parts = |numbers: &mut [T], width: usize| {
                let slot = numbers.len() / slots;
                for numbers in numbers.chunks_exact_mut(slot) {
                    visit(at, width, numbers);
                    at += Store::<T>::words_of(width);
                }
            };
            parts(state.h, stack.state_size());
            if let Some(c) = &mut state.c {
                parts(c, stack.options().hidden_size);
            }
        }
    }
}

fn blank<T: Number>(rows: usize, width: usize) -> Result<Array2<T>, Error> {
    Ok(shaped((rows, width), zeros("output", rows.saturating_mul(width))?))
}

#[cfg(test)]
mod tests;
