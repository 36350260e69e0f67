//! Buffers that may be larger than there is memory, and buffers that are used again.
//!
//! Fresh memory comes from the system page by page, each cleared and mapped when it is first
//! written. To a step of training, whose tape is written once and read once, that costs up to a
//! third of its time. So what is large and short-lived is [`Lent`]: when it goes, it is kept for
//! the next that asks for about as much. However many steps and shapes come by, what is kept and
//! what is lent are together at most one and a half times what was once lent at the same time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use bytemuck::{Pod, Zeroable, allocation};

use crate::Error;

/// What buffers are made of, whatever type of number they are lent for.
type Word = u64;

/// Bytes that a [`Lent`] buffer begins at a multiple of: a cache line, and the widest register.
/// (The system's large buffers begin 16 bytes into a page, so that each register of 64 bytes lies
/// in two lines. Training of 64 to 256 units takes 2-6 % less time without that.)
const LINE: usize = 64;

/// Bytes from which on threads share what is kept. Smaller buffers stay with their thread, as the
/// allocator needs longer for one than a short step has.
const WORTH_SHARING: usize = 128 << 10;

/// Bytes that are kept for all threads at most.
const KEPT: usize = 256 << 20;

/// Small buffers that stay with a thread, and the bytes of all of them at most.
const SMALL: usize = 8;
const SMALL_BYTES: usize = 256 << 10;

/// Bytes up to which glibc finds a buffer in the thread's own list, though not one of zeros.
const AT_HAND: u128 = 1 << 10;

thread_local! {
    static SMALL_BUFFERS: RefCell<Vec<Vec<Word>>> = const { RefCell::new(Vec::new()) };
}

/// What is kept, the oldest first. Nobody waits for it for long: who finds it taken does without,
/// and so does a child that was forked while it was.
static KEPT_BUFFERS: Mutex<VecDeque<Vec<Word>>> = Mutex::new(VecDeque::new());

/// Bytes that are lent now, and the most that ever were.
static LENT: AtomicUsize = AtomicUsize::new(0);
static MOST_LENT: AtomicUsize = AtomicUsize::new(0);

/// Looks for whether it is free: it is held for less than a microsecond.
const LOOKS: usize = 100;

fn kept_buffers() -> Option<MutexGuard<'static, VecDeque<Vec<Word>>>> {
    (0..LOOKS).find_map(|_| {
        let found = KEPT_BUFFERS.try_lock().ok();
        if found.is_none() {
            spin_loop();
        }
        found
    })
}

fn bytes_of(words: &[Word]) -> usize {
    size_of_val(words)
}

/// At least `len` words, whatever they are.
fn take(what: &str, len: usize) -> Result<Vec<Word>, Error> {
    let bytes = len.saturating_mul(size_of::<Word>());
    if bytes < WORTH_SHARING {
        return take_small(what, len);
    }
    let words = match find(bytes) {
        Some(words) => words,
        None => zeros(what, len).or_else(|_| {
            // What is kept may be in the way.
            drop(kept_buffers().map(|mut kept| std::mem::take(&mut *kept)));
            zeros(what, len)
        })?,
    };
    let bytes = bytes_of(&words);
    let lent = LENT.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST_LENT.fetch_max(lent, Ordering::Relaxed);
    if let Some(kept) = kept_buffers() {
        let_go(kept);
    }
    Ok(words)
}

/// Keeps a buffer that [`take`] gave and that is done with for the next who asks.
fn keep(words: Vec<Word>) {
    let bytes = bytes_of(&words);
    if bytes < WORTH_SHARING {
        return keep_small(words);
    }
    LENT.fetch_sub(bytes, Ordering::Relaxed);
    if bytes > KEPT {
        return;
    }
    let Some(mut kept) = kept_buffers() else { return };
    kept.push_back(words);
    let_go(kept);
}

