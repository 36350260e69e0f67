"""Callbacks of `Trainer.fit`: called after every epoch with the trainer and the epoch's metrics.

A callback is an object with `on_epoch_end(trainer, metrics)`, or a function of the same arguments.
`metrics` is a dict: `epoch` (from 1), `loss`, `grad_norm`, `lr`, and with validation data
`val_loss` and its kin. Setting `trainer.should_stop = True` ends the run.

An object may also have

- `on_fit_begin(trainer)`, called before the first epoch and before a resumed run's state is loaded.
  The ready-made ones forget there what they know of an earlier run, so that they can serve again;
- `on_batch_end(trainer, metrics)`, with `batch` (from 1) beside `epoch`, `loss`, `grad_norm`, `lr`;
- `state_dict()` and `load_state_dict(state)`: what a checkpoint keeps (what JSON can hold, tuples
  and NumPy arrays).

After every epoch all callbacks are called, in their order, also those after one that raises; then
comes the checkpoint, and then the error goes on.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Union

from .options import choice, flag, integer, real

if TYPE_CHECKING:
    from .training import Trainer

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "ModelCheckpoint"]

Metrics = Mapping[str, float]


class HasOnEpochEnd(Protocol):
    """An object that `Trainer.fit` takes as a callback."""

    def on_epoch_end(self, trainer: Trainer, metrics: Metrics) -> object: ...


#: What `Trainer.fit` takes as a callback.
Callback = Union[HasOnEpochEnd, "Callable[[Trainer, Metrics], object]"]


class EarlyStopping:
    """Ends a run when a metric no longer gets better.

    Better is by more than `min_delta`: below best - min_delta, or above best + min_delta with
    mode="max". A NaN is never better. The run ends after `patience` epochs in a row without a
    better one.

    Args:
        monitor: the metric's name.
        patience: epochs waited for, at least 1.
        min_delta: what counts as better, at least 0.
        restore_best: whether the weights of the best epoch are put back when the run ends early.
        mode: "min", "max", or "auto": "max" for metrics named accuracy.

    Attributes:
        best: the best value so far; None before the first epoch.
        best_epoch: the epoch it is from, counted from 1; 0 before the first.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = True,
        *,
        mode: str = "auto",
    ) -> None:
        self.monitor = monitor
        self.patience = integer("patience", patience)
        self.min_delta = real("min_delta", min_delta, 0.0)
        self.restore_best = flag("restore_best", restore_best)
        self._sign = _sign(monitor, mode)
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self._waited = 0
        self._weights: dict[str, Any] | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Forgets an earlier run, whose best weights may be another model's."""
        self._forget()

    def check(self, metrics: Collection[str]) -> None:
        """Before the first epoch: whether there will be the metric.

        Raises:
            ValueError: there will not.
        """
        _check_monitored(metrics, self.monitor)

    def on_epoch_end(self, trainer: Trainer, metrics: Metrics) -> None:
        """Looks at the metric, and ends the run when it is time."""
        value = _monitored(metrics, self.monitor)
        if _better(value, self.best, self._sign, self.min_delta):
            self.best, self.best_epoch = value, int(metrics["epoch"])
            self._waited = 0
            if self.restore_best:
                self._weights = trainer.model.state_dict()
            return
        self._waited += 1
        if self._waited >= self.patience:
            trainer.should_stop = True
            if self._weights is not None:
                trainer.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "waited": self._waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._waited, self._weights = state["waited"], state["weights"]


class ModelCheckpoint:
    """Saves the model after an epoch, as `model.save` does: a file to load and use.

    To go on with an interrupted run, use `fit(checkpoint=...)`.

    Args:
        path: the file; `{epoch}` in it and the names of metrics are filled in, as by
            `str.format`: "model-{epoch:03d}-{val_loss:.3f}.safetensors".
        monitor: the metric that says which epoch is best.
        best_only: whether only an epoch better than all before is saved.
        mode: "min", "max", or "auto": "max" for metrics named accuracy.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        best_only: bool = True,
        *,
        mode: str = "auto",
    ) -> None:
        self.path = os.fspath(path)
        self.monitor = monitor
        self.best_only = flag("best_only", best_only)
        self._sign = _sign(monitor, mode)
        self.best: float | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Forgets the best of an earlier run."""
        self.best = None

    def check(self, metrics: Collection[str]) -> None:
        """Before the first epoch: whether there will be the metrics, and is the folder.

        Raises:
            ValueError: a metric that `monitor` or the path names will not be there.
            FileNotFoundError: there is no such folder.
        """
        if self.best_only:
            _check_monitored(metrics, self.monitor)
        # Which metrics there are depends on the targets too, so a folder's name waits.
        path = self._filled(dict.fromkeys(metrics, 1.0))
        if "{" not in os.path.dirname(self.path):
            _check_folder(path)

    def on_epoch_end(self, trainer: Trainer, metrics: Metrics) -> None:
        """Saves the model where that is due."""
        value = _monitored(metrics, self.monitor) if self.best_only else 0.0
        if self.best_only and not _better(value, self.best, self._sign, 0.0):
            return
        trainer.model.save(self._filled(metrics))
        # Once it is saved: what failed or was interrupted is no best one.
        if self.best_only:
            self.best = value

    def _filled(self, metrics: Mapping[str, float]) -> str:
        """The path with the metrics in place of their names."""
        values = {**metrics, "epoch": int(metrics["epoch"])}
        try:
            return self.path.format(**values)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(
                f"path: expected names of metrics in braces ({', '.join(values)}), "
                f"got {self.path!r} ({error})"
            ) from None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.best = state["best"]


