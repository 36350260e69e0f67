//! A step takes no memory, once the process has made some.
//!
//! The allocator counts what this thread asks for. In a file of its own, as a program has one
//! allocator.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ndarray::{Array2, ArrayView2};
use seqrs::low_level::Cpu;
use seqrs::{
    Activation, Dropout, Embedding, Gru, Layer, LayerNorm, Linear, Lstm, Number, Quantisation, Rnn,
    Sequential, States,
};

struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends may free what it cannot count any more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: every call is the system's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Steps before the one that counts: they pack the weights and leave buffers behind.
const WARM_UP: usize = 3;

/// How often `step` asks for memory after some rounds.
fn allocations(name: &str, mut step: impl FnMut()) {
    (0..WARM_UP).for_each(|_| step());
    let before = ASKED.get();
    (0..10).for_each(|_| step());
    assert_eq!(ASKED.get() - before, 0, "{name}: times that memory was asked for in ten steps");
}

fn x<T: Number>(batch: usize, width: usize) -> Array2<T> {
    Array2::from_shape_fn((batch, width), |(b, i)| T::from_f64((b * 3 + i) as f64 / 64.0))
}

fn of_layer<T: Number>(name: &str, layer: &Layer<T>, batch: usize) {
    let x = x(batch, layer.input_width().unwrap());
    let mut y = Array2::zeros((batch, layer.output_width(None).unwrap()));
    let mut state = layer.initial_state(batch).unwrap();
    allocations(name, || layer.step_into(x.view(), &mut state, y.view_mut()).unwrap());
}

fn of_every_layer<T: Number>() {
    let layers: [(&str, Layer<T>); 12] = [
        ("RNN", Rnn::new(5, 7).build().unwrap()),
        ("LSTM", Lstm::new(5, 7).build().unwrap()),
        ("LSTM, wide", Lstm::new(48, 128).build().unwrap()),
        ("LSTM, three layers", Lstm::new(5, 7).layers(3).build().unwrap()),
        ("LSTM, projected", Lstm::new(5, 7).proj_size(3).build().unwrap()),
        ("LSTM, peepholes", Lstm::new(5, 7).peepholes(true).build().unwrap()),
        ("LSTM, normalised", Lstm::new(5, 7).layer_norm(true).build().unwrap()),
        ("LSTM, zoneout", Lstm::new(5, 7).zoneout(0.1).zoneout_cell(0.1).build().unwrap()),
        ("GRU", Gru::new(5, 7).build().unwrap()),
        ("GRU, reset after", Gru::new(5, 7).reset_after(true).build().unwrap()),
        ("Linear", Linear::new(5, 7).build().unwrap()),
        ("LayerNorm", LayerNorm::new(5).build().unwrap()),
    ];
    for (name, layer) in &layers {
        for batch in [1, 8] {
            of_layer(&format!("{name}, {} rows of {}", batch, T::DTYPE), layer, batch);
        }
    }
}

#[test]
fn a_step_of_a_layer() {
    of_every_layer::<f32>();
    of_every_layer::<f64>();
}

#[test]
fn a_step_of_one_row_that_is_worth_two_threads() {
    of_layer("LSTM", &Lstm::new(512, 512).build::<f32>().unwrap(), 1);
}

fn model() -> Sequential<f32> {
    Sequential::new(vec![
        Embedding::new(50, 6).build().unwrap(),
        LayerNorm::new(6).build().unwrap(),
        Lstm::new(6, 9).layers(2).build().unwrap(),
        Dropout::new(0.5).build().unwrap(),
        Linear::new(9, 8).build().unwrap(),
        Layer::Activation(Activation::Relu),
        Gru::new(8, 5).build().unwrap(),
        Layer::Last,
        Linear::new(5, 50).build().unwrap(),
        Layer::Activation(Activation::Softmax),
    ])
    .unwrap()
}

#[test]
fn a_step_of_a_model() {
    let small = |kind| model().quantised(kind).unwrap().model().clone();
    let models = [
        ("model", model()),
        ("model of int8", small(Quantisation::Int8)),
        ("model of bf16", small(Quantisation::Bf16)),
    ];
    for (name, model) in models {
        for batch in [1, 8] {
            let ids: Vec<i64> = (0..batch as i64).collect();
            let mut y = Array2::zeros((batch, 50));
            let mut state = model.initial_state(batch).unwrap();
            allocations(name, || model.step_ids_into(&ids, &mut state, y.view_mut()).unwrap());
        }
    }
}

#[test]
fn a_step_of_a_recurrent_layer_on_slices() {
    let layer = Lstm::new(5, 7).build::<f32>().unwrap();
    let Layer::Recurrent(layer) = layer else { panic!("built as one") };
    let cpu = Cpu::new().unwrap();
    let (x, mut y) = ([0.5; 5], [0.0; 7]);
    let mut state = layer.initial_state(1).unwrap();
    allocations("LSTM", || layer.step_into(&cpu, &x, 1, &mut state, &mut y).unwrap());
}

/// What takes no memory gives what the sequence gives, whose step it is.
#[test]
fn the_steps_are_those_of_the_sequence() {
    let model = model();
    let (batch, time) = (3, 5);
    let ids = Array2::from_shape_fn((batch, time), |(b, t)| (b * 17 + t * 5) as i64 % 50);
    let stepwise: Vec<Layer<f32>> =
        model.layers().iter().filter(|layer| !matches!(layer, Layer::Last)).cloned().collect();
    let (expected, end) = Sequential::new(stepwise).unwrap().infer(&ids).unwrap();
    let mut state: States<f32> = model.initial_state(batch).unwrap();
    let mut y = Array2::zeros((batch, 50));
    for t in 0..time {
        let ids: Vec<i64> = ids.column(t).to_vec();
        model.step_ids_into(&ids, &mut state, y.view_mut()).unwrap();
        let step: ArrayView2<'_, f32> =
            expected.index_axis(ndarray::Axis(1), t).into_dimensionality().unwrap();
        assert_eq!(y, step, "step {t}");
    }
    assert_eq!(state, end);
}
