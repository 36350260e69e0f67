"""`Trainer.fit` when it is interrupted, resumed, called again, or given something wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
from adapter import CPU, GPU, gpu
from cases import assert_same, character_model, id_batches, python
from seqrs.checkpoints import Checkpoints

INTERRUPTED = """
import os, random, signal, sys, threading, time
from pathlib import Path
import numpy as np, seqrs
from cases import character_model
from seqrs.checkpoints import Checkpoints

folder = Path(sys.argv[1])
text = "the quick brown fox jumps over the lazy dog. " * int(sys.argv[4])
corpus = seqrs.data.TextCorpus(text, 2, 10)

class Watch:
    '''Has a state that tells which epochs it was told of.'''
    def __init__(self): self.epochs = []
    def on_epoch_end(self, trainer, metrics): self.epochs.append(metrics["epoch"])
    def state_dict(self): return {"epochs": self.epochs}
    def load_state_dict(self, state): self.epochs = state["epochs"]

def run(name):
    model = character_model(
        vocab=corpus.vocab_size, dropout=0.2, num_layers=2, device=sys.argv[3])
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
    @pytest.mark.parametrize(
        ("seed", "device"),
        [
            *[pytest.param(seed, CPU, id=f"{seed}-{CPU}") for seed in range(3)],
            pytest.param(0, GPU, id=f"0-{GPU}", marks=gpu),
        ],
    )
    def test_ctrl_c_at_any_moment_leaves_a_checkpoint_of_what_is_done(
        self, seed: int, device: str, tmp_path: Path
    ) -> None:
        """Real signals at random times: no update is lost or counted twice, nor any epoch."""
        times = "60" if device == CPU else "6"  # which takes a GPU of software no less long
        found = python(INTERRUPTED, str(tmp_path), str(seed), device, times, timeout=120)
        assert found.stdout.startswith("done"), found.stderr

    @pytest.mark.parametrize("event", ["step", "observe", "callback", "save"])
    def test_ctrl_c_right_after_something_is_done(
        self, event: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The moments at which a signal would lose most, one by one."""
        import seqrs.fitting as fitting

        def run(folder: Path, **options: Any) -> tuple[seqrs.Trainer, Any]:
            model = character_model(dropout=0.3, num_layers=2, device=device)
            trainer = seqrs.Trainer(model)
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
    def test_the_message_names_the_batch_and_the_data(self, name: str, device: str) -> None:
        good = id_batches(2)
        x, y = good[0]
        trainer = seqrs.Trainer(character_model(device=device))
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

    def test_a_wrong_class_is_found_where_the_caller_has_it(self, device: str) -> None:
        x = np.ones((4, 3, 2))
        y = np.zeros((4, 3), int)
        y[3, 1] = -1
        layers = [seqrs.GRU(2, 3, batch_first=False), seqrs.Linear(3, 5)]
        trainer = seqrs.Trainer(seqrs.Sequential(layers).to(device))
        with pytest.raises(seqrs.ShapeError, match=r"y\[3, 1\]: expected a class in 0\.\.5"):
            trainer.evaluate([(x, y, [4, 4, 4])])
        trainer.evaluate([(x, y, [4, 3, 4])])  # There it is not live.
        trainer = seqrs.Trainer(seqrs.Sequential([seqrs.GRU(2, 3), seqrs.Last()]).to(device))
        with pytest.raises(seqrs.ShapeError, match=r"y\[2\]: expected a class in 0\.\.3, got 9"):
            trainer.evaluate([(x, np.array([0, 5, 9, 1]), [1, 0, 2, 3])])


class TestCallbacksThatServeAgain:
    def test_early_stopping_forgets_the_weights_of_another_model(self, device: str) -> None:
        stopping = seqrs.EarlyStopping("loss", patience=1)
        first = seqrs.Trainer(character_model(seed=1, device=device), optimizer=seqrs.Adam(0.05))
        first.fit(id_batches(2), 4, callbacks=[stopping], progress=False)
        best = stopping.best
        # Its loss rises from the first epoch on.
        model = character_model(seed=2, device=device)
        second = seqrs.Trainer(model, optimizer=seqrs.SGD(0.0))
        before = model.state_dict()
        second.fit(id_batches(2), 4, callbacks=[stopping], progress=False)
        assert stopping.best_epoch == 1
        assert stopping.best != best
        assert_same(model.state_dict(), before)

    def test_model_checkpoint_forgets_the_best_of_another_run(
        self, device: str, tmp_path: Path
    ) -> None:
        saver = seqrs.ModelCheckpoint(tmp_path / "best", "loss")
        for seed in (1, 2):
            model = character_model(seed=seed, device=device)
            # The second learns nothing, so that all its losses are above the first's best.
            trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(0.05 if seed == 1 else 0.0))
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
    def test_the_epoch_is_kept_and_every_callback_has_seen_it(
        self, device: str, tmp_path: Path
    ) -> None:
        told: list[int] = []

        def fail(trainer: seqrs.Trainer, metrics: Any) -> None:
            raise OSError("the disk of mine")

        def tell(trainer: seqrs.Trainer, metrics: Any) -> None:
            told.append(metrics["epoch"])

        trainer = seqrs.Trainer(character_model(device=device))
        with pytest.raises(OSError, match="of mine") as caught:
            trainer.fit(
                id_batches(2), 3, callbacks=[fail, tell], progress=False, checkpoint=tmp_path
            )
        if hasattr(caught.value, "__notes__"):
            assert "callbacks[0]" in caught.value.__notes__[0]
        assert [path.stem for path in Checkpoints(tmp_path).files()] == [
            "epoch-000001-batch-000000000"
        ]
        again = seqrs.Trainer(character_model(device=device))
        again.fit(
            id_batches(2), 3, callbacks=[tell], progress=False, checkpoint=tmp_path, resume=True
        )
        assert told == [1, 2, 3]
        assert again.steps_done == 6


class TestOptions:
    @pytest.mark.parametrize(
        "name",
        ["model", "loss", "optimizer", "clip_norm", "clip_value", "bptt", "seed", "lr"],
    )
    def test_they_cannot_be_assigned(self, name: str) -> None:
        trainer = seqrs.Trainer(character_model())
        value, words = getattr(trainer, name), repr(trainer)
        with pytest.raises(AttributeError, match=f"^{name}: expected .*(Trainer|schedules)"):
            setattr(trainer, name, value)
        assert repr(trainer) == words

    def test_a_loop_of_ones_own_can_show_the_schedule_a_metric(self) -> None:
        lr = seqrs.schedules.plateau(0.4, factor=0.5, patience=1)
        trainer = seqrs.Trainer(character_model(), optimizer=seqrs.SGD(lr))
        rates = []
        for metric in (3, np.float32(2.0), 2.5, float("nan"), 1.0, 1.0, 1.0):
            trainer.observe(metric)
            rates.append(trainer.lr)
        assert rates == [0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1]
        for wrong in ("1", True, None, [1.0]):
            with pytest.raises(TypeError, match="metric: expected a real number"):
                trainer.observe(wrong)  # type: ignore[arg-type]


class TestAnotherFit:
    def test_two_fits_are_one_longer_one(self, device: str) -> None:
        """The orders of the batches go on, as do weights and optimiser; only the count is new."""

        def trained(*epochs: int) -> tuple[dict[str, Any], list[dict[str, list[float]]]]:
            sequences = [np.arange(n) % 11 for n in range(1, 13)]
            data = seqrs.data.Padded(sequences, sequences, 3, seed=4)
            model = character_model(dropout=0.2, num_layers=2, device=device)
            trainer = seqrs.Trainer(model, optimizer=seqrs.Adam(0.01))
            found = [trainer.fit(data, each, progress=False) for each in epochs]
            return model.state_dict(), found

        once, (whole,) = trained(4)
        twice, (first, second) = trained(1, 3)
        assert_same(twice, once)
        assert first["loss"] + second["loss"] == whole["loss"]
        assert second["epoch"] == [1, 2, 3]

    def test_a_second_fit_can_be_resumed(self, device: str, tmp_path: Path) -> None:
        sequences = [np.arange(n) % 11 for n in range(1, 13)]
        data = seqrs.data.Padded(sequences, sequences, 3, seed=4)

        def fit(trainer: seqrs.Trainer, epochs: int, resume: bool) -> dict[str, list[float]]:
            return trainer.fit(
                data, epochs, progress=False, checkpoint=tmp_path, resume=resume,
            )  # fmt: skip

        models = [character_model(device=device) for _ in range(2)]
        whole, cut = map(seqrs.Trainer, models)
        for trainer in (whole, cut):
            trainer.fit(data, 2, progress=False)
        expected = whole.fit(data, 3, progress=False)
        fit(cut, 1, False)
        again = seqrs.Trainer(models[1])
        assert fit(again, 3, True) == expected
        assert_same(models[1].state_dict(), models[0].state_dict())

    def test_a_logger_adds_the_lines_of_the_second(self, tmp_path: Path) -> None:
        logger, data = seqrs.CSVLogger(tmp_path / "log.csv"), id_batches(2)
        trainer = seqrs.Trainer(character_model())
        trainer.fit(data, 2, callbacks=logger, progress=False)
        # With more metrics than the first had, and interrupted after one epoch.
        options = {"checkpoint": tmp_path / "run", "progress": False}
        trainer.fit(data, 1, data, callbacks=logger, **options)
        again = seqrs.CSVLogger(tmp_path / "log.csv")
        resumed = seqrs.Trainer(trainer.model)
        history = resumed.fit(data, 3, data, callbacks=again, resume=True, **options)
        with (tmp_path / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["1", "2", "1", "2", "3"]
        assert [row["val_loss"] for row in rows] == ["", "", *map(str, history["val_loss"])]


class TestResumeOptions:
    def run(self, folder: Path, resume: bool, epochs: int = 1, **options: Any) -> seqrs.Trainer:
        options = {"optimizer": seqrs.Adam(0.01), "seed": 3, **options}
        trainer = seqrs.Trainer(character_model(), **options)
        trainer.fit(id_batches(2), epochs, progress=False, checkpoint=folder, resume=resume)
        return trainer

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"clip_norm": 0.5}, r"\(clip_norm: 1\.0, now 0\.5\)"),
            ({"clip_value": 2.0}, r"\(clip_value: None, now 2\.0\)"),
            ({"bptt": 2}, r"\(bptt: None, now 2\)"),
            ({"optimizer": seqrs.Adam(0.02)}, r"\(optimizer\.lr\.?\w*: 0\.01, now 0\.02\)"),
            ({"loss": seqrs.CrossEntropy("sum")}, r"\(loss\.reduction: 'mean', now 'sum'\)"),
        ],
    )
    def test_other_options_are_told(self, options: Any, words: str, tmp_path: Path) -> None:
        self.run(tmp_path, False)
        with pytest.warns(UserWarning, match=words):
            assert self.run(tmp_path, True, 2, **options).steps_done >= 4
        # Told once: from there on they are the run's.
        self.run(tmp_path, True, 3, **options)

    def test_another_seed_or_kind_is_refused(self, tmp_path: Path) -> None:
        self.run(tmp_path, False)
        with pytest.raises(ValueError, match=r"trainer: .*\(seed: 3, now 4\)"):
            self.run(tmp_path, True, 2, seed=4)

        def regression(loss: Any, resume: bool) -> seqrs.Trainer:
            trainer = seqrs.Trainer(seqrs.Sequential([seqrs.Linear(1, 1)]), loss=loss)
            data = [(np.ones((1, 2, 1)), np.ones((1, 2, 1)))]
            folder = tmp_path / "regression"
            trainer.fit(data, 2, progress=False, checkpoint=folder, resume=resume)
            return trainer

        regression(seqrs.MSE(), False)
        with pytest.raises(ValueError, match=r"trainer: .*loss\.kind: 'mse', now 'mae'"):
            regression(seqrs.MAE(), True)

    def test_only_what_differs_of_the_data_is_shown(self, tmp_path: Path) -> None:
        def fit(batch_size: int, resume: bool) -> None:
            data = seqrs.data.TextCorpus("to be or not to be " * 20, batch_size, 5)
            trainer = seqrs.Trainer(character_model(vocab=data.vocab_size))
            trainer.fit(data, 1, progress=False, checkpoint=tmp_path, resume=resume)

        fit(2, False)
        with pytest.raises(ValueError, match=r"\(batches: \d+, now \d+; batch_size: 2, now 4\)$"):
            fit(4, True)

    def test_a_run_that_was_ended_says_so(self, tmp_path: Path) -> None:
        def fit(epochs: int, resume: bool) -> dict[str, list[float]]:
            trainer = seqrs.Trainer(character_model(), optimizer=seqrs.SGD(0.0))
            return trainer.fit(
                id_batches(1), epochs, callbacks=seqrs.EarlyStopping("loss", 1), progress=False,
                checkpoint=tmp_path, resume=resume,
            )  # fmt: skip

        expected = fit(5, False)
        assert len(expected["loss"]) == 2
        with pytest.warns(UserWarning, match="ended by a callback after epoch 2"):
            assert fit(9, True) == expected


def test_the_bar_shows_the_mean_of_the_epoch_and_then_its_metrics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tqdm.auto

    shown: list[list[Any]] = []

    class Bar:
        def __init__(self, **options: Any) -> None:
            shown.append([options["initial"]])

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *error: object) -> None:
            shown[-1].append("closed")

        def set_postfix(self, values: dict[str, str], refresh: bool) -> None:
            shown[-1].append(values)

        def update(self) -> None:
            pass

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    seen: list[float] = []

    class Watch:
        def on_batch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
            seen.append(metrics["loss"])

        def on_epoch_end(self, trainer: seqrs.Trainer, metrics: Any) -> None:
            assert shown[-1][-1] == "closed"

    data = id_batches(3)
    history = seqrs.Trainer(character_model()).fit(data, 1, data, callbacks=Watch())
    means = [f"{np.mean(seen[: k + 1]):.4g}" for k in range(3)]
    assert shown[0][:4] == [0, *({"loss": mean} for mean in means)]
    assert shown[0][4]["val_loss"] == f"{history['val_loss'][0]:.4g}"
    assert shown[0][4]["loss"] == means[-1]
