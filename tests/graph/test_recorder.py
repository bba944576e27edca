"""What the recorder hears: operators as Python writes them, writes into memory, branches on values."""

import operator

import pytest
import torch
from torch import Tensor, nn

from graphprune.graph.recorder import Recorder, ValuesDecide, operation_of, peek


def listen() -> tuple[Recorder, nn.Module]:
    root = nn.Linear(2, 2)
    recorder = Recorder(root, weightless=False)
    return recorder, root


def test_operators_are_written_as_python_writes_them() -> None:
    plain, swapped, method = operation_of(Tensor.__add__), operation_of(Tensor.__rsub__), operation_of(Tensor.view)
    assert (plain.kind, plain.target, plain.swapped) == ("call_function", operator.add, False)
    assert (swapped.target, swapped.swapped) == (operator.sub, True)
    assert (method.kind, method.target) == ("call_method", "view")


def test_functions_that_write_into_their_operand_are_known_by_their_name() -> None:
    assert [operation_of(func).pure for func in (Tensor.add, Tensor.add_, Tensor.__iadd__, Tensor.__rsub__)] == [
        True,
        False,
        False,
        True,
    ]


def test_a_reversed_operator_has_its_operands_in_the_order_that_is_computed() -> None:
    recorder, _ = listen()
    x = torch.ones(2)
    recorder.place(0, x)
    with recorder:
        1.0 - x
    made = list(recorder.graph.nodes)[-1]
    assert made.target is operator.sub
    assert made.args[0] == 1.0


def test_another_view_of_memory_that_was_written_into_is_read_anew() -> None:
    recorder, _ = listen()
    x = torch.ones(4)
    recorder.place(0, x)
    with recorder:
        copy = x.clone()
        half = copy[:2]
        copy.cumsum_(0)
        half + 1
    targets = [node.target for node in recorder.graph.nodes]
    assert targets.index(peek) > targets.index("cumsum_")


def test_a_branch_on_what_parameters_determine_is_refused_and_one_on_inputs_is_not() -> None:
    recorder, root = listen()
    x = torch.ones(2)
    recorder.place(0, x)
    with recorder:
        assert bool(x.sum() > 0)
        with pytest.raises(ValuesDecide, match="decides by the values"):
            bool(root.weight.sum() > 0)
