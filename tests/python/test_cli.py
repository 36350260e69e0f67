"""The command `seqrs`: what it makes, what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import seqrs

SMALL = ["--embedding", "8", "--hidden", "16", "--seq", "16", "--batch", "8", "--seed", "1"]
TEXT = "It was the best of times, it was the worst of times.\n" * 120


def run(*arguments: str, cwd: Path | None = None, timeout: float = 60.0) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "seqrs", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        check=False,
    )


def fine(*arguments: str, cwd: Path | None = None) -> Any:
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a model of it."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(TEXT)
    fine("train", "--text", "text.txt", "--epochs", "12", *SMALL, "--lr", "0.02", cwd=folder)
    return folder


class TestTrain:
    def test_it_saves_a_model_that_has_learnt(self, trained: Path) -> None:
        model = seqrs.load(trained / "model.safetensors")
        assert isinstance(model, seqrs.Sequential)
        names = [type(layer).__name__ for layer in model.layers]
        assert names == ["Embedding", "LSTM", "Linear"]
        bits = json.loads(
            fine("eval", "model.safetensors", "--text", "text.txt", "--json", cwd=trained).stdout
        )["bits_per_character"]
        assert bits < 3.0  # 8 before, about 4 by the letters' frequencies

    def test_json_is_one_object_and_nothing_else(self, trained: Path, tmp_path: Path) -> None:
        done = fine(
            "train", "--text", str(trained / "text.txt"), "--epochs", "2", *SMALL, "--json",
            cwd=tmp_path,
        )  # fmt: skip
        found = json.loads(done.stdout)
        assert found["updates"] > 0
        assert len(found["rounds"]) == 2
        assert found["model"] == "model.safetensors"
        assert (tmp_path / "model.safetensors").is_file()

    def test_it_tells_how_it_goes(self, trained: Path, tmp_path: Path) -> None:
        done = fine(
            "train", "--text", str(trained / "text.txt"), "--epochs", "2", *SMALL, cwd=tmp_path
        )
        assert "bits per character" in done.stdout
        assert "characters/s" in done.stdout
        assert "model.safetensors" in done.stdout

    def test_the_same_seed_makes_the_same_model(self, trained: Path, tmp_path: Path) -> None:
        text = str(trained / "text.txt")
        for name in ("one", "two"):
            fine("train", "--text", text, "--epochs", "1", *SMALL, "--out", name, cwd=tmp_path)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

    @pytest.mark.parametrize("cell", ["gru", "rnn"])
    def test_other_cells(self, cell: str, trained: Path, tmp_path: Path) -> None:
        text = str(trained / "text.txt")
        fine("train", "--text", text, "--epochs", "1", *SMALL, "--cell", cell, cwd=tmp_path)
        model = seqrs.load(tmp_path / "model.safetensors")
        assert type(model.layers[1]).__name__.lower() == cell  # type: ignore[union-attr]

    def test_minutes(self, trained: Path, tmp_path: Path) -> None:
        began = time.monotonic()
        text = str(trained / "text.txt")
        fine("train", "--text", text, "--minutes", "0.02", *SMALL, cwd=tmp_path)
        assert time.monotonic() - began < 20

    def test_interrupted_and_resumed_it_makes_the_same_model(
        self, trained: Path, tmp_path: Path
    ) -> None:
        text = str(trained / "text.txt")
        options = ["train", "--text", text, "--epochs", "60", *SMALL]
        fine(*options, "--out", "whole", cwd=tmp_path)
        cut = [*options, "--out", "cut", "--checkpoint", "run"]
        process = subprocess.Popen(
            [sys.executable, "-m", "seqrs", *cut],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 30
        while time.monotonic() < end and process.poll() is None:
            if (tmp_path / "run").is_dir() and list((tmp_path / "run").glob("epoch-*.seqrs")):
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        # Dozens of rounds were left: one that had ended in time would have deaf ears.
        assert process.returncode == 130, (out, err)
        assert err.strip() == "seqrs: interrupted"
        line = next(line for line in out.splitlines() if line.startswith("Stopped; go on with: "))
        again = shlex.split(line.removeprefix("Stopped; go on with: "))
        assert again[:4] == ["seqrs", "train", "--text", text]
        assert again[-3:] == ["--checkpoint", "run", "--resume"]
        assert not (tmp_path / "cut").exists()
        fine(*again[1:], cwd=tmp_path)
        assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()

    def test_ctrl_c_before_there_is_a_checkpoint_promises_none(
        self, trained: Path, tmp_path: Path
    ) -> None:
        """While the speed is measured nothing has been trained that could be gone on with."""
        process = subprocess.Popen(
            [sys.executable, "-m", "seqrs", "train", "--text", str(trained / "text.txt"),
             "--minutes", "60", *SMALL, "--checkpoint", "run"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert ("Stopped" in out) == bool(list((tmp_path / "run").glob("epoch-*.seqrs")))

    def test_a_resumed_run_may_be_longer_and_nothing_else(
        self, trained: Path, tmp_path: Path
    ) -> None:
        text = str(trained / "text.txt")
        first = ["train", "--text", text, "--checkpoint", "run", "--json"]
        fine(*first, "--epochs", "2", *SMALL, cwd=tmp_path)
        done = json.loads(fine(*first, "--epochs", "4", "--resume", cwd=tmp_path).stdout)
        assert [each["round"] for each in done["rounds"]] == [3, 4]
        assert done["updates"] % 4 == 0
        before = (tmp_path / "run" / "plan.json").read_bytes()
        for options, words in (
            (["--epochs", "3"], "--resume: expected --epochs 4 or more, .* got --epochs 3"),
            (["--hidden", "17"], "--resume: expected --hidden 16, .* got --hidden 17"),
            (["--cell", "gru", "--lr", "1"], "expected --cell lstm --lr 0.004, .* --cell gru --lr"),
            (["--minutes", "1"], "--resume: expected --epochs 4, .* got --minutes 1"),
            (["--text", "other"], r"data: .*corpus\.checksum: \d+, now \d+"),
        ):
            (tmp_path / "other").write_text(TEXT.replace("b", "w"))
            failed = run(*first, "--resume", *options, cwd=tmp_path)
            assert failed.returncode == 1, failed.stdout
            assert re.search(words, failed.stderr), failed.stderr
            assert len(failed.stderr) < 300, failed.stderr
            assert (tmp_path / "run" / "plan.json").read_bytes() == before
        failed = run(*first, "--epochs", "2", *SMALL, cwd=tmp_path)
        assert "--checkpoint: expected an empty directory or --resume, got run" in failed.stderr

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ('{"cell": "nope"}', "cell: .*'lstm' or 'gru' or 'rnn', got 'nope'"),
            ('{"seq": "64"}', "seq: expected an integer, got '64'"),
            ('{"hidden": 0}', "hidden: .*got 0"),
            ('{"lr": null}', "lr: .*got None"),
            ('{"minutes": "x"}', "minutes: .*got 'x'"),
            ('{"fast": 1}', "option: .*got 'fast'"),
            ("[1]", "expected a JSON object, got list"),
            ("{", "line 1"),
            ("\udcff", "utf-8|decode"),
        ],
    )
    def test_a_plan_that_is_none(
        self, content: str, words: str, trained: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "plan.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        failed = run(
            "train", "--text", str(trained / "text.txt"), "--checkpoint", "run", "--resume",
            cwd=tmp_path,
        )  # fmt: skip
        assert failed.returncode == 1
        assert re.search(f"plan.json: expected the plan of a run, but .*{words}", failed.stderr)


class TestProgress:
    def test_a_resumed_run_counts_from_where_it_goes_on(
        self, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else the bar takes all updates of before for those of its first second."""
        import tqdm
        from seqrs import cli

        monkeypatch.chdir(tmp_path)
        (tmp_path / "tty").touch()
        made: list[dict[str, Any]] = []

        class Bar(tqdm.tqdm):  # type: ignore[type-arg]
            def __init__(self, **options: Any) -> None:
                made.append(options)
                super().__init__(**options, disable=True)

        monkeypatch.setattr(tqdm, "tqdm", Bar)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        command = ["train", "--text", str(trained / "text.txt"), *SMALL, "--checkpoint", "run"]
        assert cli.main([*command, "--epochs", "1"]) == 0
        assert cli.main([*command, "--epochs", "3", "--resume"]) == 0
        assert [each["initial"] for each in made] == [0, made[0]["total"]]
        assert made[1]["total"] == 3 * made[0]["total"]


