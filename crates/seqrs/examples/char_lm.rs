//! A character model of any text: trains it, tells how well it predicts, saves it, and
//! writes some text of its own.
//!
//! ```text
//! cargo run --release --example char_lm                      # on the sources of seqrs
//! cargo run --release --example char_lm -- directory         # on every source below
//! cargo run --release --example char_lm -- --updates 2000 --out model.safetensors book.txt
//! ```
//!
//! The model reads bytes, 256 ids whatever the language: Embedding 64, LSTM 256, Linear.
//! The text is cut into as many pieces as the batch has rows; every update goes on where the
//! one before ended, with the state carried along and the gradient going back 64 steps.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ndarray::{Array2, ArrayView2, s};
use seqrs::schedules::Cosine;
use seqrs::{
    Adam, Batch, CrossEntropy, Embedding, Linear, Lstm, Sampling, Sequential, Trainer, generate,
};

/// Every byte is an id.
const IDS: usize = 256;
/// Rows of a batch, and steps that the gradient goes back.
const BATCH: usize = 32;
const STEPS: usize = 64;
/// The largest learning rate.
const RATE: f64 = 4e-3;
/// One byte in so many, from the end of the text, is held out.
const HELD_OUT: usize = 20;
/// Read no more than this of a large directory, in bytes.
const MOST: usize = 8_000_000;
/// What counts as text in a directory.
const TEXTS: [&str; 8] = ["c", "h", "js", "md", "py", "rs", "toml", "txt"];

/// What is read if nothing is named.
const OWN_SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

const USAGE: &str = "usage: char_lm [--updates N] [--out FILE] [FILE_OR_DIRECTORY...]";

fn main() -> Result<(), Box<dyn Error>> {
    let Some(Arguments { updates, out, paths }) = Arguments::parse()? else {
        println!("{USAGE}");
        return Ok(());
    };
    let text = read(&paths)?;
    let (train, held_out) = text.split_at(text.len() - text.len() / HELD_OUT);
    let held_out = Pieces::new(held_out)?;
    let train = Pieces::new(train)?;
    println!("{} bytes of text, {} of them held out", text.len(), text.len() / HELD_OUT);

    let model = Sequential::<f32>::new(vec![
        Embedding::new(IDS, 64).build()?,
        Lstm::new(64, 256).build()?,
        Linear::new(256, IDS).build()?,
    ])?
    .reseeded(0)?;
    println!("{} parameters, {updates} updates of {BATCH} x {STEPS} bytes", model.num_parameters());

    let schedule = Cosine::new(RATE, updates).warmup(updates / 20);
    let mut trainer = Trainer::new(model, CrossEntropy::mean(), Adam::new(schedule)).build()?;
    let start = Instant::now();
    let mut state = trainer.model.initial_state(BATCH)?;
    let (mut sum, mut count) = (0.0, 0);
    for update in 1..=updates {
        let at = (update - 1) as usize % train.chunks();
        if at == 0 {
            state = trainer.model.initial_state(BATCH)?;
        }
        let (x, y) = train.chunk(at);
        let result = trainer.step(Batch::from(x).state(state), y)?;
        state = result.state;
        sum += result.loss;
        count += 1;
        if update % (updates / 10).max(1) == 0 || update == updates {
            println!(
                "update {update:>6}  {:5.0} s  training {:.3}  held out {:.3} bits per character",
                start.elapsed().as_secs_f64(),
                train.bits(sum / f64::from(count)),
                held_out.evaluate(&trainer)?
            );
            (sum, count) = (0.0, 0);
        }
    }

    trainer.model.save(&out)?;
    println!("saved to {}\n", out.display());

    let model = Sequential::<f32>::load(&out)?;
    let sampling = Sampling { temperature: 0.7, ..Sampling::default() };
    let ids = generate(&model, &[i64::from(b'\n')], 500, &sampling)?;
    let bytes: Vec<u8> = ids.into_iter().map(|id| id as u8).collect();
    writeln!(io::stdout(), "{}", String::from_utf8_lossy(&bytes))?;
    Ok(())
}

