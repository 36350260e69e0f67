"""Everything but the cells: layers x directions x steps, written once.

Letters: T steps, B rows, I inputs, H hidden units, P units of h (H, or `proj_size`), L layers,
D directions, G gates. Time comes first in here: x (T, B, I).

One step of one direction:

    gx = W_ih x  + b_ih                       gates from x
    gh = W_hh h' + b_hh                       gates from h
    (h, c), saved = cell.forward(gx, gh, (h', c'), p)     p: what each unit has for itself
    h = W_hr h                                only with a projection

With layer normalisation (Ba et al. 2016, as haste has it) the two products are normalised before
their biases: gx = norm(W_ih x) + b_ih, gh = norm(W_hh h') + b_hh.

Two more things may be done to states, around the cell. Recurrent dropout (Gal & Ghahramani 2016):
all recurrent products read m * h' for h', m the same at all steps of a row. Zoneout (Krueger et al.
2017): of h and c a part stays as it was before the step, h = k * h' + (1 - k) * h; in training k is
1 or 0 by chance, else their mean.

The way back is back-propagation through time over all steps: with L = sum over t of L<t>,

    dL/dW_aa = sum over t and k <= t of
               dL<t>/dy^<t> . dy^<t>/da<t> . (prod over j = k+1 .. t of da<j>/da<j-1>) . da<k>/dW_aa

and the same for every other parameter, the inputs and the initial state. Summed from the last step
to the first, the products are carried along:

    d<t> = dL<t>/da<t> + d<t+1> . da<t+1>/da<t>,      dL/dW = sum over t of d<t> . da<t>/dW

The length rule: a row that is not live keeps its state, outputs zero, and passes its gradient
through. A step reads, computes and writes its live rows and no others, so the rule needs no further
code and the padding can hold anything. The reverse direction is the same loop from T-1 down to 0:
a row meets its padding first, with its initial state unmoved, and so is reversed inside its own
length.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from .layer_norm import layer_norm, layer_norm_backward

Array = npt.NDArray[np.float64]
Live = npt.NDArray[np.bool_]

GatesT = TypeVar("GatesT", bound="tuple[Array, ...]")
StateT = TypeVar("StateT", bound="tuple[Array, ...]")
SavedT = TypeVar("SavedT", bound="tuple[Any, ...]")


class Cell(Generic[GatesT, StateT, SavedT]):
    """A pointwise function of (gates from x, gates from h, state), and its gradient.

    `p` are the parameters that each unit has for itself, named in `per_unit`, (H) each. Each other
    array is (live rows, H), but for the `h` of a state under a projection: (live rows, P).
    A cell whose last `late` gates multiply something other than h' says what in `between`.
    """

    gates: type[GatesT]  # a named tuple; its fields are the order of the gates in every weight
    state: type[StateT]  # a named tuple with h, which is the output too
    biases: tuple[str, ...] = ("bias_ih", "bias_hh")
    per_unit: tuple[str, ...] = ()
    normalised: bool = False  # whether the products are normalised
    late: int = 0

    def forward(
        self, gx: GatesT, gh: GatesT, s: StateT, p: tuple[Array, ...]
    ) -> tuple[StateT, SavedT]:
        """The new state, and what `backward` needs to know."""
        raise NotImplementedError

    def backward(
        self, saved: SavedT, s: StateT, s_new: StateT, p: tuple[Array, ...], d_s: StateT
    ) -> tuple[GatesT, GatesT, StateT, tuple[Array, ...]]:
        """d_gx, d_gh, d_s' as far as it does not pass through a product, and each row's d_p."""
        raise NotImplementedError

    def between(self, gx: GatesT, gh: GatesT, s: StateT) -> Array:
        """q, which the late gates multiply in the place of h'."""
        raise NotImplementedError

    def backward_between(self, saved: SavedT, s: StateT, d_q: Array) -> tuple[GatesT, StateT]:
        """What d_q adds to the gradients of the gates (gx and gh alike) and of the state."""
        raise NotImplementedError


