"""Learning rates that change as training goes on: `seqrs.Adam(lr=seqrs.schedules.cosine(...))`.

A schedule is a function of s, the number of updates done (0 at the first), computed where the
update is. `plateau` also follows a metric, which `Trainer.fit` shows it after every epoch, and
`Trainer.observe` in a loop of one's own.

>>> adam = seqrs.Adam(lr=seqrs.schedules.cosine(2e-3, steps=1000, warmup=50))
>>> adam.lr
cosine(lr=0.002, steps=1000, warmup=50, final_factor=0.0)
"""

from __future__ import annotations

from .options import integer, real

__all__ = ["Schedule", "constant", "cosine", "one_cycle", "plateau", "step"]

Number = int | float


class Schedule:
    """What the functions of this module give. Immutable; equal by value; pickles."""

    __slots__ = ("_kind", "_options")

    _kind: str
    _options: tuple[tuple[str, Number], ...]

    def __init__(self, kind: str, **options: Number) -> None:
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_options", tuple(options.items()))

    @property
    def kind(self) -> str:
        """The name of the function that made it."""
        return self._kind

    @property
    def spec(self) -> dict[str, str | Number]:
        """`kind` and every option, as the compiled part reads them."""
        return {"kind": self._kind, **dict(self._options)}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: a schedule does not change, make another")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name}: a schedule does not change, make another")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return self.spec == other.spec

    def __hash__(self) -> int:
        return hash((self._kind, self._options))

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self._kind, self._options)

    def __repr__(self) -> str:
        words = ", ".join(f"{name}={value!r}" for name, value in self._options)
        return f"{self._kind}({words})"


def constant(lr: float) -> Schedule:
    """The same learning rate for ever: what a plain number means."""
    return Schedule("constant", lr=real("lr", lr, 0.0))


def cosine(lr: float, steps: int, *, warmup: int = 0, final_factor: float = 0.0) -> Schedule:
    """A linear rise, then half a cosine down (Loshchilov & Hutter 2017, without restarts).

        lr(s) = lr * (s + 1) / warmup                               for s < warmup
        lr(s) = end + (lr - end) * (1 + cos(pi * p)) / 2            afterwards
        end   = lr * final_factor,  p = min((s - warmup) / (steps - warmup), 1)

    Args:
        lr: the largest learning rate.
        steps: updates until the end of the fall, those of the rise included.
        warmup: updates of linear rise, at most `steps`.
        final_factor: what part of `lr` is left at the end, and stays.
    """
    steps = integer("steps", steps)
    return Schedule(
        "cosine",
        lr=real("lr", lr, 0.0),
        steps=steps,
        warmup=integer("warmup", warmup, 0, steps),
        final_factor=real("final_factor", final_factor, 0.0),
    )


def one_cycle(
    max_lr: float,
    steps: int,
    *,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """The one-cycle policy (Smith & Topin 2018), as PyTorch's `OneCycleLR` with cosines.

        first = max_lr / div_factor,  last = first / final_div_factor
        first -> max_lr  along half a cosine while s <= pct_start * steps - 1
        max_lr -> last   along half a cosine until s = steps - 1, and last afterwards

    Args:
        max_lr: the largest learning rate.
        steps: updates in the whole cycle.
        pct_start: share of the steps that rise, in [0, 1].
        div_factor: the largest by the first learning rate.
        final_div_factor: the first by the last learning rate.
    """
    return Schedule(
        "one_cycle",
        max_lr=real("max_lr", max_lr, 0.0),
        steps=integer("steps", steps),
        pct_start=real("pct_start", pct_start, 0.0, at_most=1.0),
        div_factor=_positive("div_factor", div_factor),
        final_div_factor=_positive("final_div_factor", final_div_factor),
    )


def step(lr: float, every: int, *, factor: float = 0.1) -> Schedule:
    """Down in steps: lr(s) = lr * factor ** floor(s / every).

    Args:
        lr: the first learning rate.
        every: updates between two changes.
        factor: what the learning rate is multiplied by, in (0, 1].
    """
    return Schedule(
        "step", lr=real("lr", lr, 0.0), every=integer("every", every), factor=_share(factor)
    )


def plateau(
    lr: float,
    *,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    min_lr: float = 0.0,
) -> Schedule:
    """Down when a metric no longer falls, as PyTorch's `ReduceLROnPlateau`.

    The metric is `val_loss` where `Trainer.fit` has validation data, `loss` otherwise, once per
    epoch; a loop of one's own calls `Trainer.observe(metric)`. It has fallen when
    metric < best - threshold * |best|. After more than `patience` epochs in a row without a fall
    the rate becomes max(rate * factor, min_lr), and the count begins again.

    Args:
        lr: the first learning rate.
        factor: what the learning rate is multiplied by, in (0, 1].
        patience: epochs without a fall that are still waited for.
        threshold: the share of the best metric that counts as a fall.
        min_lr: the learning rate is never made smaller than this.
    """
    return Schedule(
        "plateau",
        lr=real("lr", lr, 0.0),
        factor=_share(factor),
        patience=integer("patience", patience, 0),
        threshold=real("threshold", threshold, 0.0),
        min_lr=real("min_lr", min_lr, 0.0),
    )


def _positive(name: str, value: object) -> float:
    return real(name, value, above=0.0)


def _share(value: object) -> float:
    """A factor above 1 would let the learning rate grow without bound."""
    return real("factor", value, above=0.0, at_most=1.0)


def _restore(kind: str, options: tuple[tuple[str, Number], ...]) -> Schedule:
    return Schedule(kind, **dict(options))
