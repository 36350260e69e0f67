"""Real servers: what they answer under load has the bits of a direct call, whatever they do.

Each serves a model of two LSTMs, from workers that were forked after the model was used by many
threads (gunicorn with --preload, a pool of multiprocessing, Celery), or that loaded it themselves
(uvicorn, Ray Serve). The servers are in the folder `servers`, and each has a watchdog that kills
all its processes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import seqrs
from cases import HERE, Array, pool_threads
from serving import (
    SECONDS,
    Answer,
    Ask,
    Server,
    array_of,
    by_http,
    bytes_of,
    is_ready,
    load,
    running,
)
from tolerances import assert_same_bits

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in Linux's /proc"),
    # Python 3.12 warns of forks in a process with threads.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def build(seed: int) -> Any:
    """Enough work for the package's own threads."""
    return seqrs.Sequential([seqrs.LSTM(48, 128, 2), seqrs.Linear(128, 8)], seed=seed)


#: Two models that are served in turn.
MODELS = [build(0), build(1)]
XS = [
    np.random.default_rng(k).uniform(-1, 1, shape).astype(np.float32)
    for k, shape in enumerate([(64, 12, 48), (1, 12, 48), (5, 31, 48), (33, 7, 48)])
]


@pytest.fixture(scope="module")
def expected() -> list[list[Array]]:
    """What each model gives for each input."""
    return [[model(x)[0] for x in XS] for model in MODELS]


# How each is started.


def gunicorn(*options: str) -> list[str]:
    given = ["--bind=127.0.0.1:0", "--no-control-socket", f"--timeout={SECONDS:.0f}", *options]
    return [sys.executable, "-m", "gunicorn", *given, "gunicorn_app:app"]


def uvicorn(*options: str) -> list[str]:
    given = ["--host=127.0.0.1", "--port=0", f"--timeout-worker-healthcheck={SECONDS:.0f}"]
    return [sys.executable, "-m", "uvicorn", *given, *options, "uvicorn_app:app"]


CELERY = ["--app=celery_app", "worker", "--pool=prefork", "--concurrency=2", "--loglevel=INFO"]
CELERY += ["--without-gossip", "--without-mingle", "--without-heartbeat"]


class Kind(NamedTuple):
    command: list[str]
    #: Packages that it needs.
    needs: tuple[str, ...]
    workers: int
    #: Whether the workers are forked from a process that has used the model.
    forked: bool
    #: The exit status after Ctrl-C.
    interrupted: int = 0


KINDS = {
    "gunicorn": Kind(
        gunicorn("--workers=4", "--preload", "--config=gunicorn_conf.py"), ("gunicorn",), 4, True
    ),
    "uvicorn": Kind(uvicorn("--workers=3"), ("uvicorn", "fastapi"), 3, False),
    "fork-pool": Kind([sys.executable, "fork_pool.py"], (), 4, True),
    # Celery drains on Ctrl-C as on SIGTERM, and calls that a failure.
    "celery": Kind([sys.executable, "-m", "celery", *CELERY], ("celery",), 2, True, interrupted=1),
}


class Running(NamedTuple):
    """A server that is ready."""

    kind: Kind
    server: Server
    ask: Ask
    folder: Path
    port: int | None

    def put(self, model: Any) -> None:
        """Has it serve another model from now on."""
        model.save(self.folder / "next.safetensors")
        os.replace(self.folder / "next.safetensors", self.folder / "model.safetensors")

    def begun(self) -> int:
        """How many requests were begun to be computed."""
        return (self.folder / "begun").stat().st_size

    def load(self, expected: list[Array], requests: int = 160, callers: int = 8) -> list[Answer]:
        """Loads it until every worker has answered."""
        answers = load(self.ask, XS, expected, requests=requests, callers=callers)
        end = time.monotonic() + SECONDS
        while len({answer.worker for answer in answers}) < self.kind.workers:
            assert time.monotonic() < end, f"a worker has not answered\n{self.server.log()}"
            answers += load(self.ask, XS, expected, requests=callers, callers=callers)
        return answers


