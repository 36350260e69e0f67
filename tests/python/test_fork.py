"""Processes: a forked child works whatever the parent did before; each child has 20 seconds."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import HERE, Array, assert_same, in_child, pool_threads, python
from tolerances import assert_same_bits

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Python 3.12 warns of forks in a process with threads, which are the point here.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SECONDS = 20.0


def build() -> seqrs.Sequential:
    """Enough work for every thread of the pool."""
    layers = [seqrs.LSTM(48, 128, 2), seqrs.Linear(128, 8)]
    return seqrs.Sequential(layers, seed=0)


MODEL = build()
X = np.random.default_rng(0).uniform(-1, 1, (64, 12, 48)).astype(np.float32)
Y = np.ones((64, 12, 8), np.float32)


def predict() -> Array:
    y: Array = MODEL(X)[0]
    return y


def step() -> Array:
    y: Array = MODEL.step(X[:, 0])[0]
    return y


def train() -> dict[str, Array]:
    model = build()
    trainer = seqrs.Trainer(model, loss=seqrs.MSE(), optimizer=seqrs.Adam(lr=1e-2))
    for _ in range(2):
        trainer.step(X, Y)
    return model.state_dict()


def gradients() -> dict[str, Array]:
    y, _, tape = MODEL.forward(X)
    params: dict[str, Array] = MODEL.backward(tape, np.ones_like(y)).params
    return params


def more_threads() -> Array:
    with seqrs.num_threads(3):
        return predict()


JOBS: dict[str, Callable[[], Any]] = {
    "predict": predict,
    "step": step,
    "train": train,
    "gradients": gradients,
    "more-threads": more_threads,
}


def assert_equal(got: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert_same(got, expected)
    else:
        assert_same_bits(got, expected)


@pytest.fixture(autouse=True)
def _the_parent_has_used_its_pool() -> Iterator[None]:
    before = seqrs.get_num_threads()
    seqrs.set_num_threads(2)
    predict()
    train()
    assert pool_threads()
    yield
    seqrs.set_num_threads(before)


@pytest.mark.parametrize("job", JOBS)
class TestAfterTheParentUsedItsPool:
    def test_os_fork(self, job: str) -> None:
        expected = JOBS[job]()
        assert_equal(in_child(JOBS[job], SECONDS), expected)
        # And the parent goes on as before.
        assert_equal(JOBS[job](), expected)

    def test_multiprocessing(self, job: str) -> None:
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=lambda: queue.put(JOBS[job]()))
        expected = JOBS[job]()
        process.start()
        reader: Any = vars(queue)["_reader"]  # SimpleQueue has no timeout of its own
        arrived = reader.poll(SECONDS)
        found = queue.get() if arrived else None
        if not arrived:
            process.kill()
        process.join(SECONDS)
        assert arrived, f"the child hung for {SECONDS} s"
        assert process.exitcode == 0
        assert_equal(found, expected)

    def test_process_pool_executor(self, job: str) -> None:
        context = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(2, mp_context=context)
        expected = JOBS[job]()
        try:
            futures = [pool.submit(JOBS[job]) for _ in range(4)]
            for future in futures:
                assert_equal(future.result(timeout=SECONDS), expected)
        finally:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


def test_a_child_builds_its_own_pool() -> None:
    def job() -> tuple[int, int]:
        before = len(pool_threads())
        predict()
        return before, len(pool_threads())

    assert in_child(job, SECONDS) == (0, 1)


APP = """
import os, numpy as np, seqrs
from cases import pool_threads

seqrs.set_num_threads(2)
MODEL = seqrs.load("model.safetensors")
MODEL(np.zeros((64, 12, 48), np.float32))
MASTER = os.getpid()
assert pool_threads()


def app(environ, start_response):
    x = np.frombuffer(environ["wsgi.input"].read(), np.float32).reshape(64, 12, 48)
    y = MODEL(x)[0].tobytes()
    headers = {"Content-Length": len(y), "X-Forked": os.getpid() != MASTER, "X-Worker": os.getpid()}
    headers["X-Threads"] = len(pool_threads())
    start_response("200 OK", [(name, str(value)) for name, value in headers.items()])
    return [y]
