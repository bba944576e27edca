"""Singular values of the adjacency, and channels scored by resistances."""

import pytest
import torch
from torch import nn

from graphprune import spectral
from graphprune.pruning import weight_masks


def test_eigenvalues_of_the_bipartite_graph_are_plus_and_minus_the_singular_values():
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    adjacency = torch.zeros(7, 7, dtype=torch.float64)
    adjacency[:4, 4:], adjacency[4:, :4] = weight.abs(), weight.abs().T
    s = spectral.singular_values(weight)
    expected = torch.cat([-s, torch.zeros(1, dtype=torch.float64), s.flip(0)])
    torch.testing.assert_close(torch.linalg.eigvalsh(adjacency), expected, atol=1e-12, rtol=1e-9)


def test_normalised_values_begin_with_one_per_component_and_know_no_scale():
    weight = torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 7.0]])
    s = spectral.singular_values(weight, normalised=True)
    assert s[:2].tolist() == pytest.approx([1, 1])
    assert float(s[2]) < 1
    torch.testing.assert_close(spectral.singular_values(9 * weight, normalised=True), s)


def test_spectral_error_by_hand():
    weight = torch.tensor([[3.0, 0.0], [0.0, -4.0]])
    assert spectral.spectral_error(weight, torch.ones(2, 2, dtype=torch.bool)) == 0
    assert spectral.spectral_error(weight, torch.tensor([[False, True], [True, True]])) == pytest.approx(3 / 5)
    assert spectral.spectral_error(weight, torch.zeros(2, 2, dtype=torch.bool)) == 1


def test_mean_error_counts_every_layer_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    mask = {"0.weight": torch.ones(2, 2, dtype=torch.bool), "2.weight": torch.zeros(1, 2, dtype=torch.bool)}
    assert spectral.mean_spectral_error(net, mask) == pytest.approx(0.5)


def test_a_layer_of_zeros_loses_nothing():
    nothing = torch.zeros(2, 2)
    assert [spectral.spectral_error(nothing, nothing > 0, normalised) for normalised in (False, True)] == [0, 0]
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    nn.init.zeros_(net[0].weight)
    gone = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in weight_masks.prunable(net).items()}
    assert spectral.mean_spectral_error(net, gone) == 0.5


def test_a_layer_without_a_mask_is_named():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"mask: it has no entry for '2\.weight'; give one for every weight"):
        spectral.mean_spectral_error(net, {"0.weight": torch.ones(2, 2, dtype=torch.bool)})
