"""Makes the golden files beside it with Keras, in f32, from fixed seeds.

    KERAS_BACKEND=torch python tests/golden/keras/generate.py

Written with Keras 3.15 on PyTorch 2.15 (CPU). The files are committed; run this to add a
configuration, not to make a failing test pass.

{name}.npz              one layer, or a model that is a chain of layers:
    chain               JSON: name, class_name and config (its get_config) of each layer
    weights.{k}.{n}     array n of what get_weights of layer k gives
    x                   input: (B, T, F), or ids (B, T)
    mask                which steps are live, holes at both ends included
    y, y_masked         outputs without a mask and with it
    state.{n}, state_masked.{n}   final states, of a layer with return_state=True

Where Keras makes the mask of the input itself, `mask` is that one, and there is no `y`. What is
drawn is a multiple of 1/64, so that it packs small. (In f64 would be no more to learn: Keras's
product of two matrices of f64 is one of f32.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
ROWS, STEPS, INPUTS, UNITS = 4, 6, 3, 4
IDS, MASKED = 9, -1.0
MASK = np.array(
    [[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0]], bool
)

Arrays = dict[str, npt.NDArray[Any]]
layers = keras.layers


def main() -> None:
    for seed, (name, layer_or_model) in enumerate(configurations()):
        path = HERE / f"{name}.npz"
        np.savez_compressed(path, **golden(seed, layer_or_model))  # type: ignore[arg-type]
        print(f"{path.stat().st_size:7} {path.name}")


def cells() -> Iterator[tuple[str, type[keras.Layer], dict[str, Any]]]:
    yield "simple-rnn", layers.SimpleRNN, {}
    yield "simple-rnn-relu", layers.SimpleRNN, {"activation": "relu"}
    yield "lstm", layers.LSTM, {}
    yield "gru-reset-after", layers.GRU, {"reset_after": True}
    yield "gru-reset-before", layers.GRU, {"reset_after": False}


def configurations() -> Iterator[tuple[str, keras.Layer]]:
    every = {"return_sequences": True}
    whole = every | {"return_state": True}
    bare = {"use_bias": False}
    for name, cls, options in cells():
        yield name, cls(UNITS, **options, **whole)
        yield f"{name}-no-bias", cls(UNITS, **options, **whole, **bare)
        yield f"{name}-last", cls(UNITS, **options)
        yield f"{name}-backwards", cls(UNITS, **options, go_backwards=True)
        yield f"{name}-concat", layers.Bidirectional(cls(UNITS, **options, **whole))
        yield f"{name}-concat-last", layers.Bidirectional(cls(UNITS, **options))
    for name, cls, options in cells():
        for mode, chosen in (("sum", every), ("ave", {})):
            yield f"{name}-{mode}", layers.Bidirectional(cls(UNITS, **options, **chosen), mode)

    yield (
        "model-of-ids",
        keras.Sequential(
            [
                keras.Input((None,)),
                layers.Embedding(IDS, INPUTS, mask_zero=True),
                layers.Bidirectional(layers.GRU(UNITS, return_sequences=True)),
                layers.LayerNormalization(),
                layers.Dropout(0.25),
                layers.LSTM(UNITS),
                layers.Dense(2, activation="softmax"),
            ]
        ),
    )
    yield (
        "model-of-values",
        keras.Sequential(
            [
                keras.Input((None, INPUTS)),
                layers.Masking(MASKED),
                layers.TimeDistributed(layers.Dense(UNITS, activation="relu")),
                layers.LSTM(UNITS, go_backwards=True),
                layers.Activation("sigmoid"),
                layers.LayerNormalization(scale=False),
                layers.LayerNormalization(center=False),
                layers.Dense(2, use_bias=False),
            ]
        ),
    )

    # The functions of cells. Those above were drawn before them.
    for function in FUNCTIONS:
        yield f"simple-rnn-{function}", layers.SimpleRNN(UNITS, activation=function, **whole)
    for name, cls, options in cells():
        if cls is not layers.SimpleRNN:
            gates = {"recurrent_activation": "hard_sigmoid", "activation": "softsign"}
            yield f"{name}-functions", cls(UNITS, **options, **gates, **whole)


#: The functions that a cell may have, besides tanh and relu.
FUNCTIONS = ("sigmoid", "hard_sigmoid", "linear", "leaky_relu", "elu", "softsign", "softplus")


def golden(seed: int, layer_or_model: keras.Layer) -> Arrays:
    random = np.random.default_rng(seed)
    is_model = isinstance(layer_or_model, keras.Model)
    if not is_model:
        layer_or_model.build((None, None, INPUTS))
    layer_or_model.set_weights([draw(random, w.shape) for w in layer_or_model.get_weights()])
    chain = layer_or_model.layers if is_model else [layer_or_model]
    found: Arrays = {
        "chain": np.array(
            json.dumps(
                [
                    {"name": e.name, "class_name": type(e).__name__, "config": e.get_config()}
                    for e in chain
                ]
            )
        ),
        "mask": MASK,
    }
    for k, each in enumerate(chain):
        found |= {f"weights.{k}.{n}": array for n, array in enumerate(each.get_weights())}

    if isinstance(chain[0], layers.Embedding):
        x = np.where(MASK, random.integers(1, IDS, (ROWS, STEPS)), 0)
    else:
        x = draw(random, (ROWS, STEPS, INPUTS), 2.0)
    if isinstance(chain[0], layers.Masking):
        x[~MASK] = MASKED
    found["x"] = x
    if is_model:
        found["y_masked"] = output(layer_or_model(x, training=False))
        return found
    for suffix, words in (("", {}), ("_masked", {"mask": keras.ops.convert_to_tensor(MASK)})):
        result = layer_or_model(x, training=False, **words)
        y, *states = result if isinstance(result, (list, tuple)) else [result]
        found[f"y{suffix}"] = output(y)
        found |= {f"state{suffix}.{n}": output(state) for n, state in enumerate(states)}
    return found


def draw(
    random: np.random.Generator, shape: tuple[int, ...], scale: float = 0.75
) -> npt.NDArray[np.float32]:
    # Without -0.0, which the sum of two biases would not keep.
    return (np.round(random.normal(size=shape) * scale * 64) / 64 + 0.0).astype(np.float32)


def output(tensor: Any) -> npt.NDArray[Any]:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


if __name__ == "__main__":
    main()
