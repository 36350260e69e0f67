//! A training run in a file, to go on from as if it had never stopped.
//!
//! One safetensors file, written durably (see [`crate::atomic`]), that holds
//!
//! ```text
//! model.{layer}.{parameter}                  parameters
//! optimizer.{moment}.{layer}.{parameter}     what the optimiser remembers of each
//! ```
//!
//! and in its metadata
//!
//! | key | value |
//! |---|---|
//! | `format` | `seqrs.checkpoint` |
//! | `format_version` | the version that was written, 1 |
//! | `structure` | the list of [`LayerSpec`](crate::LayerSpec)s |
//! | `training` | kind of optimiser, updates done, seed of dropout, state of the schedule |
//! | `extra` | JSON of the caller's own |
//! | `checksum` | XXH64 of the whole file, taken with zeros in this place |
//!
//! A reader believes nothing: a file that is damaged anywhere is refused.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use seqrs_core::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh64::Xxh64;

use crate::atomic;
use crate::files::container::{Header, Limits, Tensor};
use crate::files::json::Distinct;
use crate::files::regular;
use crate::layer::Layer;
use crate::number::Number;
use crate::optimizers::Optimizer;
use crate::printable::printable;
use crate::room::{more_room, room};
use crate::schedules::Progress;
use crate::sequential::Sequential;
use crate::trainer::Trainer;

const FORMAT: &str = "seqrs.checkpoint";
const VERSION: &str = "1";
const NO_CHECKSUM: &str = "0000000000000000";

/// The entry `training` of the metadata.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Training {
    optimizer: String,
    updates: u64,
    seed: u64,
    schedule: Progress,
}

impl<T: Number> Trainer<T> {
    /// Writes everything that the rest of the run depends on, and `extra`, which
    /// [`Trainer::restore`] gives back. The file at `path`, if there is one, is replaced at
    /// once or not at all.
    ///
    /// # Errors
    /// [`Error::Numerical`] names a parameter that is NaN or infinite: such a run is not
    /// worth going on with. [`Error::ModelFile`] if the system refuses or `extra` is larger
    /// than some megabytes; [`Error::OutOfMemory`].
    pub fn checkpoint(&self, path: impl AsRef<Path>, extra: &Value) -> Result<(), Error> {
        let runs = self.runs();
        for run in runs.iter().filter(|run| run.is_parameter) {
            if let Some(&number) = run.numbers.iter().find(|number| !number.is_finite()) {
                return Err(Error::numerical(&run.name, "finite numbers", number.to_f64()));
            }
        }
        atomic::write(path.as_ref(), &self.encode(&runs, extra)?)
    }

    /// Goes back to what [`Trainer::checkpoint`] wrote: parameters, optimiser, counters,
    /// the seed of dropout and the state of the schedule. The options are this trainer's; a
    /// run with the same ones goes on with the same bits. Gives `extra`.
    ///
    /// # Errors
    /// [`Error::ModelFile`] says what is wrong with the file, or how it differs from this
    /// trainer; nothing has changed then. [`Error::OutOfMemory`].
    pub fn restore(&mut self, path: impl AsRef<Path>) -> Result<Value, Error> {
        let path = path.as_ref();
        let (restored, extra) = self.decode(&read(path)?).map_err(|error| match error {
            Error::ModelFile { what, expected, got } => {
                Error::ModelFile { what: format!("{path:?}: {what}"), expected, got }
            }
            other => other,
        })?;
        *self = restored;
        Ok(extra)
    }

