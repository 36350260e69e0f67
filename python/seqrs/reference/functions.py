"""The functions of cells, each above its slope, which is its derivative.

They are those of ONNX's RNN, LSTM and GRU, and their numbers alpha and beta are by default those of
ONNX's operators of the same names. A cell says which by a name, or by a tuple of a name and its
numbers: "leaky_relu", ("leaky_relu", 0.2).

With a bound, `clip`, the argument is cut to [-clip, clip] first; beyond it the slope is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def relu_slope(x: Array) -> Array:
    # Asked this way round, a NaN lets the gradient through instead of hiding behind 0.
    return np.where(x <= 0, 0.0, 1.0)


def tanh(x: Array) -> Array:
    return np.tanh(x)


def tanh_slope(x: Array) -> Array:
    return 1 - np.tanh(x) ** 2


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow and with full relative accuracy in both tails."""
    return np.exp(-np.logaddexp(0.0, -x))


def sigmoid_slope(x: Array) -> Array:
    return sigmoid(x) * (1 - sigmoid(x))


def affine(x: Array, alpha: float = 1.0, beta: float = 0.0) -> Array:
    return alpha * x + beta


def affine_slope(x: Array, alpha: float = 1.0, beta: float = 0.0) -> Array:
    return np.full_like(x, alpha)


def leaky_relu(x: Array, alpha: float = 0.01) -> Array:
    return np.where(x < 0, alpha * x, x)


def leaky_relu_slope(x: Array, alpha: float = 0.01) -> Array:
    return np.where(x < 0, alpha, 1.0)


def thresholded_relu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x < alpha, 0.0, x)


def thresholded_relu_slope(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x < alpha, 0.0, 1.0)


def scaled_tanh(x: Array, alpha: float = 1.0, beta: float = 1.0) -> Array:
    return alpha * np.tanh(beta * x)


def scaled_tanh_slope(x: Array, alpha: float = 1.0, beta: float = 1.0) -> Array:
    return alpha * beta * (1 - np.tanh(beta * x) ** 2)


def hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def hard_sigmoid_slope(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    line = alpha * x + beta
    return np.where((line <= 0) | (line >= 1), 0.0, alpha)


def elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def elu_slope(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x < 0, alpha * np.exp(np.minimum(x, 0)), 1.0)


def softsign(x: Array) -> Array:
    return np.asarray(x / (1 + np.abs(x)))


def softsign_slope(x: Array) -> Array:
    return np.asarray(1 / (1 + np.abs(x)) ** 2)


def softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def softplus_slope(x: Array) -> Array:
    return sigmoid(x)


#: Value and slope by name.
FUNCTIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "relu": (relu, relu_slope),
    "tanh": (tanh, tanh_slope),
    "sigmoid": (sigmoid, sigmoid_slope),
    "affine": (affine, affine_slope),
    "leaky_relu": (leaky_relu, leaky_relu_slope),
    "thresholded_relu": (thresholded_relu, thresholded_relu_slope),
    "scaled_tanh": (scaled_tanh, scaled_tanh_slope),
    "hard_sigmoid": (hard_sigmoid, hard_sigmoid_slope),
    "elu": (elu, elu_slope),
    "softsign": (softsign, softsign_slope),
    "softplus": (softplus, softplus_slope),
}


class Function:
    """A function of a cell: f(x), and its derivative f.slope(x)."""

    def __init__(self, which: Any, clip: float | None = None) -> None:
        name, *self.numbers = which if isinstance(which, tuple) else (which,)
        if name not in FUNCTIONS:
            raise ValueError(f"function: expected one of {', '.join(FUNCTIONS)}, got {name!r}")
        if clip is not None and not 0 < clip < np.inf:
            raise ValueError(f"clip: expected a finite number above 0, got {clip}")
        self.value, self.derivative = FUNCTIONS[name]
        self.clip = clip

    def __call__(self, x: Array) -> Array:
        return self.value(self.cut(x), *self.numbers)

    def slope(self, x: Array) -> Array:
        slope = self.derivative(self.cut(x), *self.numbers)
        return slope if self.clip is None else np.where(np.abs(x) > self.clip, 0.0, slope)

    def cut(self, x: Array) -> Array:
        return x if self.clip is None else np.clip(x, -self.clip, self.clip)
