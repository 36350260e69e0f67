//! The shaders of what treats each row, or each number, by itself: layers without recurrence,
//! losses, norms and optimisers.

use crate::kernels::{pipeline, read, table, write};
use crate::params::{Pack, params};
use crate::program::{Access, Binding, Pipeline};
use crate::state_masks::MaskKernel;

/// Threads of a workgroup.
pub(crate) const THREADS: usize = 64;

/// Workgroups along the first axis; further ones go to the second.
const GROUPS_IN_A_ROW: usize = 32768;

/// So many workgroups.
pub(crate) fn grid(groups: usize) -> [usize; 3] {
    [groups.min(GROUPS_IN_A_ROW), groups.div_ceil(GROUPS_IN_A_ROW), 1]
}

/// A thread for each of so many numbers.
pub(crate) fn by_number(len: usize) -> [usize; 3] {
    grid(len.div_ceil(THREADS))
}

/// A thread for each column of so many rows.
pub(crate) fn by_column(rows: usize, width: usize) -> [usize; 3] {
    grid(rows * width.div_ceil(THREADS))
}

/// A shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RowKernel {
    CopyRows,
    Pack,
    ColumnSums(ColumnTerm),
    Times,
    Pointwise(Function),
    PointwiseBack(Function),
    Softmax,
    SoftmaxBack,
    LayerNorm,
    LayerNormBack,
    SumRows,
    SpreadMean,
    LargestRows,
    LargestRowsBack,
    CrossEntropy,
    Loss(Term),
    Sum,
    Update(UpdateKind),
    /// What is done to states besides the cell.
    Masks(MaskKernel),
}

/// A function of one number whose slope follows from its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// The hyperbolic tangent.
    Tanh,
    /// max(x, 0).
    Relu,
    /// The logistic function.
    Sigmoid,
}

/// What is added up in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ColumnTerm {
    /// Its numbers.
    Number,
    /// Their products with those of another matrix.
    Product,
}

/// A loss of one number and its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// Of a logit and a number in [0, 1].
    BinaryCrossEntropy,
    /// The square of the distance.
    Squared,
    /// The distance.
    Absolute,
    /// Squared up to a distance, absolute beyond.
    Huber,
}

/// Which moments an update keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UpdateKind {
    Sgd,
    SgdMomentum,
    SgdNesterov,
    RmsProp,
    RmsPropMomentum,
    Adam,
}

impl UpdateKind {
    /// Moments that it keeps of every number.
    pub(crate) fn moments(self) -> usize {
        match self {
            Self::Sgd => 0,
            Self::SgdMomentum | Self::SgdNesterov | Self::RmsProp => 1,
            Self::RmsPropMomentum | Self::Adam => 2,
        }
    }

    /// The formula of `Rule::apply` in seqrs/src/optimizers.rs.
    fn text(self) -> &'static str {
        match self {
            Self::Sgd => "numbers[i] -= number(p.lr) * (g + number(p.decay) * numbers[i]);",
            Self::SgdMomentum => {
                "g += number(p.decay) * numbers[i];
    let b = number(p.momentum) * first[i] + g;
    first[i] = b;
    numbers[i] -= number(p.lr) * b;"
            }
            Self::SgdNesterov => {
                "g += number(p.decay) * numbers[i];
    let b = number(p.momentum) * first[i] + g;
    first[i] = b;
    numbers[i] -= number(p.lr) * (g + number(p.momentum) * b);"
            }
            Self::RmsProp => {
                "g += number(p.decay) * numbers[i];
    let v = number(p.alpha) * first[i] + number(p.rest) * (g * g);
    first[i] = v;
    numbers[i] -= number(p.lr) * (g / (sqrt(v) + number(p.eps)));"
            }
            Self::RmsPropMomentum => {
                "g += number(p.decay) * numbers[i];
    let v = number(p.alpha) * first[i] + number(p.rest) * (g * g);
    first[i] = v;
    let b = number(p.momentum) * second[i] + g / (sqrt(v) + number(p.eps));
    second[i] = b;
    numbers[i] -= number(p.lr) * b;"
            }
            Self::Adam => {
                "let kept = number(p.keep) * numbers[i];
    g += number(p.decay) * kept;
    let m = first[i] + number(p.rest1) * (g - first[i]);
    let v = number(p.beta2) * second[i] + number(p.rest2) * (g * g);
    first[i] = m;
    second[i] = v;
    numbers[i] = kept - number(p.step) * (m / (sqrt(v) / number(p.root) + number(p.eps)));"
            }
        }
    }
}

params! {
    /// Rows from one place to another.
    CopyRows {
        rows, width,
        from_at,
        /// From row to row, or [`NONE`] where a table has the places.
        from_stride,
        to_at,
        to_stride,
    }
}

params! {
    /// Sums of columns, or of their products with those of another matrix.
    ColumnSums {
        rows, columns,
        from_at, stride,
        other_at, other_stride,
        to_at,
        /// Whether they start from what is there.
        add,
        /// Rows that came before, and threads that share the rows of a column.
        first, splits,
    }
}

