"""Datasets: what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import seqrs

SEQUENCES = [np.arange(n * 2.0).reshape(n, 2) for n in (3, 1, 4, 2)]


def datasets() -> list[seqrs.data.Dataset]:
    return [
        seqrs.data.TextCorpus("abcdefghij" * 4, 2, 5),
        seqrs.data.Padded(SEQUENCES, [0.0, 1.0, 2.0, 3.0], 2),
        seqrs.data.Windows(np.arange(20.0), 3, 1, 4),
    ]


@pytest.mark.parametrize("data", datasets(), ids=lambda data: type(data).__name__)
def test_batches_outside_the_epoch_are_refused(data: seqrs.data.Dataset) -> None:
    """A negative index neither counts from the end nor gives an empty batch."""
    data.batch(len(data) - 1)
    for index in (len(data), -1, -len(data), 10**30):
        with pytest.raises(IndexError, match=rf"index: .*0 <= index < {len(data)}, got {index}"):
            data.batch(index)
    with pytest.raises(TypeError, match=r"index: .*1\.5"):
        data.batch(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [1, "01", None, [[0]]])
def test_columns_are_a_sequence_of_numbers(columns: Any) -> None:
    series = np.zeros((10, 2))
    if columns is None:
        assert next(iter(seqrs.data.Windows(series, 2, 1, 4)))[1].shape == (4, 2)
        return
    with pytest.raises(TypeError, match="columns: expected a sequence of column numbers"):
        seqrs.data.Windows(series, 2, 1, 4, columns=columns)


def test_ids_that_int64_cannot_hold_are_refused() -> None:
    large = np.array([1, 2**63], np.uint64)
    with pytest.raises(seqrs.ShapeError, match=r"sequences\[1\]: .*below 2\*\*63, got 92233"):
        seqrs.data.Padded([[1], large], [0, 1], 1)
    with pytest.raises(seqrs.ShapeError, match=r"targets\[0\]: .*below 2\*\*63, got 92233"):
        seqrs.data.Padded([[1]], [large[1]], 1)
    x, _, _ = seqrs.data.Padded([large - np.uint64(1)], [0], 1).batch(0)[:3]
    assert (x.dtype, x.tolist()) == (np.int64, [[0, 2**63 - 1]])
