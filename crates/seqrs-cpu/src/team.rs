//! The threads that work together.
//!
//! Work is cut into as many parts as there are threads, and no result depends on the cut. The
//! caller does the first part itself, and calls for help from a pool that the process keeps for
//! this library alone, whose threads sleep when there is nothing to do. Then each takes the next
//! part that nobody has begun. So a caller waits for parts that are being done, but never for
//! a helper to come: where eight callers share a pool of one thread, each does most of its parts
//! itself.
//!
//! # Fork
//! A forked child inherits the pool's memory but not its threads; work handed to it would
//! wait for ever. So the pool remembers the process that built it: another process builds
//! its own and leaves the inherited one alone, never joining or freeing it. The pool is
//! published by one atomic pointer, so there is no lock that a fork could leave locked.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Thread, available_parallelism};
use std::time::Duration;
use std::{env, process, ptr, thread};

use rayon::{ThreadPool, ThreadPoolBuilder};
use seqrs_core::Error;

use crate::pause::Pause;

/// A caller that has waited so long for the others' parts sleeps until they are done.
const PATIENCE: Duration = Duration::from_micros(100);

struct Pool {
    process: u32,
    /// Threads besides the caller.
    threads: usize,
    rayon: ThreadPool,
}

static POOL: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());
/// What [`set_num_threads`] asked for; 0 means nothing was asked.
static ASKED: AtomicUsize = AtomicUsize::new(0);
/// The number of threads where nothing was asked for, in the lower half, and the process that
/// found it, in the upper: a forked child, which may have another affinity, looks anew.
static DEFAULT: AtomicU64 = AtomicU64::new(0);
static WARNED: AtomicBool = AtomicBool::new(false);
/// Process and number of threads that the system refused, so that it is not asked again.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Threads that share a computation: what [`set_num_threads`] asked for, else
/// `SEQRS_NUM_THREADS`, else `OMP_NUM_THREADS`, else the processors that the affinity mask
/// and the cgroup quota leave to this process. All but the first are looked up once in each
/// process, at first use: the quota stands in files.
///
/// # Errors
/// [`Error::Option`] if `SEQRS_NUM_THREADS` is set but is no whole number from 1 on.
pub fn num_threads() -> Result<usize, Error> {
    match ASKED.load(Ordering::Relaxed) {
        0 => default_num_threads(),
        asked => Ok(asked),
    }
}

/// Whether [`num_threads`] has had an answer, in this process or before it was forked.
pub(crate) fn knows_num_threads() -> bool {
    ASKED.load(Ordering::Relaxed) != 0 || DEFAULT.load(Ordering::Relaxed) != 0
}

fn default_num_threads() -> Result<usize, Error> {
    let process = u64::from(process::id()) << 32;
    let known = DEFAULT.load(Ordering::Relaxed);
    if known & !u64::from(u32::MAX) == process {
        return Ok((known - process) as usize);
    }
    let found = look_up_num_threads()?.min(u32::MAX as usize);
    DEFAULT.store(process | found as u64, Ordering::Relaxed);
    Ok(found)
}

/// Sets the number of threads for this process.
///
/// # Errors
/// [`Error::Option`] if it is 0.
pub fn set_num_threads(threads: usize) -> Result<(), Error> {
    if threads == 0 {
        return Err(Error::option("num_threads", "an integer of at least 1", threads));
    }
    ASKED.store(threads, Ordering::Relaxed);
    Ok(())
}

/// What [`set_num_threads`] asked for, or 0 if nothing was asked.
pub fn asked() -> usize {
    ASKED.load(Ordering::Relaxed)
}

/// Goes back to what [`asked`] gave.
pub fn restore(asked: usize) {
    ASKED.store(asked, Ordering::Relaxed);
}

fn look_up_num_threads() -> Result<usize, Error> {
    const OURS: &str = "SEQRS_NUM_THREADS";
    match env::var_os(OURS) {
        Some(value) => {
            let text = value.to_string_lossy();
            match text.trim().parse() {
                Ok(threads) if threads > 0 => Ok(threads),
                _ => Err(Error::option(OURS, "an integer of at least 1", format!("{text:?}"))),
            }
        }
        // Another library's variable: a value of it that we do not understand is not ours to
        // refuse.
        None => Ok(env::var("OMP_NUM_THREADS")
            .ok()
            // For each level of nesting; we have one.
            .and_then(|text| text.split(',').next().unwrap_or_default().trim().parse().ok())
            .filter(|&threads| threads > 0)
            .unwrap_or_else(processors)),
    }
}

