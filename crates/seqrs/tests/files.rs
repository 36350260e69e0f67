//! Model files: what is saved comes back bit for bit, and what is no model file is refused
//! with a typed error, soon, in little memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use seqrs::files::{ForeignTensor, foreign_tensors};
use seqrs::{
    Activation, AnyModel, Dropout, Embedding, Error, FunctionName, Gru, Layer, LayerNorm,
    LayerSpec, Linear, LoadOptions, Lstm, Number, Rnn, Sequential, atomic,
};
use serde_json::{Value, json};
use xxhash_rust::xxh64::Xxh64;

/// A directory of its own for a test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("seqrs-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn every_spec() -> Vec<LayerSpec> {
    vec![
        LayerSpec::Rnn(Rnn::new(2, 3).layers(2).bidirectional(true)),
        LayerSpec::Rnn(Rnn::new(2, 3).nonlinearity(FunctionName::Relu).bias(false)),
        LayerSpec::Lstm(Lstm::new(2, 5).proj_size(3).layers(3).dropout(0.1).seed(u64::MAX)),
        LayerSpec::Lstm(Lstm::new(2, 3).bidirectional(true).forget_bias(-0.30000000000000004)),
        LayerSpec::Lstm(Lstm::new(2, 5).proj_size(3).layers(2).peepholes(true)),
        LayerSpec::Gru(Gru::new(2, 3).batch_first(false)),
        LayerSpec::Gru(Gru::new(2, 3).reset_after(true).layers(2)),
        LayerSpec::Embedding(Embedding::new(7, 2).padding_idx(6)),
        LayerSpec::Linear(Linear::new(2, 4)),
        LayerSpec::Linear(Linear::new(2, 4).bias(false)),
        LayerSpec::LayerNorm(LayerNorm::new(6).eps(1e-6)),
        LayerSpec::Dropout(Dropout::new(0.3).seed(4)),
        LayerSpec::Last {},
        LayerSpec::MeanPool {},
        LayerSpec::MaxPool {},
        LayerSpec::Activation { function: Activation::Softmax },
    ]
}

fn sequential<T: Number>() -> Sequential<T> {
    Sequential::new(vec![
        Embedding::new(5, 3).build().unwrap(),
        Lstm::new(3, 2).build().unwrap(),
        Dropout::new(0.5).build().unwrap(),
        Layer::Last,
        Linear::new(2, 5).seed(3).build().unwrap(),
    ])
    .unwrap()
}

fn bits<T: Number>(layer: &Layer<T>) -> Vec<u64> {
    layer.numbers().iter().map(|&number| Number::to_f64(number).to_bits()).collect()
}

fn from_bytes(bytes: &[u8]) -> Result<AnyModel, Error> {
    AnyModel::from_bytes(bytes, &LoadOptions::default())
}

fn is_refused(bytes: &[u8]) -> bool {
    matches!(from_bytes(bytes), Err(Error::ModelFile { .. }))
}

#[test]
fn every_layer_comes_back_with_the_same_bits() {
    fn check<T: Number>(scratch: &Scratch) {
        for (k, spec) in every_spec().into_iter().enumerate() {
            let layer = Layer::<T>::new(spec.clone()).unwrap();
            let path = scratch.0.join(format!("{k}.safetensors"));
            layer.save(&path).unwrap();
            let back = Layer::<T>::load(&path).unwrap();
            assert_eq!(back.spec(), spec);
            assert_eq!(bits(&back), bits(&layer));
            assert_eq!(back.fingerprint(), layer.fingerprint());
            let any = seqrs::load(&path).unwrap();
            assert_eq!(any.dtype(), T::DTYPE);
            assert_eq!(any.to_bytes().unwrap(), fs::read(&path).unwrap());
            let message = Sequential::<T>::load(&path).unwrap_err().to_string();
            assert!(message.ends_with("expected a list of layers, got a single layer"));
        }
    }
    let scratch = Scratch::new("layers");
    check::<f32>(&scratch);
    check::<f64>(&scratch);
}

