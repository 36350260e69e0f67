//! `diagnose` finds what there is to find by the reference: the files of
//! `tests/golden/diagnosis.py`.

use std::path::PathBuf;

use ndarray::{Array2, Array3, ArrayD, IxDyn};
use seqrs::{
    Batch, CrossEntropy, Error, Layer, Linear, Loss, Lstm, Number, Rnn, Sequential, Targets,
    diagnose,
};
use serde_json::Value;

/// `PACKAGE_TO_REFERENCE_F64` and `_F32` of the table in tests/README.md.
const F64: f64 = 1e-10;
const F32: f64 = 3e-5;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/diagnosis")
}

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("cases.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn model(case: &Value) -> Sequential<f64> {
    let name = case["name"].as_str().unwrap();
    Sequential::load(folder().join(format!("{name}.safetensors"))).unwrap()
}

/// The same weights in another type.
fn converted<T: Number>(model: &Sequential<f64>) -> Sequential<T> {
    let layers = model.layers().iter().map(|layer| {
        let numbers = layer.numbers().iter().map(|&number| T::from_f64(number)).collect();
        Layer::with_numbers(layer.spec(), numbers).unwrap()
    });
    Sequential::new(layers.collect()).unwrap()
}

fn shape(given: &Value) -> Vec<usize> {
    serde_json::from_value(given["shape"].clone()).unwrap()
}

fn ids(given: &Value) -> ArrayD<i64> {
    let ids = serde_json::from_value(given["numbers"].clone()).unwrap();
    ArrayD::from_shape_vec(IxDyn(&shape(given)), ids).unwrap()
}

fn numbers<T: Number>(given: &Value) -> ArrayD<T> {
    let numbers: Vec<f64> = serde_json::from_value(given["numbers"].clone()).unwrap();
    let numbers = numbers.into_iter().map(T::from_f64).collect();
    ArrayD::from_shape_vec(IxDyn(&shape(given)), numbers).unwrap()
}

/// What is found, as JSON.
fn found<T: Number>(model: &Sequential<T>, case: &Value) -> Value {
    let x: Array3<T>;
    let x_ids: Array2<i64>;
    let mut batch: Batch<'_, T> = match model.takes_ids() {
        true => {
            x_ids = ids(&case["x"]).into_dimensionality().unwrap();
            (&x_ids).into()
        }
        false => {
            x = numbers(&case["x"]).into_dimensionality().unwrap();
            (&x).into()
        }
    };
    let lengths: Option<Vec<usize>> = serde_json::from_value(case["lengths"].clone()).unwrap();
    if let Some(lengths) = &lengths {
        batch = batch.lengths(lengths);
    }
    let mask: Option<Vec<Vec<u8>>> = serde_json::from_value(case["mask"].clone()).unwrap();
    let mask = mask.map(|m| Array2::from_shape_fn((m.len(), m[0].len()), |(b, t)| m[b][t] == 1));
    if let Some(mask) = &mask {
        batch = batch.mask(mask.view());
    }
    let loss: Loss = serde_json::from_value(case["loss"].clone()).unwrap();
    let (classes, values): (ArrayD<i64>, ArrayD<T>);
    let targets: Targets<'_, T> = match loss.wants_classes() {
        true => {
            classes = ids(&case["y"]);
            (&classes).into()
        }
        false => {
            values = numbers(&case["y"]);
            (&values).into()
        }
    };
    serde_json::to_value(diagnose(model, batch, targets, loss).unwrap()).unwrap()
}

/// The same names, and numbers that are close: each to its own size, and those of a list to its
/// largest.
fn assert_close(got: &Value, expected: &Value, tolerance: f64, name: &str) {
    let close = |a: f64, b: f64, size: f64| {
        assert!((a - b).abs() <= tolerance * size, "{name}: {a}, not {b}");
    };
    match (got, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let names = |object: &serde_json::Map<String, Value>| {
                let mut names: Vec<String> = object.keys().cloned().collect();
                names.sort();
                names
            };
            assert_eq!(names(a), names(b), "{name}");
            for (key, b) in b {
                assert_close(&a[key], b, tolerance, &format!("{name}.{key}"));
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{name}");
            let size = b.iter().map(|b| b.as_f64().unwrap()).fold(0.0, f64::max);
            for (a, b) in a.iter().zip(b) {
                close(a.as_f64().unwrap(), b.as_f64().unwrap(), size);
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            close(a, b, b.abs());
        }
        (a, b) => assert_eq!(a, b, "{name}"),
    }
}

#[test]
fn diagnose_finds_what_the_reference_finds() {
    let cases = cases();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        assert_close(&found(&model(&case), &case), &case["found"], F64, name);
    }
}

#[test]
fn diagnose_in_f32_finds_nearly_that() {
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let model = converted::<f32>(&model(&case));
        assert_close(&found(&model, &case), &case["found"], F32, name);
    }
}

#[test]
fn diagnose_begins_with_the_states_that_it_is_given() {
    let layers = vec![Lstm::new(2, 3).layers(2).build().unwrap(), Rnn::new(3, 4).build().unwrap()];
    let model = Sequential::<f64>::new(layers).unwrap();
    let x = Array3::from_shape_fn((2, 6, 2), |(b, t, i)| ((b * 12 + t * 2 + i) as f64).sin());
    let y = Array2::<i64>::zeros((2, 6));
    let (_, state) = model.infer(&x).unwrap();
    let (output, _) = model.infer(Batch::from(&x).state(state.clone())).unwrap();
    let found = diagnose(&model, Batch::from(&x).state(state), &y, CrossEntropy::mean()).unwrap();
    let rows = output.rows().into_iter();
    let losses = rows.map(|row| row.mapv(f64::exp).sum().ln() - row[0]);
    let expected = losses.sum::<f64>() / 12.0;
    assert!((found.loss - expected).abs() <= F64 * expected);
    let cell = &found.layers["0.l1"].states["c"];
    assert!(cell.minimum < cell.maximum);
}

#[test]
fn diagnose_refuses_what_it_cannot_describe() {
    let y = Array2::<i64>::zeros((1, 2));
    let x = Array3::<f32>::zeros((1, 2, 3));
    let linear = Sequential::from(Linear::new(3, 2).build().unwrap());
    let error = diagnose(&linear, &x, &y, CrossEntropy::mean()).unwrap_err();
    assert_eq!(error.to_string(), "model: expected an RNN, LSTM or GRU in it, got none");

    let mut rnn = Sequential::from(Rnn::new(3, 2).build().unwrap());
    let none = Batch::from(&x).lengths(&[0]);
    let error = diagnose(&rnn, none, &y, CrossEntropy::mean()).unwrap_err();
    assert_eq!(error.to_string(), "x: expected at least one live step, got none");

    rnn.layers_mut()[0].numbers_mut()[6] = f32::NAN;
    let error = diagnose(&rnn, &x, &y, CrossEntropy::mean()).unwrap_err();
    assert!(matches!(error, Error::Numerical { .. }));
    assert!(error.to_string().starts_with("0.weight_hh_l0: expected finite numbers, got NaN"));
}
