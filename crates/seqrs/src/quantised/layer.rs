//! How the weights of a layer become small, and how they are packed for the kernels.

use std::ops::Range;

use seqrs_core::Error;
use seqrs_core::sequence::StackWeights;
use seqrs_core::spec::{Parameter, Role, Spec};
use seqrs_cpu::level::Level;
use seqrs_cpu::quantised::int8;
use seqrs_cpu::quantised::int8::Int8Source;
use seqrs_cpu::quantised::matrix::Matrix;
use seqrs_cpu::{Cpu, Packed, SmallMatrices, Weights};

use super::Quantisation;
use super::tensor::Tensor;
use crate::layer::{Layer, LayerSpec, NamedParameter};
use crate::layers::linear::{Linear, LinearLayer};
use crate::layers::recurrent::Recurrent;
use crate::number::Number;
use crate::parameters::Parameters;

/// Whether a layer has matrices that become small.
pub(crate) fn has_matrices(layer: &LayerSpec) -> bool {
    layer.described().is_some() || matches!(layer, LayerSpec::Linear(_))
}

/// Whether the sums of a layer are exact; `title` is what a message calls it.
pub(crate) fn check(
    kind: Quantisation,
    layer: &LayerSpec,
    title: impl Fn() -> String,
) -> Result<(), Error> {
    let longest = match (layer.described(), layer) {
        (Some(described), _) => {
            let stack = described.stack()?;
            let o = stack.options();
            o.input_size.max(o.hidden_size).max(stack.output_size())
        }
        (None, LayerSpec::Linear(options)) => options.in_features,
        _ => return Ok(()),
    };
    if kind == Quantisation::Int8 && longest > int8::MOST_TERMS {
        let expected = format!("rows of at most {} weights, for int8", int8::MOST_TERMS);
        return Err(Error::option(title(), expected, longest));
    }
    Ok(())
}

/// A layer with small weights in place of its own, if it has matrices; `title` is what a message
/// calls the parameter of a name.
pub(crate) fn small(
    kind: Quantisation,
    layer: &Layer<f32>,
    title: impl Fn(&str) -> String,
) -> Result<Layer<f32>, Error> {
    let spec = layer.spec();
    if !has_matrices(&spec) {
        return Ok(layer.clone());
    }
    let tensor = |parameter: &NamedParameter| {
        let numbers = &layer.numbers()[parameter.range.clone()];
        Tensor::of(kind, numbers, &parameter.shape, || title(&parameter.name))
    };
    let tensors = layer.parameters().iter().map(tensor).collect::<Result<_, Error>>()?;
    with_tensors(spec, tensors)
}

/// A layer with matrices, with these parameters, whose kinds and sizes were checked.
pub(crate) fn with_tensors(spec: LayerSpec, tensors: Vec<Tensor>) -> Result<Layer<f32>, Error> {
    if let Some(described) = spec.described() {
        let layer = Recurrent::with_parameters(described, Parameters::small(tensors))?;
        return Ok(Layer::Recurrent(layer));
    }
    match spec {
        LayerSpec::Linear(options) => {
            options.count()?;
            Ok(Layer::Linear(LinearLayer { options, parameters: Parameters::small(tensors) }))
        }
        other => unreachable!("{} has no matrices", other.name()),
    }
}

/// The matrix of a linear layer for the kernels.
pub(crate) fn packed_linear<T: Number>(
    level: Level,
    tensors: &[Tensor],
    options: &Linear,
) -> Result<Packed<T>, Error> {
    let bias = tensors.get(1).map(Tensor::vector);
    let all = 0..options.out_features;
    Ok(Packed::small(matrix(level, &tensors[0], all, bias, options.in_features)?))
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

/// The matrices of a recurrent layer for the kernels, by layer of the stack and direction.
pub(crate) fn packed_stack<T: Number>(
    level: Level,
    stack: &Spec,
    tensors: &[Tensor],
) -> Result<StackWeights<Cpu<T>>, Error> {
    let parameters = stack.parameters();
    let direction = |layer: usize, direction: usize| {
        let direction = stack.directions()[direction];
        let own = || {
            let own = |(p, _): &(&Parameter, _)| (p.layer, p.direction) == (layer, direction);
            parameters.iter().zip(tensors).filter(own)
        };
        let find = |role| own().find(|(p, _)| p.role == role).map(|(_, tensor)| tensor);
        let shape = stack.shape(layer);
        let counts = shape.cell.counts();
        let (all, early) = (shape.gate_columns(), counts.first_gates * shape.hidden);
        let weight = |role| find(role).expect("every layer has weights");
        // What is normalised gets its bias afterwards.
        let bias = |role| match shape.norms {
            None => find(role).map(Tensor::vector),
            Some(_) => None,
        };
        let hh = |rows: Range<usize>| {
            matrix(level, weight(Role::WeightHh), rows, bias(Role::BiasHh), shape.state)
        };
        let (ih, b_ih) = (weight(Role::WeightIh), bias(Role::BiasIh));
        let project = |hr| matrix(level, hr, 0..shape.state, None, shape.hidden);
        let matrices = SmallMatrices {
            input: matrix(level, ih, 0..all, b_ih, shape.input)?,
            first: hh(0..early)?,
            second: counts.two_products().then(|| hh(early..all)).transpose()?,
            projection: find(Role::WeightHr).map(project).transpose()?,
        };
        let vectors = own().filter(|(p, _)| p.shape.len() == 1);
        let others = vectors.flat_map(|(_, tensor)| tensor.vector().iter().copied());
        Ok(Weights::small(
            &shape,
            matrices,
            others.map(|number| T::from_f64(number.into())).collect(),
        ))
    };
    let directions = stack.directions().len();
    let layer = |l| (0..directions).map(|d| direction(l, d)).collect::<Result<_, Error>>();
    (0..stack.num_layers()).map(layer).collect()
}
