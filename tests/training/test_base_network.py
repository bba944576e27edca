"""The base network is trained once, stored, and never leaks validation images."""

from pathlib import Path

import pytest
import torch

import graphprune
from graphprune.train import Recipe, evaluate
from graphprune.training import base_network

RECIPE = Recipe(epochs=0.5, lr=0.05, batch_size=64)


def test_trained_once_and_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = graphprune.data.load("digits")
    first = base_network.network("resnet8", data, RECIPE, seed=3, folder=tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["base-digits-resnet8-seed3.safetensors"]
    assert not first.training
    monkeypatch.setattr(graphprune.train, "fit", lambda *_, **__: pytest.fail("trained again"))
    second = base_network.network("resnet8", data, RECIPE, seed=3, folder=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


def test_public_weights_refuse_a_split_they_have_seen() -> None:
    with pytest.raises(ValueError, match=r"data='digits' with 1137 training images: public weights have seen all 50,000"):
        base_network.network("resnet20a", graphprune.data.load("digits"), None, seed=0, folder=Path())


@pytest.mark.data("cifar10", "weights")
def test_public_weights_with_their_own_split(tmp_path: Path) -> None:
    data = graphprune.data.load("cifar10").for_public_weights()
    model = base_network.network("resnet20a", data, None, seed=0, folder=tmp_path)
    assert abs(evaluate(model, data.val).accuracy - 0.9173) < 0.01


def test_a_network_of_ones_own_is_trained_once_and_stored_under_its_label(tmp_path: Path) -> None:
    digits, built = (
        graphprune.data.load("digits"),
        [graphprune.models.seeded("tiny_cnn", seed, in_channels=1) for seed in (0, 1)],
    )
    how = {"seed": 0, "folder": tmp_path, "label": "mine"}
    one, two = (base_network.load_or_train(net, "tiny", digits, RECIPE, **how) for net in built)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not one.training
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["mine-digits-tiny-seed0.safetensors"]
