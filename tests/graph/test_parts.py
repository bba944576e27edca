"""A network by the paths of its parts."""

import torch
from torch import Tensor, fx, nn

from graphprune.graph.parts import named_modules, named_tensors, parts_of, unread


class Shared(nn.Module):
    """A module under two paths, and a weight under three."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.again, self.tied = self.first, nn.Linear(2, 2)
        self.tied.weight = self.first.weight
        self.register_buffer("count", torch.tensor(7))
        self.free = torch.arange(3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.first(x)) * self.count


def test_names_are_torch_s() -> None:
    shared = Shared()
    assert list(named_modules(shared)) == [name for name, _ in shared.named_modules(remove_duplicate=False)]
    wanted = [*shared.named_parameters(remove_duplicate=False), *shared.named_buffers(remove_duplicate=False)]
    assert list(named_tensors(shared)) == [name for name, _ in wanted]


def test_parts_are_what_a_trace_calls_and_reads() -> None:
    shared = Shared()
    parts = parts_of(shared, fx.symbolic_trace(shared).graph, None)
    assert parts.modules == {"first": shared.first, "tied": shared.tied}
    assert parts.canonical["again.weight"] == parts.canonical["tied.weight"] == "first.weight"
    assert parts.canonical["tied.bias"] == "tied.bias"
    assert parts.at("count") is shared.count
    assert parts.at("free") is shared.free


def test_unread_parameters_are_named_once_and_by_their_first_name() -> None:
    shared = Shared()
    shared.idle = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))
    shared.other, shared.idle[1].more = shared.idle[0], shared.first.weight
    traced = fx.symbolic_trace(shared).graph
    assert unread(parts_of(shared, traced), traced) == {"idle.0.weight", "idle.1.weight", "idle.1.bias"}
