"""What the tests share: layers beside their reference, inputs, and child processes."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import seqrs
import tolerances
from seqrs import reference

Array = npt.NDArray[Any]

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden"

B, T, I, H, P = 4, 6, 5, 7, 3  # noqa: E741 (the letters of the design)

#: An assortment of functions and a bound, for the gates, for the candidate, for all of an LSTM.
OF_GATES: dict[str, Any] = {"gate_activation": ("hard_sigmoid", 0.25, 0.5), "clip": 1.5}
OF_ALL_GATES: dict[str, Any] = OF_GATES | {"candidate_activation": ("leaky_relu", 0.125)}
OF_AN_LSTM: dict[str, Any] = OF_ALL_GATES | {"output_activation": "softsign"}

#: Name -> (the class, of the package and of the reference; its options).
CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn-tanh": ("RNN", {}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "lstm-projected": ("LSTM", {"proj_size": P}),
    "lstm-peephole": ("LSTM", {"peepholes": True}),
    "lstm-peephole-projected": ("LSTM", {"peepholes": True, "proj_size": P}),
    "lstm-coupled": ("LSTM", {"coupled": True}),
    "lstm-coupled-peephole-projected": (
        "LSTM",
        {"coupled": True, "peepholes": True, "proj_size": P},
    ),
    "gru-reset-before": ("GRU", {}),
    "gru-reset-after": ("GRU", {"reset_after": True}),
    "rnn-chosen": ("RNN", {"nonlinearity": ("leaky_relu", 0.125), "clip": 1.5}),
    "lstm-chosen": ("LSTM", OF_AN_LSTM),
    "lstm-peephole-chosen": ("LSTM", OF_AN_LSTM | {"peepholes": True}),
    "lstm-coupled-chosen-projected": ("LSTM", OF_AN_LSTM | {"coupled": True, "proj_size": P}),
    "lstm-coupled-peephole-chosen": ("LSTM", OF_AN_LSTM | {"coupled": True, "peepholes": True}),
    "gru-reset-before-chosen": ("GRU", OF_ALL_GATES),
    "gru-reset-after-chosen": ("GRU", OF_ALL_GATES | {"reset_after": True}),
}
#: Those that can be normalised, and are: LSTMs without peepholes and the reset-after GRU.
NORMALISED: dict[str, tuple[str, dict[str, Any]]] = {
    f"normalised-{cell}": (kind, options | {"layer_norm": True})
    for cell, (kind, options) in CELLS.items()
    if (kind == "LSTM" and "peepholes" not in options) or "reset_after" in options
}
#: Those whose work is done in different ways, for what takes long; what is chosen is all alike.
WAYS = [
    cell
    for cell in CELLS
    if not ("coupled" in cell or "chosen" in cell)
    or cell in ("lstm-coupled-peephole-chosen", "gru-reset-before-chosen")
]
#: For each class the options that change what it computes.
OWN: dict[str, tuple[str, ...]] = {
    "RNN": ("nonlinearity", "clip"),
    "LSTM": (
        "proj_size",
        "peepholes",
        "coupled",
        "gate_activation",
        "candidate_activation",
        "output_activation",
        "clip",
    ),
    "GRU": ("reset_after", "gate_activation", "candidate_activation", "clip"),
}
DTYPES = ("float32", "float64")
#: Which steps are live, for B rows and T steps.
LIVE: dict[str, dict[str, Any]] = {
    "all-live": {},
    "lengths": {"lengths": [2, T, 0, T - 1]},
    "mask-with-holes": {
        "mask": np.array(
            [[0, 1, 0, 1, 1, 0], [1, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], bool
        )
    },
}
#: How far the package may be from the reference.
TO_REFERENCE = {
    "float32": tolerances.PACKAGE_TO_REFERENCE_F32,
    "float64": tolerances.PACKAGE_TO_REFERENCE_F64,
}


def numbers(
    random: np.random.Generator, shape: tuple[int, ...], dtype: str = "float64", scale: float = 1.0
) -> Array:
    """Uniform in [-scale, scale], each exact in float32, so that both precisions start alike."""
    return random.uniform(-scale, scale, shape).astype(np.float32).astype(dtype)


def make(
    cell: str,
    dtype: str = "float32",
    inputs: int = I,
    hidden: int = H,
    *,
    weights: int = 1,
    device: str = "cpu",
    **options: Any,
) -> Any:
    """A layer of the package with random parameters, biases other than 0 as well."""
    kind, cell_options = (CELLS | NORMALISED)[cell]
    layer = getattr(seqrs, kind)(inputs, hidden, **cell_options, **options, dtype=dtype)
    randomise(layer, weights)
    return layer.to(device)


def randomise(layer: Any, seed: int = 1) -> None:
    """Random parameters, the larger the matrix the smaller, so that nothing saturates.

    Peepholes multiply cell states, which are larger than 1 and would feed themselves.
    """
    random = np.random.default_rng(seed)
    drawn = {}
    for name, p in layer.state_dict().items():
        scale = 1.0 if p.ndim == 1 else min(1.0, 2.0 / np.sqrt(p.shape[1]))
        if name.startswith(("weight_ci", "weight_cf", "weight_co")):
            scale = 0.25
        drawn[name] = numbers(random, p.shape, scale=scale)
    layer.load_state_dict(drawn)


def twin(layer: Any) -> Any:
    """The reference's layer with the options and parameters of a package's layer."""
    names = ("num_layers", "bias", "bidirectional", "batch_first")
    kind = type(layer).__name__
    options = {name: getattr(layer, name) for name in (*names, *OWN[kind])}
    other = getattr(reference, kind)(layer.input_size, layer.hidden_size, **options)
    weights = layer.state_dict()
    assert list(other.state_dict()) == list(weights)
    other.load_state_dict(weights)
    return other


class Given:
    """Random x, state, dy and dstate in the form that the layer takes."""

    def __init__(
        self, layer: Any, batch: int = B, steps: int = T, *, seed: int = 2, scale: float = 1.0
    ) -> None:
        random = np.random.default_rng(seed)
        dtype = layer.dtype
        leading = (batch, steps) if layer.batch_first else (steps, batch)
        self.x = numbers(random, (*leading, layer.input_size), dtype, scale)
        self.dy = numbers(random, (*leading, layer.output_size), dtype)
        form = layer.initial_state(batch)
        shapes = [part.shape for part in parts(form)]
        self.state = like(form, [numbers(random, shape, dtype) for shape in shapes])
        self.dstate = like(form, [numbers(random, shape, dtype) for shape in shapes])


def parts(state: Any) -> list[Array]:
    """The arrays of a layer's state."""
    if state is None:
        return []
    return list(state) if isinstance(state, tuple) else [state]


