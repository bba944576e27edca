"""Slices cut out of tensors."""

import pytest
import torch
from torch import nn

from graphprune.graph import cutting
from graphprune.graph.cutting import cut, slice_tensor


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("block", [1, 100, 1 << 18])
def test_rows_and_columns_cut_by_blocks_are_those_cut_at_once(dim: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "BLOCK", block)
    weight, rows, columns = torch.randn(7, 6, 5, 2), torch.tensor([0, 3, 4, 6]), torch.tensor([1, 2, 4])
    small = slice_tensor(weight.requires_grad_(), {dim: columns, 0: rows})
    assert torch.equal(small, weight[rows].movedim(dim, 1)[:, columns].movedim(1, dim))
    assert not small.requires_grad


def test_what_is_left_has_memory_of_its_own() -> None:
    weight, every = torch.zeros(4, 3), torch.arange(4)
    for small in (
        slice_tensor(weight, {0: every}),
        slice_tensor(weight, {0: every[:2]}),
        slice_tensor(weight, {0: every[:2], 1: every[:1]}),
    ):
        small.fill_(1)
    assert not weight.any()


def test_every_module_that_holds_a_tied_weight_has_its_size_mended() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=4, bias=False), nn.Conv2d(4, 4, 1, groups=4, bias=False))
    model[1].weight = model[0].weight
    small = cut(model, {("0.weight", 0): torch.tensor([0, 2, 3])})
    assert small[0].weight is small[1].weight
    assert [conv.groups for conv in small] == [conv.in_channels for conv in small] == [3, 3]
    assert small(torch.ones(1, 3, 2, 2)).shape == (1, 3, 2, 2)
    assert [conv.groups for conv in model] == [4, 4]
