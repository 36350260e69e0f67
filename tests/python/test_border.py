"""What crosses the border between Python and the compiled part, and that panics do not."""

from __future__ import annotations

import copy
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqrs
from cases import assert_same, character_model, id_batches, python
from seqrs import _seqrs
from tolerances import assert_same_bits


class TestMasks:
    def test_any_byte_but_zero_is_true(self) -> None:
        layer = seqrs.LSTM(3, 5)
        x = np.ones((2, 4, 3), np.float32)
        bytes_ = np.array([[255, 2, 0, 128], [1, 0, 64, 3]], np.uint8)
        expected = layer(x, mask=bytes_ != 0)[0]
        assert_same_bits(layer(x, mask=bytes_.view(bool))[0], expected)
        assert_same_bits(layer(x, mask=np.asfortranarray(bytes_).view(bool))[0], expected)
        strided = np.repeat(bytes_, 2, axis=1)[:, ::2].view(bool)
        assert_same_bits(layer(x, mask=strided)[0], expected)


class TestNumbersBeyondTheDtype:
    def test_in_padding_they_have_no_influence_and_raise_nothing(self) -> None:
        layer = seqrs.GRU(3, 5)
        x = np.zeros((2, 4, 3))
        expected = layer(x, lengths=[4, 2])[0]
        x[1, 2:] = 1e300
        with warnings.catch_warnings(), np.errstate(all="raise"):
            warnings.simplefilter("error")
            assert_same_bits(layer(x, lengths=[4, 2])[0], expected)

    def test_in_live_steps_they_are_infinite(self) -> None:
        layer = seqrs.Activation("relu")
        assert layer(np.array([[[1e300, 1.0]]]))[0].tolist() == [[[1e300, 1.0]]]
        norm = seqrs.Linear(1, 1)
        norm.load_state_dict({"weight": [[1.0]], "bias": [0.0]})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert norm(np.array([[[1e300], [2.0]]]))[0].tolist() == [[[np.inf], [2.0]]]


@pytest.mark.skipif(os.name != "posix", reason="paths are bytes on POSIX alone")
class TestPathsThatAreNotUtf8:
    NAME = os.fsdecode(b"caf\xe9.safetensors")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / os.fsdecode(b"caf\xe9")
        try:
            folder.mkdir()
        except OSError:
            pytest.skip("this file system takes no such names")
        return folder

    def test_layers_and_models(self, folder: Path) -> None:
        for value in (seqrs.LSTM(2, 3), character_model()):
            value.save(folder / self.NAME)
            assert seqrs.load(folder / self.NAME) == value
            assert seqrs.load(str(folder / self.NAME)) == value
        assert os.listdir(os.fsencode(folder)) == [b"caf\xe9.safetensors"]
        with pytest.raises(seqrs.ModelFileNotFoundError, match="none"):
            seqrs.load(folder / os.fsdecode(b"none\xe9"))

    def test_checkpoints(self, folder: Path) -> None:
        batches = id_batches(2)
        runs: list[Any] = []
        for epochs, resume in ((1, False), (2, True)):
            model = character_model()
            trainer = seqrs.Trainer(model)
            trainer.fit(batches, epochs, progress=False, checkpoint=folder, resume=resume)
            runs.append(model)
        whole = character_model()
        seqrs.Trainer(whole).fit(batches, 2, progress=False)
        assert_same(runs[1].state_dict(), whole.state_dict())


class TestPositions:
    """A message says where something is wrong by indices of the caller's own array."""

    @pytest.mark.parametrize("batch_first", [True, False])
    def test_ids_and_targets_of_a_sequence(self, batch_first: bool) -> None:
        layers = [
            seqrs.Embedding(9, 3),
            seqrs.GRU(3, 4, batch_first=batch_first),
            seqrs.Linear(4, 9),
        ]
        model = seqrs.Sequential(layers)
        trainer = seqrs.Trainer(model)
        good = np.zeros((2, 3) if batch_first else (3, 2), np.int64)
        bad = good.copy()
        at = (1, 2) if batch_first else (2, 1)
        bad[at] = 9
        place = re.escape(f"[{at[0]}, {at[1]}]")
        for attempt in (
            lambda: model(bad),
            lambda: model.forward(bad),
            lambda: trainer.step(bad, good),
        ):
            with pytest.raises(seqrs.ShapeError, match=rf"^x{place}: .*an id in 0\.\.9, got 9"):
                attempt()
        with pytest.raises(seqrs.ShapeError, match=rf"^y{place}: .*a class in 0\.\.9, got 9"):
            trainer.step(good, bad)
        assert trainer.steps_done == 0
        # Where it is not live it is not looked at.
        lengths = [3, 2]
        trainer.step(bad, bad, lengths)
        assert trainer.steps_done == 1

    def test_ids_of_a_step(self) -> None:
        model = character_model(vocab=9)
        with pytest.raises(seqrs.ShapeError, match=r"^x_t\[1\]: .*got 9"):
            model.step([0, 9])

    def test_one_target_a_row(self) -> None:
        model = seqrs.Sequential([seqrs.Embedding(9, 3), seqrs.Last(), seqrs.Linear(3, 4)])
        trainer = seqrs.Trainer(model)
        ids = np.zeros((3, 2), np.int64)
        with pytest.raises(seqrs.ShapeError, match=r"^y\[2\]: .*a class in 0\.\.4, got -1"):
            trainer.step(ids, [0, 3, -1])
        # A row without a live step has no target.
        trainer.step(ids, [0, 3, -1], lengths=[1, 2, 0])

    def test_shares(self) -> None:
        layer = seqrs.Linear(2, 3)
        trainer = seqrs.Trainer(layer, loss=seqrs.BinaryCrossEntropy())
        y = np.zeros((2, 4, 3))
        y[1, 2, 0] = np.nan
        with pytest.raises(seqrs.ShapeError, match=r"^y\[1, 2, 0\]: .*in \[0, 1\], got NaN"):
            trainer.step(np.zeros((2, 4, 2)), y)
        trainer.step(np.zeros((2, 4, 2)), y, lengths=[4, 2])


