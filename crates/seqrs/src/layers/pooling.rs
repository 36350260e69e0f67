//! From one row of numbers a live step to one row a sequence. A sequence without a live
//! step gives zeros and receives no gradient.

use num_traits::Float;
use seqrs_core::memory::zeros;
use seqrs_core::steps::Direction;
use seqrs_core::{Error, Steps};

use crate::number::Number;
use crate::pace::{Pace, for_each_item};
use crate::room::room;

const OUTPUT: &str = "output of a pooling layer";
const GRADIENT: &str = "gradient of a pooling layer";

/// For each sequence the item its numbers come from, first those of the columns
/// `0..split`, then those of the others.
fn sources(steps: &Steps, both_ways: bool) -> [Vec<Option<usize>>; 2] {
    let last = steps.last(Direction::Forward);
    let other = if both_ways { steps.last(Direction::Reverse) } else { last.clone() };
    [last, other]
}

/// The last live output of each sequence. If the columns are the two directions of a
/// bidirectional layer, each half is the last one of its direction.
pub(crate) fn last<T: Number>(
    steps: &Steps,
    x: &[T],
    width: usize,
    both_ways: bool,
) -> Result<Vec<T>, Error> {
    let mut y = zeros(OUTPUT, steps.batch() * width)?;
    let mut pace = Pace::default();
    let [first, second] = sources(steps, both_ways);
    let split = width / 2;
    for (b, y) in y.chunks_exact_mut(width).enumerate() {
        if let (Some(first), Some(second)) = (first[b], second[b]) {
            y[..split].copy_from_slice(&x[first * width..][..split]);
            y[split..].copy_from_slice(&x[second * width + split..][..width - split]);
        }
        pace.done(width)?;
    }
    Ok(y)
}

/// The way back of [`last`].
pub(crate) fn last_back<T: Number>(
    steps: &Steps,
    d_y: &[T],
    width: usize,
    both_ways: bool,
) -> Result<Vec<T>, Error> {
    let mut d_x = zeros(GRADIENT, steps.items() * width)?;
    let mut pace = Pace::default();
    let [first, second] = sources(steps, both_ways);
    let split = width / 2;
    for (b, d_y) in d_y.chunks_exact(width).enumerate() {
        if let (Some(first), Some(second)) = (first[b], second[b]) {
            d_x[first * width..][..split].copy_from_slice(&d_y[..split]);
            d_x[second * width + split..][..width - split].copy_from_slice(&d_y[split..]);
        }
        pace.done(width)?;
    }
    Ok(d_x)
}

/// The mean over the live steps of each sequence, summed in the order of time.
pub(crate) fn mean<T: Number>(steps: &Steps, x: &[T], width: usize) -> Result<Vec<T>, Error> {
    let mut y = zeros(OUTPUT, steps.batch() * width)?;
    for_each_item(steps, width, |item, _, b| {
        let x = &x[item * width..][..width];
        y[b * width..][..width].iter_mut().zip(x).for_each(|(y, &x)| *y += x);
    })?;
    let mut pace = Pace::default();
    for (y, live) in y.chunks_exact_mut(width).zip(steps.live_steps()) {
        if live > 0 {
            let live = T::from_f64(live as f64);
            y.iter_mut().for_each(|y| *y /= live);
        }
        pace.done(width)?;
    }
    Ok(y)
}

/// The way back of [`mean`].
pub(crate) fn mean_back<T: Number>(
    steps: &Steps,
    d_y: &[T],
    width: usize,
) -> Result<Vec<T>, Error> {
    let mut d_x = zeros(GRADIENT, steps.items() * width)?;
    let live = steps.live_steps();
    for_each_item(steps, width, |item, _, b| {
        let live = T::from_f64(live[b] as f64);
        let d_x = &mut d_x[item * width..][..width];
        d_x.iter_mut().zip(&d_y[b * width..]).for_each(|(d_x, &d_y)| *d_x = d_y / live);
    })?;
    Ok(d_x)
}

/// The largest value over the live steps of each sequence, and the item it is from: the
/// first of equal ones, or the first NaN.
pub(crate) fn max<T: Number>(
    steps: &Steps,
    x: &[T],
    width: usize,
) -> Result<(Vec<T>, Vec<Option<usize>>), Error> {
    let mut y = zeros::<T>(OUTPUT, steps.batch() * width)?;
    let mut from = room(OUTPUT, y.len())?;
    from.resize(y.len(), None);
    for_each_item(steps, width, |item, _, b| {
        for k in 0..width {
            let (x, at) = (x[item * width + k], b * width + k);
            let larger = x > y[at] || (Float::is_nan(x) && !Float::is_nan(y[at]));
            if from[at].is_none() || larger {
                (y[at], from[at]) = (x, Some(item));
            }
        }
    })?;
    Ok((y, from))
}

