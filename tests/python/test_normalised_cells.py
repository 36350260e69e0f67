"""Layer-normalised LSTM and GRU (Ba et al. 2016, as haste has them)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from adapter import PLACES
from cases import (
    DTYPES,
    LIVE,
    TO_REFERENCE,
    B,
    Given,
    H,
    I,
    T,
    assert_same,
    assert_same_state,
    live_for,
    named,
    parts,
    randomise,
)
from seqrs import reference
from tolerances import assert_close, assert_same_bits

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "lstm-projected": ("LSTM", {"proj_size": 3}),
    "lstm-coupled": ("LSTM", {"coupled": True}),
    "lstm-chosen": ("LSTM", {"output_activation": "softsign", "clip": 1.5}),
    "lstm-zoneout": ("LSTM", {"zoneout": 0.25, "zoneout_cell": 0.125}),
    "gru": ("GRU", {"reset_after": True}),
    "gru-chosen": ("GRU", {"reset_after": True, "candidate_activation": ("elu", 0.5)}),
}


def pair(cell: str, dtype: str = "float64", **options: Any) -> tuple[Any, Any]:
    """A layer with random parameters, and its twin of the reference."""
    kind, own = CELLS[cell]
    own = own | {"layer_norm": True} | options
    layer = getattr(seqrs, kind)(I, H, **own, dtype=dtype)
    randomise(layer)
    twin = getattr(reference, kind)(I, H, **own)
    assert list(twin.state_dict()) == list(layer.state_dict())
    twin.load_state_dict(layer.state_dict())
    return layer, twin


@pytest.mark.parametrize("cell", CELLS)
class TestTheReference:
    def test_gradients_are_those_of_differences(self, cell: str) -> None:
        layer, twin = pair(cell, bidirectional=True)
        given, which = Given(layer), live_for(layer, "mask-with-holes")
        _, _, tape = twin.forward(given.x, given.state, **which, training=False)
        gradients = twin.backward(tape, given.dy, given.dstate)

        def loss() -> float:
            y, final, _ = twin.forward(given.x, given.state, **which, training=False)
            found = float((y * given.dy).sum())
            for a, b in zip(parts(final), parts(given.dstate), strict=True):
                found += float((a * b).sum())
            return found

        random = np.random.default_rng(1)
        arrays = {"d_x": given.x} | {f"d_{name}": a for name, a in twin._params.items()}
        arrays |= {f"d_{k}0": a for k, a in zip("hc", parts(given.state), strict=False)}
        for name, gradient in named(gradients):
            for _ in range(4):
                array = arrays[name]
                at = tuple(int(random.integers(n)) for n in array.shape)
                value, step = array[at], 1e-5
                array[at] = value + step
                above = loss()
                array[at] = value - step
                below = loss()
                array[at] = value
                difference = (above - below) / (2 * step)
                assert_close(
                    gradient[at],
                    difference,
                    tolerances.REFERENCE_TO_DIFFERENCES,
                    f"{name}{list(at)}",
                )


@pytest.mark.parametrize(("dtype", "device"), PLACES)
@pytest.mark.parametrize("cell", CELLS)
class TestEverywhere:
    @pytest.mark.parametrize("live", LIVE)
    def test_the_package_is_the_reference(
        self, cell: str, dtype: str, device: str, live: str
    ) -> None:
        for options in ({}, {"num_layers": 2, "bidirectional": True}, {"bias": False}):
            layer, twin = pair(cell, dtype, **options)
            layer.to(device)
            given, which = Given(layer), live_for(layer, live)
            got, expected = {}, {}
            for found, one in ((got, layer), (expected, twin)):
                y, final, tape = one.forward(given.x, given.state, **which, training=False)
                found |= {"y": y} | dict(zip("hc", parts(final), strict=False))
                found |= dict(named(one.backward(tape, given.dy, given.dstate)))
            for name, array in expected.items():
                assert_close(got[name], array, TO_REFERENCE[dtype], name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
class TestThePackage:
    def test_step_is_sequence(self, cell: str, dtype: str) -> None:
        layer, _ = pair(cell, dtype)
        given = Given(layer)
        y, final = layer(given.x, given.state)
        state = given.state
        for t in range(T):
            y_t, state = layer.step(given.x[:, t], state)
            assert_same_bits(y_t, np.ascontiguousarray(y[:, t]), f"y{t}")
        assert_same_state(state, final)

    def test_rows_are_independent(self, cell: str, dtype: str) -> None:
        layer, _ = pair(cell, dtype, bidirectional=True)
        given = Given(layer)
        y, _ = layer(given.x, lengths=[2, T, 0, T - 1])
        for b, n in enumerate([2, T, 0, T - 1]):
            alone, _ = layer(given.x[b : b + 1, :n])
            assert_same_bits(y[b : b + 1, :n], alone, f"row {b}")

    def test_threads_do_not_matter(self, cell: str, dtype: str) -> None:
        layer, _ = pair(cell, dtype)
        given = Given(layer, 70, 30)
        found = []
        for threads in (1, 2, 5):
            with seqrs.num_threads(threads):
                y, _, tape = layer.forward(given.x, given.state, training=False)
                gradients = layer.backward(tape, given.dy, given.dstate)
            found.append({"y": y} | dict(named(gradients)))
        assert_same(found[1], found[0])
        assert_same(found[2], found[0])


class TestOptions:
    def test_parameters(self) -> None:
        layer = seqrs.LSTM(I, H, layer_norm=True)
        shapes = {name: a.shape for name, a in layer.state_dict().items()}
        assert shapes["norm_ih_l0"] == shapes["norm_hh_l0"] == (4 * H,)
        assert shapes["norm_c_l0"] == shapes["norm_bias_c_l0"] == (H,)
        for name, start in (("norm_ih_l0", 1), ("norm_hh_l0", 1), ("norm_c_l0", 1)):
            assert (layer.state_dict()[name] == start).all()
        assert not layer.state_dict()["norm_bias_c_l0"].any()
        gru = seqrs.GRU(I, H, reset_after=True, layer_norm=True, bidirectional=True)
        assert gru.state_dict()["norm_hh_l0_reverse"].shape == (3 * H,)
        assert not any("norm_c" in name for name in gru.state_dict())

    @pytest.mark.parametrize("cell", CELLS)
    def test_a_file_is_the_layer(self, cell: str, tmp_path: Path) -> None:
        layer, _ = pair(cell, "float32", num_layers=2)
        layer.save(tmp_path / "m.safetensors")
        for again in (seqrs.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(layer))):
            assert again == layer
            assert again.layer_norm is True  # type: ignore[union-attr]
        given = Given(layer)
        assert_same_bits(seqrs.load(tmp_path / "m.safetensors")(given.x)[0], layer(given.x)[0], "y")

    def test_training_learns(self, device: str) -> None:
        model = seqrs.Sequential([seqrs.LSTM(3, 16, layer_norm=True), seqrs.Linear(16, 1)], seed=1)
        trainer = seqrs.Trainer(model.to(device), loss=seqrs.MSE(), optimizer=seqrs.Adam(1e-2))
        x = np.random.default_rng(0).normal(size=(16, 10, 3))
        y = np.cumsum(x[:, :, :1], 1) / 3
        losses = [trainer.step(x, y).loss for _ in range(60)]
        assert losses[-1] < losses[0] / 4

    def test_a_tape_counts_what_norms_keep(self) -> None:
        x = np.zeros((B, T, I))
        more = [
            norm.forward(x)[2].nbytes - plain.forward(x)[2].nbytes
            for norm, plain in (
                (seqrs.LSTM(I, H, layer_norm=True), seqrs.LSTM(I, H)),
                (
                    seqrs.GRU(I, H, reset_after=True, layer_norm=True),
                    seqrs.GRU(I, H, reset_after=True),
                ),
            )
        ]
        assert more == [4 * B * T * (8 * H + 2 + H + 1), 4 * B * T * (6 * H + 2)]

    def test_what_has_no_norm_is_refused(self, tmp_path: Path) -> None:
        message = "layer_norm: expected an LSTM without peepholes, or a GRU with reset_after"
        with pytest.raises(ValueError, match=message):
            seqrs.LSTM(2, 3, layer_norm=True, peepholes=True)
        with pytest.raises(ValueError, match=message):
            seqrs.GRU(2, 3, layer_norm=True)
        with pytest.raises(TypeError, match="layer_norm"):
            seqrs.RNN(2, 3, layer_norm=True)  # type: ignore[call-arg]
        for refused in (
            lambda: reference.LSTM(2, 3, layer_norm=True, peepholes=True),
            lambda: reference.GRU(2, 3, layer_norm=True),
        ):
            with pytest.raises(ValueError, match="layer_norm: expected False"):
                refused()
        layer = seqrs.LSTM(2, 3, layer_norm=True)
        with pytest.raises(seqrs.ModelFileError, match="layer_norm: expected none"):
            seqrs.onnx.export(layer, tmp_path / "m.onnx")
        with pytest.raises(ValueError, match="layer_norm: expected False"):
            seqrs.to_keras_weights(layer)


@pytest.mark.interop
class TestHaste:
    """The formulas of haste's LayerNormLSTM and LayerNormGRU, in PyTorch with its own gradients."""

    def test_lstm(self) -> None:
        torch = pytest.importorskip("torch")
        layer, _ = pair("lstm")
        given = Given(layer)
        w = {k: torch.tensor(a, requires_grad=True) for k, a in layer.state_dict().items()}
        x = torch.tensor(given.x, requires_grad=True)
        h, c = (torch.tensor(part[0]) for part in given.state)
        norm = torch.nn.functional.layer_norm
        ys = []
        for t in range(T):
            v = norm(x[:, t] @ w["weight_ih_l0"].T, (4 * H,), weight=w["norm_ih_l0"])
            v = v + norm(h @ w["weight_hh_l0"].T, (4 * H,), weight=w["norm_hh_l0"])
            i, f, g, o = torch.chunk(v + w["bias_ih_l0"] + w["bias_hh_l0"], 4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            shown = norm(c, (H,), weight=w["norm_c_l0"], bias=w["norm_bias_c_l0"])
            h = torch.sigmoid(o) * torch.tanh(shown)
            ys.append(h)
        self.compare(layer, given, torch.stack(ys, 1), x, w, torch)

    def test_gru(self) -> None:
        torch = pytest.importorskip("torch")
        layer, _ = pair("gru")
        given = Given(layer)
        w = {k: torch.tensor(a, requires_grad=True) for k, a in layer.state_dict().items()}
        x = torch.tensor(given.x, requires_grad=True)
        h = torch.tensor(given.state[0])
        norm = torch.nn.functional.layer_norm
        ys = []
        for t in range(T):
            vx = norm(x[:, t] @ w["weight_ih_l0"].T, (3 * H,), weight=w["norm_ih_l0"])
            vh = norm(h @ w["weight_hh_l0"].T, (3 * H,), weight=w["norm_hh_l0"])
            vx = torch.chunk(vx + w["bias_ih_l0"], 3, 1)
            vh = torch.chunk(vh + w["bias_hh_l0"], 3, 1)
            r, z = torch.sigmoid(vx[0] + vh[0]), torch.sigmoid(vx[1] + vh[1])
            h = z * h + (1 - z) * torch.tanh(vx[2] + r * vh[2])
            ys.append(h)
        self.compare(layer, given, torch.stack(ys, 1), x, w, torch)

    def compare(self, layer: Any, given: Given, y: Any, x: Any, w: Any, torch: Any) -> None:
        got, _, tape = layer.forward(given.x, given.state)
        tolerance = tolerances.PACKAGE_TO_REFERENCE_F64
        assert_close(got, y.detach().numpy(), tolerance, "y")
        (y * torch.tensor(given.dy)).sum().backward()
        gradients = layer.backward(tape, given.dy)
        assert_close(gradients.x, x.grad.numpy(), tolerance, "d_x")
        for name, gradient in gradients.params.items():
            assert_close(gradient, w[name].grad.numpy(), tolerance, name)
