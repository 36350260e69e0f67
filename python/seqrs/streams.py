"""Many streams of one model, stepped as one batch.

A service that answers thousands of streams steps those that have something new. One by one, each
step reads all weights for a single row; together they are read once for many rows.

>>> pool = seqrs.StreamPool(model, capacity=10_000)
>>> a, b = pool.open(), pool.open()
>>> y = pool.step([b, a], x)                               # x (2, I) -> y (2, .)
>>> blob = pool.export_state(a)                            # to go on elsewhere
>>> pool.close(a)

Each stream gets the bits that it would get alone, whatever it is stepped with.

Memory: with S numbers of state of a stream (of each recurrent layer L*H for h, or L*P with a
projection, and L*H for an LSTM's c; in float32 an odd H or P counts as the next even one), a pool
takes

    capacity * (2 * S * bytes of a number + 48) bytes

of which the system gives those of places that have been used. A step takes for each thread what a
step of at most 128 rows takes, besides a copy of x, its result, and 16 bytes a stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import _seqrs
from ._seqrs import Stream
from .layers import Layer
from .models import Sequential
from .options import flag, integer, real
from .quantized import QuantizedSequential

if TYPE_CHECKING:
    import numpy.typing as npt

    from .layers import Array

__all__ = ["Stream", "StreamPool"]


class StreamPool:
    """The states of many streams of one model.

    The model is the one that `model` was when the pool was made: training it, or loading other
    weights into it, changes nothing here.

    Any number of threads may use a pool. Those that step different streams run side by side;
    a stream that one thread is stepping is refused to the others. A step is done wholly or not at
    all: if it fails, or Ctrl-C interrupts it, every stream is where it was. A forked child has the
    streams as they were.

    Args:
        model: computes on the CPU, and can be stepped: no bidirectional layer, no MeanPool or
            MaxPool. A layer is taken as a model of one layer.
        capacity: how many streams may be open at a time.
        idle_ttl: seconds after which a stream to which nothing has happened is evicted: its handle
            is refused from then on. None: never. It happens when the pool is used the next time,
            before anything else.
        on_evict: called with the handle of each stream that is evicted, the longest unused first;
            nothing is locked meanwhile. `export_state` still works on it, nothing else does. What
            it raises is reported by `sys.unraisablehook`, and the call that evicts goes on.

    Raises:
        StateError: a layer of the model needs the whole sequence, or the model is on a GPU.
        ShapeError: the capacity is not in 1..2**32.
        ValueError: idle_ttl is not above 0.
        MemoryError: there is no memory for so many.
    """

    __slots__ = ("__weakref__", "_handle", "_idle_ttl", "_model", "_on_evict")

    def __init__(
        self,
        model: Sequential | QuantizedSequential | Layer,
        capacity: int = 10_000,
        idle_ttl: float | None = None,
        on_evict: Callable[[Stream], object] | None = None,
    ) -> None:
        if isinstance(model, Layer):
            model = Sequential([model])
        if not isinstance(model, Sequential | QuantizedSequential):
            raise TypeError(
                f"model: expected a Sequential, quantised or not, or a layer, got {model!r}"
            )
        if idle_ttl is not None:
            idle_ttl = real("idle_ttl", idle_ttl)
            if not idle_ttl > 0.0 or math.isinf(idle_ttl):
                raise ValueError(f"idle_ttl: expected seconds above 0, got {idle_ttl!r}")
        if on_evict is not None and not callable(on_evict):
            raise TypeError(f"on_evict: expected a function, got {on_evict!r}")
        self._handle = _seqrs.StreamPool(model._handle, integer("capacity", capacity, 1, 2**32 - 1))
        self._idle_ttl = idle_ttl
        self._on_evict = on_evict
        self._model = repr(model)

    def _evict(self) -> None:
        if self._idle_ttl is not None:
            self._handle.evict_idle(self._idle_ttl, self._on_evict)

    def open(self) -> Stream:
        """A new stream, in the zero state.

        Returns:
            Its handle, for this pool in this process. Handles compare equal and hash by stream;
            they do not pickle.

        Raises:
            QueueFullError: as many streams as there may be are open.
        """
        self._evict()
        return self._handle.open()

    def step(self, sids: Sequence[Stream], x: npt.ArrayLike, *, out: Array | None = None) -> Array:
        """One step of some streams, in any order.

        Args:
            sids: n handles.
            x: (n, I), or ids (n,) where the first layer is an Embedding.
            out: an array for the result, (n, .), C-contiguous and of the model's dtype. None: a
                new one.

        Returns:
            y (n, .), its rows in the order of the handles.

        Raises:
            StateError: a handle is not of this pool, closed, evicted, or there twice; or another
                thread is stepping its stream.
            ShapeError, DTypeError: `x` or `out` does not fit.
        """
        self._evict()
        return self._handle.step(sids, x, out)

    def reset(self, sid: Stream) -> None:
        """Puts a stream back to the zero state.

        Raises:
            StateError: as for `step`.
        """
        self._evict()
        self._handle.reset(sid)

    def close(self, sid: Stream) -> None:
        """Ends a stream. Its handle is refused from now on, also when another has its place.

        Raises:
            StateError: as for `step`.
        """
        self._evict()
        self._handle.close(sid)

    def export_state(self, sid: Stream) -> bytes:
        """The state of a stream, for `import_state` of a pool of an equal model.

        The bytes name the model's fingerprint, and end with a checksum that finds damage. They are
        not signed: whoever can change them can choose the state.

        Raises:
            StateError: as for `step`.
        """
        return self._handle.export_state(sid)

    def import_state(self, blob: bytes, *, allow_nonfinite: bool = False) -> Stream:
        """A new stream in the state that was exported, also by another process.

        Args:
            blob: what `export_state` gave.
            allow_nonfinite: whether the state may hold NaN and infinities.

        Raises:
            StateError: the bytes are damaged, of another version, dtype or model, or hold numbers
                that are not finite; says what.
            QueueFullError: as many streams as there may be are open.
        """
        if not isinstance(blob, (bytes, bytearray, memoryview)):
            raise TypeError(f"blob: expected bytes, got {type(blob).__name__}")
        allowed = flag("allow_nonfinite", allow_nonfinite)
        self._evict()
        return self._handle.import_state(bytes(blob), allowed)

    def stats(self) -> dict[str, Any]:
        """What the pool holds, and has done so far, as a plain dict.

        - `open`, `capacity`, `stepping`: streams that are open, may be, and are stepped right now.
        - `opened` (imported ones too), `closed`, `evicted`, and `refused` for want of a place.
        - `steps`, `failed_steps`: calls of `step`; `stream_steps`: steps that succeeded, counted
          for each stream; `seconds`: of the clock in them.
        - `batch_sizes`, `microseconds`: steps that succeeded by their size and by the time they
          took, {2**k: those of at most 2**k and more than half of it}; 2**19 has all that is more.
        - `bytes`: what the pool takes (see the formula of `seqrs.streams`).
        """
        self._evict()
        return self._handle.stats()

    def __len__(self) -> int:
        """Streams that are open."""
        self._evict()
        return len(self._handle)

    def __bool__(self) -> bool:
        """True: a pool without streams is a pool."""
        return True

    def __repr__(self) -> str:
        stats = self._handle.stats()
        return f"StreamPool({self._model}, {stats['open']} of {stats['capacity']} open)"
