"""What only training mode does, pruned along with the rest."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from layer_nets import IMAGE, Net, conv, groups, head
from torch import Tensor, nn

import graphprune


class Outputs(NamedTuple):
    main: Tensor
    extra: Tensor


class AuxiliaryHead(nn.Module):
    """A second classifier in training mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head, self.aux = conv(3, 6), head(6), nn.Sequential(conv(6, 4), head(4))

    def forward(self, x: Tensor) -> Tensor | Outputs:
        y = self.a(x)
        return Outputs(self.head(y), self.aux(y)) if self.training else self.head(y)


def test_layers_that_only_training_reaches_are_cut_too() -> None:
    net = AuxiliaryHead()
    assert groups(net) == {"a": (6, ("a",)), "aux.0": (4, ("aux.0",))}
    graph = graphprune.trace(net, IMAGE.double())
    keep = {"a": torch.tensor([True, False] * 3), "aux.0": torch.tensor([True, False, False, False])}
    small = graphprune.prune(net, graph, keep).train()
    assert small.aux[0].weight.shape == (1, 3, 3, 3)
    assert [out.shape for out in small(torch.randn(2, 3, 8, 8, dtype=torch.double))] == [(2, 5), (2, 5)]
    assert graphprune.CostModel(graph, IMAGE).full == graphprune.cost(net, IMAGE)


def test_layers_of_training_that_cannot_be_traced_are_told() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.head(y) + m.aux(y) if m.training and y.sum() > 0 else m.head(y)

    net = Net(forward, a=conv(3, 4), head=head(4), aux=head(4)).eval()
    with pytest.warns(UserWarning, match=r"layers that evaluation does not reach \(aux.2, ...\) stay as they are"):
        graphprune.trace(net, IMAGE)


def averaged(m: Net, y: Tensor) -> Tensor:
    m.ema.mul_(0.9).add_(y.detach().mean((0, 2, 3)), alpha=0.1)
    return y


def averaged_by_copy(m: Net, y: Tensor) -> Tensor:
    m.ema.copy_(0.9 * m.ema + 0.1 * y.detach().mean((0, 2, 3)))
    return y


def noisy(m: Net, y: Tensor) -> Tensor:
    return y + torch.randn_like(y) * m.ema[:, None, None]


ONLY_TRAINING: list[tuple[Callable[[Net, Tensor], Tensor], int | str]] = [
    (averaged, 3),
    (averaged_by_copy, 3),
    (noisy, 3),
    (lambda m, y: y * y.new_ones(1, 6, 1, 1), "mul() at 'mul' combines it with a tensor of fixed size"),
    (lambda m, y: y + y.view(len(y), 3, 2, *y.shape[2:]).sum((1, 2))[:, None], "sum() at 'sum_1' reduces over it"),
    (lambda m, y: F.dropout(y, 0.5, m.training), 6),  # nothing that the evaluation did not tell
]


@pytest.mark.parametrize(("only", "expected"), ONLY_TRAINING)
def test_what_only_training_reads_is_cut_along_or_freezes(only: Callable[[Net, Tensor], Tensor], expected: int | str) -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.head(m.b(only(m, y) if m.training else y))

    net = Net(forward, a=conv(3, 6), b=conv(6, 4), head=head(4))
    net.register_buffer("ema", torch.zeros(6))
    found = groups(net)
    graph = graphprune.trace(net, IMAGE)
    assert (graph.training is None) == (expected == 6)
    keep = {group.name: torch.arange(group.channels) % 2 == 0 for group in graph.groups}
    small = graphprune.prune(net, graph, keep).train()
    assert small(IMAGE.double()).shape == (2, 5)
    if isinstance(expected, str):
        assert (graph.frozen["a"], set(found)) == (expected, {"b"})
    else:
        assert (set(found), len(small.ema)) == ({"a", "b"}, expected)


def test_a_training_mode_that_cannot_be_run_changes_nothing() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        if m.training:
            raise ValueError("targets must be given")
        return m.head(m.a(x))

    assert groups(Net(forward, a=conv(3, 6), head=head(6))) == {"a": (6, ("a",))}
