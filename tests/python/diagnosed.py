"""What `seqrs.diagnose` has to find, by the equations of `seqrs.reference` in NumPy and float64.

The layers without recurrence are those of seqrs in float64, which other tests prove.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from seqrs import _seqrs, diagnosis
from seqrs.layers import Embedding, Last, Layer, Linear, MaxPool, MeanPool
from seqrs.losses import Loss
from seqrs.models import Sequential
from seqrs.recurrent import RNN, Recurrent
from seqrs.reference import Tape
from seqrs.reference.sequence import Layer as Twin

Array = npt.NDArray[np.float64]
Live = npt.NDArray[np.bool_]

#: Where gates count as saturated.
SIGMOID_ENDS = (0.1, 0.9)
TANH_ENDS = (-0.8, 0.8)
RELU_ENDS = (0.0, np.inf)


def diagnosed(
    model: Sequential | Layer,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    loss: Loss,
    *,
    state: Any = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """As `seqrs.diagnose`, of arguments that fit."""
    layers = list(model) if isinstance(model, Sequential) else [model]
    batch_first = model._batch_first
    live = _live(x, lengths, mask, batch_first)
    given = np.asarray(x)
    flow = given if batch_first else given.swapaxes(0, 1)
    if flow.ndim == 3:
        flow = flow.astype(model.dtype).astype(np.float64)
    states = iter((state or ()) if isinstance(model, Sequential) else (state,))
    parts = _parts(layers)
    for part in parts:
        if isinstance(part, _Recurrent):
            part.state = diagnosis._state_exactly(part.layer, next(states, None))
        flow = part.forward(flow, live)
    value, d_flow = _loss_and_gradient(loss, flow, y, live, batch_first, model.dtype)
    gradients: dict[str, Array] = {}
    for k, part in reversed(list(enumerate(parts))):
        d_flow, d_params = part.backward(d_flow)
        prefix = f"{k}." if isinstance(model, Sequential) else ""
        gradients |= {prefix + name: gradient for name, gradient in d_params.items()}

    found: dict[str, Any] = {"loss": float(value), "layers": {}, "parameters": {}}
    for k, part in enumerate(parts):
        if isinstance(part, _Recurrent):
            prefix = f"{k}." if isinstance(model, Sequential) else ""
            for d, name in enumerate(diagnosis.names_of_directions(part.layer)):
                found["layers"][prefix + name] = part.described(d)
    for name, parameter in model.state_dict().items():
        found["parameters"][name] = {
            "norm": _norm(parameter.astype(np.float64)),
            "gradient_norm": _norm(gradients[name]),
        }
    return found


class _Recurrent:
    """A recurrent layer, by the reference."""

    tape: Tape
    flow: list[list[Any]]

    def __init__(self, layer: Recurrent) -> None:
        self.layer = layer
        self.state: Any = None
        self.twin = diagnosis._twin(layer, batch_first=True)

    def forward(self, x: Array, live: Live) -> Array:
        y, _, self.tape = self.twin.forward(x, self.state, mask=live, training=False)
        return y

    def backward(self, d_y: Array) -> tuple[Array, dict[str, Array]]:
        self.flow = []
        found = self.twin.backward(self.tape, d_y, flow=self.flow)
        return found.x, found.params

    def described(self, d: int) -> dict[str, Any]:
        """What `diagnose` says of one layer and direction."""
        steps = self.tape.steps[d]
        values: dict[str, list[Array]] = {}
        for step in steps:
            for gate, value in diagnosis._values(self.twin, step):
                values.setdefault(gate, []).append(value)
        activations = {gate: np.concatenate(each) for gate, each in values.items()}
        relu = isinstance(self.layer, RNN) and self.layer.nonlinearity == "relu"
        described = {}
        for gate, norms in _recurrent(self.twin, d).items():
            low, high = _ends(gate, relu)
            at = activations[gate]
            described[gate] = {
                **norms,
                **_range(at),
                "saturated_low": float(np.mean(at <= low)),
                "saturated_high": float(np.mean(at >= high)),
            }
        outputs = np.concatenate([_output(self.twin, d, step) for step in steps])
        states = {"a": _range(outputs)}
        if "c" in activations:
            states["c"] = _range(activations["c"])
        norms_of_gradient = [0.0] * len(steps)
        for step, d_s in zip(steps, self.flow[d], strict=True):
            norms_of_gradient[step.t] = _norm(d_s.h)
        order = [step.t for step in steps if step.rows.any()]  # as the direction reads
        first, last = norms_of_gradient[order[0]], norms_of_gradient[order[-1]]
        dead = np.all(activations["a"] <= 0, axis=0) if relu else None
        return {
            "gates": described,
            "states": states,
            "dead_units": None if dead is None else int(dead.sum()),
            "gradient_norm": norms_of_gradient,
            "gradient_first": first,
            "gradient_last": last,
            "gradient_ratio": first / last if last else None,
        }


class _Plain:
    """A layer without recurrence, by seqrs in float64."""

    tape: Any

    def __init__(self, layer: Layer, has_steps: bool) -> None:
        # A layer of its own, on the CPU wherever the other is.
        self._handle = _seqrs.Layer(layer._handle.spec_json, "float64")
        self._handle.load_state_dict(dict(layer.state_dict()), True)
        self._has_steps = has_steps

    def forward(self, x: Array, live: Live) -> Array:
        mask = live if self._has_steps else None
        y, _, self.tape = self._handle.forward(x, None, None, mask, True, False)
        return y.astype(np.float64, copy=False)

    def backward(self, d_y: Array) -> tuple[Any, dict[str, Array]]:
        d_x, _, d_params = self._handle.backward(self.tape, d_y, None)
        return d_x, {name: d.astype(np.float64, copy=False) for name, d in d_params.items()}


class _LastOfBoth:
    """`Last` over a bidirectional layer: where each direction has read the whole row."""

    def forward(self, x: Array, live: Live) -> Array:
        self._shape = x.shape
        some = live.any(axis=1)
        self._rows = np.flatnonzero(some)
        self._first = live.argmax(axis=1)[some]
        self._last = live.shape[1] - 1 - live[:, ::-1].argmax(axis=1)[some]
        half = x.shape[2] // 2
        y = np.zeros((len(x), x.shape[2]))
        y[self._rows, :half] = x[self._rows, self._last, :half]
        y[self._rows, half:] = x[self._rows, self._first, half:]
        return y

    def backward(self, d_y: Array) -> tuple[Array, dict[str, Array]]:
        half = d_y.shape[1] // 2
        d_x = np.zeros(self._shape)
        d_x[self._rows, self._last, :half] = d_y[self._rows, :half]
        d_x[self._rows, self._first, half:] = d_y[self._rows, half:]
        return d_x, {}


_Part = _Recurrent | _Plain | _LastOfBoth


def _parts(layers: list[Layer]) -> list[_Part]:
    parts: list[_Part] = []
    has_steps, both_ways = True, False
    for layer in layers:
        if isinstance(layer, Recurrent):
            parts.append(_Recurrent(layer))
            both_ways = layer.bidirectional
        elif isinstance(layer, Last) and both_ways:
            parts.append(_LastOfBoth())
        else:
            parts.append(_Plain(layer, has_steps))
        if isinstance(layer, (Embedding, Linear)):
            both_ways = False  # the columns are no longer the two directions
        if isinstance(layer, (Last, MeanPool, MaxPool)):
            has_steps = False
    return parts


def _loss_and_gradient(
    loss: Loss, y_pred: Array, y: npt.ArrayLike, live: Live, batch_first: bool, dtype: str
) -> tuple[float, Array]:
    """The loss of outputs (B, T, .) or (B, .), and its gradient at them."""
    y = np.asarray(y)
    if y.dtype.kind == "f":
        y = y.astype(dtype)
    if y_pred.ndim == 3:
        if not batch_first and y.ndim >= 2:
            y = y.swapaxes(0, 1)
        gradient = loss.gradient(y_pred, y, mask=live)
        return loss(y_pred, y, mask=live), gradient.astype(np.float64, copy=False)
    # A row without a live step has seen nothing that could have led to its output.
    rows = live.any(axis=1)
    if y.shape[:1] != rows.shape:
        loss(y_pred, y)  # which refuses them
    d_y = np.zeros(y_pred.shape)
    d_y[rows] = loss.gradient(y_pred[rows], y[rows])
    return loss(y_pred[rows], y[rows]), d_y


def _output(twin: Twin, d: int, step: Any) -> Array:
    """a<t> of one step's live rows."""
    a: Array = step.s_new.h
    project = diagnosis._weights(twin, d).get("weight_hr")
    return a if project is None else a @ project.T


