"""Training: the Trainer, its single step, and `fit` over epochs, which survives a crash.

>>> trainer = seqrs.Trainer(model, loss=seqrs.CrossEntropy(), optimizer=seqrs.Adam(lr=2e-3))
>>> trainer.step(x, y).loss
>>> history = trainer.fit(train, epochs=10, validation=held_out, checkpoint="run", resume=True)
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _seqrs
from .callbacks import Callback
from .checkpoints import Checkpoints, Position
from .data import Dataset
from .layers import Embedding, Last, Layer, MaxPool, MeanPool
from .losses import CrossEntropy, Loss
from .models import Sequential
from .optimizers import Adam, Optimizer
from .options import flag, integer, real
from .options import seed as checked_seed

__all__ = ["TrainStep", "Trainer"]

LN2 = math.log(2.0)

#: Layers after which there is one output per row.
POOLS = (Last, MeanPool, MaxPool)


@dataclass(frozen=True)
class TrainStep:
    """What `Trainer.step` gives."""

    #: The loss before the update, reduced as the loss says.
    loss: float
    #: The global norm of the gradient before clipping; with `bptt`, the largest of the chunks'.
    grad_norm: float
    #: The final state, in the model's form, detached: to be given to the next step.
    state: Any


class Batch(NamedTuple):
    """A batch as `fit` and `evaluate` use it."""

    x: Any
    y: Any
    lengths: Any


class Trainer:
    """Trains a model or a single layer in place.

    Each step is one call into compiled code without the GIL: forward, loss, back-propagation
    through time, clipping, update. It either happens wholly or not at all: after an error or Ctrl-C
    the model and the optimiser are those of before the step.

    Args:
        model: a `Sequential`, or a layer such as `LSTM` whose outputs are the predictions.
        loss: what is made small.
        optimizer: how; its learning rate may be one of `seqrs.schedules`.
        clip_norm: a gradient whose global norm is larger is scaled to it (Pascanu et al. 2013).
        clip_value: then each component is limited to [-clip_value, clip_value].
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
        if not isinstance(model, (Sequential, Layer)):
            raise TypeError(f"model: expected a Sequential or a layer, got {model!r}")
        self.model = model
        self.loss = _instance("loss", loss, Loss, CrossEntropy)
        self.optimizer = _instance("optimizer", optimizer, Optimizer, lambda: Adam(lr=2e-3))
        self.clip_norm = None if clip_norm is None else real("clip_norm", clip_norm, above=0.0)
        self.clip_value = None if clip_value is None else real("clip_value", clip_value, above=0.0)
        self.bptt = None if bptt is None else integer("bptt", bptt)
        self.seed = checked_seed(seed)
        #: Set by a callback, it ends `fit` after the epoch.
        self.should_stop = False
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
            x, y, lengths, mask, self._model_state(state), _batch_first(self.model)
        )
        return TrainStep(loss, norm, self._own_state(after))

    def _model_state(self, state: Any) -> Any:
        """A single layer is trained as a model of one layer, whose state is a tuple of one."""
        if state is None or isinstance(self.model, Sequential):
            return state
        return (state,)

    def _own_state(self, state: Any) -> Any:
        if isinstance(self.model, Sequential):
            return state
        return state[0] if state else None

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
        loss_sum = weight = correct = 0.0
        carries = bool(getattr(data, "carries_state", False))
        count, per_step, state = 0, False, None
        with _epoch_0_of(data):
            for count, item in enumerate(data, 1):
                batch = _batch(item, count - 1)
                before = state if carries else None
                if isinstance(self.loss, CrossEntropy):
                    value, live, right, state = self._evaluate_classes(batch, before)
                    correct += right
                    per_step = per_step or np.ndim(batch.y) == 2
                else:
                    value, live, state = self._handle.evaluate(
                        batch.x, batch.y, batch.lengths, None, before, _batch_first(self.model)
                    )
                loss_sum += value * (live if self.loss.reduction == "mean" else 1)
                weight += live
        if not count:
            raise ValueError("data: expected at least one batch, got none")
        mean = loss_sum / weight if weight else 0.0
        metrics = {"loss": mean if self.loss.reduction == "mean" else loss_sum}
        if isinstance(self.loss, CrossEntropy):
            metrics["accuracy"] = correct / weight if weight else 0.0
            if per_step:
                metrics["bits"] = mean / LN2
        return metrics

    def _evaluate_classes(self, batch: Batch, state: Any) -> tuple[float, int, int, Any]:
        """Loss, number of targets, how many were predicted, state: from one forward pass."""
        batch_first = _batch_first(self.model)
        handle = _model_handle(self.model)
        logits, after = handle.call(batch.x, state, batch.lengths, None, batch_first)
        classes = np.asarray(batch.y)
        if classes.shape != logits.shape[:-1]:
            # The loss refuses it, with its own words.
            _seqrs.loss_value(self.loss.spec_json, logits, batch.y, None, None)
        if batch.lengths is not None:
            lengths = np.asarray(batch.lengths)
            if logits.ndim == 2:
                live = lengths > 0
            elif batch_first:
                live = np.arange(logits.shape[1]) < lengths[:, None]
            else:
                live = np.arange(logits.shape[0])[:, None] < lengths
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
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
        resume: bool = False,
    ) -> dict[str, list[float]]:
        """Train for `epochs` passes over the data.

        Each epoch: one step per batch, then the metrics of `validation`, then one observation for
        a `plateau` schedule, then the callbacks, then a checkpoint.

        Args:
            data: a dataset of `seqrs.data`, or any iterable of `(x, y)` or `(x, y, lengths)`. A
                `TextCorpus` carries the hidden state from batch to batch within an epoch.
            epochs: how many in all, those before a resumed run's interruption included.
            validation: as `data`; evaluated after every epoch.
            callbacks: objects or functions, see `seqrs.callbacks`.
            progress: a bar per epoch, by tqdm, on a terminal or in a notebook.
            checkpoint: a directory for checkpoints: one after every epoch, and one on Ctrl-C.
                `seqrs.checkpoints.Checkpoints` also writes them after batches or seconds.
            resume: go on from the newest intact checkpoint, with a warning for each damaged one;
                from the beginning if there is none. The run ends with the same bits as one never
                interrupted, if model, data and options are the same. An iterable that is no
                dataset has its first batches skipped, so it must give the same ones again.

        Returns:
            One list per metric with one entry per epoch: `epoch` (from 1); `loss`, the mean of the
            epoch's targets with "mean" and the sum with "sum"; `grad_norm`, the mean of the steps';
            `lr`, that of the last update; and `val_loss` and its kin with validation data.

        Raises:
            FileExistsError: the directory has checkpoints and `resume` is False.
            ModelFileError: there are checkpoints and none is intact or fits this trainer.
            ValueError: there is no batch; the data is not that of the checkpoint.
            NumericalError: as `step`.
        """
        epochs = integer("epochs", epochs, 0)
        listeners = [_Listener(index, each) for index, each in enumerate(callbacks)]
        _check_data("data", data, epochs)
        if validation is not None:
            _check_data("validation", validation, epochs)
        store = _checkpoints(checkpoint)
        position = Position(data=_signature(data))
        if store is not None:
            store.prepare(flag("resume", resume))
        if flag("resume", resume):
            if store is None:
                raise ValueError("resume: expected False without a checkpoint directory, got True")
            position = self._resume(store, position)
            _restore_callbacks(listeners, position.callbacks)
        self.should_stop = position.stopped
        while position.epoch < epochs and not self.should_stop:
            self._fit_epoch(data, position, epochs, listeners, store, progress)
            held_out = self._validate(validation, position, listeners, store)
            self._end_epoch(held_out, position, listeners)
            if store is not None:
                store.save(self._handle.checkpoint, position)
        return position.history

    def _resume(self, store: Checkpoints, fresh: Position) -> Position:
        """Take over the newest intact checkpoint, once it is known to be of this data."""
        # Read into a trainer of a copy first: a checkpoint that is refused changes nothing.
        trial = self._trainer_of(copy.deepcopy(self.model))
        found = store.newest(trial.restore)
        if found is None:
            return fresh
        path, position = found
        if position.data != fresh.data:
            raise ValueError(
                f"data: expected that of checkpoint {path}, {position.data}, got {fresh.data}"
            )
        self._handle.restore(str(path))
        return position

    def _fit_epoch(
        self,
        data: Iterable[Any],
        position: Position,
        epochs: int,
        listeners: list[_Listener],
        store: Checkpoints | None,
        progress: bool,
    ) -> None:
        """The batches of one epoch, from the position's batch on."""
        carries = bool(getattr(data, "carries_state", False))
        state = position.state
        total = _count(data)
        updates = self.steps_done
        seen = position.batch
        batches = _batches_from(data, position.epoch, position.batch)
        try:
            with _bar(progress, total, position, epochs) as bar:
                for item in batches:
                    batch = _batch(item, seen)
                    lr = self.lr
                    result = self.step(
                        batch.x, batch.y, batch.lengths, state=state if carries else None
                    )
                    weight = _targets(batch, self.model)
                    state = result.state
                    seen += 1
                    mean = self.loss.reduction == "mean"
                    position.loss_sum += result.loss * weight if mean else result.loss
                    position.weight += weight
                    position.norm_sum += result.grad_norm
                    position.lr, position.batch = lr, seen
                    updates = self.steps_done
                    if bar is not None:
                        bar.set_postfix({"loss": f"{result.loss:.4g}"}, refresh=False)
                        bar.update()
                    metrics = {
                        "epoch": position.epoch + 1,
                        "batch": seen,
                        "loss": result.loss,
                        "grad_norm": result.grad_norm,
                        "lr": lr,
                    }
                    for listener in listeners:
                        listener.on_batch_end(self, metrics)
                    # After the last batch the checkpoint of the epoch comes.
                    if store is not None and seen != total and store.due(seen):
                        self._save_within_epoch(store, position, state, listeners)
        except KeyboardInterrupt:
            # Only where the interrupt came between an update and its entry in the position are
            # the two apart; the checkpoint before then serves.
            if store is not None and seen == position.batch and updates == self.steps_done:
                self._save_within_epoch(store, position, state, listeners)
            raise
        if not seen:
            raise ValueError("data: expected at least one batch in an epoch, got none")

    def _save_within_epoch(
        self, store: Checkpoints, position: Position, state: Any, listeners: list[_Listener]
    ) -> None:
        position.state = state
        position.callbacks = [listener.saved() for listener in listeners]
        store.save(self._handle.checkpoint, position)
        position.state = None

    def _validate(
        self,
        validation: Iterable[Any] | None,
        position: Position,
        listeners: list[_Listener],
        store: Checkpoints | None,
    ) -> dict[str, float]:
        if validation is None:
            return {}
        try:
            return self.evaluate(validation)
        except KeyboardInterrupt:
            if store is not None:
                self._save_within_epoch(store, position, None, listeners)
            raise

    def _end_epoch(
        self, held_out: dict[str, float], position: Position, listeners: list[_Listener]
    ) -> None:
        """Metrics, schedule, callbacks; the position moves on to the next epoch."""
        mean = self.loss.reduction == "mean"
        metrics: dict[str, float] = {
            "epoch": position.epoch + 1,
            "loss": position.loss_sum / max(position.weight, 1) if mean else position.loss_sum,
            "grad_norm": position.norm_sum / max(position.batch, 1),
            "lr": position.lr,
        }
        metrics.update({f"val_{name}": value for name, value in held_out.items()})
        self._handle.observe(metrics.get("val_loss", metrics["loss"]))
        for name, value in metrics.items():
            position.history.setdefault(name, []).append(value)
        for listener in listeners:
            listener.on_epoch_end(self, dict(metrics))
        position.epoch += 1
        position.batch = 0
        position.loss_sum = position.weight = position.norm_sum = 0.0
        position.state = None
        position.stopped = self.should_stop
        position.callbacks = [listener.saved() for listener in listeners]


