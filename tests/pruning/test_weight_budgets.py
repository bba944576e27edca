"""How many weights each layer keeps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphprune import spectral
from graphprune.pruning import weight_baselines, weight_masks
from graphprune.pruning.weight_budgets import keep_top, pools


def zeros(*shapes):
    return {name: torch.zeros(shape) for name, shape in zip("abcdef", shapes, strict=False)}


def test_budgets_by_hand():
    layers = zeros((4, 4), (2, 4), (8, 10))
    assert pools(layers, 0.5, "global") == [(("a", "b", "c"), 52)]
    assert [kept for _, kept in pools(layers, 0.5, "layer")] == [8, 4, 40]
    assert [kept for _, kept in pools(layers, 0.9, "er")] == [2, 2, 6]  # 10 weights for 8 : 6 : 18 nodes: 2.5, 1.875, 5.625
    assert [kept for _, kept in pools(layers, 0.25, "er")] == [16, 8, 54]  # the small layers are full


def test_er_counts_the_nodes_of_every_group():
    """1 x 1, depthwise 3 x 3 and 1 x 1 of 32 channels: 64, 32 + 32 x 9 = 320 and 64 nodes, 234 weights of 2,336 stay."""
    net = nn.Sequential(nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, groups=32), nn.Conv2d(32, 32, 1))
    groups = weight_masks.groups(net)
    assert groups == {"0.weight": 1, "1.weight": 32, "2.weight": 1}
    by_hand = [round(234 * nodes / 448) for nodes in (64, 320, 64)]
    assert by_hand == [33, 167, 33]  # and one more by largest remainder
    found = [kept for _, kept in pools(weight_masks.prunable(net), 0.9, "er", groups)]
    assert found == [34, 167, 33]
    for mask in (
        weight_baselines.random(net, None, 0.9, budget="er"),
        weight_baselines.magnitude(net, None, 0.9, budget="er"),
        spectral.prune_weights(net, None, 0.9, budget="er"),
        spectral.prune_weights(net, None, 0.9, budget="er", pick="sample"),
    ):
        assert [int(kept.sum()) for kept in mask.values()] == found


def test_text_is_no_sparsity():
    with pytest.raises(TypeError, match=r"sparsity='0\.5': must be a number, got str; e\.g\. 0\.9"):
        pools(zeros((4, 4)), "0.5", "layer")


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=6), st.floats(0, 0.999), st.data())
@settings(deadline=None)
def test_budgets_add_up_and_fit(shapes, sparsity, pick):
    layers, total = zeros(*shapes), sum(a * b for a, b in shapes)
    budget = pick.draw(st.sampled_from(["layer", "er", "global"]))
    if (kept := round((1 - sparsity) * total)) < 1:
        with pytest.raises(ValueError, match="keeps none of"):
            pools(layers, sparsity, budget)
        return
    found = pools(layers, sparsity, budget)
    assert sum(count for _, count in found) == kept
    assert all(0 <= count <= sum(layers[name].numel() for name in names) for names, count in found)


def test_top_by_hand_and_ties_go_to_the_earlier():
    scores = {"a": torch.tensor([[1.0, 9.0]]), "b": torch.tensor([[2.0, 2.0]])}
    assert {name: kept.tolist() for name, kept in keep_top(scores, 0.5).items()} == {"a": [[False, True]], "b": [[True, False]]}
    assert keep_top(scores, 0.5, "layer")["b"].tolist() == [[True, False]]
