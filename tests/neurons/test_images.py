"""The images of a program."""

import pytest
import torch
from torch import nn

from graphprune import data, neurons
from graphprune.data import Dataset
from graphprune.training.splits import Augment, TensorSplit


class Says(nn.Module):
    """Says one class, or the class that the image's label is, of images made below."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot((x[:, 0, 0, 0] > 0).long(), 2).float() * self.scale


@pytest.fixture
def task():
    """Class 1 is bright; the first two images of each class lie."""
    bright = torch.tensor([0, 0, 255, 255, 0, 0, 255, 255], dtype=torch.uint8)
    labels = torch.tensor([1, 1, 0, 0, 0, 0, 1, 1])
    shown = bright.reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    part = TensorSplit((0.5,), (0.5,), Augment(0, False), torch.device("cpu"), labels, shown)
    return Dataset("bright", part, part, part, 2, (1, 8, 8))


def test_each_class_gives_as_many_and_only_correct_ones(task):
    x, y = neurons.pick(Says(), task, 2)
    assert y.tolist() == [0, 0, 1, 1]
    assert (x[:, 0, 0, 0] > 0).tolist() == [False, False, True, True]


def test_the_same_seed_picks_the_same(task):
    digits, net = data.load("digits", device="cpu"), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    torch.nn.init.zeros_(net[1].weight)
    with pytest.raises(ValueError, match="per_class=1: class"):
        neurons.pick(net, digits)
    first, again, other = (neurons.pick(Says(), task, 1, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert other.shape == first.shape


def test_too_few_are_said(task):
    with pytest.raises(ValueError, match="per_class=3: class 0 has 2 training images"):
        neurons.pick(Says(), task, 3)
    with pytest.raises(ValueError, match="per_class=0"):
        neurons.pick(Says(), task, 0)
