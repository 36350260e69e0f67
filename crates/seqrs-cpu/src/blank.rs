//! Numbers that come into being part by part, each on the thread that writes it.
//!
//! Memory for results has something in it that is no number yet. Who clears all of it first has it
//! far away again when the last thread comes to its part; who clears a part and writes it has it near.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

use num_traits::Zero;
use seqrs_core::{Error, memory};

/// Room for numbers, none of which is there yet.
#[derive(Debug)]
pub struct Blank<T> {
    room: Vec<T>,
    len: usize,
    /// Numbers in parts that were cleared since they were last cut.
    cleared: AtomicUsize,
}

/// A part of a [`Blank`].
#[derive(Debug)]
pub struct Part<'a, T> {
    room: &'a mut [MaybeUninit<T>],
    cleared: &'a AtomicUsize,
}

impl<T: Copy + Zero> Blank<T> {
    /// Room for `len` numbers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] names `what` they are.
    pub fn new(what: &str, len: usize) -> Result<Self, Error> {
        Ok(Self { room: memory::room(what, len)?, len, cleared: AtomicUsize::new(0) })
    }

    /// How many numbers there will be.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there will be none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it in parts of `size` numbers, the last of which may be smaller.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn parts(&mut self, size: usize) -> impl Iterator<Item = Part<'_, T>> {
        *self.cleared.get_mut() = 0;
        let room = &mut self.room.spare_capacity_mut()[..self.len];
        room.chunks_mut(size).map(|room| Part { room, cleared: &self.cleared })
    }

    /// The numbers.
    ///
    /// # Panics
    /// If a part was not cleared.
    pub fn numbers(mut self) -> Vec<T> {
        assert_eq!(self.cleared.into_inner(), self.len, "numbers that were written");
        // SAFETY: there is room for so many. Parts that were cut at one time do not overlap and are
        // cleared at most once, so that every number was written when as many were cleared.
        unsafe { self.room.set_len(self.len) };
        self.room
    }
}

impl<'a, T: Copy + Zero> Part<'a, T> {
    /// The part, all zeros.
    pub fn clear(self) -> &'a mut [T] {
        for number in self.room.iter_mut() {
            number.write(T::zero());
        }
        // SAFETY: each was written.
        let numbers = unsafe { &mut *(std::ptr::from_mut(self.room) as *mut [T]) };
        self.cleared.fetch_add(numbers.len(), Ordering::Relaxed);
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zeros_and_stay_where_they_are() {
        for (len, size) in [(0, 3), (7, 3), (9, 3), (2, 9)] {
            let mut blank = Blank::<f32>::new("numbers", len).unwrap();
            assert_eq!((blank.len(), blank.is_empty()), (len, len == 0));
            let mut next = 0;
            for part in blank.parts(size) {
                let part = part.clear();
                assert!(part.iter().all(|&number| number == 0.0));
                for number in part {
                    *number = next as f32;
                    next += 1;
                }
            }
            let expected: Vec<f32> = (0..len).map(|k| k as f32).collect();
            assert_eq!(blank.numbers(), expected);
        }
    }

    #[test]
    #[should_panic(expected = "numbers that were written")]
    fn what_was_never_written_is_not_given() {
        let mut blank = Blank::<f64>::new("numbers", 4).unwrap();
        // As many as there are, but the same ones twice.
        for _ in 0..2 {
            assert_eq!(blank.parts(2).next().unwrap().clear(), [0.0; 2]);
        }
        blank.numbers();
    }
}
