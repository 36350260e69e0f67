"""Memory: how much tapes and calls take, and that what cannot be had is a MemoryError.

The sizes are formulas: that of a tape is exact and told by the documentation
(`python/seqrs/recurrent.py`), and that of a call is an upper bound.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from allocated import mallinfo2
from cases import (
    CELLS,
    DTYPES,
    LIVE,
    WAYS,
    B,
    Given,
    H,
    I,
    P,
    T,
    live_for,
    live_steps,
    make,
    python,
)

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits of the address space are Linux's"
)
counted = pytest.mark.skipif(mallinfo2 is None, reason="mallinfo2 is of glibc 2.33 or later")

#: Every array has its own mapping, and goes back to the system when it is freed.
OWN_MAPPINGS = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "4194304"}

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


@linux
@pytest.mark.parametrize("name", JOBS)
def test_too_little_address_space(name: str) -> None:
    # What is missing at one limit is missing again at the next.
    env = {"SEQRS_NUM_THREADS": "1", **OWN_MAPPINGS}
    found = python(SWEEP + JOBS[name], env=env, timeout=120)
    assert found.returncode != -signal.SIGABRT, found.stderr
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("refused")


# --- how much

#: Pages are not divided, lists of a few rows are not counted, and what an earlier call has given
#: back may serve again.
SLACK = 1 << 20

#: Gates, and numbers that a unit keeps at each step besides its output.
GATES = {
    "rnn-tanh": 1,
    "rnn-relu": 1,
    "lstm": 4,
    "lstm-projected": 4,
    "lstm-peephole": 4,
    "lstm-peephole-projected": 4,
    "lstm-coupled": 3,
    "lstm-coupled-peephole-projected": 3,
    "gru-reset-before": 3,
    "gru-reset-after": 3,
    "rnn-chosen": 1,
    "lstm-chosen": 4,
    "lstm-peephole-chosen": 4,
    "lstm-coupled-chosen-projected": 3,
    "lstm-coupled-peephole-chosen": 3,
    "gru-reset-before-chosen": 3,
    "gru-reset-after-chosen": 3,
}
KEPT = {
    "rnn-tanh": 0,
    "rnn-relu": 0,
    "lstm": 5,
    "lstm-projected": 5,
    "lstm-peephole": 5,
    "lstm-peephole-projected": 5,
    "lstm-coupled": 4,
    "lstm-coupled-peephole-projected": 4,
    "gru-reset-before": 3,
    "gru-reset-after": 4,
    "rnn-chosen": 1,
    "lstm-chosen": 5,
    "lstm-peephole-chosen": 5,
    "lstm-coupled-chosen-projected": 4,
    "lstm-coupled-peephole-chosen": 4,
    "gru-reset-before-chosen": 3,
    "gru-reset-after-chosen": 4,
}


@dataclass(frozen=True)
class Sizes:
    """Of a call: the letters of the documentation."""

    cell: str
    B: int
    T: int
    I: int  # noqa: E741
    H: int
    L: int = 1
    D: int = 1
    #: Live steps of all rows, if not all are.
    live: int | None = None
    #: Bytes of a number.
    s: int = 4

    @property
    def N(self) -> int:
        return self.B * self.T if self.live is None else self.live

    @property
    def P(self) -> int:
        return P if self.cell.endswith("projected") else self.H


def tape_bytes(z: Sizes, dropped: bool = False) -> int:
    """The formula of the documentation."""
    state = z.P + z.H * z.cell.startswith("lstm")
    each_step = z.I + z.L * z.D * (KEPT[z.cell] * z.H + z.P)
    dropout = 2 * (z.L - 1) * z.D * z.P if dropped else 0
    return z.s * (z.N * (each_step + dropout) + z.B * z.L * z.D * state)


STRUCTURES: dict[str, dict[str, Any]] = {
    "one": {},
    "time-first": {"batch_first": False},
    "bidirectional": {"bidirectional": True},
    "three-layers-bidirectional": {"num_layers": 3, "bidirectional": True},
}


#: Tapes whose memory is measured together.
TAPES = 10


class TestTape:
    @pytest.mark.parametrize("live", LIVE)
    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("cell", CELLS)
    def test_it_has_the_size_of_the_formula(
        self, cell: str, dtype: str, structure: str, live: str
    ) -> None:
        for dropout in (0.0, 0.5):
            layer = make(cell, dtype, dropout=dropout, **STRUCTURES[structure])
            options = live_for(layer, live)
            z = Sizes(
                cell,
                *(B, T, I, H),
                L=layer.num_layers,
                D=1 + layer.bidirectional,
                live=int(live_steps(layer, options).sum()),
                s=np.dtype(dtype).itemsize,
            )
            for training in (False, True):
                _, _, tape = layer.forward(Given(layer).x, **options, training=training)
                assert tape.nbytes == tape_bytes(z, dropped=training and dropout > 0), dropout

    @pytest.mark.parametrize("layers", [1, 2, 3])
    @pytest.mark.parametrize("directions", [1, 2])
    def test_an_lstm_keeps_24_bytes_of_a_unit_for_each_live_step(
        self, layers: int, directions: int
    ) -> None:
        layer = make("lstm", num_layers=layers, bidirectional=directions == 2)

        def nbytes(lengths: list[int], steps: int) -> int:
            given = Given(layer, len(lengths), steps)
            return int(layer.forward(given.x, lengths=lengths)[2].nbytes)

        more = nbytes([5, 3, 10], 10) - nbytes([5, 3, 2], 10)
        assert more == 8 * (layers * directions * 24 * H + 4 * I)
        assert nbytes([5, 3, 2], 50) == nbytes([5, 3, 2], 5)

    @counted
    @pytest.mark.parametrize("cell", CELLS)
    def test_it_holds_what_it_tells(self, cell: str) -> None:
        code = f"""
