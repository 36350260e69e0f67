"""Where a run of `Trainer.fit` stands, and the directory that keeps it across a crash.

A checkpoint is a file `epoch-*-batch-*.seqrs`: weights, optimiser, schedule and random state, which
the compiled trainer writes and reads, and the `Position` in the data. The arrays of the position
(hidden state, what callbacks remember) are beside it in `*.arrays`, by its checksum a part of it.
Files appear whole or not at all. A resumed run takes the newest checkpoint that is intact, and then
gives the same bits as one never interrupted.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ModelFileError
from .options import integer, real, shown

__all__ = ["Checkpoints", "Position", "check_content", "differences"]

_NAME = re.compile(r"epoch-(\d{6,})-batch-(\d{9,})\.seqrs")
_ARRAYS = ".arrays"
#: What JSON holds as it is.
_PLAIN = (str, int, float, type(None))


@dataclass
class Position:
    """What a resumed run needs besides what the compiled trainer keeps."""

    #: Epochs finished, and batches of the next one.
    epoch: int = 0
    batch: int = 0
    #: Of the batches of the unfinished epoch: losses, what they weigh, and gradient norms.
    loss_sum: float = 0.0
    weight: float = 0.0
    norm_sum: float = 0.0
    lr: float = 0.0
    #: The hidden state that the next batch begins with.
    state: Any = None
    history: dict[str, list[float]] = field(default_factory=dict)
    #: `[class name, state]` of each callback that has one.
    callbacks: list[Any] = field(default_factory=list)
    #: What the data was, so that other data is refused.
    data: dict[str, Any] | None = None
    #: What the trainer was made with, so that another is told.
    options: dict[str, Any] = field(default_factory=dict)
    #: Epochs that the trainer had been fitted for before this run.
    earlier: int = 0
    #: A callback ended the run.
    stopped: bool = False

    def put(self, **changes: Any) -> None:
        """Change several fields at once: a signal is handled before or after, not in between."""
        vars(self).update(changes)


class Checkpoints:
    """A directory of checkpoints and when to write them: `fit(..., checkpoint=Checkpoints(...))`.

    One is written after every epoch and, beyond that, after every `every_batches` batches, as soon
    as `every_seconds` have passed since the last, and on Ctrl-C. `fit(..., checkpoint="directory")`
    writes after epochs and on Ctrl-C only.

    Args:
        directory: made when it is missing.
        every_batches: batches of one epoch between two checkpoints, or None.
        every_seconds: time between two checkpoints, or None.
        keep: how many of the newest stay; more than one, so that there is another to fall back on
            when the newest was damaged.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every_batches: int | None = None,
        every_seconds: float | None = None,
        keep: int = 3,
    ) -> None:
        self.directory = Path(directory)
        self.every_batches = (
            None if every_batches is None else integer("every_batches", every_batches)
        )
        self.every_seconds = (
            None if every_seconds is None else real("every_seconds", every_seconds, 0.0)
        )
        self.keep = integer("keep", keep)
        self._written_at = time.monotonic()

    def files(self) -> list[Path]:
        """The checkpoints, newest first."""
        if not self.directory.is_dir():
            return []
        found = [
            (int(match[1]), int(match[2]), path)
            for path in self.directory.iterdir()
            if (match := _NAME.fullmatch(path.name))
        ]
        return [path for *_, path in sorted(found, reverse=True)]

    def prepare(self, resume: bool) -> None:
        """Make the directory; refuse to mix a new run into the checkpoints of another.

        Raises:
            FileExistsError: it holds checkpoints and the run does not resume.
            OSError: it cannot be made.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._written_at = time.monotonic()
        for orphan in self.directory.glob(f"epoch-*-batch-*{_ARRAYS}.*"):
            orphan.unlink(missing_ok=True)
        files = self.files()
        if files and not resume:
            raise FileExistsError(
                f"checkpoint: expected an empty directory or resume=True, got {self.directory} "
                f"with {files[0].name} of another run"
            )

    def due(self, batch: int) -> bool:
        """Whether a checkpoint is to be written after `batch` batches of an epoch."""
        if self.every_batches is not None and batch % self.every_batches == 0:
            return True
        return (
            self.every_seconds is not None
            and time.monotonic() - self._written_at >= self.every_seconds
        )

    def save(self, write: Callable[[str, str], None], position: Position) -> None:
        """Write one with `write(path, json)`, then remove those past `keep`."""
        path = self.directory / f"epoch-{position.epoch:06d}-batch-{position.batch:09d}.seqrs"
        arrays: list[npt.NDArray[Any]] = []
        values = {each.name: _packed(getattr(position, each.name), arrays) for each in _FIELDS}
        checksum = None
        if arrays:
            data = io.BytesIO()
            for array in arrays:
                np.save(data, array, allow_pickle=False)
            checksum = zlib.crc32(data.getvalue())
            _write_durably(path.with_suffix(_ARRAYS), data.getvalue())
        # A string inside JSON: the compiled part stores it as it is, so every float, NaN and
        # infinity comes back as the very number that it was.
        write(str(path), json.dumps({"position": json.dumps(values), "arrays": checksum}))
        self._written_at = time.monotonic()
        files = self.files()
        for old in files[self.keep :]:
            old.unlink(missing_ok=True)
        kept = {each.stem for each in files[: self.keep]}
        for each in self.directory.glob(f"epoch-*-batch-*{_ARRAYS}"):
            if each.stem not in kept:
                each.unlink(missing_ok=True)

    def newest(self, read: Callable[[str], str]) -> tuple[Path, Position] | None:
        """The newest that `read(path)` takes, with a warning for each one passed over.

        Raises:
            ModelFileError, OSError: that of the newest, where there are some and none is intact.
        """
        first: Exception | None = None
        for path in self.files():
            try:
                return path, _position(path, read(str(path)))
            except (ModelFileError, OSError) as error:
                first = first or error
                # The caller of fit() is four calls up.
                warnings.warn(f"checkpoint {path} is passed over: {error}", stacklevel=4)
        if first is not None:
            raise first
        return None

    def __repr__(self) -> str:
        return (
            f"Checkpoints({str(self.directory)!r}, every_batches={self.every_batches}, "
            f"every_seconds={self.every_seconds}, keep={self.keep})"
        )


_FIELDS = fields(Position)


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """Which entries of two nested dicts differ, each as "name: then, now"."""
    if isinstance(then, dict) and isinstance(now, dict):
        found: list[str] = []
        for key in dict.fromkeys([*then, *now]):
            inner = f"{name}.{key}" if name else str(key)
            found += differences(then.get(key), now.get(key), inner)
        return found
    return [] if then == now else [f"{name}: {shown(then)}, now {shown(now)}"]


def _position(path: Path, text: str) -> Position:
    """What `save` put into the checkpoint at `path` and beside it.

    Raises:
        ModelFileError: it was written by something else, or its arrays are missing or damaged.
    """
    arrays: list[npt.NDArray[Any]] = []
    try:
        outer = json.loads(text)
        values, checksum = json.loads(outer["position"]), outer["arrays"]
        if set(values) != {each.name for each in _FIELDS}:
            raise KeyError(*sorted(values))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"checkpoint {path}: expected one written by Trainer.fit, got one without a position "
            f"in the data ({error!r})"
        ) from None
    if checksum is not None:
        beside = path.with_suffix(_ARRAYS)
        data = beside.read_bytes()
        if zlib.crc32(data) != checksum:
            raise ModelFileError(f"{beside}: expected checksum {checksum}, got {zlib.crc32(data)}")
        stream = io.BytesIO(data)
        while stream.tell() < len(data):
            arrays.append(np.load(stream, allow_pickle=False))
    return Position(**{name: _unpacked(value, arrays) for name, value in values.items()})


def check_content(value: object) -> None:
    """Whether a checkpoint can hold the value.

    Raises:
        TypeError: it cannot; says which part of it.
    """
    _packed(value, [])


def _packed(value: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """The value as JSON; its arrays are added to `arrays`, and tuples stay tuples."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError(f"an array of {value.dtype}")
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple):
        return {"tuple": [_packed(item, arrays) for item in value]}
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, _PLAIN):
                raise TypeError(f"{shown(name)} as a name in a dict")
        return {"dict": [[name, _packed(item, arrays)] for name, item in value.items()]}
    if isinstance(value, list):
        return [_packed(item, arrays) for item in value]
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, _PLAIN):
        raise TypeError(shown(value))
    return plain


def _unpacked(value: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """What `_packed` was given."""
    if isinstance(value, list):
        return [_unpacked(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "tuple":
        return tuple(_unpacked(item, arrays) for item in content)
    return {name: _unpacked(item, arrays) for name, item in content}


def _write_durably(path: Path, data: bytes) -> None:
    """The file is there whole or not at all, also after a crash."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
