"""Quantization after training: ranges are read off an example, and nothing is trained. The floor for all other schemes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from graphprune.compression.quantized_network import quantize
from graphprune.compression.quantizer import RangeQuantizer, Uniform, affine_grid, entries, fake_quantize, value_range

SHRINKS = 40  # ranges tried, from the whole one down to a fortieth


def least_error_range(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The range whose grid has the least mean squared error on x, among shrunken forms of the whole range.

    A smaller range clips the largest values and is finer for the others.

    >>> import torch
    >>> few_large = torch.cat([torch.linspace(0, 1, 1000), torch.tensor([100.0])])
    >>> round(least_error_range(few_large, 8)[1].item(), 1)
    100.0
    >>> round(least_error_range(torch.cat([few_large[:1000].repeat(1000), few_large[1000:]]), 2)[1].item(), 1)
    2.5
    """
    low, high = value_range(x, 0.0)
    tried = []
    for part in range(SHRINKS, 0, -1):
        ends = low * part / SHRINKS, high * part / SHRINKS
        tried.append(((fake_quantize(x, affine_grid(*ends, bits)) - x).square().mean().item(), part))
    best = min(tried)[1]
    return low * best / SHRINKS, high * best / SHRINKS


class _LeastError(Uniform):
    """Uniform grids with the ranges of `least_error_range`."""

    def activation(self, sample: Tensor) -> nn.Module:
        quantizer = RangeQuantizer(sample, self.bits)
        low, high = least_error_range(entries(sample)[0], self.bits)
        quantizer.low.copy_(low)
        quantizer.high.copy_(high)
        return quantizer


def calibrate(model: nn.Module, bits: int, *example: Any, least_error: bool = False) -> nn.Module:
    """A quantized copy of a trained network that needs no training.

    Args:
        model: as in `quantized_network.quantize`.
        bits: of weights and activations, 2 to 16.
        example: what the model is called with: training data, whose values set the ranges.
        least_error: ranges of the least squared error instead of the whole ranges.
    Raises:
        ValueError: as `quantize`.

    >>> import torch
    >>> from torch_geometric.nn import GCNConv
    >>> x, edges = torch.eye(3)[:, :2], torch.tensor([[0, 1], [1, 2]])
    >>> calibrate(GCNConv(2, 1), 8, x, edges)(x, edges).shape
    torch.Size([3, 1])
    """
    scheme = _LeastError(bits) if least_error else Uniform(bits)
    return quantize(model, scheme, *example).eval()