class TestDemo:
    def test_as_many_updates_as_were_asked_for(self, trained: Path) -> None:
        """Also where they do not go up in rounds."""
        from seqrs.characters import Plan, Run, Texts

        for updates in (1, 11, 40, 47):
            plan = Plan(embedding=4, hidden=4, seq=8, batch=4, updates=updates)
            found = Run(Texts.of((trained / "text.txt").read_bytes()), plan)
            reports: list[Any] = []
            found.train(reports.append)
            assert found.trainer.steps_done == updates
            assert [each.round for each in reports] == list(range(1, found.rounds + 1))
            assert reports[-1].updates == updates

    def test_a_tiny_one(self, tmp_path: Path) -> None:
        done = run("demo", "--updates", "3", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["updates"] == 3
        assert 2 < found["bits_per_character"] < 8
        assert found["sample"].startswith("def ")
        assert isinstance(seqrs.load(tmp_path / "model.safetensors"), seqrs.Sequential)

    def test_minutes(self, tmp_path: Path) -> None:
        done = run("demo", "--minutes", "0.02", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "bits per character" in done.stdout
        assert "seqrs sample" in done.stdout


class TestSample:
    def test_it_continues_the_prompt(self, trained: Path) -> None:
        options = ["sample", "model.safetensors", "--prompt", "It was", "--length", "40"]
        first = fine(*options, cwd=trained).stdout
        assert first.startswith("It was")
        assert fine(*options, cwd=trained).stdout == first
        assert fine(*options, "--seed", "2", cwd=trained).stdout != first
        found = json.loads(fine(*options, "--json", cwd=trained).stdout)
        assert found["prompt"] + found["text"] == first.removesuffix("\n")
        assert len(found["text"].encode()) == 40

    def test_options(self, trained: Path) -> None:
        options = ["sample", "model.safetensors", "--length", "30", "--prompt", "it was "]
        for more in (["--temperature", "0"], ["--top-k", "3"], ["--top-p", "0.5"]):
            fine(*options, *more, cwd=trained)
        one = fine(*options, "--top-k", "1", cwd=trained).stdout
        assert fine(*options, "--temperature", "0", cwd=trained).stdout == one

    def test_a_prompt_of_any_script(self, trained: Path) -> None:
        done = fine(
            "sample", "model.safetensors", "--prompt", "Größe ✓", "--length", "3", cwd=trained
        )
        assert done.stdout.startswith("Größe ✓")


class TestInspect:
    def test_a_model(self, trained: Path) -> None:
        model = seqrs.load(trained / "model.safetensors")
        text = fine("inspect", "model.safetensors", cwd=trained).stdout
        assert model.fingerprint in text
        assert "weight_hh_l0" in text
        found = json.loads(fine("inspect", "model.safetensors", "--json", cwd=trained).stdout)
        assert found["kind"] == "model"
        assert found["parameters"] == model.num_parameters
        assert [layer["kind"] for layer in found["layers"]] == ["embedding", "lstm", "linear"]
        shapes = {name: list(p.shape) for name, p in model.state_dict().items()}
        assert found["weights"] == shapes

    def test_a_layer(self, tmp_path: Path) -> None:
        seqrs.GRU(2, 3).save(tmp_path / "layer")
        found = json.loads(fine("inspect", "layer", "--json", cwd=tmp_path).stdout)
        assert (found["kind"], found["parameters"]) == ("layer", 3 * 3 * (2 + 3 + 1))


class TestHelp:
    @pytest.mark.parametrize(
        "command", [[], ["demo"], ["train"], ["sample"], ["eval"], ["inspect"], ["bench"]]
    )
    def test_help(self, command: list[str]) -> None:
        text = fine(*command, "--help").stdout
        assert "usage: seqrs" in text
        if command:
            assert "--json" in text
        assert "==SUPPRESS==" not in text
        assert "object at 0x" not in text

    def test_version(self) -> None:
        assert fine("--version").stdout == f"seqrs {seqrs.__version__}\n"

    def test_the_script_is_installed(self) -> None:
        script = Path(sys.executable).with_name("seqrs")
        if not script.exists():
            pytest.skip("the package was put on the path, not installed")
        done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"seqrs {seqrs.__version__}\n"


#: (arguments, what the line on stderr says)
FAILURES: dict[str, tuple[list[str], str]] = {
    "no text": (["train", "--text", "missing.txt"], r"missing\.txt: No such file"),
    "text a directory": (["train", "--text", "."], "expected a text file, got a directory"),
    "text empty": (["train", "--text", "empty"], "empty: expected text, got an empty file"),
    "text tiny": (["train", "--text", "tiny"], "at least 64 bytes.*got 3"),
    "text binary": (["train", "--text", "binary"], "binary: expected UTF-8 text"),
    "text latin": (["train", "--text", "latin"], "latin: expected UTF-8 text, got byte 0xfc"),
    "text a fifo": (["train", "--text", "fifo"], "fifo: expected a text file"),
    "out a directory": (["train", "--text", "text", "--out", "."], "--out: .*directory"),
    "out nowhere": (["train", "--text", "text", "--out", "no/model"], "--out: .*got no"),
    "another device": (
        ["train", "--text", "text", "--device", "tpu"],
        "device: expected .*cpu.*gpu.*tpu",
    ),
    "no model": (["sample", "missing.safetensors"], "missing.safetensors"),
    "model a text": (["sample", "text"], "text.*expected .*got"),
    "model empty": (["inspect", "empty"], "empty.*expected .*got 0 bytes"),
    "model a directory": (["inspect", "."], "expected .*got a directory"),
    "model a layer": (["sample", "layer"], "layer: expected a model of bytes"),
    "model of another vocabulary": (["eval", "other", "--text", "text"], "other: expected a model"),
    "eval of an empty text": (["eval", "model", "--text", "empty"], "empty: expected text"),
    "no prompt": (["sample", "model", "--prompt", ""], "--prompt: "),
}

USAGE: dict[str, tuple[list[str], str]] = {
    "no command": ([], "COMMAND"),
    "unknown command": (["fly"], "fly"),
    "unknown option": (["demo", "--fast"], "--fast"),
    "train without text": (["train"], "--text"),
    "resume alone": (["train", "--text", "text", "--resume"], "--resume: .*--checkpoint"),
    "hidden 0": (["train", "--text", "text", "--hidden", "0"], "--hidden: .*got '0'"),
    "hidden 1.5": (["train", "--text", "text", "--hidden", "1.5"], "--hidden: .*got '1.5'"),
    "minutes -1": (["demo", "--minutes", "-1"], "--minutes: "),
    "minutes nan": (["demo", "--minutes", "nan"], "--minutes: .*got 'nan'"),
    "both lengths": (["train", "--text", "t", "--minutes", "1", "--epochs", "2"], "not allowed"),
    "cell": (["train", "--text", "text", "--cell", "qrnn"], "--cell: .*qrnn"),
    "temperature -1": (["sample", "model", "--temperature", "-1"], "--temperature: .*got '-1'"),
    "top-p 2": (["sample", "model", "--top-p", "2"], "--top-p: .*got '2'"),
    "seed x": (["sample", "model", "--seed", "x"], "--seed: .*got 'x'"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every wrong kind."""
    found = tmp_path_factory.mktemp("wrong")
    (found / "text").write_text(TEXT)
    (found / "empty").write_bytes(b"")
    (found / "tiny").write_bytes(b"abc")
    (found / "binary").write_bytes(b"abc\0def" * 100)
    (found / "latin").write_bytes("über".encode("latin-1") * 100)
    os.mkfifo(found / "fifo")
    seqrs.GRU(2, 3).save(found / "layer")
    for name, vocab in (("model", 256), ("other", 5)):
        layers = [seqrs.Embedding(vocab, 2), seqrs.RNN(2, 3), seqrs.Linear(3, vocab)]
        seqrs.Sequential(layers).save(found / name)
    return found


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_line_and_exit_code_1(name: str, folder: Path) -> None:
    arguments, pattern = FAILURES[name]
    before = sorted(os.listdir(folder))
    for more in ([], ["--json"]):
        done = run(*arguments, *more, cwd=folder)
        assert done.returncode == 1, (done.stdout, done.stderr)
        assert done.stderr.startswith("seqrs: error: ")
        assert done.stderr.count("\n") == 1
        assert re.search(pattern, done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        if more:
            assert done.stdout == ""
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_exit_code_2(name: str, folder: Path) -> None:
    arguments, pattern = USAGE[name]
    done = run(*arguments, cwd=folder)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert re.search(pattern, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(trained: Path) -> None:
    sample = f"{sys.executable} -m seqrs sample model.safetensors --prompt It --length 200000"
    command = f"{sample} | head -c 10"
    done = subprocess.run(
        command, shell=True, cwd=trained, capture_output=True, text=True, timeout=60, check=False
    )
    assert len(done.stdout) == 10
    assert done.stdout.startswith("It")
    assert done.stderr == ""
