"""Quantization without training: ranges from an example."""

import pytest
import torch
from three_nodes import PATH

from graphprune.compression.post_training import calibrate, least_error_range
from graphprune.compression.quantizer import affine_grid, fake_quantize
from graphprune.runs.runtime import import_pyg

import_pyg()
from torch_geometric.nn import GCNConv  # noqa: E402

X = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))


def error(x: torch.Tensor, low: float, high: float, bits: int) -> float:
    return (fake_quantize(x, affine_grid(torch.tensor(low), torch.tensor(high), bits)) - x).square().mean().item()


def test_more_bits_are_nearer_to_the_trained_network():
    torch.manual_seed(0)
    layer = GCNConv(4, 8)
    wanted = layer(X, PATH)
    errors = [(calibrate(layer, bits, X, PATH)(X, PATH) - wanted).norm().item() for bits in (2, 4, 8)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


def test_calibrated_ranges_stay_as_they_are():
    network = calibrate(GCNConv(4, 8), 4, X, PATH)
    before = network(X, PATH)
    network(100 * X, PATH)
    assert torch.equal(network(X, PATH), before)


def test_the_range_of_least_error_is_the_best_of_those_tried():
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0)).abs() ** 2
    low, high = least_error_range(x, 3)
    whole = x.max().item()
    assert low.item() < 1e-6
    assert 0 < high.item() < whole
    tried = [error(x, 0.0, whole * part / 40, 3) for part in range(1, 41)]
    assert error(x, 0.0, high.item(), 3) == pytest.approx(min(tried))


def test_least_error_ranges_reach_the_network():
    sample = torch.cat([X.repeat(50, 1), torch.full((1, 4), 30.0)])
    edges = torch.empty(2, 0, dtype=torch.int64)
    whole, clipped = (calibrate(GCNConv(4, 8), 2, sample, edges, least_error=least) for least in (False, True))
    assert whole.conv.lin.entering.high.item() == 30.0
    assert clipped.conv.lin.entering.high.item() <= 30.0
    assert clipped.conv.lin.entering.high == least_error_range(sample, 2)[1]
