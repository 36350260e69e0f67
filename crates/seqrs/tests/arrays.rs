//! Arrays at the border: the same bits as the level below, in both orders of dimensions,
//! with lengths and masks; and what does not fit is refused by name before anything changes.

use ndarray::{Array1, Array2, Array3, ArrayD, Axis, IxDyn, array, s};
use seqrs::low_level::{Cpu, Input, Place, Rows, Steps, Target};
use seqrs::{
    Adam, Batch, CrossEntropy, Dropout, Embedding, Error, Gru, Layer, LayerSpec, Linear, Lstm, Mse,
    OptimizerSpec, Sequential, State, States, Targets, Trainer, TrainerBuilder, TrainerOptions,
};

const ROWS: usize = 3;
const TIME: usize = 7;
const CLASSES: usize = 5;
const LENGTHS: [usize; ROWS] = [7, 0, 4];

fn ids(seed: i64) -> Array2<i64> {
    Array2::from_shape_fn((ROWS, TIME), |(b, t)| {
        (seed + 3 * b as i64 + (t * t) as i64).rem_euclid(CLASSES as i64)
    })
}

fn numbers(width: usize) -> Array3<f64> {
    Array3::from_shape_fn((ROWS, TIME, width), |(b, t, k)| ((b * 50 + t * 7 + k) as f64).sin())
}

/// The prefixes of [`LENGTHS`].
fn mask() -> Array2<bool> {
    Array2::from_shape_fn((ROWS, TIME), |(b, t)| t < LENGTHS[b])
}

/// Ids to classes at every step, with dropout within and between layers.
fn tagger(batch_first: bool) -> Sequential<f64> {
    let layers = vec![
        Embedding::new(CLASSES, 4).build().unwrap(),
        Lstm::new(4, 6).layers(2).dropout(0.3).batch_first(batch_first).build().unwrap(),
        Dropout::new(0.2).build().unwrap(),
        Linear::new(6, CLASSES).build().unwrap(),
    ];
    Sequential::new(layers).unwrap().reseeded(3).unwrap()
}

/// Numbers to two numbers a row.
fn regressor() -> Sequential<f64> {
    let layers = vec![
        Gru::new(2, 4).bidirectional(true).build().unwrap(),
        Layer::Last,
        Linear::new(8, 2).build().unwrap(),
    ];
    Sequential::new(layers).unwrap()
}

fn builder(batch_first: bool) -> TrainerBuilder<f64> {
    Trainer::new(tagger(batch_first), CrossEntropy::mean(), Adam::new(0.01)).seed(9)
}

fn bits(model: &Sequential<f64>) -> Vec<Vec<u64>> {
    let bits = |number: &f64| number.to_bits();
    model.layers().iter().map(|layer| layer.numbers().iter().map(bits).collect()).collect()
}

/// The states of the level below, as arrays have them.
fn flat(states: &States<f64>) -> Vec<State<Vec<f64>>> {
    let numbers = |array: &Array3<f64>| array.iter().copied().collect();
    states.iter().map(|s| State { h: numbers(&s.h), c: s.c.as_ref().map(numbers) }).collect()
}

/// With the first two dimensions exchanged, laid out anew.
fn exchanged<A: Clone>(array: &Array2<A>) -> Array2<A> {
    array.t().as_standard_layout().into_owned()
}