params! {
    /// Rows of so many numbers.
    Rows { rows, width }
}

params! {
    /// So many numbers.
    Elements { len }
}

params! {
    /// A layer normalisation; eps is the bits of an `f32`.
    LayerNorm {
        rows, width, eps,
        /// Where the weights begin, and the biases, or [`NONE`].
        weight_at, bias_at,
    }
}

params! {
    /// Its way back.
    LayerNormBack {
        rows, width,
        weight_at,
        d_y_at, d_y_stride,
    }
}

params! {
    /// Groups of rows of so many numbers.
    Groups { groups, width, mean }
}

params! {
    /// A loss; scale and delta are the bits of an `f32`.
    Loss { rows, width, len, scale, delta }
}

params! {
    /// Sums of segments.
    Sum { len, segment, to_at, squares, root }
}

params! {
    /// One step of an optimiser; all but the first are the bits of an `f32`.
    Update {
        len, clip_norm, clip_value,
        lr, momentum, decay, alpha, rest, eps, step, rest1, beta2, rest2, root, keep,
    }
}

const MATH: &str = include_str!("shaders/math.wgsl");
const REDUCE: &str = include_str!("shaders/rows/reduce.wgsl");
const LOGARITHM: &str = include_str!("shaders/rows/logarithm.wgsl");

const fn write_table(name: &'static str) -> Binding {
    Binding { name, number: "u32", access: Access::Write }
}

pub(crate) fn rows(label: &str, params: &str, bindings: &[Binding], parts: &[&str]) -> Pipeline {
    pipeline(label, params, bindings, &[&[&*prelude(THREADS)], parts].concat())
}

/// What a shader by rows begins with, whose workgroups have so many threads.
pub(crate) fn prelude(threads: usize) -> String {
    format!(
        "const THREADS = {threads}u;\nconst LEAST = {:e};
fn number_of(group: vec3<u32>) -> u32 {{
    return group.y * {GROUPS_IN_A_ROW}u + group.x;
}}
// Of a thread, where each row has one for each of its `width` numbers.
fn row_and_column(group: vec3<u32>, thread: u32, width: u32) -> vec2<u32> {{
    let blocks = (width + THREADS - 1u) / THREADS;
    let n = number_of(group);
    return vec2<u32>(n / blocks, n % blocks * THREADS + thread);
}}
",
        f32::MIN
    )
}

