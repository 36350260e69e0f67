"""What a recurrent layer does inside, and how its gradients flow: arrays, and `diagnose`.

>>> lstm = seqrs.LSTM(8, 16)
>>> gates = seqrs.diagnosis.gates(lstm, x)                     # x (2, 5, 8)
>>> gates["l0"]["f"].shape                                     # Γf<t>, the forget gate
(2, 5, 16)
>>> seqrs.diagnosis.gradient_flow(lstm, x)["l0"]["a"].shape    # dL/da<t>
(2, 5, 16)
>>> found = seqrs.diagnose(lstm, x, np.zeros((2, 5), int))     # a class for each step
>>> 0.5 < found["layers"]["l0"]["gates"]["f"]["spectral_radius"] < 1.5
True

All of it is computed in float64 from the layer's parameters, the arrays by `seqrs.reference`, step
by step: the gates and gradients are those of the equations, and what a float32 layer itself
computes differs from them by its rounding. Dropout is not applied. `seqrs.plot` draws the arrays.

The names are those of the parameters, in PyTorch's order of gates; the textbook's letters:

    RNN     a = a<t>
    LSTM    i f o = Γi Γf Γo,    g = c~<t>,    c = c<t>,    and a<t> = Γo * tanh(c<t>)
    GRU     r z = Γr Γu,         n = c~<t>,                 and a<t> = c<t>

Letters: B rows, T steps, I inputs, H hidden units, P units of a<t> (H, or an LSTM's `proj_size`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import reference
from .errors import NumericalError, ShapeError
from .layers import Layer
from .losses import CrossEntropy, Loss
from .models import Sequential
from .options import shown
from .recurrent import Recurrent
from .reference.sequence import Layer as Twin

if TYPE_CHECKING:
    import numpy.typing as npt

    from .reference import Tape

    Array = npt.NDArray[np.float64]
    Live = npt.NDArray[np.bool_]

__all__ = ["diagnose", "gates", "gradient_flow", "names_of_directions", "spectral_radii"]


# Arrays of one layer.


def gates(
    layer: Recurrent,
    x: npt.ArrayLike,
    state: Any = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
) -> dict[str, dict[str, Array]]:
    """The activations of every gate over time.

    Args:
        layer: an RNN, LSTM or GRU; of a model, one of its layers with the x that this layer reads.
        x: (B, T, I), or (T, B, I) with `batch_first=False`.
        state: the initial state, None for zeros.
        lengths: B integers in 0..=T, the live steps of each row.
        mask: booleans or 0 and 1 of shape (B, T) or (T, B). At most one of `lengths` and `mask` is
            given; None means that all steps are live.

    Returns:
        For each layer and direction, "l0", "l0_reverse", "l1" ...: arrays by name, (B, T, H) or
        (T, B, H). An RNN has `a`, that is a<t> itself; an LSTM the gates `i f g o` and `c`, c<t>;
        a GRU the gates `r z n`. NaN at steps that are not live.

    Raises:
        TypeError: the layer is none of these.
        ShapeError, DTypeError: an argument does not fit; says which.
        NumericalError: a parameter is NaN or infinite; names it.
    """
    twin, _, tape = _run(layer, x, state, lengths, mask)
    found = {}
    for d, name in enumerate(names_of_directions(layer)):
        values: dict[str, Array] = {}
        for step in tape.steps[d]:
            for gate, value in _values(twin, step):
                if gate not in values:
                    values[gate] = np.full((*tape.live.shape, twin.hidden_size), np.nan)
                values[gate][step.t, step.rows] = value
        found[name] = {gate: _swapped(layer, array) for gate, array in values.items()}
    return found


def gradient_flow(
    layer: Recurrent,
    x: npt.ArrayLike,
    state: Any = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    *,
    dy: npt.ArrayLike | None = None,
) -> dict[str, dict[str, Array]]:
    """The gradient of a loss L at the state after each step: dL/da<t>, and an LSTM's dL/dc<t>.

    With L the sum over time of L<t>, back-propagation through time carries it from step to step:

        dL/da<t> = dL<t>/da<t> + dL/da<t+1> da<t+1>/da<t>

    so that over k steps it takes on a product of k Jacobians, each with a factor W_aa, which is
    `weight_hh`. Where its norm falls towards the first step, gradients vanish; where it grows, they
    explode.

    L sees a<t> both as the output of step t and through what follows. c<t> it sees through what
    follows alone, a<t> held: (a<t>, c<t>) is the state, as in `Gradients.state`.

    Args:
        layer, x, state, lengths, mask: as for `gates`.
        dy: the gradient of the loss at y, of y's shape, such as `loss.gradient(y, targets)`. None:
            L is the sum of each row's last live output (of the first one, for the units of the
            reverse direction).

    Returns:
        For each layer and direction, "l0", "l0_reverse", "l1" ...: `a`, (B, T, P) or (T, B, P), and
        of an LSTM `c`, (B, T, H) or (T, B, H). Zero at steps that are not live.

    Raises:
        TypeError: the layer is none of these.
        ShapeError, DTypeError: an argument does not fit; says which.
        NumericalError: a parameter is NaN or infinite; names it.
    """
    twin, y, tape = _run(layer, x, state, lengths, mask)
    if dy is None:
        d_y = _ones_at_the_last(layer, tape.live)
    else:
        d_y = _exactly(layer, dy)
        if d_y.shape != y.shape:
            raise ShapeError(f"dy: expected the shape of y, {y.shape}, got {d_y.shape}")
        d_y = _swapped(layer, d_y)
    flow: list[list[Any]] = []
    twin.backward(tape, _swapped(layer, d_y), flow=flow)
    found = {}
    for d, name in enumerate(names_of_directions(layer)):
        sizes = {"h": twin.output_size // _directions(layer), "c": twin.hidden_size}
        arrays = {
            letter: np.zeros((*tape.live.shape, sizes[letter]))
            for letter in twin.cell.state._fields  # h, and of an LSTM c
        }
        for step, d_s in zip(tape.steps[d], flow[d], strict=True):
            for letter, array in arrays.items():
                array[step.t, step.rows] = getattr(d_s, letter)
        found[name] = {
            letter.replace("h", "a"): _swapped(layer, array) for letter, array in arrays.items()
        }
    return found


def spectral_radii(layer: Recurrent) -> dict[str, dict[str, float]]:
    """The spectral radius of W_hh, gate by gate: the largest absolute value of its eigenvalues.

    For an RNN it is that of W_aa, the textbook's measure of what a Jacobian does to a gradient: far
    below 1 gradients vanish; far above 1 they may explode. With a projection it is that of
    W_hr W_hh, which takes a<t-1> to a<t>.

    Returns:
        For each layer and direction, "l0", "l0_reverse", "l1" ...: a number for each gate.

    Raises:
        TypeError: the layer is no RNN, LSTM or GRU.
        NumericalError: a parameter is NaN or infinite.
    """
    twin = _twin(_checked(layer), layer.batch_first)
    return {name: _radii(twin, d) for d, name in enumerate(names_of_directions(layer))}


def names_of_directions(layer: Recurrent) -> list[str]:
    """ "l0", "l0_reverse", "l1" and so on: the ends of the parameters' names."""
    ends = ("", "_reverse")[: _directions(layer)]
    return [f"l{k}{end}" for k in range(layer.num_layers) for end in ends]


