"""The compiled part of seqrs. Everything public is wrapped by the Python files beside it."""

import os
from collections.abc import Callable, Iterable
from typing import Any, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "Layer",
    "Model",
    "Stream",
    "StreamPool",
    "Tape",
    "Trainer",
    "__version__",
    "_panic",
    "_shaders",
    "_traced",
    "asked_threads",
    "foreign_tensors",
    "generate",
    "get_num_threads",
    "gpu_adapters",
    "info",
    "load",
    "loss_gradient",
    "loss_value",
    "restore_threads",
    "set_num_threads",
]

_Array = npt.NDArray[np.floating[Any]]

__version__: str

@final
class Tape:
    """A recorded forward call; may be used any number of times."""

    @property
    def nbytes(self) -> int: ...

@final
class Layer:
    def __new__(cls, spec_json: str, dtype: str) -> Layer: ...
    @staticmethod
    def with_parameters(spec_json: str, dtype: str, mapping: dict[str, Any]) -> Layer: ...
    @property
    def spec_json(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> str: ...
    def to(self, device: str) -> None: ...
    @property
    def num_parameters(self) -> int: ...
    @property
    def output_size(self) -> int | None: ...
    @property
    def fingerprint(self) -> str: ...
    def call(
        self,
        x: npt.ArrayLike,
        state: Any,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        batch_first: bool,
    ) -> tuple[_Array, Any]: ...
    def forward(
        self,
        x: npt.ArrayLike,
        state: Any,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        batch_first: bool,
        training: bool,
    ) -> tuple[_Array, Any, Tape]: ...
    def backward(
        self, tape: Tape, dy: npt.ArrayLike | None, dstate: Any
    ) -> tuple[_Array | None, Any, dict[str, _Array]]: ...
    def step(self, x_t: npt.ArrayLike, state: Any, out: Any) -> tuple[_Array, Any]: ...
    def warm_up(self, batch: int, steps: int) -> None: ...
    def plan(
        self,
        batch: int,
        time: int,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        batch_first: bool,
        gradients: bool,
        largest_buffer: int,
    ) -> dict[str, Any]: ...
    def diagnose(
        self,
        loss_json: str,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        state: Any,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        batch_first: bool,
    ) -> dict[str, Any]: ...
    def initial_state(self, batch: int) -> Any: ...
    def state_dict(self) -> dict[str, _Array]: ...
    def load_state_dict(
        self, mapping: dict[str, Any], strict: bool
    ) -> tuple[list[str], list[str]]: ...
    def clone(self) -> Layer: ...
    def equals(self, other: Layer) -> bool: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: bytes) -> Layer: ...
    def save(self, path: str | os.PathLike[str]) -> None: ...

@final
class Model:
    def __new__(cls, layers: list[Layer], seed: int | None) -> Model: ...
    @property
    def layers(self) -> list[Layer]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> str: ...
    def to(self, device: str) -> None: ...
    @property
    def num_parameters(self) -> int: ...
    @property
    def output_size(self) -> int | None: ...
    @property
    def fingerprint(self) -> str: ...
    def call(
        self,
        x: npt.ArrayLike,
        state: Any,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        batch_first: bool,
    ) -> tuple[_Array, tuple[Any, ...]]: ...
    def forward(
        self,
        x: npt.ArrayLike,
        state: Any,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        batch_first: bool,
        training: bool,
    ) -> tuple[_Array, tuple[Any, ...], Tape]: ...
    def backward(
        self, tape: Tape, dy: npt.ArrayLike | None, dstate: Any
    ) -> tuple[_Array | None, tuple[Any, ...], dict[str, _Array]]: ...
    def step(self, x_t: npt.ArrayLike, state: Any, out: Any) -> tuple[_Array, tuple[Any, ...]]: ...
    def warm_up(self, batch: int, steps: int) -> None: ...
    def diagnose(
        self,
        loss_json: str,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        state: Any,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        batch_first: bool,
    ) -> dict[str, Any]: ...
    def initial_state(self, batch: int) -> tuple[Any, ...]: ...
    def state_dict(self) -> dict[str, _Array]: ...
    def load_state_dict(
        self, mapping: dict[str, Any], strict: bool
    ) -> tuple[list[str], list[str]]: ...
    def save(self, path: str | os.PathLike[str]) -> None: ...

@final
class Stream:
    """A stream of a pool."""

    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class StreamPool:
    def __new__(cls, model: Model, capacity: int) -> StreamPool: ...
    def open(self) -> Stream: ...
    def reset(self, sid: Stream) -> None: ...
    def close(self, sid: Stream) -> None: ...
    def step(self, sids: Iterable[Stream], x: npt.ArrayLike, out: _Array | None) -> _Array: ...
    def export_state(self, sid: Stream) -> bytes: ...
    def import_state(self, state: bytes, allow_nonfinite: bool) -> Stream: ...
    def evict_idle(self, seconds: float, leaving: Callable[[Stream], object] | None) -> int: ...
    def stats(self) -> dict[str, Any]: ...
    def __len__(self) -> int: ...

@final
class Trainer:
    def __new__(
        cls,
        model: Model,
        loss_json: str,
        optimizer_json: str,
        clip_norm: float | None,
        clip_value: float | None,
        bptt: int | None,
        seed: int,
    ) -> Trainer: ...
    def step(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        state: Any,
        batch_first: bool,
    ) -> tuple[float, float, tuple[Any, ...]]: ...
    def evaluate(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        mask: npt.ArrayLike | None,
        state: Any,
        batch_first: bool,
    ) -> tuple[float, int, tuple[Any, ...]]: ...
    def observe(self, metric: float) -> None: ...
    @property
    def lr(self) -> float: ...
    @property
    def steps_done(self) -> int: ...
    def checkpoint(self, path: str | os.PathLike[str], extra_json: str) -> None: ...
    def restore(self, path: str | os.PathLike[str]) -> str: ...

def _panic(words: str) -> None: ...
def _shaders() -> dict[str, tuple[str, str, list[bool]]]: ...
def _traced(number: int, work: Callable[[], Any]) -> list[Any]: ...
def asked_threads() -> int: ...
def generate(
    model: Model,
    prompt: npt.ArrayLike,
    steps: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
) -> npt.NDArray[np.int64]: ...
def get_num_threads() -> int: ...
def gpu_adapters() -> list[dict[str, Any]]: ...
def info() -> dict[str, Any]: ...
def foreign_tensors(
    path: str | os.PathLike[str],
) -> list[tuple[str, str, list[int], int, int]]: ...
def load(path: str | os.PathLike[str], allow_nonfinite: bool) -> Layer | Model: ...
def loss_gradient(
    loss_json: str,
    y_pred: npt.ArrayLike,
    y: npt.ArrayLike,
    lengths: npt.ArrayLike | None,
    mask: npt.ArrayLike | None,
) -> _Array: ...
def loss_value(
    loss_json: str,
    y_pred: npt.ArrayLike,
    y: npt.ArrayLike,
    lengths: npt.ArrayLike | None,
    mask: npt.ArrayLike | None,
) -> float: ...
def restore_threads(asked: int) -> None: ...
def set_num_threads(n: int) -> None: ...