def like(state: Any, arrays: list[Array]) -> Any:
    """The arrays in the form of a layer's state."""
    return tuple(arrays) if isinstance(state, tuple) else arrays[0]


def row_of(state: Any, b: int) -> Any:
    """The state of row b, as a batch of one."""
    return like(state, [np.ascontiguousarray(part[:, b : b + 1]) for part in parts(state)])


def live_for(layer: Any, live: str) -> dict[str, Any]:
    """The arguments that say which steps are live, in the layer's form."""
    given = LIVE[live]
    if "mask" in given and not layer.batch_first:
        return {"mask": given["mask"].T}
    return dict(given)


def live_steps(layer: Any, options: dict[str, Any], batch: int = B, steps: int = T) -> Array:
    """Booleans of the shape of x without its features."""
    if "mask" in options:
        return np.asarray(options["mask"]).astype(bool)
    lengths = np.asarray(options.get("lengths", [steps] * batch))
    live: Array = np.arange(steps) < lengths[:, None]
    return live if layer.batch_first else live.T


def named(gradients: Any) -> Iterator[tuple[str, Array]]:
    """The gradients of a layer by name."""
    yield "d_x", gradients.x
    for letter, array in zip("hc", parts(gradients.state), strict=False):
        yield f"d_{letter}0", array
    for name, array in gradients.params.items():
        yield f"d_{name}", array


def everything(layer: Any, given: Given, **options: Any) -> dict[str, Array]:
    """Outputs, final states and all gradients of a layer by name."""
    y, final, tape = layer.forward(given.x, given.state, **options)
    found = {"y": y} | dict(zip("hc", parts(final), strict=False))
    return found | dict(named(layer.backward(tape, given.dy, given.dstate)))


