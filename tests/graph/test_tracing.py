"""The first recording of a network: weightless where that will do, with its weights where values are needed."""

import pytest
import torch
from torch import Tensor, nn

import graphprune
from graphprune.graph.inputs import Inputs, as_inputs
from graphprune.graph.parts import parts_of
from graphprune.graph.recording import Recording
from graphprune.graph.tracing import InputRejected, first_recording, fitted, propagate, record_again
from graphprune.graph.weightless import on_meta

IMAGE = torch.ones(1, 1, 2, 2)


def first(model: nn.Module, x: Tensor = IMAGE) -> tuple[Recording, Inputs, bool]:
    return first_recording(model, on_meta(model).eval(), as_inputs(x))


class Listing(nn.Module):
    """Takes as many channels as its input says in numbers: not on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x)[:, : len(x.flatten().tolist())]


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return y if y.mean() > 0 else -y


def test_a_plain_network_is_recorded_without_weights_and_its_input_without_values() -> None:
    recording, inputs, weightless = first(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()))
    assert weightless
    assert [tensor.is_meta for tensor in inputs.tensors] == [True]
    assert [node.op for node in recording.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
    assert not recording.sized


def test_whole_numbers_keep_their_values() -> None:
    _, inputs, weightless = first(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)), torch.tensor([[4, 1]]))
    assert weightless
    assert inputs.tensors[0].tolist() == [[4, 1]]


def test_a_network_that_reads_values_is_recorded_with_its_own_weights() -> None:
    recording, inputs, weightless = first(Listing())
    assert not weightless
    assert torch.equal(inputs.tensors[0], IMAGE)
    again = record_again(Listing(), inputs, weightless)
    assert [node.target for node in again.graph.nodes] == [node.target for node in recording.graph.nodes]


def test_a_branch_on_values_is_named_by_its_line() -> None:
    with pytest.raises(ValueError, match=r"model cannot be traced: .*test_tracing\.py:\d+ \(return y if y\.mean\(\) > 0"):
        first(Deciding())


def test_an_input_that_does_not_fit_is_laid_to_the_input() -> None:
    with pytest.raises(InputRejected, match=r"model rejects example_input of shape \(1, 3, 2, 2\): .*channels"):
        first(nn.Conv2d(1, 2, 1), torch.ones(1, 3, 2, 2))


def test_inputs_take_the_models_precision_but_for_whole_numbers() -> None:
    found = fitted(as_inputs((IMAGE.requires_grad_(), torch.tensor([3]))), nn.Linear(2, 2).double())
    assert [tensor.dtype for tensor in found.tensors] == [torch.float64, torch.int64]
    assert not found.tensors[0].requires_grad


def test_labels_go_along_a_recording() -> None:
    model = on_meta(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1))).eval()
    recording = record_again(model, as_inputs(IMAGE), weightless=True)
    run = propagate(parts_of(model, recording.graph), recording)
    assert {key: labels.tolist() for key, labels in run.record.sites.items()} == {
        ("0.weight", 1): [-1],
        ("0.weight", 0): [0, 1],
        ("0.bias", 0): [0, 1],
        ("1.weight", 1): [0, 1],
        ("1.weight", 0): [2, 3, 4],
        ("1.bias", 0): [2, 3, 4],
    }


def test_compiled_and_scripted_networks_are_refused_with_what_to_give() -> None:
    net, image = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)), torch.zeros(1, 3, 8, 8)
    for measure in (graphprune.trace, graphprune.cost):
        with pytest.raises(
            TypeError, match=r"^model is compiled by torch.compile and cannot be followed: give model._orig_mod"
        ):
            measure(torch.compile(net), image)
        with pytest.raises(TypeError, match="a scripted or traced module has no Python forward to follow; give the module it"):
            measure(torch.jit.trace(net, image), image)
    net[1] = torch.compile(net[1])
    with pytest.raises(TypeError, match=r"^model.1 is compiled by torch.compile .* put model.1._orig_mod in its place"):
        graphprune.trace(net, image)
