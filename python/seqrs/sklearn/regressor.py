"""One or more numbers for each sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length

from ..errors import ShapeError
from ..losses import MSE
from .estimator import SequenceEstimator, Task, all_or_nothing
from .sequences import Array, Sequences, read
from .targets import required

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SequenceRegressor"]


class SequenceRegressor(RegressorMixin, SequenceEstimator):
    """Tells numbers of a sequence, from the last output of a recurrent network.

    `model_` is `Sequential([LSTM(...), Last(), Linear(..., n_outputs)])`, trained with `MSE`. For a
    bidirectional network the last output is where each direction has read the whole sequence.

    Targets far from 0, or far larger than 1, take many epochs to reach: let
    `sklearn.compose.TransformedTargetRegressor` scale them. `score` is R^2.
    """

    #: Numbers that `predict` gives for a sequence.
    n_outputs_: int
    #: Whether y came without an axis for them.
    _flat: bool

    def fit(self, X: Any, y: Any) -> Self:
        """Trains from the beginning.

        Args:
            X: n sequences, in one of the forms that `seqrs.sklearn` names.
            y: n numbers, or (n, n_outputs) of them.

        Returns:
            The estimator.

        Raises:
            TypeError, ValueError: X, y or a parameter is at fault; says which. The estimator is
                then what it was.
            NoDeviceError: there is no such device.
            NumericalError: a loss or gradient is NaN or infinite.
        """
        with all_or_nothing(self):
            sequences, targets = self._read(X, y, reset=True)
            self._seed = self._draw_seed()
            self._fit_rows(self._task(sequences), sequences.rows, targets)
        return self

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Trains on for one epoch over X, with the optimiser of the calls before.

        After `fit` it trains that model on, with a new optimiser. Only an interrupt or a
        `NumericalError` in the middle of the epoch leaves the updates before it done.

        Args:
            X: as for `fit`; with as many features.
            y: as for `fit`; with as many outputs.

        Returns:
            The estimator.

        Raises:
            ValueError: as `fit`; a parameter was changed that made model or optimiser;
                `validation_fraction` is not 0.
        """
        self._check_partial()
        with all_or_nothing(self):
            first = not hasattr(self, "model_")
            sequences, targets = self._read(X, y, reset=first)
            if first:
                self._seed = self._draw_seed()
            task = self._task(sequences)
            self._train_on(task, self._padded(task, sequences.rows, targets))
        return self

    def predict(self, X: Any) -> Array:
        """The numbers of each sequence, (n,) or (n, n_outputs) as y was; float64."""
        self._check_fitted()
        outputs = np.stack(self._outputs(read(self, X, reset=False).rows)).astype(np.float64)
        return outputs[:, 0] if self._flat else outputs

    def _read(self, X: Any, y: Any, *, reset: bool) -> tuple[Sequences, Array]:
        """X, and y as (n, n_outputs)."""
        targets = check_array(required(self, y), ensure_2d=False, dtype=np.float32, input_name="y")
        sequences = read(self, X, reset=reset)
        check_consistent_length(sequences.rows, targets)
        flat = targets.ndim == 1
        if flat:
            targets = targets[:, None]
        if reset:
            self._flat, self.n_outputs_ = flat, targets.shape[1]
        elif targets.shape[1] != self.n_outputs_:
            raise ShapeError(
                f"y: expected {self.n_outputs_} outputs, as before, got {targets.shape[1]}"
            )
        return sequences, targets

    def _task(self, sequences: Sequences) -> Task:
        return Task(sequences.features, self.n_outputs_, False, MSE())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.multi_output = True
        return tags
