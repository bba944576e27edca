"""Data-moving operations on labels written down by hand."""

from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from one_call import Calls, Computed, channels
from torch import nn

from graphprune.graph.rules.labels import unlabelled


@pytest.fixture
def run() -> Calls:
    return Calls()


# --- moved as they are ------------------------------------------------------------------------------------------------


def test_moved_labels_lie_where_the_channels_lie(run: Calls) -> None:
    x = run.fresh(1, 4, 2, 3)
    assert channels(run("permute", x, 0, 2, 3, 1), dim=3) == [0, 1, 2, 3]
    assert channels(run("transpose", x, 1, 2), dim=2) == [0, 1, 2, 3]
    assert channels(run(torch.flip, x, [1])) == [3, 2, 1, 0]
    assert channels(run(torch.repeat_interleave, x, 2, 1)) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert run(nn.PixelShuffle(2), x)[0, 0].tolist() == [[0, 1] * 3, [2, 3] * 3] * 2
    assert (run.tied, run.frozen) == ([], [])


def test_flattened_channels_keep_their_places_together(run: Calls) -> None:
    x = run.fresh(1, 2, 1, 3)
    for op, args in ((nn.Flatten(), ()), (torch.flatten, (1,)), ("view", (1, -1)), ("reshape", (1, -1))):
        assert run(op, x, *args).tolist() == [[0, 0, 0, 1, 1, 1]]
    assert run.frozen == []


def test_channels_cut_into_literal_parts_go_in_whole_rows(run: Calls) -> None:
    """4 channels as 2 x 2: the literal first size holds, so that what goes, goes from both rows."""
    out = run("view", run.fresh(1, 4), 1, 2, -1)
    assert out.tolist() == [[[0, 1], [2, 3]]]
    assert run.tied == [[0, 2], [1, 3]]
    assert run.frozen == []


def test_a_literal_number_of_channels_freezes_them(run: Calls) -> None:
    run("view", run.fresh(1, 4, 2, 2), 1, 4, -1)
    assert run.frozen == [0, 1, 2, 3]
    assert all(reason.endswith("fixes a size in the model's code") for reason in run.reasons)


def test_a_computed_number_of_channels_is_free(run: Calls) -> None:
    assert channels(run("view", run.fresh(1, 4, 2, 2), 1, Computed(4), -1)) == [0, 1, 2, 3]
    assert run.frozen == []


def test_unflatten_holds_its_literal_sizes_too(run: Calls) -> None:
    assert run(nn.Unflatten(1, (2, 2)), run.fresh(1, 4)).tolist() == [[[0, 1], [2, 3]]]
    assert run.tied  # both sizes are literal
    free = Calls()
    assert free("unflatten", free.fresh(1, 4), 1, (Computed(2), Computed(2))).tolist() == [[[0, 1], [2, 3]]]
    assert (free.tied, free.frozen) == ([], [])


def test_an_expansion_by_a_literal_freezes_and_by_minus_one_does_not(run: Calls) -> None:
    assert channels(run("expand", run.fresh(1, 3, 1), -1, -1, 5)) == [0, 1, 2]
    assert run.frozen == []
    run("expand", run.fresh(1, 3, 1), 1, 3, 5)
    assert run.frozen == [3, 4, 5]


def test_what_is_expanded_to_channels_goes_with_them(run: Calls) -> None:
    assert channels(run("expand_as", unlabelled((2, 1, 1)), run.fresh(2, 3, 2))) == [0, 1, 2]
    assert run.frozen == []
    run("expand_as", unlabelled((1, 3, 1)), run.fresh(2, 3, 2))
    assert run.frozen == [3, 4, 5]


def test_zeros_of_the_size_of_channels_go_with_them(run: Calls) -> None:
    x = run.fresh(2, 3, 4)
    size = run.number(x, 1, 3)
    assert channels(run("new_zeros", unlabelled((1,)), (5, size))) == [0, 1, 2]
    assert channels(run(torch.ones, 5, size)) == [0, 1, 2]
    assert channels(run(torch.zeros, size=(2, size))) == [0, 1, 2]
    assert channels(run("new_full", x, (size, 2), 1.0), dim=0) == [0, 1, 2]
    assert channels(run("expand", unlabelled((2, 1)), -1, size)) == [0, 1, 2]
    assert torch.equal(run(torch.zeros, run.number(x, 0, 2), 3), unlabelled((2, 3)))  # of its places, not its channels
    assert torch.equal(run(torch.zeros, size, size), unlabelled((3, 3)))  # two places for one channel
    assert run.frozen == []


