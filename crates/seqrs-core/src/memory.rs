//! Buffers that may be larger than there is memory, and buffers that are used again.
//!
//! Fresh memory comes from the system page by page, each cleared and mapped when it is first
//! written. To a step of training, whose tape is written once and read once, that costs up to a
//! third of its time. So what is large and short-lived is [`Lent`]: when it goes, it is kept for
//! the next that asks for about as much. However many steps and shapes come by, what is kept and
//! what is lent are together at most one and a half times what was once lent at the same time.

use std::any::Any;
use std::collections::VecDeque;
use std::hint::spin_loop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use bytemuck::{Zeroable, allocation};

use crate::Error;

/// Bytes that a [`Lent`] buffer begins at a multiple of: a cache line, and the widest register.
/// (The system's large buffers begin 16 bytes into a page, so that each register of 64 bytes lies
/// in two lines. Training of 64 to 256 units takes 2-6 % less time without that.)
const LINE: usize = 64;

/// Smaller buffers are not kept: the allocator keeps those itself.
const WORTH_KEEPING: usize = 128 << 10;

/// Bytes that are kept at most, of all sizes and types together.
const KEPT: usize = 256 << 20;

/// What is kept, the oldest first. Nobody waits for it for long: who finds it taken does without,
/// and so does a child that was forked while it was.
static KEPT_BUFFERS: Mutex<VecDeque<Kept>> = Mutex::new(VecDeque::new());

/// Bytes that are lent now, and the most that ever were.
static LENT: AtomicUsize = AtomicUsize::new(0);
static MOST_LENT: AtomicUsize = AtomicUsize::new(0);

/// Looks for whether it is free: it is held for less than a microsecond.
const LOOKS: usize = 100;

fn kept_buffers() -> Option<MutexGuard<'static, VecDeque<Kept>>> {
    (0..LOOKS).find_map(|_| {
        let found = KEPT_BUFFERS.try_lock().ok();
        if found.is_none() {
            spin_loop();
        }
        found
    })
}

/// A `Vec` of some type.
struct Kept {
    bytes: usize,
    numbers: Box<dyn Any + Send>,
}

/// `len` numbers, whatever they are.
fn blank<T: Zeroable + Clone + Send + 'static>(what: &str, len: usize) -> Result<Vec<T>, Error> {
    let bytes = len.saturating_mul(size_of::<T>());
    if bytes < WORTH_KEEPING {
        return zeros(what, len);
    }
    let mut numbers = match take(bytes) {
        Some(numbers) => numbers,
        None => zeros(what, len).or_else(|_| {
            // What is kept may be in the way.
            drop(kept_buffers().map(|mut kept| std::mem::take(&mut *kept)));
            zeros(what, len)
        })?,
    };
    let bytes = numbers.capacity() * size_of::<T>();
    let lent = LENT.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST_LENT.fetch_max(lent, Ordering::Relaxed);
    numbers.resize(len, T::zeroed());
    if let Some(kept) = kept_buffers() {
        let_go(kept);
    }
    Ok(numbers)
}

/// Keeps a buffer that [`blank`] gave and that is done with for the next who asks.
fn keep<T: Send + 'static>(numbers: Vec<T>) {
    let bytes = numbers.capacity() * size_of::<T>();
    if bytes < WORTH_KEEPING {
        return;
    }
    LENT.fetch_sub(bytes, Ordering::Relaxed);
    if bytes > KEPT {
        return;
    }
    let fresh = Kept { bytes, numbers: Box::new(numbers) };
    let Some(mut kept) = kept_buffers() else { return };
    kept.push_back(fresh);
    let_go(kept);
}

/// Gives the oldest buffers back to the system, until the others are no more than they may be.
///
/// A step of training needs some buffers after others, so it takes more than what it is lent at
/// any time to do without fresh ones: half as much again is enough. (With nothing more, a GRU of
/// 128 units on 16 rows gave back 6 MB in each step and took them anew: 7.4 for 5.5 ms.)
fn let_go(mut kept: MutexGuard<'_, VecDeque<Kept>>) {
    let most = MOST_LENT.load(Ordering::Relaxed);
    let more = (most + most / 2).saturating_sub(LENT.load(Ordering::Relaxed)).min(KEPT);
    let mut sum: usize = kept.iter().map(|kept| kept.bytes).sum();
    let mut rest = Vec::new();
    while sum > more
        && let Some(oldest) = kept.pop_front()
    {
        sum -= oldest.bytes;
        rest.push(oldest);
    }
    // When the lock is free again: giving them back takes a while.
    drop(kept);
    drop(rest);
}

/// The smallest kept buffer that has room for `bytes`, but not much more.
fn take<T: 'static>(bytes: usize) -> Option<Vec<T>> {
    let mut kept = kept_buffers()?;
    let fits =
        |kept: &Kept| (bytes..=bytes / 4 * 5).contains(&kept.bytes) && kept.numbers.is::<Vec<T>>();
    let candidates = kept.iter().enumerate().filter(|(_, kept)| fits(kept));
    let (at, _) = candidates.min_by_key(|(_, kept)| kept.bytes)?;
    let found = kept.remove(at)?;
    found.numbers.downcast().ok().map(|numbers| *numbers)
}

