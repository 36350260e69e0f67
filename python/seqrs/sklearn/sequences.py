"""What scikit-learn calls X, read as sequences: from arrays, tables, and lists of any lengths."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from ..errors import DTypeError, ShapeError
from ..options import shown

__all__ = ["Array", "Sequences", "read"]

Array = npt.NDArray[Any]


class Sequences(NamedTuple):
    """Sequences in float32, and how they came."""

    #: (T_i, n_features) each, with at least one step.
    rows: list[Array]
    #: "array" (n, T, F), "table" (n, T), or "list".
    form: Literal["array", "table", "list"]

    @property
    def features(self) -> int:
        """Features of a step."""
        return int(self.rows[0].shape[1])


def read(estimator: Any, X: Any, *, reset: bool) -> Sequences:
    """X as sequences.

    Args:
        estimator: whose X it is; `reset` gives it `n_features_in_`, and for a DataFrame
            `feature_names_in_`.
        X: in one of the forms that `seqrs.sklearn` names.
        reset: whether X is to be trained on from the beginning. If not, it has to fit what the
            estimator was trained on.

    Raises:
        ValueError, TypeError: X is none of these forms, is empty, or has a number that is not
            finite; a `ShapeError` or `DTypeError` where scikit-learn leaves the check to us.
        ShapeError: its features are not those that the estimator was trained on.
    """
    if isinstance(X, (list, tuple)) or _holds_objects(X):
        sequences = Sequences(_rows(list(X)), "list")
    else:
        sequences = _of_array(estimator, X, reset)
    if reset:
        estimator._trained_on_table = sequences.form == "table" or _written_as_table(X)
        if sequences.form != "table":
            vars(estimator).pop("feature_names_in_", None)
            estimator.n_features_in_ = (
                len(X[0]) if estimator._trained_on_table else sequences.features
            )
    else:
        expected = 1 if estimator._trained_on_table else estimator.n_features_in_
        if sequences.features != expected:
            raise ShapeError(
                f"X: expected {expected} features a step, as {type(estimator).__name__} was "
                f"trained on, got {sequences.features}"
            )
    return sequences


def _of_array(estimator: Any, X: Any, reset: bool) -> Sequences:
    """The sequences of what is an array to scikit-learn, whose checks these are."""
    # What is too large for float32 becomes infinite, and is then told as such.
    with np.errstate(over="ignore", invalid="ignore"):
        if _rank(X) == 3:
            array = check_array(X, dtype=np.float32, allow_nd=True, input_name="X")
            if 0 in array.shape:
                raise ShapeError(
                    f"X: expected at least one step and one feature, got shape {array.shape}"
                )
            return Sequences(list(array), "array")
        # Of a table number and names of the columns are checked too, unless the estimator was
        # trained on what has no columns.
        if reset or estimator._trained_on_table:
            table = validate_data(estimator, X, reset=reset, dtype=np.float32)
        else:
            table = check_array(X, dtype=np.float32, input_name="X")
    return Sequences(list(table[:, :, None]), "table")


def _written_as_table(X: Any) -> bool:
    """Whether it is lists of numbers, all of one length: a table to scikit-learn."""
    return (
        isinstance(X, list)
        and all(isinstance(row, list) and len(row) == len(X[0]) for row in X)
        and np.ndim(X[0]) == 1
    )


def _rank(X: Any) -> int:
    """The number of axes, of sparse matrices and tables too."""
    return int(X.ndim) if hasattr(X, "ndim") else np.asarray(X).ndim


def _holds_objects(X: Any) -> bool:
    """Whether it is a list in the shape of an array or of a pandas Series."""
    return getattr(X, "ndim", None) == 1 and getattr(X, "dtype", None) == np.dtype(object)


def _rows(items: list[Any]) -> list[Array]:
    """The sequences of a list in float32, all with the same features."""
    if not items:
        raise ShapeError("X: expected at least one sequence, got 0 sample(s)")
    rows = [_row(f"X[{k}]", item) for k, item in enumerate(items)]
    for k, row in enumerate(rows):
        if row.ndim != rows[0].ndim or row.shape[1:] != rows[0].shape[1:]:
            raise ShapeError(
                f"X[{k}]: expected the shape of X[0] but for the first axis, {rows[0].shape}, "
                f"got {row.shape}"
            )
    return [row[:, None] for row in rows] if rows[0].ndim == 1 else rows


def _row(name: str, item: Any) -> Array:
    """One sequence as it came, (T,) or (T, F), in float32."""
    try:
        array = np.asarray(item)
    except ValueError:
        raise ShapeError(f"{name}: expected (T,) or (T, F), got {shown(item)}") from None
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"{name}: expected real numbers, got {array.dtype}")
    if array.ndim not in (1, 2):
        # A list of numbers is no list of sequences.
        raise ShapeError(
            f"{name}: expected (T,) or (T, F), got shape {array.shape}; one sequence alone is [x]"
        )
    if 0 in array.shape:
        raise ShapeError(
            f"{name}: expected at least one step and one feature, got shape {array.shape}"
        )
    with np.errstate(over="ignore"):
        row: Array = array.astype(np.float32)
    if not np.isfinite(row).all():
        raise ValueError(
            f"{name}: expected finite numbers of float32, got NaN, infinity or one too large"
        )
    return row
