//! Models with small weights from Rust: arrays, files, the report, and what is refused. What they
//! compute is compared in `seqrs-cpu` (with loops) and in `tests/python` (with NumPy).

use ndarray::{Array2, Array3, Axis};
use seqrs::{
    AnyModel, Batch, Embedding, Error, Gru, Linear, Lstm, Quantisation, Quantised, Sequential,
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
        let (y, last) = small.infer(&x).unwrap();
        let mut state = small.initial_state(4).unwrap();
        for t in 0..9 {
            let y_t = small.step(x.index_axis(Axis(1), t), &mut state).unwrap();
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
    let (y, _) = small.infer(Batch::from(ids.view()).lengths(&[4, 0, 2])).unwrap();
    let row = |b: usize, t: usize| y.index_axis(Axis(0), b).index_axis(Axis(0), t).to_owned();
    assert!(row(1, 0).iter().chain(row(2, 2).iter()).all(|&v| v == 0.0));
    let mut state = small.initial_state(3).unwrap();
    let first = small.step_ids(&[0, 1, 2], &mut state).unwrap();
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
        assert_eq!(back.infer(&x()).unwrap().0, small.infer(&x()).unwrap().0);
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
    assert_eq!(report.bytes, [small.parameter_bytes(), 4 * small.num_parameters()]);
    let error = small.without_original().report(&x()).unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
}

/// The layers of the structure have no numbers, and say so.
#[test]
fn the_structure_computes_nothing() {
    let small = model().quantised(Quantisation::Int8).unwrap();
    let error = small.structure().infer(&x()).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    let linear = Sequential::from(small.structure().layers()[2].clone());
    assert!(matches!(linear.infer(&Array3::zeros((1, 1, 33))), Err(Error::Shape { .. })));
}
