"""The comparison with which `load` ends: a graph in ONNX Runtime, and what was made of it.

Both are run on random inputs, with several numbers of rows and steps where the graph leaves them
open, from random states where it takes some, and with lengths where it takes some.

Where ONNX Runtime is not right, or cannot compute, and what is done about it:

- It sets the final state of a row of length 0 to zero, where no step changes the initial one. All
  lengths are at least 1 here.
- It has no layout 1, no LSTM in float64, and other operators in some element types alone. Then
  nothing is compared.
- It takes 0 for a number of Affine, ScaledTanh or ThresholdedRelu that is left out, where that of
  the operator is meant. Then nothing is compared.
- It gives outputs past a row's length as the graph's nodes after the layer compute them, which for
  a chain of layers are zero. They are not compared.

A file may be anyone's, so it does not choose how long this takes: the graph is computed here first,
node by node, with a limit, and ONNX Runtime is not given what exceeds it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ModelFileError, ShapeError
from ..interop.verify import require_equal
from ..layers import Layer, LayerNorm, Linear
from ..models import Sequential
from ..options import shown
from ..recurrent import Recurrent
from .chain import Chain, End, Start, Stream, lengths_and_states
from .graph import Array, Graph
from .interpreter import OnnxModel
from .recurrent import COMPUTED, RecurrentNode
from .work import Work

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NotComparableError", "onnx_runtime", "verify_against_onnx_runtime"]

#: Rows and steps where a graph leaves them open.
SIZES = ((3, 6), (2, 1), (1, 9))
#: Functions for whose numbers ONNX Runtime does not take those of the operators.
WRONG_BY_DEFAULT = {"Affine", "ScaledTanh", "ThresholdedRelu"}
#: Numbers that may be read and written for the comparison, besides one for each constant.
WORK = 2**25


class NotComparableError(Exception):
    """There is nothing to compare with; says why."""


def onnx_runtime() -> Any:
    """The package onnxruntime.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        message = "onnxruntime: expected the package (pip install onnxruntime), got none"
        raise ModuleNotFoundError(message, name="onnxruntime") from error
    return onnxruntime


def verify_against_onnx_runtime(
    runtime: Any, data: bytes, graph: Graph, loaded: Chain | OnnxModel
) -> None:
    """Compares outputs and final states.

    Args:
        runtime: the package onnxruntime.
        data: the file.
        graph: what it holds.
        loaded: what was made of it.

    Raises:
        VerificationError: they differ; says in what, and by how much.
        NotComparableError: nothing was compared; says why.
    """
    for node in graph.nodes:
        wrong = node.operator in COMPUTED and WRONG_BY_DEFAULT & RecurrentNode(node).by_default
        if wrong:
            names = ", ".join(sorted(wrong))
            reason = f"ONNX Runtime takes 0 for what is left out of {names}"
            raise NotComparableError(f"{node}: {reason}")
    reason = "it has inputs of any shape"
    work = Work(WORK + sum(array.size for array in graph.constants.values()))
    try:
        whole = loaded if isinstance(loaded, OnnxModel) else OnnxModel(graph)
    except (ModelFileError, ShapeError, DTypeError) as error:
        raise NotComparableError(f"it cannot be computed node by node: {error}") from None
    run = failed = None
    compared = False
    for feeds in _feeds(graph, loaded):
        for feed in feeds:
            try:
                found = whole.within(work, feed)
            except (ShapeError, DTypeError) as error:
                # Fixed sizes within the graph, or too much to compute.
                reason = f"no inputs were found for it: {error}"
                continue
            if run is None:
                # Not before, as to read a model costs something too.
                run = _session(runtime, data)
            try:
                theirs = run(feed)
            except Exception as error:  # its errors have no class in common
                failed = failed or _does_not(error)
                continue
            if isinstance(loaded, OnnxModel):
                for output in graph.outputs:
                    name = output.name
                    require_equal(_words(name, feed), found[name], theirs[name])
            else:
                _compare_chain(loaded, graph, feed, theirs)
            compared = True
            break
    if not compared:
        raise failed or NotComparableError(reason)