"""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path: str, x: Array) -> tuple[Array, dict[str, str]]:
    connection = UnixConnection(path)
    try:
        connection.request("POST", "/", x.tobytes())
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return np.frombuffer(body, np.float32).reshape(64, 12, 8), dict(answer.getheaders())
    finally:
        connection.close()


def test_gunicorn_with_preload() -> None:
    """The master loads the model and runs it; its workers are forked after that."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    expected = predict()
    # The path of a socket has at most a hundred characters, so not below tmp_path.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        MODEL.save(folder / "model.safetensors")
        (folder / "app.py").write_text(APP)
        log = folder / "log"
        path = str(folder / "socket")
        options = ["--preload", "--workers=2", f"--bind=unix:{path}", f"--timeout={SECONDS:.0f}"]
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *options, "app:app"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(HERE), "HOME": name},
                stdout=output,
                stderr=output,
                start_new_session=True,
            ) as master,
        ):
            # Its workers too: one that hangs would not notice that the master is gone.
            watchdog = threading.Timer(SECONDS, os.killpg, (master.pid, signal.SIGKILL))
            watchdog.start()
            try:
                while not os.path.exists(path) and master.poll() is None:
                    time.sleep(0.01)
                workers: set[str] = set()
                while len(workers) < 2 and master.poll() is None:
                    with ThreadPoolExecutor(4) as pool:
                        for y, headers in pool.map(lambda _: ask(path, X), range(8)):
                            assert_same_bits(y, expected)
                            assert (headers["X-Forked"], headers["X-Threads"]) == ("True", "1")
                            workers.add(headers["X-Worker"])
                assert len(workers) == 2, log.read_text()
                master.send_signal(signal.SIGTERM)
                assert master.wait(SECONDS) == 0, log.read_text()
            finally:
                watchdog.cancel()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(master.pid, signal.SIGKILL)
        for worker in workers:
            assert not os.path.exists(f"/proc/{worker}"), log.read_text()


LIMITED = """
import os, resource, sys, threading, numpy as np, seqrs
from cases import pool_threads
from digests import trained
seqrs.set_num_threads(3)
[getattr(seqrs, name) for name in seqrs.__all__]    # those that are imported late
x = np.random.default_rng(0).uniform(-1, 1, (64, 12, 48)).astype(np.float32)
limit, fork = sys.argv[1:]
if fork == "True":
    seqrs.LSTM(48, 128)(x)
    assert len(pool_threads()) == 2
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
if limit == "True":
    if os.geteuid() == 0:               # whom the limit does not apply to
        os.setgid(65534)
        os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    try:
        threading.Thread(target=int).start()
        sys.exit("a thread was started, so the limit limits nothing")
    except RuntimeError:
        pass
assert not pool_threads()
layer = seqrs.LSTM(48, 128, seed=0)
y, _, tape = layer.forward(x)
found = [y, layer(x)[0], layer.backward(tape, y).x, *trained("float32").values()]
print(len(pool_threads()), "".join(a.tobytes().hex() for a in found))
"""


@pytest.mark.parametrize("fork", [False, True], ids=["new", "forked"])
def test_where_no_thread_can_be_had_it_computes_alone_and_warns_once(fork: bool) -> None:
    pytest.importorskip("resource", reason="this system has no limits")
    free, limited = (python(LIMITED, str(k), str(fork), timeout=SECONDS) for k in (False, True))
    assert (free.returncode, limited.returncode) == (0, 0), (free.stderr, limited.stderr)
    assert free.stderr == ""
    (threads, bits), (none, same_bits) = free.stdout.split(), limited.stdout.split()
    assert (threads, none) == ("2", "0")
    assert same_bits == bits
    assert limited.stderr.count("\n") == 1, limited.stderr
    assert re.fullmatch("seqrs: computing on .* as no more can be had: .*", limited.stderr.strip())


def test_a_second_interpreter_works_or_says_that_it_cannot() -> None:
    """Extension modules of this kind belong to one interpreter of a process."""
    code = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import seqrs
