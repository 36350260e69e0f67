"""Callbacks as `Trainer.fit` calls them, whichever of their forms they have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .callbacks import Callback

if TYPE_CHECKING:
    from .training import Trainer

__all__ = ["Listener", "listeners_of", "restore"]


class Listener:
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
        """The class, as checkpoints call it."""
        return type(self.callback).__qualname__

    def saved(self) -> list[Any]:
        """Class name and state, as a checkpoint keeps it; no state for those that have none."""
        state_dict = getattr(self.callback, "state_dict", None)
        return [self.name, None if state_dict is None else state_dict()]


def _nothing(*arguments: object) -> None:
    """What a callback does at an event that it has no method for."""


def listeners_of(callbacks: Iterable[Callback]) -> list[Listener]:
    """A listener for each callback."""
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
