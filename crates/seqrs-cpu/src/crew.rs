//! Workers that share every step of a sequence.
//!
//! With few rows there is nothing to give a second worker but a part of the units: each
//! keeps some panels of the weights for the whole sequence, so its part stays in its own
//! cache. The price is that all have to meet after every product, since the next one reads
//! all of what this one wrote.
//!
//! # Meeting
//! The work is a row of phases, each of which needs all phases before it. Every member goes
//! through the same phases and meets the others before each:
//! ```text
//! while let Some(share) = member.meet() { do that share of the phase }
//! ```
//! Each member writes one word of its own, the phase it has come to, and reads those of the
//! others: one transfer of a cache line, about 0.3 us. It spins, and after a while lets
//! other threads run.
//!
//! # A machine with other things to do
//! No one waits for a worker that is not there. The leader, which is the calling thread,
//! works alone until all helpers have said that they run (`first`); a helper passes by the
//! phases that were done without it. A helper that the system takes off its processor in
//! the middle of a phase has to be waited for, and one that has to share the leader's all the
//! time. When the leader has lost too much time so, it goes on alone (`last`), and the process
//! forms no crew for a time that makes the loss small.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::pause::Pause;

/// A leader that has waited so long, spinning aside, asks itself whether help is any.
const PATIENCE: Duration = Duration::from_micros(100);

/// It is not when more than one part in so many of the time was waiting.
const LOSS: u32 = 4;

/// After that no crew is formed for this many times what was lost: all in all at most a
/// twentieth of the time.
const REST: u32 = 20;

/// But no longer than this: one long pause of the whole machine tells nothing of the next second.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// The leader's word before it has come to the first phase.
const NOT_HERE: usize = usize::MAX;

/// When crews may be formed again, in nanoseconds since the first question.
static RESTED: AtomicU64 = AtomicU64::new(0);

/// Phases that were shared, in all crews: tests ask whether they have tested any.
#[cfg(test)]
pub(crate) static SHARED: AtomicUsize = AtomicUsize::new(0);

fn now() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Whether it is worth a try to form a crew.
pub(crate) fn is_rested() -> bool {
    now().as_nanos() as u64 >= RESTED.load(Ordering::Relaxed)
}

/// Forms no crew for a time that makes a loss small.
fn rest_after(lost: Duration) {
    let rested = now() + (lost * REST).min(LONGEST_REST);
    RESTED.fetch_max(rested.as_nanos() as u64, Ordering::Relaxed);
}

/// A word that one thread writes and others watch, on a pair of cache lines of its own, as
/// processors fetch pairs.
#[repr(align(128))]
struct Word(AtomicUsize);

impl Word {
    fn new(value: usize) -> Self {
        Self(AtomicUsize::new(value))
    }

    #[inline]
    fn read(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    #[inline]
    fn write(&self, value: usize) {
        self.0.store(value, Ordering::Release);
    }
}

/// A leader and helpers that go through the phases of one job.
pub(crate) struct Crew {
    /// The phase that the leader has come to.
    leader: Word,
    /// The phase that each helper has come to.
    helpers: Vec<Word>,
    /// From this phase on all share the work ...
    first: AtomicUsize,
    /// ... and from this one on the leader needs no help.
    last: AtomicUsize,
    /// Helpers that run.
    ready: AtomicUsize,
    /// When the leader was done, in nanoseconds since the first question of all; 0 before.
    end: AtomicU64,
    /// When the last of the helpers went home that had come before that.
    gone: AtomicU64,
    /// A helper panicked: it is not waited for, and the result is lost.
    broken: AtomicBool,
}

/// What a member does in a phase: part `part` of `of` equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    part: usize,
    of: usize,
}

impl Share {
    /// Everything.
    const ALL: Self = Self { part: 0, of: 1 };
    /// Nothing: the leader has done the phase alone.
    const NONE: Self = Self { part: 0, of: 0 };

    /// This share of `count` things.
    #[inline]
    pub(crate) fn range(self, count: usize) -> Range<usize> {
        match self.of {
            0 => 0..0,
            of => count * self.part / of..count * (self.part + 1) / of,
        }
    }
}

