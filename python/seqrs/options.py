"""Reading the options of layers, losses and optimisers: exact types, and messages that help.

An option is never converted by guessing: 1.5 and "64" are no integers, and neither is True.
"""

from __future__ import annotations

import json
import math
import operator
from typing import Any, Literal

import numpy as np

from .errors import DTypeError, ShapeError

#: The largest size that a number of elements can be.
LARGEST_SIZE = 2**63 - 1
#: The largest seed.
LARGEST_SEED = 2**64 - 1

DTypeName = Literal["float32", "float64"]


def shown(value: object) -> str:
    """The value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def integer(name: str, value: object, at_least: int = 1, at_most: int = LARGEST_SIZE) -> int:
    """An exact integer in at_least..=at_most: int, or what has `__index__`, but no bool.

    Raises:
        TypeError: it is not an integer.
        ShapeError: it is out of range.
    """
    number = whole(name, value)
    if not at_least <= number <= at_most:
        bound = f"of at least {at_least}" if number < at_least else f"of at most {at_most}"
        raise ShapeError(f"{name}: expected an integer {bound}, got {number}")
    return number


def whole(name: str, value: object) -> int:
    """An exact integer of any size.

    Raises:
        TypeError: it is not an integer.
    """
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise TypeError(f"{name}: expected an integer, got {shown(value)}")


def seed(value: object, name: str = "seed") -> int:
    """A seed in 0..2**64.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is out of range.
    """
    number = whole(name, value)
    if not 0 <= number <= LARGEST_SEED:
        raise ValueError(f"{name}: expected an integer in 0..2**64, got {number}")
    return number


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that merely looks like it.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name}: expected True or False, got {shown(value)}")


def real(
    name: str,
    value: object,
    at_least: float = -math.inf,
    below: float = math.inf,
    *,
    above: float = -math.inf,
    at_most: float = math.inf,
) -> float:
    """A finite real number in the range.

    Raises:
        TypeError: it is not a real number.
        ValueError: it is NaN, infinite or out of range.
    """
    if isinstance(value, (bool, np.bool_, str, bytes, complex)):
        raise TypeError(f"{name}: expected a real number, got {shown(value)}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: expected a real number, got {shown(value)}") from None
    fits = at_least <= number < below and above < number <= at_most
    if not fits or not math.isfinite(number):
        lower = f"({above:g}" if above > at_least else f"[{at_least:g}"
        upper = f"{at_most:g}]" if at_most < below else f"{below:g})"
        if math.isinf(at_least) and math.isinf(above):
            lower = "(-inf"
        raise ValueError(f"{name}: expected a number in {lower}, {upper}, got {number:g}")
    return number


def text(name: str, value: object) -> str:
    """`value` as a string.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {shown(value)}")
    return value


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of the allowed words.

    Raises:
        TypeError: it is no string.
        ValueError: it is another one.
    """
    expected = " or ".join(repr(word) for word in allowed)
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected {expected}, got {shown(value)}")
    if value not in allowed:
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}")
    return value


def dtype_name(value: object) -> DTypeName:
    """ "float32" or "float64", for these words, NumPy's types and dtypes.

    Raises:
        DTypeError: it is anything else.
    """
    if value is not None:
        try:
            dtype = np.dtype(value)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            pass
        else:
            if dtype == np.float32:
                return "float32"
            if dtype == np.float64:
                return "float64"
    raise DTypeError(f"dtype: expected 'float32' or 'float64', got {shown(value)}")


def as_json(kind: str, options: dict[str, Any]) -> str:
    """The options in the form in which they cross into the compiled part and into files."""
    return json.dumps({"kind": kind, **options}, allow_nan=False)
