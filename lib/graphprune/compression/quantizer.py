"""Uniform quantization: values on an even grid of 2^bits levels, with gradients that go straight through the rounding.

Here a quantized value is stored as a float that lies on the grid ("fake" quantization), so that a network can be trained with
it. `packed` stores the integers themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphprune.compression.sparse_features import pattern_of, with_values

LEAST_BITS, MOST_BITS = 2, 16
SMALLEST_STEP = 1e-8


def check_bits(bits: int) -> None:
    """Raise a ValueError unless `bits` is a whole number from 2 to 16.

    >>> check_bits(1)
    Traceback (most recent call last):
    ValueError: bits=1: must be a whole number from 2 to 16
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not LEAST_BITS <= bits <= MOST_BITS:
        raise ValueError(f"bits={bits!r}: must be a whole number from {LEAST_BITS} to {MOST_BITS}")


@dataclass(frozen=True)
class Grid:
    """The values step * (k - zero) for the whole numbers k from low to high.

    Attributes:
        step: () float32, the distance of two values, or one for each column.
        zero: () int32, the k of the value 0.
        low, high: the ends of k.
    """

    step: Tensor
    zero: Tensor
    low: int
    high: int


def affine_grid(low: Tensor, high: Tensor, bits: int) -> Grid:
    """The grid of 2^bits values from `low` to `high`, moved so that 0 is on it; unsigned where no value is negative.

    Args:
        low, high: () float32; the range is widened to include 0.
        bits: 2 to 16.

    >>> affine_grid(torch.tensor(0.0), torch.tensor(3.0), 2)
    Grid(step=tensor(1.), zero=tensor(0, dtype=torch.int32), low=0, high=3)
    """
    check_bits(bits)
    levels = 2**bits - 1
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    step = ((high - low) / levels).clamp(min=SMALLEST_STEP)
    return Grid(step, (-low / step).round().to(torch.int32), 0, levels)


def symmetric_grid(largest: Tensor, bits: int) -> Grid:
    """The grid of 2^bits - 1 values from -largest to largest, for weights: 0 is its middle.

    >>> symmetric_grid(torch.tensor(6.0), 3)
    Grid(step=tensor(2.), zero=tensor(0, dtype=torch.int32), low=-3, high=3)
    """
    check_bits(bits)
    levels = 2 ** (bits - 1) - 1
    step = (largest / levels).clamp(min=SMALLEST_STEP)
    return Grid(step, torch.zeros_like(step, dtype=torch.int32), -levels, levels)


def to_integers(x: Tensor, grid: Grid) -> Tensor:
    """The k of the grid value next to each entry of x, as int32: with the products and the rounding of `fake_quantize`."""
    return ((x * (1 / grid.step)).round() + grid.zero).clamp(grid.low, grid.high).to(torch.int32)


def fake_quantize(x: Tensor, grid: Grid) -> Tensor:
    """The grid value next to each entry of x.

    The straight-through gradient: rounding has the derivative 0 almost everywhere. It is taken to be 1 where x is within the
    grid's range, and 0 beyond its ends (Bengio et al. 2013).

    >>> x = torch.tensor([0.4, 0.6, 9.0], requires_grad=True)
    >>> y = fake_quantize(x, symmetric_grid(torch.tensor(3.0), 3))
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 1.0, 3.0], [1.0, 1.0, 0.0])
    """
    return torch.fake_quantize_per_tensor_affine(x, grid.step, grid.zero, grid.low, grid.high)


