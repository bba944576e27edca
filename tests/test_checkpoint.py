"""A training stopped at any step and gone on with ends in the same bits, and what is carried is small and checked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graphprune import checkpoint, contrast, data, encoder, graph, models, train
from graphprune.checkpoint import PART, Checkpoint, Clock, Paused

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


def test_stopped_after_every_step_a_training_ends_in_the_same_bits(digits: data.Dataset, tmp_path: Path) -> None:
    whole, pieces = dropping(0), []
    history = train.fit(whole, digits, RECIPE, seed=5, device="cpu")

    def start(point: Checkpoint) -> None:
        pieces[:] = [model := dropping(0)]
        assert train.fit(model, digits, RECIPE, seed=5, device="cpu", checkpoint=point) == history

    assert in_pieces(start, tmp_path / "net") == 7
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), pieces[0].state_dict().values(), strict=True))


def test_contrastive_training_stopped_after_every_epoch_ends_in_the_same_bits(tmp_path: Path) -> None:
    net = models.tiny_cnn()
    traced = graph.trace(net, torch.zeros(1, 1, 8, 8))
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


def large_state(width: int = 1024) -> dict[str, Any]:
    """The state of a network of 4 million parameters: 32 MiB."""
    generator = torch.Generator().manual_seed(0)
    weight, momentum = (torch.randn(4 * width, width, generator=generator) for _ in range(2))
    model = {"weight": weight, "bias": torch.randn(width, generator=generator)}
    return {"model": model, "optimizer": {0: {"momentum_buffer": momentum}}, "step": 3, "history": []}


def test_a_large_state_is_rounded_counted_and_cut_into_files_of_16_mib(tmp_path: Path) -> None:
    state, point = large_state(), Checkpoint(tmp_path / "net", Clock(0), "base network")
    with pytest.raises(Paused, match="base network, step 3"):
        point.offer(lambda: state)
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert max(sizes) <= 16 * 2**20
    assert 12 * 2**20 < sum(sizes) < 12.1 * 2**20  # 3 bytes a parameter
    again = Checkpoint(tmp_path / "net", Clock(0))
    found = again.load()
    assert found is not None
    assert again.rounded == 1
    assert torch.equal(found["model"]["bias"], state["model"]["bias"])
    assert torch.equal(found["model"]["weight"], state["model"]["weight"].half().float())
    before, after = state["optimizer"][0]["momentum_buffer"], found["optimizer"][0]["momentum_buffer"]
    assert ((before - after).abs() <= before.abs() / 16 + 1e-4).all()  # three bits of fraction


def test_bytes_are_cut_and_put_together_again(tmp_path: Path) -> None:
    content = torch.randint(256, (2 * PART + 7,), dtype=torch.uint8).numpy().tobytes()
    checkpoint.write(tmp_path / "x", b"old")
    checkpoint.write(tmp_path / "x", content)
    assert sorted(file.stat().st_size for file in tmp_path.glob("*.part")) == [7, PART, PART]
    assert checkpoint.read(tmp_path / "x") == content


@pytest.mark.parametrize("harm", ["cut", "flip", "lose"])
def test_what_was_damaged_is_not_used(tmp_path: Path, harm: str) -> None:
    checkpoint.write(tmp_path / "x", bytes(100))
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(bytes(99) if harm == "cut" else bytes(99) + b"\1")
    if harm == "lose":
        part.unlink()
    with pytest.warns(UserWarning, match="missing or corrupted"):
        assert checkpoint.read(tmp_path / "x") is None


def test_one_piece_of_work_gets_done_however_short_the_time() -> None:
    clock = Clock(0)
    clock.begin("first")
    with pytest.raises(Paused, match="second"):
        clock.begin("second")