@contextmanager
def ready(kind: Kind, env: dict[str, str | None] | None = None) -> Iterator[Running]:
    """Starts it with the first model, and waits until it answers."""
    for name in kind.needs:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed, which `make test-servers` does")
    # Short, as paths of sockets have at most a hundred characters.
    with tempfile.TemporaryDirectory(prefix="served-") as name:
        folder = Path(name)
        MODELS[0].save(folder / "model.safetensors")
        (folder / "begun").touch()
        names: dict[str, str | None] = {
            "SERVED_MODEL": str(folder / "model.safetensors"),
            "SERVED_BEGUN": str(folder / "begun"),
            "SERVED_FOLDER": name,
            "SEQRS_NUM_THREADS": "2",
            "HOME": name,
        }
        with running(kind.command, folder, names | (env or {})) as server:
            if "celery" in kind.needs:
                server.printed(r"celery@\S+ ready")
                yield Running(kind, server, by_celery(folder), folder, None)
            else:
                port = int(server.printed(r"http://127\.0\.0\.1:(\d+)")[1])
                server.require(lambda: is_ready(port), "an answer")
                yield Running(kind, server, by_http(port), folder, port)


def by_celery(folder: Path) -> Ask:
    from servers.celery_broker import connected

    app = connected(folder)

    def ask(x: Array, seconds: float) -> Answer:
        asked = time.monotonic()
        result = app.send_task("predict", [bytes_of(x), seconds])
        body, facts = result.get(timeout=SECONDS, interval=0.01)
        worker, loaded_in = int(facts["X-Worker"]), int(facts["X-Loaded-In"])
        return Answer(array_of(body), worker, loaded_in, asked, time.monotonic())

    return ask


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest) -> Iterator[Running]:
    """One server for the tests that leave it as it was."""
    with ready(KINDS[request.param]) as found:
        yield found


def test_under_load_each_answer_has_the_bits_of_a_direct_call(
    served: Running, expected: list[list[Array]]
) -> None:
    check_load(served, expected)


def check_load(served: Running, expected: list[list[Array]]) -> None:
    answers = served.load(expected[0])
    workers = {answer.worker for answer in answers}
    assert len(workers) == served.kind.workers
    assert workers <= served.server.processes()
    for answer in answers:
        assert (answer.loaded_in != answer.worker) == served.kind.forked
    # Each worker has made threads of its own, one besides the two that SEQRS_NUM_THREADS says.
    for worker in workers:
        assert len(pool_threads(worker)) == 1


def test_a_model_is_replaced_under_load(served: Running, expected: list[list[Array]]) -> None:
    check_replacement(served, expected)


