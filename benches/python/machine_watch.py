"""How fast the machine is while something else is measured on it, whatever that is.

A process of its own does a fixed piece of work ten times a second, on one processor after the
other, and takes the processor time that it needs: arithmetic in the first cache, and a read of more
than the second one holds. None of it is of seqrs, and none of it waits for the one that is
measured, so a slow server does not make a slow machine. Besides, the system's accounts tell how
much processor time other processes had, and how much the host took away (steal).

A processor whose host has other guests changes its pace by a quarter, for minutes. What is measured
in seconds can be compared over such a change when it is told in units of the fixed work (`pace`).

The process that is measured shares caches and cores with this one: the fixed work takes a fifth
longer beside one that computes all the time. That is the same at all times as long as the load is.
"""

from __future__ import annotations

import math
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Seconds between two pieces of work: they take half a percent of two processors.
PERIOD = 0.1
#: Numbers and passes of the arithmetic, and bytes of the read.
NUMBERS, PASSES, BYTES = 1 << 13, 80, 4 << 20

#: The machine is another one from here on: processors that other processes had, and processors that
#: the host took away.
OTHERS, STEAL = 0.1, 0.02


@dataclass(frozen=True)
class Moment:
    """What the machine was like for some seconds."""

    #: Milliseconds of processor time of one piece of the fixed work: each processor's median, and
    #: of these the mean.
    arithmetic: float
    read: float
    #: Processors, of all that there are.
    own: float
    others: float
    stolen: float
    #: Milliseconds by which the fixed work came too late, once.
    late: float

    def __str__(self) -> str:
        return (
            f"fixed work {self.arithmetic:.3f} + {self.read:.3f} ms, processors: own {self.own:.2f}"
            f" others {self.others:.2f} stolen {self.stolen:.2f}, late {self.late:.0f} ms"
        )

    def is_free(self) -> bool:
        """Whether nobody else wants it."""
        return not self.disturbed()

    def disturbed(self) -> str:
        """Who else had it, so that it must not be compared with other times; empty if nobody."""
        found = []
        if self.others > OTHERS:
            found.append(f"others had {self.others:.2f} processors")
        if self.stolen > STEAL:
            found.append(f"the host took {self.stolen:.2f} processors")
        return ", ".join(found)

    @property
    def pace(self) -> float:
        """What one piece of the fixed work takes: arithmetic and read count as much."""
        return math.sqrt(self.arithmetic * self.read)


class Watch:
    """Looks on while this process works."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ask()
        self._before = self._accounts()

    def moment(self) -> Moment:
        """The time since the last call."""
        arithmetic, read, late, watching = self._ask()
        before, self._before = self._before, self._accounts()
        seconds, own, busy, stolen = (
            now - then for now, then in zip(self._before, before, strict=True)
        )
        others = max(0.0, busy - own - watching)
        return Moment(arithmetic, read, own / seconds, others / seconds, stolen / seconds, late)

    def close(self) -> None:
        self._process.communicate()

    def _ask(self) -> list[float]:
        asked, told = self._process.stdin, self._process.stdout
        assert asked is not None
        assert told is not None
        asked.write("\n")
        asked.flush()
        return [float(word) for word in told.readline().split()]

    def _accounts(self) -> tuple[float, float, float, float]:
        """Seconds: of the clock, of this process, and of all processors, busy and stolen."""
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words[:8])
        tick = os.sysconf("SC_CLK_TCK")
        busy = (user + nice + system + irq + softirq) / tick
        return time.monotonic(), time.process_time(), busy, steal / tick


def work(x: Any, y: Any, memory: Any) -> tuple[float, float]:
    """Milliseconds of processor time that the arithmetic takes, and the read."""
    start = time.thread_time()
    for _ in range(PASSES):
        np.exp(x, out=y)
    between = time.thread_time()
    memory.sum()
    return 1e3 * (between - start), 1e3 * (time.thread_time() - between)


def watch() -> None:
    """What the watching process does, until nobody asks any more."""
    x = np.linspace(-1, 1, NUMBERS, dtype=np.float32)
    y, memory = np.empty_like(x), np.ones(BYTES // 8)
    processors = sorted(os.sched_getaffinity(0))
    taken, used = list[tuple[float, float]](), time.process_time()
    late, due = 0.0, time.monotonic()
    while True:
        late = max(late, 1e3 * (time.monotonic() - due))
        os.sched_setaffinity(0, {processors[len(taken) % len(processors)]})
        taken.append(work(x, y, memory))
        due = time.monotonic() + PERIOD
        if select.select([sys.stdin], [], [], PERIOD)[0]:
            due = time.monotonic()
            if not sys.stdin.readline():
                return
            now = time.process_time()
            each = [taken[k :: len(processors)] for k in range(min(len(processors), len(taken)))]
            took = np.mean([np.median(one, axis=0) for one in each], axis=0)
            print(*took, late, now - used, flush=True)
            taken, used, late = [], now, 0.0


if __name__ == "__main__":
    watch()
