//! Models and training on a GPU against the CPU: outputs, states, gradients, losses and parameters.
//!
//! They need an adapter, of software too; without one they say so and pass, unless
//! SEQRS_REQUIRE_GPU is 1.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use seqrs::gpu::{Gpu, GpuModel, GpuTrainer};
use seqrs::low_level::{Cpu, Input, Place, Rows, Steps, Target};
use seqrs::{
    Activation, Adam, AdamW, BinaryCrossEntropy, CrossEntropy, Dropout, Embedding, Error,
    FunctionName, Gru, Huber, Layer, LayerNorm, Linear, Loss, Lstm, Mae, Mse, OptimizerSpec,
    RmsProp, Rnn, Sequential, Sgd, Trainer, TrainerOptions,
};
use seqrs_core::interrupt;

/// Of the largest value: f32 on both sides, whose sums have another order
/// (`PACKAGE_TO_REFERENCE_F32` in tests/README.md).
const TOLERANCE: f32 = 3e-5;

/// The same after some updates, each of which carries the difference of the last one on
/// (`TRAINING_TO_PYTORCH` there).
const TRAINED: f32 = 1e-3;

fn gpu() -> Option<Arc<Gpu>> {
    static GPU: OnceLock<Option<Arc<Gpu>>> = OnceLock::new();
    GPU.get_or_init(|| match Gpu::new(0) {
        Ok(gpu) => Some(Arc::new(gpu)),
        Err(error) => {
            assert_ne!(std::env::var("SEQRS_REQUIRE_GPU").as_deref(), Ok("1"), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    })
    .clone()
}

/// Numbers in [-1, 1).
fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    (0..len)
        .map(|_| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            ((bits >> 40) as f64 / f64::from(1u32 << 23) - 1.0) as f32
        })
        .collect()
}

fn assert_close(what: &str, want: &[f32], got: &[f32], tolerance: f32) {
    assert_eq!(want.len(), got.len(), "{what}");
    let largest = want.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
    for (k, (want, got)) in want.iter().zip(got).enumerate() {
        let near = (want - got).abs() <= tolerance * largest;
        assert!(near, "{what}[{k}]: expected {want}, got {got} (largest {largest})");
    }
}

const TIME: usize = 7;
const LENGTHS: [usize; 5] = [7, 3, 0, 5, 1];
const IDS: usize = 11;
const WIDTH: usize = 6;

