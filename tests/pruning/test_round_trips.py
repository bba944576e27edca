"""Pruned networks that leave the process and come back: files, ONNX, torch.export, copies, a second pruning."""

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph

NAMES = ["resnet20a", "torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5", "torchvision:googlenet", "timm:dla34"]


def pruned(name: str) -> tuple[nn.Module, ChannelGraph, dict[str, Tensor], nn.Module, Tensor]:
    """An evaluation-mode network, its graph, a `keep` of half the channels, the small network and an input."""
    torch.manual_seed(0)
    model = graphprune.models.build(name).eval()
    x = torch.randn(2, 3, 64, 64)
    graph = graphprune.trace(model, x)
    keep = half(graph)
    return model, graph, keep, graphprune.prune(model, graph, keep), x


def half(graph: ChannelGraph) -> dict[str, Tensor]:
    keep = {group.name: torch.rand(group.channels) < 0.5 for group in graph.groups}
    for mask in keep.values():
        mask[0], mask[-1] = True, False
    return keep


def output(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_runs_in_onnxruntime(name: str, tmp_path: Path) -> None:
    *_, small, x = pruned(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(small, (x,), str(tmp_path / "small.onnx"), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    wanted = output(small, x)
    assert float((torch.from_numpy(found) - wanted).abs().max()) <= 1e-4 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_export_copies_and_state_dicts_are_equal(name: str) -> None:
    _, graph, keep, small, x = pruned(name)
    wanted = output(small, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(output(torch.export.export(small, (x,)).module(), x), wanted)
    assert torch.equal(output(copy.deepcopy(small), x), wanted)
    other = graphprune.prune(graphprune.models.build(name).eval(), graph, keep)
    assert not torch.equal(output(other, x), wanted)
    other.load_state_dict(small.state_dict())
    assert torch.equal(output(other, x), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_network_is_pruned_again(name: str) -> None:
    *_, small, x = pruned(name)
    small, x = small.double(), x.double()
    graph = graphprune.trace(small, x)
    keep = half(graph)
    smaller = graphprune.prune(small, graph, keep)
    masked = output(graphprune.masked(small, graph, keep), x)
    assert sum(p.numel() for p in smaller.parameters()) < 0.7 * sum(p.numel() for p in small.parameters())
    assert float((masked - output(smaller, x)).abs().max()) <= 1e-10 * float(masked.abs().max())


@pytest.mark.parametrize("name", NAMES[1:4:2])
def test_a_fresh_process_loads_what_was_saved(name: str, tmp_path: Path) -> None:
    model, graph, keep, small, x = pruned(name)
    path = graphprune.save_pruned(tmp_path / "small.safetensors", small, graph, keep)
    full = graphprune.save_pruned(tmp_path / "full.safetensors", model, graph, graph.full())
    assert path.stat().st_size < 0.6 * full.stat().st_size
    torch.save(x, tmp_path / "x.pt")
    script = f"""
import torch, graphprune
small = graphprune.load_pruned({str(path)!r}, graphprune.models.build({name!r})).eval()
torch.save(small(torch.load({str(tmp_path / "x.pt")!r}, weights_only=True)).detach(), {str(tmp_path / "y.pt")!r})
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
    assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), output(small, x))
