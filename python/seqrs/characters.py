"""A character model of a text: what `seqrs demo` and `seqrs train` train.

The model is Embedding, recurrent layers, Linear, over bytes: 256 ids whatever the language, so a
model file needs no vocabulary beside it. How well it predicts is told in bits per character: the
bits of all bytes, by the number of characters.
"""

from __future__ import annotations

import copy
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import schedules
from .checkpoints import Checkpoints
from .data import Batch, Dataset, TextCorpus
from .layers import Embedding, Layer, Linear
from .losses import CrossEntropy
from .models import Sequential
from .optimizers import Adam
from .options import choice, integer, real
from .options import seed as checked_seed
from .recurrent import GRU, LSTM, RNN
from .training import Trainer

__all__ = [
    "CELLS",
    "Plan",
    "Report",
    "Run",
    "Texts",
    "bits_per_character",
    "build",
    "measure",
    "plan_path",
]

CELLS: dict[str, type[RNN | LSTM | GRU]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}

#: Every byte is an id.
BYTES = 256
#: Below this there is nothing to learn from.
LEAST_BYTES = 64
#: Share of a single text that is held out, its end, and the least that is worth measuring.
HELD_OUT_SHARE, LEAST_HELD_OUT = 0.05, 2048
#: A run of so many minutes reports this often.
ROUNDS = 12
#: Share of the updates in which the learning rate rises, and at most so many.
WARMUP_SHARE, MOST_WARMUP = 0.05, 200
#: Share of the time that is left for the reports between the rounds.
REPORT_SHARE = 0.05
#: A run ends at the next report once it takes so many times what was asked for: the machine has
#: become slower than it was when the updates were counted.
LATE = 1.5


