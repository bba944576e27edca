"""Rows picked and written by index, on labels written down by hand."""

import operator

import pytest
import torch
from one_call import Calls, channels

from graphprune.graph.rules.indexing import takes_everything
from graphprune.graph.rules.labels import unlabelled


@pytest.fixture
def run() -> Calls:
    return Calls()


@pytest.mark.parametrize(
    ("index", "frozen"),
    [
        ((slice(None), slice(0, 2)), [0, 1, 2]),
        ((slice(None), 0), [0, 1, 2]),
        ((Ellipsis, slice(1, None), slice(None), slice(None)), [0, 1, 2]),
        ((slice(None), slice(None), 0), []),
        ((Ellipsis, None), []),
        ((slice(None), slice(0, 9)), []),
        ((Ellipsis, slice(0, 1)), []),
    ],
)
def test_an_index_freezes_the_channels_that_it_picks(run: Calls, index: tuple[object, ...], frozen: list[int]) -> None:
    x = run.fresh(1, 3, 2, 2)
    assert torch.equal(run(operator.getitem, x, index), x[index])
    assert run.frozen == frozen


def test_an_item_of_a_tuple_is_free(run: Calls) -> None:
    x, y = run.fresh(1, 2), run.fresh(1, 3)
    assert run(operator.getitem, (x, y), 1) is y
    assert run.frozen == []


@pytest.mark.parametrize(
    ("item", "size", "whole"),
    [
        (slice(None), 4, True), (slice(0, 4), 4, True), (slice(None, 9, 1), 4, True), (slice(0, 3), 4, False),
        (slice(1, None), 4, False), (slice(None, None, 2), 4, False), (slice(None, -1), 4, False), (0, 1, False),
        (slice(None, None, 1), 4, True), (slice(None, "a node"), 4, False),
    ],
)  # fmt: skip
def test_a_slice_takes_everything_only_if_it_would_of_a_smaller_one(item: object, size: int, whole: bool) -> None:
    assert takes_everything(item, size) is whole


# --- by tensors -------------------------------------------------------------------------------------------------------

ROWS = unlabelled((5,))


@pytest.mark.parametrize(
    ("index", "shape", "dim"),
    [
        (ROWS, (5, 3, 2), 1),
        ((ROWS, slice(None)), (5, 3, 2), 1),
        ((Ellipsis, ROWS), (4, 3, 5), 1),
        ((slice(None), slice(None), ROWS), (4, 3, 5), 1),
        (unlabelled((5, 6)), (5, 6, 3, 2), 2),
    ],
)
def test_rows_are_picked_with_all_their_channels(run: Calls, index: object, shape: tuple[int, ...], dim: int) -> None:
    out = run(operator.getitem, run.fresh(4, 3, 2), index)
    assert (tuple(out.shape), channels(out, dim)) == (shape, [0, 1, 2])
    assert run.frozen == []


def test_channels_picked_by_a_tensor_stay_and_so_does_an_index_made_of_channels(run: Calls) -> None:
    run(operator.getitem, run.fresh(4, 3, 2), (slice(None), ROWS))
    assert run.frozen == [0, 1, 2]
    run(operator.getitem, unlabelled((4, 2)), run.fresh(3, dim=0))
    assert run.frozen == [0, 1, 2, 3, 4, 5]
    run(operator.getitem, run.fresh(4, 3, 2), (ROWS, slice(None), ROWS))  # not side by side: not known
    assert run.frozen == [0, 1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("dim", [0, -2])
def test_index_select_picks_rows(run: Calls, dim: int) -> None:
    assert channels(run("index_select", run.fresh(4, 3), dim, ROWS)) == [0, 1, 2]
    assert run.frozen == []


def test_index_select_of_channels_freezes_them(run: Calls) -> None:
    run(torch.index_select, run.fresh(4, 3), 1, ROWS)
    assert run.frozen == [0, 1, 2]


def test_gather_reads_the_same_channel_of_other_rows(run: Calls) -> None:
    assert channels(run(torch.gather, run.fresh(4, 3), 0, unlabelled((5, 1)).expand(5, 3))) == [0, 1, 2]
    assert run.frozen == [0, 1, 2]  # an index of a fixed size


def test_gather_by_an_index_of_the_channels_size_is_free(run: Calls) -> None:
    x = run.fresh(4, 3)
    assert channels(run("gather", x, 0, x.repeat(2, 1))) == [0, 1, 2]
    assert run.frozen == []
    run("gather", x, 0, x[:, :2])  # the first channels
    assert run.frozen == [0, 1, 2]


@pytest.mark.parametrize("op", ["scatter_add", "scatter_add_", "scatter"])
def test_rows_are_added_up_channel_by_channel(run: Calls, op: str) -> None:
    x, total = run.fresh(5, 3), run.fresh(4, 3)
    assert channels(run(op, total, 0, x, x)) == [3, 4, 5]
    assert (run.tied, run.frozen) == ([[0, 3], [1, 4], [2, 5]], [])


def test_scatter_reduce_along_channels_freezes_them(run: Calls) -> None:
    x = run.fresh(2, 3)
    run("scatter_reduce_", unlabelled((2, 3)), 1, unlabelled((2, 3)), x, reduce="amax")
    assert run.frozen == [0, 1, 2]


def test_scatter_into_the_first_channels_freezes_them(run: Calls) -> None:
    run("scatter_", run.fresh(4, 3), 0, unlabelled((1, 2)), 1.0)
    assert run.frozen == [0, 1, 2]


@pytest.mark.parametrize("op", ["index_add", "index_copy_"])
def test_rows_are_added_at_an_index(run: Calls, op: str) -> None:
    x, total = run.fresh(5, 3), run.fresh(4, 3)
    assert channels(run(op, total, 0, ROWS, x)) == [3, 4, 5]
    assert (run.tied, run.frozen) == ([[0, 3], [1, 4], [2, 5]], [])
    assert channels(run("index_fill", total, 0, ROWS, 2.0)) == [3, 4, 5]
