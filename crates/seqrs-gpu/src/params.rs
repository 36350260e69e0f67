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
        /// Terms that came before, workgroups that share the terms, and from the c of one to that
        /// of the next.
        k_first, splits, c_split,
    }
}

params! {
    /// Weights in the order of `shaders/sums.wgsl`.
    Pack {
        units, products,
        /// Runs of terms, and the terms of each.
        runs, run,
        /// Where the weights begin, and the distance between neighbours.
        from_at, from_run, from_term, from_product, from_unit,
        /// Where the biases begin, or [`NONE`].
        bias_at,
        to_at,
    }
}

params! {
    /// A step forwards, or all steps.
    Step {
        /// B, and H; P in a projection.
        rows, units,
        /// H as the distance between gates, and a fourth of the terms of a sum.
        hidden, depth,
        /// Fours of a row of h, and where in it the operand of the products begins.
        h_row, seen_at,
        /// Numbers of a row of what comes out of the step as h.
        new_row,
        /// Where the step's table of items begins.
        items_at,
        /// Where the cell states begin.
        c_at,
        /// Where the outputs begin, and from item to item.
        y_at, y_stride,
        /// Numbers of an item in the record.
        record,
        /// How many steps, and from the table of one to that of the next.
        steps, items_step,
        /// Where the weights begin, and of all steps those of a second product, in fours.
        weights_at, second_at,
        /// Where what each unit has for itself begins behind them, in fours.
        per_unit_at,
    }
}

params! {
    /// A step of a normalised cell, once its sums are there.
    NormedStep {
        rows, units, hidden, depth,
        /// Numbers of a row of h.
        h_row,
        items_at, c_at, y_at, y_stride, record,
        /// Where the parameters of its norms begin, and the bias, or [`NONE`].
        gamma_hh_at, bias_hh_at, gamma_c_at, beta_c_at,
    }
}

params! {
    /// A step of a normalised cell back, once the gradient of its h is there.
    NormedStepBack {
        rows, hidden, columns, items_at, record, d_gates, running,
        gamma_hh_at, gamma_c_at, beta_c_at,
    }
}

params! {
    /// A step back, or all steps.
    StepBack {
        rows, units, hidden,
        /// A fourth of the terms of a sum: columns of the gates whose gradients are multiplied.
        depth,
        /// A fourth of the columns of all gates.
        columns,
        items_at,
        /// Where the gradients of the outputs begin, and from item to item, [`NONE`] without any.
        d_y_at, d_y_stride,
        /// Numbers of an item in the record, and among the gradients of the gates.
        record, d_gates,
        /// Numbers of a row in `running`.
        running,
        /// Where the gradients of the initial h begin.
        h_at,
        steps, items_step,
        /// Where the weights begin, and of all steps those of a second product, in fours, and a
        /// fourth of its terms.
        weights_at, second_at, second_depth,
        /// Where what each unit has for itself begins behind the weights, in fours.
        per_unit_at,
    }
}