impl RowKernel {
    pub(crate) fn pipeline(self) -> Pipeline {
        let (dx, dy) = (write("d_x"), read("d_y"));
        let by_groups = [table("groups"), table("members")];
        match self {
            Self::Masks(kernel) => kernel.pipeline(),
            Self::CopyRows => {
                let body = include_str!("shaders/rows/copy_rows.wgsl");
                let bindings = [read("from_"), table("places"), write("to")];
                rows("copy of rows", CopyRows::WGSL, &bindings, &[body])
            }
            Self::Pack => {
                let body = include_str!("shaders/rows/pack.wgsl");
                rows("packed weights", Pack::WGSL, &[read("parameters"), write("to")], &[body])
            }
            Self::ColumnSums(term) => {
                let (other, term) = match term {
                    ColumnTerm::Number => (None, "from_[e]"),
                    ColumnTerm::Product => {
                        let other = "other[p.other_at + row * p.other_stride + j]";
                        (Some(read("other")), &*format!("from_[e] * {other}"))
                    }
                };
                let bindings: Vec<Binding> =
                    [Some(read("from_")), other, Some(write("to"))].into_iter().flatten().collect();
                let body = include_str!("shaders/rows/column_sums.wgsl").replace("TERM", term);
                rows("sums of columns", ColumnSums::WGSL, &bindings, &[&body])
            }
            Self::Times => {
                let body = include_str!("shaders/rows/times.wgsl");
                let bindings = [read("a"), read("b"), write("product")];
                rows("element-wise product", Elements::WGSL, &bindings, &[body])
            }
            Self::Pointwise(function) => {
                let value = match function {
                    Function::Tanh => "hyperbolic_tangent",
                    Function::Relu => "relu",
                    Function::Sigmoid => "sigmoid",
                };
                let body = include_str!("shaders/rows/pointwise.wgsl").replace("VALUE", value);
                let bindings = [read("x"), write("y")];
                rows("function", Elements::WGSL, &bindings, &[MATH, &body])
            }
            Self::PointwiseBack(function) => {
                let slope = match function {
                    Function::Tanh => "tanh_slope",
                    Function::Relu => "heaviside",
                    Function::Sigmoid => "sigmoid_slope",
                };
                let body = include_str!("shaders/rows/pointwise_back.wgsl").replace("SLOPE", slope);
                let functions = include_str!("shaders/rows/functions.wgsl");
                let bindings = [read("y"), dy, dx];
                rows("slope", Elements::WGSL, &bindings, &[MATH, functions, &body])
            }
            Self::Softmax => {
                let body = include_str!("shaders/rows/softmax.wgsl");
                rows("softmax", Rows::WGSL, &[read("x"), write("y")], &[REDUCE, body])
            }
            Self::SoftmaxBack => {
                let body = include_str!("shaders/rows/softmax_back.wgsl");
                rows("softmax back", Rows::WGSL, &[read("y"), dy, dx], &[REDUCE, body])
            }
            Self::LayerNorm => {
                let bindings = [
                    read("x"),
                    read("parameters"),
                    write("y"),
                    write("normals"),
                    write("inverses"),
                ];
                let body = include_str!("shaders/rows/layer_norm.wgsl");
                rows("layer normalisation", LayerNorm::WGSL, &bindings, &[REDUCE, body])
            }
            Self::LayerNormBack => {
                let bindings = [dy, read("parameters"), read("normals"), read("inverses"), dx];
                let body = include_str!("shaders/rows/layer_norm_back.wgsl");
                rows("layer normalisation back", LayerNormBack::WGSL, &bindings, &[REDUCE, body])
            }
            Self::SumRows => {
                let [groups, members] = by_groups;
                let bindings = [read("from_"), groups, members, table("places"), write("to")];
                let body = include_str!("shaders/rows/sum_rows.wgsl");
                rows("sums of rows", Groups::WGSL, &bindings, &[body])
            }
            Self::SpreadMean => {
                let [groups, members] = by_groups;
                let bindings = [read("from_"), groups, members, write("to")];
                let body = include_str!("shaders/rows/spread_mean.wgsl");
                rows("mean back", Groups::WGSL, &bindings, &[body])
            }
            Self::LargestRows => {
                let [groups, members] = by_groups;
                let bindings =
                    [read("from_"), groups, members, write("to"), write_table("sources")];
                let body = include_str!("shaders/rows/largest_rows.wgsl");
                rows("largest of rows", Groups::WGSL, &bindings, &[body])
            }
            Self::LargestRowsBack => {
                let bindings = [read("from_"), table("sources"), write("to")];
                let body = include_str!("shaders/rows/largest_rows_back.wgsl");
                rows("largest of rows back", Groups::WGSL, &bindings, &[body])
            }
            Self::CrossEntropy => {
                let bindings = [read("x"), table("classes"), write("losses"), dx];
                let body = include_str!("shaders/rows/cross_entropy.wgsl");
                rows("cross-entropy", Loss::WGSL, &bindings, &[REDUCE, LOGARITHM, body])
            }
            Self::Loss(term) => {
                let name = match term {
                    Term::BinaryCrossEntropy => "binary_cross_entropy",
                    Term::Squared => "squared",
                    Term::Absolute => "absolute",
                    Term::Huber => "huber",
                };
                let body = include_str!("shaders/rows/loss.wgsl").replace("TERM", name);
                let terms = include_str!("shaders/rows/losses.wgsl");
                let bindings = [read("x"), read("target_"), write("losses"), dx];
                rows("loss", Loss::WGSL, &bindings, &[MATH, LOGARITHM, terms, &body])
            }
            Self::Sum => {
                let body = include_str!("shaders/rows/sum.wgsl");
                rows("sum", Sum::WGSL, &[read("from_"), write("to")], &[REDUCE, body])
            }
            Self::Update(kind) => {
                let mut bindings = vec![read("gradients"), read("report"), write("numbers")];
                bindings.extend([write("first"), write("second")].into_iter().take(kind.moments()));
                let body = include_str!("shaders/rows/update.wgsl").replace("UPDATE", kind.text());
                rows("update", Update::WGSL, &bindings, &[&body])
            }
        }
    }
}

/// Each of them.
pub(crate) fn all() -> Vec<RowKernel> {
    use RowKernel::{
        ColumnSums, CopyRows, CrossEntropy, LargestRows, LargestRowsBack, LayerNorm, LayerNormBack,
        Loss, Masks, Pack, Pointwise, PointwiseBack, Softmax, SoftmaxBack, SpreadMean, Sum,
        SumRows, Times, Update,
    };
    let mut all = vec![
        CopyRows,
        Pack,
        ColumnSums(ColumnTerm::Number),
        ColumnSums(ColumnTerm::Product),
        Times,
        Softmax,
        SoftmaxBack,
        LayerNorm,
        LayerNormBack,
        SumRows,
        SpreadMean,
        LargestRows,
        LargestRowsBack,
        CrossEntropy,
        Sum,
    ];
    for function in [Function::Tanh, Function::Relu, Function::Sigmoid] {
        all.extend([Pointwise(function), PointwiseBack(function)]);
    }
    let terms = [Term::BinaryCrossEntropy, Term::Squared, Term::Absolute, Term::Huber];
    all.extend(terms.map(Loss));
    all.extend(MaskKernel::ALL.map(Masks));
    all.extend(
        [
            UpdateKind::Sgd,
            UpdateKind::SgdMomentum,
            UpdateKind::SgdNesterov,
            UpdateKind::RmsProp,
            UpdateKind::RmsPropMomentum,
            UpdateKind::Adam,
        ]
        .map(Update),
    );
    all
}
