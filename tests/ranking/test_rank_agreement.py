"""Rank agreement against scipy, hand-made orders and a simulation whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from graphprune.ranking.rank_agreement import agreement, bands, ceiling, difference, kendall, picked, regret, share, spearman


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


@pytest.mark.parametrize("statistic", [spearman, kendall])
def test_a_statistic_inside_bands_is_the_mean_over_the_bands(statistic) -> None:
    scores, truths = np.random.default_rng(2).normal(size=(2, 2, 30))
    band = np.arange(30) % 3
    expected = [[statistic(row[band == b], truth[band == b]) for b in range(3) for truth in truths] for row in scores]
    assert agreement(scores, truths, band, statistic=statistic).runs == pytest.approx(np.mean(expected, 1))


def test_a_size_says_nothing_beyond_itself_and_its_interval_is_nothing() -> None:
    truth, size, other = np.random.default_rng(5).normal(size=(3, 40))
    found = agreement(np.exp(size), truth, covariates=[other, size])
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_what_a_score_knows_beyond_size_is_found() -> None:
    generator = np.random.default_rng(6)
    size, skill = generator.normal(size=(2, 200))
    truth = 3 * size + skill
    found = agreement(size + skill, truth, covariates=size)
    assert found.value > 0.9
    assert found.low < found.value < found.high


def test_regret_of_a_hand_made_order() -> None:
    scores, truths = [4, 3, 2, 1], [0.7, 0.6, 0.9, 0.8]
    assert [round(regret(scores, truths, k).item(), 9) for k in (1, 2, 3, 4)] == [0.2, 0.2, 0, 0]
    assert picked(scores, truths, 3).tolist() == [0.7, 0.6, 0.9]
    assert regret([scores, truths], truths, 1).round(9).tolist() == [0.2, 0]


def test_a_score_that_does_not_decide_picks_the_worst() -> None:
    assert regret(np.ones(4), [0.7, 0.6, 0.9, 0.8], 2).item() == pytest.approx(0.2)


def test_regret_has_an_interval_too() -> None:
    truth = np.random.default_rng(7).normal(size=60)
    found = agreement(-truth, truth, statistic=lambda scores, truths: regret(scores, truths, 10))
    assert found.value == pytest.approx(truth.max() - np.sort(truth)[9])
    assert 0 < found.low < found.value < found.high + 1e-9


def test_the_ceiling_is_the_agreement_of_two_seeds() -> None:
    first, second, third = np.random.default_rng(8).normal(size=(3, 40))
    band = np.arange(40) % 4
    assert ceiling([first, second], band) == agreement(first, second, band)
    pairs = [spearman(first, second), spearman(first, third), spearman(second, third)]
    assert ceiling([first, second, third]).value == pytest.approx(np.mean(pairs))


def test_a_share_is_the_agreement_over_the_ceiling() -> None:
    quality, noise, other, wrong = np.random.default_rng(9).normal(size=(4, 80))
    truths = [quality + noise / 2, quality + other / 2]
    for statistic in (spearman, kendall):
        found = share(quality + wrong, truths, np.arange(80) % 2, statistic=statistic)
        over, under = (
            agreement(quality + wrong, truths, np.arange(80) % 2, statistic=statistic),
            ceiling(truths, np.arange(80) % 2, statistic=statistic),
        )
        assert found.value == pytest.approx(over.value / under.value)
        assert found.low < found.value < found.high


def test_a_shares_interval_divides_draw_by_draw() -> None:
    score, first, second = np.random.default_rng(10).normal(size=25) + np.random.default_rng(11).normal(size=(3, 25)) / 3
    ratios = []
    for rows in np.random.default_rng(5).integers(25, size=(100, 25)):
        ours = [stats.spearmanr(score[rows], truth[rows]).statistic for truth in (first, second)]
        ratios.append(np.mean(ours) / stats.spearmanr(first[rows], second[rows]).statistic)
    found = share(score, [first, second], resamples=100, seed=5)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])))


def test_a_difference_is_one_agreement_minus_the_other() -> None:
    scores, others, truths = (np.random.default_rng(5).normal(size=(rows, 30)) for rows in (3, 2, 2))
    band = np.arange(30) % 3
    found = difference(scores, others, truths, band)
    one, other = agreement(scores, truths, band), agreement(others, truths, band)
    assert found.value == pytest.approx(one.value - other.value)
    assert found.runs == pytest.approx(np.array(one.runs) - other.value)
    assert found.n == 30
    turned = difference(others, scores, truths, band)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert (difference(scores, scores, truths).low, difference(scores, scores, truths).high) == (0, 0)


def test_a_difference_is_judged_on_the_same_draws_of_networks() -> None:
    """Two scores that share their errors are told apart, though either alone is known badly."""
    truth, shared = np.random.default_rng(6).normal(size=(2, 60))
    better, worse = truth + shared, 0.7 * truth + shared
    alone, beside = agreement(better, truth), agreement(worse, truth)
    found = difference(better, worse, truth)
    assert alone.low < beside.high
    assert found.low > 0
    assert found.high - found.low < 0.6 * min(alone.high - alone.low, beside.high - beside.low)


def test_a_differences_interval_holds_zero_for_equally_good_scores_about_19_times_in_20() -> None:
    generator, hits = np.random.default_rng(7), 0
    for trial in range(200):
        truth, one, other = generator.normal(size=(3, 60))
        found = difference(truth + one, truth + other, truth, resamples=200, seed=trial)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_both_rankers_of_a_difference_are_checked() -> None:
    with pytest.raises(ValueError, match="numbers that are not finite"):
        difference([1, 2, 3, 4], [1, 2, np.nan, 4], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="of the same N networks"):
        difference([1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4])


def test_a_score_free_of_noise_may_pass_the_ceiling() -> None:
    generator = np.random.default_rng(12)
    quality = generator.normal(size=400)
    truths = quality + generator.normal(size=(2, 400))
    found = share(quality, truths)
    assert found.value == pytest.approx(1 / np.sqrt(ceiling(truths).value), abs=0.1)
    assert found.low > 1


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
    with pytest.raises(ValueError, match="k=5: must be 1 to 4"):
        regret([1, 2, 3, 4], [1, 2, 3, 4], 5)
    with pytest.raises(ValueError, match=r"covariates must be \(C, N\) of the 4 networks"):
        agreement([1, 2, 3, 4], [1, 2, 3, 4], covariates=[1, 2, 3])
    with pytest.raises(ValueError, match="held fixed for spearman alone"):
        agreement([1, 2, 3, 4], [1, 2, 3, 4], covariates=[1, 2, 3, 4], statistic=kendall)
    with pytest.raises(ValueError, match="a ceiling needs 2 measurements"):
        ceiling([1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"their ceiling is -1\.000, not above 0"):
        share([1, 2, 3, 4], [[1, 2, 3, 4], [4, 3, 2, 1]])