#[test]
fn a_file_of_any_library_says_where_its_arrays_lie() {
    let scratch = Scratch::new("foreign");
    let path = scratch.0.join("foreign.safetensors");
    let header = r#"{"b":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[4,7]},"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    let data = bytes.len() as u64;
    bytes.extend_from_slice(&[7; 7]);
    fs::write(&path, &bytes).unwrap();
    let tensor = |name: &str, dtype: &str, shape: &[u64], begin, end| ForeignTensor {
        name: name.to_owned(),
        dtype: dtype.to_owned(),
        shape: shape.to_vec(),
        bytes: data + begin..data + end,
    };
    let expected = [tensor("a", "F32", &[1, 1], 0, 4), tensor("b", "F8_E4M3", &[3], 4, 7)];
    assert_eq!(foreign_tensors(&path).unwrap(), expected);

    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let message = foreign_tensors(&path).unwrap_err().to_string();
    assert!(message.contains("data of the file: expected 7 bytes"), "{message}");
}

#[test]
fn a_model_comes_back_with_the_same_bits_and_only_as_what_it_is() {
    let scratch = Scratch::new("models");
    let path = scratch.0.join("model.safetensors");
    let model = sequential::<f64>();
    model.save(&path).unwrap();
    let back = Sequential::<f64>::load(&path).unwrap();
    for (a, b) in model.layers().iter().zip(back.layers()) {
        assert_eq!((a.spec(), bits(a)), (b.spec(), bits(b)));
    }
    assert!(matches!(seqrs::load(&path), Ok(AnyModel::SequentialF64(_))));
    let message = Sequential::<f32>::load(&path).unwrap_err().to_string();
    assert!(message.ends_with("dtype: expected float32, got float64"), "{message}");
    assert!(message.contains("model.safetensors"), "{message}");
    assert!(Layer::<f64>::load(&path).is_err());
}

#[test]
fn a_fingerprint_knows_the_structure_and_every_number() {
    let model = sequential::<f32>();
    assert_eq!(model.fingerprint(), sequential::<f32>().fingerprint());
    assert_ne!(model.fingerprint(), sequential::<f64>().fingerprint());
    let mut other = model.clone();
    *other.layers_mut()[4].numbers_mut().last_mut().unwrap() += 1.0;
    assert_ne!(model.fingerprint(), other.fingerprint());
}

/// A model file in parts, to be changed and put together again.
#[derive(Clone)]
struct Parts {
    header: serde_json::Map<String, Value>,
    data: Vec<u8>,
}

impl Parts {
    fn of(bytes: &[u8]) -> Self {
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        Self {
            header: serde_json::from_slice(&bytes[8..8 + n]).unwrap(),
            data: bytes[8 + n..].to_vec(),
        }
    }

    fn metadata(&mut self) -> &mut serde_json::Map<String, Value> {
        self.header["__metadata__"].as_object_mut().unwrap()
    }

    fn structure(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_str(self.metadata()["structure"].as_str().unwrap());
        change(value.as_mut().unwrap());
        self.metadata()["structure"] = value.unwrap().to_string().into();
    }

    /// With a checksum that fits.
    fn bytes(mut self) -> Vec<u8> {
        let metadata = self.metadata();
        metadata.remove("checksum");
        let sorted: BTreeMap<_, _> = metadata.iter().collect();
        let mut hash = Xxh64::new(0);
        for (key, value) in sorted {
            hash.update(format!("{key}\0{}\0", value.as_str().unwrap_or_default()).as_bytes());
        }
        metadata.insert("checksum".into(), format!("{:016x}", hash.digest()).into());
        self.bytes_as_they_are()
    }

    fn bytes_as_they_are(self) -> Vec<u8> {
        let header = Value::Object(self.header).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &self.data].concat()
    }
}

fn lstm() -> Parts {
    Parts::of(&Lstm::new(2, 3).bidirectional(true).build::<f32>().unwrap().to_bytes().unwrap())
}

/// The message that refuses these bytes, soon; on a busy machine, at the third try.
fn refused(bytes: &[u8]) -> String {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let error = from_bytes(bytes).expect_err("a hostile file was read");
        fastest = fastest.min(start.elapsed());
        assert!(matches!(error, Error::ModelFile { .. }), "{error:?}");
        if fastest < Duration::from_millis(100) {
            return error.to_string();
        }
    }
    panic!("took {fastest:?}");
}

#[test]
fn a_file_put_together_again_is_read() {
    assert!(from_bytes(&lstm().bytes()).is_ok());
}

