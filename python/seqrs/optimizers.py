"""Optimisers: how gradients change parameters. Formulas and defaults are PyTorch's.

Letters: p a parameter, g its gradient, t the number of the update, from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from .options import as_json, flag, real, shown

if TYPE_CHECKING:
    from .schedules import Schedule

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]


class Optimizer:
    """What every optimiser is: a description; its running averages belong to the Trainer."""

    #: The word for this optimiser in checkpoints.
    kind: ClassVar[str]

    __slots__ = ("_options",)

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @property
    def lr(self) -> float | Schedule:
        """The learning rate, or the schedule that it follows."""
        lr: float | Schedule = self._options["lr"]
        return lr

    @property
    def spec_json(self) -> str:
        """The optimiser as the compiled part reads it."""
        lr = self._options["lr"]
        return as_json(self.kind, {**self._options, "lr": lr if isinstance(lr, float) else lr.spec})

    def __repr__(self) -> str:
        words = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"{type(self).__name__}({words})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Optimizer):
            return NotImplemented
        return self.spec_json == other.spec_json

    def __hash__(self) -> int:
        return hash(self.spec_json)

    def __getstate__(self) -> dict[str, Any]:
        return self._options

    def __setstate__(self, options: dict[str, Any]) -> None:
        self._options = options


def _learning_rate(lr: float | Schedule) -> float | Schedule:
    # A schedule is asked for its form, so that this module need not load that one.
    if hasattr(lr, "spec"):
        return lr
    return real("lr", lr, 0.0)


def _betas(betas: Sequence[float]) -> list[float]:
    if isinstance(betas, (str, bytes)) or not hasattr(betas, "__len__") or len(betas) != 2:
        raise TypeError(f"betas: expected two numbers, got {shown(betas)}")
    return [real(f"betas[{k}]", beta, 0.0, 1.0) for k, beta in enumerate(betas)]


class SGD(Optimizer):
    """Stochastic gradient descent: p -= lr g; with momentum, p -= lr v, v = momentum v + g.

    Args:
        lr: the learning rate, or a schedule.
        momentum: in [0, 1); the first v is g (no dampening).
        nesterov: p -= lr (g + momentum v) instead; needs a momentum.
        weight_decay: g += weight_decay p before all else.
    """

    kind = "sgd"
    __slots__ = ()

    def __init__(
        self,
        lr: float | Schedule,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        momentum = real("momentum", momentum, 0.0, 1.0)
        if flag("nesterov", nesterov) and momentum == 0.0:
            raise ValueError("nesterov: expected False without a momentum, got True")
        super().__init__(
            {
                "lr": _learning_rate(lr),
                "momentum": momentum,
                "nesterov": bool(nesterov),
                "weight_decay": real("weight_decay", weight_decay, 0.0),
            }
        )


class RMSprop(Optimizer):
    """p -= lr g / (sqrt(v) + eps), v = alpha v + (1 - alpha) g^2 (Tieleman & Hinton 2012).

    Args:
        lr: the learning rate, or a schedule.
        alpha: in [0, 1).
        eps: outside the root.
        weight_decay: g += weight_decay p before all else.
        momentum: in [0, 1); above 0, p -= lr b, b = momentum b + g / (sqrt(v) + eps).
    """

    kind = "rmsprop"
    __slots__ = ()

    def __init__(
        self,
        lr: float | Schedule = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(
            {
                "lr": _learning_rate(lr),
                "alpha": real("alpha", alpha, 0.0, 1.0),
                "eps": real("eps", eps, 0.0),
                "weight_decay": real("weight_decay", weight_decay, 0.0),
                "momentum": real("momentum", momentum, 0.0, 1.0),
            }
        )


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), bias-corrected: p -= lr m^ / (sqrt(v^) + eps).

        m = beta1 m + (1 - beta1) g      m^ = m / (1 - beta1^t)
        v = beta2 v + (1 - beta2) g^2    v^ = v / (1 - beta2^t)

    Args:
        lr: the learning rate, or a schedule.
        betas: beta1 and beta2, each in [0, 1).
        eps: outside the root.
        weight_decay: g += weight_decay p before all else.
    """

    kind = "adam"
    __slots__ = ()

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            {
                "lr": _learning_rate(lr),
                "betas": _betas(betas),
                "eps": real("eps", eps, 0.0),
                "weight_decay": real("weight_decay", weight_decay, 0.0),
            }
        )


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): p -= lr weight_decay p first.

    Args:
        lr: the learning rate, or a schedule.
        betas: as Adam's.
        eps: as Adam's.
        weight_decay: the share of p that an update at lr 1 takes off.
    """

    kind = "adamw"
    __slots__ = ()

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(
            {
                "lr": _learning_rate(lr),
                "betas": _betas(betas),
                "eps": real("eps", eps, 0.0),
                "weight_decay": real("weight_decay", weight_decay, 0.0),
            }
        )
