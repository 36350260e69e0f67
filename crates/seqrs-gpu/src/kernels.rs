//! The shaders: which there are, and what each is put together from.
//!
//! A cell's shader is the text of the cell (`shaders/cell`), the text of what is done with it
//! (`shaders/step.wgsl` and so on), and between the two the loads and stores of the cell's
//! bundles, which are written here from the names of their fields.

use std::fmt::Write;

use seqrs_core::cell::{Bundle, Cell, CellKind, MAX_BUNDLE};
use seqrs_core::with_cell;

use crate::params;
use crate::program::{Access, Binding, Pipeline};
use crate::row_kernels::RowKernel;

/// A shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    Product,
    /// The first product of a cell with two, and what it opens.
    Open(CellKind),
    /// The step of a cell.
    Step(CellKind, Recorded, Projected),
    /// The projection that follows it.
    Project,
    /// The gradient of what came out of the projection.
    ProjectBack,
    /// The step back of a cell.
    StepBack(CellKind, Projected),
    /// What follows it in a cell with two products.
    Close(CellKind),
    /// The gradient of the initial h.
    LastBack,
    /// What treats each row by itself.
    Rows(RowKernel),
}

/// Whether a step leaves what the way back needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Recorded {
    Yes,
    No,
}

/// Whether a projection makes h of what a step gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Projected {
    Yes,
    No,
}

/// Rows and columns of c that a workgroup of the product computes.
pub(crate) const PRODUCT_TILE: usize = 64;

/// Units and rows of a workgroup of a step, and terms that lie in its memory at a time.
pub(crate) const UNITS: usize = 16;
pub(crate) const ROWS: usize = 16;
const CHUNK: usize = 16;

// wgpu does not compare the memory of a workgroup with what a device has.
const _: () = assert!(
    4 * CHUNK * (ROWS + MAX_BUNDLE * UNITS) <= 16 << 10,
    "every device has 16 KiB for a workgroup"
);

const MATH: &str = include_str!("shaders/math.wgsl");
const CONTRACT: &str = include_str!("shaders/contract.wgsl");
const TILE_SUMS: &str = include_str!("shaders/tile_sums.wgsl");
const START_FROM_BIASES: &str = include_str!("shaders/start_from_biases.wgsl");
const START_FROM_ZERO: &str = include_str!("shaders/start_from_zero.wgsl");

impl Kernel {
    /// Its text and what it binds.
    pub(crate) fn pipeline(self) -> Pipeline {
        match self {
            Self::Product => pipeline(
                "product",
                params::Product::WGSL,
                &[read("a"), read("b"), read("bias"), write("c")],
                &[include_str!("shaders/product.wgsl")],
            ),
            Self::Rows(kernel) => kernel.pipeline(),
            Self::Open(kind) => Text::of(kind).open(),
            Self::Step(kind, recorded, projected) => Text::of(kind).step(recorded, projected),
            Self::Project => summed(
                "projection",
                params::Step::WGSL,
                false,
                include_str!("shaders/project.wgsl"),
                &[table("items"), read("parameters"), read("m"), write("h"), write("y")],
            ),
            Self::ProjectBack => summed(
                "projection back",
                params::StepBack::WGSL,
                true,
                include_str!("shaders/project_back.wgsl"),
                &[
                    table("items"),
                    read("parameters"),
                    read("d_after"),
                    read("d_y"),
                    read("running"),
                    write("d_h"),
                ],
            ),
            Self::StepBack(kind, Projected::No) => Text::of(kind).step_back(),
            Self::StepBack(kind, Projected::Yes) => Text::of(kind).step_back_projected(),
            Self::Close(kind) => Text::of(kind).close(),
            Self::LastBack => summed(
                "last step back",
                params::StepBack::WGSL,
                true,
                include_str!("shaders/last_back.wgsl"),
                &[read("parameters"), read("d_after"), read("running"), write("d_h")],
            ),
        }
    }
}

pub(crate) const fn read(name: &'static str) -> Binding {
    Binding { name, number: "f32", access: Access::Read }
}

