"""A forward written down: what becomes a node, that sizes know their origin, and that nothing else is touched."""

import operator

import pytest
import torch
from torch import Tensor, nn

import graphprune
from graphprune.graph.inputs import as_inputs, weightless_inputs
from graphprune.graph.recording import Recording, Stopped, attribute, record
from graphprune.graph.weightless import on_meta


def recorded(model: nn.Module, x: Tensor) -> Recording:
    return record(on_meta(model).eval(), weightless_inputs(as_inputs(x)))


IMAGE = torch.zeros(2, 3, 4, 4)


class Reader(nn.Module):
    """Reads parameters of its own and of others, lists them, and takes the root of a computed size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.width = nn.Conv2d(3, 4, 1), 4
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.unused = nn.Parameter(torch.ones(2))
        self.many = nn.ParameterList([torch.ones(1), torch.ones(1)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).to(next(self.parameters()).dtype)
        x = nn.functional.conv2d(x, self.conv.weight.permute(1, 0, 2, 3)) * x.shape[1] ** -0.5
        return (self.conv(x) * self.scale * self.scale * self.many[1]).view(-1, self.width, 16)


def test_parameters_that_a_forward_reads_are_nodes_each_time() -> None:
    graph = recorded(Reader(), IMAGE).graph
    assert [node.target for node in graph.nodes if node.op == "get_attr"] == ["conv.weight", "scale", "scale", "many.1"]
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["conv", "conv"]


def test_sizes_and_numbers_that_modules_keep_know_their_origin() -> None:
    nodes = {node.name: node for node in recorded(Reader(), IMAGE).graph.nodes}
    assert nodes["mul"].args[1].target is operator.pow  # type: ignore[union-attr]
    assert nodes["pow_1"].meta["value"] == 0.5
    assert nodes["pow_1"].args[0].args == (nodes["to"], 1)  # type: ignore[union-attr]
    assert nodes["view"].args[2].target is attribute  # type: ignore[union-attr]
    assert nodes["view"].args[2].args == ("", "width", None)  # type: ignore[union-attr]


def test_only_forwards_that_read_sizes_are_recorded_as_such() -> None:
    assert recorded(Reader(), IMAGE).sized
    assert not recorded(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()), IMAGE).sized


class Moody(nn.Module):
    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.drop, self.reads = nn.Dropout(), reads

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x) + 1 if self.reads and self.training else self.drop(x)


def test_it_is_noted_that_a_forward_reads_its_mode_and_modules_are_left_as_they_were() -> None:
    found = [recorded(Moody(reads), IMAGE).moded for reads in (True, False)]
    assert found == [True, False]
    assert "training" not in vars(nn.Module)


class Choosing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("model", [Reader(), Choosing()])
def test_modules_are_as_before_whether_recording_succeeds_or_not(model: nn.Module) -> None:
    shell = on_meta(model).eval()
    before = [dict(vars(module)) for module in shell.modules()]
    if isinstance(model, Choosing):
        with pytest.raises(Stopped):
            record(shell, weightless_inputs(as_inputs(IMAGE)))
    else:
        record(shell, weightless_inputs(as_inputs(IMAGE)))
    assert [dict(vars(module)) for module in shell.modules()] == before
    assert [type(module.__dict__.get("width", 0)) for module in shell.modules()] == [int] * len(before)


def test_while_it_is_recorded_other_networks_compute() -> None:
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
