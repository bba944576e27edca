"""Every optimum here is checked against a list of all configurations."""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult

from graphprune import contrast, importance, models
from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.scorer import Scorer
from graphprune.exact import branch_and_bound, dynamic_program, halfspaces
from graphprune.exact import solve as exact
from graphprune.exact.dynamic_program import Elimination
from graphprune.exact.halfspaces import bound
from graphprune.exact.problem import Limit, Terms, macs_tables
from graphprune.exact.solve import Optimum
from graphprune.graph.groups import trace
from graphprune.pruning.cost import CostModel
from graphprune.pruning.rates import RateSpace, kept_table
from graphprune.pruning.settling_order import frontiers, narrow
from graphprune.pruning.window import Window

EXAMPLE = torch.zeros(1, 3, 16, 16)


def prepared(name: str = "resnet8", seed: int = 0, trained: bool = False, **options) -> tuple[Scorer, RateSpace, CostModel]:
    """A network's scorer, space and costs; resnet8 has 6 groups, so 10^6 configurations."""
    net = models.seeded(name, seed)
    graph = trace(net, EXAMPLE)
    encoder = GraphEncoder.seeded(seed, graph.feature_index.shape[1], hidden=16, **options)
    space = RateSpace(graph)
    if trained:
        few = space.sample(320, 0, torch.Generator().manual_seed(seed))
        contrast.fit(encoder, graph, net, indices=few, epochs=3, seed=seed, lr=3e-3)
    return Scorer(encoder, graph, importance.l1(net, graph)), space, CostModel(graph, EXAMPLE)


