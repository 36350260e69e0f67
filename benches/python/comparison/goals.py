"""The numbers to reach, and whether they are.

A goal holds at every case whose name matches, at every number of threads that it names. What seqrs
is measured by is one of

    RATIO     its time over that of the fastest peer at this very point, or of a variant of itself
    TIME      its seconds
    SHARE     the least time that the machine needs, over its time
    THREADS   its time on one thread, over that on two
    ROWS      its time over that of half as many rows
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from comparison.cases import FULL_BATCH, NEXT_MULTIPLE

Record = dict[str, Any]
#: Records by case and threads.
Records = dict[tuple[str, int], Record]


class Measure(Enum):
    RATIO = "x"
    TIME = "s"
    SHARE = "of the roofline"
    THREADS = "x as fast as 1 thread"
    ROWS = "x half the rows"


@dataclass(frozen=True)
class Goal:
    #: What it is about.
    row: str
    #: Patterns of case names.
    cases: tuple[str, ...]
    measure: Measure
    bound: float
    #: All where there are none.
    threads: tuple[int, ...] = ()
    #: RATIO is against this variant of seqrs, or against the fastest peer.
    variant: str | None = None

    @property
    def at_least(self) -> bool:
        return self.measure in (Measure.SHARE, Measure.THREADS)

    def applies(self, record: Record) -> bool:
        return (not self.threads or record["threads"] in self.threads) and any(
            fnmatch.fnmatchcase(record["case"], pattern) for pattern in self.cases
        )


RATIO, TIME, SHARE, THREADS, ROWS = Measure

GRUS = ("gru", "gru-before")
GATED = ("lstm", *GRUS)


def over(form: str, cells: Iterable[str], *sizes: int) -> tuple[str, ...]:
    return tuple(f"{form}/h{h}".replace("CELL", cell) for cell in cells for h in sizes)


GOALS = (
    Goal("a step", over("step/CELL", GATED, 64), RATIO, 1 / 4),
    Goal("a step", over("step/CELL", GATED, 128), RATIO, 1 / 3),
    Goal("a step", over("step/CELL", GATED, 256), RATIO, 1 / 2),
    Goal("a step", over("step/CELL", GATED, 64), TIME, 3e-6),
    Goal("one row", over("infer/CELL/b1", GATED, 64, 128, 256), SHARE, 0.85, (1,)),
    Goal("one row", over("infer/CELL/b1", ("lstm",), 64), RATIO, 0.75, (1,)),
    Goal("one row", over("infer/CELL/b1", ("lstm",), 128), RATIO, 0.8, (1,)),
    Goal("one row", over("infer/CELL/b1", ("lstm",), 256), RATIO, 0.88, (1,)),
    Goal("one row", over("infer/CELL/b1", GRUS, 64, 128, 256), RATIO, 0.75, (1,)),
    Goal("one row", over("infer/CELL/b1", GATED, 512), RATIO, 0.75, (1,)),
    Goal("one row", over("infer/CELL/b1", GATED, 512), RATIO, 0.6, (2,)),
    Goal("32 rows", over("infer/CELL/b32", GATED, 64), RATIO, 0.85),
    Goal("32 rows", over("infer/CELL/b32", ("lstm",), 128, 256, 512), RATIO, 0.95),
    Goal("32 rows", over("infer/CELL/b32", GRUS, 128, 256, 512), RATIO, 0.9),
    Goal("32 rows", over("infer/CELL/b32", GATED, 128, 256, 512), SHARE, 0.8),
    Goal("training", over("train/CELL/b32", ("lstm",), 64), RATIO, 0.75, (1,)),
    Goal("training", over("train/CELL/b32", ("lstm",), 128, 256, 512), RATIO, 0.85, (1,)),
    Goal("training", over("train/CELL/b32", ("lstm",), 128, 256, 512), SHARE, 0.75, (1,)),
    Goal("training", over("train/CELL/b32", ("gru", "rnn"), 64), RATIO, 0.3),
    Goal("training", over("train/CELL/b32", ("gru", "rnn"), 128), RATIO, 0.45),
    Goal("training", over("train/CELL/b32", ("gru", "rnn"), 256, 512), RATIO, 0.75),
    Goal("training on ragged rows", ("ragged/train/*",), RATIO, 0.55),
    Goal("character model", ("train/characters",), RATIO, 0.75),
    Goal("half of the steps live", ("half/*",), RATIO, 0.6, variant=FULL_BATCH),
    Goal(
        "two threads",
        (
            *over("infer/CELL/b*", ("lstm", "gru", "gru-before", "rnn"), 256, 512),
            *over("infer/CELL/b8", ("lstm", "gru"), 128),
            *over("infer/CELL/b16", ("lstm", "gru"), 128),
            *over("infer/CELL/b32", ("lstm", "gru", "gru-before", "rnn"), 64, 128),
            *over("train/CELL/b32", ("lstm", "gru", "gru-before", "rnn"), 64, 128, 256, 512),
            *over("train/CELL/b16", ("lstm", "gru"), 128, 256),
            *over("train/CELL/b8", ("lstm", "gru"), 128, 256),
            *over("step/CELL", GATED, 256),
            "ragged/*",
            "train/characters",
        ),
        THREADS,
        1.7,
        (2,),
    ),
    Goal(
        "twice the rows",
        ("infer/*/b[248]/*", "infer/*/b16/*", "train/*/b[248]/*", "train/*/b16/*"),
        ROWS,
        2.1,
    ),
    Goal("an odd size", ("odd/*",), RATIO, 1.15, variant=NEXT_MULTIPLE),
)


def outcomes(records: list[Record]) -> list[dict[str, Any]]:
    """Every goal at every case that was measured, in the order of the goals."""
    known: Records = {(record["case"], record["threads"]): record for record in records}
    found = []
    for goal in GOALS:
        for record in filter(goal.applies, records):
            measured = measured_at(goal, record, known)
            if measured is None:
                continue
            value, against = measured
            found.append(
                {
                    "goal": goal.row,
                    "case": record["case"],
                    "threads": record["threads"],
                    "measure": goal.measure.name,
                    "against": against,
                    "bound": goal.bound,
                    "measured": value,
                    "met": value >= goal.bound if goal.at_least else value <= goal.bound,
                    "share": record.get("share"),
                }
            )
    return found


def measured_at(goal: Goal, record: Record, known: Records) -> tuple[float, str | None] | None:
    """The value and what it was measured against, or nothing where the run left that out."""
    ours = record["seconds"].get("seqrs")
    if ours is None:
        return None
    if goal.measure is TIME:
        return ours, None
    if goal.measure is SHARE:
        return (record["share"], None) if "share" in record else None
    if goal.measure is RATIO:
        ratio = record["ratio"]
        if goal.variant:
            return (ratio[goal.variant], goal.variant) if goal.variant in ratio else None
        peers = {name: value for name, value in ratio.items() if not name.startswith("seqrs")}
        # The largest ratio is that to the fastest.
        fastest = max(peers, key=peers.__getitem__, default=None)
        return (peers[fastest], fastest) if fastest else None
    if goal.measure is THREADS:
        single = known.get((record["case"], 1), {}).get("seconds", {}).get("seqrs")
        return (single / ours, None) if single else None
    half = re.sub(r"/b(\d+)/", lambda found: f"/b{int(found[1]) // 2}/", record["case"])
    fewer = known.get((half, record["threads"]), {}).get("seconds", {}).get("seqrs")
    return (ours / fewer, None) if fewer else None