#[test]
fn training_has_the_bits_of_the_level_below() {
    let (x, y) = (ids(1), ids(2));
    let cpu = Cpu::new().unwrap();
    let place = Place::batch_first(TIME, 1);
    let input = Input::Ids(Rows { data: x.as_slice().unwrap(), place });
    let target = Target::Ids(Rows { data: y.as_slice().unwrap(), place });
    let steps = || Steps::from_lengths(TIME, &LENGTHS).unwrap();
    for bptt in [None, Some(3)] {
        let mut ours = builder(true).clip_norm(0.5).clip_value(0.1).bptt(bptt).build().unwrap();
        let options = TrainerOptions {
            clip_norm: Some(0.5),
            clip_value: Some(0.1),
            bptt,
            seed: 9,
            ..TrainerOptions::new(CrossEntropy::mean(), Adam::new(0.01))
        };
        let mut below = Trainer::with_options(tagger(true), options).unwrap();
        let (mut state, mut state_below) = (None, None);
        for _ in 0..3 {
            let mut batch = Batch::from(&x).lengths(&LENGTHS);
            if let Some(state) = state.take() {
                batch = batch.state(state);
            }
            let found = ours.step(batch, &y).unwrap();
            let expected = below.step_on(&cpu, input, target, steps(), state_below.take()).unwrap();
            assert_eq!((found.loss, found.grad_norm), (expected.loss, expected.grad_norm));
            assert_eq!(flat(&found.state), expected.state);
            (state, state_below) = (Some(found.state), Some(expected.state));
        }
        assert_eq!(bits(&ours.model), bits(&below.model));
        assert_eq!(ours.steps_done(), if bptt.is_some() { 9 } else { 3 });
        let found = ours.evaluate(Batch::from(&x).lengths(&LENGTHS), &y).unwrap();
        let expected = below.evaluate_on(&cpu, input, target, &steps(), None).unwrap();
        assert_eq!((found.loss, found.count), (expected.loss, expected.count));
        assert_eq!(flat(&found.state), expected.state);
    }
}

#[test]
fn gradients_have_the_bits_of_the_level_below() {
    let model = Sequential::<f64>::new(vec![
        Lstm::new(2, 4).layers(2).dropout(0.4).proj_size(3).build().unwrap(),
        Linear::new(3, 2).build().unwrap(),
    ])
    .unwrap();
    let (x, cpu) = (numbers(2), Cpu::new().unwrap());
    let steps = Steps::from_lengths(TIME, &LENGTHS).unwrap();
    let rows = Rows { data: x.as_slice().unwrap(), place: Place::batch_first(TIME, 2) };
    let mut state_below = model.zero_state(ROWS).unwrap();
    let input = Input::Numbers(rows, 2);
    let below =
        model.record_on(&cpu, input, steps.clone(), &mut state_below, Some(model.draw(0))).unwrap();

    let batch = Batch::from(&x).lengths(&LENGTHS);
    let (y, state, tape) = model.forward(batch, Some(model.draw(0))).unwrap();
    assert_eq!(flat(&state), state_below);
    assert_eq!(tape.output().numbers, below.output().numbers);
    steps.for_each(|item, t, b| {
        let expected = &below.output().numbers[2 * item..][..2];
        assert_eq!(y.slice(s![b, t, ..]).to_vec(), expected);
    });

    // What lies at steps that are not live is not looked at.
    let mut d_y = y.clone();
    d_y.slice_mut(s![1, .., ..]).fill(f64::NAN);
    let gradients = model.backward(&tape, Some(d_y.view()), Some(&state)).unwrap();
    let mut d_state = state_below.clone();
    let packed = below.output().numbers.to_vec();
    let expected = model.backward_on(&cpu, &below, Some(&packed), &mut d_state, true).unwrap();
    assert_eq!(flat(&gradients.state), d_state);
    for parameter in model.parameters() {
        let own = &gradients.params[&parameter.name];
        let layer = if parameter.name.starts_with("0.") { 0 } else { 1 };
        assert_eq!(own.shape(), parameter.shape);
        assert_eq!(own.as_slice().unwrap(), &expected.layers[layer][parameter.range]);
    }
    let (d_x, d_x_below) = (gradients.x.unwrap(), expected.x.unwrap());
    steps.for_each(|item, t, b| {
        assert_eq!(d_x.slice(s![b, t, ..]).to_vec(), d_x_below[2 * item..][..2]);
    });
    assert!(d_x.index_axis(Axis(0), 1).iter().all(|d| d.to_bits() == 0));
}

