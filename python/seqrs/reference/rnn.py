"""The simple recurrent network (Elman 1990).

    a<t> = g1(W_aa a<t-1> + W_ax x<t> + b_a)          g1 = tanh, relu, ... (`functions.py`)

In the names used here the activation a is the hidden state h, W_ax is `weight_ih`, W_aa is
`weight_hh`, and b_a is the sum `bias_ih + bias_hh`:

    h = g1(gx + gh),    gx = W_ih x + b_ih,    gh = W_hh h' + b_hh
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .functions import Function
from .sequence import Array, Cell, Layer


class RNN(Layer):
    """y, h = RNN(I, H)(x): x (B, T, I), y (B, T, D*H), h (L*D, B, H)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Any = "tanh",
        clip: float | None = None,
        bias: bool = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        batch_first: bool = True,
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        super().__init__(
            RnnCell(g1=Function(nonlinearity, clip)),
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            bidirectional=bidirectional,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            batch_first=batch_first,
            dtype=dtype,
            seed=seed,
        )


class Gates(NamedTuple):
    a: Array


class State(NamedTuple):
    h: Array


class Saved(NamedTuple):
    sums: Gates


class RnnCell(Cell[Gates, State, Saved]):
    gates = Gates
    state = State

    def __init__(self, g1: Function) -> None:
        self.g1 = g1

    def forward(self, gx: Gates, gh: Gates, s: State, p: tuple[Array, ...]) -> tuple[State, Saved]:
        sums = Gates(a=gx.a + gh.a)
        return State(h=self.g1(sums.a)), Saved(sums)

    def backward(
        self, saved: Saved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Gates, Gates, State, tuple[Array, ...]]:
        d_a = d_s.h * self.g1.slope(saved.sums.a)
        return Gates(d_a), Gates(d_a), State(h=np.zeros_like(s.h)), ()
