//! The numbers of a layer: cheap to clone, copied on write, never locked.
//!
//! Clones share their numbers and the form that kernels like them in (the *packed* form),
//! which is made by the first who needs it. Whoever changes the numbers gets a copy of
//! their own, or the old memory where nobody else looks at it. Two threads that make the
//! packed form at the same time both make it, and one of the two is kept: a lock would be
//! one that a fork could leave locked for ever.
//!
//! A layer with small weights has tensors of small numbers in place of these. They never change.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use once_cell::race::OnceBox;
use seqrs_core::Error;
use seqrs_cpu::level::Level;

use crate::quantised::tensor::Tensor;
use crate::room::copied;

/// Version 0 is left for layers that have no parameters.
static NEXT_VERSION: AtomicU64 = AtomicU64::new(1);

fn next_version() -> u64 {
    NEXT_VERSION.fetch_add(1, Ordering::Relaxed)
}

/// A run of numbers and their packed form `P`.
#[derive(Debug)]
pub struct Parameters<T, P> {
    shared: Arc<Shared<T, P>>,
}

#[derive(Debug)]
struct Shared<T, P> {
    numbers: Vec<T>,
    /// In place of the numbers, where they are small.
    tensors: Option<Vec<Tensor>>,
    version: u64,
    packed: OnceBox<PackedFor<P>>,
}

/// Panels are as wide as the registers of the level they were packed for.
#[derive(Debug)]
struct PackedFor<P> {
    level: Level,
    form: P,
}

/// A packed form: the shared one, or one made for this use alone.
#[derive(Debug)]
pub(crate) enum Form<'a, P> {
    Shared(&'a P),
    Own(P),
}

impl<P> Deref for Form<'_, P> {
    type Target = P;

    fn deref(&self) -> &P {
        match self {
            Self::Shared(form) => form,
            Self::Own(form) => form,
        }
    }
}

impl<T, P> Clone for Parameters<T, P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T, P> Parameters<T, P> {
    /// These numbers, as a version of their own.
    pub fn new(numbers: Vec<T>) -> Self {
        Self::of(numbers, None, next_version())
    }

    /// Small ones.
    pub(crate) fn small(tensors: Vec<Tensor>) -> Self {
        Self::of(Vec::new(), Some(tensors), next_version())
    }

    fn of(numbers: Vec<T>, tensors: Option<Vec<Tensor>>, version: u64) -> Self {
        let shared = Shared { numbers, tensors, version, packed: OnceBox::new() };
        Self { shared: Arc::new(shared) }
    }

    /// The numbers; none where they are small.
    pub fn numbers(&self) -> &[T] {
        &self.shared.numbers
    }

    /// What there is in place of the numbers, where they are small.
    pub(crate) fn tensors(&self) -> Option<&[Tensor]> {
        self.shared.tensors.as_deref()
    }

    /// How many numbers there are, small or not.
    pub(crate) fn count(&self) -> usize {
        match self.tensors() {
            None => self.numbers().len(),
            Some(tensors) => tensors.iter().map(Tensor::len).sum(),
        }
    }

    /// A number that no other content of any parameters of this process has had; clones
    /// share it until one of them is changed.
    pub fn version(&self) -> u64 {
        self.shared.version
    }

    /// Puts other numbers in place, as a new version.
    pub fn replace(&mut self, numbers: Vec<T>) {
        *self = Self::new(numbers);
    }

    /// Takes a copy of the numbers where a clone shares them, so that
    /// [`Parameters::make_mut`] needs no memory. The numbers are the same, so the version is.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn unshare(&mut self) -> Result<(), Error>
    where
        T: Copy,
    {
        if Arc::get_mut(&mut self.shared).is_none() && self.tensors().is_none() {
            let numbers = copied("parameters", self.numbers())?;
            *self = Self::of(numbers, None, self.version());
        }
        Ok(())
    }

    /// The numbers to be changed, as a new version: in place if no clone shares them, else
    /// a copy. None where they are small.
    pub fn make_mut(&mut self) -> &mut [T]
    where
        T: Clone,
    {
        if self.tensors().is_some() {
            return &mut [];
        }
        match Arc::get_mut(&mut self.shared) {
            None => *self = Self::new(self.numbers().to_vec()),
            Some(shared) => {
                shared.version = next_version();
                shared.packed = OnceBox::new();
            }
        }
        let shared = Arc::get_mut(&mut self.shared).expect("just made, or found unshared");
        &mut shared.numbers
    }

    /// The packed form for `level`, made by `pack` if it is not there yet. A process
    /// computes on one level, so the form for another one is not kept.
    pub(crate) fn packed(
        &self,
        level: Level,
        pack: impl FnOnce(&[T]) -> Result<P, Error>,
    ) -> Result<Form<'_, P>, Error> {
        if let Some(packed) = self.shared.packed.get() {
            return Ok(match packed.level == level {
                true => Form::Shared(&packed.form),
                false => Form::Own(pack(self.numbers())?),
            });
        }
        let mut own = Box::new(PackedFor { level, form: pack(self.numbers())? });
        if let Err(late) = self.shared.packed.set(own) {
            own = late;
            return Ok(Form::Own(own.form));
        }
        let packed = self.shared.packed.get().expect("just set");
        Ok(Form::Shared(&packed.form))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(numbers: &[i32]) -> Result<i32, Error> {
        Ok(numbers.iter().sum())
    }

    #[test]
    fn a_clone_keeps_its_numbers_when_the_other_changes() {
        let mut a = Parameters::<i32, i32>::new(vec![1, 2]);
        let b = a.clone();
        assert_eq!(a.version(), b.version());
        a.make_mut()[0] = 5;
        assert_eq!((a.numbers(), b.numbers()), (&[5, 2][..], &[1, 2][..]));
        assert_ne!(a.version(), b.version());
    }

    #[test]
    fn what_is_unshared_is_the_same_until_it_changes() {
        let mut a = Parameters::<i32, i32>::new(vec![1, 2]);
        let b = a.clone();
        a.unshare().unwrap();
        assert_eq!((a.numbers(), a.version()), (b.numbers(), b.version()));
        let place = a.numbers().as_ptr();
        assert_ne!(place, b.numbers().as_ptr());
        a.make_mut()[0] = 5;
        assert_eq!((a.numbers().as_ptr(), b.numbers()), (place, &[1, 2][..]));
        assert_ne!(a.version(), b.version());
    }

    #[test]
    fn unshared_numbers_are_changed_in_place_and_packed_anew() {
        let mut a = Parameters::<i32, i32>::new(vec![1, 2]);
        let level = Level::detect();
        assert_eq!(*a.packed(level, pack).unwrap(), 3);
        let (place, version) = (a.numbers().as_ptr(), a.version());
        a.make_mut()[0] = 5;
        assert_eq!(a.numbers().as_ptr(), place);
        assert_ne!(a.version(), version);
        assert_eq!(*a.packed(level, pack).unwrap(), 7);
    }

    #[test]
    fn a_packed_form_is_made_once_a_level() {
        let a = Parameters::<i32, i32>::new(vec![1, 2]);
        let level = Level::detect();
        assert!(matches!(a.packed(level, pack).unwrap(), Form::Shared(3)));
        let never = |_: &[i32]| -> Result<i32, Error> { panic!("packed twice") };
        assert!(matches!(a.clone().packed(level, never).unwrap(), Form::Shared(3)));
        for &other in Level::available().iter().filter(|&&other| other != level) {
            assert!(matches!(a.packed(other, pack).unwrap(), Form::Own(3)));
        }
    }
}