#[test]
fn metadata_that_is_not_ours_is_refused_by_key() {
    let with = |key: &str, value: Value| {
        let mut parts = lstm();
        parts.metadata().insert(key.into(), value);
        parts.bytes()
    };
    for (key, value, expected) in [
        ("format", "pt", "format in the metadata: expected \"seqrs\""),
        ("format_version", "0", "format_version: expected an integer of at least 1, got 0"),
        ("format_version", "+1", "format_version"),
        ("min_reader", "3", "min_reader: expected at most 2 (a newer seqrs reads this file)"),
        ("min_reader", "1.0", "min_reader: expected an integer"),
        ("dtype", "float16", "dtype: expected float32 or float64, got float16"),
        ("dtype", "float64", "data of the file: expected 1344 bytes"),
        ("author", "\u{1b}[31m", "got author"),
        ("\u{202e}", "", "got \\u{202e}"),
        ("structure", "", "structure: expected a layer or a list of layers, as JSON, got EOF"),
        ("structure", "[]", "structure: expected at least one layer"),
        ("structure", "7", "structure: expected a layer or a list"),
        ("structure", "[[\"last\"]]", "structure[0]: expected an object"),
        ("structure", "{\"kind\":\"last\",\"k\\u0069nd\":\"last\"}", "the key \"kind\" twice"),
    ] {
        let message = refused(&with(key, value.into()));
        assert!(message.contains(expected), "{message}");
    }
    let deep = "[".repeat(100_000);
    assert!(refused(&with("structure", deep.into())).contains("recursion limit"));
    let long = format!("[{}]", vec!["{\"kind\":\"last\"}"; 50_000].join(","));
    assert!(refused(&with("structure", long.into())).contains("at most 262144 bytes"));
    for key in ["format", "format_version", "min_reader", "dtype", "structure"] {
        let mut parts = lstm();
        parts.metadata().remove(key);
        assert!(refused(&parts.bytes()).contains(key));
    }
    let mut parts = lstm();
    parts.header.remove("__metadata__");
    assert!(refused(&parts.bytes_as_they_are()).contains("a file that seqrs saved"));
    let mut parts = lstm();
    parts.metadata()["checksum"] = "0000000000000000".into();
    assert!(refused(&parts.bytes_as_they_are()).contains("checksum of the metadata"));
}

#[test]
fn structures_that_are_none_are_refused_by_option() {
    for (option, value, expected) in [
        ("hidden_size", json!(0), "structure.hidden_size: expected an integer of at least 1"),
        ("hidden_size", json!(-1), "invalid value: integer `-1`"),
        ("hidden_size", json!(3.0), "invalid type: floating point"),
        ("hidden_size", json!("3"), "invalid type: string"),
        ("hidden_size", json!(null), "invalid type: null"),
        ("hidden_size", json!(1_u64 << 31), "parameters that fit in memory"),
        ("hidden_size", json!(1_u64 << 27), "data of the file: expected"),
        ("hidden_size", json!(1_u64 << 40), "parameters that fit in memory"),
        ("hidden_size", json!(u64::MAX), "structure."),
        ("input_size", json!(1_u64 << 31), "data of the file: expected"),
        ("num_layers", json!(1_000_000_000), "num_layers: expected an integer of at most 1000"),
        ("num_layers", json!(2), "data of the file: expected"),
        ("dropout", json!(1.0), "structure.dropout"),
        ("proj_size", json!(3), "structure.proj_size"),
        ("bidirectional", json!(1), "invalid type: integer"),
        ("bidirectional", json!(false), "data of the file: expected"),
        ("kind", json!("gru"), "unknown field"),
        ("kind", json!("pickle"), "unknown variant"),
        ("\u{1b}[31m", json!(1), "unknown field `\\u{1b}[31m`"),
    ] {
        let mut parts = lstm();
        parts.structure(|structure| {
            structure[option] = value.clone();
        });
        let message = refused(&parts.bytes());
        assert!(message.contains(expected), "{option} = {value}: {message}");
        assert!(!message.contains('\u{1b}'));
    }
    for option in ["hidden_size", "bias", "kind"] {
        let mut parts = lstm();
        parts.structure(|structure| {
            structure.as_object_mut().unwrap().remove(option);
        });
        assert!(refused(&parts.bytes()).contains(&format!("missing field `{option}`")));
    }
    for spec in every_spec() {
        let layer = Layer::<f32>::new(spec).unwrap();
        let mut parts = Parts::of(&layer.to_bytes().unwrap());
        parts.structure(|structure| structure["exec"] = json!("rm"));
        assert!(refused(&parts.bytes()).contains("exec"), "{}", layer.name());
    }
    let mut parts = Parts::of(&sequential::<f32>().to_bytes().unwrap());
    parts.structure(|structure| structure.as_array_mut().unwrap().swap(1, 4));
    refused(&parts.bytes());
    let mut parts = lstm();
    parts.structure(|structure| *structure = json!([structure]));
    assert!(refused(&parts.bytes()).contains("tensors of the file"));
}

