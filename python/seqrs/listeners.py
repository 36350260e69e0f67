"""Callbacks as `Trainer.fit` calls them, whichever of their forms they have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from .callbacks import Callback, CSVLogger, EarlyStopping, ModelCheckpoint
from .checkpoints import check_content

if TYPE_CHECKING:
    from .training import Trainer

__all__ = ["Listener", "listeners_of", "restore"]


class Listener:
    """A callback, whichever of its forms it has; its errors say which of `callbacks` it is."""

    def __init__(self, index: int, callback: Callback) -> None:
        at_end = getattr(callback, "on_epoch_end", callback)
        if not callable(at_end) or isinstance(callback, type):
            raise TypeError(
                f"callbacks[{index}]: expected an object with on_epoch_end(trainer, metrics) or a "
                f"function of these, got {callback!r}"
            )
        self._at_epoch_end: Callable[[Trainer, dict[str, float]], object] = at_end
        self._index = index
        self.callback = callback

    @property
    def name(self) -> str:
        """The class, as checkpoints call it."""
        return type(self.callback).__qualname__

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"callbacks[{self._index}] ({getattr(self.callback, '__qualname__', self.name)})"

    def check(self, metrics: Collection[str]) -> None:
        """Before anything else: whether a ready-made one will have what it needs."""
        if not isinstance(self.callback, (EarlyStopping, ModelCheckpoint, CSVLogger)):
            return
        try:
            self.callback.check(metrics)
        except (ValueError, OSError) as error:
            raise type(error)(f"{self.label}: {error}") from None

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._call(getattr(self.callback, "on_fit_begin", _nothing), trainer)

    def on_batch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self._call(getattr(self.callback, "on_batch_end", _nothing), trainer, metrics)

    def on_epoch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self._call(self._at_epoch_end, trainer, metrics)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception as error:
            # From Python 3.11 on an error can say more without becoming another.
            if hasattr(error, "add_note"):
                error.add_note(f"raised by {self.label} of Trainer.fit")
            raise

    def saved(self) -> list[Any]:
        """Class name and state, as a checkpoint keeps it; no state for those that have none.

        Raises:
            TypeError: a checkpoint cannot hold the state.
        """
        state_dict = getattr(self.callback, "state_dict", None)
        state = None if state_dict is None else state_dict()
        try:
            check_content(state)
        except TypeError as error:
            raise TypeError(
                f"{self.label}: expected a state_dict() of what JSON can hold, tuples and arrays "
                f"of numbers, got {error}"
            ) from None
        return [self.name, state]


def _nothing(*arguments: object) -> None:
    """What a callback does at an event that it has no method for."""


def listeners_of(callbacks: object) -> list[Listener]:
    """A listener for each callback; None stands for none, and one may come without a list."""
    if callbacks is None:
        return []
    if callable(callbacks) or hasattr(callbacks, "on_epoch_end"):
        callbacks = [callbacks]
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, (str, bytes, dict)):
        raise TypeError(f"callbacks: expected a callback or a sequence of them, got {callbacks!r}")
    return [Listener(index, each) for index, each in enumerate(callbacks)]


def restore(listeners: list[Listener], saved: list[Any]) -> None:
    """Each takes the state of the first saved callback of its class not yet taken."""
    left = list(saved)
    for listener in listeners:
        entry = next((entry for entry in left if entry[0] == listener.name), None)
        if entry is None:
            continue
        left.remove(entry)
        if entry[1] is not None:
            listener.callback.load_state_dict(entry[1])  # type: ignore[union-attr]
