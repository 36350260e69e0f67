"""Malformed, hostile and damaged ONNX files: each is refused with a typed error, at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import seqrs
from cases import GOLDEN, Array, numbers
from onnx_nodes import RecurrentCase, model_of
from seqrs.onnx import OnnxModel, backend
from seqrs.onnx.graph import read
from test_onnx_export import MODELS, built, exported
from tolerances import PACKAGE_TO_ONNX_RUNTIME

#: Seconds in which any file has to be refused.
AT_ONCE = 1.0
#: A machine that does other things too may be late, but not so often in a row.
TRIES = 8

make_node = onnx.helper.make_node
Tensor = onnx.TensorProto


def refused(call: Callable[[], object], message: str, error: Any = seqrs.SeqrsError) -> None:
    """The call raises the error, in time."""
    took = []
    for _ in range(TRIES):
        began = time.perf_counter()
        with pytest.raises(error, match=message) as caught:
            call()
        took.append(time.perf_counter() - began)
        if took[-1] <= AT_ONCE:
            break
    assert min(took) <= AT_ONCE, took
    text = str(caught.value)
    assert len(text) < 1000
    assert text.isprintable(), ascii(text)


def refused_everywhere(
    model: Any, message: str, error: Any = seqrs.SeqrsError, feed: Any = None
) -> None:
    """By what loads, by what prepares, and if there are inputs at the latest by what runs."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    proto = onnx.ModelProto.FromString(data)
    if feed is None:
        refused(lambda: seqrs.onnx.load(data), message, error)
        refused(lambda: backend.prepare(proto), message, error)
    else:
        refused(lambda: backend.run_model(proto, feed), message, error)


def changed(
    operator: str = "LSTM", *, node: dict[str, Any] | None = None, **arrays: Array | None
) -> Any:
    """A recurrent node with other attributes or other arrays; None leaves one out."""
    case = RecurrentCase(operator)
    feed: dict[str, Any] = case.feed() | arrays
    made = case.node(**(node or {}))
    for k, name in enumerate(made.input):
        if name in feed and feed[name] is None:
            made.input[k] = ""
            del feed[name]
    constants = ("W", "R", "B", "sequence_lens")
    return model_of([made], feed, constants, made.output)


def zeros(*shape: int, dtype: Any = np.float32) -> Array:
    return np.zeros(shape, dtype)


#: Malformed recurrent nodes: T 5, B 3, I 4, H 6, one direction. `onnx.checker` takes most of them.
MALFORMED: dict[str, tuple[Callable[[], Any], str]] = {
    "too few rows in W": (lambda: changed(W=zeros(1, 23, 4)), "W: expected shape"),
    "the gates of a GRU": (lambda: changed(W=zeros(1, 18, 4)), "W: expected shape"),
    "W of two dimensions": (lambda: changed(W=zeros(24, 4)), r"expected W \(D, 4\*H, I\)"),
    "W of five dimensions": (lambda: changed(W=zeros(1, 24, 4, 1, 1)), r"expected W \(D"),
    "W without inputs": (lambda: changed(W=zeros(1, 24, 0)), "hidden_size: expected that of R"),
    "R of other units": (lambda: changed(R=zeros(1, 24, 5)), "hidden_size: expected that of R"),
    "R with too many rows": (lambda: changed(R=zeros(1, 25, 6)), "R: expected shape"),
    "no units": (
        lambda: changed(W=zeros(1, 0, 4), R=zeros(1, 0, 0), node={"hidden_size": 0}),
        "at least 1, got 0",
    ),
    "half a bias": (lambda: changed(B=zeros(1, 24)), "B: expected shape"),
    "a bias of three dimensions": (lambda: changed(B=zeros(1, 48, 1)), "B: expected shape"),
    "hidden_size below 0": (lambda: changed(node={"hidden_size": -6}), "hidden_size: .* got -6"),
    "hidden_size of 2^40": (
        lambda: changed(node={"hidden_size": 2**40}),
        "hidden_size: .* got 1099511627776",
    ),
    "hidden_size of others": (lambda: changed(node={"hidden_size": 7}), "hidden_size: .* got 7"),
    "hidden_size in words": (
        lambda: changed(node={"hidden_size": "6"}),
        "hidden_size: expected an integer, got '6'",
    ),
    "two directions of one": (
        lambda: changed(node={"direction": "bidirectional"}),
        "for 2 directions",
    ),
    "a direction of its own": (
        lambda: changed(node={"direction": "sideways\x1b[2J"}),
        "direction: expected forward or reverse or bidirectional",
    ),
    "layout 2": (lambda: changed(node={"layout": 2}), "layout: expected 0 or 1, got 2"),
    "linear_before_reset 7": (
        lambda: changed("GRU", node={"linear_before_reset": 7}),
        "linear_before_reset: expected 0 or 1, got 7",
    ),
    "too few activations": (lambda: changed(node={"activations": ["Tanh"]}), "activations: exp"),
    "activations in numbers": (
        lambda: changed(node={"activations": [1, 2, 3]}),
        "activations: expected a list of str",
    ),
    "weights of two precisions": (
        lambda: changed(R=zeros(1, 24, 6, dtype=np.float64)),
        "R: expected float32 or float64, all weights alike",
    ),
    "weights of integers": (
        lambda: changed(W=zeros(1, 24, 4, dtype=np.int32)),
        "W: expected float32 or float64",
    ),
    "no R": (lambda: changed(R=None), "inputs: expected X, W, R"),
    "negative lengths": (
        lambda: with_lengths([5, -1, 2]),
        r"sequence_lens: expected integers in 0\.\.=T, got \[5, -1, 2\]",
    ),
    "lengths that are no integers": (
        lambda: with_lengths([5.0, 1.0, 2.0], np.float32),
        "sequence_lens: expected integers, got float32",
    ),
}


