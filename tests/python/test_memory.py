"""Memory that cannot be had is a MemoryError and never the end of the process."""

from __future__ import annotations

import signal
import sys

import pytest
from cases import python

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits of the address space are Linux's"
)

#: Runs `job` with ever more address space until it succeeds.
SWEEP = """
import resource, numpy as np, seqrs

Trainer = seqrs.Trainer                         # loads its modules while there is room for them
B, T, F, V = 64, 400, 80, 50                    # 8 MB in an array (B, T, F)
ids = np.zeros((B, T), np.int64)
classes = np.zeros(B, np.int64)
x = np.zeros((B, T, F), np.float32)

def sweep(job):
    refused = []
    for megabytes in range(0, 400, 3):
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), -1))
        try:
            job()
            break
        except MemoryError as error:
            refused.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    else:
        raise AssertionError("the job does not succeed")
    assert len(refused) > 1, refused
    assert any("expected room for" in words for words in refused), refused
    print("refused", len(refused))
"""

#: What needs memory -> the code of the job.
JOBS = {
    "embedding": """
layer = seqrs.Embedding(V, F)
sweep(lambda: layer(ids))
layer, many = seqrs.Embedding(V, 1), np.zeros((B, 40_000), np.int64)
sweep(lambda: layer(many))
""",
    "embedding-built": """
sweep(lambda: seqrs.Embedding(100_000, F))
""",
    "lstm-built": """
sweep(lambda: seqrs.LSTM(F, 700))
""",
    "lstm": """
layer = seqrs.LSTM(F, 64)
lengths = [T - 1] * B
sweep(lambda: layer(x))
sweep(lambda: layer.forward(x, lengths=lengths))
y, _, tape = layer.forward(x, lengths=lengths)
sweep(lambda: layer.backward(tape, y))
""",
    "last": """
layer = seqrs.Last()
y, _, tape = layer.forward(x)
sweep(lambda: layer(x))
sweep(lambda: layer.backward(tape, y))
""",
    "mean-pool": """
layer = seqrs.MeanPool()
y, _, tape = layer.forward(x)
sweep(lambda: layer(x))
sweep(lambda: layer.backward(tape, y))
""",
    "max-pool": """
layer = seqrs.MaxPool()
y, _, tape = layer.forward(x)
sweep(lambda: layer(x))
sweep(lambda: layer.backward(tape, y))
""",
    "max-pool-of-long-rows": """
layer, wide = seqrs.MaxPool(), np.zeros((4, 1, 1_000_000), np.float32)
sweep(lambda: layer.forward(wide))
""",
    "dropout": """
layer = seqrs.Dropout(0.5)
sweep(lambda: layer.forward(x, lengths=[T - 1] * B))
""",
    "activation": """
layer = seqrs.Activation("tanh")
y, _, tape = layer.forward(x)
sweep(lambda: layer(x))
sweep(lambda: layer.backward(tape, y))
""",
    "losses": """
loss = seqrs.CrossEntropy()
sweep(lambda: loss.gradient(x, ids, lengths=[T - 1] * B))
loss = seqrs.MSE()
sweep(lambda: loss.gradient(x, x))
""",
    "state-dicts": """
model = seqrs.Sequential([seqrs.Embedding(50_000, F)])
weights = model.state_dict()
sweep(lambda: model.load_state_dict(weights))
""",
    "files": """
import tempfile
model = seqrs.Sequential([seqrs.Embedding(50_000, F)])
with tempfile.TemporaryDirectory() as folder:
    sweep(lambda: model.save(folder + "/model"))
    sweep(lambda: seqrs.load(folder + "/model"))
""",
    **{
        f"training-{name}": f"""
layers = [seqrs.Embedding(V, F), seqrs.Dropout(0.1), seqrs.LayerNorm(F), seqrs.{pool}()]
model = seqrs.Sequential([*layers, seqrs.Linear(F, V)], seed=0)
def job():
    trainer = Trainer(model)
    try:
        trainer.step(ids, classes, lengths=[T, 0] + [T - 1] * (B - 2))
    except MemoryError:
        assert trainer.steps_done == 0
        raise
    assert trainer.steps_done == 1
sweep(job)
"""
        for name, pool in {"last": "Last", "mean": "MeanPool", "max": "MaxPool"}.items()
    },
    "training-lstm": """
trainer = Trainer(seqrs.LSTM(F, 64), loss=seqrs.MSE())
y = np.zeros((B, T, 64), np.float32)
def job():
    before = trainer.steps_done
    try:
        trainer.step(x, y, lengths=[T - 1] * B)
    except MemoryError:
        assert trainer.steps_done == before
        raise
sweep(job)
""",
    "training-many-parameters": """
model = seqrs.Sequential([seqrs.Embedding(100_000, F), seqrs.Last()], seed=0)
trainer = Trainer(model, loss=seqrs.MSE())
one = np.zeros((B, 1), np.int64)
def job():
    before, fingerprint = trainer.steps_done, model.fingerprint
    try:
        trainer.step(one, x[:, 0])
    except MemoryError:
        assert (trainer.steps_done, model.fingerprint) == (before, fingerprint)
        raise
sweep(job)
""",
    "training-in-chunks": """
model = seqrs.Sequential([seqrs.Embedding(100_000, F)], seed=0)
trainer = Trainer(model, loss=seqrs.MSE(), bptt=2)
four = np.zeros((B, 4), np.int64)
def job():
    before, fingerprint = trainer.steps_done, model.fingerprint
    try:
        trainer.step(four, x[:, :4])
    except MemoryError:
        assert (trainer.steps_done, model.fingerprint) == (before, fingerprint)
        raise
sweep(job)
""",
    "checkpoints": """
import tempfile
model = seqrs.Sequential([seqrs.Embedding(50_000, F), seqrs.Last()], seed=0)
trainer = Trainer(model, loss=seqrs.MSE())
with tempfile.TemporaryDirectory() as folder:
    sweep(lambda: trainer._handle.checkpoint(folder + "/run", "{}"))
    sweep(lambda: trainer._handle.restore(folder + "/run"))
""",
}


@pytest.mark.parametrize("name", JOBS)
def test_too_little_address_space(name: str) -> None:
    # Every array has its own mapping, and goes back to the system when it is freed, so that what
    # is missing at one limit is missing again at the next.
    env = {
        "SEQRS_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TOP_PAD_": "4194304",
    }
    found = python(SWEEP + JOBS[name], env=env, timeout=120)
    assert found.returncode != -signal.SIGABRT, found.stderr
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("refused")
