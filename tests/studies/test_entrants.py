"""Who stands in the contest, on graphs drawn by hand."""

from dataclasses import replace

import torch
from torch import nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph, Node
from graphprune.ranking.class_means import ClassMeans
from graphprune.ranking.distilled import Distilled, Taught
from graphprune.ranking.rankers import LogWidths, RandomOrder
from graphprune.runs import store
from graphprune.runs.description import described
from graphprune.studies import entrants


def chain(kinds: str) -> ChannelGraph:
    """A graph of nodes c(onv), b(n) one after the other."""
    nodes = tuple(Node(f"{kind}{i}", {"c": "conv", "b": "bn"}[kind], 1, (0,)) for i, kind in enumerate(kinds))
    return ChannelGraph(nodes, torch.tensor([range(len(kinds) - 1), range(1, len(kinds))]), ())


def test_without_bn_joins_what_it_lay_between() -> None:
    small = entrants.drop_batch_norm(chain("cbbcb"))
    assert [node.name for node in small.nodes] == ["c0", "c3"]
    assert small.edge_index.tolist() == [[0], [1]]


def test_without_bn_keeps_paths_through_branches() -> None:
    graph = chain("cbcc")  # 0 -> 1 -> 2 -> 3, and a skip 1 -> 3
    graph = replace(graph, edge_index=torch.tensor([[0, 1, 2, 1], [1, 2, 3, 3]]))
    assert entrants.drop_batch_norm(graph).edge_index.T.tolist() == [[0, 1], [0, 2], [1, 2]]


def test_unconnected_has_nodes_and_no_edges() -> None:
    graph = entrants.drop_edges(chain("cbc"))
    assert (len(graph.nodes), graph.edge_index.shape) == (3, (2, 0))


def test_readings_are_all_of_them() -> None:
    names = entrants.readings(2)
    assert len(names) == 3 * 3 * 3 * 2
    assert len({store.digest(described(ranker)) for ranker in names.values()}) == len(names)
    assert len({store.digest(described(ranker)) for ranker in entrants.ablations(1).values()}) == 12


def test_labels_are_distinct_and_grow_within_a_draw() -> None:
    indices, accuracies = torch.arange(40)[:, None], torch.arange(40.0)
    few, many = (entrants.draw_labels(indices, accuracies, n, 3) for n in (8, 32))
    assert few[0][:, 0].tolist() == few[1].long().tolist() == many[0][:8, 0].tolist()
    assert len(set(many[0][:, 0].tolist())) == 32
    assert set(few[1].tolist()) != set(entrants.draw_labels(indices, accuracies, 8, 4)[1].tolist())


def test_what_is_trained_fully_was_named() -> None:
    indices, accuracies = torch.randint(10, (40, 6)), torch.rand(40)
    named = entrants.candidates(Distilled(ClassMeans(graphprune.data.load("digits"))), indices, accuracies)
    assert set(entrants.FULLY) <= set(named)
    assert len(named["sacp1"].indices) == 40  # all labels there are, where they are few


def test_a_redrawn_ranker_sees_the_other_graph() -> None:
    def edges(graph, model, indices):
        return torch.full((len(indices),), graph.edge_index.shape[1])

    graph, indices = chain("cbc"), torch.zeros(2, 1, dtype=torch.int64)
    assert edges(graph, nn.Identity(), indices).tolist() == [2, 2]
    assert entrants.Redrawn(edges, entrants.drop_edges)(graph, nn.Identity(), indices).tolist() == [0, 0]
    assert entrants.Redrawn(edges, entrants.drop_batch_norm)(graph, nn.Identity(), indices).tolist() == [1, 1]


def test_learners_have_every_number_of_labels_there_is_and_each_draw() -> None:
    indices, accuracies = torch.randint(10, (40, 6)), torch.rand(40)
    found = entrants.learners(indices, accuracies, 2)
    assert sorted(found) == [f"{kind}_{n}_{draw}" for kind in ("ridge", "sacp1", "trees") for n in (16, 32) for draw in (0, 1)]
    assert [len(found[name].indices) for name in ("ridge_16_0", "trees_32_1")] == [16, 32]
    assert torch.equal(found["ridge_16_1"].indices, found["sacp1_16_1"].indices)


def test_the_suites_own_are_one_without_labels_and_one_for_each_draw() -> None:
    own = entrants.own_rankers(Distilled(LogWidths()), torch.randint(10, (20, 6)), torch.rand(20), 2)
    assert list(own) == [
        "default",
        "nested_0",
        "nested_untrained_0",
        "nested_1",
        "nested_untrained_1",
        "ours_16_0",
        "ours_16_1",
    ]
    assert isinstance(own["ours_16_1"], Taught)
    assert own["ours_16_1"].distilled.seed == 1


def test_only_what_was_learned_is_carried() -> None:
    taught = Taught(torch.zeros(2, 6, dtype=torch.int64), torch.rand(2), Distilled(LogWidths()))
    rankers = {"a": taught.distilled, "b": RandomOrder(), "c": taught}
    assert list(entrants.carry_rankers(None, rankers)) == ["carried_a", "carried_c"]