/// The way back of [`max`].
pub(crate) fn max_back<T: Number>(
    steps: &Steps,
    from: &[Option<usize>],
    d_y: &[T],
    width: usize,
) -> Result<Vec<T>, Error> {
    let mut d_x = zeros(GRADIENT, steps.items() * width)?;
    let mut pace = Pace::default();
    for (at, (&d_y, from)) in d_y.iter().zip(from).enumerate() {
        if let Some(item) = from {
            d_x[item * width + at % width] = d_y;
        }
        pace.done(1)?;
    }
    Ok(d_x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 0 live at steps 1 and 2, row 1 at 0 and 2, row 2 never; items 0: (0, 1),
    /// 1: (1, 0), 2: (2, 0), 3: (2, 1).
    fn steps() -> Steps {
        Steps::from_mask(3, 3, |t, b| b < 2 && (t == 2 || t + b == 1)).unwrap()
    }

    const X: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -7.0, 8.0];

    #[test]
    fn what_cannot_be_had_is_an_error() {
        // A row more than an address space holds of it.
        let width = (1 << 61) / 4;
        let steps = steps();
        let errors = [
            last::<f64>(&steps, &[], width, false).unwrap_err(),
            last_back::<f64>(&steps, &[], width, true).unwrap_err(),
            mean::<f64>(&steps, &[], width).unwrap_err(),
            mean_back::<f64>(&steps, &[], width).unwrap_err(),
            max::<f64>(&steps, &[], width).unwrap_err(),
            max_back::<f64>(&steps, &[], &[], width).unwrap_err(),
        ];
        assert!(errors.iter().all(|error| matches!(error, Error::OutOfMemory { .. })));
    }

    #[test]
    fn an_interrupt_ends_every_way_there_and_back() {
        let (steps, width) = (Steps::dense(1 << 10, 1).unwrap(), 1 << 10);
        let (row, x) = (vec![1.0_f32; width], vec![1.0_f32; width << 10]);
        seqrs_core::interrupt::scope(
            || true,
            || {
                assert_eq!(mean(&steps, &x, width), Err(Error::Interrupted));
                assert_eq!(mean_back(&steps, &row, width), Err(Error::Interrupted));
                assert_eq!(max(&steps, &x, width), Err(Error::Interrupted));
            },
        );
        // These look at no more than a row a sequence.
        let (steps, row) = (Steps::dense(1, 1 << 10).unwrap(), &x);
        let from = vec![Some(0); row.len()];
        seqrs_core::interrupt::scope(
            || true,
            || {
                assert_eq!(last(&steps, &x, width, false), Err(Error::Interrupted));
                assert_eq!(last_back(&steps, row, width, false), Err(Error::Interrupted));
                assert_eq!(max_back(&steps, &from, row, width), Err(Error::Interrupted));
            },
        );
    }

    #[test]
    fn last_takes_each_direction_where_it_ended() {
        assert_eq!(last(&steps(), &X, 2, false).unwrap(), [5.0, 6.0, -7.0, 8.0, 0.0, 0.0]);
        assert_eq!(last(&steps(), &X, 2, true).unwrap(), [5.0, 4.0, -7.0, 2.0, 0.0, 0.0]);
        let d_y = [1.0, 2.0, 3.0, 4.0, 9.0, 9.0];
        let d_x = last_back(&steps(), &d_y, 2, true).unwrap();
        assert_eq!(d_x, [0.0, 4.0, 0.0, 2.0, 1.0, 0.0, 3.0, 0.0]);
    }

    #[test]
    fn mean_is_over_live_steps() {
        assert_eq!(mean(&steps(), &X, 2).unwrap(), [4.0, 5.0, -3.0, 5.0, 0.0, 0.0]);
        let d_y = [2.0, 4.0, 6.0, 8.0, 9.0, 9.0];
        let d_x = mean_back(&steps(), &d_y, 2).unwrap();
        assert_eq!(d_x, [3.0, 4.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn max_gives_its_gradient_to_the_first_of_equal_values() {
        let x = [-1.0, 2.0, 3.0, 4.0, 5.0, 4.0, -1.0, f64::NAN];
        let (y, from) = max(&steps(), &x, 2).unwrap();
        assert_eq!(y[..3], [5.0, 4.0, -1.0]);
        assert!(y[3].is_nan());
        assert_eq!(from, [Some(2), Some(1), Some(0), Some(3), None, None]);
        let d_x = max_back(&steps(), &from, &[1.0, 2.0, 3.0, 4.0, 9.0, 9.0], 2).unwrap();
        assert_eq!(d_x, [3.0, 0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 4.0]);
    }
}
