import math
from fractions import Fraction

import pytest
import torch
from digits_task import task
from scipy import stats

from graphprune import models
from graphprune.graph.groups import trace
from graphprune.pruning import cost
from graphprune.pruning.channels import prune
from graphprune.pruning.masks import keep_from_rates
from graphprune.pruning.rates import RateSpace
from graphprune.pruning.window import Window
from graphprune.runs import runtime


@pytest.fixture(scope="module")
def tiny():
    """Two groups, so 100 configurations: all can be listed."""
    example = torch.zeros(1, 1, 8, 8)
    return trace(models.tiny_cnn(), example), example


def everything(graph):
    return RateSpace(graph).unrank(torch.arange(10 ** len(graph.groups)))


def test_shares_are_those_of_the_pruned_networks():
    model, graph, data = task()
    window = Window(graph, data.example())
    indices = window.space.sample(5, 0, runtime.seed_generator(0))
    scores = {group.name: torch.arange(group.channels).float() for group in graph.groups}
    whole = cost.cost(model, data.example()).macs
    for row, share in zip(indices, window.shares(window.counts(indices)).tolist(), strict=True):
        small = prune(model, graph, keep_from_rates(graph, row, scores))
        assert share == cost.cost(small, data.example()).macs / whole


def test_draws_are_uniform_over_exactly_what_is_allowed(tiny):
    graph, example = tiny
    window = Window(graph, example, 0.2, (0.3, 0.8))
    rows = everything(graph)
    allowed = {tuple(row) for row in rows[window.allows(rows)].tolist()}
    assert 10 < len(allowed) < 100
    drawn = [tuple(row) for row in window.draw(4000, runtime.seed_generator(1)).tolist()]
    assert set(drawn) == allowed
    assert stats.chisquare([drawn.count(row) for row in sorted(allowed)]).pvalue > 1e-3


def test_both_ends_of_the_window_are_in_it(tiny):
    graph, example = tiny
    row = torch.tensor([[3, 5]])
    share = Window(graph, example).shares(Window(graph, example).counts(row)).item()
    assert Window(graph, example, macs=(share, 1.0)).allows(row).tolist() == [True]
    assert Window(graph, example, macs=(0.0, share)).allows(row).tolist() == [True]
    assert Window(graph, example, macs=(math.nextafter(share, 1), 1.0)).allows(row).tolist() == [False]
    assert Window(graph, example, macs=(0.0, math.nextafter(share, 0))).allows(row).tolist() == [False]


@pytest.mark.parametrize(
    ("ratio", "macs", "message"),
    [
        (0.95, (0, 1), r"min_ratio=0.95: must lie in \[0, 0.9\]"),
        (-0.1, (0, 1), "min_ratio=-0.1"),
        (0.0, (0.5, 0.4), "0 <= low < high <= 1"),
        (0.0, (0.5, 1.5), "0 <= low < high <= 1"),
        (0.0, (0.0, 1e-4), "out of reach, every rate at its highest leaves 0.0"),
    ],
)
def test_bounds_out_of_reach_are_refused_at_once(ratio, macs, message):
    _, graph, data = task()
    with pytest.raises(ValueError, match=message):
        Window(graph, data.example(), ratio, macs)


def test_an_empty_window_is_proven_empty():
    _, graph, data = task()
    with pytest.raises(ValueError, match=r"macs_window=\(0.5, 0.6\), min_ratio=0.89: no configuration is in it"):
        Window(graph, data.example(), 0.89, (0.5, 0.6)).draw(3, runtime.seed_generator(0))


def test_a_rare_window_is_drawn_from_uniformly():
    """Under one draw in a thousand of those with R(r) >= tau lies in it."""
    _, graph, data = task()
    window = Window(graph, data.example(), 0.5, (0.5, 0.53))
    draws = window.draw(3000, runtime.seed_generator(0))
    assert bool(window.allows(draws).all())
    assert torch.equal(draws, window.draw(3000, runtime.seed_generator(0)))
    among = window.space.sample(200_000, 0.5, runtime.seed_generator(1))
    rejected = among[window.allows(among)]
    assert 20 < len(rejected) < 0.01 * len(among)
    for g in range(len(graph.groups)):  # the marginals agree with those of plain rejection
        table = torch.stack([rows[:, g].bincount(minlength=10) for rows in (draws, rejected)])
        assert stats.chi2_contingency(table[:, table.sum(0) > 0].numpy()).pvalue > 1e-4


def test_a_rare_window_of_few_configurations_is_uniform_by_chi_square(tiny):
    graph, example = tiny
    row = torch.tensor([[9, 0]])
    share = Window(graph, example).shares(Window(graph, example).counts(row)).item()
    window = Window(graph, example, 0.0, (share, math.nextafter(share, 1)))
    assert window.draw(50, runtime.seed_generator(0)).unique(dim=0).tolist() == [
        list(r) for r in sorted({tuple(r) for r in everything(graph)[window.allows(everything(graph))].tolist()})
    ]


