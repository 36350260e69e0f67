"""Writes diagnosis/: models, batches, and what there is to find, by the reference.

    python tests/golden/diagnosis.py

The numbers are those of `tests/python/diagnosed.py`; the tests of `diagnose` from Rust and from
Python are held against these files. The weights are drawn by NumPy from a seed; the models are in
float64.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import seqrs

sys.path.append(str(Path(__file__).parents[1] / "python"))
from diagnosed import diagnosed

FOLDER = Path(__file__).parent / "diagnosis"
B, T, I = 3, 5, 2  # noqa: E741 (the letters of the design)
D: Any = {"dtype": "float64"}
LENGTHS = [4, 0, 5]
FUNCTIONS: Any = {
    "gate_activation": ("hard_sigmoid", 0.25),
    "candidate_activation": ("scaled_tanh", 1.5, 0.75),
    "output_activation": ("leaky_relu", 0.125),
    "clip": 1.5,
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    random = np.random.default_rng(11)
    x = random.normal(size=(B, T, I))
    ids = random.integers(0, 6, (B, T))
    classes = random.integers(0, 4, (B, T))
    mask = random.integers(0, 2, (B, T))
    cases: list[dict[str, Any]] = []

    def case(
        name: str, layers: list[Any], x: Any, y: Any, loss: seqrs.losses.Loss, **options: Any
    ) -> None:
        model = seqrs.Sequential(layers)
        weights = {k: random.normal(size=w.shape) for k, w in model.state_dict().items()}
        model.load_state_dict(weights)
        model.save(FOLDER / f"{name}.safetensors")
        found = diagnosed(model, x, y, loss, **options)
        batch = {"x": flat(x), "y": flat(y), "loss": json.loads(loss.spec_json)}
        batch |= {key: np.asarray(value).tolist() for key, value in options.items()}
        cases.append({"name": name, **batch, "found": found})

    both = seqrs.LSTM(4, 3, 2, bidirectional=True, proj_size=2, **D)
    last = [seqrs.Embedding(6, 4, **D), both, seqrs.Last(), seqrs.Linear(4, 4, **D)]
    case("lstm", last, ids, classes[:, 0], seqrs.CrossEntropy(), lengths=LENGTHS)
    gru = [seqrs.GRU(I, 3, bidirectional=True, **D), seqrs.LayerNorm(6, **D), seqrs.MaxPool()]
    case("gru", gru, x, random.normal(size=(B, 6)), seqrs.Huber(), lengths=LENGTHS)
    stack = [
        seqrs.GRU(I, 3, reset_after=True, batch_first=False, **D),
        seqrs.RNN(3, 4, 2, dropout=0.5, **D),
    ]
    case("time_first", stack, x.swapaxes(0, 1), classes.T, seqrs.CrossEntropy(reduction="sum"))
    relu = [seqrs.RNN(I, 5, nonlinearity="relu", bias=False, **D), seqrs.Linear(5, 1, **D)]
    case("relu", relu, x, random.normal(size=(B, T, 1)), seqrs.MSE(), mask=mask)
    chosen = [
        seqrs.LSTM(I, 3, coupled=True, peepholes=True, **FUNCTIONS, **D),
        seqrs.GRU(3, 3, candidate_activation=("elu", 0.5), clip=1.5, **D),
        seqrs.LSTM(3, 3, gate_activation="softplus", candidate_activation="softsign", **D),
        seqrs.RNN(3, 4, nonlinearity="relu", clip=2.0, **D),
    ]
    case("chosen", chosen, x, classes, seqrs.CrossEntropy(), lengths=LENGTHS)

    (FOLDER / "cases.json").write_text(json.dumps(cases, indent=1) + "\n", "utf-8")


def flat(values: Any) -> dict[str, Any]:
    array = np.asarray(values)
    return {"shape": array.shape, "numbers": array.reshape(-1).tolist()}


if __name__ == "__main__":
    main()