from allocated import allocated
from cases import Given, make

layer = make({cell!r}, inputs=40, hidden=96, num_layers=2, dropout=0.5)
x = Given(layer, 24, 80).x
tapes = [layer.forward(x)[2] for _ in range(2)]
before = allocated()
for _ in range({TAPES}):
    tapes.append(layer.forward(x)[2])
print(allocated() - before, sum(tape.nbytes for tape in tapes[2:]))
"""
        # What a call needs besides, and when, is not another thread's affair.
        found = python(code, env={"SEQRS_NUM_THREADS": "1"})
        assert found.returncode == 0, found.stderr
        held, told = map(int, found.stdout.split())
        assert told > 20 << 20
        # Addresses of items, a buffer's way to the start of a cache line, and small buffers (of
        # states before the first step) that were larger ones before.
        assert 0 <= held - told <= 0.01 * told


#: Gates from the input are computed ahead for as many steps as fit in so many bytes, by rows of
#: which a thread takes so many at a time; sums over items, so many of them at a time.
AHEAD, ROWS, ITEMS = 512 << 10, 256, 128


def workspace_bytes(way: str, z: Sizes, threads: int) -> int:
    """What layers need for a moment besides arguments, results and the tape: an upper bound.

    It is that of one layer, whose place the next one takes.
    """
    gates, y = GATES[z.cell] * z.H, z.D * z.P
    if way == "forward":
        workers = -(-threads // z.D) * z.D
        rows = min(-(-z.B * z.D // workers), ROWS)
        # For each worker gates from the input, the addresses of their rows, and states, and with
        # chosen functions the sums of one step; between layers what goes in and what comes out,
        # unless they belong to the tape.
        ahead = max(AHEAD, z.s * rows * gates) * (1 + 16 / (z.s * gates))
        sums = z.s * rows * gates * ("chosen" in z.cell)
        return int(workers * (ahead + sums + rows * (z.s * (2 * z.P + 5 * z.H) + 100)))
    # For each item the gradients of the gates of both directions, what else phases hand on (the
    # operand of the second product, or what went into the projection and what came out, or what it
    # adds to the gradients of peepholes), where the state before it is, and the gradients of the
    # layer's input and of its output.
    each = gates * (2 if z.cell.startswith("gru-reset-after") else 1)
    each += z.H * z.cell.startswith("gru-reset-before")
    each += (z.H + z.P) * z.cell.endswith("projected")
    each += (2 if "coupled" in z.cell else 3) * z.H * ("peephole" in z.cell)
    flow = y + max(z.I, y) if z.L > 1 else z.I
    sums = z.s * ITEMS * (gates + threads * (max(z.I, y, z.H) + 64)) + threads * (256 << 10)
    return z.N * (z.D * (z.s * each + 4) + z.s * flow) + sums


def call_bytes(way: str, z: Sizes, threads: int) -> int:
    """What a call needs: arguments are copied, and results are made as arrays."""
    x, y, packed = z.s * z.N * z.I, z.s * z.B * z.T * z.D * z.P, z.s * z.N * z.D * z.P
    if way == "infer":
        return x + y + min(z.L - 1, 2) * packed + workspace_bytes("forward", z, threads)
    if way == "forward":
        # The outputs are in the tape, and from there come into the caller's order.
        return x + tape_bytes(z) + workspace_bytes("forward", z, threads) + y
    # d_y is copied and then brought into the order of the steps, d_x into the caller's at the end;
    # the gradients of all parameters lie together until each has its array. What is done with stays
    # for the next call.
    inputs = [z.I] + [z.D * z.P] * (z.L - 1)
    gates, projection = GATES[z.cell] * z.H, z.H * z.P * (z.P < z.H)
    parameters = z.s * z.D * sum(gates * (n + z.P + 2) + projection for n in inputs)
    d_x = z.s * z.B * z.T * z.I
    return 2 * (packed + parameters) + workspace_bytes("backward", z, threads) + d_x


#: Prints by how much a call of each kind makes the process larger for a moment.
NEEDS = """
import seqrs
from cases import Given, in_child, make

