//! Buffers that may be larger than there is memory.

use bytemuck::{Zeroable, allocation};

use crate::Error;

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
