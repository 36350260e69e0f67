//! Memory that several threads work in, each in its own part.

use std::ops::DerefMut;

/// A pointer that may go to another thread.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);

// SAFETY: workers use disjoint memory behind it; each use says which.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer `offset` numbers on, or null if this one is.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> *mut T {
        if self.0.is_null() { self.0 } else { self.0.wrapping_add(offset) }
    }

    pub(crate) fn of(buffer: &mut Option<impl DerefMut<Target = [T]>>) -> Self {
        Self(buffer.as_mut().map_or(std::ptr::null_mut(), |buffer| buffer.as_mut_ptr()))
    }
}

/// # Safety
/// As `std::slice::from_raw_parts`.
pub(crate) unsafe fn numbers<'a, T>(from: *const T, len: usize) -> &'a [T] {
    // SAFETY: by the caller.
    unsafe { std::slice::from_raw_parts(from, len) }
}

/// # Safety
/// As `std::slice::from_raw_parts_mut`.
pub(crate) unsafe fn numbers_mut<'a, T>(from: *mut T, len: usize) -> &'a mut [T] {
    // SAFETY: by the caller.
    unsafe { std::slice::from_raw_parts_mut(from, len) }
}
