//! What callers see: the model's bits, whose failure is whose, and what happens to who waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Waker;
use std::thread;

use ndarray::{Array2, ArrayD, Axis};
use seqrs_core::{Steps, interrupt};

use super::*;
use crate::random::Stream;
use crate::sequential::{Input, Output, Sequential};
use crate::{Embedding, Gru, Layer, Linear, Lstm};

/// Longer than anything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(20);

fn tagger() -> Sequential<f32> {
    let layers = vec![Lstm::new(3, 7).build().unwrap(), Linear::new(7, 2).build().unwrap()];
    Sequential::new(layers).unwrap().reseeded(1).unwrap()
}

fn classifier(seed: u64) -> Sequential<f64> {
    let gru = Gru::new(5, 6).layers(2).bidirectional(true).build().unwrap();
    let layers = vec![
        Embedding::new(9, 5).build().unwrap(),
        gru,
        Layer::Last,
        Linear::new(12, 4).build().unwrap(),
    ];
    Sequential::new(layers).unwrap().reseeded(seed).unwrap()
}

fn numbers(steps: usize, seed: u64) -> Array2<f32> {
    let mut random = Stream::new(seed, 0);
    Array2::from_shape_simple_fn((steps, 3), || random.uniform() as f32 - 0.5)
}

fn directly(model: &Sequential<f32>, x: &Array2<f32>) -> ArrayD<f32> {
    let (y, _) = model.infer(x.view().insert_axis(Axis(0))).unwrap();
    y.index_axis_move(Axis(0), 0)
}

fn ids_directly(model: &Sequential<f64>, ids: &[i64]) -> ArrayD<f64> {
    let ids = Array2::from_shape_vec((1, ids.len()), ids.to_vec()).unwrap();
    model.infer(&ids).unwrap().0.index_axis_move(Axis(0), 0)
}

fn options(max_batch: usize, max_queue: usize) -> BatcherOptions {
    BatcherOptions { max_batch, max_queue, max_wait: Duration::ZERO }
}

/// A door that a model waits at; and what has come to it.
#[derive(Default)]
struct Door {
    open: Mutex<bool>,
    moved: Condvar,
    came: AtomicUsize,
}

impl Door {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.moved.notify_all();
    }

    fn pass(&self) {
        self.came.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.moved.wait_timeout_while(open, LONG, |open| !*open).unwrap());
    }

    fn wait_for(&self, count: usize) {
        until(|| self.came.load(Ordering::SeqCst) >= count);
    }
}

/// A model behind a door, which panics for who asks with this length alone, and says which lengths
/// came together.
#[derive(Clone)]
struct Guarded {
    model: Sequential<f32>,
    door: Arc<Door>,
    batches: Arc<Mutex<Vec<Vec<usize>>>>,
}

const CURSED: usize = 13;

impl Guarded {
    fn new() -> Self {
        Self { model: tagger(), door: Arc::default(), batches: Arc::default() }
    }

    fn batches(&self) -> Vec<Vec<usize>> {
        self.batches.lock().unwrap().clone()
    }
}

impl Served<f32> for Guarded {
    fn model(&self) -> &Sequential<f32> {
        &self.model
    }

