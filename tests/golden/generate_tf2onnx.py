"""Writes golden/tf2onnx: recurrent models of Keras on TensorFlow as tf2onnx writes them.

    python tests/golden/generate_tf2onnx.py [where]

It needs tensorflow-cpu 2.21.0, Keras 3.15.1 and tf2onnx 1.17.0; `model.export(format="onnx")` of
Keras is the same converter. Each model is written as

    {model}.onnx
    {model}.npz                 what goes in under "x", and what Keras gives under "y"

An LSTM comes out as a node LSTM. A GRU, a SimpleRNN and what skips steps by a mask come out as
loops over nodes of their own, which are there to be refused: `REFUSED`. Notes are taken out of the
files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras.layers import GRU, LSTM, Bidirectional, Dense, Embedding, Masking, SimpleRNN

WORDS, WIDTH, HIDDEN, CLASSES = 12, 4, 5, 3
ROWS, STEPS = 3, 6

#: What is a loop in the file.
REFUSED = ("gru-after", "gru-before", "rnn", "masked")


def models() -> dict[str, Any]:
    """The layers of each; the first is an Embedding where ids go in."""
    return {
        "lstm": [LSTM(HIDDEN)],
        "lstm-sequences": [LSTM(HIDDEN, return_sequences=True)],
        "lstm-2": [LSTM(HIDDEN, return_sequences=True), LSTM(HIDDEN, use_bias=False)],
        "bidirectional": [Bidirectional(LSTM(HIDDEN))],
        "bidirectional-sequences": [Bidirectional(LSTM(HIDDEN, return_sequences=True))],
        "classifier": [
            Embedding(WORDS, WIDTH),
            Bidirectional(LSTM(HIDDEN)),
            Dense(CLASSES, activation="softmax"),
        ],
        "tagger": [Embedding(WORDS, WIDTH), LSTM(HIDDEN, return_sequences=True), Dense(CLASSES)],
        "fixed-steps": [LSTM(HIDDEN, return_sequences=True), Dense(CLASSES, activation="tanh")],
        "gru-after": [GRU(HIDDEN)],
        "gru-before": [GRU(HIDDEN, reset_after=False)],
        "rnn": [SimpleRNN(HIDDEN)],
        "masked": [Masking(), LSTM(HIDDEN)],
    }


def exported(model: Any) -> onnx.ModelProto:
    (x,) = model.inputs
    spec = [tf.TensorSpec(x.shape, x.dtype, name="x")]
    run = tf.function(lambda x: model(x, training=False), input_signature=spec)
    proto, _ = tf2onnx.convert.from_function(run, spec)
    graph = proto.graph
    for each in [proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info]:
        each.ClearField("doc_string")
        each.ClearField("metadata_props")
    graph.ClearField("value_info")
    return proto


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "tf2onnx")
    where.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    for name, layers in models().items():
        ids = isinstance(layers[0], Embedding)
        steps = STEPS if name == "fixed-steps" else None
        inputs = keras.Input((steps,) if ids else (steps, WIDTH), dtype="int32" if ids else None)
        model = keras.Sequential([inputs, *layers])
        # Biases of zero would hide where they are.
        model.set_weights([random.normal(size=w.shape) / 2 for w in model.get_weights()])
        x = (
            random.integers(0, WORDS, (ROWS, STEPS))
            if ids
            else random.normal(size=(ROWS, STEPS, 4))
        )
        x = x.astype(inputs.dtype)
        proto = exported(model)
        (where / f"{name}.onnx").write_bytes(proto.SerializeToString())
        if name not in REFUSED:
            np.savez_compressed(where / f"{name}.npz", x=x, y=model.predict(x, verbose=0))