pub(crate) const fn write(name: &'static str) -> Binding {
    Binding { name, number: "f32", access: Access::Write }
}

pub(crate) const fn table(name: &'static str) -> Binding {
    Binding { name, number: "u32", access: Access::Read }
}

pub(crate) fn pipeline(
    label: &str,
    params: &str,
    bindings: &[Binding],
    parts: &[&str],
) -> Pipeline {
    let none = format!("const NONE = {:#x}u;\n", params::NONE);
    let declarations = Pipeline::declarations(bindings);
    let all = [&[params, &none, &declarations], parts].concat();
    Pipeline { label: label.to_owned(), source: all.join("\n"), bindings: bindings.to_vec() }
}

/// With one sum for each row and unit; `units_first` where neighbouring units' weights are
/// neighbours.
fn summed(
    label: &str,
    params: &str,
    units_first: bool,
    body: &str,
    bindings: &[Binding],
) -> Pipeline {
    pipeline(
        label,
        params,
        bindings,
        &[&tile_sizes(1, units_first), START_FROM_ZERO, TILE_SUMS, body],
    )
}

fn tile_sizes(products: usize, units_first: bool) -> String {
    format!(
        "const UNITS = {UNITS}u;\nconst ROWS = {ROWS}u;\nconst CHUNK = {CHUNK}u;\n\
         const PRODUCTS = {products}u;\nconst UNITS_FIRST = {units_first};\n"
    )
}

/// What the shaders of a cell are made of.
struct Text {
    kind: CellKind,
    cell: String,
    gates: &'static [&'static str],
    state: &'static [&'static str],
    saved: &'static [&'static str],
    opened: &'static [&'static str],
    first_gates: usize,
    one_gate_gradient: bool,
}

impl Text {
    fn of(kind: CellKind) -> Self {
        let cell = match kind {
            CellKind::RnnTanh => {
                [include_str!("shaders/cell/rnn_tanh.wgsl"), include_str!("shaders/cell/rnn.wgsl")]
                    .join("\n")
            }
            CellKind::RnnRelu => {
                [include_str!("shaders/cell/rnn_relu.wgsl"), include_str!("shaders/cell/rnn.wgsl")]
                    .join("\n")
            }
            CellKind::Lstm => include_str!("shaders/cell/lstm.wgsl").to_owned(),
            CellKind::GruResetBefore => {
                include_str!("shaders/cell/gru_reset_before.wgsl").to_owned()
            }
            CellKind::GruResetAfter => include_str!("shaders/cell/gru_reset_after.wgsl").to_owned(),
        };
        with_cell!(kind, C => Self {
            kind,
            cell,
            gates: <<C as Cell>::Gates<f32> as Bundle<f32>>::NAMES,
            state: <<C as Cell>::State<f32> as Bundle<f32>>::NAMES,
            saved: <<C as Cell>::Saved<f32> as Bundle<f32>>::NAMES,
            opened: <<C as Cell>::Opened<f32> as Bundle<f32>>::NAMES,
            first_gates: C::FIRST_GATES,
            one_gate_gradient: C::ONE_GATE_GRADIENT,
        })
    }

    fn two_products(&self) -> bool {
        self.first_gates < self.gates.len()
    }

    fn pipeline(
        &self,
        label: &str,
        params: &str,
        bindings: &[Binding],
        parts: &[&str],
    ) -> Pipeline {
        let parts = [&[MATH, &self.cell, CONTRACT], parts].concat();
        pipeline(&format!("{label} of {:?}", self.kind), params, bindings, &parts)
    }

    fn open(&self) -> Pipeline {
        let bindings = [table("items"), read("gx"), read("parameters"), read("h"), write("opened")];
        let sizes = tile_sizes(self.first_gates, false);
        let glue = [
            START_FROM_BIASES.to_owned(),
            self.gates_from_input(),
            self.gates_from_state(0, self.first_gates),
            self.state_before(),
            self.leave_open(),
        ]
        .concat();
        let body = include_str!("shaders/open.wgsl");
        let parts = [&sizes, TILE_SUMS, &glue, body];
        self.pipeline("first product", params::Step::WGSL, &bindings, &parts)
    }

