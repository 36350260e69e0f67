"""Datasets for `Trainer.fit` and `Trainer.evaluate`: text, sequences of any lengths, time series.

Each is a `Dataset`: an iterable of batches with a length, the same batches in the same order for
the same seed and epoch, on any machine, and able to begin at any batch. That is what lets a resumed
run go on exactly where it stopped.

>>> corpus = seqrs.data.TextCorpus("to be, or not to be", batch_size=2, steps=4)
>>> x, y = next(iter(corpus))                  # (2, 4) ids, and the ids that follow each
>>> corpus.decode(y[0])
'o be'
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DTypeError, ShapeError
from .options import flag, integer, shown, whole
from .options import seed as checked_seed

__all__ = ["Batch", "Dataset", "Padded", "TextCorpus", "Windows"]

Array = NDArray[Any]
Ids = NDArray[np.int64]
#: What a dataset yields: (x, y) or (x, y, lengths).
Batch = tuple[Array, ...]

#: `Padded` sorts by length inside pools of this many batches: wide enough that a batch holds
#: sequences of nearly one length, narrow enough that the company a sequence keeps is random.
POOL_BATCHES = 50


class Dataset(ABC):
    """Batches in an order that follows from (seed, epoch) alone.

    `len(data)` is the number of batches of the current epoch. Iterating gives the batches of the
    current epoch; `set_epoch(e)` chooses it, `batches(start=k)` begins at batch k.
    A subclass gives `__len__` and `batch(index)`, and may prepare an epoch's order in `set_epoch`.
    """

    #: Whether row r of a batch goes on where row r of the batch before ended, so that the hidden
    #: state is carried from batch to batch.
    carries_state = False

    def __init__(self) -> None:
        self._epoch = 0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, index: int) -> Batch:
        """Batch `index` of the current epoch, 0 <= index < len(self).

        Raises:
            IndexError: there is no such batch; a negative index does not count from the end.
        """

    def _place(self, index: int) -> int:
        """The index, once it is known to be one of a batch."""
        index = whole("index", index)
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 <= index < {len(self)}, got {index}")
        return index

    @property
    def epoch(self) -> int:
        """The epoch whose batches come, counted from 0."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0; `Trainer.fit` does it before each."""
        self._epoch = integer("epoch", epoch, at_least=0)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """The batches of the current epoch from batch `start` on, without making those before."""
        start = integer("start", start, at_least=0)
        return (self.batch(index) for index in range(start, len(self)))

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def signature(self) -> dict[str, object]:
        """What a checkpoint compares, as JSON: resuming on other data is refused."""
        return {"kind": type(self).__name__, "batches": len(self)}


