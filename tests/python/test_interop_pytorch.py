"""PyTorch and the package side by side: layers at random, and training from the same weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from cases import DTYPES, Array, like, named, numbers, parts
from tolerances import assert_close

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

TOLERANCE = {
    "float32": tolerances.PACKAGE_TO_REFERENCE_F32,
    "float64": tolerances.PACKAGE_TO_PYTORCH_F64,
}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # ours, options of both, options of ours alone
    "rnn-tanh": ("RNN", {"nonlinearity": "tanh"}, {}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}, {}),
    "lstm": ("LSTM", {}, {}),
    "lstm-projected": ("LSTM", {}, {}),
    "gru": ("GRU", {}, {"reset_after": True}),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


class Configuration:
    """Everything about one comparison, drawn from its number."""

    def __init__(self, kind: str, number: int, dtype: str) -> None:
        r = self.random = np.random.default_rng([number, len(kind)])
        self.dtype = dtype
        self.layer, both, own = KINDS[kind]
        self.sizes = (int(r.integers(1, 40)), int(r.integers(2, 70)))
        self.options = {
            **both,
            "num_layers": int(r.integers(1, 4)),
            "bidirectional": bool(r.integers(2)),
            "bias": bool(r.integers(4)),
            "batch_first": bool(r.integers(2)),
        }
        if kind == "lstm-projected":
            self.options["proj_size"] = int(r.integers(1, self.sizes[1]))
        self.own = own
        self.batch, self.steps = int(r.integers(1, 20)), int(r.integers(1, 16))
        # PyTorch packs no row of length 0, and no batch whose longest row is shorter than x.
        self.lengths: Array | None = None
        if r.integers(2):
            self.lengths = r.integers(1, self.steps + 1, self.batch)
        self.with_state = bool(r.integers(2))

    def __repr__(self) -> str:
        return (
            f"{self.layer}{self.sizes} {self.options} B={self.batch} T={self.steps} "
            f"lengths={self.lengths} state={self.with_state} {self.dtype}"
        )

    def compare(self) -> None:
        net = getattr(torch.nn, self.layer)(
            *self.sizes, **self.options, dtype=getattr(torch, self.dtype)
        )
        scale = 1 / math.sqrt(self.sizes[1])
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.from_numpy(numbers(self.random, tuple(p.shape), self.dtype, scale)))
        layer = getattr(seqrs, self.layer)(
            *self.sizes, **self.options, **self.own, dtype=self.dtype
        )
        # As it is: tensors of PyTorch, under PyTorch's names.
        layer.load_state_dict({k: v.detach() for k, v in net.state_dict().items()})
        assert list(layer.state_dict()) == list(dict(net.named_parameters()))

        first = self.options["batch_first"]
        leading = (self.batch, self.steps) if first else (self.steps, self.batch)
        x = numbers(self.random, (*leading, self.sizes[0]), self.dtype)
        dy = numbers(self.random, (*leading, layer.output_size), self.dtype)
        form = layer.initial_state(self.batch)
        state, dstate = (
            [numbers(self.random, s.shape, self.dtype) for s in parts(form)] for _ in range(2)
        )
        theirs = self.theirs(net, x, state, dy, dstate)

        given = like(form, state) if self.with_state else None
        y, final, tape = layer.forward(x, given, lengths=self.lengths)
        ours = {"y": y} | dict(zip("hc", parts(final), strict=False))
        ours |= dict(named(layer.backward(tape, dy, like(form, dstate))))
        for name, expected in theirs.items():
            assert_close(ours[name], expected, TOLERANCE[self.dtype], f"{name} of {self}")

    def theirs(
        self, net: Any, x: Array, state: list[Array], dy: Array, dstate: list[Array]
    ) -> dict[str, Array]:
        first = self.options["batch_first"]
        tx = torch.from_numpy(x).requires_grad_()
        ts = [torch.from_numpy(s).requires_grad_(self.with_state) for s in state]
        given = (tuple(ts) if len(ts) == 2 else ts[0]) if self.with_state else None
        if self.lengths is None:
            y, final = net(tx, given)
        else:
            rnn = torch.nn.utils.rnn
            packed = rnn.pack_padded_sequence(
                tx, torch.from_numpy(self.lengths), batch_first=first, enforce_sorted=False
            )
            y, final = net(packed, given)
            y, _ = rnn.pad_packed_sequence(y, batch_first=first, total_length=self.steps)
        finals = final if isinstance(final, tuple) else (final,)
        torch.autograd.backward([y, *finals], [torch.from_numpy(d) for d in (dy, *dstate)])
        found = {"y": y, **dict(zip("hc", finals, strict=False)), "d_x": tx.grad}
        if self.with_state:
            found |= {f"d_{letter}0": s.grad for letter, s in zip("hc", ts, strict=False)}
        found |= {f"d_{name}": p.grad for name, p in net.named_parameters()}
        return {name: value.detach().numpy() for name, value in found.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(24))
@pytest.mark.parametrize("kind", KINDS)
def test_layers_at_random(kind: str, number: int, dtype: str) -> None:
    Configuration(kind, number, dtype).compare()


VOCAB, EMBEDDED, HIDDEN = 30, 16, 40


class CharacterModels:
    """The same character model twice, from the same weights, and its batches."""

    def __init__(self, dtype: str, cell: str = "LSTM") -> None:
        own = {"reset_after": True} if cell == "GRU" else {}
        self.ours = seqrs.Sequential(
            [
                seqrs.Embedding(VOCAB, EMBEDDED, dtype=dtype),
                getattr(seqrs, cell)(EMBEDDED, HIDDEN, 2, **own, dtype=dtype),
                seqrs.Linear(HIDDEN, VOCAB, dtype=dtype),
            ],
            seed=0,
        )
        kind = getattr(torch, dtype)
        self.embedding = torch.nn.Embedding(VOCAB, EMBEDDED, dtype=kind)
        self.recurrent = getattr(torch.nn, cell)(EMBEDDED, HIDDEN, 2, batch_first=True, dtype=kind)
        self.linear = torch.nn.Linear(HIDDEN, VOCAB, dtype=kind)
        weights = self.ours.state_dict()
        for k, module in enumerate((self.embedding, self.recurrent, self.linear)):
            own_weights = {
                name[2:]: torch.from_numpy(p) for name, p in weights.items() if name[0] == str(k)
            }
            module.load_state_dict(own_weights)

    @property
    def parameters(self) -> list[Any]:
        modules = (self.embedding, self.recurrent, self.linear)
        return [p for module in modules for p in module.parameters()]

    def loss(self, x: Array, y: Array, state: Any) -> tuple[Any, Any]:
        out, state = self.recurrent(self.embedding(torch.from_numpy(x)), state)
        logits = self.linear(out).reshape(-1, VOCAB)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y).reshape(-1))
        detached = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        return loss, detached

    def train(
        self, ours: Any, theirs: Any, steps: int, clip: float, tolerance: float
    ) -> list[float]:
        """Both at once; fails at the first step where they part. The losses."""
        random = np.random.default_rng(0)
        # A text with a rule in it, so that there is something to learn.
        text = np.cumsum(random.integers(1, 4, 8 * 24 * steps + 1)) % VOCAB
        stream = text[:-1].reshape(8, -1), text[1:].reshape(8, -1)
        trainer = seqrs.Trainer(self.ours, optimizer=ours, clip_norm=clip)
        state = their_state = None
        losses = []
        for step in range(steps):
            x, y = (np.ascontiguousarray(s[:, 24 * step : 24 * (step + 1)]) for s in stream)
            result = trainer.step(x, y, state=state)
            state = result.state
            theirs.zero_grad()
            loss, their_state = self.loss(x, y, their_state)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
            theirs.step()
            assert_close(result.loss, loss.item(), tolerance, f"loss, step {step}")
            assert_close(result.grad_norm, norm.item(), tolerance, f"norm, step {step}")
            losses.append(result.loss)
        return losses


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", tolerances.TRAINING_TO_PYTORCH), ("float64", tolerances.CLIPPED_TO_PYTORCH_F64)],
)
def test_sixty_steps_of_a_character_model(cell: str, dtype: str, tolerance: float) -> None:
    models = CharacterModels(dtype, cell)
    losses = models.train(
        seqrs.Adam(lr=5e-3), torch.optim.Adam(models.parameters, lr=5e-3), 60, 0.25, tolerance
    )
    assert losses[-1] < 0.7 * losses[0]


OPTIMISERS: dict[str, tuple[Any, Any]] = {
    "sgd": (lambda: seqrs.SGD(0.5), lambda p: torch.optim.SGD(p, 0.5)),
    "sgd-momentum": (
        lambda: seqrs.SGD(0.2, momentum=0.9, weight_decay=1e-3),
        lambda p: torch.optim.SGD(p, 0.2, momentum=0.9, weight_decay=1e-3),
    ),
    "sgd-nesterov": (
        lambda: seqrs.SGD(0.2, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.2, momentum=0.9, nesterov=True),
    ),
    "rmsprop": (lambda: seqrs.RMSprop(2e-3), lambda p: torch.optim.RMSprop(p, 2e-3)),
    "rmsprop-momentum": (
        lambda: seqrs.RMSprop(1e-3, alpha=0.9, momentum=0.5, weight_decay=1e-3),
        lambda p: torch.optim.RMSprop(p, 1e-3, alpha=0.9, momentum=0.5, weight_decay=1e-3),
    ),
    "adam-decay": (
        lambda: seqrs.Adam(2e-3, betas=(0.8, 0.95), weight_decay=1e-2),
        lambda p: torch.optim.Adam(p, 2e-3, betas=(0.8, 0.95), weight_decay=1e-2),
    ),
    "adamw": (lambda: seqrs.AdamW(2e-3), lambda p: torch.optim.AdamW(p, 2e-3)),
}


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", tolerances.TRAINING_TO_PYTORCH), ("float64", tolerances.TRAINING_TO_PYTORCH_F64)],
)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_ten_steps_of_every_optimiser(name: str, dtype: str, tolerance: float) -> None:
    ours, theirs = OPTIMISERS[name]
    models = CharacterModels(dtype)
    # Never reached, so that PyTorch's 1e-6 plays no part.
    models.train(ours(), theirs(models.parameters), 10, 1e6, tolerance)
    weights = models.ours.state_dict()
    for (label, p), q in zip(weights.items(), models.parameters, strict=True):
        assert_close(p, q.detach().numpy(), tolerance, label)


class TestTensors:
    def test_tensors_are_arrays(self) -> None:
        layer = seqrs.LSTM(3, 4)
        x = torch.randn(2, 5, 3)
        expected, _ = layer(x.numpy())
        np.testing.assert_array_equal(layer(x)[0], expected)
        np.testing.assert_array_equal(layer(x, lengths=torch.tensor([5, 5]))[0], expected)
        transposed = x.transpose(1, 2).contiguous().transpose(1, 2)
        np.testing.assert_array_equal(layer(transposed)[0], expected)

    def test_weights_of_pytorchs_gru_are_refused_by_the_other_form(self) -> None:
        with pytest.raises(seqrs.ShapeError, match="bias_hh_l0"):
            seqrs.GRU(3, 4).load_state_dict(torch.nn.GRU(3, 4).state_dict())

    def test_weights_go_back_to_pytorch(self) -> None:
        net = torch.nn.GRU(3, 4, 2, bidirectional=True, batch_first=True)
        layer = seqrs.GRU(3, 4, 2, bidirectional=True, reset_after=True, seed=1)
        net.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
        x = torch.randn(2, 5, 3)
        assert_close(layer(x)[0], net(x)[0].detach().numpy(), TOLERANCE["float32"])

    def test_fork_after_both_have_used_their_threads(self) -> None:
        """PyTorch's own threads in the parent do not disturb a child that uses this package."""
        from cases import in_child

        torch.set_num_threads(2)
        try:
            torch.nn.LSTM(64, 128)(torch.zeros(20, 64, 64))
            layer, x = seqrs.LSTM(64, 128), np.zeros((64, 20, 64), np.float32)
            expected, _ = layer(x)
            np.testing.assert_array_equal(in_child(lambda: layer(x)[0]), expected)
        finally:
            torch.set_num_threads(1)
