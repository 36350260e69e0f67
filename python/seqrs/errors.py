"""What seqrs raises. Every message says what was looked at, what was expected, and what came.

All of them pickle, so they cross process pools. A buffer that cannot be had raises Python's own
`MemoryError`.
"""

from __future__ import annotations

__all__ = [
    "DTypeError",
    "InternalError",
    "ModelFileError",
    "ModelFileNotFoundError",
    "NoDeviceError",
    "NumericalError",
    "QueueFullError",
    "SeqrsError",
    "ShapeError",
    "StateError",
    "VerificationError",
]


class SeqrsError(Exception):
    """The base of all errors of seqrs."""


class ShapeError(SeqrsError, ValueError):
    """A size, shape, length, index or name does not fit."""


class DTypeError(SeqrsError, TypeError):
    """An array holds data of the wrong kind, or a dtype is not float32 or float64."""


class StateError(SeqrsError):
    """A state, tape or handle does not belong where it was given."""


class ModelFileError(SeqrsError):
    """A model file or checkpoint cannot be read or written; says what it holds or what failed."""


class ModelFileNotFoundError(ModelFileError, FileNotFoundError):
    """There is no file of that name."""


class NumericalError(SeqrsError):
    """A loss or gradient is NaN or infinite; names the step and the parameter."""


class NoDeviceError(SeqrsError):
    """The device that was asked for is not there."""


class VerificationError(SeqrsError):
    """A model that was imported does not compute what its source does; names the difference."""


class QueueFullError(SeqrsError):
    """A queue or a pool holds as many as it may."""


class InternalError(SeqrsError):
    """A bug in seqrs: please report it."""


for _error in list(globals().values()):
    if isinstance(_error, type) and issubclass(_error, SeqrsError):
        _error.__module__ = "seqrs"
del _error