/// Processors that the affinity mask and the cgroup quota leave to this process.
pub fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// The pool of this process, for all threads but the caller; none if the system gives no
/// threads at all.
///
/// A pool that has become too small is replaced by one of at least twice its size. The old
/// one is never given back, as another thread may be using it; all of them together have less
/// than twice the threads of the last.
fn pool() -> Option<&'static ThreadPool> {
    let process = process::id();
    let wanted = num_threads().map_or(1, |threads| threads.saturating_sub(1).max(1));
    let current = POOL.load(Ordering::Acquire);
    // SAFETY: a pool, once published, is never freed or changed.
    let ours = unsafe { current.as_ref() }.filter(|pool| pool.process == process);
    let refused = u64::from(process) << 32 | wanted as u64;
    match ours {
        Some(pool) if pool.threads >= wanted || REFUSED.load(Ordering::Relaxed) == refused => {
            return Some(&pool.rayon);
        }
        None if REFUSED.load(Ordering::Relaxed) == refused => return None,
        _ => {}
    }
    let threads = ours.map_or(wanted, |pool| wanted.max(2 * pool.threads));
    let built =
        ThreadPoolBuilder::new().num_threads(threads).thread_name(|k| format!("seqrs-{k}")).build();
    let rayon = match built {
        Ok(rayon) => rayon,
        Err(error) => {
            REFUSED.store(refused, Ordering::Relaxed);
            if !WARNED.swap(true, Ordering::Relaxed) {
                let left = ours.map_or(0, |pool| pool.threads) + 1;
                eprintln!("seqrs: computing on {left} threads, as no more can be had: {error}");
            }
            return ours.map(|pool| &pool.rayon);
        }
    };
    let fresh = Box::into_raw(Box::new(Pool { process, threads, rayon }));
    match POOL.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: just made by Box::into_raw, and from now on never freed.
        Ok(_) => Some(unsafe { &(*fresh).rayon }),
        Err(_) => {
            // SAFETY: another thread published its pool first; nobody saw this one.
            drop(unsafe { Box::from_raw(fresh) });
            pool()
        }
    }
}

/// Runs the tasks side by side, the first on the calling thread, and returns when all are
/// done. They begin in order. A task's panic goes on in the caller, when the others are done.
pub fn run<F: FnOnce() + Send>(tasks: Vec<F>) {
    run_within(tasks.len(), tasks);
}

/// As [`run`], for tasks that may be more than `threads`: one thread is the caller's own.
pub(crate) fn run_within<F: FnOnce() + Send>(threads: usize, tasks: impl IntoIterator<Item = F>) {
    if threads <= 1 {
        return tasks.into_iter().for_each(|task| task());
    }
    let tasks: Vec<_> = tasks.into_iter().map(Task::new).collect();
    let helpers = threads.min(tasks.len()).saturating_sub(1);
    match if helpers == 0 { None } else { pool() } {
        None => tasks.iter().for_each(Task::run),
        Some(pool) => {
            let run = |k: usize| tasks[k].run();
            let queue = Arc::new(Queue::new(tasks.len(), &run));
            for _ in 0..helpers {
                let queue = Arc::clone(&queue);
                pool.spawn(move || queue.help());
            }
            queue.finish();
        }
    }
}

/// A task that whoever takes its number runs.
struct Task<F>(UnsafeCell<Option<F>>);

// SAFETY: each number is given once, so that one thread alone uses the cell.
unsafe impl<F: Send> Sync for Task<F> {}

impl<F: FnOnce()> Task<F> {
    fn new(task: F) -> Self {
        Self(UnsafeCell::new(Some(task)))
    }

    fn run(&self) {
        // SAFETY: as above.
        let task = unsafe { &mut *self.0.get() }.take();
        if let Some(task) = task {
            task();
        }
    }
}

/// Tasks by their numbers, of which each thread takes the next that nobody has begun.
///
/// A helper may come when the caller has gone: then nothing is left to take, and it uses
/// nothing of what was the caller's.
struct Queue {
    /// What lives until all tasks are done, as the caller waits for that.
    run: *const (dyn Fn(usize) + Sync),
    len: usize,
    next: AtomicUsize,
    done: AtomicUsize,
    caller: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: what `run` points to may be used by many threads.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// Of `len` tasks, the first of which the caller will do. [`finish`](Self::finish) has to
    /// be called before `run` goes.
    fn new(len: usize, run: &(dyn Fn(usize) + Sync)) -> Self {
        let run: *const (dyn Fn(usize) + Sync + '_) = run;
        // SAFETY: it is used for tasks that are not done, and `finish` waits for these.
        let run: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(run) };
        Self {
            run,
            len,
            next: AtomicUsize::new(1),
            done: AtomicUsize::new(0),
            caller: thread::current(),
            panic: Mutex::new(None),
        }
    }

