//! What this machine can do at most: multiply-adds between registers, and reads from each level
//! of its memory. Prints JSON, which `benches/python/compare.py` holds its times against.
//!
//! ```text
//! roofline          on one thread, and on two
//! roofline 1 4 8    on so many threads
//!
//! {"avx512": {"1": {"flops": {"float32": 1.1e11, ...}, "bytes": {"16384": 2.1e11, ...}}, ...}}
//! ```
//!
//! - `flops`: operations a second, a multiply-add being two of them, in as many independent
//!   chains as hide its latency.
//! - `bytes`: bytes a second, all threads together, by the size of the buffer that each of them
//!   has. A buffer is read forwards, then backwards, as weights should be read step after step:
//!   what is still in the cache from the end of one turn is the beginning of the next.
//!
//! The best of many turns counts: a limit is what the machine can do, not what it does beside
//! other things.

#![expect(unsafe_code, reason = "reads with the registers of the kernels")]

use std::hint::black_box;
use std::time::Instant;
use std::{env, thread};

use seqrs_cpu::lanes::{Element, Simd};
use seqrs_cpu::level::{Kernel, Level};
use serde_json::{Map, Value, json};

/// Numbers of a cache line, for buffers that begin at one.
const LINE: usize = 64 / size_of::<f32>();

/// Turns, of which the best counts.
const TURNS: usize = 12;

/// Multiply-adds of each chain in a turn: several milliseconds, beside which it is nothing that
/// a thread is started.
const LENGTH: usize = 1_500_000;

/// Bytes that a thread reads in a turn, for the same reason.
const BYTES: usize = 256 << 20;

/// Sizes of the buffers: within L1, and from within L2 to beyond L3, where steps are closer
/// since weights lie there.
const SIZES: [usize; 12] = [
    16 << 10,
    32 << 10,
    64 << 10,
    256 << 10,
    512 << 10,
    768 << 10,
    1 << 20,
    3 << 19,
    2 << 20,
    4 << 20,
    16 << 20,
    128 << 20,
];

/// Multiply-adds between registers.
struct Peak;

impl<T: Element> Kernel<T> for Peak {
    /// How many operations it was.
    type Output = f64;

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) -> f64 {
        // Four cycles times two units, or four units, and what is left must hold two factors.
        if V::REGISTERS >= 32 { multiply_add::<V, 24>() } else { multiply_add::<V, 12>() }
    }
}

#[inline(always)]
fn multiply_add<V: Simd, const CHAINS: usize>() -> f64 {
    let factor = black_box(V::one());
    let mut sums = [V::one(); CHAINS];
    for _ in 0..LENGTH {
        for sum in &mut sums {
            *sum = sum.mul_add(factor, factor);
        }
    }
    black_box(sums.into_iter().fold(V::zero(), |a, b| a + b));
    (2 * LENGTH * CHAINS * V::WIDTH) as f64
}

/// Reads of a buffer, forwards and backwards in turn.
struct Read<'a> {
    buffer: &'a [f32],
}

impl Kernel<f32> for Read<'_> {
    /// How many bytes it was.
    type Output = f64;

    #[inline(always)]
    fn run<V: Simd<Elem = f32>>(self) -> f64 {
        // Each load is added to a chain of its own, so that only loads take time.
        if V::REGISTERS >= 32 {
            read_blocks::<V, 16>(self.buffer)
        } else {
            read_blocks::<V, 8>(self.buffer)
        }
    }
}

#[inline(always)]
fn read_blocks<V: Simd<Elem = f32>, const CHAINS: usize>(buffer: &[f32]) -> f64 {
    let block = CHAINS * V::WIDTH;
    let blocks = buffer.len() / block;
    let rounds = (BYTES / size_of_val(buffer)).max(2);
    let mut sums = [V::zero(); CHAINS];
    for round in 0..rounds {
        let from = black_box(buffer.as_ptr());
        for k in 0..blocks {
            let k = if round % 2 == 0 { k } else { blocks - 1 - k };
            for (chain, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `k` is less than `blocks`, and so many whole blocks lie in the buffer.
                *sum = *sum + unsafe { V::load(from.add(k * block + chain * V::WIDTH)) };
            }
        }
    }
    black_box(sums.into_iter().fold(V::zero(), |a, b| a + b));
    (rounds * blocks * block * size_of::<f32>()) as f64
}

/// Best rate, in units per second, of `work(thread)` on `threads` threads at once.
fn rate(threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    work(0);
    (0..TURNS)
        .map(|_| {
            let start = Instant::now();
            let done: f64 = thread::scope(|scope| {
                let work = &work;
                let others: Vec<_> = (1..threads).map(|k| scope.spawn(move || work(k))).collect();
                let own = work(0);
                others.into_iter().map(|other| other.join().expect("a worker")).sum::<f64>() + own
            });
            done / start.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}

/// Operations a second.
fn flops<T: Element>(level: Level, threads: usize) -> f64 {
    rate(threads, |_| level.dispatch::<T, _>(Peak))
}

/// Bytes a second, each thread from a buffer of its own of so many.
fn bytes(level: Level, threads: usize, size: usize) -> f64 {
    let len = size / size_of::<f32>();
    let buffers: Vec<Vec<f32>> = (0..threads).map(|_| vec![1.0; len + LINE]).collect();
    rate(threads, |thread| {
        let buffer = &buffers[thread];
        let start = buffer.as_ptr().align_offset(64).min(LINE);
        level.dispatch(Read { buffer: &buffer[start..start + len] })
    })
}

/// All limits of a level on so many threads.
fn limits(level: Level, threads: usize) -> Value {
    let read: Map<String, Value> = SIZES
        .into_iter()
        .map(|size| (size.to_string(), bytes(level, threads, size).into()))
        .collect();
    json!({
        "flops": { "float32": flops::<f32>(level, threads), "float64": flops::<f64>(level, threads) },
        "bytes": read,
    })
}

fn main() -> Result<(), String> {
    let counts: Result<Vec<usize>, _> = env::args().skip(1).map(|count| count.parse()).collect();
    let mut counts =
        counts.map_err(|error| format!("expected numbers of threads, such as 1 2; {error}"))?;
    if counts.is_empty() {
        counts = vec![1, 2];
    }
    counts.iter_mut().for_each(|count| *count = (*count).max(1));
    let mut report = Map::new();
    for level in Level::available() {
        let by_threads: Map<String, Value> =
            counts.iter().map(|&count| (count.to_string(), limits(level, count))).collect();
        report.insert(level.name().into(), by_threads.into());
    }
    println!("{}", Value::from(report));
    Ok(())
}
