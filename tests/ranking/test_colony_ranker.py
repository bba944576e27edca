"""The bees' ranker: what they visited scores its fitness, and anything else that of its nearest."""

import torch
from digits_task import task

from graphprune.pruning.window import Window
from graphprune.ranking.colony_ranker import STEP, Bees
from graphprune.ranking.proxies import Recalibrated


def bees():
    _, _, digits = task()
    return Bees(digits, macs=(0.2, 0.3), evaluations=12, foods=4)


def test_what_was_visited_is_in_the_window_best_first_with_its_own_accuracy() -> None:
    model, graph, digits = task()
    visited, fitness = bees().forage(graph, model)
    assert visited.shape == (12, len(graph.groups))
    assert bool(Window(graph, digits.example(), macs=(0.2, 0.3)).allows(visited).all())
    assert fitness.tolist() == sorted(fitness.tolist(), reverse=True)
    assert torch.equal(fitness, Recalibrated(digits)(graph, model, visited))


def test_a_configuration_scores_as_the_nearest_visited() -> None:
    model, graph, _ = task()
    visited, fitness = bees().forage(graph, model)
    score = bees().prepare(graph, model)
    assert torch.equal(score(visited), fitness)
    rows = torch.randint(10, (50, len(graph.groups)), generator=torch.Generator().manual_seed(0))
    for row, found in zip(rows, score(rows).tolist(), strict=True):
        distance = (visited - row).abs().sum(1)
        least = int(distance.min())
        assert found == float(fitness[distance == least].max()) - STEP * least
