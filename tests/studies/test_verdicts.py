"""What paired differences show, by hand and by SciPy's own tests, and adjusted for their number."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from graphprune.studies import verdicts

SAMPLES = [[-5.0, -4.0, -5.0, -4.0], [0.1, -0.1, 0.2, 0.1], [2.0, -3.0, 1.0, 0.5]]


@pytest.mark.parametrize("sample", SAMPLES)
def test_p_values_and_interval_are_those_of_scipys_tests(sample: list[float]) -> None:
    found = verdicts.judge(np.array(sample), margin=1.0)
    plain = stats.ttest_1samp(sample, 0.0)
    assert found["p_differs"] == pytest.approx(plain.pvalue)
    assert (found["low"], found["high"]) == pytest.approx(tuple(plain.confidence_interval()))
    below = stats.ttest_1samp(sample, 1.0, alternative="less").pvalue
    above = stats.ttest_1samp(sample, -1.0, alternative="greater").pvalue
    assert found["p_equal"] == pytest.approx(max(below, above))


def test_each_sample_shows_what_its_intervals_say() -> None:
    assert [verdicts.judge(np.array(sample), 1.0)["shown"] for sample in SAMPLES] == ["worse", "equal", "open"]
    assert verdicts.judge(-np.array(SAMPLES[0]), 1.0)["shown"] == "better"


def test_one_difference_and_differences_that_are_alike_show_nothing() -> None:
    for sample in ([0.5], [0.5, 0.5, 0.5]):
        found = verdicts.judge(np.array(sample), 1.0)
        assert found["shown"] == "open"
        assert math.isnan(found["p_equal"])


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    p = np.array([0.02, np.nan, 0.001, 0.5, 0.019])
    assert verdicts.adjust_holm(p) == pytest.approx([0.057, np.nan, 0.004, 0.5, 0.057], nan_ok=True)
    assert verdicts.adjust_holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]


def test_a_verdict_is_adjusted_within_its_family_alone() -> None:
    table = pd.DataFrame({
        "task": ["a", "a", "b", "b"], "difference": [-3.0, 2.0, -3.0, 0.1],
        "p_differs": [0.03, 0.2, 0.01, 0.9], "p_equal": [0.9, 0.9, 0.9, 0.02],
    })  # fmt: skip
    assert verdicts.adjust(table, ["task"])["adjusted"].tolist() == ["open", "open", "worse", "equal"]
    assert verdicts.adjust(table)["adjusted"].tolist() == ["open", "open", "worse", "open"]
