use seqrs_cpu::level::Level;

use super::*;
use crate::layer::LayerSpec;
use crate::layers::activation::Activation;
use crate::layers::dropout::Dropout;
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::layers::recurrent::{Gru, Lstm, Rnn};
use crate::random::Stream;
use seqrs_core::cell::FunctionName;

const TIME: usize = 5;
const BATCH: usize = 4;

fn cpu() -> Cpu<f64> {
    Cpu::with(Level::detect(), 2)
}

fn model(specs: impl IntoIterator<Item = LayerSpec>) -> Sequential<f64> {
    let layers = specs.into_iter().map(|spec| Layer::new(spec).unwrap()).collect();
    let mut model = Sequential::new(layers).unwrap().reseeded(11).unwrap();
    // Away from the special values that parameters start from.
    let mut stream = Stream::new(3, 0);
    for layer in &mut model.layers {
        for number in layer.numbers_mut() {
            *number += 0.3 * stream.normal();
        }
    }
    model
}

fn normal(number: u64, len: usize) -> Vec<f64> {
    let mut stream = Stream::new(99, number);
    (0..len).map(|_| stream.normal()).collect()
}

fn dense() -> Steps {
    Steps::dense(TIME, BATCH).unwrap()
}

/// With a row of length 0 and one that is full.
fn by_lengths() -> Steps {
    Steps::from_lengths(TIME, &[3, 0, TIME, 1]).unwrap()
}

/// With holes, left padding and a row that is never live.
fn by_mask() -> Steps {
    Steps::from_mask(TIME, BATCH, |t, b| b != 3 && (t + b) % 3 != 0 && t >= b).unwrap()
}

fn all_steps() -> [Steps; 3] {
    [dense(), by_lengths(), by_mask()]
}

/// An input as a caller has it: batch first, its padding NaN or no id at all.
#[derive(Clone)]
enum Data {
    Numbers(Vec<f64>, usize),
    Ids(Vec<i64>),
}

impl Data {
    fn numbers(steps: &Steps, width: usize) -> Self {
        let mut x = normal(1, TIME * BATCH * width);
        for t in 0..TIME {
            for b in 0..BATCH {
                if !steps.is_live(t, b) {
                    x[(b * TIME + t) * width..][..width].fill(f64::NAN);
                }
            }
        }
        Self::Numbers(x, width)
    }

    fn ids(steps: &Steps, count: usize) -> Self {
        let id = |b: usize, t: usize| match steps.is_live(t, b) {
            true => ((t * 3 + b * 2) % count) as i64,
            false => -1,
        };
        Self::Ids((0..BATCH * TIME).map(|at| id(at / TIME, at % TIME)).collect())
    }

    fn of(model: &Sequential<f64>, steps: &Steps) -> Self {
        match &model.layers[0] {
            Layer::Embedding(layer) => Self::ids(steps, layer.options().num_embeddings),
            _ => Self::numbers(steps, model.input_width().unwrap_or(4)),
        }
    }

    fn input(&self) -> Input<'_, f64> {
        match self {
            Self::Numbers(data, width) => {
                Input::Numbers(Rows { data, place: Place::batch_first(TIME, *width) }, *width)
            }
            Self::Ids(data) => Input::Ids(Rows { data, place: Place::batch_first(TIME, 1) }),
        }
    }
}

/// All numbers of the states, to be changed.
fn numbers_of(state: &mut ModelState<f64>) -> impl Iterator<Item = &mut f64> {
    state.iter_mut().flat_map(|s| s.h.iter_mut().chain(s.c.iter_mut().flatten()))
}

fn random_state(model: &Sequential<f64>, number: u64) -> ModelState<f64> {
    let mut state = model.zero_state(BATCH).unwrap();
    let mut stream = Stream::new(5, number);
    numbers_of(&mut state).for_each(|x| *x = stream.normal());
    state
}

/// A model with an input, and a loss: the sum of outputs and final states times numbers.
struct Case {
    model: Sequential<f64>,
    x: Data,
    steps: Steps,
    state: ModelState<f64>,
    dropout: Option<u64>,
}

impl Case {
    fn loss(&self, d_y: &[f64], d_state: &mut ModelState<f64>) -> f64 {
        let mut state = self.state.clone();
        let steps = self.steps.clone();
        let tape =
            self.model.record_on(&cpu(), self.x.input(), steps, &mut state, self.dropout).unwrap();
        let y = tape.output().numbers.iter().zip(d_y).map(|(y, d)| y * d).sum::<f64>();
        y + numbers_of(&mut state).zip(numbers_of(d_state)).map(|(s, d)| *s * *d).sum::<f64>()
    }

