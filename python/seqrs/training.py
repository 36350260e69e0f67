"""Training: the Trainer, its single step, and `fit` over epochs, which survives a crash.

>>> trainer = seqrs.Trainer(model, loss=seqrs.CrossEntropy(), optimizer=seqrs.Adam(lr=2e-3))
>>> trainer.step(x, y).loss
>>> history = trainer.fit(train, epochs=10, validation=held_out, checkpoint="run", resume=True)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _seqrs, batches
from .batches import Batch
from .callbacks import Callback
from .checkpoints import Checkpoints
from .errors import SeqrsError, ShapeError, StateError
from .fitting import Fit, names_of_metrics
from .layers import Layer
from .listeners import listeners_of
from .losses import CrossEntropy, Loss
from .models import Sequential
from .optimizers import Adam, Optimizer
from .options import flag, integer, real, shown
from .options import seed as checked_seed
from .quantized import QuantizedSequential

__all__ = ["TrainStep", "Trainer"]

LN2 = math.log(2.0)


@dataclass(frozen=True)
class TrainStep:
    """What `Trainer.step` gives."""

    #: The loss before the update, reduced as the loss says.
    loss: float
    #: The global norm of the gradient before clipping; with `bptt`, the largest of the chunks'.
    grad_norm: float
    #: The final state, in the model's form, detached: to be given to the next step.
    state: Any


class Options(NamedTuple):
    """What a trainer is made with."""

    model: Sequential | Layer
    loss: Loss
    optimizer: Optimizer
    clip_norm: float | None
    clip_value: float | None
    bptt: int | None
    seed: int


#: What cannot be assigned, and what to do instead.
FIXED = {
    **dict.fromkeys(Options._fields, "another Trainer to be made for another value"),
    "optimizer": "another Trainer to be made, or a learning rate of seqrs.schedules",
    "lr": "a learning rate of seqrs.schedules in the optimiser",
    "steps_done": "it to count updates",
}


class Trainer:
    """Trains a model or a single layer in place.

    Each step is one call into compiled code without the GIL: forward, loss, back-propagation
    through time, clipping, update. It either happens wholly or not at all: after an error or Ctrl-C
    the model and the optimiser are those of before the step.

    The options cannot be changed afterwards: make another Trainer of the model. A learning rate
    that changes is one of `seqrs.schedules`.

    Args:
        model: a `Sequential`, or a layer such as `LSTM` whose outputs are the predictions.
        loss: what is made small; `CrossEntropy()` if None.
        optimizer: how; its learning rate may be one of `seqrs.schedules`. `Adam(lr=2e-3)` if None.
        clip_norm: a gradient whose global norm is larger is scaled to it (Pascanu et al. 2013);
            None does not clip.
        clip_value: then each component is limited to [-clip_value, clip_value]; None does not.
        bptt: truncated back-propagation: the sequence is cut into chunks of so many steps, one
            update each, and the state is carried over, detached. None: all steps at once.
        seed: of dropout.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """

    def __init__(
        self,
        model: Sequential | Layer,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        clip_norm: float | None = 1.0,
        clip_value: float | None = None,
        bptt: int | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(model, QuantizedSequential):
            raise StateError(
                f"model: expected float32 or float64 weights to train, got {model.kind} ones"
            )
        if not isinstance(model, (Sequential, Layer)):
            raise TypeError(f"model: expected a Sequential or a layer, got {model!r}")
        self._options = Options(
            model,
            _instance("loss", loss, Loss, CrossEntropy),
            _instance("optimizer", optimizer, Optimizer, lambda: Adam(lr=2e-3)),
            None if clip_norm is None else real("clip_norm", clip_norm, above=0.0),
            None if clip_value is None else real("clip_value", clip_value, above=0.0),
            None if bptt is None else integer("bptt", bptt),
            checked_seed(seed),
        )
        #: Set by a callback, it ends `fit` after the epoch.
        self.should_stop = False
        #: Epochs of all calls of `fit`, for the order of a dataset's batches.
        self._epochs_fitted = 0
        self._handle = self._trainer_of(model)

    def _trainer_of(self, model: Sequential | Layer) -> _seqrs.Trainer:
        return _seqrs.Trainer(
            _model_handle(model),
            self.loss.spec_json,
            self.optimizer.spec_json,
            self.clip_norm,
            self.clip_value,
            self.bptt,
            self.seed,
        )

    @property
    def _described(self) -> dict[str, Any]:
        """The options as a checkpoint keeps them."""
        described = self._options._asdict()
        del described["model"]
        for name in ("loss", "optimizer"):
            described[name] = json.loads(described[name].spec_json)
        return described

    def __setattr__(self, name: str, value: object) -> None:
        if name in FIXED:
            raise AttributeError(f"{name}: expected {FIXED[name]}, got an assignment")
        super().__setattr__(name, value)

    @property
    def model(self) -> Sequential | Layer:
        """What is trained."""
        return self._options.model

    @property
    def loss(self) -> Loss:
        """What is made small."""
        return self._options.loss

    @property
    def optimizer(self) -> Optimizer:
        """How."""
        return self._options.optimizer

    @property
    def clip_norm(self) -> float | None:
        """The largest norm of a gradient, or None."""
        return self._options.clip_norm

    @property
    def clip_value(self) -> float | None:
        """The largest component of a gradient, or None."""
        return self._options.clip_value

    @property
    def bptt(self) -> int | None:
        """Steps in a chunk of truncated back-propagation, or None."""
        return self._options.bptt

    @property
    def seed(self) -> int:
        """Of dropout."""
        return self._options.seed

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._handle.lr

    @property
    def steps_done(self) -> int:
        """Updates done so far."""
        return self._handle.steps_done

    def __repr__(self) -> str:
        return (
            f"Trainer({type(self.model).__name__} of {self.model.num_parameters:,} parameters, "
            f"loss={self.loss!r}, optimizer={self.optimizer!r}, clip_norm={self.clip_norm}, "
            f"clip_value={self.clip_value}, bptt={self.bptt}, seed={self.seed})"
        )

    # One batch.

    def step(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        state: Any = None,
    ) -> TrainStep:
        """One update from one batch; with `bptt`, one for each chunk of steps.

        Args:
            x: (B, T, I), or ids (B, T); time first where the model is.
            y: targets, classes for each step (B, T) or each row (B,), or numbers (B, T, F) or
                (B, F), where the last axis may be missing if F is 1.
            lengths: B integers in 0..=T, the live steps of each row.
            mask: booleans or 0 and 1 (B, T); at most one of `lengths` and `mask` is given.
            state: the initial state, None for zeros; `.state` of the step before carries it on.

        Raises:
            ShapeError, DTypeError: an argument does not fit; says which.
            NumericalError: the loss or a gradient is NaN or infinite; names step and parameter.
        """
        loss, norm, after = self._handle.step(
            x, y, lengths, mask, self._model_state(state), batches.batch_first(self.model)
        )
        return TrainStep(loss, norm, self._own_state(after))

    def _step_into(
        self,
        found: list[tuple[float, float, Any]],
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        state: Any,
    ) -> None:
        """As `step`; adds to `found` what the compiled step gives.

        The list is extended by compiled code, so that no signal is handled between the update and
        the moment that its result is there.
        """
        first = batches.batch_first(self.model)
        arguments = (x, y, lengths, mask, self._model_state(state), first)
        found.extend(starmap(self._handle.step, [arguments]))

    def _model_state(self, state: Any) -> Any:
        """A single layer is trained as a model of one layer, whose state is a tuple of one."""
        if state is None or isinstance(self.model, Sequential):
            return state
        return (state,)

    def _own_state(self, state: Any) -> Any:
        if isinstance(self.model, Sequential):
            return state
        return state[0] if state else None

    def observe(self, metric: float) -> None:
        """Show the learning rate's schedule a metric, smaller being better.

        Only `seqrs.schedules.plateau` looks at it. `fit` does this after every epoch; a loop of
        `step`s of one's own calls it as often as `patience` is to count.

        Raises:
            TypeError: it is not a real number. NaN and infinity are no fall.
        """
        if isinstance(metric, (bool, str, bytes)) or not hasattr(metric, "__float__"):
            raise TypeError(f"metric: expected a real number, got {shown(metric)}")
        self._handle.observe(float(metric))

    # All batches.

    def evaluate(self, data: Iterable[Any]) -> dict[str, float]:
        """The metrics over all batches of `data`, without training and without dropout.

        The state is carried from batch to batch where the data says so (`TextCorpus`), and a
        dataset gives the batches of its epoch 0, so that two evaluations can be compared.

        Returns:
            `loss`, reduced over everything as the loss says; for `CrossEntropy` also `accuracy`,
            the share of targets that have the largest logit, and, where every step has a target,
            `bits`: the mean loss in bits (loss / ln 2).

        Raises:
            ValueError: there is no batch.
        """
        return self._evaluate(data, "data")

    def _evaluate(self, data: Iterable[Any], name: str) -> dict[str, float]:
        """The metrics of the data called `name` in messages."""
        loss_sum = weight = correct = 0.0
        carries = batches.carries_state(data)
        count, per_step, state = 0, False, None
        with batches.epoch_0_of(data):
            for count, item in enumerate(data, 1):
                batch = batches.read(item, name, count - 1)
                before = state if carries else None
                try:
                    if isinstance(self.loss, CrossEntropy):
                        value, live, right, state = self._evaluate_classes(batch, before)
                        correct += right
                        per_step = per_step or np.ndim(batch.y) == 2
                    else:
                        first = batches.batch_first(self.model)
                        value, live, state = self._handle.evaluate(
                            batch.x, batch.y, batch.lengths, None, before, first
                        )
                except SeqrsError as error:
                    batches.name_batch(error, name, count - 1)
                    raise
                loss_sum += value * (live if self.loss.reduction == "mean" else 1)
                weight += live
        if not count:
            raise ValueError(f"{name}: expected at least one batch, got none")
        mean = loss_sum / weight if weight else 0.0
        metrics = {"loss": mean if self.loss.reduction == "mean" else loss_sum}
        if isinstance(self.loss, CrossEntropy):
            metrics["accuracy"] = correct / weight if weight else 0.0
            if per_step:
                metrics["bits"] = mean / LN2
        return metrics

    def _evaluate_classes(self, batch: Batch, state: Any) -> tuple[float, int, int, Any]:
        """Loss, number of targets, how many were predicted, state: from one forward pass."""
        batch_first = batches.batch_first(self.model)
        handle = _model_handle(self.model)
        logits, after = handle.call(batch.x, state, batch.lengths, None, batch_first)
        classes = np.asarray(batch.y)
        if classes.shape != logits.shape[:-1] or classes.dtype.kind not in "iu":
            # The loss refuses it, with its own words.
            _seqrs.loss_value(self.loss.spec_json, logits, batch.y, None, None)
        wrong = (classes < 0) | (classes >= logits.shape[-1])
        live = None
        if batch.lengths is not None:
            lengths = np.asarray(batch.lengths)
            if logits.ndim == 2:
                live = lengths > 0
            elif batch_first:
                live = np.arange(logits.shape[1]) < lengths[:, None]
            else:
                live = np.arange(logits.shape[0])[:, None] < lengths
            wrong &= live
        if wrong.any():
            place = tuple(int(index) for index in np.argwhere(wrong)[0])
            raise ShapeError(
                f"y[{', '.join(map(str, place))}]: expected a class in 0..{logits.shape[-1]}, "
                f"got {classes[place]}"
            )
        if live is not None:
            logits, classes = logits[live], classes[live]
        else:
            logits, classes = logits.reshape(-1, logits.shape[-1]), classes.reshape(-1)
        loss = _seqrs.loss_value(self.loss.spec_json, logits, classes, None, None)
        right = int(np.count_nonzero(logits.argmax(axis=-1) == classes)) if len(classes) else 0
        return loss, len(classes), right, after

    def fit(
        self,
        data: Iterable[Any],
        epochs: int = 10,
        validation: Iterable[Any] | None = None,
        callbacks: Sequence[Callback] | Callback | None = (),
        progress: bool = True,
        checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
        resume: bool = False,
    ) -> dict[str, list[float]]:
        """Train for `epochs` passes over the data.

        Each epoch: one step per batch, then the metrics of `validation`, then one observation for
        a `plateau` schedule, then the callbacks, then a checkpoint.

        A second call trains on: weights, optimiser and learning rate go on from where they are.
        `history` and the metric `epoch` begin anew with 1, and so do the ready-made callbacks; the
        orders of a dataset do not repeat but go on with those of the epochs that follow.

        Args:
            data: a dataset of `seqrs.data`, or any iterable of `(x, y)` or `(x, y, lengths)`. A
                `TextCorpus` carries the hidden state from batch to batch within an epoch.
            epochs: how many in all, those before a resumed run's interruption included; a run
                may be resumed for more of them.
            validation: as `data`; evaluated after every epoch.
            callbacks: objects or functions, see `seqrs.callbacks`; one alone needs no list.
            progress: a bar per epoch, by tqdm, on a terminal or in a notebook.
            checkpoint: a directory for checkpoints: one after every epoch, and one on Ctrl-C.
                `seqrs.checkpoints.Checkpoints` also writes them after batches or seconds.
            resume: go on from the newest intact checkpoint, with a warning for each damaged one;
                from the beginning if there is none. The run ends with the same bits as one never
                interrupted, if model, data and options are the same. An iterable that is no
                dataset has its first batches skipped, so it must give the same ones again. Other
                options of the trainer, such as a learning rate, are told by a warning and hold
                from there on. A run that a callback had ended stays ended, with a warning.

        Returns:
            One list per metric with one entry per epoch: `epoch` (from 1); `loss`, the mean of the
            epoch's targets with "mean" and the sum with "sum"; `grad_norm`, the mean of the steps';
            `lr`, that of the last update; and `val_loss` and its kin with validation data.

        Raises:
            TypeError, ValueError, OSError: an argument is at fault; what a ready-made callback
                needs, such as validation data or a folder, is looked at before the first epoch.
            FileExistsError: the directory has checkpoints and `resume` is False.
            ModelFileError: there are checkpoints and none is intact or fits this trainer.
            ValueError: there is no batch; the data is not that of the checkpoint, or the loss or
                optimiser is of another kind, or the seed is another one.
            NumericalError: as `step`.
        """
        epochs = integer("epochs", epochs, 0)
        resume = flag("resume", resume)
        listeners = listeners_of(callbacks)
        batches.check_data("data", data, epochs)
        if validation is not None:
            batches.check_data("validation", validation, epochs)
        expected = names_of_metrics(self, validation is not None)
        for listener in listeners:
            listener.check(expected)
        store = _checkpoints(checkpoint)
        if resume and store is None:
            raise ValueError("resume: expected False without a checkpoint directory, got True")
        for listener in listeners:
            listener.on_fit_begin(self)
        if store is not None:
            for listener in listeners:
                # A state that cannot be kept is told now, not after the first epoch.
                listener.saved()
            store.prepare(resume)
        run = Fit(self, data, epochs, validation, listeners, progress, store)
        if resume and store is not None:
            run.resume(store)
        return run.run()


def _instance(name: str, value: Any, kind: Any, default: Callable[[], Any]) -> Any:
    if value is None:
        return default()
    if not isinstance(value, kind):
        example = f"{type(default()).__name__}()"
        raise TypeError(f"{name}: expected one of seqrs, such as {example}, got {value!r}")
    return value


def _model_handle(model: Sequential | Layer) -> _seqrs.Model:
    if isinstance(model, Sequential):
        return model._handle
    return _seqrs.Model([model._handle], None)


def _checkpoints(checkpoint: object) -> Checkpoints | None:
    if checkpoint is None or isinstance(checkpoint, Checkpoints):
        return checkpoint
    if isinstance(checkpoint, (str, os.PathLike)):
        return Checkpoints(checkpoint)
    raise TypeError(f"checkpoint: expected a directory or Checkpoints, got {checkpoint!r}")
