//! The shaders: which there are, and what each is put together from.
//!
//! A cell's shader is the text of the functions in it (`shaders/functions`), the text of the cell
//! (`shaders/cell`), the text of what is done with it (`shaders/step.wgsl` and so on), and between
//! the last two the loads and stores of the cell's bundles, which are written here from the names of
//! their fields.

mod normed;

use std::fmt::Write;

use seqrs_core::cell::{Bundle, Cell, CellKind, Counts, Equations};
use seqrs_core::with_cell;

use crate::functions;
use crate::params;
use crate::program::{Access, Binding, Pipeline};
use crate::row_kernels::RowKernel;
use crate::rules::{MOST_MEMORY, MOST_THREADS, Rules, Tile};
use crate::state_masks::Masked;

pub(crate) use normed::Operand;

/// A shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    Product,
    /// The first product of a cell with two, and what it opens.
    Open(CellKind, Tile),
    /// The step of a cell.
    Step(CellKind, Recorded, Projected, Tile),
    /// The projection that follows it.
    Project(Tile),
    /// All steps of a cell.
    AllSteps(CellKind, Recorded, Tile),
    /// The gradient of what came out of the projection.
    ProjectBack(Masked, Tile),
    /// The step back of a cell.
    StepBack(CellKind, Projected, Masked, Tile),
    /// What follows it in a cell with two products.
    Close(CellKind, Masked, Tile),
    /// All steps back of a cell.
    AllStepsBack(CellKind, Tile),
    /// The gradient of the initial h.
    LastBack(Masked, Tile),
    /// The sums of so many gates, without a cell.
    AddUp(Operand, usize, Tile),
    /// The step of a normalised cell, once its sums are there.
    NormedStep(CellKind, Recorded, Projected),
    /// The step of a normalised cell back, once the gradient of its h is there.
    NormedStepBack(CellKind, Projected, Masked),
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

/// Whether the gradient of what came out of a step is a dispatch of its own
/// (`shaders/project_back.wgsl`).
#[derive(Clone, Copy)]
enum Halves {
    One,
    Two,
}

/// Rows and columns of c that a workgroup of the product computes.
pub(crate) const PRODUCT_TILE: usize = 64;

const MATH: &str = include_str!("shaders/math.wgsl");
const CONTRACT: &str = include_str!("shaders/contract.wgsl");
const SUMS: &str = include_str!("shaders/sums.wgsl");
const H_IN_BUFFERS: &str = include_str!("shaders/held/h_in_buffers.wgsl");
const D_IN_BUFFERS: &str = include_str!("shaders/held/d_in_buffers.wgsl");
const OPEN: &str = include_str!("shaders/open.wgsl");
const STEP: &str = include_str!("shaders/step.wgsl");
const STEP_BACK: &str = include_str!("shaders/step_back.wgsl");
const CLOSE: &str = include_str!("shaders/close.wgsl");

