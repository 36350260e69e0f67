"""What it costs to compute a graph, counted before it is computed.

A small file can ask for hours: a row and a column that are added, a fixed number of steps. What a
user calls a model with is theirs to choose; where inputs are made up from the file alone, the file
may not ask for more than it is worth.
"""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from .graph import Array, Node
from .recurrent import COMPUTED

__all__ = ["Work"]

#: Multiplications with additions, in matrix products, for the time of one number that is read or
#: written by NumPy; and numbers for the time of one node, and of one step of a recurrent one.
PRODUCTS, NODE, STEP = 128, 1024, 128


class Work:
    """How many numbers may be read and written.

    Args:
        left: to begin with.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def before(self, node: Node, given: list[Array | None]) -> int:
        """Takes what a node costs by what it is given.

        Returns:
            What is left for what it gives.

        Raises:
            ShapeError: there is too little.
        """
        cost = NODE + sum(array.size for array in given if array is not None)
        x, *others = given
        if x is not None and x.ndim and node.operator in ("MatMul", "Gemm", *COMPUTED):
            inner = x.shape[0 if node.integer("transA", 0) else -1]
            weights = sum(each.size for each in others if each is not None)
            cost += x.size // max(inner, 1) * weights // PRODUCTS
            if node.operator in COMPUTED:
                cost += STEP * max(x.shape[:2])
        self._take(node, cost)
        return self.left

    def after(self, node: Node, found: list[Any]) -> None:
        """Takes what a node costs by what it gave."""
        self._take(node, sum(array.size for array in found))

    def _take(self, node: Node, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise ShapeError(f"{node}: expected less to compute, got {-self.left} numbers too many")
