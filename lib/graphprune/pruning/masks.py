"""From rates to channels: which of them survive, and what masks that makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import BoolTensor, Tensor

from graphprune.graph.channel_graph import ChannelGraph, demand_graph
from graphprune.pruning.rates import RATES, Rate, check_indices, kept_table

Scores = Mapping[str, Tensor]
"""Group name -> the importance of each of its channels, (C,)."""


def kept_masks(graph: ChannelGraph, indices: Tensor, scores: Scores, rates: Sequence[Rate] = RATES) -> BoolTensor:
    """The masks of many configurations: in each group the highest scores survive, ties go to the lower index.

    Args:
        graph: the traced network.
        indices: (B, groups) int64 rate indices.
        scores: group name -> (C,).
        rates: what the indices index.

    Returns:
        (B, num_atoms) bool, True = kept; at least one channel a group.

    Raises:
        ValueError: `indices` or `scores` do not fit the graph.

    >>> import torch, graphprune
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    >>> kept = kept_masks(graph, torch.full((1, len(graph.groups)), 5), first_scores(graph))
    >>> kept.shape == (1, graph.num_atoms), bool(kept[0, 0]), bool(kept.all())
    (True, True, False)
    """
    check_indices(indices, len(graph.groups), len(rates))
    places = _places(graph, scores)
    counts = kept_table(graph, rates).to(indices.device)
    kept = counts[torch.arange(len(counts), device=indices.device), indices]
    return kept[:, graph.owner.to(indices.device)] > places.to(indices.device)  # type: ignore[return-value]


def _places(graph: ChannelGraph, scores: Scores) -> Tensor:
    """(num_atoms,): each atom's place in its group, from the most important down."""
    scores = as_scores(graph, scores)
    places = []
    for group in graph.groups:
        order = scores[group.name].detach().cpu().argsort(descending=True, stable=True)
        places.append(torch.empty_like(order).scatter_(0, order, torch.arange(group.channels)))
    return torch.cat(places)


def as_scores(graph: ChannelGraph, scores: Mapping[str, Any], name: str = "scores") -> dict[str, Tensor]:
    """Scores as tensors, one finite number for every channel of every group; arrays and lists are taken, too.

    Args:
        graph: the traced network.
        scores: group name -> (C,); names that the graph has not are left out.
        name: what an error calls them.

    Raises:
        TypeError: `scores` is no dictionary, or a group's are no numbers. ValueError: they do not fit the graph.
    """
    if not isinstance(scores, Mapping):
        raise TypeError(f"{name} must be a dictionary, group name -> (C,), got {type(scores).__name__}")
    found = {}
    for group in graph.groups:
        if group.name not in scores:
            raise ValueError(f"{name} has no entry for group {group.name!r}; graphprune.importance makes complete ones")
        given = scores[group.name]
        try:
            own = given if isinstance(given, Tensor) else torch.as_tensor(list(given) if isinstance(given, range) else given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name}[{group.name!r}] must hold {group.channels} numbers, got {given!r}") from error
        if own.shape != (group.channels,):
            raise ValueError(f"{name}[{group.name!r}] must have shape ({group.channels},), got {tuple(own.shape)}")
        if not own.isfinite().all():
            raise ValueError(
                f"{name}[{group.name!r}] holds NaN or an infinite number: check the weights or the data they came from"
            )
        found[group.name] = own
    return found


def keep_from_rates(
    graph: ChannelGraph, indices_row: Sequence[int] | Sequence[float] | Tensor, scores: Scores, rates: Sequence[Rate] = RATES
) -> dict[str, Tensor]:
    """One configuration as a `keep`: in each group the highest scores survive, never none.

    Args:
        graph: the traced network.
        indices_row: (groups,) rate indices, whole numbers: 5 means 0.5 of a group goes. Numbers with a decimal point are
            taken as the rates themselves: 0.5 means the same.
        scores: group name -> (C,).
        rates: what the indices index.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: `indices_row` or `scores` do not fit the graph, or a rate is none of `rates`.

    >>> import torch, graphprune
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    >>> keep = keep_from_rates(graph, [9] * len(graph.groups), first_scores(graph))
    >>> all(mask[0] for mask in keep.values())
    True
    """
    demand_graph(graph)
    try:
        row = torch.as_tensor(indices_row).reshape(1, -1)
    except (TypeError, ValueError, RuntimeError) as error:
        wanted = f"{len(graph.groups)} rates or rate indices, one a group"
        named = isinstance(indices_row, Mapping) and all(isinstance(rate, int | float) for rate in indices_row.values())
        remedy = "; of a dictionary give [rates.get(group.name, 0.0) for group in graph.groups]" if named else ""
        raise TypeError(f"indices_row must hold {wanted}, got {type(indices_row).__name__}{remedy}") from error
    if row.shape[1] != len(graph.groups):
        given = f"{row.shape[1]} number{'s' * (row.shape[1] != 1)} for {len(graph.groups)} groups"
        raise ValueError(f"indices_row: {given}; give one rate a group, for example [0.3] * len(graph.groups)")
    if row.is_floating_point():
        row = _as_indices(row, rates)
    elif bool(((row < 0) | (row >= len(rates))).any()):
        raise ValueError(
            f"indices_row: whole numbers are rate indices, 0 to {len(rates) - 1} ({len(rates) // 2} means "
            f"{float(rates[len(rates) // 2]):g}), got {row.min()} to {row.max()}; write rates with a point: 0.3 for 30 %"
        )
    return graph.unflatten(kept_masks(graph, row, scores, rates)[0])


def _as_indices(given: Tensor, rates: Sequence[Rate]) -> Tensor:
    """Rates, (1, groups) floating point -> their indices, int64."""
    known = torch.tensor([float(rate) for rate in rates], dtype=torch.float64)
    far, index = (given.double()[:, :, None] - known).abs().min(2)
    if not bool((near := far <= 1e-6).all()):  # NaN is near nothing
        odd = float(given[~near][0])
        shares = ", ".join(f"{float(rate):g}" for rate in rates)
        raise ValueError(
            f"indices_row holds {odd:g}, which is none of the rates {shares}: give rate indices as whole numbers (5 means "
            "0.5), other rates=, or use graphprune.prune_to for a budget"
        )
    return index


def random_masks(graph: ChannelGraph, indices: Tensor, generator: torch.Generator, rates: Sequence[Rate] = RATES) -> BoolTensor:
    """Masks of the given configurations that keep uniformly random channels, (B, groups) -> (B, num_atoms) bool.

    Raises:
        ValueError: `indices` do not fit the graph.
    """
    check_indices(indices, len(graph.groups), len(rates))
    counts = kept_table(graph, rates)
    kept = torch.empty(len(indices), graph.num_atoms, dtype=torch.bool)
    for g, (group, span) in enumerate(zip(graph.groups, graph.slices.values(), strict=True)):
        order = torch.rand(len(indices), group.channels, generator=generator, dtype=torch.float64).argsort(1)
        chosen = torch.arange(group.channels) < counts[g][indices[:, g].cpu()][:, None]
        kept[:, span] = torch.empty_like(chosen).scatter_(1, order, chosen)
    return kept.to(indices.device)  # type: ignore[return-value]


def first_scores(graph: ChannelGraph) -> dict[str, Tensor]:
    """Scores that know nothing of importance: the first channels of a group survive."""
    return {group.name: -torch.arange(group.channels, dtype=torch.float32) for group in graph.groups}
