"""Losses: how far the outputs are from the targets.

Steps that are not live take no part. `reduction="mean"` divides by the number of live steps (and
by the features, for MSE, MAE, Huber and BinaryCrossEntropy); `"sum"` is the textbook's sum over
time steps, over all rows. Without a live step a loss is 0.

Where there is one feature, F = 1, the targets y may come without the last axis: (B, T) or (B,).

Letters: B rows, T steps, C classes, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import _seqrs
from .errors import ShapeError
from .options import as_json, choice, real

if TYPE_CHECKING:
    import numpy.typing as npt

    from .layers import Array

__all__ = ["MAE", "MSE", "BinaryCrossEntropy", "CrossEntropy", "Huber", "Loss"]


class Loss:
    """What every loss can do; `y_pred` is (B, T, .) with one target a step, or (B, .)."""

    #: The word for this loss in checkpoints.
    kind: ClassVar[str]

    __slots__ = ("_options",)

    def __init__(self, reduction: str = "mean") -> None:
        self._options: dict[str, Any] = {
            "reduction": choice("reduction", reduction, ("mean", "sum"))
        }

    @property
    def reduction(self) -> str:
        """ "mean" or "sum"."""
        return str(self._options["reduction"])

    @property
    def spec_json(self) -> str:
        """The loss as the compiled part reads it."""
        return as_json(self.kind, self._options)

    def __call__(
        self,
        y_pred: npt.ArrayLike,
        y: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> float:
        """The loss.

        Args:
            y_pred: outputs (B, T, .) or (B, .); float64 is computed in float64, other reals in
                float32 if they are no wider, else in float64.
            y: targets, of the shape that the class says.
            lengths: B integers in 0..=T, for outputs (B, T, .).
            mask: booleans or 0 and 1 (B, T). At most one of `lengths` and `mask` is given.

        Raises:
            ShapeError, DTypeError: an argument does not fit; says which.
        """
        y = self._full(y_pred, y)
        return _seqrs.loss_value(self.spec_json, y_pred, y, lengths, mask)

    def gradient(
        self,
        y_pred: npt.ArrayLike,
        y: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> Array:
        """The gradient at `y_pred`, of its shape; zero at steps that are not live."""
        y = self._full(y_pred, y)
        return _seqrs.loss_gradient(self.spec_json, y_pred, y, lengths, mask)

    def _full(self, y_pred: npt.ArrayLike, y: npt.ArrayLike) -> npt.ArrayLike:
        """y with the last axis, which it may lack where that is 1."""
        if isinstance(self, CrossEntropy):
            return y
        try:
            full, got = np.shape(y_pred), np.shape(y)
        except (ValueError, TypeError, RuntimeError):
            return y  # No array: the compiled part says why.
        if len(full) not in (2, 3) or full[-1] != 1 or got == full:
            return y
        if got != full[:-1]:
            raise ShapeError(f"y: expected shape {full} or {full[:-1]}, got {got}")
        return np.asarray(y)[..., None]

    def __repr__(self) -> str:
        words = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"{type(self).__name__}({words})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Loss):
            return NotImplemented
        return self.spec_json == other.spec_json

    def __hash__(self) -> int:
        return hash(self.spec_json)

    def __getstate__(self) -> dict[str, Any]:
        return self._options

    def __setstate__(self, options: dict[str, Any]) -> None:
        self._options = options


class CrossEntropy(Loss):
    """-log softmax(logits)[target]: logits (B, T, C) or (B, C), integer targets (B, T) or (B,).

    The textbook's `L<t> = -y<t> log y^<t>` with `y^<t> = softmax(logits)` and y<t> one-hot;
    `reduction="sum"` is its L, the sum of `L<t>` over t (and over the rows).
    """

    kind = "cross_entropy"
    __slots__ = ()


class BinaryCrossEntropy(Loss):
    """-y log p - (1 - y) log(1 - p), p = sigmoid(logits), for each of F independent labels.

    Logits and targets y have one shape, (B, T, F) or (B, F); targets are in [0, 1].
    """

    kind = "binary_cross_entropy"
    __slots__ = ()


class MSE(Loss):
    """(y_pred - y)^2; both of one shape, (B, T, F) or (B, F)."""

    kind = "mse"
    __slots__ = ()


class MAE(Loss):
    """|y_pred - y|, with gradient 0 where they are equal; both (B, T, F) or (B, F)."""

    kind = "mae"
    __slots__ = ()


class Huber(Loss):
    """e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), of e = y_pred - y (Huber 1964)."""

    kind = "huber"
    __slots__ = ()

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self._options["delta"] = real("delta", delta, above=0.0)

    @property
    def delta(self) -> float:
        """Where the square turns into the line."""
        return float(self._options["delta"])