def status(entry):
    with open("/proc/self/status") as file:
        entries = dict(line.split(":", 1) for line in file)
    return int(entries[entry].removesuffix("kB\\n")) << 10

def need(small, job):
    def measured():                         # in a process whose peak is its own
        small()                             # starts the threads
        before = status("VmSize")
        job()
        return status("VmPeak") - before
    small()                                 # packs the weights
    print(in_child(measured))
"""

#: Long, wide, and of many rows; rows of which a fifth of the steps are live; stacks.
CALLS = {
    "long": {"B": 2, "T": 3000, "I": 128, "H": 128},
    "wide": {"B": 48, "T": 40, "I": 64, "H": 512},
    "many-rows": {"B": 700, "T": 20, "I": 64, "H": 64},
    "ragged": {"B": 64, "T": 200, "I": 96, "H": 128, "live": 64 * 40},
    "stack": {"B": 32, "T": 100, "I": 64, "H": 96, "L": 3, "D": 2},
}


@linux
class TestWorkspace:
    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("cell", [cell for cell in WAYS if cell != "rnn-relu"])
    def test_a_call_needs_what_the_formula_says(self, cell: str, name: str) -> None:
        z, threads = Sizes(cell, **CALLS[name]), 2
        lengths = None if z.live is None else [z.live // z.B] * z.B
        code = f"""{NEEDS}
seqrs.set_num_threads({threads})
layer = make({cell!r}, inputs={z.I}, hidden={z.H}, num_layers={z.L}, bidirectional={z.D == 2})
given, lengths, little = Given(layer, {z.B}, {z.T}), {lengths}, Given(layer, 2, 20)
need(lambda: layer(little.x), lambda: layer(given.x, lengths=lengths))
need(lambda: layer.forward(little.x), lambda: layer.forward(given.x, lengths=lengths))
_, _, tape = layer.forward(given.x, lengths=lengths)
_, _, short = layer.forward(little.x)
need(lambda: layer.backward(short, little.dy), lambda: layer.backward(tape, given.dy))
"""
        # One heap for all threads, so that none sets address space aside.
        env = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
        found = python(code, env=env, timeout=120)
        assert found.returncode == 0, found.stderr
        ways = ("infer", "forward", "backward")
        for way, need in zip(ways, map(int, found.stdout.split()), strict=True):
            formula = call_bytes(way, z, threads)
            assert need <= formula + SLACK, way
            # On the way back what x and d_y were first copied to may serve again.
            again = z.s * z.N * (z.I + z.D * z.P) if way == "backward" else 0
            least = 0.9 * (formula - again) - SLACK
            assert need >= least, f"{way}: the formula is not that of the code"


#: Kind -> the function `use` of B and T, both at least 1, which does it with arrays of that shape.
USES = {
    "inference": """
