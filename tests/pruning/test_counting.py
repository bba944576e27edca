import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from graphprune import models
from graphprune.graph.groups import trace
from graphprune.pruning import counting
from graphprune.pruning.cost import CostModel
from graphprune.pruning.counting import CountTable, TooWide
from graphprune.pruning.rates import RateSpace, kept_table


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def problems(draw):
    """A few groups with random couplings, and bounds anywhere: reachable, out of reach, one-sided."""
    groups, rates = draw(st.integers(1, 4)), draw(st.integers(2, 3))
    source = np.random.default_rng(draw(st.integers(0, 2**32)))
    coupling = source.integers(0, 5, (groups + 1, groups + 1)) * (source.random((groups + 1, groups + 1)) < 0.6)
    kept = np.sort(source.integers(1, 8, (groups, rates)))[:, ::-1]
    units = np.sort(source.integers(0, 6, (groups, rates)))
    rows = np.array(list(itertools.product(range(rates), repeat=groups)))
    x = np.concatenate([kept[np.arange(groups), rows], np.ones((len(rows), 1), int)], 1)
    macs = np.einsum("bi,ij,bj->b", x, np.triu(coupling), x)
    total = (units - units[:, :1])[np.arange(groups), rows].sum(1)
    low, high = sorted(source.integers(macs.min() - 3, macs.max() + 4, 2).tolist())
    need = int(source.integers(0, total.max() + 2))
    allowed = (macs >= low) & (macs <= high) & (total >= need)
    return (np.triu(coupling), kept, (low, high), units - units[:, :1], need), rows[allowed]


@settings(max_examples=150, deadline=None)
@given(problem=problems())
def test_counts_equal_brute_force_as_integers(problem):
    arguments, allowed = problem
    found = CountTable(*arguments)
    assert found.exact
    assert found.count == len(allowed)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), seed=st.integers(0, 99))
def test_coarse_bins_hold_every_configuration_allowed(problem, seed):
    arguments, allowed = problem
    states = sum(arguments[1].shape[1] ** len(frontier) for frontier in CountTable(*arguments).frontiers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "LEAST", 4)
        found = CountTable(*arguments, cells=16 * states)
    assert found.count >= len(allowed)
    if found.count:
        drawn = {tuple(row) for row in found.sample(3000, generator(seed)).tolist()}
        assert len(drawn) <= found.count
        assert {tuple(row) for row in allowed.tolist()} <= drawn  # 81 at most: all are seen


def test_draws_are_uniform_by_chi_square():
    form = np.array([[0, 3, 0, 0], [0, 0, 2, 1], [0, 0, 1, 0], [0, 0, 0, 5]])
    kept = np.array([[5, 3, 2, 1]] * 3)
    found = CountTable(form, kept, (20, 60), np.array([[0, 1, 2, 3]] * 3), 3)
    assert found.exact
    rows, counts = found.sample(200 * int(found.count), generator()).unique(dim=0, return_counts=True)
    assert len(rows) == found.count > 10
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def real(name: str, tau: float, macs: tuple[float, float]):
    graph = trace(models.build(name), torch.zeros(1, 3, 32, 32))
    model, space = CostModel(graph, torch.zeros(1, 3, 32, 32)), RateSpace(graph)
    units, need = space.budget(tau)
    bounds = (int(macs[0] * model.full.macs), int(macs[1] * model.full.macs) + 1)
    return model, space, CountTable(model.forms[0], kept_table(graph).numpy(), bounds, np.array(units), need)


@pytest.mark.parametrize(
    ("name", "tau", "macs", "least"),
    [("resnet56", 0.0, (0.0, 0.1), 0.94), ("vgg16", 0.6, (0.16, 0.19), 0.8), ("resnet18", 0.7, (0.5, 0.6), 0.4)],
)
def test_most_draws_are_inside_the_bounds_of_a_real_network(name, tau, macs, least):
    model, space, found = real(name, tau, macs)
    drawn = found.sample(20_000, generator())
    share = model.of_rates(drawn)[0].double() / model.full.macs
    inside = (share >= macs[0]) & (share <= macs[1]) & (space.ratio(drawn) >= tau)
    assert inside.double().mean() > least
    assert torch.equal(drawn, found.sample(20_000, generator()))


def test_a_budget_that_binds_nothing_counts_the_whole_space():
    _, space, found = real("resnet18", 0.7, (0.0, 1.0))
    assert found.count == pytest.approx(space.count(0.7), rel=1e-3)  # exact in R(r), within bins of it
    assert real("resnet18", 0.0, (0.0, 1.0))[2].count == 10**12


def test_groups_coupled_all_with_all_are_refused_before_any_work():
    dense = np.triu(np.ones((31, 31), dtype=np.int64))
    kept, units = np.array([[9, 5, 1]] * 30), np.array([[0, 1, 2]] * 30)
    with pytest.raises(TooWide, match="up to 29 groups are coupled with later ones at once"):
        CountTable(dense, kept, (0, 100), units, 5)
