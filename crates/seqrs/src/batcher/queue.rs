//! The requests of one process, and who computes them.
//!
//! One computes at a time. A thread that asks when nobody does computes its own request, at once.
//! What comes meanwhile waits, and a thread of the queue's own, started when it is first needed,
//! takes batch after batch until nothing waits; then it sleeps. Whoever computes, or delivers
//! answers, holds no lock meanwhile.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use std::{mem, process};

use seqrs_core::{Error, interrupt};

use super::BatcherOptions;
use super::batch::{self, Served};
use super::failure::Failure;
use super::grouping::{self, Group};
use super::request::{Answer, Sequence};
use super::slot::Slot;
use super::statistics::Statistics;
use super::stopping::{self, Stopped};
use crate::number::Number;

/// How often who closes looks whether the caller wants to stop waiting, and how often a thread
/// that has to help itself looks whether it can.
const PERIOD: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_millis(1);

/// What is done with an answer.
pub(super) enum Deliver<T> {
    /// Left where somebody waits for it.
    To(Arc<Slot<T>>),
    /// Given to a function.
    Call(Box<dyn FnOnce(Result<Answer<T>, Failure>) + Send>),
}

impl<T> Deliver<T> {
    fn deliver(self, answer: Result<Answer<T>, Failure>) {
        match self {
            Self::To(slot) => slot.put(answer),
            // A function that panics takes nobody else's answer away.
            Self::Call(call) => drop(catch_unwind(AssertUnwindSafe(|| call(answer)))),
        }
    }
}

/// Why a request is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Cancelled,
    Expired,
}

struct Item<T> {
    model: Arc<dyn Served<T>>,
    x: Sequence<T>,
    asked: Instant,
    /// When it has to be begun with, if nothing is being computed.
    due: Instant,
    deadline: Option<Instant>,
    deliver: Deliver<T>,
}

struct State<T> {
    /// By their numbers, hence in the order in which they came.
    waiting: BTreeMap<u64, Item<T>>,
    next: u64,
    /// Whether somebody computes, and which requests; false for those that were given up since.
    busy: bool,
    running: Vec<(u64, bool)>,
    worker: Option<ThreadId>,
    statistics: Statistics,
}

pub(super) struct Queue<T: Number> {
    /// The process that it belongs to.
    process: u32,
    options: BatcherOptions,
    state: Mutex<State<T>>,
    /// There may be something to do for the worker.
    work: Condvar,
    /// There may be nothing left to do.
    idle: Condvar,
    closed: AtomicBool,
    /// Closed without draining.
    abandoned: Arc<AtomicBool>,
}

/// What the worker does next.
enum Next<T> {
    Batch(Vec<(u64, Item<T>)>),
    Wait(Option<Instant>),
}