    fn encode(&self, runs: &[Run<'_, T>], extra: &Value) -> Result<Vec<u8>, Error> {
        let mut end = 0;
        let tensors = runs.iter().map(|run| {
            let begin = end;
            end += (run.numbers.len() * T::BYTES) as u64;
            (run.name.clone(), tensor::<T>(&run.shape, (begin, end)))
        });
        let tensors = tensors.collect();
        let training = Training {
            optimizer: self.options.optimizer.kind().to_string(),
            updates: self.optimizer.updates,
            seed: self.options.seed,
            schedule: self.optimizer.progress,
        };
        let metadata: BTreeMap<String, String> = [
            ("format", FORMAT.to_string()),
            ("format_version", VERSION.to_string()),
            ("structure", json(&structure(&self.model))),
            ("training", json(&training)),
            ("extra", json(extra)),
            ("checksum", NO_CHECKSUM.to_string()),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into();
        let mut header = Header { metadata, tensors };

        let mut data = room("checkpoint", end as usize)?;
        runs.iter().flat_map(|run| run.numbers).for_each(|n| n.append_le(&mut data));
        let checksum = checksum(&header, &data)?;
        header.metadata.insert("checksum".to_string(), checksum);
        let mut bytes = header.to_bytes()?;
        more_room("checkpoint", &mut bytes, data.len())?;
        bytes.extend_from_slice(&data);
        Ok(bytes)
    }

    /// A trainer with the options of this one and the content of these bytes.
    fn decode(&self, bytes: &[u8]) -> Result<(Self, Value), Error> {
        let wrong = |what: &str, expected: &str, got: &str| {
            Err(Error::model_file(what, expected, printable(got)))
        };
        let mut header = Header::read(&mut &bytes[..], bytes.len() as u64, Limits::OWN)?;
        let entry = |header: &Header, key: &str| match header.metadata.get(key) {
            Some(value) => Ok(value.clone()),
            None => Err(Error::model_file(format!("metadata entry {key}"), "to be there", "none")),
        };
        let format = entry(&header, "format")?;
        if format != FORMAT {
            return wrong("format", FORMAT, &format);
        }
        let version = entry(&header, "format_version")?;
        if version != VERSION {
            return wrong("format_version", VERSION, &version);
        }
        let found = entry(&header, "checksum")?;
        header.metadata.insert("checksum".to_string(), NO_CHECKSUM.to_string());
        let len = header.tensors.last().map_or(0, |(_, tensor)| tensor.data_offsets.1);
        let data = &bytes[bytes.len() - len as usize..];
        let computed = checksum(&header, data)?;
        if found != computed {
            return wrong("checksum", &format!("{computed}, as of what is there"), &found);
        }

        let ours = structure(&self.model);
        let theirs = without_seeds(parse(&entry(&header, "structure")?, "structure")?);
        if theirs != without_seeds(ours.clone()) {
            let expected = format!("{} as this model has", printable(&json(&ours)));
            return wrong("structure", &expected, &json(&theirs));
        }
        let training: Training = read_json(&entry(&header, "training")?, "training")?;
        let kind = self.options.optimizer.kind();
        if training.optimizer != kind {
            return wrong(
                "optimizer",
                &format!("{kind}, as this trainer has"),
                &training.optimizer,
            );
        }
        let extra = parse(&entry(&header, "extra")?, "extra")?;

        let mut restored = self.copied()?;
        restored.options.seed = training.seed;
        restored.optimizer.updates = training.updates;
        restored.optimizer.progress = training.schedule;
        restored.fill(&header, data)?;
        Ok((restored, extra))
    }

    /// Puts the tensors in place, which have to be exactly those that would be written.
    fn fill(&mut self, header: &Header, data: &[u8]) -> Result<(), Error> {
        let runs = self.runs();
        let mut numbers: Vec<Vec<T>> = Vec::with_capacity(runs.len());
        let names = |got: &str, expected: &str| {
            Error::model_file("tensors", format!("{expected} next"), printable(got))
        };
        let mut tensors = header.tensors.iter();
        for run in &runs {
            let Some((name, found)) = tensors.next() else { return Err(names("none", &run.name)) };
            if *name != run.name {
                return Err(names(name, &run.name));
            }
            let (begin, end) = found.data_offsets;
            let len = (run.numbers.len() * T::BYTES) as u64;
            let expected = tensor::<T>(&run.shape, (begin, begin + len));
            if *found != expected {
                let describe = |t: &Tensor| {
                    let bytes = t.data_offsets.1 - t.data_offsets.0;
                    format!("{} {:?} in {bytes} bytes", printable(&t.dtype), t.shape)
                };
                let what = format!("tensor {name}");
                return Err(Error::model_file(what, describe(&expected), describe(found)));
            }
            let bytes = &data[begin as usize..end as usize];
            let mut values: Vec<T> = room("checkpoint", run.numbers.len())?;
            values.extend(bytes.chunks_exact(T::BYTES).map(T::from_le));
            if let Some(&value) = values.iter().find(|value| run.is_parameter && !value.is_finite())
            {
                let what = format!("tensor {name}");
                return Err(Error::model_file(what, "finite numbers", value.to_f64()));
            }
            numbers.push(values);
        }
        if let Some((name, _)) = tensors.next() {
            return Err(names(name, "no more"));
        }

        let mut numbers = numbers.into_iter();
        let Self { model, optimizer: Optimizer { moments, .. }, .. } = self;
        model.layers_mut().iter_mut().try_for_each(Layer::unshare)?;
        let layers = model.layers_mut().iter_mut().map(Layer::numbers_mut);
        let moments = moments.iter_mut().flatten().map(Vec::as_mut_slice);
        for run in layers.chain(moments) {
            let mut rest = run;
            while !rest.is_empty() {
                let numbers = numbers.next().expect("the runs cover every number");
                let (part, after) = rest.split_at_mut(numbers.len());
                part.copy_from_slice(&numbers);
                rest = after;
            }
        }
        Ok(())
    }

    /// What is written, in its order: parameters, then the moments.
    fn runs<'a>(&'a self) -> Vec<Run<'a, T>> {
        let mut runs = Vec::new();
        let mut add = |prefix: &str, is_parameter, numbers: Vec<&'a [T]>| {
            for (k, (layer, numbers)) in self.model.layers().iter().zip(numbers).enumerate() {
                for parameter in layer.parameters() {
                    runs.push(Run {
                        name: format!("{prefix}.{k}.{}", parameter.name),
                        shape: parameter.shape,
                        numbers: &numbers[parameter.range],
                        is_parameter,
                    });
                }
            }
        };
        add("model", true, self.model.layers().iter().map(Layer::numbers).collect());
        for (name, moment) in self.options.optimizer.moments().iter().zip(&self.optimizer.moments) {
            add(&format!("optimizer.{name}"), false, moment.iter().map(Vec::as_slice).collect());
        }
        runs
    }
}

