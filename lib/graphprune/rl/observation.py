"""A network as a graph over its channels: what a policy that chooses channels sees (graph RL, our reading).

A node is an atom (channels whose masks are tied are one), an edge joins two atoms that a weight joins, and all numbers are
relative: to the atom's group, to the edge's target, to the whole network. So a policy can be carried to a deeper network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.parts import named_tensors
from graphprune.pruning import importance
from graphprune.pruning.channels import check_same
from graphprune.pruning.cost import CostModel
from graphprune.runs import runtime

if TYPE_CHECKING:
    from graphprune.training.data import Dataset

NAMES = (
    *("l1", "l2", "gamma", "beta", "activation"),  # of the channel
    *("depth", "kernel", "stride", "macs", "size"),  # of its group
    *("is_input", "is_class"),
)
REACH = 4.0  # ratios end at e^-4 = 1/55 and e^4 = 55: a filter of zeros is a weak one, not one at minus infinity


@dataclass(frozen=True, eq=False)
class Observation:
    """The network as a graph over its channels: what does not change while channels go. Made by `observe`.

    Attributes:
        x: (N, F) float32 node features; N = graph.num_atoms + 2: the atoms in the graph's order, then the input node, then
            the class node.
        edge_index: (2, E) int64, source -> target along the data flow, by target, from the strongest edge down.
        edge_attr: (E, 1) float32.
        names: of the F node features, in order; `observe` says what each is.
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    names: tuple[str, ...]


def observe(
    model: nn.Module,
    graph: ChannelGraph,
    data: Dataset,
    *,
    strongest: int | None = 8,
    images: int = 256,
    seed: int = 0,
) -> Observation:
    """Observe a network as a graph over its channels.

    Source: the graph observation of arXiv 2509.10526; its features and formulas are not public, so these are our reading.
    The input node stands for everything that is read and never pruned, the class node for everything that is written and
    never pruned.

    | node feature | what it is | unit |
    |---|---|---|
    | l1, l2 | ln of the norm of the channel's filters, summed over coupled layers | standard deviations from the group's mean |
    | gamma | ln of abs(gamma), summed over the batch normalisations that scale the channel | the same |
    | beta | beta, summed over those | the same |
    | activation | ln of the mean of max(0, output) over images and places [our reading] | the same |
    | depth | place among convolutions and linear layers, mean over the producing ones | 0 = the first, 1 = the last |
    | kernel | side of the kernel (linear: 1), geometric mean over the producing layers | ln of pixels |
    | stride | the same; a transposed convolution's is 1 / stride | ln of pixels |
    | macs | multiply-adds that go if one channel goes from the whole network | ln of the ratio to total / num_atoms |
    | size | channels of the group | decades (log10) |
    | is_input, is_class | the node is the input or the class node; its other features are 0 | 0 or 1 |

    The output is that of the normalisations that read the channel, or of its producers where there is none, in evaluation
    mode on training images.

    All of these end at -4 and 4; a logarithm is of the ratio to the group's mean and ends there, too. A feature that a
    network has not (gamma without batch normalisation), or that is the same for a whole group, is 0.

    An edge joins source and target if a weight does, by a slice (k x k in a convolution) that is not all zeros. Its feature is
    ln of the slice's Euclidean norm over the root mean square of all such slices into the target, within -4 and 4. Layers
    that join the same two nodes, places that `flatten` made of one channel, tied channels, all inputs and all classes add up
    in squares. A depthwise convolution ties its input to its output and is no edge. An option-A shortcut copies: a weight of
    1 [our reading]. A channel that is read by a layer of its own residual stage has an edge to itself.

    Args:
        model: the unpruned network, any weights, any device. It is not changed.
        graph: its trace.
        data: the training split is read, never validation or test; `input_shape` is the size that MACs are counted for.
        strongest: edges kept into each node, those of the largest slices; None keeps all.
        images: training images for the activations.
        seed: which images.

    Raises:
        ValueError: `strongest` or `images` below 1, no prunable group, a model that does not fit the graph, a group without a
            layer that has weights, or weights or activations that are not finite.

    >>> import torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> observe(model, graph, graphprune.data.load("digits")).x.shape
    torch.Size([9, 12])
    """
    if strongest is not None and strongest < 1:
        raise ValueError(f"strongest={strongest}: must be at least 1 edge into a node; None keeps all")
    if images < 1:
        raise ValueError(f"images={images}: must be at least 1, the activations are measured on them; 256 is the default")
    if not graph.groups:
        raise ValueError("graph has no prunable group, so there is no channel to observe; graph.frozen says why")
    check_same(model, graph)
    columns = _of_channels(model, graph, data, images, seed) | _of_groups(model, graph, data)
    x = torch.zeros(graph.num_atoms + 2, len(NAMES))
    x[:-2, :-2] = torch.stack([columns[name] for name in NAMES[:-2]], 1)
    x[-2, -2] = x[-1, -1] = 1
    edge_index, edge_attr = _edges(model, graph, strongest)
    return Observation(x, edge_index, edge_attr, NAMES)