    fn step(&self, recorded: Recorded, projected: Projected) -> Pipeline {
        let mut bindings = vec![table("items"), read("gx"), read("parameters"), read("h")];
        if self.two_products() {
            bindings.push(read("opened"));
        }
        bindings.push(write("h_new"));
        if self.state.len() > 1 {
            bindings.push(write("c"));
        }
        if projected == Projected::No {
            bindings.push(write("y"));
        }
        if recorded == Recorded::Yes {
            bindings.push(write("record"));
        }
        let first = if self.two_products() { self.first_gates } else { 0 };
        let sizes = tile_sizes(self.gates.len() - first, false);
        let glue = [
            START_FROM_BIASES.to_owned(),
            self.gates_from_input(),
            self.gates_from_state(first, self.gates.len()),
            self.state_before(),
            self.opened_at(),
            self.keep(recorded),
            self.state_after(projected),
        ]
        .concat();
        let operand = match self.two_products() {
            false => "h[row * p.depth + k]".to_owned(),
            true => format!("opened[row * {}u * p.depth + k]", 1 + self.opened.len()),
        };
        let body = include_str!("shaders/step.wgsl").replace("OPERAND", &operand);
        let parts = [&sizes, TILE_SUMS, &glue, &body];
        self.pipeline("step", params::Step::WGSL, &bindings, &parts)
    }

    fn step_back(&self) -> Pipeline {
        let bindings = [
            table("items"),
            read("parameters"),
            read("d_after"),
            write("d_new"),
            read("d_y"),
            read("record"),
            write("running"),
            write("d_gates"),
        ];
        let sizes = tile_sizes(1, true);
        let glue = [self.recorded(), self.running(), self.pass_on(), self.leave()].concat();
        let body = include_str!("shaders/step_back.wgsl");
        let parts = [&sizes, START_FROM_ZERO, TILE_SUMS, &glue, body];
        self.pipeline("step back", params::StepBack::WGSL, &bindings, &parts)
    }

    fn step_back_projected(&self) -> Pipeline {
        let bindings = [
            table("items"),
            read("parameters"),
            read("d_h"),
            write("d_new"),
            read("record"),
            write("running"),
            write("d_gates"),
            write("m"),
        ];
        let sizes = tile_sizes(1, true);
        let glue = [self.recorded(), self.running(), self.leave()].concat();
        let body = include_str!("shaders/step_back_projected.wgsl");
        let parts = [&sizes, START_FROM_ZERO, TILE_SUMS, &glue, body];
        self.pipeline("step back of a projected", params::StepBack::WGSL, &bindings, &parts)
    }

    fn close(&self) -> Pipeline {
        let bindings = [
            table("items"),
            read("parameters"),
            read("record"),
            write("d_gates"),
            write("d_new"),
            write("running"),
            write("operands"),
        ];
        let sizes = tile_sizes(1, true);
        let glue = [self.recorded(), self.leave_closed()].concat();
        let body = include_str!("shaders/close.wgsl");
        let parts = [&sizes, START_FROM_ZERO, TILE_SUMS, &glue, body];
        self.pipeline("second step back", params::StepBack::WGSL, &bindings, &parts)
    }

    // --- loads and stores