def test_without_a_tally_a_rare_window_is_left_to_rejection(monkeypatch):
    _, graph, data = task()
    rare = Window(graph, data.example(), 0.5, (0.5, 0.53))
    wide = Window(graph, data.example(), 0.5, (0.5, 0.53))
    monkeypatch.setitem(wide.__dict__, "tally", None)
    assert bool(wide.allows(wide.draw(50, runtime.seed_generator(0))).all())
    assert rare.tally is not None


def test_a_window_that_draws_do_not_reach_is_given_up_early(monkeypatch):
    drawn = []
    sample = RateSpace.sample
    monkeypatch.setattr(RateSpace, "sample", lambda self, n, *rest: drawn.append(n) or sample(self, n, *rest))
    net = models.tiny_cnn()
    example = torch.zeros(1, 1, 8, 8)
    window = Window(trace(net, example), example, min_ratio=0.5, macs=(0.9, 0.95))
    monkeypatch.setitem(window.__dict__, "tally", None)
    with pytest.raises(ValueError, match="only 0 of the 1000000 configurations needed were found"):
        window.draw(1_000_000, torch.Generator())
    assert sum(drawn) < 2_000_000


@pytest.mark.parametrize("n", [1, 255, 256, 1000])
def test_a_stream_is_the_draws_in_blocks(tiny, monkeypatch, n):
    window = Window(*tiny, 0.2, (0.3, 0.8))
    monkeypatch.setattr("graphprune.pruning.window.BLOCK", 256)
    blocks = list(window.stream(n, runtime.seed_generator(0)))
    assert [len(block) for block in blocks] == [256] * (n // 256) + ([n % 256] if n % 256 else [])
    assert torch.equal(torch.cat(blocks), window.draw(n, runtime.seed_generator(0)))


@pytest.mark.parametrize("block", [64, 1000, 1 << 18])
def test_the_best_of_a_stream_are_those_of_all_draws(monkeypatch, block):
    """Scores with many ties, which go to the earlier draw; networks that repeat count once."""
    _, graph, data = task()
    window = Window(graph, data.example(), 0.3)
    monkeypatch.setattr("graphprune.pruning.window.BLOCK", block)
    rows, scores = window.best(lambda indices: indices.sum(1) // 4, 3000, 40, runtime.seed_generator(0))
    draws = window.draw(3000, runtime.seed_generator(0))
    values, seen = (draws.sum(1) // 4).tolist(), []
    for i in sorted(range(3000), key=lambda i: (-values[i], i)):
        if window.counts(draws[i : i + 1]).tolist() not in [network for _, network in seen]:
            seen.append((i, window.counts(draws[i : i + 1]).tolist()))
    expected = [i for i, _ in seen[:40]]
    assert torch.equal(rows, draws[expected])
    assert scores.tolist() == [values[i] for i in expected]


def test_there_may_be_fewer_networks_than_asked_for(tiny):
    window = Window(*tiny, 0.2, (0.3, 0.8))
    rows, scores = window.best(lambda indices: -indices[:, 0].float(), 5000, 200, runtime.seed_generator(0))
    allowed = everything(tiny[0])[window.allows(everything(tiny[0]))]
    assert len(rows) == len(scores) == len({tuple(row) for row in window.counts(allowed).tolist()}) < 100


@pytest.mark.parametrize("score", [lambda rows: rows[:, 0] / 0, lambda rows: rows.float()])
def test_scores_that_are_not_one_finite_number_a_row_are_refused(tiny, score):
    with pytest.raises(ValueError, match="must give one finite score for each of 20 rows"):
        Window(*tiny).best(score, 20, 5, runtime.seed_generator(0))


def test_the_rates_are_the_windows(tiny):
    """Of (0, 0.25, 0.5) nine configurations, their channels by hand."""
    graph, example = tiny
    window = Window(graph, example, 0.2, rates=(0, 0.25, 0.5))
    assert window.space.rates == (0, Fraction(1, 4), Fraction(1, 2))
    assert window.table.tolist() == [[4, 3, 2], [3, 2, 1]]
    rows = window.space.unrank(torch.arange(9))
    of_counts, of_rates = window.shares(window.counts(rows)), window.costs.of_rates(rows, window.rates)[0]
    assert of_counts.tolist() == (of_rates.double() / window.costs.full.macs).tolist()
    half = Window(graph, example, 0.2, (0.0, of_counts[4].item()), (0, 0.25, 0.5))  # as many MACs as both at 0.25
    drawn = half.draw(200, runtime.seed_generator(0)).unique(dim=0).tolist()
    assert drawn == rows[(of_counts <= of_counts[4]) & (window.space.ratio(rows) >= 0.2)].tolist()
    assert half.tally.count == len(drawn)


def test_scores_of_a_ranker_may_be_an_array_and_must_be_numbers(tiny):
    window = Window(*tiny)
    kinds = (lambda rows: rows[:, 0], lambda rows: rows[:, 0].numpy(), lambda rows: rows[:, 0].tolist())
    found = [window.best(kind, 20, 3, runtime.seed_generator(0))[0].tolist() for kind in kinds]
    assert found[0] == found[1] == found[2]
    with pytest.raises(TypeError, match=r"ranker: must give a tensor of scores, \(B,\), and gave a NoneType"):
        window.best(lambda rows: None, 20, 3, runtime.seed_generator(0))
