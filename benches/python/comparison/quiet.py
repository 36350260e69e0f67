"""Whether the machine, at this moment, gives all the processors that it promises.

Other processes may hold one; a virtual machine may have two processors that for a while are one
core's two threads. Nothing in the system's accounts shows the latter, but work does: the same
arithmetic on every thread at once takes longer than it has taken before.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Any

import numpy as np

#: Numbers that a thread works on, within its L2, and how often: a millisecond in all.
NUMBERS, TIMES = 1 << 15, 60
#: So much over the least seen means that they are not all there: two threads that share one core
#: take twice as long.
SLOWER = 1.6


@cache
def processors(count: int) -> Processors:
    """The same for a whole run, so that the least of all its moments counts."""
    return Processors(count)


class Processors:
    """So many of them, asked for the same work now and then."""

    def __init__(self, count: int) -> None:
        self._others = ThreadPoolExecutor(count - 1) if count > 1 else None
        self._barrier = Barrier(count)
        self._arrays = [
            (np.linspace(-1, 1, NUMBERS, dtype=np.float32), np.empty(NUMBERS, np.float32))
            for _ in range(count)
        ]
        # Over more than a second: the first moment may be a bad one.
        self._least = min(self._seconds(after=0.01) for _ in range(100))

    def are_free(self) -> bool:
        seconds = self._seconds()
        self._least = min(self._least, seconds)
        return seconds < SLOWER * self._least

    def _seconds(self, after: float = 0.0) -> float:
        """Of the thread that takes longest."""
        time.sleep(after)
        others = [
            self._others.submit(self._work, *arrays) for arrays in self._arrays[1:] if self._others
        ]
        own = self._work(*self._arrays[0])
        return max([own, *(other.result() for other in others)])

    def _work(self, x: Any, y: Any) -> float:
        self._barrier.wait()
        start = time.perf_counter()
        for _ in range(TIMES):
            # Leaves the interpreter to the other threads, and does nothing but arithmetic.
            np.exp(x, out=y)
        return time.perf_counter() - start
