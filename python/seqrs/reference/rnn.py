"""The simple recurrent network (Elman 1990).

    a<t> = g1(W_aa a<t-1> + W_ax x<t> + b_a)          g1 = tanh or relu

In the names used here the activation a is the hidden state h, W_ax is `weight_ih`, W_aa is
`weight_hh`, and b_a is the sum `bias_ih + bias_hh`:

    h = g1(gx + gh),    gx = W_ih x + b_ih,    gh = W_hh h' + b_hh
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sequence import Array, Cell, Layer


class RNN(Layer):
    """y, h = RNN(I, H)(x): x (B, T, I), y (B, T, D*H), h (L*D, B, H)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        batch_first: bool = True,
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        cells: dict[str, type[Tanh | Relu]] = {"tanh": Tanh, "relu": Relu}
        if nonlinearity not in cells:
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(
            cells[nonlinearity](),
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            bidirectional=bidirectional,
            dropout=dropout,
            batch_first=batch_first,
            dtype=dtype,
            seed=seed,
        )


class Gates(NamedTuple):
    a: Array


class State(NamedTuple):
    h: Array


class Saved(NamedTuple):
    """Nothing: both derivatives are functions of h, which the driver keeps."""


class Tanh(Cell[Gates, State, Saved]):
    gates = Gates
    state = State

    def forward(self, gx: Gates, gh: Gates, s: State, p: tuple[Array, ...]) -> tuple[State, Saved]:
        return State(h=np.tanh(gx.a + gh.a)), Saved()

    def backward(
        self, saved: Saved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Gates, Gates, State, tuple[Array, ...]]:
        d_a = d_s.h * (1 - s_new.h**2)
        return Gates(d_a), Gates(d_a), State(h=np.zeros_like(s.h)), ()


class Relu(Cell[Gates, State, Saved]):
    gates = Gates
    state = State

    def forward(self, gx: Gates, gh: Gates, s: State, p: tuple[Array, ...]) -> tuple[State, Saved]:
        return State(h=np.maximum(gx.a + gh.a, 0)), Saved()

    def backward(
        self, saved: Saved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Gates, Gates, State, tuple[Array, ...]]:
        # Asked this way round, a NaN in h lets the gradient through instead of hiding behind 0.
        d_a = np.where(s_new.h <= 0, 0.0, d_s.h)
        return Gates(d_a), Gates(d_a), State(h=np.zeros_like(s.h)), ()
