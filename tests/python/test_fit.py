"""`Trainer.fit` when it is interrupted, resumed, called again, or given something wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import assert_same, character_model, id_batches, python
from seqrs.checkpoints import Checkpoints

INTERRUPTED = """
import os, random, signal, sys, threading, time
from pathlib import Path
import numpy as np, seqrs
from cases import character_model
from seqrs.checkpoints import Checkpoints

folder = Path(sys.argv[1])
corpus = seqrs.data.TextCorpus("the quick brown fox jumps over the lazy dog. " * 60, 2, 10)

class Watch:
    '''Has a state that tells which epochs it was told of.'''
    def __init__(self): self.epochs = []
    def on_epoch_end(self, trainer, metrics): self.epochs.append(metrics["epoch"])
    def state_dict(self): return {"epochs": self.epochs}
    def load_state_dict(self, state): self.epochs = state["epochs"]

def run(name):
    model = character_model(vocab=corpus.vocab_size, dropout=0.2, num_layers=2)
    lr = seqrs.schedules.plateau(0.02, patience=0, threshold=0.2)
    trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(lr=lr), seed=1)
    watch = Watch()
    fit = lambda: trainer.fit(
        corpus, 4, validation=corpus, callbacks=[watch], progress=False,
        checkpoint=Checkpoints(folder / name, keep=2), resume=True)
    return trainer, watch, fit

def position():
    path = Checkpoints(folder / "cut").files()[0]
    _, epoch, _, batch = path.stem.split("-")
    return int(epoch) * len(corpus) + int(batch)

whole, whole_watch, fit = run("whole")
began = time.monotonic()
expected = fit()
took = time.monotonic() - began
draw, interrupts, wrong = random.Random(int(sys.argv[2])), 0, []
history = None
while history is None:
    trainer, watch, fit = run("cut")
    delay = draw.uniform(0.0, took / 6)
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        history = fit()
    except KeyboardInterrupt:
        interrupts += 1
        # Before the run had begun there may be nothing to write yet.
        if trainer.steps_done and position() != trainer.steps_done:
            wrong.append((position(), trainer.steps_done))
    try:
        timer.join()
        time.sleep(0.01)
    except KeyboardInterrupt:
        pass
assert not wrong, wrong
assert interrupts >= 5, interrupts
assert history == expected
assert watch.epochs == whole_watch.epochs == [1, 2, 3, 4], watch.epochs
for name, p in trainer.model.state_dict().items():
    assert np.array_equal(p, whole.model.state_dict()[name]), name