impl Crew {
    /// With so many helpers.
    pub(crate) fn new(helpers: usize) -> Self {
        Self {
            leader: Word::new(NOT_HERE),
            helpers: (0..helpers).map(|_| Word::new(0)).collect(),
            first: AtomicUsize::new(usize::MAX),
            last: AtomicUsize::new(usize::MAX),
            ready: AtomicUsize::new(0),
            end: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Takes note that all members have gone home. A helper that the system has put aside
    /// could not be told before that nothing is left to do.
    pub(crate) fn disband(self) {
        if self.helpers.is_empty() {
            return;
        }
        let lost =
            Duration::from_nanos(self.gone.into_inner().saturating_sub(self.end.into_inner()));
        if lost > PATIENCE {
            rest_after(lost);
        }
    }

    /// Member `k`, which leads if that is 0. Each exists once.
    pub(crate) fn member(&self, k: usize) -> Member<'_> {
        Member {
            crew: self,
            k,
            phase: 0,
            came: false,
            left: false,
            together: None,
            waited: Duration::ZERO,
        }
    }

    /// Members, the leader among them.
    pub(crate) fn len(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Waits until all helpers but `own` have come to `phase`; gives the time it took, spinning
    /// aside.
    fn await_helpers(&self, phase: usize, own: Option<usize>) -> Duration {
        let mut pause = Pause::default();
        for (k, word) in self.helpers.iter().enumerate() {
            while Some(k) != own && word.read() < phase && !self.broken.load(Ordering::Relaxed) {
                pause.once();
            }
        }
        pause.length()
    }
}

/// One worker of a crew, on its way through the phases.
pub(crate) struct Member<'a> {
    crew: &'a Crew,
    k: usize,
    /// The phase that it has come to.
    phase: usize,
    /// Whether it came, as a helper, while there was a leader.
    came: bool,
    /// Whether it has left in peace.
    left: bool,
    /// When a leader first shared a phase, and how long it has waited since.
    together: Option<Instant>,
    waited: Duration,
}

impl Member<'_> {
    /// Whether this member leads.
    #[inline]
    pub(crate) fn leads(&self) -> bool {
        self.k == 0
    }

    /// Whether there are others.
    #[inline]
    pub(crate) fn has_company(&self) -> bool {
        !self.crew.helpers.is_empty()
    }

    /// Ends this member's part of the phase before, waits for the others as far as they take
    /// part, and gives its share of the next phase; to a helper that is no longer needed, none.
    #[inline(always)]
    pub(crate) fn meet(&mut self) -> Option<Share> {
        match self.has_company() {
            true => self.meet_others(),
            false => Some(Share::ALL),
        }
    }

    fn meet_others(&mut self) -> Option<Share> {
        match self.k.checked_sub(1) {
            None => Some(self.lead()),
            Some(own) => self.follow(own),
        }
    }

    fn lead(&mut self) -> Share {
        let Crew { leader, helpers, first, last, ready, .. } = self.crew;
        let phase = self.phase;
        let all_run = || ready.load(Ordering::Acquire) == helpers.len();
        if first.load(Ordering::Relaxed) == usize::MAX && all_run() {
            first.store(phase, Ordering::Release);
            self.together = Some(Instant::now());
        }
        let shared =
            |phase| (first.load(Ordering::Relaxed)..last.load(Ordering::Relaxed)).contains(&phase);
        // Before waiting, so that the words cross on their way.
        leader.write(phase);
        if phase.checked_sub(1).is_some_and(shared) {
            self.waited += self.crew.await_helpers(phase, None);
        }
        let share = if shared(phase) { Share { part: 0, of: self.crew.len() } } else { Share::ALL };
        let is_help = |since: Instant| self.waited * LOSS < since.elapsed();
        if self.waited > PATIENCE && shared(phase) && !self.together.is_some_and(is_help) {
            // The helpers may have begun this phase, so it is the last they share.
            last.store(phase + 1, Ordering::Release);
            rest_after(self.waited);
        }
        #[cfg(test)]
        SHARED.fetch_add(usize::from(share != Share::ALL), Ordering::Relaxed);
        self.phase += 1;
        share
    }

    fn follow(&mut self, own: usize) -> Option<Share> {
        let Crew { leader, helpers, first, last, ready, .. } = self.crew;
        let phase = self.phase;
        let mut pause = Pause::default();
        if phase == 0 {
            // A leader may itself wait for a thread, this one perhaps.
            while leader.read() == NOT_HERE {
                if pause.length() > PATIENCE {
                    self.left = true;
                    return None;
                }
                pause.once();
            }
            self.came = last.load(Ordering::Acquire) > 0;
            ready.fetch_add(1, Ordering::AcqRel);
        }
        helpers[own].write(phase);
        loop {
            // Before the others: they were written before it.
            let led = leader.read();
            let first = first.load(Ordering::Acquire);
            if phase >= last.load(Ordering::Acquire) {
                self.left = true;
                return None;
            }
            if led > phase && phase < first {
                self.phase += 1;
                return Some(Share::NONE);
            }
            if led >= phase && phase >= first {
                if phase > first {
                    self.crew.await_helpers(phase, Some(own));
                }
                self.phase += 1;
                return Some(Share { part: self.k, of: self.crew.len() });
            }
            pause.once();
        }
    }

    /// Ends this member's part of the last phase; the leader waits until all have done theirs.
    pub(crate) fn finish(mut self) {
        let Crew { helpers, first, last, .. } = self.crew;
        match self.k.checked_sub(1) {
            None => {
                let shared = first.load(Ordering::Relaxed)..last.load(Ordering::Relaxed);
                if self.phase.checked_sub(1).is_some_and(|before| shared.contains(&before)) {
                    self.crew.await_helpers(self.phase, None);
                }
            }
            Some(own) => helpers[own].write(self.phase),
        }
        self.left = true;
    }
}