def _session(runtime: Any, data: bytes) -> Any:
    """ONNX Runtime with one thread and nothing changed in the graph, as a function."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _does_not(error) from None
    names = [each.name for each in session.get_outputs()]

    def run(feed: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(names, session.run(names, dict(feed)), strict=True))

    return run


def _does_not(error: Exception) -> NotComparableError:
    words = str(error).splitlines() or [type(error).__name__]
    return NotComparableError(f"ONNX Runtime does not compute it: {shown(words[0])}")


def _words(output: str, feed: Mapping[str, Array]) -> str:
    sizes = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
    return f"output {output!r} for {sizes}"


# What goes in.


def _feeds(graph: Graph, loaded: Chain | OnnxModel) -> Iterator[Iterator[dict[str, Array]]]:
    """Inputs for each number of rows and steps, in each of the shapes in which they may be."""
    random = np.random.default_rng(0)
    if any(value.shape is None for value in graph.inputs):
        return
    seen: list[dict[str, tuple[int, ...]]] = []
    for rows, steps in SIZES:
        if isinstance(loaded, Chain):
            ways = [_sizes_in_chain(graph, loaded, rows, steps)]
        else:
            ways = _sizes_in_graph(graph, rows, steps)
        new = [shapes for shapes in ways if shapes not in seen]
        seen += new
        # Not more numbers than may be worked on.
        yield (
            _drawn(random, graph, loaded, shapes)
            for shapes in new
            if sum(map(prod, shapes.values())) <= WORK
        )


def _sizes_in_chain(
    graph: Graph, chain: Chain, rows: int, steps: int
) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs of a chain, of each of which it is known what it is."""
    shapes = {value.name: value.shape or () for value in graph.inputs}
    time = 1 if chain.batch_first else 0
    for name, shape in shapes.items():
        size = shape[1 - time if name == chain.x else 0 if name == chain.lengths else 1]
        rows = size if isinstance(size, int) else rows
    size = shapes[chain.x][time]
    steps = size if isinstance(size, int) else steps
    units = {start.name: start.hidden for each in chain.starts for start in each.values()}
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if name == chain.x:
            width = [each if isinstance(each, int) else _features(chain) for each in shape[2:]]
            found[name] = (rows, steps, *width) if chain.batch_first else (steps, rows, *width)
        elif name == chain.lengths:
            found[name] = (rows,)
        else:
            states = shape[0]
            assert isinstance(states, int)
            found[name] = (states, rows, units[name])
    return found


def _features(chain: Chain) -> int:
    """What the first layer that minds takes."""
    for layer in _layers(chain):
        if isinstance(layer, Recurrent):
            return layer.input_size
        if isinstance(layer, Linear):
            return layer.in_features
        if isinstance(layer, LayerNorm):
            return layer.size
    raise AssertionError("a chain has a recurrent layer")


def _sizes_in_graph(graph: Graph, rows: int, steps: int) -> list[dict[str, tuple[int, ...]]]:
    """Shapes that the inputs of any graph may have, as nothing says which axes are the rows.

    Axes that are open have a size for each of their names, or for each of their places, the rows or
    the steps before the other; or all the same.
    """
    opened = [
        (each, k)
        for value in graph.inputs
        for k, each in enumerate(value.shape or ())
        if not isinstance(each, int)
    ]
    found = []
    for sizes in ((rows, steps), (steps, rows)):
        more = itertools.chain(sizes, itertools.count(4))
        names = {name: next(more) for name in dict.fromkeys(n for n, _ in opened if n)}
        by_place = {(name, k): sizes[k] if k < 2 else 4 for name, k in opened}
        by_name = {(name, k): names.get(name or "", by_place[name, k]) for name, k in opened}
        found += [by_name, by_place]
    found.append(dict.fromkeys(opened, rows))
    return [
        {
            value.name: tuple(
                each if isinstance(each, int) else sizes[each, k]
                for k, each in enumerate(value.shape or ())
            )
            for value in graph.inputs
        }
        for sizes in found
    ]


