"""How many threads share a computation, and what the process runs on.

The number is, each above the one before: the processors that affinity and the cgroup leave,
`OMP_NUM_THREADS`, `SEQRS_NUM_THREADS`, `set_num_threads`. No result depends on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import _seqrs
from .options import flag, integer

__all__ = ["get_num_threads", "info", "num_threads", "set_num_threads"]

#: More threads than any machine has processors.
_MOST_THREADS = 65_536


def set_num_threads(n: int) -> None:
    """Sets the number of threads for this process.

    Raises:
        TypeError: `n` is not an integer.
        ShapeError: it is less than 1.
    """
    _seqrs.set_num_threads(integer("n", n, 1, _MOST_THREADS))


def get_num_threads() -> int:
    """The number of threads in use.

    Raises:
        ValueError: `SEQRS_NUM_THREADS` is set but is no integer of at least 1.
    """
    return _seqrs.get_num_threads()


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """`with seqrs.num_threads(n):` sets the number, and puts the one before back at the end.

    The number belongs to the process, so other Python threads see it too.
    """
    n = integer("n", n, 1, _MOST_THREADS)
    # What was asked for, not what is in use: a default goes on following the environment and,
    # in a forked child, the child's affinity.
    before = _seqrs.asked_threads()
    _seqrs.set_num_threads(n)
    try:
        yield
    finally:
        _seqrs.restore_threads(before)


def info(gpu: bool = False) -> dict[str, Any]:
    """What seqrs is and runs on.

    Args:
        gpu: whether to look for GPUs as well, which may take a second: `gpus` is then what
            `seqrs.gpu.adapters` gives.

    Keys: `version`; `level`, the instruction set in use (scalar, avx2, avx512, neon); `levels`,
    those that the processor has; `threads`, in use; `processors`, of the machine; `available`,
    those that affinity and the cgroup leave; `cgroup_limit`, processors' worth of time that the
    cgroup grants, None if it sets no limit.

    Raises:
        ValueError: `SEQRS_NUM_THREADS` or `SEQRS_LEVEL` cannot be followed.
    """
    found = {
        **_seqrs.info(),
        "processors": os.cpu_count() or 1,
        "cgroup_limit": _cgroup_limit(),
    }
    if flag("gpu", gpu):
        found["gpus"] = _seqrs.gpu_adapters()
    return found


def _cgroup_limit() -> float | None:
    """The least quota / period on the way from this process's cgroup to the root."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as lines:
            entries = [line.rstrip("\n").split(":", 2) for line in lines]
    except (OSError, UnicodeDecodeError):
        return None
    limits: list[float] = []
    for entry in entries:
        if len(entry) != 3:
            continue
        _, controllers, path = entry
        if controllers == "":
            root, read = "/sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            root, read = "/sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        # In a container the path is the host's and may not be here; the root is ours then.
        folders = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(folders) + 1):
            limit = read("/".join([root, *folders[:depth]]))
            if limit is not None:
                limits.append(limit)
    return min(limits, default=None)


def _quota_v2(folder: str) -> float | None:
    match _words(f"{folder}/cpu.max"):
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period) > 0:
            return int(quota) / int(period)
    return None


def _quota_v1(folder: str) -> float | None:
    match _words(f"{folder}/cpu.cfs_quota_us"), _words(f"{folder}/cpu.cfs_period_us"):
        case [quota], [period] if quota.isdigit() and period.isdigit() and int(period) > 0:
            return int(quota) / int(period)
    return None


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split()
    except (OSError, UnicodeDecodeError):
        return []
