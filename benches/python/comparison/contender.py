"""One library at one case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from comparison.work import Array, Work

#: The arrays that are compared, by name.
Results = dict[str, Array]


@dataclass(frozen=True)
class Contender:
    #: Shown in tables. All contenders of seqrs begin with "seqrs", the peers do not.
    name: str
    #: What is timed: one call, with all that a user pays for.
    run: Callable[[], Any]
    #: From what `run` gives to arrays that are compared.
    results: Callable[[Any], Results]
    #: Sets what belongs to the process and not to the call, the number of threads, before a turn.
    prepare: Callable[[], None] = lambda: None
    #: Whether it takes turns, or only its results are compared.
    timed: bool = True

    @property
    def is_peer(self) -> bool:
        return not self.name.startswith("seqrs")


def outputs(work: Work, y: Any, states: list[Any]) -> Results:
    """Outputs and last states, each library's form of them brought to one; no padding."""
    y = np.array(y).reshape(work.time, work.batch, work.hidden) * work.live
    if work.lengths is not None:
        # Where a library computes the padding too, its last states are not those of the rows.
        return {"y": y}
    names = ("h", "c")[: len(states)]
    return {"y": y, **{n: np.array(s).ravel() for n, s in zip(names, states, strict=True)}}


def gradients(work: Work, y: Any, x: Any, parameters: dict[str, Any]) -> Results:
    """Outputs, and the gradients of the inputs and of all parameters; no padding."""
    shape = (work.time, work.batch, work.hidden)
    named = {name: np.array(value) for name, value in parameters.items()}
    if work.cell == "gru-before":
        # Of one bias, as it is of the two that are only ever added.
        named.pop("bias_hh_l0", None)
    return {
        "y": np.array(y).reshape(shape) * work.live,
        "x": np.array(x).reshape(shape) * work.live,
        **named,
    }
