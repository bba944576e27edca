"""What m lightly fine-tuned networks lead to: against all subsets by hand, and literal rows."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.studies import desk_light


def rows(arm: str, networks: list[tuple[float, float]], seed: int = 0) -> pd.DataFrame:
    """Networks of a run in the order of their ranks: validation and test accuracy."""
    table = pd.DataFrame(networks, columns=["validation accuracy", "accuracy"], dtype=float)
    return table.assign(network="resnet20a", aim=0.5, arm=arm, seed=seed, rank=range(1, len(table) + 1))


def test_a_ranked_arm_takes_the_best_on_validation_of_its_first_m() -> None:
    found = desk_light.follow_m(rows("SACP", [(70, 69), (60, 75), (72, 71), (72, 80)]))
    assert found["m"].tolist() == [1, 2, 3, 4]
    assert found["accuracy"].tolist() == [69, 69, 71, 71]  # the fourth is no better on validation than the third


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 100)), min_size=1, max_size=7, unique_by=lambda pair: pair[0]))
def test_random_search_takes_any_m(networks: list[tuple[float, float]]) -> None:
    found = desk_light.follow_m(rows("random", networks), draws=2)
    for m, accuracy in zip(found["m"], found["accuracy"], strict=True):
        expected = np.mean([max(subset)[1] for subset in combinations(networks, m)])
        assert accuracy == pytest.approx(expected)


def test_the_order_in_which_random_networks_were_drawn_does_not_matter() -> None:
    networks = [(70.0, 69.0), (60.0, 75.0), (72.0, 71.0)]
    one, other = (desk_light.follow_m(rows("random", order))["accuracy"] for order in (networks, networks[::-1]))
    pd.testing.assert_series_equal(one, other)


def test_intervals_hold_the_curve_and_vanish_where_all_networks_are_alike() -> None:
    found = desk_light.follow_m(rows("SACP", [(70, 69), (60, 75), (72, 71)]))
    assert (found["low"] <= found["accuracy"]).all()
    assert (found["high"] >= found["accuracy"]).all()
    assert found["low"][0] < found["high"][0]
    alike = desk_light.follow_m(rows("SACP", [(70, 69)] * 3))
    assert (alike[["low", "high"]] == 69).all(axis=None)


def test_runs_are_kept_apart_and_the_same_seed_gives_the_same_intervals() -> None:
    light = pd.concat([rows("SACP", [(1, 2), (3, 4)]), rows("SACP", [(5, 6)], seed=1)], ignore_index=True)
    found = desk_light.follow_m(light)
    assert found[["seed", "m"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1]]
    pd.testing.assert_frame_equal(found, desk_light.follow_m(light))


def test_a_summary_names_the_network_chosen_on_validation_not_the_best_on_test() -> None:
    (found,) = desk_light.summarise(rows("SACP", [(70, 69), (60, 75)])).to_dict("records")
    assert found == {
        "network": "resnet20a", "aim": 0.5, "arm": "SACP", "seed": 0,
        "networks": 2, "mean": 72.0, "lowest": 69.0, "highest": 75.0, "best on validation": 69.0,
    }  # fmt: skip


def test_nothing_published_is_an_empty_table() -> None:
    assert desk_light.follow_m(pd.DataFrame(columns=rows("SACP", []).columns)).empty
    assert desk_light.summarise(pd.DataFrame(columns=rows("SACP", []).columns)).empty