    fn gates_from_input(&self) -> String {
        let gates = self.gates.len();
        let loads = runs("gx", "at", gates);
        format!(
            "fn gates_from_input(item: u32, u: u32) -> Gates {{
    let at = item * {gates}u * p.hidden + u;
    return Gates({loads});
}}
"
        )
    }

    /// The sums belong to the gates `first..end`; the others' are 0.
    fn gates_from_state(&self, first: usize, end: usize) -> String {
        let of = |gate: usize| match (first..end).contains(&gate) {
            true => format!("sums[{}]", gate - first),
            false => "0.0".to_owned(),
        };
        let values = (0..self.gates.len()).map(of).collect::<Vec<_>>().join(", ");
        format!(
            "fn gates_from_state(sums_: array<f32, PRODUCTS>) -> Gates {{
    var sums = sums_;
    return Gates({values});
}}
"
        )
    }

    /// A projected h has fewer numbers than there are units.
    fn state_before(&self) -> String {
        let c = if self.state.len() > 1 { ", c[p.c_at + b * p.units + u]" } else { "" };
        format!(
            "fn state_before(b: u32, u: u32) -> State {{
    var before = 0.0;
    if (u < p.depth) {{
        before = h[b * p.depth + u];
    }}
    return State(before{c});
}}
"
        )
    }

    fn state_after(&self, projected: Projected) -> String {
        let y = match projected {
            Projected::Yes => "",
            Projected::No => "    y[p.y_at + item * p.y_stride + u] = s.h;\n",
        };
        let c = match self.state.len() {
            1 => "",
            _ => "    c[p.c_at + b * p.units + u] = s.c;\n",
        };
        format!(
            "fn state_after(item: u32, b: u32, u: u32, s: State) {{
    h_new[b * p.units + u] = s.h;
{y}{c}}}
"
        )
    }

    /// Behind the operand (H) lie the fields of the bundle.
    fn leave_open(&self) -> String {
        let width = 1 + self.opened.len();
        let mut stores = String::new();
        for (k, field) in self.opened.iter().enumerate() {
            let to = format!("opened[at + {}u * p.hidden]", k + 1);
            writeln!(stores, "    {to} = opening.opened.{field};").expect("a string");
        }
        format!(
            "fn leave_open(b: u32, u: u32, opening: Operand) {{
    let at = b * {width}u * p.hidden + u;
    opened[at] = opening.value;
{stores}}}
"
        )
    }

    fn opened_at(&self) -> String {
        let width = 1 + self.opened.len();
        let loads = match self.opened.len() {
            0 => "0.0".to_owned(),
            n => runs("opened", "at + p.hidden", n),
        };
        format!(
            "fn opened_at(b: u32, u: u32) -> Opened {{
    let at = b * {width}u * p.hidden + u;
    return Opened({loads});
}}
"
        )
    }

    /// An item's record: the saved values, and the state before the step.
    fn keep(&self, recorded: Recorded) -> String {
        let mut stores = String::new();
        if recorded == Recorded::Yes {
            stores.push_str("    let at = item * p.record + u;\n");
            let saved = self.saved.iter().map(|field| format!("saved.{field}"));
            let state = self.state.iter().map(|field| format!("s.{field}"));
            for (k, value) in saved.chain(state).enumerate() {
                writeln!(stores, "    record[at + {k}u * p.hidden] = {value};").expect("a string");
            }
        }
        format!("fn keep(item: u32, b: u32, u: u32, s: State, saved: Saved) {{\n{stores}}}\n")
    }

    fn recorded(&self) -> String {
        let saved = match self.saved.len() {
            0 => "0.0".to_owned(),
            n => runs("record", "at", n),
        };
        let start = format!("at + {}u * p.hidden", self.saved.len());
        let state = runs("record", &start, self.state.len());
        format!(
            "fn recorded(item: u32, u: u32) -> Saved {{
    let at = item * p.record + u;
    return Saved({saved});
}}
fn recorded_state(item: u32, u: u32) -> State {{
    let at = item * p.record + u;
    return State({state});
}}
"
        )
    }

    /// A row of `running`: the gradients of the state, and the state after the step.
    fn running(&self) -> String {
        let states = self.state.len();
        let gradients = runs("running", "at", states);
        let values = runs("running", &format!("at + {states}u * p.hidden"), states);
        format!(
            "fn running_gradient(b: u32, u: u32) -> State {{
    let at = b * p.running + u;
    return State({gradients});
}}
fn running_state(b: u32, u: u32) -> State {{
    let at = b * p.running + u;
    return State({values});
}}
"
        )
    }

    fn pass_on(&self) -> String {
        let gates = self.gates.len();
        format!(
            "fn pass_on(b: u32, u: u32) {{
    for (var gate = 0u; gate < {gates}u; gate++) {{
        let at = b * p.columns + gate * p.hidden + u;
        d_new[at] = d_after[at];
    }}
}}
"
        )
    }

    fn leave(&self) -> String {
        let gates = self.gates.len();
        let mut stores = String::new();
        let mut store = |to: &str, at: &str, k: usize, value: String| {
            writeln!(stores, "    {to}[{at} + {k}u * p.hidden] = {value};").expect("a string");
        };
        for (k, gate) in self.gates.iter().enumerate() {
            store("d_gates", "of_item", k, format!("d.d_gx.{gate}"));
            if !self.one_gate_gradient {
                store("d_gates", "of_item", gates + k, format!("d.d_gh.{gate}"));
            }
            store("d_new", "of_row", k, format!("d.d_gh.{gate}"));
        }
        for (k, field) in self.state.iter().enumerate() {
            store("running", "at", k, format!("d.d_s.{field}"));
            store("running", "at", self.state.len() + k, format!("s.{field}"));
        }
        format!(
            "fn leave(item: u32, b: u32, u: u32, d: Gradients, s: State) {{
    let of_item = item * p.d_gates + u;
    let of_row = b * p.columns + u;
    let at = b * p.running + u;
{stores}}}
"
        )
    }

    fn leave_closed(&self) -> String {
        let mut stores = String::new();
        for (k, gate) in self.gates.iter().enumerate().take(self.first_gates) {
            for (to, at) in [("d_gates", "of_item"), ("d_new", "of_row")] {
                writeln!(stores, "    {to}[{at} + {k}u * p.hidden] += closed.d_g.{gate};")
                    .expect("a string");
            }
        }
        let late = self.first_gates;
        format!(
            "fn d_late(b: u32, k: u32) -> f32 {{
    let item = items[p.items_at + b];
    if (item == NONE) {{
        return 0.0;
    }}
    return d_gates[item * p.d_gates + {late}u * p.hidden + k];
}}
fn leave_closed(item: u32, b: u32, u: u32, operand: f32, closed: Closed) {{
    let of_item = item * p.d_gates + u;
    let of_row = b * p.columns + u;
{stores}    running[b * p.running + u] += closed.d_h;
    operands[item * p.hidden + u] = operand;
}}
"
        )
    }
}