    fn infer(&self, x: Input<'_, f32>, steps: &Steps) -> Result<Output<f32>, Error> {
        self.door.pass();
        interrupt::check()?;
        let mut lengths = steps.live_steps();
        lengths.sort_unstable();
        assert!(!lengths.contains(&CURSED), "cursed");
        self.batches.lock().unwrap().push(lengths);
        Served::infer(&self.model, x, steps)
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "it hangs");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A batcher that computes one request and cannot go on before the door opens.
fn held(options: BatcherOptions) -> (Arc<Batcher<f32>>, Guarded) {
    let guarded = Guarded::new();
    let batcher = Arc::new(Batcher::new(guarded.clone(), options).unwrap());
    let first = Arc::clone(&batcher);
    thread::spawn(move || first.predict(&numbers(1, 0)));
    guarded.door.wait_for(1);
    (batcher, guarded)
}

type Told = Receiver<Result<Answer<f32>, Failure>>;

fn ask(batcher: &Batcher<f32>, steps: usize) -> (Ticket<f32>, Told) {
    let (tell, told) = channel();
    let done = move |answer| drop(tell.send(answer));
    (batcher.submit(&numbers(steps, steps as u64), done).unwrap(), told)
}

#[test]
fn answers_have_the_bits_of_direct_calls() {
    let (model, other) = (tagger(), classifier(2));
    // They wait for each other, so that there are batches whatever the machine does.
    let options = BatcherOptions { max_wait: Duration::from_millis(5), ..options(8, 1000) };
    let one = Batcher::new(model.clone(), options).unwrap();
    let two = Batcher::new(other.clone(), options).unwrap();
    thread::scope(|scope| {
        for k in 0..6 {
            let (model, other, one, two) = (&model, &other, &one, &two);
            scope.spawn(move || {
                for n in 0..30 {
                    let mut random = Stream::new(30 * k + n, 0);
                    let x = numbers((random.uniform() * 30.0) as usize, n);
                    assert_eq!(one.predict(&x).unwrap(), directly(model, &x));
                    let length = (random.uniform() * 30.0) as usize;
                    let ids: Vec<i64> =
                        (0..length).map(|_| (random.uniform() * 9.0) as i64).collect();
                    assert_eq!(two.predict(ids.clone()).unwrap(), ids_directly(other, &ids));
                }
            });
        }
    });
    for (done, sizes) in
        [one.statistics(), two.statistics()].map(|found| (found.done, found.batch_sizes))
    {
        assert_eq!(done, 180);
        assert!(sizes.len() > 1, "none was computed beside another: {sizes:?}");
    }
}

#[test]
fn what_waits_becomes_batches_of_like_lengths() {
    let (batcher, guarded) = held(options(4, 1000));
    let told: Vec<_> = [8, 900, 9, 8, 10, 9, 9].map(|steps| ask(&batcher, steps)).into();
    assert_eq!(batcher.statistics().waiting, 7);
    guarded.door.open();
    for ((_, told), steps) in told.iter().zip([8, 900, 9, 8, 10, 9, 9]) {
        let y = told.recv_timeout(LONG).unwrap().unwrap().into_array();
        assert_eq!(y, directly(&guarded.model, &numbers(steps, steps as u64)));
    }
    assert_eq!(guarded.batches(), [vec![1], vec![8, 8, 9, 9], vec![900], vec![9, 10]]);
    let found = batcher.statistics();
    assert_eq!((found.submitted, found.done, found.batches), (8, 8, 4));
    assert_eq!(found.batch_sizes, [2, 1, 0, 1]);
    assert_eq!((found.steps, found.places), (954, 957));
    assert!(found.padding_cost() > 0.0 && found.padding_cost() < found.padding_share());
    for histogram in [found.queue, found.latency] {
        assert_eq!(histogram.counts().iter().sum::<u64>(), 8);
    }
}

#[test]
fn what_does_not_fit_fails_alone_and_at_once() {
    let (batcher, guarded) = held(options(4, 1000));
    let (_, good) = ask(&batcher, 4);
    let wrong = batcher.predict(&Array2::zeros((4, 2))).unwrap_err();
    assert!(matches!(&wrong, Failure::Model(Error::Shape { .. })), "{wrong}");
    let wrong = batcher.predict(vec![1]).unwrap_err();
    assert!(matches!(&wrong, Failure::Model(Error::DType { .. })), "{wrong}");
    let ids = Batcher::new(classifier(0), options(4, 1000)).unwrap();
    let wrong = ids.predict(vec![1, 8, 9, -1]).unwrap_err();
    assert_eq!(wrong.to_string(), "x[2]: expected an id in 0..9, got 9");
    let mut sick = numbers(4, 5);
    sick[[2, 1]] = f32::NAN;
    let (tell, sick_told) = channel();
    batcher.submit(&sick, move |answer| drop(tell.send(answer))).unwrap();
    guarded.door.open();
    let good = good.recv_timeout(LONG).unwrap().unwrap().into_array();
    assert_eq!(good, directly(&guarded.model, &numbers(4, 4)));
    let sick = sick_told.recv_timeout(LONG).unwrap().unwrap().into_array();
    assert!(
        sick.iter().map(|y| y.is_nan()).eq([false, false, false, false, true, true, true, true])
    );
    assert_eq!(guarded.batches(), [vec![1], vec![4, 4]]);
    assert_eq!(batcher.statistics().failed, 2);
}

#[test]
fn a_queue_has_its_bound_and_who_gives_up_leaves_room() {
    let (batcher, guarded) = held(options(4, 3));
    let told: Vec<_> = (2..5).map(|steps| ask(&batcher, steps)).collect();
    let full = batcher.predict(&numbers(9, 9)).unwrap_err();
    assert_eq!(full.to_string(), "queue: expected fewer than 3 requests that wait, got 3");
    assert!(told[1].0.cancel());
    assert!(!told[1].0.cancel());
    let (_, last) = ask(&batcher, 5);
    guarded.door.open();
    for told in [&told[0].1, &told[2].1, &last] {
        told.recv_timeout(LONG).unwrap().unwrap();
    }
    assert_eq!(told[1].1.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    let found = batcher.statistics();
    assert_eq!((found.submitted, found.done, found.cancelled, found.refused), (5, 4, 1, 1));
    assert_eq!(guarded.batches(), [vec![1], vec![2, 4, 5]]);
}

#[test]
fn a_request_that_is_late_is_not_computed() {
    let (batcher, guarded) = held(options(4, 10));
    let (_, good) = ask(&batcher, 2);
    let asked = Instant::now();
    let late = batcher.predict_within(&numbers(3, 0), Duration::from_millis(30));
    assert_eq!(late, Err(Failure::Late));
    assert!(asked.elapsed() >= Duration::from_millis(30));
    // One that nobody waits for is told when the batch before has ended.
    let (tell, told) = channel();
    let deadline = Some(Instant::now());
    let model: Arc<dyn Served<f32>> = Arc::new(guarded.clone());
    let done = move |answer| drop(tell.send(answer));
    batcher.dispatcher.submit(model, &numbers(4, 0), deadline, done).unwrap();
    guarded.door.open();
    assert_eq!(told.recv_timeout(LONG).unwrap(), Err(Failure::Late));
    good.recv_timeout(LONG).unwrap().unwrap();
    assert_eq!(batcher.statistics().expired, 2);
    assert_eq!(guarded.batches(), [vec![1], vec![2]]);
    let now = batcher.predict_within(&numbers(3, 0), Duration::ZERO);
    assert_eq!(now, Err(Failure::Late));
    assert!(batcher.predict_within(&numbers(3, 0), Duration::MAX).is_ok());
}

#[test]
fn a_request_that_runs_alone_stops_at_its_deadline_and_when_its_caller_wants_it() {
    let batcher = Batcher::new(Slow(tagger()), options(4, 10)).unwrap();
    let late = batcher.predict_within(&numbers(3, 0), Duration::from_millis(20));
    assert_eq!(late, Err(Failure::Late));
    let stopped = interrupt::scope(|| true, || batcher.predict(&numbers(3, 0)));
    assert_eq!(stopped, Err(Failure::Model(Error::Interrupted)));
    let stopped = interrupt::scope(|| true, || batcher.predict_within(&numbers(3, 0), LONG));
    assert_eq!(stopped, Err(Failure::Model(Error::Interrupted)));
    let found = batcher.statistics();
    assert_eq!((found.submitted, found.expired, found.cancelled), (3, 1, 2));
}

/// A model that computes until it is stopped.
struct Slow(Sequential<f32>);

impl Served<f32> for Slow {
    fn model(&self) -> &Sequential<f32> {
        &self.0
    }

    fn infer(&self, _: Input<'_, f32>, _: &Steps) -> Result<Output<f32>, Error> {
        let start = Instant::now();
        while start.elapsed() < LONG {
            interrupt::check()?;
            thread::sleep(Duration::from_millis(1));
        }
        panic!("nobody has stopped it");
    }
}

#[test]
fn who_waits_hears_an_interrupt_and_is_not_computed() {
    let (batcher, guarded) = held(options(4, 10));
    let stopped = interrupt::scope(|| true, || batcher.predict(&numbers(3, 0)));
    assert_eq!(stopped, Err(Failure::Model(Error::Interrupted)));
    guarded.door.open();
    batcher.close(true).unwrap();
    assert_eq!(guarded.batches(), [vec![1]]);
    assert_eq!(batcher.statistics().cancelled, 1);
}

#[test]
fn a_panic_is_the_failure_of_its_batch_alone() {
    let (batcher, guarded) = held(options(4, 10));
    let [cursed, beside] = [CURSED, CURSED - 1].map(|steps| ask(&batcher, steps).1);
    let far = ask(&batcher, 500).1;
    guarded.door.open();
    for told in [cursed, beside] {
        let failure = told.recv_timeout(LONG).unwrap().unwrap_err();
        assert_eq!(failure, Failure::Panicked("cursed".to_owned()));
    }
    far.recv_timeout(LONG).unwrap().unwrap();
    // On the caller's own thread too.
    until(|| batcher.statistics().running == 0);
    let alone = batcher.predict(&numbers(CURSED, 0));
    assert_eq!(alone, Err(Failure::Panicked("cursed".to_owned())));
    assert!(batcher.predict(&numbers(2, 0)).is_ok());
    assert_eq!(batcher.statistics().failed, 3);
}

#[test]
fn a_function_for_an_answer_that_panics_takes_no_other_answer_away() {
    let (batcher, guarded) = held(options(4, 10));
    batcher.submit(&numbers(3, 0), |_| panic!("as this test wants it")).unwrap();
    let (_, told) = ask(&batcher, 4);
    guarded.door.open();
    told.recv_timeout(LONG).unwrap().unwrap();
}

/// What has memory for one row only.
struct Small(Sequential<f32>);

impl Served<f32> for Small {
    fn model(&self) -> &Sequential<f32> {
        &self.0
    }

    fn infer(&self, x: Input<'_, f32>, steps: &Steps) -> Result<Output<f32>, Error> {
        if steps.batch() > 1 || steps.time() == CURSED {
            return Err(Error::OutOfMemory { what: "outputs".to_owned(), bytes: 1 });
        }
        Served::infer(&self.0, x, steps)
    }
}

#[test]
fn what_is_too_much_for_a_batch_is_done_one_by_one() {
    let batcher = Batcher::new(
        Small(tagger()),
        BatcherOptions { max_wait: Duration::from_millis(50), ..options(3, 10) },
    );
    let batcher = batcher.unwrap();
    let told = [CURSED - 1, CURSED, CURSED + 1].map(|steps| ask(&batcher, steps).1);
    let well = told.map(|told| told.recv_timeout(LONG).unwrap().is_ok());
    assert_eq!(well, [true, false, true]);
    assert_eq!(batcher.statistics().batch_sizes, [0, 0, 1]);
}

#[test]
fn closing_computes_what_waits_or_gives_it_up() {
    for drain in [true, false] {
        let (batcher, guarded) = held(options(4, 10));
        let told: Vec<_> = [2, 3].map(|steps| ask(&batcher, steps)).into();
        let close = {
            let batcher = Arc::clone(&batcher);
            thread::spawn(move || batcher.close(drain))
        };
        until(|| batcher.dispatcher.is_closed());
        assert_eq!(batcher.predict(&numbers(1, 0)), Err(Failure::Closed));
        guarded.door.open();
        for (_, told) in told {
            assert_eq!(told.recv_timeout(LONG).unwrap().is_ok(), drain);
        }
        close.join().unwrap().unwrap();
        let found = batcher.statistics();
        assert_eq!((found.waiting, found.running, found.refused), (0, 0, 1));
        assert_eq!((found.done, found.cancelled), if drain { (3, 0) } else { (0, 3) });
        batcher.close(drain).unwrap();
    }
}

#[test]
fn closing_without_draining_stops_what_is_computed() {
    let batcher = Arc::new(Batcher::new(Slow(tagger()), options(4, 10)).unwrap());
    let alone = Arc::clone(&batcher);
    let alone = thread::spawn(move || alone.predict(&numbers(3, 0)));
    until(|| batcher.statistics().running == 1);
    batcher.close(false).unwrap();
    assert_eq!(alone.join().unwrap(), Err(Failure::Closed));

    let batcher = Batcher::new(Slow(tagger()), options(4, 10)).unwrap();
    let (_, told) = ask(&batcher, 3);
    until(|| batcher.statistics().running == 1);
    let stopped = interrupt::scope(|| true, || batcher.close(true));
    assert_eq!(stopped, Err(Error::Interrupted));
    batcher.close(false).unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), Err(Failure::Closed));
    assert_eq!(batcher.statistics().cancelled, 1);
}

