//! burn on its flex backend: `burn::nn::Lstm` and `Gru`, with a linear layer for each gate
//! and operand. They have no step of their own: a step is a sequence of one.

use burn::module::Param;
use burn::nn::{GateController, Gru, GruConfig, Linear, Lstm, LstmConfig, LstmState};
use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::case::{Case, Cell, Task};
use crate::contender::{Contender, Failure, Results, widened};
use crate::problem::{Problem, transposed};

enum Net {
    Lstm(Lstm),
    Gru(Gru),
}

struct Burn {
    task: Task,
    net: Net,
    x: Tensor<3>,
    h0: Tensor<2>,
    c0: Tensor<2>,
    d_y: Option<Tensor<3>>,
    y: Option<Tensor<3>>,
    state: Option<LstmState<2>>,
    gradients: Option<Gradients>,
}

pub(crate) fn build(problem: &Problem) -> Result<Option<Box<dyn Contender>>, Failure> {
    let Case { task, cell, batch, time, size } = problem.case;
    let device = match task {
        Task::Train => Device::flex().autodiff(),
        Task::Step | Task::Infer => Device::flex(),
    };
    let linear = |weight: &[f32], bias: &[f32], gate: usize| Linear {
        // (I, H)
        weight: {
            let weight = transposed(problem.gate(weight, gate), size);
            Param::from_data(TensorData::new(weight, [size, size]), &device)
        },
        bias: {
            let bias = problem.gate(bias, gate).to_vec();
            Some(Param::from_data(TensorData::new(bias, [size]), &device))
        },
    };
    let w = &problem.weights;
    let gate = |gate: usize| GateController {
        input_transform: linear(&w.weight_ih, &w.bias_ih, gate),
        hidden_transform: linear(&w.weight_hh, &w.bias_hh, gate),
    };
    let net = match cell {
        Cell::Lstm => {
            let mut net = LstmConfig::new(size, size, true).init(&device);
            (net.input_gate, net.forget_gate) = (gate(0), Some(gate(1)));
            (net.cell_gate, net.output_gate) = (gate(2), gate(3));
            Net::Lstm(net)
        }
        Cell::Gru | Cell::GruResetBefore => {
            let after = cell == Cell::Gru;
            let mut net = GruConfig::new(size, size, true).with_reset_after(after).init(&device);
            (net.reset_gate, net.update_gate, net.new_gate) = (gate(0), gate(1), gate(2));
            Net::Gru(net)
        }
    };
    let sequence = |values: &[f32]| {
        Tensor::<3>::from_data(TensorData::new(values.to_vec(), [batch, time, size]), &device)
    };
    let state = |values: &[f32]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), [batch, size]), &device)
    };
    let x = sequence(&problem.x);
    Ok(Some(Box::new(Burn {
        task,
        net,
        x: if task == Task::Train { x.require_grad() } else { x },
        h0: state(&problem.h0),
        c0: state(&problem.c0),
        d_y: (task == Task::Train).then(|| sequence(&problem.d_y)),
        y: None,
        state: None,
        gradients: None,
    })))
}

impl Burn {
    fn forward(&self) -> (Tensor<3>, Option<LstmState<2>>) {
        let step = self.task == Task::Step;
        match &self.net {
            Net::Lstm(net) => {
                let before = step.then(|| LstmState::new(self.c0.clone(), self.h0.clone()));
                let (y, state) = net.forward(self.x.clone(), before);
                (y, Some(state))
            }
            Net::Gru(net) => (net.forward(self.x.clone(), step.then(|| self.h0.clone())), None),
        }
    }

    /// Layers of each gate, in the order of PyTorch's parameters.
    fn gates(&self) -> Vec<&GateController> {
        match &self.net {
            Net::Lstm(net) => [Some(&net.input_gate), net.forget_gate.as_ref()]
                .into_iter()
                .flatten()
                .chain([&net.cell_gate, &net.output_gate])
                .collect(),
            Net::Gru(net) => vec![&net.reset_gate, &net.update_gate, &net.new_gate],
        }
    }
}

fn numbers<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f64>, Failure> {
    let data = tensor.to_data();
    let numbers = data.try_to_vec::<f32>().map_err(|error| format!("{error:?}"))?;
    Ok(widened(&numbers))
}

impl Contender for Burn {
    fn run(&mut self) -> Result<(), Failure> {
        let (y, state) = self.forward();
        match &self.d_y {
            Some(d_y) => self.gradients = Some((y * d_y.clone()).sum().backward()),
            None => (self.y, self.state) = (Some(y), state),
        }
        Ok(())
    }

    fn results(&self) -> Result<Results, Failure> {
        let mut results = Vec::new();
        if let Some(y) = &self.y {
            results.push(("y", numbers(y)?));
        }
        if let Some(state) = &self.state {
            results.push(("h", numbers(&state.hidden)?));
            results.push(("c", numbers(&state.cell)?));
        }
        let Some(gradients) = &self.gradients else { return Ok(results) };
        results.push(("d_x", numbers(&self.x.grad(gradients).ok_or("d_x: none")?)?));
        let inputs = |gate: &GateController| gate.input_transform.clone();
        let hidden = |gate: &GateController| gate.hidden_transform.clone();
        let layers: [(_, _, &dyn Fn(&GateController) -> Linear); 2] =
            [("d_weight_ih", "d_bias_ih", &inputs), ("d_weight_hh", "d_bias_hh", &hidden)];
        for (weight_name, bias_name, of) in layers {
            let (mut weights, mut biases) = (Vec::new(), Vec::new());
            for gate in self.gates() {
                let Linear { weight, bias } = of(gate);
                let d_weight = weight.val().grad(gradients).ok_or("a weight has no gradient")?;
                let [_, columns] = d_weight.dims();
                weights.extend(transposed(&numbers(&d_weight)?, columns));
                let d_bias = bias.and_then(|bias| bias.val().grad(gradients));
                biases.extend(numbers(&d_bias.ok_or("a bias has no gradient")?)?);
            }
            results.extend([(weight_name, weights), (bias_name, biases)]);
        }
        Ok(results)
    }
}
