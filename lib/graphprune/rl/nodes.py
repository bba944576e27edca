"""What the nodes of an `Observation` bear: features of channels, and of the layers that make them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.rules.operation import tensors
from graphprune.pruning import importance
from graphprune.pruning.cost import CostModel
from graphprune.rl.edges import REACH, Piece, outgoing
from graphprune.runs import runtime

if TYPE_CHECKING:
    from graphprune.training.data import Dataset

SHARED = ("depth", "kernel", "stride", "macs", "size")
"""The features that all channels of a group share; a layer has its own."""

SENSED = 64  # images that gradients are taken on


def of_channels(
    model: nn.Module, graph: ChannelGraph, data: Dataset, weights: list[Piece], images: int, seed: int
) -> dict[str, Tensor]:
    """The features in which channels of one group differ, each (num_atoms,)."""
    scales = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.weight is not None  # bias is there if weight is
    }
    activation, taylor = _measured(model, graph, data, images, seed)
    raw = {
        "l1": torch.cat([*importance.l1(model, graph).values()]).cpu(),
        "l2": torch.cat([*importance.l2(model, graph).values()]).cpu(),
        "gamma": _summed(graph, {name: module.weight.detach().abs() for name, module in scales.items()})[0],
        "beta": _summed(graph, {name: module.bias.detach() for name, module in scales.items()})[0],
        "activation": activation,
        "reads": outgoing(weights, graph.num_atoms),
        "taylor": taylor,
    }
    for name, values in raw.items():
        if not bool(values.isfinite().all()):
            raise ValueError(f"model has {name} values that are not finite: train it again, or load weights that are sound")
    columns = {name: _log_ratio(values, _group_mean(graph, values)) for name, values in raw.items() if name != "beta"}
    return {name: _standard(graph, values) for name, values in {**columns, "beta": raw["beta"]}.items()}


def _summed(graph: ChannelGraph, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    sums, counts = importance.per_atom(graph, parts)
    return sums.cpu(), counts.cpu()


def _group_mean(graph: ChannelGraph, values: Tensor) -> Tensor:
    """(num_atoms,): of each atom the mean over its group."""
    return torch.cat([values[span].mean().expand(values[span].shape) for span in graph.slices.values()])


def _standard(graph: ChannelGraph, values: Tensor) -> Tensor:
    """Standard deviations from the group's mean, within reach; 0 where all of a group are alike, but for rounding."""
    apart = values - _group_mean(graph, values)
    deviation = _group_mean(graph, apart.square()).sqrt()
    alike = deviation <= 1e-5 * _group_mean(graph, values.abs()).clamp_min(1e-5)
    return torch.where(alike, 0, apart / deviation).clamp(-REACH, REACH)


def _log_ratio(values: Tensor, unit: Tensor) -> Tensor:
    """ln(values / unit) within its reach; 0 where the unit is 0."""
    return torch.where(unit > 0, (values / unit).log().clamp(-REACH, REACH), 0)