def check_replacement(served: Running, expected: list[list[Array]]) -> None:
    """Each answer is wholly of the old or wholly of the new; what is asked after, of the new."""
    assert not any((a.tobytes() == b.tobytes()) for a, b in zip(*expected, strict=True))
    done = threading.Event()
    found: list[tuple[int, Answer]] = []

    def go_on(k: int) -> None:
        while not done.is_set():
            found.append((k, served.ask(XS[k], 0.0)))

    # Which model is put when: from the beginning of the replacement to its end.
    puts = [(0, 0.0, 0.0)]
    with ThreadPoolExecutor(len(XS)) as callers:
        going_on = [callers.submit(go_on, k) for k in range(len(XS))]
        try:
            for which in (1, 0, 1, 0):
                begun = time.monotonic()
                served.put(MODELS[which])
                puts.append((which, begun, time.monotonic()))
                after = len(found)
                served.server.require(
                    lambda after=after: (
                        len(found) > after + 60 or any(each.done() for each in going_on)
                    ),
                    "answers",
                )
        finally:
            done.set()
        for each in going_on:
            each.result(SECONDS)

    seen = set()
    for k, answer in found:
        # The last model that was there when it was asked, and those that came until the answer.
        sure = max(i for i, (_, _, end) in enumerate(puts) if end < answer.asked)
        possible = {puts[sure][0]}
        possible |= {which for which, begun, _ in puts[sure + 1 :] if begun < answer.came}
        bits = [which for which in (0, 1) if answer.y.tobytes() == expected[which][k].tobytes()]
        assert len(bits) == 1, "an answer that is neither model's"
        assert bits[0] in possible, "an answer of a model that was not there"
        seen.add(puts[sure][0])
    assert seen == {0, 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
@pytest.mark.parametrize("kind", KINDS)
def test_it_drains(kind: str, number: signal.Signals, expected: list[list[Array]]) -> None:
    with ready(KINDS[kind]) as served:
        check_draining(served, number, expected)


def check_draining(served: Running, number: signal.Signals, expected: list[list[Array]]) -> None:
    """What was begun is answered, the exit status is 0, and nothing is left."""
    served.load(expected[0], requests=8)
    before, at_once = served.begun(), min(served.kind.workers, 4)
    with ThreadPoolExecutor(at_once) as callers:
        asked = [callers.submit(served.ask, XS[k], 1.0) for k in range(at_once)]
        served.server.require(lambda: served.begun() == before + at_once, "all are begun")
        sent = time.monotonic()
        status = served.server.end(number)
        answers = [each.result(SECONDS) for each in asked]
    for k, answer in enumerate(answers):
        assert_same_bits(answer.y, expected[0][k], f"request {k}")
        assert answer.came > sent, "it was answered before the signal, which shows nothing"
    wanted = served.kind.interrupted if number == signal.SIGINT else 0
    assert status == wanted, served.server.log()
    assert served.port is None or not is_ready(served.port)


def test_eight_threads_compute_with_one_model(expected: list[list[Array]]) -> None:
    """A worker with threads: eight requests at the same moment, and one pool for all of them."""
    threads = 8
    options = [f"--threads={threads}", "--worker-class=gthread", "--workers=1", "--preload"]
    kind = Kind(gunicorn(*options), ("gunicorn",), 1, True)
    with ready(kind, {"SERVED_TOGETHER": str(threads)}) as served:
        # The server holds each request until there are eight.
        answers = served.load(expected[0], requests=threads * 8, callers=threads)
        (worker,) = {answer.worker for answer in answers}
        assert len(pool_threads(worker)) == 1
        assert served.server.end(signal.SIGTERM) == 0, served.server.log()


# Limits of containers.


def cgroup_files(version: int, root: Path) -> tuple[Path, Path]:
    """A tree of /sys/fs/cgroup that grants a group one and a half processors, and the words of
    /proc/self/cgroup that put a process into it."""
    tree, words = root / "cgroup", root / "self"
    if version == 2:
        files = {"cgroup.controllers": "cpu\n", "box/cgroup.controllers": "cpu\n"}
        files |= {"cpu.max": "max 100000\n", "box/cpu.max": "150000 100000\n"}
    else:
        files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/box/cpu.cfs_quota_us": "150000\n"}
        files |= {"cpu/cpu.cfs_period_us": "100000\n", "cpu/box/cpu.cfs_period_us": "100000\n"}
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    words.write_text("0::/box\n" if version == 2 else "1:cpu:/box\n")
    return tree, words


IN_CGROUP = """
set -eu
mount --bind "$1" /sys/fs/cgroup
mount --bind "$2" /proc/$$/cgroup
shift 2
exec "$@"
"""


def own_mounts() -> list[str]:
    """The command before another one that may cover files for itself alone."""
    root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    if shutil.which("unshare"):
        command = ["unshare", "--mount", *root]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("this system does not let a process cover files for itself (unshare --mount)")


def in_cgroup(version: int, root: Path) -> tuple[list[str], dict[str, str | None]]:
    tree, words = cgroup_files(version, root)
    command = [*own_mounts(), "bash", "-c", IN_CGROUP, "bash", str(tree), str(words)]
    return command, {"SERVED_CGROUP": str(words)}


def on_one_processor() -> list[str]:
    if shutil.which("taskset") is None:
        pytest.skip("there is no taskset")
    return ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]


