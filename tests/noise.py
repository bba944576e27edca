"""Images of noise whose labels say nothing: a data set of any shape, without a file."""

import torch

from graphprune.data import Dataset
from graphprune.training.splits import Augment, TensorSplit


def noise(n: int, channels: int, side: int) -> Dataset:
    """All three splits are the same n images, (n, channels, side, side), of 10 classes, on the CPU."""
    images = torch.randint(256, (n, channels, side, side), generator=torch.Generator().manual_seed(0)).byte()
    spread, labels = (0.25,) * channels, torch.arange(n) % 10
    split = TensorSplit(spread, spread, Augment(1, True), torch.device("cpu"), labels, images)
    return Dataset("noise", split, split, split, 10, (channels, side, side))
