"""Makes the golden files beside it with PyTorch, in f64, from fixed seeds.

    python tests/golden/generate.py

Written with PyTorch 2.15 (CPU). The files are committed; run this to add a configuration, not to
make a failing test pass.

layers/{name}.npz   one configuration of torch.nn.RNN, LSTM or GRU each:
    config          JSON: layer, arguments of its constructor here, lengths or null
    x, h0, c0       inputs; h0 and c0 are absent where the state was left out
    param.{name}    parameters, PyTorch's names
    y, h, c         outputs and final states
    dy, dh, dc      gradients fed at y, h and c
    d_x, d_h0, d_c0, d_param.{name}   gradients that came back
losses.npz          {loss}/{case}/{array}: y_pred, y, mask (where masked), and for each reduction
                    {reduction} and d_{reduction}: the loss and its gradient at y_pred
optimisers.npz      p0, gradients (10 steps), and {optimiser}: the parameters after each step

What is drawn is a multiple of 1/64, so that it is exact in f32 too and packs small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

HERE = Path(__file__).resolve().parent
ROWS, STEPS, INPUTS, HIDDEN, PROJECTED = 3, 5, 4, 5, 3
LENGTHS = [3, 5, 1]  # unsorted: the longest row is not the first

Arrays = dict[str, npt.NDArray[Any]]


def main() -> None:
    torch.set_num_threads(1)
    (HERE / "layers").mkdir(exist_ok=True)
    for seed, (name, layer, options, packed, with_state) in enumerate(configurations()):
        save(f"layers/{name}", layer_golden(seed, layer, options, packed, with_state))
    save("losses", loss_goldens())
    save("optimisers", optimiser_goldens())


def configurations() -> Iterator[tuple[str, str, dict[str, Any], bool, bool]]:
    """(name, layer, options, packed, with initial state)."""
    bi, deep, deeper = {"bidirectional": True}, {"num_layers": 2}, {"num_layers": 3}
    bare, first = {"bias": False}, {"batch_first": False}
    relu, proj = {"nonlinearity": "relu"}, {"proj_size": PROJECTED}

    yield "rnn-tanh", "RNN", {}, False, True
    yield "rnn-tanh-no-bias-no-state", "RNN", bare, False, False
    yield "rnn-tanh-bidirectional-2-packed", "RNN", bi | deep, True, True
    yield "rnn-relu", "RNN", relu, False, True
    yield "rnn-relu-bidirectional-2-packed", "RNN", relu | bi | deep, True, True
    yield "rnn-relu-3-no-bias", "RNN", relu | deeper | bare, False, True

    yield "lstm", "LSTM", {}, False, True
    yield "lstm-no-bias-no-state", "LSTM", bare, False, False
    yield "lstm-packed", "LSTM", {}, True, True
    yield "lstm-bidirectional", "LSTM", bi, False, True
    yield "lstm-3", "LSTM", deeper, False, True
    yield "lstm-2-time-first-packed", "LSTM", deep | first, True, True
    yield "lstm-bidirectional-2-packed", "LSTM", bi | deep, True, True

    yield "lstm-projected", "LSTM", proj, False, True
    yield "lstm-projected-no-bias-no-state", "LSTM", proj | bare, False, False
    yield "lstm-projected-2-packed", "LSTM", proj | deep, True, True
    yield "lstm-projected-bidirectional-2-packed", "LSTM", proj | bi | deep, True, True

    after = {"reset_after": True}
    yield "gru", "GRU", after, False, True
    yield "gru-no-bias-no-state", "GRU", after | bare, False, False
    yield "gru-packed", "GRU", after, True, True
    yield "gru-bidirectional", "GRU", after | bi, False, True
    yield "gru-3", "GRU", after | deeper, False, True
    yield "gru-2-time-first-packed", "GRU", after | deep | first, True, True
    yield "gru-bidirectional-2-packed", "GRU", after | bi | deep, True, True


def layer_golden(
    seed: int, layer: str, options: dict[str, Any], packed: bool, with_state: bool
) -> Arrays:
    torch.manual_seed(seed)
    options = {"batch_first": True} | options
    theirs = {key: value for key, value in options.items() if key != "reset_after"}
    net = getattr(torch.nn, layer)(INPUTS, HIDDEN, dtype=torch.float64, **theirs)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(draw(parameter.shape, 0.5))

    time_axis = 1 if options["batch_first"] else 0
    leading = (ROWS, STEPS) if options["batch_first"] else (STEPS, ROWS)
    x = draw((*leading, INPUTS)).requires_grad_()
    depth = net.num_layers * (2 if net.bidirectional else 1)
    h_size = net.proj_size or HIDDEN
    state = [draw((depth, ROWS, h_size))]
    if layer == "LSTM":
        state.append(draw((depth, ROWS, HIDDEN)))
    for s in state:
        s.requires_grad_(with_state)
    given = (tuple(state) if layer == "LSTM" else state[0]) if with_state else None

    lengths = LENGTHS if packed else None
    if lengths is None:
        y, final = net(x, given)
    else:
        pack = pack_padded_sequence(
            x, torch.tensor(lengths), batch_first=options["batch_first"], enforce_sorted=False
        )
        y, final = net(pack, given)
        y, _ = pad_packed_sequence(y, batch_first=options["batch_first"], total_length=STEPS)
    assert y.shape[time_axis] == STEPS
    finals = final if layer == "LSTM" else (final,)

    dy, *dfinals = [draw(a.shape) for a in (y, *finals)]
    torch.autograd.backward([y, *finals], [dy, *dfinals])

    config = {"layer": layer, "sizes": [INPUTS, HIDDEN], "options": options, "lengths": lengths}
    golden: dict[str, Any] = {"config": json.dumps(config), "x": x, "d_x": x.grad, "y": y, "dy": dy}
    for letter, s, s_final, ds in zip("hc", state, finals, dfinals, strict=False):
        golden |= {letter: s_final, f"d{letter}": ds}
        if with_state:
            golden |= {f"{letter}0": s, f"d_{letter}0": s.grad}
    for name, parameter in net.named_parameters():
        golden |= {f"param.{name}": parameter, f"d_param.{name}": parameter.grad}
    return as_arrays(golden)


def loss_goldens() -> Arrays:
    """Masked: the live steps are selected first, so what is not live takes no part in the mean."""
    torch.manual_seed(1000)
    features = 4
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0]], dtype=torch.bool)
    scores, numbers = draw((ROWS, STEPS, features), 3.0), draw((ROWS, STEPS, features), 3.0)
    classes = torch.randint(features, (ROWS, STEPS))
    bits = torch.randint(2, (ROWS, STEPS, features)).to(torch.float64)

    losses: dict[str, tuple[Callable[..., torch.Tensor], torch.Tensor]] = {
        "cross_entropy": (functional.cross_entropy, classes),
        "binary_cross_entropy": (functional.binary_cross_entropy_with_logits, bits),
        "mse": (functional.mse_loss, numbers),
        "mae": (functional.l1_loss, numbers),
        "huber": (functional.huber_loss, numbers),
    }
    everything = torch.ones_like(mask)
    golden: dict[str, Any] = {}
    for name, (loss, y) in losses.items():
        cases = {
            "steps": (scores, y, everything),  # y_pred (B, T, features)
            "masked": (scores, y, mask),
            "rows": (scores[:, 0], y[:, 0], everything[:, 0]),  # y_pred (B, features)
        }
        for case, (y_pred, y_true, live) in cases.items():
            golden |= {f"{name}/{case}/y_pred": y_pred, f"{name}/{case}/y": y_true}
            if case == "masked":
                golden[f"{name}/{case}/mask"] = mask
            for reduction in ("mean", "sum"):
                p = y_pred.clone().requires_grad_()
                value = loss(p[live], y_true[live], reduction=reduction)
                value.backward()  # type: ignore[no-untyped-call]
                golden[f"{name}/{case}/{reduction}"] = value
                golden[f"{name}/{case}/d_{reduction}"] = p.grad
    return as_arrays(golden)


def optimiser_goldens() -> Arrays:
    torch.manual_seed(2000)
    steps, size = 10, 6
    p0, gradients = draw((size,)), draw((steps, size))
    optimisers: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, {"lr": 0.1}),
        "sgd_momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        "sgd_nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        "sgd_weight_decay": (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.01}),
        "sgd_all": (
            torch.optim.SGD,
            {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        ),
        "rmsprop": (torch.optim.RMSprop, {"lr": 0.01}),
        "adam": (torch.optim.Adam, {"lr": 0.01}),
        "adamw": (torch.optim.AdamW, {"lr": 0.01}),
    }
    options = {
        name: {"optimiser": cls.__name__, **chosen} for name, (cls, chosen) in optimisers.items()
    }
    golden: dict[str, Any] = {"config": json.dumps(options), "p0": p0, "gradients": gradients}
    for name, (cls, chosen) in optimisers.items():
        parameter = torch.nn.Parameter(p0.clone())
        optimiser = cls([parameter], **chosen)
        after = []
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimiser.step()
            after.append(parameter.detach().clone())
        golden[name] = torch.stack(after)
    return as_arrays(golden)


def draw(shape: tuple[int, ...], scale: float = 1.0) -> torch.Tensor:
    return torch.round(torch.randn(shape, dtype=torch.float64) * scale * 64) / 64


def as_arrays(golden: dict[str, Any]) -> Arrays:
    return {
        name: value.detach().numpy() if isinstance(value, torch.Tensor) else np.array(value)
        for name, value in golden.items()
    }


def save(name: str, arrays: Arrays) -> None:
    path = HERE / f"{name}.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    print(f"{path.stat().st_size:7} {path.relative_to(HERE)}")


if __name__ == "__main__":
    main()