# nodes ----------------------------------------------------------------------------------------------------------------


def _of_channels(model: nn.Module, graph: ChannelGraph, data: Dataset, images: int, seed: int) -> dict[str, Tensor]:
    """The features in which channels of one group differ, each (num_atoms,)."""
    scales = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.weight is not None  # bias is there if weight is
    }
    raw = {
        "l1": torch.cat([*importance.l1(model, graph).values()]).cpu(),
        "l2": torch.cat([*importance.l2(model, graph).values()]).cpu(),
        "gamma": _summed(graph, {name: module.weight.detach().abs() for name, module in scales.items()})[0],
        "beta": _summed(graph, {name: module.bias.detach() for name, module in scales.items()})[0],
        "activation": _activation(model, graph, data, images, seed),
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


def _activation(model: nn.Module, graph: ChannelGraph, data: Dataset, images: int, seed: int) -> Tensor:
    """(num_atoms,): mean of max(0, .) of the normalisations' outputs, or of the producers' where there is none."""
    modules = dict(model.named_modules())
    ours = {node.name: modules[node.name] for node in graph.nodes if node.name in modules and max(node.atoms, default=-1) >= 0}
    norms = {name: module for name, module in ours.items() if isinstance(module, _NormBase | nn.GroupNorm)}
    producers = {name: module for name, module in ours.items() if isinstance(module, _ConvNd | nn.Linear)}
    means = _positive_means(model, {**norms, **producers}, data, images, seed)
    normalised, counts = _summed(graph, {name: means[name] for name in norms if name in means})
    produced, _ = _summed(graph, {name: means[name] for name in producers if name in means})
    return torch.where(counts > 0, normalised, produced)


@torch.no_grad()
def _positive_means(model: nn.Module, layers: dict[str, nn.Module], data: Dataset, images: int, seed: int) -> dict[str, Tensor]:
    """Layer -> (channels,): mean of max(0, output) over training images and places."""
    sums: dict[str, Any] = defaultdict(float)
    places: dict[str, int] = defaultdict(int)

    def record(name: str, module: nn.Module) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            rows = output.movedim(-1 if isinstance(module, nn.Linear) else 1, 0).flatten(1).float().relu()
            sums[name] += rows.sum(1)
            places[name] += rows.shape[1]

        return module.register_forward_hook(hook)

    device = next(model.parameters()).device
    generator = runtime.seed_generator(seed, "observation")
    hooks = [record(name, module) for name, module in layers.items()]
    try:
        with runtime.evaluating(model):
            for batch, _ in data.train.batches(min(images, 64), shuffle=True, generator=generator, limit=images):
                model(batch.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[name] / places[name] for name in sums}


def _of_groups(model: nn.Module, graph: ChannelGraph, data: Dataset) -> dict[str, Tensor]:
    """The features that all channels of a group share, each (num_atoms,)."""
    modules = dict(model.named_modules())
    order = [node.name for node in graph.nodes if node.kind in {"conv", "fc"}]
    depth = {name: index / max(len(order) - 1, 1) for index, name in enumerate(order)}
    rows = [[(depth[name], *_geometry(modules.get(name))) for name in group.layers] for group in graph.groups]
    means = torch.stack([torch.tensor(row).mean(0) for row in rows])
    sizes = torch.tensor([group.channels for group in graph.groups])
    share = _mac_shares(graph, data) * graph.num_atoms
    found = torch.column_stack([means, _log_ratio(share, torch.ones(len(share))), sizes.log10()])
    return dict(zip(("depth", "kernel", "stride", "macs", "size"), found.repeat_interleave(sizes, 0).unbind(1), strict=True))


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


# edges ----------------------------------------------------------------------------------------------------------------

Piece = tuple[Tensor, Tensor, Tensor]
"""Targets (R,) and sources (S,), sorted node numbers, and the squared norms of the slices between them, (R, S)."""


def _edges(model: nn.Module, graph: ChannelGraph, strongest: int | None) -> tuple[Tensor, Tensor]:
    """edge_index (2, E) and edge_attr (E, 1). Dense for one group of targets at a time, so that large networks fit."""
    bounds = torch.tensor([*(span.start for span in graph.slices.values()), graph.num_atoms + 1, graph.num_atoms + 2])
    pieces: dict[int, list[Piece]] = defaultdict(list)  # group of targets -> slices into it; the class node is the last
    for targets, sources, squares in _weights(model, graph):
        for group, (low, high) in enumerate(pairwise(torch.searchsorted(targets, bounds).tolist())):
            if high > low:
                pieces[group].append((targets[low:high], sources, squares[low:high]))
    found = [_incoming(pieces[group], strongest) for group in sorted(pieces)]
    return torch.cat([index for index, _ in found], 1), torch.cat([attr for _, attr in found])[:, None]


def _weights(model: nn.Module, graph: ChannelGraph) -> Iterator[Piece]:
    """Every weight that joins channels, as the squared norms of its slices."""
    tensors, modules = named_tensors(model), dict(model.named_modules())
    sites: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for site in graph.sites:
        sites[site.tensor][site.dim] = site.atoms
    for name, dims in sites.items():
        if len(dims) < 2:  # a bias, a normalisation, a depthwise convolution
            continue
        transposed = isinstance(modules[name.rpartition(".")[0]], _ConvTransposeNd)  # stored (in, out, k, k)
        rows, columns = (dims[1], dims[0]) if transposed else (dims[0], dims[1])
        squares = _squares(tensors[name].detach(), len(columns))
        yield _folded(squares.T if transposed else squares, rows, columns, graph.num_atoms)


def _squares(weight: Tensor, sources: int) -> Tensor:
    """(rows, columns): the squared norms of a weight's slices. Of a `ChannelSelect` index: 1 where it copies."""
    if weight.ndim == 1:
        return (weight[:, None] == torch.arange(sources, device=weight.device)).float().cpu()
    return weight.flatten(2).float().square().sum(2).cpu() if weight.ndim > 2 else weight.float().square().cpu()


def _folded(squares: Tensor, rows: Tensor, columns: Tensor, num_atoms: int) -> Piece:
    """Slices of the same two nodes added up. What is never pruned is the class node (num_atoms + 1) or the input node."""
    ours = [(atoms >= 0) & (atoms < num_atoms) for atoms in (rows, columns)]
    targets, row = torch.where(ours[0], rows, num_atoms + 1).unique(return_inverse=True)
    sources, column = torch.where(ours[1], columns, num_atoms).unique(return_inverse=True)
    by_source = squares.new_zeros(len(rows), len(sources)).index_add_(1, column, squares)
    by_source[~ours[0]] *= sources < num_atoms  # from the input straight to the classes: no channel
    return targets, sources, by_source.new_zeros(len(targets), len(sources)).index_add_(0, row, by_source)


def _incoming(pieces: list[Piece], strongest: int | None) -> tuple[Tensor, Tensor]:
    """The edges into one group of targets."""
    targets = torch.cat([targets for targets, _, _ in pieces]).unique()
    sources = torch.cat([sources for _, sources, _ in pieces]).unique()
    total = torch.zeros(len(targets), len(sources))
    for rows, columns, squares in pieces:
        total[torch.searchsorted(targets, rows)[:, None], torch.searchsorted(sources, columns)] += squares
    top, place = total.topk(min(strongest or len(sources), len(sources)), 1)
    row, rank = (top > 0).nonzero(as_tuple=True)
    mean_square = total.sum(1) / (total > 0).sum(1)
    relative = (top[row, rank] / mean_square[row]).log() / 2
    return torch.stack([sources[place[row, rank]], targets[row]]), relative.clamp(-REACH, REACH)
