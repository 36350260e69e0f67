//! Layer normalisation of one row of numbers (Ba et al. 2016).
//!
//! ```text
//! hat = (x - mean)/sqrt(variance + epsilon)      y = gamma*hat + beta
//! ```
//! Backward, with g = gamma*d_y:
//! ```text
//! d_x = (g - mean of g - hat * mean of g*hat)/sqrt(variance + epsilon)
//! d_gamma = d_y*hat      d_beta = d_y
//! ```
//! Normalised cells (haste's, from Ba et al.) have three of these: of x W_ih^T and of h' W_hh^T, the
//! gates of all units together and before their biases, which are the beta; and of an LSTM's c
//! on its way into h:
//! ```text
//! gx = norm(x W_ih^T) + b_ih     gh = norm(h' W_hh^T) + b_hh     h = o*tanh(norm(c) + beta)
//! ```
//! The c that is carried on is not normalised.

use crate::real::Real;

/// What keeps a row of equal numbers from a division by 0, as in haste, PyTorch and Keras.
pub const EPSILON: f64 = 1e-5;

/// Sums that run side by side, so that they fill registers; the order does not depend on which.
const SIDE_BY_SIDE: usize = 16;

/// x becomes hat; gives 1 / sqrt(variance + epsilon).
pub fn normalise<T: Real>(x: &mut [T]) -> T {
    let share = T::number(1.0 / x.len() as f64);
    let mean = sum(x, |x| x) * share;
    for x in x.iter_mut() {
        *x = *x - mean;
    }
    let variance = sum(x, |x| x * x) * share;
    let inverse = (variance + T::number(EPSILON)).inverse_root();
    for x in x.iter_mut() {
        *x = *x * inverse;
    }
    inverse
}

/// hat becomes gamma*hat + beta.
pub fn scale_and_shift<T: Real>(hat: &mut [T], gamma: &[T], beta: Option<&[T]>) {
    for (hat, &gamma) in hat.iter_mut().zip(gamma) {
        *hat = gamma * *hat;
    }
    if let Some(beta) = beta {
        for (y, &beta) in hat.iter_mut().zip(beta) {
            *y = *y + beta;
        }
    }
}

/// d, the gradient of y, becomes that of x; `d_gamma` is what the row adds to gamma's.
pub fn backward<T: Real>(d: &mut [T], hat: &[T], inverse: T, gamma: &[T], d_gamma: &mut [T]) {
    let share = T::number(1.0 / d.len() as f64);
    for (((d, &hat), &gamma), d_gamma) in d.iter_mut().zip(hat).zip(gamma).zip(d_gamma) {
        *d_gamma = *d * hat;
        *d = *d * gamma;
    }
    let mean = sum(d, |d| d) * share;
    let along = sum_of_products(d, hat) * share;
    for (d, &hat) in d.iter_mut().zip(hat) {
        *d = (*d - mean - hat * along) * inverse;
    }
}

fn sum<T: Real>(x: &[T], term: impl Fn(T) -> T) -> T {
    let mut sums = [T::zero(); SIDE_BY_SIDE];
    for x in x.chunks(SIDE_BY_SIDE) {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum = *sum + term(x);
        }
    }
    sums.into_iter().fold(T::zero(), |all, sum| all + sum)
}

fn sum_of_products<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::zero(); SIDE_BY_SIDE];
    for (a, b) in a.chunks(SIDE_BY_SIDE).zip(b.chunks(SIDE_BY_SIDE)) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum = *sum + a * b;
        }
    }
    sums.into_iter().fold(T::zero(), |all, sum| all + sum)
}
