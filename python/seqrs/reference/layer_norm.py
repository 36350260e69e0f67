"""Layer normalisation of rows (Ba et al. 2016).

    hat = (x - mean) / sqrt(variance + epsilon),    y = gamma * hat

Mean and variance are those of a row. Backward, with g = gamma * d_y:

    d_x = (g - mean of g - hat * mean of g * hat) / sqrt(variance + epsilon)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: As in haste, PyTorch and Keras.
EPSILON = 1e-5


class Kept(NamedTuple):
    hat: Array
    inverse: Array  # 1 / sqrt(variance + epsilon), a column


def layer_norm(x: Array, gamma: Array) -> tuple[Array, Kept]:
    """y of rows x (B, N) with gamma (N), and what `layer_norm_backward` needs to know."""
    centred = x - x.mean(axis=1, keepdims=True)
    inverse = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    hat = centred * inverse
    return gamma * hat, Kept(hat, inverse)


def layer_norm_backward(kept: Kept, gamma: Array, d_y: Array) -> tuple[Array, Array]:
    """d_x, and d_gamma of each row."""
    hat, inverse = kept
    g = gamma * d_y
    along = (g * hat).mean(axis=1, keepdims=True)
    return (g - g.mean(axis=1, keepdims=True) - hat * along) * inverse, d_y * hat
