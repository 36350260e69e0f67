//! Pools beside streams that run alone.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Barrier};

use proptest::prelude::*;

use super::*;
use crate::layer::Layer;
use crate::{Activation, Dropout, Embedding, Gru, LayerNorm, Linear, Lstm, Rnn, States};

fn numbers_model<T: Number>() -> Sequential<T> {
    let model = Sequential::new(vec![
        LayerNorm::new(3).build().unwrap(),
        Lstm::new(3, 5).layers(2).proj_size(4).build().unwrap(),
        Dropout::new(0.3).build().unwrap(),
        Gru::new(4, 7).build().unwrap(),
        Linear::new(7, 2).build().unwrap(),
        Layer::Activation(Activation::Softmax),
    ]);
    model.unwrap().reseeded(3).unwrap()
}

fn ids_model() -> Sequential<f32> {
    let model = Sequential::new(vec![
        Embedding::new(11, 4).build().unwrap(),
        Rnn::new(4, 6).build().unwrap(),
        Layer::Last,
        Linear::new(6, 3).build().unwrap(),
    ]);
    model.unwrap().reseeded(5).unwrap()
}

/// An LSTM that is worth two threads from a few hundred rows on.
fn wide_model() -> Sequential<f32> {
    Lstm::new(16, 32).build().unwrap().into()
}

fn x<T: Number>(rows: usize, width: usize, seed: usize) -> Array2<T> {
    Array2::from_shape_fn((rows, width), |(b, i)| {
        T::from_f64(((seed * 31 + b * 7 + i * 3) % 64) as f64 / 32.0 - 1.0)
    })
}

/// A stream that runs alone.
struct Alone<T> {
    stream: Stream,
    state: States<T>,
}

#[derive(Clone, Debug)]
enum Deed {
    Open,
    Close(usize),
    Reset(usize),
    Move(usize),
    /// The streams, by where they are among the open ones.
    Step(Vec<usize>),
    /// All but the last so many that were used.
    Evict(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => Just(Deed::Open),
        1 => (0..8_usize).prop_map(Deed::Close),
        1 => (0..8_usize).prop_map(Deed::Reset),
        1 => (0..8_usize).prop_map(Deed::Move),
        6 => proptest::collection::vec(0..8_usize, 0..8).prop_map(Deed::Step),
        1 => (0..8_usize).prop_map(Deed::Evict),
    ]
}

fn bits<T: Number>(numbers: impl IntoIterator<Item = T>) -> Vec<u64> {
    numbers.into_iter().map(|number| Number::to_f64(number).to_bits()).collect()
}

