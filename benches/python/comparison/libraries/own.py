"""seqrs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import seqrs

from comparison.contender import Contender, Results, gradients, outputs
from comparison.work import Work


def layer(work: Work) -> seqrs.Layer:
    sizes = (work.hidden, work.hidden)
    made: seqrs.Layer = {
        "lstm": lambda: seqrs.LSTM(*sizes, batch_first=False),
        "gru": lambda: seqrs.GRU(*sizes, reset_after=True, batch_first=False),
        "gru-before": lambda: seqrs.GRU(*sizes, batch_first=False),
        "rnn": lambda: seqrs.RNN(*sizes, batch_first=False),
    }[work.cell]()
    weights = work.weights()
    if work.cell == "gru-before":
        weights["bias_ih_l0"] += weights.pop("bias_hh_l0")
    made.load_state_dict(weights)
    return made


def threads_set(threads: int) -> Callable[[], None]:
    return lambda: seqrs.set_num_threads(threads)


def states(value: Any) -> list[Any]:
    """The arrays of a state: h, or h and c."""
    return list(value) if isinstance(value, tuple) else [value]


def step(work: Work, threads: int) -> Contender:
    made = layer(work)
    x = work.x()[0]
    start = work.state()
    state = tuple(start) if len(start) == 2 else start[0]
    return Contender(
        "seqrs",
        lambda: made.step(x, state),
        lambda value: outputs(work, value[0], states(value[1])),
        threads_set(threads),
    )


def infer(work: Work, threads: int, name: str = "seqrs") -> Contender:
    made = layer(work)
    x, lengths = work.x(), work.lengths
    run = (lambda: made(x)) if lengths is None else (lambda: made(x, lengths=lengths))
    return Contender(
        name,
        run,
        lambda value: outputs(work, value[0], states(value[1])),
        threads_set(threads),
    )


def train(work: Work, threads: int, name: str = "seqrs") -> Contender:
    made = layer(work)
    x, dy, lengths = work.x(), work.dy(), work.lengths

    def run() -> tuple[Any, Any]:
        y, _, tape = made.forward(x, lengths=lengths)
        return y, made.backward(tape, dy)

    def results(value: tuple[Any, Any]) -> Results:
        y, back = value
        return gradients(work, y, back.x, back.params)

    return Contender(name, run, results, threads_set(threads))