#[test]
fn dropping_a_batcher_ends_its_thread() {
    struct Tells(Sequential<f32>, Arc<AtomicBool>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }
    impl Served<f32> for Tells {
        fn model(&self) -> &Sequential<f32> {
            &self.0
        }
        fn infer(&self, x: Input<'_, f32>, steps: &Steps) -> Result<Output<f32>, Error> {
            Served::infer(&self.0, x, steps)
        }
    }
    let gone = Arc::new(AtomicBool::new(false));
    let batcher = Batcher::new(Tells(tagger(), Arc::clone(&gone)), options(4, 10)).unwrap();
    ask(&batcher, 2).1.recv_timeout(LONG).unwrap().unwrap();
    let queue = Arc::downgrade(batcher.dispatcher.queue());
    drop(batcher);
    until(|| queue.upgrade().is_none() && gone.load(Ordering::SeqCst));
}

#[test]
fn each_request_sees_one_model() {
    let models = [classifier(1), classifier(2)];
    let batcher = Batcher::new(models[0].clone(), options(8, 1000)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for k in 1.. {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                batcher.swap(models[k % 2].clone());
                thread::sleep(Duration::from_micros(200));
            }
        });
        let asking: Vec<_> = (0..4)
            .map(|k| {
                let (batcher, models) = (&batcher, &models);
                scope.spawn(move || {
                    for n in 0..100 {
                        let ids: Vec<i64> = (0..n % 20).map(|t| (t + k) % 9).collect();
                        let y = batcher.predict(ids.clone()).unwrap();
                        assert!(models.iter().any(|model| ids_directly(model, &ids) == y));
                    }
                })
            })
            .collect();
        let ended: Vec<_> = asking.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::SeqCst);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
}