/// Name, layers, whether it reads ids, and whether it gives one row a sequence.
fn models() -> Vec<(&'static str, Sequential<f32>)> {
    let model = |layers: Vec<Result<Layer<f32>, Error>>| {
        Sequential::new(layers.into_iter().collect::<Result<_, _>>().unwrap()).unwrap()
    };
    vec![
        ("lstm", model(vec![Lstm::new(WIDTH, 9).layers(2).build()])),
        ("rnn", model(vec![Rnn::new(WIDTH, 5).bidirectional(true).build()])),
        (
            "characters",
            model(vec![
                Embedding::new(IDS, 8).padding_idx(2).build(),
                Gru::new(8, 12).reset_after(true).build(),
                Linear::new(12, IDS).build(),
            ]),
        ),
        (
            "tagger",
            model(vec![
                Linear::new(WIDTH, 70).build(),
                LayerNorm::new(70).build(),
                Ok(Layer::Activation(Activation::Tanh)),
                Gru::new(70, 4).bidirectional(true).dropout(0.3).layers(2).build(),
                Ok(Layer::Activation(Activation::Relu)),
                Linear::new(8, WIDTH).bias(false).build(),
                Ok(Layer::Activation(Activation::Softmax)),
            ]),
        ),
        (
            "last",
            model(vec![
                Gru::new(WIDTH, 4).bidirectional(true).build(),
                Ok(Layer::Last),
                Dropout::new(0.4).build(),
                Linear::new(8, 3).build(),
            ]),
        ),
        (
            "mean",
            model(vec![
                Lstm::new(WIDTH, 4).build(),
                Ok(Layer::MeanPool),
                LayerNorm::new(4).build(),
                Ok(Layer::Activation(Activation::Sigmoid)),
            ]),
        ),
        (
            "max",
            model(vec![Rnn::new(WIDTH, 4).build(), Ok(Layer::MaxPool), Linear::new(4, 2).build()]),
        ),
        (
            "chosen",
            model(vec![
                Rnn::new(WIDTH, 6).nonlinearity(FunctionName::Softplus).build(),
                Lstm::new(6, 5).coupled(true).peepholes(true).proj_size(3).build(),
                Gru::new(3, 4).gate_activation(FunctionName::HardSigmoid).clip(1.5).build(),
            ]),
        ),
        (
            "masked",
            model(vec![
                Lstm::new(WIDTH, 5)
                    .proj_size(3)
                    .recurrent_dropout(0.3)
                    .zoneout(0.2)
                    .zoneout_cell(0.4)
                    .layers(2)
                    .build(),
                Gru::new(3, 4).bidirectional(true).recurrent_dropout(0.5).build(),
                Rnn::new(8, 6).zoneout(0.3).build(),
            ]),
        ),
        (
            "normalised",
            model(vec![
                Lstm::new(WIDTH, 9).layer_norm(true).layers(2).dropout(0.3).build(),
                Lstm::new(9, 7).layer_norm(true).proj_size(3).bidirectional(true).build(),
                Lstm::new(6, 5).layer_norm(true).coupled(true).bias(false).build(),
                Gru::new(5, 4).layer_norm(true).reset_after(true).bidirectional(true).build(),
            ]),
        ),
    ]
}

/// A batch for any of the models.
struct Given {
    numbers: Vec<f32>,
    ids: Vec<i64>,
    steps: Steps,
}

impl Given {
    fn new(seed: u64) -> Self {
        let numbers = random(seed, LENGTHS.len() * TIME * WIDTH);
        let ids = random(seed + 1, LENGTHS.len() * TIME);
        let ids = ids.iter().map(|v| ((v + 1.0) / 2.0 * IDS as f32) as i64).collect();
        Self { numbers, ids, steps: Steps::from_lengths(TIME, &LENGTHS).unwrap() }
    }

    fn input(&self, model: &Sequential<f32>) -> Input<'_, f32> {
        match model.takes_ids() {
            true => Input::Ids(Rows { data: &self.ids, place: Place::batch_first(TIME, 1) }),
            false => {
                let place = Place::batch_first(TIME, WIDTH);
                Input::Numbers(Rows { data: &self.numbers, place }, WIDTH)
            }
        }
    }
}

fn all(state: &[seqrs::State<Vec<f32>>]) -> Vec<f32> {
    state.iter().flat_map(|s| s.h.iter().chain(s.c.iter().flatten())).copied().collect()
}

#[test]
fn inference_and_gradients_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let cpu = Cpu::new().unwrap();
    for (name, model) in models() {
        let given = Given::new(3);
        let on_gpu = GpuModel::new(Arc::clone(&gpu), model.clone()).unwrap();
        let (mut want, mut got) =
            (model.zero_state(LENGTHS.len()).unwrap(), model.zero_state(LENGTHS.len()).unwrap());
        let output = model.infer_on(&cpu, given.input(&model), &given.steps, &mut want).unwrap();
        let found = on_gpu.infer(given.input(&model), &given.steps, &mut got).unwrap();
        assert_eq!((output.width, output.rank), (found.width, found.rank), "{name}");
        assert_close(&format!("{name}: y"), &output.numbers, &found.numbers, TOLERANCE);
        assert_close(&format!("{name}: state"), &all(&want), &all(&got), TOLERANCE);

        for dropout in [None, Some(5)] {
            let zeros = || model.zero_state(LENGTHS.len()).unwrap();
            let (mut a, mut b) = (zeros(), zeros());
            let x = given.input(&model);
            let tape = model.record_on(&cpu, x, given.steps.clone(), &mut a, dropout).unwrap();
            let (y, on_device) = on_gpu.record(x, given.steps.clone(), &mut b, dropout).unwrap();
            assert_close(&format!("{name}: y"), tape.output().numbers, &y, TOLERANCE);
            let d_y = random(9, y.len());
            let (mut a, mut b) = (zeros(), zeros());
            let want = model.backward_on(&cpu, &tape, Some(&d_y), &mut a, true).unwrap();
            let got = on_gpu.backward(&on_device, Some(&d_y), &mut b, true).unwrap();
            for (k, (want, got)) in want.layers.iter().zip(&got.layers).enumerate() {
                assert_close(&format!("{name}: gradients of layer {k}"), want, got, TOLERANCE);
            }
            assert_eq!(want.x.is_some(), got.x.is_some(), "{name}");
            let x = |g: &seqrs::model_tape::ModelGradients<f32>| g.x.clone().unwrap_or_default();
            assert_close(&format!("{name}: d_x"), &x(&want), &x(&got), TOLERANCE);
            assert_close(&format!("{name}: d_state"), &all(&a), &all(&b), TOLERANCE);
        }
    }
}

