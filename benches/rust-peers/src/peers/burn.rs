//! burn on its flex backend, and on wgpu: `burn::nn::Lstm` and `Gru`, with a linear layer for
//! each gate and operand. They have no step of their own: a step is a sequence of one.

#[cfg(feature = "gpu")]
use std::sync::OnceLock;

use burn::module::Param;
use burn::nn::{GateController, Gru, GruConfig, Linear, Lstm, LstmConfig, LstmState};
use burn::tensor::{Device, Gradients, Tensor, TensorData, Transaction};

use crate::case::{Case, Cell, Task};
use crate::contender::{Built, Contender, Failure, Results, widened};
use crate::problem::{Problem, transposed};

enum Net {
    Lstm(Box<Lstm>),
    Gru(Box<Gru>),
}

struct Burn {
    task: Task,
    size: usize,
    device: Device,
    net: Net,
    /// What each call takes to the device, if that is part of it: x, and the gradient of the
    /// output. Results then come back in the call.
    host: Option<(TensorData, Option<TensorData>)>,
    x: Tensor<3>,
    h0: Tensor<2>,
    c0: Tensor<2>,
    d_y: Option<Tensor<3>>,
    y: Option<Tensor<3>>,
    state: Option<LstmState<2>>,
    gradients: Option<Gradients>,
}

pub(crate) fn on_processor(problem: &Problem) -> Built {
    build(problem, Device::flex(), false)
}

/// Input and results stay on the device.
#[cfg(feature = "gpu")]
pub(crate) fn on_gpu(problem: &Problem) -> Built {
    build(problem, gpu()?, false)
}

/// From numbers of the host to numbers of the host.
#[cfg(feature = "gpu")]
pub(crate) fn from_host(problem: &Problem) -> Built {
    build(problem, gpu()?, true)
}

/// The GPU that seqrs uses too.
#[cfg(feature = "gpu")]
fn gpu() -> Result<Device, Failure> {
    static OPENED: OnceLock<Result<(Device, String), String>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| match Device::wgpu_options().init_with_setup() {
        Ok((device, setup)) => Ok((device, setup.adapter.get_info().name)),
        Err(error) => Err(error.to_string()),
    });
    let (device, name) = opened.as_ref().map_err(String::as_str)?;
    let wanted = super::adapter()?.name;
    if *name != wanted {
        // burn reads CUBECL_WGPU_DEFAULT_DEVICE.
        return Err(format!("expected the GPU of seqrs, {wanted}, got {name}").into());
    }
    Ok(device.clone())
}

fn build(problem: &Problem, device: Device, from_host: bool) -> Built {
    let Case { task, cell, batch, time, size, .. } = problem.case;
    let device = match task {
        Task::Train => device.autodiff(),
        Task::Step | Task::Infer => device,
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
            Net::Lstm(Box::new(net))
        }
        Cell::Gru | Cell::GruResetBefore => {
            let after = cell == Cell::Gru;
            let mut net = GruConfig::new(size, size, true).with_reset_after(after).init(&device);
            (net.reset_gate, net.update_gate, net.new_gate) = (gate(0), gate(1), gate(2));
            Net::Gru(Box::new(net))
        }
    };
    let state = |values: &[f32]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), [batch, size]), &device)
    };
    let sequence = |values: &[f32]| TensorData::new(values.to_vec(), [batch, time, size]);
    let mut burn = Burn {
        task,
        size,
        net,
        host: None,
        x: Tensor::empty([batch, time, size], &device),
        h0: state(&problem.h0),
        c0: state(&problem.c0),
        d_y: None,
        y: None,
        state: None,
        gradients: None,
        device,
    };
    let x = sequence(&problem.x);
    let d_y = (task == Task::Train).then(|| sequence(&problem.d_y));
    burn.take(x.clone(), d_y.clone());
    burn.host = from_host.then_some((x, d_y));
    Ok(Some(Box::new(burn)))
}

