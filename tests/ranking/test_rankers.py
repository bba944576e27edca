"""Rankers without training or labels, against their definitions worked out one configuration at a time."""

import math

import numpy as np
import pytest
import torch
from digits_task import task
from scipy import stats

from graphprune import contrast, importance, models
from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.scorer import Scorer
from graphprune.graph import channel_graph as graph
from graphprune.pruning.channels import prune
from graphprune.pruning.cost import cost
from graphprune.pruning.masks import keep_from_rates, kept_masks
from graphprune.pruning.rates import RateSpace
from graphprune.ranking.rankers import (
    KeptRatio,
    LogWidths,
    Macs,
    Params,
    RandomOrder,
    Ranker,
    RawCosine,
    RetainedMass,
    Similarity,
    Taylor,
    Untrained,
)
from graphprune.runs.runtime import seed_generator


def drawn(graph, n, seed=0):
    return torch.randint(10, (n, len(graph.groups)), generator=torch.Generator().manual_seed(seed))


def untaught():
    """Rankers that need neither labels nor data."""
    model, graph, digits = task()
    sized = [Macs(digits.example()), Params(digits.example()), KeptRatio(), LogWidths(), LogWidths("groups"), RetainedMass()]
    return model, graph, [*sized, RandomOrder(), RawCosine(), Untrained(hidden=8), Similarity(hidden=8, n_train=32, epochs=1)]


@pytest.mark.parametrize("kind", ["gcn", "gat", "sage"])
def test_similarity_is_the_scorers_under_the_encoder_that_contrast_trains(kind: str) -> None:
    model, graph, _ = task()
    found = Similarity(kind=kind, hidden=8, n_train=64, epochs=2, temperature=0.2, min_ratio=0.3, seed=3)(
        graph, model, drawn(graph, 20)
    )
    encoder = GraphEncoder.seeded(
        seed_generator(3, "encoder").initial_seed(), graph.feature_index.shape[1], kind=kind, hidden=8
    )
    indices = RateSpace(graph).sample(64, 0.3, seed_generator(3, "training configurations"))
    contrast.fit(encoder, graph, model, indices=indices, epochs=2, temperature=0.2, seed=3)
    assert torch.equal(found, Scorer(encoder, graph, importance.l1(model, graph))(drawn(graph, 20)))


def test_an_untrained_encoder_is_not_trained() -> None:
    model, graph, _ = task()
    encoder = GraphEncoder.seeded(seed_generator(5, "encoder").initial_seed(), graph.feature_index.shape[1], hidden=8)
    expected = Scorer(encoder, graph, importance.l1(model, graph))(drawn(graph, 9))
    assert torch.equal(Untrained(hidden=8, seed=5)(graph, model, drawn(graph, 9)), expected)


def test_raw_cosine_is_that_of_the_mean_node_features() -> None:
    model, graph, _ = task()
    masks = kept_masks(graph, drawn(graph, 12), importance.l1(model, graph))
    mean = graph.features(masks).mean(1).double().numpy()
    whole = graph.features(torch.ones(1, graph.num_atoms, dtype=torch.bool))[0].mean(0).double().numpy()
    expected = mean @ whole / np.linalg.norm(mean, axis=1) / np.linalg.norm(whole)
    np.testing.assert_allclose(RawCosine()(graph, model, drawn(graph, 12)), expected, atol=1e-6)


def test_sizes_are_those_of_the_pruned_network() -> None:
    model, graph, digits = task()
    row = drawn(graph, 1)
    small = cost(prune(model, graph, keep_from_rates(graph, row[0], importance.l1(model, graph))), digits.example())
    assert Macs(digits.example())(graph, model, row).tolist() == [small.macs]
    assert Params(digits.example())(graph, model, row).tolist() == [small.params]


def test_kept_ratio_falls_from_none_removed() -> None:
    model, graph, _ = task()
    found = KeptRatio()(graph, model, torch.arange(10)[:, None].expand(-1, len(graph.groups)))
    np.testing.assert_allclose(found, -np.arange(10) / 10, atol=1e-12)


