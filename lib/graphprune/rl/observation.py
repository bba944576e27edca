"""A network as a graph over its channels and layers: what a policy that chooses channels sees (graph RL, our reading).

A node is an atom (channels whose masks are tied are one) or a layer, an edge joins two atoms that a weight joins or a layer
and its channels, and all numbers are relative: to the atom's group, to the edge's target, to the whole network. So a policy
can be carried to another network.
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
    *("reads", "taylor", "is_layer"),  # the first two of the channel
)
SHARED = ("depth", "kernel", "stride", "macs", "size")
SENSED = 64  # images that gradients are taken on
REACH = 4.0  # ratios end at e^-4 = 1/55 and e^4 = 55: a filter of zeros is a weak one, not one at minus infinity


@dataclass(frozen=True, eq=False)
class Observation:
    """The network as a graph over its channels: what does not change while channels go. Made by `observe`.

    Attributes:
        x: (N, F) float32 node features: the atoms in the graph's order, the input node, the class node, then a node for each
            layer whose channels can be pruned.
        edge_index: (2, E) int64, source -> target along the data flow, by target, from the strongest edge down; then from
            each layer to its channels, and back.
        edge_attr: (E, 3) float32.
        names: of the F node features, in order; `observe` says what each is.
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    names: tuple[str, ...]

    def pairs(self) -> Tensor:
        """The edges as a dense table, (N, N, 7) float32: at [i, j] what the pair has to tell node i of node j.

        The three features and a 1 for the edge j -> i, the first two and a 1 for the edge i -> j; 0 where there is none.
        """
        nodes, (source, target) = len(self.x), self.edge_index
        found = torch.zeros(nodes, nodes, 7)
        found[target, source, :3], found[target, source, 3] = self.edge_attr, 1.0
        found[source, target, 4:6], found[source, target, 6] = self.edge_attr[:, :2], 1.0
        return found


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
    | reads | ln of the norm of the weights that read the channel | standard deviations from the group's mean |
    | taylor | ln of the mean over images of abs(output x gradient), summed over places | the same |
    | is_layer | the node is a layer; of its other features it has those of a group, its own | 0 or 1 |

    The output is that of the normalisations that read the channel, or of its producers where there is none, in evaluation
    mode on training images. The gradient is that of the cross-entropy with the model's own predictions, on 64 images.

    All of these end at -4 and 4; a logarithm is of the ratio to the group's mean and ends there, too. A feature that a
    network has not (gamma without batch normalisation), or that is the same for a whole group, is 0.

    An edge joins source and target if a weight does, by a slice (k x k in a convolution) that is not all zeros. Its features
    are ln of the slice's Euclidean norm over the root mean square of all such slices into the target; the sum of the slice's
    weights over the same, which has the sign; both within -4 and 4; and 0. An edge between a layer and one of its channels has
    0, 0 and 1. Layers
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
    torch.Size([12, 15])
    """
    if strongest is not None and strongest < 1:
        raise ValueError(f"strongest={strongest}: must be at least 1 edge into a node; None keeps all")
    if images < 1:
        raise ValueError(f"images={images}: must be at least 1, the activations are measured on them; 256 is the default")
    if not graph.groups:
        raise ValueError("graph has no prunable group, so there is no channel to observe; graph.frozen says why")
    check_same(model, graph)
    weights = list(_weights(model, graph))
    of_layers = _of_layers(model, graph, data)
    columns = _of_channels(model, graph, data, weights, images, seed) | _of_groups(graph, of_layers)
    layers = [(group, row) for group, rows in enumerate(of_layers) for row in rows]
    x, place, atoms = torch.zeros(graph.num_atoms + 2 + len(layers), len(NAMES)), NAMES.index, graph.num_atoms
    for name, values in columns.items():
        x[:atoms, place(name)] = values
    x[atoms, place("is_input")] = x[atoms + 1, place("is_class")] = 1
    x[atoms + 2 :, place("is_layer")] = 1
    x[atoms + 2 :, [place(name) for name in SHARED]] = torch.tensor([row for _, row in layers])
    edge_index, edge_attr = _edges(weights, graph, strongest)
    members = _memberships(graph, [group for group, _ in layers])
    both = torch.cat([edge_index, members, members.flip(0)], 1)
    belongs = torch.tensor([0.0, 0.0, 1.0]).repeat(2 * members.shape[1], 1)
    return Observation(x, both, torch.cat([edge_attr, belongs]), NAMES)


# nodes ----------------------------------------------------------------------------------------------------------------


def _of_channels(
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
        "reads": _outgoing(weights, graph.num_atoms),
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
    outputs = [part for part in _tensors(result) if part.requires_grad and part.ndim > 1 and part.is_floating_point()]
    zeros = {name: torch.zeros_like(output) for name, output in found.items()}
    if not outputs:
        return zeros
    rows = outputs[0].flatten(2).float() if outputs[0].ndim > 2 else outputs[0].float()
    loss = (rows.logsumexp(1) - rows.amax(1)).sum()
    asked = [name for name, output in found.items() if output.requires_grad]
    gradients = torch.autograd.grad(loss, [found[name] for name in asked], allow_unused=True)
    return zeros | {name: gradient for name, gradient in zip(asked, gradients, strict=True) if gradient is not None}


def _tensors(result: Any) -> list[Tensor]:
    """What a model puts out: a tensor, or several in a tuple, a list or a dict."""
    if isinstance(result, Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result if isinstance(result, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _channels_second(layers: dict[str, nn.Module], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """(n, channels, places) of every output: a linear layer's channels stand last."""
    return {
        name: (output.movedim(-1, 1) if isinstance(layers[name], nn.Linear) else output).detach()[..., None].flatten(2)
        for name, output in found.items()
    }


