"""The model that every server of these tests serves, and how it is replaced while they run.

It is read from the file that SERVED_MODEL names, and used from many threads at once before the
module is imported: whatever forks after that, forks a process whose threads have worked.
"""

from __future__ import annotations

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import seqrs

#: The process that imported this module.
LOADED_IN = os.getpid()

_PATH = Path(os.environ["SERVED_MODEL"])
#: Gets a byte for each request whose computation begins.
_BEGUN = os.open(os.environ["SERVED_BEGUN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class Served:
    """The model of a file, which may be replaced by another at any time.

    A request takes the model of the moment when it arrives, and computes with that one to its end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loading = threading.Lock()
        self._now = self._load()

    def _stamp(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _load(self) -> tuple[tuple[int, int, int], Any]:
        # The stamp first: if the file is replaced after it, the next request reads it again.
        stamp = self._stamp()
        return stamp, seqrs.load(self._path)

    def model(self) -> Any:
        """That of the file as it is now."""
        if self._now[0] != self._stamp():
            with self._loading:
                if self._now[0] != self._stamp():
                    self._now = self._load()
        return self._now[1]


SERVED = Served(_PATH)


def use_with_many_threads(model: Any, threads: int = 8) -> None:
    """Calls the model from many threads, with enough work for the package's own threads too."""
    x = np.zeros((64, 12, 48), np.float32)
    with ThreadPoolExecutor(threads) as callers:
        for _ in range(3):
            list(callers.map(lambda _: model(x), range(threads)))


use_with_many_threads(SERVED.model())


def answer(body: bytes, seconds: float = 0.0) -> bytes:
    """The output for a batch, as bytes of an .npy file; computes again until `seconds` are over."""
    end = time.monotonic() + seconds
    os.write(_BEGUN, b".")
    model = SERVED.model()
    x = np.load(io.BytesIO(body), allow_pickle=False)
    y, _ = model(x)
    while time.monotonic() < end:
        y, _ = model(x)
    written = io.BytesIO()
    np.save(written, y)
    return written.getvalue()


def facts() -> dict[str, str]:
    """What an answer says of its process."""
    return {"X-Worker": str(os.getpid()), "X-Loaded-In": str(LOADED_IN)}
