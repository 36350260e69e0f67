"""A label for each step of a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_consistent_length

from ..errors import ShapeError
from ..losses import CrossEntropy
from .estimator import SequenceEstimator, Task, all_or_nothing
from .sequences import Array, Sequences, read
from .targets import classes_of, first_classes, numbers_of, probabilities, required

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SequenceTagger"]


class SequenceTagger(SequenceEstimator):
    """Tells a label of each step of a sequence, from that step's output of a recurrent network.

    `model_` is `Sequential([LSTM(...), Linear(..., n_classes)])`, trained with `CrossEntropy`; what
    it gives are logits. Without `bidirectional=True` a step knows nothing of those after it.

    To scikit-learn it is no classifier, which has one label for each sample: a cross-validation
    takes plain folds. `score` is the share of steps that have the right label.
    """

    #: The labels, sorted (n_classes,).
    classes_: Array

    def fit(self, X: Any, y: Any) -> Self:
        """Trains from the beginning.

        Args:
            X: n sequences, in one of the forms that `seqrs.sklearn` names.
            y: n sequences of labels, integers or strings: one for each step.

        Returns:
            The estimator.

        Raises:
            TypeError, ValueError: X, y or a parameter is at fault; says which. The estimator is
                then what it was.
            NoDeviceError: there is no such device.
            NumericalError: a loss or gradient is NaN or infinite.
        """
        with all_or_nothing(self):
            sequences = read(self, X, reset=True)
            labels = self._labels(sequences, y)
            self._seed = self._draw_seed()
            self.classes_ = classes_of(labels)
            numbers = _cut(numbers_of(labels, self.classes_), sequences)
            self._fit_rows(self._task(sequences), sequences.rows, numbers)
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
            sequences = read(self, X, reset=first)
            labels = self._labels(sequences, y)
            if first:
                self._seed = self._draw_seed()
            self.classes_ = first_classes(self, classes)
            task = self._task(sequences)
            numbers = _cut(numbers_of(labels, self.classes_), sequences)
            self._train_on(task, self._padded(task, sequences.rows, numbers))
        return self

    def predict(self, X: Any) -> Array | list[Array]:
        """The label of each step.

        Returns:
            (n_samples, n_steps), or for a list of sequences a list of arrays (T_i,).
        """
        self._check_fitted()
        sequences = read(self, X, reset=False)
        logits = self._outputs(sequences.rows)
        return _as_came(sequences, [self.classes_[each.argmax(axis=-1)] for each in logits])

    def predict_proba(self, X: Any) -> Array | list[Array]:
        """The probability of each label at each step, in the order of `classes_`; float64.

        Returns:
            (n_samples, n_steps, n_classes), or for a list of sequences a list (T_i, n_classes).
        """
        self._check_fitted()
        sequences = read(self, X, reset=False)
        logits = self._outputs(sequences.rows)
        return _as_came(sequences, [probabilities(each) for each in logits])

    def score(self, X: Any, y: Any) -> float:
        """The share of all steps that have the right label."""
        self._check_fitted()
        sequences = read(self, X, reset=False)
        labels = self._labels(sequences, y)
        logits = self._outputs(sequences.rows)
        found = np.concatenate([self.classes_[each.argmax(axis=-1)] for each in logits])
        return float(np.mean(found == labels))

    def _labels(self, sequences: Sequences, y: Any) -> Array:
        """All labels one after the other.

        Raises:
            ValueError: there is not one for each step.
        """
        check_consistent_length(sequences.rows, required(self, y))
        # A DataFrame would give its columns.
        labels = [np.asarray(each) for each in (y.to_numpy() if hasattr(y, "to_numpy") else y)]
        for k, (row, each) in enumerate(zip(sequences.rows, labels, strict=True)):
            if each.shape != row.shape[:1]:
                raise ShapeError(
                    f"y[{k}]: expected a label for each of the {len(row)} steps of X[{k}], "
                    f"got shape {each.shape}"
                )
        return np.concatenate(labels)

    def _task(self, sequences: Sequences) -> Task:
        return Task(sequences.features, len(self.classes_), True, CrossEntropy())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.target_tags.two_d_labels = True
        return tags


def _cut(numbers: Array, sequences: Sequences) -> list[Array]:
    """What stands one after the other for the steps of all sequences, by sequence."""
    ends = np.cumsum([len(row) for row in sequences.rows])
    return np.split(numbers, ends[:-1])


def _as_came(sequences: Sequences, found: list[Array]) -> Array | list[Array]:
    return found if sequences.form == "list" else np.stack(found)