print("done", interrupts)
"""


class TestInterrupted:
    @pytest.mark.parametrize("seed", range(3))
    def test_ctrl_c_at_any_moment_leaves_a_checkpoint_of_what_is_done(
        self, seed: int, tmp_path: Path
    ) -> None:
        """Real signals at random times: no update is lost or counted twice, nor any epoch."""
        found = python(INTERRUPTED, str(tmp_path), str(seed), timeout=120)
        assert found.stdout.startswith("done"), found.stderr

    @pytest.mark.parametrize("event", ["step", "observe", "callback", "save"])
    def test_ctrl_c_right_after_something_is_done(
        self, event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The moments at which a signal would lose most, one by one."""
        import seqrs.fitting as fitting

        def run(folder: Path, **options: Any) -> tuple[seqrs.Trainer, Any]:
            trainer = seqrs.Trainer(character_model(dropout=0.3, num_layers=2))
            options = {"progress": False, "checkpoint": tmp_path / folder, **options}
            return trainer, lambda: trainer.fit(id_batches(3), 3, **options)

        whole, fit = run(Path("whole"))
        expected = fit()
        left = [2]

        def interrupt_after(function: Any) -> Any:
            def interrupted(*arguments: Any, **more: Any) -> Any:
                result = function(*arguments, **more)
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
                return result

            return interrupted

        told: list[int] = []
        callbacks: list[Any] = [lambda trainer, metrics: told.append(metrics["epoch"])]
        if event == "step":
            function = interrupt_after(seqrs.Trainer._step_into)
            monkeypatch.setattr(seqrs.Trainer, "_step_into", function)
        elif event == "observe":
            function = interrupt_after(fitting.Position.put)
            left[0] = 4  # three batches, then the epoch
            monkeypatch.setattr(fitting.Position, "put", function)
        elif event == "callback":
            callbacks.insert(0, interrupt_after(lambda trainer, metrics: None))
        else:
            monkeypatch.setattr(Checkpoints, "save", interrupt_after(Checkpoints.save))
        trainer, fit = run(Path("cut"), callbacks=callbacks)
        with pytest.raises(KeyboardInterrupt):
            fit()
        newest = Checkpoints(tmp_path / "cut").files()[0].stem
        done = {"step": 2, "observe": 3, "callback": 6, "save": 6}[event]
        assert trainer.steps_done == done
        assert newest == f"epoch-{done // 3:06d}-batch-{done % 3:09d}"
        assert told == list(range(1, done // 3 + 1))
        monkeypatch.undo()
        trainer, fit = run(Path("cut"), callbacks=callbacks[-1:], resume=True)
        assert fit() == expected
        assert told == [1, 2, 3]
        assert_same(trainer.model.state_dict(), whole.model.state_dict())

    def test_a_checkpoint_that_cannot_be_written_is_told_and_the_interrupt_goes_on(
        self, tmp_path: Path
    ) -> None:
        class Unsaveable:
            def on_epoch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
                pass

            def on_batch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
                store.directory = tmp_path / "gone" / "away"
                raise KeyboardInterrupt

        store = Checkpoints(tmp_path)
        trainer = seqrs.Trainer(character_model())
        with (
            pytest.warns(UserWarning, match="checkpoint: expected to write one .*gone"),
            pytest.raises(KeyboardInterrupt),
        ):
            trainer.fit(
                id_batches(2), 1, callbacks=[Unsaveable()], progress=False, checkpoint=store
            )


class TestBadBatches:
    @pytest.mark.parametrize("name", ["data", "validation", "evaluate"])
    def test_the_message_names_the_batch_and_the_data(self, name: str) -> None:
        good = id_batches(2)
        x, y = good[0]
        trainer = seqrs.Trainer(character_model())
        wrong = y.copy()
        wrong[2, 3] = 11
        for batch, words in (
            ((x, wrong), r"y\[2, 3\]: expected a class in 0\.\.11, got 11"),
            ((x, y, [1, 2, 3, 7]), r"lengths\[3\]: .*got 7"),
            ((x, y[:, :-1]), "y: "),
            ((x, y.astype(float)), "y: .*float64"),
            ((x,), r"expected \(x, y\)"),
        ):
            data = [*good, batch]
            shown = "data" if name == "evaluate" else name
            attempts: dict[str, Callable[[list[Any]], Any]] = {
                "data": lambda data: trainer.fit(data, 1, progress=False),
                "validation": lambda data: trainer.fit(good, 1, data, progress=False),
                "evaluate": trainer.evaluate,
            }
            with pytest.raises((ValueError, TypeError), match=f"^{shown}: batch 2: {words}"):
                attempts[name](data)

    def test_a_wrong_class_is_found_where_the_caller_has_it(self) -> None:
        x = np.ones((4, 3, 2))
        y = np.zeros((4, 3), int)
        y[3, 1] = -1
        layers = [seqrs.GRU(2, 3, batch_first=False), seqrs.Linear(3, 5)]
        trainer = seqrs.Trainer(seqrs.Sequential(layers))
        with pytest.raises(seqrs.ShapeError, match=r"y\[3, 1\]: expected a class in 0\.\.5"):
            trainer.evaluate([(x, y, [4, 4, 4])])
        trainer.evaluate([(x, y, [4, 3, 4])])  # There it is not live.
        trainer = seqrs.Trainer(seqrs.Sequential([seqrs.GRU(2, 3), seqrs.Last()]))
        with pytest.raises(seqrs.ShapeError, match=r"y\[2\]: expected a class in 0\.\.3, got 9"):
            trainer.evaluate([(x, np.array([0, 5, 9, 1]), [1, 0, 2, 3])])
