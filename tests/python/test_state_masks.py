"""Recurrent dropout and zoneout: what is done to states around the cell."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import seqrs
import tolerances
from adapter import GPU, PLACES, gpu
from cases import (
    DTYPES,
    LIVE,
    TO_REFERENCE,
    Array,
    B,
    Given,
    H,
    I,
    T,
    assert_same,
    assert_same_state,
    everything,
    live_for,
    live_steps,
    numbers,
    parts,
    randomise,
)
from seqrs import reference
from seqrs.reference.sequence import StateMasks
from tolerances import assert_close, assert_same_bits

#: The classes, and options beside those of masks.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("RNN", {}),
    "lstm": ("LSTM", {"zoneout_cell": 0.2}),
    "lstm-projected": ("LSTM", {"zoneout_cell": 0.2, "proj_size": 3, "peepholes": True}),
    "gru-reset-before": ("GRU", {}),
    "gru-reset-after": ("GRU", {"reset_after": True}),
}


def layer_of(kind: str, dtype: str = "float64", **options: Any) -> Any:
    name, own = KINDS[kind]
    layer = getattr(seqrs, name)(I, H, **own, **options, dtype=dtype)
    randomise(layer)
    return layer


def twin_of(layer: Any) -> Any:
    same = (
        *("num_layers", "bias", "bidirectional", "batch_first", "recurrent_dropout", "zoneout"),
        *(("zoneout_cell", "proj_size", "peepholes") if layer.kind == "lstm" else ()),
        *(("reset_after",) if layer.kind == "gru" else ()),
    )
    kind = getattr(reference, type(layer).__name__)
    twin = kind(
        layer.input_size, layer.hidden_size, **{name: getattr(layer, name) for name in same}
    )
    twin.load_state_dict(layer.state_dict())
    return twin


def drawn_for(layer: Any, batch: int, steps: int, seed: int = 5) -> list[StateMasks]:
    random = np.random.default_rng(seed)
    size = layer.output_size // (2 if layer.bidirectional else 1)
    keep = 1 - layer.recurrent_dropout
    zoneout_cell = getattr(layer, "zoneout_cell", 0.0)

    def chance(share: float, shape: tuple[int, ...]) -> Array:
        return np.where(random.random(shape) < share, 1.0, 0.0)

    return [
        StateMasks(
            chance(keep, (batch, size)) / keep,
            chance(layer.zoneout, (steps, batch, size)),
            chance(zoneout_cell, (steps, batch, layer.hidden_size)),
        )
        for _ in range(layer.num_layers * (2 if layer.bidirectional else 1))
    ]


class TestTheReference:
    """Its gradients through masks, against differences."""

    @pytest.mark.parametrize("live", LIVE)
    @pytest.mark.parametrize("kind", KINDS)
    def test_gradients(self, kind: str, live: str) -> None:
        layer = layer_of(kind, bidirectional=True, recurrent_dropout=0.4, zoneout=0.3)
        twin, given = twin_of(layer), Given(layer)
        masks, which = drawn_for(layer, B, T), live_for(layer, live)
        _, _, tape = twin.forward(given.x, given.state, **which, state_masks=masks)
        gradients = twin.backward(tape, given.dy, given.dstate)

        def loss() -> float:
            y, final, _ = twin.forward(given.x, given.state, **which, state_masks=masks)
            found = float((y * given.dy).sum())
            for a, b in zip(parts(final), parts(given.dstate), strict=True):
                found += float((a * b).sum())
            return found

        random = np.random.default_rng(1)
        arrays = {"x": (given.x, gradients.x)}
        for letter, array, gradient in zip(
            "hc", parts(given.state), parts(gradients.state), strict=False
        ):
            arrays[letter] = (array, gradient)
        for name, array in twin._params.items():
            arrays[name] = (array, gradients.params[name])
        for name, (array, gradient) in arrays.items():
            for _ in range(3):
                at = tuple(int(random.integers(n)) for n in array.shape)
                value, step = array[at], 1e-5
                array[at] = value + step
                above = loss()
                array[at] = value - step
                below = loss()
                array[at] = value
                assert_close(
                    gradient[at],
                    (above - below) / (2 * step),
                    tolerances.REFERENCE_TO_DIFFERENCES,
                    f"{name}{list(at)}",
                )


@pytest.mark.parametrize(("dtype", "device"), PLACES)
@pytest.mark.parametrize("live", LIVE)
@pytest.mark.parametrize("kind", KINDS)
def test_inference_is_that_of_the_reference(kind: str, live: str, dtype: str, device: str) -> None:
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    layer = layer_of(kind, dtype, recurrent_dropout=0.4, zoneout=0.3, **options)
    given, which = Given(layer), live_for(layer, live)
    got, expected = {}, {}
    for found, one in ((got, layer.to(device)), (expected, twin_of(layer))):
        y, final, tape = one.forward(given.x, given.state, **which, training=False)
        found |= {"y": y} | dict(zip("hc", parts(final), strict=False))
        gradients = one.backward(tape, given.dy, given.dstate)
        found |= {"d_x": gradients.x} | gradients.params
        found |= {f"d_{k}": a for k, a in zip("hc", parts(gradients.state), strict=False)}
    for name, array in expected.items():
        assert_close(got[name], array, TO_REFERENCE[dtype], name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
class TestInference:
    """h is the mean of the old and the new one, and recurrent dropout does nothing."""

    def test_step_is_sequence(self, kind: str, dtype: str) -> None:
        layer = layer_of(kind, dtype, zoneout=0.3)
        given = Given(layer)
        y, final = layer(given.x, given.state)
        state = given.state
        for t in range(T):
            y_t, state = layer.step(given.x[:, t], state)
            assert_same_bits(y_t, np.ascontiguousarray(y[:, t]), f"y{t}")
        assert_same_state(state, final)

    def test_rows_are_independent(self, kind: str, dtype: str) -> None:
        layer = layer_of(kind, dtype, zoneout=0.3, bidirectional=True)
        given = Given(layer)
        y, _ = layer(given.x, lengths=[2, T, 0, T - 1])
        for b, n in enumerate([2, T, 0, T - 1]):
            alone, _ = layer(given.x[b : b + 1, :n])
            assert_same_bits(y[b : b + 1, :n], alone, f"row {b}")


class TestRecurrentDropout:
    def test_hides_the_same_units_at_all_steps(self) -> None:
        """An RNN that adds up shows them: h = x + m*h'."""
        p, hidden = 0.5, 200  # so that all numbers here are exact
        layer = seqrs.RNN(
            hidden, hidden, nonlinearity=("affine", 1.0, 0.0), recurrent_dropout=p, dtype="float64"
        )
        eye, none = np.eye(hidden), np.zeros(hidden)
        layer.load_state_dict(
            {"weight_ih_l0": eye, "weight_hh_l0": eye, "bias_ih_l0": none, "bias_hh_l0": none}
        )
        x = np.ones((60, 5, hidden))
        y, _, _ = layer.forward(x)
        m = y[:, 1] - 1
        assert np.isin(m, [0.0, 1 / (1 - p)]).all()
        assert abs((m == 0).mean() - p) < tolerances.SHARE_OF_DRAWS
        assert len({row.tobytes() for row in m}) == 60
        for t in range(1, 5):
            assert_close(y[:, t], 1 + m * y[:, t - 1], tolerances.PACKAGE_TO_REFERENCE_F64, f"y{t}")
        again, _, _ = layer.forward(x)
        assert not np.array_equal(again, y), "each call draws anew"

    @pytest.mark.parametrize("kind", KINDS)
    def test_does_nothing_at_inference(self, kind: str) -> None:
        with_it, without = layer_of(kind, recurrent_dropout=0.9), layer_of(kind)
        given = Given(without)
        assert_same_bits(with_it(given.x)[0], without(given.x)[0], "y")
        y, _, _ = with_it.forward(given.x, training=False)
        assert_same_bits(y, without(given.x)[0], "y")