/// Numbers for who writes each of them before reading it, from the start of a cache line on. The
/// memory is kept for the next when they go.
#[derive(Debug)]
pub struct Lent<T: Send + 'static> {
    numbers: Vec<T>,
    start: usize,
}

impl<T: Zeroable + Clone + Send + 'static> Lent<T> {
    /// `len` numbers, whatever they are.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] names `what` it was for.
    pub fn new(what: &str, len: usize) -> Result<Self, Error> {
        let line = LINE.div_ceil(size_of::<T>());
        let numbers: Vec<T> = blank(what, len.saturating_add(line))?;
        let start = numbers.as_ptr().align_offset(LINE).min(line);
        let mut lent = Self { numbers, start };
        lent.numbers.truncate(start + len);
        Ok(lent)
    }
}

impl<T: Send + 'static> Deref for Lent<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.numbers[self.start..]
    }
}

impl<T: Send + 'static> DerefMut for Lent<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.numbers[self.start..]
    }
}

impl<T: Send + 'static> Drop for Lent<T> {
    fn drop(&mut self) {
        keep(std::mem::take(&mut self.numbers));
    }
}

/// `len` zeros. The system gives large buffers page by page when they are first written, so
/// this takes no time, and it is the thread that computes a part that has it near.
///
/// # Errors
/// [`Error::OutOfMemory`] names `what` it was for.
pub fn zeros<T: Zeroable>(what: &str, len: usize) -> Result<Vec<T>, Error> {
    let bytes = len as u128 * size_of::<T>() as u128;
    let none = |()| Error::OutOfMemory { what: what.to_owned(), bytes };
    allocation::try_zeroed_vec(len).map_err(none)
}

/// An empty vector with room for `len` elements, so that pushing these cannot fail.
///
/// # Errors
/// [`Error::OutOfMemory`] names `what` it was for.
pub fn room<T>(what: &str, len: usize) -> Result<Vec<T>, Error> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(len).map_err(|_| Error::OutOfMemory {
        what: what.to_owned(),
        bytes: len as u128 * size_of::<T>() as u128,
    })?;
    Ok(vector)
}

/// A copy.
///
/// # Errors
/// [`Error::OutOfMemory`] names `what` it was for.
pub fn copied<T: Copy>(what: &str, numbers: &[T]) -> Result<Vec<T>, Error> {
    let mut copy = room(what, numbers.len())?;
    copy.extend_from_slice(numbers);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, as what is kept is kept for the whole process.
    #[test]
    fn what_is_kept_is_used_again_by_who_needs_about_as_much() {
        type Number = [u16; 5];
        let blank = |len: usize| super::blank::<Number>("numbers", len).unwrap();
        let first = blank(100_000);
        let address = first.as_ptr();
        keep(first);
        // Others may hold the lock for a moment.
        let again = |len: usize| {
            (0..1000).any(|_| {
                let numbers = blank(len);
                let same = numbers.as_ptr() == address;
                assert_eq!(numbers.len(), len);
                keep(numbers);
                same
            })
        };
        assert!(again(90_000));
        assert!(again(100_000));
        // Who cannot use it lets it go: half as much again is too little for both.
        let sum = || KEPT_BUFFERS.lock().unwrap().iter().map(|kept| kept.bytes).sum::<usize>();
        assert!(!again(70_000), "much too large");
        assert_eq!(sum(), 700_000);
        assert!(!again(100_001), "too small");
        assert_eq!(sum(), 1_000_010);
        // Nor does more pile up where somebody else was at it.
        let taken = KEPT_BUFFERS.lock().unwrap();
        let another = blank(100_001);
        drop(taken);
        keep(another);
        assert_eq!(sum(), 1_000_010);
        assert!(blank(10).iter().all(|number| *number == [0; 5]), "small ones are fresh");

        // A step: what it needs while it has the tape, one after the other.
        let step = || {
            let tape = blank(100_001);
            let others = [30_000, 50_000, 20_000].map(|len| {
                let numbers = blank(len);
                let address = numbers.as_ptr();
                keep(numbers);
                address
            });
            let address = tape.as_ptr();
            keep(tape);
            (address, others)
        };
        let first = step();
        assert!((0..1000).filter(|_| step() == first).count() > 900);
        assert!(sum() <= 2_250_015 && LENT.load(Ordering::Relaxed) == 0);

        let large = [(); 12].map(|()| super::blank::<u16>("numbers", KEPT / 8).unwrap());
        large.into_iter().for_each(keep);
        assert_eq!(sum(), KEPT);
        keep(super::blank::<u8>("numbers", KEPT + 1).unwrap());
        assert_eq!(LENT.load(Ordering::Relaxed), 0);
        assert!(sum() <= KEPT);
        KEPT_BUFFERS.lock().unwrap().clear();
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert_eq!(zeros::<f32>("a few", 3), Ok(vec![0.0; 3]));
        for len in [usize::MAX, isize::MAX as usize / 4, 1 << 58] {
            let error = zeros::<f64>("much", len).unwrap_err();
            assert_eq!(error, Error::OutOfMemory { what: "much".into(), bytes: len as u128 * 8 });
            assert_eq!(room::<u64>("much", len), Err(error));
        }
    }
}
