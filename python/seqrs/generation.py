"""Sampling from a model of sequences of ids, such as a character model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import _seqrs
from .errors import DTypeError, ShapeError
from .models import Sequential
from .options import integer, real
from .options import seed as checked_seed
from .quantized import QuantizedSequential

__all__ = ["generate"]


def generate(
    model: Sequential | QuantizedSequential,
    prompt: npt.ArrayLike,
    steps: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """Continue `prompt` by `steps` ids, each drawn from what the model expects next.

    The model reads the prompt, then every id it has drawn. Of logits z, id k is drawn with
    probability proportional to exp(z_k / temperature), among the ids that are left by `top_k` and
    then `top_p`. All of it is one call into compiled code, without the GIL, and on the CPU,
    wherever the model is.

    Args:
        model: its input are ids (B, T), its output logits (B, T, C), over the same ids.
        prompt: at least one id, (P,).
        steps: how many ids are drawn, at least 0.
        temperature: below 1 the likely become likelier; 0 always takes the likeliest, the lowest
            id of equals.
        top_k: draw among the k likeliest only (Fan et al. 2018).
        top_p: draw among the fewest of the likeliest whose probabilities add up to at least this,
            in (0, 1] (Holtzman et al. 2020).
        seed: the same seed and prompt give the same ids.

    Returns:
        The ids that were drawn, (steps,), without the prompt.

    Raises:
        ShapeError: the prompt is empty, has another shape, or an id the model does not know.
        DTypeError: the prompt does not hold integers.
        StateError: a layer of the model needs the whole sequence.
    """
    if not isinstance(model, Sequential | QuantizedSequential):
        raise TypeError(f"model: expected a Sequential, quantised or not, got {model!r}")
    ids = np.asarray(prompt)
    if ids.ndim != 1 or ids.size == 0:
        raise ShapeError(f"prompt: expected at least one id, (P,), got shape {ids.shape}")
    if ids.dtype.kind not in "iu":
        raise DTypeError(f"prompt: expected integer ids, got {ids.dtype}")
    return _seqrs.generate(
        model._handle,
        ids,
        integer("steps", steps, 0),
        real("temperature", temperature, 0.0),
        None if top_k is None else integer("top_k", top_k),
        None if top_p is None else real("top_p", top_p, above=0.0, at_most=1.0),
        checked_seed(seed),
    )
