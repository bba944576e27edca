"""A game over `tiny_cnn` small enough to be played by hand."""

import torch
from torch import nn

from graphprune import models

QUICK = {"images": 40, "calibration": 24}
ALL = 576 * 4 + 576 * 16 + 576 * 12 + 30  # 8x8 pixels: conv1 1 -> 4, conv2 4 -> 4, conv3 4 -> 3, fc 3 -> 10


def macs(a: int, b: int) -> float:
    """The share left by a channels of the first group and b of the second."""
    return (576 * a + 576 * a * a + 576 * a * b + 10 * b) / ALL


def weighted() -> nn.Module:
    """Channels of known L1 norms: in the first group 2, 4, 1, 3, in the second 5, 7, 6 times something."""
    model = models.seeded("tiny_cnn", 0, in_channels=1)
    with torch.no_grad():
        for layer, sizes in ((model.conv1, (2, 4, 1, 3)), (model.conv2, (2, 4, 1, 3)), (model.conv3, (5, 7, 6))):
            norms = layer.weight.abs().sum((1, 2, 3), keepdim=True)
            layer.weight.mul_(torch.tensor(sizes).view(-1, 1, 1, 1) / norms)
    return model
