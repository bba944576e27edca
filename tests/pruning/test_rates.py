"""Spaces of rates counted by hand and by brute force, and samples that are uniform."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hand_made import chain
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.rates import RATES, RateSpace, kept_counts, kept_table


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brute(graph: ChannelGraph, rates, min_ratio) -> list[tuple[int, ...]]:
    """The feasible configurations one by one, in fractions."""
    exact = [Fraction(str(rate)) for rate in rates]
    widths = [group.width for group in graph.groups]
    return [
        row
        for row in itertools.product(range(len(exact)), repeat=len(widths))
        if sum(w * exact[i] for w, i in zip(widths, row, strict=True)) >= Fraction(str(min_ratio)) * sum(widths)
    ]


RESNET56 = chain(*[(c, c * w) for c, n in ((16, 10), (32, 10), (64, 10)) for w in [10] + [1] * (n - 1)])


def test_a_two_group_space_is_counted_by_hand():
    rates = RateSpace(chain((4, 4), (4, 12)), rates=(0, 0.5))
    # R of the four configurations: 0, 1/8 (small group), 3/8 (large group), 1/2.
    assert [rates.count(tau) for tau in (0, 0.125, 0.13, 0.375, 0.4, 0.5)] == [4, 3, 2, 2, 1, 1]
    assert rates.ratio(torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])).tolist() == [0, 0.125, 0.375, 0.5]
    assert rates.max_ratio == 0.5


def test_the_threshold_is_exact_where_floats_are_not():
    # 0.1 + 0.2 over three equal groups is R = 0.1 exactly, though 0.1 + 0.2 + 0 is not 0.3 in floating point.
    rates = RateSpace(chain((8, 1), (8, 1), (8, 1)))
    assert rates.count(0.1) == 1000 - 10  # only the configurations of index sum 0, 1 and 2 fall short: 1 + 3 + 6


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    rates=st.sampled_from([RATES[::3], (0, 0.25, 0.5), (Fraction(1, 3), Fraction(2, 3)), (0.5,), (0, 0.05, 0.9)]),
    tau=st.fractions(0, 1, max_denominator=40),
)
def test_counts_and_lists_equal_brute_force(widths, rates, tau):
    graph = chain(*[(4, w) for w in widths])
    space = RateSpace(graph, rates)
    if tau > space.rates[-1]:
        with pytest.raises(ValueError, match="min_ratio"):
            space.count(tau)
        return
    expected = brute(graph, rates, tau)
    assert space.count(tau) == len(expected)
    listed = space.unrank(torch.arange(len(expected)), tau)
    assert [tuple(row) for row in listed.tolist()] == expected


@settings(max_examples=25, deadline=None)
@given(widths=st.lists(st.integers(1, 500), min_size=1, max_size=8), tau=st.integers(0, 90), seed=st.integers(0, 2**32))
def test_every_sample_is_feasible_exactly(widths, tau, seed):
    rates = RateSpace(chain(*[(4, w) for w in widths]))
    drawn = rates.sample(50, tau / 100, generator(seed))
    totals = (drawn * torch.tensor(widths)).sum(1)  # in tenths of a channel
    assert drawn.shape == (50, len(widths))
    assert bool((totals * 10 >= tau * sum(widths)).all())


@pytest.mark.parametrize("tau", [0, 0.45, 0.6])
def test_sampling_is_uniform_by_chi_square(tau):
    rates = RateSpace(chain((4, 3), (4, 5), (4, 9)), rates=(0, 0.2, 0.5, 0.8))
    cells = brute(chain((4, 3), (4, 5), (4, 9)), (0, 0.2, 0.5, 0.8), tau)
    drawn = rates.sample(200 * len(cells), tau, generator(1))
    found, counts = drawn.unique(dim=0, return_counts=True)
    assert [tuple(row) for row in found.tolist()] == cells
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_rare_configurations_are_sampled_where_rejection_dies():
    rates = RateSpace(RESNET56)
    drawn = rates.sample(20_000, 0.85, generator())
    assert rates.count(0.85) / rates.count(0) < 1e-9
    assert bool((rates.ratio(drawn) >= 0.85).all())
    # Marginal of the first group, against its exact law.
    weight = [rates._branches(0, torch.tensor([rates._need(0.85)]).numpy())[0][i] for i in range(10)]
    expected = [float(Fraction(w, sum(weight))) * 20_000 for w in weight]
    common = [i for i in range(10) if expected[i] >= 5]
    observed = [int((drawn[:, 0] == i).sum()) for i in common]
    statistic = sum((o - expected[i]) ** 2 / expected[i] for o, i in zip(observed, common, strict=True))
    assert stats.chi2.sf(statistic, len(common) - 1) > 1e-3


def test_the_same_generator_gives_the_same_samples():
    rates = RateSpace(chain((4, 3), (4, 5)))
    assert torch.equal(rates.sample(100, 0.3, generator(5)), rates.sample(100, 0.3, generator(5)))
    assert not torch.equal(rates.sample(100, 0.3, generator(5)), rates.sample(100, 0.3, generator(6)))


@pytest.mark.parametrize("share", [0.2, 0.49, 0.51, 1.0])
def test_distinct_samples_are_distinct_and_feasible(share):
    rates = RateSpace(chain((4, 3), (4, 5), (4, 9)))
    count = rates.count(0.6)
    n = int(share * count)
    drawn = rates.sample(n, 0.6, generator(), distinct=True)
    assert drawn.shape == (n, 3)
    assert len(drawn.unique(dim=0)) == n
    assert bool((rates.ratio(drawn) >= 0.6).all())


def test_distinct_samples_are_uniform_subsets():
    rates = RateSpace(chain((4, 1), (4, 1)), rates=(0, 0.3, 0.6))  # 9 configurations, 2 at a time
    source = generator(3)
    pairs = torch.stack([rates.sample(2, 0, source, distinct=True) for _ in range(3600)])
    codes = (pairs * torch.tensor([3, 1])).sum(2)
    counts = torch.zeros(9, 9).index_put_((codes[:, 0], codes[:, 1]), torch.ones(3600), accumulate=True)
    off = counts[~torch.eye(9, dtype=torch.bool)]
    assert counts.trace() == 0
    assert stats.chisquare(off.numpy()).pvalue > 1e-3


def test_more_distinct_samples_than_there_are_is_refused():
    rates = RateSpace(chain((4, 4)), rates=(0, 0.5))
    with pytest.raises(ValueError, match="n=3: only 2 distinct"):
        rates.sample(3, 0, generator(), distinct=True)


def test_bad_arguments_are_named():
    graph = chain((4, 4), (4, 4))
    rates = RateSpace(graph)
    with pytest.raises(ValueError, match=r"min_ratio=0.95: must be in \[0, 0.9\]"):
        rates.sample(5, 0.95, generator())
    with pytest.raises(ValueError, match=r"min_ratio=-0\.1"):
        rates.count(-0.1)
    with pytest.raises(ValueError, match="min_ratio=nan"):
        rates.count(math.nan)
    with pytest.raises(ValueError, match="n=0"):
        rates.sample(0, 0.5, generator())
    with pytest.raises(ValueError, match=r"rates=\(0, 1.5\)"):
        RateSpace(graph, (0, 1.5))
    with pytest.raises(ValueError, match="increasing"):
        RateSpace(graph, (0.5, 0.2))
    with pytest.raises(ValueError, match="no prunable group"):
        RateSpace(ChannelGraph(nodes=(), edge_index=torch.zeros(2, 0, dtype=torch.long), groups=()))
    with pytest.raises(ValueError, match=r"indices must be int64 of shape \(B, 2\)"):
        rates.ratio(torch.zeros(3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 10\), got 0 to 10"):
        rates.ratio(torch.tensor([[0, 10]]))
    with pytest.raises(ValueError, match=r"ranks must lie in \[0, 100\)"):
        rates.unrank(torch.tensor([100]))


@given(channels=st.integers(1, 600))
def test_kept_counts_agree_with_the_integer_formula(channels):
    assert kept_table(chain((channels, 1)))[0].tolist() == kept_counts(channels).tolist()


def test_kept_counts_of_other_rates_by_hand():
    table = kept_table(chain((7, 7), (2, 2)), (0, Fraction(1, 3), 0.75))
    assert table.tolist() == [[7, 4, 1], [2, 1, 1]]


def test_places_in_a_space_that_no_int64_numbers():
    """10^27 configurations of equal groups: the place is the number that the configuration's digits write."""
    rates = RateSpace(chain(*[(10, 1)] * 27))
    last, digits = 10**27 - 1, 123456789012345678901234567
    found = rates.unrank([0, digits, last])
    assert found.tolist() == [[0] * 27, [int(digit) for digit in str(digits)], [9] * 27]
    assert rates.unrank(torch.tensor([2**63 - 1])).tolist() == [[int(digit) for digit in f"{2**63 - 1:027d}"]]
    tau = 0.5
    assert rates.ratio(rates.unrank([0, rates.count(tau) - 1], tau)).tolist() == pytest.approx([0.5, 0.9])
    with pytest.raises(ValueError, match=f"ranks must lie in \\[0, {10**27}\\), got 0 to {10**27}"):
        rates.unrank([0, 10**27])
    with pytest.raises(ValueError, match=r"ranks must be \(n,\) whole numbers, got 0\.5"):
        rates.unrank(torch.tensor([0.5]))


@pytest.mark.parametrize("wrong", [{}, {"generator": None}, {"generator": 0}])
def test_a_sample_without_a_generator_names_the_remedy(wrong):
    with pytest.raises(TypeError, match=r"generator=.*: give torch\.Generator\(\)\.manual_seed\(0\)"):
        RateSpace(chain((4, 4))).sample(3, **wrong)
