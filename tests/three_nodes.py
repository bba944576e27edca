"""The path 0 - 1 - 2, on which a graph convolution is worked out by hand: with loops the degrees are 2, 3 and 2."""

import math

import torch
from torch import Tensor

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
END = 1 / 2 + 1 / math.sqrt(6)  # what a unit of node 0's or 2's message adds to the sum of all outputs
MIDDLE = 2 / math.sqrt(6) + 1 / 3  # and of node 1's


def convolved(messages: list[float]) -> Tensor:
    """(3, 1) the sums of messages over sqrt(degree of sender x degree of receiver)."""
    a, b, c = messages
    far = math.sqrt(6)
    return torch.tensor([[a / 2 + b / far], [a / far + b / 3 + c / far], [b / far + c / 2]])
