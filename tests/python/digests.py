"""One of everything the package computes, for processes whose results must agree.

    python digests.py OUT.npz         with SEQRS_LEVEL and SEQRS_NUM_THREADS as they are set

`computed` gives arrays by name; `main` writes them to a file.
"""

from __future__ import annotations

import sys
from typing import Any

import cases
import numpy as np
import seqrs

#: (B, T, I, H): below and above the width of a vector, and enough work for several threads.
SIZES = {"small": (3, 4, 5, 7), "odd": (17, 6, 33, 45), "wide": (40, 8, 64, 96)}


def computed() -> dict[str, cases.Array]:
    """Layers, models, losses, a training run and samples, in both precisions."""
    found: dict[str, cases.Array] = {}
    for dtype in cases.DTYPES:
        for cell in cases.CELLS:
            for size, (batch, steps, inputs, hidden) in SIZES.items():
                layer = cases.make(cell, dtype, inputs, hidden, num_layers=2, bidirectional=True)
                lengths = np.arange(batch) * 5 % (steps + 1)
                given = cases.Given(layer, batch, steps)
                for name, array in cases.everything(layer, given, lengths=lengths).items():
                    found[f"{dtype}/{cell}/{size}/{name}"] = array
        found |= {f"{dtype}/{name}": array for name, array in model_of(dtype).items()}
        found |= {f"{dtype}/{name}": array for name, array in trained(dtype).items()}
    return found


def model_of(dtype: str) -> dict[str, cases.Array]:
    """Every layer there is, in two models."""
    found: dict[str, cases.Array] = {}
    ids = np.random.default_rng(0).integers(0, 30, (9, 11))
    lengths = np.arange(9) + 2
    for pool in (seqrs.Last, seqrs.MeanPool, seqrs.MaxPool):
        model = seqrs.Sequential(
            [
                seqrs.Embedding(30, 19, dtype=dtype),
                seqrs.GRU(19, 21, bidirectional=True, dtype=dtype),
                seqrs.LayerNorm(42, dtype=dtype),
                seqrs.Activation("sigmoid"),
                pool(),
                seqrs.Linear(42, 13, dtype=dtype),
                seqrs.Activation("softmax"),
            ],
            seed=5,
        )
        y, _, tape = model.forward(ids, lengths=lengths)
        gradients = model.backward(tape, np.cos(np.arange(y.size)).reshape(y.shape))
        found[f"{pool.__name__}/y"] = y
        found |= {f"{pool.__name__}/d_{name}": d for name, d in gradients.params.items()}
    return found


def trained(dtype: str, steps: int = 4) -> dict[str, cases.Array]:
    """A short training run with dropout, clipping and truncated back-propagation."""
    model = seqrs.Sequential(
        [
            seqrs.Embedding(50, 24, dtype=dtype),
            seqrs.LSTM(24, 40, 2, dropout=0.3, dtype=dtype),
            seqrs.Dropout(0.2),
            seqrs.Linear(40, 50, dtype=dtype),
        ],
        seed=1,
    )
    trainer = seqrs.Trainer(
        model,
        loss=seqrs.CrossEntropy(),
        optimizer=seqrs.AdamW(lr=1e-2),
        clip_norm=0.5,
        bptt=5,
        seed=2,
    )
    random = np.random.default_rng(3)
    state: Any = None
    results: list[list[float]] = []
    for _ in range(steps):
        x = random.integers(0, 50, (32, 13))
        result = trainer.step(x, (x * 7 + 1) % 50, lengths=np.arange(32) % 14, state=state)
        state = result.state
        results.append([result.loss, result.grad_norm])
    found: dict[str, cases.Array] = {f"trained/{name}": p for name, p in model.state_dict().items()}
    found["trained/losses"] = np.array(results)
    found["trained/samples"] = seqrs.generate(model, [1, 2, 3], 40, temperature=0.8, seed=4)
    return found


def main(path: str) -> None:
    arrays: dict[str, Any] = computed()
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
