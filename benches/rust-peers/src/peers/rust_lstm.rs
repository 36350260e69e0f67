//! rust-lstm: f64 on ndarray, a column for each row of the batch.
//!
//! Its LSTM is that of PyTorch, with both biases. Its GRU applies the reset gate before the
//! product, and its update gate says how much is new, where others say how much stays: z is
//! 1 - z, which is the same function with the signs of that gate's parameters turned.
//! Inference keeps what training would need; there is no other way through it.

use ndarray::{Array2, ArrayView2};
use rust_lstm::models::gru_network::GRUNetwork;
use rust_lstm::models::lstm_network::{LSTMNetwork, LSTMState};
use rust_lstm::{GRUCellGradients, LSTMCellGradients};

use crate::case::{Case, Cell, Task};
use crate::contender::{Built, Contender, Failure, Results};
use crate::problem::{Problem, transposed};

/// One array (numbers, B) for each step.
type Columns = Vec<Array2<f64>>;

enum Net {
    Lstm(LSTMNetwork),
    Gru(GRUNetwork),
}

/// What a run leaves.
enum Kept {
    Nothing,
    Step { h: Array2<f64>, c: Option<Array2<f64>> },
    Outputs(Columns),
    LstmGradients { parameters: Vec<LSTMCellGradients>, d_x: Columns },
    GruGradients { parameters: Vec<GRUCellGradients>, d_x: Columns },
}

struct RustLstm {
    case: Case,
    net: Net,
    x: Columns,
    state: LSTMState,
    d_y: Columns,
    kept: Kept,
}

pub(crate) fn build(problem: &Problem) -> Built {
    let Case { task, cell, batch, size, .. } = problem.case;
    let net = match cell {
        Cell::Lstm => Net::Lstm(lstm(problem)?),
        Cell::Gru => return Ok(None),
        Cell::GruResetBefore => Net::Gru(gru(problem)?),
    };
    let state = |values: &[f32]| array(&transposed(values, size), batch);
    Ok(Some(Box::new(RustLstm {
        case: problem.case,
        net,
        x: columns(&problem.x, problem.case)?,
        state: match task {
            Task::Step => LSTMState { h: vec![state(&problem.h0)?], c: vec![state(&problem.c0)?] },
            Task::Infer | Task::Train => LSTMState { h: Vec::new(), c: Vec::new() },
        },
        d_y: match task {
            Task::Train => columns(&problem.d_y, problem.case)?,
            Task::Step | Task::Infer => Vec::new(),
        },
        kept: Kept::Nothing,
    })))
}

fn lstm(problem: &Problem) -> Result<LSTMNetwork, Failure> {
    let size = problem.case.size;
    let w = &problem.weights;
    let mut net = LSTMNetwork::new(size, size, 1);
    let cell = &mut net.get_cells_mut()[0];
    (cell.w_ih, cell.w_hh) = (array(&w.weight_ih, size)?, array(&w.weight_hh, size)?);
    (cell.b_ih, cell.b_hh) = (array(&w.bias_ih, 1)?, array(&w.bias_hh, 1)?);
    if problem.case.task != Task::Train {
        net.eval();
    }
    Ok(net)
}

fn gru(problem: &Problem) -> Result<GRUNetwork, Failure> {
    let size = problem.case.size;
    let w = &problem.weights;
    let part = |values, gate, columns| array(problem.gate(values, gate), columns);
    let mut net = GRUNetwork::new(size, size, 1);
    let cell = &mut net.get_cells_mut()[0];
    (cell.w_ir, cell.w_hr) = (part(&w.weight_ih, 0, size)?, part(&w.weight_hh, 0, size)?);
    (cell.b_ir, cell.b_hr) = (part(&w.bias_ih, 0, 1)?, part(&w.bias_hh, 0, 1)?);
    (cell.w_iz, cell.w_hz) = (-part(&w.weight_ih, 1, size)?, -part(&w.weight_hh, 1, size)?);
    (cell.b_iz, cell.b_hz) = (-part(&w.bias_ih, 1, 1)?, -part(&w.bias_hh, 1, 1)?);
    (cell.w_ih, cell.w_hh) = (part(&w.weight_ih, 2, size)?, part(&w.weight_hh, 2, size)?);
    (cell.b_ih, cell.b_hh) = (part(&w.bias_ih, 2, 1)?, part(&w.bias_hh, 2, 1)?);
    if problem.case.task != Task::Train {
        net.eval();
    }
    Ok(net)
}

