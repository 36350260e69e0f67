//! Turns: who is timed when, and for how long.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Failure};

/// Turns of each contender.
pub(crate) const ROUNDS: usize = 7;
/// Turns of one whose single call takes more than its share of the time.
pub(crate) const FEW_ROUNDS: usize = 3;
/// Between two turns, so that the threads of the one before have gone to sleep.
const SETTLE: Duration = Duration::from_millis(5);
/// A turn first runs for at least so long without being timed, unless one call takes longer.
const WARM_UP: f64 = 0.01;
/// Calls are timed in groups of at least so long, so that reading the clock costs nothing.
const GROUP: f64 = 100e-6;

/// Seconds that a call takes; the first call is not counted.
fn call(contender: &mut dyn Contender) -> Result<f64, Failure> {
    contender.run()?;
    let start = Instant::now();
    contender.run()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The median of the numbers; there is at least one.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

/// The median of one turn, in seconds for a call.
fn turn(contender: &mut dyn Contender, call: f64, share: f64) -> Result<f64, Failure> {
    sleep(SETTLE);
    let start = Instant::now();
    while call < WARM_UP && start.elapsed().as_secs_f64() < WARM_UP {
        contender.run()?;
    }
    let group = (GROUP / call).ceil().max(1.0);
    let mut times = Vec::new();
    let start = Instant::now();
    while times.is_empty() || start.elapsed().as_secs_f64() < share {
        let start = Instant::now();
        for _ in 0..group as usize {
            contender.run()?;
        }
        times.push(start.elapsed().as_secs_f64() / group);
    }
    Ok(median(&times))
}

/// The medians of the turns of each contender: they take turns, each round in another order,
/// until each has had `seconds`. Where one fails: which, and why.
pub(crate) fn take_turns(
    contenders: &mut [Box<dyn Contender>],
    seconds: f64,
) -> Result<Vec<Vec<f64>>, (usize, Failure)> {
    let share = seconds / ROUNDS as f64;
    let mut calls = Vec::new();
    for (k, contender) in contenders.iter_mut().enumerate() {
        calls.push(call(contender.as_mut()).map_err(|failure| (k, failure))?);
    }
    let mut turns = vec![Vec::new(); contenders.len()];
    for round in 0..ROUNDS {
        let first = round % contenders.len();
        for k in (first..contenders.len()).chain(0..first) {
            if round < FEW_ROUNDS || calls[k] < share {
                let one = turn(contenders[k].as_mut(), calls[k], share);
                turns[k].push(one.map_err(|failure| (k, failure))?);
            }
        }
    }
    Ok(turns)
}