impl Drop for Member<'_> {
    /// Nobody waits for a member that is gone: without a leader there is nothing to do, and
    /// without a helper nothing to be had.
    fn drop(&mut self) {
        if !self.has_company() {
            return;
        }
        if self.leads() {
            self.crew.last.store(0, Ordering::Release);
            self.crew.end.store(now().as_nanos() as u64, Ordering::Relaxed);
            return;
        }
        if self.came {
            self.crew.gone.fetch_max(now().as_nanos() as u64, Ordering::Relaxed);
        }
        if !self.left {
            self.crew.broken.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{scope, sleep};

    use super::*;

    /// Sends a crew through phases; `work(k, phase)` is what a member does beside its share.
    /// Every phase adds to each of 12 places the sum of all places after the phase before, so
    /// a share that is missed, done twice or done too early is seen.
    fn through(helpers: usize, phases: usize, work: impl Fn(usize, usize) + Sync) -> bool {
        const PLACES: usize = 12;
        let places: Vec<AtomicUsize> = (1..=PLACES).map(AtomicUsize::new).collect();
        let next: Vec<AtomicUsize> = (0..PLACES).map(|_| AtomicUsize::new(0)).collect();
        let shared = AtomicBool::new(false);
        let crew = Crew::new(helpers);
        scope(|scope| {
            for k in (0..=helpers).rev() {
                let (mut member, places, next) = (crew.member(k), &places, &next);
                let (work, shared) = (&work, &shared);
                let way = move || {
                    for phase in 0..phases {
                        let (from, to) =
                            if phase % 2 == 0 { (places, next) } else { (next, places) };
                        let Some(share) = member.meet() else { return };
                        for at in share.range(PLACES) {
                            let sum = from.iter().map(|n| n.load(Ordering::Relaxed)).sum::<usize>();
                            to[at].store(sum % 1_000_003 + at, Ordering::Relaxed);
                        }
                        if k > 0 && !share.range(PLACES).is_empty() {
                            shared.store(true, Ordering::Relaxed);
                        }
                        work(k, phase);
                    }
                    member.finish();
                };
                if k == 0 { way() } else { drop(scope.spawn(way)) }
            }
        });
        let mut expected: Vec<usize> = (1..=PLACES).collect();
        for _ in 0..phases {
            let sum = expected.iter().sum::<usize>();
            expected = (0..PLACES).map(|at| sum % 1_000_003 + at).collect();
        }
        let got = if phases.is_multiple_of(2) { &places } else { &next };
        let got: Vec<usize> = got.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        assert_eq!(got, expected, "{helpers} helpers, {phases} phases");
        shared.into_inner()
    }

    /// Whether it happens in some of many tries: a busy machine may keep a helper from taking part.
    fn sooner_or_later(happens: impl FnMut() -> bool) -> bool {
        std::iter::repeat_with(happens).take(20).any(|happened| happened)
    }

    #[test]
    fn every_phase_sees_all_of_the_one_before() {
        for helpers in [0, 1, 2, 5] {
            for phases in [0, 1, 2, 3, 500, 5001] {
                through(helpers, phases, |_, _| ());
            }
        }
    }

    #[test]
    fn a_helper_that_is_late_or_slow_changes_nothing() {
        let nap = |from: usize| {
            move |k: usize, phase: usize| {
                if k == 1 && phase >= from && phase < from + 3 {
                    sleep(Duration::from_millis(2));
                }
            }
        };
        for from in [0, 1, 50] {
            through(1, 400, nap(from));
            through(2, 401, nap(from));
        }
        let leader_naps = |k: usize, phase: usize| {
            if k == 0 && phase < 10 {
                sleep(Duration::from_millis(1));
            }
        };
        assert!(through(1, 100, leader_naps), "a helper had ten milliseconds to come");
    }

    #[test]
    fn after_a_loss_there_is_a_rest() {
        let nap = |k: usize, phase: usize| match (k, phase) {
            // The leader gives the helper time to come.
            (0, ..10) => sleep(Duration::from_millis(1)),
            (1, 20) => sleep(Duration::from_millis(5)),
            _ => {}
        };
        assert!(sooner_or_later(|| {
            through(1, 60, nap);
            !is_rested()
        }));
    }

    #[test]
    fn a_helper_that_panics_is_not_waited_for() {
        let panics = || {
            let crew = Crew::new(1);
            scope(|scope| {
                let helper = scope.spawn(|| {
                    let mut member = crew.member(1);
                    for phase in 0.. {
                        if member.meet().is_none() {
                            return;
                        }
                        assert!(phase < 5, "as this test wants it");
                    }
                });
                let mut leader = crew.member(0);
                while !helper.is_finished() {
                    leader.meet();
                    sleep(Duration::from_micros(20));
                }
                leader.finish();
                helper.join().is_err()
            })
        };
        assert!(sooner_or_later(panics));
    }
}