def _ends(gate: str, relu: bool) -> tuple[float, float]:
    if gate in ("i", "f", "o", "r", "z"):
        return SIGMOID_ENDS
    return RELU_ENDS if relu else TANH_ENDS


def _recurrent(twin: Twin, d: int) -> dict[str, dict[str, float]]:
    """Spectral radius and norm of each gate's part of W_hh."""
    w = diagnosis._weights(twin, d)
    names = twin.cell.gates._fields
    found = {}
    for gate, part in zip(names, np.split(w["weight_hh"], len(names)), strict=True):
        square = w["weight_hr"] @ part if "weight_hr" in w else part
        found[gate] = {
            "spectral_radius": float(np.abs(np.linalg.eigvals(square)).max()),
            "spectral_norm": float(np.linalg.norm(part, 2)),
        }
    return found


def _range(values: Array) -> dict[str, float]:
    return {"minimum": float(values.min()), "maximum": float(values.max())}


def _norm(values: Array) -> float:
    return float(np.sqrt(np.sum(values**2)))


def _live(
    x: npt.ArrayLike, lengths: npt.ArrayLike | None, mask: npt.ArrayLike | None, batch_first: bool
) -> Live:
    """(B, T), of arguments that were checked."""
    rows, steps = np.shape(x)[:2] if batch_first else np.shape(x)[1::-1]
    if lengths is not None:
        return np.arange(steps) < np.asarray(lengths).reshape(rows, 1)
    if mask is not None:
        given = np.asarray(mask).astype(bool)
        return given if batch_first else given.T
    return np.ones((rows, steps), bool)
