"""What the tests of ONNX share: recurrent nodes, and the specification's equations in NumPy.

`specified` was written after the text of the operators (onnx/docs/Operators.md), for one row at a
time, and knows nothing of seqrs: no other order of gates, no layers, no masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from cases import Array, numbers

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


@dataclass
class RecurrentCase:
    """One recurrent node with its inputs: T steps, B rows, I inputs, H units."""

    operator: str
    direction: str = "forward"
    layout: int = 0
    lengths: Any = None
    bias: bool = True
    state: bool = True
    peepholes: bool = False
    dtype: str = "float32"
    attributes: dict[str, Any] = field(default_factory=dict)
    T: int = 5
    B: int = 3
    I: int = 4  # noqa: E741
    H: int = 6

    def feed(self) -> dict[str, Array]:
        """The inputs that are there, by name."""
        random = np.random.default_rng(7)
        T, B, I, H = self.T, self.B, self.I, self.H  # noqa: E741
        D, G = DIRECTIONS[self.direction], GATES[self.operator]
        states = ("initial_h", "initial_c") if self.operator == "LSTM" else ("initial_h",)
        shapes: dict[str, tuple[int, ...]] = {
            "X": (B, T, I) if self.layout else (T, B, I),
            "W": (D, G * H, I),
            "R": (D, G * H, H),
        }
        if self.bias:
            shapes["B"] = (D, 2 * G * H)
        if self.peepholes:
            shapes["P"] = (D, 3 * H)
        if self.state:
            shapes |= dict.fromkeys(states, (B, D, H) if self.layout else (D, B, H))
        found = {name: numbers(random, shape, self.dtype) for name, shape in shapes.items()}
        if self.lengths is not None:
            found["sequence_lens"] = np.array(self.lengths, np.int32)
        return found

    def node(self, **attributes: Any) -> Any:
        """The node; trailing inputs that are not there are left out, others have empty names."""
        names = [name if name in self.feed() else "" for name in INPUTS]
        while not names[-1]:
            names.pop()
        outputs = ["Y", "Y_h", "Y_c"][: 3 if self.operator == "LSTM" else 2]
        given = {"hidden_size": self.H, "direction": self.direction, "layout": self.layout}
        given |= self.attributes | attributes
        # What is as by default is left out where older runtimes do not know it.
        given = {name: value for name, value in given.items() if (name, value) != ("layout", 0)}
        return onnx.helper.make_node(self.operator, names, outputs, name="it", **given)

    def model(self, constants: tuple[str, ...] = ("W", "R", "B", "P")) -> Any:
        """The node alone as a model, of opset 14, its weights constants."""
        return model_of([self.node()], self.feed(), constants, self.node().output)


def model_of(
    nodes: list[Any],
    feed: dict[str, Array],
    constants: tuple[str, ...] = (),
    outputs: Any = ("y",),
    opset: int = 14,
    open_axes: bool = True,
) -> Any:
    """A model of nodes. `feed` has inputs and constants, and says their shapes."""
    value = onnx.helper.make_tensor_value_info
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in feed.items()}
    floats = [kind for kind in kinds.values() if kind in (1, 11)] or [1]
    inputs = [
        value(
            name,
            kinds[name],
            [f"{name}{k}" if open_axes and k < 2 else size for k, size in enumerate(array.shape)]
            if name == "X"
            else array.shape,
        )
        for name, array in feed.items()
        if name not in constants
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        inputs,
        [value(name, floats[0], None) for name in outputs if name],
        [onnx.numpy_helper.from_array(feed[name], name) for name in constants if name in feed],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run_in_onnx_runtime(model: Any, feed: dict[str, Array]) -> list[Array]:
    """The outputs that ONNX Runtime gives."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    found: list[Array] = session.run(None, {name: feed[name] for name in names})
    return found


# The specification.


def specified(case: RecurrentCase, given: dict[str, Array] | None = None) -> list[Array]:
    """Y, Y_h and, of an LSTM, Y_c, by the equations of the specification, in float64."""
    inputs = case.feed() if given is None else given
    feed = {name: array.astype(np.float64) for name, array in inputs.items()}
    T, B, H, D = case.T, case.B, case.H, DIRECTIONS[case.direction]
    X = feed["X"].swapaxes(0, 1) if case.layout else feed["X"]
    count = 2 if case.operator == "LSTM" else 1
    ends = []
    for name in ("initial_h", "initial_c")[:count]:
        given = feed.get(name)
        if given is None:
            ends.append(np.zeros((D, B, H)))
        else:
            ends.append((given.swapaxes(0, 1) if case.layout else given).copy())
    Y = np.zeros((T, D, B, H))
    for d in range(D):
        W, R = feed["W"][d], feed["R"][d]
        biases = feed["B"][d] if case.bias else np.zeros(2 * len(W))
        Wb, Rb = np.split(biases, 2)
        P = feed["P"][d] if case.peepholes else np.zeros(3 * H)
        for b in range(B):
            length = T if case.lengths is None else case.lengths[b]
            steps = list(range(length))
            if case.direction == "reverse" or d == 1:
                steps.reverse()
            state = [end[d, b] for end in ends]
            for t in steps:
                state = _step(case, d, X[t, b], state, W, R, Wb, Rb, P)
                Y[t, d, b] = state[0]
            for end, value in zip(ends, state, strict=True):
                end[d, b] = value
    if case.layout:
        return [Y.transpose(2, 0, 1, 3), *(end.swapaxes(0, 1) for end in ends)]
    return [Y, *ends]