# --- cut and joined ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "args"),
    [("chunk", (2, 1)), (torch.chunk, (2, 1)), ("split", (Computed(2), 1)), (torch.split, ([Computed(2), Computed(2)], 1))],
)
def test_equal_parts_stay_equal(run: Calls, op: object, args: tuple[object, ...]) -> None:
    first, second = run(op, run.fresh(1, 4, 2, 2), *args)
    assert (channels(first), channels(second)) == ([0, 1], [2, 3])
    assert run.tied == [[0, 2], [1, 3]]
    assert run.frozen == []


@pytest.mark.parametrize(
    ("op", "args"),
    [("split", (2, 1)), ("split", ([1, 3], 1)), (torch.chunk, (3, 1)), ("unbind", (1,)), ("split", (Computed(3), 1))],
)
def test_parts_of_literal_or_unequal_size_freeze(run: Calls, op: object, args: tuple[object, ...]) -> None:
    run(op, run.fresh(1, 4, 2, 2), *args)
    assert run.frozen == [0, 1, 2, 3]


def test_parts_of_places_leave_channels_alone(run: Calls) -> None:
    x = run.fresh(1, 3, 4, 2)
    for op, args in (("chunk", (2, 2)), ("split", (1, 2)), ("unbind", (2,)), ("select", (2, 0)), (torch.roll, (1, 2))):
        out = run(op, x, *args)
        assert channels(out if isinstance(out, torch.Tensor) else out[0]) == [0, 1, 2]
    assert (run.tied, run.frozen) == ([], [])


@pytest.mark.parametrize(("op", "args"), [("select", (1, 0)), ("narrow", (1, 0, 2)), (torch.roll, (1, 1))])
def test_picked_or_shifted_channels_are_frozen(run: Calls, op: object, args: tuple[object, ...]) -> None:
    run(op, run.fresh(1, 3, 2, 2), *args)
    assert run.frozen == [0, 1, 2]


def test_joined_channels_follow_one_another(run: Calls) -> None:
    x, y = run.fresh(1, 2, 3), run.fresh(1, 1, 3)
    assert channels(run(torch.cat, [x, y, x], 1)) == [0, 1, 2, 0, 1]
    assert channels(run(torch.concat, [x, unlabelled((1, 2, 3))], dim=-2)) == [0, 1, -1, -1]
    assert (run.tied, run.frozen) == ([], [])


def test_channels_joined_along_another_dimension_are_tied(run: Calls) -> None:
    out = run(torch.cat, [run.fresh(1, 2, 3), run.fresh(1, 2, 4)], 2)
    assert out.tolist() == [[[0, 0, 0, 2, 2, 2, 2], [1, 1, 1, 3, 3, 3, 3]]]
    assert run.tied == [[0, 2], [1, 3]]
    run(torch.cat, [run.fresh(1, 2, 3), unlabelled((1, 2, 3))], 2)
    assert run.frozen == [4, 5]


def test_stacked_channels_are_tied(run: Calls) -> None:
    assert run(torch.stack, [run.fresh(1, 2), run.fresh(1, 2)]).tolist() == [[[0, 1]], [[2, 3]]]
    assert run.tied == [[0, 2], [1, 3]]


# --- padded, shuffled, gated ------------------------------------------------------------------------------------------


def test_padding_within_a_map_is_the_channels_and_beside_it_is_nobodys(run: Calls) -> None:
    x = run.fresh(1, 2, 3, 3)
    for out in (run(F.pad, x, (1, 1, 2, 0)), run(nn.ZeroPad2d(1), x)):
        assert channels(out) == [0, 1]
    assert channels(run(F.pad, x, (0, 0, 0, 0, 1, 2))) == [-1, 0, 1, -1, -1]
    assert run.frozen == []
    assert channels(run(F.pad, x, (0, 0, 0, 0, -1, 0))) == [1]
    assert run.frozen == [0, 1]


@pytest.mark.parametrize(("op", "args"), [(nn.ChannelShuffle(2), ()), (F.channel_shuffle, (2,))])
def test_a_shuffle_ties_the_same_place_of_its_groups(run: Calls, op: object, args: tuple[int, ...]) -> None:
    assert channels(run(op, run.fresh(1, 4, 2, 2), *args)) == [0, 2, 1, 3]
    assert run.tied == [[0, 2], [1, 3]]


@pytest.mark.parametrize(("op", "args"), [(nn.GLU(1), ()), (F.glu, (1,))])
def test_a_gate_is_tied_to_what_it_gates(run: Calls, op: object, args: tuple[int, ...]) -> None:
    assert channels(run(op, run.fresh(1, 4, 2, 2), *args)) == [0, 1]
    assert run.tied == [[0, 2], [1, 3]]


Pair = namedtuple("Pair", "first second")


def test_a_named_tuple_is_made_of_labels(run: Calls) -> None:
    x, y = run.fresh(1, 2), run.fresh(1, 3)
    out = run(Pair, x, second=y)
    assert isinstance(out, Pair)
    assert out.first is x
    assert out.second is y
