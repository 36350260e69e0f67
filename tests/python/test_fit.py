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
    delay = draw.uniform(0.0, took / 8)
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
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
assert interrupts >= 3, interrupts
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


class TestCallbacksThatServeAgain:
    def test_early_stopping_forgets_the_weights_of_another_model(self) -> None:
        stopping = seqrs.EarlyStopping("loss", patience=1)
        first = seqrs.Trainer(character_model(seed=1), optimizer=seqrs.Adam(0.05))
        first.fit(id_batches(2), 4, callbacks=[stopping], progress=False)
        best = stopping.best
        # Its loss rises from the first epoch on.
        model = character_model(seed=2)
        second = seqrs.Trainer(model, optimizer=seqrs.SGD(0.0))
        before = model.state_dict()
        second.fit(id_batches(2), 4, callbacks=[stopping], progress=False)
        assert stopping.best_epoch == 1
        assert stopping.best != best
        assert_same(model.state_dict(), before)

    def test_model_checkpoint_forgets_the_best_of_another_run(self, tmp_path: Path) -> None:
        saver = seqrs.ModelCheckpoint(tmp_path / "best", "loss")
        for seed in (1, 2):
            model = character_model(seed=seed)
            rate = 0.1 if seed == 1 else 0.0
            trainer = seqrs.Trainer(model, optimizer=seqrs.SGD(rate))
            trainer.fit(id_batches(2), 3, callbacks=[saver], progress=False)
        assert seqrs.load(tmp_path / "best") == model

    def test_a_model_that_could_not_be_saved_is_no_best_one(self, tmp_path: Path) -> None:
        saver = seqrs.ModelCheckpoint(tmp_path / "x" / "best", "loss")
        with pytest.raises((OSError, seqrs.ModelFileError)):
            saver.on_epoch_end(seqrs.Trainer(character_model()), {"epoch": 1, "loss": 1.0})
        assert saver.best is None

    def test_any_callback_hears_of_the_beginning(self, tmp_path: Path) -> None:
        events: list[str] = []

        class Mine:
            def on_fit_begin(self, trainer: seqrs.Trainer) -> None:
                events.append(f"begin {trainer.steps_done}")

            def on_epoch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
                events.append("end")

            def state_dict(self) -> dict[str, Any]:
                return {"kept": (1, 2.5, None, "text", np.arange(2))}

            def load_state_dict(self, state: dict[str, Any]) -> None:
                assert state["kept"][:4] == (1, 2.5, None, "text")
                events.append("load")

        for epochs in (1, 2):
            seqrs.Trainer(character_model()).fit(
                id_batches(1), epochs, callbacks=[Mine()], progress=False, checkpoint=tmp_path,
                resume=True,
            )  # fmt: skip
        assert events == ["begin 0", "end", "begin 0", "load", "end"]


class Holding:
    """A callback with a state."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def on_epoch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
        pass

    def state_dict(self) -> Any:
        return {"state": self.state}

    def load_state_dict(self, state: Any) -> None:
        pass


class TestMistakesBeforeTheFirstEpoch:
    @pytest.mark.parametrize(
        ("callback", "error", "words"),
        [
            (seqrs.EarlyStopping(), ValueError,
             r"callbacks\[1\] \(EarlyStopping\): monitor: .*got 'val_loss'; .*no validation data"),
            (seqrs.EarlyStopping("val_bit"), ValueError, r"monitor: .*got 'val_bit'"),
            (seqrs.ModelCheckpoint("best"), ValueError, r"\(ModelCheckpoint\): monitor: "),
            (seqrs.ModelCheckpoint("no/best", "loss"), FileNotFoundError, "path: .*got no$"),
            (seqrs.ModelCheckpoint("{loss:d}", "loss"), ValueError, "path: .*{loss:d}"),
            (seqrs.ModelCheckpoint("{los}", "loss"), ValueError, "path: .*grad_norm.*{los}"),
            (seqrs.ModelCheckpoint("{}", "loss"), ValueError, "path: "),
            (seqrs.ModelCheckpoint(".", "loss"), IsADirectoryError, "path: "),
            (seqrs.CSVLogger("no/log.csv"), FileNotFoundError, r"\(CSVLogger\): path: .*got no$"),
            (seqrs.CSVLogger("."), IsADirectoryError, "path: "),
            (Holding({1, 2}), TypeError, r"callbacks\[1\] \(Holding\): .*state_dict.*got \{1, 2\}"),
            (Holding({(1, 2): 3}), TypeError, r"got \(1, 2\) as a name"),
            (Holding(np.array([None])), TypeError, "got an array of object"),
        ],
    )  # fmt: skip
    def test_they_are_named_and_nothing_was_trained(
        self, callback: Any, error: Any, words: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        trainer = seqrs.Trainer(character_model())
        callbacks = [lambda trainer, metrics: None, callback]
        with pytest.raises(error, match=words) as caught:
            trainer.fit(id_batches(1), 2, callbacks=callbacks, progress=False, checkpoint="run")
        assert type(caught.value) is error
        assert trainer.steps_done == 0
        assert not list(tmp_path.iterdir())

    def test_what_validation_brings_may_be_named(self, tmp_path: Path) -> None:
        data = id_batches(1)
        path = str(tmp_path / "{epoch}-{val_bits:.1f}-{val_accuracy}")
        callbacks: list[Any] = [
            seqrs.EarlyStopping("val_bits"), seqrs.ModelCheckpoint(path, "val_accuracy")
        ]  # fmt: skip
        seqrs.Trainer(character_model()).fit(data, 1, data, callbacks, progress=False)
        assert len(list(tmp_path.iterdir())) == 1

    def test_one_callback_needs_no_list(self) -> None:
        called: list[Any] = []
        trainer, stopping = seqrs.Trainer(character_model()), seqrs.EarlyStopping("loss")
        trainer.fit(id_batches(1), 1, callbacks=stopping, progress=False)
        assert stopping.best_epoch == 1
        trainer.fit(id_batches(1), 1, callbacks=lambda *told: called.append(told), progress=False)
        assert len(called) == 1
        trainer.fit(id_batches(1), 1, callbacks=None, progress=False)
        for wrong in (3, "loss", {"a": stopping}):
            with pytest.raises(TypeError, match="callbacks: expected a callback or a sequence"):
                trainer.fit(id_batches(1), 1, callbacks=wrong, progress=False)  # type: ignore[arg-type]


class TestFailingCallbacks:
    def test_the_epoch_is_kept_and_every_callback_has_seen_it(self, tmp_path: Path) -> None:
        told: list[int] = []

        def fail(trainer: seqrs.Trainer, metrics: Any) -> None:
            raise OSError("the disk of mine")

        def tell(trainer: seqrs.Trainer, metrics: Any) -> None:
            told.append(metrics["epoch"])

        trainer = seqrs.Trainer(character_model())
        with pytest.raises(OSError, match="of mine") as caught:
            trainer.fit(
                id_batches(2), 3, callbacks=[fail, tell], progress=False, checkpoint=tmp_path
            )
        if hasattr(caught.value, "__notes__"):
            assert "callbacks[0]" in caught.value.__notes__[0]
        assert [path.stem for path in Checkpoints(tmp_path).files()] == [
            "epoch-000001-batch-000000000"
        ]
        again = seqrs.Trainer(character_model())
        again.fit(
            id_batches(2), 3, callbacks=[tell], progress=False, checkpoint=tmp_path, resume=True
        )
        assert told == [1, 2, 3]
        assert again.steps_done == 6
