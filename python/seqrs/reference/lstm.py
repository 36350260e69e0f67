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

A prime marks the previous step, s is the sigmoid. The product with [h', x] comes in two parts, from
x (gx) and from h (gh), so that W_i is the i-rows of `weight_hh` beside those of `weight_ih`, and
b_i the sum of those of both biases. With a projection (Sak et al. 2014) the driver turns h into
W_hr h, of `proj_size` units, before anything reads it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sequence import Array, Cell, Layer, sigmoid


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
        proj_size: int = 0,
        peepholes: bool = False,
        forget_bias: float = 1.0,
        batch_first: bool = True,
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        super().__init__(
            PeepholeCell() if peepholes else LstmCell(),
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            bidirectional=bidirectional,
            dropout=dropout,
            proj_size=proj_size,
            batch_first=batch_first,
            dtype=dtype,
            seed=seed,
        )
        # With f near 1 at first, c keeps what it holds, and its gradient (Jozefowicz et al. 2015).
        for name, parameter in self._params.items():
            if name.startswith("bias_ih"):
                Gates(*np.split(parameter, 4)).f[:] = forget_bias


class Gates(NamedTuple):
    i: Array
    f: Array
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
    tanh_c: Array


class LstmCell(Cell[Gates, State, Saved]):
    gates = Gates
    state = State

    def forward(self, gx: Gates, gh: Gates, s: State, p: tuple[Array, ...]) -> tuple[State, Saved]:
        i = sigmoid(gx.i + gh.i)
        f = sigmoid(gx.f + gh.f)
        g = np.tanh(gx.g + gh.g)
        o = sigmoid(gx.o + gh.o)
        c = f * s.c + i * g
        tanh_c = np.tanh(c)
        return State(h=o * tanh_c, c=c), Saved(i, f, g, o, tanh_c)

    def backward(
        self, saved: Saved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Gates, Gates, State, tuple[Array, ...]]:
        i, f, g, o, tanh_c = saved
        # c is read twice: by h at this step, and by the next step, whose part is d_s.c.
        d_c = d_s.c + d_s.h * o * (1 - tanh_c**2)
        d_g = Gates(
            i=d_c * g * i * (1 - i),
            f=d_c * s.c * f * (1 - f),
            g=d_c * i * (1 - g**2),
            o=d_s.h * tanh_c * o * (1 - o),
        )
        return d_g, d_g, State(h=np.zeros_like(s.h), c=d_c * f), ()


class PeepholeCell(Cell[Gates, State, Saved]):
    """The same, but that i and f read c' and o reads c."""

    gates = Gates
    state = State
    per_unit = ("weight_ci", "weight_cf", "weight_co")

    def forward(self, gx: Gates, gh: Gates, s: State, p: tuple[Array, ...]) -> tuple[State, Saved]:
        w_ci, w_cf, w_co = p
        i = sigmoid(gx.i + gh.i + w_ci * s.c)
        f = sigmoid(gx.f + gh.f + w_cf * s.c)
        g = np.tanh(gx.g + gh.g)
        c = f * s.c + i * g
        o = sigmoid(gx.o + gh.o + w_co * c)
        tanh_c = np.tanh(c)
        return State(h=o * tanh_c, c=c), Saved(i, f, g, o, tanh_c)

    def backward(
        self, saved: Saved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Gates, Gates, State, tuple[Array, ...]]:
        w_ci, w_cf, w_co = p
        i, f, g, o, tanh_c = saved
        # h = o tanh(c) is read first on the way back, as o itself reads c.
        d_a_o = d_s.h * tanh_c * o * (1 - o)
        # c is read by h, by o and by the next step.
        d_c = d_s.h * o * (1 - tanh_c**2) + d_a_o * w_co + d_s.c
        d_a_i = d_c * g * i * (1 - i)
        d_a_f = d_c * s.c * f * (1 - f)
        d_g = Gates(i=d_a_i, f=d_a_f, g=d_c * i * (1 - g**2), o=d_a_o)
        # c' is read by c, by i and by f.
        d_c_prev = d_c * f + d_a_i * w_ci + d_a_f * w_cf
        d_p = (d_a_i * s.c, d_a_f * s.c, d_a_o * s_new.c)
        return d_g, d_g, State(h=np.zeros_like(s.h), c=d_c_prev), d_p
