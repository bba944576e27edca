"""A2Q (Zhu et al. 2023): each node learns the step and the number of bits of its own features.

The grid of a node with step a and b bits: x_q = sign(x) a min(floor(|x| / a + 1/2), q), with q = 2^(b-1) - 1, or 2^b - 1 for
features that are never negative [our reading: with one bit q would be 0 otherwise]. b is rounded where it is used. Gradients,
the paper's or by our derivation, with k = floor(|x| / a + 1/2):

    inside, k <= q:   d/dx = 1   d/da = sign(x) (k - |x| / a)   d/db = 0
    outside:          d/dx = 0   d/da = sign(x) q               d/db = sign(x) a ln(2) (q + 1)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.compression.quantizer import entries, with_entries
from graphprune.runs import checks

SMALLEST_STEP = 1e-6
LEAST_FIRST_STEP = 1e-3
WEIGHT_BITS = 4


def levels(bits: Tensor, unsigned: bool) -> Tensor:
    """q of the module's formula: the largest integer of a grid with this many bits, at least 1 bit after rounding.

    >>> levels(torch.tensor([1.0, 3.6]), unsigned=True), levels(torch.tensor([3.6]), unsigned=False)
    (tensor([ 1., 15.]), tensor([7.]))
    """
    whole = bits.abs().round().clamp(min=1.0)
    return 2.0**whole - 1 if unsigned else 2.0 ** (whole - 1) - 1


class _Learned(torch.autograd.Function):
    """Forward and gradients of the module's formula; step and bits broadcast to x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, bits: Tensor, unsigned: bool) -> Tensor:
        q, ratio = levels(bits, unsigned), x.abs() / step
        k = (ratio + 0.5).floor()
        inside = k <= q
        ctx.save_for_backward(ratio, k, inside, x.sign(), step, bits, q)
        return x.sign() * torch.minimum(k, q) * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        (gradient,) = gradients
        ratio, k, inside, sign, step, bits, q = ctx.saved_tensors
        of_step = gradient * sign * torch.where(inside, k - ratio, q)
        of_bits = torch.where(inside, 0.0, gradient * sign * step * (q + 1) * math.log(2)) * bits.sign()
        return gradient * inside, of_step.sum_to_size(step.shape), of_bits.sum_to_size(bits.shape), None


def quantize_learned(x: Tensor, step: Tensor, bits: Tensor, unsigned: bool = False) -> Tensor:
    """x on grids with learned steps and bits, with the gradients of the module's formula.

    Args:
        x: (N, F).
        step: positive, (N, 1), (1, F) or (1, 1). bits: the same.
        unsigned: whether x is never negative.

    >>> quantize_learned(torch.tensor([[0.9, -7.0]]), torch.tensor([[0.5]]), torch.tensor([[3.0]]))
    tensor([[ 1.0000, -1.5000]])
    """
    out: Tensor = _Learned.apply(x, step, bits, unsigned)  # type: ignore[no-untyped-call]
    return out


def largest_of_rows(x: Tensor) -> Tensor:
    """(N,) the largest absolute value of each row of x, dense or CSR.

    Raises:
        ValueError: x holds NaN or an infinite value.
    """
    values, rows = entries(x.detach())
    sizes = values.abs()
    largest = sizes.amax(1) if rows is None else torch.zeros(x.shape[0]).scatter_reduce(0, rows, sizes, "amax")
    if not bool(torch.isfinite(largest).all()):
        raise ValueError("x: it holds NaN or infinite values; clean the features before they are quantized")
    return largest