#[test]
fn time_first_is_the_same_with_dimensions_exchanged() {
    let (x, y) = (ids(1), ids(2));
    let (x_t, y_t) = (exchanged(&x), exchanged(&y));
    let (mut rows, mut time) = (builder(true).build().unwrap(), builder(false).build().unwrap());
    for _ in 0..2 {
        let expected = rows.step(Batch::from(&x).lengths(&LENGTHS), &y).unwrap();
        assert_eq!(time.step(Batch::from(&x_t).lengths(&LENGTHS), &y_t).unwrap(), expected);
    }
    // Views that do not lie in the order of their indices.
    let expected = rows.step(&x, &y).unwrap();
    assert_eq!(time.step(x.t(), y.t()).unwrap(), expected);
    assert_eq!(bits(&rows.model), bits(&time.model));

    let numbers = numbers(2);
    let turned = numbers.view().permuted_axes([1, 0, 2]);
    let of = |batch_first| Gru::new(2, 3).batch_first(batch_first).build::<f64>().unwrap();
    let (y, state, tape) = of(true).forward(Batch::from(&numbers).lengths(&LENGTHS), None).unwrap();
    let layer = of(true);
    assert!(matches!(layer.backward(&tape, Some(y.view()), None), Err(Error::State { .. })));

    let (first, second) = (of(true), of(false));
    let (_, _, tape) = first.forward(Batch::from(&numbers).lengths(&LENGTHS), None).unwrap();
    let (y_t, state_t, tape_t) =
        second.forward(Batch::from(turned).lengths(&LENGTHS), None).unwrap();
    assert_eq!(y, y_t.clone().permuted_axes(IxDyn(&[1, 0, 2])));
    assert_eq!(state, state_t);
    let there = first.backward(&tape, Some(y.view()), None).unwrap();
    let back = second.backward(&tape_t, Some(y_t.view()), None).unwrap();
    assert_eq!(there.x.unwrap(), back.x.unwrap().permuted_axes([1, 0, 2]));
    assert_eq!((there.state, there.params), (back.state, back.params));
}

#[test]
fn lengths_and_their_mask_are_the_same_and_padding_is_not_looked_at() {
    let mask = mask();
    let (x, y) = (ids(1), ids(2));
    let (mut wild_x, mut wild_y) = (x.clone(), y.clone());
    for ((at, &live), wild) in mask.indexed_iter().zip(&mut wild_x) {
        if !live {
            (*wild, wild_y[at]) = (-7, 99);
        }
    }
    let mut trainers =
        [builder(true).bptt(2).build().unwrap(), builder(true).bptt(2).build().unwrap()];
    let [by_lengths, by_mask] = &mut trainers;
    let expected = by_lengths.step(Batch::from(&x).lengths(&LENGTHS), &y).unwrap();
    let found = by_mask.step(Batch::from(&wild_x).mask(mask.view()), &wild_y).unwrap();
    assert_eq!(found, expected);
    assert_eq!(bits(&by_lengths.model), bits(&by_mask.model));

    let model = regressor();
    let x = numbers(2);
    let mut wild = x.clone();
    wild.slice_mut(s![2, 4.., ..]).fill(f64::NAN);
    wild.slice_mut(s![1, .., ..]).fill(f64::NAN);
    let expected = model.infer(Batch::from(&x).lengths(&LENGTHS)).unwrap();
    assert_eq!(model.infer(Batch::from(&wild).mask(mask.view())).unwrap(), expected);

    // One target a row; that of a row without a live step is not looked at.
    let target = array![[0.1, 0.2], [f64::NAN, f64::NAN], [0.3, -0.4]];
    let trainer = || Trainer::new(model.clone(), Mse::mean(), Adam::new(0.01)).build().unwrap();
    let (mut one, mut other) = (trainer(), trainer());
    let expected = one.step(Batch::from(&x).lengths(&LENGTHS), &target).unwrap();
    assert_eq!(other.step(Batch::from(&wild).mask(mask.view()), &target).unwrap(), expected);
    assert!(expected.loss.is_finite());
    let found = one.evaluate(Batch::from(&x).lengths(&LENGTHS), &target).unwrap();
    assert_eq!(found.count, 2);
    assert!(found.loss < expected.loss);
}