def flat(state: Any) -> list[Array]:
    """All arrays of a model's state, whatever its nesting."""
    if state is None:
        return []
    if isinstance(state, tuple):
        return [array for part in state for array in flat(part)]
    return [state]


def assert_same(got: dict[str, Array], expected: dict[str, Array]) -> None:
    """The same names, and the same bits under each."""
    assert list(got) == list(expected)
    for name, array in expected.items():
        tolerances.assert_same_bits(got[name], array, name)


def assert_same_state(got: Any, expected: Any) -> None:
    """The same bits in all arrays of two states."""
    for a, b in zip(flat(got), flat(expected), strict=True):
        tolerances.assert_same_bits(a, b, "state")


def differences(loss: Callable[[], float], a: Array, step: float = 1e-5) -> Array:
    """The gradient of `loss` at `a` by central differences, moving each entry in place."""
    gradient = np.zeros_like(a)
    for index in np.ndindex(a.shape):
        value = a[index]
        a[index] = value + step
        above = loss()
        a[index] = value - step
        below = loss()
        a[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


def python(
    code: str, *arguments: str, env: dict[str, str | None] | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a new interpreter that also finds the modules beside this one.

    A variable that is None in `env` is taken away.
    """
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    changed = {**os.environ, "PYTHONPATH": path, **(env or {})}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={k: v for k, v in changed.items() if v is not None},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def pool_threads(process: int | str = "self") -> list[str]:
    """The names of a process's threads that are the package's.

    A thread that has just been made takes a moment to take its name.
    """
    before: list[str] | None = None
    names = _thread_names(process)
    while names != before:
        time.sleep(0.02)
        before, names = names, _thread_names(process)
    return [name for name in names if name.startswith("seqrs")]


def _thread_names(process: int | str) -> list[str]:
    names = []
    for task in os.listdir(f"/proc/{process}/task"):
        # Other threads may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names.append(Path(f"/proc/{process}/task/{task}/comm").read_text().strip())
    return sorted(names)


def in_child(job: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `job` gives in a forked child; fails when the child hangs, dies or raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            try:
                result: tuple[bool, Any] = (True, job())
            except BaseException as error:
                result = (False, repr(error))
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(result, pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    return _told(pid, reader, seconds)


def without_privileges(job: Callable[[], Any]) -> Any:
    """What `job` gives in a forked child that permissions apply to, which they do not to root."""

    def dropped() -> Any:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        return job()

    return in_child(dropped)


def _told(pid: int, reader: int, seconds: float) -> Any:
    os.set_blocking(reader, False)
    data, end = b"", time.monotonic() + seconds
    try:
        while True:
            try:
                chunk = os.read(reader, 1 << 20)
            except BlockingIOError:
                if time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
                    raise AssertionError(f"the child hung for {seconds} s") from None
                time.sleep(0.002)
                continue
            if not chunk:
                break
            data += chunk
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with status {status}"
    fine, value = pickle.loads(data)
    assert fine, f"the child raised {value}"
    return value


def character_model(
    vocab: int = 11,
    hidden: int = 12,
    *,
    dtype: str = "float32",
    dropout: float = 0.0,
    num_layers: int = 1,
    seed: int = 3,
    device: str = "cpu",
) -> seqrs.Sequential:
    """A small model of ids, as the character models of the documentation."""
    layers = [
        seqrs.Embedding(vocab, 6, dtype=dtype),
        seqrs.LSTM(6, hidden, num_layers, dropout=dropout, dtype=dtype),
        seqrs.Linear(hidden, vocab, dtype=dtype),
    ]
    return seqrs.Sequential(layers, seed=seed).to(device)


def id_batches(count: int, vocab: int = 11, batch: int = 4, steps: int = 6) -> list[Any]:
    """Batches (x, y) of ids in which y is a function of x, so that it can be learnt."""
    random = np.random.default_rng(7)
    xs = [random.integers(0, vocab, (batch, steps)) for _ in range(count)]
    return [(x, (x * 3 + 1) % vocab) for x in xs]