class NodeQuantizer(nn.Module):
    """Features with a learned step and learned bits for each node, or for each of some groups that unseen nodes choose among.

    Args:
        sample: (N, F) features as they will pass: they set the first steps, and whether the grid is unsigned.
        bits: of every node at first.
        groups: None for one pair a node, where the nodes stay the same; else so many pairs (`A2Q.groups`).
        local: see `A2Q.local`.
    """

    def __init__(self, sample: Tensor, bits: float, groups: int | None, local: bool) -> None:
        super().__init__()
        values, _ = entries(sample)
        self.width, self.unsigned, self.local = sample.shape[1], bool((values >= 0).all()), local
        self.grouped = groups is not None
        largest = largest_of_rows(sample)
        if groups is not None:
            largest = torch.quantile(largest.unique(), torch.linspace(0, 1, groups))
        start = torch.full((len(largest), 1), float(bits))
        self.step = nn.Parameter((largest[:, None] / levels(start, self.unsigned)).clamp(min=LEAST_FIRST_STEP))
        self.bits = nn.Parameter(start)
        self.error: Tensor | float = 0.0
        self.rows: Tensor | None = None

    def choose(self, x: Tensor) -> Tensor:
        """(N,) int64: for each row of x the pair whose largest value is nearest to the row's (nearest neighbour)."""
        ordered, order = (self.step.abs() * levels(self.bits, self.unsigned)).detach()[:, 0].sort()
        between = (ordered[1:] + ordered[:-1]) / 2
        return order[torch.searchsorted(between, largest_of_rows(x))]

    def forward(self, x: Tensor) -> Tensor:
        step: Tensor = self.step.abs().clamp(min=SMALLEST_STEP)
        bits: Tensor = self.bits
        if self.grouped:
            self.rows = self.choose(x)
            step, bits = step[self.rows], bits[self.rows]
        elif x.shape[0] != len(step):
            raise ValueError(
                f"x has {x.shape[0]} rows, but steps and bits were made for {len(step)} nodes; "
                "for other graphs use A2Q(groups=1000)"
            )
        values, rows = entries(x)
        if rows is not None:
            step, bits = step[rows, 0], bits[rows, 0]
        if not (self.local and self.training):
            self.error = 0.0
            return with_entries(x, quantize_learned(values, step, bits, self.unsigned))
        constant = values.detach()
        self.error = (quantize_learned(constant, step, bits, self.unsigned) - constant).abs().sum() / self.width
        return with_entries(x, quantize_learned(values, step.detach(), bits.detach(), self.unsigned))

    def whole_bits(self) -> Tensor:
        """(nodes or groups,) the bits as they are used."""
        return self.bits.detach().abs().round().clamp(min=1.0)[:, 0]

    def row_bits(self) -> Tensor:
        """(N,) the bits of the nodes that passed last."""
        return self.whole_bits() if self.rows is None else self.whole_bits()[self.rows]

    def kilobytes(self) -> Tensor:
        """What the features of the nodes that passed last take, differentiable in the bits."""
        bits = self.bits if self.rows is None else self.bits[self.rows]
        return self.width * bits.abs().sum() / 8 / 1024


class ChannelQuantizer(nn.Module):
    """A weight (out, in) with a learned step for each output channel, at 4 bits."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.bits = WEIGHT_BITS
        largest = weight.detach().abs().amax(1, keepdim=True)
        self.step = nn.Parameter((largest / (2 ** (WEIGHT_BITS - 1) - 1)).clamp(min=SMALLEST_STEP))

    def used_step(self) -> Tensor:
        """(out, 1) the steps as they are used."""
        return self.step.abs().clamp(min=SMALLEST_STEP)

    def forward(self, weight: Tensor) -> Tensor:
        step = self.used_step()
        return quantize_learned(weight, step, torch.full_like(step, float(self.bits)))


@dataclass(frozen=True)
class A2Q:
    """A2Q: bits learned by node, weights at 4 bits.

    Attributes:
        bits: of every node at first, 2 to 8.
        groups: None where the nodes stay the same (one graph), else the pairs that nodes choose among (the paper: 1000).
        local: train steps and bits by each node's own rounding error instead of the task's loss (the paper's local gradient);
            otherwise nodes that no labelled node can see get no gradient. `training_error` has to be added to the loss then.
    """

    bits: int = 4
    groups: int | None = None
    local: bool = False

    def weight(self, weight: Tensor) -> nn.Module:
        """What quantizes a weight (out, in)."""
        return ChannelQuantizer(weight)

    def activation(self, sample: Tensor) -> nn.Module:
        """What quantizes what enters a linear map, a row for each node or graph.

        Raises:
            ValueError: bits or groups are out of range, or the sample is not finite.
        """
        checks.at_least(2, bits=self.bits)
        if self.bits > 8:
            raise ValueError(f"bits={self.bits}: must be at most 8; more do not learn from where they start")
        if self.groups is not None:
            checks.at_least(1, groups=self.groups)
        return NodeQuantizer(sample, self.bits, self.groups, self.local)

    def message(self, sample: Tensor) -> nn.Module:
        """A2Q quantizes what enters the linear maps; their products are passed on as they are."""
        return nn.Identity()


def node_quantizers(network: nn.Module) -> Iterator[NodeQuantizer]:
    """The quantizers of a network whose bits are learned, in the order of its layers."""
    return (module for module in network.modules() if isinstance(module, NodeQuantizer))


def memory_penalty(network: nn.Module, target: float) -> Tensor:
    """max(0, kilobytes of all quantized features - target)^2, to be added to the loss with a weight.

    Source: Zhu et al. 2023, equation 7, and its public code.

    Args:
        network: after a forward, where bits are grouped.
        target: in kilobytes.
    Raises:
        ValueError: no layer of the network learns its bits.
    """
    sizes = [quantizer.kilobytes() for quantizer in node_quantizers(network)]
    if not sizes:
        raise ValueError("network: no layer learns its bits; quantize it with the scheme A2Q first")
    return (torch.stack(sizes).sum() - target).clamp(min=0.0) ** 2


def training_error(network: nn.Module) -> Tensor:
    """The rounding errors of all nodes in the last training forward, for `A2Q(local=True)`: to be added to the loss."""
    return torch.as_tensor(sum(quantizer.error for quantizer in node_quantizers(network)))


def mean_bits(network: nn.Module) -> list[float]:
    """The mean bits of a feature, layer by layer, of the nodes that passed last."""
    return [float(quantizer.row_bits().mean()) for quantizer in node_quantizers(network)]