@dataclass(frozen=True)
class Plan:
    """Everything that a run follows from, but for the text."""

    cell: str = "lstm"
    embedding: int = 64
    hidden: int = 256
    layers: int = 1
    seq: int = 64
    batch: int = 32
    lr: float = 4e-3
    seed: int = 0
    #: How long to train: for a time, or for passes over the text, or for updates.
    minutes: float | None = None
    epochs: int | None = None
    updates: int | None = None

    def fitted(self, length: int) -> Plan:
        """With fewer rows, and then fewer steps, where a text of `length` bytes has no more."""
        seq = min(self.seq, length - 1)
        return self.with_(seq=seq, batch=min(self.batch, (length - 1) // seq))

    def with_(self, **changes: Any) -> Plan:
        """A copy with other options."""
        return Plan(**{**asdict(self), **changes})

    def write(self, path: Path) -> None:
        """Keep it beside the checkpoints of its run."""
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Plan | None:
        """What `write` wrote; None where there is nothing.

        Raises:
            ValueError: it is something else.
        """
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            found = json.loads(text)
            if not isinstance(found, dict):
                raise TypeError(f"expected a JSON object, got {type(found).__name__}")
            for name in found:
                choice("option", name, tuple(cls.__dataclass_fields__))
            return cls(**found)._checked()
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: expected the plan of a run, but {error}") from None

    def _checked(self) -> Plan:
        """Itself, once every option is of its type and in its range."""
        choice("cell", self.cell, tuple(CELLS))
        for name in ("embedding", "hidden", "layers", "seq", "batch"):
            integer(name, getattr(self, name))
        real("lr", self.lr, above=0.0)
        checked_seed(self.seed)
        if self.minutes is not None:
            real("minutes", self.minutes, above=0.0)
        for name in ("epochs", "updates"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name))
        return self

    def resumed(self, asked: Plan) -> Plan:
        """The plan to go on with, where a run with this one is resumed with `asked`.

        Raises:
            ValueError: an option is another one; only `epochs` may grow.
        """
        names = [each for each in asdict(self) if each != "updates"]
        if self.epochs is not None and asked.epochs is not None and asked.epochs >= self.epochs:
            names.remove("epochs")
        differ = [each for each in names if getattr(self, each) != getattr(asked, each)]
        if differ:
            then, now = (
                " ".join(f"--{k} {v}" for k in differ if (v := getattr(plan, k)) is not None)
                for plan in (self, asked)
            )
            more = " or more" if differ == ["epochs"] else ""
            raise ValueError(f"--resume: expected {then}{more}, as the run began with, got {now}")
        return asked.with_(updates=self.updates)


@dataclass(frozen=True)
class Texts:
    """What is trained on, and what is held out (empty for a text too short for it)."""

    train: bytes
    held_out: bytes

    @classmethod
    def of(cls, text: bytes) -> Texts:
        """Hold out the end of one text."""
        held_out = int(len(text) * HELD_OUT_SHARE)
        if held_out < LEAST_HELD_OUT:
            return cls(text, b"")
        return cls(text[:-held_out], text[-held_out:])


def plan_path(checkpoint: str | os.PathLike[str]) -> Path:
    """Where the plan of a run with checkpoints in that directory is."""
    return Path(checkpoint, "plan.json")


def build(plan: Plan) -> Sequential:
    """The model, with its initial weights."""
    recurrent: Layer = CELLS[plan.cell](plan.embedding, plan.hidden, plan.layers)
    layers = [Embedding(BYTES, plan.embedding), recurrent, Linear(plan.hidden, BYTES)]
    return Sequential(layers, seed=plan.seed)


class Rounds(Dataset):
    """A text read round and round, in epochs of any number of batches.

    With `total`, the epochs have so many batches together: the last one has what is left.
    """

    carries_state = True

    def __init__(self, corpus: TextCorpus, batches: int, total: int | None = None) -> None:
        super().__init__()
        self._corpus = corpus
        self._batches = batches
        self._total = total

    def __len__(self) -> int:
        if self._total is None:
            return self._batches
        return max(0, min(self._batches, self._total - self.epoch * self._batches))

    def batch(self, index: int) -> Batch:
        index = self._place(index)
        return self._corpus.batch((self.epoch * self._batches + index) % len(self._corpus))

    def signature(self) -> dict[str, object]:
        # Not how many in all: a run may be resumed for more.
        return {"round": self._batches, "corpus": self._corpus.signature()}


@dataclass(frozen=True)
class Report:
    """How a run stands after a round."""

    round: int
    rounds: int
    updates: int
    seconds: float
    #: Bits per character: of the round's training text, and held out (None where nothing is).
    train: float
    held_out: float | None
    characters_per_second: float


class Run:
    """The training of one model on one text.

    Args:
        texts: to train on and to hold out.
        plan: how.
        device: where, as `Sequential.to` takes it.
        checkpoint: a directory for checkpoints, or None.
        resume: whether to go on from the checkpoint there.

    Attributes:
        plan: as it is followed: fitted to the text, the updates counted.
        model: trained in place by `train`.

    Raises:
        ValueError: the text is too short, or no device has that name.
        NoDeviceError: there is no such device.
    """

    def __init__(
        self,
        texts: Texts,
        plan: Plan,
        *,
        device: str = "cpu",
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> None:
        self._began = time.perf_counter()
        if len(texts.train) < LEAST_BYTES:
            raise ValueError(
                f"text: expected at least {LEAST_BYTES} bytes to train on, got {len(texts.train)}"
            )
        self._resume = resume
        self._store: Checkpoints | None = None
        known: Plan | None = None
        if checkpoint is not None:
            self._store = Checkpoints(checkpoint, every_seconds=30.0)
            if self._store.files() and not resume:
                raise FileExistsError(
                    f"--checkpoint: expected an empty directory or --resume, got {checkpoint} "
                    f"with {self._store.files()[0].name} of another run"
                )
            known = Plan.read(plan_path(checkpoint)) if resume else None
            self._store.prepare(resume)
        plan = plan.fitted(len(texts.train))
        self._corpus = TextCorpus(texts.train, plan.batch, plan.seq)
        self._held_out = _held_out_corpus(texts.held_out, plan)
        self.model = build(plan).to(device)
        self._per_character = _bytes_per_character(texts.train)
        self._per_held_out_character = _bytes_per_character(texts.held_out)
        if known is not None:
            plan = known.resumed(plan)
        if known is None or plan.epochs is not None:
            plan = self._with_updates(plan)
        if checkpoint is not None and plan != known:
            plan.write(plan_path(checkpoint))
        self.plan = plan
        assert plan.updates is not None
        self.batches = (
            len(self._corpus) if plan.epochs is not None else max(1, plan.updates // ROUNDS)
        )
        # The last round is shorter where the updates do not go up in rounds.
        self.rounds = -(-plan.updates // self.batches)
        self.trainer = Trainer(
            self.model,
            loss=CrossEntropy(),
            optimizer=Adam(
                lr=schedules.cosine(
                    plan.lr,
                    steps=plan.updates,
                    warmup=min(MOST_WARMUP, int(plan.updates * WARMUP_SHARE)),
                )
            ),
            clip_norm=1.0,
            seed=plan.seed,
        )

    def _with_updates(self, plan: Plan) -> Plan:
        """The number of updates, from the passes over the text or from the speed measured."""
        if plan.epochs is not None:
            return plan.with_(updates=plan.epochs * len(self._corpus))
        if plan.updates is not None:
            return plan
        budget = 60.0 * (1.0 if plan.minutes is None else plan.minutes)
        seconds = measure(self.model, self._corpus, at_most=budget / 10)
        left = (budget - (time.perf_counter() - self._began)) * (1.0 - REPORT_SHARE)
        return plan.with_(updates=max(1, int(left / seconds)))

    def train(
        self, report: Callable[[Report], None], batch_done: Callable[[float], None] | None = None
    ) -> dict[str, list[float]]:
        """Train; `report` is called after every round, `batch_done(bits)` after every update."""
        watch = _Watch(self, report, batch_done)
        with warnings.catch_warnings():
            # A run that is resumed for more epochs has a longer schedule, as it was asked to.
            warnings.filterwarnings("ignore", r"trainer: .*\(optimizer\.lr", UserWarning)
            return self.trainer.fit(
                Rounds(self._corpus, self.batches, self.plan.updates),
                epochs=self.rounds,
                validation=self._glance(),
                callbacks=[watch],
                progress=False,
                checkpoint=self._store,
                resume=self._resume,
            )

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return self._store is not None and bool(self._store.files())

    def _glance(self) -> Dataset | None:
        """So much of the held-out text that looking at it after every round takes little time."""
        if self._held_out is None:
            return None
        # A forward pass takes about a third of an update.
        batches = max(1, int(3 * REPORT_SHARE * self.batches))
        return Rounds(self._held_out, min(batches, len(self._held_out)))

    def held_out_bits(self) -> float | None:
        """Bits per character on all of the held-out text, None where there is none."""
        if self._held_out is None:
            return None
        return self.trainer.evaluate(self._held_out)["bits"] * self._per_held_out_character

    @property
    def characters_per_update(self) -> float:
        """Characters that an update reads."""
        return self.plan.batch * self.plan.seq / self._per_character


class _Watch:
    """Turns what `fit` tells its callbacks into reports."""

    def __init__(
        self,
        run: Run,
        report: Callable[[Report], None],
        batch_done: Callable[[float], None] | None,
    ) -> None:
        self._run = run
        self._report = report
        self._batch_done = batch_done
        self._began = time.perf_counter()
        self._round_began = self._began
        self._updates = 0
        self._round_ended = self._began

    def on_batch_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self._round_ended = time.perf_counter()
        self._updates += 1
        if self._batch_done is not None:
            self._batch_done(metrics["loss"] / math.log(2.0) * self._run._per_character)

    def on_epoch_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        run = self._run
        characters = run.characters_per_update * self._updates
        now = time.perf_counter()
        held_out = metrics.get("val_bits")
        self._report(
            Report(
                round=int(metrics["epoch"]),
                rounds=run.rounds,
                updates=trainer.steps_done,
                seconds=now - run._began,
                train=metrics["loss"] / math.log(2.0) * run._per_character,
                held_out=None if held_out is None else held_out * run._per_held_out_character,
                characters_per_second=characters / max(self._round_ended - self._round_began, 1e-9),
            )
        )
        self._updates, self._round_began = 0, now
        minutes = run.plan.minutes
        if minutes is not None and now - run._began > 60.0 * minutes * LATE:
            trainer.should_stop = True


def measure(model: Sequential, corpus: TextCorpus, at_most: float) -> float:
    """Seconds that an update takes: the median over about a second, with a copy of the model."""
    trainer = Trainer(copy.deepcopy(model))
    times: list[float] = []
    end = time.perf_counter() + min(1.5, max(at_most, 0.0))
    index = 0
    while True:
        began = time.perf_counter()
        trainer.step(*corpus.batch(index % len(corpus)))
        now = time.perf_counter()
        # The first update also pays for memory and threads that the later ones find ready.
        if index:
            times.append(now - began)
        index += 1
        if now >= end and times:
            return statistics.median(times)


def bits_per_character(model: Sequential, text: bytes, *, rows: int = 32, steps: int = 64) -> float:
    """Bits per character of a text under a model of bytes; every byte but the first counts.

    The text is read in `rows` streams at once, each beginning without a past.
    """
    rows = max(1, min(rows, (len(text) - 1) // steps))
    corpus = TextCorpus(text, rows, min(steps, len(text) - 1), drop_last=False)
    return Trainer(model).evaluate(corpus)["bits"] * _bytes_per_character(text)


def _held_out_corpus(text: bytes, plan: Plan) -> TextCorpus | None:
    if len(text) < 2:
        return None
    rows = max(1, min(plan.batch, (len(text) - 1) // plan.seq))
    return TextCorpus(text, rows, min(plan.seq, len(text) - 1), drop_last=False)


def _bytes_per_character(text: bytes) -> float:
    """1 for ASCII; UTF-8 marks every byte that continues a character by its first two bits."""
    numbers = np.frombuffer(text, dtype=np.uint8)
    characters = int(np.count_nonzero((numbers & 0xC0) != 0x80))
    return len(text) / characters if characters else 1.0
