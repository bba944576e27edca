"""Rank correlations against scipy, counting pairs one by one, and least squares written out."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from graphprune.ranking.correlation import kendall, partial, spearman

WHOLE = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=40)


@pytest.mark.parametrize(("ours", "theirs"), [(spearman, stats.spearmanr), (kendall, stats.kendalltau)])
@pytest.mark.parametrize("distinct", [6, 10_000])
def test_it_is_scipys(ours, theirs, distinct: int) -> None:
    generator = np.random.default_rng(0)
    scores, truths = generator.integers(distinct, size=(2, 5, 4, 40))
    expected = [[theirs(a, b).statistic for a, b in zip(*rows, strict=True)] for rows in zip(scores, truths, strict=True)]
    np.testing.assert_allclose(ours(scores, truths), expected, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(WHOLE)
def test_tau_b_is_the_pairs_counted_one_by_one(points: list[tuple[int, int]]) -> None:
    signs = [(np.sign(a[0] - b[0]), np.sign(a[1] - b[1])) for a, b in combinations(points, 2)]
    agree, x, y = (sum(values) for values in zip(*((p * q, p * p, q * q) for p, q in signs), strict=True))
    scores, truths = zip(*points, strict=True)
    assert kendall(scores, truths) == pytest.approx(agree / np.sqrt(x * y) if x * y else 0)


def test_tau_of_a_hand_made_order() -> None:
    """1 2 3 4 against 2 1 4 3: two of six pairs are turned round."""
    assert kendall([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx((4 - 2) / 6)


def test_tau_counts_pairs_of_many_networks_exactly() -> None:
    scores, truths = np.random.default_rng(3).normal(size=(2, 3000))
    assert kendall(scores, truths) == pytest.approx(stats.kendalltau(scores, truths).statistic, abs=1e-14)
    assert kendall(scores, scores) == 1
    assert kendall(scores, -scores) == -1


def test_many_scores_against_one_truth_and_one_covariate() -> None:
    scores, truth, covariate = np.random.default_rng(1).normal(size=(7, 30)), np.arange(30), np.arange(30) % 7
    for statistic in (spearman, kendall, lambda a, b: partial(a, b, covariate[None])):
        np.testing.assert_allclose(statistic(scores, truth), [statistic(row, truth) for row in scores])


def test_partial_with_one_covariate_is_the_textbook_formula() -> None:
    """(r_ab - r_ac r_bc) / sqrt((1 - r_ac^2) (1 - r_bc^2))."""
    a, b, c = np.random.default_rng(0).integers(9, size=(3, 50))
    b, c = b + a, c + a
    ab, ac, bc = (stats.spearmanr(*pair).statistic for pair in ((a, b), (a, c), (b, c)))
    assert partial(a, b, c[None]) == pytest.approx((ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2)))


def test_partial_with_three_covariates_is_the_correlation_of_least_squares_residuals() -> None:
    generator = np.random.default_rng(2)
    size = generator.normal(size=60)
    a, b, *covariates = size + generator.normal(size=(5, 60)) * 0.5
    ranks = [stats.rankdata(values) for values in (a, b, *covariates)]
    design = np.stack([np.ones(60), *ranks[2:]], 1)
    left = [values - design @ np.linalg.lstsq(design, values)[0] for values in ranks[:2]]
    assert partial(a, b, covariates) == pytest.approx(np.corrcoef(left)[0, 1])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_a_score_that_is_a_function_of_the_covariate_says_nothing_beyond_it(seed: int) -> None:
    truth, size, other = np.random.default_rng(seed).normal(size=(3, 25))
    assert partial(np.exp(size), truth, [size]) == 0
    assert partial(-size, truth, [other, size, size]) == 0


def test_covariates_that_are_all_equal_hold_nothing_fixed() -> None:
    a, b = np.random.default_rng(4).normal(size=(2, 20))
    assert partial(a, b, np.ones((1, 20))) == pytest.approx(spearman(a, b))


def test_scores_all_equal_order_nothing() -> None:
    assert [spearman(np.ones(8), np.arange(8)), kendall(np.ones(8), np.arange(8))] == [0, 0]
    assert partial(np.ones(8), np.arange(8), np.arange(8)[None] % 3) == 0
