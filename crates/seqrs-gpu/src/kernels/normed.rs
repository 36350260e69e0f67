//! The shaders of normalised cells: sums alone, and what a workgroup does with those of a row.

use seqrs_core::layer_norm::EPSILON;

use super::{
    Halves, Projected, Recorded, SUMS, Text, masks_back, one_step, pipeline, quads, read, sizes,
    table, write,
};
use crate::params;
use crate::program::{Binding, Pipeline};
use crate::row_kernels;
use crate::rules::{MOST_THREADS, Tile};
use crate::state_masks::Masked;

/// Threads of a workgroup, which has a row: the order of its sums depends on it.
const THREADS: usize = MOST_THREADS;

const REDUCE: &str = include_str!("../shaders/rows/reduce.wgsl");

/// Whose rows sums are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operand {
    /// Those of h, which may have the operand at a place of its own.
    OfRows,
    /// Those of the items; a row that has none gets 0.
    OfItems,
}

/// The sums of `products` gates.
pub(super) fn add_up(operand: Operand, products: usize, tile: Tile) -> Pipeline {
    let mut bindings = vec![quads("weights"), quads("operand"), write("to")];
    let operand_at = match operand {
        Operand::OfRows => {
            "fn operand_at(product: u32, row: u32, k: u32) -> vec4<f32> {
    return operand[row * p.h_row + p.seen_at + k];
}
"
        }
        Operand::OfItems => {
            bindings.insert(0, table("items"));
            "fn operand_at(product: u32, row: u32, k: u32) -> vec4<f32> {
    let item = items[p.items_at + row];
    if (item == NONE) {
        return vec4<f32>();
    }
    return operand[item * p.depth + k];
}
"
        }
    };
    let sizes = sizes(products, tile, tile.threads(products));
    let finish = include_str!("../shaders/add_up.wgsl");
    let parts = [&*sizes, SUMS, operand_at, finish, &one_step("finish")];
    pipeline("sums", params::Step::WGSL, &bindings, &parts)
}

/// The moments of what `NAME_at` gives.
fn moments(name: &str) -> String {
    include_str!("../shaders/normed/moments.wgsl").replace("NAME", name)
}

impl Text {
    fn has_c(&self) -> bool {
        self.state.len() > 1
    }

    /// Where what norms keep lies in a record, and what goes through them among the gradients of
    /// the gates, in runs of H ([`crate::pieces`]).
    fn of_norms(&self) -> String {
        let hats = self.saved.len() + self.state.len();
        let inverses = hats + self.gates.len() + usize::from(self.has_c());
        let d_sums = if self.one_gate_gradient { 1 } else { 2 } * self.gates.len();
        format!(
            "const EPSILON = {EPSILON:e};\nconst HATS = {hats}u;\nconst INVERSES = {inverses}u;\n\
             const D_SUMS = {d_sums}u;\n"
        )
    }

    pub(super) fn normed_step(&self, recorded: Recorded, projected: Projected) -> Pipeline {
        let mut bindings = vec![table("items"), read("gx"), read("sums"), read("parameters")];
        let (h, leaves, leave) = match projected {
            Projected::No => (
                write("h"),
                write("y"),
                "    h[b * p.h_row + u] = value;
    y[p.y_at + item * p.y_stride + u] = value;",
            ),
            Projected::Yes => (read("h"), write("m"), "    m[b * padded(p.units) + u] = value;"),
        };
        bindings.extend([h, leaves, write("record")]);
        // At inference a row's record is that of its last step.
        let row = match recorded {
            Recorded::Yes => "item",
            Recorded::No => "b",
        };
        let gates = (0..self.gates.len())
            .map(|gate| format!("gate_from_state(b, {gate}u * p.hidden + u, row, of_sums)"));
        let gates = gates.collect::<Vec<_>>().join(",\n        ");
        let after = match self.has_c() {
            false => "leave_h(item, b, u, s.h);",
            true => {
                bindings.push(write("c"));
                "c[p.c_at + b * p.units + u] = s.c;"
            }
        };
        let glue = format!(
            "fn row_of_record(item: u32, b: u32) -> u32 {{
    return {row};
}}
fn h_at(b: u32, u: u32) -> f32 {{
    return h[b * p.h_row + u];
}}
fn leave_h(item: u32, b: u32, u: u32, value: f32) {{
{leave}
}}
fn state_after(item: u32, b: u32, u: u32, s: State) {{
    {after}
}}
fn gates_from_state(b: u32, u: u32, row: u32, of_sums: Moments) -> Gates {{
    return Gates(
        {gates},
    );
}}
"
        );
        let loads = [self.gates_from_input(), self.state_before(), self.recorded()].concat();
        let keep = self.keep(Recorded::Yes);
        let show = match self.has_c() {
            true => include_str!("../shaders/normed/show.wgsl").to_owned() + &moments("cells"),
            false => include_str!("../shaders/normed/show_nothing.wgsl").to_owned(),
        };
        let body = include_str!("../shaders/normed/step.wgsl");
        let parts = [&*loads, &keep, &glue, &show, &moments("sums"), body];
        self.by_rows("step of a normalised", params::NormedStep::WGSL, &bindings, &parts)
    }

    pub(super) fn normed_step_back(&self, projected: Projected, masked: Masked) -> Pipeline {
        let mut bindings = vec![
            table("items"),
            read("parameters"),
            read("d_h"),
            read("record"),
            write("running"),
            write("d_gates"),
            write("d"),
        ];
        let (d_h, leave_m) = match projected {
            Projected::No => ("item * padded(p.hidden)", ""),
            Projected::Yes => {
                bindings.push(write("m"));
                ("b * p.hidden", "    m[item * p.hidden + u] = value;\n")
            }
        };
        let sums = self.gates.iter().map(|gate| format!("a.{gate} + b.{gate}"));
        let sums = sums.collect::<Vec<_>>().join(", ");
        let glue = format!(
            "fn gradient_of_h(item: u32, b: u32, u: u32) -> f32 {{
    return d_h[{d_h} + u];
}}
fn leave_m(item: u32, u: u32, value: f32) {{
{leave_m}}}
fn plus(a: Gates, b: Gates) -> Gates {{
    return Gates({sums});
}}
"
        );
        let loads = [self.recorded(), self.running(), self.leave()].concat();
        let loads = loads + masks_back(masked) + &self.past(masked, Halves::Two);
        let show = match self.has_c() {
            true => include_str!("../shaders/normed/show_back.wgsl"),
            false => include_str!("../shaders/normed/show_nothing_back.wgsl"),
        };
        let body = include_str!("../shaders/normed/step_back.wgsl");
        let parts = [&*loads, &glue, show, body];
        let params = params::NormedStepBack::WGSL;
        self.by_rows("step back of a normalised", params, &bindings, &parts)
    }

    /// A shader with a workgroup for each row.
    fn by_rows(&self, label: &str, params: &str, bindings: &[Binding], parts: &[&str]) -> Pipeline {
        let (prelude, places) = (row_kernels::prelude(THREADS), self.of_norms());
        let parts = [&[&*prelude, &places, REDUCE], parts].concat();
        self.pipeline(label, params, bindings, &parts)
    }
}
