//! One recurrent layer over a batch of sequences: I = H, 100 steps.

use divan::Bencher;
use divan::counter::ItemsCount;
use seqrs::low_level::{Cpu, Input, Place, Rows, Steps};
use seqrs::{Error, Gru, Layer, Lstm, Rnn, Sequential};
use seqrs_benches::numbers;

fn main() {
    divan::main();
}

const TIME: usize = 100;

#[derive(Clone, Copy, Debug)]
enum Cell {
    Rnn,
    Lstm,
    GruResetBefore,
    GruResetAfter,
}

/// Cell, rows and hidden units.
type Case = (Cell, usize, usize);

const CASES: [Case; 9] = [
    (Cell::Lstm, 1, 128),
    (Cell::Lstm, 1, 512),
    (Cell::Lstm, 32, 64),
    (Cell::Lstm, 32, 256),
    (Cell::Lstm, 32, 512),
    (Cell::GruResetAfter, 1, 128),
    (Cell::GruResetAfter, 32, 256),
    (Cell::GruResetBefore, 32, 256),
    (Cell::Rnn, 32, 256),
];

/// A layer and its input.
struct Job {
    cpu: Cpu<f32>,
    model: Sequential<f32>,
    x: Vec<f32>,
    case: Case,
}

impl Job {
    fn new(case: Case, threads: usize) -> Result<Self, Error> {
        let (cell, rows, h) = case;
        let layer: Layer<f32> = match cell {
            Cell::Rnn => Rnn::new(h, h).build()?,
            Cell::Lstm => Lstm::new(h, h).build()?,
            Cell::GruResetBefore => Gru::new(h, h).build()?,
            Cell::GruResetAfter => Gru::new(h, h).reset_after(true).build()?,
        };
        Ok(Self {
            cpu: Cpu::with(Cpu::<f32>::new()?.level(), threads),
            model: Sequential::new(vec![layer])?,
            x: numbers(rows * TIME * h),
            case,
        })
    }

    fn input(&self) -> Input<'_, f32> {
        let h = self.case.2;
        Input::Numbers(Rows { data: &self.x, place: Place::batch_first(TIME, h) }, h)
    }

    fn steps(&self) -> Result<Steps, Error> {
        Steps::dense(TIME, self.case.1)
    }

    fn forward(&self) -> Result<Vec<f32>, Error> {
        let mut state = self.model.zero_state(self.case.1)?;
        Ok(self.model.infer_on(&self.cpu, self.input(), &self.steps()?, &mut state)?.numbers)
    }

    fn forward_and_backward(&self, d_y: &[f32]) -> Result<f32, Error> {
        let mut state = self.model.zero_state(self.case.1)?;
        let tape =
            self.model.record_on(&self.cpu, self.input(), self.steps()?, &mut state, None)?;
        let mut d_state = self.model.zero_state(self.case.1)?;
        self.model.backward_on(&self.cpu, &tape, Some(d_y), &mut d_state, true)?;
        Ok(tape.output().numbers[0])
    }

    /// Multiply-adds of the forward pass.
    fn work(&self) -> usize {
        let (cell, rows, h) = self.case;
        let gates = match cell {
            Cell::Rnn => 1,
            Cell::Lstm => 4,
            Cell::GruResetBefore | Cell::GruResetAfter => 3,
        };
        rows * TIME * gates * h * 2 * h
    }
}

/// Inference. An item is a multiply-add of the products.
#[divan::bench(args = CASES, consts = [1, 2], max_time = 1)]
fn forward<const THREADS: usize>(bencher: Bencher<'_, '_>, case: Case) {
    let job = Job::new(case, THREADS).expect("a layer");
    bencher
        .counter(ItemsCount::new(job.work()))
        .bench_local(|| divan::black_box(&job).forward().expect("an output"));
}

/// Training: with the gradients of the parameters and of the input, three times the work.
#[divan::bench(args = CASES, consts = [1, 2], max_time = 1)]
fn forward_and_backward<const THREADS: usize>(bencher: Bencher<'_, '_>, case: Case) {
    let job = Job::new(case, THREADS).expect("a layer");
    let d_y = numbers(case.1 * TIME * case.2);
    let y = job.forward_and_backward(&d_y).expect("gradients");
    assert_eq!(y, job.forward().expect("an output")[0], "training and inference agree");
    bencher
        .counter(ItemsCount::new(3 * job.work()))
        .bench_local(|| divan::black_box(&job).forward_and_backward(&d_y).expect("gradients"));
}
