"""Tracing by torch.fx: what becomes a node, and that nothing else is touched."""

import math
from math import sqrt

import pytest
import torch
from torch import Tensor, fx, nn

import graphprune
from graphprune.graph.tracing import symbolic
from graphprune.graph.weightless import on_meta


class Reader(nn.Module):
    """Reads parameters of its own and of others, lists them, and takes the root of a computed size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.unused = nn.Parameter(torch.ones(2))
        self.many = nn.ParameterList([torch.ones(1), torch.ones(1)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).to(next(self.parameters()).dtype)
        x = nn.functional.conv2d(x, self.conv.weight.permute(1, 0, 2, 3)) / sqrt(x.shape[1]) / math.sqrt(x.shape[1])
        return self.conv(x) * self.scale * self.scale * self.many[1]


def test_parameters_that_a_forward_reads_are_nodes_once() -> None:
    graph = symbolic(on_meta(Reader()))
    assert [node.target for node in graph.nodes if node.op == "get_attr"] == ["conv.weight", "scale", "many.1"]
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["conv", "conv"]
    assert [node.target for node in graph.nodes].count(sqrt) == 2


def test_a_trace_computes_what_the_network_does() -> None:
    torch.manual_seed(0)
    model, x = Reader(), torch.randn(2, 3, 4, 4)
    assert torch.equal(fx.GraphModule(model, symbolic(on_meta(model)))(x), model(x))


class Choosing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("model", [Reader(), Choosing()])
def test_modules_are_as_before_whether_tracing_succeeds_or_not(model: nn.Module) -> None:
    shell = on_meta(model)
    before = [dict(vars(module)) for module in shell.modules()]
    methods = [dict(vars(nn.Module.__call__)), dict(vars(nn.Module.__getattr__))]  # type: ignore[arg-type]
    if isinstance(model, Choosing):
        with pytest.raises(ValueError, match="cannot be traced"):
            symbolic(shell)
    else:
        symbolic(shell)
    assert [vars(module).keys() for module in shell.modules()] == [state.keys() for state in before]
    assert [dict(vars(nn.Module.__call__)), dict(vars(nn.Module.__getattr__))] == methods  # type: ignore[arg-type]


def test_while_it_is_traced_other_networks_compute() -> None:
    other, x = nn.Linear(2, 2), torch.ones(1, 2)

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, y: Tensor) -> Tensor:
            found.append(other(x))
            return self.conv(y)

    found: list[Tensor] = []
    graphprune.trace(Asking(), torch.zeros(1, 3, 4, 4))
    assert torch.equal(found[0], other(x))