def functions_of(case: RecurrentCase) -> list[list[Callable[[Array], Array]]]:
    """The functions of each direction, as the text of the operators has them.

    "The values are consumed in the order of activation functions [...] Default values are the same
    as of corresponding ONNX operators."
    """
    given = case.attributes
    directions = DIRECTIONS[case.direction]
    names = given.get("activations", DEFAULTS[case.operator] * directions)
    alphas = iter(given.get("activation_alpha", ()))
    betas = iter(given.get("activation_beta", ()))
    found = []
    for name in names:
        make, alpha, beta = WRITTEN[name.lower()]
        numbers = [] if alpha is None else [next(alphas, alpha)]
        numbers += [] if beta is None else [next(betas, beta)]
        found.append(make(*numbers))
    each = len(DEFAULTS[case.operator])
    return [found[d * each : (d + 1) * each] for d in range(directions)]


DEFAULTS = {
    "RNN": ["Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
}
#: For each function how it is made of alpha and beta, and what they are by default, None where it
#: has no such number.
WRITTEN: dict[str, tuple[Callable[..., Any], float | None, float | None]] = {
    "relu": (lambda: lambda x: np.maximum(0, x), None, None),
    "tanh": (lambda: lambda x: (1 - np.exp(-2 * x)) / (1 + np.exp(-2 * x)), None, None),
    "sigmoid": (lambda: lambda x: 1 / (1 + np.exp(-x)), None, None),
    "affine": (lambda a, b: lambda x: a * x + b, 1.0, 0.0),
    "leakyrelu": (lambda a: lambda x: np.where(x >= 0, x, a * x), 0.01, None),
    "thresholdedrelu": (lambda a: lambda x: np.where(x >= a, x, 0), 1.0, None),
    "scaledtanh": (lambda a, b: lambda x: a * np.tanh(b * x), 1.0, 1.0),
    "hardsigmoid": (lambda a, b: lambda x: np.minimum(np.maximum(a * x + b, 0), 1), 0.2, 0.5),
    "elu": (lambda a: lambda x: np.where(x >= 0, x, a * (np.exp(x) - 1)), 1.0, None),
    "softsign": (lambda: lambda x: x / (1 + np.abs(x)), None, None),
    "softplus": (lambda: lambda x: np.log(1 + np.exp(x)), None, None),
}


def _step(
    case: RecurrentCase,
    d: int,
    x: Array,
    state: list[Array],
    W: Array,
    R: Array,
    Wb: Array,
    Rb: Array,
    P: Array,
) -> list[Array]:
    H = case.H
    h = state[0]
    part = [slice(k * H, (k + 1) * H) for k in range(GATES[case.operator])]
    functions, bound = functions_of(case)[d], case.attributes.get("clip", np.inf)

    def cut(z: Array) -> Array:
        """ "Cell clip threshold [...] applied to the input of activations"."""
        return np.asarray(np.minimum(np.maximum(z, -bound), bound))

    def sums(k: int, h: Array) -> Array:
        return np.asarray(W[part[k]] @ x + R[part[k]] @ h + Wb[part[k]] + Rb[part[k]])

    if case.operator == "RNN":
        (f,) = functions
        return [f(cut(sums(0, h)))]
    if case.operator == "GRU":
        f, g = functions
        z, r = f(cut(sums(0, h))), f(cut(sums(1, h)))
        if case.attributes.get("linear_before_reset", 0):
            n = W[part[2]] @ x + r * (R[part[2]] @ h + Rb[part[2]]) + Wb[part[2]]
        else:
            n = sums(2, r * h)
        return [(1 - z) * g(cut(n)) + z * h]
    f, g, to_h = functions
    i, o, forget, c = (sums(k, h) for k in range(4))
    Pi, Po, Pf = np.split(P, 3)
    taken = f(cut(i + Pi * state[1]))
    kept = f(cut(forget + Pf * state[1]))
    if case.attributes.get("input_forget", 0):
        kept = 1 - taken
    cell = kept * state[1] + taken * g(cut(c))
    return [f(cut(o + Po * cell)) * to_h(cell), cell]
