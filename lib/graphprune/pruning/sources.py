"""Where channels come from: the tensors whose rows make them, layers' weights or parameters that the forward uses alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from graphprune.graph.channel_graph import ChannelGraph, Site, demand_graph
from graphprune.graph.parts import named_tensors
from graphprune.runs.checks import demand_network, demand_values


class Source(NamedTuple):
    """A tensor whose rows make channels: a layer's weight, or a parameter that the forward uses by itself.

    Attributes:
        name: the layer's, or the tensor's.
        atoms: of each row; -1 = none.
        tensor: the tensor.
        rows: the tensor, or one of its shape, with one row a channel, (channels, entries).
    """

    name: str
    atoms: tuple[int, ...]
    tensor: Tensor
    rows: Callable[[Tensor], Tensor]


def sources_of(model: nn.Module, graph: ChannelGraph) -> list[Source]:
    """All that the channels of a graph come from: the producing layers' weights, and what makes those that no layer makes.

    Raises:
        TypeError: an argument is of the wrong kind. ValueError: the model is on the meta device.
    """
    demand_both(model, graph)
    layers, tensors = producers(model, graph), named_tensors(model)
    found = [
        Source(node.name, node.atoms, layers[node.name].get_parameter("weight"), partial(_filters, layers[node.name]))
        for node in graph.nodes
        if node.name in layers
    ]
    for site, atoms in _own_slices(graph, tensors, [atom for source in found for atom in source.atoms]):
        found.append(Source(site.tensor, atoms, tensors[site.tensor], partial(_slices, site.dim)))
    return found


def own_tensors(graph: ChannelGraph, model: nn.Module) -> dict[str, set[str]]:
    """Of each group that no layer makes, the tensors whose slices its channels are: group -> their paths.

    >>> import torch, graphprune
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), torch.nn.Conv2d(4, 2, 1))
    >>> own_tensors(graphprune.trace(net, torch.zeros(1, 1, 8, 8)), net)
    {}
    """
    spans = {name: range(span.start, span.stop) for name, span in graph.slices.items()}
    alone = {group.name: spans[group.name] for group in graph.groups if not group.layers}
    made = set(range(graph.num_atoms)).difference(*alone.values())
    found: dict[str, set[str]] = {name: set() for name in alone}
    for site, atoms in _own_slices(graph, named_tensors(model), made):
        for name in alone:
            if any(atom in alone[name] for atom in atoms):
                found[name].add(site.tensor)
    return found


def producers(model: nn.Module, graph: ChannelGraph) -> dict[str, nn.Module]:
    """Name -> module of the layers whose output channels the groups hold."""
    modules = dict(model.named_modules())
    names = [name for name in dict.fromkeys(name for group in graph.groups for name in group.layers) if name in modules]
    return {name: modules[name] for name in names if "weight" in dict(modules[name].named_parameters(recurse=False))}


def demand_both(model: nn.Module, graph: ChannelGraph) -> None:
    """Raise TypeError or ValueError unless they are a network that has values, and a graph."""
    demand_network(model)
    demand_values(model)
    demand_graph(graph)


def _own_slices(
    graph: ChannelGraph, tensors: Mapping[str, Tensor], known: Iterable[int]
) -> Iterator[tuple[Site, tuple[int, ...]]]:
    """Where the channels lie that are none of the known ones: the sites, and the atoms of their slices, -1 = none to score.

    Of a channel these are the tensors that a layer's function makes it with (`F.linear(x, w)`), else those that no layer
    reads, else all there are.
    """
    makers = {node.name: set(node.atoms) for node in graph.nodes}
    left = set(range(graph.num_atoms)).difference(known)
    offered: list[list[tuple[Site, tuple[int, ...]]]] = [[], [], []]
    for site in graph.sites if left else ():
        atoms, tensor = tuple(atom if atom in left else -1 for atom in site.atoms.tolist()), tensors.get(site.tensor)
        if max(atoms, default=-1) >= 0 and tensor is not None and (tensor.is_floating_point() or tensor.is_complex()):
            made = makers.get(site.tensor.removesuffix(".weight"))
            offered[1 if made is None else 2 if made.isdisjoint(left.intersection(atoms)) else 0].append((site, atoms))
    for choice in offered:
        yield from ((site, tuple(a if a in left else -1 for a in atoms)) for site, atoms in choice if left.intersection(atoms))
        left.difference_update(atom for _, atoms in choice for atom in atoms)


def _filters(layer: nn.Module, weight: Tensor) -> Tensor:
    """A layer's weight (or a tensor of its shape) as one row a filter, (C_out, inputs)."""
    if isinstance(layer, _ConvTransposeNd):  # stored (C_in, C_out / groups, k, k)
        weight = weight.reshape(layer.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    return _slices(0, weight)


def _slices(dim: int, tensor: Tensor) -> Tensor:
    """One row for each slice along a dimension; sums of half precision would be too coarse."""
    rows = tensor.movedim(dim, 0).reshape(tensor.shape[dim], -1)
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
