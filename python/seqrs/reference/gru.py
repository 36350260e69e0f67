"""The gated recurrent unit, in its two forms (Cho et al. 2014).

The textbook (arXiv 1406.1078v3), and the names in the code below:

    u  = s(W_u [c', x] + b_u)              z   update gate: how much of the old state stays
    r  = s(W_r [c', x] + b_r)              r   reset gate: how much of it the candidate sees
    c~ = tanh(W_c [r * c', x] + b_c)       n   candidate
    c  = u * c' + (1 - u) * c~,  a = c     h = z * h' + (1 - z) * n

A prime marks the previous step, s is the sigmoid. The other form (arXiv 1406.1078v1) has the reset
gate after the product:

    n = tanh(W_in x + b_in + r * (W_hn h' + b_hn))

The first has one bias per gate, hence no `bias_hh`. The second is PyTorch's and cuDNN's; its b_hn
sits inside the reset, so both biases are needed. They are different functions: no weights turn one
into the other.

With layer normalisation (Ba et al. 2016, as haste has it), which the second form may have, the two
products are normalised before their biases (`sequence.py`).

Other functions may stand for s and tanh (`functions.py`): they are `gate` and `candidate` in the
code. What they are applied to are the `sums`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .functions import Function
from .sequence import Array, Cell, Layer


class GRU(Layer):
    """y, h = GRU(I, H)(x): x (B, T, I), y (B, T, D*H), h (L*D, B, H)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = False,
        gate_activation: Any = "sigmoid",
        candidate_activation: Any = "tanh",
        clip: float | None = None,
        layer_norm: bool = False,
        bias: bool = True,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        batch_first: bool = True,
        dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        form = ResetAfter if reset_after else ResetBefore
        cell = form(Function(gate_activation, clip), Function(candidate_activation, clip))
        if layer_norm and not reset_after:
            raise ValueError("layer_norm: expected False without reset_after, got True")
        cell.normalised = bool(layer_norm)
        super().__init__(
            cell,
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
    r: Array
    z: Array
    n: Array


class State(NamedTuple):
    h: Array


class Saved(NamedTuple):
    r: Array
    z: Array
    n: Array
    gh_n: Array
    sums: Gates


class GruCell(Cell[Gates, State, Saved]):
    """What the two forms share."""

    gates = Gates
    state = State

    def __init__(self, gate: Function, candidate: Function) -> None:
        self.gate = gate
        self.candidate = candidate


class ResetBefore(GruCell):
    """Two products inside one step: r and z read h', then n reads r * h'."""

    biases = ("bias_ih",)
    late = 1

    def between(self, gx: Gates, gh: Gates, s: State) -> Array:
        return self.gate(gx.r + gh.r) * s.h

    def forward(self, gx: Gates, gh: Gates, s: State, p: tuple[Array, ...]) -> tuple[State, Saved]:
        sums = Gates(r=gx.r + gh.r, z=gx.z + gh.z, n=gx.n + gh.n)
        r, z, n = self.gate(sums.r), self.gate(sums.z), self.candidate(sums.n)
        return State(h=z * s.h + (1 - z) * n), Saved(r, z, n, gh.n, sums)

    def backward(
        self, saved: Saved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Gates, Gates, State, tuple[Array, ...]]:
        _, z, n, _, sums = saved
        d_g = Gates(
            r=np.zeros_like(z),  # reaches h only through r * h': backward_between()
            z=d_s.h * (s.h - n) * self.gate.slope(sums.z),
            n=d_s.h * (1 - z) * self.candidate.slope(sums.n),
        )
        return d_g, d_g, State(h=d_s.h * z), ()

    def backward_between(self, saved: Saved, s: State, d_q: Array) -> tuple[Gates, State]:
        zero = np.zeros_like(saved.r)
        d_r = d_q * s.h * self.gate.slope(saved.sums.r)
        return Gates(r=d_r, z=zero, n=zero), State(h=d_q * saved.r)


class ResetAfter(GruCell):
    """One product; the only cell whose gates from x and from h have different gradients."""

    def forward(self, gx: Gates, gh: Gates, s: State, p: tuple[Array, ...]) -> tuple[State, Saved]:
        r = self.gate(gx.r + gh.r)
        sums = Gates(r=gx.r + gh.r, z=gx.z + gh.z, n=gx.n + r * gh.n)
        z, n = self.gate(sums.z), self.candidate(sums.n)
        return State(h=z * s.h + (1 - z) * n), Saved(r, z, n, gh.n, sums)

    def backward(
        self, saved: Saved, s: State, s_new: State, p: tuple[Array, ...], d_s: State
    ) -> tuple[Gates, Gates, State, tuple[Array, ...]]:
        r, z, n, gh_n, sums = saved
        d_z = d_s.h * (s.h - n) * self.gate.slope(sums.z)
        d_n = d_s.h * (1 - z) * self.candidate.slope(sums.n)
        d_r = d_n * gh_n * self.gate.slope(sums.r)
        return Gates(d_r, d_z, d_n), Gates(d_r, d_z, d_n * r), State(h=d_s.h * z), ()
