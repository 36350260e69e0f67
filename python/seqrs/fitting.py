"""What `Trainer.fit` does: epochs of updates, and a position that agrees with them at any moment.

Ctrl-C may come between any two instructions of Python, also when an update is done and nothing here
knows of it yet. So what changes the trainer for good, an update or a look of the schedule at a
metric, leaves its result in a list without any instruction of Python in between; the position then
changes all at once. Whatever the moment, `Fit` can tell what is done and count it, and the
checkpoint that it writes is one of exactly the updates done.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import batches
from .batches import Batch
from .checkpoints import Checkpoints, Position, differences
from .errors import SeqrsError
from .listeners import Listener, restore
from .losses import CrossEntropy

if TYPE_CHECKING:
    from .training import Trainer

__all__ = ["Fit", "names_of_metrics"]

Metrics = dict[str, float]


@dataclass
class _Update:
    """An update under way, of one batch."""

    #: Epoch and batch, as the position says before it is counted.
    place: tuple[int, int]
    batch: Batch
    lr: float
    #: Its result, once it is done.
    found: list[tuple[float, float, Any]] = field(default_factory=list)


@dataclass
class _End:
    """The end of an epoch under way."""

    epoch: int
    metrics: Metrics
    #: Not empty once the schedule has seen the epoch's metric.
    observed: list[None] = field(default_factory=list)
    #: How many callbacks were called.
    told: int = 0
    #: What the first of them raised that did.
    error: BaseException | None = None


class Fit:
    """One call of `Trainer.fit`, whose arguments have been checked."""

    def __init__(
        self,
        trainer: Trainer,
        data: Iterable[Any],
        epochs: int,
        validation: Iterable[Any] | None,
        listeners: list[Listener],
        progress: bool,
        store: Checkpoints | None,
    ) -> None:
        self._trainer = trainer
        self._data = data
        self._epochs = epochs
        self._validation = validation
        self._listeners = listeners
        self._progress = progress
        self._store = store
        self._position = Position(
            data=batches.signature(data),
            options=trainer._described,
            earlier=trainer._epochs_fitted,
        )
        self._update: _Update | None = None
        self._end: _End | None = None

    def resume(self, store: Checkpoints) -> None:
        """Take over the newest intact checkpoint, once it is known to be of this data."""
        trainer = self._trainer
        # Read into a trainer of a copy first: a checkpoint that is refused changes nothing.
        trial = trainer._trainer_of(copy.deepcopy(trainer.model))
        found = store.newest(trial.restore)
        if found is None:
            return
        path, position = found
        if position.data != self._position.data:
            which = "; ".join(differences(position.data, self._position.data))
            raise ValueError(f"data: expected that of checkpoint {path}, got other data ({which})")
        _compare(path, position.options, trainer._described)
        trainer._handle.restore(str(path))
        position.options = trainer._described
        self._position = position
        trainer._epochs_fitted = position.earlier + position.epoch
        restore(self._listeners, position.callbacks)

    def run(self) -> dict[str, list[float]]:
        """Train to the end; on Ctrl-C leave a checkpoint."""
        position, trainer = self._position, self._trainer
        trainer.should_stop = position.stopped
        if position.stopped:
            # The caller of fit() is two calls up.
            warnings.warn(
                f"fit: the run was ended by a callback after epoch {position.epoch}, and a resumed "
                "one does not train on; begin another with these weights for that",
                stacklevel=3,
            )
        try:
            while position.epoch < self._epochs and not trainer.should_stop:
                self._epoch()
        except KeyboardInterrupt:
            if self._store is not None:
                self._save_what_is_done()
            raise
        return position.history

    def _epoch(self) -> None:
        """The batches of one epoch, from the position's batch on, and what follows them."""
        position, trainer, store = self._position, self._trainer, self._store
        epoch = position.earlier + position.epoch
        found = batches.batches_from(self._data, epoch, position.batch)
        total = batches.count(self._data)
        with _bar(self._progress, total, position, self._epochs) as bar:
            for item in found:
                metrics = self._batch(item)
                if bar is not None:
                    bar.set_postfix({"loss": f"{self._mean_loss():.4g}"}, refresh=False)
                    bar.update()
                for listener in self._listeners:
                    listener.on_batch_end(trainer, metrics)
                # After the last batch the checkpoint of the epoch comes.
                if store is not None and position.batch != total and store.due(position.batch):
                    self._save(store)
            if not position.batch:
                raise ValueError("data: expected at least one batch in an epoch, got none")
            metrics = self._metrics()
            if bar is not None:
                shown = {k: v for k, v in metrics.items() if k == "loss" or k.startswith("val_")}
                bar.set_postfix({k: f"{v:.4g}" for k, v in shown.items()}, refresh=False)
        self._end = end = _End(position.epoch, metrics)
        self._finish(end)
        if end.error is not None:
            raise end.error

    def _batch(self, item: Any) -> Metrics:
        """One update; gives what callbacks are told of it."""
        trainer, position = self._trainer, self._position
        batch = batches.read(item, "data", position.batch)
        state = position.state if batches.carries_state(self._data) else None
        update = _Update((position.epoch, position.batch), batch, trainer.lr)
        self._update = update
        try:
            trainer._step_into(update.found, batch.x, batch.y, batch.lengths, None, state)
        except SeqrsError as error:
            batches.name_batch(error, "data", position.batch)
            raise
        self._count(update)
        loss, norm, _ = update.found[0]
        return {
            "epoch": position.epoch + 1,
            "batch": position.batch,
            "loss": loss,
            "grad_norm": norm,
            "lr": update.lr,
        }

    def _count(self, update: _Update) -> None:
        """The position after an update that is done."""
        position, trainer = self._position, self._trainer
        loss, norm, state = update.found[0]
        weight = batches.targets(update.batch, trainer.model)
        carries = batches.carries_state(self._data)
        position.put(
            batch=position.batch + 1,
            loss_sum=position.loss_sum + (loss * weight if self._mean else loss),
            weight=position.weight + weight,
            norm_sum=position.norm_sum + norm,
            lr=update.lr,
            state=trainer._own_state(state) if carries else None,
        )

    @property
    def _mean(self) -> bool:
        return self._trainer.loss.reduction == "mean"

    def _mean_loss(self) -> float:
        """Of the epoch so far: by target with "mean", by batch with "sum"."""
        position = self._position
        return position.loss_sum / max(position.weight if self._mean else position.batch, 1)

    def _metrics(self) -> Metrics:
        """Of the epoch, whose batches are done."""
        position = self._position
        metrics: Metrics = {
            "epoch": position.epoch + 1,
            "loss": self._mean_loss() if self._mean else position.loss_sum,
            "grad_norm": position.norm_sum / max(position.batch, 1),
            "lr": position.lr,
        }
        if self._validation is not None:
            held_out = self._trainer._evaluate(self._validation, "validation")
            metrics.update({f"val_{name}": value for name, value in held_out.items()})
        return metrics

    def _finish(self, end: _End) -> None:
        """Schedule, position, callbacks, checkpoint: from where it stands, if it was interrupted.

        Every callback is called, also after one that has raised, and the checkpoint is written
        before that is told: what a checkpoint counts as done every callback has seen.
        """
        position, trainer, metrics = self._position, self._trainer, end.metrics
        if not end.observed:
            metric = metrics.get("val_loss", metrics["loss"])
            end.observed.extend(map(trainer._handle.observe, [metric]))
        if position.epoch == end.epoch:
            history = dict(position.history)
            for name, value in metrics.items():
                history[name] = [*history.get(name, []), value]
            position.put(
                epoch=end.epoch + 1,
                batch=0,
                loss_sum=0.0,
                weight=0.0,
                norm_sum=0.0,
                state=None,
                history=history,
            )
        trainer._epochs_fitted = position.earlier + position.epoch
        while end.told < len(self._listeners):
            listener = self._listeners[end.told]
            end.told += 1
            try:
                listener.on_epoch_end(trainer, dict(metrics))
            except BaseException as error:
                end.error = end.error or error
        position.stopped = trainer.should_stop
        if self._store is not None:
            self._save(self._store)
        self._end = None

    def _save(self, store: Checkpoints) -> None:
        self._position.callbacks = [listener.saved() for listener in self._listeners]
        store.save(self._trainer._handle.checkpoint, self._position)

    def _save_what_is_done(self) -> None:
        """After Ctrl-C at any moment: count what is done, and write a checkpoint of it."""
        assert self._store is not None
        position, update, end = self._position, self._update, self._end
        try:
            place = (position.epoch, position.batch)
            if update is not None and update.found and update.place == place:
                self._count(update)
            if end is not None and end.observed:
                self._finish(end)
            else:
                self._save(self._store)
        except Exception as error:
            # The caller of fit() is three calls up.
            warnings.warn(
                f"checkpoint: expected to write one after the interrupt, got {error}", stacklevel=4
            )


#: What makes of a run another one; `seed` because dropout goes on with that of the checkpoint.
ESSENTIAL = ("loss.kind", "optimizer.kind", "seed")


def _compare(path: object, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a trainer for another task, and tell of other options.

    Raises:
        ValueError: the loss or the optimiser is of another kind, or the seed is another one.
    """
    found = differences(then, now)
    if not found:
        return
    words = f"expected the options of checkpoint {path}, got others ({'; '.join(found)})"
    if any(each.split(":")[0] in ESSENTIAL for each in found):
        raise ValueError(f"trainer: {words}")
    # The caller of fit() is four calls up.
    warnings.warn(f"trainer: {words}; the run goes on with those of now", stacklevel=4)


def names_of_metrics(trainer: Trainer, validated: bool) -> list[str]:
    """The metrics that an epoch may have."""
    names = ["epoch", "loss", "grad_norm", "lr"]
    if validated:
        names.append("val_loss")
        if isinstance(trainer.loss, CrossEntropy):
            names.append("val_accuracy")
            if not batches.gives_rows(trainer.model):
                names.append("val_bits")
    return names


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
