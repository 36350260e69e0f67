"""The comparison that an importer makes: the same input through both, the same output wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import VerificationError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["TOLERANCE", "require_equal"]

#: How far an imported model may be from its source, as a share of the largest value. Two orders of
#: summation in float32 differ by about a tenth of it; a wrong gate order by all of it.
TOLERANCE = 1e-5


def require_equal(what: str, ours: npt.ArrayLike, theirs: npt.ArrayLike) -> None:
    """Compares an output of an imported model with that of its source.

    Args:
        what: words for the output, which stand in the error.
        ours: what seqrs computed, any shape.
        theirs: what the source computed.

    Raises:
        VerificationError: the shapes differ, or the largest difference is more than `TOLERANCE` of
            the largest value. NaN and infinities must be at the same places.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        raise VerificationError(
            f"{what}: expected shape {b.shape}, as the source has, got {a.shape}"
        )
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not np.all(finite | same):
        raise VerificationError(f"{what}: expected NaN and infinities where the source has them")
    difference = _largest(np.where(finite, a, 0.0) - np.where(finite, b, 0.0))
    largest = _largest(np.where(finite, b, 0.0))
    if difference > TOLERANCE * largest:
        raise VerificationError(
            f"{what}: expected what the source computes, within {TOLERANCE:g} of its largest value "
            f"{largest:.6g}, got a largest difference of {difference:.6g}"
        )


def _largest(array: npt.NDArray[Any]) -> float:
    return float(np.abs(array).max(initial=0.0))
