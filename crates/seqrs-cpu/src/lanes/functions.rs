//! The functions that a cell may be given, out of line.
//!
//! Each is an elementary function or two, and there are eleven, so their text in every place of
//! every kernel that applies one would be megabytes. A register goes to one function of its
//! instruction set by way of memory: some nanoseconds, where the function itself takes as much.

use seqrs_core::cell::{Function, Sloped};

use super::{Element, Simd};
use crate::level::Kernel;

/// The widest register.
const WIDEST: usize = 16;

/// f(x).
#[inline(always)]
pub(crate) fn value_of<V: Simd>(x: V, function: Function) -> V {
    let mut at = [V::Elem::default(); WIDEST];
    // SAFETY: no register is wider than the array.
    unsafe { x.store(at.as_mut_ptr()) };
    V::out_of_line(Value { function, x: &mut at });
    // SAFETY: as above.
    unsafe { V::load(at.as_ptr()) }
}

/// f(x) and f'(x).
#[inline(always)]
pub(crate) fn sloped_of<V: Simd>(x: V, function: Function) -> Sloped<V> {
    let mut at = [V::Elem::default(); WIDEST];
    let mut slope = [V::Elem::default(); WIDEST];
    // SAFETY: no register is wider than the array.
    unsafe { x.store(at.as_mut_ptr()) };
    V::out_of_line(WithSlope { function, x: &mut at, slope: &mut slope });
    // SAFETY: as above.
    unsafe { Sloped { value: V::load(at.as_ptr()), slope: V::load(slope.as_ptr()) } }
}

/// x becomes f(x).
struct Value<'a, T> {
    function: Function,
    x: &'a mut [T; WIDEST],
}

impl<T: Element> Kernel<T> for Value<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        // SAFETY: no register is wider than the array.
        unsafe { self.function.value(V::load(self.x.as_ptr())).store(self.x.as_mut_ptr()) };
    }
}

/// The same, with f'(x).
struct WithSlope<'a, T> {
    function: Function,
    x: &'a mut [T; WIDEST],
    slope: &'a mut [T; WIDEST],
}

impl<T: Element> Kernel<T> for WithSlope<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        // SAFETY: no register is wider than the arrays.
        unsafe {
            let Sloped { value, slope } = self.function.sloped(V::load(self.x.as_ptr()));
            value.store(self.x.as_mut_ptr());
            slope.store(self.slope.as_mut_ptr());
        }
    }
}
