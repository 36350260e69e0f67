//! Layers without recurrence, losses, norms and optimisers, as dispatches.

use std::sync::Arc;

use crate::kernels::Kernel;
use crate::params::NONE;
use crate::products::{Matrix, Start};
use crate::recorder::{Numbers, Recorder};
use crate::row_kernels::{self, Function, RowKernel, Term, UpdateKind, by_column, by_number, grid};

/// Numbers that one workgroup sums.
const SEGMENT: usize = 1 << 14;

/// Rows with something in common, each group's members in order: the items of an id, or of a
/// sequence.
#[derive(Debug)]
pub struct Groups {
    count: usize,
    /// Where each group's members begin, and where the last one's end.
    starts: Numbers,
    members: Numbers,
    /// Where the sum of each group goes.
    places: Numbers,
}

/// A linear layer's parameters: weight (outputs, inputs), and the bias behind it, if any.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Numbers in a row of x.
    pub inputs: usize,
    /// Numbers in a row of y.
    pub outputs: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

/// What the way back of a layer normalisation needs.
#[derive(Debug)]
pub struct Normal {
    pub(crate) normals: Numbers,
    inverses: Numbers,
}

/// What normalised rows are scaled with and shifted by: where that begins among the parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine<'a> {
    pub(crate) parameters: &'a Numbers,
    pub(crate) weight_at: usize,
    pub(crate) bias_at: Option<usize>,
}

impl Normal {
    /// Room for that of so many rows of `width` numbers.
    pub(crate) fn blank(rec: &Recorder, rows: usize, width: usize) -> Self {
        let (normals, inverses) = (rec.blank_buffer(rows * width), rec.blank_buffer(rows));
        Self { normals, inverses }
    }

    /// Numbers in it.
    pub fn len(&self) -> usize {
        self.normals.len() + self.inverses.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One step of an optimiser, with all that can be computed ahead.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the letters of seqrs/src/optimizers.rs")]
pub enum Rule {
    /// Gradient descent.
    Sgd { lr: f32, momentum: f32, nesterov: bool, decay: f32 },
    /// RMSprop.
    RmsProp { lr: f32, alpha: f32, rest: f32, eps: f32, decay: f32, momentum: f32 },
    /// Adam, and AdamW by `keep`.
    Adam {
        step: f32,
        rest1: f32,
        beta2: f32,
        rest2: f32,
        root: f32,
        eps: f32,
        decay: f32,
        keep: f32,
    },
}

impl Rule {
    fn kind(&self) -> UpdateKind {
        match *self {
            Self::Sgd { momentum: 0.0, .. } => UpdateKind::Sgd,
            Self::Sgd { nesterov: false, .. } => UpdateKind::SgdMomentum,
            Self::Sgd { .. } => UpdateKind::SgdNesterov,
            Self::RmsProp { momentum: 0.0, .. } => UpdateKind::RmsProp,
            Self::RmsProp { .. } => UpdateKind::RmsPropMomentum,
            Self::Adam { .. } => UpdateKind::Adam,
        }
    }

    /// Moments that it keeps of every number.
    pub fn moments(&self) -> usize {
        self.kind().moments()
    }
}

/// What a gradient is cut to before an update; infinite where it is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Largest norm of all gradients together.
    pub norm: f32,
    /// Largest absolute value of each.
    pub value: f32,
}

impl Recorder {
    pub(crate) fn rows(
        &self,
        kernel: RowKernel,
        buffers: &[&Numbers],
        params: Vec<u32>,
        workgroups: [usize; 3],
    ) {
        self.dispatch(Kernel::Rows(kernel), buffers, params, workgroups);
    }

    /// Where column `first` of each row of a list lies, or [`NONE`].
    fn places_of(&self, rows: &[Option<usize>], width: usize, first: usize) -> Numbers {
        let place = |row: &Option<usize>| row.map_or(NONE, |row| (row * width + first) as u32);
        self.table(&rows.iter().map(place).collect::<Vec<_>>())
    }

