"""Recurrent networks (RNN, LSTM, GRU, bidirectional): small, exact, very fast.

>>> import seqrs
>>> lstm = seqrs.LSTM(8, 16, bidirectional=True)
>>> y, (h, c) = lstm(x, lengths=[5, 3])                    # x (2, 5, 8) -> y (2, 5, 32)
>>> model = seqrs.Sequential([seqrs.Embedding(99, 64), seqrs.LSTM(64, 256), seqrs.Linear(256, 99)])
>>> trainer = seqrs.Trainer(model, loss=seqrs.CrossEntropy(), optimizer=seqrs.Adam(lr=2e-3))

`seqrs.reference` has the same layers in NumPy, to be read beside the textbook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._seqrs import __version__
from .errors import (
    DTypeError,
    InternalError,
    ModelFileError,
    ModelFileNotFoundError,
    NoDeviceError,
    NumericalError,
    QueueFullError,
    SeqrsError,
    ShapeError,
    StateError,
    VerificationError,
)
from .layers import (
    Activation,
    Dropout,
    Embedding,
    Gradients,
    IncompatibleKeys,
    Last,
    Layer,
    LayerNorm,
    Linear,
    MaxPool,
    MeanPool,
    Tape,
)
from .losses import MAE, MSE, BinaryCrossEntropy, CrossEntropy, Huber
from .models import Sequential, load
from .optimizers import SGD, Adam, AdamW, RMSprop
from .recurrent import GRU, LSTM, RNN
from .threads import get_num_threads, info, num_threads, set_num_threads

if TYPE_CHECKING:
    from . import (
        callbacks,
        checkpoints,
        data,
        diagnosis,
        gpu,
        plot,
        prometheus,
        reference,
        schedules,
    )
    from . import onnx as onnx
    from . import sklearn as sklearn
    from . import torch as torch
    from . import wgpu as wgpu
    from .batching import Batcher
    from .callbacks import CSVLogger, EarlyStopping, ModelCheckpoint
    from .diagnosis import diagnose
    from .generation import generate
    from .interop.keras import from_keras, from_keras_weights, to_keras_weights
    from .interop.pytorch import from_torch, from_torch_state_dict, to_torch
    from .quantized import QuantizedSequential
    from .selftest import self_test
    from .streams import Stream, StreamPool
    from .training import Trainer, TrainStep

__all__ = [
    "GRU",
    "LSTM",
    "MAE",
    "MSE",
    "RNN",
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Batcher",
    "BinaryCrossEntropy",
    "CSVLogger",
    "CrossEntropy",
    "DTypeError",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "Gradients",
    "Huber",
    "IncompatibleKeys",
    "InternalError",
    "Last",
    "Layer",
    "LayerNorm",
    "Linear",
    "MaxPool",
    "MeanPool",
    "ModelCheckpoint",
    "ModelFileError",
    "ModelFileNotFoundError",
    "NoDeviceError",
    "NumericalError",
    "QuantizedSequential",
    "QueueFullError",
    "RMSprop",
    "SeqrsError",
    "Sequential",
    "ShapeError",
    "StateError",
    "Stream",
    "StreamPool",
    "Tape",
    "TrainStep",
    "Trainer",
    "VerificationError",
    "__version__",
    "callbacks",
    "checkpoints",
    "data",
    "diagnose",
    "diagnosis",
    "from_keras",
    "from_keras_weights",
    "from_torch",
    "from_torch_state_dict",
    "generate",
    "get_num_threads",
    "gpu",
    "info",
    "load",
    "num_threads",
    "plot",
    "prometheus",
    "reference",
    "schedules",
    "self_test",
    "set_num_threads",
    "to_keras_weights",
    "to_torch",
]

# Loaded when they are first used, so that a program that only infers does not wait for them.
# (`onnx`, `sklearn`, `torch` and `wgpu` are not in `__all__`: with `from seqrs import *` these
# names stay those of the packages.)
_LATER = {
    "Batcher": "batching",
    "CSVLogger": "callbacks",
    "QuantizedSequential": "quantized",
    "EarlyStopping": "callbacks",
    "ModelCheckpoint": "callbacks",
    "Stream": "streams",
    "StreamPool": "streams",
    "TrainStep": "training",
    "Trainer": "training",
    "callbacks": "",
    "checkpoints": "",
    "data": "",
    "diagnose": "diagnosis",
    "diagnosis": "",
    "from_torch": "interop.pytorch",
    "from_torch_state_dict": "interop.pytorch",
    "from_keras": "interop.keras",
    "from_keras_weights": "interop.keras",
    "generate": "generation",
    "gpu": "",
    "plot": "",
    "prometheus": "",
    "onnx": "",
    "reference": "",
    "schedules": "",
    "self_test": "selftest",
    "to_torch": "interop.pytorch",
    "torch": "",
    "to_keras_weights": "interop.keras",
    "sklearn": "",
    "wgpu": "",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'seqrs' has no attribute {name!r}")
    from importlib import import_module

    module = _LATER[name]
    if module:
        value = getattr(import_module(f".{module}", __name__), name)
    else:
        value = import_module(f".{name}", __name__)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from importlib.util import find_spec

    # What the module needs for itself is nobody's to look for.
    hidden = {"Any", "TYPE_CHECKING", "annotations"}
    # Its classes are PyTorch's, so that it cannot be had without: who looks at all names, does.
    if "torch" not in globals() and find_spec("torch") is None:
        hidden.add("torch")
    return sorted({*globals(), *_LATER} - hidden)