/// Does the deeds with a pool of 6 places, and with each stream alone.
fn same_as_alone<T: Number>(deeds: Vec<Deed>) {
    let model = numbers_model::<T>();
    let pool = StreamPool::new(model.clone(), 6).unwrap();
    let mut alone: Vec<Alone<T>> = Vec::new();
    let mut gone: Vec<Stream> = Vec::new();
    for (k, deed) in deeds.into_iter().enumerate() {
        let count = alone.len();
        match deed {
            Deed::Open => match pool.open() {
                Ok(stream) => {
                    assert!(count < 6);
                    alone.push(Alone { stream, state: model.initial_state(1).unwrap() });
                }
                Err(error) => {
                    assert!(count == 6 && matches!(error, Error::Full { .. }), "{error}");
                }
            },
            Deed::Close(at) if at < count => {
                let stream = alone.remove(at).stream;
                pool.close(stream).unwrap();
                gone.push(stream);
            }
            Deed::Reset(at) if at < count => {
                pool.reset(alone[at].stream).unwrap();
                alone[at].state = model.initial_state(1).unwrap();
            }
            Deed::Move(at) if at < count => {
                let bytes = pool.export_state(alone[at].stream).unwrap();
                pool.close(alone[at].stream).unwrap();
                gone.push(alone[at].stream);
                alone[at].stream = pool.import_state(&bytes).unwrap();
            }
            Deed::Step(rows) => {
                let mut rows: Vec<usize> = rows.into_iter().filter(|&at| at < count).collect();
                let mut seen = [false; 8];
                rows.retain(|&at| !std::mem::replace(&mut seen[at], true));
                let streams: Vec<Stream> = rows.iter().map(|&at| alone[at].stream).collect();
                let x = x::<T>(rows.len(), 3, k);
                let y = pool.step(&streams, x.view()).unwrap();
                for (b, &at) in rows.iter().enumerate() {
                    let x = x.slice(ndarray::s![b..=b, ..]);
                    let own = model.step(x, &mut alone[at].state).unwrap();
                    assert_eq!(bits(y.row(b).to_vec()), bits(own));
                }
            }
            Deed::Evict(left) => {
                // Times are those of the clock, so evict by hand: the longest unused first.
                let all = pool.books().places.open();
                for _ in left.min(all)..all {
                    let (place, generation) = pool.books().places.begin_to_evict(u64::MAX).unwrap();
                    let stream = Stream { pool: pool.id, place, generation };
                    assert!(pool.reset(stream).is_err(), "it is leaving");
                    pool.export_state(stream).unwrap();
                    pool.books().places.close(place);
                    let at = alone.iter().position(|alone| alone.stream == stream).unwrap();
                    gone.push(alone.remove(at).stream);
                }
            }
            _ => {}
        }
        assert_eq!(pool.len(), alone.len());
        for &stream in &gone {
            assert!(matches!(pool.reset(stream), Err(Error::State { .. })));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_stream_has_the_bits_that_it_has_alone(deeds in proptest::collection::vec(deed(), 1..60)) {
        same_as_alone::<f32>(deeds.clone());
        same_as_alone::<f64>(deeds);
    }
}

#[test]
fn many_rows_on_many_threads_have_the_bits_of_one_row() {
    let model = wide_model();
    let pool = StreamPool::new(model.clone(), 700).unwrap();
    let mut streams: Vec<Stream> = (0..700).map(|_| pool.open().unwrap()).collect();
    let before = team::asked();
    team::set_num_threads(3).unwrap();
    let first = x(700, 16, 1);
    pool.step(&streams, first.view()).unwrap();
    streams.reverse();
    let second = x(700, 16, 2);
    let y = pool.step(&streams, second.view()).unwrap();
    team::restore(before);
    for b in [0, 1, 127, 128, 350, 698, 699] {
        let mut state = model.initial_state(1).unwrap();
        let row = |x: &Array2<f32>, b: usize| x.slice(ndarray::s![b..=b, ..]).to_owned();
        model.step(row(&first, 699 - b).view(), &mut state).unwrap();
        let own = model.step(row(&second, b).view(), &mut state).unwrap();
        assert_eq!(y.row(b), own.row(0), "row {b}");
    }
    let stats = pool.stats();
    assert_eq!((stats.steps, stats.stream_steps, stats.batch_sizes[10]), (2, 1400, 2));
}

#[test]
fn ids_are_read_and_checked_before_anything_changes() {
    let model = ids_model();
    let pool = StreamPool::new(model.clone(), 4).unwrap();
    let streams = [pool.open().unwrap(), pool.open().unwrap()];
    let y = pool.step_ids(&streams, &[3, 10]).unwrap();
    let mut state = model.initial_state(2).unwrap();
    assert_eq!(y, model.step_ids(&[3, 10], &mut state).unwrap());
    let message = pool.step_ids(&streams, &[3, 11]).unwrap_err().to_string();
    assert_eq!(message, "x[1]: expected an id in 0..11, got 11");
    assert!(matches!(pool.step_ids(&streams, &[3]), Err(Error::Shape { .. })));
    let x = x(2, 4, 0);
    assert!(matches!(pool.step(&streams, x.view()), Err(Error::DType { .. })));
    let y = pool.step_ids(&streams, &[0, 1]).unwrap();
    assert_eq!(y, model.step_ids(&[0, 1], &mut state).unwrap());
    assert_eq!(pool.step_ids(&[], &[]).unwrap().dim(), (0, 3));
}

#[test]
fn a_handle_is_good_for_its_own_stream_alone() {
    let pool = StreamPool::new(ids_model(), 2).unwrap();
    let other = StreamPool::new(ids_model(), 2).unwrap();
    let (a, b) = (pool.open().unwrap(), pool.open().unwrap());
    let message = |pool: &StreamPool<f32>, streams: &[Stream]| {
        let ids = vec![0; streams.len()];
        pool.step_ids(streams, &ids).unwrap_err().to_string()
    };
    let expected = "expected an open stream of this pool, got";
    assert_eq!(message(&other, &[a]), format!("sids[0]: {expected} one of another pool"));
    assert_eq!(message(&pool, &[b, a, b]), format!("sids[2]: {expected} the one that is sids[0]"));
    pool.close(a).unwrap();
    assert_eq!(message(&pool, &[b, a]), format!("sids[1]: {expected} one that was closed"));
    let again = pool.open().unwrap();
    assert_eq!(again.place, a.place);
    assert_eq!(message(&pool, &[a]), format!("sids[0]: {expected} one that was closed"));
    let claim = pool.claim(&[b]).unwrap();
    assert_eq!(
        message(&pool, &[again, b]),
        format!("sids[1]: {expected} one that is being stepped")
    );
    for refused in [pool.close(b), pool.reset(b), pool.export_state(b).map(drop)] {
        assert!(refused.unwrap_err().to_string().ends_with("one that is being stepped"));
    }
    drop(claim);
    // Whoever was refused holds nothing.
    pool.step_ids(&[again, b], &[0, 1]).unwrap();
    assert_eq!(pool.stats().stepping, 0);
}

#[test]
fn a_step_that_does_not_finish_changes_nothing() {
    let model = wide_model();
    let pool = StreamPool::new(model.clone(), 300).unwrap();
    let streams: Vec<Stream> = (0..300).map(|_| pool.open().unwrap()).collect();
    let x = x(300, 16, 1);
    pool.step(&streams, x.view()).unwrap();
    let before: Vec<_> = streams.iter().map(|&s| pool.export_state(s).unwrap()).collect();
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    // Interrupted at each of the looks that a step takes.
    for left in 0.. {
        LOOKS.store(left, Ordering::Relaxed);
        let stop = || LOOKS.fetch_sub(1, Ordering::Relaxed) == 0;
        let done = interrupt::scope(stop, || pool.step(&streams, x.view()));
        if done.is_ok() {
            assert!(left > 3);
            break;
        }
        assert_eq!(done.unwrap_err(), Error::Interrupted);
        let after: Vec<_> = streams.iter().map(|&s| pool.export_state(s).unwrap()).collect();
        assert_eq!(after, before);
    }
    assert!(pool.export_state(streams[0]).unwrap() != before[0]);
    assert!(pool.stats().failed_steps > 3);
}

#[test]
fn who_finishes_without_a_step_changes_nothing() {
    let pool = StreamPool::new(ids_model(), 2).unwrap();
    let stream = pool.open().unwrap();
    pool.step_ids(&[stream], &[3]).unwrap();
    let before = pool.export_state(stream).unwrap();
    pool.claim(&[stream]).unwrap().finish();
    assert_eq!(pool.export_state(stream).unwrap(), before);
    let mut claim = pool.claim(&[stream]).unwrap();
    claim.step_on(StepInput::Ids(&[5]), &mut [0.0; 3]).unwrap();
    assert!(claim.step_on(StepInput::Ids(&[99]), &mut [0.0; 3]).is_err());
    claim.finish();
    assert_eq!(pool.export_state(stream).unwrap(), before);
    assert_eq!(pool.stats().failed_steps, 2);
}

#[test]
fn disjoint_streams_are_stepped_side_by_side() {
    let pool = Arc::new(StreamPool::new(ids_model(), 8).unwrap());
    let streams: Vec<Stream> = (0..8).map(|_| pool.open().unwrap()).collect();
    let barrier = Arc::new(Barrier::new(2));
    let threads: Vec<_> = streams
        .chunks(4)
        .map(|streams| {
            let (pool, barrier, streams) =
                (Arc::clone(&pool), Arc::clone(&barrier), streams.to_vec());
            std::thread::spawn(move || {
                for k in 0..20 {
                    let mut claim = pool.claim(&streams).unwrap();
                    // Both are in the middle of a step.
                    barrier.wait();
                    let mut y = [0.0; 12];
                    claim.step_on(StepInput::Ids(&[k % 11; 4]), &mut y).unwrap();
                    claim.finish();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(pool.stats().steps, 40);
}

#[test]
fn idle_streams_leave_the_longest_unused_first() {
    let pool = StreamPool::new(ids_model(), 4).unwrap();
    let streams: Vec<Stream> = (0..4).map(|_| pool.open().unwrap()).collect();
    pool.step_ids(&[streams[1]], &[4]).unwrap();
    assert_eq!(pool.evict_idle(Duration::from_secs(3600), |_| panic!("none is so old")), 0);
    let claim = pool.claim(&[streams[3]]).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    let mut left = Vec::new();
    let count = pool.evict_idle(Duration::from_millis(1), |stream| {
        pool.export_state(stream).unwrap();
        assert!(pool.close(stream).is_err() && pool.claim(&[stream]).is_err());
        left.push(stream);
    });
    assert_eq!((count, &left[..]), (3, &[streams[0], streams[2], streams[1]][..]));
    drop(claim);
    assert!(pool.export_state(streams[0]).is_err());
    assert_eq!((pool.len(), pool.stats().evicted), (1, 3));
    // Who panics has evicted one stream, and no more.
    std::thread::sleep(Duration::from_millis(2));
    let all = [pool.open().unwrap(), streams[3]];
    std::thread::sleep(Duration::from_millis(2));
    let panic = std::panic::AssertUnwindSafe(|| {
        pool.evict_idle(Duration::from_millis(1), |_| panic!("as this test wants it"))
    });
    assert!(std::panic::catch_unwind(panic).is_err());
    assert_eq!(pool.len(), 1);
    assert!(pool.reset(all[0]).is_ok());
}

#[test]
fn a_full_pool_opens_again_when_one_closes() {
    let pool = StreamPool::new(ids_model(), 2).unwrap();
    let (a, _) = (pool.open().unwrap(), pool.open().unwrap());
    let message = pool.open().unwrap_err().to_string();
    assert_eq!(message, "pool: expected fewer than 2 open streams (its capacity), got 2");
    let saved = pool.export_state(a).unwrap();
    assert!(matches!(pool.import_state(&saved), Err(Error::Full { .. })));
    pool.close(a).unwrap();
    pool.import_state(&saved).unwrap();
    assert_eq!(pool.stats().refused, 2);
}

#[test]
fn bytes_that_are_not_a_state_of_the_model_are_refused() {
    let pool = StreamPool::new(ids_model(), 3).unwrap();
    let stream = pool.open().unwrap();
    pool.step_ids(&[stream], &[4]).unwrap();
    let bytes = pool.export_state(stream).unwrap();
    assert_eq!(bytes.len(), 32 + 6 * 4 + 8);
    let refused = |bytes: &[u8], what: &str| {
        let error = pool.import_state(bytes).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("state: {what}")), "{error}");
    };
    for len in 0..bytes.len() {
        refused(&bytes[..len], "");
    }
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        refused(&bytes, "");
    }
    // Forged: the checksum is right.
    let forged = |at: usize, with: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        let end = bytes.len() - 8;
        let sum = xxhash_rust::xxh64::xxh64(&bytes[..end], 0);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    refused(&forged(8, &2_u32.to_le_bytes()), "version");
    refused(&forged(12, &8_u32.to_le_bytes()), "dtype");
    refused(&forged(16, &7_u64.to_le_bytes()), "fingerprint");
    refused(&forged(24, &u64::MAX.to_le_bytes()), "size");
    let longer = [&bytes[..bytes.len() - 8], &[0; 12]].concat();
    refused(&longer, "checksum");
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let bytes = forged(36, &number.to_le_bytes());
        refused(&bytes, "number 1");
        let stream = pool.import_state_with(&bytes, true).unwrap();
        assert_eq!(pool.export_state(stream).unwrap(), bytes);
        pool.close(stream).unwrap();
    }
    assert_eq!(pool.len(), 1, "who is refused takes no place");
    let other = StreamPool::new(ids_model().reseeded(6).unwrap(), 3).unwrap();
    let message = other.import_state(&bytes).unwrap_err().to_string();
    assert!(message.starts_with("state: fingerprint"), "{message}");
    let same = StreamPool::new(ids_model(), 3).unwrap();
    let moved = same.import_state(&bytes).unwrap();
    let y = same.step_ids(&[moved], &[1]).unwrap();
    assert_eq!(y, pool.step_ids(&[stream], &[1]).unwrap());
}

#[test]
fn what_is_no_pool_is_refused() {
    let bidirectional = Lstm::new(2, 3).bidirectional(true).build::<f32>().unwrap();
    let error = StreamPool::new(bidirectional.into(), 3).unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
    for layer in [Layer::MeanPool, Layer::MaxPool] {
        let model = Sequential::<f32>::new(vec![Rnn::new(2, 3).build().unwrap(), layer]).unwrap();
        assert!(matches!(StreamPool::new(model, 3), Err(Error::State { .. })));
    }
    assert!(matches!(StreamPool::new(ids_model(), 0), Err(Error::Shape { .. })));
    assert!(matches!(StreamPool::new(ids_model(), 1 << 40), Err(Error::Shape { .. })));
}

#[test]
fn memory_is_what_the_formula_says() {
    let pool = StreamPool::new(numbers_model::<f64>(), 10).unwrap();
    // Two layers of h (4) and c (5), and the GRU's h (7).
    assert_eq!(pool.nbytes(), 10 * (2 * (2 * (4 + 5) + 7) * 8 + 48));
    // In pairs.
    let pool = StreamPool::new(numbers_model::<f32>(), 10).unwrap();
    assert_eq!(pool.nbytes(), 10 * (2 * (2 * (4 + 6) + 8) * 4 + 48));
}

#[test]
fn a_child_takes_over_what_a_thread_of_its_parent_was_stepping() {
    let pool = StreamPool::new(ids_model(), 3).unwrap();
    let stream = pool.open().unwrap();
    let claim = pool.claim(&[stream]).unwrap();
    assert!(pool.claim(&[stream]).is_err());
    // As a child finds it: claimed, by another process.
    let elsewhere = pool.books().places.claimed_by_another_process(stream.place);
    assert!(elsewhere);
    std::mem::forget(claim);
    pool.step_ids(&[stream], &[2]).unwrap();
}
