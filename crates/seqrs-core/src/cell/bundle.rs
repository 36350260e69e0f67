//! Named values that a kernel moves as a list.
//!
//! A cell names its gates and states; a kernel only counts them. The struct is the one
//! statement of their order.

/// The longest bundle.
pub const MAX_BUNDLE: usize = 4;

/// A struct of values of one type.
pub trait Bundle<V: Copy>: Copy {
    /// The fields' names, in order.
    const NAMES: &'static [&'static str];

    /// The struct from the first values of `values`.
    fn from_array(values: [V; MAX_BUNDLE]) -> Self;

    /// The fields in order; places beyond the last field are `fill`.
    fn to_array(self, fill: V) -> [V; MAX_BUNDLE];

    /// The struct with the same value in every field.
    #[inline(always)]
    fn filled(value: V) -> Self {
        Self::from_array([value; MAX_BUNDLE])
    }

    /// Field `k`.
    #[inline(always)]
    fn get(self, k: usize) -> V
    where
        V: crate::lanes::Lanes,
    {
        self.to_array(V::zero())[k]
    }
}

/// Declares a struct and its order as a [`Bundle`].
macro_rules! bundle {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name<V> { $($(#[$field_doc])* pub $field: V),* }

        impl<V: Copy> $crate::cell::Bundle<V> for $name<V> {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            #[inline(always)]
            fn from_array(values: [V; $crate::cell::MAX_BUNDLE]) -> Self {
                let mut k = 0..;
                Self { $($field: values[k.next().unwrap_or(0)]),* }
            }

            #[inline(always)]
            fn to_array(self, fill: V) -> [V; $crate::cell::MAX_BUNDLE] {
                let mut array = [fill; $crate::cell::MAX_BUNDLE];
                for (place, value) in array.iter_mut().zip([$(self.$field),*]) {
                    *place = value;
                }
                array
            }
        }
    };
}
pub(crate) use bundle;

bundle! {
    /// The state of a cell with nothing but a hidden state.
    H {
        /// Hidden state.
        h
    }
}

bundle! {
    /// The state of a cell with a memory of its own.
    Hc {
        /// Hidden state.
        h,
        /// Cell state.
        c
    }
}

/// An empty bundle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nothing;

impl<V: Copy> Bundle<V> for Nothing {
    const NAMES: &'static [&'static str] = &[];

    #[inline(always)]
    fn from_array(_: [V; MAX_BUNDLE]) -> Self {
        Self
    }

    #[inline(always)]
    fn to_array(self, fill: V) -> [V; MAX_BUNDLE] {
        [fill; MAX_BUNDLE]
    }
}