    /// Rows of `from` at the places of a list: an embedding, or the last live step of each
    /// sequence. Where the list has none, the row is zeros.
    pub fn rows_at(&self, from: &Numbers, rows: &[Option<usize>], width: usize) -> Box<Numbers> {
        self.columns_at(from, rows, 0..width, width, None)
    }

    /// As [`rows_at`](Self::rows_at), of some of the columns, into `to` or a new buffer.
    pub fn columns_at(
        &self,
        from: &Numbers,
        rows: &[Option<usize>],
        columns: std::ops::Range<usize>,
        width: usize,
        to: Option<Box<Numbers>>,
    ) -> Box<Numbers> {
        let to = to.unwrap_or_else(|| Box::new(self.buffer(rows.len() * width)));
        let places = self.places_of(rows, width, columns.start);
        let params = row_kernels::CopyRows {
            rows: rows.len() as u32,
            width: columns.len() as u32,
            from_at: 0,
            from_stride: NONE,
            to_at: columns.start as u32,
            to_stride: width as u32,
        };
        self.copy_by(from, &places, &to, params);
        to
    }

    /// The way back of [`columns_at`](Self::columns_at): row k of `from` goes to row `rows[k]` of
    /// `to`.
    pub fn columns_to(
        &self,
        from: &Numbers,
        rows: &[Option<usize>],
        columns: std::ops::Range<usize>,
        width: usize,
        to: &Numbers,
    ) {
        let places = self.places_of(rows, width, columns.start);
        let params = row_kernels::CopyRows {
            rows: rows.len() as u32,
            width: columns.len() as u32,
            from_at: columns.start as u32,
            from_stride: width as u32,
            to_at: 0,
            to_stride: NONE,
        };
        self.copy_by(from, &places, to, params);
    }

    /// Groups of members, and for each the row of the result that it belongs to.
    pub fn groups(&self, groups: &[(usize, Vec<u32>)], width: usize) -> Groups {
        let mut starts = Vec::with_capacity(groups.len() + 1);
        let mut members = Vec::new();
        for (_, of_group) in groups {
            starts.push(members.len() as u32);
            members.extend_from_slice(of_group);
        }
        starts.push(members.len() as u32);
        let places: Vec<u32> = groups.iter().map(|(row, _)| (row * width) as u32).collect();
        Groups {
            count: groups.len(),
            starts: self.table(&starts),
            members: self.table(&members),
            places: self.table(&places),
        }
    }

    /// Row of the group in `to` += the sum of its members, or their mean.
    pub fn sum_rows(
        &self,
        from: &Numbers,
        groups: &Groups,
        width: usize,
        mean: bool,
        to: &Numbers,
    ) {
        let params = row_kernels::Groups {
            groups: groups.count as u32,
            width: width as u32,
            mean: u32::from(mean),
        };
        let buffers = [from, &groups.starts, &groups.members, &groups.places, to];
        let workgroups = by_column(groups.count, width);
        self.rows(RowKernel::SumRows, &buffers, params.words(), workgroups);
    }

    /// The way back of a mean: row g of `from`, divided by the members of group g, to each.
    pub fn spread_mean(&self, from: &Numbers, groups: &Groups, width: usize, to: &Numbers) {
        let params =
            row_kernels::Groups { groups: groups.count as u32, width: width as u32, mean: 1 };
        let buffers = [from, &groups.starts, &groups.members, to];
        let workgroups = by_column(groups.count, width);
        self.rows(RowKernel::SpreadMean, &buffers, params.words(), workgroups);
    }