impl<T: Number> Queue<T> {
    pub(super) fn new(options: BatcherOptions, closed: bool) -> Self {
        Self {
            process: process::id(),
            options,
            state: Mutex::new(State {
                waiting: BTreeMap::new(),
                next: 0,
                busy: false,
                running: Vec::new(),
                worker: None,
                statistics: Statistics::new(options.max_batch),
            }),
            work: Condvar::new(),
            idle: Condvar::new(),
            closed: AtomicBool::new(closed),
            abandoned: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Whether this is the process that it belongs to. In a forked child another thread's locks
    /// stay locked for ever.
    pub(super) fn is_ours(&self) -> bool {
        self.process == process::id()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer; computed here and now if nobody computes.
    pub(super) fn predict(
        self: &Arc<Self>,
        model: Arc<dyn Served<T>>,
        x: Sequence<T>,
        deadline: Option<Instant>,
    ) -> Result<Answer<T>, Failure> {
        let asked = Instant::now();
        self.check(&*model, &x)?;
        let mut state = self.lock();
        let alone = self.options.max_wait.is_zero() || self.options.max_batch == 1;
        if alone && !state.busy && state.waiting.is_empty() && !self.is_closed() {
            state.statistics.submitted += 1;
            if deadline.is_some_and(|deadline| asked >= deadline) {
                state.statistics.expired += 1;
                return Err(Failure::Late);
            }
            state.busy = true;
            state.statistics.running = 1;
            drop(state);
            let begun = Instant::now();
            let work = || batch::alone(&*model, &x);
            let answer = match stopping::within(&self.abandoned, deadline, work) {
                (Err(Failure::Model(Error::Interrupted)), Some(Stopped::Late)) => {
                    Err(Failure::Late)
                }
                (Err(Failure::Model(Error::Interrupted)), Some(Stopped::Shut)) => {
                    Err(Failure::Closed)
                }
                (answer, _) => answer,
            };
            return self.finish_alone(x.steps(), asked, begun, answer);
        }
        let slot = Arc::new(Slot::default());
        let deliver = Deliver::To(Arc::clone(&slot));
        let worker = self.enqueue(&mut state, model, x, asked, deadline, deliver)?;
        drop(state);
        let id = worker.id;
        // Without a worker who waits does its work.
        let help = || (!worker.there).then(|| self.help()).map(|()| SOON);
        slot.wait(deadline, help).or_else(|failure| {
            let why = match &failure {
                Failure::Late => Why::Expired,
                Failure::Model(Error::Interrupted) => Why::Cancelled,
                _ => return Err(failure),
            };
            // The answer may have come in this very moment.
            match self.give_up(id, why) {
                true => Err(failure),
                false => slot.take().unwrap_or(Err(failure)),
            }
        })
    }

    /// Takes a request; the answer is delivered by another thread. Gives its number.
    pub(super) fn submit(
        self: &Arc<Self>,
        model: Arc<dyn Served<T>>,
        x: Sequence<T>,
        deadline: Option<Instant>,
        deliver: Deliver<T>,
    ) -> Result<u64, Failure> {
        let asked = Instant::now();
        self.check(&*model, &x)?;
        let mut state = self.lock();
        let Enqueued { id, there } =
            self.enqueue(&mut state, model, x, asked, deadline, deliver)?;
        if there {
            return Ok(id);
        }
        // Nobody waits here who could do the worker's work.
        let item = state.waiting.remove(&id);
        state.statistics.cancelled += 1;
        drop(state);
        drop(item);
        Err(Failure::NoThread)
    }

    /// A request that is not one, by the caller's own account.
    pub(super) fn count_failed(&self) {
        let statistics = &mut self.lock().statistics;
        statistics.submitted += 1;
        statistics.failed += 1;
    }

    fn check(&self, model: &dyn Served<T>, x: &Sequence<T>) -> Result<(), Failure> {
        x.check(model.model()).map_err(|error| {
            self.count_failed();
            Failure::Model(error)
        })
    }

    /// Puts a request into the queue, if there is room, and calls the worker.
    fn enqueue(
        self: &Arc<Self>,
        state: &mut State<T>,
        model: Arc<dyn Served<T>>,
        x: Sequence<T>,
        asked: Instant,
        deadline: Option<Instant>,
        deliver: Deliver<T>,
    ) -> Result<Enqueued, Failure> {
        let refusal = match (self.is_closed(), self.options.max_queue) {
            (true, _) => Some(Failure::Closed),
            (_, most) if state.waiting.len() >= most => Some(Failure::Full(most)),
            _ => None,
        };
        if let Some(failure) = refusal {
            state.statistics.refused += 1;
            return Err(failure);
        }
        state.statistics.submitted += 1;
        let id = state.next;
        state.next += 1;
        // Who has little time does not spend all of it waiting for company.
        let half = deadline.map(|deadline| deadline.saturating_duration_since(asked) / 2);
        let wait = half.map_or(self.options.max_wait, |half| half.min(self.options.max_wait));
        // A wait beyond what a clock can show is for a full batch.
        let due = asked.checked_add(wait).unwrap_or(asked + Duration::from_secs(1 << 30));
        state.waiting.insert(id, Item { model, x, asked, due, deadline, deliver });
        if state.worker.is_none() {
            let queue = Arc::clone(self);
            let worker = thread::Builder::new().name("seqrs-batcher".to_owned());
            state.worker = worker.spawn(move || queue.serve()).ok().map(|own| own.thread().id());
        } else if !state.busy {
            self.work.notify_one();
        }
        Ok(Enqueued { id, there: state.worker.is_some() })
    }

    /// Ends what [`predict`](Self::predict) has begun alone.
    fn finish_alone(
        &self,
        length: usize,
        asked: Instant,
        begun: Instant,
        answer: Result<Answer<T>, Failure>,
    ) -> Result<Answer<T>, Failure> {
        let mut state = self.lock();
        let statistics = &mut state.statistics;
        statistics.running = 0;
        match &answer {
            Err(Failure::Late) => statistics.expired += 1,
            Err(Failure::Model(Error::Interrupted) | Failure::Closed) => statistics.cancelled += 1,
            _ => {
                statistics.batch(1, Group::default().with(length));
                statistics.answered(asked, begun, answer.is_ok());
            }
        }
        state.busy = false;
        self.call(&state);
        answer
    }

    /// Wakes whom it may concern that nobody computes.
    fn call(&self, state: &State<T>) {
        if !state.waiting.is_empty() {
            self.work.notify_one();
        }
        if self.is_closed() {
            self.work.notify_one();
            self.idle.notify_all();
        }
    }

    /// Gives a request up: it is not computed if nobody has begun with it, and counted as given up.
    /// False if it has been answered, or given up, before.
    pub(super) fn give_up(&self, id: u64, why: Why) -> bool {
        if !self.is_ours() {
            return false;
        }
        let mut state = self.lock();
        let item = state.waiting.remove(&id);
        let mut running =
            state.running.iter_mut().filter(|(running, open)| *open && *running == id);
        let found = item.is_some() || running.next().map(|(_, open)| *open = false).is_some();
        if found {
            state.statistics.gave_up(why);
        }
        if self.is_closed() {
            self.call(&state);
        }
        drop(state);
        // What it would have been delivered to may be anything, so it goes without the lock.
        drop(item);
        found
    }

    /// The worker's life.
    fn serve(self: Arc<Self>) {
        let mut state = self.lock();
        loop {
            if state.busy {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let late = state.take_late(Instant::now());
            if !late.is_empty() {
                drop(state);
                late.into_iter().for_each(|item| item.deliver.deliver(Err(Failure::Late)));
                state = self.lock();
                continue;
            }
            match state.next(&self.options, self.is_closed(), Instant::now()) {
                Next::Batch(items) => {
                    drop(state);
                    self.compute(items);
                    state = self.lock();
                }
                Next::Wait(_) if self.is_closed() => {
                    state.worker = None;
                    self.idle.notify_all();
                    return;
                }
                Next::Wait(None) => {
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Next::Wait(Some(until)) => {
                    let time = until.saturating_duration_since(Instant::now());
                    let waited = self.work.wait_timeout(state, time);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Does one thing that the worker would do, if there was one.
    fn help(&self) {
        let mut state = self.lock();
        if state.busy || state.worker.is_some() {
            return;
        }
        if let Next::Batch(items) = state.next(&self.options, self.is_closed(), Instant::now()) {
            drop(state);
            // A signal that comes to this thread is not for the others' requests.
            interrupt::scope(|| false, || self.compute(items));
        }
    }

    /// Computes the requests, which are those that [`State::next`] gave, and delivers the answers.
    fn compute(&self, items: Vec<(u64, Item<T>)>) {
        let begun = Instant::now();
        let model = Arc::clone(&items[0].1.model);
        let sequences: Vec<&Sequence<T>> = items.iter().map(|(_, item)| &item.x).collect();
        let work = || batch::together(&*model, &sequences);
        let (answers, _) = stopping::within(&self.abandoned, None, work);
        let group = sequences.iter().fold(Group::default(), |group, x| group.with(x.steps()));

        let mut state = self.lock();
        let running = mem::take(&mut state.running);
        let statistics = &mut state.statistics;
        statistics.running = 0;
        statistics.batch(items.len(), group);
        for (((_, item), (_, open)), answer) in items.iter().zip(&running).zip(&answers) {
            match answer {
                _ if !open => {}
                Err(Failure::Model(Error::Interrupted)) => statistics.gave_up(Why::Cancelled),
                answer => statistics.answered(item.asked, begun, answer.is_ok()),
            }
        }
        state.busy = false;
        self.call(&state);
        drop(state);
        for ((_, item), answer) in items.into_iter().zip(answers) {
            let answer = match answer {
                // No signal reaches this: it was stopped as the queue was closed.
                Err(Failure::Model(Error::Interrupted)) => Err(Failure::Closed),
                answer => answer,
            };
            item.deliver.deliver(answer);
        }
    }

    /// Takes no more requests. What waits is computed if `drain` is set, else given up, and what
    /// is being computed is stopped.
    pub(super) fn shut(&self, drain: bool) {
        let mut state = self.lock();
        self.closed.store(true, Ordering::Release);
        let mut left = BTreeMap::new();
        if !drain {
            self.abandoned.store(true, Ordering::Relaxed);
            left = mem::take(&mut state.waiting);
            state.statistics.cancelled += left.len() as u64;
        }
        self.work.notify_one();
        drop(state);
        for item in left.into_values() {
            item.deliver.deliver(Err(Failure::Closed));
        }
    }

    /// Waits until nothing waits or is computed and the worker is gone; asks meanwhile whether the
    /// caller wants to stop waiting.
    pub(super) fn join(&self) -> Result<(), Error> {
        let here = thread::current().id();
        let mut state = self.lock();
        // The worker itself, in a function that it delivers to, does not wait for itself.
        while state.worker != Some(here)
            && (state.busy || state.worker.is_some() || !state.waiting.is_empty())
        {
            let waited = self.idle.wait_timeout(state, PERIOD);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            interrupt::check()?;
            state = self.lock();
        }
        Ok(())
    }

    pub(super) fn statistics(&self) -> Statistics {
        let state = self.lock();
        Statistics { waiting: state.waiting.len(), ..state.statistics.clone() }
    }
}

/// A request that waits now.
struct Enqueued {
    id: u64,
    /// Whether there is a worker.
    there: bool,
}

impl<T: Number> State<T> {
    /// Takes out what is too late.
    fn take_late(&mut self, now: Instant) -> Vec<Item<T>> {
        let is_late = |item: &Item<T>| item.deadline.is_some_and(|deadline| now >= deadline);
        let late = self.waiting.iter().filter(|(_, item)| is_late(item));
        let late: Vec<u64> = late.map(|(&id, _)| id).collect();
        self.statistics.expired += late.len() as u64;
        late.iter().filter_map(|id| self.waiting.remove(id)).collect()
    }

    /// The batch that is due, which is computed from now on, or when one will be.
    fn next(&mut self, options: &BatcherOptions, now_or_never: bool, now: Instant) -> Next<T> {
        // The first that is due, and of several that of the lowest number.
        let Some((&first, item)) = self.waiting.iter().min_by_key(|(_, item)| item.due) else {
            return Next::Wait(None);
        };
        if item.due > now && self.waiting.len() < options.max_batch && !now_or_never {
            return Next::Wait(Some(item.due));
        }
        let alike = |other: &Item<T>| {
            Arc::ptr_eq(&other.model, &item.model) && other.x.shares_rows_with(&item.x)
        };
        let candidates = self.waiting.iter().filter(|(_, other)| alike(other));
        let mut candidates: Vec<_> = candidates.map(|(&id, item)| (item.x.steps(), id)).collect();
        let chosen = grouping::choose(&mut candidates, first, options.max_batch);
        let take = |id| Some((id, self.waiting.remove(&id)?));
        let batch: Vec<_> = chosen.into_iter().filter_map(take).collect();
        self.busy = true;
        self.running = batch.iter().map(|&(id, _)| (id, true)).collect();
        self.statistics.running = batch.len();
        Next::Batch(batch)
    }
}

impl Statistics {
    fn gave_up(&mut self, why: Why) {
        match why {
            Why::Cancelled => self.cancelled += 1,
            Why::Expired => self.expired += 1,
        }
    }

    fn answered(&mut self, asked: Instant, begun: Instant, well: bool) {
        match well {
            true => self.done += 1,
            false => self.failed += 1,
        }
        self.queue.add(begun.duration_since(asked));
        self.latency.add(asked.elapsed());
    }
}