    /// Compares every gradient with central differences.
    fn check(mut self) {
        let mut state = self.state.clone();
        let steps = self.steps.clone();
        let tape =
            self.model.record_on(&cpu(), self.x.input(), steps, &mut state, self.dropout).unwrap();
        let d_y = normal(2, tape.output().numbers.len());
        let mut d_final = random_state(&self.model, 2);
        let mut d_state = d_final.clone();
        let gradients =
            self.model.backward_on(&cpu(), &tape, Some(&d_y), &mut d_state, true).unwrap();

        let mut names = self.model.parameters().into_iter();
        for layer in 0..self.model.layers.len() {
            let mut differences = gradients.layers[layer].clone();
            for (k, difference) in differences.iter_mut().enumerate() {
                let before = self.model.layers[layer].numbers()[k];
                let mut at = |x: f64| {
                    self.model.layers[layer].numbers_mut()[k] = x;
                    self.loss(&d_y, &mut d_final)
                };
                *difference = slope(|step| at(before + step));
                self.model.layers[layer].numbers_mut()[k] = before;
            }
            if let Layer::Embedding(layer) = &self.model.layers[layer]
                && let Some(id) = layer.options().padding_idx
            {
                let width = layer.options().embedding_dim;
                differences[id * width..][..width].fill(0.0);
            }
            for parameter in self.model.layers[layer].parameters() {
                let name = names.next().unwrap().name;
                let range = parameter.range;
                close(&gradients.layers[layer][range.clone()], &differences[range], &name);
            }
        }
        if let Data::Numbers(x, width) = self.x.clone() {
            let mut differences = Vec::new();
            let mut places = Vec::new();
            self.steps.for_each(|_, t, b| places.push((b * TIME + t) * width));
            for place in places.into_iter().flat_map(|place| place..place + width) {
                let mut at = |step: f64| {
                    let mut x = x.clone();
                    x[place] += step;
                    self.x = Data::Numbers(x, width);
                    self.loss(&d_y, &mut d_final)
                };
                differences.push(slope(&mut at));
            }
            self.x = Data::Numbers(x, width);
            close(&gradients.x.unwrap(), &differences, "x");
        } else {
            assert_eq!(gradients.x, None);
        }
        let mut differences = Vec::new();
        for k in 0..numbers_of(&mut self.state).count() {
            let before = *numbers_of(&mut self.state).nth(k).unwrap();
            let mut at = |x: f64| {
                *numbers_of(&mut self.state).nth(k).unwrap() = x;
                self.loss(&d_y, &mut d_final)
            };
            differences.push(slope(|step| at(before + step)));
            *numbers_of(&mut self.state).nth(k).unwrap() = before;
        }
        let d_state: Vec<f64> = numbers_of(&mut d_state).map(|d| *d).collect();
        close(&d_state, &differences, "state");
    }
}

const STEP: f64 = 1e-5;

/// The derivative at 0 by differences over one and two steps, of which the terms of the third order
/// cancel: norms of few units bend more than other functions.
fn slope(mut at: impl FnMut(f64) -> f64) -> f64 {
    let [one, two] = [STEP, 2.0 * STEP].map(|step| at(step) - at(-step));
    (8.0 * one - two) / (12.0 * STEP)
}