/// A result, or the part of it that is of one gate.
type Part<T> = (&'static str, T);

impl Burn {
    /// Takes the input to the device, and the gradient of the output.
    fn take(&mut self, x: TensorData, d_y: Option<TensorData>) {
        let x = Tensor::from_data(x, &self.device);
        self.x = if d_y.is_some() { x.require_grad() } else { x };
        self.d_y = d_y.map(|d_y| Tensor::from_data(d_y, &self.device));
    }

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

    /// Output and states, and gradients of weights and biases gate by gate.
    fn parts(&self) -> Result<Vec<Part<Tensor<1>>>, Failure> {
        let mut parts = Vec::new();
        if let Some(y) = &self.y {
            parts.push(("y", flat(y.clone())));
        }
        if let Some(state) = &self.state {
            parts.push(("h", flat(state.hidden.clone())));
            parts.push(("c", flat(state.cell.clone())));
        }
        let Some(gradients) = &self.gradients else { return Ok(parts) };
        parts.push(("d_x", flat(self.x.grad(gradients).ok_or("d_x: none")?)));
        let gates = self.gates();
        let inputs: Vec<_> = gates.iter().map(|gate| &gate.input_transform).collect();
        let hidden: Vec<_> = gates.iter().map(|gate| &gate.hidden_transform).collect();
        for (weight_name, bias_name, layers) in
            [("d_weight_ih", "d_bias_ih", inputs), ("d_weight_hh", "d_bias_hh", hidden)]
        {
            for Linear { weight, .. } in &layers {
                let d_weight = weight.val().grad(gradients).ok_or("a weight has no gradient")?;
                parts.push((weight_name, flat(d_weight)));
            }
            for Linear { bias, .. } in layers {
                let d_bias = bias.as_ref().and_then(|bias| bias.val().grad(gradients));
                parts.push((bias_name, flat(d_bias.ok_or("a bias has no gradient")?)));
            }
        }
        Ok(parts)
    }

    /// Brings everything back at once.
    fn read(&self) -> Result<Vec<Part<Vec<f32>>>, Failure> {
        let (names, tensors): (Vec<_>, Vec<_>) = self.parts()?.into_iter().unzip();
        let all = tensors.into_iter().fold(Transaction::default(), Transaction::register);
        let found = all.try_execute().map_err(|error| format!("{error:?}"))?;
        let numbers = found.into_iter().map(|data| data.try_into_vec::<f32>());
        let numbers =
            numbers.collect::<Result<Vec<_>, _>>().map_err(|error| format!("{error:?}"))?;
        Ok(names.into_iter().zip(numbers).collect())
    }
}

/// Its numbers in a row, without what belongs to gradients.
fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    tensor.inner().flatten(0, D - 1)
}

impl Contender for Burn {
    fn run(&mut self) -> Result<(), Failure> {
        if let Some((x, d_y)) = self.host.clone() {
            self.take(x, d_y);
        }
        let (y, state) = self.forward();
        match &self.d_y {
            None => (self.y, self.state) = (Some(y), state),
            Some(d_y) => {
                // From host to host the output comes back too.
                self.y = self.host.is_some().then(|| y.clone().inner());
                self.gradients = Some((y * d_y.clone()).sum().backward());
            }
        }
        if self.host.is_some() {
            self.read()?;
        } else {
            self.device.sync().map_err(|error| format!("{error:?}"))?;
        }
        Ok(())
    }

    fn results(&self) -> Result<Results, Failure> {
        let mut results = Results::new();
        for (name, numbers) in self.read()? {
            let numbers = match name {
                // (I, H)
                "d_weight_ih" | "d_weight_hh" => transposed(&numbers, self.size),
                // In training gradients are compared.
                "y" if self.gradients.is_some() => continue,
                _ => numbers,
            };
            match results.last_mut() {
                Some((last, all)) if *last == name => all.extend(widened(&numbers)),
                _ => results.push((name, widened(&numbers))),
            }
        }
        Ok(results)
    }
}