struct Arguments {
    updates: u64,
    out: PathBuf,
    paths: Vec<PathBuf>,
}

impl Arguments {
    /// None if help was asked for.
    fn parse() -> Result<Option<Self>, Box<dyn Error>> {
        let mut found = Self { updates: 1000, out: "model.safetensors".into(), paths: Vec::new() };
        let mut arguments = std::env::args_os().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("-h" | "--help") => return Ok(None),
                Some("--updates") => {
                    let value = arguments.next().and_then(|value| value.into_string().ok());
                    let number = value.as_deref().and_then(|value| value.parse().ok());
                    let number = number.filter(|&number| number > 0);
                    found.updates = number.ok_or("--updates: expected an integer of at least 1")?;
                }
                Some("--out") => {
                    found.out =
                        arguments.next().ok_or("--out: expected the path of a file")?.into();
                }
                Some(option) if option.starts_with("--") => {
                    return Err(format!("{option}: no such option\n{USAGE}").into());
                }
                _ => found.paths.push(argument.into()),
            }
        }
        if found.paths.is_empty() {
            found.paths.push(OWN_SOURCES.into());
        }
        Ok(Some(found))
    }
}

/// The texts at these paths, one after the other.
fn read(paths: &[PathBuf]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut text = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => read_directory(path, &mut text)?,
            false => text.extend(fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?),
        }
    }
    Ok(text)
}

/// The texts below a directory, in the order of their names, as far as [`MOST`] allows.
fn read_directory(directory: &Path, text: &mut Vec<u8>) -> io::Result<()> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type()?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() && !hidden && entry.file_name() != "target" {
            read_directory(&path, text)?;
        } else if kind.is_file()
            && path.extension().is_some_and(|of| TEXTS.iter().any(|&known| of == known))
            && text.len() as u64 + entry.metadata()?.len() <= MOST as u64
        {
            text.extend(fs::read(path)?);
        }
    }
    Ok(())
}

/// A text cut into [`BATCH`] pieces that are read side by side.
struct Pieces {
    /// A piece in each row, and at its end the first byte of the next one.
    ids: Array2<i64>,
    /// Bytes for each character.
    bytes: f64,
}

impl Pieces {
    fn new(text: &[u8]) -> Result<Self, Box<dyn Error>> {
        // The last byte is only ever predicted.
        let len = text.len().saturating_sub(1) / BATCH;
        if len == 0 {
            let least = HELD_OUT * (BATCH + 1);
            return Err(format!("text: expected at least {least} bytes").into());
        }
        let characters = text.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        Ok(Self {
            ids: Array2::from_shape_fn((BATCH, len + 1), |(b, t)| i64::from(text[b * len + t])),
            bytes: text.len() as f64 / characters.max(1) as f64,
        })
    }

    fn chunks(&self) -> usize {
        (self.ids.ncols() - 1).div_ceil(STEPS)
    }

    /// Bytes, and the bytes that follow each of them.
    fn chunk(&self, k: usize) -> (ArrayView2<'_, i64>, ArrayView2<'_, i64>) {
        let from = k * STEPS;
        let to = (from + STEPS).min(self.ids.ncols() - 1);
        (self.ids.slice(s![.., from..to]), self.ids.slice(s![.., from + 1..to + 1]))
    }

    /// Bits per character, from a loss per byte.
    fn bits(&self, loss: f64) -> f64 {
        loss / std::f64::consts::LN_2 * self.bytes
    }

    /// Bits per character of the whole text.
    fn evaluate(&self, trainer: &Trainer<f32>) -> Result<f64, seqrs::Error> {
        let mut state = trainer.model.initial_state(BATCH)?;
        let (mut sum, mut count) = (0.0, 0);
        for k in 0..self.chunks() {
            let (x, y) = self.chunk(k);
            let found = trainer.evaluate(Batch::from(x).state(state), y)?;
            sum += found.loss * found.count as f64;
            count += found.count;
            state = found.state;
        }
        Ok(self.bits(sum / count as f64))
    }
}
