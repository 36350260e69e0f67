//! The numbers that a dispatch gives its shader. Each struct is at once Rust's and WGSL's.

/// Where something begins that is not there.
pub(crate) const NONE: u32 = u32::MAX;

/// A struct of `u32`, and its text in WGSL.
macro_rules! params {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct $name { $($(#[$field_doc])* pub(crate) $field: u32),* }

        impl $name {
            pub(crate) const WGSL: &'static str =
                concat!("struct Params {\n", $("    ", stringify!($field), ": u32,\n",)* "}\n");

            pub(crate) fn words(&self) -> Vec<u32> {
                vec![$(self.$field),*]
            }
        }
    };
}

pub(crate) use params;

params! {
    /// c = a b: c is m x n, the sums have k terms.
    Product {
        m, n, k,
        /// Where each matrix begins, and the distance between neighbours:
        /// a(i, l) = a[a_at + i a_m + l a_k].
        a_at, a_m, a_k,
        b_at, b_k, b_n,
        c_at, c_m,
        /// Where a bias for each column begins, or [`NONE`].
        bias_at,
        /// Whether the sums start from what is in c.
        add,
    }
}

params! {
    /// A step forwards.
    Step {
        /// B, and H; P in a projection.
        rows, units,
        /// H as the distance between gates, and the terms of a sum.
        hidden, depth,
        /// Where the step's table of items begins.
        items_at,
        /// Where the weights of the product's gates begin, and its biases, or [`NONE`].
        weight_at, bias_at,
        /// Where the cell states begin.
        c_at,
        /// Where the outputs begin, and from item to item.
        y_at, y_stride,
        /// Numbers of an item in the record.
        record,
    }
}

params! {
    /// A step back.
    StepBack {
        rows, units, hidden,
        /// Terms of a sum: columns of the gates whose gradients are multiplied.
        depth,
        /// Columns of all gates.
        columns,
        items_at,
        weight_at,
        /// Where the gradients of the outputs begin, and from item to item, [`NONE`] without any.
        d_y_at, d_y_stride,
        /// Numbers of an item in the record, and among the gradients of the gates.
        record, d_gates,
        /// Numbers of a row in `running`.
        running,
        /// Where the gradients of the initial h begin.
        h_at,
    }
}
