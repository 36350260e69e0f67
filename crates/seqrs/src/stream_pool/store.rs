//! The states of all streams, two for each, in one piece.
//!
//! Who has claimed a stream alone uses its record, so no two threads meet in one. The words are
//! atomic all the same: that this is so, is not for the compiler to see, and a load or store of an
//! atomic word costs what any other does.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::allocation::try_zeroed_vec;
use seqrs_core::Error;

use super::places::Half;
use crate::number::Number;

/// Records of so many numbers of type T.
#[derive(Debug)]
pub(super) struct Store<T> {
    words: Vec<AtomicU32>,
    /// Words in a record.
    record: usize,
    number: PhantomData<T>,
}

impl<T: Number> Store<T> {
    const WORDS: usize = T::BYTES / size_of::<u32>();

    /// For `places` streams with `record` numbers each. The system clears it, page by page, where
    /// it is first written.
    pub(super) fn new(places: usize, record: usize) -> Result<Self, Error> {
        let bytes = 2 * places as u128 * record as u128 * T::BYTES as u128;
        let none = || Error::OutOfMemory { what: "states of streams".to_owned(), bytes };
        let len = usize::try_from(bytes).map_err(|_| none())? / size_of::<u32>();
        let words = try_zeroed_vec(len).map_err(|()| none())?;
        Ok(Self { words, record: record * Self::WORDS, number: PhantomData })
    }

    pub(super) fn nbytes(&self) -> usize {
        size_of_val(&self.words[..])
    }

    /// The words of the numbers from `at` on.
    fn words(&self, place: u32, half: Half, at: usize, len: usize) -> &[AtomicU32] {
        let record = 2 * place as usize + usize::from(half == Half::Second);
        &self.words[record * self.record + at * Self::WORDS..][..len * Self::WORDS]
    }

    /// Copies numbers out of a record, from `at` on.
    pub(super) fn read(&self, place: u32, half: Half, at: usize, to: &mut [T]) {
        let words = self.words(place, half, at, to.len());
        for (to, word) in bytemuck::cast_slice_mut::<T, u32>(to).iter_mut().zip(words) {
            *to = word.load(Ordering::Relaxed);
        }
    }

    /// Copies numbers into a record, from `at` on.
    pub(super) fn write(&self, place: u32, half: Half, at: usize, from: &[T]) {
        let words = self.words(place, half, at, from.len());
        for (word, &from) in words.iter().zip(bytemuck::cast_slice::<T, u32>(from)) {
            word.store(from, Ordering::Relaxed);
        }
    }
}