/// Losses, norms, states and parameters of some steps on both.
fn train_on_both(name: &str, model: &Sequential<f32>, options: TrainerOptions) {
    let Some(gpu) = gpu() else { return };
    let cpu = Cpu::new().unwrap();
    let mut want = Trainer::with_options(model.clone(), options).unwrap();
    let mut got = GpuTrainer::new(gpu, model.clone(), options).unwrap();
    let width = model.output_width().unwrap();
    let (mut a, mut b) = (None, None);
    for step in 0..6 {
        let given = Given::new(10 * step);
        let rows = model.output_rank() == seqrs::low_level::Rank::Rows;
        let count = if rows { LENGTHS.len() } else { LENGTHS.len() * TIME };
        let classes: Vec<i64> = given.ids.iter().map(|id| id % width as i64).collect();
        let numbers: Vec<f32> = random(step + 1, count * width).iter().map(|v| v.abs()).collect();
        let place = |width| match rows {
            true => Place::packed(width),
            false => Place::batch_first(TIME, width),
        };
        let target = match options.loss.wants_classes() {
            true => Target::Ids(Rows { data: &classes, place: place(1) }),
            false => Target::Numbers(Rows { data: &numbers, place: place(width) }, width),
        };
        let x = given.input(model);
        let evaluated = got.evaluate(x, target, &given.steps, b.clone()).unwrap();
        let expected = want.evaluate_on(&cpu, x, target, &given.steps, a.clone()).unwrap();
        assert_eq!(evaluated.count, expected.count);
        assert_close(name, &[expected.loss as f32], &[evaluated.loss as f32], TRAINED);
        let expected = want.step_on(&cpu, x, target, given.steps.clone(), a).unwrap();
        let found = got.step(x, target, &given.steps, b).unwrap();
        let what = format!("{name}, step {step}");
        let pair = |r: &seqrs::StepResult<_>| [r.loss as f32, r.grad_norm as f32];
        assert_close(&what, &pair(&expected)[..1], &pair(&found)[..1], TRAINED);
        assert_close(&what, &pair(&expected)[1..], &pair(&found)[1..], TRAINED);
        assert_close(&what, &all(&expected.state), &all(&found.state), TRAINED);
        (a, b) = (Some(expected.state), Some(found.state));
    }
    assert_eq!(want.steps_done(), got.steps_done());
    let trained = got.to_cpu().unwrap().model;
    for (k, (want, got)) in want.model.layers().iter().zip(trained.layers()).enumerate() {
        assert_close(&format!("{name}, layer {k}"), want.numbers(), got.numbers(), TRAINED);
    }
}