/// Gives the oldest buffers back to the system, until the others are no more than they may be.
///
/// A step of training needs some buffers after others, so it takes more than what it is lent at
/// any time to do without fresh ones: half as much again is enough. (With nothing more, a GRU of
/// 128 units on 16 rows gave back 6 MB in each step and took them anew: 7.4 for 5.5 ms.)
fn let_go(mut kept: MutexGuard<'_, VecDeque<Vec<Word>>>) {
    let most = MOST_LENT.load(Ordering::Relaxed);
    let more = (most + most / 2).saturating_sub(LENT.load(Ordering::Relaxed)).min(KEPT);
    let mut sum: usize = kept.iter().map(|words| bytes_of(words)).sum();
    let mut rest = Vec::new();
    while sum > more
        && let Some(oldest) = kept.pop_front()
    {
        sum -= bytes_of(&oldest);
        rest.push(oldest);
    }
    // When the lock is free again: giving them back takes a while.
    drop(kept);
    drop(rest);
}

/// The smallest kept buffer that has room for `bytes`, but not much more.
fn find(bytes: usize) -> Option<Vec<Word>> {
    let mut kept = kept_buffers()?;
    let fits =
        |kept: &Vec<Word>| (bytes..=bytes.saturating_add(bytes / 4)).contains(&bytes_of(kept));
    let candidates = kept.iter().enumerate().filter(|(_, kept)| fits(kept));
    let (at, _) = candidates.min_by_key(|(_, kept)| kept.len())?;
    kept.remove(at)
}

/// The smallest of this thread's buffers that has room, or a fresh one.
fn take_small(what: &str, len: usize) -> Result<Vec<Word>, Error> {
    let found = SMALL_BUFFERS.try_with(|small| {
        let mut small = small.borrow_mut();
        let candidates = small.iter().enumerate().filter(|(_, words)| words.len() >= len);
        let (at, _) = candidates.min_by_key(|(_, words)| words.len())?;
        Some(small.swap_remove(at))
    });
    match found {
        Ok(Some(words)) => Ok(words),
        // A thread that ends keeps nothing.
        _ => zeros(what, len),
    }
}

/// Leaves a small buffer with this thread, in the place of the smallest where there are enough.
fn keep_small(words: Vec<Word>) {
    let kept = SMALL_BUFFERS.try_with(|small| {
        let mut small = small.borrow_mut();
        let least = small.iter().enumerate().min_by_key(|(_, words)| words.len());
        let instead = match least {
            Some((at, least)) if small.len() == SMALL && least.len() < words.len() => Some(at),
            _ => None,
        };
        let sum: usize = small.iter().map(|words| bytes_of(words)).sum();
        if sum + bytes_of(&words) <= SMALL_BYTES && (small.len() < SMALL || instead.is_some()) {
            small.push(words);
            instead.map(|at| small.swap_remove(at));
        }
    });
    // A thread that ends keeps nothing.
    kept.unwrap_or(());
}

/// Numbers for who writes each of them before reading it, from the start of a cache line on. The
/// memory is kept for the next when they go.
#[derive(Debug)]
pub struct Lent<T> {
    words: Vec<Word>,
    /// The word that the numbers begin with, and how many numbers there are.
    start: usize,
    len: usize,
    number: PhantomData<T>,
}

impl<T: Pod> Lent<T> {
    /// `len` numbers, whatever they are.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] names `what` it was for.
    pub fn new(what: &str, len: usize) -> Result<Self, Error> {
        const { assert!(size_of::<Word>().is_multiple_of(size_of::<T>())) };
        let line = LINE / size_of::<Word>();
        let words = take(what, len.div_ceil(Self::IN_A_WORD).saturating_add(line - 1))?;
        let start = words.as_ptr().align_offset(LINE).min(line - 1);
        Ok(Self { words, start, len, number: PhantomData })
    }

    const IN_A_WORD: usize = size_of::<Word>() / size_of::<T>();

    fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.len.div_ceil(Self::IN_A_WORD)
    }
}

impl<T: Pod> Deref for Lent<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.words[self.range()])[..self.len]
    }
}

impl<T: Pod> DerefMut for Lent<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        let range = self.range();
        &mut bytemuck::cast_slice_mut(&mut self.words[range])[..self.len]
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        keep(std::mem::take(&mut self.words));
    }
}