print(seqrs.LSTM(1, 2)([[[1.0]]])[0].shape, flush=True)
other = interpreters.create()
interpreters.run_string(other, '''
try:
    import seqrs
    print("works", seqrs.LSTM(1, 2)([[[1.0]]])[0].shape, flush=True)
except ImportError as error:
    print("refused", flush=True)
''')
print(seqrs.LSTM(1, 2)([[[1.0]]])[0].shape, flush=True)
"""
    found = python(code, timeout=SECONDS)
    assert found.returncode == 0, found.stderr
    first, told, last = found.stdout.splitlines()
    assert first == last == "(1, 1, 2)"
    assert told in ("refused", "works (1, 1, 2)")


class TestForkAtABadMoment:
    @pytest.mark.parametrize("job", ["predict", "train"])
    def test_while_another_thread_is_inside_predict(self, job: str) -> None:
        expected = JOBS[job]()
        done = threading.Event()
        problems: list[str] = []

        def keep_busy() -> None:
            try:
                while not done.is_set():
                    predict()
            except BaseException as error:
                problems.append(repr(error))

        busy = [threading.Thread(target=keep_busy) for _ in range(2)]
        for thread in busy:
            thread.start()
        try:
            for _ in range(6):
                assert_equal(in_child(JOBS[job], SECONDS), expected)
        finally:
            done.set()
            for thread in busy:
                thread.join(SECONDS)
        assert not problems

    def test_a_child_of_a_child(self) -> None:
        expected = predict()
        assert_equal(in_child(lambda: in_child(predict, SECONDS / 2), SECONDS), expected)

    def test_a_child_that_used_its_pool_has_children(self) -> None:
        def job() -> Array:
            predict()
            return in_child(predict, SECONDS / 2)  # type: ignore[no-any-return]

        assert_equal(in_child(job, SECONDS), predict())

    def test_before_the_first_use(self) -> None:
        code = """
import numpy as np, seqrs
from cases import in_child
x = np.zeros((64, 12, 48), np.float32)
seqrs.set_num_threads(2)
layer = seqrs.LSTM(48, 128)
print(in_child(lambda: layer(x)[0].shape), layer(x)[0].shape)
"""
        found = python(code, timeout=SECONDS + 10)
        assert found.stdout.split() == ["(64,", "12,", "128)", "(64,", "12,", "128)"], found.stderr

    def test_many_children(self) -> None:
        expected = predict()
        for _ in range(10):
            assert_equal(in_child(predict, SECONDS), expected)

    def test_a_child_ends_normally(self) -> None:
        code = """
import os, sys, numpy as np, seqrs
seqrs.set_num_threads(2)
layer, x = seqrs.LSTM(48, 128), np.zeros((64, 12, 48), np.float32)
layer(x)
pid = os.fork()
layer(x)
if pid == 0:
    sys.exit(7)                              # with everything that runs at exit
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        found = python(code, timeout=SECONDS)
        assert found.stdout.strip() == "7", found.stderr

    def test_spawned_children_too(self) -> None:
        code = """
import multiprocessing, numpy as np, seqrs
if __name__ == "__main__":
    layer, x = seqrs.LSTM(4, 8), np.ones((2, 3, 4), np.float32)
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        y, _ = pool.apply_async(layer, (x,)).get(20)
    print((y == layer(x)[0]).all())
"""
        found = python(code, timeout=SECONDS + 10)
        assert found.stdout.strip() == "True", found.stderr

    def test_a_trainer_that_was_working(self) -> None:
        """It is lost to the child, which is told so; a new trainer of the same model works."""
        layers = [seqrs.LSTM(48, 128, 2), seqrs.Linear(128, 8)]
        trainer = seqrs.Trainer(seqrs.Sequential(layers, seed=0), loss=seqrs.MSE())
        x, y = np.tile(X, (8, 8, 1)), np.tile(Y, (8, 8, 1))
        done = threading.Event()
        problems: list[str] = []

        def keep_busy() -> None:
            try:
                while not done.is_set():
                    trainer.step(x, y)
            except BaseException as error:
                problems.append(repr(error))

        def job() -> tuple[str, int]:
            message = "none"
            for attempt in (lambda: trainer.step(X, Y), lambda: trainer.steps_done):
                try:
                    attempt()
                except seqrs.StateError as error:
                    message = str(error)
            fresh = seqrs.Trainer(trainer.model, loss=seqrs.MSE())
            fresh.step(X, Y)
            return message, fresh.steps_done

        busy = threading.Thread(target=keep_busy)
        busy.start()
        try:
            # Almost always in the middle of a step, and never certainly.
            found = {in_child(job, SECONDS) for _ in range(5)}
        finally:
            done.set()
            busy.join(SECONDS)
        assert not problems
        expected = "trainer: expected one that was idle when this process was forked, or a new one"
        got = "one that was working then in the parent process"
        assert (f"{expected}, got {got}", 1) in found
        assert found <= {(f"{expected}, got {got}", 1), ("none", 1)}