#[test]
fn a_trainer_moves_to_the_device_and_back() {
    let Some(gpu) = gpu() else { return };
    let cpu = Cpu::new().unwrap();
    let (_, model) = models().swap_remove(0);
    let options = TrainerOptions::new(Mse::mean(), Adam::new(0.01));
    let given = Given::new(1);
    let width = model.output_width().unwrap();
    let target = random(4, LENGTHS.len() * TIME * width);
    let place = Place::batch_first(TIME, width);
    let target = Target::Numbers(Rows { data: &target, place }, width);
    let x = || given.input(&model);
    let steps = || given.steps.clone();
    let mut want = Trainer::with_options(model.clone(), options).unwrap();
    let mut moved = want.clone();
    for _ in 0..3 {
        want.step_on(&cpu, x(), target, steps(), None).unwrap();
        moved.step_on(&cpu, x(), target, steps(), None).unwrap();
        let mut there = GpuTrainer::from_cpu(Arc::clone(&gpu), moved).unwrap();
        want.step_on(&cpu, x(), target, steps(), None).unwrap();
        there.step(x(), target, &given.steps, None).unwrap();
        moved = there.to_cpu().unwrap();
    }
    assert_eq!(moved.steps_done(), 6);
    for (want, got) in want.model.layers().iter().zip(moved.model.layers()) {
        assert_close("moved", want.numbers(), got.numbers(), TRAINED);
    }
}

#[test]
fn every_model_is_trained_as_on_the_cpu() {
    for (name, model) in models() {
        let loss = if name == "characters" {
            CrossEntropy::mean().into()
        } else {
            Loss::from(Mse::mean())
        };
        train_on_both(name, &model, TrainerOptions::new(loss, Adam::new(0.01)));
    }
}

#[test]
fn every_optimiser_is_that_of_the_cpu() {
    let optimizers: Vec<OptimizerSpec> = vec![
        Sgd::new(0.1).into(),
        Sgd::new(0.1).momentum(0.9).weight_decay(0.01).into(),
        Sgd::new(0.1).momentum(0.9).nesterov(true).into(),
        RmsProp::new(0.01).into(),
        RmsProp::new(0.01).momentum(0.9).weight_decay(0.1).into(),
        Adam::new(0.01).weight_decay(0.1).into(),
        AdamW::new(0.01).into(),
    ];
    let (_, model) = models().swap_remove(2);
    for optimizer in optimizers {
        let options = TrainerOptions::new(CrossEntropy::sum(), optimizer).clip_norm(0.5);
        train_on_both(&format!("{optimizer:?}"), &model, options);
    }
}

#[test]
fn every_loss_is_that_of_the_cpu() {
    let losses: [Loss; 6] = [
        CrossEntropy::mean().into(),
        BinaryCrossEntropy::mean().into(),
        Mse::sum().into(),
        Mae::mean().into(),
        Huber::mean().into(),
        CrossEntropy::sum().into(),
    ];
    for (name, model) in models().into_iter().filter(|(name, _)| ["lstm", "last"].contains(name)) {
        for loss in losses {
            let options = TrainerOptions::new(loss, Sgd::new(0.05)).clip_norm(None).clip_value(0.1);
            train_on_both(&format!("{name}, {loss:?}"), &model, options);
        }
    }
}

#[test]
fn truncated_back_propagation_is_that_of_the_cpu() {
    for (name, model) in
        models().into_iter().filter(|(name, _)| ["lstm", "characters"].contains(name))
    {
        let loss =
            if name == "lstm" { Loss::from(Mse::mean()) } else { CrossEntropy::mean().into() };
        let options = TrainerOptions::new(loss, Adam::new(0.01)).bptt(3);
        train_on_both(name, &model, options);
    }
}

