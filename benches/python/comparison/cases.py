"""Every case, by name. benches/README.md says what each stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from comparison import characters
from comparison.contender import Contender
from comparison.libraries import onnx_runtime, openvino, own, pytorch, tract
from comparison.roofline import Limits, least_seconds
from comparison.work import Work, drawn_lengths, every_length

#: Largest difference from seqrs, of the largest value in the array: outputs and states; gradients,
#: which are sums over up to 3200 items in f32; losses and gradient norms of a model in training.
OUTPUTS, GRADIENTS, TRAINING = 3e-5, 1e-4, 1e-3

#: What seqrs itself is compared with in some cases.
FULL_BATCH = "seqrs, every step live"
NEXT_MULTIPLE = "seqrs, next multiple of 16"

#: Points of curves get this part of the time that a case of the table gets.
CURVE = 0.3

#: Sizes of the table, of the curves, and odd ones.
SIZES = (64, 128, 256, 512)
CURVE_SIZES = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
ODD_SIZES = (17, 50, 100, 250, 300, 509)
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Case:
    name: str
    #: Makes the contenders for a number of threads; the first is seqrs.
    contenders: Callable[[int], list[Contender]]
    #: The least seconds that the machine needs with a number of threads.
    least: Callable[[Limits, int], float]
    tolerance: float
    #: Calls whose results are compared: one, or the first of a model in training, which moves on.
    compared: int = 1
    #: Whether it is a point of a curve, which gets a part of the time only.
    on_curve: bool = False

    @property
    def effort(self) -> float:
        """Part of `--seconds` that it gets."""
        return CURVE if self.on_curve else 1.0


def every_case() -> list[Case]:
    """Those of the table first, then what the curves have besides."""
    cases: dict[str, Case] = {}
    for case in (*table(), *over_batches(), *over_sizes(), *odd_sizes()):
        cases.setdefault(case.name, case)
    return list(cases.values())


def table() -> Iterator[Case]:
    for cell in ("lstm", "gru", "gru-before"):
        for hidden in (64, 128, 256):
            yield step(Work(cell, hidden, 1, 1))
    for batch in (1, 32):
        for cell in ("lstm", "gru", "gru-before", "rnn"):
            for hidden in SIZES:
                yield infer(Work(cell, hidden, batch, 100))
    for cell in ("lstm", "gru", "rnn"):
        for hidden in SIZES:
            yield train(Work(cell, hidden, 32, 100))
    for hidden in (128, 256):
        yield train(Work("gru-before", hidden, 32, 100))
    yield Case(
        "train/characters",
        characters.contenders,
        lambda limits, threads: characters.FLOPS / limits.flops[threads],
        TRAINING,
        compared=3,
    )
    for cell in ("lstm", "gru"):
        for hidden in (64, 128, 256):
            yield train(Work(cell, hidden, 32, 100, drawn_lengths(32, 100)), "ragged/train")
        yield infer(Work(cell, 256, 32, 100, drawn_lengths(32, 100)), "ragged/infer")
        yield half(Work(cell, 256, 32, 100, every_length(32, 100)), training=False)
        yield half(Work(cell, 256, 32, 100, every_length(32, 100)), training=True)


def over_batches() -> Iterator[Case]:
    for hidden in (128, 256):
        for batch in BATCHES:
            for cell in ("lstm", "gru"):
                yield infer(Work(cell, hidden, batch, 100), curve=True)
                yield train(Work(cell, hidden, batch, 100), curve=True)


def over_sizes() -> Iterator[Case]:
    for hidden in CURVE_SIZES:
        for batch in (1, 32):
            # A step of the largest takes so long that fewer of them tell as much.
            time = 100 if hidden <= 512 else 25
            for cell in ("lstm", "gru"):
                yield infer(Work(cell, hidden, batch, time), curve=True)
                yield train(Work(cell, hidden, batch, time), curve=True)


def odd_sizes() -> Iterator[Case]:
    for hidden in ODD_SIZES:
        for cell in ("lstm", "gru"):
            yield odd(Work(cell, hidden, 1, 100), training=False)
            yield odd(Work(cell, hidden, 32, 100), training=False)
            yield odd(Work(cell, hidden, 32, 100), training=True)


def step(work: Work) -> Case:
    """One step of one row, from one state."""

    def contenders(threads: int) -> list[Contender]:
        return [
            own.step(work, threads),
            *(pytorch.step(work, threads) if work.cell != "gru-before" else []),
            onnx_runtime.infer(work, threads, state=True),
            openvino.infer(work, threads, state=True),
            tract.infer(work, state=True),
        ]

    return Case(f"step/{work.cell}/h{work.hidden}", contenders, floor(work), OUTPUTS)


def infer(work: Work, family: str = "infer", *, curve: bool = False) -> Case:
    """A batch of sequences. On curves beside the two that are fastest anywhere in the table."""

    def contenders(threads: int) -> list[Contender]:
        made = [own.infer(work, threads)]
        if work.cell != "gru-before" and not curve:
            made += pytorch.infer(work, threads)
        made += [onnx_runtime.infer(work, threads), openvino.infer(work, threads)]
        if work.lengths is None and not curve:
            made.append(tract.infer(work))
        return made

    return Case(named(family, work), contenders, floor(work), OUTPUTS, on_curve=curve)


def train(work: Work, family: str = "train", *, curve: bool = False) -> Case:
    """Forward and backward: the gradients of the input and of every parameter.

    On curves PyTorch is timed at LSTM alone: its other cells run operator by operator.
    """

    def contenders(threads: int) -> list[Contender]:
        if work.cell == "gru-before":
            peers = pytorch.train_gru_before(work, threads)
        else:
            peers = pytorch.train(work, threads)
        if curve and work.cell != "lstm":
            peers = only_compared(peers)
        return [own.train(work, threads), *peers]

    return Case(
        named(family, work), contenders, floor(work, training=True), GRADIENTS, on_curve=curve
    )


def half(work: Work, *, training: bool) -> Case:
    """Rows of every length, half of all steps live, against the same batch with all of them."""
    full = replace(work, lengths=None)
    ours, peers = (own.train, pytorch.train) if training else (own.infer, pytorch.infer)
    return Case(
        named("half/train" if training else "half/infer", work),
        lambda threads: [
            ours(work, threads),
            ours(full, threads, FULL_BATCH),
            *only_compared(peers(work, threads)),
        ],
        floor(work, training=training),
        GRADIENTS if training else OUTPUTS,
    )


def odd(work: Work, *, training: bool) -> Case:
    """A size that fills no register, against the next one that does."""
    even = replace(work, hidden=-(-work.hidden // 16) * 16)
    ours, peers = (own.train, pytorch.train) if training else (own.infer, pytorch.infer)
    return Case(
        named("odd/train" if training else "odd/infer", work),
        lambda threads: [
            ours(work, threads),
            ours(even, threads, NEXT_MULTIPLE),
            *only_compared(peers(work, threads)),
        ],
        floor(work, training=training),
        GRADIENTS if training else OUTPUTS,
        on_curve=True,
    )


def only_compared(contenders: list[Contender]) -> list[Contender]:
    return [replace(contender, timed=False) for contender in contenders]


def named(family: str, work: Work) -> str:
    steps = "" if work.time == 100 else f"/t{work.time}"
    return f"{family}/{work.cell}/b{work.batch}/h{work.hidden}{steps}"


def floor(work: Work, *, training: bool = False) -> Callable[[Limits, int], float]:
    return lambda limits, threads: least_seconds(work, limits, threads, training=training)
