"""Rank agreement against scipy, hand-made orders and a simulation whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from graphprune.ranking import agreement, bands, spearman


def test_spearman_is_scipys_with_ties() -> None:
    generator = np.random.default_rng(0)
    scores, truths = generator.integers(6, size=(5, 40)), generator.integers(6, size=(5, 40))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(scores, truths, strict=True)]
    np.testing.assert_allclose(spearman(scores, truths), expected, atol=1e-12)


def test_scores_all_equal_order_nothing() -> None:
    assert agreement(np.ones(8), np.arange(8)).value == 0


def test_bands_are_quantiles_and_ties_do_not_unbalance_them() -> None:
    assert bands([5, 1, 1, 1, 1, 9, 9, 9, 9, 5], 2).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert np.bincount(bands(np.zeros(22), 5)).tolist() == [5, 4, 5, 4, 4]


def test_size_ranks_well_overall_and_backwards_within_bands() -> None:
    """Two sizes; inside each the truth falls as the score rises."""
    scores, truths = [1, 2, 3, 4, 11, 12, 13, 14], [4, 3, 2, 1, 14, 13, 12, 11]
    assert agreement(scores, truths).value == pytest.approx(1 - 6 * 40 / (8 * 63))
    assert agreement(scores, truths, bands(scores, 2)).value == pytest.approx(-1)


def test_value_is_the_mean_over_scorers_and_truths() -> None:
    up, down = np.arange(6.0), -np.arange(6.0)
    found = agreement([up, up, down], [up, up])
    assert found.value == pytest.approx(1 / 3)
    assert found.runs == pytest.approx((1, 1, -1))
    assert found.n == 6


def test_interval_holds_the_true_correlation_about_19_times_in_20() -> None:
    generator, hits = np.random.default_rng(1), 0
    true = 6 / np.pi * np.arcsin(0.7 / 2)  # Spearman of a bivariate normal with Pearson 0.7
    for trial in range(200):
        x = generator.normal(size=60)
        y = 0.7 * x + np.sqrt(1 - 0.49) * generator.normal(size=60)
        found = agreement(x, y, resamples=200, seed=trial)
        hits += found.low <= true <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_interval_is_wider_when_scorers_disagree() -> None:
    truth = np.arange(30.0)
    together, apart = agreement([truth, truth], truth), agreement([truth, -truth], truth)
    assert together.high - together.low < 0.01
    assert apart.low == pytest.approx(-1)
    assert apart.high == pytest.approx(1)


def test_same_seed_same_interval() -> None:
    scores, truth = np.random.default_rng(0).normal(size=(2, 3, 20))
    assert agreement(scores, truth, seed=3) == agreement(scores, truth, seed=3)
    assert agreement(scores, truth, seed=3) != agreement(scores, truth, seed=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2, 3, 4], [1, 2, 3]), "same N networks"),
        (([1, 2, 3, np.nan], [1, 2, 3, 4]), "scores holds numbers that are not finite"),
        (([1, 2, 3, 4], [1, 2, 3, np.inf]), "truths holds numbers that are not finite"),
        (([1, 2, 3], [1, 2, 3]), "holds 3 networks"),
        (([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [0, 0, 0, 0, 1]), "holds 1 networks"),
    ],
)
def test_bad_input_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agreement(*arguments)


def test_bad_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="count=3: 8 networks allow 1 to 2 bands"):
        bands(range(8), 3)
    with pytest.raises(ValueError, match="resamples=0"):
        agreement([1, 2, 3, 4], [1, 2, 3, 4], resamples=0)
