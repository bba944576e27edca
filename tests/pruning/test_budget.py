"""The budget: literal costs by hand, the fit against a search over all masks."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import graphprune
from graphprune.pruning.budget import Budget
from graphprune.pruning.cost import CostModel


def two_convs() -> nn.Module:
    """2 and 3 channels on a 4x4 image: 16 * 9 * (2 + 2 * 3) + 3 * 2 = 1158 multiply-adds."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2, 3, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 2),
    )


@pytest.fixture(scope="module")
def costs() -> CostModel:
    example = torch.zeros(1, 1, 4, 4)
    return CostModel(graphprune.trace(two_convs(), example), example)


def test_shares_by_hand(costs: CostModel) -> None:
    kept = torch.tensor([[True, True, True, True, True], [True, False, True, True, False], [False, True, True, False, False]])
    assert costs.full.macs == 1158
    wanted = [1158, 144 + 288 + 4, 144 + 144 + 2]
    torch.testing.assert_close(Budget(costs, 0.5).shares(kept), torch.tensor(wanted).double() / 1158)
    params = torch.tensor([20 + 57 + 8, 10 + 20 + 6, 10 + 10 + 4]).double() / 85
    torch.testing.assert_close(Budget(costs, 0.5, "params").shares(kept), params)


def test_the_lowest_go_first_until_the_budget_is_met(costs: CostModel) -> None:
    priority = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.3]])
    assert Budget(costs, 1.0).fit(priority).tolist() == [[True] * 5]
    assert Budget(costs, 0.51).fit(priority).tolist() == [[False, True, True, True, True]]  # (144 + 432 + 6) / 1158 = 0.503
    assert Budget(costs, 0.5).fit(priority).tolist() == [[False, True, False, True, True]]


def test_a_group_is_never_emptied(costs: CostModel) -> None:
    kept = Budget(costs, 0.26).fit(torch.tensor([[-5.0, -6.0, 1.0, 2.0, 3.0]]))
    assert kept.tolist() == [[True, False, False, False, True]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=5, max_size=5), st.floats(0.26, 1.0), st.sampled_from(["macs", "params"]))
def test_the_fit_is_the_largest_on_its_path(costs: CostModel, priority: list[int], share: float, of: str) -> None:
    budget = Budget(costs, max(share, 0.29), of)  # type: ignore[arg-type]
    kept = budget.fit(torch.tensor([priority], dtype=torch.float64))[0]
    assert float(budget.shares(kept[None])) <= budget.share
    protected = {max(range(2), key=lambda i: priority[i]), max(range(2, 5), key=lambda i: priority[i])}
    order = sorted(set(range(5)) - protected, key=lambda i: (priority[i], i))
    for dropped in range(len(order) + 1):  # one at a time
        mask = torch.tensor([index not in order[:dropped] for index in range(5)])
        if float(budget.shares(mask[None])) <= budget.share:
            break
    assert kept.tolist() == mask.tolist()


def test_the_fit_of_many_is_the_fit_of_each(costs: CostModel) -> None:
    budget, priority = Budget(costs, 0.6), torch.rand(20, 5)
    together = budget.fit(priority)
    assert all(torch.equal(together[i], budget.fit(priority[i : i + 1])[0]) for i in range(20))
    masks = torch.tensor(list(itertools.product([False, True], repeat=5)))
    assert budget.counts(masks)[-1].tolist() == [2, 3]


def test_bad_arguments_are_named(costs: CostModel) -> None:
    with pytest.raises(ValueError, match=r"share=0\.1: one channel a group costs 0\.2504"):
        Budget(costs, 0.1)
    with pytest.raises(ValueError, match=r"share=1\.5"):
        Budget(costs, 1.5)
    with pytest.raises(ValueError, match="of='flops'"):
        Budget(costs, 0.5, "flops")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"priority: must be \(B, 5\)"):
        Budget(costs, 0.5).fit(torch.zeros(5))
    with pytest.raises(ValueError, match="without NaN"):
        Budget(costs, 0.5).fit(torch.full((1, 5), float("nan")))