fn array(values: &[f32], columns: usize) -> Result<Array2<f64>, Failure> {
    let shape = (values.len() / columns, columns);
    Ok(ArrayView2::from_shape(shape, values)?.mapv(f64::from))
}

/// From (B, T, H).
fn columns(values: &[f32], Case { batch, time, size, .. }: Case) -> Result<Columns, Failure> {
    let step = |t: usize| {
        let rows = (0..batch).flat_map(|b| &values[(b * time + t) * size..][..size]);
        array(&transposed(&rows.copied().collect::<Vec<_>>(), size), batch)
    };
    (0..time).map(step).collect()
}

/// To (B, T, H).
fn rows<'a>(steps: impl Iterator<Item = &'a Array2<f64>>) -> Vec<f64> {
    let steps: Vec<_> = steps.collect();
    let batch = steps.first().map_or(0, |step| step.ncols());
    let rows = (0..batch).flat_map(|b| steps.iter().map(move |step| step.column(b)));
    rows.flat_map(|row| row.into_iter().copied().collect::<Vec<_>>()).collect()
}

impl Contender for RustLstm {
    fn run(&mut self) -> Result<(), Failure> {
        self.kept = match (&mut self.net, self.case.task) {
            (Net::Lstm(net), Task::Step) => {
                let (h, state) = net.forward(&self.x[0], &self.state);
                Kept::Step { h, c: state.c.into_iter().next() }
            }
            (Net::Gru(net), Task::Step) => {
                let h = net.forward(&self.x[0], &self.state.h).pop();
                Kept::Step { h: h.ok_or("no state")?, c: None }
            }
            (Net::Lstm(net), Task::Infer) => Kept::Outputs(net.forward_sequence(&self.x)),
            (Net::Gru(net), Task::Infer) => {
                let (outputs, _) = net.forward_sequence_with_cache(&self.x);
                Kept::Outputs(outputs.into_iter().map(|(h, _)| h).collect())
            }
            (Net::Lstm(net), Task::Train) => {
                let (_, caches) = net.forward_sequence_with_cache(&self.x);
                let (parameters, d_x) = net.backward_sequence(&self.d_y, &caches);
                Kept::LstmGradients { parameters, d_x }
            }
            (Net::Gru(net), Task::Train) => {
                let (_, caches) = net.forward_sequence_with_cache(&self.x);
                let (parameters, d_x) = net.backward_sequence(&self.d_y, &caches);
                Kept::GruGradients { parameters, d_x }
            }
        };
        Ok(())
    }

    fn results(&self) -> Result<Results, Failure> {
        let flat = |array: &Array2<f64>| array.iter().copied().collect::<Vec<_>>();
        let joined = |parts: [&Array2<f64>; 3]| parts.into_iter().flat_map(flat).collect();
        Ok(match &self.kept {
            Kept::Nothing => Vec::new(),
            Kept::Step { h, c } => {
                let c = c.iter().map(|c| ("c", rows([c].into_iter())));
                [("h", rows([h].into_iter()))].into_iter().chain(c).collect()
            }
            Kept::Outputs(outputs) => vec![("y", rows(outputs.iter()))],
            Kept::LstmGradients { parameters, d_x } => vec![
                ("d_x", rows(d_x.iter())),
                ("d_weight_ih", flat(&parameters[0].w_ih)),
                ("d_weight_hh", flat(&parameters[0].w_hh)),
                ("d_bias_ih", flat(&parameters[0].b_ih)),
                ("d_bias_hh", flat(&parameters[0].b_hh)),
            ],
            Kept::GruGradients { parameters, d_x } => {
                let d = &parameters[0];
                vec![
                    ("d_x", rows(d_x.iter())),
                    ("d_weight_ih", joined([&d.w_ir, &-&d.w_iz, &d.w_ih])),
                    ("d_weight_hh", joined([&d.w_hr, &-&d.w_hz, &d.w_hh])),
                    ("d_bias_ih", joined([&d.b_ir, &-&d.b_iz, &d.b_ih])),
                    ("d_bias_hh", joined([&d.b_hr, &-&d.b_hz, &d.b_hh])),
                ]
            }
        })
    }
}
