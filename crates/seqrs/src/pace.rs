//! Stopping a loop over many numbers when the caller wants it to stop.

use seqrs_core::{Error, Steps, interrupt};

/// Numbers between two looks whether to stop: some milliseconds of one thread.
pub(crate) const NUMBERS_PER_LOOK: usize = 1 << 20;

/// Asks whether to stop about every [`NUMBERS_PER_LOOK`] numbers.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Numbers since the last look.
    since: usize,
}

impl Pace {
    /// To be called when so many more numbers are done.
    pub(crate) fn done(&mut self, numbers: usize) -> Result<(), Error> {
        self.since += numbers;
        if self.since < NUMBERS_PER_LOOK {
            return Ok(());
        }
        self.since = 0;
        interrupt::check()
    }
}

/// Calls `visit(item, t, b)` for every live item in order, as [`Steps::for_each`] does, until
/// the caller wants to stop; a visit works on about `numbers` numbers.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn for_each_item(
    steps: &Steps,
    numbers: usize,
    mut visit: impl FnMut(usize, usize, usize),
) -> Result<(), Error> {
    let mut pace = Pace::default();
    for t in 0..steps.time() {
        let (items, rows) = steps.at(t);
        for (item, &b) in items.zip(rows) {
            visit(item, t, b as usize);
            pace.done(numbers.max(1))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_visited_unless_the_caller_wants_to_stop() {
        let steps = Steps::from_lengths(5, &[3, 0, 5]).unwrap();
        let visits = |stop: fn() -> bool, numbers| {
            let mut seen = Vec::new();
            let end = interrupt::scope(stop, || {
                for_each_item(&steps, numbers, |item, t, b| seen.push((item, t, b)))
            });
            (seen, end)
        };
        let mut all = Vec::new();
        steps.for_each(|item, t, b| all.push((item, t, b)));
        assert_eq!(visits(|| false, NUMBERS_PER_LOOK), (all.clone(), Ok(())));
        assert_eq!(visits(|| true, 1), (all.clone(), Ok(())));
        let half = NUMBERS_PER_LOOK / 2;
        assert_eq!(visits(|| true, half), (all[..2].to_vec(), Err(Error::Interrupted)));
    }
}