def with_lengths(lengths: list[Any], dtype: Any = np.int32) -> Any:
    case = RecurrentCase("LSTM", lengths=[1, 1, 1])
    feed = case.feed() | {"sequence_lens": np.array(lengths, dtype)}
    return model_of([case.node()], feed, ("W", "R", "B", "sequence_lens"), case.node().output)


class TestRecurrentNodes:
    """Nodes that do not hold together."""

    @pytest.mark.parametrize("name", MALFORMED)
    def test_malformed(self, name: str) -> None:
        make, message = MALFORMED[name]
        refused_everywhere(make(), message)

    def test_there_are_enough(self) -> None:
        assert len(MALFORMED) >= 12

    def test_too_many_inputs_and_outputs(self) -> None:
        case = RecurrentCase("RNN")
        node = case.node()
        node.input.append("X")
        refused_everywhere(model_of([node], case.feed(), ("W", "R", "B"), ["Y"]), "inputs: exp")
        node = case.node()
        node.output.append("more")
        refused_everywhere(model_of([node], case.feed(), ("W", "R", "B"), ["Y"]), "outputs: exp")
        node = case.node()
        del node.output[:]
        model = model_of([node], case.feed(), ("W", "R", "B"), ["X"])
        refused_everywhere(model, "outputs: expected")

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"X": zeros(5, 3, 9)}, "input 'X': expected shape"),
            ({"initial_h": zeros(1, 3, 9)}, "input 'initial_h': expected shape"),
            ({"sequence_lens": np.array([5, -1, 2])}, "sequence_lens: .* in 0..=5"),
            ({"sequence_lens": np.array([6, 1, 2])}, "sequence_lens: .* in 0..=5"),
            ({"sequence_lens": np.array([2**40, 1, 2])}, "expected integers that fit int32"),
            ({"sequence_lens": np.array([1, 2])}, "input 'sequence_lens': expected shape"),
        ],
    )
    def test_inputs(self, other: dict[str, Array], message: str) -> None:
        case = RecurrentCase("LSTM", lengths=[5, 1, 2])
        feed = {k: v for k, v in (case.feed() | other).items() if k not in ("W", "R", "B")}
        refused_everywhere(case.model(), message, feed=feed)

    def test_states_in_a_shape_of_their_own(self) -> None:
        # The graph does not say which.
        case = RecurrentCase("GRU")
        model = case.model()
        model.graph.input[1].type.tensor_type.ClearField("shape")
        feed = {"X": case.feed()["X"], "initial_h": zeros(3, 6)}
        refused_everywhere(model, r"initial_h: expected \(1, 3, 6\)", feed=feed)


def a_million_nodes(node: Any) -> bytes:
    """The bytes of a model with a million times the same node."""
    model = model_of([], {"X": zeros(1, 2, 3)}, (), ())
    body = node.SerializeToString()
    nodes = (b"\x0a" + bytes([len(body)]) + body) * 1_000_000
    graph = model.graph.SerializeToString() + nodes
    model.ClearField("graph")
    return model.SerializeToString() + b"\x3a" + varint(len(graph)) + graph


def varint(number: int) -> bytes:
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