layers = [seqrs.LSTM(16, 64, 2, bidirectional=True), seqrs.GRU(16, 64), seqrs.RNN(16, 64)]
def use(B, T):
    x = np.zeros((B, T, 16), np.float32)
    for layer in layers:
        layer(x)
        layer(x, lengths=[max(T - b, 0) for b in range(B)])
""",
    "training": """
layers = [seqrs.LSTM(16, 64, 2, dropout=0.5), seqrs.GRU(16, 64, bidirectional=True)]
trainer = seqrs.Trainer(
    seqrs.Sequential([seqrs.RNN(16, 32), seqrs.Linear(32, 4)]), loss=seqrs.MSE())
def use(B, T):
    x = np.zeros((B, T, 16), np.float32)
    for layer in layers:
        y, _, tape = layer.forward(x)
        layer.backward(tape, y)
    trainer.step(x, x[:, :, :4], lengths=[T] + [1] * (B - 1))
""",
    "layers": """
def use(B, T):
    for kind in (seqrs.LSTM, seqrs.GRU, seqrs.RNN):
        layer = kind(B, 4 * T)
        y, _, tape = layer.forward(np.zeros((3, 20, B), np.float32))
        layer.backward(tape, y)
""",
}


#: Bytes by which a process may be larger after a thousand shapes than after the largest of them,
#: which alone needs several times as many: what is kept has sizes of several shapes.
GROWTH = 1 << 20


@counted
class TestShapes:
    @pytest.mark.parametrize("name", USES)
    def test_a_thousand_need_no_more_than_the_largest(self, name: str) -> None:
        code = f"""
import gc, numpy as np, seqrs
from allocated import allocated
seqrs.set_num_threads(2)
{USES[name]}
def held():
    gc.collect()
    return allocated()

shapes = [(B, T) for B in range(1, 41) for T in range(1, 26)]
order = np.random.default_rng(0).permutation(len(shapes))
for _ in range(3):
    use(*shapes[-1])
before = held()
for k in order:
    use(*shapes[k])
print(len(set(shapes)), held() - before)
"""
        found = python(code, timeout=120)
        assert found.returncode == 0, found.stderr
        count, grown = map(int, found.stdout.split())
        assert count == 1000
        assert grown <= GROWTH


#: Kind -> the function `step`, of one shape: some buffers are kept for the next step, some are not.
STEPS = {
    "all-layers": """
layers = [seqrs.Linear(64, 64), seqrs.LayerNorm(64), seqrs.LSTM(64, 64, 2, dropout=0.5)]
layers += [seqrs.Dropout(0.5), seqrs.GRU(64, 64, bidirectional=True), seqrs.Linear(128, 64)]
layers += [seqrs.RNN(64, 64), seqrs.Activation("tanh"), seqrs.MaxPool(), seqrs.Linear(64, 4)]
trainer = seqrs.Trainer(seqrs.Sequential(layers), loss=seqrs.MSE())
step = lambda: trainer.step(x, x[:, 0, :4])
""",
    "ids": """
layers = [seqrs.Embedding(50, 64), seqrs.LSTM(64, 64), seqrs.Linear(64, 64)]
trainer = seqrs.Trainer(seqrs.Sequential(layers))
ids = np.zeros((32, 50), np.int64)
step = lambda: trainer.step(ids, ids)
""",
    "layer": """
layer = seqrs.LSTM(64, 64, 2, dropout=0.5)
def step():
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)
""",
}


#: So many steps, each of which may leave less than a buffer of those that are kept (128 KB).
MORE_STEPS = 60
PILE = MORE_STEPS * (8 << 10)


@counted
@pytest.mark.parametrize("name", STEPS)
def test_step_after_step_needs_no_more_than_the_first(name: str) -> None:
    code = f"""
import gc, numpy as np, seqrs
from allocated import allocated
seqrs.set_num_threads(2)
x = np.zeros((32, 50, 64), np.float32)
{STEPS[name]}
def held():
    gc.collect()
    return allocated()

for _ in range(5):
    step()
before = held()
for _ in range({MORE_STEPS}):
    step()
print(held() - before)
"""
    found = python(code, timeout=120)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) <= PILE