# A model, in numbers.


def diagnose(
    model: Sequential | Layer,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    loss: Loss | None = None,
    *,
    state: Any = None,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """How a model stands on a batch: saturated gates, dead units, vanishing gradients.

    Nothing is changed. Computed in float64 from the model's parameters and inputs as it has them,
    without dropout, on the CPU wherever the model is.

    Args:
        model: a `Sequential` with a recurrent layer in it, or an RNN, LSTM or GRU whose outputs are
            the predictions.
        x: (B, T, I), or ids (B, T); time first where the model is.
        y: targets as `Trainer.step` takes them.
        loss: `CrossEntropy()` if None.
        state: the initial state, None for zeros.
        lengths: B integers in 0..=T, the live steps of each row.
        mask: booleans or 0 and 1 (B, T); at most one of `lengths` and `mask` is given.

    Returns:
        Numbers alone, in dictionaries and lists, so that `json.dumps` takes it:

        `loss`: L, reduced as the loss says.

        `layers`: by the names of `names_of_directions`, in a model behind the index of the layer
        ("1.l0_reverse"), each with

        - `gates`: by name (`a`, `i f g o`, `r z n`, as the module's page says), each with
          `spectral_radius` (as `spectral_radii`) and `spectral_norm` (the largest singular value)
          of its part of W_hh; `minimum` and `maximum` of its activations; `saturated_low` and
          `saturated_high`, the shares of them at the ends: at most 0.1 and at least 0.9 for a
          sigmoid, -0.8 and 0.8 for tanh, and 0 at most for ReLU, which has no upper end;
        - `states`: `minimum` and `maximum` of `a`, a<t>, and of an LSTM's `c`, c<t>;
        - `dead_units`: how many units of a ReLU are 0 at every live step of every row; None for
          others;
        - `gradient_norm`: T numbers, the norm of dL/da<t> over all rows (0 where none is live);
        - `gradient_first` and `gradient_last`: that of the first and the last step in the order in
          which the direction reads; `gradient_ratio` is first / last, the factor that gradients
          have taken on over the whole sequence: far below 1 they vanish, far above they explode.
          None if the last is 0.

        `parameters`: by the names of `state_dict`, each with `norm` and `gradient_norm`, the
        Euclidean norms of the parameter and of dL by it.

    Raises:
        TypeError: the model or the loss is none.
        ValueError: the model has no recurrent layer.
        ShapeError, DTypeError: an argument does not fit, or no step is live; says which.
        NumericalError: a parameter is NaN or infinite; names it.
    """
    if not isinstance(model, (Sequential, Layer)):
        raise TypeError(f"model: expected a Sequential or a layer, got {shown(model)}")
    loss = CrossEntropy() if loss is None else loss
    if not isinstance(loss, Loss):
        raise TypeError(f"loss: expected one of seqrs, such as CrossEntropy(), got {shown(loss)}")
    layers = list(model) if isinstance(model, Sequential) else [model]
    if not any(isinstance(layer, Recurrent) for layer in layers):
        raise ValueError(f"model: expected an RNN, LSTM or GRU in it, got {shown(model)}")
    for name, parameter in model.state_dict().items():
        _check_finite(name, parameter)
    found: dict[str, Any] = model._handle.diagnose(
        loss.spec_json, x, y, state, lengths, mask, model._batch_first
    )
    return found


# Of one layer and direction.


def _values(twin: Twin, step: Any) -> Iterator[tuple[str, Array]]:
    """The activations of each gate at one step, and an LSTM's cell state, of its live rows."""
    for gate in twin.cell.gates._fields:
        # The gate of an RNN is its state.
        yield gate, getattr(step.saved, gate, step.s_new.h)
    if hasattr(step.s_new, "c"):
        yield "c", step.s_new.c


def _radii(twin: Twin, d: int) -> dict[str, float]:
    """Spectral radius of each gate's part of W_hh."""
    w = _weights(twin, d)
    names = twin.cell.gates._fields
    found = {}
    for gate, part in zip(names, np.split(w["weight_hh"], len(names)), strict=True):
        square = w["weight_hr"] @ part if "weight_hr" in w else part
        found[gate] = float(np.abs(np.linalg.eigvals(square)).max())
    return found


def _weights(twin: Twin, d: int) -> dict[str, Array]:
    ends = ("", "_reverse") if twin.bidirectional else ("",)
    return twin._weights(d // len(ends), ends[d % len(ends)])


# From a layer to its reference.


def _run(
    layer: Recurrent,
    x: npt.ArrayLike,
    state: Any,
    lengths: npt.ArrayLike | None,
    mask: npt.ArrayLike | None,
) -> tuple[Twin, Array, Tape]:
    # The layer refuses what does not fit, in its own words.
    _checked(layer)(x, state, lengths, mask)
    twin = _twin(layer, layer.batch_first)
    given = _state_exactly(layer, state)
    y, _, tape = twin.forward(_exactly(layer, x), given, lengths, mask, training=False)
    return twin, y, tape


def _checked(layer: Recurrent) -> Recurrent:
    if not isinstance(layer, Recurrent):
        what = "an RNN, LSTM or GRU (of a model: one of its layers, with the x that it reads)"
        raise TypeError(f"layer: expected {what}, got {shown(layer)}")
    return layer


def _twin(layer: Recurrent, batch_first: bool) -> Twin:
    """The layer of the reference with the options and parameters of `layer`."""
    kinds: dict[str, Any] = {
        "rnn": reference.RNN,
        "lstm": reference.LSTM,
        "gru": reference.GRU,
    }
    options = layer._options()
    kind = kinds[options.pop("kind")]
    known = inspect.signature(kind).parameters
    for name, value in options.items():
        # An option that is not in use changes nothing.
        if name not in known and value not in (None, False):
            raise ValueError(f"{name}: expected a layer that seqrs.reference has, got {value!r}")
    taken = {name: value for name, value in options.items() if name in known}
    twin: Twin = kind(**{**taken, "batch_first": batch_first})
    weights = layer.state_dict()
    for name, parameter in weights.items():
        _check_finite(name, parameter)
    twin.load_state_dict(weights)
    return twin


def _check_finite(name: str, parameter: npt.NDArray[Any]) -> None:
    if not np.isfinite(parameter).all():
        wrong = parameter[~np.isfinite(parameter)][0]
        raise NumericalError(f"{name}: expected finite numbers, got {wrong}")


def _exactly(layer: Recurrent, values: npt.ArrayLike) -> Array:
    """The numbers that the layer would compute with: rounded to its dtype."""
    return np.asarray(values).astype(layer.dtype).astype(np.float64)


def _state_exactly(layer: Recurrent, state: Any) -> Any:
    if state is None:
        return None
    if isinstance(layer.initial_state(0), tuple):
        return tuple(_exactly(layer, part) for part in state)
    return _exactly(layer, state)


def _ones_at_the_last(layer: Recurrent, live: Live) -> Array:
    """1 at each row's last live step, or first one for the units of the reverse direction."""
    time, rows = live.shape
    d_y = np.zeros((time, rows, layer.output_size or 0))
    some = np.flatnonzero(live.any(axis=0))
    last = time - 1 - live[::-1].argmax(axis=0)[some]
    size = d_y.shape[2] // _directions(layer)
    d_y[last, some, :size] = 1.0
    if layer.bidirectional:
        d_y[live.argmax(axis=0)[some], some, size:] = 1.0
    return d_y


def _directions(layer: Recurrent) -> int:
    return 2 if layer.bidirectional else 1


def _swapped(layer: Recurrent, array: Array) -> Array:
    """(T, B, .) <-> (B, T, .) where the caller's form is the latter."""
    return np.ascontiguousarray(array.swapaxes(0, 1)) if layer.batch_first else array