@pytest.mark.parametrize("limit", ["none", "taskset", "cgroup-v2", "cgroup-v1"])
def test_workers_take_the_processors_that_a_container_grants(
    limit: str, tmp_path: Path, expected: list[list[Array]]
) -> None:
    found = seqrs.info()
    if min(len(os.sched_getaffinity(0)), found["cgroup_limit"] or 2) < 2:
        pytest.skip("this machine has less than two processors to be limited")
    before: list[str] = []
    env: dict[str, str | None] = {"SEQRS_NUM_THREADS": None, "OMP_NUM_THREADS": None}
    options = ["--workers=2", "--preload"]
    if limit == "taskset":
        before = on_one_processor()
    elif limit != "none":
        before, more = in_cgroup(int(limit[-1]), tmp_path)
        env |= more
        options.append("--config=gunicorn_cgroup.py")
    kind = Kind([*before, *gunicorn(*options)], ("gunicorn",), 2, True)
    with ready(kind, env) as served:
        workers = {answer.worker for answer in served.load(expected[0])}
        for process in workers | {served.server.leader}:
            # Besides the thread that asks.
            threads = len(pool_threads(process))
            assert (threads > 0) == (limit == "none"), (threads, served.server.log())
        assert served.server.end(signal.SIGTERM) == 0, served.server.log()


