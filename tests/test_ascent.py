"""Both searches against the whole window listed, on networks small enough for that."""

import pytest
import torch

from graphprune import GraphEncoder, Scorer, exact, importance, models, runtime
from graphprune.ascent import Levels, climb, evolve, steps
from graphprune.costs import CostModel
from graphprune.coupling import trace
from graphprune.window import Window

EXAMPLE = torch.zeros(1, 1, 8, 8)
SEARCHES = {
    "climb": lambda *args, **more: climb(*args, restarts=200, **more),
    "evolve": lambda *args, **more: evolve(*args, generations=30, population=64, children=256, **more),
}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


@pytest.fixture(scope="module")
def small():
    """ResNet-8's window, (window, all networks in it): every configuration is listed, then every network kept once."""
    net = models.seeded("resnet8", 0, in_channels=1)
    window = Window(trace(net, EXAMPLE), EXAMPLE, 0.3, (0.3, 0.32))
    everything = window.space.unrank(torch.arange(window.space.count(0.3)), 0.3)
    allowed = everything[window.allows(everything)]
    counts, which = window.counts(allowed).unique(dim=0, return_inverse=True)
    first = torch.full((len(counts),), len(allowed)).scatter_reduce(0, which, torch.arange(len(allowed)), "amin")
    return net, window, allowed[first]


def scores_of(net, window):
    """Three landscapes: the paper's similarity, the widest layers of one stage, and one with many local maxima."""
    graph, groups = window.graph, len(window.graph.groups)
    generator = runtime.seed_generator(7)
    weight, waves = torch.rand(groups, groups + 1, generator=generator, dtype=torch.float64).split([1, groups], 1)
    weight = weight[:, 0]
    encoder = GraphEncoder.seeded(0, graph.feature_index.shape[1])
    return {
        "similarity": Scorer(encoder, graph, importance.l1(net, graph)),
        "linear": lambda rows: window.counts(rows).double() @ weight,
        "rugged": lambda rows: window.counts(rows).double() @ weight + (window.counts(rows).double() @ waves).sin().sum(1),
    }


@each_search
@pytest.mark.parametrize("name", ["similarity", "linear", "rugged"])
def test_the_best_of_the_whole_window_is_found(small, search, name):
    net, window, everything = small
    score = scores_of(net, window)[name]
    best = score(everything).max()
    found = search(score, window, seed=0)
    assert found.scored < len(everything)
    torch.testing.assert_close(found.scores[0], best, rtol=0, atol=1e-6)
    torch.testing.assert_close(score(found.indices)[0], best, rtol=0, atol=1e-6)


@each_search
def test_the_proven_optimum_is_found_too(small, search):
    net, window, _ = small
    score = scores_of(net, window)["similarity"]
    proven = exact.optimum(score, window.space, min_ratio=0.3, costs=CostModel(window.graph, EXAMPLE), macs=window.macs)
    assert proven.proven
    assert window.counts(search(score, window).indices).tolist() == window.counts(proven.indices).tolist()


@each_search
def test_the_k_best_are_different_networks_in_order(small, search):
    net, window, everything = small
    score = scores_of(net, window)["linear"]
    found = search(score, window, k=20)
    assert len(window.counts(found.indices).unique(dim=0)) == len(found.indices) == 20
    assert (found.scores.diff() <= 0).all()
    torch.testing.assert_close(found.scores, score(found.indices))
    torch.testing.assert_close(found.scores[:3], score(everything).topk(3).values)


@each_search
def test_nothing_outside_the_window_is_ever_scored(small, search):
    _, window, _ = small
    asked = []

    def score(rows):
        asked.append(rows)
        return rows[:, 0].float()

    found = search(score, window, k=5)
    rows = torch.cat(asked)
    assert window.allows(rows).all()
    assert found.scored == len(rows)
    assert found.scores[0] == rows[:, 0].max()
    assert window.allows(found.indices).all()


@each_search
def test_the_best_so_far_never_falls_and_ends_at_the_best(small, search):
    net, window, _ = small
    found = search(scores_of(net, window)["rugged"], window, k=3)
    assert len(found.curve) > 2
    assert (found.curve.diff() >= 0).all()
    assert found.curve[0] < found.curve[-1] == found.scores[0].double()


@each_search
def test_same_seed_same_bits(small, search):
    net, window, _ = small
    score = scores_of(net, window)["rugged"]
    first, second, other = (search(score, window, k=50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.scores, second.scores)
    assert torch.equal(first.curve, second.curve)
    assert not torch.equal(first.curve, other.curve)


def test_every_end_of_a_climb_has_no_better_neighbour(small):
    """One restart ends at a local maximum: all its neighbours, listed by hand, are no better."""
    net, window, _ = small
    score = scores_of(net, window)["rugged"]
    levels = Levels(window)
    for seed in range(5):
        found = climb(score, window, restarts=1, reach=1, seed=seed)
        at = levels.of_rate[torch.arange(len(levels.top)), found.indices[0]].tolist()
        for up in range(len(at)):
            for down in range(len(at)):
                for change in ((1, -1), (1, 0), (0, -1)):
                    near = list(at)
                    near[up] += change[0]
                    near[down] += change[1]
                    rows = torch.tensor([near])
                    if levels.inside(rows):
                        assert score(levels.rates(rows)) <= found.scores[0]


def test_levels_are_the_different_counts_at_their_highest_rates():
    """Four channels: rates 0 ... 0.9 keep 4 3 3 2 2 2 1 1 1 1."""
    graph = trace(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 2, 3)), EXAMPLE)
    levels = Levels(Window(graph, EXAMPLE))
    assert levels.window.table.tolist() == [[4, 3, 3, 2, 2, 2, 1, 1, 1, 1]]
    assert levels.of_rate.tolist() == [[0, 1, 1, 2, 2, 2, 3, 3, 3, 3]]
    assert levels.to_rate[0, :4].tolist() == [0, 2, 5, 9]
    assert levels.inside(torch.tensor([[-1], [0], [3], [4]])).tolist() == [False, True, True, False]


def test_steps_are_single_moves_and_swaps():
    assert sorted(steps(2, 1).tolist()) == [[-1, 0], [-1, 1], [0, -1], [0, 1], [1, -1], [1, 0]]
    assert len(steps(12, 1).unique(dim=0)) == len(steps(12, 1)) == 2 * 12 + 12 * 11
    assert len(steps(12, 2).unique(dim=0)) == len(steps(12, 2)) == 2 * 2 * 12 + 4 * 12 * 11
    assert sorted(set(steps(3, 2).flatten().tolist())) == [-2, -1, 0, 1, 2]


def test_a_window_of_one_network_is_no_trouble(tiny):
    window = Window(tiny, EXAMPLE, 0.9)
    for search in SEARCHES.values():
        found = search(lambda rows: rows.sum(1).float(), window, k=3)
        assert found.indices.tolist() == [[9, 9]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda window: climb(len, window, k=0), "k=0: must be at least 1"),
        (lambda window: climb(len, window, restarts=0), "restarts=0"),
        (lambda window: evolve(len, window, children=-1), "children=-1"),
        (lambda window: climb(lambda rows: rows[:, 0] / 0, window), "score: must give one finite number for each of 64 rows"),
        (lambda window: evolve(lambda rows: rows.float(), window), "for each of 256 rows"),
    ],
)
def test_what_cannot_be_searched_is_refused(tiny, call, message):
    with pytest.raises(ValueError, match=message):
        call(Window(tiny, EXAMPLE))
