"""Hugging Face's networks, small and with random weights: pruned, equal to their masked twins, saved, loaded, exported."""

import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import graphprune
from benchmarks.families import Case, hugging_face
from graphprune.graph.cutting import kept_places
from graphprune.graph.parts import named_tensors

LEFT = {
    "resnet": (0.30, 0.30),
    "convnext": (0.69, 0.32),
    "mobilenet_v2": (0.29, 0.29),
    "vit": (0.66, 0.34),
    "deit": (0.66, 0.34),
    "swin": (0.74, 0.36),
    "bert": (0.61, 0.31),
    "roberta": (0.61, 0.31),
    "distilbert": (0.63, 0.32),
    "gpt2": (0.58, 0.30),
    "llama": (0.54, 0.27),
    "wav2vec2": (0.62, 0.60),
    "whisper": (0.53, 0.29),
}
"""The share of the parameters that is left at most when half of every group goes, and with norms over the kept channels."""


def in_double(kind: str) -> tuple[nn.Module, dict[str, Tensor], dict[str, Any]]:
    """The network in float64 with no parameter at one value (zeros and ones hide mistakes)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case: Case = hugging_face(kind)
    model, example, more = case
    for parameter in model.double().eval().parameters():
        if bool((parameter == parameter.flatten()[0]).all()):
            parameter.data.uniform_(0.5, 1.5)
    return model, {name: x.double() if x.is_floating_point() else x for name, x in example.items()}, more


def half(graph: graphprune.ChannelGraph) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {group.name: torch.randperm(group.channels, generator=draw) < group.channels / 2 for group in graph.groups}


def gradients(model: nn.Module, example: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits, and the gradients of the sum of their squares."""
    logits = model(**example).logits
    logits.square().sum().backward()
    found = {name: tensor.grad for name, tensor in named_tensors(model).items() if tensor.grad is not None}
    return logits.detach(), found


def largest(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("norms", ["whole", "kept"])
@pytest.mark.parametrize("kind", LEFT)
def test_pruned_equals_masked_forward_and_backward(kind: str, norms: Any, tmp_path: Path) -> None:
    model, example, more = in_double(kind)
    graph = graphprune.trace(model, example, norms=norms, **more)
    keep = half(graph)
    small, twin = graphprune.prune(model, graph, keep).eval(), graphprune.masked(model, graph, keep).eval()
    left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())
    assert left <= LEFT[kind][norms == "kept"]
    (wanted, whole), (found, parts) = gradients(twin, example), gradients(small, example)
    assert largest(found, wanted) <= 1e-10 * float(wanted.abs().max())
    places = kept_places(graph, graph.flatten(keep))
    scale = max(float(grad.abs().max()) for grad in parts.values())
    assert len(parts) > 10
    for name, grad in parts.items():
        full = whole[name]
        for dim in range(full.ndim):
            full = full.index_select(dim, places[name, dim]) if (name, dim) in places else full
        assert largest(grad, full) <= 1e-10 * scale, name
    path = graphprune.save_pruned(tmp_path / "small.safetensors", small, graph, keep)
    loaded = graphprune.load_pruned(path, in_double(kind)[0]).eval()
    with torch.no_grad():
        assert largest(loaded(**example).logits, found) <= 1e-12 * float(found.abs().max())


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_a_pruned_transformer_is_exported(tmp_path: Path) -> None:
    model, example, more = hugging_face("bert")
    graph = graphprune.trace(model.eval(), example, norms="kept", **more)
    small = graphprune.prune(model, graph, half(graph)).eval()
    file = str(tmp_path / "small.onnx")
    torch.onnx.export(small, (), file, kwargs=example, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: x.numpy() for name, x in example.items()})[:1]
    with torch.no_grad():
        assert largest(torch.from_numpy(found), small(**example).logits) <= 1e-4


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_costs_of_a_pruned_transformer_are_counted_without_building_it(kind: str) -> None:
    model, example, more = hugging_face(kind)
    graph = graphprune.trace(model.eval(), example, norms="kept", **more)
    keep = half(graph)
    counts = torch.tensor([[int(mask.sum()) for mask in keep.values()]])
    if graph.weightless:
        macs, params = graphprune.CostModel(graph, example).of_counts(counts)
        cost = graphprune.cost(graphprune.prune(model, graph, keep), example)
        assert (int(macs), int(params)) == (cost.macs, cost.params)