# Ray Serve takes long to start, so it is started once.


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def test_ray_serve(expected: list[list[Array]]) -> None:
    kind = Kind([sys.executable, "ray_app.py"], ("ray", "starlette"), 2, False)
    with tempfile.TemporaryDirectory(prefix="r") as temp:
        env: dict[str, str | None] = {
            "SERVED_PORT": str(free_port()),
            "SERVED_TEMP": temp,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with ready(kind, env) as served:
            check_load(served, expected)
            check_replacement(served, expected)
            check_draining(served, signal.SIGTERM, expected)


# The examples.

EXAMPLES = HERE.parents[1] / "examples"


def classifier() -> Any:
    layers = [seqrs.LSTM(8, 64), seqrs.Last(), seqrs.Linear(64, 4)]
    return seqrs.Sequential(layers, seed=5)


def streamer() -> Any:
    return seqrs.Sequential([seqrs.GRU(1, 32), seqrs.Linear(32, 1)], seed=6)


def sequences(count: int) -> list[Array]:
    random = np.random.default_rng(3)
    return [random.uniform(-1, 1, (5 + k % 9, 8)).astype(np.float32) for k in range(count)]


@contextmanager
def example(folder: Path) -> Iterator[tuple[Server, int]]:
    for name in ("uvicorn", "fastapi", "httpx", "websockets"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed, which `make test-servers` does")
    classifier().save(folder / "classifier.safetensors")
    streamer().save(folder / "stream.safetensors")
    env: dict[str, str | None] = {
        "CLASSIFIER": str(folder / "classifier.safetensors"),
        "STREAM": str(folder / "stream.safetensors"),
    }
    command = [sys.executable, "-m", "uvicorn", "--host=127.0.0.1", "--port=0"]
    command += [f"--app-dir={EXAMPLES}", "serve_fastapi:app"]
    with running(command, folder, env) as server:
        yield server, int(server.printed(r"http://127\.0\.0\.1:(\d+)")[1])


class TestFastAPIExample:
    def test_classes_streams_health_and_metrics(self, tmp_path: Path) -> None:
        with example(tmp_path) as (server, port):
            import httpx
            from websockets.sync.client import connect

            url = f"http://127.0.0.1:{port}"
            xs = sequences(40)
            with httpx.Client(base_url=url, timeout=SECONDS) as client:
                assert client.get("/health").json() == {"ready": True}

                def classified(x: Array) -> Any:
                    return client.post("/classify", json={"sequence": x.tolist()}).json()

                with ThreadPoolExecutor(8) as callers:
                    answers = list(callers.map(classified, xs))
                for x, answer in zip(xs, answers, strict=True):
                    y = classifier()(x[None])[0][0]
                    assert_same_bits(np.float32(answer["probabilities"]), y)
                    assert answer["class"] == y.argmax()
                refused = client.post("/classify", json={"sequence": [[1.0]]})
                assert refused.status_code == 422
                assert "expected shape (T, 8)" in refused.json()["detail"]

                def streamed(k: int) -> None:
                    given = np.random.default_rng(k).uniform(-1, 1, (30, 1)).astype(np.float32)
                    with connect(f"ws://127.0.0.1:{port}/stream", open_timeout=SECONDS) as socket:
                        got = []
                        for x in given:
                            socket.send(json.dumps(x.tolist()))
                            got.append(json.loads(socket.recv(timeout=SECONDS)))
                    assert_same_bits(np.float32(got), streamer()(given[None])[0][0], f"stream {k}")

                with ThreadPoolExecutor(6) as callers:
                    list(callers.map(streamed, range(6)))
                text = client.get("/metrics").text
            assert 'seqrs_batcher_requests_total{outcome="done",source="classify"' in text
            found = re.search(r"^seqrs_pool_stream_steps_total\{.*\} (\S+)$", text, re.M)
            assert found
            assert float(found[1]) == 180
            # With one worker uvicorn ends by the signal itself, when all is answered.
            assert server.end(signal.SIGTERM) in (0, -signal.SIGTERM)

    def test_the_page_draws_a_stream(self, tmp_path: Path) -> None:
        browser = shutil.which("chromium") or shutil.which("chromium-browser")
        if browser is None:
            pytest.skip("there is no Chromium")
        (tmp_path / "browser").mkdir()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        options.append(f"--user-data-dir={tmp_path / 'browser'}")
        with example(tmp_path) as (_, port):
            import httpx
            from websockets.sync.client import connect

            command = [browser, *options, f"http://127.0.0.1:{port}/"]
            with running(command, tmp_path / "browser", {}) as shown:
                tools = int(shown.printed(r"DevTools listening on ws://127\.0\.0\.1:(\d+)")[1])
                pages = f"http://127.0.0.1:{tools}/json/list"
                page = shown.require(
                    lambda: [p for p in httpx.get(pages).json() if str(port) in p["url"]], "a page"
                )[0]
                with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:

                    def evaluated(code: str) -> Any:
                        asked = {"id": 1, "method": "Runtime.evaluate"}
                        socket.send(json.dumps(asked | {"params": {"expression": code}}))
                        answer = json.loads(socket.recv(timeout=SECONDS))
                        return answer["result"]["result"]["value"]

                    text = "document.getElementById('{}')?.textContent ?? '0'"
                    shown.require(lambda: int(evaluated(text.format("steps"))) >= 20, "20 steps")
                    assert evaluated(text.format("state")) == "connected"
                    # What was answered is what the model answers to what was sent.
                    sent, got = json.loads(evaluated("JSON.stringify([sent, got])"))
                    x = np.float32(sent[: len(got)])[None, :, None]
                    assert_same_bits(np.float32(got), streamer()(x)[0][0, :, 0])
                    # Both lines are there, in their colours.
                    pixels = "[...pen.getImageData(0, 0, 1000, 320).data]"
                    blue = f"{pixels}.filter((v, k, a) => k % 4 == 2 && v > a[k - 2] + 99).length"
                    assert evaluated(blue) > 100


def test_the_example_of_ray_serve(tmp_path: Path) -> None:
    for name in ("ray", "httpx"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed, which `make test-servers` does")
    import httpx

    classifier().save(tmp_path / "model.safetensors")
    with tempfile.TemporaryDirectory(prefix="r") as temp:
        env: dict[str, str | None] = {
            "MODEL": str(tmp_path / "model.safetensors"),
            "PORT": str(free_port()),
            "TEMP": temp,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with running([sys.executable, str(EXAMPLES / "serve_ray.py")], tmp_path, env) as server:
            port = server.printed(r"http://127\.0\.0\.1:(\d+)", 2 * SECONDS)[1]
            url, xs = f"http://127.0.0.1:{port}/", sequences(40)
            with httpx.Client(timeout=SECONDS) as client, ThreadPoolExecutor(8) as callers:
                asked = callers.map(lambda x: client.post(url, json=x.tolist()).json(), xs)
                for x, y in zip(xs, asked, strict=True):
                    assert_same_bits(np.float32(y), classifier()(x[None])[0][0])
                refused = client.post(url, json=[[1.0]])
                assert refused.status_code == 422
            assert server.end(signal.SIGTERM) == 0, server.log()