    /// The largest of each group's members in each column, and which it is from.
    pub fn largest_rows(
        &self,
        from: &Numbers,
        groups: &Groups,
        width: usize,
    ) -> (Box<Numbers>, Numbers) {
        let to = Box::new(self.blank_buffer(groups.count * width));
        let sources = self.blank_buffer(groups.count * width);
        let params =
            row_kernels::Groups { groups: groups.count as u32, width: width as u32, mean: 0 };
        let buffers = [from, &groups.starts, &groups.members, &*to, &sources];
        let workgroups = by_column(groups.count, width);
        self.rows(RowKernel::LargestRows, &buffers, params.words(), workgroups);
        (to, sources)
    }

    /// The way back of [`largest_rows`](Self::largest_rows).
    pub fn largest_rows_back(
        &self,
        from: &Numbers,
        sources: &Numbers,
        groups: usize,
        width: usize,
        to: &Numbers,
    ) {
        let params = row_kernels::Groups { groups: groups as u32, width: width as u32, mean: 0 };
        let workgroups = by_number(groups * width);
        let buffers = [from, sources, to];
        self.rows(RowKernel::LargestRowsBack, &buffers, params.words(), workgroups);
    }

    /// y = x W^T + b for `rows` rows.
    pub fn linear(
        &self,
        layer: Linear,
        x: &Numbers,
        rows: usize,
        parameters: &Numbers,
    ) -> Box<Numbers> {
        let Linear { inputs, outputs, bias } = layer;
        let y = Box::new(self.blank_buffer(rows * outputs));
        let start = match bias {
            true => Start::Bias(parameters, outputs * inputs),
            false => Start::Zero,
        };
        let weight = Matrix::new(parameters, 0, inputs).transposed();
        let sizes = [rows, inputs, outputs];
        self.product(sizes, Matrix::new(x, 0, inputs), weight, Matrix::new(&y, 0, outputs), start);
        y
    }

    /// The way back of [`linear`](Self::linear): adds to `d_parameters`, gives d_x if it is asked
    /// for.
    #[expect(clippy::too_many_arguments, reason = "each is a quantity of the algorithm")]
    pub fn linear_back(
        &self,
        layer: Linear,
        x: &Numbers,
        d_y: &Numbers,
        rows: usize,
        parameters: &Numbers,
        d_parameters: &Numbers,
        want_d_x: bool,
    ) -> Option<Box<Numbers>> {
        let Linear { inputs, outputs, bias } = layer;
        let d = [(rows, Matrix::new(d_y, 0, outputs))];
        self.add_products([outputs, inputs], &d, [Matrix::new(x, 0, inputs)], d_parameters, 0);
        if bias {
            self.add_columns(outputs, &d, d_parameters, outputs * inputs);
        }
        want_d_x.then(|| {
            let d_x = Box::new(self.blank_buffer(rows * inputs));
            let weight = Matrix::new(parameters, 0, inputs);
            let to = Matrix::new(&d_x, 0, inputs);
            self.product([rows, outputs, inputs], d[0].1, weight, to, Start::Zero);
            d_x
        })
    }

    /// A function of each number.
    pub fn function(&self, function: Function, x: &Numbers) -> Box<Numbers> {
        let y = Box::new(self.blank_buffer(x.len()));
        let params = row_kernels::Elements { len: x.len() as u32 };
        let kernel = RowKernel::Pointwise(function);
        self.rows(kernel, &[x, &y], params.words(), by_number(x.len()));
        y
    }

    /// Its way back, from its value.
    pub fn function_back(&self, function: Function, y: &Numbers, d_y: &Numbers) -> Box<Numbers> {
        let d_x = Box::new(self.blank_buffer(y.len()));
        let params = row_kernels::Elements { len: y.len() as u32 };
        let kernel = RowKernel::PointwiseBack(function);
        self.rows(kernel, &[y, d_y, &d_x], params.words(), by_number(y.len()));
        d_x
    }

    /// softmax over rows of `width` numbers.
    pub fn softmax(&self, x: &Numbers, width: usize) -> Box<Numbers> {
        let y = Box::new(self.blank_buffer(x.len()));
        let rows = x.len() / width.max(1);
        let params = row_kernels::Rows { rows: rows as u32, width: width as u32 };
        self.rows(RowKernel::Softmax, &[x, &y], params.words(), grid(rows));
        y
    }

