"""What a mask leaves connected, counted by hand on networks of a few nodes, and by walking all paths on others."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphprune import models
from graphprune.pruning import weight_masks
from graphprune.spectral import connectivity


def mlp(*widths):
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def masks(*rows):
    return {f"{2 * i}.weight": torch.tensor(row, dtype=torch.bool) for i, row in enumerate(rows)}


def test_path_dead_end_and_blind_neuron_by_hand():
    """Input 0 -> hidden 0 -> output 0; hidden 1 hears input 1 but nobody hears it; hidden 2 speaks but hears nothing."""
    found = connectivity(mlp(3, 3, 2), torch.zeros(1, 3), masks([[1, 0, 0], [0, 1, 0], [0, 0, 0]], [[1, 0, 1], [0, 0, 0]]))
    assert (found.dead, found.neurons) == (3, 5)  # hidden 1, hidden 2, output 1
    assert found.inputs == pytest.approx(1 / 3)
    assert found.outputs == 0.5
    assert (found.components, found.nodes) == (4 + 3, 6 + 5)
    assert found.connected
    assert found.collapsed == ()


def test_a_layer_without_weights_is_a_collapse():
    found = connectivity(mlp(2, 2, 1), torch.zeros(1, 2), masks([[0, 0], [0, 0]], [[1, 1]]))
    assert found.collapsed == ("0.weight",)
    assert not found.connected
    assert (found.dead, found.inputs, found.outputs) == (3, 0, 0)


def test_weights_in_every_layer_are_no_path_yet():
    found = connectivity(mlp(1, 2, 1), torch.zeros(1, 1), masks([[1], [0]], [[0, 1]]))
    assert found.collapsed == ()
    assert not found.connected


@given(st.integers(0, 2**20 - 1))
@settings(deadline=None, max_examples=50)
def test_walking_all_paths_finds_the_same_neurons(bits):
    """4-2-2-4: 20 weights; a neuron is alive if one of the 64 paths runs through it."""
    flags = torch.tensor([bits >> i & 1 for i in range(20)], dtype=torch.bool)
    given_masks = [flags[:8].reshape(2, 4), flags[8:12].reshape(2, 2), flags[12:].reshape(4, 2)]
    alive = set()
    for i, a, b, o in product(range(4), range(2), range(2), range(4)):
        if given_masks[0][a, i] and given_masks[1][b, a] and given_masks[2][o, b]:
            alive |= {("in", i), ("a", a), ("b", b), ("out", o)}
    found = connectivity(mlp(4, 2, 2, 4), torch.zeros(1, 4), masks(*(mask.tolist() for mask in given_masks)))
    assert found.neurons - found.dead == sum(kind != "in" for kind, _ in alive)
    assert found.inputs == sum(kind == "in" for kind, _ in alive) / 4
    assert found.outputs == sum(kind == "out" for kind, _ in alive) / 4


def test_a_residual_network_is_whole_without_a_mask_and_lives_on_its_skip(resnet8):
    net = models.build("resnet8", in_channels=1)
    whole = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weight_masks.prunable(net).items()}
    found = connectivity(net, torch.zeros(1, 1, 8, 8), whole)
    assert (found.dead, found.inputs, found.outputs) == (0, 1, 1)
    assert found.components == len(whole)
    cut = whole | {"layer1.0.conv1.weight": torch.zeros_like(whole["layer1.0.conv1.weight"])}
    found = connectivity(net, torch.zeros(1, 1, 8, 8), cut)
    assert found.dead == 16 + 16  # both convolutions of the block; the skip carries the rest
    assert found.collapsed == ("layer1.0.conv1.weight",)
    assert found.outputs == 1


def test_a_deep_wide_network_does_not_overflow():
    net = mlp(*[64] * 120)
    whole = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weight_masks.prunable(net).items()}
    assert connectivity(net, torch.zeros(1, 64), whole).dead == 0


def test_maximum_pooling_hides_no_path():
    """All positions tie for the maximum; each of them leads on, so each input must count."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 1))
    whole = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weight_masks.prunable(net).items()}
    assert connectivity(net, torch.zeros(1, 1, 4, 4), whole).inputs == 1


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"mask: it has no entry for '2\.weight'"):
        connectivity(mlp(2, 2, 1), torch.zeros(1, 2), masks([[1, 1], [1, 1]]))
    with pytest.raises(ValueError, match=r"must be torch\.bool \(2, 2\)"):
        connectivity(mlp(2, 2, 1), torch.zeros(1, 2), masks([[1, 1]], [[1, 1]]))
