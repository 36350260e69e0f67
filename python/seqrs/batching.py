"""Independent requests from many threads and tasks, computed as batches."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from . import _seqrs
from .layers import Layer
from .models import Sequential
from .options import flag, integer, real, shown
from .quantized import QuantizedSequential

if TYPE_CHECKING:
    from asyncio import Future
    from types import TracebackType

    import numpy.typing as npt
    from typing_extensions import Self

    from .layers import Array

__all__ = ["Batcher"]


class Batcher:
    """Takes requests of one sequence each and computes those that wait together as one batch.

    A request that comes when nothing is computed is computed at once, for `predict` on the thread
    that asks. What comes meanwhile waits and is then computed together, up to `max_batch` requests
    whose lengths differ so little that it costs at most a fifth of the time. Every answer has the
    bits of `model(x)` for that sequence alone. Nothing is started before it is needed: a thread of
    the batcher's own computes what waits.

    Each request sees the model of the moment it is asked, whole: one that is trained, moved to a
    device or replaced (`batcher.model = other`) meanwhile is another one for the requests after it.

    Any number of threads and event loops may share a batcher. A forked child starts with an empty
    one; requests of the parent are answered in the parent alone. It closes at the end of a `with`
    block and, without draining, when the interpreter ends.

    Args:
        model: a Sequential or a layer, on any device, or a model with small weights.
        max_batch: requests in a batch at most.
        max_queue: requests that wait at most; one more is refused.
        max_wait: seconds for which a request waits for others when nothing is computed, unless
            `max_batch` wait already. One with a timeout waits at most half of it.

    Raises:
        TypeError: the model is no Sequential or layer, or another argument no number.
        ShapeError: max_batch or max_queue is less than 1.
        ValueError: max_wait is negative or not finite.
    """

    __slots__ = ("__weakref__", "_handle", "_mailbox", "_model")

    def __init__(
        self,
        model: Sequential | QuantizedSequential | Layer,
        max_batch: int = 64,
        max_queue: int = 1024,
        max_wait: float = 0.0,
    ) -> None:
        self._handle = _seqrs.Batcher(
            _handle_of(model),
            integer("max_batch", max_batch),
            integer("max_queue", max_queue),
            real("max_wait", max_wait, 0.0),
        )
        self._model = model
        # That of the loop that asked last.
        self._mailbox: _seqrs.Mailbox | None = None
        _ALL.add(self)

    def predict(self, x: npt.ArrayLike, timeout: float | None = None) -> Array:
        """The output for one sequence; waits for it, without the GIL.

        Args:
            x: numbers (T, F), or ids (T,) for a model that begins with an Embedding; of any length.
            timeout: seconds until an answer is of no use; None for no limit.

        Returns:
            y, (T, .) or, after Last and the pools, (.,): `model(x[None])[0][0]`, bit for bit.

        Raises:
            ShapeError, DTypeError: x does not fit the model; no other request is affected.
            QueueFullError: `max_queue` requests wait already.
            TimeoutError: the time is over. What nobody had begun with is not computed.
            StateError: the batcher is closed, or was while the request waited.
            InternalError: a bug in seqrs; the batcher goes on.
        """
        return self._handle.predict(x, _seconds(timeout))

    async def predict_async(self, x: npt.ArrayLike, timeout: float | None = None) -> Array:
        """As `predict`, for tasks of any asyncio event loop, which it never blocks.

        A task that is cancelled takes its request out of the queue.

        Raises:
            As `predict`; RuntimeError: the system gives no thread.
        """
        from asyncio import get_running_loop

        seconds = _seconds(timeout)
        loop = get_running_loop()
        mailbox = self._mailbox
        if mailbox is None or mailbox.event_loop is not loop:
            mailbox = self._mailbox = _seqrs.Mailbox(loop)
        future: Future[Array] = loop.create_future()
        ticket = self._handle.submit(x, seconds, mailbox, future)
        alarm = None if seconds is None else loop.call_later(seconds, _expire, ticket, future)
        try:
            return await future
        except BaseException:
            # Of a request that has its answer this does nothing.
            ticket.cancel()
            raise
        finally:
            if alarm is not None:
                alarm.cancel()

    @property
    def model(self) -> Sequential | QuantizedSequential | Layer:
        """The model that requests are for. It may be replaced at any time by one of its dtype:
        requests that wait keep theirs.
        """
        return self._model

    @model.setter
    def model(self, model: Sequential | QuantizedSequential | Layer) -> None:
        self._handle.swap(_handle_of(model))
        self._model = model

    def swap(
        self, model: Sequential | QuantizedSequential | Layer
    ) -> Sequential | QuantizedSequential | Layer:
        """Replaces the model and gives the one before.

        Raises:
            TypeError: it is no Sequential or layer.
            DTypeError: it has another dtype than the one before.
        """
        before, self.model = self._model, model
        return before

    def stats(self) -> dict[str, Any]:
        """What it has done since it was made, or since the process was forked.

        Keys:
            `submitted`: requests that were taken, each of which is one of `done`, `failed` (an
            error of the model's), `cancelled` (given up, or the batcher was closed), `expired`
            (their time was over), `waiting` and `running`.
            `refused`: requests that were not taken, as the queue was full or the batcher closed.
            `batches`, and `batch_sizes`, how many had how many requests.
            `queue_seconds`, from being asked to the beginning of the computation, and
            `latency_seconds`, from being asked to the answer: `counts` of times up to each of
            `bounds` but above the one before, and at the end above the last; and their `sum`.
            `padding_share`: the share of the places in batches that are past a sequence's end;
            they are not computed. `padding_cost`: the share of the time that batches lose to
            unequal lengths, estimated from the lengths, at most 0.2.
        """
        return self._handle.stats()

    def close(self, drain: bool = True) -> None:
        """Takes no more requests, and returns when nothing is left to do and the thread has ended.

        Blocks meanwhile; a task awaits `close_async`. To close again does no harm.

        Args:
            drain: whether what waits is computed first. If not, it gets a StateError, as does what
                is being computed.
        """
        self._handle.close(flag("drain", drain))

    async def close_async(self, drain: bool = True) -> None:
        """As `close`, without blocking the event loop."""
        from asyncio import get_running_loop

        await get_running_loop().run_in_executor(None, self.close, drain)

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests."""
        return self._handle.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close_async()


#: Those that a fork or the end of the interpreter concerns.
_ALL: WeakSet[Batcher] = WeakSet()


def _handle_of(model: object) -> _seqrs.Model | _seqrs.QuantizedModel:
    if isinstance(model, Sequential | QuantizedSequential):
        return model._handle
    if isinstance(model, Layer):
        return Sequential._of((model,))._handle
    raise TypeError(
        f"model: expected a Sequential, quantised or not, or a layer, got {shown(model)}"
    )


def _seconds(timeout: float | None) -> float | None:
    return None if timeout is None else real("timeout", timeout, 0.0)


def _expire(ticket: _seqrs.Ticket, future: Future[Array]) -> None:
    if not future.done():
        ticket.expire()
        future.set_exception(TimeoutError("request: expected an answer in time, got none"))


def _after_fork() -> None:
    for batcher in _ALL:
        batcher._handle.after_fork()
        batcher._mailbox = None


def _close_all() -> None:
    for batcher in list(_ALL):
        batcher.close(drain=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)