/// `buffer[at], buffer[at + 1u * p.hidden], ...`: the fields of a bundle.
fn runs(buffer: &str, at: &str, count: usize) -> String {
    let load = |k: usize| format!("{buffer}[{at} + {k}u * p.hidden]");
    (0..count).map(load).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Gpu;
    use crate::program::Program;

    fn all() -> Vec<Kernel> {
        let mut all = vec![
            Kernel::Product,
            Kernel::LastBack,
            Kernel::Project,
            Kernel::ProjectBack,
            Kernel::Step(CellKind::Lstm, Recorded::Yes, Projected::Yes),
            Kernel::Step(CellKind::Lstm, Recorded::No, Projected::Yes),
            Kernel::StepBack(CellKind::Lstm, Projected::Yes),
            Kernel::Open(CellKind::GruResetBefore),
            Kernel::Close(CellKind::GruResetBefore),
        ];
        all.extend(crate::row_kernels::all().into_iter().map(Kernel::Rows));
        for kind in CellKind::ALL {
            all.extend([
                Kernel::Step(kind, Recorded::Yes, Projected::No),
                Kernel::Step(kind, Recorded::No, Projected::No),
                Kernel::StepBack(kind, Projected::No),
            ]);
        }
        all
    }

    /// Needs no driver, so it runs everywhere.
    #[test]
    fn every_shader_is_valid_and_within_the_default_limits() {
        let gpu = Gpu::noop();
        for kernel in all() {
            let pipeline = kernel.pipeline();
            assert!(pipeline.bindings.len() <= 8, "{kernel:?} binds too many buffers");
            let program = Program { pipelines: vec![pipeline.clone()], ..Default::default() };
            if let Err(error) = gpu.run(&program) {
                panic!("{kernel:?}: {error}\n{}", pipeline.source);
            }
        }
    }
}
