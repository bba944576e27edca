"""Degree-Quant (Tailor, Fernandez-Marques and Lane 2021): nodes with many neighbours are often spared in training.

A node adds up what its neighbours send, so that its sum, and the error of its sum, grow with its degree. In training each node
stays in floating point with a chance that grows with its degree. In evaluation all nodes are quantized.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphprune.compression.quantizer import RangeQuantizer, WeightQuantizer, check_bits, entries, fake_quantize, with_entries
from graphprune.runs import checks


def protection(edge_index: Tensor, num_nodes: int, low: float, high: float) -> Tensor:
    """The chance of each node to stay in floating point: low + (high - low) times the share of nodes of at most its degree.

    Source: Tailor et al. 2021, section 4.1, and its public code. Degrees count incoming edges; without edges all nodes have
    the same degree 0, and so the chance `high`.

    Args:
        edge_index: (2, E) int64.
        num_nodes: N.
        low, high: the least and the largest chance, 0 to 1.
    Returns:
        (N,) float32.
    Raises:
        ValueError: a chance is no number from 0 to 1, or low is above high.

    >>> protection(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3, 0.0, 0.3)  # the path 0 - 1 - 2
    tensor([0.2000, 0.3000, 0.2000])
    """
    checks.share(low=low, high=high)
    if low > high:
        raise ValueError(f"low={low!r}, high={high!r}: the chance must not fall with the degree; swap them")
    degree = torch.bincount(edge_index[1], minlength=num_nodes)
    share = torch.searchsorted(degree.sort().values, degree, right=True) / max(1, num_nodes)
    return low + (high - low) * share


class ProtectedQuantizer(RangeQuantizer):
    """A `RangeQuantizer` that leaves nodes as they are in training, each with its chance.

    `chances` is set by the message-passing layer before each forward (`quantized_network.QuantizedConv`). Where it is None, or
    where rows are no nodes, nothing is left out. Draws come from torch's default generator, as those of dropout do.
    """

    chances: Tensor | None = None

    def __init__(self, sample: Tensor, bits: int, percentile: float, momentum: float, ends: tuple[float, float]) -> None:
        super().__init__(sample, bits, percentile, momentum)
        protection(torch.zeros(2, 0, dtype=torch.int64), 1, *ends)  # refuses wrong ends before any work
        self.ends = ends

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.chances is None or len(self.chances) != x.shape[0]:
            return super().forward(x)
        values, rows = entries(x)
        spared = torch.bernoulli(self.chances).bool()
        spared = spared[:, None] if rows is None else spared[rows]
        self.observe(values[~spared.expand_as(values)])
        return with_entries(x, torch.where(spared, values, fake_quantize(values, self.grid())))


@dataclass(frozen=True)
class DegreeQuant:
    """Degree-Quant: ranges by percentile, and nodes protected by degree.

    Attributes:
        bits: of weights and activations, 2 to 16.
        low, high: the chances of `protection`.
        percentile: None for the published 0.001 at 8 bits and 0.01 at 4; beyond 6 bits the former is taken.
        momentum: of the ranges.
    """

    bits: int = 8
    low: float = 0.0
    high: float = 0.1
    percentile: float | None = None
    momentum: float = 0.01

    def weight(self, weight: Tensor) -> nn.Module:
        """What quantizes a weight (out, in)."""
        return WeightQuantizer(self.bits)

    def activation(self, sample: Tensor) -> nn.Module:
        """What quantizes what enters a linear map, a row for each node or graph."""
        check_bits(self.bits)
        usual = 0.001 if self.bits > 6 else 0.01
        percentile = usual if self.percentile is None else self.percentile
        return ProtectedQuantizer(sample, self.bits, percentile, self.momentum, (self.low, self.high))

    def message(self, sample: Tensor) -> nn.Module:
        """What quantizes what nodes send to their neighbours."""
        return self.activation(sample)