def _measured(model: nn.Module, graph: ChannelGraph, data: Dataset, images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Of each channel, at the normalisations' outputs, or at its producers' where there is none, each (num_atoms,).

    The mean of max(0, output), and the mean over images of abs(sum over places of output x gradient).
    """
    modules = dict(model.named_modules())
    ours = {node.name: modules[node.name] for node in graph.nodes if node.name in modules and max(node.atoms, default=-1) >= 0}
    norms = {name: module for name, module in ours.items() if isinstance(module, _NormBase | nn.GroupNorm)}
    producers = {name: module for name, module in ours.items() if isinstance(module, _ConvNd | nn.Linear)}

    def folded(means: dict[str, Tensor]) -> Tensor:
        normalised, counts = _summed(graph, {name: means[name] for name in norms if name in means})
        produced, _ = _summed(graph, {name: means[name] for name in producers if name in means})
        return torch.where(counts > 0, normalised, produced)

    device = next(model.parameters()).device
    layers: dict[str, nn.Module] = {**norms, **producers}
    generator = runtime.seed_generator(seed, "observation")
    sums: dict[str, Any] = defaultdict(float)
    effects: dict[str, Any] = defaultdict(float)
    places: dict[str, int] = defaultdict(int)
    left = SENSED
    with runtime.evaluating(model):
        for batch, _ in data.train.batches(min(images, 16), shuffle=True, generator=generator, limit=images):
            found, gradients = _outputs(model, layers, batch.to(device), sensed=left > 0)
            for name, output in found.items():
                rows = output.flatten(2).float().relu()
                sums[name] += rows.sum((0, 2))
                places[name] += rows.shape[0] * rows.shape[2]
                if left > 0:
                    effects[name] += (output * gradients[name]).flatten(2).float().sum(2).abs().sum(0)
            left -= len(batch)
    return folded({name: sums[name] / places[name] for name in sums}), folded(dict(effects))


def _outputs(
    model: nn.Module, layers: dict[str, nn.Module], images: Tensor, sensed: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs of layers, (n, channels, places), and the gradients there of the loss of the model's own predictions."""
    found: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[name] = output

        return module.register_forward_hook(hook)

    hooks = [record(name, module) for name, module in layers.items()]
    try:
        with torch.set_grad_enabled(sensed):
            result = model(images.requires_grad_(sensed))
            gradients = _gradients(result, found) if sensed else {}
    finally:
        for hook in hooks:
            hook.remove()
    return _channels_second(layers, found), _channels_second(layers, gradients)


def _gradients(result: Any, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the cross-entropy with the largest output of each row (a prediction is right on most training images)."""
    outputs = [part for part in tensors(result) if part.requires_grad and part.ndim > 1 and part.is_floating_point()]
    zeros = {name: torch.zeros_like(output) for name, output in found.items()}
    if not outputs:
        return zeros
    rows = outputs[0].flatten(2).float() if outputs[0].ndim > 2 else outputs[0].float()
    loss = (rows.logsumexp(1) - rows.amax(1)).sum()
    asked = [name for name, output in found.items() if output.requires_grad]
    gradients = torch.autograd.grad(loss, [found[name] for name in asked], allow_unused=True)
    return zeros | {name: gradient for name, gradient in zip(asked, gradients, strict=True) if gradient is not None}


def _channels_second(layers: dict[str, nn.Module], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """(n, channels, places) of every output: a linear layer's channels stand last."""
    return {
        name: (output.movedim(-1, 1) if isinstance(layers[name], nn.Linear) else output).detach()[..., None].flatten(2)
        for name, output in found.items()
    }


def of_layers(model: nn.Module, graph: ChannelGraph, data: Dataset) -> list[list[tuple[float, ...]]]:
    """For each group and each layer that produces its channels the values of `SHARED`."""
    modules = dict(model.named_modules())
    order = [node.name for node in graph.nodes if node.kind in {"conv", "fc"}]
    depth = {name: index / max(len(order) - 1, 1) for index, name in enumerate(order)}
    share = _mac_shares(graph, data) * graph.num_atoms
    macs = _log_ratio(share, torch.ones(len(share))).tolist()
    sizes = [float(torch.tensor(group.channels).log10()) for group in graph.groups]
    return [
        [(depth[name], *_geometry(modules.get(name)), saved, size) for name in group.layers]
        for group, saved, size in zip(graph.groups, macs, sizes, strict=True)
    ]


def of_groups(graph: ChannelGraph, layers: list[list[tuple[float, ...]]]) -> dict[str, Tensor]:
    """The features that all channels of a group share, means over its layers, each (num_atoms,)."""
    sizes = torch.tensor([group.channels for group in graph.groups])
    found = torch.stack([torch.tensor(rows).mean(0) for rows in layers])
    return dict(zip(SHARED, found.repeat_interleave(sizes, 0).unbind(1), strict=True))


def _geometry(layer: nn.Module | None) -> tuple[float, float]:
    """ln of a layer's kernel side and of its stride, geometric means over the dimensions."""
    if not isinstance(layer, _ConvNd):
        return 0.0, 0.0
    kernel, stride = (float(torch.tensor(sides).log().mean()) for sides in (layer.kernel_size, layer.stride))
    return kernel, -stride if layer.transposed else stride


def _mac_shares(graph: ChannelGraph, data: Dataset) -> Tensor:
    """(groups,): the share of the network's MACs that go with one channel, (x^T M x - (x - e_g)^T M (x - e_g)) / total."""
    cost = CostModel(graph, data.example())
    m = torch.from_numpy(cost.forms[0]).double()
    x = torch.tensor([*(group.channels for group in graph.groups), 1.0], dtype=torch.float64)
    return (((m + m.T) @ x - m.diagonal())[:-1] / cost.full.macs).float()