/// `len` zeros. The system gives large buffers page by page when they are first written, so
/// this takes no time, and it is the thread that computes a part that has it near.
///
/// # Errors
/// [`Error::OutOfMemory`] names `what` it was for.
pub fn zeros<T: Zeroable + Clone>(what: &str, len: usize) -> Result<Vec<T>, Error> {
    let bytes = len as u128 * size_of::<T>() as u128;
    if bytes <= AT_HAND {
        let mut numbers = room(what, len)?;
        numbers.resize(len, T::zeroed());
        return Ok(numbers);
    }
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
        let take = |len: usize| super::take("words", len).unwrap();
        let first = take(100_000);
        let address = first.as_ptr();
        keep(first);
        // Others may hold the lock for a moment.
        let again = |len: usize| {
            (0..1000).any(|_| {
                let words = take(len);
                let same = words.as_ptr() == address;
                assert!(words.len() >= len);
                keep(words);
                same
            })
        };
        assert!(again(90_000));
        assert!(again(100_000));
        // Who cannot use it lets it go: half as much again is too little for both.
        let sum =
            || KEPT_BUFFERS.lock().unwrap().iter().map(|words| bytes_of(words)).sum::<usize>();
        assert!(!again(70_000), "much too large");
        assert_eq!(sum(), 560_000);
        assert!(!again(100_001), "too small");
        assert_eq!(sum(), 800_008);
        // Nor does more pile up where somebody else was at it.
        let taken = KEPT_BUFFERS.lock().unwrap();
        let another = take(100_001);
        drop(taken);
        keep(another);
        assert_eq!(sum(), 800_008);

        // A step: what it needs while it has the tape, one after the other.
        let step = || {
            let tape = take(100_001);
            let others = [30_000, 50_000, 20_000].map(|len| {
                let words = take(len);
                let address = words.as_ptr();
                keep(words);
                address
            });
            let address = tape.as_ptr();
            keep(tape);
            (address, others)
        };
        let first = step();
        assert!((0..1000).filter(|_| step() == first).count() > 900);
        assert!(sum() <= 1_800_012 && LENT.load(Ordering::Relaxed) == 0);

        let large = [(); 12].map(|()| take(KEPT / 8 / size_of::<Word>()));
        large.into_iter().for_each(keep);
        assert_eq!(sum(), KEPT);
        keep(take(KEPT / size_of::<Word>() + 1));
        assert_eq!(LENT.load(Ordering::Relaxed), 0);
        assert!(sum() <= KEPT);
        KEPT_BUFFERS.lock().unwrap().clear();
    }

    #[test]
    fn small_buffers_stay_with_their_thread_the_largest_of_them() {
        let kept = || {
            let mut lens =
                SMALL_BUFFERS.with_borrow(|small| small.iter().map(Vec::len).collect::<Vec<_>>());
            lens.sort_unstable();
            lens
        };
        let take = |len| take("words", len).unwrap();
        let two = [take(50), take(20)];
        let address = two.each_ref().map(|words| words.as_ptr());
        two.into_iter().for_each(keep);
        assert_eq!([take(21), take(1)].map(|words| words.as_ptr()), address);
        assert_eq!(kept(), []);
        let many: Vec<_> = (1..=SMALL + 2).map(take).collect();
        many.into_iter().for_each(keep);
        assert_eq!(kept(), (3..=SMALL + 2).collect::<Vec<_>>());
        keep(vec![0; 2]);
        assert_eq!(kept(), (3..=SMALL + 2).collect::<Vec<_>>());
        let large: Vec<_> = [(); 3].map(|()| take(12_000)).into();
        large.into_iter().for_each(keep);
        assert_eq!(kept().iter().filter(|len| **len == 12_000).count(), 2, "a quarter of a MB");
        std::thread::spawn(move || assert_eq!(kept(), [])).join().unwrap();
    }

    #[test]
    fn numbers_begin_on_a_line_whatever_they_are() {
        fn check<T: Pod>(len: usize) {
            let mut numbers = Lent::<T>::new("numbers", len).unwrap();
            assert_eq!(numbers.len(), len);
            assert_eq!(numbers.as_ptr().addr() % LINE, 0);
            numbers.fill(T::zeroed());
        }
        // No more than what stays with the thread.
        for len in [0, 1, 7, 8, 9, 1001] {
            check::<u8>(len);
            check::<f32>(len);
            check::<f64>(len);
        }
        for len in [usize::MAX, usize::MAX / 8] {
            assert!(matches!(Lent::<u8>::new("much", len), Err(Error::OutOfMemory { .. })));
        }
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