const ITEM_OF: &str = "fn item_of(b: u32) -> u32 {
    return items[p.items_at + b];
}
";
const OPERAND_IS_D_AFTER: &str = "fn operand_at(product: u32, row: u32, k: u32) -> vec4<f32> {
    return d_after[row * p.columns + k];
}
";

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
            Self::Open(kind, tile) => Text::of(kind).open(tile),
            Self::Step(kind, recorded, projected, tile) => {
                Text::of(kind).step(recorded, projected, tile)
            }
            Self::AllSteps(kind, recorded, tile) => Text::of(kind).all_steps(recorded, tile),
            Self::Project(tile) => pipeline(
                "projection",
                params::Step::WGSL,
                &[table("items"), quads("weights"), quads("m"), write("h"), write("y")],
                &[
                    &sizes(1, tile, tile.threads(1)),
                    SUMS,
                    ITEM_OF,
                    include_str!("shaders/project.wgsl"),
                    &one_step("finish"),
                ],
            ),
            Self::ProjectBack(masked, tile) => pipeline(
                "projection back",
                params::StepBack::WGSL,
                &[
                    table("items"),
                    quads("weights"),
                    quads("d_after"),
                    read("d_y"),
                    match masked {
                        Masked::Yes => write("running"),
                        Masked::No => read("running"),
                    },
                    write("d_h"),
                ],
                &[
                    &sizes(1, tile, tile.threads(1)),
                    SUMS,
                    ITEM_OF,
                    OPERAND_IS_D_AFTER,
                    masks_back(masked),
                    match masked {
                        Masked::Yes => include_str!("shaders/masks/split.wgsl"),
                        Masked::No => include_str!("shaders/masks/no_split.wgsl"),
                    },
                    include_str!("shaders/project_back.wgsl"),
                    &one_step("finish"),
                ],
            ),
            Self::StepBack(kind, Projected::No, masked, tile) => {
                Text::of(kind).step_back(masked, tile)
            }
            Self::StepBack(kind, Projected::Yes, masked, tile) => {
                Text::of(kind).step_back_projected(masked, tile)
            }
            Self::Close(kind, masked, tile) => Text::of(kind).close(masked, tile),
            Self::AllStepsBack(kind, tile) => Text::of(kind).all_steps_back(tile),
            Self::AddUp(operand, gates, tile) => normed::add_up(operand, gates, tile),
            Self::NormedStep(kind, recorded, projected) => {
                Text::of(kind).normed_step(recorded, projected)
            }
            Self::NormedStepBack(kind, projected, masked) => {
                Text::of(kind).normed_step_back(projected, masked)
            }
            Self::LastBack(masked, tile) => pipeline(
                "last step back",
                params::StepBack::WGSL,
                &[quads("weights"), quads("d_after"), read("running"), write("d_h")],
                &[
                    &sizes(1, tile, tile.threads(1)),
                    SUMS,
                    OPERAND_IS_D_AFTER,
                    masks_back(masked),
                    include_str!("shaders/last_back.wgsl"),
                    &one_step("finish"),
                ],
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

/// Read four numbers at a time.
const fn quads(name: &'static str) -> Binding {
    Binding { name, number: "vec4<f32>", access: Access::Read }
}

pub(crate) fn pipeline(
    label: &str,
    params: &str,
    bindings: &[Binding],
    parts: &[&str],
) -> Pipeline {
    let none = format!("const NONE = {:#x}u;\n", params::NONE);
    let declarations = Pipeline::declarations(bindings);
    let padded = "// As many with what fills up the last four.
fn padded(n: u32) -> u32 {
    return (n + 3u) / 4u * 4u;
}
";
    let all = [&[params, &none, &declarations, padded], parts].concat();
    Pipeline { label: label.to_owned(), source: all.join("\n"), bindings: bindings.to_vec() }
}

/// For sums of `products` gates at a time.
fn sizes(products: usize, tile: Tile, threads: usize) -> String {
    // wgpu does not compare the memory of a workgroup with what a device has.
    assert!(threads <= MOST_THREADS && tile.memory(products) <= MOST_MEMORY);
    let Tile { rows, share, parts, groups } = tile;
    let units = tile.units();
    format!(
        "const ROWS = {rows}u;\nconst SHARE = {share}u;\nconst PARTS = {parts}u;\n\
         const GROUPS = {groups}u;\nconst UNITS = {units}u;\nconst PRODUCTS = {products}u;\n\
         const COLUMNS = GROUPS * PRODUCTS;\nconst THREADS = {threads}u;\n"
    )
}

/// What is done on the way back to what passes by a cell.
fn masks_back(masked: Masked) -> &'static str {
    match masked {
        Masked::Yes => include_str!("shaders/masks/back.wgsl"),
        Masked::No => include_str!("shaders/masks/no_back.wgsl"),
    }
}

/// The entry point of a shader for one step.
fn one_step(finish: &str) -> String {
    include_str!("shaders/one_step.wgsl").replace("FINISH", finish)
}