    /// Its way back, from its value.
    pub fn softmax_back(&self, y: &Numbers, d_y: &Numbers, width: usize) -> Box<Numbers> {
        let d_x = Box::new(self.blank_buffer(y.len()));
        let rows = y.len() / width.max(1);
        let params = row_kernels::Rows { rows: rows as u32, width: width as u32 };
        self.rows(RowKernel::SoftmaxBack, &[y, d_y, &d_x], params.words(), grid(rows));
        d_x
    }

    /// Layer normalisation of rows of `width` numbers; parameters are weight and bias.
    pub fn layer_norm(
        &self,
        x: &Numbers,
        width: usize,
        eps: f32,
        parameters: &Numbers,
    ) -> (Box<Numbers>, Normal) {
        let rows = x.len() / width;
        let y = Box::new(self.blank_buffer(x.len()));
        let kept = Normal::blank(self, rows, width);
        let affine = Affine { parameters, weight_at: 0, bias_at: Some(width) };
        self.normalise([rows, width], x, eps, affine, &y, &kept);
        (y, kept)
    }

    /// The same to `y`; what the way back needs goes to `kept`.
    pub(crate) fn normalise(
        &self,
        [rows, width]: [usize; 2],
        x: &Numbers,
        eps: f32,
        affine: Affine<'_>,
        y: &Numbers,
        kept: &Normal,
    ) {
        let params = row_kernels::LayerNorm {
            rows: rows as u32,
            width: width as u32,
            eps: eps.to_bits(),
            weight_at: affine.weight_at as u32,
            bias_at: affine.bias_at.map_or(NONE, |at| at as u32),
        };
        let buffers = [x, affine.parameters, y, &kept.normals, &kept.inverses];
        self.rows(RowKernel::LayerNorm, &buffers, params.words(), grid(rows));
    }

    /// Its way back: adds to `d_parameters`, gives d_x.
    pub fn layer_norm_back(
        &self,
        kept: &Normal,
        d_y: &Numbers,
        width: usize,
        parameters: &Numbers,
        d_parameters: &Numbers,
    ) -> Box<Numbers> {
        let rows = d_y.len() / width;
        let d = [(rows, Matrix::new(d_y, 0, width))];
        self.add_dots(width, &d, [Matrix::new(&kept.normals, 0, width)], d_parameters, 0);
        self.add_columns(width, &d, d_parameters, width);
        let affine = Affine { parameters, weight_at: 0, bias_at: Some(width) };
        Box::new(self.normalise_back(kept, [rows, width], d[0].1, affine))
    }

    /// The gradient of what was normalised, from that of what came out.
    pub(crate) fn normalise_back(
        &self,
        kept: &Normal,
        [rows, width]: [usize; 2],
        d_y: Matrix<'_>,
        affine: Affine<'_>,
    ) -> Numbers {
        let d_x = self.blank_buffer(rows * width);
        let params = row_kernels::LayerNormBack {
            rows: rows as u32,
            width: width as u32,
            weight_at: affine.weight_at as u32,
            d_y_at: d_y.at as u32,
            d_y_stride: d_y.strides[0] as u32,
        };
        let buffers = [d_y.numbers, affine.parameters, &kept.normals, &kept.inverses, &d_x];
        self.rows(RowKernel::LayerNormBack, &buffers, params.words(), grid(rows));
        d_x
    }

    /// The cross-entropy of each row with its class, and the gradient, times `scale`.
    pub fn cross_entropy(
        &self,
        x: &Numbers,
        width: usize,
        classes: &[u32],
        scale: f32,
    ) -> (Numbers, Box<Numbers>) {
        let (losses, d_x) =
            (self.blank_buffer(classes.len()), Box::new(self.blank_buffer(x.len())));
        let params = row_kernels::Loss {
            rows: classes.len() as u32,
            width: width as u32,
            len: x.len() as u32,
            scale: scale.to_bits(),
            delta: 0,
        };
        let table = self.table(classes);
        let buffers = [x, &table, &losses, &*d_x];
        self.rows(RowKernel::CrossEntropy, &buffers, params.words(), grid(classes.len()));
        (losses, d_x)
    }