def random_terms(seed: int, groups: int, rates: int, limits: int, shift: float = 0.0) -> Terms:
    """Tables of one to three groups; the target is the sum of all first rows, pushed away from the others by `shift`."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 6))
    tables = []
    for _ in range(int(rng.integers(1, groups + 2))):
        scope = tuple(sorted(rng.choice(groups, int(rng.integers(1, min(3, groups) + 1)), replace=False).tolist()))
        tables.append((scope, rng.normal(size=(rates ** len(scope), width))))
    target = rng.normal(size=width) * 0.3 + sum(rows[0] for _, rows in tables)
    units = rng.integers(0, 5, size=(groups, rates))
    most = int(units.max(1).sum())
    bounds = tuple(
        Limit(int(rng.integers(0, 3 * groups)), [((g,), rng.integers(-5, 6, size=rates)) for g in range(groups)], 5.0)
        for _ in range(limits)
    )
    constant = rng.normal(size=width) - shift * target
    return Terms(constant, tables, target, units.tolist(), int(rng.integers(0, most + 1)), bounds)


def everything(terms: Terms) -> tuple[np.ndarray, np.ndarray]:
    """All allowed configurations and their z, table by table."""
    groups, rates = len(terms.units), len(terms.units[0])
    rows = np.array(list(itertools.product(range(rates), repeat=groups)))

    def total(constant, tables):
        value = constant
        for scope, table in tables:
            place = np.zeros(len(rows), np.int64)
            for g in scope:
                place = place * rates + rows[:, g]
            value = value + table[place]
        return value

    allowed = np.take_along_axis(np.array(terms.units), rows.T, 1).sum(0) >= terms.need
    for limit in terms.limits:
        allowed &= total(limit.constant, limit.tables) >= 0
    return rows[allowed], total(terms.constant, terms.tables)[allowed]


def cosines(terms: Terms, z: np.ndarray) -> np.ndarray:
    return z @ terms.target / np.linalg.norm(terms.target) / np.linalg.norm(z, axis=1)


INSTANCES = {
    "seed": st.integers(0, 2**32 - 1),
    "groups": st.integers(2, 5),
    "rates": st.integers(2, 4),
    "limits": st.integers(0, 2),
    "k": st.sampled_from([1, 4, 40]),
}


@settings(max_examples=120, deadline=None)
@given(**INSTANCES, shift=st.sampled_from([0.0, 1.0, 3.0]))
def test_the_highest_cosines_are_those_of_a_full_list(seed, groups, rates, limits, k, shift):
    terms = random_terms(seed, groups, rates, limits, shift)
    rows, z = everything(terms)
    expected = np.sort(cosines(terms, z))[::-1][:k]
    found, scores, bounds = exact.find_highest(terms, k, math.inf)
    np.testing.assert_allclose(scores, expected, atol=2e-9)
    np.testing.assert_allclose(bounds, expected, atol=2e-9)
    listed = {tuple(row): cos for row, cos in zip(rows.tolist(), cosines(terms, z), strict=True)}
    assert len({tuple(row) for row in found.tolist()}) == len(found)
    assert [listed[tuple(row)] for row in found.tolist()] == pytest.approx(scores.tolist(), abs=1e-12)


def search_that_misses(best: int):
    """In place of the search: the configurations next to the best ones, and no bound."""

    def search(problem, found, deadline):
        sums = problem.sums
        whole = sums.beam(sums.root(), [problem.limits[0] if problem.limits else sums.togo(sums.constant)], 10**6)[0]
        whole = whole[problem.allowed(whole.z)]
        start = max(0, min(best, len(whole) - found.k))
        rest = np.argsort(-problem.cosines(whole.z), kind="stable")[start : start + found.k]
        found.add(sums.configurations(whole)[rest], whole.z[rest])
        return 1.0, bound(problem, sums.root())[1]

    return search


@settings(max_examples=200, deadline=None)
@given(
    **INSTANCES,
    shift=st.sampled_from([0.0, 1.0, 3.0]),
    crowd=st.sampled_from([2, 512]),
    missed=st.sampled_from([1, 3, 10**6]),
)
def test_the_proof_finds_what_the_search_missed(seed, groups, rates, limits, k, shift, crowd, missed):
    terms = random_terms(seed, groups, rates, limits, shift)
    expected = np.sort(cosines(terms, everything(terms)[1]))[::-1][:k]
    with pytest.MonkeyPatch.context() as patch:  # small numbers, so that directions come into play on small instances
        patch.setattr(exact, "find_incumbents", search_that_misses(missed))
        patch.setattr(branch_and_bound, "CROWD", crowd)
        patch.setattr(branch_and_bound, "BLOCK", 5)
        patch.setattr(branch_and_bound, "KEPT", 2)
        _, scores, bounds = exact.find_highest(terms, k, math.inf)
    np.testing.assert_allclose(scores, expected, atol=2e-9)
    np.testing.assert_allclose(bounds, expected, atol=2e-9)


@settings(max_examples=80, deadline=None)
@given(**INSTANCES)
def test_the_highest_dot_products_are_those_of_a_full_list(seed, groups, rates, limits, k):
    terms = random_terms(seed, groups, rates, limits)
    w = np.random.default_rng(seed).normal(size=len(terms.target))
    expected = np.sort(everything(terms)[1] @ w)[::-1][:k]
    _, scores, bounds = exact.find_highest_dot(terms, w, k)
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    np.testing.assert_allclose(bounds, expected, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(2, 5), rates=st.integers(2, 4), apart=st.integers(2, 4))
def test_diverse_optima_are_greedy_in_order_of_score(seed, groups, rates, apart):
    terms = random_terms(seed, groups, rates, seed % 2)
    rows, z = everything(terms)
    cos = cosines(terms, z)
    found, scores, bounds = exact.find_spread(terms, 5, min(apart, groups), math.inf)
    for place in range(len(found) + (len(found) < 5)):
        far = ((rows[:, None] != found[None, :place]).sum(2) >= min(apart, groups)).all(1)
        if place == len(found):
            assert not far.any()
        else:
            assert scores[place] == pytest.approx(cos[far].max(), abs=2e-9)
            assert bounds[place] == pytest.approx(scores[place], abs=2e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(1, 5), rates=st.integers(1, 4))
def test_the_value_to_go_is_the_highest_of_all_completions(seed, groups, rates):
    terms = random_terms(seed, groups, rates, 0)
    sums = terms.problem().sums
    w = np.random.default_rng(seed).normal(size=len(terms.target))
    best, values, _ = sums.beam(sums.root(), [sums.togo(w)], 10**6)
    rows, z = everything(terms)
    assert sorted(map(tuple, sums.configurations(best).tolist())) == sorted(map(tuple, rows.tolist()))
    np.testing.assert_allclose(values, np.sort(z @ w)[::-1], atol=1e-12)
    np.testing.assert_allclose(sums.embed(rows), z, atol=1e-12)
    assert sums.togo(w).best[0][0, 0] == pytest.approx((z @ w).max() - terms.constant @ w, abs=1e-12)


def brute(scorer: Scorer, space: RateSpace, costs: CostModel, min_ratio: float, macs: tuple[float, float]) -> torch.Tensor:
    """The scores of all allowed configurations by `Scorer`, highest first."""
    rows = space.unrank(torch.arange(space.count(min_ratio)), min_ratio)
    share = costs.of_rates(rows)[0].double() / costs.full.macs
    return scorer(rows[(share >= macs[0]) & (share <= macs[1])]).sort(descending=True).values


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    ("seed", "options", "tau", "macs"),
    [
        (0, {}, 0.0, (0.0, 0.6)),
        (1, {"undirected": True}, 0.55, (0.0, 1.0)),
        (2, {"kind": "sage"}, 0.4, (0.2, 0.3)),
        (3, {"kind": "sage", "layers": 1}, 0.7, (0.0, 1.0)),
    ],
)
def test_the_optimum_of_a_million_configurations(trained, seed, options, tau, macs):
    scorer, space, costs = prepared(seed=seed, trained=trained, **options)
    expected = brute(scorer, space, costs, tau, macs)
    for k in (1, 10, 150):
        best = exact.optimum(scorer, space, min_ratio=tau, k=k, costs=costs, macs=macs)
        assert best.proven
        assert best.score == best.bound == best.scores[0]
        torch.testing.assert_close(best.scores.float(), expected[:k], atol=1e-6, rtol=0)
        torch.testing.assert_close(scorer(best.indices), best.scores.float(), atol=1e-6, rtol=0)
        share = costs.of_rates(best.indices)[0].double() / costs.full.macs
        assert bool(((space.ratio(best.indices) >= tau - 1e-12) & (share >= macs[0]) & (share <= macs[1])).all())


def test_every_optimum_of_a_network_of_a_hundred_configurations():
    net = models.tiny_cnn(in_channels=3)
    graph = trace(net, EXAMPLE)
    scorer = Scorer(GraphEncoder.seeded(0, graph.feature_index.shape[1]), graph, importance.l1(net, graph))
    space, costs = RateSpace(graph), CostModel(graph, EXAMPLE)
    for tau, macs in itertools.product((0, 0.3, 0.85), ((0.0, 1.0), (0.1, 0.5))):
        expected = brute(scorer, space, costs, tau, macs)
        best = exact.optimum(scorer, space, min_ratio=tau, k=200, costs=costs, macs=macs)
        assert best.proven
        torch.testing.assert_close(best.scores.float(), expected, atol=1e-6, rtol=0)


def test_the_best_dot_products_of_a_million_configurations():
    scorer, space, costs = prepared()
    rows = space.unrank(torch.arange(space.count(0.5)), 0.5)
    inside = costs.of_rates(rows)[0].double() / costs.full.macs <= 0.25
    dots = scorer.embed(rows) @ scorer.reference
    for some, macs in ((dots, (0.0, 1.0)), (dots[inside], (0.0, 0.25))):
        best = exact.top_dot(scorer, space, min_ratio=0.5, k=150, costs=costs, macs=macs)
        assert best.proven
        torch.testing.assert_close(best.scores.float(), some.sort(descending=True).values[:150], atol=1e-4, rtol=1e-5)
    opposite = exact.top_dot(scorer, space, min_ratio=0.5, weight=-scorer.reference)
    assert opposite.scores.item() == pytest.approx(-dots.min().item(), rel=1e-5)


def test_a_sample_never_beats_the_optimum_of_resnet18():
    scorer, space, _ = prepared("resnet18")
    rows = space.sample(50_000, 0.7, torch.Generator().manual_seed(0))
    best = exact.optimum(scorer, space, min_ratio=0.7, k=20, apart=1)
    diverse = exact.optimum(scorer, space, min_ratio=0.7, k=4, apart=5)
    assert best.proven
    assert diverse.proven
    assert scorer(rows).max() < best.scores[0]
    assert diverse.scores[0] == pytest.approx(best.scores[0].item(), abs=1e-9)
    distances = (diverse.indices[:, None] != diverse.indices).sum(2)
    assert distances[~torch.eye(4, dtype=torch.bool)].min() >= 5
    again = exact.optimum(scorer, space, min_ratio=0.7, k=20)
    assert torch.equal(again.indices, best.indices)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("k", [1, 30])
def test_out_of_time_the_bounds_still_hold(trained, k, monkeypatch):
    scorer, space, costs = prepared(seed=4, trained=trained)
    expected = brute(scorer, space, costs, 0.3, (0.0, 0.4))
    monkeypatch.setattr(branch_and_bound, "improve", lambda problem, found, deadline: None)
    rushed = exact.optimum(scorer, space, min_ratio=0.3, k=k, costs=costs, macs=(0.0, 0.4), seconds=1e-9)
    assert not rushed.proven
    assert rushed.gap > 0
    assert bool((rushed.bounds >= expected[: len(rushed.bounds)].double() - 1e-6).all())
    assert bool((rushed.scores <= expected[: len(rushed.bounds)].double() + 1e-6).all())


@pytest.fixture
def steps(monkeypatch):
    """A clock of work instead of time: dynamic programmes, beams and blocks, one a second; [how many there were]."""
    count = [0.0]

    def counted(made):
        def step(*args, **options):
            count[0] += 1
            return made(*args, **options)

        return step

    for home, name in ((Elimination, "togo"), (Elimination, "beam"), (branch_and_bound, "grow")):
        monkeypatch.setattr(home, name, counted(getattr(home, name)))
    monkeypatch.setattr(time, "monotonic", lambda: count[0])
    return count


@pytest.mark.parametrize("seconds", [1.0, 20.0, 60.0])
@pytest.mark.parametrize("seed", [0, 4])
def test_the_first_search_and_the_bounds_of_what_is_open_keep_to_the_time(seed, seconds, steps, monkeypatch):
    """Instances of 330 and 435 steps, hundreds of blocks open when time is up: what was begun is ended, and no more."""
    monkeypatch.setattr(branch_and_bound, "BLOCK", 1)
    monkeypatch.setattr(branch_and_bound, "CROWD", 2)
    terms = random_terms(seed, 5, 4, 1)
    expected = np.sort(cosines(terms, everything(terms)[1]))[::-1][:4]
    _, scores, bounds = exact.find_highest(terms, 4, seconds)
    assert steps[0] <= seconds + 6
    assert len(scores) == 4
    assert (bounds > scores).any()
    assert (bounds >= expected - 1e-9).all()
    assert (scores <= expected + 1e-9).all()


def test_places_for_which_there_is_no_time_are_left_empty(steps):
    terms = random_terms(4, 5, 4, 1)
    rows, scores, bounds = exact.find_spread(terms, 50, 1, 1.0)
    assert 1 <= len(rows) < 50
    assert len(rows) == len(scores) == len(bounds)
    assert steps[0] <= 16


@pytest.mark.parametrize("error", [RuntimeError("Maximum number of iterations reached."), ValueError("not finite")])
@pytest.mark.parametrize("after", [0, 4])
def test_a_projection_that_fails_is_done_without(error, after, monkeypatch):
    solve, calls = halfspaces.nnls, []

    def fails(*args, **options):
        calls.append(1)
        if len(calls) > after:
            raise error
        return solve(*args, **options)

    monkeypatch.setattr(halfspaces, "nnls", fails)
    monkeypatch.setattr(branch_and_bound, "CROWD", 2)  # so that the proof makes directions, too
    terms = random_terms(4, 5, 4, 1)
    expected = np.sort(cosines(terms, everything(terms)[1]))[::-1][:4]
    _, scores, bounds = exact.find_highest(terms, 4, math.inf)
    assert len(calls) > after
    np.testing.assert_allclose(scores, expected, atol=2e-9)
    np.testing.assert_allclose(bounds, expected, atol=2e-9)


@pytest.mark.parametrize("after", [0, 2])
def test_a_linear_programme_that_fails_leaves_a_bound_that_holds(after, monkeypatch):
    solve, calls = exact.linprog, []

    def fails(*args, **options):
        calls.append(1)
        return solve(*args, **options) if len(calls) <= after else OptimizeResult(x=None, success=False, status=4)

    monkeypatch.setattr(exact, "linprog", fails)
    terms = random_terms(4, 5, 4, 2)
    w = np.random.default_rng(4).normal(size=len(terms.target))
    expected = np.sort(everything(terms)[1] @ w)[::-1][:3]
    _, scores, bounds = exact.find_highest_dot(terms, w, 3)
    assert len(calls) == after + 1
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    np.testing.assert_allclose(bounds, expected, atol=1e-9)


def test_both_ends_of_the_window_of_macs_are_in_it():
    scorer, space, costs = prepared()
    window = Window(scorer.graph, EXAMPLE)
    row = torch.tensor([[3, 5, 2, 8, 1, 6]])
    share = window.shares(window.counts(row)).item()
    for macs, least, most in (
        ((share, 1.0), share, 1.0),
        ((0.0, share), 0.0, share),
        ((math.nextafter(share, 1), 1.0), math.nextafter(share, 1), 1.0),
        ((0.0, math.nextafter(share, 0)), 0.0, math.nextafter(share, 0)),
    ):
        sums = exact.make_terms(scorer, space, 0, costs, macs).problem()
        inside = sums.allowed(sums.sums.embed(row.numpy()))[0]
        assert inside == (least <= share <= most)


@pytest.mark.parametrize("name", ["resnet20a", "resnet8"])
def test_macs_are_a_sum_of_tables(name):
    graph = trace(models.seeded(name, 0), EXAMPLE)
    costs, rows = CostModel(graph, EXAMPLE), RateSpace(graph).sample(200, 0, torch.Generator().manual_seed(0))
    total, tables = macs_tables(costs, kept_table(graph))
    value = np.full(len(rows), total)
    for scope, table in tables:
        value += table[sum(rows[:, g].numpy() * 10**place for place, g in enumerate(reversed(scope)))]
    assert value.tolist() == costs.of_rates(rows)[0].tolist()


def test_orders_keep_the_frontier_of_residual_networks_narrow():
    scorer, space, costs = prepared("resnet20a", undirected=True)
    sums = exact.make_terms(scorer, space, 0.5, costs, (0.2, 0.8)).problem().sums
    assert max(len(level.frontier) for level in sums.levels) == 2
    chain = [(g, g + 1) for g in range(11)]
    assert max(map(len, frontiers(chain, narrow(chain, [1] * 12, 0)))) == 1
    assert frontiers(chain, list(range(12)))[-1] == ()


@pytest.mark.parametrize("options", [{"kind": "gat"}, {"layers": 3}, {"kind": "sage", "undirected": True}])
def test_every_encoder_whose_embedding_is_a_sum_of_tables_has_a_proven_optimum(options):
    scorer, space, _ = prepared(**options)
    rows = space.unrank(torch.arange(space.count(0.5)), 0.5)
    best = exact.optimum(scorer, space, min_ratio=0.5)
    assert best.proven
    assert best.score == pytest.approx(scorer(rows).max().item(), abs=1e-6)


@pytest.mark.parametrize("options", [{"kind": "gat"}, {"layers": 3}])
def test_an_encoder_that_is_no_sum_of_tables_is_refused_by_name(monkeypatch, options):
    monkeypatch.setattr("graphprune.encoders.scorer.BUDGET", 0)
    scorer, space, _ = prepared(**options)
    assert exact.plan(scorer, space).startswith("no exact optimum: scorer (")
    for solve in (exact.optimum, exact.top_dot):
        with pytest.raises(ValueError, match="is no sum of tables: use an encoder of fewer layers, or a directed one"):
            solve(scorer, space)


def test_a_structure_too_wide_is_refused_before_any_work(monkeypatch):
    everyone = [((g, h), np.zeros((100, 1))) for g, h in itertools.combinations(range(20), 2)]
    start = time.process_time()
    with pytest.raises(ValueError, match=r"up to 19 groups are open at once .* use fewer rates, or rank a sample"):
        Elimination(np.zeros(1), everyone, [[*range(10)]] * 20, 50)
    assert time.process_time() - start < 1
    scorer, space, _ = prepared()
    assert "6 groups, at most" in exact.plan(scorer, space, min_ratio=0.5)
    monkeypatch.setattr(dynamic_program, "STATES", 1000)
    assert "values to go, where at most 1,000 are tabulated" in exact.plan(scorer, space, min_ratio=0.5)


def test_bad_arguments_are_named():
    scorer, space, costs = prepared()
    with pytest.raises(ValueError, match=r"min_ratio=0.95: must be in \[0, 0.9\]"):
        exact.optimum(scorer, space, min_ratio=0.95)
    with pytest.raises(ValueError, match="no allowed configuration was found"):
        exact.optimum(scorer, space, costs=costs, macs=(0.0, 1e-5))
    with pytest.raises(ValueError, match="no allowed configuration was found"):
        exact.top_dot(scorer, space, min_ratio=0.85, costs=costs, macs=(0.9, 1.0))
    with pytest.raises(ValueError, match="give costs"):
        exact.optimum(scorer, space, macs=(0.0, 0.5))
    with pytest.raises(ValueError, match="0 <= low < high <= 1"):
        exact.optimum(scorer, space, costs=costs, macs=(0.5, 0.2))
    with pytest.raises(ValueError, match="k=0"):
        exact.optimum(scorer, space, k=0)
    with pytest.raises(ValueError, match=r"apart=7: must lie in 1 .. 6"):
        exact.optimum(scorer, space, apart=7)
    with pytest.raises(ValueError, match="seconds=0"):
        exact.optimum(scorer, space, seconds=0)
    with pytest.raises(ValueError, match="weight must have shape"):
        exact.top_dot(scorer, space, weight=torch.ones(3))
    with pytest.raises(ValueError, match="make both from one graph"):
        exact.optimum(scorer, RateSpace(scorer.graph, (0, 0.5)))
    with pytest.raises(ValueError, match="make both from one graph and rates"):  # as many rates, but others
        exact.optimum(scorer, RateSpace(scorer.graph, [i / 20 for i in range(10)]))


def test_an_optimum_prints_on_a_line():
    found = Optimum(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0.5, 0.25]), torch.tensor([0.5, 0.25]), 1.5)
    assert repr(found) == "Optimum(score 0.500000 of 2, proven, 1.50 s)"
    unproven = Optimum(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([0.5]), torch.tensor([0.75]), 1.5)
    assert repr(unproven) == "Optimum(score 0.500000, bound 0.750000, 1.50 s)"
    nothing = Optimum(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0), torch.zeros(0), 1)
    assert repr(nothing) == "Optimum(none found, 1.00 s)"