class CSVLogger:
    """Writes the metrics of every epoch as a line of a CSV file.

    A new logger begins the file anew. The same one in a second `fit` adds its lines to those of the
    first, with columns for the metrics of both. A resumed run keeps the lines of the epochs before
    it, so that every epoch has one line however often the run was interrupted.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        #: Lines of runs before this one, and those of this one that are there.
        self._earlier = self._lines = 0
        self._began = False

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Lets the lines of an earlier run stay."""
        self._earlier, self._lines = self._earlier + self._lines, 0
        self._began = False

    def check(self, metrics: Collection[str]) -> None:
        """Before the first epoch: whether a file can be there.

        Raises:
            FileNotFoundError, IsADirectoryError: it cannot.
        """
        _check_folder(self.path)

    def on_epoch_end(self, trainer: Trainer, metrics: Metrics) -> None:
        """Adds the line."""
        epoch = int(metrics["epoch"])
        line: dict[str, object] = {**metrics, "epoch": epoch}
        if not self._began:
            before = self._lines_before(epoch)
            names = list(dict.fromkeys([*(before[0] if before else []), *line]))
            with self.path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, names, restval="")
                writer.writeheader()
                writer.writerows(before)
            self._names = names
            self._lines = len(before) - self._earlier
            self._began = True
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._names, restval="", extrasaction="ignore").writerow(line)
        self._lines += 1

    def _lines_before(self, epoch: int) -> list[dict[str, str]]:
        """The whole lines before this epoch of this run; one cut short by a crash is left out."""
        if not self._earlier and epoch == 1:
            return []
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                found = list(csv.reader(file))
        except FileNotFoundError:
            found = []
        names = found[0] if found else []
        if "epoch" not in names:
            self._earlier = 0
            return []
        whole = [
            dict(zip(names, each, strict=True)) for each in found[1:] if len(each) == len(names)
        ]
        self._earlier = min(self._earlier, len(whole))
        this = whole[self._earlier :]
        return whole[: self._earlier] + [
            line for line in this if line["epoch"].isdigit() and int(line["epoch"]) < epoch
        ]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"earlier": self._earlier}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._earlier, self._lines = state["earlier"], 0


def _sign(monitor: str, mode: str) -> float:
    """1 where smaller is better, -1 where larger is."""
    if not isinstance(monitor, str):
        raise TypeError(f"monitor: expected the name of a metric, got {monitor!r}")
    choice("mode", mode, ("auto", "min", "max"))
    if mode == "auto":
        mode = "max" if monitor.endswith("accuracy") else "min"
    return 1.0 if mode == "min" else -1.0


def _better(value: float, best: float | None, sign: float, min_delta: float) -> bool:
    if math.isnan(value):
        return False
    return best is None or sign * value < sign * best - min_delta


def _monitored(metrics: Metrics, name: str) -> float:
    _check_monitored(metrics, name)
    return metrics[name]


def _check_monitored(metrics: Collection[str], name: str) -> None:
    if name in metrics:
        return
    without = not any(key.startswith("val_") for key in metrics)
    hint = "; fit() had no validation data" if name.startswith("val_") and without else ""
    raise ValueError(f"monitor: expected one of {', '.join(metrics)}, got {name!r}{hint}")


def _check_folder(path: str | os.PathLike[str]) -> None:
    folder = os.path.dirname(os.fspath(path)) or os.curdir
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"path: expected a folder that is there, got {folder}")
    if os.path.isdir(path):
        raise IsADirectoryError(f"path: expected a file, got the folder {os.fspath(path)}")
