//! Which kernels are the fastest on this GPU: times one layer, forwards and back, with each choice
//! that `seqrs_gpu::Rules` has, for the table in `crates/seqrs-gpu/src/rules.rs`.
//!
//! ```text
//! gpu_rules             every cell and shape, some minutes
//! gpu_rules lstm/h768   those whose name has this in it
//! gpu_rules --trial     tiny sizes: does it run? (no times)
//! ```
//!
//! Every choice has to give the bits of the default's before it is timed. A time is that of a step,
//! in microseconds: the median of some runs of all steps, from recording them to reading a number
//! of the result.

use std::env;
use std::time::Instant;

use seqrs_benches::numbers;
use seqrs_core::backend::{Backend, State};
use seqrs_core::cell::CellKind;
use seqrs_core::rows::{Place, Rows};
use seqrs_core::sequence::{self, Masks};
use seqrs_core::spec::Options;
use seqrs_core::{Error, Spec, Steps};
use seqrs_gpu::device::Gpu;
use seqrs_gpu::{Numbers, Recorder, Rules, Tile};

struct Shape {
    /// With its name.
    cell: (&'static str, CellKind),
    hidden: usize,
    batch: usize,
    time: usize,
}

impl Shape {
    fn name(&self) -> String {
        format!("{}/h{}/b{}", self.cell.0, self.hidden, self.batch)
    }
}

/// A layer whose buffers are on the device.
struct Layer<'a> {
    gpu: &'a Gpu,
    recorder: Recorder,
    spec: Spec,
    steps: Steps,
    weights: sequence::StackWeights<Recorder>,
    x: Box<Numbers>,
    d_y: Box<Numbers>,
}

impl<'a> Layer<'a> {
    fn new(gpu: &'a Gpu, shape: &Shape, rules: Rules) -> Result<Self, Error> {
        let recorder = gpu.recorder().with_rules(rules);
        let spec = Spec::new(Options::new(shape.cell.1, shape.hidden, shape.hidden))?;
        let scale = 1.0 / (shape.hidden as f32).sqrt();
        let parameters: Vec<f32> = numbers(spec.len()).iter().map(|w| w * scale).collect();
        let weights = recorder.weights(&spec.shape(0), &recorder.numbers(&parameters))?;
        let of_items = recorder.numbers(&numbers(shape.time * shape.batch * shape.hidden));
        Ok(Self {
            gpu,
            steps: Steps::dense(shape.time, shape.batch)?,
            weights: vec![vec![weights]],
            d_y: recorder.copy(&of_items)?,
            x: of_items,
            spec,
            recorder,
        })
    }

    fn state(&self) -> State<Box<Numbers>> {
        let len = self.steps.batch() * self.spec.options().hidden_size;
        let has_c = self.spec.cell().states() > 1;
        State { h: self.recorder.zeros_of(len), c: has_c.then(|| self.recorder.zeros_of(len)) }
    }

    /// The `whole` of y and of the gradients of the parameters, or the final state alone.
    fn run(&self, back: bool, whole: bool) -> Result<Vec<Vec<f32>>, Error> {
        let (rec, place) = (&self.recorder, Place::packed(self.spec.options().hidden_size));
        let rows = |data| Rows { data, place };
        let mut state = self.state();
        let tape = sequence::record(
            rec,
            &self.spec,
            &self.weights,
            rows(&*self.x),
            self.steps.clone(),
            &mut state,
            Masks::default(),
        )?;
        if !back {
            let wanted = if whole { tape.y() } else { &*state.h };
            return Ok(self.gpu.read_all(rec, &[wanted])?);
        }
        let mut d_state = self.state();
        let mut d_parameters = rec.zeros_of(self.spec.len());
        sequence::backward(
            rec,
            &self.spec,
            &self.weights,
            &tape,
            Some(rows(&*self.d_y)),
            &mut d_state,
            &mut d_parameters,
            false,
        )?;
        let mut wanted = vec![&*d_state.h];
        if whole {
            wanted.extend([tape.y(), &*d_parameters]);
        }
        Ok(self.gpu.read_all(rec, &wanted)?)
    }

