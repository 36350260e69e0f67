"""The comparison with ONNX Runtime with which `seqrs.onnx.load` ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import seqrs
from cases import GOLDEN, Array
from onnx_nodes import RecurrentCase, model_of
from seqrs.onnx import OnnxModel, chain, verify
from seqrs.onnx.graph import Node
from seqrs.onnx.recurrent import RecurrentNode
from seqrs.onnx.work import NODE, Work
from test_onnx_export import MODELS, built, exported
from test_onnx_load import CASES, IN_ONNX_RUNTIME

make_node = onnx.helper.make_node

PYTORCH = sorted(path.stem for path in (GOLDEN / "onnx").glob("*.onnx"))
STREAMING = ("lstm-3", "gru-after-2-time-first", "tagger")

#: What ONNX Runtime does not compute.
BEYOND = {
    "layout-1": RecurrentCase("GRU", layout=1),
    "lstm-f64": RecurrentCase("LSTM", dtype="float64"),
}


def attributes(node: Any) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def golden(name: str) -> bytes:
    return (GOLDEN / "onnx" / f"{name}.onnx").read_bytes()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Array]]:
    """What ONNX Runtime has been given, call by call."""
    feeds: list[dict[str, Array]] = []
    session = verify._session

    def spied(runtime: Any, data: bytes) -> Any:
        run = session(runtime, data)

        def both(feed: dict[str, Array]) -> dict[str, Array]:
            found: dict[str, Array] = run(feed)
            feeds.append(dict(feed))
            return found

        return both

    monkeypatch.setattr(verify, "_session", spied)
    return feeds


@pytest.fixture
def without_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


class TestEqual:
    """What is right passes, whatever its form."""

    @pytest.mark.parametrize("name", PYTORCH)
    def test_of_pytorch(self, name: str, compared: list[dict[str, Array]]) -> None:
        seqrs.onnx.load(golden(name), verify=True)
        assert compared

    @pytest.mark.parametrize("name", MODELS)
    def test_of_seqrs(self, name: str, tmp_path: Path, compared: list[dict[str, Array]]) -> None:
        seqrs.onnx.load(exported(built(name), tmp_path), verify=True)
        assert len(compared) == len(verify.SIZES)

    @pytest.mark.parametrize("name", STREAMING)
    def test_with_states(self, name: str, tmp_path: Path, compared: list[dict[str, Array]]) -> None:
        seqrs.onnx.load(exported(built(name), tmp_path, streaming=True), verify=True)
        assert len(compared) == len(verify.SIZES)
        assert all(feed["h_in_0"].all() for feed in compared)

    @pytest.mark.parametrize("name", IN_ONNX_RUNTIME)
    def test_nodes(self, name: str) -> None:
        seqrs.onnx.load(CASES[name].model(), verify=True)

    def test_weights_that_are_inputs(self) -> None:
        model = RecurrentCase("LSTM", peepholes=True, lengths=[5, 2, 3]).model(constants=())
        assert isinstance(seqrs.onnx.load(model, verify=True), OnnxModel)

    def test_what_the_graph_gives_past_a_length_is_its_own(self) -> None:
        """There the bias of a Linear is left, where a chain has zeros."""
        case = RecurrentCase("GRU", lengths=[5, 2, 3], state=False)
        feed = {name: array for name, array in case.feed().items() if name != "sequence_lens"}
        feed |= {"axis": np.array([1]), "w": np.ones((6, 2), np.float32)}
        feed |= {"b": np.full(2, 7, np.float32), "lengths": np.array([5, 2, 3], np.int32)}
        gru = case.node()
        gru.input[4] = "lengths"
        nodes = [
            gru,
            make_node("Squeeze", ["Y", "axis"], ["h"]),
            make_node("MatMul", ["h", "w"], ["xw"]),
            make_node("Add", ["xw", "b"], ["y"]),
        ]
        model = model_of(nodes, feed, ("W", "R", "B", "axis", "w", "b"))
        loaded: Any = seqrs.onnx.load(model, verify=True)
        assert isinstance(loaded, seqrs.Sequential)

    def test_states_of_rows_one_below_the_other(self) -> None:
        """They look like those of the units side by side."""
        case = RecurrentCase("GRU", "bidirectional", state=False)
        feed = case.feed() | {"0": np.array(0), "1": np.array(1)}
        nodes = [
            case.node(),
            *(make_node("Gather", ["Y_h", k], [f"h{k}"]) for k in "01"),
            *(make_node("Transpose", [f"h{k}"], [f"t{k}"]) for k in "01"),
            make_node("Concat", ["t0", "t1"], ["both"], axis=1),
            make_node("Transpose", ["both"], ["y"]),
        ]
        model = model_of(nodes, feed, ("W", "R", "B", "0", "1"))
        assert isinstance(seqrs.onnx.load(model, verify=True), OnnxModel)

    def test_a_path_and_a_model(self, tmp_path: Path, compared: list[dict[str, Array]]) -> None:
        data = golden("gru-residual-script")
        (tmp_path / "model.onnx").write_bytes(data)
        for form in (tmp_path / "model.onnx", onnx.load_from_string(data)):
            seqrs.onnx.load(form, verify=True)
        assert len(compared) == 2 * len(compared[: len(compared) // 2]) > 2


class TestInputs:
    """What both are given."""

    def test_several_numbers_of_rows_and_steps(self, compared: list[dict[str, Array]]) -> None:
        for name in ("gru-2-bidirectional-script", "gru-residual-script"):
            seqrs.onnx.load(golden(name), verify=True)
            assert {feed["x"].shape[:2] for feed in compared} >= {(3, 6), (2, 1), (1, 9)}, name
            compared.clear()

    def test_sizes_that_are_fixed(self, compared: list[dict[str, Array]]) -> None:
        seqrs.onnx.load(golden("lstm-2-fixed-shape-script"), verify=True)
        assert [feed["x"].shape for feed in compared] == [(3, 6)]

    def test_lengths_and_ids_in_range(
        self, tmp_path: Path, compared: list[dict[str, Array]]
    ) -> None:
        seqrs.onnx.load(exported(built("tagger"), tmp_path), verify=True)
        for feed in compared:
            steps = feed["x"].shape[1]
            assert feed["lengths"].shape == feed["x"].shape[:1]
            assert 1 <= feed["lengths"].min() <= feed["lengths"].max() <= steps
        ids = np.concatenate([feed["x"].reshape(-1) for feed in compared])
        assert ids.min() >= 0
        # All 11 words are met, or nearly all.
        assert 8 <= ids.max() <= 10
        assert any(feed["lengths"].min() < feed["x"].shape[1] for feed in compared)

    def test_where_no_chain_is_known(self, compared: list[dict[str, Array]]) -> None:
        """A graph that is no chain, with lengths."""
        case = RecurrentCase("GRU", "reverse", lengths=[5, 2, 3], state=False)
        assert isinstance(seqrs.onnx.load(case.model(), verify=True), OnnxModel)
        assert any(feed["sequence_lens"].min() < feed["X"].shape[0] for feed in compared)
        assert all(feed["sequence_lens"].min() >= 1 for feed in compared)


class TestDifferent:
    """What is wrong is refused, with the largest difference."""

    MESSAGE = (
        r"output '{}' for x \(.*\): expected what the source .*largest difference of [0-9.e-]+"
    )

    @pytest.mark.parametrize("wanted", [None, True])
    @pytest.mark.parametrize(
        ("name", "output"),
        [
            ("lstm-2-script", "14[0-9]|[a-z_0-9/]+"),
            ("gru-residual-script", "[a-z_0-9/]+"),
            ("lstm-states-script", "[a-z_0-9/]+"),
            ("lstm-packed-script", "[a-z_0-9/]+"),
        ],
    )
    def test_weights(
        self, name: str, output: str, wanted: bool | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = RecurrentNode.layer

        def tampered(*arguments: Any) -> Any:
            layer = made(*arguments)
            weights = layer.state_dict()
            weights["weight_hh_l0"][1, 0] += 0.01
            layer.load_state_dict(weights)
            return layer

        monkeypatch.setattr(RecurrentNode, "layer", tampered)
        with pytest.raises(seqrs.VerificationError, match=self.MESSAGE.format("(" + output + ")")):
            seqrs.onnx.load(golden(name), verify=wanted)
        seqrs.onnx.load(golden(name), verify=False)

    def test_a_final_state_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        forward = seqrs.LSTM.__call__

        def tampered(*arguments: Any, **named: Any) -> Any:
            y, (h, c) = forward(*arguments, **named)
            return y, (h, c[::-1])

        monkeypatch.setattr(seqrs.LSTM, "__call__", tampered)
        with pytest.raises(seqrs.VerificationError, match="largest difference"):
            seqrs.onnx.load(golden("lstm-states-dynamo"))

    def test_a_layer_that_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = exported(built("mean-pool"), tmp_path)
        monkeypatch.setattr(chain, "MeanPool", seqrs.MaxPool)
        with pytest.raises(seqrs.VerificationError, match="largest difference"):
            seqrs.onnx.load(whole)

    def test_a_shape(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = verify._in_graph
        monkeypatch.setattr(verify, "_in_graph", lambda form, y: found(form, y)[:1])
        with pytest.raises(seqrs.VerificationError, match=r"expected shape \(3, 6, 3\)"):
            seqrs.onnx.load(golden("lstm-2-script"))


class TestAtHand:
    """When it is done."""

    def test_by_default_where_onnx_runtime_is(self, compared: list[dict[str, Array]]) -> None:
        seqrs.onnx.load(golden("rnn-tanh-script"))
        assert compared

    def test_never(self, compared: list[dict[str, Array]]) -> None:
        seqrs.onnx.load(golden("rnn-tanh-script"), verify=False)
        assert not compared

    @pytest.mark.usefixtures("without_onnx_runtime")
    def test_without_onnx_runtime(self, tmp_path: Path) -> None:
        seqrs.onnx.load(golden("rnn-tanh-script"))
        with pytest.raises(ModuleNotFoundError, match="pip install onnxruntime") as caught:
            # Before the file is looked at.
            seqrs.onnx.load(tmp_path / "missing.onnx", verify=True)
        assert caught.value.name == "onnxruntime"

    @pytest.mark.parametrize("wrong", [1, "yes"])
    def test_no_flag(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="verify: expected True or False"):
            seqrs.onnx.load(golden("rnn-tanh-script"), verify=wrong)

    def test_importing_does_not_import_it(self) -> None:
        code = (
            "import sys, seqrs, seqrs.onnx; print([n for n in sys.modules if 'onnxruntime' in n])"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert found.stdout.strip() == b"[]"


class TestNothingToCompareWith:
    """Where ONNX Runtime does not compute the graph, or it would take too long."""

    @pytest.mark.parametrize("name", BEYOND)
    def test_what_onnx_runtime_lacks(self, name: str) -> None:
        model = BEYOND[name].model()
        reason = "ONNX Runtime does not compute it: "
        with pytest.warns(UserWarning, match=f"was not compared with ONNX Runtime: {reason}"):
            seqrs.onnx.load(model)
        with pytest.raises(seqrs.VerificationError, match=f"got one where {reason}"):
            seqrs.onnx.load(model, verify=True)
        seqrs.onnx.load(model, verify=False)

    def test_numbers_that_onnx_runtime_takes_for_0(self) -> None:
        """Those of Affine, which are 1 and 0 by default, not 0 and 0."""
        model = RecurrentCase("RNN", attributes={"activations": ["Affine"]}).model()
        reason = "ONNX Runtime takes 0 for what is left out of Affine"
        with pytest.warns(UserWarning, match=reason):
            assert seqrs.onnx.load(model).nonlinearity == "affine"
        with pytest.raises(seqrs.VerificationError, match=reason):
            seqrs.onnx.load(model, verify=True)

    def test_inputs_of_any_shape(self) -> None:
        model = model_of([make_node("Tanh", ["X"], ["y"])], {"X": np.zeros((2, 3), np.float32)})
        model.graph.input[0].type.tensor_type.ClearField("shape")
        with pytest.raises(seqrs.VerificationError, match="it has inputs of any shape"):
            seqrs.onnx.load(model, verify=True)

    def test_sizes_within_the_graph(self) -> None:
        """That 7 rows are fixed only its nodes say."""
        feed = {"X": np.zeros((2, 3, 4), np.float32), "shape": np.array([7, 12])}
        model = model_of([make_node("Reshape", ["X", "shape"], ["y"])], feed, ("shape",))
        with pytest.raises(seqrs.VerificationError, match=r"no inputs were found .*\(Reshape\)"):
            seqrs.onnx.load(model, verify=True)

    @pytest.mark.parametrize(
        "shape", [(10**6, 1, 1), (1, 10**6, 1), (10**9, 10**9, 1)], ids=["steps", "rows", "all"]
    )
    def test_much_to_compute(self, shape: tuple[int, ...]) -> None:
        """A file of a few hundred bytes does not choose how long it takes."""
        model = RecurrentCase("LSTM", bias=False, state=False, I=1, H=1).model()
        for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = size
        self.at_once(model)

    def test_much_to_keep(self) -> None:
        """Some nodes that each make a thousand times what they are given."""
        feed = {"X": np.zeros((1, 1000), np.float32)}
        nodes = [
            make_node("Unsqueeze", ["X", "axis"], ["column"]),
            make_node("Add", ["column", "X"], ["y0"]),
            *(make_node("Tanh", [f"y{k}"], [f"y{k + 1}"]) for k in range(60)),
        ]
        feed |= {"axis": np.array([2])}
        self.at_once(model_of(nodes, feed, ("axis",), ("y60",), open_axes=False))

    @pytest.mark.parametrize(
        ("node", "given", "cost"),
        [
            (make_node("Tanh", ["a"], ["y"]), [(30, 40)], 0),
            (make_node("Expand", ["a", "b"], ["y"]), [(1,), (3,)], 0),
            (make_node("MatMul", ["a", "b"], ["y"]), [(90, 100), (100, 70)], 90 * 100 * 70 // 128),
            (
                make_node("Gemm", ["a", "b"], ["y"], transA=1),
                [(100, 90), (100, 70)],
                90 * 100 * 70 // 128,
            ),
            (
                make_node("LSTM", ["a", "b", "c"], ["y"]),
                [(50, 4, 8), (1, 64, 8), (1, 64, 16)],
                50 * 4 * (64 * 8 + 64 * 16) // 128 + 50 * 128,
            ),
        ],
        ids=lambda value: getattr(value, "op_type", None),
    )
    def test_what_a_node_costs(self, node: Any, given: list[tuple[int, ...]], cost: int) -> None:
        arrays: list[Array | None] = [np.zeros(shape, np.float32) for shape in given]
        work = Work(10**9)
        read = Node(0, "", node.op_type, tuple(node.input), tuple(node.output), attributes(node))
        left = work.before(read, arrays)
        assert (
            left == work.left == 10**9 - NODE - sum(a.size for a in arrays if a is not None) - cost
        )
        work.after(read, [np.zeros(70)])
        assert work.left == left - 70
        with pytest.raises(seqrs.ShapeError, match="expected less to compute, got 1 numbers too"):
            Work(69).after(read, [np.zeros(70)])

    @staticmethod
    def at_once(model: Any) -> None:
        seqrs.onnx.load(golden("rnn-tanh-script"), verify=True)
        took = []
        for _ in range(5):
            began = time.perf_counter()
            with pytest.warns(UserWarning, match="was not compared with ONNX Runtime"):
                seqrs.onnx.load(model)
            took.append(time.perf_counter() - began)
        assert min(took) < 1.0
