"""One operation as the rules see it: its arguments by place and name, and what becomes of an unknown one."""

import torch
from torch import Tensor, fx, nn

import graphprune
from graphprune.graph.rules.operation import Call, as_dims, others, tensors, unlabelled_like


def parts() -> tuple[fx.Graph, fx.Node, fx.Node, fx.Node]:
    """(graph, input, parameter `net.weight`, a computed tensor)."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    return graph, x, graph.get_attr("net.weight"), graph.call_function(torch.relu, (x,))


def test_an_argument_is_found_by_place_and_by_name() -> None:
    graph, x, *_ = parts()
    labels = torch.arange(3)
    node = graph.call_function(torch.sum, (x, 1), {"keepdim": True})
    call = Call(node, torch.sum, (labels, 1), {"keepdim": True})
    assert (call.get(1, "dim"), call.get(2, "keepdim"), call.get(3, "dtype", "none")) == (1, True, "none")
    assert call.x is labels
    assert Call(node, torch.sum, (), {"input": labels}).x is labels


def test_an_argument_as_written_is_a_node_where_it_was_computed() -> None:
    graph, x, _, computed = parts()
    node = graph.call_method("split", (x, computed), {"dim": 1})
    call = Call(node, "split", (torch.arange(4), 2), {"dim": 1})
    assert call.raw(1, "split_size") is computed
    assert (call.get(1, "split_size"), call.raw(2, "dim"), call.raw(3, "other", 7)) == (2, 1, 7)


def test_a_parameter_has_a_name_if_it_is_passed_as_it_is() -> None:
    graph, x, weight, computed = parts()
    given = (torch.arange(3), torch.arange(2), torch.arange(2))
    call = Call(graph.call_function(nn.functional.linear, (x, weight, computed)), nn.functional.linear, given, {})
    assert (call.tensor_name(1, "weight"), call.tensor_name(2, "bias"), call.tensor_name(3, "more")) == (
        "net.weight",
        None,
        None,
    )


def test_an_operation_is_named_as_a_reader_of_the_model_would() -> None:
    graph, x, *_ = parts()
    relu = graph.call_function(torch.relu, (x,))
    assert Call(relu, torch.relu, (), {}).what == f"relu() at '{relu.name}'"
    assert Call(graph.call_method("view", (x,)), "view", (), {}).what == "view() at 'view'"
    module = Call(graph.call_module("stage.0", (x,)), nn.ReLU(), (), {})
    assert (module.what, module.is_module) == ("ReLU 'stage.0'", True)


def test_an_option_is_a_modules_attribute_or_a_functions_argument() -> None:
    graph, x, *_ = parts()
    pool = nn.AvgPool2d(3, stride=2)
    assert Call(graph.call_module("pool", (x,)), pool, (torch.arange(2),), {}).option(2, "stride") == 2
    function = nn.functional.avg_pool2d
    assert Call(graph.call_function(function, (x, 3, 1)), function, (torch.arange(2), 3, 1), {}).option(2, "stride") == 1


def test_tensors_are_found_in_any_nesting_in_order() -> None:
    a, b, c, d = (torch.tensor(i) for i in range(4))
    tree = ([a, (1, "x", {"k": b})], slice(c, None), d)
    assert [int(tensor) for tensor in tensors(tree)] == [0, 1, 2, 3]
    assert tensors(5) == tensors(None) == []
    call = Call(parts()[1], torch.add, (a, [b]), {"other": c})
    assert [int(tensor) for tensor in call.operands] == [0, 1, 2]


def test_dimensions_are_counted_from_the_front() -> None:
    assert as_dims(-1, 4) == [3]
    assert as_dims((2, -1), 4) == [2, 3]
    assert as_dims(None, 3) == as_dims((), 3) == [0, 1, 2]
    assert others(torch.zeros(1, 1, 1, 1), 1, -1) == [0, 2]


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 3, 1)
        self.c = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(torch.special.expit(self.a(x))))


def test_what_enters_an_unknown_operation_stays_with_the_reason() -> None:
    graph = graphprune.trace(Odd(), torch.zeros(1, 1, 2, 2))
    assert [group.name for group in graph.groups] == ["b"]
    assert "is not a known operation" in graph.frozen["a"]
    assert "expit" in graph.frozen["a"]


def test_transposed_convolutions_are_told_as_modules_and_as_functions() -> None:
    graph, x, *_ = parts()
    node = graph.call_function(torch.relu, (x,))
    functions = (nn.functional.conv2d, nn.functional.conv_transpose2d, torch.conv_transpose1d, torch.transpose)
    operations = (nn.Conv1d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1), *functions)
    assert [Call(node, op, (), {}).transposed for op in operations] == [False, True, False, True, True, False]


def test_without_labels_the_same_structure_is_left() -> None:
    found = unlabelled_like({"a": torch.zeros(1, 2), "b": (3, [torch.zeros(2)])})
    assert found["a"].tolist() == [[-1, -1]]
    assert found["b"][0] == 3
    assert found["b"][1][0].tolist() == [-1, -1]
