"""The command `seqrs`: demo, train, sample, eval, inspect, bench.

Exit codes: 0 done; 1 it failed, with one line on stderr; 2 wrong usage; 130 Ctrl-C. With `--json`
stdout holds one JSON object and nothing else. Progress bars go to stderr, where it is a terminal.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import stat
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .characters import Plan, Report, Run
    from .models import Sequential
    from .quantized import QuantizedSequential

__all__ = ["main"]

#: Options of `train` that a run's plan keeps, beside how long it is.
PLANNED = ("cell", "embedding", "hidden", "layers", "seq", "batch", "lr", "seed")
DEFAULTS = {"out": "model.safetensors", "device": "cpu"}
#: Characters of the sample that training ends with.
SAMPLE_LENGTH = 400
#: Text drawn at 1 is as odd as the model is unsure; far below it, it falls into runs of spaces.
SAMPLE_TEMPERATURE = 0.8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = _parser()
    try:
        options = parser.parse_args(argv)
        run: Callable[[argparse.Namespace], dict[str, Any]] = options.run
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            result = run(options)
        if options.json:
            print(json.dumps(result))
        sys.stdout.flush()
    except SystemExit as exit_:  # argparse: 0 after --help, 2 for wrong usage
        return exit_.code if isinstance(exit_.code, int) else 2
    except UsageError as error:
        print(f"seqrs: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seqrs: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of stdout is gone; nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        print(f"seqrs: error: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


class UsageError(Exception):
    """Options that do not go together."""


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning as a line of the command, without the place in the source."""
    print(f"seqrs: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    else:
        text = str(error)
    text = " ".join(text.split())
    return text or type(error).__name__


# Commands.


def demo(options: argparse.Namespace) -> dict[str, Any]:
    """Train on the sources of Python's standard library."""
    from .characters import Plan, Run
    from .demo import LEARNING_RATE, PROMPT, standard_library

    _check_output(options.out)
    say = _Voice(options.json)
    library = standard_library()
    train, held_out = library.texts.train, library.texts.held_out
    say(
        f"Text: {library.train_files} source files of Python's standard library, "
        f"{len(train):,} characters; {library.held_out_files} other files, "
        f"{len(held_out):,} characters, held out"
    )
    plan = Plan(
        minutes=None if options.updates else options.minutes,
        updates=options.updates,
        lr=LEARNING_RATE,
        seed=options.seed,
    )
    run = Run(library.texts, plan, device=options.device)
    return _train(run, options, say, PROMPT)


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Train on a file."""
    from .characters import LEAST_BYTES, Plan, Run, Texts, plan_path

    _check_output(options.out)
    if options.resume and options.checkpoint is None:
        raise UsageError("--resume: expected --checkpoint DIR beside it, got none")
    say = _Voice(options.json)
    text = _read_text(options.text, LEAST_BYTES)
    texts = Texts.of(text)
    held_out = f"the last {len(texts.held_out):,}" if texts.held_out else "none"
    say(f"Text: {options.text}, {len(text):,} bytes, {held_out} held out")
    given = {name: getattr(options, name) for name in (*PLANNED, "minutes", "epochs")}
    given = {k: v for k, v in given.items() if v is not None and not isinstance(v, _Shown)}
    # A resumed run has the options it began with, where no others are asked for.
    begun = Plan.read(plan_path(options.checkpoint)) if options.resume else None
    if begun is None:
        begun = Plan(minutes=None if "epochs" in given else 1.0)
    # One way to say how long takes the other's place.
    if "epochs" in given:
        given["minutes"] = None
    elif "minutes" in given:
        given["epochs"] = None
    asked = begun.with_(**given)
    options.again = _again(options, asked)
    run = Run(
        texts,
        asked,
        device=options.device,
        checkpoint=options.checkpoint,
        resume=options.resume,
    )
    if (run.plan.batch, run.plan.seq) != (asked.batch, asked.seq):
        say(f"Short text: {run.plan.batch} rows of {run.plan.seq} steps")
    first = text[:200].decode("utf-8", "replace").split("\n")[0]
    return _train(run, options, say, first[:20] or "\n")


def _again(options: argparse.Namespace, asked: Plan) -> str:
    """The command that goes on with a run of `train`."""
    from .characters import Plan

    words = ["seqrs", "train", "--text", options.text]
    usual = Plan(minutes=1.0)
    for name in (*PLANNED, "minutes", "epochs"):
        value = getattr(asked, name)
        if value is not None and value != getattr(usual, name):
            words += [f"--{name}", f"{value}"]
    for name in ("out", "device"):
        if getattr(options, name) != DEFAULTS[name]:
            words += [f"--{name}", getattr(options, name)]
    return shlex.join([*words, "--checkpoint", options.checkpoint or "", "--resume"])


def sample(options: argparse.Namespace) -> dict[str, Any]:
    """Draw text from a model."""
    model = _load_bytes_model(options.model, options.device)
    say = _Voice(options.json)
    text = _sample(
        model,
        options.prompt,
        options.length,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed,
    )
    say(_printable(options.prompt + text))
    return {"prompt": options.prompt, "text": text, "seed": options.seed}


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Bits per character of a file under a model."""
    from .characters import bits_per_character

    model = _load_bytes_model(options.model, options.device)
    text = _read_text(options.text, 2)
    began = time.perf_counter()
    bits = bits_per_character(model, text)
    seconds = time.perf_counter() - began
    say = _Voice(options.json)
    say(f"{bits:.4f} bits per character, {len(text):,} bytes in {seconds:.1f} s")
    return {"bits_per_character": bits, "bytes": len(text), "seconds": seconds}


def inspect(options: argparse.Namespace) -> dict[str, Any]:
    """What is in a model file."""
    from . import load
    from .models import Sequential
    from .quantized import QuantizedSequential

    found = load(options.model, allow_nonfinite=True)
    if isinstance(found, QuantizedSequential):
        return _inspect_quantized(found, options)
    single = not isinstance(found, Sequential)
    model = found if isinstance(found, Sequential) else Sequential([found])
    size = os.path.getsize(options.model)
    weights = {name: list(array.shape) for name, array in found.state_dict().items()}
    say = _Voice(options.json)
    say(f"{options.model}: {'a layer' if single else 'a model'}, {size:,} bytes")
    say(model.summary())
    say(f"fingerprint {found.fingerprint}")
    for name, shape in weights.items():
        say(f"  {name:<28} {' x '.join(map(str, shape))}")
    return {
        "path": options.model,
        "bytes": size,
        "kind": "layer" if single else "model",
        "dtype": found.dtype,
        "parameters": found.num_parameters,
        "fingerprint": found.fingerprint,
        "layers": [json.loads(layer._handle.spec_json) for layer in model.layers],
        "weights": weights,
    }


def _inspect_quantized(model: QuantizedSequential, options: argparse.Namespace) -> dict[str, Any]:
    """A model of small weights: its numbers are no parameters by name."""
    size = os.path.getsize(options.model)
    say = _Voice(options.json)
    say(f"{options.model}: a model of {model.kind} weights, {size:,} bytes")
    say(repr(model))
    say(f"{model.num_parameters:,} parameters, {model.nbytes:,} bytes")
    say(f"fingerprint {model.fingerprint}")
    return {
        "path": options.model,
        "bytes": size,
        "kind": model.kind,
        "dtype": model.dtype,
        "parameters": model.num_parameters,
        "fingerprint": model.fingerprint,
        "layers": [json.loads(layer) for layer in model._handle.layers],
    }


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Time a few shapes on this machine."""
    from .selftiming import CASES, timed
    from .threads import info

    about = info()
    say = _Voice(options.json)
    say(f"seqrs {about['version']}, {about['level']}, {about['threads']} threads")
    say(f"{'':<34}{'ms/call':>10}{'steps/s':>14}{'GFLOP/s':>10}")
    results: list[dict[str, Any]] = []
    for case in CASES:
        result = timed(case, options.seconds)
        results.append(result)
        say(
            f"{result['name']:<34}{1e3 * result['seconds']:>10.3f}"
            f"{result['steps_per_second']:>14,.0f}{result['gflops']:>10.1f}"
        )
    return {"info": {name: about[name] for name in ("version", "level", "threads")},
            "results": results}  # fmt: skip


# What commands share.


class _Voice:
    """Prints for people, and nothing where stdout is for JSON."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def __call__(self, text: str, end: str = "\n") -> None:
        if not self._quiet:
            print(text, end=end, flush=True)


def _train(run: Run, options: argparse.Namespace, say: _Voice, prompt: str) -> dict[str, Any]:
    """Train, save, sample; what `demo` and `train` have in common."""
    plan: Plan = run.plan
    assert plan.updates is not None
    total = plan.updates
    layers = f", {plan.layers} layers" if plan.layers > 1 else ""
    say(
        f"Model: embedding {plan.embedding}, {plan.cell.upper()} {plan.hidden}{layers}, "
        f"{run.model.num_parameters:,} parameters"
    )
    say(f"Training: {total:,} updates of {plan.batch} rows x {plan.seq} steps")
    reports: list[Report] = []
    bar: Any = None
    begun = False

    def report(found: Report) -> None:
        reports.append(found)
        every = math.ceil(found.rounds / 25)
        if found.round % every and found.round != found.rounds:
            return
        held_out = "" if found.held_out is None else f"   held out {found.held_out:5.3f}"
        line = (
            f"{found.seconds:7.1f} s {found.updates:>8,} updates   train {found.train:5.3f}"
            f"{held_out} bits per character   {found.characters_per_second:>9,.0f} characters/s"
        )
        if bar is not None:
            bar.clear()
        say(line)
        if bar is not None:
            bar.refresh()

    def batch_done(bits: float) -> None:
        nonlocal bar, begun
        # Not before: a resumed run begins where it was stopped, and its speed counts from there.
        if not begun:
            bar, begun = _bar(total, run.trainer.steps_done - 1), True
        if bar is not None:
            bar.set_postfix({"bits": f"{bits:.3f}"}, refresh=False)
            bar.update()

    began = time.perf_counter()
    try:
        try:
            run.train(report, batch_done)
        finally:
            if bar is not None:
                bar.close()
    except KeyboardInterrupt:
        if run.has_checkpoint:
            say(f"Stopped; go on with: {options.again}")
        raise
    seconds = time.perf_counter() - began
    bits = run.held_out_bits()
    run.model.save(options.out)
    if bits is not None:
        say(f"Held out, all of it: {bits:.3f} bits per character")
    say(f"Saved: {options.out} ({os.path.getsize(options.out):,} bytes)")
    text = _sample(run.model, prompt, SAMPLE_LENGTH, temperature=SAMPLE_TEMPERATURE, seed=plan.seed)
    say(f"\nA sample, beginning with {prompt!r}:\n")
    say(_indented(_printable(prompt + text)))
    say("\nNext:")
    say(f"  seqrs sample {options.out} --prompt {prompt.strip()!r} --temperature 0.8 --seed 1")
    say(f"  seqrs inspect {options.out}")
    if options.command == "demo":
        say("  seqrs train --text FILE")
    else:
        say(f"  seqrs eval {options.out} --text FILE")
    return {
        "model": options.out,
        "parameters": run.model.num_parameters,
        "updates": run.trainer.steps_done,
        "seconds": seconds,
        "bits_per_character": bits,
        "characters_per_second": reports[-1].characters_per_second if reports else None,
        "rounds": [vars(each) for each in reports],
        "sample": prompt + text,
    }


def _bar(total: int, done: int) -> Any:
    """A tqdm bar on stderr where that is a terminal and tqdm is there, else None."""
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(
        total=total,
        initial=done,
        unit="update",
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
    )


def _sample(model: Sequential, prompt: str, length: int, **options: Any) -> str:
    """`length` bytes drawn after the prompt, as text."""
    from .generation import generate

    ids = list(prompt.encode("utf-8", "surrogateescape"))
    if not ids:
        raise ValueError("--prompt: expected at least one character, got none")
    drawn = generate(model, ids, length, **options)
    return bytes(drawn.astype("uint8")).decode("utf-8", "replace")


def _printable(text: str) -> str:
    """Without control characters, which a model may draw and a terminal would obey."""
    return "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _load_bytes_model(path: str, device: str) -> Sequential:
    from . import load
    from .characters import BYTES
    from .layers import Embedding
    from .models import Sequential

    model = load(path)
    if not isinstance(model, Sequential):
        got = f"a layer, {type(model).__name__}"
    elif not isinstance(model.layers[0], Embedding):
        got = f"one that begins with {type(model.layers[0]).__name__}"
    elif model.layers[0].num_embeddings != BYTES or model.output_size != BYTES:
        got = f"{model.layers[0].num_embeddings} ids in and {model.output_size} out"
    else:
        return model.to(device)
    raise ValueError(f"{path}: expected a model of bytes, {BYTES} ids in and out, got {got}")


def _read_text(path: str, at_least: int) -> bytes:
    """The bytes, `at_least` so many, of a file of UTF-8 text.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file; says what was found.
    """
    # A FIFO or a device is never opened: that could wait for ever.
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "something that is no regular file"
        raise ValueError(f"{path}: expected a text file, got {kind}")
    text = Path(path).read_bytes()
    if not text:
        raise ValueError(f"{path}: expected text, got an empty file")
    at = text.find(b"\0")
    if at >= 0:
        raise ValueError(f"{path}: expected UTF-8 text, got a binary file (NUL at byte {at:,})")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, got byte 0x{text[error.start]:02x} "
            f"at {error.start:,} ({error.reason})"
        ) from None
    if len(text) < at_least:
        raise ValueError(f"{path}: expected at least {at_least} bytes of text, got {len(text)}")
    return text