#[test]
fn what_waits_keeps_its_model() {
    let (batcher, before) = held(options(8, 1000));
    let after = Guarded::new();
    let told = ask(&batcher, 3).1;
    batcher.swap(after.clone());
    let told = [told, ask(&batcher, 3).1];
    before.door.open();
    after.door.open();
    for told in told {
        told.recv_timeout(LONG).unwrap().unwrap();
    }
    assert_eq!((before.batches(), after.batches()), (vec![vec![1], vec![3]], vec![vec![3]]));
}

#[test]
fn who_gives_up_what_is_being_computed_is_counted_once() {
    let guarded = Guarded::new();
    let batcher = Batcher::new(guarded.clone(), options(4, 10)).unwrap();
    let (ticket, told) = ask(&batcher, 2);
    guarded.door.wait_for(1);
    assert!(ticket.cancel());
    assert!(!ticket.expire());
    guarded.door.open();
    told.recv_timeout(LONG).unwrap().unwrap();
    batcher.close(true).unwrap();
    let found = batcher.statistics();
    assert_eq!((found.submitted, found.cancelled, found.done, found.expired), (1, 1, 0, 0));
}

#[test]
fn a_full_batch_waits_no_longer_and_another_as_long_as_it_may() {
    let wait = Duration::from_millis(60);
    let batcher = Batcher::new(tagger(), BatcherOptions { max_wait: LONG, ..options(3, 10) });
    let batcher = batcher.unwrap();
    for told in [4, 4, 4].map(|steps| ask(&batcher, steps).1) {
        told.recv_timeout(LONG / 2).unwrap().unwrap();
    }
    assert_eq!(batcher.statistics().batch_sizes, [0, 0, 1]);
    // Half of the time of who has little.
    assert!(batcher.predict_within(&numbers(2, 0), LONG / 10).is_ok());

    let batcher = Batcher::new(tagger(), BatcherOptions { max_wait: wait, ..options(3, 10) });
    let asked = Instant::now();
    batcher.unwrap().predict(&numbers(2, 0)).unwrap();
    assert!(asked.elapsed() >= wait);
}

