"""A pruned network beside its masked twin: differences that matter, and those that do not."""

import re

import pytest
import torch
from torch import Tensor, nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.checking import close, difference, largest, outputs_of, random_outputs
from graphprune.graph.inputs import as_inputs

IMAGE = torch.zeros(2, 1, 4, 4)


@pytest.fixture
def traced() -> tuple[nn.Module, ChannelGraph, dict[str, Tensor]]:
    model = graphprune.models.seeded("tiny_cnn", 0, in_channels=1)
    graph = graphprune.trace(model, IMAGE)
    return model, graph, graph.full() | {"conv3": torch.tensor([True, False, True])}


def test_a_right_network_passes_and_both_are_left_alone(traced: tuple[nn.Module, ChannelGraph, dict[str, Tensor]]) -> None:
    model, graph, keep = traced
    small, twin = graphprune.prune(model, graph, keep).train(), graphprune.masked(model, graph, keep)
    torch.manual_seed(3)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert difference(small, twin, graph) is None
    assert torch.equal(torch.rand(1), drawn), "the generator is as it was"
    assert small.training
    assert {p.dtype for net in (small, twin) for p in net.parameters()} == {torch.float32}


def test_a_weight_that_is_off_by_a_hundredth_is_seen(traced: tuple[nn.Module, ChannelGraph, dict[str, Tensor]]) -> None:
    model, graph, keep = traced
    small, twin = graphprune.prune(model, graph, keep), graphprune.masked(model, graph, keep)
    small.fc.weight.data[0, 0] += 0.01
    assert re.fullmatch(r"output 0 differs by \S+ of \S+", difference(small, twin, graph) or "")


def test_another_shape_is_named(traced: tuple[nn.Module, ChannelGraph, dict[str, Tensor]]) -> None:
    model, graph, keep = traced
    twin = graphprune.masked(model, graph, keep)
    found = difference(graphprune.models.tiny_cnn(num_classes=7), twin, graph)
    assert found == "output 0 differs by shape, (2, 7) for (2, 10)"


class Single(nn.Module):
    """Works in single precision alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x + torch.ones(4)).float() @ torch.eye(2)


def test_what_cannot_run_in_double_precision_runs_as_it_is() -> None:
    model = Single()
    graph = graphprune.trace(model, torch.zeros(1, 4))
    assert difference(model, model, graph) is None


def test_a_forward_that_draws_is_told_from_one_that_does_not(traced: tuple[nn.Module, ChannelGraph, dict[str, Tensor]]) -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand(x.shape)

    model, graph, _ = traced
    drawn = torch.default_generator.get_state()
    assert not random_outputs(model, graph)
    assert random_outputs(nn.Sequential(model, Noisy()), graph)
    assert not random_outputs(nn.Sequential(model, nn.Dropout()), graph), "dropout is off where networks are compared"
    assert torch.equal(torch.default_generator.get_state(), drawn)


def test_inputs_without_values_are_drawn_the_same_each_time() -> None:
    inputs = as_inputs((torch.empty(2, 3, device="meta"), torch.tensor([4])))

    class Both(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
            return [x, y]

    first, again = (outputs_of(Both(), inputs, torch.float64) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert first[0].dtype == torch.float64
    assert first[0].std() > 0
    assert first[1].tolist() == [4]


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ([100.0, 1.0], [100.0, 1.05], True),  # a share of the largest
        ([100.0, 1.0], [100.0, 1.2], False),
        ([float("nan"), 1.0], [float("nan"), 1.0], True),
        ([float("nan"), 1.0], [0.0, 1.0], False),
        ([], [], True),
    ],
)
def test_close_is_by_the_largest_output(wanted: list[float], found: list[float], same: bool) -> None:
    assert close(torch.tensor(wanted), torch.tensor(found), 1e-3) is same


def test_whole_numbers_are_not_compared_and_infinities_are_not_the_largest() -> None:
    assert close(torch.tensor([3]), torch.tensor([4]), 1e-3)
    assert largest(torch.tensor([float("inf"), -2.0, float("nan")])) == 2.0
    assert largest(torch.tensor([float("inf")])) == 0.0