class TestThreads:
    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity and fork")
    def test_a_default_is_put_back_as_a_default(self) -> None:
        code = """
import os, seqrs
from cases import in_child
def on_one_processor():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return seqrs.get_num_threads()
before = seqrs.get_num_threads()
with seqrs.num_threads(7):
    assert in_child(on_one_processor) == seqrs.get_num_threads() == 7
    with seqrs.num_threads(5):
        assert seqrs.get_num_threads() == 5
    assert seqrs.get_num_threads() == 7
assert seqrs.get_num_threads() == before
print(in_child(on_one_processor))
"""
        clean = {"SEQRS_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
        unset = f"import os\nfor name in {list(clean)}: os.environ.pop(name, None)\n"
        found = python(unset + code)
        assert found.stdout.strip() == "1", found.stderr


class TestPanics:
    def test_a_bug_is_an_error_and_leaves_the_module_usable(self) -> None:
        layer = seqrs.LSTM(3, 5)
        x = np.ones((2, 4, 3), np.float32)
        want, _ = layer(x)
        message = "got a bug in seqrs, please report it: one and one are three"
        for _ in range(2):
            with pytest.raises(seqrs.InternalError, match=message) as caught:
                _seqrs._panic("one and one are three")
            again = pickle.loads(pickle.dumps(caught.value))
            assert (type(again), str(again)) == (seqrs.InternalError, str(caught.value))
            assert_same_bits(layer(x)[0], want)


class Tagged(seqrs.Linear):
    """A user's subclass, which adds attributes."""


class TaggedModel(seqrs.Sequential):
    """The same of a model."""


COPIES = [
    pytest.param(copy.copy, id="copy"),
    pytest.param(copy.deepcopy, id="deepcopy"),
    pytest.param(lambda value: pickle.loads(pickle.dumps(value)), id="pickle"),
]


class TestCopies:
    @pytest.mark.parametrize("copied", COPIES[1:])
    def test_a_layer_beside_its_model_is_still_its_layer(self, copied: Any) -> None:
        model = character_model()
        pair = copied((model, model.layers[1], model))
        assert pair[1] is pair[0].layers[1]
        assert pair[2] is pair[0]
        assert pair[0] == model
        assert pair[0] is not model

    @pytest.mark.parametrize("copied", COPIES)
    def test_attributes_of_a_subclass_come_along(self, copied: Any) -> None:
        layer = Tagged(2, 3)
        layer.tag, layer.self = ["ours"], layer  # type: ignore[attr-defined]
        model = TaggedModel([layer])
        model.name = "theirs"  # type: ignore[attr-defined]
        other = copied(model)
        assert type(other) is TaggedModel
        assert other == model
        assert other.name == "theirs"
        assert type(other[0]) is Tagged
        assert other[0].tag == ["ours"]
        if copied is not copy.copy:
            assert other[0].tag is not layer.tag  # type: ignore[attr-defined]
            assert other[0].self is other[0]

    def test_a_layer_without_attributes_has_none(self) -> None:
        layer = pickle.loads(pickle.dumps(seqrs.LSTM(2, 3)))
        assert not hasattr(layer, "__dict__")


class TestWords:
    def test_loading_tells_what_was_left_out(self) -> None:
        layer = seqrs.Linear(2, 3)
        assert layer.load_state_dict(layer.state_dict()) == ([], [])
        found = layer.load_state_dict({"bias": [1, 2, 3], "more": 1, "b": 2}, strict=False)
        assert isinstance(found, seqrs.IncompatibleKeys)
        assert found.missing_keys == ["weight"]
        assert found.unexpected_keys == ["more", "b"]
        model = character_model()
        keys = model.load_state_dict({"9.weight": 1}, strict=False)
        assert keys == (list(model.state_dict()), ["9.weight"])

    def test_a_summary_says_what_every_layer_gives(self) -> None:
        layers = [
            seqrs.LSTM(4, 6, bidirectional=True),
            seqrs.Dropout(0.1),
            seqrs.Last(),
            seqrs.Linear(12, 5),
            seqrs.Activation("softmax"),
        ]
        lines = seqrs.Sequential(layers).summary().splitlines()[2:7]
        sizes = [re.sub(r"^\d\s+\S+\(.*?\)", "", line).split()[0] for line in lines]
        assert sizes == ["12", "12", "12", "5", "5"]

    def test_the_module_shows_what_is_for_users(self) -> None:
        names = dir(seqrs)
        assert {"TrainStep", "Trainer", "data"} <= set(names)
        assert not {"Any", "TYPE_CHECKING", "annotations"} & set(names)
        model = character_model()
        (x, y), *_ = id_batches(1)
        assert isinstance(seqrs.Trainer(model).step(x, y), seqrs.TrainStep)