def _outgoing(weights: list[Piece], num_atoms: int) -> Tensor:
    """(num_atoms,): the norm of all weights that read a channel."""
    squares = torch.zeros(num_atoms + 2)
    for _, sources, slices in weights:
        squares.index_add_(0, sources, slices[..., 0].sum(0))
    return squares[:num_atoms].sqrt()


def _of_layers(model: nn.Module, graph: ChannelGraph, data: Dataset) -> list[list[tuple[float, ...]]]:
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


def _of_groups(graph: ChannelGraph, of_layers: list[list[tuple[float, ...]]]) -> dict[str, Tensor]:
    """The features that all channels of a group share, means over its layers, each (num_atoms,)."""
    sizes = torch.tensor([group.channels for group in graph.groups])
    found = torch.stack([torch.tensor(rows).mean(0) for rows in of_layers])
    return dict(zip(SHARED, found.repeat_interleave(sizes, 0).unbind(1), strict=True))


def _memberships(graph: ChannelGraph, groups: list[int]) -> Tensor:
    """(2, M): from each layer's node, of the group given, to its channels."""
    spans = list(graph.slices.values())
    pairs = [
        (graph.num_atoms + 2 + layer, atom)
        for layer, group in enumerate(groups)
        for atom in range(spans[group].start, spans[group].stop)
    ]
    return torch.tensor(pairs).T


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
"""Targets (R,) and sources (S,), sorted node numbers, and of the slices between them squared norm and sum, (R, S, 2)."""


def _edges(weights: list[Piece], graph: ChannelGraph, strongest: int | None) -> tuple[Tensor, Tensor]:
    """edge_index (2, E) and edge_attr (E, 3). Dense for one group of targets at a time, so that large networks fit."""
    bounds = torch.tensor([*(span.start for span in graph.slices.values()), graph.num_atoms + 1, graph.num_atoms + 2])
    pieces: dict[int, list[Piece]] = defaultdict(list)  # group of targets -> slices into it; the class node is the last
    for targets, sources, slices in weights:
        for group, (low, high) in enumerate(pairwise(torch.searchsorted(targets, bounds).tolist())):
            if high > low:
                pieces[group].append((targets[low:high], sources, slices[low:high]))
    found = [_incoming(pieces[group], strongest) for group in sorted(pieces)]
    return torch.cat([index for index, _ in found], 1), torch.cat([attr for _, attr in found])


def _weights(model: nn.Module, graph: ChannelGraph) -> Iterator[Piece]:
    """Every weight that joins channels, as squared norms and sums of its slices."""
    tensors, modules = named_tensors(model), dict(model.named_modules())
    sites: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for site in graph.sites:
        sites[site.tensor][site.dim] = site.atoms
    for name, dims in sites.items():
        if len(dims) < 2:  # a bias, a normalisation, a depthwise convolution
            continue
        transposed = isinstance(modules[name.rpartition(".")[0]], _ConvTransposeNd)  # stored (in, out, k, k)
        rows, columns = (dims[1], dims[0]) if transposed else (dims[0], dims[1])
        slices = _slices(tensors[name].detach(), len(columns))
        yield _folded(slices.transpose(0, 1) if transposed else slices, rows, columns, graph.num_atoms)


def _slices(weight: Tensor, sources: int) -> Tensor:
    """(rows, columns, 2): squared norms and sums of a weight's slices. Of a `ChannelSelect` index: 1 where it copies."""
    if weight.ndim == 1:
        copies = (weight[:, None] == torch.arange(sources, device=weight.device)).float().cpu()
        return torch.stack([copies, copies], 2)
    each = weight.flatten(2).float() if weight.ndim > 2 else weight.float()[..., None]
    return torch.stack([each.square().sum(2), each.sum(2)], 2).cpu()


def _folded(slices: Tensor, rows: Tensor, columns: Tensor, num_atoms: int) -> Piece:
    """Slices of the same two nodes added up. What is never pruned is the class node (num_atoms + 1) or the input node."""
    ours = [(atoms >= 0) & (atoms < num_atoms) for atoms in (rows, columns)]
    targets, row = torch.where(ours[0], rows, num_atoms + 1).unique(return_inverse=True)
    sources, column = torch.where(ours[1], columns, num_atoms).unique(return_inverse=True)
    by_source = slices.new_zeros(len(rows), len(sources), 2).index_add_(1, column, slices)
    by_source[~ours[0]] *= (sources < num_atoms)[:, None]  # from the input straight to the classes: no channel
    return targets, sources, by_source.new_zeros(len(targets), len(sources), 2).index_add_(0, row, by_source)


def _incoming(pieces: list[Piece], strongest: int | None) -> tuple[Tensor, Tensor]:
    """The edges into one group of targets."""
    targets = torch.cat([targets for targets, _, _ in pieces]).unique()
    sources = torch.cat([sources for _, sources, _ in pieces]).unique()
    total = torch.zeros(len(targets), len(sources), 2)
    for rows, columns, slices in pieces:
        total[torch.searchsorted(targets, rows)[:, None], torch.searchsorted(sources, columns)] += slices
    total, sums = total.unbind(2)
    top, place = total.topk(min(strongest or len(sources), len(sources)), 1)
    row, rank = (top > 0).nonzero(as_tuple=True)
    mean_square = total.sum(1) / (total > 0).sum(1)
    relative = (top[row, rank] / mean_square[row]).log() / 2
    signed = sums[row, place[row, rank]] / mean_square[row].sqrt()
    attr = torch.stack([relative, signed, torch.zeros_like(signed)], 1).clamp(-REACH, REACH)
    return torch.stack([sources[place[row, rank]], targets[row]]), attr
