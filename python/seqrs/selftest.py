"""Does this installation compute what it should, on this machine?"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import reference, threads
from .errors import InternalError
from .layers import Linear
from .models import Sequential
from .recurrent import GRU, LSTM, RNN
from .streams import StreamPool

__all__ = ["self_test"]

#: How far a result may be from the reference, of its largest number: what the package promises of
#: sums in another order.
_CLOSE = {"float32": 3e-5, "float64": 1e-10}

_CELLS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "RNN": (RNN, reference.RNN, {}),
    "LSTM": (LSTM, reference.LSTM, {}),
    "GRU": (GRU, reference.GRU, {}),
    "GRU, reset after": (GRU, reference.GRU, {"reset_after": True}),
}


def self_test() -> dict[str, Any]:
    """Computes small layers and models in several ways, and compares.

    Each cell in both dtypes, with lengths and in both directions, forwards and back, beside the
    NumPy reference; sequences beside their steps, one thread beside two, and streams in a pool
    beside streams alone, bit for bit. It takes a fraction of a second: a service may do it when it
    starts.

    Returns:
        `info`: what `seqrs.info()` says; `errors`: for each comparison with the reference the
        largest difference, as a part of the largest number compared.

    Raises:
        InternalError: something differs; says what. Please report it, with the processor.
    """
    errors = {
        f"{name}, {dtype}": _beside_the_reference(name, dtype)
        for name in _CELLS
        for dtype in _CLOSE
    }
    for dtype in _CLOSE:
        _same_bits(dtype)
    return {"info": threads.info(), "errors": errors}


def _numbers(seed: int, *shape: int, dtype: str) -> Any:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape).astype(np.float32).astype(dtype)


def _beside_the_reference(name: str, dtype: str) -> float:
    kind, arbiter, options = _CELLS[name]
    layer = kind(5, 19, 2, bidirectional=True, dtype=dtype, seed=1, **options)
    other = arbiter(5, 19, 2, bidirectional=True, **options)
    other.load_state_dict(
        {key: value.astype("float64") for key, value in layer.state_dict().items()}
    )
    x = _numbers(2, 3, 7, 5, dtype=dtype)
    dy = _numbers(3, 3, 7, 38, dtype=dtype)
    y, _, tape = layer.forward(x, lengths=[7, 4, 0])
    expected, _, its_tape = other.forward(x.astype("float64"), lengths=[7, 4, 0])
    gradients = layer.backward(tape, dy)
    its = other.backward(its_tape, dy.astype("float64"))
    worst = _distance(name, "y", y, expected, dtype)
    worst = max(worst, _distance(name, "d_x", gradients.x, its.x, dtype))
    for key, value in gradients.params.items():
        worst = max(worst, _distance(name, f"d_{key}", value, its.params[key], dtype))
    return worst


def _distance(name: str, what: str, got: Any, expected: Any, dtype: str) -> float:
    scale = float(np.max(np.abs(expected)))
    distance = float(np.max(np.abs(got - expected))) / scale
    # NaN is no smaller than anything.
    if not distance <= _CLOSE[dtype]:
        raise InternalError(
            f"{name}, {dtype}: {what}: expected the reference's within {_CLOSE[dtype]:g} of the "
            f"largest, got {distance:g}, at level {threads.info()['level']}"
        )
    return distance


def _same_bits(dtype: str) -> None:
    model = Sequential(
        [LSTM(6, 33, dtype=dtype), GRU(33, 20, dtype=dtype), Linear(20, 4, dtype=dtype)], seed=4
    )
    x = _numbers(5, 40, 5, 6, dtype=dtype)
    with threads.num_threads(1):
        expected, _ = model(x)
    with threads.num_threads(2):
        _must_be(expected, model(x)[0], "on two threads", dtype)
    state = None
    pool = StreamPool(model, capacity=40)
    sids = [pool.open() for _ in x]
    for t in range(x.shape[1]):
        y, state = model.step(x[:, t], state)
        _must_be(expected[:, t], y, "step by step", dtype)
        backwards = slice(None, None, -1)
        y = pool.step(sids[backwards], x[backwards, t])[backwards]
        _must_be(expected[:, t], y, "in a pool", dtype)


def _must_be(expected: Any, got: Any, how: str, dtype: str) -> None:
    if np.ascontiguousarray(expected).tobytes() != np.ascontiguousarray(got).tobytes():
        raise InternalError(
            f"a model of {dtype}: expected the same bits {how}, got others, at level "
            f"{threads.info()['level']}"
        )