class Gradients(NamedTuple):
    """The gradients of the loss: of x, of the initial state (in its form), of each parameter."""

    x: Array
    state: Any
    params: dict[str, Array]


class StateMasks(NamedTuple):
    """What training draws for the states of one direction of a layer; None: nothing."""

    recurrent: Array | None = None  # (B, P), 0 and 1 / (1 - recurrent_dropout)
    kept_h: Array | None = None  # (T, B, P), 1 where h stays as it was, else 0
    kept_c: Array | None = None  # (T, B, H)


class Tape(NamedTuple):
    """What `forward` keeps for `backward`."""

    params: dict[str, Array]
    live: Live
    steps: list[list[Step]]  # of each layer and direction: l0, l0_reverse, l1, ...
    dropout_masks: list[Array] | None


class Layer:
    """A recurrent layer of any cell: L layers deep, in one direction or both."""

    def __init__(
        self,
        cell: Cell[Any, Any, Any],
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        bias: bool,
        bidirectional: bool,
        dropout: float,
        batch_first: bool,
        dtype: str,
        seed: int,
        proj_size: int = 0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        zoneout_cell: float = 0.0,
    ) -> None:
        self.cell = cell
        self.input_size = _integer("input_size", input_size, at_least=1)
        self.hidden_size = _integer("hidden_size", hidden_size, at_least=1)
        self.num_layers = _integer("num_layers", num_layers, at_least=1)
        self.proj_size = _integer("proj_size", proj_size, at_least=0)
        self.bias = bool(bias)
        self.bidirectional = bool(bidirectional)
        self.batch_first = bool(batch_first)
        self.dropout = float(dropout)
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size: expected [0, {self.hidden_size}), got {self.proj_size}")
        self.recurrent_dropout = float(recurrent_dropout)
        #: Of each field of the state, the share that stays as it was.
        self.zoneout = {"h": float(zoneout), "c": float(zoneout_cell)}
        for name, share in (
            ("dropout", self.dropout),
            ("recurrent_dropout", self.recurrent_dropout),
            ("zoneout", self.zoneout["h"]),
            ("zoneout_cell", self.zoneout["c"]),
        ):
            if not 0 <= share < 1:
                raise ValueError(f"{name}: expected [0, 1), got {share}")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}")
        self._directions = ("", "_reverse") if self.bidirectional else ("",)
        self._h_size = self.proj_size or self.hidden_size
        self._random = np.random.default_rng(_integer("seed", seed, at_least=0))
        self._params = self._initial_params()

    # What it is made of.

    @property
    def output_size(self) -> int:
        return len(self._directions) * self._h_size

    @property
    def num_parameters(self) -> int:
        return sum(parameter.size for parameter in self._params.values())

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters, under PyTorch's names and in its order."""
        return {name: parameter.copy() for name, parameter in self._params.items()}

    def load_state_dict(self, mapping: Mapping[str, npt.ArrayLike], strict: bool = True) -> None:
        """Take over the parameters in `mapping`; strict: exactly those of this layer."""
        missing = self._params.keys() - mapping.keys()
        unexpected = mapping.keys() - self._params.keys()
        if strict and (missing or unexpected):
            raise ValueError(
                f"state_dict: missing {sorted(missing)}, unexpected {sorted(unexpected)}"
            )
        # A new dict, so that a failure changes nothing and an old tape is told from a new one.
        self._params = {
            name: _real(name, mapping[name], old.shape).copy() if name in mapping else old
            for name, old in self._params.items()
        }

    def initial_state(self, batch_size: int) -> Any:
        """Zeros: h (L*D, B, P), or (h, c) with c (L*D, B, H)."""
        return self._given_out(self._state("state", None, _integer("batch_size", batch_size, 0)))

    # What it does.

    def __call__(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
    ) -> tuple[Array, Any]:
        y, state, _ = self.forward(x, state, lengths, mask, training=False)
        return y, state

    def step(self, x_t: npt.ArrayLike, state: Any = None) -> tuple[Array, Any]:
        """One step: x_t (B, I) -> y_t (B, P)."""
        if self.bidirectional:
            raise ValueError("step: the reverse direction starts at the end, which is not known")
        x = np.asarray(x_t)
        if x.ndim != 2:
            raise ValueError(f"x_t: expected shape (B, {self.input_size}), got {x.shape}")
        time = 1 if self.batch_first else 0
        y, state = self(np.expand_dims(x, time), state)
        return y.squeeze(time), state

    def forward(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        lengths: npt.ArrayLike | None = None,
        mask: npt.ArrayLike | None = None,
        training: bool = True,
        *,
        dropout_masks: Sequence[npt.ArrayLike] | None = None,
        state_masks: Sequence[StateMasks] | None = None,
    ) -> tuple[Array, Any, Tape]:
        """y, the final state, and the tape.

        `dropout_masks`, one for each gap between two layers, shape of the lower one's output,
        holds the factors 0 and 1 / (1 - dropout); left out, training draws them. `state_masks`, one
        for each layer and direction, are what recurrent dropout and zoneout do; likewise.
        """
        x = self._swapped(_real("x", x))
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"x: expected 3 axes, the last {self.input_size}, got {x.shape}")
        live = self._live(lengths, mask, *x.shape[:2])
        factors = self._dropout_factors(dropout_masks, training, live)
        s = self._state("state", state, live.shape[1])
        masks = self._state_masks(state_masks, training, live)

        steps: list[list[Step]] = []
        for k in range(self.num_layers):
            y = []
            for suffix in self._directions:
                d = len(steps)
                y_d, s_d, steps_d = forward_direction(
                    self.cell,
                    self._weights(k, suffix),
                    x,
                    _at(s, d),
                    live,
                    bool(suffix),
                    masks[d],
                    self.zoneout,
                )
                y.append(y_d)
                steps.append(steps_d)
                _put(s, d, s_d)
            x = np.concatenate(y, axis=2)
            if factors is not None and k < len(factors):
                x = x * factors[k]
        y_out = np.ascontiguousarray(self._swapped(x))
        return y_out, self._given_out(s), Tape(self._params, live, steps, factors)

    def backward(
        self,
        tape: Tape,
        dy: npt.ArrayLike | None = None,
        dstate: Any = None,
        *,
        flow: list[list[Any]] | None = None,
    ) -> Gradients:
        """The gradients of a loss whose gradient is `dy` at y and `dstate` at the final state.

        `flow`, an empty list, is filled with d<t>, the gradients at the states: one for each step
        of `tape.steps`, which says of which rows.
        """
        if tape.params is not self._params:
            raise ValueError("tape: expected one of this layer and of its present weights")
        if dy is None and dstate is None:
            raise ValueError("backward: expected dy, dstate or both, got neither")
        time, batch = tape.live.shape
        y_shape = (time, batch, self.output_size)
        d_y = np.zeros(y_shape) if dy is None else self._sequence("dy", dy, y_shape)
        d_s = self._state("dstate", dstate, batch)

        d_states: list[list[Any]] = [[] for _ in tape.steps]
        d_params: dict[str, Array] = {}
        for k in reversed(range(self.num_layers)):
            if tape.dropout_masks is not None and k < len(tape.dropout_masks):
                d_y = d_y * tape.dropout_masks[k]
            inputs = self.input_size if k == 0 else self.output_size
            d_x = np.zeros((time, batch, inputs))  # both directions read x
            d_y_parts = np.split(d_y, len(self._directions), axis=2)
            for suffix, d_y_d in zip(self._directions, d_y_parts, strict=True):
                d = k * len(self._directions) + bool(suffix)
                weights, steps = self._weights(k, suffix), tape.steps[d]
                d_w, d_s_d, d_states[d] = backward_direction(
                    self.cell, weights, steps, d_y_d, _at(d_s, d), d_x
                )
                _put(d_s, d, d_s_d)
                d_params.update({f"{name}_l{k}{suffix}": d_w[name] for name in d_w})
            d_y = d_x
        if flow is not None:
            flow.extend(d_states)
        return Gradients(
            x=np.ascontiguousarray(self._swapped(d_y)),
            state=self._given_out(d_s),
            params={name: d_params[name] for name in self._params},
        )

    # Parameters.

    def _initial_params(self) -> dict[str, Array]:
        """W_ih Glorot uniform and W_hh orthogonal, gate by gate; biases 0.

        What each unit has for itself is Glorot uniform with both fans H.
        """
        hidden, gates = self.hidden_size, len(self.cell.gates._fields)
        params: dict[str, Array] = {}
        for k in range(self.num_layers):
            inputs = self.input_size if k == 0 else self.output_size
            for suffix in self._directions:
                end = f"l{k}{suffix}"
                params[f"weight_ih_{end}"] = np.concatenate(
                    [_glorot(self._random, hidden, inputs) for _ in range(gates)]
                )
                params[f"weight_hh_{end}"] = np.concatenate(
                    [_orthogonal(self._random, hidden, self._h_size) for _ in range(gates)]
                )
                for name in self.cell.biases if self.bias else ():
                    params[f"{name}_{end}"] = np.zeros(gates * hidden)
                if self.proj_size:
                    params[f"weight_hr_{end}"] = _glorot(self._random, self.proj_size, hidden)
                for name in ("norm_ih", "norm_hh") if self.cell.normalised else ():
                    params[f"{name}_{end}"] = np.ones(gates * hidden)
                for name in self.cell.per_unit:
                    if name.startswith("norm"):
                        params[f"{name}_{end}"] = np.full(hidden, float(name == "norm_c"))
                        continue
                    bound = np.sqrt(6 / (hidden + hidden))
                    params[f"{name}_{end}"] = self._random.uniform(-bound, bound, hidden)
        return params

    def _weights(self, k: int, suffix: str) -> dict[str, Array]:
        """The parameters of one direction of layer k, by the part of their name before `_l`."""
        end = f"_l{k}{suffix}"
        return {
            name.removesuffix(end): parameter
            for name, parameter in self._params.items()
            if name.endswith(end)
        }

    # From and to the caller's form.

    def _swapped(self, a: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(B, T, ...) <-> (T, B, ...) where the caller's form is the former."""
        return a.swapaxes(0, 1) if self.batch_first and a.ndim >= 2 else a

    def _sequence(self, name: str, given: npt.ArrayLike, shape: tuple[int, int, int]) -> Array:
        """What is given in the caller's form, as an array of `shape` (T, B, .)."""
        time, batch, size = shape
        expected = (batch, time, size) if self.batch_first else shape
        return self._swapped(_real(name, given, expected))

    def _state(self, name: str, given: Any, batch: int) -> Any:
        """The cell's State of all layers and directions: copies of what is given, or zeros."""
        fields = self.cell.state._fields
        shapes = dict.fromkeys(fields, (self._depth, batch, self.hidden_size))
        shapes["h"] = (self._depth, batch, self._h_size)
        if given is None:
            return self.cell.state(*(np.zeros(shapes[field]) for field in fields))
        parts = given if len(fields) > 1 else (given,)
        if len(parts) != len(fields):
            raise ValueError(f"{name}: expected ({', '.join(fields)}), got {len(parts)} arrays")
        return self.cell.state(
            *(
                _real(f"{name} {field}", part, shapes[field]).copy()
                for field, part in zip(fields, parts, strict=True)
            )
        )

    @property
    def _depth(self) -> int:
        return self.num_layers * len(self._directions)

    def _given_out(self, s: Any) -> Any:
        return tuple(s) if len(s) > 1 else s[0]

    def _live(
        self, lengths: npt.ArrayLike | None, mask: npt.ArrayLike | None, steps: int, batch: int
    ) -> Live:
        """(T, B): which rows take part in which steps."""
        if lengths is not None and mask is not None:
            raise ValueError("lengths and mask: expected at most one of them, got both")
        if lengths is not None:
            n = np.asarray(lengths)
            if n.dtype.kind not in "iu" and n.size:
                raise TypeError(f"lengths: expected integers, got {n.dtype}")
            if n.shape != (batch,) or np.any(n < 0) or np.any(n > steps):
                raise ValueError(f"lengths: expected {batch} in [0, {steps}], got {lengths}")
            return np.arange(steps)[:, None] < n
        if mask is not None:
            m = self._swapped(np.asarray(mask))
            if m.dtype.kind not in "biu":
                raise TypeError(f"mask: expected booleans or 0 and 1, got {m.dtype}")
            if m.shape != (steps, batch) or np.any((m != 0) & (m != 1)):
                raise ValueError(f"mask: expected 0 and 1 for each row and step, got {mask}")
            return m.astype(bool)
        return np.ones((steps, batch), dtype=bool)

    def _dropout_factors(
        self, given: Sequence[npt.ArrayLike] | None, training: bool, live: Live
    ) -> list[Array] | None:
        """What to multiply each layer's output with, the last layer's excepted; None: nothing."""
        gaps, shape = self.num_layers - 1, (*live.shape, self.output_size)
        if given is not None:
            if not training:
                raise ValueError("dropout_masks: expected None unless training, got masks")
            if len(given) != gaps:
                raise ValueError(f"dropout_masks: expected {gaps}, got {len(given)}")
            return [self._sequence("dropout_masks", m, shape) for m in given]
        if not training or self.dropout == 0:
            return None
        # Scaled now, so that inference has nothing to do.
        keep = 1 - self.dropout
        return [(self._random.random(shape) < keep) / keep for _ in range(gaps)]

    def _state_masks(
        self, given: Sequence[StateMasks] | None, training: bool, live: Live
    ) -> list[StateMasks]:
        """What is drawn for each layer and direction."""
        if given is not None:
            if not training:
                raise ValueError("state_masks: expected None unless training, got masks")
            if len(given) != self._depth:
                raise ValueError(f"state_masks: expected {self._depth}, got {len(given)}")
            return list(given)
        if not training:
            return [StateMasks()] * self._depth

        def chance(share: float, shape: tuple[int, ...]) -> Array | None:
            return np.where(self._random.random(shape) < share, 1.0, 0.0) if share else None

        masks = []
        for _ in range(self._depth):
            hidden = chance(self.recurrent_dropout, (live.shape[1], self._h_size))
            masks.append(
                StateMasks(
                    None if hidden is None else (1 - hidden) / (1 - self.recurrent_dropout),
                    chance(self.zoneout["h"], (*live.shape, self._h_size)),
                    chance(self.zoneout["c"], (*live.shape, self.hidden_size)),
                )
            )
        return masks


class Step(NamedTuple):
    """What one step keeps for its backward: of its live rows alone."""

    t: int
    rows: Live  # (B,)
    x: Array
    s: Any
    q: Array | None  # what the late gates multiplied
    saved: Any
    s_new: Any  # as the cell gave it: before a projection
    norm_x: Any  # what normalisation keeps of the gates from x, and from h
    norm_h: Any
    m: Array | float  # what the recurrent products read is h' times this
    kept: dict[str, Array | float]  # of each field of the state, the share that stayed


def forward_direction(
    cell: Cell[Any, Any, Any],
    w: dict[str, Array],
    x: Array,
    s: Any,
    live: Live,
    reverse: bool,
    masks: StateMasks,
    zoneout: dict[str, float],
) -> tuple[Array, Any, list[Step]]:
    """One direction of one layer over all steps: y, the final state, and the steps as taken."""
    y = np.zeros((*live.shape, s.h.shape[1]))
    steps = []
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        rows = live[t]
        m = 1.0 if masks.recurrent is None else masks.recurrent[rows]
        drawn = {"h": masks.kept_h, "c": masks.kept_c}
        kept: dict[str, Array | float] = {
            field: zoneout[field] if (k := drawn[field]) is None else k[t, rows]
            for field in cell.state._fields
        }
        s_t, step = forward_step(cell, w, t, rows, x[t, rows], _at(s, rows), m, kept)
        _put(s, rows, s_t)
        y[t, rows] = s_t.h
        steps.append(step)
    return y, s, steps


def backward_direction(
    cell: Cell[Any, Any, Any],
    w: dict[str, Array],
    steps: list[Step],
    d_y: Array,
    d_s: Any,
    d_x: Array,
) -> tuple[dict[str, Array], Any, list[Any]]:
    """The steps again, last taken first: adds to d_x.

    Gives d_w, that of the initial state, and those of the states after each step.
    """
    flow = []
    d_w = {name: np.zeros_like(parameter) for name, parameter in w.items()}
    for step in reversed(steps):
        rows = step.rows
        d_s_t = _at(d_s, rows)
        d_s_t = d_s_t._replace(h=d_s_t.h + d_y[step.t, rows])  # h is state and output at once
        flow.append(d_s_t)
        d_x_t, d_s_t = backward_step(cell, w, step, d_s_t, d_w)
        d_x[step.t, rows] += d_x_t
        _put(d_s, rows, d_s_t)
    return d_w, d_s, flow[::-1]


def forward_step(
    cell: Cell[Any, Any, Any],
    w: dict[str, Array],
    t: int,
    rows: Live,
    x: Array,
    s: Any,
    m: Array | float,
    kept: dict[str, Array | float],
) -> tuple[Any, Step]:
    """One step of the live rows: the new state, and the step for the tape."""
    gx, norm_x = _normalised(x @ w["weight_ih"].T, w.get("norm_ih"))
    gh, norm_h = _normalised((m * s.h) @ w["weight_hh"].T, w.get("norm_hh"))
    gx, gh = gx + w.get("bias_ih", 0.0), gh + w.get("bias_hh", 0.0)
    q = None
    if cell.late:
        late = _late(cell, w)
        q = m * cell.between(_split(cell, gx), _split(cell, gh), s)
        gh[:, late:] = q @ w["weight_hh"][late:].T
    s_new, saved = cell.forward(_split(cell, gx), _split(cell, gh), s, _per_unit(cell, w))
    step = Step(t, rows, x, s, q, saved, s_new, norm_x, norm_h, m, kept)
    if "weight_hr" in w:
        s_new = s_new._replace(h=s_new.h @ w["weight_hr"].T)
    for name, k in kept.items():
        if not isinstance(k, float) or k > 0:
            s_new = s_new._replace(**{name: k * getattr(s, name) + (1 - k) * getattr(s_new, name)})
    return s_new, step


def backward_step(
    cell: Cell[Any, Any, Any], w: dict[str, Array], step: Step, d_s: Any, d_w: dict[str, Array]
) -> tuple[Array, Any]:
    """d_x and d_s' of one step; adds its part of the parameters' gradients to d_w."""
    m = step.m
    past = {}  # what goes to s' without the step
    for name, k in step.kept.items():
        if not isinstance(k, float) or k > 0:
            past[name] = k * getattr(d_s, name)
            d_s = d_s._replace(**{name: (1 - k) * getattr(d_s, name)})
    if "weight_hr" in w:
        d_w["weight_hr"] += d_s.h.T @ step.s_new.h
        d_s = d_s._replace(h=d_s.h @ w["weight_hr"])

    p = _per_unit(cell, w)
    gates_x, gates_h, d_s_prev, d_p = cell.backward(step.saved, step.s, step.s_new, p, d_s)
    for name, d in zip(cell.per_unit, d_p, strict=True):
        d_w[name] += d.sum(axis=0)
    d_gx, d_gh = np.concatenate(gates_x, axis=1), np.concatenate(gates_h, axis=1)

    late = _late(cell, w)
    if step.q is not None:
        d_w["weight_hh"][late:] += d_gh[:, late:].T @ step.q
        d_q = m * (d_gh[:, late:] @ w["weight_hh"][late:])
        gates_q, d_s_q = cell.backward_between(step.saved, step.s, d_q)
        d_gx += np.concatenate(gates_q, axis=1)
        d_gh += np.concatenate(gates_q, axis=1)
        d_s_prev = type(d_s)(*(a + b for a, b in zip(d_s_prev, d_s_q, strict=True)))

    if "bias_ih" in w:
        d_w["bias_ih"] += d_gx.sum(axis=0)
    if "bias_hh" in w:
        d_w["bias_hh"] += d_gh.sum(axis=0)
    if cell.normalised:
        d_gx, d_norm_ih = layer_norm_backward(step.norm_x, w["norm_ih"], d_gx)
        d_gh, d_norm_hh = layer_norm_backward(step.norm_h, w["norm_hh"], d_gh)
        d_w["norm_ih"] += d_norm_ih.sum(axis=0)
        d_w["norm_hh"] += d_norm_hh.sum(axis=0)
    d_w["weight_ih"] += d_gx.T @ step.x
    d_w["weight_hh"][:late] += d_gh[:, :late].T @ (m * step.s.h)
    d_h = d_s_prev.h + m * (d_gh[:, :late] @ w["weight_hh"][:late])
    d_s_prev = d_s_prev._replace(h=d_h)
    for name, d in past.items():
        d_s_prev = d_s_prev._replace(**{name: getattr(d_s_prev, name) + d})
    return d_gx @ w["weight_ih"], d_s_prev


def _normalised(a: Array, gamma: Array | None) -> tuple[Array, Any]:
    return (a, None) if gamma is None else layer_norm(a, gamma)


def _late(cell: Cell[Any, Any, Any], w: dict[str, Array]) -> int:
    """The first row of W_hh that does not multiply h'; the number of rows if all do."""
    rows, gates = len(w["weight_hh"]), len(cell.gates._fields)
    return rows // gates * (gates - cell.late)


def _per_unit(cell: Cell[Any, Any, Any], w: dict[str, Array]) -> tuple[Array, ...]:
    return tuple(w[name] for name in cell.per_unit)


def _split(cell: Cell[Any, Any, Any], g: Array) -> Any:
    return cell.gates(*np.split(g, len(cell.gates._fields), axis=1))


def _at(s: Any, index: int | Live) -> Any:
    """A copy of the part of a state: a layer and direction, or the live rows of one."""
    return type(s)(*(a[index].copy() for a in s))


def _put(s: Any, index: int | Live, part: Any) -> None:
    for a, b in zip(s, part, strict=True):
        a[index] = b


def _glorot(random: np.random.Generator, outputs: int, inputs: int) -> Array:
    """Uniform, of variance 2 / (inputs + outputs) (Glorot & Bengio 2010)."""
    bound = np.sqrt(6 / (inputs + outputs))
    return random.uniform(-bound, bound, (outputs, inputs))


def _orthogonal(random: np.random.Generator, rows: int, columns: int) -> Array:
    """Orthonormal columns, evenly distributed (Saxe et al. 2014); columns <= rows."""
    q, r = np.linalg.qr(random.standard_normal((rows, columns)))
    return np.asarray(q * np.where(np.diag(r) < 0, -1.0, 1.0))  # QR alone prefers one sign


def _integer(name: str, value: Any, at_least: int) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if number < at_least:
        raise ValueError(f"{name}: expected at least {at_least}, got {number}")
    return number


def _real(name: str, value: npt.ArrayLike, shape: tuple[int, ...] | None = None) -> Array:
    """`value` in f64; refused if it is not real numbers, or not of the shape."""
    a = np.asarray(value)
    if a.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers, got {a.dtype}")
    if shape is not None and a.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {a.shape}")
    return a.astype(np.float64, copy=False)
