"""The numbers of the table in tests/README.md, which gives the reason for each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

REFERENCE_TO_PYTORCH = 1e-10
REFERENCE_TO_TEXTBOOK = 1e-10
REFERENCE_TO_DIFFERENCES = 1e-7
TEXTBOOK_DIFFERENCES = 1e-6
REFERENCE_TO_ITSELF = 1e-13
PACKAGE_TO_PYTORCH_F64 = 1e-10
PACKAGE_TO_PYTORCH_F32 = 1e-6
PACKAGE_TO_KERAS = 1e-5
PACKAGE_TO_REFERENCE_F64 = 1e-10
PACKAGE_TO_REFERENCE_F32 = 3e-5
PACKAGE_TO_ONNX_RUNTIME = 1e-5
SCALAR_TO_VECTOR_F64 = 1e-12
SCALAR_TO_VECTOR_F32 = 1e-5
FORMULA_F64 = 1e-13
FORMULA_F32 = 1e-6
NORM_FAR_FROM_ZERO_F64 = 1e-11
NORM_FAR_FROM_ZERO_F32 = 1e-3
SATURATED_F64 = 1e-10
SATURATED_F32 = 1e-3
ORTHOGONAL_F64 = 1e-12
TRAINING_TO_PYTORCH = 1e-3
TRAINING_TO_PYTORCH_F64 = 1e-10
LOSSES_IN_PYTORCH = 1e-4
CLIPPED_TO_PYTORCH_F64 = 1e-5
DEMO_ON_A_GPU = 1e-4
SHARE_OF_DRAWS = 0.015
ONE_INTEGER_OFF = 1e-2
INT8_TO_FLOAT = 0.03
BF16_TO_FLOAT = 0.005
INT8_NORMALISED_TO_FLOAT = 0.06
BF16_NORMALISED_TO_FLOAT = 0.02
INT8_LOSS = 0.01
BF16_LOSS = 0.001
SAME_BITS = 0.0


def assert_close(
    got: npt.ArrayLike, expected: npt.ArrayLike, tolerance: float, name: str = "array"
) -> None:
    """No entry is off by more than `tolerance` of the largest value expected."""
    a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape, f"{name}: expected shape {b.shape}, got {a.shape}"
    if b.size == 0:
        return
    largest, error = np.abs(b).max(), np.abs(a - b).max()
    # Written so that a NaN on either side fails.
    assert error <= tolerance * largest, f"{name}: off by {error:.3g}, largest value {largest:.3g}"


def assert_exact(got: npt.ArrayLike, expected: npt.ArrayLike, device: str) -> None:
    """Equal on the CPU. On a GPU close: WGSL's division, root and logarithm may be a little off."""
    if device == "cpu":
        assert np.array_equal(got, expected), f"expected {expected}, got {got}"
    else:
        assert_close(got, expected, FORMULA_F32)


def assert_same_bits(got: npt.ArrayLike, expected: npt.ArrayLike, name: str = "array") -> None:
    """Equal in dtype, shape and every bit: -0.0 is not +0.0."""
    a, b = np.ascontiguousarray(got), np.ascontiguousarray(expected)
    assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{name}: {a.dtype}{a.shape}"
    assert a.tobytes() == b.tobytes(), f"{name}: the bits differ"
