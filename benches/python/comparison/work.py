"""A layer, its weights and a batch: what every library is given to compute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = Any

#: Products that a step has, each of H x H and of H x I. `gru` has the reset gate after the product
#: (`reset_after=True`, ONNX's linear_before_reset = 1), as PyTorch has it; `gru-before` is the
#: textbook's, with the reset gate before it.
GATES = {"lstm": 4, "gru": 3, "gru-before": 3, "rnn": 1}


@dataclass(frozen=True)
class Work:
    """One layer with as many inputs as units, and one batch of sequences (time, row, input)."""

    cell: str
    hidden: int
    batch: int
    time: int
    #: Live steps of each row; all of them where it is None.
    lengths: tuple[int, ...] | None = None

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @cached_property
    def rows(self) -> list[int]:
        """Live rows of each step."""
        if self.lengths is None:
            return [self.batch] * self.time
        return [sum(length > t for length in self.lengths) for t in range(self.time)]

    @cached_property
    def live(self) -> Array:
        """Which steps are live: (time, row, 1)."""
        lengths = np.array(self.lengths or [self.time] * self.batch)
        return (np.arange(self.time)[:, None] < lengths)[..., None]

    def weights(self) -> dict[str, Array]:
        """By PyTorch's names and in its order, drawn as it draws them."""
        random = np.random.default_rng(0)
        bound = self.hidden**-0.5
        height = self.gates * self.hidden
        shapes = {
            "weight_ih_l0": (height, self.hidden),
            "weight_hh_l0": (height, self.hidden),
            "bias_ih_l0": (height,),
            "bias_hh_l0": (height,),
        }
        drawn = {
            name: random.uniform(-bound, bound, shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        if self.cell == "gru-before":
            # There is one bias: the two are only ever added.
            drawn["bias_hh_l0"][:] = 0
        return drawn

    def x(self) -> Array:
        """The inputs, zero where they are padding."""
        return self._draw(1, self.hidden)

    def dy(self) -> Array:
        """The gradient of the outputs, zero where they are padding."""
        return self._draw(2, self.hidden)

    def _draw(self, seed: int, width: int) -> Array:
        values = normal(seed, self.time, self.batch, width)
        return values if self.lengths is None else values * self.live

    def state(self) -> list[Array]:
        """A state to go on from: h, or h and c, each (1, row, unit)."""
        count = 2 if self.cell == "lstm" else 1
        return [normal(5 + k, 1, self.batch, self.hidden) for k in range(count)]


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def every_length(batch: int, time: int) -> tuple[int, ...]:
    """Rows of every length, evenly from 1 to `time`: half of all steps are live."""
    lengths = np.linspace(1, time, batch).round().astype(int)
    return tuple(np.random.default_rng(3).permutation(lengths).tolist())


def drawn_lengths(batch: int, time: int) -> tuple[int, ...]:
    """Lengths drawn from 1 to `time`, each as likely as the other."""
    return tuple(np.random.default_rng(7).integers(1, time + 1, batch).tolist())
