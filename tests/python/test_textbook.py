"""The textbook's equations, written out for one row with loops over time, against the reference.

Nothing here is shared with the reference: other letters (a, y^, u, c~), weights of the
concatenation [h', x], lists of vectors instead of batches. A row's own steps are all there is, so
the batches of the reference, with their padding, are checked as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from seqrs import reference
from tolerances import REFERENCE_TO_TEXTBOOK, TEXTBOOK_DIFFERENCES, assert_close

Array = npt.NDArray[np.float64]

INPUTS, HIDDEN, CLASSES = 3, 4, 5
LENGTHS = [4, 6, 1]
ROWS, STEPS = len(LENGTHS), max(LENGTHS)


# The equations.


def sigma(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def softmax(v: Array) -> Array:
    e = np.exp(v - v.max())
    y_hat: Array = e / e.sum()
    return y_hat


def rnn(
    xs: list[Array], a: Array, W_aa: Array, W_ax: Array, b_a: Array, g1: Any = np.tanh
) -> list[Array]:
    """a<t> = g1(W_aa a<t-1> + W_ax x<t> + b_a)"""
    activations = []
    for x in xs:
        a = g1(W_aa @ a + W_ax @ x + b_a)
        activations.append(a)
    return activations


def outputs(activations: list[Array], W_ya: Array, b_y: Array) -> list[Array]:
    """y^<t> = g2(W_ya a<t> + b_y), g2 = softmax"""
    return [softmax(W_ya @ a + b_y) for a in activations]


def cross_entropy(ys: list[Array], y_hats: list[Array]) -> float:
    """L = sum over t of L<t>,  L<t> = - sum over the classes of y<t> log y^<t>"""
    return float(sum(-(y * np.log(y_hat)).sum() for y, y_hat in zip(ys, y_hats, strict=True)))


def gru(
    xs: list[Array],
    c: Array,
    W_u: Array,
    W_r: Array,
    W_c: Array,
    b_u: Array,
    b_r: Array,
    b_c: Array,
) -> list[Array]:
    """The update gate keeps: c<t> = G_u * c<t-1> + (1 - G_u) * c~<t>"""
    states = []
    for x in xs:
        G_u = sigma(W_u @ np.concatenate([c, x]) + b_u)
        G_r = sigma(W_r @ np.concatenate([c, x]) + b_r)
        c_tilde = np.tanh(W_c @ np.concatenate([G_r * c, x]) + b_c)
        c = G_u * c + (1 - G_u) * c_tilde
        states.append(c)
    return states


def lstm(
    xs: list[Array], h: Array, c: Array, W: dict[str, Array], b: dict[str, Array]
) -> tuple[list[Array], Array]:
    """Gates f, i, o and candidate g, each of [h<t-1>, x<t>]; the hidden states and the last c.

    Without W["f"] the gates are coupled: f = 1 - i.
    """
    states = []
    for x in xs:
        hx = np.concatenate([h, x])
        i = sigma(W["i"] @ hx + b["i"])
        f = sigma(W["f"] @ hx + b["f"]) if "f" in W else 1 - i
        o = sigma(W["o"] @ hx + b["o"])
        g = np.tanh(W["g"] @ hx + b["g"])
        c = f * c + i * g
        h = o * np.tanh(c)
        states.append(h)
    return states, c


# The textbook's weights, as the reference's parameters, and back.


def parameters_of_gates(order: str, W: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
    """Of W [h', x] + b, gate by gate."""
    return {
        "weight_ih_l0": np.concatenate([W[k][:, HIDDEN:] for k in order]),
        "weight_hh_l0": np.concatenate([W[k][:, :HIDDEN] for k in order]),
        "bias_ih_l0": np.concatenate([b[k] for k in order]),
    }


def gradients_of_gates(order: str, params: dict[str, Array]) -> dict[str, Array]:
    """The gradient of each gate's W, and of its b as b_{gate}."""
    ih, hh, b = (
        dict(zip(order, np.split(params[f"{name}_l0"], len(order)), strict=True))
        for name in ("weight_ih", "weight_hh", "bias_ih")
    )
    weights = {k: np.concatenate([hh[k], ih[k]], axis=1) for k in order}
    return weights | {f"b_{k}": b[k] for k in order}


def rnn_parameters(hidden: dict[str, Array], suffix: str = "l0") -> dict[str, Array]:
    """b_a is the sum of the two biases: here a third and two thirds of it."""
    return {
        f"weight_ih_{suffix}": hidden["W_ax"],
        f"weight_hh_{suffix}": hidden["W_aa"],
        f"bias_ih_{suffix}": hidden["b_a"] / 3,
        f"bias_hh_{suffix}": hidden["b_a"] * 2 / 3,
    }


class Draw:
    """Random numbers, and the batch that all tests use."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(7)
        self.x = self(ROWS, STEPS, INPUTS)
        # What y is compared with: a class for each step, one-hot.
        self.y = np.eye(CLASSES)[self.random.integers(CLASSES, size=(ROWS, STEPS))]

    def __call__(self, *shape: int) -> Array:
        return self.random.uniform(-1, 1, shape)


def rows(batch: Array) -> list[list[Array]]:
    """The live steps of each row, as vectors."""
    return [list(row[:n]) for row, n in zip(batch, LENGTHS, strict=True)]


def padded(sequences: list[list[Array]]) -> Array:
    """The reverse of `rows`: zeros after each row's last step."""
    batch = np.zeros((len(sequences), STEPS, len(sequences[0][0])))
    for row, sequence in zip(batch, sequences, strict=True):
        row[: len(sequence)] = sequence
    return batch


def differences(loss: Callable[[], float], a: Array, step: float = 1e-5) -> Array:
    """The gradient of `loss` at `a`, moved in place."""
    gradient = np.zeros_like(a)
    for index in np.ndindex(a.shape):
        value = a[index]
        a[index] = value + step
        above = loss()
        a[index] = value - step
        below = loss()
        a[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


class TestRNN:
    def given(self) -> tuple[Draw, dict[str, Array], dict[str, Array]]:
        draw = Draw()
        hidden = {"W_aa": draw(HIDDEN, HIDDEN), "W_ax": draw(HIDDEN, INPUTS), "b_a": draw(HIDDEN)}
        return draw, hidden, {"W_ya": draw(CLASSES, HIDDEN), "b_y": draw(CLASSES)}

    @pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
    def test_activations_and_outputs(self, nonlinearity: str) -> None:
        draw, hidden, out = self.given()
        a0 = draw(ROWS, HIDDEN)
        layer = reference.RNN(INPUTS, HIDDEN, nonlinearity=nonlinearity)
        layer.load_state_dict(rnn_parameters(hidden))
        a, a_last = layer(draw.x, a0[None], lengths=LENGTHS)

        g1 = np.tanh if nonlinearity == "tanh" else lambda v: np.maximum(v, 0)
        sequences = [rnn(xs, a0[b], **hidden, g1=g1) for b, xs in enumerate(rows(draw.x))]
        assert_close(a, padded(sequences), REFERENCE_TO_TEXTBOOK)
        assert_close(a_last[0], np.array([s[-1] for s in sequences]), REFERENCE_TO_TEXTBOOK)
        y_hat = padded([outputs(s, **out) for s in rows(a)])
        assert_close(y_hat, padded([outputs(s, **out) for s in sequences]), REFERENCE_TO_TEXTBOOK)

    def test_gradients_are_the_sum_over_t_and_k(self) -> None:
        """dL/dW_aa = sum over t and k <= t of

            dL<t>/dy^<t> dy^<t>/da<t> (product over j = k+1 .. t of da<j>/da<j-1>) da<k>/dW_aa

        with every Jacobian a matrix, and da<k>/dW_aa holding a<k-1> fixed; W_ax and b_a likewise.
        """
        draw, hidden, out = self.given()
        gradients, _ = self.by_the_reference(draw, hidden, out)

        zero = np.zeros(HIDDEN)
        d_W_aa, d_W_ax, d_b_a = (np.zeros_like(p) for p in hidden.values())
        for xs, ys in zip(rows(draw.x), rows(draw.y), strict=True):
            a = [zero, *rnn(xs, zero, **hidden)]  # a[t], t = 1 .. T; a[0] before the first step
            for t in range(1, len(xs) + 1):
                z = out["W_ya"] @ a[t] + out["b_y"]
                y_hat = softmax(z)
                dL_dy_hat = -ys[t - 1] / y_hat
                dy_hat_dz = np.diag(y_hat) - np.outer(y_hat, y_hat)
                dL_da_t = dL_dy_hat @ dy_hat_dz @ out["W_ya"]
                for k in range(1, t + 1):
                    product = np.eye(HIDDEN)
                    for j in range(k + 1, t + 1):
                        da_j = np.diag(1 - a[j] ** 2) @ hidden["W_aa"]
                        product = da_j @ product
                    d_pre_k = dL_da_t @ product @ np.diag(1 - a[k] ** 2)
                    d_W_aa += np.outer(d_pre_k, a[k - 1])
                    d_W_ax += np.outer(d_pre_k, xs[k - 1])
                    d_b_a += d_pre_k
        assert_close(gradients["weight_hh_l0"], d_W_aa, REFERENCE_TO_TEXTBOOK, "W_aa")
        assert_close(gradients["weight_ih_l0"], d_W_ax, REFERENCE_TO_TEXTBOOK, "W_ax")
        assert_close(gradients["bias_ih_l0"], d_b_a, REFERENCE_TO_TEXTBOOK, "b_a")
        assert_close(gradients["bias_hh_l0"], d_b_a, REFERENCE_TO_TEXTBOOK, "b_a")

    def test_gradients_are_those_of_the_loss(self) -> None:
        draw, hidden, out = self.given()
        gradients, d_x = self.by_the_reference(draw, hidden, out)

        def loss() -> float:
            return sum(
                cross_entropy(ys, outputs(rnn(xs, np.zeros(HIDDEN), **hidden), **out))
                for xs, ys in zip(rows(draw.x), rows(draw.y), strict=True)
            )

        names = {"W_aa": "weight_hh_l0", "W_ax": "weight_ih_l0", "b_a": "bias_ih_l0"}
        for letter, name in names.items():
            expected = differences(loss, hidden[letter])
            assert_close(gradients[name], expected, TEXTBOOK_DIFFERENCES, letter)
        assert_close(d_x, differences(loss, draw.x), TEXTBOOK_DIFFERENCES, "x")

    def by_the_reference(
        self, draw: Draw, hidden: dict[str, Array], out: dict[str, Array]
    ) -> tuple[dict[str, Array], Array]:
        """The loss's gradient at a<t> is W_ya^T (y^<t> - y<t>)."""
        layer = reference.RNN(INPUTS, HIDDEN)
        layer.load_state_dict(rnn_parameters(hidden))
        a, _, tape = layer.forward(draw.x, lengths=LENGTHS)
        y_hat = [outputs(s, **out) for s in rows(a)]
        d_a = [
            [(y_hat_t - y_t) @ out["W_ya"] for y_hat_t, y_t in zip(y_hat_b, ys, strict=True)]
            for y_hat_b, ys in zip(y_hat, rows(draw.y), strict=True)
        ]
        gradients = layer.backward(tape, padded(d_a))
        return gradients.params, gradients.x


class TestBidirectionalRNN:
    """y^<t> = g(W_y [a-> <t>, a<- <t>] + b_y), where a<- reads the row from its end."""

    def given(self) -> tuple[Draw, list[dict[str, Array]], dict[str, Array]]:
        draw = Draw()
        directions = [
            {"W_aa": draw(HIDDEN, HIDDEN), "W_ax": draw(HIDDEN, INPUTS), "b_a": draw(HIDDEN)}
            for _ in range(2)
        ]
        return draw, directions, {"W_ya": draw(CLASSES, 2 * HIDDEN), "b_y": draw(CLASSES)}

    def activations(self, xs: list[Array], directions: list[dict[str, Array]]) -> list[Array]:
        zero = np.zeros(HIDDEN)
        onward = rnn(xs, zero, **directions[0])
        backward = rnn(xs[::-1], zero, **directions[1])[::-1]
        return [np.concatenate(pair) for pair in zip(onward, backward, strict=True)]

    def test_activations_and_gradients(self) -> None:
        draw, directions, out = self.given()
        layer = reference.RNN(INPUTS, HIDDEN, bidirectional=True)
        layer.load_state_dict(
            rnn_parameters(directions[0]) | rnn_parameters(directions[1], "l0_reverse")
        )
        a, a_last, tape = layer.forward(draw.x, lengths=LENGTHS)
        sequences = [self.activations(xs, directions) for xs in rows(draw.x)]
        assert_close(a, padded(sequences), REFERENCE_TO_TEXTBOOK)
        # The last step of a<- is the first of the row.
        expected = np.array(
            [[s[-1][:HIDDEN] for s in sequences], [s[0][HIDDEN:] for s in sequences]]
        )
        assert_close(a_last, expected, REFERENCE_TO_TEXTBOOK)

        def loss() -> float:
            return sum(
                cross_entropy(ys, outputs(self.activations(xs, directions), **out))
                for xs, ys in zip(rows(draw.x), rows(draw.y), strict=True)
            )

        d_a = [
            [
                (y_hat - y) @ out["W_ya"]
                for y_hat, y in zip(outputs(sequence, **out), ys, strict=True)
            ]
            for sequence, ys in zip(sequences, rows(draw.y), strict=True)
        ]
        gradients = layer.backward(tape, padded(d_a))
        for direction, suffix in zip(directions, ("l0", "l0_reverse"), strict=True):
            names = {"W_aa": "weight_hh", "W_ax": "weight_ih", "b_a": "bias_ih"}
            for letter, name in names.items():
                expected = differences(loss, direction[letter])
                got = gradients.params[f"{name}_{suffix}"]
                assert_close(got, expected, TEXTBOOK_DIFFERENCES, f"{letter} {suffix}")
        assert_close(gradients.x, differences(loss, draw.x), TEXTBOOK_DIFFERENCES, "x")


class TestDeepRNN:
    """a[l]<t> = g(W_a[l] [a[l]<t-1>, a[l-1]<t>] + b_a[l]), a[0] = x."""

    def test_activations(self) -> None:
        draw = Draw()
        sizes = [INPUTS, HIDDEN, HIDDEN]
        parameters: dict[str, Array] = {}
        layers: list[tuple[Array, Array]] = []
        for k, size in enumerate(sizes):
            W_a, b_a = draw(HIDDEN, HIDDEN + size), draw(HIDDEN)
            layers.append((W_a, b_a))
            split = {"W_aa": W_a[:, :HIDDEN], "W_ax": W_a[:, HIDDEN:], "b_a": b_a}
            parameters |= rnn_parameters(split, f"l{k}")
        layer = reference.RNN(INPUTS, HIDDEN, num_layers=len(sizes))
        layer.load_state_dict(parameters)
        y, _ = layer(draw.x, lengths=LENGTHS)

        expected = []
        for xs in rows(draw.x):
            a = [np.zeros(HIDDEN) for _ in layers]
            top = []
            for x in xs:
                for k, (W_a, b_a) in enumerate(layers):
                    below = x if k == 0 else a[k - 1]
                    a[k] = np.tanh(W_a @ np.concatenate([a[k], below]) + b_a)
                top.append(a[-1])
            expected.append(top)
        assert_close(y, padded(expected), REFERENCE_TO_TEXTBOOK)


class TestGRU:
    def test_states_and_gradients(self) -> None:
        draw = Draw()
        c0, d_c = draw(ROWS, HIDDEN), draw(ROWS, STEPS, HIDDEN)
        W = {k: draw(HIDDEN, HIDDEN + INPUTS) for k in "ruc"}
        b = {k: draw(HIDDEN) for k in "ruc"}
        layer = reference.GRU(INPUTS, HIDDEN)
        layer.load_state_dict(parameters_of_gates("ruc", W, b))
        c, c_last, tape = layer.forward(draw.x, c0[None], lengths=LENGTHS)

        def states() -> list[list[Array]]:
            return [
                gru(xs, c0[row], W["u"], W["r"], W["c"], b["u"], b["r"], b["c"])
                for row, xs in enumerate(rows(draw.x))
            ]

        sequences = states()
        assert_close(c, padded(sequences), REFERENCE_TO_TEXTBOOK)
        assert_close(c_last[0], np.array([s[-1] for s in sequences]), REFERENCE_TO_TEXTBOOK)

        def loss() -> float:
            return float((padded(states()) * d_c).sum())

        gradients = layer.backward(tape, d_c)
        for name, got in gradients_of_gates("ruc", gradients.params).items():
            varied = b[name.removeprefix("b_")] if name.startswith("b_") else W[name]
            assert_close(got, differences(loss, varied), TEXTBOOK_DIFFERENCES, name)
        assert_close(gradients.x, differences(loss, draw.x), TEXTBOOK_DIFFERENCES, "x")
        assert_close(gradients.state[0], differences(loss, c0), TEXTBOOK_DIFFERENCES, "c0")

    def test_an_update_gate_of_one_keeps_the_state(self) -> None:
        layer = reference.GRU(INPUTS, HIDDEN)
        weights = layer.state_dict()
        weights["bias_ih_l0"][HIDDEN : 2 * HIDDEN] = 1000
        layer.load_state_dict(weights)
        draw = Draw()
        c0 = draw(1, ROWS, HIDDEN)
        _, c_last = layer(draw.x, c0)
        assert_close(c_last, c0, REFERENCE_TO_TEXTBOOK)


class TestLSTM:
    @pytest.mark.parametrize("gates", ["ifgo", "igo"], ids=["plain", "coupled"])
    def test_states_and_gradients(self, gates: str) -> None:
        draw = Draw()
        h0, c0 = draw(ROWS, HIDDEN), draw(ROWS, HIDDEN)
        d_h, d_c = draw(ROWS, STEPS, HIDDEN), draw(ROWS, HIDDEN)
        W = {k: draw(HIDDEN, HIDDEN + INPUTS) for k in gates}
        b = {k: draw(HIDDEN) for k in gates}
        layer = reference.LSTM(INPUTS, HIDDEN, coupled="f" not in gates)
        parameters = parameters_of_gates(gates, W, b)
        layer.load_state_dict(parameters | {"bias_hh_l0": np.zeros(len(gates) * HIDDEN)})
        h, (h_last, c_last), tape = layer.forward(draw.x, (h0[None], c0[None]), lengths=LENGTHS)

        def states() -> tuple[list[list[Array]], Array]:
            pairs = [lstm(xs, h0[row], c0[row], W, b) for row, xs in enumerate(rows(draw.x))]
            return [s for s, _ in pairs], np.array([c for _, c in pairs])

        sequences, lasts = states()
        assert_close(h, padded(sequences), REFERENCE_TO_TEXTBOOK)
        assert_close(h_last[0], np.array([s[-1] for s in sequences]), REFERENCE_TO_TEXTBOOK)
        assert_close(c_last[0], lasts, REFERENCE_TO_TEXTBOOK)

        def loss() -> float:
            sequences, lasts = states()
            return float((padded(sequences) * d_h).sum() + (lasts * d_c).sum())

        gradients = layer.backward(tape, d_h, (np.zeros_like(h_last), d_c[None]))
        for name, got in gradients_of_gates(gates, gradients.params).items():
            varied = b[name.removeprefix("b_")] if name.startswith("b_") else W[name]
            assert_close(got, differences(loss, varied), TEXTBOOK_DIFFERENCES, name)
        d_h0, d_c0 = gradients.state
        assert_close(gradients.x, differences(loss, draw.x), TEXTBOOK_DIFFERENCES, "x")
        assert_close(d_h0[0], differences(loss, h0), TEXTBOOK_DIFFERENCES, "h0")
        assert_close(d_c0[0], differences(loss, c0), TEXTBOOK_DIFFERENCES, "c0")
