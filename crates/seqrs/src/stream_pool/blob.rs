//! The state of a stream as bytes, to go on in another pool or process.
//!
//! ```text
//! bytes       what                                     (numbers little-endian)
//! 0..8        "seqrs.st"
//! 8..12       version, 1
//! 12..16      bytes of a number: 4 (float32) or 8 (float64)
//! 16..24      fingerprint of the model
//! 24..32      S, how many numbers follow
//! 32..        the numbers: of each recurrent layer h, layer by layer, and then c
//! the last 8  XXH64 of all before
//! ```
//! The checksum finds damage. It is no signature: whoever may write a blob may write any state.

use std::ops::Range;

use seqrs_core::Error;
use xxhash_rust::xxh64::xxh64;

use super::places::Half;
use super::store::Store;
use super::{Books, Stream, StreamPool};
use crate::number::Number;
use crate::room::room;
use crate::state_room::recurrent;

const MAGIC: &[u8; 8] = b"seqrs.st";
const VERSION: u32 = 1;
const HEADER: usize = 32;
const CHECKSUM: usize = 8;

impl<T: Number> StreamPool<T> {
    /// Makes what is made once for all exports and imports: the hash of the model, which of a large
    /// one takes a while.
    pub fn prepare_to_export(&self) {
        self.fingerprint();
    }

    /// The state of a stream as bytes, which [`import_state`](Self::import_state) of any pool of
    /// an equal model takes.
    ///
    /// # Errors
    /// [`Error::State`] if the stream is not of this pool, closed, or being stepped;
    /// [`Error::OutOfMemory`].
    pub fn export_state(&self, stream: Stream) -> Result<Vec<u8>, Error> {
        // The hash of a large model takes a while, so it comes before the lock.
        let fingerprint = self.fingerprint();
        let mut numbers = room("state", self.numbers())?;
        numbers.resize(self.numbers(), num_traits::zero::<T>());
        let len = HEADER + self.numbers() * T::BYTES + CHECKSUM;
        let mut bytes = room("state", len)?;
        {
            let now = self.now();
            let mut books = self.books();
            let readable = stream.pool == self.id
                && books.places.is_readable(stream.place, stream.generation, now);
            if !readable {
                self.find(&mut books.places, stream, now)?;
            }
            match books.places.half(stream.place) {
                Half::Zero => {}
                half => {
                    let read = |at, run| self.store.read(stream.place, half, at, &mut numbers[run]);
                    self.each_run(read);
                }
            }
        }
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(T::BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(&fingerprint.to_le_bytes());
        bytes.extend_from_slice(&(self.numbers() as u64).to_le_bytes());
        numbers.iter().for_each(|number| number.append_le(&mut bytes));
        bytes.extend_from_slice(&xxh64(&bytes, 0).to_le_bytes());
        Ok(bytes)
    }

    /// A new stream, in the state that was exported.
    ///
    /// # Errors
    /// [`Error::State`] says what is wrong with the bytes: they are damaged, of another version,
    /// type of numbers or model, or hold a number that is NaN or infinite. [`Error::Full`] if as
    /// many streams as there may be are open.
    pub fn import_state(&self, bytes: &[u8]) -> Result<Stream, Error> {
        self.import_state_with(bytes, false)
    }

    /// As [`import_state`](Self::import_state); `allow_nonfinite` lets NaN and infinity through.
    ///
    /// # Errors
    /// As [`import_state`](Self::import_state).
    pub fn import_state_with(&self, bytes: &[u8], allow_nonfinite: bool) -> Result<Stream, Error> {
        let numbers = self.read(bytes, allow_nonfinite)?;
        let stream = self.open()?;
        let now = self.now();
        let mut books = self.books();
        let Books { places, .. } = &mut *books;
        // Nobody else knows the stream, but it may have become the longest unused meanwhile.
        self.find(places, stream, now)?;
        self.each_run(|at, run| self.store.write(stream.place, Half::First, at, &numbers[run]));
        places.set_half(stream.place, Half::First);
        Ok(stream)
    }

    /// The numbers of a blob, each check before what it vouches for is looked at.
    fn read(&self, bytes: &[u8], allow_nonfinite: bool) -> Result<Vec<T>, Error> {
        let wrong = |what: &str, expected: String, got: String| {
            Err(Error::state(format!("state: {what}"), expected, got))
        };
        let len = HEADER + self.numbers() * T::BYTES + CHECKSUM;
        if bytes.len() < HEADER + CHECKSUM || !bytes.starts_with(MAGIC) {
            let got = format!("{} bytes of something else", bytes.len());
            return wrong("bytes", "the state of a stream, as exported".to_owned(), got);
        }
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if word(8) != VERSION {
            return wrong("version", VERSION.to_string(), word(8).to_string());
        }
        let end = bytes.len() - CHECKSUM;
        if long(end) != xxh64(&bytes[..end], 0) {
            let expected = "the checksum of undamaged bytes".to_owned();
            return wrong("checksum", expected, "another one".to_owned());
        }
        if word(12) as usize != T::BYTES {
            let got = format!("numbers of {} bytes", word(12));
            return wrong("dtype", T::NAME.to_owned(), got);
        }
        let fingerprint = self.fingerprint();
        if long(16) != fingerprint {
            let expected = format!("{fingerprint:016x}, of this pool's model");
            return wrong("fingerprint", expected, format!("{:016x}", long(16)));
        }
        if long(24) != self.numbers() as u64 || bytes.len() != len {
            let got = format!("{} numbers in {} bytes", long(24), bytes.len());
            return wrong("size", format!("{} numbers in {len} bytes", self.numbers()), got);
        }
        let mut numbers = room("state", self.numbers())?;
        let given = bytes[HEADER..end].chunks_exact(T::BYTES).map(T::from_le);
        for (k, number) in given.enumerate() {
            if !allow_nonfinite && !Number::to_f64(number).is_finite() {
                let got = Number::to_f64(number).to_string();
                return wrong(&format!("number {k}"), "a finite number".to_owned(), got);
            }
            numbers.push(number);
        }
        Ok(numbers)
    }

    /// Numbers of state of a stream, S.
    fn numbers(&self) -> usize {
        let lens = recurrent(self.model.layers()).map(|(_, layer)| layer.state_lens(1));
        lens.map(|lens| lens.h + lens.c.unwrap_or(0)).sum()
    }

    /// Calls `visit` with each run of a stream's numbers that lies in one piece of its record: where
    /// it begins there, and which of all numbers it is.
    fn each_run(&self, mut visit: impl FnMut(usize, Range<usize>)) {
        let (mut at, mut start) = (0, 0);
        for (_, layer) in recurrent(self.model.layers()) {
            let stack = layer.stack();
            let mut runs = |width: usize| {
                for _ in 0..stack.slots() {
                    visit(at, start..start + width);
                    at += Store::<T>::words_of(width);
                    start += width;
                }
            };
            runs(stack.state_size());
            if stack.cell().states() > 1 {
                runs(stack.options().hidden_size);
            }
        }
    }

    /// The model's, as a number; made when it is first asked for.
    fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| {
            let digits = self.model.fingerprint();
            Box::new(u64::from_str_radix(&digits, 16).expect("hexadecimal digits"))
        })
    }
}
