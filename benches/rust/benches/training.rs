//! A whole training step of a character model: forward, loss, backward, clipping, update.
//! Embedding 64, two LSTM of 256, Linear 256; 32 rows of 128 steps.

use divan::Bencher;
use divan::counter::ItemsCount;
use seqrs::low_level::{Cpu, Input, Place, Rows, Steps, Target};
use seqrs::{Adam, CrossEntropy, Embedding, Error, Linear, Lstm, Sequential, Trainer};

fn main() {
    divan::main();
}

const IDS: usize = 256;
const BATCH: usize = 32;
const TIME: usize = 128;

fn trainer() -> Result<Trainer<f32>, Error> {
    let model = Sequential::<f32>::new(vec![
        Embedding::new(IDS, 64).build()?,
        Lstm::new(64, 256).layers(2).build()?,
        Linear::new(256, IDS).build()?,
    ])?;
    Trainer::new(model, CrossEntropy::mean(), Adam::new(2e-3)).build()
}

/// One step. An item is a character.
#[divan::bench(consts = [1, 2], max_time = 3)]
fn characters<const THREADS: usize>(bencher: Bencher<'_, '_>) {
    let level = Cpu::<f32>::new().expect("settings that can be followed").level();
    let cpu = Cpu::with(level, THREADS);
    let ids: Vec<i64> = (0..(BATCH * TIME + 1) as i64).map(|k| k * k % IDS as i64).collect();
    let place = Place::batch_first(TIME, 1);
    let x = Input::Ids(Rows { data: &ids[..BATCH * TIME], place });
    let y = Target::Ids(Rows { data: &ids[1..], place });
    let mut trainer = trainer().expect("a model");
    let mut step = || {
        let steps = Steps::dense(TIME, BATCH).expect("a batch");
        trainer.step_on(&cpu, x, y, steps, None).expect("a step").loss
    };
    let first = step();
    assert!((first - (IDS as f64).ln()).abs() < 0.5, "the loss begins near ln 256, not at {first}");
    bencher.counter(ItemsCount::new(BATCH * TIME)).bench_local(step);
}
