"""Which channels survive: hand-made scores and rates, and masks that are drawn."""

import math

import numpy as np
import pytest
import torch
from hand_made import chain
from scipy import stats

import graphprune
from graphprune.pruning.masks import first_scores, keep_from_rates, kept_masks, random_masks


def test_highest_scores_survive_and_ties_go_to_the_lower_index():
    graph = chain((4, 4), (5, 5))
    scores = {"conv0": torch.tensor([1.0, 3.0, 2.0, 3.0]), "conv1": torch.ones(5)}
    kept = kept_masks(graph, torch.tensor([[5, 0], [7, 6], [9, 9]]), scores)
    assert kept.int().tolist() == [
        [0, 1, 0, 1, 1, 1, 1, 1, 1],
        [0, 1, 0, 0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 1, 0, 0, 0, 0],  # never none
    ]
    keep = keep_from_rates(graph, [5, 8], scores)
    assert {name: mask.int().tolist() for name, mask in keep.items()} == {
        "conv0": [0, 1, 0, 1],
        "conv1": [1, 0, 0, 0, 0],
    }


def test_first_channels_survive_without_importance():
    graph = chain((4, 4), (3, 3))
    kept = kept_masks(graph, torch.tensor([[5, 3]]), first_scores(graph))
    assert kept.int().tolist() == [[1, 1, 0, 0, 1, 1, 0]]


def test_random_masks_keep_the_right_number_uniformly():
    graph = chain((4, 4), (5, 5))
    indices = torch.tensor([[5, 8]]).repeat(3000, 1)
    kept = random_masks(graph, indices, torch.Generator().manual_seed(0))
    assert kept[:, :4].sum(1).unique().tolist() == [2]
    assert kept[:, 4:].sum(1).unique().tolist() == [1]
    assert stats.chisquare(kept[:, :4].unique(dim=0, return_counts=True)[1].numpy()).pvalue > 1e-3
    assert stats.chisquare(kept[:, 4:].sum(0).numpy()).pvalue > 1e-3
    assert torch.equal(kept, random_masks(graph, indices, torch.Generator().manual_seed(0)))


def test_scores_that_do_not_fit_are_named():
    graph = chain((4, 4))
    indices = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="no entry for group 'conv0'"):
        kept_masks(graph, indices, {})
    with pytest.raises(ValueError, match=r"scores\['conv0'\] must have shape \(4,\)"):
        kept_masks(graph, indices, {"conv0": torch.ones(5)})
    with pytest.raises(ValueError, match="NaN"):
        kept_masks(graph, indices, {"conv0": torch.full((4,), math.nan)})
    with pytest.raises(ValueError, match="infinite number"):
        kept_masks(graph, indices, {"conv0": torch.tensor([1.0, math.inf, 0.0, 2.0])})


def test_rates_are_taken_as_they_are() -> None:
    graph = chain((4, 4), (5, 5))
    scores = first_scores(graph)
    groups = len(graph.groups)
    by_index = keep_from_rates(graph, [5] * groups, scores)
    for given in ([0.5] * groups, np.full(groups, 0.5), torch.full((groups,), 0.5)):
        found = keep_from_rates(graph, given, scores)
        assert all(mask.equal(by_index[name]) for name, mask in found.items())
    with pytest.raises(ValueError, match=r"holds 0.37, which is none of the rates 0, 0.1, .* \(5 means 0.5\).*prune_to"):
        keep_from_rates(graph, [0.37] * groups, scores)
    with pytest.raises(ValueError, match="holds nan, which is none of the rates"):
        keep_from_rates(graph, [0.5, math.nan], scores)
    with pytest.raises(ValueError, match=r"^indices_row: .* 0 to 9 \(5 means 0.5\), got 3 to 30; .*: 0.3 for 30 %"):
        keep_from_rates(graph, [3, 30], scores)


def test_scores_may_be_arrays() -> None:
    graph = chain((4, 4), (5, 5))
    scores = first_scores(graph)
    arrays = {name: score.numpy() for name, score in scores.items()}
    half = [5] * len(graph.groups)
    right = keep_from_rates(graph, half, scores)
    assert all(mask.equal(right[name]) for name, mask in keep_from_rates(graph, half, arrays).items())
    with pytest.raises(TypeError, match="scores must be a dictionary"):
        keep_from_rates(graph, half, [1.0])


def test_wrong_and_swapped_arguments_are_named() -> None:
    model = graphprune.models.tiny_cnn()
    graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    scores = first_scores(graph)
    for given in (0.3, [0.3], 3):
        with pytest.raises(ValueError, match=r"^indices_row: 1 number for 2 groups; give one rate a group, .*\[0.3\] \* len"):
            keep_from_rates(graph, given, scores)
    with pytest.raises(TypeError, match=r"^graph must be a ChannelGraph, got list"):
        keep_from_rates([0.3], graph, scores)
    with pytest.raises(TypeError, match=r"^indices_row must hold 2 rates or rate indices, one a group, got dict"):
        keep_from_rates(graph, scores, [0.3, 0.3])
    with pytest.raises(
        TypeError, match=r"got dict; of a dictionary give \[rates.get\(group.name, 0.0\) for group in graph.groups\]"
    ):
        keep_from_rates(graph, {"0": 0.3}, scores)  # type: ignore[arg-type]