/// The entry point of a shader for all steps: what each adds up, and what is done with that.
fn all_steps(products: &[(&str, &str)]) -> String {
    let mut of_a_step = String::new();
    for (product, finish) in products {
        let text = include_str!("shaders/one_product.wgsl");
        of_a_step += &text.replace("PRODUCT", product).replace("FINISH", finish);
    }
    include_str!("shaders/all_steps.wgsl").replace("    // OF_A_STEP\n", &of_a_step)
}

/// What the shaders of a cell are made of.
struct Text {
    kind: CellKind,
    cell: String,
    gates: &'static [&'static str],
    state: &'static [&'static str],
    saved: &'static [&'static str],
    opened: &'static [&'static str],
    per_unit: &'static [&'static str],
    first_gates: usize,
    one_gate_gradient: bool,
}

impl Text {
    fn of(kind: CellKind) -> Self {
        let functions = match kind {
            CellKind::RnnTanh => include_str!("shaders/cell/rnn_tanh.wgsl").to_owned(),
            CellKind::RnnRelu => include_str!("shaders/cell/rnn_relu.wgsl").to_owned(),
            CellKind::Chosen(_, chosen) => functions::chosen(chosen),
            _ => functions::STANDARD.to_owned(),
        };
        let equations = match kind {
            CellKind::RnnTanh | CellKind::RnnRelu => include_str!("shaders/cell/rnn.wgsl"),
            CellKind::Chosen(Equations::Rnn, _) => include_str!("shaders/cell/rnn_chosen.wgsl"),
            CellKind::Lstm | CellKind::Chosen(Equations::Lstm, _) => {
                include_str!("shaders/cell/lstm.wgsl")
            }
            CellKind::LstmPeephole | CellKind::Chosen(Equations::LstmPeephole, _) => {
                include_str!("shaders/cell/lstm_peephole.wgsl")
            }
            CellKind::LstmCoupled | CellKind::Chosen(Equations::LstmCoupled, _) => {
                include_str!("shaders/cell/lstm_coupled.wgsl")
            }
            CellKind::LstmCoupledPeephole | CellKind::Chosen(Equations::LstmCoupledPeephole, _) => {
                include_str!("shaders/cell/lstm_coupled_peephole.wgsl")
            }
            CellKind::GruResetBefore | CellKind::Chosen(Equations::GruResetBefore, _) => {
                include_str!("shaders/cell/gru_reset_before.wgsl")
            }
            CellKind::GruResetAfter | CellKind::Chosen(Equations::GruResetAfter, _) => {
                include_str!("shaders/cell/gru_reset_after.wgsl")
            }
        };
        let cell = [&functions, equations].join("\n");
        let Counts { first_gates, one_gate_gradient, .. } = kind.counts();
        with_cell!(kind, C => Self {
            kind,
            cell,
            gates: kind.gate_names(),
            state: <<C as Cell>::State<f32> as Bundle<f32>>::NAMES,
            saved: <<C as Cell>::Saved<f32> as Bundle<f32>>::NAMES,
            opened: <<C as Cell>::Opened<f32> as Bundle<f32>>::NAMES,
            per_unit: kind.per_unit(),
            first_gates,
            one_gate_gradient,
        })
    }

    fn two_products(&self) -> bool {
        self.first_gates < self.gates.len()
    }

    /// Gates of the product that a step ends with.
    fn last_gates(&self) -> usize {
        if self.two_products() { self.gates.len() - self.first_gates } else { self.gates.len() }
    }

    fn pipeline(
        &self,
        label: &str,
        params: &str,
        bindings: &[Binding],
        parts: &[&str],
    ) -> Pipeline {
        let counts = format!(
            "const GATES = {}u;\nconst FIRST_GATES = {}u;\n",
            self.gates.len(),
            self.first_gates
        );
        let parts = [&[MATH, &counts, &self.cell, CONTRACT], parts].concat();
        pipeline(&format!("{label} of {:?}", self.kind), params, bindings, &parts)
    }

