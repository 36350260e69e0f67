"""A whole training step of a character model."""

from __future__ import annotations

import numpy as np
import seqrs
import torch

from comparison.contender import Contender, Results
from comparison.libraries import own, pytorch

VOCABULARY, EMBEDDING, HIDDEN, BATCH, TIME = 256, 64, 256, 32, 128

#: Multiply-adds of one character, forward: two LSTM layers and the linear one.
PRODUCTS = 4 * HIDDEN * (EMBEDDING + HIDDEN) + 4 * HIDDEN * (HIDDEN + HIDDEN) + HIDDEN * VOCABULARY
#: Operations of a step: forward, and twice as many backward.
FLOPS = 3 * 2 * PRODUCTS * BATCH * TIME


def contenders(threads: int) -> list[Contender]:
    """Forward, loss, backward, clipping of the norm, update."""
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(VOCABULARY, EMBEDDING)
    lstm = torch.nn.LSTM(EMBEDDING, HIDDEN, num_layers=2, batch_first=True)
    linear = torch.nn.Linear(HIDDEN, VOCABULARY)
    peer = torch.nn.ModuleList([embedding, lstm, linear])
    # The fused form is PyTorch's fastest on a CPU.
    adam = torch.optim.Adam(peer.parameters(), lr=2e-3, fused=True)
    ours = seqrs.Sequential(
        [
            seqrs.Embedding(VOCABULARY, EMBEDDING),
            seqrs.LSTM(EMBEDDING, HIDDEN, num_layers=2),
            seqrs.Linear(HIDDEN, VOCABULARY),
        ]
    )
    ours.load_state_dict({name: value.numpy() for name, value in peer.state_dict().items()})
    trainer = seqrs.Trainer(
        ours, loss=seqrs.CrossEntropy(), optimizer=seqrs.Adam(lr=2e-3), clip_norm=1.0
    )
    ids = np.random.default_rng(4).integers(0, VOCABULARY, (BATCH, TIME + 1))
    x, y = ids[:, :-1].copy(), ids[:, 1:].copy()
    x_torch, y_torch = torch.from_numpy(x), torch.from_numpy(y)

    def run_torch() -> tuple[float, float]:
        adam.zero_grad(set_to_none=True)
        logits = linear(lstm(embedding(x_torch))[0])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y_torch.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        adam.step()
        return loss.item(), norm.item()

    def run_ours() -> tuple[float, float]:
        result = trainer.step(x, y)
        return result.loss, result.grad_norm

    def results(value: tuple[float, float]) -> Results:
        return {"loss": np.array([value[0]]), "gradient norm": np.array([value[1]])}

    return [
        Contender("seqrs", run_ours, results, own.threads_set(threads)),
        Contender(pytorch.NAME, run_torch, results, pytorch.threads_set(threads)),
    ]
