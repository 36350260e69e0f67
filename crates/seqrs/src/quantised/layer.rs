//! What is small of one layer, and how it is packed for the kernels.

use std::ops::Range;

use seqrs_core::Error;
use seqrs_core::backend::State;
use seqrs_core::memory;
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::spec::{Parameter, Role, Spec};
use seqrs_core::steps::Steps;
use seqrs_cpu::Cpu;
use seqrs_cpu::level::Level;
use seqrs_cpu::quantised::int8::Int8Source;
use seqrs_cpu::quantised::layer::{Infer, Weights, infer};
use seqrs_cpu::quantised::matrix::Matrix;
use seqrs_cpu::quantised::{cells, int8};

use super::Quantisation;
use super::tensor::Tensor;
use crate::layer::Layer;
use crate::parameters::{Form, Parameters};
use crate::sequential::Link;

/// Whether a layer has matrices that become small.
pub(crate) fn has_matrices(layer: &Layer<f32>) -> bool {
    matches!(layer, Layer::Recurrent(_) | Layer::Linear(_))
}

/// Whether there are kernels for a layer; `title` is what a message calls it.
pub(crate) fn check(
    kind: Quantisation,
    layer: &Layer<f32>,
    title: impl Fn() -> String,
) -> Result<(), Error> {
    let longest = match layer {
        Layer::Recurrent(layer) => {
            let (stack, o) = (layer.stack(), layer.stack().options());
            let refused = |what: &str| {
                let expected = format!("a layer without {what}, to quantise");
                Err(Error::option(title(), expected, format!("one with {what}")))
            };
            if o.layer_norm {
                return refused("layer_norm");
            }
            if o.zoneout > 0.0 {
                return refused("zoneout");
            }
            if o.zoneout_cell > 0.0 {
                return refused("zoneout_cell");
            }
            if !cells::has(stack.cell()) {
                let expected = "a plain cell, to quantise: an RNN of tanh or relu, an LSTM, or a \
                                GRU of either form";
                let got = "one with peepholes, coupled gates, other functions or a bound";
                return Err(Error::option(title(), expected, got));
            }
            o.input_size.max(o.hidden_size).max(stack.output_size())
        }
        Layer::Linear(layer) => layer.options().in_features,
        _ => return Ok(()),
    };
    if kind == Quantisation::Int8 && longest > int8::MOST_TERMS {
        let expected = format!("rows of at most {} weights, for int8", int8::MOST_TERMS);
        return Err(Error::option(title(), expected, longest));
    }
    Ok(())
}

/// The matrices of a layer for the kernels.
#[derive(Debug)]
pub(crate) enum Packed {
    /// By layer of the stack, and direction.
    Recurrent(Vec<Vec<Weights>>),
    Linear(Matrix),
}

/// The parameters of a layer, in the order of [`Layer::parameters`], and their packed form.
#[derive(Clone, Debug)]
pub(crate) struct Small {
    parameters: Parameters<Tensor, Packed>,
}

impl Small {
    /// What becomes small of a layer, if anything does; `title` is what a message calls the
    /// parameter of a name.
    pub(crate) fn of(
        kind: Quantisation,
        layer: &Layer<f32>,
        title: impl Fn(&str) -> String,
    ) -> Result<Option<Self>, Error> {
        if !has_matrices(layer) {
            return Ok(None);
        }
        let numbers = layer.numbers();
        let tensor = |parameter: &crate::NamedParameter| {
            let numbers = &numbers[parameter.range.clone()];
            Tensor::of(kind, numbers, &parameter.shape, || title(&parameter.name))
        };
        let tensors = layer.parameters().iter().map(tensor).collect::<Result<_, Error>>()?;
        Ok(Some(Self::with(tensors)))
    }

    /// With these parameters, whose names and shapes were checked.
    pub(crate) fn with(tensors: Vec<Tensor>) -> Self {
        Self { parameters: Parameters::new(tensors) }
    }

    /// The parameters.
    pub(crate) fn tensors(&self) -> &[Tensor] {
        self.parameters.numbers()
    }

    pub(crate) fn num_parameters(&self) -> usize {
        self.tensors().iter().map(Tensor::len).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.tensors().iter().map(Tensor::bytes).sum()
    }