#[test]
fn layers_that_do_not_fit_each_other_are_refused() {
    let mut parts = Parts::of(&sequential::<f32>().to_bytes().unwrap());
    parts.structure(|structure| structure[3] = json!({"kind": "last"}));
    assert!(from_bytes(&parts.clone().bytes()).is_ok());
    parts.structure(|structure| {
        structure.as_array_mut().unwrap().push(json!({"kind": "max_pool"}));
    });
    assert!(refused(&parts.bytes()).contains("structure: layer 5 (MaxPool)"));
}

#[test]
fn tensors_that_do_not_follow_from_the_structure_are_refused_by_name() {
    let rename = |parts: &mut Parts, from: &str, to: &str| {
        let entry = parts.header.remove(from).unwrap();
        parts.header.insert(to.into(), entry);
    };
    for strange in ["../weight", "weight\0", "weight\n", "\u{1b}[2J", "\u{202e}weight", ""] {
        let mut parts = lstm();
        rename(&mut parts, "weight_hh_l0", strange);
        let message = refused(&parts.bytes());
        assert!(message.contains("tensors of the file"), "{message}");
        assert!(!message.contains(['\0', '\n', '\u{1b}', '\u{202e}']), "{message:?}");
    }
    let mut parts = lstm();
    rename(&mut parts, "bias_hh_l0_reverse", "bias_hh_l1");
    assert!(refused(&parts.bytes()).contains("bias_hh_l1"));

    // A GRU's weights for an LSTM, the sizes chosen so that the numbers are as many.
    let mut parts = lstm();
    let gru = Gru::new(2, 4).reset_after(true).build::<f32>().unwrap();
    parts.structure(|structure| *structure = serde_json::to_value(gru.spec()).unwrap());
    refused(&parts.bytes());

    let edit = |name: &str, key: &str, value: Value| {
        let mut parts = lstm();
        parts.header[name][key] = value;
        refused(&parts.bytes())
    };
    for (key, value, expected) in [
        ("dtype", json!("F64"), "dtype of \"weight_ih_l0\": expected F32, got F64"),
        ("dtype", json!("F33"), "dtype of \"weight_ih_l0\": expected F32, got F33"),
        ("shape", json!([2, 12]), "shape of \"weight_ih_l0\": expected [12, 2], got [2, 12]"),
        ("shape", json!([24]), "shape of \"weight_ih_l0\""),
        ("shape", json!([1_u64 << 32, 1_u64 << 32]), "shape of \"weight_ih_l0\""),
        ("shape", json!([0, 1_u64 << 62]), "shape of \"weight_ih_l0\""),
        ("shape", json!(vec![1; 1000]), "more than 32 sizes"),
        ("shape", json!([-1, 2]), "invalid value"),
        ("shape", json!([12, 2.0]), "invalid type"),
        ("data_offsets", json!([0, 92]), "data_offsets of"),
        ("data_offsets", json!([96, 0]), "data_offsets of"),
    ] {
        let message = edit("weight_ih_l0", key, value);
        assert!(message.contains(expected), "{message}");
    }
    // The sizes of two neighbours traded, so that offsets tile and the shapes alone are right.
    let mut parts = lstm();
    parts.header["weight_ih_l0"]["data_offsets"] = json!([0, 144]);
    parts.header["weight_hh_l0"]["data_offsets"] = json!([144, 240]);
    assert!(refused(&parts.bytes()).contains("data_offsets of \"weight_"));
}