    /// The loss of each number with its target, and the gradient, times `scale`.
    pub fn loss(
        &self,
        term: Term,
        x: &Numbers,
        target: &Numbers,
        delta: f32,
        scale: f32,
    ) -> (Numbers, Box<Numbers>) {
        let (losses, d_x) = (self.blank_buffer(x.len()), Box::new(self.blank_buffer(x.len())));
        let params = row_kernels::Loss {
            rows: 0,
            width: 0,
            len: x.len() as u32,
            scale: scale.to_bits(),
            delta: delta.to_bits(),
        };
        let buffers = [x, target, &losses, &*d_x];
        self.rows(RowKernel::Loss(term), &buffers, params.words(), by_number(x.len()));
        (losses, d_x)
    }

    /// Number `at` of `to` = the sum of all numbers of all of `from`, or the root of the sum of their squares.
    pub fn reduce(&self, from: &[&Numbers], norm: bool, to: &Numbers, at: usize) {
        let segments = |len: usize| len.div_ceil(SEGMENT);
        let count = from.iter().map(|numbers| segments(numbers.len())).sum();
        let partial = self.blank_buffer(count);
        let mut first = 0;
        for numbers in from {
            let params = row_kernels::Sum {
                len: numbers.len() as u32,
                segment: SEGMENT as u32,
                to_at: first as u32,
                squares: u32::from(norm),
                root: 0,
            };
            let workgroups = grid(segments(numbers.len()));
            self.rows(RowKernel::Sum, &[numbers, &partial], params.words(), workgroups);
            first += segments(numbers.len());
        }
        let params = row_kernels::Sum {
            len: count as u32,
            segment: count as u32,
            to_at: at as u32,
            squares: 0,
            root: u32::from(norm),
        };
        self.rows(RowKernel::Sum, &[&partial, to], params.words(), [1, 1, 1]);
    }

    /// One step of an optimiser on `numbers`, if the loss and the norm in `report` are finite.
    pub fn update(
        &self,
        rule: &Rule,
        clip: Clip,
        gradients: &Numbers,
        report: &Numbers,
        numbers: &Numbers,
        moments: &[Arc<Numbers>],
    ) {
        let mut params = row_kernels::Update {
            len: numbers.len() as u32,
            clip_norm: clip.norm.to_bits(),
            clip_value: clip.value.to_bits(),
            ..Default::default()
        };
        match *rule {
            Rule::Sgd { lr, momentum, nesterov: _, decay } => {
                params.lr = lr.to_bits();
                params.momentum = momentum.to_bits();
                params.decay = decay.to_bits();
            }
            Rule::RmsProp { lr, alpha, rest, eps, decay, momentum } => {
                params.lr = lr.to_bits();
                params.alpha = alpha.to_bits();
                params.rest = rest.to_bits();
                params.eps = eps.to_bits();
                params.decay = decay.to_bits();
                params.momentum = momentum.to_bits();
            }
            Rule::Adam { step, rest1, beta2, rest2, root, eps, decay, keep } => {
                params.step = step.to_bits();
                params.rest1 = rest1.to_bits();
                params.beta2 = beta2.to_bits();
                params.rest2 = rest2.to_bits();
                params.root = root.to_bits();
                params.eps = eps.to_bits();
                params.decay = decay.to_bits();
                params.keep = keep.to_bits();
            }
        }
        let mut buffers = vec![gradients, report, numbers];
        buffers.extend(moments.iter().map(|moment| &**moment));
        let kernel = RowKernel::Update(rule.kind());
        self.rows(kernel, &buffers, params.words(), by_number(numbers.len()));
    }
}
