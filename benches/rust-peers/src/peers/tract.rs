//! tract: an ONNX model of one node, LSTM or GRU, for the sizes of the case.
//!
//! The model is put together from tract's own protocol buffer types, as if it had been read.
//! Its layout is 1, rows of the batch first, which is how tract computes.

use std::env;
use std::sync::Arc;

use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use tract_onnx::prelude::*;

use crate::case::{Case, Cell, Task};
use crate::contender::{Built, Contender, Failure, Results, widened};
use crate::problem::Problem;

struct Tract {
    task: Task,
    plan: Arc<TypedRunnableModel>,
    /// A step has no state between calls, so that one session is enough.
    session: TypedSimpleState,
    inputs: TVec<TValue>,
    outputs: TVec<TValue>,
}

pub(crate) fn build(problem: &Problem) -> Built {
    let Case { task, batch, time, size, .. } = problem.case;
    if task == Task::Train {
        return Ok(None);
    }
    // Threads are for tract's user to give; the others read this variable themselves.
    if let Some(threads) = env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok())
        && threads > 1
    {
        set_default_executor(Executor::multithread(threads));
    }
    let model = tract_onnx::onnx().model_for_proto_model(&model(problem))?;
    let plan = model.into_optimized()?.into_runnable()?;
    let tensor = |shape: &[usize], values: &[f32]| -> TractResult<TValue> {
        Ok(Tensor::from_shape(shape, values)?.into_tvalue())
    };
    let mut inputs = tvec!(tensor(&[batch, time, size], &problem.x)?);
    for (_, values) in states(problem) {
        inputs.push(tensor(&[batch, 1, size], values)?);
    }
    let session = plan.spawn()?;
    Ok(Some(Box::new(Tract { task, plan, session, inputs, outputs: tvec!() })))
}

/// The states that a case begins with, and their names in the model.
fn states(problem: &Problem) -> Vec<(&'static str, &[f32])> {
    match (problem.case.task, problem.case.cell) {
        (Task::Step, Cell::Lstm) => vec![("h0", &problem.h0), ("c0", &problem.c0)],
        (Task::Step, _) => vec![("h0", &problem.h0)],
        _ => Vec::new(),
    }
}

fn model(problem: &Problem) -> ModelProto {
    let Case { cell, batch, time, size, .. } = problem.case;
    // ONNX's gates are i o f c, and z r h.
    let order: &[usize] = if cell == Cell::Lstm { &[0, 3, 1, 2] } else { &[1, 0, 2] };
    let reordered = |values: &[f32]| {
        let gates = order.iter().map(|&gate| problem.gate(values, gate));
        gates.flatten().copied().collect::<Vec<_>>()
    };
    let w = &problem.weights;
    let rows = cell.gates() * size;
    let biases = [reordered(&w.bias_ih), reordered(&w.bias_hh)].concat();
    let initializer = vec![
        tensor("W", &[1, rows, size], reordered(&w.weight_ih)),
        tensor("R", &[1, rows, size], reordered(&w.weight_hh)),
        tensor("B", &[1, 2 * rows], biases),
    ];

    let mut input = vec![value("X", &[batch, time, size])];
    // Nothing for the lengths: all steps are live.
    let mut names = vec!["X", "W", "R", "B", ""];
    for (name, _) in states(problem) {
        input.push(value(name, &[batch, 1, size]));
        names.push(name);
    }
    let mut outputs = vec!["y", "h"];
    let mut output = vec![value("y", &[batch, time, 1, size]), value("h", &[batch, 1, size])];
    if cell == Cell::Lstm {
        outputs.push("c");
        output.push(value("c", &[batch, 1, size]));
    }
    let mut attribute = vec![integer("hidden_size", size as i64), integer("layout", 1)];
    if cell == Cell::Gru {
        attribute.push(integer("linear_before_reset", 1));
    }
    let strings = |names: Vec<&str>| names.into_iter().map(str::to_string).collect();
    let node = NodeProto {
        input: strings(names),
        output: strings(outputs),
        name: "layer".to_string(),
        op_type: if cell == Cell::Lstm { "LSTM" } else { "GRU" }.to_string(),
        attribute,
        ..NodeProto::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 14 }],
        graph: Some(GraphProto {
            node: vec![node],
            name: "layer".to_string(),
            initializer,
            input,
            output,
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

fn tensor(name: &str, shape: &[usize], float_data: Vec<f32>) -> TensorProto {
    TensorProto {
        name: name.to_string(),
        dims: shape.iter().map(|&n| n as i64).collect(),
        data_type: DataType::Float as i32,
        float_data,
        ..TensorProto::default()
    }
}

fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dim = |&n: &usize| Dimension {
        value: Some(dimension::Value::DimValue(n as i64)),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto { dim: shape.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: name.to_string(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: AttributeType::Int as i32,
        i,
        ..AttributeProto::default()
    }
}

impl Contender for Tract {
    fn run(&mut self) -> Result<(), Failure> {
        // A session goes on with the state that it has; a plan begins anew.
        self.outputs = match self.task {
            Task::Step => self.session.run(self.inputs.clone())?,
            Task::Infer | Task::Train => self.plan.run(self.inputs.clone())?,
        };
        Ok(())
    }

    fn results(&self) -> Result<Results, Failure> {
        let mut results = Vec::new();
        for (name, value) in ["y", "h", "c"].into_iter().zip(&self.outputs) {
            results.push((name, widened(value.try_as_plain_ram()?.as_slice::<f32>()?)));
        }
        Ok(results)
    }
}
