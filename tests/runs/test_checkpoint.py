"""A training stopped at any step and gone on with ends in the same bits; its file is whole and checked."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graphprune import contrast, data, models, trace, train
from graphprune.encoders import encoder
from graphprune.runs import checkpoint, store
from graphprune.runs.checkpoint import Checkpoint, Clock, Paused

RECIPE = train.Recipe(epochs=1.4, lr=0.05, batch_size=256, warmup=0.2)  # 7 steps, 5 an epoch


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits", device="cpu")


def dropping(seed: int) -> nn.Module:
    """A network whose training draws random numbers of its own."""
    return nn.Sequential(models.seeded("tiny_cnn", seed, in_channels=1), nn.Dropout(0.3))


def in_pieces(start: Any, path: Path, pieces: int = 50) -> int:
    """Call `start(checkpoint)` with no time at all until it ends; how often it was stopped."""
    for stopped in range(pieces):
        try:
            start(Checkpoint(path, Clock(0)))
        except Paused:
            continue
        return stopped
    raise AssertionError("it makes no progress")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stopped_after_every_step_a_training_ends_in_the_same_bits(
    digits: data.Dataset, tmp_path: Path, precision: Any
) -> None:
    recipe = train.Recipe(epochs=1.4, lr=0.05, batch_size=256, warmup=0.2, precision=precision)
    whole, pieces = dropping(0), []
    history = train.fit(whole, digits, recipe, seed=5, device="cpu")

    def start(point: Checkpoint) -> None:
        pieces[:] = [model := dropping(0)]
        assert train.fit(model, digits, recipe, seed=5, device="cpu", checkpoint=point) == history

    assert in_pieces(start, tmp_path / "net") == 7
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), pieces[0].state_dict().values(), strict=True))


def test_contrastive_training_stopped_after_every_epoch_ends_in_the_same_bits(tmp_path: Path) -> None:
    net = models.tiny_cnn()
    traced = trace(net, torch.zeros(1, 1, 8, 8))
    indices = torch.randint(10, (64, len(traced.groups)), generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"indices": indices, "epochs": 3, "seed": 1}

    def fresh() -> encoder.GraphEncoder:
        return encoder.GraphEncoder.seeded(0, traced.feature_index.shape[1], hidden=8)

    whole, found = fresh(), []
    history = contrast.fit(whole, traced, net, **options)

    def start(point: Checkpoint) -> None:
        found[:] = [one := fresh()]
        assert contrast.fit(one, traced, net, checkpoint=point, **options) == history

    assert in_pieces(start, tmp_path / "encoder") == 3
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), found[0].state_dict().values(), strict=True))


def test_a_state_of_another_training_is_not_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(Paused, match="net A, step 3"):
        Checkpoint(tmp_path / "net", Clock(0), "net A", known="A").offer(lambda: {"step": 3})
    assert Checkpoint(tmp_path / "net", known="B").load() is None
    assert Checkpoint(tmp_path / "net", known="A").load() == {"step": 3}


def test_the_time_of_earlier_pieces_and_of_what_others_did_for_it_counts(tmp_path: Path) -> None:
    point = Checkpoint(tmp_path / "net", Clock(0))
    point.add(100.0, 30.0)
    with pytest.raises(Paused):
        point.offer(lambda: {"step": 1})
    again = Checkpoint(tmp_path / "net")
    again.load()
    assert 100 <= again.seconds < 200
    assert 30 <= again.core_seconds < 130


def state() -> dict[str, Any]:
    """What a training's state may hold: tensors of any precision, numbers as keys, tuples, and the living tensors twice."""
    weight = torch.randn(64, 33, generator=torch.Generator().manual_seed(0))
    tensors = {"double": weight.double(), "half": weight.bfloat16(), "bytes": torch.arange(5, dtype=torch.uint8)}
    nested = {"optimizer": {0: {"momentum_buffer": weight, "step": 3}, 7: None}, "pair": (1, [2.5, "x", True]), "none": []}
    return {"weight": weight, "view": weight.T, "empty": torch.zeros(0, 3), "number": torch.tensor(1.5), **tensors, **nested}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def test_what_is_written_is_read_bit_for_bit_from_one_safetensors_file(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "x", state())
    assert same(checkpoint.read(tmp_path / "x"), state())
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert checkpoint.read(tmp_path / "y") is None


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        checkpoint.write(tmp_path / "x", {"function": print})
    assert not (tmp_path / "x").exists()


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    checkpoint.write(path, state())
    content = path.read_bytes()
    for place in [*range(0, 600, 7), *range(600, len(content), 997), len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.warns(UserWarning, match="corrupted, so it is made again"):
            assert checkpoint.read(path) is None
    for length in (0, 5, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.warns(UserWarning, match="corrupted, so it is made again"):
            assert checkpoint.read(path) is None


def test_a_process_killed_while_writing_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.write(tmp_path / "x", {"step": 1})

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(tmp_path / "x", {"step": 2})
    monkeypatch.undo()
    assert checkpoint.read(tmp_path / "x") == {"step": 1}


def test_the_unused_fields_of_a_recipe_leave_its_digest_as_it_was() -> None:
    """Results stored before `precision` and `distil` were added are still known."""
    before = "14bd84d1c96a7c36dbe96796f440393150a20eb85f511f7adf59cae39540ddcd"
    assert store.digest(train.Recipe(epochs=1.0, lr=0.1, batch_size=64)) == before
    for changes in ({"precision": "bfloat16"}, {"distil": True}):
        assert store.digest(train.Recipe(epochs=1.0, lr=0.1, batch_size=64, **changes)) != before  # type: ignore[arg-type]


def test_one_piece_of_work_gets_done_however_short_the_time() -> None:
    clock = Clock(0)
    clock.begin("first")
    with pytest.raises(Paused, match="second"):
        clock.begin("second")
    for _ in range(3):
        Clock().begin("there is no end to this one's time")