def test_log_widths_of_a_hand_sized_network() -> None:
    """A stem of two coupled layers of 8 channels and one inner layer of 8: 8 -> 4 at rate 0.5, 8 -> 1 at rate 0.9."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(1, 8, 3, padding=1)
            self.inner = torch.nn.Conv2d(8, 8, 3, padding=1)
            self.outer = torch.nn.Conv2d(8, 8, 3, padding=1)
            self.fc = torch.nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.fc((x + self.outer(self.inner(x).relu())).mean((2, 3)))

    net = Block()
    traced = graph.trace(net, torch.zeros(1, 1, 4, 4))
    assert [group.layers for group in traced.groups] == [("stem", "outer"), ("inner",)]
    indices = torch.tensor([[0, 0], [5, 9], [9, 5]])
    layers, groups = LogWidths()(traced, net, indices), LogWidths("groups")(traced, net, indices)
    np.testing.assert_allclose(layers, [3 * math.log(8), 2 * math.log(4) + 0, 0 + math.log(4)])
    np.testing.assert_allclose(groups, [2 * math.log(8), math.log(4), math.log(4)])


def test_retained_mass_is_the_mean_share_of_what_survives() -> None:
    model, graph, digits = task()
    l1, l2, taylor = importance.l1(model, graph), importance.l2(model, graph), importance.taylor(model, graph, digits, seed=3)
    row = drawn(graph, 1)
    keep = keep_from_rates(graph, row[0], l1)
    for mass, named in ((l1, importance.l1), (l2, importance.l2), (taylor, Taylor(digits, seed=3))):
        expected = np.mean([float(mass[name][kept].sum() / mass[name].sum()) for name, kept in keep.items()])
        found = RetainedMass(named)(graph, model, row)
        assert found.item() == pytest.approx(expected)


def test_a_random_order_is_uniform_and_differs_by_seed() -> None:
    model, graph, _ = task()
    indices = torch.unique(drawn(graph, 3000), dim=0)
    first, second = RandomOrder(0)(graph, model, indices), RandomOrder(1)(graph, model, indices)
    assert stats.kstest(first, "uniform").pvalue > 0.01
    assert abs(stats.spearmanr(first, second).statistic) < 0.06
    assert abs(stats.spearmanr(first, indices.sum(1)).statistic) < 0.06


def test_scores_depend_neither_on_the_other_rows_nor_on_the_run() -> None:
    model, graph, rankers = untaught()
    indices = drawn(graph, 30)
    for ranker in rankers:
        assert isinstance(ranker, Ranker)
        whole, again = ranker(graph, model, indices), ranker.prepare(graph, model)
        assert whole.shape == (30,), ranker
        assert torch.equal(whole, again(indices)), ranker
        torch.testing.assert_close(torch.cat([again(indices[:7]), again(indices[7:])]), whole)


def test_a_whole_network_scores_higher_than_the_smallest() -> None:
    model, graph, rankers = untaught()
    ends = torch.stack([torch.zeros(len(graph.groups), dtype=torch.int64), torch.full((len(graph.groups),), 9)])
    for ranker in rankers:
        if not isinstance(ranker, RandomOrder):
            whole, least = ranker(graph, model, ends).tolist()
            assert whole > least, ranker


def test_rates_that_do_not_fit_are_refused() -> None:
    model, graph, rankers = untaught()
    for ranker in rankers:
        with pytest.raises(ValueError, match="indices must"):
            ranker(graph, model, torch.zeros(1, len(graph.groups) + 1, dtype=torch.int64))


def test_a_chain_of_layers_is_ranked_too() -> None:
    net = models.seeded("tiny_cnn", 0, in_channels=1)
    traced = graph.trace(net, torch.zeros(1, 1, 8, 8))
    rows = drawn(traced, 5)
    assert all(len(ranker(traced, net, rows)) == 5 for ranker in (RawCosine(), RetainedMass(), LogWidths(), RandomOrder()))
