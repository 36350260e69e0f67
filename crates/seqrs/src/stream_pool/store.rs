//! The states of all streams, two for each, in one piece.
//!
//! Who has claimed a stream alone uses its record, so no two threads meet in one. The words are
//! atomic all the same: that this is so, is not for the compiler to see.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::allocation::try_zeroed_vec;
use seqrs_core::Error;
use seqrs_cpu::words;

use super::places::Half;
use crate::number::Number;

/// Bytes that memory gives at a time.
const LINE: usize = 64;

/// Records of so many numbers of type T.
#[derive(Debug)]
pub(super) struct Store<T> {
    words: Vec<AtomicU64>,
    /// Words in a record.
    record: usize,
    number: PhantomData<T>,
}

impl<T: Number> Store<T> {
    /// For `places` streams with a record of the size that [`words_of`](Self::words_of) adds up to.
    /// The system clears it, page by page, where it is first written.
    pub(super) fn new(places: usize, record: usize) -> Result<Self, Error> {
        let bytes = 2 * places as u128 * record as u128 * size_of::<u64>() as u128;
        let none = || Error::OutOfMemory { what: "states of streams".to_owned(), bytes };
        let len = usize::try_from(bytes).map_err(|_| none())? / size_of::<u64>();
        let words = try_zeroed_vec(len).map_err(|()| none())?;
        Ok(Self { words, record, number: PhantomData })
    }

    /// Words that a run of so many numbers takes in a record.
    pub(super) fn words_of(len: usize) -> usize {
        (len * T::BYTES).div_ceil(size_of::<u64>())
    }

    pub(super) fn nbytes(&self) -> usize {
        size_of_val(&self.words[..])
    }

    fn record(&self, place: u32, half: Half) -> &[AtomicU64] {
        let record = 2 * place as usize + usize::from(half == Half::Second);
        &self.words[record * self.record..][..self.record]
    }

    /// Looks at each line of a record, so that it is near when it is used. Records that follow each
    /// other here lie anywhere, and no processor foresees where; but it fetches many at once.
    pub(super) fn fetch(&self, place: u32, half: Half) -> u64 {
        let lines = self.record(place, half).chunks(LINE / size_of::<u64>());
        lines.fold(0, |sum, line| sum ^ line[0].load(Ordering::Relaxed))
    }

    /// Copies a run of numbers out of a record, from word `at` on.
    pub(super) fn read(&self, place: u32, half: Half, at: usize, to: &mut [T]) {
        let words = &self.record(place, half)[at..];
        words::load(words, bytemuck::cast_slice_mut(to));
    }

    /// Copies a run of numbers into a record, from word `at` on.
    pub(super) fn write(&self, place: u32, half: Half, at: usize, from: &[T]) {
        let words = &self.record(place, half)[at..];
        words::store(bytemuck::cast_slice(from), words);
    }
}
