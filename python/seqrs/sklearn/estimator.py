"""What the estimators share: their parameters, the model they make of them, and how it is trained.

An estimator trains by `fit`, from the beginning and to the end, or by calls of `partial_fit`, one
epoch each. Of the second kind the optimiser goes on from call to call, and so it does in a pickle.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..callbacks import EarlyStopping
from ..data import Dataset, Padded
from ..layers import Dropout, Last, Layer, Linear
from ..losses import Loss
from ..models import Sequential
from ..optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from ..options import choice, integer, real, text, whole
from ..recurrent import GRU, LSTM, RNN
from ..schedules import Schedule
from ..training import Trainer
from .sequences import Array

__all__ = ["SequenceEstimator", "Task", "all_or_nothing"]

#: Arrays, one for each sequence or step.
Rows = Sequence[Any] | Array

CELLS: dict[str, type[LSTM | GRU | RNN]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "sgd": SGD,
}
#: What may change between two calls of `partial_fit`; everything else made model and optimiser.
FREE = {"batch_size", "epochs", "verbose", "device", "validation_fraction", "patience"}


class Task(NamedTuple):
    """What a model is for."""

    #: Of a step of the input.
    features: int
    #: Numbers that it gives, for each sequence or for each step.
    outputs: int
    per_step: bool
    loss: Loss


class SequenceEstimator(BaseEstimator):
    """An estimator that trains a recurrent network; `seqrs.sklearn` has the public ones."""

    #: The trained model, as it can be saved, or served by itself.
    model_: Sequential
    #: A list for each metric with an entry for each epoch, see `seqrs.Trainer.fit`.
    history_: dict[str, list[float]]
    #: Features of a step; of a table (n_samples, n_steps) its columns.
    n_features_in_: int
    _trained_on_table: bool
    #: What everything random was drawn from.
    _seed: int
    #: That of the calls of `partial_fit`.
    _trainer: Trainer | None
    #: What it was, if the estimator is from a pickle and has not trained since.
    _checkpoint: tuple[bytes, int] | None
    #: The parameters it was made with.
    _trained_with: dict[str, Any]

    def __init__(
        self,
        cell: str = "lstm",
        hidden_size: int = 64,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float | Schedule = 2e-3,
        optimizer: str = "adam",
        clip_norm: float | None = 1.0,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
        device: str = "cpu",
        validation_fraction: float = 0.0,
        patience: int | None = None,
    ) -> None:
        """Keeps the parameters, which `fit` looks at, as in all of scikit-learn.

        Args:
            cell: "lstm", "gru" (the textbook's, reset before the product) or "rnn" (tanh).
            hidden_size: units of each layer.
            num_layers: recurrent layers, one on top of the other.
            bidirectional: whether each layer also reads from the last step to the first.
            dropout: in [0, 1): the share of outputs of each recurrent layer, the last one included,
                that is set to zero in training.
            epochs: passes over the data, at most.
            batch_size: sequences in an update, and in a call of the model when it predicts.
            learning_rate: of the optimiser; a number, or one of `seqrs.schedules`.
            optimizer: "adam", "adamw", "rmsprop" or "sgd", with the defaults of `seqrs.optimizers`.
            clip_norm: a gradient whose global norm is larger is scaled to it; None does not.
            random_state: of initial weights, dropout, order and held-out share. A number gives the
                same bits again; None draws another one each time, and a `numpy.random.RandomState`
                goes on.
            verbose: whether there is a bar for every epoch.
            device: "cpu", "gpu", "gpu:1" and so on: where it trains and predicts.
            validation_fraction: in [0, 1): the share of the samples that is held out; its loss is
                in `history_`. 0 holds out nothing.
            patience: epochs in a row without a smaller loss of the held-out share after which
                training ends, with the weights of the best epoch; None trains for all `epochs`. It
                needs a `validation_fraction`.
        """
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.validation_fraction = validation_fraction
        self.patience = patience

    # What the parameters mean.

    def _held_out_share(self) -> float:
        """The share that is held out.

        Raises:
            TypeError, ValueError: it is none, or there is patience without it.
        """
        share = real("validation_fraction", self.validation_fraction, 0.0, 1.0)
        if self.patience is not None:
            integer("patience", self.patience)
            if share == 0.0:
                raise ValueError(
                    "patience: expected None without a validation_fraction, "
                    f"got {self.patience} with 0"
                )
        return share

    def _optimizer(self) -> Optimizer:
        kind = OPTIMIZERS[choice("optimizer", self.optimizer, tuple(OPTIMIZERS))]
        rate = self.learning_rate
        if not isinstance(rate, Schedule):
            rate = real("learning_rate", rate, 0.0)
        return kind(lr=rate)  # type: ignore[call-arg]

    def _draw_seed(self) -> int:
        """The seed of a training: a number is one already."""
        random = check_random_state(self.random_state)
        if self.random_state is None or isinstance(self.random_state, np.random.RandomState):
            return int(random.randint(2**31))
        return whole("random_state", self.random_state)

    def _progress(self) -> bool:
        if isinstance(self.verbose, (bool, np.bool_)):
            return bool(self.verbose)
        return integer("verbose", self.verbose, 0) > 0

    def _new_model(self, task: Task) -> Sequential:
        """The model for a task, on the estimator's device."""
        cell = CELLS[choice("cell", self.cell, tuple(CELLS))]
        recurrent = cell(
            task.features,
            self.hidden_size,
            self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
        )
        layers: list[Layer] = [recurrent]
        if not task.per_step:
            layers.append(Last())
        if self.dropout:
            layers.append(Dropout(self.dropout))
        layers.append(Linear(self.hidden_size * (2 if self.bidirectional else 1), task.outputs))
        return Sequential(layers, seed=self._seed).to(text("device", self.device))

    def _new_trainer(self, loss: Loss) -> Trainer:
        return Trainer(
            self.model_, loss, self._optimizer(), clip_norm=self.clip_norm, seed=self._seed
        )

    # Training.

    def _train(self, task: Task, data: Dataset, validation: Dataset | None) -> None:
        """All of a training from the beginning; gives the estimator a model and a history."""
        self._begin(task)
        callbacks = [] if self.patience is None else [EarlyStopping("val_loss", self.patience)]
        self.history_ = self._new_trainer(task.loss).fit(
            data,
            epochs=integer("epochs", self.epochs),
            validation=validation,
            callbacks=callbacks,
            progress=self._progress(),
        )

    def _train_on(self, task: Task, data: Dataset) -> None:
        """One epoch of `partial_fit`."""
        if not hasattr(self, "model_"):
            self._begin(task)
        self.model_.to(text("device", self.device))
        if self._trainer is None:
            self._trainer = self._new_trainer(task.loss)
            if self._checkpoint is not None:
                _restore(self._trainer, *self._checkpoint)
                self._checkpoint = None
        found = self._trainer.fit(data, epochs=1, progress=self._progress())
        found["epoch"] = [len(self.history_.get("epoch", ())) + 1]
        self.history_ = {
            name: [*self.history_.get(name, ()), *found.get(name, ())]
            for name in {**self.history_, **found}
        }

    def _begin(self, task: Task) -> None:
        """A new model with nothing behind it; what an optimiser knew is forgotten."""
        self.model_ = self._new_model(task)
        self.history_ = {}
        self._trained_with = self.get_params()
        self._trainer = self._checkpoint = None

    def _fit_rows(
        self, task: Task, rows: Rows, targets: Rows, classes: Array | None = None
    ) -> None:
        """`fit` for sequences with a target each; where `classes` of them are given, each class has
        its part in what is held out."""
        share = self._held_out_share()
        if not share:
            self._train(task, self._padded(task, rows, targets), None)
            return
        # Held out by scikit-learn's own rule, which also says what is too few to be divided.
        here, out = train_test_split(
            np.arange(len(rows)),
            test_size=share,
            random_state=self._seed,
            stratify=classes,
        )
        data = self._padded(task, [rows[k] for k in here], [targets[k] for k in here])
        held_out = self._padded(task, [rows[k] for k in out], [targets[k] for k in out])
        self._train(task, data, held_out)

    def _padded(self, task: Task, rows: Rows, targets: Rows) -> Padded:
        return Padded(
            list(rows), list(targets), self.batch_size, per_step=task.per_step, seed=self._seed
        )

    def _check_partial(self) -> None:
        """What `partial_fit` cannot honour is refused.

        Raises:
            ValueError: a share is to be held out, or a parameter is not what it was.
        """
        if self._held_out_share():
            raise ValueError(
                "validation_fraction: expected 0 for partial_fit, which holds out nothing, "
                f"got {self.validation_fraction}"
            )
        for name, value in getattr(self, "_trained_with", {}).items():
            now = getattr(self, name)
            if name not in FREE and now is not value and now != value:
                raise ValueError(
                    f"{name}: expected {value!r}, with which the estimator was trained so far, "
                    f"got {now!r}; fit begins anew"
                )

    # Prediction.

    def _check_fitted(self) -> None:
        """Before all else that needs a model.

        Raises:
            NotFittedError: there is none.
        """
        check_is_fitted(self, "model_")

    def _outputs(self, rows: Rows) -> list[Array]:
        """What the model gives for each sequence, in their order: (outputs,) or (T_i, outputs)."""
        self.model_.to(text("device", self.device))
        size = integer("batch_size", self.batch_size)
        lengths = np.array([len(row) for row in rows])
        # Like lengths together: a row's numbers do not depend on its company, its padding does.
        order = np.argsort(lengths, kind="stable")
        found: list[Array] = [np.empty(0)] * len(rows)
        for begin in range(0, len(rows), size):
            chosen = order[begin : begin + size]
            x = np.zeros((len(chosen), lengths[chosen].max(), rows[0].shape[1]), np.float32)
            for padded, k in zip(x, chosen, strict=True):
                padded[: lengths[k]] = rows[k]
            y, _ = self.model_(x, lengths=lengths[chosen])
            for output, k in zip(y, chosen, strict=True):
                found[k] = output[: lengths[k]] if y.ndim == 3 else output
        return found

    # Pickling.

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        trainer = state.get("_trainer")
        if trainer is not None:
            state["_trainer"], state["_checkpoint"] = None, _saved(trainer)
        return state


@contextmanager
def all_or_nothing(estimator: BaseEstimator) -> Iterator[None]:
    """An estimator that could not be trained is the one it was before."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _saved(trainer: Trainer) -> tuple[bytes, int]:
    """What a trainer keeps besides the model, in the form of a checkpoint; and its epochs."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trainer.seqrs"
        trainer._handle.checkpoint(path, "{}")
        return path.read_bytes(), trainer._epochs_fitted


def _restore(trainer: Trainer, checkpoint: bytes, epochs: int) -> None:
    """Lets a trainer go on from what `_saved` gave, with its own model's weights of now."""
    weights = trainer.model.state_dict()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trainer.seqrs"
        path.write_bytes(checkpoint)
        trainer._handle.restore(path)
    trainer.model.load_state_dict(weights)
    trainer._epochs_fitted = epochs