def _drawn(
    random: np.random.Generator,
    graph: Graph,
    loaded: Chain | OnnxModel,
    shapes: dict[str, tuple[int, ...]],
) -> dict[str, Array]:
    """Numbers for the inputs; lengths and ids that are in range."""
    lengths, states = lengths_and_states(graph)
    if isinstance(loaded, Chain):
        steps = shapes[loaded.x][1 if loaded.batch_first else 0]
    else:
        # One of the first two axes of what has steps is that of the steps.
        others = [shape for name, shape in shapes.items() if name not in lengths | states]
        steps = min((size for shape in others if len(shape) > 1 for size in shape[:2]), default=1)
    ids = _smallest_table(graph)
    found = {}
    for value in graph.inputs:
        shape = shapes[value.name]
        if value.dtype.kind == "f":
            drawn: Array = random.normal(size=shape)
        elif value.name in lengths:
            # From all steps down, none of 0.
            rows = prod(shape)
            drawn = (steps - np.arange(rows) * steps // max(rows, 1)).reshape(shape)
        else:
            drawn = random.integers(0, ids, shape)
        found[value.name] = drawn.astype(value.dtype)
    return found


def _smallest_table(graph: Graph) -> int:
    """How many entries there are, at least, wherever something is looked up."""
    sizes = []
    for node in graph.nodes:
        table, axis = graph.constants.get(node.input(0)), node.integer("axis", 0)
        looked_up = node.operator == "Gather" and node.input(1) not in graph.constants
        if looked_up and table is not None and -table.ndim <= axis < table.ndim:
            sizes.append(table.shape[axis])
    return max(1, min(sizes, default=2))


# What comes out.


def _layers(chain: Chain) -> tuple[Layer, ...]:
    return tuple(chain.model.layers) if isinstance(chain.model, Sequential) else (chain.model,)


def _compare_chain(
    chain: Chain, graph: Graph, feed: Mapping[str, Array], theirs: Mapping[str, Array]
) -> None:
    x, lengths = feed[chain.x], feed.get(chain.lengths)
    rows, steps = x.shape[:2] if chain.batch_first else x.shape[1::-1]
    recurrent = [layer for layer in _layers(chain) if isinstance(layer, Recurrent)]
    starts = iter(chain.starts)
    states = []
    for layer in recurrent:
        own = list(itertools.islice(starts, layer.num_layers))
        states.append(_state(layer, rows, own, feed))
    whole = isinstance(chain.model, Sequential)
    y, after = chain.model(x, tuple(states) if whole else states[0], lengths)
    # For each recurrent node its final states, (D, B, H).
    finals: list[dict[str, Array]] = []
    for layer, state in zip(recurrent, after if whole else (after,), strict=True):
        parts = zip(*(np.split(each, layer.num_layers) for each in _parts(state)), strict=True)
        finals += [dict(zip("hc", each, strict=False)) for each in parts]
    live = np.ones((rows, steps), bool)
    if lengths is not None:
        live = np.arange(steps) < lengths.reshape(-1, 1)
    live = live if chain.batch_first else live.T
    for output, form in zip(graph.outputs, chain.outputs, strict=True):
        found = _end(form, finals) if isinstance(form, End) else _in_graph(form, y)
        wanted = theirs[output.name]
        if isinstance(form, Stream) and y.ndim == 3 and found.shape == wanted.shape:
            compared = _in_graph(form, np.broadcast_to(live[..., None], y.shape))
            found, wanted = np.where(compared, found, 0), np.where(compared, wanted, 0)
        require_equal(_words(output.name, feed), found, wanted)


def _state(
    layer: Recurrent, rows: int, starts: list[dict[str, Start]], feed: Mapping[str, Array]
) -> Any:
    """The initial state of a layer, in the form of its own."""
    zeros = layer.initial_state(rows)
    parts = []
    for letter, zero in zip("hc", _parts(zeros), strict=False):
        nodes = zip(starts, np.split(zero, layer.num_layers), strict=True)
        parts.append(
            np.concatenate(
                [
                    feed[each[letter].name][each[letter].rows] if letter in each else nothing
                    for each, nothing in nodes
                ]
            )
        )
    return tuple(parts) if isinstance(zeros, tuple) else parts[0]


def _parts(state: Any) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


def _in_graph(form: Stream, y: Array) -> Array:
    """y, whose axes are those of x or the rows alone, with the axes that it has in the graph."""
    axes: list[str] = [axis for axis in ("0", "1") if axis in form.axes]
    if "D" in form.axes:
        y = y.reshape(*y.shape[:-1], form.directions, y.shape[-1] // form.directions)
        axes.append("D")
    axes.append("F")
    return y.transpose([axes.index(axis) for axis in form.axes])


def _end(form: End, finals: list[dict[str, Array]]) -> Array:
    """Final states in the form that they have in the graph."""
    parts = [finals[node][form.letter][d] for node, d in form.rows]
    if "D" in form.axes:
        return np.stack(parts).transpose(["DBH".index(axis) for axis in form.axes])
    return np.concatenate(parts, 1).transpose(["BH".index(axis) for axis in form.axes])
