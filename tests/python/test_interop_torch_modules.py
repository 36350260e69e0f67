"""PyTorch's modules in and out, and `seqrs.torch` in their place."""

from __future__ import annotations

import concurrent.futures
import copy
import importlib
import inspect
import io
import itertools
import math
import pickle
import re
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from allocated import allocated, mallinfo2
from cases import Array, parts
from tolerances import assert_close, assert_same_bits

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

import seqrs.torch  # noqa: E402 (needs PyTorch)

nn = torch.nn
rnn = torch.nn.utils.rnn

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

KINDS = ("RNN", "LSTM", "GRU")
#: Of outputs, and of gradients and what is small beside the sums it comes from.
OUTPUT = {
    torch.float32: tolerances.PACKAGE_TO_PYTORCH_F32,
    torch.float64: tolerances.PACKAGE_TO_PYTORCH_F64,
}
GRADIENT = {
    torch.float32: tolerances.PACKAGE_TO_REFERENCE_F32,
    torch.float64: tolerances.PACKAGE_TO_REFERENCE_F64,
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def assert_tensors(got: Any, expected: Any, tolerance: float, name: str = "tensor") -> None:
    assert got.dtype == expected.dtype, name
    assert_close(got.detach().numpy(), expected.detach().numpy(), tolerance, name)


def assert_same_weights(layer: Any, module: Any) -> None:
    """Bit for bit, under the same names in the same order."""
    ours, theirs = layer.state_dict(), module.state_dict()
    assert list(ours) == list(theirs)
    for name, p in ours.items():
        assert_same_bits(p, theirs[name].numpy(), name)


def options_of(kind: str) -> list[dict[str, Any]]:
    """Every pair of options together, and each alone."""
    own = {
        "RNN": {"nonlinearity": "relu"},
        "LSTM": {"proj_size": 3},
        "GRU": {},
    }[kind]
    choices: dict[str, Any] = {
        "num_layers": 2,
        "bias": False,
        "batch_first": True,
        "bidirectional": True,
        "dtype": torch.float64,
        **own,
    }
    found = [dict(pair) for n in (0, 1, 2) for pair in itertools.combinations(choices.items(), n)]
    return [*found, choices]


RECURRENT = [
    pytest.param(kind, options, id=f"{kind}-{'-'.join(options) or 'plain'}")
    for kind in KINDS
    for options in options_of(kind)
]


class TestFromModules:
    @pytest.mark.parametrize(("kind", "options"), RECURRENT)
    def test_recurrent_modules_there_and_back(self, kind: str, options: dict[str, Any]) -> None:
        module = getattr(nn, kind)(5, 7, **options)
        layer = seqrs.from_torch(module)
        assert_same_weights(layer, module)
        for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first"):
            assert getattr(layer, name) == getattr(module, name), name
        x = torch.randn(4, 6, 5, dtype=module.weight_ih_l0.dtype)
        y, final = layer(x)
        expected, expected_final = module(x)
        tolerance = OUTPUT[x.dtype]
        assert_close(y, expected.detach().numpy(), tolerance)
        for a, b in zip(parts(final), parts(expected_final), strict=True):
            assert_close(a, b.detach().numpy(), tolerance)

        back = seqrs.to_torch(layer)
        assert type(back) is type(module)
        assert repr(back) == repr(module)
        assert_same_weights(layer, back)
        assert torch.equal(back(x)[0], expected)
        assert seqrs.from_torch(back, verify=False) == layer

    @pytest.mark.usefixtures("nothing_drawn")
    def test_nothing_is_drawn(self) -> None:
        modules = [nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Dropout(0.5)]
        layers = seqrs.from_torch(nn.Sequential(*modules))
        assert len(layers) == 4
        for kind in KINDS:
            for module in (getattr(nn, kind)(4, 3, 2), getattr(nn, f"{kind}Cell")(4, 3)):
                assert seqrs.from_torch(module).num_parameters

    def test_dropout_goes_along_and_is_not_applied(self) -> None:
        module = nn.LSTM(3, 4, 2, dropout=0.5)
        layer = seqrs.from_torch(module)
        assert isinstance(layer, seqrs.LSTM)
        assert layer.dropout == 0.5
        assert module.training
        assert seqrs.to_torch(layer).dropout == 0.5

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize(
        ("kind", "own"), [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {})]
    )
    def test_cells(self, kind: str, own: dict[str, Any], bias: bool, dtype: Any) -> None:
        cell = getattr(nn, f"{kind}Cell")(5, 7, bias=bias, dtype=dtype, **own)
        layer = seqrs.from_torch(cell)
        for name, p in layer.state_dict().items():
            assert_same_bits(p, cell.state_dict()[name.removesuffix("_l0")].numpy(), name)
        x, h, c = (torch.randn(3, n, dtype=dtype) for n in (5, 7, 7))
        expected = cell(x, (h, c) if kind == "LSTM" else h)
        state = (h[None], c[None]) if kind == "LSTM" else h[None]
        _, final = layer.step(x, state)
        for a, b in zip(parts(final), parts(expected), strict=True):
            assert_close(a[0], b.detach().numpy(), OUTPUT[dtype])

    @pytest.mark.parametrize(
        "module",
        [
            nn.Embedding(9, 5),
            nn.Embedding(9, 5, padding_idx=-2),
            nn.Embedding.from_pretrained(torch.ones(9, 5), padding_idx=0),
            nn.Linear(5, 7),
            nn.Linear(5, 7, bias=False, dtype=torch.float64),
            nn.LayerNorm(5, eps=1e-3),
            nn.Dropout(0.3),
            nn.Tanh(),
            nn.ReLU(),
            nn.Sigmoid(),
            nn.Softmax(dim=-1),
        ],
        ids=repr,
    )
    def test_other_modules_there_and_back(self, module: Any) -> None:
        layer = seqrs.from_torch(module)
        assert_same_weights(layer, module)
        back = seqrs.to_torch(layer)
        assert repr(back) == repr(module)
        assert_same_weights(layer, back)
        assert seqrs.from_torch(back) == layer

    @pytest.mark.parametrize("batch_first", [True, False])
    def test_a_model_there_and_back(self, batch_first: bool) -> None:
        module = nn.Sequential(
            nn.Embedding(11, 5, padding_idx=0),
            nn.Dropout(0.2),
            nn.LSTM(5, 6, 2, bidirectional=True, batch_first=batch_first),
            nn.LayerNorm(12),
            nn.GRU(12, 8, batch_first=batch_first),
            nn.Linear(8, 11),
            nn.ReLU(),
            nn.Softmax(dim=-1),
        )
        with torch.no_grad():
            module[3].weight.normal_()
            module[3].bias.normal_()
        model = seqrs.from_torch(module)
        assert isinstance(model, seqrs.Sequential)
        assert_same_weights(model, module)
        assert model.batch_first is batch_first

        back = seqrs.to_torch(model)
        assert isinstance(back, seqrs.torch.Sequential)
        assert_same_weights(model, back)
        assert seqrs.from_torch(back) == model
        back.eval()
        ids = torch.randint(11, (4, 6))
        y, states = model(ids)
        expected, expected_states = back(ids)
        tolerance = OUTPUT[torch.float32]
        assert_close(y, expected.detach().numpy(), tolerance)
        assert_close(states[1], expected_states[1].detach().numpy(), tolerance)
        again, _ = model(ids, states)
        assert_close(again, back(ids, expected_states)[0].detach().numpy(), tolerance)
        part, _ = back(ids, (expected_states[0], None))
        assert_close(model(ids, (states[0], None))[0], part.detach().numpy(), tolerance)
        with pytest.raises(ValueError, match="each of 2 recurrent modules, got 1"):
            back(ids, (None,))

    def test_a_model_without_recurrence_is_pytorchs_own(self) -> None:
        model = seqrs.Sequential([seqrs.Linear(3, 4), seqrs.Activation("tanh")], seed=1)
        module = seqrs.to_torch(model)
        assert type(module) is nn.Sequential
        assert_same_weights(model, module)
        assert seqrs.from_torch(module) == model

    def test_one_inside_another_is_written_out(self) -> None:
        inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        model = seqrs.from_torch(nn.Sequential(nn.LSTM(3, 4), inner, inner, nn.Linear(4, 2)))
        assert isinstance(model, seqrs.Sequential)
        assert [layer.kind for layer in model] == [
            *("lstm", "linear", "activation", "linear", "activation", "linear")
        ]

    def test_modules_in_our_place(self) -> None:
        module = seqrs.torch.GRU(3, 4, batch_first=True)
        layer = seqrs.from_torch(module)
        assert_same_weights(layer, module)

    def test_modes_and_draws_of_pytorch_stay(self) -> None:
        module = nn.Sequential(nn.LSTM(3, 4, 2, dropout=0.5), nn.Dropout(0.5)).train()
        module[1].eval()
        before = torch.get_rng_state()
        seqrs.to_torch(seqrs.from_torch(module))
        assert (module[0].training, module[1].training) == (True, False)
        assert torch.equal(torch.get_rng_state(), before)
        assert module[0].weight_ih_l0.grad is None

    def test_verification_sees_a_wrong_gate_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from seqrs.interop import pytorch

        module = nn.LSTM(3, 4)
        right = pytorch._parameters

        def wrong(module: Any, where: str) -> dict[str, Array]:
            return {k: np.roll(p, 4, axis=0) for k, p in right(module, where).items()}

        monkeypatch.setattr(pytorch, "_parameters", wrong)
        with pytest.raises(seqrs.VerificationError, match=r"output of LSTM.*largest difference of"):
            seqrs.from_torch(module)
        with pytest.raises(seqrs.VerificationError, match="output of Linear"):
            seqrs.from_torch(nn.Linear(8, 8))
        with pytest.raises(seqrs.VerificationError, match="h of GRUCell"):
            seqrs.from_torch(nn.GRUCell(8, 4))
        seqrs.from_torch(module, verify=False)

    def test_verification_uses_lengths_and_states(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A layer that ignored them would agree from zero with all steps live."""
        plain = seqrs.GRU.__call__
        monkeypatch.setattr(seqrs.GRU, "__call__", lambda self, x, *_: plain(self, x))
        with pytest.raises(seqrs.VerificationError, match="with state and lengths"):
            seqrs.from_torch(nn.GRU(3, 4))

    def test_weights_of_tensors(self) -> None:
        module = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2, dtype=torch.float64)
        layer = seqrs.from_torch_state_dict(module.state_dict(), "LSTM")
        assert_same_weights(layer, module)
        halves = {name: p.bfloat16() for name, p in module.state_dict().items()}
        rounded = seqrs.from_torch_state_dict(halves, "LSTM")
        assert rounded.dtype == "float32"
        for name, p in rounded.state_dict().items():
            assert_same_bits(p, halves[name].float().numpy(), name)
        # Parameters, which want gradients.
        assert seqrs.from_torch_state_dict(dict(module.named_parameters()), "LSTM") == layer
        meta = {name: p.to("meta") for name, p in module.state_dict().items()}
        with pytest.raises(seqrs.DTypeError, match=r"weight_ih_l0: .*CPU, got one on meta"):
            seqrs.from_torch_state_dict(meta, "LSTM")


class Own(nn.LSTM):  # type: ignore[misc,name-defined]
    """Nobody knows what it computes."""


def hooked() -> Any:
    module = nn.Linear(3, 3)
    module.register_forward_hook(lambda *_: None)
    return module


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no-module": (lambda: 3, TypeError, r"expected a torch\.nn\.Module, got 3"),
    "conv": (lambda: nn.Conv1d(1, 1, 1), TypeError, r"got torch\.nn\.modules\.conv\.Conv1d"),
    "inside": (lambda: nn.Sequential(nn.Tanh(), nn.ELU()), TypeError, r"^1: .*ELU"),
    "subclass": (lambda: Own(3, 4), TypeError, r"a subclass.*Own"),
    "parametrized": (
        lambda: nn.utils.parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0"),
        TypeError,
        "ParametrizedLSTM",
    ),
    "pruned": (
        lambda: importlib.import_module("torch.nn.utils.prune").identity(nn.Linear(3, 4), "weight"),
        ValueError,
        "forward hooks",
    ),
    "hooks": (hooked, ValueError, "forward hooks"),
    "max_norm": (lambda: nn.Embedding(3, 4, max_norm=1.0), ValueError, r"max_norm: .* got 1\.0"),
    "sparse": (lambda: nn.Embedding(3, 4, sparse=True), ValueError, "sparse: expected False"),
    "by-frequency": (
        lambda: nn.Embedding(3, 4, scale_grad_by_freq=True),
        ValueError,
        "scale_grad_by_freq: expected False",
    ),
    "norm-of-two": (lambda: nn.LayerNorm((3, 4)), ValueError, r"one size, got \(3, 4\)"),
    "norm-without": (
        lambda: nn.LayerNorm(3, elementwise_affine=False),
        ValueError,
        "elementwise_affine",
    ),
    "norm-without-bias": (lambda: nn.LayerNorm(3, bias=False), ValueError, "without"),
    "softmax": (lambda: nn.Softmax(dim=1), ValueError, "dim: expected -1, the last axis, got 1"),
    "softmax-none": (lambda: nn.Softmax(), ValueError, "dim: .* got None"),
    "dropout-of-all": (lambda: nn.Dropout(1.0), ValueError, r"in \[0, 1\), got 1"),
    "dropout-of-all-between": (lambda: nn.GRU(3, 4, 2, dropout=1.0), ValueError, r"\[0, 1\)"),
    "half": (lambda: nn.Linear(3, 4).half(), seqrs.DTypeError, r"weight: .*float16.*\.float\(\)"),
    "mixed": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3, dtype=torch.float64)),
        seqrs.DTypeError,
        "float64",
    ),
    "meta": (lambda: nn.LSTM(3, 4, device="meta"), seqrs.DTypeError, "got one on meta"),
    "both-orders": (
        lambda: nn.Sequential(nn.RNN(3, 4), nn.RNN(4, 4, batch_first=True)),
        ValueError,
        "batch_first: .*True of '1' and False of '0'",
    ),
    "cell-inside": (lambda: nn.Sequential(nn.GRUCell(3, 4)), TypeError, "^0: expected no cell"),
    "empty": (lambda: nn.Sequential(), ValueError, "got none"),
}


class TestRefused:
    @pytest.mark.parametrize("name", REFUSED)
    def test_modules(self, name: str) -> None:
        build, error, message = REFUSED[name]
        with pytest.raises(error, match=message):
            seqrs.from_torch(build())

    def test_a_gru_that_resets_before(self) -> None:
        with pytest.raises(ValueError, match="reset_after=False, which is another function"):
            seqrs.to_torch(seqrs.GRU(3, 4))
        model = seqrs.Sequential([seqrs.Linear(2, 3), seqrs.GRU(3, 4)])
        with pytest.raises(ValueError, match=r"layers\[1\]: .*reset_after"):
            seqrs.to_torch(model)

    def test_cells_that_pytorch_lacks(self) -> None:
        refused: list[tuple[Any, str]] = [
            (seqrs.LSTM(3, 4, peepholes=True), "layer: peepholes: expected False, .* got True"),
            (seqrs.LSTM(3, 4, coupled=True), "layer: coupled: expected False, .* got True"),
            (seqrs.LSTM(3, 4, clip=2.0), r"layer: clip: expected None, .* got 2\.0"),
            (
                seqrs.LSTM(3, 4, gate_activation="elu"),
                "gate_activation: expected 'sigmoid', .*'elu'",
            ),
            (seqrs.LSTM(3, 4, output_activation="relu"), "output_activation: expected 'tanh'"),
            (
                seqrs.GRU(3, 4, reset_after=True, candidate_activation=("elu", 0.5)),
                r"candidate_activation: expected 'tanh', as PyTorch .* got \('elu', 0\.5\)",
            ),
            (seqrs.RNN(3, 4, nonlinearity="softsign"), "nonlinearity: expected 'tanh' or 'relu'"),
            (seqrs.RNN(3, 4, clip=1.0), r"layer: clip: expected None, .* got 1\.0"),
        ]
        for layer, message in refused:
            with pytest.raises(ValueError, match=message):
                seqrs.to_torch(layer)

    @pytest.mark.parametrize("layer", [seqrs.Last(), seqrs.MeanPool(), seqrs.MaxPool()], ids=repr)
    def test_layers_that_pytorch_lacks(self, layer: Any) -> None:
        with pytest.raises(TypeError, match=re.escape(repr(layer))):
            seqrs.to_torch(layer)

    def test_what_is_no_layer(self) -> None:
        with pytest.raises(TypeError, match="model: expected a layer or a Sequential, got 3"):
            seqrs.to_torch(3)  # type: ignore[arg-type]

    def test_an_option_that_pytorch_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = seqrs.LSTM(3, 4)
        plain = layer._options()
        more = {"gain": 3.0, "smoothing": None}
        monkeypatch.setattr(
            seqrs.LSTM, "_options", lambda self: plain | more if self is layer else plain
        )
        with pytest.raises(ValueError, match=r"gain: expected None, .* got 3\.0"):
            seqrs.to_torch(layer)


# --- in their place


def twins(kind: str, *sizes: int, **options: Any) -> tuple[Any, Any]:
    """A module of ours and one of PyTorch's with the same weights."""
    torch.manual_seed(1)
    ours = getattr(seqrs.torch, kind)(*sizes, **options)
    torch.manual_seed(1)
    return ours, getattr(nn, kind)(*sizes, **options)


def run(module: Any, x: Any, hx: Any, seed: int = 5) -> dict[str, Any]:
    """Outputs and all gradients, of a loss that depends on every one of the outputs."""
    module.zero_grad()
    leaf = x.data.detach().clone().requires_grad_()
    given = rnn.PackedSequence(leaf, *x[1:]) if isinstance(x, rnn.PackedSequence) else leaf
    states = [part.detach().clone().requires_grad_() for part in parts(hx)]
    state = None if hx is None else (tuple(states) if isinstance(hx, tuple) else states[0])
    torch.manual_seed(seed)
    y, final = module(given, state)
    if isinstance(y, rnn.PackedSequence):
        assert [torch.equal(a, b) for a, b in zip(y[1:2], x[1:2], strict=True)]
        y = y.data
    outputs = {"y": y, **dict(zip("hc", parts(final), strict=False))}
    torch.manual_seed(seed)
    drawn = [torch.randn(o.shape, dtype=o.dtype) for o in outputs.values()]
    torch.autograd.backward(list(outputs.values()), drawn)
    outputs["d_x"] = leaf.grad
    outputs |= {f"d_state{k}": part.grad for k, part in enumerate(states)}
    return outputs | {f"d_{name}": p.grad for name, p in module.named_parameters()}


def assert_twins(
    ours: Any, theirs: Any, x: Any, hx: Any = None, *, outputs: dict[Any, float] = OUTPUT
) -> None:
    a, b = run(ours, x, hx), run(theirs, x, hx)
    assert list(a) == list(b)
    for name, expected in b.items():
        table = GRADIENT if name.startswith("d_") else outputs
        assert_tensors(a[name], expected, table[expected.dtype], name)


def random_state(module: Any, batch: int | None) -> Any:
    depth = module.num_layers * (2 if module.bidirectional else 1)
    sizes = [module.proj_size or module.hidden_size]
    sizes += [module.hidden_size] if module.mode == "LSTM" else []
    dtype = module.weight_ih_l0.dtype
    shape = (depth,) if batch is None else (depth, batch)
    drawn = tuple(torch.randn(*shape, size, dtype=dtype) for size in sizes)
    return drawn if len(drawn) > 1 else drawn[0]


class TestDropIns:
    @pytest.mark.parametrize(("kind", "options"), RECURRENT)
    def test_outputs_and_gradients(self, kind: str, options: dict[str, Any]) -> None:
        ours, theirs = twins(kind, 5, 7, **options)
        x = torch.randn(6, 4, 5, dtype=theirs.weight_ih_l0.dtype)
        rows = 6 if theirs.batch_first else 4
        assert_twins(ours, theirs, x)
        assert_twins(ours, theirs, x, random_state(theirs, rows))
        # Without gradients it is another way through the code.
        with torch.no_grad():
            y, _ = ours(x)
        assert_tensors(y, theirs(x)[0], OUTPUT[x.dtype])
        assert not y.requires_grad

    @pytest.mark.parametrize(("kind", "options"), RECURRENT)
    @pytest.mark.parametrize("enforce_sorted", [True, False])
    def test_packed(self, kind: str, options: dict[str, Any], enforce_sorted: bool) -> None:
        ours, theirs = twins(kind, 5, 7, **options)
        first = theirs.batch_first
        lengths = [6, 4, 4, 1] if enforce_sorted else [4, 1, 6, 4]
        shape = (4, 6, 5) if first else (6, 4, 5)
        packed = rnn.pack_padded_sequence(
            torch.randn(*shape, dtype=theirs.weight_ih_l0.dtype),
            lengths,
            batch_first=first,
            enforce_sorted=enforce_sorted,
        )
        assert_twins(ours, theirs, packed)
        assert_twins(ours, theirs, packed, random_state(theirs, 4))
        with torch.no_grad():
            y, h = ours(packed)
            expected, expected_h = theirs(packed)
        assert isinstance(y, rnn.PackedSequence)
        for a, b in zip(y[1:], expected[1:], strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
        padded, found = rnn.pad_packed_sequence(y, batch_first=first)
        assert found.tolist() == lengths
        expected_padded, _ = rnn.pad_packed_sequence(expected, batch_first=first)
        assert_tensors(padded, expected_padded, OUTPUT[padded.dtype])
        for a, b in zip(parts(h), parts(expected_h), strict=True):
            assert_tensors(a, b, OUTPUT[padded.dtype])

    def test_pack_sequence(self) -> None:
        ours, theirs = twins("LSTM", 3, 4, bidirectional=True)
        packed = rnn.pack_sequence([torch.randn(n, 3) for n in (2, 5, 1)], enforce_sorted=False)
        assert_twins(ours, theirs, packed)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("dropout", [0.0, 0.4])
    def test_unbatched(self, kind: str, batch_first: bool, dropout: float) -> None:
        options = {"num_layers": 2, "bidirectional": True, "dropout": dropout}
        ours, theirs = twins(kind, 3, 4, batch_first=batch_first, **options)
        x = torch.randn(5, 3)
        assert_twins(ours, theirs, x)
        assert_twins(ours, theirs, x, random_state(theirs, None))
        y, final = ours(x)
        assert y.shape == (5, 8)
        assert parts(final)[0].shape == (4, 4)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("packed", [True, False])
    @pytest.mark.parametrize("bidirectional", [True, False])
    def test_dropout_draws_as_pytorch_does(
        self, kind: str, batch_first: bool, packed: bool, bidirectional: bool
    ) -> None:
        options = {"num_layers": 3, "dropout": 0.5, "bidirectional": bidirectional}
        ours, theirs = twins(kind, 5, 8, batch_first=batch_first, **options)
        x = torch.randn(6, 6, 5)
        if packed:
            x = rnn.pack_padded_sequence(x, [6, 2, 3, 6, 1, 1], batch_first, enforce_sorted=False)
        assert_twins(ours, theirs, x)
        assert_twins(ours, theirs, x, random_state(theirs, 6))
        # Not the same at each call, and nothing at all in eval mode.
        given = x.data
        first, second = (ours(x)[1] for _ in range(2))
        assert not torch.equal(parts(first)[0], parts(second)[0])
        assert_twins(ours.eval(), theirs.eval(), x)
        assert torch.equal(given, x.data)

    @pytest.mark.parametrize(("kind", "options"), RECURRENT)
    def test_the_same_module_but_for_its_computation(
        self, kind: str, options: dict[str, Any]
    ) -> None:
        ours, theirs = twins(kind, 5, 7, **options)
        assert isinstance(ours, type(theirs))
        assert repr(ours) == repr(theirs)
        assert inspect.signature(type(ours)) == inspect.signature(type(theirs))
        a, b = ours.state_dict(), theirs.state_dict()
        assert list(a) == list(b)
        for name, p in b.items():
            assert torch.equal(a[name], p), name
            assert isinstance(getattr(ours, name), nn.Parameter)
        theirs.load_state_dict(a)
        ours.load_state_dict(b)

    def test_positional_arguments(self) -> None:
        for ours, theirs in (
            twins("RNN", 3, 4, 2, "relu", False, True, 0.1, True),
            twins("LSTM", 3, 4, 2, False, True, 0.1, True, 2),
        ):
            assert repr(ours) == repr(theirs)
            assert_twins(ours, theirs, torch.randn(2, 5, 3))

    def test_no_rows(self) -> None:
        ours, theirs = twins("LSTM", 3, 4)
        x = torch.zeros(5, 0, 3)
        assert ours(x)[0].shape == theirs(x)[0].shape

    def test_strides_of_any_kind(self) -> None:
        ours, theirs = twins("GRU", 3, 4, batch_first=True)
        x = torch.randn(3, 5, 2).permute(2, 1, 0)
        h = torch.randn(4, 2, 1).permute(2, 1, 0)
        assert_tensors(ours(x, h)[0], theirs(x, h)[0], OUTPUT[x.dtype])
        # The gradient of a sum is one number, expanded.
        for module in (ours, theirs):
            module(x, h)[0].sum().backward()
        assert_tensors(ours.weight_hh_l0.grad, theirs.weight_hh_l0.grad, GRADIENT[x.dtype])

    def test_a_model_of_its_own(self) -> None:
        """In a module of the user's, beside modules of PyTorch's."""
        losses = []
        for package in (nn, seqrs.torch):
            torch.manual_seed(2)
            embedding, head = nn.Embedding(9, 4), nn.Linear(6, 9)
            recurrent = package.LSTM(4, 6, batch_first=True)
            ids = torch.randint(9, (3, 5))
            logits = head(torch.relu(recurrent(embedding(ids))[0]))
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
            loss.backward()
            losses.append((loss, embedding.weight.grad))
        assert_tensors(losses[1][0], losses[0][0], OUTPUT[torch.float32])
        assert_tensors(losses[1][1], losses[0][1], GRADIENT[torch.float32])


def module_tape_bytes(module: Any, x: Any) -> int:
    """The size of the tape that a call keeps."""
    _, _, tape = seqrs.from_torch(module).forward(x)
    return int(tape.nbytes)


class TestAutograd:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("packed", [True, False])
    def test_gradcheck(self, kind: str, packed: bool) -> None:
        own = {"LSTM": {"proj_size": 2}}.get(kind, {})
        module = getattr(seqrs.torch, kind)(3, 4, 2, bidirectional=True, dtype=torch.float64, **own)
        names = list(dict(module.named_parameters()))
        x = torch.randn(4, 3, 3, dtype=torch.float64)
        state = parts(random_state(module, 3))
        sizes, unsorted = None, (None, None)
        if packed:
            x, sizes, *unsorted = rnn.pack_padded_sequence(x, [2, 4, 1], enforce_sorted=False)

        def outputs(x: Any, *rest: Any) -> tuple[Any, ...]:
            hx = tuple(rest[: len(state)])
            weights = dict(zip(names, rest[len(state) :], strict=True))
            given = rnn.PackedSequence(x, sizes, *unsorted) if packed else x
            y, final = torch.func.functional_call(
                module, weights, (given, hx if kind == "LSTM" else hx[0])
            )
            return (y.data if packed else y, *parts(final))

        tensors = [x, *state, *(p.detach().clone() for p in module.parameters())]
        assert torch.autograd.gradcheck(outputs, [t.requires_grad_() for t in tensors])

    @pytest.mark.parametrize("which", ["y", "h", "c", "y-and-c"])
    def test_gradients_that_come_to_some_outputs(self, which: str) -> None:
        ours, theirs = twins("LSTM", 3, 4, 2)
        x = torch.randn(5, 2, 3)
        for module in (ours, theirs):
            y, (h, c) = module(x)
            loss = {"y": y, "h": h, "c": c}.get(which)
            loss = y.sum() + (c**2).sum() if loss is None else (loss**2).sum()
            loss.backward()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_tensors(a.grad, b.grad, GRADIENT[x.dtype])

    def test_frozen_parameters(self) -> None:
        module = seqrs.torch.LSTM(3, 4)
        module.weight_hh_l0.requires_grad_(False)
        x = torch.randn(5, 2, 3)
        module(x)[0].sum().backward()
        assert module.weight_hh_l0.grad is None
        assert module.weight_ih_l0.grad is not None

        module.requires_grad_(False)
        assert not module(x)[0].requires_grad
        x.requires_grad_()
        module(x)[0].sum().backward()
        assert x.grad.abs().sum() > 0

    def test_gradients_add_up(self) -> None:
        module = seqrs.torch.GRU(3, 4, dtype=torch.float64)
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        for _ in range(2):
            module(x)[0].sum().backward()
        twice = module.weight_hh_l0.grad.clone()
        module.zero_grad()
        (2 * module(x)[0]).sum().backward()
        assert_tensors(twice, module.weight_hh_l0.grad, tolerances.FORMULA_F64)

    def test_one_module_twice_before_going_back(self) -> None:
        """Each call has its own tape: a stack of one module, and truncated steps."""
        ours, theirs = twins("GRU", 4, 4)
        x = torch.randn(5, 2, 4)
        for module in (ours, theirs):
            y, h = module(x)
            y, h = module(y, h)
            module(y, h)[0].sum().backward()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_tensors(a.grad, b.grad, GRADIENT[x.dtype])

    def test_other_weights_before_going_back(self) -> None:
        """The tape of the first weights stays good when the module computes with others."""
        module = seqrs.torch.GRU(3, 4)
        x = torch.randn(5, 2, 3)
        first = {k: p.detach().clone().requires_grad_() for k, p in module.named_parameters()}
        second = {k: torch.randn_like(p).requires_grad_() for k, p in first.items()}
        expected = torch.autograd.grad(
            torch.func.functional_call(module, first, x)[0].sum(), list(first.values())
        )
        a = torch.func.functional_call(module, first, x)[0]
        b = torch.func.functional_call(module, second, x)[0]
        assert not torch.equal(a, b)
        (a.sum() + b.sum()).backward()
        for p, grad in zip(first.values(), expected, strict=True):
            assert torch.equal(p.grad, grad)

    def test_a_second_backward(self) -> None:
        module = seqrs.torch.LSTM(3, 4)
        y, _ = module(torch.randn(5, 2, 3))
        y.sum().backward(retain_graph=True)
        once = module.weight_ih_l0.grad.clone()
        y.sum().backward()
        assert torch.equal(module.weight_ih_l0.grad, 2 * once)
        with pytest.raises(RuntimeError, match="a second time"):
            y.sum().backward()

    @pytest.mark.skipif(mallinfo2 is None, reason="malloc does not say what it has given")
    @pytest.mark.parametrize("back", [True, False])
    def test_the_tape_is_let_go_by_backward(self, back: bool) -> None:
        """As PyTorch does with what it saved: outputs that are kept do not keep it."""
        module, x = seqrs.torch.LSTM(64, 64), torch.randn(200, 32, 64)
        tape = module_tape_bytes(module, x)
        # The first calls take buffers that stay for the next ones.
        for _ in range(2):
            module(x)[0].sum().backward()
        before, kept = allocated(), []
        for _ in range(8):
            y, _ = module(x)
            if back:
                y.sum().backward()
            kept.append(y)
        grown = allocated() - before - sum(y.nbytes for y in kept)
        assert grown < 2 * tape if back else grown > 5 * tape, f"{grown} bytes, {tape} a tape"

    def test_no_tape_is_kept_where_none_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(seqrs.LSTM, "forward", None)
        module, x = seqrs.torch.LSTM(3, 4), torch.randn(5, 2, 3)
        with pytest.raises(TypeError, match="not callable"):
            module(x)
        with torch.no_grad():
            module(x)
        with torch.inference_mode():
            module(x)
        module.requires_grad_(False)(x)

    def test_derivatives_of_derivatives_are_refused(self) -> None:
        module = seqrs.torch.LSTM(3, 4)
        x = torch.randn(5, 2, 3, requires_grad=True)
        weights = list(module.parameters())
        message = r"seqrs\.torch\.LSTM: expected to be differentiated once"
        # The gradient that comes in depends on the outputs or on nothing.
        for of, loss in ((x, torch.norm), (weights[1], torch.norm), (x, torch.sum)):
            (g,) = torch.autograd.grad(loss(module(x)[0]), of, create_graph=True)
            assert g.requires_grad
            for wanted in (x, weights[0]):
                with pytest.raises(RuntimeError, match=message):
                    # On another way to what is wanted, too, which would hide it.
                    torch.autograd.grad(g.sum() + wanted.sum(), wanted, retain_graph=True)
        # Asking for the graph does no harm to the gradients themselves.
        (plain,) = torch.autograd.grad((module(x)[0] ** 2).sum(), x)
        (g,) = torch.autograd.grad((module(x)[0] ** 2).sum(), x, create_graph=True)
        assert torch.equal(g, plain)

    @pytest.mark.parametrize("reentrant", [True, False])
    def test_checkpoints(self, reentrant: bool) -> None:
        """What is computed again drops the same units."""
        module = seqrs.torch.GRU(3, 8, 3, dropout=0.5)
        x = torch.randn(5, 2, 3)
        found = []
        for checkpointed in (True, False):
            module.zero_grad()
            leaf = x.clone().requires_grad_()
            torch.manual_seed(3)
            if checkpointed:
                y, _ = torch.utils.checkpoint.checkpoint(module, leaf, use_reentrant=reentrant)
            else:
                y, _ = module(leaf)
            (y**2).sum().backward()
            found.append((leaf.grad, module.weight_hh_l1.grad.clone()))
        for a, b in zip(*found, strict=True):
            assert torch.equal(a, b)

    def test_hooks_that_move_saved_tensors_are_refused(self) -> None:
        module = seqrs.torch.GRU(3, 4)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
            y, _ = module(torch.randn(5, 2, 3))
        with pytest.raises(RuntimeError, match="saved tensors as they were"):
            y.sum().backward()


#: Each changes a parameter of a module.
WAYS: dict[str, Any] = {
    "in-place": lambda m, p: p.add_(0.1),
    # `_version` does not tell of these two.
    "data-in-place": lambda m, p: p.data.add_(0.1),
    "numpy": lambda m, p: np.add(p.detach().numpy(), 0.1, out=p.detach().numpy()),
    "data": lambda m, p: setattr(p, "data", p.data + 0.1),
    "parameter": lambda m, p: setattr(m, "weight_hh_l0", nn.Parameter(p + 0.1)),
    "load": lambda m, p: m.load_state_dict({k: v + 0.1 for k, v in m.state_dict().items()}),
    "initialise": lambda m, p: m.reset_parameters(),
    "sign-of-zero": lambda m, p: p.data.zero_().neg_(),
}


class TestWeightsThatChange:
    """They are parameters of PyTorch; each way to change one must be seen at the next call."""

    @pytest.mark.parametrize("way", WAYS)
    def test_each_way(self, way: str) -> None:
        module = seqrs.torch.LSTM(3, 4, 2)
        x = torch.randn(5, 2, 3)
        before = module(x)[0]
        with torch.no_grad():
            WAYS[way](module, module.weight_hh_l0)
        theirs = nn.LSTM(3, 4, 2)
        theirs.load_state_dict(module.state_dict())
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                assert_tensors(module(x)[0], theirs(x)[0], OUTPUT[x.dtype])
        assert not torch.equal(module(x)[0], before)
        taken = module._built[1][0].layer.state_dict()
        for name, p in module.state_dict().items():
            assert_same_bits(taken[name], p.numpy(), name)

    @pytest.mark.parametrize(
        ("name", "options"),
        [("SGD", {}), ("Adam", {}), ("Adam", {"foreach": True}), ("Adam", {"fused": True})],
    )
    def test_optimisers(self, name: str, options: dict[str, Any]) -> None:
        ours, theirs = twins("GRU", 3, 4)
        x = torch.randn(5, 2, 3)
        for module in (ours, theirs):
            optimiser = getattr(torch.optim, name)(module.parameters(), lr=0.1, **options)
            for _ in range(3):
                optimiser.zero_grad()
                (module(x)[0] ** 2).sum().backward()
                optimiser.step()
        assert_tensors(ours(x)[0], theirs(x)[0], tolerances.TRAINING_TO_PYTORCH)

    def test_nothing_is_taken_over_again_while_they_stay(self) -> None:
        module = seqrs.torch.LSTM(3, 4, 2, dropout=0.1)
        with torch.no_grad():
            module.bias_ih_l0[0] = math.nan
        x = torch.randn(5, 2, 3)
        module(x)
        taken = module._built[1]
        module(x)[0].sum().backward()
        assert all(a is b for a, b in zip(module._built[1], taken, strict=True))
        # Of two layers only the one that changed.
        with torch.no_grad():
            module.weight_hh_l1.mul_(2)
        module(x)
        assert [a is b for a, b in zip(module._built[1], taken, strict=True)] == [True, False]

    def test_another_dtype_or_option(self) -> None:
        module = seqrs.torch.GRU(3, 4)
        x = torch.randn(5, 2, 3)
        y, _ = module(x)
        assert module.double()(x.double())[0].dtype == torch.float64
        assert torch.equal(module.float()(x)[0], y)
        module.batch_first = True
        assert_tensors(module(x.transpose(0, 1))[0], y.transpose(0, 1), OUTPUT[x.dtype])

    def test_threads(self) -> None:
        """Many that call one module, whose first call builds the layer."""
        module = seqrs.torch.LSTM(3, 4, 2, dropout=0.5).eval()
        x = torch.randn(5, 2, 3)
        expected, _ = copy.deepcopy(module)(x)

        def work(_: int) -> Any:
            y, _ = module(x)
            return y, torch.autograd.grad(y.sum(), module.weight_hh_l0)[0]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(work, range(64)))
        for y, gradient in found:
            assert torch.equal(y, expected)
            assert torch.equal(gradient, found[0][1])

    def test_copies_and_files(self) -> None:
        module = seqrs.torch.LSTM(3, 4, 2, bidirectional=True, dropout=0.2).eval()
        x = torch.randn(5, 2, 3)
        y, _ = module(x)
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        # What it computed with is the weights once more.
        assert not pickle.loads(pickle.dumps(module))._built[1]
        for twin in (
            copy.deepcopy(module),
            pickle.loads(pickle.dumps(module)),
            torch.load(file, weights_only=False),
        ):
            assert torch.equal(twin(x)[0], y)
            with torch.no_grad():
                twin.weight_hh_l0.add_(1)
            assert not torch.equal(twin(x)[0], y)
        assert torch.equal(module(x)[0], y)

    def test_parametrized(self) -> None:
        ours, theirs = twins("LSTM", 3, 4)
        for module in (ours, theirs):
            nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        x = torch.randn(5, 2, 3)
        for module in (ours, theirs):
            module(x)[0].sum().backward()
        ours_by_name = dict(ours.named_parameters())
        for name, p in theirs.named_parameters():
            assert_tensors(ours_by_name[name].grad, p.grad, GRADIENT[x.dtype], name)


class TestWrongInputs:
    LSTM: Any = staticmethod(lambda: seqrs.torch.LSTM(3, 4))

    def test_devices(self) -> None:
        module = self.LSTM()
        with pytest.raises(seqrs.DTypeError, match=r"torch\.LSTM: input: .*CPU, got one on meta"):
            module(torch.zeros(5, 2, 3, device="meta"))
        state = (torch.zeros(1, 2, 4, device="meta"), torch.zeros(1, 2, 4))
        with pytest.raises(seqrs.DTypeError, match=r"hx\[0\]: expected a tensor on the CPU"):
            module(torch.zeros(5, 2, 3), state)
        with pytest.raises(seqrs.DTypeError, match="weight_ih_l0: expected a tensor on the CPU"):
            module.to("meta")(torch.zeros(5, 2, 3))

    def test_dtypes(self) -> None:
        x = torch.zeros(5, 2, 3)
        with pytest.raises(ValueError, match="does not match weight dtype"):
            self.LSTM()(x.double())
        with pytest.raises(seqrs.DTypeError, match=r"weight_ih_l0: .*float32 or float64, got .*16"):
            self.LSTM().bfloat16()(x.bfloat16())
        half = torch.zeros(1, 2, 4, dtype=torch.float64)
        with pytest.raises(seqrs.DTypeError, match=r"hx\[1\]: expected .*float32, got .*float64"):
            self.LSTM()(x, (torch.zeros(1, 2, 4), half))

    def test_autocast_computes_in_the_dtype_of_the_weights(self) -> None:
        module, x = self.LSTM(), torch.randn(5, 2, 3)
        y, _ = module(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(module(x)[0], y)
            with pytest.raises(seqrs.DTypeError, match=r"input: expected .*32, got .*bfloat16"):
                module(x.bfloat16())

    def test_states(self) -> None:
        x = torch.zeros(5, 2, 3)
        h = torch.zeros(1, 2, 4)
        with pytest.raises(TypeError, match="hx: expected a tuple of two tensors"):
            self.LSTM()(x, h)
        with pytest.raises(TypeError, match="hx: expected a tensor"):
            seqrs.torch.GRU(3, 4)(x, (h, h))

    @pytest.mark.parametrize("kind", KINDS)
    def test_shapes_in_pytorchs_words(self, kind: str) -> None:
        """Each wrong input raises the type that PyTorch raises."""
        ours, theirs = twins(kind, 3, 4)
        own = (lambda h: (h, h)) if kind == "LSTM" else (lambda h: h)
        for x, h in (
            (torch.zeros(5, 2, 4), None),
            (torch.zeros(3), None),
            (torch.zeros(2, 2, 5, 3), None),
            (torch.zeros(0, 2, 3), None),
            (torch.zeros(5, 2, 3), own(torch.zeros(1, 3, 4))),
            (torch.zeros(5, 2, 3), own(torch.zeros(2, 2, 4))),
            (torch.zeros(5, 2, 3), own(torch.zeros(1, 4))),
            (torch.zeros(5, 3), own(torch.zeros(1, 2, 4))),
        ):
            with pytest.raises((RuntimeError, ValueError)) as expected:
                theirs(x, h)
            with pytest.raises(expected.type):
                ours(x, h)

    @pytest.mark.filterwarnings("ignore:`torch.jit.trace")
    def test_what_records_a_graph(self) -> None:
        module, x = self.LSTM(), torch.zeros(5, 2, 3)
        with pytest.raises(RuntimeError, match=r"torch\.LSTM: .* got traced"):
            torch.jit.trace(module, (x,))
        with pytest.raises(RuntimeError, match=r"torch\.LSTM: .* got traced"):
            torch.compile(module, backend="eager")(x)


MODULES = [
    pytest.param(kind, dtype, packed, id=f"{kind}-{dtype}{'-packed' * packed}")
    for kind in KINDS
    for dtype in (torch.float32, torch.float64)
    for packed in (False, True)
    if not (kind == "LSTM" and packed)
]


class TestModuleInfo:
    """PyTorch's own samples of its modules, and of what they refuse."""

    @staticmethod
    def info(kind: str) -> Any:
        common = pytest.importorskip("torch.testing._internal.common_modules")
        return next(each for each in common.module_db if each.module_cls is getattr(nn, kind))

    @pytest.mark.parametrize(("kind", "dtype", "packed"), MODULES)
    def test_samples(self, kind: str, dtype: Any, packed: bool) -> None:
        info = self.info(kind)
        own = {"with_packed_sequence": True} if packed else {}
        samples = info.module_inputs_func(
            info, device="cpu", dtype=dtype, requires_grad=True, training=False, **own
        )
        assert len(samples) >= 16
        for sample in samples:
            given = sample.constructor_input
            ours, theirs = twins(kind, *given.args, **given.kwargs, dtype=dtype)
            x, *hx = sample.forward_input.args
            # Inputs up to 9 in two units: the largest output may be small beside the sums.
            assert_twins(ours, theirs, x, hx[0] if hx else None, outputs=GRADIENT)
            layer = seqrs.from_torch(theirs)
            if not isinstance(x, rnn.PackedSequence):
                batch_axis = 0 if theirs.batch_first else 1
                y, _ = layer(x.detach().unsqueeze(batch_axis))
                expected = theirs(x)[0].unsqueeze(batch_axis)
                assert_close(y, expected.detach().numpy(), GRADIENT[dtype])

    @pytest.mark.parametrize("kind", [*KINDS, *(f"{kind}Cell" for kind in KINDS)])
    def test_errors(self, kind: str) -> None:
        info = self.info(kind)
        cases = info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=False
        )
        assert len(cases) >= 4
        for case in cases:
            given = case.module_error_input.constructor_input
            forward = case.module_error_input.forward_input
            if kind.endswith("Cell"):
                # A cell here is the step of a layer.
                args = given.args[:2]
                layer = seqrs.from_torch(getattr(nn, kind)(*args))
                x, hx = forward.args
                state = tuple(h[None] for h in hx) if isinstance(hx, tuple) else hx[None]
                with pytest.raises(seqrs.ShapeError):
                    layer.step(x, state)
                continue
            build = getattr(seqrs.torch, kind)
            if forward is None:
                with pytest.raises(case.error_type, match=case.error_regex):
                    build(*given.args, **given.kwargs)
            else:
                module = build(*given.args, **given.kwargs)
                with pytest.raises(case.error_type, match=case.error_regex):
                    module(*forward.args, **forward.kwargs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_fifty_steps_of_training(kind: str, dropout: float) -> None:
    """The loop of a user, with modules, loss, clipping and optimiser of PyTorch."""
    losses = []
    for package in (nn, seqrs.torch):
        torch.manual_seed(4)
        embedding, head = nn.Embedding(30, 16), nn.Linear(40, 30)
        recurrent = getattr(package, kind)(16, 40, 2, batch_first=True, dropout=dropout)
        weights = [p for module in (embedding, recurrent, head) for p in module.parameters()]
        optimiser = torch.optim.Adam(weights, lr=5e-3)
        text = torch.cumsum(torch.randint(1, 4, (8, 24 * 50 + 1)), 1) % 30
        state, found = None, []
        for k in range(50):
            x, y = (text[:, 24 * k + n : 24 * (k + 1) + n] for n in (0, 1))
            out, state = recurrent(embedding(x), state)
            state = tuple(s.detach() for s in state) if kind == "LSTM" else state.detach()
            loss = nn.functional.cross_entropy(head(out).flatten(0, 1), y.flatten())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            found.append(loss.item())
        losses.append(found)
    assert losses[0][-1] < 0.7 * losses[0][0]
    assert_close(losses[1], losses[0], tolerances.LOSSES_IN_PYTORCH)