#[test]
fn what_is_not_finite_changes_nothing() {
    let Some(gpu) = gpu() else { return };
    let (_, model) = models().swap_remove(0);
    for bptt in [None, Some(3)] {
        let mut options = TrainerOptions::new(Mse::mean(), Adam::new(0.01));
        options.bptt = bptt;
        let mut trainer = GpuTrainer::new(Arc::clone(&gpu), model.clone(), options).unwrap();
        let given = Given::new(1);
        let width = model.output_width().unwrap();
        let mut target = random(4, LENGTHS.len() * TIME * width);
        // At the last step of the first row, which is in the last chunk.
        target[(TIME - 1) * width] = f32::NAN;
        let place = Place::batch_first(TIME, width);
        let target = Target::Numbers(Rows { data: &target, place }, width);
        let error = trainer.step(given.input(&model), target, &given.steps, None).unwrap_err();
        assert!(matches!(error, Error::Numerical { .. }), "{error}");
        assert_eq!(trainer.steps_done(), 0);
        let after = trainer.to_cpu().unwrap().model;
        for (before, after) in model.layers().iter().zip(after.layers()) {
            assert_eq!(before.numbers(), after.numbers());
        }
    }
}

#[test]
fn targets_out_of_range_are_refused_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let cpu = Cpu::new().unwrap();
    let (_, model) = models().swap_remove(0);
    let width = model.output_width().unwrap();
    let given = Given::new(1);
    let mut numbers = vec![0.5; LENGTHS.len() * TIME * width];
    numbers[0] = 1.5;
    let mut classes = vec![0; LENGTHS.len() * TIME];
    classes[0] = width as i64;
    let place = |width| Place::batch_first(TIME, width);
    let numbers = Target::Numbers(Rows { data: &numbers, place: place(width) }, width);
    let classes = Target::Ids(Rows { data: &classes, place: place(1) });
    let cases = [
        (Loss::from(BinaryCrossEntropy::mean()), numbers),
        (Loss::from(CrossEntropy::mean()), classes),
    ];
    for (loss, target) in cases {
        let options = TrainerOptions::new(loss, Adam::new(0.01));
        let mut here = Trainer::with_options(model.clone(), options).unwrap();
        let mut there = GpuTrainer::new(Arc::clone(&gpu), model.clone(), options).unwrap();
        let x = given.input(&model);
        let want = here.step_on(&cpu, x, target, given.steps.clone(), None).unwrap_err();
        let got = there.step(x, target, &given.steps, None).unwrap_err();
        assert_eq!(got.to_string(), want.to_string());
        assert_eq!(there.steps_done(), 0);
        let after = there.to_cpu().unwrap().model;
        for (before, after) in model.layers().iter().zip(after.layers()) {
            assert_eq!(before.numbers(), after.numbers(), "{loss:?}");
        }
    }
}

