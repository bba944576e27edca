"""The weights between channels as the edges of an `Observation`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.parts import named_tensors

REACH = 4.0  # ratios end at e^-4 = 1/55 and e^4 = 55: a filter of zeros is a weak one, not one at minus infinity

Piece = tuple[Tensor, Tensor, Tensor]
"""Targets (R,) and sources (S,), sorted node numbers, and of the slices between them squared norm and sum, (R, S, 2)."""


def edges_of(weights: list[Piece], graph: ChannelGraph, strongest: int | None) -> tuple[Tensor, Tensor]:
    """edge_index (2, E) and edge_attr (E, 3). Dense for one group of targets at a time, so that large networks fit."""
    bounds = torch.tensor([*(span.start for span in graph.slices.values()), graph.num_atoms + 1, graph.num_atoms + 2])
    pieces: dict[int, list[Piece]] = defaultdict(list)  # group of targets -> slices into it; the class node is the last
    for targets, sources, slices in weights:
        for group, (low, high) in enumerate(pairwise(torch.searchsorted(targets, bounds).tolist())):
            if high > low:
                pieces[group].append((targets[low:high], sources, slices[low:high]))
    found = [_incoming(pieces[group], strongest) for group in sorted(pieces)]
    return torch.cat([index for index, _ in found], 1), torch.cat([attr for _, attr in found])


def outgoing(weights: list[Piece], num_atoms: int) -> Tensor:
    """(num_atoms,): the norm of all weights that read a channel."""
    squares = torch.zeros(num_atoms + 2)
    for _, sources, slices in weights:
        squares.index_add_(0, sources, slices[..., 0].sum(0))
    return squares[:num_atoms].sqrt()


def joining_weights(model: nn.Module, graph: ChannelGraph) -> Iterator[Piece]:
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


def memberships(graph: ChannelGraph, groups: list[int]) -> Tensor:
    """(2, M): from each layer's node, of the group given, to its channels."""
    spans = list(graph.slices.values())
    pairs = [
        (graph.num_atoms + 2 + layer, atom)
        for layer, group in enumerate(groups)
        for atom in range(spans[group].start, spans[group].stop)
    ]
    return torch.tensor(pairs).T