class TestZoneout:
    def test_keeps_units_by_chance_in_training(self) -> None:
        layer = seqrs.RNN(200, 200, zoneout=0.25, dtype="float64")
        x = np.random.default_rng(0).normal(size=(4, 9, 200))
        y, _, _ = layer.forward(x)
        kept = y[:, 1:] == y[:, :-1]
        assert abs(kept.mean() - 0.25) < tolerances.SHARE_OF_DRAWS
        assert len({kept[:, t].tobytes() for t in range(8)}) == 8, "each step draws anew"

    def test_keeps_c_apart_from_h(self) -> None:
        layer = seqrs.LSTM(50, 50, zoneout_cell=0.5, dtype="float64")
        x = np.random.default_rng(0).normal(size=(400, 1, 50))
        c0 = np.full((1, 400, 50), 3.25)
        _, (h, c), _ = layer.forward(x, (np.zeros((1, 400, 50)), c0))
        assert abs((c == 3.25).mean() - 0.5) < tolerances.SHARE_OF_DRAWS
        assert (h != 0).all()

    def test_past_the_length_nothing_moves(self) -> None:
        layer = layer_of("lstm", zoneout=0.5, recurrent_dropout=0.5)
        given = Given(layer)
        padded = given.x.copy()
        padded[0, 2:] = np.nan
        y, final, tape = layer.forward(padded, given.state, lengths=[2, T, 0, T - 1])
        assert np.isfinite(y).all()
        live = live_steps(layer, {"lengths": [2, T, 0, T - 1]})
        assert not y[~live].any()
        for got, started in zip(parts(final), parts(given.state), strict=True):
            assert_same_bits(got[:, 2], started[:, 2], "the state of a row of length 0")
        gradients = layer.backward(tape, given.dy, given.dstate)
        assert np.isfinite(gradients.x).all()