def _check_output(path: str) -> None:
    """Before the work, not after it: whether a model can be saved there."""
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        raise ValueError(f"--out: expected a file, got the directory {path}")
    if not folder.is_dir():
        raise ValueError(f"--out: expected a directory that exists, got {folder}")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--out: expected a directory that can be written, got {folder}")


# Arguments.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seqrs",
        description="Recurrent networks: train a character model, sample from it, look at it.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], dict[str, Any]], text: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=_Help,
        )
        added.set_defaults(run=run)
        added.add_argument(
            "--json", action="store_true", help="print one JSON object and nothing else"
        )
        return added

    found = command(
        "demo", demo, "Train a character model on the sources of Python's own standard library."
    )
    length = found.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=_minutes, default=1.0, help="how long to train")
    length.add_argument(
        "--updates", type=_count, help="train for so many updates instead, however long they take"
    )
    found.add_argument("--seed", type=_seed, default=0, help="of the initial weights")
    _add_out_and_device(found)

    found = command("train", train, "Train a character model on a file of UTF-8 text.")
    found.add_argument("--text", required=True, metavar="FILE", help="the text")
    length = found.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=_minutes, default=_shown("1"), help="how long to train")
    length.add_argument(
        "--epochs", type=_count, help="train for so many passes over the text instead"
    )
    found.add_argument(
        "--cell", choices=("lstm", "gru", "rnn"), default=_shown("lstm"), help="recurrent cell"
    )
    for name, value, text in (
        ("embedding", "64", "features of a character"),
        ("hidden", "256", "units of a recurrent layer"),
        ("layers", "1", "recurrent layers"),
        ("seq", "64", "steps that the gradient goes back"),
        ("batch", "32", "rows of a batch"),
    ):
        found.add_argument(f"--{name}", type=_count, default=_shown(value), help=text)
    found.add_argument(
        "--lr", type=_positive, default=_shown("0.004"), help="the largest learning rate"
    )
    found.add_argument("--seed", type=_seed, default=_shown("0"), help="of the initial weights")
    found.add_argument(
        "--checkpoint", metavar="DIR", help="keep checkpoints there, every 30 s and on Ctrl-C"
    )
    found.add_argument(
        "--resume", action="store_true", help="go on from the newest intact checkpoint"
    )
    _add_out_and_device(found)

    found = command("sample", sample, "Draw text from a model.")
    found.add_argument("model", metavar="MODEL", help="a model file of demo or train")
    found.add_argument("--prompt", default="def ", help="what the text begins with")
    found.add_argument("--length", type=_whole, default=500, help="bytes to draw")
    found.add_argument(
        "--temperature", type=_at_least_0, default=0.8, help="below 1 safer, above 1 wilder"
    )
    found.add_argument("--top-k", type=_count, help="draw among the K likeliest bytes only")
    found.add_argument(
        "--top-p", type=_share, help="draw among the likeliest that add up to P only"
    )
    found.add_argument("--seed", type=_seed, default=0, help="the same seed gives the same text")
    _add_device(found)

    found = command("eval", evaluate, "Bits per character of a text under a model.")
    found.add_argument("model", metavar="MODEL", help="a model file of demo or train")
    found.add_argument("--text", required=True, metavar="FILE", help="a file of UTF-8 text")
    _add_device(found)

    found = command("inspect", inspect, "Structure, parameters and sizes of a model file.")
    found.add_argument("model", metavar="MODEL", help="a model file")

    found = command("bench", bench, "Time a few shapes of LSTM and GRU on this machine.")
    found.add_argument("--seconds", type=_positive, default=0.5, help="time for each shape")
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that are values."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class _Version(argparse.Action):
    """Prints the version; seqrs is loaded only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from . import __version__

        print(f"seqrs {__version__}")
        parser.exit()


class _Shown:
    """A default that `--help` shows and that stands for "not given"."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def _shown(text: str) -> Any:
    return _Shown(text)


def _add_out_and_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", default=DEFAULTS["out"], metavar="FILE", help="where the model is saved"
    )
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default=DEFAULTS["device"], help="where to compute: cpu, gpu, gpu:1 and so on"
    )


def _number(text: str, expected: str, fits: Callable[[float], bool]) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not fits(number) or not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return number


def _integer(text: str, expected: str, fits: Callable[[int], bool]) -> int:
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or not fits(number):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return number


def _count(text: str) -> int:
    return _integer(text, "an integer of at least 1", lambda n: 1 <= n < 2**31)


def _whole(text: str) -> int:
    return _integer(text, "an integer of at least 0", lambda n: 0 <= n < 2**31)


def _seed(text: str) -> int:
    return _integer(text, "an integer in 0..2**64", lambda n: 0 <= n < 2**64)


def _positive(text: str) -> float:
    return _number(text, "a number above 0", lambda x: x > 0)


def _minutes(text: str) -> float:
    return _number(text, "a number of minutes above 0", lambda x: x > 0)


def _at_least_0(text: str) -> float:
    return _number(text, "a number of at least 0", lambda x: x >= 0)


def _share(text: str) -> float:
    return _number(text, "a number in (0, 1]", lambda x: 0 < x <= 1)
