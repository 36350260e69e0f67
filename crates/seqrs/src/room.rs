//! Memory that may not be there, asked for so that its lack is an error and no abort.
//!
//! Everything whose size depends on data or on a model comes from here or from
//! [`seqrs_core::memory`], whose functions come along.

use std::borrow::Cow;

use seqrs_core::Error;
use seqrs_core::backend::State;
pub(crate) use seqrs_core::memory::{copied, room};

use crate::sequential::ModelState;

/// Room for exactly `more` elements behind those that are there.
pub(crate) fn more_room<T>(what: &str, vector: &mut Vec<T>, more: usize) -> Result<(), Error> {
    let bytes = (vector.len() as u128 + more as u128) * size_of::<T>() as u128;
    let none = |_| Error::OutOfMemory { what: what.to_owned(), bytes };
    vector.try_reserve_exact(more).map_err(none)
}

/// The numbers to be changed: a copy, unless nobody else has them.
pub(crate) fn owned<T: Copy>(what: &str, numbers: Cow<'_, [T]>) -> Result<Vec<T>, Error> {
    match numbers {
        Cow::Borrowed(numbers) => copied(what, numbers),
        Cow::Owned(numbers) => Ok(numbers),
    }
}

/// A copy of a layer's state.
pub(crate) fn copied_state<T: Copy>(state: &State<Vec<T>>) -> Result<State<Vec<T>>, Error> {
    let c = state.c.as_deref().map(|c| copied("state", c)).transpose()?;
    Ok(State { h: copied("state", &state.h)?, c })
}

/// A copy of a model's state.
pub(crate) fn copied_states<T: Copy>(states: &ModelState<T>) -> Result<ModelState<T>, Error> {
    states.iter().map(copied_state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_an_error_that_says_how_much() {
        let error = room::<f64>("much", 1 << 60).unwrap_err();
        assert_eq!(error, Error::OutOfMemory { what: "much".into(), bytes: 1 << 63 });
        let error = more_room("more", &mut vec![0_u8; 3], isize::MAX as usize).unwrap_err();
        assert_eq!(error, Error::OutOfMemory { what: "more".into(), bytes: (1 << 63) + 2 });
    }

    #[test]
    fn a_copy_is_the_same_numbers() {
        let state = State { h: vec![1.0, 2.0], c: Some(vec![3.0]) };
        assert_eq!(copied_states(&vec![state.clone()]).unwrap(), [state]);
        assert_eq!(owned("numbers", Cow::Borrowed(&[1, 2][..])).unwrap(), [1, 2]);
    }
}