class TestDraws:
    """Seeds, threads and lengths (law 8)."""

    def run(self, threads: int, seed: int = 3, **which: Any) -> dict[str, Array]:
        options: dict[str, Any] = {"recurrent_dropout": 0.3, "zoneout": 0.3}
        layer = layer_of("lstm", "float32", num_layers=2, bidirectional=True, seed=seed, **options)
        given = Given(layer, 40, 12)
        with seqrs.num_threads(threads):
            return everything(layer, given, **which)

    def test_do_not_depend_on_threads(self) -> None:
        assert_same(self.run(3), self.run(1))

    def test_follow_from_the_seed(self) -> None:
        first, other = self.run(1), self.run(1, seed=4)
        assert_same(self.run(1), first)
        assert not np.array_equal(first["y"], other["y"])

    @gpu
    @pytest.mark.parametrize("live", LIVE)
    @pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "normalised"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_gpu_is_given_the_same(self, kind: str, layer_norm: bool, live: str) -> None:
        if layer_norm and kind not in ("lstm", "gru-reset-after"):
            return
        options: dict[str, Any] = {"recurrent_dropout": 0.4, "zoneout": 0.3, "seed": 3}
        options |= {"num_layers": 2, "bidirectional": True}
        options |= {"layer_norm": True} if layer_norm else {}
        want, got = (
            everything(layer.to(device), Given(layer), **live_for(layer, live))
            for layer, device in ((layer_of(kind, "float32", **options), d) for d in ("cpu", GPU))
        )
        for name, array in want.items():
            assert_close(got[name], array, tolerances.PACKAGE_TO_REFERENCE_F32, name)

    def test_lengths_and_masks_are_the_same(self) -> None:
        lengths = np.random.default_rng(0).integers(0, 13, 40)
        mask = np.arange(12) < lengths[:, None]
        assert_same(self.run(2, mask=mask), self.run(2, lengths=lengths))

    def test_of_a_training_run(self) -> None:
        """The trainer draws them too, and a run is the same again."""

        def losses() -> list[float]:
            model = seqrs.Sequential(
                [seqrs.GRU(3, 8, zoneout=0.2, recurrent_dropout=0.2), seqrs.Linear(8, 2)], seed=1
            )
            trainer = seqrs.Trainer(model, loss=seqrs.MSE(), optimizer=seqrs.Adam(1e-2), seed=2)
            random = np.random.default_rng(0)
            x, y = numbers(random, (6, 9, 3), "float32"), numbers(random, (6, 9, 2), "float32")
            return [trainer.step(x, y).loss for _ in range(20)]

        found = losses()
        assert found == losses()
        assert found[-1] < found[0]


class TestOptions:
    @pytest.mark.parametrize("kind", KINDS)
    def test_go_along(self, kind: str) -> None:
        layer = layer_of(kind, recurrent_dropout=0.25, zoneout=0.5)
        again = pickle.loads(pickle.dumps(layer))
        assert again == layer
        assert (again.recurrent_dropout, again.zoneout) == (0.25, 0.5)
        assert "recurrent_dropout=0.25, zoneout=0.5" in repr(layer)
        assert repr(eval(repr(layer), vars(seqrs))) == repr(layer)

    def test_a_tape_counts_what_they_keep(self) -> None:
        sizes = {"zoneout": 0.5, "zoneout_cell": 0.5, "recurrent_dropout": 0.5}
        plain, masked = seqrs.LSTM(I, H), seqrs.LSTM(I, H, **sizes)
        x = np.zeros((B, T, I))
        more = masked.forward(x)[2].nbytes - plain.forward(x)[2].nbytes
        assert more == 4 * (2 * B * T * (H + H) + B * H)

    @pytest.mark.parametrize("option", ["recurrent_dropout", "zoneout", "zoneout_cell"])
    @pytest.mark.parametrize("value", [1.0, -0.1, float("nan")])
    def test_are_shares(self, option: str, value: float) -> None:
        with pytest.raises(ValueError, match=rf"{option}: expected a number in \[0, 1\), got"):
            seqrs.LSTM(2, 3, **{option: value})
        with pytest.raises(ValueError, match=option):
            reference.LSTM(2, 3, **{option: value})

    def test_only_an_lstm_has_a_cell_state(self) -> None:
        with pytest.raises(TypeError, match="zoneout_cell"):
            seqrs.GRU(2, 3, zoneout_cell=0.1)  # type: ignore[call-arg]

    @pytest.mark.parametrize("option", ["zoneout", "zoneout_cell"])
    def test_others_have_no_zoneout(self, option: str, tmp_path: Any) -> None:
        layer = seqrs.LSTM(2, 3, **{option: 0.5})
        with pytest.raises(seqrs.ModelFileError, match=f"{option}: expected none"):
            seqrs.onnx.export(layer, tmp_path / "m.onnx")
        with pytest.raises(ValueError, match=f"{option}: expected 0.0"):
            seqrs.to_keras_weights(layer)
