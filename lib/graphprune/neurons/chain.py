"""A chain of operations, one after the other: affine maps, scores of their units, ReLUs and poolings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Affine:
    """x -> linear(x) + bias: a linear layer, a convolution, a BN layer with its running statistics, an average pooling.

    Attributes:
        linear: (B, *in) -> (B, *out). absolute: the same with the weights' absolute values, for intervals.
        bias: broadcasts over (B, *out).
        weighted: whether it is a linear layer or a convolution.
    """

    name: str
    linear: Callable[[Tensor], Tensor]
    absolute: Callable[[Tensor], Tensor]
    bias: Tensor
    weighted: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.bias


@dataclass(frozen=True)
class Score:
    """The units of one layer with a score s in [0, 1] each, shared over images and pixels.

    Attributes:
        gated: x = ReLU(h - (1 - s) cap), the layer's ReLU taken in; else x = h - (1 - s) cap.
    """

    layer: str
    channels: int
    gated: bool

    def __call__(self, h: Tensor, s: Tensor, cap: Tensor) -> Tensor:
        """h, cap (B, C, ...), s (C,)."""
        shifted = h - (1 - s.reshape(-1, *[1] * (h.ndim - 2))) * cap
        return shifted.relu() if self.gated else shifted


@dataclass(frozen=True)
class Relu:
    def __call__(self, x: Tensor) -> Tensor:
        return x.relu()


@dataclass(frozen=True)
class Flatten:
    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1)


@dataclass(frozen=True)
class MaxPool:
    kernel: tuple[int, int]
    stride: tuple[int, int]
    ceil_mode: bool

    def __call__(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, ceil_mode=self.ceil_mode)

    def windows(self, shape: torch.Size) -> Tensor:
        """(C, H, W) -> (outputs, kernel places) int64: which flattened inputs an output looks at; -1 = none."""
        number = torch.arange(shape.numel(), dtype=torch.float64).reshape(1, *shape)
        out = self(number).shape[2:]
        pads = [
            max(0, (o - 1) * s + k - n) for o, s, k, n in zip(out, self.stride, self.kernel, shape[1:], strict=True)
        ]  # of a ceiling
        padded = F.pad(number, (0, pads[1], 0, pads[0]), value=-1.0)
        patches = padded.unfold(2, self.kernel[0], self.stride[0]).unfold(3, self.kernel[1], self.stride[1])
        return patches[:, :, : out[0], : out[1]].reshape(-1, self.kernel[0] * self.kernel[1]).long()


Operation = Affine | Score | Relu | Flatten | MaxPool


@dataclass(frozen=True)
class Chain:
    """The operations in order; the last output is the logits (B, K)."""

    operations: tuple[Operation, ...]

    @property
    def scored(self) -> tuple[Score, ...]:
        return tuple(op for op in self.operations if isinstance(op, Score))