def entries(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The values of x, and the row of each: dense x itself and None, of a CSR matrix what it stores (0 is on every grid)."""
    return (x.values(), pattern_of(x).row) if x.layout == torch.sparse_csr else (x, None)


def with_entries(x: Tensor, values: Tensor) -> Tensor:
    """x with other values in the places that `entries` gave."""
    return with_values(x, values) if x.layout == torch.sparse_csr else values


def value_range(x: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
    """The smallest and the largest entry, or with a percentile what is left when this share is cut off at either end.

    Without entries, both are 0: a CSR matrix of zeros stores none.

    Raises:
        ValueError: x holds NaN or an infinite value.

    >>> [end.item() for end in value_range(torch.arange(101.0), 0.1)]
    [10.0, 90.0]
    """
    values = x.detach().flatten() if x.numel() else x.new_zeros(1)
    low, high = torch.aminmax(values)
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise ValueError("x: it holds NaN or infinite values; clean the features before they are quantized")
    cut = int(percentile * (len(values) - 1))
    return (values.kthvalue(cut + 1).values, values.kthvalue(len(values) - cut).values) if cut else (low, high)


class RangeQuantizer(nn.Module):
    """Activations on one affine grid, whose range follows what passes in training. What is no finite number is refused there.

    After each training step an end of the range moves by `momentum` towards the end of what passed (Jacob et al. 2018; with
    percentiles: Tailor et al. 2021, section 4.2). In evaluation the range stays, and NaN and infinite values pass as they are.

    Args:
        sample: values as they will pass, dense or a CSR matrix (whose stored values count); they set the first range.
        bits: 2 to 16.
        percentile: the share of values beyond either end of the range, below 0.5.
        momentum: above 0, at most 1.
    Raises:
        ValueError: an argument is out of its range, or the sample is empty or not finite.

    >>> quantizer = RangeQuantizer(torch.tensor([0.0, 3.0]), bits=2).eval()
    >>> quantizer(torch.tensor([0.6, 2.4, 5.0])).tolist()
    [1.0, 2.0, 3.0]
    """

    low: Tensor
    high: Tensor

    def __init__(self, sample: Tensor, bits: int, percentile: float = 0.0, momentum: float = 0.01) -> None:
        super().__init__()
        check_bits(bits)
        if not 0 <= percentile < 0.5:
            raise ValueError(f"percentile={percentile!r}: must be at least 0 and below 0.5")
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum={momentum!r}: must be above 0 and at most 1")
        if not sample.numel():
            raise ValueError("sample: it is empty, so it has no range; give an example with at least one node")
        self.bits, self.percentile, self.momentum = bits, percentile, momentum
        low, high = value_range(entries(sample)[0], percentile)
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def grid(self) -> Grid:
        """The grid of the range as it is now."""
        return affine_grid(self.low, self.high, self.bits)

    def observe(self, x: Tensor) -> None:
        """Move the range towards that of x; nothing to see leaves it where it is."""
        if x.numel():
            low, high = value_range(x, self.percentile)
            self.low.lerp_(low, self.momentum)
            self.high.lerp_(high, self.momentum)

    def forward(self, x: Tensor) -> Tensor:
        values, _ = entries(x)
        if self.training:
            self.observe(values)
            return with_entries(x, fake_quantize(values, self.grid()))
        return with_entries(x, torch.where(values.isfinite(), fake_quantize(values, self.grid()), values))


class WeightQuantizer(nn.Module):
    """A weight on a symmetric grid that ends at its largest entry, one grid for the whole tensor.

    >>> WeightQuantizer(3)(torch.tensor([[3.0, -0.6]])).tolist()
    [[3.0, -1.0]]
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        check_bits(bits)
        self.bits = bits

    def grid(self, weight: Tensor) -> Grid:
        """The grid of the weight as it is now."""
        return symmetric_grid(weight.detach().abs().max(), self.bits)

    def forward(self, weight: Tensor) -> Tensor:
        return fake_quantize(weight, self.grid(weight))


@dataclass(frozen=True)
class Uniform:
    """Uniform quantization-aware training: every tensor on one grid of its own.

    Attributes:
        bits: of weights and activations, 2 to 16.
        percentile, momentum: of the ranges of activations, see `RangeQuantizer`.
    """

    bits: int = 8
    percentile: float = 0.0
    momentum: float = 0.01

    def weight(self, weight: Tensor) -> nn.Module:
        """What quantizes a weight (out, in)."""
        return WeightQuantizer(self.bits)

    def activation(self, sample: Tensor) -> nn.Module:
        """What quantizes what enters a linear map, a row for each node or graph."""
        return RangeQuantizer(sample, self.bits, self.percentile, self.momentum)

    def message(self, sample: Tensor) -> nn.Module:
        """What quantizes what nodes send to their neighbours."""
        return self.activation(sample)
