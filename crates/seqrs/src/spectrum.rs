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

/// The largest singular value of a matrix: the root of the spectral radius of A^T A.
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
    Ok(size * spectral_radius(a.t().dot(&a).view())?.sqrt())
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
    fn the_norm_is_that_of_what_is_enlarged_most() {
        // Of rank one: the product of the two lengths.
        let (u, v) = ([3.0, 4.0, 0.0], [5.0, 12.0]);
        let a = Array2::from_shape_fn((3, 2), |(i, j)| u[i] * v[j]);
        assert!((spectral_norm(a.view()).unwrap() - 65.0).abs() <= ROUNDINGS * 65.0);
    }
}
