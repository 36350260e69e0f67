"""Servers as processes of their own: started, asked over loopback, stopped, and seen to be gone."""

from __future__ import annotations

import http.client
import io
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from cases import HERE, Array
from tolerances import assert_same_bits

#: How long one answer, a start and an end may take.
SECONDS = 20.0
#: How long a server may live; then all its processes are killed.
LIFE = 60.0


class Answer(NamedTuple):
    """An output, and the processes that computed it and that had loaded the code."""

    y: Array
    worker: int
    loaded_in: int
    #: When it was asked for and when it was there, by `time.monotonic`.
    asked: float
    came: float


#: Gives the output for a batch, by a computation that is done again until so many seconds are over.
Ask = Callable[[Array, float], Answer]


class Server:
    """A server that runs, with all its processes."""

    def __init__(self, leader: subprocess.Popen[bytes], mark: str, log: Path) -> None:
        self._leader = leader
        self._mark = mark.encode()
        self._log = log
        self._killed = False

    @property
    def leader(self) -> int:
        return self._leader.pid

    def log(self) -> str:
        late = f"(killed by the watchdog after {LIFE} s)\n" if self._killed else ""
        lines = self._log.read_text(errors="replace").splitlines()
        return late + "\n".join(line[:300] for line in lines[-100:])

    def require(self, condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
        """Waits until it holds, and gives what it gave."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert self._leader.poll() is None, f"the server ended\n{self.log()}"
            assert time.monotonic() < end, f"not within {seconds} s: {what}\n{self.log()}"
            time.sleep(0.01)
        return found

    def printed(self, pattern: str, seconds: float = SECONDS) -> re.Match[str]:
        """Waits for words in what it prints."""
        found = self.require(lambda: re.search(pattern, self.log()), pattern, seconds)
        assert isinstance(found, re.Match)
        return found

    def processes(self) -> set[int]:
        """The leader, its descendants, their descendants though these have lost their parents, and
        whoever is of its session."""
        parents: dict[int, int] = {}
        found = {self.leader}
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                # pid (name, in which there may be anything) state parent group session ...
                state, parent, _, session = _after_the_name(name).split()[:4]
                environment = Path(f"/proc/{name}/environ").read_bytes()
                if state in "ZX":
                    continue
                parents[int(name)] = int(parent)
                if int(session) == self.leader or self._mark in environment:
                    found.add(int(name))
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found & parents.keys()

    def end(self, with_signal: signal.Signals) -> int:
        """Sends the signal, Ctrl-C to the whole group as terminals do; gives the exit status.

        Whatever lives then that was a process of the server is a failure.
        """
        before = self.processes()
        if with_signal == signal.SIGINT:
            os.killpg(self.leader, with_signal)
        else:
            os.kill(self.leader, with_signal)
        try:
            status = self._leader.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on after {with_signal.name}\n{self.log()}") from None
        end = time.monotonic() + SECONDS / 4
        while left := (before & living()) | self.processes():
            words = [_command(pid) for pid in left]
            assert time.monotonic() < end, f"it ended and left {words}\n{self.log()}"
            time.sleep(0.02)
        return status

    def kill(self) -> None:
        """Ends all its processes at once; those that come while it does, too."""
        for _ in range(3):
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def kill_when_late(self) -> None:
        self._killed = True
        self.kill()


def _after_the_name(pid: str | int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "one that is gone"


def living() -> set[int]:
    """The processes that have not ended, those excepted that only wait to be reaped."""
    found = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if _after_the_name(name).split()[0] not in "ZX":
                found.add(int(name))
    return found


@contextmanager
def running(
    command: Sequence[str], folder: Path, env: Mapping[str, str | None]
) -> Iterator[Server]:
    """Starts a server in a session of its own, in `servers`; in the end no process of it is left.

    A variable that is None in `env` is taken away.
    """
    mark = f"SERVED_MARK={uuid.uuid4()}"
    path = [str(HERE / "servers"), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", **env}
    given |= dict([mark.split("=")])
    log = folder / "log"
    output: IO[bytes]
    with log.open("wb") as output:
        leader = subprocess.Popen(
            command,
            cwd=HERE / "servers",
            env={name: value for name, value in given.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        server = Server(leader, mark, log)
        watchdog = threading.Timer(LIFE, server.kill_when_late)
        watchdog.start()
        try:
            yield server
        finally:
            watchdog.cancel()
            server.kill()
            leader.wait()


def bytes_of(x: Array) -> bytes:
    """An array as the bytes of an .npy file."""
    written = io.BytesIO()
    np.save(written, x)
    return written.getvalue()


def array_of(body: bytes) -> Array:
    found: Array = np.load(io.BytesIO(body), allow_pickle=False)
    return found


def request(port: int, method: str, path: str, body: bytes = b"") -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an answer, which has to be 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        found = answer.read()
        assert answer.status == 200, (answer.status, found)
        return found, dict(answer.getheaders())
    finally:
        connection.close()


def by_http(port: int) -> Ask:
    """Asks a server at a port of loopback."""

    def ask(x: Array, seconds: float) -> Answer:
        asked = time.monotonic()
        body, headers = request(port, "POST", f"/predict?seconds={seconds}", bytes_of(x))
        names = {name.lower(): value for name, value in headers.items()}
        worker, loaded_in = int(names["x-worker"]), int(names["x-loaded-in"])
        return Answer(array_of(body), worker, loaded_in, asked, time.monotonic())

    return ask


def is_ready(port: int) -> bool:
    try:
        request(port, "GET", "/ready")
    except (OSError, http.client.HTTPException, AssertionError):
        return False
    return True


def load(
    ask: Ask, xs: Sequence[Array], expected: Sequence[Array], *, requests: int, callers: int = 8
) -> list[Answer]:
    """Asks so many times, never more than `callers` at once; each answer has the bits expected."""

    def one(k: int) -> Answer:
        found = ask(xs[k % len(xs)], 0.0)
        assert_same_bits(found.y, expected[k % len(xs)], f"request {k}")
        return found

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(one, range(requests)))
