"""What a forward is called with, and which of its outputs count."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphprune.graph.inputs import as_inputs, chosen, leaves, naming_bad_input, on_leaves, weightless_inputs

A, B, C = torch.zeros(1), torch.ones(2), torch.full((3,), 2.0)


@pytest.mark.parametrize(
    ("given", "keywords", "args", "kwargs"),
    [
        (A, None, (A,), {}),
        ((A, B), None, (A, B), {}),
        ([A, 3], None, (A, 3), {}),
        ({"x": A}, {"y": B}, (), {"x": A, "y": B}),
        (None, {"y": B}, (), {"y": B}),
        (A, {"y": B}, (A,), {"y": B}),
    ],
)
def test_arguments_are_taken_by_place_or_by_name(given: Any, keywords: Any, args: tuple[Any, ...], kwargs: Any) -> None:
    found = as_inputs(given, keywords)
    assert (found.args, found.kwargs) == (args, kwargs)


@pytest.mark.parametrize(("given", "kinds"), [("x", "str"), ((1, None), "int, NoneType"), ({"x": 3}, "x"), (None, "NoneType")])
def test_without_a_tensor_it_is_no_input(given: Any, kinds: str) -> None:
    with pytest.raises(TypeError, match=rf"example_input must be a tensor, .*, got \({kinds}\)"):
        as_inputs(given)


def test_tensors_are_found_in_order_and_changed_where_they_are() -> None:
    inputs = as_inputs(([A, {"b": B}], 5), {"c": (C,)}, outputs=[0])
    assert inputs.tensors == [A, B, C]
    doubled = inputs.mapped(lambda tensor: tensor * 2 + 1)
    assert [tensor.tolist() for tensor in doubled.tensors] == [[1], [3, 3], [5, 5, 5]]
    assert (doubled.args[1], doubled.outputs) == (5, [0])
    assert [tensor.is_meta for tensor in weightless_inputs(inputs).tensors] == [True] * 3
    assert inputs.tensors[0] is A


class Twice(nn.Module):
    def forward(self, x: Tensor, *, times: int) -> list[Tensor]:
        return [x * times, x]


def test_a_network_is_called_and_what_counts_comes_back() -> None:
    assert [out.tolist() for out in as_inputs(B, {"times": 3}).call(Twice())] == [[3, 3], [1, 1]]
    assert [out.tolist() for out in as_inputs(B, {"times": 3}, outputs=[1]).call(Twice())] == [[1, 1]]


@dataclass
class Answer:
    first: Tensor
    others: list[Tensor]
    cache: object = None


def test_outputs_are_all_tensors_or_those_that_are_named() -> None:
    answer = Answer(A, [B, A], {"c": C})
    assert [id(out) for out in chosen(answer, None)] == [id(A), id(B), id(C)]  # each once
    assert chosen(answer, ["first"]) == [A]
    assert chosen({"a": A, "b": B}, ["b"]) == [B]
    assert chosen((A, B), [1, 0]) == [B, A]
    assert chosen(answer, lambda found: found.others[0]) == [B]


def test_outputs_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match=r"outputs=\['z'\] names what the forward does not return \(dict\)"):
        chosen({"a": A}, ["z"])
    with pytest.raises(ValueError, match=r"outputs=\[2\] names what the forward does not return \(tuple\)"):
        chosen((A, B), [2])
    with pytest.raises(ValueError, match=r"the forward returns no tensor that was found \(str\); say which with outputs="):
        chosen("text", None)


def test_a_forwards_error_names_the_shapes() -> None:
    with (
        pytest.raises(ValueError, match=r"model rejects example_input of shape \(1,\), \(2,\): no such size; give a tensor"),
        naming_bad_input(as_inputs((A, B))),
    ):
        raise RuntimeError("no such size")


def test_leaves_are_changed_in_plain_containers() -> None:
    tree = (OrderedDict(a=1), torch.Size([2, 3]), slice(None, 4), [5, "x"])
    found = on_leaves(lambda leaf: leaf + 10 if type(leaf) is int else leaf, tree)
    assert found == ({"a": 11}, (12, 13), slice(None, 14), [15, "x"])
    assert [type(item) for item in found] == [dict, tuple, slice, list]
    assert list(leaves(({"a": [1, (2,)]}, 3))) == [1, 2, 3]


def test_inputs_are_taken_as_they_are() -> None:
    inputs = as_inputs({"x": torch.zeros(1)})
    assert as_inputs(inputs) is inputs