#[test]
fn a_state_that_is_carried_makes_one_sequence_of_two() {
    let model = tagger(true);
    let x = ids(1);
    let (y, expected) = model.infer(&x).unwrap();
    let (left, right) = (x.slice(s![.., ..3]), x.slice(s![.., 3..]));
    let (y_left, state) = model.infer(left).unwrap();
    let (y_right, state) = model.infer(Batch::from(right).state(state)).unwrap();
    assert_eq!(y, ndarray::concatenate![Axis(1), y_left, y_right]);
    assert_eq!(state, expected);

    let mut state = model.initial_state(ROWS).unwrap();
    for t in 0..TIME {
        let y_t = model.step_ids(&x.column(t).to_vec(), &mut state).unwrap();
        assert_eq!(y_t.into_dyn(), y.index_axis(Axis(1), t));
    }
    assert_eq!(state, expected);

    let (layer, x) = (Gru::new(2, 3).build::<f64>().unwrap(), numbers(2));
    let (y, expected) = layer.infer(&x).unwrap();
    let mut state = layer.initial_state(ROWS).unwrap();
    for t in 0..TIME {
        let y_t = layer.step(x.index_axis(Axis(1), t), &mut state).unwrap();
        assert_eq!(y_t.into_dyn(), y.index_axis(Axis(1), t));
    }
    assert_eq!(state, expected);
}

#[test]
fn the_defaults_are_those_of_python() {
    let options = *builder(true).seed(0).build().unwrap().options();
    assert_eq!(options.clip_norm, Some(1.0));
    assert_eq!((options.clip_value, options.bptt, options.seed), (None, None, 0));
    let without = builder(true).clip_norm(None).build().unwrap();
    assert_eq!(without.options().clip_norm, None);
}

/// Whether the call was refused with this message and changed nothing.
fn refused<'a>(
    trainer: &mut Trainer<f64>,
    batch: impl Into<Batch<'a, f64>>,
    targets: impl Into<Targets<'a, f64>>,
    expected: &str,
) {
    let (batch, targets) = (batch.into(), targets.into());
    let (before, done) = (bits(&trainer.model), trainer.steps_done());
    let evaluation = trainer.evaluate(batch.clone(), targets.clone());
    let error = trainer.step(batch, targets).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(evaluation.unwrap_err(), error);
    assert_eq!((bits(&trainer.model), trainer.steps_done()), (before, done));
}