#[test]
fn large_headers_are_refused_soon() {
    let framed =
        |header: String| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let tensors = |count: usize| {
        let entry = |k| format!(r#""{k}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        framed(format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(",")))
    };
    for (bytes, expected) in [
        (framed(" ".repeat(100 << 20)), "length of the header"),
        (framed(" ".repeat(4 << 20)), "a JSON object"),
        (framed(format!("{{\"a\":{}}}", "[".repeat(4_000_000))), "header"),
        (
            framed(format!("{{\"a\":{{\"shape\":[{}0]}}}}", "0,".repeat(2_000_000))),
            "more than 32 sizes",
        ),
        (tensors(200_000), "length of the header"),
        (tensors(60_000), "more than 10000 tensors"),
        (tensors(10_000), "a file that seqrs saved"),
    ] {
        let message = refused(&bytes);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn tensors_in_another_order_are_read() {
    let mut layer = Linear::new(2, 1).build::<f32>().unwrap();
    layer.set_numbers(vec![1.0, 2.0, 3.0]).unwrap();
    let mut parts = Parts::of(&layer.to_bytes().unwrap());
    parts.header["bias"]["data_offsets"] = json!([0, 4]);
    parts.header["weight"]["data_offsets"] = json!([4, 12]);
    parts.data.rotate_right(4);
    match from_bytes(&parts.bytes()).unwrap() {
        AnyModel::LayerF32(back) => assert_eq!(back.numbers(), layer.numbers()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nan_and_infinity_come_in_only_where_allowed() {
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut layer = Linear::new(2, 2).build::<f32>().unwrap();
        layer.numbers_mut()[5] = number;
        let bytes = layer.to_bytes().unwrap();
        assert!(refused(&bytes).contains("number 1 of \"bias\": expected a finite number"));
        let options = LoadOptions { allow_nonfinite: true };
        match AnyModel::from_bytes(&bytes, &options).unwrap() {
            AnyModel::LayerF32(back) => assert_eq!(bits(&back), bits(&layer)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_cut_off_anywhere_or_longer_is_refused() {
    let bytes = sequential::<f32>().to_bytes().unwrap();
    for len in 0..bytes.len() {
        assert!(is_refused(&bytes[..len]), "{len}");
    }
    refused(&[&bytes[..], &[0]].concat());
}

#[test]
fn every_flipped_bit_of_the_header_is_found() {
    for bytes in [
        sequential::<f32>().to_bytes().unwrap(),
        Gru::new(1, 1).dropout(0.5).seed(77).build::<f64>().unwrap().to_bytes().unwrap(),
    ] {
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for bit in 0..header * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(is_refused(&flipped), "bit {bit}");
        }
    }
}

#[test]
fn other_formats_are_named() {
    let scratch = Scratch::new("foreign");
    for (name, start, expected) in [
        ("model.pt", &b"PK\x03\x04\x00\x00\x08\x08\x00\x00\x00\x00\x00\x00"[..], "zip"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch\x1a\x051.0", "this version does not read"),
        ("model.txt", b"hello, world, this is text", r#"begins with "hello, world, th""#),
        ("model.elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\0", r#"begins with "\x7fELF\x02"#),
        ("model.gguf", b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00\x00", "GGUF"),
    ] {
        let path = scratch.0.join(name);
        fs::write(&path, start).unwrap();
        let message = seqrs::load(&path).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(name), "{message}");
    }
}

proptest! {
    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(is_refused(&bytes));
        let framed = [&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat();
        prop_assert!(is_refused(&framed));
    }

    #[test]
    fn a_damaged_file_is_refused_or_has_the_same_structure(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let model = sequential::<f32>();
        let mut bytes = model.to_bytes().unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        match from_bytes(&bytes) {
            Ok(AnyModel::SequentialF32(back)) => {
                let specs = |model: &Sequential<f32>| -> Vec<LayerSpec> {
                    model.layers().iter().map(Layer::spec).collect()
                };
                prop_assert_eq!(specs(&back), specs(&model));
            }
            result => prop_assert!(matches!(result, Err(Error::ModelFile { .. })), "{:?}", result),
        }
    }
}

const WRITER: &str = "SEQRS_TEST_WRITE_TO";

/// Not a test of its own: what [`a_killed_writer_leaves_a_whole_file`] runs and kills.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    for k in 0_u8.. {
        atomic::write(path.as_ref(), &vec![k; 3_000_000]).unwrap();
        if k == u8::MAX {
            break;
        }
    }
}

#[test]
fn a_killed_writer_leaves_a_whole_file() {
    let scratch = Scratch::new("killed");
    let path = scratch.0.join("model");
    atomic::write(&path, &[0; 3_000_000]).unwrap();
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer"])
            .env(WRITER, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 + 9 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 3_000_000 && bytes.iter().all(|&byte| byte == bytes[0]));
    }
    atomic::write(&path, b"last").unwrap();
    let names: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["model"]);
}
