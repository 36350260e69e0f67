"""PyTorch: eager, inference in `inference_mode`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from comparison.contender import Contender, Results, gradients, outputs
from comparison.libraries.own import states
from comparison.work import Work

NAME = "PyTorch"


def threads_set(threads: int) -> Callable[[], None]:
    return lambda: torch.set_num_threads(threads)


def layer(work: Work) -> torch.nn.RNNBase:
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[work.cell]
    made = kind(work.hidden, work.hidden)
    made.load_state_dict({k: torch.from_numpy(v) for k, v in work.weights().items()})
    return made


def step(work: Work, threads: int) -> list[Contender]:
    """As a layer over one step, and as the cell that PyTorch has for loops of one's own."""
    made = layer(work)
    kind = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[work.cell]
    cell = kind(work.hidden, work.hidden)
    cell.load_state_dict({k[: -len("_l0")]: v for k, v in made.state_dict().items()})
    x = torch.from_numpy(work.x())
    start = [torch.from_numpy(part) for part in work.state()]
    state = tuple(start) if len(start) == 2 else start[0]
    flat = [part[0] for part in start]
    cell_state = tuple(flat) if len(flat) == 2 else flat[0]

    def run_layer() -> Any:
        with torch.inference_mode():
            return made(x, state)

    def run_cell() -> Any:
        with torch.inference_mode():
            return cell(x[0], cell_state)

    def cell_results(value: Any) -> Results:
        return outputs(work, states(value)[0], states(value))

    return [
        Contender(
            NAME,
            run_layer,
            lambda value: outputs(work, value[0], states(value[1])),
            threads_set(threads),
        ),
        Contender(f"{NAME}, cell", run_cell, cell_results, threads_set(threads)),
    ]


def infer(work: Work, threads: int) -> list[Contender]:
    """On padded rows where there are lengths: where only live outputs count, that is the same."""
    made = layer(work)
    x = torch.from_numpy(work.x())
    lengths = None if work.lengths is None else torch.tensor(work.lengths)

    def run() -> Any:
        with torch.inference_mode():
            return made(x)

    def run_packed() -> Any:
        with torch.inference_mode():
            packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
            y, state = made(packed)
            return pad_packed_sequence(y, total_length=work.time)[0], state

    def results(value: Any) -> Results:
        return outputs(work, value[0], states(value[1]))

    return packed_and_padded(work, threads, run_packed, run, results)


def train(work: Work, threads: int) -> list[Contender]:
    """On packed and on padded rows where there are lengths."""
    made = layer(work)
    x, dy = torch.from_numpy(work.x()).requires_grad_(), torch.from_numpy(work.dy())
    lengths = None if work.lengths is None else torch.tensor(work.lengths)

    def run() -> Results:
        return backward(made(x)[0])

    def run_packed() -> Results:
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return backward(pad_packed_sequence(made(packed)[0], total_length=work.time)[0])

    def backward(y: torch.Tensor) -> Results:
        made.zero_grad(set_to_none=True)
        x.grad = None
        y.backward(dy)
        return {"y": y.detach(), "x": x.grad} | {k: p.grad for k, p in made.named_parameters()}

    def results(value: Results) -> Results:
        parameters = {name: value[name] for name in value if name not in ("y", "x")}
        return gradients(work, value["y"], value["x"], parameters)

    return packed_and_padded(work, threads, run_packed, run, results)


def packed_and_padded(
    work: Work,
    threads: int,
    run_packed: Callable[[], Any],
    run: Callable[[], Any],
    results: Callable[[Any], Results],
) -> list[Contender]:
    """The two ways with lengths; without, the one."""
    if work.lengths is None:
        return [Contender(NAME, run, results, threads_set(threads))]
    return [
        Contender(f"{NAME}, packed", run_packed, results, threads_set(threads)),
        Contender(f"{NAME}, padded", run, results, threads_set(threads)),
    ]


def train_gru_before(work: Work, threads: int) -> list[Contender]:
    """PyTorch has no such layer: what one writes in its place, with X.W over all steps at once."""
    drawn = {k: torch.from_numpy(v).requires_grad_() for k, v in work.weights().items()}
    weight_ih, weight_hh, bias, _ = drawn.values()
    x, dy = torch.from_numpy(work.x()).requires_grad_(), torch.from_numpy(work.dy())
    hidden = work.hidden

    def run() -> Results:
        for leaf in (x, weight_ih, weight_hh, bias):
            leaf.grad = None
        h = torch.zeros(work.batch, hidden)
        steps = []
        for given in torch.nn.functional.linear(x, weight_ih, bias):
            gates = given[:, : 2 * hidden] + h @ weight_hh[: 2 * hidden].T
            reset, update = gates.sigmoid().chunk(2, dim=1)
            candidate = torch.tanh(given[:, 2 * hidden :] + (reset * h) @ weight_hh[2 * hidden :].T)
            h = torch.lerp(candidate, h, update)
            steps.append(h)
        y = torch.stack(steps)
        y.backward(dy)
        parameters = {"weight_ih_l0": weight_ih, "weight_hh_l0": weight_hh, "bias_ih_l0": bias}
        return {"y": y.detach(), "x": x.grad} | {k: v.grad for k, v in parameters.items()}

    def results(value: Results) -> Results:
        parameters = {name: value[name] for name in value if name not in ("y", "x")}
        return gradients(work, value["y"], value["x"], parameters)

    return [Contender(f"{NAME}, step by step", run, results, threads_set(threads))]
