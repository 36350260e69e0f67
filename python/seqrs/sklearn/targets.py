"""What scikit-learn calls y: labels of any kind as the numbers of their classes, and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets

from ..options import shown
from .sequences import Array

__all__ = ["classes_of", "first_classes", "numbers_of", "probabilities", "required"]


def required(estimator: Any, y: Any) -> Any:
    """y.

    Raises:
        ValueError: it is None, in the words that scikit-learn has for that.
    """
    if y is None:
        name = type(estimator).__name__
        raise ValueError(f"{name} requires y to be passed, but the target y is None")
    return y


def classes_of(labels: Array) -> Array:
    """The sorted classes of labels (n,).

    Raises:
        ValueError: they are numbers that are no classes, NaN among them.
    """
    _check(labels)
    return np.unique(labels)


def numbers_of(labels: Array, classes: Array) -> Array:
    """The place in `classes`, which are sorted, of each label.

    Raises:
        ValueError: a label is none of them.
    """
    _check(labels)
    numbers = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    strange = classes[numbers] != labels
    if strange.any():
        got = labels[strange].tolist()[0]
        raise ValueError(f"y: expected the classes {shown(classes.tolist())}, got {shown(got)}")
    return numbers


def _check(labels: Array) -> None:
    assert_all_finite(labels, input_name="y")
    check_classification_targets(labels)


def first_classes(estimator: Any, classes: Any) -> Array:
    """The classes for a call of `partial_fit`, which its first call has to be given.

    Raises:
        ValueError: the first call was given none, or a later one was given others.
    """
    known: Array | None = getattr(estimator, "classes_", None)
    given = None if classes is None else classes_of(np.asarray(classes))
    if known is None:
        if given is None:
            raise ValueError("classes: expected all classes in the first call of partial_fit")
        return given
    if given is not None and not np.array_equal(given, known):
        raise ValueError(
            f"classes: expected {shown(known.tolist())}, as in the first call of partial_fit, "
            f"got {shown(given.tolist())}"
        )
    return known


def probabilities(logits: Array) -> Array:
    """softmax over the last axis, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares
