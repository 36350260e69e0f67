"""Good neighbours: what the package leaves to other processes, and to other threads of its own.

How long calls take beside a busy process, and from many threads, is measured by
`benches/python/neighbours.py`. Here stands what holds on any machine, however busy it is.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import WAYS, Array, Given, assert_same, everything, make, python

#: Callers at once.
CALLERS = 8
#: Seconds after which a process or thread hangs.
SECONDS = 60.0
#: Seconds that a process may compute in a second in which nothing is asked of it.
IDLE = 0.001

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, of Linux")


@pytest.fixture(autouse=True)
def _threads_are_put_back() -> Iterator[None]:
    before = seqrs.get_num_threads()
    yield
    seqrs.set_num_threads(before)


#: Kind of work -> code that does it on three threads, by the function `job`.
JOBS = {
    "one-row": """
layer = seqrs.LSTM(256, 256)                    # whose units are shared at every step
x = np.ones((1, 100, 256), np.float32)
job = lambda: layer(x)
""",
    "rows": """
layer = seqrs.GRU(64, 128, 2, bidirectional=True)
x = np.ones((32, 20, 64), np.float32)
job = lambda: layer(x)
""",
    "gradients": """
layer = seqrs.LSTM(128, 256)
x = np.ones((2, 30, 128), np.float32)
def job():
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)
""",
    "training": """
layers = [seqrs.Embedding(50, 64), seqrs.LSTM(64, 128), seqrs.Linear(128, 50)]
trainer = seqrs.Trainer(seqrs.Sequential(layers))
ids = np.ones((32, 20), np.int64)
job = lambda: trainer.step(ids, ids)
""",
    "callers": """
layer = seqrs.LSTM(256, 256)
x = np.ones((1, 100, 256), np.float32)
def job():
    threads = [threading.Thread(target=layer, args=(x,)) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
""",
}
START = """
import os, threading, time, numpy as np, seqrs
from cases import pool_threads
seqrs.set_num_threads(3)
"""


def told(code: str) -> list[str]:
    """The words that a new process prints."""
    found = python(START + code, timeout=SECONDS)
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


@linux
@pytest.mark.parametrize("name", JOBS)
class TestIdle:
    def test_nothing_is_computed_after_a_call(self, name: str) -> None:
        code = f"""{JOBS[name]}
job()
spent = []
while len(spent) < 5 and min(spent, default=1.0) >= {IDLE}:
    job()
    before = time.process_time()
    time.sleep(1.0)
    spent.append(time.process_time() - before)
print(len(pool_threads()), min(spent))
"""
        threads, spent = told(code)
        assert threads == "2", "none was idle"
        assert float(spent) < IDLE

    def test_nobody_wakes_up_to_look_for_work(self, name: str) -> None:
        code = f"""{JOBS[name]}
def sleeps():
    '''How often each thread of the pool has gone to sleep.'''
    found = {{}}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{{task}}/status") as file:
            entries = dict(line.split(":", 1) for line in file)
        if entries["Name"].strip().startswith("seqrs"):
            found[task] = int(entries["voluntary_ctxt_switches"])
    return found

job()
for _ in range(5):
    job()
    time.sleep(0.2)                             # until the last has gone to sleep
    before = sleeps()
    time.sleep(0.5)
    if sleeps() == before:
        break
print(len(before), sleeps() == before)
"""
        assert told(code) == ["2", "True"]


@linux
class TestOnePool:
    def test_it_is_all_that_there_is_whatever_the_callers_do(self) -> None:
        """Threads of the process: those of Python, and one pool."""
        makers = "".join(
            f"\ndef make_{k}():\n    "
            + JOBS[name].strip().replace("\n", "\n    ")
            + "\n    return job\n"
            for k, name in enumerate(("one-row", "rows", "gradients", "training"))
        )
        code = f"""
def threads():
    return len(os.listdir("/proc/self/task"))

seqrs.set_num_threads(1)
before = threads()                              # NumPy may have some
seqrs.set_num_threads(3)
{makers}
jobs = [make() for _ in range(2) for make in (make_0, make_1, make_2, make_3)]
jobs[0]()
problems, most = [], 0

def call(job):
    try:
        for _ in range(3):
            job()
    except BaseException as error:
        problems.append(error)

for wave in range(5):
    callers = [threading.Thread(target=call, args=(job,)) for job in jobs]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        most = max(most, threads())
        time.sleep(0.0005)
    end = time.monotonic() + 10                 # one that is no longer alive may still be there
    while threads() - before > 2 and time.monotonic() < end:
        time.sleep(0.001)
assert not problems, problems
print(most - before, threads() - before, len(pool_threads()))
"""
        most, left, pool = map(int, told(code))
        assert most <= CALLERS + 2
        assert (left, pool) == (2, 2)

    def test_other_numbers_of_threads_do_not_add_up(self) -> None:
        """A pool that is too small gives way to one of twice its size, and stays, asleep."""
        code = f"""{JOBS["rows"]}
for n in (2, 3, 4, 5, 6, 7, 8, 9):
    seqrs.set_num_threads(n)
    job()
print(len(pool_threads()))
for n in (2, 9, 1, 3, 8, 5):
    seqrs.set_num_threads(n)
    job()
print(len(pool_threads()))
"""
        first, last = map(int, told(code))
        assert 8 <= first < 2 * 8
        assert last == first


def given(layer: Any, k: int) -> tuple[Given, dict[str, Any]]:
    """The arguments of caller `k`: other shapes, some of one row, some with lengths."""
    batch = (1, 1, 2, 4, 7, 16, 33, 2)[k]
    options = {"lengths": 40 - np.arange(batch) % 5} if k % 2 else {}
    return Given(layer, batch, 40, seed=10 + k), options


class TestManyCallers:
    @pytest.mark.parametrize("cell", WAYS)
    def test_each_gets_the_bits_that_it_gets_alone(self, cell: str) -> None:
        """All begin before the weights are packed, and the number of threads changes meanwhile."""
        sizes = {"inputs": 32, "hidden": 256}
        seqrs.set_num_threads(1)
        alone = make(cell, **sizes)
        arguments = [given(alone, k) for k in range(CALLERS)]
        expected = [everything(alone, arrays, **options) for arrays, options in arguments]
        shared = make(cell, **sizes)
        begin = threading.Barrier(CALLERS)
        found: list[dict[str, Array]] = [{} for _ in range(CALLERS)]
        problems: list[str] = []

        def call(k: int) -> None:
            arrays, options = arguments[k]
            try:
                begin.wait(SECONDS)
                for n in range(3):
                    seqrs.set_num_threads(1 + (k + n) % 4)
                    found[k] = everything(shared, arrays, **options)
                    assert_same(found[k], expected[k])
            except BaseException as error:
                problems.append(f"caller {k}: {error!r}")

        callers = [threading.Thread(target=call, args=(k,)) for k in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(SECONDS)
        assert not any(caller.is_alive() for caller in callers)
        assert not problems
        assert all(found)

    @linux
    @pytest.mark.parametrize("cell", WAYS)
    def test_threads_that_have_to_share_a_processor_give_the_same_bits(self, cell: str) -> None:
        """Where helpers come late, or are put aside in the middle of their part."""
        code = f"""
from cases import Given, assert_same, everything, make
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
seqrs.set_num_threads(1)
layer = make({cell!r}, inputs=32, hidden=384)
shapes = [Given(layer, batch, 150) for batch in (1, 2, 9)]
expected = [everything(layer, given) for given in shapes]
assert not pool_threads()

def busy():
    while not done.is_set():
        sum(range(10_000))

done = threading.Event()
neighbour = threading.Thread(target=busy)
neighbour.start()
try:
    for n in (2, 3, 5):
        seqrs.set_num_threads(n)
        for given, result in zip(shapes, expected):
            assert_same(everything(layer, given), result)
finally:
    done.set()
    neighbour.join()
print(len(pool_threads()) > 0)
"""
        assert told(code) == ["True"]
