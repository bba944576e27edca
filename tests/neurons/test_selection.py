"""From scores to masks."""

import pytest
import torch

from graphprune import neurons

SCORES = {"a": torch.tensor([0.1, 0.9, 0.5, 0.7]), "b": torch.tensor([0.0, 0.0])}


def test_equal_shares_of_every_group_go():
    keep = neurons.keep_share(SCORES, 0.5, torch.Generator().manual_seed(0))
    assert keep["a"].tolist() == [False, True, False, True]
    assert int(keep["b"].sum()) == 1


def test_something_always_stays():
    for keep in (neurons.keep_share(SCORES, 1.0, torch.Generator()), neurons.keep_above(SCORES, 1.0)):
        assert keep["a"].tolist() == [False, True, False, False]
        assert int(keep["b"].sum()) == 1


def test_ties_go_by_chance_and_are_counted():
    equal = {"a": torch.zeros(4)}
    draws = torch.stack([neurons.keep_share(equal, 0.5, torch.Generator().manual_seed(i))["a"] for i in range(100)])
    assert draws.double().mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.2)
    assert neurons.tied(equal, 0.5) == 4
    assert neurons.tied(SCORES, 0.5) == 2
    assert neurons.tied({"a": SCORES["a"]}, 0.5) == 0


def test_a_threshold_keeps_what_reaches_it():
    assert neurons.keep_above(SCORES, 0.5)["a"].tolist() == [False, True, True, True]


def test_overlap_counts_what_both_remove():
    a = {"x": torch.tensor([True, False, False, True]), "y": torch.tensor([True])}
    b = {"x": torch.tensor([False, True, False, True]), "y": torch.tensor([True])}
    assert neurons.overlap(a, b) == pytest.approx(1 / 3)
    assert neurons.overlap(a, a) == 1
    whole = {"x": torch.ones(2, dtype=torch.bool)}
    assert neurons.overlap(whole, whole) == 1


def test_shares_and_thresholds_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"removed=1\.5"):
        neurons.keep_share(SCORES, 1.5, torch.Generator())
    with pytest.raises(ValueError, match=r"threshold=-0\.1"):
        neurons.keep_above(SCORES, -0.1)
