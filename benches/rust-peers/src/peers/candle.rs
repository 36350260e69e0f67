//! candle: `candle_nn::LSTM` and `GRU`, whose parameters are PyTorch's.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::rnn::{GRUState, LSTMState};
use candle_nn::{GRU, GRUConfig, LSTM, LSTMConfig, RNN, VarBuilder};

use crate::case::{Case, Cell, Task};
use crate::contender::{Built, Contender, Failure, Results, widened};
use crate::problem::Problem;

const NAMES: [(&str, &str); 4] = [
    ("weight_ih_l0", "d_weight_ih"),
    ("weight_hh_l0", "d_weight_hh"),
    ("bias_ih_l0", "d_bias_ih"),
    ("bias_hh_l0", "d_bias_hh"),
];

enum Net {
    Lstm(LSTM),
    Gru(GRU),
}

struct Candle {
    task: Task,
    net: Net,
    /// The parameters that get gradients, by the names of the results.
    parameters: Vec<(&'static str, Tensor)>,
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    d_y: Option<Tensor>,
    y: Option<Tensor>,
    /// The last hidden state, and the cell of an LSTM.
    states: Vec<(&'static str, Tensor)>,
    gradients: Option<GradStore>,
}

pub(crate) fn build(problem: &Problem) -> Built {
    if problem.case.cell == Cell::GruResetBefore {
        return Ok(None);
    }
    Ok(Some(Box::new(Candle::new(problem)?)))
}

impl Candle {
    fn new(problem: &Problem) -> Result<Self> {
        let Case { task, cell, batch, time, size, .. } = problem.case;
        let rows = cell.gates() * size;
        let w = &problem.weights;
        // Only what is a variable gets a gradient, and costs one.
        let tensor = |values: &[f32], shape: &[usize]| match task {
            Task::Train => Ok(Var::from_slice(values, shape, &Device::Cpu)?.into_inner()),
            Task::Step | Task::Infer => Tensor::from_slice(values, shape, &Device::Cpu),
        };
        let parameters = [
            tensor(&w.weight_ih, &[rows, size])?,
            tensor(&w.weight_hh, &[rows, size])?,
            tensor(&w.bias_ih, &[rows])?,
            tensor(&w.bias_hh, &[rows])?,
        ];
        let named = NAMES.iter().zip(&parameters);
        let by_name: HashMap<_, _> =
            named.map(|((name, _), tensor)| (name.to_string(), tensor.clone())).collect();
        let builder = VarBuilder::from_tensors(by_name, DType::F32, &Device::Cpu);
        let net = match cell {
            Cell::Lstm => Net::Lstm(LSTM::new(size, size, LSTMConfig::default(), builder)?),
            _ => Net::Gru(GRU::new(size, size, GRUConfig::default(), builder)?),
        };
        // A step takes a row, a sequence rows of steps.
        let shape: &[usize] = match task {
            Task::Step => &[batch, size],
            Task::Infer | Task::Train => &[batch, time, size],
        };
        let given = |values: &[f32]| Tensor::from_slice(values, (batch, size), &Device::Cpu);
        Ok(Self {
            task,
            net,
            parameters: NAMES.iter().map(|(_, name)| *name).zip(parameters).collect(),
            x: tensor(&problem.x, shape)?,
            h0: given(&problem.h0)?,
            c0: given(&problem.c0)?,
            d_y: match task {
                Task::Train => Some(Tensor::from_slice(&problem.d_y, shape, &Device::Cpu)?),
                Task::Step | Task::Infer => None,
            },
            y: None,
            states: Vec::new(),
            gradients: None,
        })
    }

    fn step(&mut self) -> Result<()> {
        self.states = match &self.net {
            Net::Lstm(net) => {
                let before = LSTMState::new(self.h0.clone(), self.c0.clone());
                let LSTMState { h, c } = net.step(&self.x, &before)?;
                vec![("h", h), ("c", c)]
            }
            Net::Gru(net) => {
                let GRUState { h } = net.step(&self.x, &GRUState { h: self.h0.clone() })?;
                vec![("h", h)]
            }
        };
        Ok(())
    }

    /// The output of a sequence, and the last states.
    fn sequence(&self) -> Result<(Tensor, Vec<(&'static str, Tensor)>)> {
        Ok(match &self.net {
            Net::Lstm(net) => {
                let mut states = net.seq(&self.x)?;
                let y = net.states_to_tensor(&states)?;
                let last = states.pop().map(|LSTMState { h, c }| vec![("h", h), ("c", c)]);
                (y, last.unwrap_or_default())
            }
            Net::Gru(net) => {
                let mut states = net.seq(&self.x)?;
                // (B, T H), which lies in memory as (B, T, H).
                let y = net.states_to_tensor(&states)?.reshape(self.x.shape())?;
                let last = states.pop().map(|GRUState { h }| vec![("h", h)]);
                (y, last.unwrap_or_default())
            }
        })
    }
}

impl Contender for Candle {
    fn run(&mut self) -> std::result::Result<(), Failure> {
        match (self.task, &self.d_y) {
            (Task::Step, _) => self.step()?,
            (Task::Train, Some(d_y)) => {
                let (y, _) = self.sequence()?;
                self.gradients = Some((y * d_y)?.sum_all()?.backward()?);
            }
            _ => {
                let (y, states) = self.sequence()?;
                (self.y, self.states) = (Some(y), states);
            }
        }
        Ok(())
    }

    fn results(&self) -> std::result::Result<Results, Failure> {
        let wide =
            |tensor: &Tensor| Ok(widened(&tensor.flatten_all()?.to_vec1::<f32>()?)) as Result<_>;
        let mut results = Vec::new();
        for (name, tensor) in self.y.iter().map(|y| ("y", y)) {
            results.push((name, wide(tensor)?));
        }
        for (name, tensor) in &self.states {
            results.push((*name, wide(tensor)?));
        }
        if let Some(gradients) = &self.gradients {
            let wanted = self.parameters.iter().map(|(name, tensor)| (*name, tensor));
            for (name, tensor) in wanted.chain([("d_x", &self.x)]) {
                let gradient = gradients.get(tensor).ok_or_else(|| format!("{name}: none"))?;
                results.push((name, wide(gradient)?));
            }
        }
        Ok(results)
    }
}
