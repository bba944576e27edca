"""Channels gathered by index."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.graph.channel_select import ChannelSelect


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=12), st.integers(1, 3), st.integers(1, 7))
def test_channel_select_gathers_channel_by_channel(index: list[int], stride: int, side: int) -> None:
    x = torch.rand(2, 5, side, side + 1)
    out = ChannelSelect(index, stride)(x)
    for channel, source in enumerate(index):
        expected = x[:, source, ::stride, ::stride] if source >= 0 else torch.zeros_like(x[:, 0, ::stride, ::stride])
        assert torch.equal(out[:, channel], expected)


def test_a_zero_channel_stays_zero_beside_infinities() -> None:
    out = ChannelSelect([-1, 0])(torch.full((1, 1, 1, 1), float("inf")))
    assert out.flatten().tolist() == [0.0, float("inf")]


def test_channel_select_has_nothing_to_learn_or_to_store() -> None:
    select = ChannelSelect([0, -1])
    assert list(select.parameters()) == []
    assert select.state_dict() == {}


@pytest.mark.parametrize("index", [[], [0, -2], [[0]]])
def test_channel_select_refuses_a_bad_index(index: list[int]) -> None:
    with pytest.raises(ValueError, match="index must list input channels"):
        ChannelSelect(index)


def test_channel_select_refuses_a_bad_stride() -> None:
    with pytest.raises(ValueError, match="stride must be at least 1; got 0"):
        ChannelSelect([0], stride=0)


def test_an_index_is_a_copy_that_moves_with_the_module() -> None:
    index = torch.tensor([1, 0])
    select = ChannelSelect(index, stride=2)
    index.fill_(0)
    assert select.index.tolist() == [1, 0]
    assert select.to("meta").index.is_meta
    assert repr(select) == "ChannelSelect(out_channels=2, stride=2)"