thread_local! {
    /// Questions whether to stop that are still answered with no.
    static PATIENCE: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work`, which wants to stop at the question after so many.
fn impatient<R>(patience: usize, work: impl FnOnce() -> R) -> R {
    fn stop() -> bool {
        let left = PATIENCE.get();
        PATIENCE.set(left.saturating_sub(1));
        left == 0
    }
    PATIENCE.set(patience);
    interrupt::scope(stop, work)
}

/// All that a run goes on from.
fn content(trainer: &GpuTrainer) -> (u64, Vec<Vec<f32>>) {
    let trainer = trainer.to_cpu().unwrap();
    let layers = trainer.model.layers().iter();
    (trainer.steps_done(), layers.map(|layer| layer.numbers().to_vec()).collect())
}

#[test]
fn a_step_is_done_wholly_or_not_at_all() {
    let Some(gpu) = gpu() else { return };
    let (_, model) = models().swap_remove(2);
    for bptt in [None, Some(3)] {
        let options = TrainerOptions::new(CrossEntropy::mean(), Adam::new(0.01)).bptt(bptt);
        let new = || GpuTrainer::new(Arc::clone(&gpu), model.clone(), options).unwrap();
        let given = Given::new(1);
        let x = given.input(&model);
        let target = Target::Ids(Rows { data: &given.ids, place: Place::batch_first(TIME, 1) });
        let mut undisturbed = new();
        let mut trainer = new();
        let before = content(&trainer);
        let want = undisturbed.step(x, target, &given.steps, None).unwrap();
        let mut undone = 0;
        for patience in 0.. {
            match impatient(patience, || trainer.step(x, target, &given.steps, None)) {
                Err(error) => {
                    assert_eq!(error, Error::Interrupted);
                    assert_eq!(content(&trainer), before, "{bptt:?}: {patience}");
                    undone += 1;
                }
                Ok(found) => {
                    assert_eq!(found, want);
                    break;
                }
            }
        }
        assert!(undone >= 4, "{bptt:?}: {undone}");
        assert_eq!(content(&trainer), content(&undisturbed));
        // The moments are the same too.
        for trainer in [&mut trainer, &mut undisturbed] {
            trainer.step(x, target, &given.steps, None).unwrap();
        }
        assert_eq!(content(&trainer), content(&undisturbed));
    }
}

#[test]
fn parameters_are_put_in_place_wholly_or_not_at_all() {
    let Some(gpu) = gpu() else { return };
    let (_, model) = models().swap_remove(2);
    let options = TrainerOptions::new(CrossEntropy::mean(), Adam::new(0.01));
    let mut trainer = GpuTrainer::new(gpu, model.clone(), options).unwrap();
    let before = content(&trainer);
    let other = model.reseeded(99).unwrap();
    let undone = (0..).take_while(|&patience| {
        let found = impatient(patience, || trainer.set_model(&other));
        assert!(matches!(found, Ok(()) | Err(Error::Interrupted)));
        if found.is_err() {
            assert_eq!(content(&trainer), before);
        }
        found.is_err()
    });
    undone.count();
    let numbers: Vec<_> = other.layers().iter().map(|layer| layer.numbers().to_vec()).collect();
    assert_eq!(content(&trainer), (0, numbers));
}

#[test]
fn a_lost_device_is_told_by_every_call() {
    if gpu().is_none() {
        return;
    }
    let (_, model) = models().swap_remove(2);
    let given = Given::new(1);
    let x = given.input(&model);
    let target = Target::Ids(Rows { data: &given.ids, place: Place::batch_first(TIME, 1) });
    let steps = &given.steps;
    for bptt in [None, Some(3)] {
        let options = TrainerOptions::new(CrossEntropy::mean(), Adam::new(0.01)).bptt(bptt);
        let gpu = Arc::new(Gpu::new(0).unwrap());
        let mut trainer = GpuTrainer::new(Arc::clone(&gpu), model.clone(), options).unwrap();
        trainer.step(x, target, steps, None).unwrap();
        let on_gpu = GpuModel::new(Arc::clone(&gpu), model.clone()).unwrap();
        let state = || model.zero_state(LENGTHS.len()).unwrap();
        let (y, tape) = on_gpu.record(x, steps.clone(), &mut state(), None).unwrap();
        let done = trainer.steps_done();
        gpu.lose();
        for _ in 0..2 {
            let told = |error: Option<Error>| {
                let Some(error) = error else { panic!("a lost device has worked") };
                assert!(matches!(error, Error::NoDevice { .. }), "{error}");
                assert!(error.to_string().contains("lost"), "{error}");
            };
            told(trainer.step(x, target, steps, None).err());
            told(trainer.evaluate(x, target, steps, None).err());
            told(trainer.set_model(&model).err());
            told(on_gpu.infer(x, steps, &mut state()).err());
            told(on_gpu.record(x, steps.clone(), &mut state(), None).err());
            told(on_gpu.backward(&tape, Some(&y), &mut state(), true).err());
            told(GpuModel::new(Arc::clone(&gpu), model.clone()).err());
            told(GpuTrainer::new(Arc::clone(&gpu), model.clone(), options).err());
            // What is lost is said by name.
            let error = trainer.to_cpu().unwrap_err();
            assert!(error.to_string().starts_with("parameters: expected the GPU"), "{error}");
            told(Some(error));
            told(on_gpu.to_cpu().err());
            assert_eq!(trainer.steps_done(), done);
        }
        // The model that was taken there is as it was.
        assert_eq!(on_gpu.structure().fingerprint(), model.fingerprint());
    }
}