/// No number is off by more than 1e-7 of the largest.
fn close(got: &[f64], expected: &[f64], name: &str) {
    assert_eq!(got.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (k, (got, expected)) in got.iter().zip(expected).enumerate() {
        let near = (got - expected).abs() <= 1e-7 * largest;
        assert!(near, "{name}[{k}]: expected {expected}, got {got}");
    }
}

fn check_gradients(specs: &[LayerSpec], dropout: Option<u64>) {
    for steps in all_steps() {
        let model = model(specs.iter().cloned());
        let x = Data::of(&model, &steps);
        let state = random_state(&model, 1);
        Case { model, x, steps, state, dropout }.check();
    }
}

fn activation(function: Activation) -> LayerSpec {
    LayerSpec::Activation { function }
}

#[test]
fn gradients_of_linear_layers_are_those_of_differences() {
    check_gradients(&[LayerSpec::Linear(Linear::new(3, 5))], None);
    check_gradients(&[LayerSpec::Linear(Linear::new(4, 2).bias(false))], None);
}

#[test]
fn gradients_of_embeddings_are_those_of_differences() {
    check_gradients(&[LayerSpec::Embedding(Embedding::new(5, 3))], None);
    check_gradients(&[LayerSpec::Embedding(Embedding::new(5, 3).padding_idx(2))], None);
}

#[test]
fn gradients_of_layer_norms_are_those_of_differences() {
    check_gradients(&[LayerSpec::LayerNorm(LayerNorm::new(4))], None);
    check_gradients(&[LayerSpec::LayerNorm(LayerNorm::new(19).eps(0.1))], None);
}

#[test]
fn gradients_of_activations_are_those_of_differences() {
    for function in [Activation::Tanh, Activation::Relu, Activation::Sigmoid, Activation::Softmax] {
        check_gradients(&[activation(function)], None);
    }
}

#[test]
fn gradients_of_pooling_layers_are_those_of_differences() {
    for pooling in [LayerSpec::Last {}, LayerSpec::MeanPool {}, LayerSpec::MaxPool {}] {
        check_gradients(&[pooling], None);
    }
}

#[test]
fn gradients_of_dropout_are_those_of_differences() {
    let dropout = LayerSpec::Dropout(Dropout::new(0.4));
    check_gradients(std::slice::from_ref(&dropout), Some(8));
    check_gradients(&[dropout.clone(), LayerSpec::Last {}, dropout.clone()], Some(8));
    check_gradients(&[LayerSpec::Linear(Linear::new(3, 4)), dropout], None);
}

#[test]
fn gradients_of_recurrent_layers_are_those_of_differences() {
    check_gradients(&[LayerSpec::Rnn(Rnn::new(2, 3).layers(2).dropout(0.3))], Some(1));
    let relu = Rnn::new(2, 3).nonlinearity(FunctionName::Relu).bidirectional(true);
    check_gradients(&[LayerSpec::Rnn(relu)], None);
    let lstm = Lstm::new(2, 4).layers(2).bidirectional(true).proj_size(2).dropout(0.5);
    check_gradients(&[LayerSpec::Lstm(lstm.clone())], Some(2));
    check_gradients(&[LayerSpec::Lstm(lstm.peepholes(true))], Some(2));
    check_gradients(&[LayerSpec::Lstm(Lstm::new(3, 2).peepholes(true).bias(false))], None);
    check_gradients(&[LayerSpec::Gru(Gru::new(3, 2).bidirectional(true))], None);
    check_gradients(&[LayerSpec::Gru(Gru::new(3, 2).reset_after(true).bias(false))], None);
}

#[test]
fn gradients_of_variants_are_those_of_differences() {
    use FunctionName::{Elu, HardSigmoid, ScaledTanh, Softplus, Softsign};
    let lstm = Lstm::new(3, 2).coupled(true);
    check_gradients(&[LayerSpec::Lstm(lstm.clone().bidirectional(true))], None);
    check_gradients(&[LayerSpec::Lstm(lstm.clone().peepholes(true))], None);
    let chosen = lstm.peepholes(true).gate_activation(Softsign).candidate_activation(Elu);
    check_gradients(&[LayerSpec::Lstm(chosen.output_activation(Softplus).clip(0.75))], None);
    let lstm = Lstm::new(3, 2).gate_activation(HardSigmoid).proj_size(1);
    check_gradients(&[LayerSpec::Lstm(lstm)], None);
    let scaled = seqrs_core::cell::Function { name: ScaledTanh, alpha: 1.5, beta: 0.5 };
    for reset_after in [false, true] {
        let gru = Gru::new(3, 2).reset_after(reset_after).candidate_activation(scaled).clip(0.8);
        check_gradients(&[LayerSpec::Gru(gru.gate_activation(Softsign))], None);
    }
    check_gradients(&[LayerSpec::Rnn(Rnn::new(3, 2).nonlinearity(Softplus).layers(2))], None);
}

#[test]
fn gradients_through_masks_of_states_are_those_of_differences() {
    let lstm = Lstm::new(3, 2).layers(2).bidirectional(true);
    let lstm = lstm.recurrent_dropout(0.4).zoneout(0.3).zoneout_cell(0.2);
    let projected = Lstm::new(3, 4).proj_size(2).peepholes(true);
    let projected = projected.zoneout(0.3).zoneout_cell(0.4).recurrent_dropout(0.3);
    let gru = Gru::new(3, 2).recurrent_dropout(0.3).zoneout(0.4);
    let rnn = Rnn::new(3, 2).recurrent_dropout(0.4).zoneout(0.3);
    for drawn in [None, Some(3)] {
        check_gradients(&[LayerSpec::Lstm(lstm.clone())], drawn);
        check_gradients(&[LayerSpec::Lstm(projected.clone())], drawn);
        check_gradients(&[LayerSpec::Gru(gru.clone())], drawn);
        check_gradients(&[LayerSpec::Gru(gru.clone().reset_after(true))], drawn);
        check_gradients(&[LayerSpec::Rnn(rnn.clone())], drawn);
    }
}

#[test]
fn gradients_of_normalised_cells_are_those_of_differences() {
    let lstm = Lstm::new(3, 3).layer_norm(true);
    check_gradients(&[LayerSpec::Lstm(lstm.clone().layers(2).bidirectional(true))], None);
    check_gradients(&[LayerSpec::Lstm(lstm.clone().bias(false).coupled(true))], None);
    let masked = lstm.proj_size(2).zoneout(0.3).zoneout_cell(0.2).recurrent_dropout(0.3);
    check_gradients(&[LayerSpec::Lstm(masked)], Some(4));
    let gru = Gru::new(3, 3).reset_after(true).layer_norm(true);
    check_gradients(&[LayerSpec::Gru(gru.clone().bidirectional(true))], None);
    check_gradients(&[LayerSpec::Gru(gru.zoneout(0.3).clip(0.7).bias(false))], Some(4));
}

#[test]
fn gradients_of_whole_models_are_those_of_differences() {
    let classifier = [
        LayerSpec::Embedding(Embedding::new(6, 3).padding_idx(0)),
        LayerSpec::Dropout(Dropout::new(0.2)),
        LayerSpec::Lstm(Lstm::new(3, 2).layers(2).bidirectional(true).dropout(0.3)),
        LayerSpec::LayerNorm(LayerNorm::new(4)),
        LayerSpec::Last {},
        LayerSpec::Dropout(Dropout::new(0.3)),
        LayerSpec::Linear(Linear::new(4, 3)),
        activation(Activation::Softmax),
    ];
    check_gradients(&classifier, Some(4));
    let tagger = [
        LayerSpec::Linear(Linear::new(2, 3)),
        activation(Activation::Tanh),
        LayerSpec::Gru(Gru::new(3, 3)),
        LayerSpec::Rnn(Rnn::new(3, 2)),
        LayerSpec::Linear(Linear::new(2, 4)),
    ];
    check_gradients(&tagger, None);
    let regressor = [
        LayerSpec::Gru(Gru::new(2, 3).reset_after(true)),
        LayerSpec::MeanPool {},
        LayerSpec::Linear(Linear::new(3, 1)),
    ];
    check_gradients(&regressor, None);
}

fn every_kind() -> Vec<Sequential<f64>> {
    vec![
        model([
            LayerSpec::Embedding(Embedding::new(6, 3)),
            LayerSpec::Lstm(Lstm::new(3, 4).layers(2).bidirectional(true).dropout(0.3)),
            LayerSpec::Dropout(Dropout::new(0.5)),
            LayerSpec::LayerNorm(LayerNorm::new(8)),
            LayerSpec::Last {},
            LayerSpec::Linear(Linear::new(8, 2)),
            activation(Activation::Softmax),
        ]),
        model([LayerSpec::LayerNorm(LayerNorm::new(3)), LayerSpec::Gru(Gru::new(3, 5))]),
        model([LayerSpec::Rnn(Rnn::new(3, 5)), LayerSpec::MaxPool {}]),
        model([activation(Activation::Relu), LayerSpec::MeanPool {}]),
        model([LayerSpec::Dropout(Dropout::new(0.5))]),
        model([LayerSpec::Linear(Linear::new(3, 5)), activation(Activation::Sigmoid)]),
    ]
}

#[test]
fn inference_and_training_without_dropout_give_the_same_bits() {
    for model in every_kind() {
        for steps in all_steps() {
            let x = Data::of(&model, &steps);
            let start = random_state(&model, 1);
            let (mut a, mut b) = (start.clone(), start);
            let y = model.infer_on(&cpu(), x.input(), &steps, &mut a).unwrap();
            let tape = model.record_on(&cpu(), x.input(), steps, &mut b, None).unwrap();
            assert_eq!(y.numbers, tape.output().numbers);
            assert_eq!((y.width, y.rank), (tape.output().width, tape.output().rank));
            assert_eq!(
                (Some(y.width), y.rank),
                (model.output_width().or(Some(4)), model.output_rank())
            );
            assert_eq!(a, b);
            assert!(y.numbers.iter().all(|y| y.is_finite()));
            assert!(tape.nbytes() >= y.numbers.len() * 8 * usize::from(tape.records.len() > 1));
        }
    }
}

#[test]
fn no_row_knows_of_the_others() {
    for model in every_kind() {
        let steps = by_mask();
        let x = Data::of(&model, &steps);
        let mut state = model.zero_state(BATCH).unwrap();
        let together = model.infer_on(&cpu(), x.input(), &steps, &mut state).unwrap();
        for b in 0..BATCH {
            let alone = Steps::from_mask(TIME, 1, |t, _| steps.is_live(t, b)).unwrap();
            let x = match &x {
                Data::Numbers(x, width) => Data::Numbers(x[b * TIME * width..].to_vec(), *width),
                Data::Ids(ids) => Data::Ids(ids[b * TIME..].to_vec()),
            };
            let mut state = model.zero_state(1).unwrap();
            let y = model.infer_on(&cpu(), x.input(), &alone, &mut state).unwrap();
            let expected: Vec<f64> = match together.rank {
                Rank::Rows => together.numbers[b * y.width..][..y.width].to_vec(),
                Rank::Steps => {
                    let mut rows = Vec::new();
                    steps.for_each(|item, _, row| {
                        if row == b {
                            rows.extend_from_slice(&together.numbers[item * y.width..][..y.width]);
                        }
                    });
                    rows
                }
            };
            assert_eq!(y.numbers, expected);
        }
    }
}

#[test]
fn a_row_that_is_never_live_pools_to_zero() {
    for pooling in [LayerSpec::Last {}, LayerSpec::MeanPool {}, LayerSpec::MaxPool {}] {
        let model = model([LayerSpec::Rnn(Rnn::new(2, 3)), pooling]);
        let steps = by_lengths();
        let x = Data::of(&model, &steps);
        let mut state = random_state(&model, 1);
        let y = model.infer_on(&cpu(), x.input(), &steps, &mut state).unwrap();
        assert!(y.numbers[3..6].iter().all(|y| y.to_bits() == 0));
    }
}

#[test]
fn last_of_a_bidirectional_layer_is_where_each_direction_ended() {
    let model = model([LayerSpec::Gru(Gru::new(2, 3).bidirectional(true)), LayerSpec::Last {}]);
    for steps in all_steps() {
        let x = Data::of(&model, &steps);
        let mut state = model.zero_state(BATCH).unwrap();
        let y = model.infer_on(&cpu(), x.input(), &steps, &mut state).unwrap();
        // The final states say the same, but for rows that have not begun.
        for b in 0..BATCH {
            assert_eq!(y.numbers[b * 6..][..3], state[0].h[b * 3..][..3]);
            assert_eq!(y.numbers[b * 6 + 3..][..3], state[0].h[(BATCH + b) * 3..][..3]);
        }
    }
}

#[test]
fn steps_chunks_and_the_whole_sequence_give_the_same_bits() {
    let model = model([
        LayerSpec::Embedding(Embedding::new(6, 3)),
        LayerSpec::Lstm(Lstm::new(3, 4).layers(2)),
        LayerSpec::Linear(Linear::new(4, 6)),
    ]);
    let steps = by_mask();
    let Data::Ids(ids) = Data::of(&model, &steps) else { panic!("the model reads ids") };
    let run = |from: usize, to: usize, state: &mut ModelState<f64>| {
        let mut place = Place::batch_first(TIME, 1);
        if let Place::Padded { start, .. } = &mut place {
            *start = from;
        }
        let x = Input::Ids(Rows { data: &ids, place });
        model.infer_on(&cpu(), x, &steps.slice(from, to), state).unwrap().numbers
    };
    let mut expected_state = random_state(&model, 1);
    let start = expected_state.clone();
    let expected = run(0, TIME, &mut expected_state);
    for chunk in 1..TIME {
        let mut state = start.clone();
        let chunks = (0..TIME).step_by(chunk);
        let y: Vec<f64> =
            chunks.flat_map(|from| run(from, (from + chunk).min(TIME), &mut state)).collect();
        assert_eq!(y, expected);
        assert_eq!(state, expected_state);
    }
}

#[test]
fn threads_change_no_bit() {
    let model = model([
        LayerSpec::Embedding(Embedding::new(50, 70)),
        LayerSpec::LayerNorm(LayerNorm::new(70)),
        LayerSpec::Dropout(Dropout::new(0.3)),
        LayerSpec::Gru(Gru::new(70, 40)),
        LayerSpec::Linear(Linear::new(40, 300)),
        activation(Activation::Softmax),
    ]);
    let (time, batch) = (20, 33);
    let steps = Steps::from_mask(time, batch, |t, b| (t * 5 + b) % 4 > 0).unwrap();
    let ids: Vec<i64> = (0..time * batch).map(|k| (k * 7 % 50) as i64).collect();
    let run = |threads: usize| {
        let cpu = Cpu::with(Level::detect(), threads);
        let x = Input::Ids(Rows { data: &ids, place: Place::batch_first(time, 1) });
        let mut state = model.zero_state(batch).unwrap();
        let tape = model.record_on(&cpu, x, steps.clone(), &mut state, Some(6)).unwrap();
        let y = tape.output().numbers.to_vec();
        let d_y = normal(4, y.len());
        let mut d_state = state.clone();
        let gradients = model.backward_on(&cpu, &tape, Some(&d_y), &mut d_state, false).unwrap();
        (y, state, gradients, d_state)
    };
    let expected = run(1);
    for threads in [2, 3, 5] {
        assert!(run(threads) == expected, "{threads} threads");
    }
}

#[test]
fn no_gradient_of_the_output_means_zero() {
    for model in every_kind() {
        let steps = by_lengths();
        let x = Data::of(&model, &steps);
        let mut state = random_state(&model, 1);
        let tape = model.record_on(&cpu(), x.input(), steps, &mut state, None).unwrap();
        let zeros = vec![0.0; tape.output().numbers.len()];
        let d_state = random_state(&model, 2);
        let (mut a, mut b) = (d_state.clone(), d_state);
        let none = model.backward_on(&cpu(), &tape, None, &mut a, true).unwrap();
        let zero = model.backward_on(&cpu(), &tape, Some(&zeros), &mut b, true).unwrap();
        assert_eq!(none, zero);
        assert_eq!(a, b);
    }
}

#[test]
fn a_seed_makes_a_model_and_a_draw() {
    let model = &every_kind()[0];
    let numbers = |model: &Sequential<f64>| -> Vec<Vec<f64>> {
        model.layers().iter().map(|layer| layer.numbers().to_vec()).collect()
    };
    let again = |seed| numbers(&model.reseeded(seed).unwrap());
    assert_eq!(again(1), again(1));
    assert_ne!(again(1), again(2));

    let steps = dense();
    let x = Data::of(model, &steps);
    let record = |draw| {
        let mut state = model.zero_state(BATCH).unwrap();
        let tape = model.record_on(&cpu(), x.input(), steps.clone(), &mut state, draw).unwrap();
        tape.output().numbers.to_vec()
    };
    assert_eq!(record(Some(1)), record(Some(1)));
    assert_ne!(record(Some(1)), record(Some(2)));
    assert_ne!(record(Some(1)), record(None));
    assert_ne!(model.draw(0), model.draw(1));
    assert_ne!(model.draw(0), model.reseeded(1).unwrap().draw(0));
}

#[test]
fn layers_that_do_not_fit_are_refused_by_name() {
    let refused = |specs: &[LayerSpec]| -> String {
        let layers = specs.iter().map(|spec| Layer::<f32>::new(spec.clone()).unwrap());
        Sequential::new(layers.collect()).unwrap_err().to_string()
    };
    let linear = |i, o| LayerSpec::Linear(Linear::new(i, o));
    let gru = |i, h| LayerSpec::Gru(Gru::new(i, h).bidirectional(true));
    let dropout = LayerSpec::Dropout(Dropout::new(0.1));
    assert_eq!(refused(&[]), "layers: expected at least one layer, got none");
    assert_eq!(
        refused(&[gru(2, 3), dropout.clone(), linear(3, 1)]),
        "layer 2 (Linear): expected layer 0 (GRU) to give the 3 numbers that it takes, got 6"
    );
    assert_eq!(
        refused(&[linear(2, 3), LayerSpec::Embedding(Embedding::new(2, 3))]),
        "layer 1 (Embedding): expected to be the first layer, as it takes ids, \
         got numbers from layer 0 (Linear)"
    );
    assert_eq!(
        refused(&[gru(2, 3), LayerSpec::Last {}, dropout, gru(6, 3)]),
        "layer 3 (GRU): expected an output at every step, got one row a sequence from layer 1 (Last)"
    );
    let twice = refused(&[LayerSpec::Last {}, LayerSpec::MaxPool {}]);
    assert!(twice.starts_with("layer 1 (MaxPool): expected an output at every step"), "{twice}");
}

#[test]
fn layers_put_in_place_later_are_checked_when_used() {
    let mut model =
        model([LayerSpec::Linear(Linear::new(3, 4)), LayerSpec::Linear(Linear::new(4, 2))]);
    model.layers_mut()[1] = Linear::new(5, 2).build().unwrap();
    let x = Data::numbers(&dense(), 3);
    let error = model.infer_on(&cpu(), x.input(), &dense(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

#[test]
fn inputs_that_do_not_fit_are_refused_and_the_state_is_as_before() {
    let steps = dense();
    let ids = model([LayerSpec::Embedding(Embedding::new(4, 3)), LayerSpec::Lstm(Lstm::new(3, 2))]);
    let numbers = model([LayerSpec::Lstm(Lstm::new(3, 2))]);
    let mut bad_ids = vec![0; TIME * BATCH];
    bad_ids[2 * TIME + 1] = 4;
    let short = vec![0.0; TIME * BATCH * 3 - 1];
    for (model, x, expected) in [
        (
            &ids,
            Data::numbers(&steps, 3),
            "x: expected integer ids, as layer 0 (Embedding) takes, got float64",
        ),
        (&numbers, Data::ids(&steps, 3), "x: expected numbers, as layer 0 (LSTM) takes, got ids"),
        (&numbers, Data::numbers(&steps, 4), "x: expected 3 numbers a step, got 4"),
        (&numbers, Data::Numbers(short, 3), "x: expected 20 rows of 3 numbers, got 59 numbers"),
        (&ids, Data::Ids(bad_ids), "x[2, 1]: expected an id in 0..4, got 4"),
        (&ids, Data::Ids(vec![-1; TIME * BATCH]), "x[0, 0]: expected an id in 0..4, got -1"),
        (&ids, Data::Ids(Vec::new()), "ids: expected 20 rows of 1 numbers, got 0 numbers"),
    ] {
        let start = random_state(model, 1);
        let mut state = start.clone();
        let error = model.infer_on(&cpu(), x.input(), &steps, &mut state).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let error =
            model.record_on(&cpu(), x.input(), steps.clone(), &mut state, None).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(state, start);
    }
}

#[test]
fn states_of_other_models_and_batches_are_refused() {
    let lstm = model([LayerSpec::Lstm(Lstm::new(3, 2))]);
    let gru = model([LayerSpec::Gru(Gru::new(3, 2))]);
    let steps = dense();
    let x = Data::numbers(&steps, 3);
    let refused = |model: &Sequential<f64>, mut state: ModelState<f64>| {
        model.infer_on(&cpu(), x.input(), &steps, &mut state).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&lstm, lstm.zero_state(BATCH + 1).unwrap()),
        "state of layer 0 (LSTM): h: expected 1 x 4 x 2 numbers, got 10"
    );
    assert_eq!(
        refused(&lstm, gru.zero_state(BATCH).unwrap()),
        "state of layer 0 (LSTM): expected h and c, got h alone"
    );
    assert_eq!(
        refused(&gru, lstm.zero_state(BATCH).unwrap()),
        "state of layer 0 (GRU): expected h alone, got h and c (those of an LSTM)"
    );
    assert_eq!(
        refused(&gru, Vec::new()),
        "states: expected 1 (one for each recurrent layer), got 0"
    );
}

#[test]
fn a_tape_is_refused_once_the_parameters_changed_and_by_other_models() {
    let mut model = model([LayerSpec::Gru(Gru::new(3, 2)), LayerSpec::MaxPool {}]);
    let steps = dense();
    let x = Data::numbers(&steps, 3);
    let mut state = model.zero_state(BATCH).unwrap();
    let tape = model.record_on(&cpu(), x.input(), steps, &mut state, None).unwrap();
    let d_y = vec![1.0; BATCH * 2];
    let back = |model: &Sequential<f64>, d_y: &[f64]| {
        model.backward_on(&cpu(), &tape, Some(d_y), &mut model.zero_state(BATCH).unwrap(), false)
    };
    assert!(back(&model, &d_y).is_ok());
    assert!(back(&model.clone(), &d_y).is_ok());
    assert!(matches!(back(&model, &d_y[1..]), Err(Error::Shape { .. })));

    let mut layers = model.layers().to_vec();
    layers[1] = Layer::Last;
    let refused = |model: &Sequential<f64>| matches!(back(model, &d_y), Err(Error::State { .. }));
    assert!(refused(&Sequential::new(layers).unwrap()));
    assert!(refused(&Sequential::new(model.layers()[..1].to_vec()).unwrap()));
    assert!(refused(&model.reseeded(11).unwrap()));
    let same = model.layers()[0].numbers().to_vec();
    model.layers_mut()[0].set_numbers(same).unwrap();
    assert!(refused(&model));
}

#[test]
fn what_needs_the_whole_sequence_makes_no_steps() {
    for (specs, name) in [
        (vec![LayerSpec::Lstm(Lstm::new(3, 2).bidirectional(true))], "layer 0 (LSTM)"),
        (vec![LayerSpec::Gru(Gru::new(3, 2)), LayerSpec::MeanPool {}], "layer 1 (MeanPool)"),
    ] {
        let error = model(specs).check_stepwise().unwrap_err();
        assert!(matches!(error, Error::State { .. }));
        assert!(error.to_string().starts_with(name), "{error}");
    }
    assert!(model([LayerSpec::Gru(Gru::new(3, 2)), LayerSpec::Last {}]).is_stepwise());
}

#[test]
fn nothing_in_nothing_out() {
    for model in every_kind() {
        for (time, batch) in [(0, 3), (3, 0), (0, 0)] {
            let steps = Steps::dense(time, batch).unwrap();
            let x = match Data::of(&model, &dense()) {
                Data::Numbers(_, width) => Data::Numbers(Vec::new(), width),
                Data::Ids(_) => Data::Ids(Vec::new()),
            };
            let mut state = model.zero_state(batch).unwrap();
            let tape = model.record_on(&cpu(), x.input(), steps, &mut state, Some(1)).unwrap();
            let len = tape.output().numbers.len();
            let rows = if tape.output().rank == Rank::Rows { batch } else { 0 };
            assert_eq!(len, rows * tape.output().width);
            let d_y = vec![1.0; len];
            let gradients = model.backward_on(&cpu(), &tape, Some(&d_y), &mut state, true).unwrap();
            // Only what comes after a pooling layer sees rows at all.
            let recurrent = gradients.layers.iter().zip(model.layers());
            let recurrent = recurrent.filter(|(_, layer)| matches!(layer, Layer::Recurrent(_)));
            assert!(recurrent.flat_map(|(d, _)| d).all(|&d| d == 0.0));
        }
    }
}

#[test]
fn an_interrupt_leaves_the_state_as_it_was() {
    let model = &every_kind()[0];
    let steps = dense();
    let x = Data::of(model, &steps);
    let start = random_state(model, 1);
    let mut state = start.clone();
    interrupt::scope(
        || true,
        || {
            let result = model.infer_on(&cpu(), x.input(), &steps, &mut state);
            assert_eq!(result, Err(Error::Interrupted));
        },
    );
    assert_eq!(state, start);
}

#[test]
fn a_recurrent_layer_writes_into_the_callers_array() {
    let model = model([LayerSpec::Lstm(Lstm::new(3, 2).layers(2))]);
    let Layer::Recurrent(layer) = &model.layers[0] else { panic!("an LSTM is recurrent") };
    let steps = by_lengths();
    let Data::Numbers(x, _) = Data::of(&model, &steps) else { panic!("it reads numbers") };
    let mut state = random_state(&model, 1);
    let mut own = state[0].clone();
    let expected = {
        let x = Input::Numbers(Rows { data: &x, place: Place::batch_first(TIME, 3) }, 3);
        model.infer_on(&cpu(), x, &steps, &mut state).unwrap().numbers
    };
    let mut y = vec![7.0; TIME * BATCH * 2];
    let to = crate::low_level::RowsMut { data: &mut y[..], place: Place::time_first(BATCH, 2) };
    let from = Rows { data: &x[..], place: Place::batch_first(TIME, 3) };
    layer.infer_into(&cpu(), from, &steps, &mut own, to).unwrap();
    assert_eq!(own, state[0]);
    let mut live = [false; TIME * BATCH];
    steps.for_each(|item, t, b| {
        assert_eq!(y[(t * BATCH + b) * 2..][..2], expected[item * 2..][..2]);
        live[t * BATCH + b] = true;
    });
    for (place, _) in live.iter().enumerate().filter(|(_, live)| !**live) {
        assert_eq!(y[place * 2..][..2], [7.0, 7.0]);
    }
    let mut y = vec![0.0; 3];
    assert!(layer.step_into(&cpu(), &x[..12], BATCH, &mut own, &mut y).is_err());
    assert_eq!(own, state[0]);
}