class _Listener:
    """A callback, whichever of its forms it has."""

    def __init__(self, index: int, callback: Callback) -> None:
        at_end = getattr(callback, "on_epoch_end", callback)
        if not callable(at_end) or isinstance(callback, type):
            raise TypeError(
                f"callbacks[{index}]: expected an object with on_epoch_end(trainer, metrics) or a "
                f"function of these, got {callback!r}"
            )
        self.on_epoch_end: Callable[[Trainer, dict[str, float]], object] = at_end
        self.on_batch_end: Callable[[Trainer, dict[str, float]], object] = getattr(
            callback, "on_batch_end", _nothing
        )
        self.callback = callback

    @property
    def name(self) -> str:
        return type(self.callback).__qualname__

    def saved(self) -> list[Any]:
        """Class name and state, as a checkpoint keeps it; no state for those that have none."""
        state_dict = getattr(self.callback, "state_dict", None)
        return [self.name, None if state_dict is None else state_dict()]


def _nothing(trainer: Trainer, metrics: dict[str, float]) -> None:
    pass


def _restore_callbacks(listeners: list[_Listener], saved: list[Any]) -> None:
    """Each takes the state of the first saved callback of its class not yet taken."""
    left = list(saved)
    for listener in listeners:
        entry = next((entry for entry in left if entry[0] == listener.name), None)
        if entry is None:
            continue
        left.remove(entry)
        if entry[1] is not None:
            listener.callback.load_state_dict(entry[1])  # type: ignore[union-attr]


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