/// One tensor to be written.
struct Run<'a, T> {
    name: String,
    shape: Vec<usize>,
    numbers: &'a [T],
    is_parameter: bool,
}

fn tensor<T: Number>(shape: &[usize], data_offsets: (u64, u64)) -> Tensor {
    Tensor {
        dtype: format!("F{}", 8 * T::BYTES),
        shape: shape.iter().map(|&size| size as u64).collect(),
        data_offsets,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let (mut file, len) = regular::open(path)?;
    let mut bytes = Vec::new();
    let no_room = || Error::OutOfMemory { what: "checkpoint".into(), bytes: u128::from(len) };
    let room = usize::try_from(len).map_err(|_| no_room())?;
    bytes.try_reserve_exact(room).map_err(|_| no_room())?;
    // No more than was asked for, should the file be growing.
    match file.by_ref().take(len).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::model_file(format!("{path:?}"), "a file to read", error)),
    }
}

/// The checksum of header and data.
fn checksum(header: &Header, data: &[u8]) -> Result<String, Error> {
    let mut hash = Xxh64::new(0);
    hash.update(&header.to_bytes()?);
    hash.update(data);
    Ok(format!("{:016x}", hash.digest()))
}

fn structure<T: Number>(model: &Sequential<T>) -> Value {
    let specs = model.layers().iter().map(|layer| serde_json::to_value(layer.spec()));
    specs.collect::<Result<_, _>>().expect("descriptions of layers are JSON")
}

