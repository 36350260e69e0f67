//! How much a matrix may enlarge: in one product (its norm), and in many (its spectral radius).

use ndarray::ArrayView2;
use seqrs_core::{Error, interrupt};

/// Squarings after which a power is high enough: its exponent is 2^60.
const SQUARINGS: i32 = 60;

/// The largest absolute value of the eigenvalues of a square matrix, which is the limit of
/// ||A^k||^(1/k) (Gelfand's formula), by squaring: A, A^2, A^4 ...
///
/// Each power is scaled to the norm 1, and the logarithms of what it was divided by are summed
/// up, the j-th weighted with 2^-j. So what a squaring rounds counts for less and less, and what
/// the formula still lacks at an exponent k, at most log(C k^n) / k with a constant C of the
/// matrix and n rows, is below the last place at 2^60. The numbers are finite.
///
/// # Errors
/// [`Error::Interrupted`].
pub(crate) fn spectral_radius(a: ArrayView2<'_, f64>) -> Result<f64, Error> {
    let mut power = a.to_owned();
    let (mut log, mut weight) = (0.0, 1.0);
    for _ in 0..SQUARINGS {
        let norm = largest(power.view());
        if norm == 0.0 {
            return Ok(0.0);
        }
        interrupt::check()?;
        log += weight * norm.ln();
        weight /= 2.0;
        power /= norm;
        power = power.dot(&power);
    }
    Ok(log.exp())
}

/// The largest singular value of a matrix: the root of the largest eigenvalue of A^T A, which has
/// none below 0.
///
/// By squaring too, but only until the largest eigenvalue of the power is known: it is at least
/// the largest entry of the diagonal and sum(l^2) / sum(l), l being all of them, and at most
/// sqrt(sum(l^2)) and the largest sum of a row. So some ten squarings are enough, or none where
/// all of them are alike.
///
/// # Errors
/// [`Error::Interrupted`].
pub(crate) fn spectral_norm(a: ArrayView2<'_, f64>) -> Result<f64, Error> {
    let size = largest(a);
    if size == 0.0 {
        return Ok(0.0);
    }
    // Scaled, so that squares neither overflow nor vanish.
    let a = &a / size;
    let mut power = a.t().dot(&a);
    let (mut log, mut weight) = (0.0, 1.0);
    for _ in 0..SQUARINGS {
        interrupt::check()?;
        let norm = largest(power.view());
        log += weight * norm.ln();
        power /= norm;
        let squares: f64 = power.iter().map(|x| x * x).sum();
        let diagonal = power.diag();
        let rows = power.rows().into_iter().map(|row| row.iter().map(|x| x.abs()).sum());
        let low = (squares / diagonal.sum()).max(diagonal.fold(0.0, |a: f64, &b| a.max(b)));
        let high = squares.sqrt().min(rows.fold(0.0, f64::max));
        if weight * (high / low).ln() < f64::EPSILON / 2.0 {
            log += weight * high.ln();
            break;
        }
        weight /= 2.0;
        power = power.dot(&power);
    }
    Ok(size * (log / 2.0).exp())
}

/// The largest absolute value of the entries: of all norms the cheapest, and any will do.
fn largest(a: ArrayView2<'_, f64>) -> f64 {
    a.iter().fold(0.0, |largest, x| x.abs().max(largest))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, arr2};

    use super::*;

    /// A few roundings of each of the squarings that count.
    const ROUNDINGS: f64 = 1e-13;

    fn assert_radius(a: &Array2<f64>, expected: f64) {
        let got = spectral_radius(a.view()).unwrap();
        assert!((got - expected).abs() <= ROUNDINGS * expected, "{got}, not {expected}");
    }

    #[test]
    fn of_matrices_whose_eigenvalues_are_known() {
        assert_radius(&arr2(&[[0.5, 0.0], [0.0, -2.0]]), 2.0);
        // A rotation: no eigenvector is real.
        assert_radius(&arr2(&[[1.8, -2.4], [2.4, 1.8]]), 3.0);
        // One eigenvalue twice, with one eigenvector.
        assert_radius(&arr2(&[[0.5, 7.0], [0.0, 0.5]]), 0.5);
        // The companion of (x - 3)(x + 3)(x - 1), whose largest two are of one size.
        assert_radius(&arr2(&[[1.0, 9.0, -9.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), 3.0);
        // Far from 1 in either direction.
        assert_radius(&arr2(&[[1e-200, 0.0], [3e-200, 1e-201]]), 1e-200);
        assert_radius(&arr2(&[[1e150, 0.0], [3e150, 1e149]]), 1e150);
    }

    #[test]
    fn a_matrix_of_which_nothing_comes_back_has_none() {
        let a = arr2(&[[0.0, 5.0], [0.0, 0.0]]);
        assert_eq!(spectral_radius(a.view()), Ok(0.0));
        assert_eq!(spectral_norm(a.view()), Ok(5.0));
        assert_eq!(spectral_radius(Array2::zeros((3, 3)).view()), Ok(0.0));
    }

    #[test]
    fn the_norm_of_what_enlarges_everything_alike() {
        let (sin, cos) = 0.3_f64.sin_cos();
        let rotation = arr2(&[[3.0 * cos, -3.0 * sin], [3.0 * sin, 3.0 * cos]]);
        assert!((spectral_norm(rotation.view()).unwrap() - 3.0).abs() <= ROUNDINGS * 3.0);
        // Two that are nearly alike are told apart, or need not be.
        for gap in [1e-3, 1e-9, 1e-15] {
            let a = arr2(&[[2.0, 0.0, 0.0], [0.0, 0.0, 2.0 - gap], [0.0, 1.0, 0.0]]);
            assert!((spectral_norm(a.view()).unwrap() - 2.0).abs() <= ROUNDINGS * 2.0);
        }
        let tiny = arr2(&[[1e-200, 0.0], [0.0, 3e-200]]);
        assert!((spectral_norm(tiny.view()).unwrap() / 3e-200 - 1.0).abs() <= ROUNDINGS);
    }

    #[test]
    fn the_norm_is_that_of_what_is_enlarged_most() {
        // Of rank one: the product of the two lengths.
        let (u, v) = ([3.0, 4.0, 0.0], [5.0, 12.0]);
        let a = Array2::from_shape_fn((3, 2), |(i, j)| u[i] * v[j]);
        assert!((spectral_norm(a.view()).unwrap() - 65.0).abs() <= ROUNDINGS * 65.0);
    }
}
