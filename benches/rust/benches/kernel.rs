//! One product: everything that a layer does is made of these.
//!
//! An item is a multiply-add, so 1 Gitem/s are 2 GFLOP/s.

use divan::Bencher;
use divan::counter::ItemsCount;
use seqrs::low_level::Cpu;
use seqrs_benches::numbers;

fn main() {
    divan::main();
}

/// Rows, columns and terms of each sum.
const SHAPES: [(usize, usize, usize); 5] = [
    (1, 1024, 256),    // one row of an LSTM of 256: a read of the weights
    (32, 512, 128),    // 32 rows of an LSTM of 128, weights in L2
    (32, 2048, 512),   // 32 rows of an LSTM of 512, weights beyond L2
    (3200, 1024, 256), // 100 steps of 32 rows at once: X W over time
    (3200, 2048, 512),
];

/// y = x W^T + b with packed weights.
#[divan::bench(args = SHAPES, consts = [1, 2])]
fn product<const THREADS: usize>(bencher: Bencher<'_, '_>, shape: (usize, usize, usize)) {
    let (rows, n, k) = shape;
    let cpu = cpu(THREADS);
    let (x, w, b) = (numbers(rows * k), numbers(n * k), numbers(n));
    let packed = cpu.pack(&w, Some(&b), n, k).expect("memory for the weights");
    let mut y = vec![0.0; rows * n];
    cpu.product(&x, &packed, &mut y).unwrap();
    for (r, c) in [(0, 0), (rows - 1, n - 1)] {
        let dot: f32 = x[r * k..][..k].iter().zip(&w[c * k..][..k]).map(|(x, w)| x * w).sum();
        assert!((y[r * n + c] - dot - b[c]).abs() < 1e-3, "a wrong product");
    }
    bencher
        .counter(ItemsCount::new(rows * n * k))
        .bench_local(|| cpu.product(divan::black_box(&x), &packed, &mut y));
}

/// dW += dY^T X over 3200 items.
#[divan::bench(args = [128, 256, 512], consts = [1, 2])]
fn outer<const THREADS: usize>(bencher: Bencher<'_, '_>, hidden: usize) {
    let (items, n, k) = (3200, 4 * hidden, hidden);
    let cpu = cpu(THREADS);
    let (d_y, x) = (numbers(items * n), numbers(items * k));
    let mut d_w = vec![0.0; n * k];
    bencher
        .counter(ItemsCount::new(items * n * k))
        .bench_local(|| cpu.add_outer(divan::black_box(&d_y), &x, n, k, &mut d_w, None).unwrap());
}

/// The matrix in the order in which the kernels read it: what a change of weights costs.
#[divan::bench(args = [128, 256, 512])]
fn pack(bencher: Bencher<'_, '_>, hidden: usize) {
    let cpu = cpu(1);
    let w = numbers(4 * hidden * hidden);
    bencher
        .counter(ItemsCount::new(w.len()))
        .bench_local(|| cpu.pack(divan::black_box(&w), None, 4 * hidden, hidden));
}

fn cpu(threads: usize) -> Cpu<f32> {
    let level = Cpu::<f32>::new().expect("settings that can be followed").level();
    Cpu::with(level, threads)
}
