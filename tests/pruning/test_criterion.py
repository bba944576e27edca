"""Importance in any form: the right numbers arrive, and what is wrong is named."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.criterion import looks_at_data, score_channels


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return graphprune.models.seeded("tiny_cnn", 0, in_channels=1)


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> ChannelGraph:
    return graphprune.trace(model, torch.zeros(1, 1, 8, 8))


def test_nothing_means_l1_norms(model: nn.Module, graph: ChannelGraph) -> None:
    norms = graphprune.importance.l1(model, graph)
    assert all(score.equal(norms[name]) for name, score in score_channels(None, model, graph).items())


def test_arrays_lists_and_tensors_are_scores(model: nn.Module, graph: ChannelGraph) -> None:
    given = {"conv1": np.array([1.0, 2.0, 3.0, 4.0]), "conv3": [3, 2, 1], "not a group": [1]}
    found = score_channels(given, model, graph)
    assert {name: score.tolist() for name, score in found.items()} == {"conv1": [1.0, 2.0, 3.0, 4.0], "conv3": [3, 2, 1]}


def test_a_function_is_called_with_the_network_and_with_data_where_it_takes_them(model: nn.Module, graph: ChannelGraph) -> None:
    digits = graphprune.data.load("digits", device="cpu")
    seen = []

    def mine(network: nn.Module, its_graph: ChannelGraph, *, data: object) -> dict[str, Tensor]:
        seen.append((network, its_graph, data))
        return {group.name: torch.ones(group.channels) for group in its_graph.groups}

    assert looks_at_data(mine)
    assert looks_at_data(graphprune.importance.taylor)
    assert not looks_at_data(graphprune.importance.l1)
    assert score_channels(mine, model, graph, digits)["conv3"].tolist() == [1, 1, 1]
    assert seen == [(model, graph, digits)]


def test_what_is_no_criterion_is_named(model: nn.Module, graph: ChannelGraph) -> None:
    with pytest.raises(TypeError, match="scores=3: must be a dictionary of scores"):
        score_channels(3, model, graph)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="taylor looks at data: give data="):
        score_channels(graphprune.importance.taylor, model, graph)
    with pytest.raises(ValueError, match="scores has no entry for group 'conv3'"):
        score_channels({"conv1": [1, 2, 3, 4]}, model, graph)
    with pytest.raises(TypeError, match=r"scores\['conv1'\] must hold 4 numbers, got 'many'"):
        score_channels({"conv1": "many", "conv3": [1, 2, 3]}, model, graph)

    with pytest.raises(TypeError, match=r"<lambda>: the function must take \(model, graph\), and takes \(graph, model\)"):
        score_channels(lambda graph, model: {}, model, graph)

    def shapeless(network: nn.Module, its_graph: ChannelGraph) -> dict[str, list[int]]:
        return {"conv1": [1], "conv3": [1, 2, 3]}

    with pytest.raises(ValueError, match=r"shapeless\(model, graph\)\['conv1'\] must have shape \(4,\), got \(1,\)"):
        score_channels(shapeless, model, graph)
    with pytest.raises(TypeError, match="must return a dictionary"):
        score_channels(lambda network, its_graph: [1, 2], model, graph)
