"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

The textbook, and the names in the code below:

    f  = s(W_f [h', x] + b_f)          f   forget gate: how much of the old cell state stays
    i  = s(W_i [h', x] + b_i)          i   input gate: how much of the candidate enters
    o  = s(W_o [h', x] + b_o)          o   output gate: how much of the cell state shows
    c~ = tanh(W_c [h', x] + b_c)       g   candidate

    c = f * c' + i * c~
    h = o * tanh(c)

With peepholes (Gers & Schmidhuber 2000) the gates see the cell state too, each unit its own through
one number for each gate, i and f the one before the step and o the new one:

    f  = s(W_f [h', x] + w_cf * c' + b_f)
    i  = s(W_i [h', x] + w_ci * c' + b_i)
    o  = s(W_o [h', x] + w_co * c + b_o)

With coupled gates (the CIFG of Greff et al. 2017, ONNX's `input_forget`) there is no forget gate:
what enters is what goes,

    c = (1 - i) * c' + i * c~

With layer normalisation (Ba et al. 2016, as haste has it) h shows a normalised c, and c itself goes
on as it is:

    h = o * tanh(norm_c * norm(c) + norm_bias_c)

Other functions may stand for s, for the tanh of c~ and for that of c (`functions.py`): they are
`gate`, `candidate` and `output` in the code. What gate and candidate are applied to are the `sums`.

A prime marks the previous step, s is the sigmoid. The product with [h', x] comes in two parts, from
x (gx) and from h (gh), so that W_i is the i-rows of `weight_hh` beside those of `weight_ih`, and
b_i the sum of those of both biases. With a projection (Sak et al. 2014) the driver turns h into
W_hr h, of `proj_size` units, before anything reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .functions import Function
from .layer_norm import layer_norm, layer_norm_backward
from .sequence import Array, Cell, Layer


class LSTM(Layer):
    """y, (h, c) = LSTM(I, H)(x): x (B, T, I), y (B, T, D*P), h (L*D, B, P), c (L*D, B, H).

    P is `proj_size`, or H where that is 0.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        zoneout_cell: float = 0.0,
        proj_size: int = 0,
        peepholes: bool = False,
        coupled: bool = False,
        gate_activation: Any = "sigmoid",
        candidate_activation: Any = "tanh",
        output_activation: Any = "tanh",
        clip: float | None = None,
        layer_norm: bool = False,
        forget_bias: float = 1.0,
        batch_first: bool = True,
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        cells: dict[tuple[bool, bool], Callable[..., Cell[Any, Any, Any]]] = {
            (False, False): LstmCell,
            (False, True): PeepholeCell,
            (True, False): CoupledCell,
            (True, True): CoupledPeepholeCell,
        }
        cell: Cell[Any, Any, Any] = cells[bool(coupled), bool(peepholes)](
            Function(gate_activation, clip),
            Function(candidate_activation, clip),
            Function(output_activation),
        )
        if layer_norm and peepholes:
            raise ValueError("layer_norm: expected False with peepholes, got True")
        super().__init__(
            NormalisedCell(cell) if layer_norm else cell,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            bidirectional=bidirectional,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            zoneout_cell=zoneout_cell,
            proj_size=proj_size,
            batch_first=batch_first,
            dtype=dtype,
            seed=seed,
        )
        # With f near 1 at first, c keeps what it holds, and its gradient (Jozefowicz et al. 2015).
        for name, parameter in self._params.items():
            if name.startswith("bias_ih") and coupled:
                CoupledGates(*np.split(parameter, 3)).i[:] = -forget_bias
            elif name.startswith("bias_ih"):
                Gates(*np.split(parameter, 4)).f[:] = forget_bias


class Gates(NamedTuple):
    i: Array
    f: Array
    g: Array
    o: Array


class CoupledGates(NamedTuple):
    i: Array
    g: Array
    o: Array


class State(NamedTuple):
    h: Array
    c: Array


class Saved(NamedTuple):
    i: Array
    f: Array
    g: Array
    o: Array
    sums: Gates


class CoupledSaved(NamedTuple):
    i: Array
    g: Array
    o: Array
    sums: CoupledGates


class ThreeFunctions:
    """What all cells share."""

    state = State

    def __init__(self, gate: Function, candidate: Function, output: Function) -> None:
        self.gate = gate
        self.candidate = candidate
        self.output = output


class LstmCell(ThreeFunctions, Cell[Gates, State, Saved]):
    gates = Gates

    def forward(self, gx: Gates, gh: Gates, s: State, p: tuple[Array, ...]) -> tuple[State, Saved]:
        sums = Gates(i=gx.i + gh.i, f=gx.f + gh.f, g=gx.g + gh.g, o=gx.o + gh.o)
        i, f, o = self.gate(sums.i), self.gate(sums.f), self.gate(sums.o)
        g = self.candidate(sums.g)
        c = f * s.c + i * g
        return State(h=o * self.output(c), c=c), Saved(i, f, g, o, sums)

    def backward(
        self, saved: Saved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Gates, Gates, State, tuple[Array, ...]]:
        i, f, g, o, sums = saved
        # c is read twice: by h at this step, and by the next step, whose part is d_s.c.
        d_c = d_s.c + d_s.h * o * self.output.slope(s_new.c)
        d_g = Gates(
            i=d_c * g * self.gate.slope(sums.i),
            f=d_c * s.c * self.gate.slope(sums.f),
            g=d_c * i * self.candidate.slope(sums.g),
            o=d_s.h * self.output(s_new.c) * self.gate.slope(sums.o),
        )
        return d_g, d_g, State(h=np.zeros_like(s.h), c=d_c * f), ()


class PeepholeCell(ThreeFunctions, Cell[Gates, State, Saved]):
    """The same, but that i and f read c' and o reads c."""

    gates = Gates
    per_unit = ("weight_ci", "weight_cf", "weight_co")

    def forward(self, gx: Gates, gh: Gates, s: State, p: tuple[Array, ...]) -> tuple[State, Saved]:
        w_ci, w_cf, w_co = p
        a_i = gx.i + gh.i + w_ci * s.c
        a_f = gx.f + gh.f + w_cf * s.c
        a_g = gx.g + gh.g
        i, f, g = self.gate(a_i), self.gate(a_f), self.candidate(a_g)
        c = f * s.c + i * g
        a_o = gx.o + gh.o + w_co * c
        o = self.gate(a_o)
        return State(h=o * self.output(c), c=c), Saved(i, f, g, o, Gates(a_i, a_f, a_g, a_o))

    def backward(
        self, saved: Saved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Gates, Gates, State, tuple[Array, ...]]:
        w_ci, w_cf, w_co = p
        i, f, g, o, sums = saved
        # h = o tanh(c) is read first on the way back, as o itself reads c.
        d_a_o = d_s.h * self.output(s_new.c) * self.gate.slope(sums.o)
        # c is read by h, by o and by the next step.
        d_c = d_s.h * o * self.output.slope(s_new.c) + d_a_o * w_co + d_s.c
        d_a_i = d_c * g * self.gate.slope(sums.i)
        d_a_f = d_c * s.c * self.gate.slope(sums.f)
        d_g = Gates(i=d_a_i, f=d_a_f, g=d_c * i * self.candidate.slope(sums.g), o=d_a_o)
        # c' is read by c, by i and by f.
        d_c_prev = d_c * f + d_a_i * w_ci + d_a_f * w_cf
        d_p = (d_a_i * s.c, d_a_f * s.c, d_a_o * s_new.c)
        return d_g, d_g, State(h=np.zeros_like(s.h), c=d_c_prev), d_p


class CoupledCell(ThreeFunctions, Cell[CoupledGates, State, CoupledSaved]):
    """Without a forget gate: 1 - i stands for f."""

    gates = CoupledGates

    def forward(
        self, gx: CoupledGates, gh: CoupledGates, s: State, p: tuple[Array, ...]
    ) -> tuple[State, CoupledSaved]:
        sums = CoupledGates(i=gx.i + gh.i, g=gx.g + gh.g, o=gx.o + gh.o)
        i, g, o = self.gate(sums.i), self.candidate(sums.g), self.gate(sums.o)
        c = (1 - i) * s.c + i * g
        return State(h=o * self.output(c), c=c), CoupledSaved(i, g, o, sums)

    def backward(
        self, saved: CoupledSaved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[CoupledGates, CoupledGates, State, tuple[Array, ...]]:
        i, g, o, sums = saved
        d_c = d_s.c + d_s.h * o * self.output.slope(s_new.c)
        d_g = CoupledGates(
            i=d_c * (g - s.c) * self.gate.slope(sums.i),
            g=d_c * i * self.candidate.slope(sums.g),
            o=d_s.h * self.output(s_new.c) * self.gate.slope(sums.o),
        )
        return d_g, d_g, State(h=np.zeros_like(s.h), c=d_c * (1 - i)), ()


class CoupledPeepholeCell(ThreeFunctions, Cell[CoupledGates, State, CoupledSaved]):
    """The same, but that i reads c' and o reads c."""

    gates = CoupledGates
    per_unit = ("weight_ci", "weight_co")

    def forward(
        self, gx: CoupledGates, gh: CoupledGates, s: State, p: tuple[Array, ...]
    ) -> tuple[State, CoupledSaved]:
        w_ci, w_co = p
        a_i = gx.i + gh.i + w_ci * s.c
        a_g = gx.g + gh.g
        i, g = self.gate(a_i), self.candidate(a_g)
        c = (1 - i) * s.c + i * g
        a_o = gx.o + gh.o + w_co * c
        o = self.gate(a_o)
        saved = CoupledSaved(i, g, o, CoupledGates(a_i, a_g, a_o))
        return State(h=o * self.output(c), c=c), saved

    def backward(
        self, saved: CoupledSaved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[CoupledGates, CoupledGates, State, tuple[Array, ...]]:
        w_ci, w_co = p
        i, g, o, sums = saved
        d_a_o = d_s.h * self.output(s_new.c) * self.gate.slope(sums.o)
        d_c = d_s.h * o * self.output.slope(s_new.c) + d_a_o * w_co + d_s.c
        # i is read by c twice: as what enters and, less, as what stays.
        d_a_i = d_c * (g - s.c) * self.gate.slope(sums.i)
        d_g = CoupledGates(i=d_a_i, g=d_c * i * self.candidate.slope(sums.g), o=d_a_o)
        d_p = (d_a_i * s.c, d_a_o * s_new.c)
        d_c_prev = d_c * (1 - i) + d_a_i * w_ci
        return d_g, d_g, State(h=np.zeros_like(s.h), c=d_c_prev), d_p


class NormalisedCell(Cell[Any, State, Any]):
    """Another cell around which all is normalised: its products, and the c that its h shows."""

    state = State
    per_unit = ("norm_c", "norm_bias_c")
    normalised = True

    def __init__(self, cell: Any) -> None:
        self.cell = cell
        self.gates = cell.gates

    def forward(self, gx: Any, gh: Any, s: State, p: tuple[Array, ...]) -> tuple[State, Any]:
        norm_c, norm_bias_c = p
        s_new, saved = self.cell.forward(gx, gh, s, ())
        scaled, kept = layer_norm(s_new.c, norm_c)
        shown = scaled + norm_bias_c
        return State(h=saved.o * self.cell.output(shown), c=s_new.c), (saved, shown, kept)

    def backward(
        self, saved: Any, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Any, Any, State, tuple[Array, ...]]:
        norm_c, _ = p
        inner, shown, kept = saved
        # h = o * tanh(shown): to o, and through the norm to c.
        d_o = d_s.h * self.cell.output(shown) * self.cell.gate.slope(inner.sums.o)
        d_shown = d_s.h * inner.o * self.cell.output.slope(shown)
        d_c, d_norm_c = layer_norm_backward(kept, norm_c, d_shown)
        none = np.zeros_like(d_o)
        d_g, _, d_before, _ = self.cell.backward(inner, s, s_new, (), State(none, d_s.c + d_c))
        d_g = d_g._replace(o=d_o)
        return d_g, d_g, d_before, (d_norm_c, d_shown)
