"""Elementwise operations on labels written down by hand."""

import operator

import pytest
import torch
from one_call import Calls, channels
from torch import nn

from graphprune.graph.rules.labels import unlabelled


@pytest.fixture
def run() -> Calls:
    return Calls()


@pytest.mark.parametrize("op", [operator.add, torch.mul, "sub", torch.maximum])
def test_channels_that_are_added_up_are_tied_by_place(run: Calls, op: object) -> None:
    a, b = run.fresh(1, 3, 2, 2), run.fresh(1, 3, 2, 2)
    assert channels(run(op, a, b)) == [0, 1, 2]
    assert run.tied == [[0, 3], [1, 4], [2, 5]]
    assert run.frozen == []


@pytest.mark.parametrize("op", [nn.ReLU(), torch.sigmoid, "clone", nn.Dropout()])
def test_an_activation_passes_labels_on(run: Calls, op: object) -> None:
    assert channels(run(op, run.fresh(1, 3, 2, 2))) == [0, 1, 2]
    assert (run.tied, run.frozen) == ([], [])


def test_a_number_or_a_tensor_of_one_place_holds_nothing(run: Calls) -> None:
    x = run.fresh(1, 3, 2, 2)
    assert channels(run(operator.add, x, 2.5)) == [0, 1, 2]
    assert channels(run(torch.mul, unlabelled((1, 1, 1, 1)), x)) == [0, 1, 2]
    assert run.frozen == []


def test_a_constant_with_the_channels_size_holds_them(run: Calls) -> None:
    run(operator.add, run.fresh(1, 3, 2, 2), unlabelled((3, 1, 1)))
    assert run.frozen == [0, 1, 2]
    assert run.reasons == {f"add() at '{list(run.graph.nodes)[-1].name}' combines it with a tensor of fixed size"}


def test_of_channels_against_channels_of_another_dimension_the_second_stay(run: Calls) -> None:
    """(1, 2, 1) + (1, 1, 3): a place would go with either of two channels, so one of them must not."""
    out = run(operator.add, run.fresh(1, 2, 1), run.fresh(1, 1, 3, dim=2))
    assert out.tolist() == [[[0, 0, 0], [1, 1, 1]]]
    assert run.frozen == [2, 3, 4]