class TestGraphs:
    """Graphs that are too much, or that are none."""

    @pytest.mark.parametrize(
        "location", ["../../../etc/passwd", "/etc/passwd", "weights.bin", "file:///etc/passwd", ""]
    )
    @pytest.mark.parametrize("where", ["initialiser", "attribute"])
    def test_external_data(
        self, location: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("weights.bin").write_bytes(bytes(4 * 24 * 4))
        tensor = Tensor(name="W", data_type=1, dims=[1, 24, 4], data_location=Tensor.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        model = RecurrentCase("LSTM").model()
        if where == "initialiser":
            model.graph.initializer[0].CopyFrom(tensor)
        else:
            model.graph.node.insert(0, make_node("Constant", [], ["c"], value=tensor))
        Path("model.onnx").write_bytes(model.SerializeToString())
        message = "expected its numbers in the file, got external data in "
        refused_everywhere(model, message, seqrs.ModelFileError)
        refused(lambda: seqrs.onnx.load("model.onnx"), message, seqrs.ModelFileError)

    def test_a_cycle(self) -> None:
        nodes = [make_node("Add", ["X", "b"], ["a"]), make_node("Relu", ["a"], ["b"])]
        model = model_of(nodes, {"X": zeros(1, 2, 3)}, (), ["b"])
        refused_everywhere(model, r"node 0 \(Add\): .* got 'b', which node 1 \(Relu\) gives later")

    def test_a_node_that_reads_itself(self) -> None:
        model = model_of([make_node("Add", ["X", "a"], ["a"])], {"X": zeros(1, 2, 3)}, (), ["a"])
        refused_everywhere(model, "a cycle")

    def test_names_that_nothing_gives(self) -> None:
        model = model_of([make_node("Relu", ["Z"], ["y"])], {"X": zeros(1, 2, 3)})
        refused_everywhere(model, "got 'Z', which nothing gives")
        model = model_of([make_node("Relu", ["X"], ["y"])], {"X": zeros(1, 2, 3)}, (), ["z"])
        refused_everywhere(model, "output 'z': expected something that gives it")

    def test_names_that_are_given_twice(self) -> None:
        nodes = [make_node("Relu", ["X"], ["y"]), make_node("Tanh", ["X"], ["y"])]
        model = model_of(nodes, {"X": zeros(1, 2, 3)})
        refused_everywhere(model, "expected outputs of new names, got 'y'")
        model = model_of(nodes[:1], {"X": zeros(1, 2, 3), "W": zeros(1)}, ("W", "W"))
        refused_everywhere(model, "initialiser 'W': expected one, got two")

    def test_constants_without_a_name(self) -> None:
        # Which is the name of every input that is left out.
        case = RecurrentCase("LSTM", bias=False)
        model = case.model()
        bias = onnx.numpy_helper.from_array(zeros(1, 48), "")
        model.graph.initializer.append(bias)
        refused_everywhere(model, "initialiser: expected one with a name")

    @pytest.mark.parametrize("operator", ["If", "Loop", "Scan"])
    def test_subgraphs(self, operator: str) -> None:
        body = model_of([make_node("Relu", ["X"], ["z"])], {}, (), ["z"]).graph
        node = make_node(operator, ["X"], ["y"], name="a loop", body=body)
        model = model_of([node], {"X": zeros(1, 2, 3)})
        refused_everywhere(model, f"'a loop' \\({operator}\\): 'body': expected no subgraph")

    def test_subgraphs_in_subgraphs(self) -> None:
        body = model_of([make_node("Relu", ["X"], ["z"])], {}, (), ["z"]).graph
        data = body.SerializeToString()
        for _ in range(10_000):
            # A graph of one node of one attribute, which is the graph before; deeper than any
            # parser goes.
            attribute = b"\x32" + varint(len(data)) + data
            node = b"\x2a" + varint(len(attribute)) + attribute
            data = b"\x0a" + varint(len(node)) + node
        model = model_of([], {"X": zeros(1, 2, 3)}, (), ()).SerializeToString()
        data = model + b"\x3a" + varint(len(data)) + data
        refused(lambda: seqrs.onnx.load(data), "expected an ONNX model", seqrs.ModelFileError)

    def test_functions_of_its_own(self) -> None:
        model = model_of([make_node("Relu", ["X"], ["y"])], {"X": zeros(1, 2, 3)})
        relu = make_node("Relu", ["a"], ["b"])
        opsets = list(model.opset_import)
        function = onnx.helper.make_function("ours", "twice", ["a"], ["b"], [relu], opsets)
        model.functions.append(function)
        refused_everywhere(model, "expected no functions of its own, got 'twice'")

    @pytest.mark.parametrize(
        "node",
        [
            make_node("Relu", ["X"], ["y"]),
            onnx.NodeProto(),
            make_node("Constant", [], ["c"], value_int=1),
        ],
    )
    def test_a_million_nodes(self, node: Any) -> None:
        data = a_million_nodes(node)
        refused(lambda: seqrs.onnx.load(data), "at most 50000 fields in a message")

    def test_more_nodes_than_are_read(self) -> None:
        nodes = [make_node("Relu", ["X"], [f"y{k}"]) for k in range(10_001)]
        model = model_of(nodes, {"X": zeros(1, 2, 3)}, (), ["y0"])
        refused_everywhere(model, "expected at most 10000 nodes, got 10001")

    @pytest.mark.parametrize(
        ("field", "payload"),
        [
            # Of the graph: an input; of the model: metadata, opsets. Each is empty.
            (b"\x5a\x00", "graph"),
            (b"\x72\x00", "model"),
            (b"\x42\x00", "model"),
        ],
    )
    def test_millions_of_other_things(self, field: bytes, payload: str) -> None:
        many = field * 3_000_000
        model = RecurrentCase("RNN").model().SerializeToString()
        data = model + (many if payload == "model" else b"\x3a" + varint(len(many)) + many)
        refused(lambda: seqrs.onnx.load(data), "at most 50000 fields in a message")

    def test_shapes_that_are_larger_than_any_memory(self) -> None:
        model = RecurrentCase("LSTM").model()
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend([1, 2**40, 2**40])
        refused_everywhere(model, "initialiser 'W': expected 1208925819614629174706176 numbers")
        model.graph.initializer[0].dims[1] = -1
        refused_everywhere(model, "initialiser 'W': expected sizes of 0 and more")

    def test_constants_that_grow(self) -> None:
        for shape in ([2**40], [2**16, 2**16]):
            nodes = [
                make_node("ConstantOfShape", ["shape"], ["large"]),
                make_node("Add", ["large", "large"], ["sum"]),
                make_node("Relu", ["X"], ["y"]),
            ]
            feed = {"X": zeros(1, 2, 3), "shape": np.array(shape)}
            refused_everywhere(model_of(nodes, feed, ("shape",)), "expected a result of at most")

    def test_many_constants_that_each_fit(self) -> None:
        nodes = [make_node("Relu", ["X"], ["y"])]
        nodes += [make_node("Add", ["a", "b"], [f"c{k}"]) for k in range(1000)]
        feed = {"X": zeros(1, 2, 3), "a": zeros(1024, 1), "b": zeros(1, 1024)}
        refused_everywhere(model_of(nodes, feed, ("a", "b")), "expected less that follows from")

    def test_many_layers_of_the_same_weights(self) -> None:
        case = RecurrentCase("LSTM", I=64, H=64)
        names = list(case.node().input)
        nodes = [make_node("LSTM", names, [f"y{k}"], hidden_size=64) for k in range(3000)]
        model = model_of(nodes, case.feed(), ("W", "R", "B"), ["y0"])
        with pytest.raises(seqrs.ModelFileError, match="expected less that follows from"):
            backend.prepare(model)

    def test_sparse_initialisers(self) -> None:
        model = RecurrentCase("LSTM").model()
        model.graph.sparse_initializer.add()
        refused_everywhere(model, "expected no sparse initialisers")

    @pytest.mark.parametrize("dtype", [0, 8, 10, 16, 99])
    def test_element_types(self, dtype: int) -> None:
        model = RecurrentCase("LSTM").model()
        model.graph.initializer[0].data_type = dtype
        refused_everywhere(model, f"'W': expected a type of .* got type {dtype} of ONNX")

    def test_numbers_that_are_too_few(self) -> None:
        model = RecurrentCase("LSTM").model()
        tensor = model.graph.initializer[0]
        tensor.raw_data = tensor.raw_data[:-1]
        refused_everywhere(model, "expected 96 numbers .* got 383 bytes")
        tensor.raw_data = tensor.raw_data[:-3]
        refused_everywhere(model, "expected 96 numbers .* got 95 numbers")

    def test_no_graph_and_no_opset(self) -> None:
        model = RecurrentCase("LSTM").model()
        del model.opset_import[:]
        refused_everywhere(model, "opset: expected one in")
        model = RecurrentCase("LSTM").model()
        model.ClearField("graph")
        refused_everywhere(model, "expected a graph, got none")

    def test_inputs_that_are_no_tensors(self) -> None:
        model = RecurrentCase("LSTM").model()
        model.graph.input[0].type.Clear()
        model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
        refused_everywhere(model, "input 'X': expected a tensor")

    def test_names_are_escaped(self) -> None:
        evil = "\x1b[2J\u202e\n../" + "x" * 5000
        node = make_node("Relu", [evil], ["y"], name=evil)
        refused_everywhere(model_of([node], {"X": zeros(1, 2, 3)}), r"\\x1b\[2J")


#: What a changed node may become, and what a changed number.
OPERATORS = (
    "Relu",
    "Tanh",
    "Add",
    "Concat",
    "Transpose",
    "Reshape",
    "Where",
    "Slice",
    "LSTM",
    "GRU",
)
NUMBERS = (-3, -1, 0, 1, 2, 7, 2**40)


def with_changes(data: bytes, random: np.random.Generator) -> Any:
    """A model of which one to three nodes, constants or outputs are others."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    for _ in range(random.integers(1, 4)):
        node = graph.node[random.integers(len(graph.node))]
        names = [name for each in graph.node for name in each.output]
        names += [each.name for each in [*graph.initializer, *graph.input]]
        name = names[random.integers(len(names))]
        number = NUMBERS[random.integers(len(NUMBERS))]
        attributes = [each for each in node.attribute if each.type == each.INT]
        kind = random.integers(7)
        if kind == 0 and node.input:
            node.input[random.integers(len(node.input))] = name
        elif kind == 1:
            node.op_type = OPERATORS[random.integers(len(OPERATORS))]
        elif kind == 2 and attributes:
            attributes[random.integers(len(attributes))].i = number
        elif kind == 3 and node.attribute:
            del node.attribute[random.integers(len(node.attribute))]
        elif kind == 4:
            node.input.append(name)
        elif kind == 5:
            graph.output[0].name = name
        elif kind == 6 and graph.initializer:
            tensor = graph.initializer[random.integers(len(graph.initializer))]
            array = onnx.numpy_helper.to_array(tensor)
            others = (
                array.T,
                array[None],
                array.reshape(-1)[:0],
                array.astype(np.int64),
                0 * array,
            )
            other = np.ascontiguousarray(others[random.integers(len(others))])
            tensor.CopyFrom(onnx.numpy_helper.from_array(other, tensor.name))
    return model


class TestChanged:
    """Graphs that are valid protobuf, and of which a part is another one."""

    @pytest.mark.parametrize("seed", range(8))
    def test_refused_or_computed_alike(self, seed: int, tmp_path: Path) -> None:
        """Any error is typed, and what is read as a chain computes what its graph computes."""
        random = np.random.default_rng(seed)
        sources = [path.read_bytes() for path in sorted((GOLDEN / "onnx").glob("*.onnx"))]
        sources += [exported(built(name), tmp_path) for name in MODELS]
        chains = 0
        for _ in range(60):
            model = with_changes(sources[random.integers(len(sources))], random)
            try:
                loaded = seqrs.onnx.load(model, verify=False)
                graph = OnnxModel(read(model))
            except seqrs.SeqrsError:
                continue
            feed = feed_of(graph, loaded)
            try:
                found = list(graph(**feed).values())
            except seqrs.SeqrsError:
                continue
            if isinstance(loaded, OnnxModel):
                continue
            chains += 1
            y, _ = loaded(feed["x"], lengths=feed.get("lengths"))
            assert any(alike(each, y, loaded, feed.get("lengths")) for each in found)
        assert chains > 0


def feed_of(graph: OnnxModel, loaded: Any) -> dict[str, Array]:
    """Something for each input: sizes that are open are 3 rows and 5 steps."""
    random = np.random.default_rng(9)
    time_first = not getattr(loaded, "_batch_first", True)
    feed: dict[str, Array] = {}
    for value in graph.inputs:
        axes = (5, 3, 4) if time_first else (3, 5, 4)
        open_sizes = {"x": axes, "lengths": (3,)}.get(value.name, (1, 3, 5))
        shape = [
            size if isinstance(size, int) else open_sizes[k]
            for k, size in enumerate(value.shape or ())
        ]
        if value.name == "lengths":
            feed[value.name] = np.array([5, 2, 1][: shape[0]], value.dtype)
        elif value.name == "x":
            drawn = random.integers(0, 3, shape) if value.dtype.kind == "i" else None
            feed["x"] = numbers(random, tuple(shape), "float32") if drawn is None else drawn
        else:
            feed[value.name] = np.zeros(shape, value.dtype)
    return feed


def alike(found: Array, y: Array, model: Any, lengths: Array | None) -> bool:
    """Whether an output of a graph is that of a chain, which has no axis for directions."""
    forms = [found, found.transpose(0, 2, 1, 3)] if found.ndim == 4 else [found]
    for form in forms:
        if form.size != y.size:
            continue
        a, b = form.reshape(y.shape), y
        if lengths is not None and y.ndim == 3:
            steps = np.arange(y.shape[1 if model._batch_first else 0])
            live = steps < lengths[:, None]
            live = live if model._batch_first else live.T
            a, b = a[live], b[live]
        if np.abs(a - b).max(initial=0.0) <= PACKAGE_TO_ONNX_RUNTIME * np.abs(b).max(initial=1.0):
            return True
    return False


class TestFiles:
    """Files that are damaged, or something else."""

    @pytest.mark.parametrize("name", ["lstm-2-dynamo", "gru-2-bidirectional-script"])
    def test_truncated(self, name: str) -> None:
        data = (GOLDEN / "onnx" / f"{name}.onnx").read_bytes()
        random = np.random.default_rng(1)
        cuts = {0, 1, 2, 7, len(data) - 1, *random.integers(0, len(data) - 1, 200).tolist()}
        for cut in cuts:
            refused(lambda part=data[:cut]: seqrs.onnx.load(part), "expected", seqrs.ModelFileError)

    def test_damaged(self) -> None:
        """A byte that is another one gives a model or a typed error, nothing else."""
        data = (GOLDEN / "onnx" / "lstm-final-state-script.onnx").read_bytes()
        random = np.random.default_rng(2)
        outcomes = set()
        for _ in range(1500):
            damaged = bytearray(data)
            damaged[random.integers(len(data))] = random.integers(256)
            try:
                seqrs.onnx.load(bytes(damaged), verify=False)
            except seqrs.SeqrsError:
                outcomes.add("refused")
            else:
                outcomes.add("loaded")
        assert outcomes == {"refused", "loaded"}

    def test_noise(self) -> None:
        random = np.random.default_rng(3)
        for size in [*range(1, 40), 1000, 100_000]:
            data = random.bytes(size)
            refused(lambda data=data: seqrs.onnx.load(data), "expected", seqrs.ModelFileError)

    @pytest.mark.parametrize(
        "data", [b"", b"\x00" * 1000, b"PK\x03\x04" + b"\x00" * 100, b"\x80\x04}\x94.", b"{}" * 50]
    )
    def test_other_formats(self, data: bytes) -> None:
        refused(lambda: seqrs.onnx.load(data), "file: expected|model: ", seqrs.ModelFileError)

    def test_a_model_file_of_seqrs(self, tmp_path: Path) -> None:
        seqrs.LSTM(2, 3).save(tmp_path / "it.onnx")
        refused(lambda: seqrs.onnx.load(tmp_path / "it.onnx"), "expected", seqrs.ModelFileError)

    def test_paths(self, tmp_path: Path) -> None:
        missing = tmp_path / "missing.onnx"
        refused(lambda: seqrs.onnx.load(missing), "expected a file", seqrs.ModelFileNotFoundError)
        refused(lambda: seqrs.onnx.load(tmp_path), "expected a file", seqrs.ModelFileError)
        refused(lambda: seqrs.onnx.load("a\0b"), "expected a file", seqrs.ModelFileError)
        os.mkfifo(tmp_path / "fifo")
        refused(lambda: seqrs.onnx.load(tmp_path / "fifo"), "something else", seqrs.ModelFileError)
        if Path("/dev/zero").exists():
            refused(lambda: seqrs.onnx.load("/dev/zero"), "something else", seqrs.ModelFileError)
        wrong: Any = 7
        with pytest.raises(
            TypeError, match="path_or_bytes: expected a path, bytes or a ModelProto"
        ):
            seqrs.onnx.load(wrong)

    def test_what_is_whole_is_taken_in_every_form(self, tmp_path: Path) -> None:
        model = MODELS["lstm"]()
        data = exported(model, tmp_path)
        forms: list[Any] = [data, bytearray(data), memoryview(data), tmp_path / "model.onnx"]
        for form in [*forms, str(tmp_path / "model.onnx"), onnx.load_from_string(data)]:
            assert seqrs.onnx.load(form) == model
