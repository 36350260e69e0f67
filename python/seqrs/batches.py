"""Batches as `Trainer.fit` and `Trainer.evaluate` read them, from a dataset or any iterable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from .data import Dataset
from .errors import SeqrsError
from .layers import Embedding, Last, Layer, MaxPool, MeanPool
from .models import Sequential

__all__ = [
    "Batch",
    "batch_first",
    "batches_from",
    "carries_state",
    "check_data",
    "count",
    "epoch_0_of",
    "gives_rows",
    "name_batch",
    "read",
    "signature",
    "targets",
]


class Batch(NamedTuple):
    """A batch; `lengths` may be None."""

    x: Any
    y: Any
    lengths: Any


def read(item: Any, name: str, index: int) -> Batch:
    """Batch `index` of the data called `name`, from (x, y) or (x, y, lengths)."""
    if isinstance(item, (tuple, list)) and len(item) in (2, 3):
        return Batch(item[0], item[1], item[2] if len(item) == 3 else None)
    got = f"{len(item)} items" if isinstance(item, (tuple, list)) else type(item).__name__
    raise ValueError(f"{name}: batch {index}: expected (x, y) or (x, y, lengths), got {got}")


def name_batch(error: SeqrsError, name: str, index: int) -> None:
    """Let the message begin with the batch that is at fault, counted from 0."""
    error.args = (f"{name}: batch {index}: {error}", *error.args[1:])


def check_data(name: str, data: object, epochs: int) -> None:
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


def carries_state(data: object) -> bool:
    """Whether the hidden state is carried from batch to batch."""
    return bool(getattr(data, "carries_state", False))


def count(data: object) -> int | None:
    """The number of batches, where the data knows it."""
    return len(data) if isinstance(data, Sized) else None


def signature(data: object) -> dict[str, Any]:
    """What a checkpoint keeps of the data, to refuse other data."""
    return data.signature() if isinstance(data, Dataset) else {"batches": count(data)}


def batches_from(data: Iterable[Any], epoch: int, start: int) -> Iterator[Any]:
    """The batches of an epoch, counted from 0, from batch `start` on."""
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


def batch_first(model: Sequential | Layer) -> bool:
    """Whether x is (B, T, .) and not (T, B, .)."""
    return model.batch_first if isinstance(model, Sequential) else model._batch_first


def gives_rows(model: Sequential | Layer) -> bool:
    """Whether there is one output per row, not one per step."""
    layers = model.layers if isinstance(model, Sequential) else [model]
    return any(isinstance(layer, (Last, MeanPool, MaxPool)) for layer in layers)


def targets(batch: Batch, model: Sequential | Layer) -> int:
    """How many outputs have a target: what the batch's mean loss weighs in the epoch's.

    Told by x: where a model has one feature, y may lack the last axis.
    """
    first = model.layers[0] if isinstance(model, Sequential) else model
    shape: tuple[int, ...] = np.shape(batch.x)
    axes = shape if isinstance(first, Embedding) else shape[:-1]
    per_step = len(axes) == 2 and not gives_rows(model)
    if batch.lengths is not None:
        lengths = np.asarray(batch.lengths)
        return int(lengths.sum()) if per_step else int(np.count_nonzero(lengths))
    if per_step:
        return axes[0] * axes[1]
    return axes[0] if len(axes) == 1 or batch_first(model) else axes[1]


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


def epoch_0_of(data: object) -> AbstractContextManager[None]:
    """A dataset's epoch 0, so that two evaluations see the same batches."""
    return _Epoch0(data) if isinstance(data, Dataset) else nullcontext()
