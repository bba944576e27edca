"""The funnel replayed against a hand-sized table, and against a plain loop on random tables full of ties."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.search.replay import Candidates, candidates, replay_once, replays, surface

ORDER = {"accuracy": lambda accuracy, loss: (-accuracy, loss), "loss": lambda accuracy, loss: (loss, -accuracy)}


def by_hand() -> Candidates:
    """Five networks; after light training 1 and 2 tie on accuracy, and 2 has the lower loss."""
    return Candidates(
        light_accuracy=[[0.5, 0.8, 0.8, 0.9, 0.7]],
        light_loss=[[0.9, 0.5, 0.4, 0.6, 0.7]],
        full_accuracy=[[0.99, 0.93, 0.95, 0.92, 0.95]],
        full_loss=[[0.1, 0.2, 0.3, 0.1, 0.2]],
        full_test=[[0.90, 0.91, 0.92, 0.93, 0.94]],
        light_epochs=1,
        full_epochs=5,
    )


@pytest.mark.parametrize(
    ("m", "k", "finalists", "chosen", "test"),
    [
        (1, 1, (0,), 0, 0.90),
        (3, 1, (2,), 2, 0.92),  # 1 and 2 tie, 2 has the lower loss
        (3, 2, (2, 1), 2, 0.92),
        (4, 1, (3,), 3, 0.93),
        (4, 2, (3, 2), 2, 0.92),
        (5, 3, (3, 2, 1), 2, 0.92),
        (5, 4, (3, 2, 1, 4), 4, 0.94),  # 2 and 4 tie on full accuracy, 4 has the lower loss
        (5, 5, (3, 2, 1, 4, 0), 0, 0.90),  # the best on validation is not the best on test
    ],
)
def test_literal_answers(m, k, finalists, chosen, test):
    found = replay_once(by_hand(), m, k)
    assert (found.finalists, found.chosen, found.test) == (finalists, chosen, test)
    assert surface(by_hand(), [m], k)[0, -1] == test


def test_by_loss_the_order_is_another():
    found = replay_once(by_hand(), 5, 2, "loss")
    assert (found.finalists, found.chosen) == ((2, 1), 1)  # after full training 1 has the lower loss


def slow(networks: Candidates, drawn, light: int, full: int, m: int, k: int, criterion: str) -> float:
    """One run, in plain Python: the candidates drawn are listed, sorted and looked up one by one."""
    key = ORDER[criterion]
    entries = [(key(networks.light_accuracy[light][i], networks.light_loss[light][i]), i, p) for p, i in enumerate(drawn[:m])]
    entries.sort(key=lambda entry: (entry[0], entry[1], entry[2]))
    finals = [
        (key(networks.full_accuracy[full][i], networks.full_loss[full][i]), rank, i)
        for rank, (_, i, _) in enumerate(entries[:k])
    ]
    return networks.full_test[full][min(finals)[2]]


def random_networks(seed: int, n: int, seeds: int, levels: int) -> Candidates:
    """Whole numbers from few levels, so that ties abound; test accuracies all differ."""
    generator = np.random.default_rng(seed)
    light, full = (generator.integers(levels, size=(2, count, n)).astype(float) for count in (seeds, 2))
    return Candidates(*light, *full, generator.permutation(2 * n).reshape(2, n).astype(float))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 12),
    seeds=st.integers(1, 3),
    levels=st.integers(1, 5),
    criterion=st.sampled_from(["accuracy", "loss"]),
    shuffled=st.booleans(),
)
def test_equals_a_plain_loop_on_tables_full_of_ties(seed, n, seeds, levels, criterion, shuffled):
    networks, ms = random_networks(seed, n, seeds, levels), range(1, n + 1)
    found = replays(networks, ms, 5, criterion, count=8, shuffled=shuffled, seed=seed)
    generator = np.random.default_rng(seed)  # the draws, as documented: places, light seeds, full seeds
    drawn, light, full = generator.integers(n, size=(8, n)), generator.integers(seeds, size=8), generator.integers(2, size=8)
    for r in range(8):
        order = drawn[r].tolist() if shuffled else sorted(drawn[r].tolist())
        for m in ms:
            for k in range(1, 6):
                value = found.test[r, m - 1, k - 1]
                if k > m:
                    assert np.isnan(value)
                else:
                    assert value == slow(networks, order, light[r], full[r], m, k, criterion)


def test_equals_a_plain_loop_on_150_candidates():
    networks = random_networks(1, 150, 2, 1000)
    found = replays(networks, [40, 150], 10, count=20, seed=5)
    generator = np.random.default_rng(5)
    drawn, light, full = generator.integers(150, size=(20, 150)), generator.integers(2, size=20), generator.integers(2, size=20)
    for r, j, k in np.ndindex(20, 2, 10):
        value = slow(networks, sorted(drawn[r].tolist()), light[r], full[r], (40, 150)[j], k + 1, "accuracy")
        assert found.test[r, j, k] == value


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 12),
    levels=st.integers(1, 4),
    criterion=st.sampled_from(["accuracy", "loss"]),
)
def test_the_surface_is_the_mean_of_single_runs_over_seeds(seed, n, levels, criterion):
    networks = random_networks(seed, n, 2, levels)
    found = surface(networks, range(1, n + 1), n, criterion)
    for m in range(1, n + 1):
        for k in range(1, m + 1):
            runs = [replay_once(networks, m, k, criterion, light_seed=s, full_seed=f).test for s in (0, 1) for f in (0, 1)]
            assert found[m - 1, k - 1] == np.mean(runs)
            assert runs[0] == slow(networks, range(n), 0, 0, m, k, criterion)


def good_networks(n: int = 60, noise: float = 0.3) -> Candidates:
    """A ranker that knows something: quality falls with the place, and trainings show it with noise."""
    generator = np.random.default_rng(0)
    quality = np.linspace(1, 0, n) + generator.normal(0, 0.3, n)
    light = quality + generator.normal(0, 2 * noise, (2, n))
    full = quality + generator.normal(0, noise / 10, (1, n))
    return Candidates(light, -light, full, -full, quality[None])


def test_random_ranked_and_oracle_order_stand_in_that_order():
    networks = good_networks()
    ranked = replays(networks, [5, 60], 3, count=500)
    random, oracle = (replays(x, [5, 60], 3, count=500, shuffled=s) for x, s in ((networks, True), (networks.oracle(), False)))
    means = [found.test[:, 0, 2].mean() for found in (random, ranked, oracle)]
    assert means[0] + 0.1 < means[1] < means[2] - 0.05
    np.testing.assert_allclose(random.test[:, 1].mean(0), ranked.test[:, 1].mean(0), atol=1e-12)  # m = n: order is nothing
    assert networks.oracle().full_test.max() == networks.oracle().full_test[0, 0] == replay_once(networks.oracle(), 1, 1).test


def test_more_finalists_are_better_where_the_full_training_tells_the_truth():
    frame = replays(good_networks(), [60], 10, count=500).against_k(60)
    assert frame["mean"].is_monotonic_increasing
    assert frame["mean"].iloc[-1] > frame["mean"].iloc[0] + 0.05


def test_cost_is_counted_in_passes_over_the_training_images():
    found = replays(by_hand(), [1, 4], 2, count=3)
    np.testing.assert_array_equal(found.cost, [[1 + 5, np.nan], [4 + 5, 4 + 10]])


def test_surface_curves_and_intervals_are_one_frame():
    found = replays(good_networks(), [10, 60, 150], 4, count=200)  # 150 networks there are not
    frame = found.frame()
    assert frame[["m", "k"]].to_numpy().tolist() == [[m, k] for m in (10, 60) for k in (1, 2, 3, 4)]
    pd.testing.assert_frame_equal(found.against_m(2), frame[frame["k"] == 2].reset_index(drop=True))
    row = frame.iloc[5]
    assert row["mean"] == found.test[:, 1, 1].mean()
    assert ((found.test[:, 1, 1] >= row["low"]) & (found.test[:, 1, 1] <= row["high"])).mean() >= 0.95
    with pytest.raises(ValueError, match=r"m=20: not replayed, there are \[10, 60\]"):
        found.against_k(20)


def test_best_value_is_the_cheapest_within_one_standard_error():
    networks = by_hand()
    found = replays(networks, [1, 2, 3], 2, count=4)
    test = np.zeros((4, 3, 2))
    test[:, :, :] = [[0.5, np.nan], [0.80, 0.90], [0.85, 0.92]]
    test[:2, 2, 1] += 0.03
    test[2:, 2, 1] -= 0.03  # mean 0.92, standard error 0.03: 0.90 at m=2, k=2 will do, 0.85 at m=3, k=1 will not
    point = type(found)(found.m, found.k, test, found.cost).best_value()
    assert (point["m"], point["k"], point["cost"]) == (2, 2, 12)


def test_same_seed_same_bits():
    networks = good_networks()
    first, second, other = (replays(networks, [20], 5, count=50, seed=seed).test for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def table_of(networks: Candidates) -> pd.DataFrame:
    """The committed tables' columns, rows in no order, full trainings under the first seed alone."""
    rows = [
        {
            "indices": np.array([i, 3]),
            "seed": seed,
            "rank_similarity": i + 1.0,
            "accuracy_val": networks.light_accuracy[seed, i],
            "loss_val": networks.light_loss[seed, i],
            "full_accuracy_val": networks.full_accuracy[0, i] if seed == 0 else np.nan,
            "full_loss_val": networks.full_loss[0, i] if seed == 0 else np.nan,
            "full_accuracy_test": networks.full_test[0, i] if seed == 0 else np.nan,
        }
        for i in range(len(networks))
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_candidates_of_a_table():
    networks = good_networks(12)
    table = table_of(networks)
    found = candidates(table, table["rank_similarity"])
    for name in ("light_accuracy", "light_loss", "full_accuracy", "full_loss", "full_test"):
        np.testing.assert_array_equal(getattr(found, name), getattr(networks, name))
    few = candidates(table, -table["rank_similarity"].where(table["rank_similarity"] <= 3))
    np.testing.assert_array_equal(few.full_test, networks.full_test[:, [2, 1, 0]])


@pytest.mark.parametrize(
    ("change", "order", "message"),
    [
        ({}, np.ones(3), "order: 3 numbers for 24 rows"),
        ({}, np.full(24, np.nan), "order: NaN in every row"),
        ({"full_loss_val": np.nan}, np.ones(24), "under no seed are all candidates fully trained"),
        ({"accuracy_val": np.nan}, np.ones(24), "light_accuracy: holds numbers that are not finite"),
    ],
)
def test_tables_that_lack_something_are_refused(change, order, message):
    with pytest.raises(ValueError, match=message):
        candidates(table_of(good_networks(12)).assign(**change), order)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replay_once(by_hand(), 6, 1), "k=1, m=6: must be 1 <= k <= m <= 5"),
        (lambda: replay_once(by_hand(), 2, 3), "k=3, m=2"),
        (lambda: replay_once(by_hand(), 2, 1, "test"), "criterion='test': must be 'accuracy' or 'loss'"),
        (lambda: replays(by_hand(), [6, 7]), r"m=\(6, 7\), k=10: must be at least 1, and one m at most 5"),
        (lambda: replays(by_hand(), [1], 0), "k=0"),
        (lambda: replays(by_hand(), [1], 1, count=0), "count=0: must be at least 1"),
        (lambda: Candidates([[1, 2]], [[1, 2]], [[1]], [[1]], [[1]]), r"full_accuracy: shape \(1, 1\)"),
        (lambda: Candidates([[1]], [[1]], [[1]], [[1]], [[1]], 0), "light_epochs=0, full_epochs=5.0: must be positive"),
    ],
)
def test_impossible_replays_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