    fn open(&self, tile: Tile) -> Pipeline {
        let bindings = [table("items"), read("gx"), quads("weights"), quads("h"), write("opened")];
        let gates = self.first_gates;
        let sizes = sizes(gates, tile, tile.threads(gates));
        let operand = "fn operand_at(product: u32, row: u32, k: u32) -> vec4<f32> {
    return h[row * p.h_row + p.seen_at + k];
}
fn h_at(b: u32, u: u32) -> f32 {
    return h[b * p.h_row + u / 4u][u % 4u];
}
";
        let glue = [
            ITEM_OF.to_owned(),
            operand.to_owned(),
            self.gates_from_input(),
            self.gates_from_state("gates_of_opening", 0, gates),
            self.state_before(),
            self.leave_open(),
        ]
        .concat();
        let parts = [&sizes, SUMS, &glue, OPEN, &one_step("finish_opening")];
        self.pipeline("first product", params::Step::WGSL, &bindings, &parts)
    }

    fn step(&self, recorded: Recorded, projected: Projected, tile: Tile) -> Pipeline {
        let mut bindings = vec![table("items"), read("gx"), quads("weights"), quads("h")];
        if self.two_products() {
            bindings.push(quads("opened"));
        }
        bindings.push(write("h_new"));
        bindings.extend(self.step_leaves(recorded, projected));
        let gates = self.last_gates();
        let sizes = sizes(gates, tile, tile.threads(gates));
        let operand = match self.two_products() {
            false => "h[row * p.h_row + p.seen_at + k]".to_owned(),
            true => format!("opened[row * {}u * p.depth + k]", 1 + self.opened.len()),
        };
        let glue = [
            format!(
                "fn operand_at(product: u32, row: u32, k: u32) -> vec4<f32> {{
    return {operand};
}}
"
            ),
            self.gates_from_input(),
            self.gates_from_state("gates_from_state", self.gates.len() - gates, self.gates.len()),
            self.state_before(),
            self.opened_at(),
            self.per_unit(),
            self.keep(recorded),
            self.state_after(projected),
        ]
        .concat();
        let parts = [&sizes, SUMS, H_IN_BUFFERS, &glue, STEP, &one_step("finish")];
        self.pipeline("step", params::Step::WGSL, &bindings, &parts)
    }

    /// What a step writes besides h.
    fn step_leaves(&self, recorded: Recorded, projected: Projected) -> Vec<Binding> {
        let mut bindings = Vec::new();
        if self.state.len() > 1 {
            bindings.push(write("c"));
        }
        if projected == Projected::No {
            bindings.push(write("y"));
        }
        if recorded == Recorded::Yes {
            bindings.push(write("record"));
        }
        bindings
    }

    fn all_steps(&self, recorded: Recorded, tile: Tile) -> Pipeline {
        let mut bindings = vec![table("items"), read("gx"), quads("weights"), write("h")];
        bindings.extend(self.step_leaves(recorded, Projected::No));
        let (gates, last) = (self.gates.len(), self.last_gates());
        let products = self.first_gates.max(last);
        let threads = tile.threads(products).max(tile.rows * tile.units());
        let sizes = sizes(products, tile, threads);
        let operands = 1 + usize::from(self.two_products());
        let mut glue = format!("const OPERANDS = {operands}u;\n")
            + include_str!("shaders/held/h_in_workgroup.wgsl");
        glue += &[
            self.gates_from_input(),
            self.gates_from_state("gates_from_state", gates - last, gates),
            self.state_before(),
            self.per_unit(),
            self.keep(recorded),
            self.state_after(Projected::No),
        ]
        .concat();
        let first = format!("Product(0u, {}u, p.weights_at, p.depth)", self.first_gates);
        let second = format!("Product(1u, {last}u, p.second_at, p.depth)");
        let main = if self.two_products() {
            glue += include_str!("shaders/held/operand_in_workgroup.wgsl");
            glue += &self.gates_from_state("gates_of_opening", 0, self.first_gates);
            glue += OPEN;
            all_steps(&[(&first, "finish_opening"), (&second, "finish")])
        } else {
            glue += &self.opened_at();
            all_steps(&[(&first, "finish")])
        };
        let parts = [&sizes, SUMS, &glue, STEP, &main];
        self.pipeline("all steps", params::Step::WGSL, &bindings, &parts)
    }

    fn step_back(&self, masked: Masked, tile: Tile) -> Pipeline {
        let bindings = [
            table("items"),
            quads("weights"),
            quads("d_after"),
            write("d_new"),
            read("d_y"),
            read("record"),
            write("running"),
            write("d_gates"),
        ];
        let sizes = sizes(1, tile, tile.threads(1));
        let glue = [self.recorded(), self.running(), self.per_unit(), self.leave()].concat();
        let glue = glue + masks_back(masked) + &self.past(masked, Halves::One);
        let main = one_step("finish");
        let parts = [&sizes, SUMS, D_IN_BUFFERS, OPERAND_IS_D_AFTER, &glue, STEP_BACK, &main];
        self.pipeline("step back", params::StepBack::WGSL, &bindings, &parts)
    }

    fn step_back_projected(&self, masked: Masked, tile: Tile) -> Pipeline {
        let bindings = [
            table("items"),
            quads("weights"),
            quads("d_h"),
            write("d_new"),
            read("record"),
            write("running"),
            write("d_gates"),
            write("m"),
        ];
        let sizes = sizes(1, tile, tile.threads(1));
        let set_d = "fn set_d(b: u32, gate: u32, u: u32, value: f32) {
    d_new[b * 4u * p.columns + gate * padded(p.hidden) + u] = value;
}
";
        let loads = [self.recorded(), self.running(), self.per_unit()].concat();
        let glue = [ITEM_OF, set_d, &loads, &self.leave()].concat();
        let glue = glue + masks_back(masked) + &self.past(masked, Halves::Two);
        let body = include_str!("shaders/step_back_projected.wgsl");
        let parts = [&sizes, SUMS, &glue, body, &one_step("finish")];
        self.pipeline("step back of a projected", params::StepBack::WGSL, &bindings, &parts)
    }

    fn close(&self, masked: Masked, tile: Tile) -> Pipeline {
        let bindings = [
            table("items"),
            quads("weights"),
            read("record"),
            write("d_gates"),
            write("d_new"),
            write("running"),
            write("operands"),
        ];
        let sizes = sizes(1, tile, tile.threads(1));
        let glue = [self.recorded(), self.leave_closed()].concat();
        let held = include_str!("shaders/held/late_in_buffers.wgsl");
        let main = one_step("finish_closing");
        let parts = [&sizes, SUMS, ITEM_OF, held, &glue, masks_back(masked), CLOSE, &main];
        self.pipeline("second step back", params::StepBack::WGSL, &bindings, &parts)
    }

    fn all_steps_back(&self, tile: Tile) -> Pipeline {
        let mut bindings = vec![
            table("items"),
            quads("weights"),
            write("d"),
            read("d_y"),
            read("record"),
            write("running"),
            write("d_gates"),
        ];
        let threads = tile.threads(1).max(tile.rows * tile.units());
        let sizes = sizes(1, tile, threads);
        let held = include_str!("shaders/held/d_in_workgroup.wgsl");
        let mut glue = [self.recorded(), self.running(), self.per_unit(), self.leave()].concat();
        glue = glue + masks_back(Masked::No) + &self.past(Masked::No, Halves::One);
        let first = ("Product(0u, 1u, p.weights_at, p.depth)", "finish");
        let second = ("Product(1u, 1u, p.second_at, p.second_depth)", "finish_closing");
        let main = if self.two_products() {
            bindings.push(write("operands"));
            glue += &self.leave_closed();
            glue += CLOSE;
            all_steps(&[first, second])
        } else {
            all_steps(&[first])
        };
        let parts = [&sizes, SUMS, held, &glue, STEP_BACK, &main];
        self.pipeline("all steps back", params::StepBack::WGSL, &bindings, &parts)
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
    fn gates_from_state(&self, name: &str, first: usize, end: usize) -> String {
        let of = |gate: usize| match (first..end).contains(&gate) {
            true => format!("sums[{}]", gate - first),
            false => "0.0".to_owned(),
        };
        let values = (0..self.gates.len()).map(of).collect::<Vec<_>>().join(", ");
        format!(
            "fn {name}(sums_: array<f32, PRODUCTS>) -> Gates {{
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
    if (u < 4u * p.depth) {{
        before = h_at(b, u);
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
    set_h(b, u, s.h);
{y}{c}}}
"
        )
    }

    /// Behind the operand (H) lie the fields of the bundle.
    fn leave_open(&self) -> String {
        let width = 1 + self.opened.len();
        let mut stores = String::new();
        for (k, field) in self.opened.iter().enumerate() {
            let to = format!("opened[at + {}u * padded(p.hidden)]", k + 1);
            writeln!(stores, "    {to} = opening.opened.{field};").expect("a string");
        }
        format!(
            "fn leave_open(b: u32, u: u32, opening: Operand) {{
    let at = b * {width}u * padded(p.hidden) + u;
    opened[at] = opening.value;
{stores}}}
"
        )
    }

    fn opened_at(&self) -> String {
        let width = 1 + self.opened.len();
        let load = |k: usize| format!("opened[at + {}u * p.depth][u % 4u]", k + 1);
        let loads = match self.opened.len() {
            0 => "0.0".to_owned(),
            n => (0..n).map(load).collect::<Vec<_>>().join(", "),
        };
        format!(
            "fn opened_at(b: u32, u: u32) -> Opened {{
    let at = b * {width}u * p.depth + u / 4u;
    return Opened({loads});
}}
"
        )
    }

    /// They lie as the biases of a product without terms (weights.rs).
    fn per_unit(&self) -> String {
        let count = self.per_unit.len();
        let load = |k: usize| format!("weights[at + {k}u][u % 4u]");
        let loads = match count {
            0 => "0.0".to_owned(),
            _ => (0..count).map(load).collect::<Vec<_>>().join(", "),
        };
        format!(
            "fn per_unit(u: u32) -> PerUnit {{
    let at = p.per_unit_at + u / 4u * {count}u;
    return PerUnit({loads});
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

    /// The gradient of what goes into a step, where zoneout lets some of it past, and what is left
    /// after the step with that. Where the step back has two halves, the first has split that of h.
    fn past(&self, masked: Masked, halves: Halves) -> String {
        let of = |field: &str| match (masked, halves, field) {
            (Masked::Yes, Halves::Two, "h") => {
                ("d.h".to_owned(), "left.h + running_gradient(b, u).h".to_owned())
            }
            (Masked::No, ..) => (format!("d.{field}"), format!("left.{field}")),
            (Masked::Yes, ..) => (
                format!("(1.0 - share_of_{field}(b, u)) * d.{field}"),
                format!("left.{field} + share_of_{field}(b, u) * d.{field}"),
            ),
        };
        let (into, with): (Vec<_>, Vec<_>) = self.state.iter().map(|field| of(field)).unzip();
        format!(
            "fn into_step(b: u32, u: u32, d: State) -> State {{
    return State({});
}}
fn with_past(b: u32, u: u32, left: State, d: State) -> State {{
    return State({});
}}
",
            into.join(", "),
            with.join(", ")
        )
    }

    fn leave(&self) -> String {
        let gates = self.gates.len();
        let store = |to: &str, at: &str, k: usize, value: String| {
            format!("    {to}[{at} + {k}u * p.hidden] = {value};\n")
        };
        let mut stores = String::new();
        for (k, gate) in self.gates.iter().enumerate() {
            stores += &store("d_gates", "of_item", k, format!("d.d_gx.{gate}"));
            if !self.one_gate_gradient {
                stores += &store("d_gates", "of_item", gates + k, format!("d.d_gh.{gate}"));
            }
            stores += &format!("    set_d(b, {k}u, u, d.d_gh.{gate});\n");
        }
        let of_gates = if self.one_gate_gradient { gates } else { 2 * gates };
        for (k, field) in self.per_unit.iter().enumerate() {
            stores += &store("d_gates", "of_item", of_gates + k, format!("d.d_p.{field}"));
        }
        for (k, field) in self.state.iter().enumerate() {
            stores += &store("running", "at", k, format!("d.d_s.{field}"));
            stores += &store("running", "at", self.state.len() + k, format!("s.{field}"));
        }
        format!(
            "fn leave(item: u32, b: u32, u: u32, d: Gradients, s: State) {{
    let of_item = item * p.d_gates + u;
    let at = b * p.running + u;
{stores}}}
"
        )
    }

    fn leave_closed(&self) -> String {
        let mut stores = String::new();
        for (k, gate) in self.gates.iter().enumerate().take(self.first_gates) {
            writeln!(
                stores,
                "    d_gates[of_item + {k}u * p.hidden] += closed.d_g.{gate};
    add_d(b, {k}u, u, closed.d_g.{gate});"
            )
            .expect("a string");
        }
        format!(
            "fn leave_closed(item: u32, b: u32, u: u32, operand: f32, closed: Closed) {{
    let of_item = item * p.d_gates + u;
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

/// Every shader that a program may have, with a name of its own.
pub fn shaders() -> Vec<(String, Pipeline)> {
    all().into_iter().map(|kernel| (format!("{kernel:?}"), kernel.pipeline())).collect()
}

/// Each for every tile of the table.
fn all() -> Vec<Kernel> {
    let mut all = vec![Kernel::Product];
    all.extend(crate::row_kernels::all().into_iter().map(Kernel::Rows));
    let rules = Rules::default();
    for rows in [1, 4, 16, 32] {
        let tile = |gates| rules.tile(gates, 4096, rows);
        let one = tile(1);
        all.push(Kernel::Project(one));
        for masked in [Masked::Yes, Masked::No] {
            all.extend([Kernel::LastBack(masked, one), Kernel::ProjectBack(masked, one)]);
        }
        all.push(Kernel::AddUp(Operand::OfItems, 1, one));
        all.extend([3, 4].map(|gates| Kernel::AddUp(Operand::OfRows, gates, tile(gates))));
        for kind in CellKind::ALL {
            let text = Text::of(kind);
            let gates = tile(text.last_gates());
            let projected = (kind.states() > 1).then_some(Projected::Yes);
            for projected in projected.into_iter().chain([Projected::No]) {
                for recorded in [Recorded::Yes, Recorded::No] {
                    all.push(Kernel::Step(kind, recorded, projected, gates));
                }
                for masked in [Masked::Yes, Masked::No] {
                    all.push(Kernel::StepBack(kind, projected, masked, one));
                }
            }
            if text.two_products() {
                all.push(Kernel::Open(kind, tile(text.first_gates)));
                all.extend(
                    [Masked::Yes, Masked::No].map(|masked| Kernel::Close(kind, masked, one)),
                );
            }
        }
    }
    for (kind, hidden) in CellKind::ALL.into_iter().flat_map(|kind| [(kind, 1), (kind, 64)]) {
        let (gates, first) = (kind.gates(), Text::of(kind).first_gates);
        let tile = |gates| rules.all_steps(gates, kind.gates(), hidden, 2).expect("it is small");
        for recorded in [Recorded::Yes, Recorded::No] {
            all.push(Kernel::AllSteps(kind, recorded, tile(first.max(gates - first))));
        }
        all.push(Kernel::AllStepsBack(kind, tile(1)));
    }
    // A normalised cell is not fused, whichever functions are in it.
    for kind in CellKind::ALL.into_iter().filter(|kind| kind.may_be_normalised()) {
        let kind = kind.unfused();
        let projected = (kind.states() > 1).then_some(Projected::Yes);
        for projected in projected.into_iter().chain([Projected::No]) {
            for recorded in [Recorded::Yes, Recorded::No] {
                all.push(Kernel::NormedStep(kind, recorded, projected));
            }
            for masked in [Masked::Yes, Masked::No] {
                all.push(Kernel::NormedStepBack(kind, projected, masked));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Gpu;
    use crate::program::Program;

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