    /// Microseconds of a step.
    fn time(&self, back: bool) -> Result<f64, Error> {
        let mut times = Vec::new();
        for _ in 0..7 {
            let start = Instant::now();
            self.run(back, false)?;
            times.push(start.elapsed().as_secs_f64() * 1e6 / self.steps.time() as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }
}

/// The choices for steps of so many rows, by name.
fn choices(batch: usize) -> Vec<(String, Rules)> {
    let mut choices = vec![("default".to_owned(), Rules::default())];
    let all_at_once = Rules { all_steps: usize::MAX, ..Rules::default() };
    choices.push(("all steps at once".to_owned(), all_at_once));
    for (rows, share) in [(1, 1), (2, 2), (4, 2), (4, 4), (8, 4), (16, 4), (16, 8), (32, 8)] {
        for (parts, groups) in [4, 16].into_iter().flat_map(|p| [2, 4, 8, 16].map(|g| (p, g))) {
            let tile = Tile { rows, share, parts, groups };
            // A tile with many more rows than there are is never the best.
            if rows >= 2 * batch.max(1) || !tile.fits(4) {
                continue;
            }
            for enough in [1, 128, 512] {
                let tiles = vec![(usize::MAX, tile)];
                let rules = Rules { tiles, enough, all_steps: 0, ..Rules::default() };
                let name = format!(
                    "{rows} rows by {share}, {parts} parts, {groups} groups, at least {enough}"
                );
                choices.push((name, rules));
            }
        }
    }
    choices
}

fn shapes(trial: bool) -> Vec<Shape> {
    let cells = [
        ("lstm", CellKind::Lstm),
        ("gru", CellKind::GruResetAfter),
        ("gru-before", CellKind::GruResetBefore),
        ("rnn", CellKind::RnnTanh),
    ];
    let mut shapes = Vec::new();
    for cell in cells {
        if trial {
            shapes.push(Shape { cell, hidden: 9, batch: 5, time: 3 });
            continue;
        }
        for hidden in [32, 64, 128, 256, 512, 768, 1024] {
            for batch in [1, 4, 16, 32, 128] {
                shapes.push(Shape { cell, hidden, batch, time: 256 });
            }
        }
    }
    shapes
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let trial = arguments.iter().any(|argument| argument == "--trial");
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let gpu = Gpu::new(0)?;
    println!("{:?}", gpu.description());
    let shows_times = !trial && !gpu.description().is_software;
    if !shows_times && !trial {
        eprintln!("expected a GPU, got one made of software, whose times say nothing: --trial");
        std::process::exit(2);
    }
    for shape in shapes(trial) {
        let name = shape.name();
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let expected = Layer::new(&gpu, &shape, Rules::default())?.run(true, true)?;
        let mut found = Vec::new();
        // A trial makes do with some.
        let choices: Vec<_> =
            choices(shape.batch).into_iter().step_by(if trial { 11 } else { 1 }).collect();
        let count = choices.len();
        for (choice, rules) in choices {
            let layer = Layer::new(&gpu, &shape, rules)?;
            let same = layer.run(true, true)?.iter().zip(&expected).all(|(got, want)| {
                got.iter().zip(want).all(|(got, want)| got.to_bits() == want.to_bits())
            });
            assert!(same, "{name}: {choice} gives other bits than the default");
            if shows_times {
                let (forward, both) = (layer.time(false)?, layer.time(true)?);
                found.push((forward, both - forward, choice));
            }
        }
        println!("{name}: {count} choices agree");
        found.sort_by(|a, b| (a.0 + a.1).total_cmp(&(b.0 + b.1)));
        let best = found.iter().take(5).chain(found.iter().skip(5).find(|f| f.2 == "default"));
        for (forward, back, choice) in best {
            println!("    {forward:8.2} us forwards {back:8.2} us back   {choice}");
        }
    }
    Ok(())
}