def _batch_first(model: Sequential | Layer) -> bool:
    return model.batch_first if isinstance(model, Sequential) else model._batch_first


def _checkpoints(checkpoint: object) -> Checkpoints | None:
    if checkpoint is None or isinstance(checkpoint, Checkpoints):
        return checkpoint
    if isinstance(checkpoint, (str, os.PathLike)):
        return Checkpoints(checkpoint)
    raise TypeError(f"checkpoint: expected a directory or Checkpoints, got {checkpoint!r}")


def _check_data(name: str, data: object, epochs: int) -> None:
    """An iterator is used up after one pass, so it cannot serve two epochs."""
    if isinstance(data, (str, bytes, dict)) or not hasattr(data, "__iter__"):
        raise TypeError(
            f"{name}: expected an iterable of (x, y) batches, got {type(data).__name__}"
        )
    if epochs > 1 and iter(data) is data:
        raise ValueError(
            f"{name}: expected something that can be iterated {epochs} times, such as a list, "
            f"got an iterator ({type(data).__name__}), which gives its batches once"
        )


def _count(data: object) -> int | None:
    """The number of batches, where the data knows it."""
    return len(data) if isinstance(data, Sized) else None


def _signature(data: Iterable[Any]) -> dict[str, Any]:
    if isinstance(data, Dataset):
        return data.signature()
    return {"batches": _count(data)}