#[test]
fn what_does_not_fit_is_refused_by_name_before_anything_changes() {
    let (x, y) = (ids(1), ids(2));
    for bptt in [None, Some(2)] {
        let trainer = &mut builder(true).bptt(bptt).build().unwrap();
        refused(trainer, &x, y.slice(s![.., 1..]), "target: expected the shape (3, 7), got (3, 6)");
        let rows = Array1::<i64>::zeros(ROWS);
        refused(trainer, &x, &rows, "target: expected the shape (3, 7), got (3,)");
        let real = numbers(CLASSES);
        refused(trainer, &x, &real, "target: expected integers (a class each), got numbers");
        refused(
            trainer,
            &real,
            &y,
            "x: expected integer ids, as layer 0 (Embedding) takes, got float64",
        );
        let mut late = y.clone();
        late[[2, 6]] = 5;
        refused(trainer, &x, &late, "target[2, 6]: expected a class in 0..5, got 5");

        let of_time = &mut builder(false).bptt(bptt).build().unwrap();
        let message = "target[6, 2]: expected a class in 0..5, got 5";
        refused(of_time, x.t(), late.t(), message);
        let mut wild = x.clone();
        wild[[2, 6]] = -1;
        refused(of_time, wild.t(), y.t(), "x[6, 2]: expected an id in 0..5, got -1");
        refused(trainer, &wild, &y, "x[2, 6]: expected an id in 0..5, got -1");

        let lengths = [7, 7];
        let message = "lengths: expected 3 (one a row), got 2";
        refused(trainer, Batch::from(&x).lengths(&lengths), &y, message);
        let lengths = [7, 8, 7];
        let message = "lengths[1]: expected an integer in 0..=7 (the number of steps), got 8";
        refused(trainer, Batch::from(&x).lengths(&lengths), &y, message);
        let mask = mask();
        let message = "mask: expected the shape (3, 7), got (7, 3)";
        refused(trainer, Batch::from(&x).mask(mask.t()), &y, message);
        let both = Batch::from(&x).mask(mask.view()).lengths(&LENGTHS);
        refused(trainer, both, &y, "lengths and mask: expected at most one of them, got both");

        let message = "states: expected 1 (one for each recurrent layer), got 0";
        refused(trainer, Batch::from(&x).state(Vec::new()), &y, message);
        let of_two = trainer.model.initial_state(2).unwrap();
        let message = "state of layer 1 (LSTM): h: expected the shape (2, 3, 6), got (2, 2, 6)";
        refused(trainer, Batch::from(&x).state(of_two), &y, message);
        let mut turned = trainer.model.initial_state(ROWS).unwrap();
        turned[0].c = Some(Array3::zeros((ROWS, 2, 6)));
        let message = "state of layer 1 (LSTM): c: expected the shape (2, 3, 6), got (3, 2, 6)";
        refused(trainer, Batch::from(&x).state(turned), &y, message);
        let mut h_alone = trainer.model.initial_state(ROWS).unwrap();
        h_alone[0].c = None;
        let message = "state of layer 1 (LSTM): expected h and c, got h alone";
        refused(trainer, Batch::from(&x).state(h_alone), &y, message);
    }

    let trainer = &mut Trainer::new(regressor(), Mse::mean(), Adam::new(0.1)).build().unwrap();
    let (x, y) = (numbers(2), Array2::<f64>::zeros((ROWS, 2)));
    refused(trainer, &x, &y.t().to_owned(), "target: expected the shape (3, 2), got (2, 3)");
    refused(trainer, &x, &x, "target: expected the shape (3, 2), got (3, 7, 2)");
    refused(trainer, &x, &ids(1), "target: expected numbers, as the outputs, got integers");
    refused(trainer, &numbers(3), &y, "x: expected 2 numbers a step, got 3");
    refused(trainer, &ids(1), &y, "x: expected numbers, as layer 0 (GRU) takes, got ids");
}

#[test]
fn targets_of_one_number_need_no_last_dimension() {
    let (x, y) = (numbers(2), numbers(1));
    let short = y.index_axis(Axis(2), 0);
    let rows = short.column(0);
    let at_steps = vec![Gru::new(2, 1).build().unwrap()];
    let at_rows = vec![Gru::new(2, 1).build().unwrap(), Layer::MeanPool];
    for (layers, full, short, message) in [
        (
            at_steps,
            y.view().into_dyn(),
            short.into_dyn(),
            "target: expected the shape (3, 7), got (3,)",
        ),
        (
            at_rows,
            rows.insert_axis(Axis(1)).into_dyn(),
            rows.into_dyn(),
            "target: expected the shape (3, 1), got (3, 7)",
        ),
    ] {
        let model = Sequential::<f64>::new(layers).unwrap();
        let mut trainer = Trainer::new(model, Mse::mean(), Adam::new(0.1)).build().unwrap();
        let found = trainer.evaluate(&x, full).unwrap();
        assert_eq!(trainer.evaluate(&x, short.clone()).unwrap(), found);
        let wrong = match short.ndim() {
            1 => y.index_axis(Axis(2), 0).into_dyn(),
            _ => rows.into_dyn(),
        };
        refused(&mut trainer, &x, wrong, message);
    }
}

#[test]
fn options_that_make_no_trainer_are_refused_by_name() {
    let message = |builder: TrainerBuilder<f64>| builder.build().unwrap_err().to_string();
    let built = || builder(true);
    assert!(message(built().clip_norm(0.0)).starts_with("clip_norm: "));
    assert!(message(built().clip_value(f64::NAN)).starts_with("clip_value: "));
    assert!(message(built().bptt(0)).starts_with("bptt: "));
    let optimizer: OptimizerSpec = Adam::new(-1.0).into();
    assert!(message(Trainer::new(regressor(), Mse::sum(), optimizer)).starts_with("lr: "));
    let bptt = Trainer::new(regressor(), Mse::sum(), Adam::default()).bptt(5);
    let expected = "bptt: expected none, as layer 0 (GRU) needs the whole sequence, got 5";
    assert_eq!(message(bptt), expected);
}