    /// Does what nobody has begun, as long as there is something; gives whether there was.
    fn work(&self) -> bool {
        let mut any = false;
        loop {
            let k = self.next.fetch_add(1, Ordering::Relaxed);
            if k >= self.len {
                return any;
            }
            self.task(k);
            any = true;
        }
    }

    /// The caller's part; all tasks are done when it returns.
    fn finish(&self) {
        self.task(0);
        self.work();
        let mut pause = Pause::default();
        while !self.is_done() {
            if pause.length() < PATIENCE { pause.once() } else { thread::park() }
        }
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// A helper's part, whenever it comes.
    fn help(&self) {
        // Who came in vain does not disturb a caller that may long do something else.
        if self.work() && self.is_done() {
            self.caller.unpark();
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.len
    }

    fn task(&self, k: usize) {
        // SAFETY: this task is not done, so that `finish` has not returned.
        let run = unsafe { &*self.run };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(k))) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        self.done.fetch_add(1, Ordering::AcqRel);
    }
}

/// `len` cut into at most `parts` runs of nearly equal length, multiples of `grain` but
/// for the last.
pub fn split(len: usize, parts: usize, grain: usize) -> Vec<Range<usize>> {
    let grains = len.div_ceil(grain);
    let parts = parts.clamp(1, grains.max(1));
    let cut = |k: usize| (grains * k / parts * grain).min(len);
    (0..parts).map(|k| cut(k)..cut(k + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_covers_everything_once() {
        for len in 0..50 {
            for parts in 1..6 {
                for grain in [1, 4, 16] {
                    let ranges = split(len, parts, grain);
                    assert!(ranges.len() <= parts);
                    assert_eq!(ranges.iter().map(Range::len).sum::<usize>(), len);
                    assert!(ranges.windows(2).all(|w| w[0].end == w[1].start));
                }
            }
        }
    }

    #[test]
    fn every_task_runs() {
        let mut done = [false; 5];
        run(done.iter_mut().map(|d| move || *d = true).collect());
        assert_eq!(done, [true; 5]);
        let here = std::thread::current().id();
        run_within(1, (0..3).map(|_| || assert_eq!(std::thread::current().id(), here)));
    }

    #[test]
    fn a_caller_waits_for_no_helper_that_does_not_come() {
        set_num_threads(2).unwrap();
        let held = Arc::new(AtomicBool::new(true));
        let pool = pool().unwrap();
        for _ in 0..pool.current_num_threads() {
            let held = Arc::clone(&held);
            pool.spawn(move || {
                while held.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        for _ in 0..100 {
            let mut done = [false; 4];
            run(done.iter_mut().map(|d| move || *d = true).collect());
            assert_eq!(done, [true; 4]);
        }
        held.store(false, Ordering::Relaxed);
        restore(0);
    }

    #[test]
    fn a_panic_goes_on_when_the_others_are_done() {
        let done = AtomicUsize::new(0);
        for bad in 0..3 {
            let task = |k: usize| {
                let done = &done;
                move || {
                    assert!(k != bad, "as this test wants it");
                    thread::sleep(Duration::from_millis(2));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            };
            let ended = catch_unwind(AssertUnwindSafe(|| run((0..3).map(task).collect())));
            let panic = ended.unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"as this test wants it"));
            assert_eq!(done.swap(0, Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn the_pool_has_the_size_that_was_asked_for_and_not_that_of_the_work() {
        set_num_threads(3).unwrap();
        for tasks in 2..40 {
            run((0..tasks).map(|_| || ()).collect());
        }
        // SAFETY: a pool is never freed.
        let size = || unsafe { &*POOL.load(Ordering::Acquire) }.threads;
        // Another test may have asked for more before.
        let before = size();
        assert!(before >= 2);
        set_num_threads(before + 2).unwrap();
        run((0..3).map(|_| || ()).collect());
        assert_eq!(size(), 2 * before);
        restore(0);
    }

    #[test]
    fn no_threads_are_refused() {
        assert!(set_num_threads(0).unwrap_err().to_string().contains("at least 1"));
    }
}
