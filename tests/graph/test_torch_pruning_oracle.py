"""Coupled groups against Torch-Pruning's dependency graph (Fang et al. 2023, "DepGraph"), an independent implementation.

Where the two differ, the difference is written down with its reason.
"""

import warnings

import pytest
import torch
from torch import nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph

tp = pytest.importorskip("torch_pruning")

Layers = frozenset[str]
SAME = ["alexnet", "vgg11_bn", "resnet18", "squeezenet1_1", "densenet121", "mobilenet_v2", "mnasnet0_5", "efficientnet_b0"]


def theirs(model: nn.Module, x: torch.Tensor) -> set[Layers]:
    """The layers whose output channels Torch-Pruning removes together, without those of the network's output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dependencies = tp.DependencyGraph().build_dependency(model, example_inputs=x)
    names = {module: name for name, module in model.named_modules()}
    producing = (tp.prune_conv_out_channels, tp.prune_linear_out_channels, tp.prune_depthwise_conv_out_channels)
    found = set()
    for group in dependencies.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        layers = {names[item.dep.target.module] for item in group if item.dep.handler in producing}
        found.add(frozenset(layers))
    last = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)][-1]
    return {layers for layers in merged(found) if last not in layers}


def ours(graph: ChannelGraph) -> set[Layers]:
    return merged({frozenset(group.layers) for group in graph.groups})


def merged(groups: set[Layers]) -> set[Layers]:
    """Groups that share a layer, joined."""
    joined: set[Layers] = set()
    for group in groups:
        touching = {other for other in joined if other & group}
        joined = (joined - touching) | {frozenset(group.union(*touching))}
    return joined


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return graphprune.models.build(name if name == "resnet20" else f"torchvision:{name}", num_classes=10).eval()


@pytest.mark.parametrize("name", ["resnet20", *SAME])
def test_groups_are_torch_prunings(name: str) -> None:
    model, x = network(name), torch.zeros(1, 3, 64, 64)
    assert ours(graphprune.trace(model, x)) == theirs(model, x)


def test_layer_norm_is_the_difference_on_convnext() -> None:
    """Torch-Pruning shrinks what LayerNorm averages over, which changes its result; here those channels stay.

    What remains, the MLPs' hidden widths, is the same.
    """
    model, x = network("convnext_tiny"), torch.zeros(1, 3, 64, 64)
    mine, other = ours(graphprune.trace(model, x)), theirs(model, x)
    assert mine < other
    assert len(mine) == 18
    normed = {name.rpartition(".")[0] for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert all(any(layer.rpartition(".")[0] in normed for layer in group) for group in other - mine)


def test_shuffle_net_is_beyond_torch_pruning() -> None:
    """Its channel shuffle divides by zero there; here its branches couple by position."""
    model, x = network("shufflenet_v2_x0_5"), torch.zeros(1, 3, 64, 64)
    assert len(graphprune.trace(model, x).groups) == 20
    with pytest.raises(ZeroDivisionError):
        tp.pruner.BasePruner(model, x, tp.importance.RandomImportance(), pruning_ratio=0.5).step()
