"""Networks that hold results of a forward, or what cannot be copied at all."""

import threading

import pytest
import torch
from torch import Tensor, nn

import graphprune
from graphprune.compression import quantized_network, storage, weight_pruning
from graphprune.compression.quantizer import Uniform
from graphprune.graph.copies import copy_model, naming_attributes
from graphprune.pruning import weight_baselines, weight_masks, weight_paths

IMAGE = torch.zeros(1, 3, 8, 8)


class Keeps(nn.Module):
    """Leaves what it computed in attributes, one of them in a list in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.cache: dict[str, list[Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.a(x)
        self.cache["active"] = [self.seen.relu()]
        return self.b(self.cache["active"][0])


def used() -> Keeps:
    torch.manual_seed(0)
    model = Keeps()
    model(torch.randn(2, 3, 8, 8))
    return model


def test_computed_attributes_are_copied_without_their_history() -> None:
    model = used()
    seen = model.seen
    twin = copy_model(model)
    assert torch.equal(twin.seen, seen)
    assert torch.equal(twin.cache["active"][0], seen.relu())
    assert not twin.seen.requires_grad
    assert twin.seen.data_ptr() != seen.data_ptr()
    assert model.seen is seen
    assert seen.grad_fn is not None


def test_a_network_that_keeps_what_it_computed_is_pruned_saved_and_loaded(tmp_path) -> None:
    model = used()
    small = graphprune.prune_to(model, IMAGE, macs=0.5, ignore=[model.b], steps=2)
    assert small.after.macs <= 0.5 * small.before.macs
    again = graphprune.load_pruned(small.save(tmp_path / "small.safetensors"), model)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again(x), small.network(x))
    assert model.seen.grad_fn is not None, "the model given is as it was"
    keep = small.graph.full() | {"a": torch.arange(8) < 3}
    assert graphprune.prune(model, small.graph, keep).a.out_channels == 3


def test_an_attribute_that_cannot_be_copied_is_named() -> None:
    model = nn.Sequential(used())
    model[0].lock = threading.Lock()
    wanted = r"its attribute '0.lock', a lock, cannot be copied \(cannot pickle .*set it to None"
    with pytest.raises(TypeError, match=wanted):
        copy_model(model)
    with pytest.raises(TypeError, match=wanted):
        graphprune.prune_to(model, IMAGE, macs=0.5)
    model[0].lock = None
    assert graphprune.prune_to(model, IMAGE, macs=0.5).network[0].lock is None


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(KeyError, match="of another kind"), naming_attributes(used()):
        raise KeyError("of another kind")


class KeepsHidden(nn.Module):
    """A small classifier that leaves its hidden layer in an attribute, as graph networks often do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.hidden = self.first(x).relu()
        return self.last(self.hidden)


def test_the_methods_for_weights_take_a_network_that_keeps_what_it_computed() -> None:
    torch.manual_seed(0)
    model, x = KeepsHidden(), torch.randn(8, 4)
    data = graphprune.data.from_tensors(train=(x, torch.arange(8) % 2), num_classes=2)
    model(x)
    mask = weight_baselines.snip(model, data, 0.5)
    assert (weight_masks.apply(model, mask).first.weight == 0).equal(~mask["first.weight"])
    values = {name: weight.detach().abs() for name, weight in weight_masks.prunable(model).items()}
    assert weight_paths.flow(model, x, values).outputs.shape == (2,)
    assert weight_pruning.prune_globally(model, 0.5).keys() == values.keys()
    assert storage.with_sparse_weights(model)(x).allclose(model(x), atol=1e-6)
    assert quantized_network.quantize(model, Uniform(bits=8), x)(x).allclose(model(x), atol=0.1)
    tuned = graphprune.train.finetune(model, data, graphprune.train.Recipe(epochs=1, lr=0.1, batch_size=4), seed=0)
    assert not tuned.first.weight.equal(model.first.weight)
    assert model.hidden.grad_fn is not None
