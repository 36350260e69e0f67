//! Models with small weights from Rust: arrays, files, the report, and what is refused. What they
//! compute is compared in `seqrs-cpu` (with loops) and in `tests/python` (with NumPy).

use ndarray::{Array2, Array3, Axis};
use seqrs::{
    Adam, AnyModel, Batch, Embedding, Error, Gru, Linear, Lstm, Mse, Quantisation, Quantised,
    Sequential, StreamPool, Trainer, TrainerOptions,
};

fn model() -> Sequential<f32> {
    Sequential::new(vec![
        Lstm::new(5, 40).layers(2).build().unwrap(),
        Gru::new(40, 33).seed(1).build().unwrap(),
        Linear::new(33, 3).seed(2).build().unwrap(),
    ])
    .unwrap()
}

fn x() -> Array3<f32> {
    Array3::from_shape_fn((4, 9, 5), |(b, t, i)| ((b * 45 + t * 5 + i) as f32).sin())
}

#[test]
fn steps_make_the_sequence() {
    for kind in Quantisation::ALL {
        let small = model().quantised(kind).unwrap();
        let x = x();
        let (y, last) = small.model().infer(&x).unwrap();
        let mut state = small.model().initial_state(4).unwrap();
        for t in 0..9 {
            let y_t = small.model().step(x.index_axis(Axis(1), t), &mut state).unwrap();
            assert_eq!(y_t.into_dyn(), y.index_axis(Axis(1), t));
        }
        assert_eq!(state, last);
    }
}

#[test]
fn ids_and_lengths_are_read_as_by_any_model() {
    let model = Sequential::<f32>::new(vec![
        Embedding::new(7, 6).build().unwrap(),
        Gru::new(6, 20).reset_after(true).build().unwrap(),
    ])
    .unwrap();
    let small = model.quantised(Quantisation::Int8).unwrap();
    let ids = Array2::from_shape_fn((3, 4), |(b, t)| ((b + t) % 7) as i64);
    let (y, _) = small.model().infer(Batch::from(ids.view()).lengths(&[4, 0, 2])).unwrap();
    let row = |b: usize, t: usize| y.index_axis(Axis(0), b).index_axis(Axis(0), t).to_owned();
    assert!(row(1, 0).iter().chain(row(2, 2).iter()).all(|&v| v == 0.0));
    let mut state = small.model().initial_state(3).unwrap();
    let first = small.model().step_ids(&[0, 1, 2], &mut state).unwrap();
    assert_eq!(first.row(2).to_owned().into_dyn(), row(2, 0));
}

#[test]
fn files_come_back_and_are_no_others() {
    let path = std::env::temp_dir().join(format!("seqrs-quantised-{}", std::process::id()));
    for kind in Quantisation::ALL {
        let small = model().quantised(kind).unwrap();
        small.save(&path).unwrap();
        let back = Quantised::load(&path).unwrap();
        assert_eq!(back.kind(), kind);
        assert_eq!(back.model().infer(&x()).unwrap().0, small.model().infer(&x()).unwrap().0);
        assert_eq!(back.fingerprint(), small.fingerprint());
        assert_eq!(back.to_bytes(), small.to_bytes());
        assert!(matches!(seqrs::load(&path), Ok(AnyModel::Quantised(_))));
        let message = Sequential::<f32>::load(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("expected float32, got {kind}")), "{message}");
        model().save(&path).unwrap();
        let message = Quantised::load(&path).unwrap_err().to_string();
        assert!(message.contains("expected small ones (int8 or bf16), got float32"), "{message}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_report_needs_the_original() {
    let small = model().quantised(Quantisation::Bf16).unwrap();
    let report = small.report(&x()).unwrap();
    let layers: Vec<_> = report.layers.iter().map(|layer| (layer.layer, layer.name)).collect();
    assert_eq!(layers, [(0, "LSTM"), (1, "GRU"), (2, "Linear")]);
    assert!(report.output.largest > 0.0 && report.output.relative < 0.01);
    assert_eq!(report.bytes, [small.parameter_bytes(), 4 * small.model().num_parameters()]);
    let error = small.without_original().report(&x()).unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
}

/// It is a model like any other, until someone wants its numbers.
#[test]
fn what_needs_numbers_is_refused() {
    let small = model().quantised(Quantisation::Int8).unwrap();
    let model = small.model().clone();
    let refused = |error: Error| {
        let expected = "layer 0 (LSTM): expected weights of float32, got int8, which is for \
                        inference alone";
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, Error::State { .. }));
    };
    refused(model.forward(&x(), None).unwrap_err());
    refused(model.quantised(Quantisation::Bf16).unwrap_err());
    refused(model.widened().unwrap_err());
    let options = TrainerOptions::new(Mse::mean(), Adam::new(0.1));
    refused(Trainer::with_options(model.clone(), options).unwrap_err());
    assert!(model.layers()[0].numbers().is_empty());
    assert_eq!(model.num_parameters(), self::model().num_parameters());
}

/// A pool of streams of small weights gives what the model gives each alone.
#[test]
fn streams_are_stepped() {
    for kind in Quantisation::ALL {
        let small = model().quantised(kind).unwrap();
        let (y, _) = small.model().infer(&x()).unwrap();
        let pool = StreamPool::new(small.model().clone(), 8).unwrap();
        let streams: Vec<_> = (0..4).map(|_| pool.open().unwrap()).collect();
        for t in 0..9 {
            let x = x();
            let y_t = pool.step(&streams, x.index_axis(Axis(1), t)).unwrap();
            assert_eq!(y_t.into_dyn(), y.index_axis(Axis(1), t));
        }
    }
}

/// A layer's clone shares its small weights, and set numbers make it one like others.
#[test]
fn numbers_that_are_set_take_the_place_of_small_ones() {
    let small = model().quantised(Quantisation::Int8).unwrap();
    let mut layer = small.model().layers()[2].clone();
    assert_eq!(layer.quantisation(), Some(Quantisation::Int8));
    assert!(layer.numbers_mut().is_empty());
    layer.set_numbers(model().layers()[2].numbers().to_vec()).unwrap();
    assert_eq!(layer.quantisation(), None);
    assert_eq!(layer.numbers(), model().layers()[2].numbers());
    assert_eq!(small.model().layers()[2].quantisation(), Some(Quantisation::Int8));
}

/// No file is written that cannot be read again.
#[test]
fn a_part_of_a_small_model_is_not_saved() {
    let [int8, bf16] = Quantisation::ALL.map(|kind| model().quantised(kind).unwrap());
    let expected = "what is saved: expected a model of int8 weights in all layers that have \
                    matrices, got ";
    let refused = |result: Result<Vec<u8>, Error>, got: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), format!("{expected}{got}"));
        assert!(matches!(error, Error::State { .. }));
    };
    let of = |small: &Quantised, k: usize| small.model().layers()[k].clone();
    refused(of(&int8, 0).to_bytes(), "a single layer");
    let mixed = |last| Sequential::new(vec![of(&int8, 0), of(&int8, 1), last]).unwrap();
    refused(mixed(of(&bf16, 2)).to_bytes(), "one of bf16 weights beside it (Linear)");
    let full = model().layers()[2].clone();
    refused(mixed(full).to_bytes(), "one of float32 weights beside it (Linear)");
    assert_eq!(mixed(of(&int8, 2)).to_bytes(), int8.to_bytes());
}