    /// A recurrent layer; as `sequence::infer` of the core, on small weights.
    pub(crate) fn infer(
        &self,
        cpu: &Cpu<f32>,
        stack: &Spec,
        x: Rows<'_, [f32]>,
        steps: &Steps,
        state: &mut State<Vec<f32>>,
        y: RowsMut<'_, [f32]>,
    ) -> Result<(), Error> {
        let packed = self.packed(cpu.level(), |tensors| pack_stack(cpu.level(), stack, tensors))?;
        let Packed::Recurrent(layers) = &*packed else {
            unreachable!("the parameters are a recurrent layer's");
        };
        let width = stack.output_size();
        let last = layers.len() - 1;
        let mut below: Option<Vec<f32>> = None;
        let mut y = Some(y);
        for (layer, weights) in layers.iter().enumerate() {
            let mut above: Vec<f32> = match layer {
                l if l == last => Vec::new(),
                _ => memory::zeros("output of a recurrent layer", steps.items() * width)?,
            };
            infer(
                cpu,
                Infer {
                    shape: &stack.shape(layer),
                    steps,
                    weights,
                    x: match &below {
                        None => x,
                        Some(y) => Rows { data: &y[..], place: Place::packed(width) },
                    },
                    state: &mut *state,
                    slot: layer * stack.directions().len(),
                    y: match y.take_if(|_| layer == last) {
                        Some(y) => y,
                        None => RowsMut { data: &mut above[..], place: Place::packed(width) },
                    },
                },
            )?;
            below = Some(above);
        }
        Ok(())
    }

    /// A linear layer, on packed rows.
    pub(crate) fn product(
        &self,
        cpu: &Cpu<f32>,
        x: &[f32],
        link: &Link,
    ) -> Result<Vec<f32>, Error> {
        let depth = link.input.unwrap_or(1);
        let packed = self.packed(cpu.level(), |tensors| {
            let bias = tensors.get(1).map(Tensor::vector);
            let rows = link.output.unwrap_or(1);
            Ok(Packed::Linear(matrix(cpu.level(), &tensors[0], 0..rows, bias, depth)?))
        })?;
        let Packed::Linear(matrix) = &*packed else {
            unreachable!("the parameters are a linear layer's");
        };
        let len = x.len() / depth * matrix.columns();
        let mut y = memory::zeros("output of a linear layer", len)?;
        matrix.product(cpu, x, &mut y)?;
        Ok(y)
    }

    fn packed(
        &self,
        level: Level,
        pack: impl FnOnce(&[Tensor]) -> Result<Packed, Error>,
    ) -> Result<Form<'_, Packed>, Error> {
        self.parameters.packed(level, pack)
    }
}

/// Some rows of a matrix, packed with the bias of each.
fn matrix(
    level: Level,
    tensor: &Tensor,
    rows: Range<usize>,
    bias: Option<&[f32]>,
    depth: usize,
) -> Result<Matrix, Error> {
    let numbers = rows.start * depth..rows.end * depth;
    let bias = bias.map(|bias| &bias[rows.clone()]);
    match tensor {
        Tensor::Int8 { integers, scales } => {
            let source = Int8Source { integers: &integers[numbers], scales: &scales[rows], bias };
            Matrix::int8(level, source, depth)
        }
        Tensor::Bf16(halves) => Matrix::bf16(level, &halves[numbers], bias, depth),
        Tensor::F32(_) => unreachable!("a matrix is small"),
    }
}

/// All layers and directions of a stack.
fn pack_stack(level: Level, stack: &Spec, tensors: &[Tensor]) -> Result<Packed, Error> {
    let parameters = stack.parameters();
    let direction = |layer: usize, direction: usize| {
        let direction = stack.directions()[direction];
        let find = |role: Role| {
            let is_it = |p: &Parameter| (p.layer, p.direction, p.role) == (layer, direction, role);
            parameters.iter().position(is_it).map(|at| &tensors[at])
        };
        let shape = stack.shape(layer);
        let counts = shape.cell.counts();
        let (all, early) = (shape.gate_columns(), counts.first_gates * shape.hidden);
        let weight = |role| find(role).expect("every layer has weights");
        let bias = |role| find(role).map(Tensor::vector);
        let hh = |rows: Range<usize>| {
            matrix(level, weight(Role::WeightHh), rows, bias(Role::BiasHh), shape.state)
        };
        let (ih, b_ih) = (weight(Role::WeightIh), bias(Role::BiasIh));
        let project = |hr| matrix(level, hr, 0..shape.state, None, shape.hidden);
        Ok(Weights {
            input: matrix(level, ih, 0..all, b_ih, shape.input)?,
            first: hh(0..early)?,
            second: counts.two_products().then(|| hh(early..all)).transpose()?,
            projection: find(Role::WeightHr).map(project).transpose()?,
        })
    };
    let directions = stack.directions().len();
    let layer = |l| (0..directions).map(|d| direction(l, d)).collect::<Result<_, Error>>();
    Ok(Packed::Recurrent((0..stack.num_layers()).map(layer).collect::<Result<_, Error>>()?))
}
