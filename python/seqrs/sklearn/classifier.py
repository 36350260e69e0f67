"""A class for each sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_consistent_length, column_or_1d

from ..losses import CrossEntropy
from .estimator import SequenceEstimator, Task, all_or_nothing
from .sequences import Array, Sequences, read
from .targets import classes_of, first_classes, numbers_of, probabilities, required

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SequenceClassifier"]


class SequenceClassifier(ClassifierMixin, SequenceEstimator):
    """Tells the class of a sequence, from the last output of a recurrent network.

    `model_` is `Sequential([LSTM(...), Last(), Linear(..., n_classes)])`, trained with
    `CrossEntropy`; what it gives are logits. For a bidirectional network the last output is where
    each direction has read the whole sequence.

    What is held out for `validation_fraction` has its part of each class. `score` is the accuracy.
    """

    #: The labels, sorted (n_classes,).
    classes_: Array

    def fit(self, X: Any, y: Any) -> Self:
        """Trains from the beginning.

        Args:
            X: n sequences, in one of the forms that `seqrs.sklearn` names.
            y: n labels, integers or strings.

        Returns:
            The estimator.

        Raises:
            TypeError, ValueError: X, y or a parameter is at fault; says which. The estimator is
                then what it was.
            NoDeviceError: there is no such device.
            NumericalError: a loss or gradient is NaN or infinite.
        """
        with all_or_nothing(self):
            sequences, labels = self._read(X, y, reset=True)
            self._seed = self._draw_seed()
            self.classes_ = classes_of(labels)
            numbers = numbers_of(labels, self.classes_)
            self._fit_rows(self._task(sequences), sequences.rows, numbers, classes=numbers)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Trains on for one epoch over X, with the optimiser of the calls before.

        After `fit` it trains that model on, with a new optimiser. Only an interrupt or a
        `NumericalError` in the middle of the epoch leaves the updates before it done.

        Args:
            X: as for `fit`; with as many features.
            y: as for `fit`.
            classes: all labels that there will be; needed by the first call.

        Returns:
            The estimator.

        Raises:
            ValueError: as `fit`; y has a label that is none of the classes; a parameter was changed
                that made model or optimiser; `validation_fraction` is not 0.
        """
        self._check_partial()
        with all_or_nothing(self):
            first = not hasattr(self, "model_")
            sequences, labels = self._read(X, y, reset=first)
            if first:
                self._seed = self._draw_seed()
            self.classes_ = first_classes(self, classes)
            task = self._task(sequences)
            numbers = numbers_of(labels, self.classes_)
            self._train_on(task, self._padded(task, sequences.rows, numbers))
        return self

    def predict(self, X: Any) -> Array:
        """The label (n,) of each sequence."""
        numbers = self._logits(X).argmax(axis=-1)
        labels: Array = self.classes_[numbers]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """The probability (n, n_classes) of each label, in the order of `classes_`; float64."""
        return probabilities(self._logits(X))

    def _logits(self, X: Any) -> Array:
        self._check_fitted()
        return np.stack(self._outputs(read(self, X, reset=False).rows))

    def _read(self, X: Any, y: Any, *, reset: bool) -> tuple[Sequences, Array]:
        labels = column_or_1d(required(self, y), warn=True)
        sequences = read(self, X, reset=reset)
        check_consistent_length(sequences.rows, labels)
        return sequences, labels

    def _task(self, sequences: Sequences) -> Task:
        return Task(sequences.features, len(self.classes_), False, CrossEntropy())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