#[test]
fn a_task_gets_its_answer_and_one_that_is_dropped_leaves_the_queue() {
    let (batcher, guarded) = held(options(4, 10));
    let (x, y) = (numbers(3, 0), numbers(4, 0));
    let mut kept = Box::pin(batcher.predict_async(&x));
    let mut dropped = Box::pin(batcher.predict_async(&y));
    let mut context = Context::from_waker(Waker::noop());
    assert!(kept.as_mut().poll(&mut context).is_pending());
    assert!(dropped.as_mut().poll(&mut context).is_pending());
    assert_eq!(batcher.statistics().waiting, 2);
    drop(dropped);
    assert_eq!(batcher.statistics().waiting, 1);
    guarded.door.open();
    let mut found = None;
    until(|| match kept.as_mut().poll(&mut context) {
        Poll::Ready(answer) => {
            found = Some(answer);
            true
        }
        Poll::Pending => false,
    });
    assert_eq!(found.unwrap().unwrap(), directly(&guarded.model, &x));
    assert_eq!(guarded.batches(), [vec![1], vec![3]]);
}

#[test]
fn what_is_no_number_of_requests_is_refused() {
    for options in [options(0, 1), options(1, 0)] {
        let error = Batcher::new(tagger(), options).unwrap_err();
        assert!(error.to_string().contains("an integer of at least 1, got 0"), "{error}");
    }
}
