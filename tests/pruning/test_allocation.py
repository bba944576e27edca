"""Widths within a budget, against all networks there are and against the budget's own fit."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import graphprune
from graphprune.pruning.allocation import Limits, OverBudget, allocate, block_sizes, order_of, rank_in_group, weigh_by_size
from graphprune.pruning.budget import Budget
from graphprune.pruning.cost import CostModel

EXAMPLE = torch.zeros(1, 1, 4, 4)


@pytest.fixture(scope="module")
def costs() -> CostModel:
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 1)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return CostModel(graphprune.trace(model, EXAMPLE), EXAMPLE)


ORDERS = st.lists(st.integers(-3, 3), min_size=15, max_size=15)


def as_order(costs: CostModel, numbers: list[int]) -> dict[str, torch.Tensor]:
    flat = torch.tensor(numbers, dtype=torch.float64)
    return {name: flat[span] for name, span in costs.graph.slices.items()}


def widths(limits: Limits, round_to: int, fixed: list[str]) -> list[tuple[int, ...]]:
    """Every network there is: for each group a multiple of `round_to`, or all; of a fixed one all."""
    options = []
    for group in limits.costs.graph.groups:
        some = [] if group.name in fixed else list(range(round_to, group.channels, round_to))
        options.append([*some, group.channels])
    return list(itertools.product(*options))


@settings(max_examples=100, deadline=None)
@given(ORDERS, st.floats(0.02, 1.0), st.floats(0.02, 1.0), st.integers(1, 4), st.sampled_from([[], ["0"], ["2", "4"]]))
def test_the_result_is_allowed_and_no_allowed_network_is_wider_everywhere(
    costs: CostModel, numbers: list[int], macs: float, params: float, round_to: int, fixed: list[str]
) -> None:
    limits = Limits(costs, int(macs * costs.full.macs), int(params * costs.full.params))
    every = [row for row in widths(limits, round_to, fixed) if limits.met(torch.tensor(row))]
    if not every:
        with pytest.raises(OverBudget):
            allocate(limits, as_order(costs, numbers), round_to, fixed)
        return
    keep = allocate(limits, as_order(costs, numbers), round_to, fixed)
    found = tuple(int(mask.sum()) for mask in keep.values())
    assert found in every
    assert [row for row in every if row != found and all(a >= b for a, b in zip(row, found, strict=True))] == []


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(15)), st.floats(0.1, 1.0), st.sampled_from(["macs", "params"]))
def test_without_rounding_it_keeps_all_that_the_budgets_fit_keeps(
    costs: CostModel, numbers: list[int], share: float, of: str
) -> None:
    budget = Budget(costs, share, of)  # type: ignore[arg-type]
    fit = budget.fit(torch.tensor([numbers], dtype=torch.float64))[0]
    limits = Limits(costs, **{of: int(share * getattr(costs.full, of))})
    assert bool((costs.graph.flatten(allocate(limits, as_order(costs, numbers))) >= fit).all())


def test_the_highest_of_each_group_stay(costs: CostModel) -> None:
    order = as_order(costs, [3, 1, 5, 2, 4, 0, 1, 1, 1, 1, 1, 0, 3, 2, 1])
    keep = allocate(Limits(costs, params=70), order, 2)
    assert keep["0"].tolist() == [False, False, True, False, True, False]
    assert keep["2"].tolist() == [False, False, False, True, True], "of equals the first go"
    assert keep["4"].tolist() == [False, True, True, False]


def test_orders_by_hand(costs: CostModel) -> None:
    scores = {"0": torch.tensor([2.0, 1.0]), "2": torch.tensor([0.0, 0.0])}
    assert rank_in_group(scores)["0"].tolist() == [0.5, 0.0]
    assert weigh_by_size({"0": torch.tensor([3.0, 1.0])})["0"].tolist() == [1.5, 0.5]
    assert weigh_by_size(scores)["2"].tolist() == [0.0, 0.0]
    flat = as_order(costs, list(range(15)))
    assert order_of(lambda graph, given: given, costs.graph, flat) == flat
    with pytest.raises(ValueError, match="how='unifrom': must be one of 'uniform', 'global', 'searched'"):
        order_of("unifrom", costs.graph, flat)
    with pytest.raises(TypeError, match="how=3"):
        order_of(3, costs.graph, flat)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"how\(graph, scores\) has no entry for group '0'"):
        order_of(lambda graph, given: {}, costs.graph, flat)


def test_heads_of_attention_are_as_wide_as_they_are() -> None:
    """4 heads of 8 channels: one head is a multiple of 8 by itself, 2 of them one of 16; of the hidden layer 16 go together."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=32, depth=1, num_heads=4, num_classes=2).eval()
    graph = graphprune.trace(model, torch.zeros(1, 3, 16, 16))
    heads, hidden = "blocks.0.attn.qkv", "blocks.0.mlp.fc1"
    assert block_sizes(graph, 8) == {heads: 1, hidden: 8}
    assert block_sizes(graph, 16) == {heads: 2, hidden: 16}
    assert block_sizes(graph, 1) == {heads: 1, hidden: 1}