/// The seeds of the initial parameters have no influence any more.
fn without_seeds(mut structure: Value) -> Value {
    for layer in structure.as_array_mut().into_iter().flatten() {
        if let Some(fields) = layer.as_object_mut() {
            fields.remove("seed");
        }
    }
    structure
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("keys are text and numbers finite")
}

fn parse(text: &str, what: &str) -> Result<Value, Error> {
    read_json::<Distinct>(text, what).map(|Distinct(value)| value)
}

fn read_json<V: for<'de> Deserialize<'de>>(text: &str, what: &str) -> Result<V, Error> {
    serde_json::from_str(text)
        .map_err(|error| Error::model_file(what, "JSON", printable(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use seqrs_core::Steps;
    use seqrs_core::rows::{Place, Rows};
    use seqrs_cpu::Cpu;
    use seqrs_cpu::level::Level;
    use serde_json::json;

    use super::*;
    use crate::losses::Mse;
    use crate::low_level::{Input, Target};
    use crate::optimizers::{Adam, AdamW, OptimizerSpec, RmsProp, Sgd};
    use crate::schedules::{Cosine, Plateau};
    use crate::scratch::Scratch;
    use crate::{Dropout, Gru, Linear, TrainerOptions};

    fn trainer<T: Number>(optimizer: impl Into<OptimizerSpec>, seed: u64) -> Trainer<T> {
        let layers = vec![
            Gru::new(1, 2).build().unwrap(),
            Dropout::new(0.5).build().unwrap(),
            Linear::new(2, 1).build().unwrap(),
        ];
        let model = Sequential::new(layers).unwrap().reseeded(seed).unwrap();
        Trainer::with_options(model, TrainerOptions::new(Mse::mean(), optimizer).seed(seed))
            .unwrap()
    }

    /// One step on a batch of its own, and a look at the metric.
    fn train<T: Number>(trainer: &mut Trainer<T>, steps: std::ops::Range<u64>) {
        for k in steps {
            let x: Vec<T> = (0..5).map(|t| T::from_f64(((k * 5 + t) as f64).sin())).collect();
            let rows = Rows { data: &x[..], place: Place::batch_first(5, 1) };
            let (x, y) = (Input::Numbers(rows, 1), Target::Numbers(rows, 1));
            let steps = Steps::dense(5, 1).unwrap();
            let cpu = Cpu::with(Level::detect(), 1);
            let loss = trainer.step_on(&cpu, x, y, steps, None).unwrap().loss;
            trainer.observe(loss);
        }
    }

    fn same<T: Number>(a: &Trainer<T>, b: &Trainer<T>) -> bool {
        let numbers = |t: &Trainer<T>| -> Vec<Vec<T>> {
            t.model.layers().iter().map(|layer| layer.numbers().to_vec()).collect()
        };
        numbers(a) == numbers(b) && a.optimizer == b.optimizer && a.options == b.options
    }

    #[test]
    fn a_resumed_run_is_the_uninterrupted_one() {
        fn check<T: Number>(optimizer: OptimizerSpec) {
            let scratch = Scratch::new();
            let path = scratch.path().join("checkpoint");
            let mut whole = trainer::<T>(optimizer, 1);
            train(&mut whole, 0..7);
            let extra = json!({"epoch": 3, "loss": 0.1 + 0.2, "best": null, "\u{e9}\n": [1e-300]});
            whole.checkpoint(&path, &extra).unwrap();
            // Another process builds its trainer anew, here even from another seed.
            let mut resumed = trainer::<T>(optimizer, 2);
            assert_eq!(resumed.restore(&path).unwrap(), extra);
            assert!(same(&whole, &resumed));
            train(&mut whole, 7..12);
            train(&mut resumed, 7..12);
            assert!(same(&whole, &resumed), "{optimizer:?}");
            assert_eq!(resumed.steps_done(), 12);
        }
        for optimizer in [
            Sgd::new(0.1).into(),
            Sgd::new(0.1).momentum(0.9).into(),
            RmsProp::new(Cosine::new(0.1, 20)).momentum(0.5).into(),
            Adam::new(Plateau::new(0.1).patience(0)).into(),
            AdamW::new(0.1).into(),
        ] {
            check::<f32>(optimizer);
            check::<f64>(optimizer);
        }
    }

    #[test]
    fn damage_anywhere_is_refused_and_changes_nothing() {
        let scratch = Scratch::new();
        let path = scratch.path().join("checkpoint");
        let mut written = trainer::<f32>(Adam::new(0.1), 1);
        train(&mut written, 0..2);
        written.checkpoint(&path, &Value::Null).unwrap();
        let bytes = fs::read(&path).unwrap();
        let reader = trainer::<f32>(Adam::new(0.1), 2);
        assert!(reader.decode(&bytes).is_ok());
        let refused = |bytes: &[u8], at: usize| match reader.decode(bytes) {
            Err(Error::ModelFile { .. }) => {}
            other => panic!("byte {at}: {:?}", other.map(|(_, extra)| extra)),
        };
        for at in 0..bytes.len() {
            refused(&bytes[..at], at);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            refused(&flipped, at);
        }
        refused(&[&bytes[..], &[0]].concat(), bytes.len());

        fs::write(&path, &bytes[1..]).unwrap();
        let mut reader = trainer::<f32>(Adam::new(0.1), 2);
        let before = reader.clone();
        assert!(reader.restore(&path).is_err());
        assert!(same(&reader, &before));
    }

    #[test]
    fn the_checkpoint_of_another_trainer_is_refused_by_what_differs() {
        let scratch = Scratch::new();
        let path = scratch.path().join("checkpoint");
        trainer::<f32>(Adam::new(0.1), 1).checkpoint(&path, &Value::Null).unwrap();
        let mut layers = trainer::<f32>(Adam::new(0.1), 1).model.layers().to_vec();
        layers[1] = Dropout::new(0.25).build().unwrap();
        let options = TrainerOptions::new(Mse::mean(), Adam::new(0.1));
        let mut other = Trainer::with_options(Sequential::new(layers).unwrap(), options).unwrap();
        for (message, what) in [
            (other.restore(&path).unwrap_err().to_string(), "structure: expected"),
            (trainer::<f64>(Adam::new(0.1), 1).restore(&path).unwrap_err().to_string(), "F64"),
            (
                trainer::<f32>(AdamW::new(0.1), 1).restore(&path).unwrap_err().to_string(),
                "optimizer: expected adamw, as this trainer has, got adam",
            ),
        ] {
            assert!(message.contains(what) && message.contains("checkpoint"), "{message}");
        }
        let none = scratch.path().join("none");
        assert!(matches!(other.restore(&none), Err(Error::ModelFile { .. })));
        other.model.save(&path).unwrap();
        let message = other.restore(&path).unwrap_err().to_string();
        assert!(message.contains("format: expected seqrs.checkpoint, got seqrs"), "{message}");
    }

    #[test]
    fn a_run_that_has_gone_astray_is_not_written() {
        let scratch = Scratch::new();
        let path = scratch.path().join("checkpoint");
        let mut trainer = trainer::<f32>(Adam::new(0.1), 1);
        trainer.model.layers_mut()[2].numbers_mut()[1] = f32::INFINITY;
        let message = trainer.checkpoint(&path, &Value::Null).unwrap_err().to_string();
        assert_eq!(message, "model.2.weight: expected finite numbers, got inf");
        assert!(!path.exists());
    }
}