#[test]
fn an_option_that_is_not_there_is_refused_by_name() {
    let json = r#"{"kind": "lstm", "input_size": 2, "hidden_size": 3, "num_layers": 1,
        "bias": true, "bidirectional": false, "dropout": 0.0, "proj_size": 0,
        "forget_bias": 1.0, "batch_first": true, "residual": 0.5}"#;
    let message = serde_json::from_str::<LayerSpec>(json).unwrap_err().to_string();
    assert!(message.contains("residual"), "{message}");
    let without = json.replace(r#", "residual": 0.5"#, "");
    assert_eq!(
        serde_json::from_str::<LayerSpec>(&without).unwrap(),
        LayerSpec::Lstm(Lstm::new(2, 3))
    );
}

/// What there was before there were peepholes says nothing of them, and still does not.
#[test]
fn an_lstm_without_peepholes_is_described_as_it_was_before_there_were_any() {
    let plain = LayerSpec::Lstm(Lstm::new(2, 3));
    let json = serde_json::to_string(&plain).unwrap();
    assert!(!json.contains("peepholes"), "{json}");
    assert_eq!(serde_json::from_str::<LayerSpec>(&json).unwrap(), plain);
    let with = LayerSpec::Lstm(Lstm::new(2, 3).peepholes(true));
    let json = serde_json::to_string(&with).unwrap();
    assert!(json.contains(r#""peepholes":true"#), "{json}");
    assert_eq!(serde_json::from_str::<LayerSpec>(&json).unwrap(), with);
}

#[test]
fn tapes_and_gradients_that_do_not_fit_are_refused_by_name() {
    let mut model = tagger(true);
    let (y, state, tape) = model.forward(&ids(1), None).unwrap();
    assert_eq!(y, model.infer(&ids(1)).unwrap().0);
    let refused = |d_y: Option<&ArrayD<f64>>, d_state| {
        let d_y = d_y.map(|d_y| d_y.view());
        model.backward(&tape, d_y, d_state).unwrap_err().to_string()
    };
    let message = "d_y and d_state: expected at least one of them, got neither";
    assert_eq!(refused(None, None), message);
    let turned = y.clone().permuted_axes(IxDyn(&[1, 0, 2]));
    let message = "d_y: expected the shape (3, 7, 5), got (7, 3, 5)";
    assert_eq!(refused(Some(&turned), None), message);
    let of_two = model.initial_state(2).unwrap();
    let message = "d_state of layer 1 (LSTM): h: expected the shape (2, 3, 6), got (2, 2, 6)";
    assert_eq!(refused(Some(&y), Some(&of_two)), message);

    let alone = model.backward(&tape, None, Some(&state)).unwrap();
    let zeros = ArrayD::zeros(y.raw_dim());
    assert_eq!(model.backward(&tape, Some(zeros.view()), Some(&state)).unwrap(), alone);
    assert!(alone.x.is_none());
    model.layers_mut()[1].numbers_mut()[0] = 0.0;
    let stale = model.backward(&tape, Some(y.view()), None).unwrap_err();
    assert!(matches!(stale, Error::State { .. }), "{stale}");
}

#[test]
fn empty_batches_work() {
    let model = tagger(true);
    for shape in [(0, TIME), (ROWS, 0)] {
        let x = Array2::<i64>::zeros(shape);
        let (y, state, tape) = model.forward(&x, None).unwrap();
        assert_eq!(y.shape(), [shape.0, shape.1, CLASSES]);
        assert_eq!(state, model.initial_state(shape.0).unwrap());
        let gradients = model.backward(&tape, Some(y.view()), None).unwrap();
        assert!(gradients.params.values().flatten().all(|&d| d == 0.0));
        let mut trainer = builder(true).build().unwrap();
        assert_eq!(trainer.step(&x, &x).unwrap().loss, 0.0);
        assert_eq!(trainer.steps_done(), 0);
    }
}
