"""The functions of cells: of gates, of the candidate, and of what an LSTM shows of its cell state.

An option says which by its name, or by a tuple of the name and its numbers alpha and beta:
"hard_sigmoid", ("hard_sigmoid", 0.25), ("hard_sigmoid", 0.25, 0.5). With x for the argument:

    relu               max(x, 0)
    tanh
    sigmoid            1 / (1 + e^-x)
    affine             alpha x + beta                              1, 0
    leaky_relu         x, but alpha x where x < 0                  0.01
    thresholded_relu   x where x >= alpha, else 0                  1
    scaled_tanh        alpha tanh(beta x)                          1, 1
    hard_sigmoid       min(max(alpha x + beta, 0), 1)              0.2, 0.5
    elu                x, but alpha (e^x - 1) where x < 0          1
    softsign           x / (1 + |x|)
    softplus           log(1 + e^x)

On the right is what the numbers are where nobody says: those of ONNX's operators of these names.
"""

from __future__ import annotations

from typing import Any

from .options import real, shown

__all__ = ["FUNCTIONS", "Function", "function", "parts_of", "shortest"]

#: As an option says it: a name, or a tuple of a name and its numbers.
Function = str | tuple[str, float] | tuple[str, float, float]

#: For each function its numbers where nobody says: alpha, or alpha and beta, or none.
FUNCTIONS: dict[str, tuple[float, ...]] = {
    "relu": (),
    "tanh": (),
    "sigmoid": (),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}


def function(name: str, value: object) -> Function:
    """A function in its shortest form: the name where all numbers are those by default.

    Raises:
        TypeError: it is neither a name nor a tuple of one and real numbers.
        ValueError: there is no such function, it has not that many numbers, or one is not finite.
    """
    word, *numbers = value if isinstance(value, tuple) and value else (value,)
    expected = " or ".join(map(repr, FUNCTIONS))
    if not isinstance(word, str):
        raise TypeError(
            f"{name}: expected {expected}, or a tuple of one and its numbers, got {shown(value)}"
        )
    if word not in FUNCTIONS:
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}")
    defaults = FUNCTIONS[word]
    if len(numbers) > len(defaults):
        form = ", ".join([repr(word), *("alpha", "beta")[: len(defaults)]])
        wanted = f"({form})" if defaults else form
        raise ValueError(f"{name}: expected {wanted}, got {shown(value)}")
    given = [
        real(f"{letter} of {name}", number)
        for letter, number in zip(("alpha", "beta"), numbers, strict=False)
    ]
    return shortest(word, (*given, *defaults[len(given) :]))


def shortest(word: str, numbers: tuple[float, ...]) -> Function:
    """The name alone where the numbers are those by default."""
    # 0.0 and -0.0 are two numbers here, as in the compiled part.
    same = [repr(number) for number in numbers] == [repr(number) for number in FUNCTIONS[word]]
    found: Any = word if same else (word, *numbers)
    return found  # type: ignore[no-any-return]


def parts_of(function: Function) -> tuple[str, tuple[float, ...]]:
    """The name, and all numbers that the function has."""
    if isinstance(function, str):
        return function, FUNCTIONS[function]
    return function[0], function[1:]