def _batches_from(data: Iterable[Any], epoch: int, start: int) -> Iterator[Any]:
    if isinstance(data, Dataset):
        data.set_epoch(epoch)
        return data.batches(start)
    batches = iter(data)
    for skipped in range(start):
        if next(batches, None) is None:
            raise ValueError(
                f"data: expected at least the {start} batches that the checkpoint has seen of "
                f"epoch {epoch + 1}, got {skipped}"
            )
    return batches


def _batch(item: Any, index: int) -> Batch:
    if isinstance(item, (tuple, list)) and len(item) in (2, 3):
        return Batch(item[0], item[1], item[2] if len(item) == 3 else None)
    got = f"{len(item)} items" if isinstance(item, (tuple, list)) else type(item).__name__
    raise ValueError(f"data: batch {index}: expected (x, y) or (x, y, lengths), got {got}")


def _targets(batch: Batch, model: Sequential | Layer) -> int:
    """How many outputs have a target: what the batch's mean loss weighs in the epoch's.

    Told by x: where a model has one feature, y may lack the last axis.
    """
    layers = model.layers if isinstance(model, Sequential) else [model]
    shape: tuple[int, ...] = np.shape(batch.x)
    steps_axes = shape if isinstance(layers[0], Embedding) else shape[:-1]
    per_step = len(steps_axes) == 2 and not any(isinstance(each, POOLS) for each in layers)
    if batch.lengths is not None:
        lengths = np.asarray(batch.lengths)
        return int(lengths.sum()) if per_step else int(np.count_nonzero(lengths))
    if per_step:
        return steps_axes[0] * steps_axes[1]
    return shape[0] if _batch_first(model) or len(steps_axes) == 1 else shape[1]


class _Epoch0:
    """Epoch 0 of a dataset for a while, and then the one before."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._before = data.epoch

    def __enter__(self) -> None:
        if self._before:
            self._data.set_epoch(0)

    def __exit__(self, *error: object) -> None:
        if self._before:
            self._data.set_epoch(self._before)


def _epoch_0_of(data: object) -> AbstractContextManager[None]:
    return _Epoch0(data) if isinstance(data, Dataset) else nullcontext()


def _bar(progress: bool, total: int | None, position: Position, epochs: int) -> Any:
    """A tqdm bar, or nothing: where none is wanted, it is not installed, or nobody would see it."""
    if not progress:
        return nullcontext()
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return nullcontext()
    # disable=None: no bar where the output is no terminal.
    return tqdm(
        total=total,
        initial=position.batch,
        desc=f"epoch {position.epoch + 1}/{epochs}",
        unit="batch",
        disable=None,
    )