class TextCorpus(Dataset):
    """Text cut for next-character prediction: x (B, T) ids, y (B, T) the ids one place later.

    The text is cut into B contiguous streams, one per row, and each batch takes the next T places
    of every stream: row r of a batch goes on where row r of the batch before ended. `Trainer.fit`
    therefore carries the hidden state from batch to batch within an epoch (truncated BPTT through
    a text of any length). Nothing is drawn at random: every epoch gives the same batches.

    A `str` becomes ids of its own sorted characters, or of those of `vocab` where it is given (for
    a second text that must have the ids of the first: `TextCorpus(other, ..., vocab=first.vocab)`).
    `bytes` become ids 0..255, whatever occurs, so that a model of bytes needs no vocabulary.

    B * T + 1 characters are the least. Up to B - 1 characters at the end are left out, and with
    `drop_last=True` those of the last batch where it would be shorter than T.
    """

    carries_state = True

    def __init__(
        self,
        text: str | bytes,
        batch_size: int,
        steps: int,
        *,
        vocab: str | None = None,
        drop_last: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(text, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"text: expected str or bytes, got {type(text).__name__}")
        self.batch_size = integer("batch_size", batch_size, at_least=1)
        self.steps = integer("steps", steps, at_least=1)
        drop_last = flag("drop_last", drop_last)
        if isinstance(text, str):
            self._vocab: str | bytes = (
                _check_vocab(vocab) if vocab is not None else _characters(text)
            )
            ids = _encode_str(text, str(self._vocab))
        else:
            if vocab is not None:
                raise ValueError(f"vocab: expected None with bytes (ids are 0..255), got {vocab!r}")
            self._vocab = bytes(range(256))
            ids = np.frombuffer(bytes(text), dtype=np.uint8)
        shortest = self.batch_size * (self.steps if drop_last else 1) + 1
        if len(ids) < shortest:
            raise ValueError(
                f"text: expected at least {shortest} {'bytes' if self._of_bytes else 'characters'} "
                f"for batch_size={self.batch_size} and steps={self.steps}, got {len(ids)}"
            )
        self._ids = ids
        self._stream = (len(ids) - 1) // self.batch_size
        self._batches = self._stream // self.steps if drop_last else -(-self._stream // self.steps)

    @property
    def _of_bytes(self) -> bool:
        return isinstance(self._vocab, bytes)

    @property
    def vocab(self) -> str | bytes:
        """The characters in the order of their ids: `vocab[id]` is the character."""
        return self._vocab

    @property
    def vocab_size(self) -> int:
        """How many ids there are: `Embedding(corpus.vocab_size, ...)`."""
        return len(self._vocab)

    def encode(self, text: str | bytes) -> Ids:
        """The ids of `text`, shape (len(text),); a character outside `vocab` is a ValueError."""
        if isinstance(self._vocab, bytes):
            raw = text.encode() if isinstance(text, str) else bytes(text)
            return np.frombuffer(raw, dtype=np.uint8).astype(np.int64)
        if not isinstance(text, str):
            raise TypeError(f"text: expected str, as the corpus is, got {type(text).__name__}")
        return _encode_str(text, self._vocab).astype(np.int64)

    def decode(self, ids: ArrayLike) -> str:
        """The text of 1-d `ids`; bytes are read as UTF-8, what is not becomes U+FFFD."""
        array = np.asarray(ids)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.ndim != 1:
            raise ShapeError(f"ids: expected one axis, got shape {array.shape}")
        if array.dtype.kind not in "iu":
            raise DTypeError(f"ids: expected integers, got {array.dtype}")
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < len(self._vocab):
            outside = array[(array < 0) | (array >= len(self._vocab))][0]
            raise ValueError(f"ids: expected 0 <= id < {len(self._vocab)}, got {outside}")
        if isinstance(self._vocab, bytes):
            return array.astype(np.uint8).tobytes().decode("utf-8", "replace")
        return "".join(self._vocab[index] for index in array.tolist())

    def __len__(self) -> int:
        return self._batches

    def batch(self, index: int) -> tuple[Ids, Ids]:
        """x and y of batch `index`, each (B, T), the last one maybe shorter."""
        rows = np.arange(self.batch_size)[:, None] * self._stream
        begin = self._place(index) * self.steps
        places = rows + np.arange(begin, min(begin + self.steps, self._stream))
        return self._ids[places].astype(np.int64), self._ids[places + 1].astype(np.int64)

    def signature(self) -> dict[str, object]:
        return {
            **super().signature(),
            "batch_size": self.batch_size,
            "steps": self.steps,
            "vocab_size": self.vocab_size,
            "checksum": zlib.crc32(self._ids.tobytes()),
        }

    def __repr__(self) -> str:
        return (
            f"TextCorpus({len(self._ids)} {'bytes' if self._of_bytes else 'characters'}, "
            f"vocab_size={self.vocab_size}, batch_size={self.batch_size}, steps={self.steps}, "
            f"batches={len(self)})"
        )


class Padded(Dataset):
    """Sequences of any lengths as padded batches (x, y, lengths), with little padding.

    `sequences`: n arrays, either all of ids (T_i,), or all of features (T_i, F); x is (B, T) int64
    or (B, T, F), T the longest of its batch, zero past each length. `targets`: one per sequence, a
    number or an array of one shape, y (B, ...); or one per step, arrays of T_i rows, y (B, T, ...)
    with zeros past each length. `per_step` says which; None takes per step where every target has
    as many rows as its sequence has steps. Integers stay integers (int64), for `CrossEntropy`. One
    number per sequence or step also serves MSE, MAE, Huber and BinaryCrossEntropy for a model with
    one feature, whose outputs are (B, 1) or (B, T, 1): there the last axis of y may be missing.

    Each epoch draws an order from (seed, epoch), sorts by length inside pools of 50 batches, cuts
    the batches, and draws their order. `shuffle=False` keeps the order given, and does not sort.
    Only the last batch cut may be smaller than `batch_size`; `drop_last=True` leaves it out.
    """

    def __init__(
        self,
        sequences: Sequence[ArrayLike],
        targets: Sequence[ArrayLike],
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        per_step: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size = integer("batch_size", batch_size, at_least=1)
        self.seed = checked_seed(seed)
        self._shuffle = flag("shuffle", shuffle)
        drop_last = flag("drop_last", drop_last)
        self._x = _alike("sequences", [np.asarray(item) for item in sequences])
        self._y = [np.asarray(item) for item in targets]
        if not self._x:
            raise ValueError("sequences: expected at least one, got none")
        if len(self._y) != len(self._x):
            raise ShapeError(
                f"targets: expected {len(self._x)}, one per sequence, got {len(self._y)}"
            )
        if self._x[0].ndim not in (1, 2):
            raise ShapeError(
                f"sequences[0]: expected (T,) ids or (T, F) features, got shape {self._x[0].shape}"
            )
        if self._x[0].ndim == 1 and any(x.dtype.kind == "f" and x.size for x in self._x):
            raise DTypeError(
                "sequences: expected integer ids in arrays of one axis, or features (T, F), got "
                f"{next(x.dtype for x in self._x if x.dtype.kind == 'f' and x.size)} (T,); "
                "one feature per step is x[:, None]"
            )
        self._lengths = np.array([len(x) for x in self._x], dtype=np.int64)
        aligned = all(
            y.ndim > 0 and len(y) == len(x) for x, y in zip(self._x, self._y, strict=True)
        )
        self._per_step = aligned if per_step is None else flag("per_step", per_step)
        if self._per_step and not aligned:
            index, (x, y) = next(
                (i, pair)
                for i, pair in enumerate(zip(self._x, self._y, strict=True))
                if pair[1].ndim == 0 or len(pair[1]) != len(pair[0])
            )
            raise ShapeError(
                f"targets[{index}]: expected {len(x)} rows, one per step, got shape {y.shape}"
            )
        if not self._per_step and any(y.shape != self._y[0].shape for y in self._y):
            index = next(i for i, y in enumerate(self._y) if y.shape != self._y[0].shape)
            raise ShapeError(
                f"targets[{index}]: expected shape {self._y[0].shape}, as targets[0], or one row "
                f"per step ({len(self._x[index])}), got shape {self._y[index].shape}"
            )
        self._y = _alike("targets", self._y)
        count = len(self._x)
        self._batches = count // self.batch_size if drop_last else -(-count // self.batch_size)
        if self._batches == 0:
            raise ValueError(
                f"sequences: expected at least batch_size={self.batch_size} with drop_last=True, "
                f"got {count}"
            )
        self._order: list[NDArray[np.int64]] = []
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch and draw its order from (seed, epoch)."""
        super().set_epoch(epoch)
        count, size = len(self._x), self.batch_size
        if not self._shuffle:
            order = np.arange(count)
            self._order = [order[k * size : (k + 1) * size] for k in range(self._batches)]
            return
        random = _generator(self.seed, epoch)
        order = random.permutation(count)
        pools = [order[k : k + size * POOL_BATCHES] for k in range(0, count, size * POOL_BATCHES)]
        order = np.concatenate([p[np.argsort(self._lengths[p], kind="stable")] for p in pools])
        cut = [order[k * size : (k + 1) * size] for k in range(self._batches)]
        self._order = [cut[k] for k in random.permutation(len(cut))]

    def __len__(self) -> int:
        return self._batches

    def batch(self, index: int) -> tuple[Array, Array, Ids]:
        """x, y and lengths of batch `index`."""
        chosen = self._order[self._place(index)]
        lengths = self._lengths[chosen]
        steps = int(lengths.max(initial=0))
        x = _stack([self._x[k] for k in chosen], steps)
        if self._per_step:
            return x, _stack([self._y[k] for k in chosen], steps), lengths
        return x, np.stack([self._y[k] for k in chosen]), lengths

    def signature(self) -> dict[str, object]:
        checksum = 0
        for array in (*self._x, *self._y):
            checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
        return {
            **super().signature(),
            "sequences": len(self._x),
            "batch_size": self.batch_size,
            "shuffle": self._shuffle,
            "seed": self.seed,
            "checksum": checksum,
        }

    def __repr__(self) -> str:
        return (
            f"Padded({len(self._x)} sequences of {self._lengths.min()}..{self._lengths.max()} "
            f"steps, batch_size={self.batch_size}, batches={len(self)}, seed={self.seed})"
        )


class Windows(Dataset):
    """Windows of a time series for forecasting: the last `history` steps give the next `horizon`.

    `series`: (N,) or (N, F). x is (B, history, F), F = 1 for a series of one axis; y is
    (B, horizon * C), step by step, C the columns to forecast: all of them, or those named by index
    in `columns`. That is what `Sequential([LSTM(F, H), Last(), Linear(H, horizon * C)])` puts out;
    `y.reshape(-1, horizon, C)` has the axes apart.

    A window begins every `stride` steps. Each epoch draws the windows' order from (seed, epoch);
    `shuffle=False` keeps the order of time. To hold data out, cut the series, not the windows:
    windows overlap.
    """

    def __init__(
        self,
        series: ArrayLike,
        history: int,
        horizon: int,
        batch_size: int,
        *,
        columns: Sequence[int] | None = None,
        stride: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        values = np.asarray(series)
        if values.dtype.kind not in "iuf":
            raise DTypeError(f"series: expected real numbers, got {values.dtype}")
        if values.ndim not in (1, 2):
            raise ShapeError(f"series: expected (N,) or (N, F), got shape {values.shape}")
        self._values = values[:, None] if values.ndim == 1 else values
        if self._values.dtype not in (np.float32, np.float64):
            self._values = self._values.astype(np.float64)
        self.history = integer("history", history, at_least=1)
        self.horizon = integer("horizon", horizon, at_least=1)
        self.batch_size = integer("batch_size", batch_size, at_least=1)
        self.stride = integer("stride", stride, at_least=1)
        self.seed = checked_seed(seed)
        self._shuffle = flag("shuffle", shuffle)
        drop_last = flag("drop_last", drop_last)
        features = self._values.shape[1]
        chosen = range(features) if columns is None else columns
        if isinstance(chosen, (str, bytes)) or np.ndim(chosen) != 1:
            raise TypeError(
                f"columns: expected a sequence of column numbers, such as [1], got {shown(columns)}"
            )
        self._columns = [integer("columns", column, at_least=0) for column in chosen]
        for column in self._columns:
            if column >= features:
                raise ValueError(f"columns: expected 0 <= column < {features}, got {column}")
        if not self._columns:
            raise ValueError("columns: expected at least one, got none")
        steps = len(self._values)
        if steps < self.history + self.horizon:
            raise ShapeError(
                f"series: expected at least history + horizon = {self.history + self.horizon} "
                f"steps, got {steps}"
            )
        self._starts = np.arange(0, steps - self.history - self.horizon + 1, self.stride)
        count = len(self._starts)
        self._batches = count // self.batch_size if drop_last else -(-count // self.batch_size)
        if self._batches == 0:
            raise ValueError(
                f"series: expected at least batch_size={self.batch_size} windows with "
                f"drop_last=True, got {count}"
            )
        self._order = self._starts
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch and draw its order from (seed, epoch)."""
        super().set_epoch(epoch)
        if self._shuffle:
            self._order = _generator(self.seed, epoch).permutation(self._starts)

    def __len__(self) -> int:
        return self._batches

    def batch(self, index: int) -> tuple[Array, Array]:
        """x (B, history, F) and y (B, horizon * C) of batch `index`."""
        begin = self._place(index) * self.batch_size
        starts = self._order[begin : begin + self.batch_size][:, None]
        x = self._values[starts + np.arange(self.history)]
        ahead = self._values[starts + self.history + np.arange(self.horizon)]
        return x, ahead[:, :, self._columns].reshape(len(starts), -1)

    def signature(self) -> dict[str, object]:
        return {
            **super().signature(),
            "history": self.history,
            "horizon": self.horizon,
            "batch_size": self.batch_size,
            "columns": self._columns,
            "stride": self.stride,
            "shuffle": self._shuffle,
            "seed": self.seed,
            "checksum": zlib.crc32(np.ascontiguousarray(self._values).tobytes()),
        }

    def __repr__(self) -> str:
        return (
            f"Windows({len(self._starts)} windows of {self.history} + {self.horizon} steps, "
            f"features={self._values.shape[1]}, batch_size={self.batch_size}, "
            f"batches={len(self)}, seed={self.seed})"
        )


def _generator(seed: int, epoch: int) -> np.random.Generator:
    """Numbers that follow from (seed, epoch): Philox is counter-based, and both are its key."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))


def _codes(text: str) -> NDArray[np.uint32]:
    """The code points of `text`, lone surrogates included, as a str may hold them."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _characters(text: str) -> str:
    """The distinct characters of `text`, sorted by code point."""
    return "".join(map(chr, np.unique(_codes(text)).tolist()))


def _check_vocab(vocab: object) -> str:
    if not isinstance(vocab, str):
        raise TypeError(f"vocab: expected str, got {type(vocab).__name__}")
    if len(set(vocab)) != len(vocab):
        twice = next(c for i, c in enumerate(vocab) if c in vocab[:i])
        raise ValueError(f"vocab: expected distinct characters, got {twice!r} twice")
    return vocab


def _encode_str(text: str, vocab: str) -> NDArray[np.int32]:
    """The place in `vocab` of every character of `text`, by a table over the code points."""
    codes, known = _codes(text), _codes(vocab)
    table = np.full(int(max(codes.max(initial=0), known.max(initial=0))) + 1, -1, dtype=np.int32)
    table[known] = np.arange(len(known), dtype=np.int32)
    ids = table[codes]
    if ids.min(initial=0) < 0:
        at = int(np.argmin(ids))
        raise ValueError(
            f"text: expected characters of the vocabulary ({len(vocab)} of them), "
            f"got {text[at]!r} at position {at}"
        )
    return ids


def _alike(name: str, arrays: list[Array]) -> list[Array]:
    """The arrays with one dtype (int64, float32 or float64) and equal shapes but the first axis."""
    for index, array in enumerate(arrays):
        if array.dtype.kind not in "iuf" and array.size:
            raise DTypeError(f"{name}[{index}]: expected real numbers, got {array.dtype}")
        if array.ndim != arrays[0].ndim or array.shape[1:] != arrays[0].shape[1:]:
            raise ShapeError(
                f"{name}[{index}]: expected the shape of {name}[0] but for the first axis, "
                f"{arrays[0].shape}, got {array.shape}"
            )
    kinds = {array.dtype for array in arrays if array.size}
    if any(kind == np.uint64 for kind in kinds) and not any(kind.kind == "f" for kind in kinds):
        for index, array in enumerate(arrays):
            if array.size and int(array.max()) >= 2**63:
                raise ShapeError(
                    f"{name}[{index}]: expected integers below 2**63, got {array.max()}"
                )
    widest = max((kind.itemsize for kind in kinds if kind.kind == "f"), default=0)
    dtype: type[np.number[Any]] = np.int64
    if widest:
        dtype = np.float32 if widest <= 4 else np.float64
    return [array.astype(dtype, copy=False) for array in arrays]


def _stack(arrays: list[Array], steps: int) -> Array:
    """(B, steps, ...) with each array from the left, zeros after it."""
    out = np.zeros((len(arrays), steps, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out
