"""Which channels stay when a network may cost so much and no more: blocks dropped in an order, and room filled again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.cost import Cost, CostModel
from graphprune.pruning.masks import as_scores

Order = Callable[[ChannelGraph, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""A graph and its scores, group -> (C,), give the order of dropping, group -> (C,): the lowest goes first."""


class OverBudget(ValueError):
    """Even the smallest network that is allowed costs more than the budget."""


@dataclass(frozen=True, eq=False)
class Limits:
    """What a network may cost at most.

    Attributes:
        costs: of the network's pruned versions.
        macs, params: the most of each; None = as many as there are.
    """

    costs: CostModel
    macs: int | None = None
    params: int | None = None

    def met(self, counts: Tensor) -> bool:
        """Whether a network with these kept channels, (groups,) int64, costs no more."""
        found = self.cost(counts)
        return (self.macs is None or found.macs <= self.macs) and (self.params is None or found.params <= self.params)

    def cost(self, counts: Tensor) -> Cost:
        """What the network costs that keeps (groups,) int64 channels."""
        macs, params = self.costs.of_counts(counts[None])
        return Cost(int(macs), int(params))


def rank_in_group(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each channel's place in its group from the least important up, as a share: 0 .. (C - 1) / C.

    >>> rank_in_group({"conv1": torch.tensor([3.0, 1.0, 2.0, 4.0])})["conv1"].tolist()
    [0.5, 0.0, 0.25, 0.75]
    """
    return {name: score.argsort(stable=True).argsort(stable=True).double() / len(score) for name, score in scores.items()}


def weigh_by_size(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each channel's score divided by its group's mean.

    >>> weigh_by_size({"conv1": torch.tensor([3.0, 1.0])})["conv1"].tolist()
    [1.5, 0.5]
    """
    return {name: score / score.mean().clamp_min(1e-12) for name, score in scores.items()}


ORDERS: dict[str, Order] = {
    "uniform": lambda graph, scores: rank_in_group(scores),
    "global": lambda graph, scores: weigh_by_size({name: score.double() for name, score in scores.items()}),
}
"""The same share of every group, or one threshold for all channels of the network."""


def allocate(limits: Limits, order: Mapping[str, Tensor], round_to: int = 1, fixed: Collection[str] = ()) -> dict[str, Tensor]:
    """The channels that stay: within the limits, and with no room left for another block of channels in any group.

    Every group's channels are put in order and parted into blocks of `round_to` from the highest down. The highest block
    of each group stays. The others are dropped in the order of their means, lowest first, until the limits are met;
    then those dropped come back, highest first, wherever they still fit.

    Args:
        limits: what the network may cost.
        order: group -> (C,); the lowest goes first.
        round_to: every layer keeps a multiple of it, or all its channels. Where several of a layer's channels stay or go as
            one, as those of an attention head do, they count as many.
        fixed: names of groups that stay whole.

    Raises:
        OverBudget: one block a group, and the fixed groups, cost more.

    >>> import graphprune
    >>> example = torch.zeros(1, 1, 8, 8)
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), example)
    >>> limits = Limits(CostModel(graph, example), macs=9_000)
    >>> order = rank_in_group({group.name: torch.arange(group.channels) for group in graph.groups})
    >>> {name: mask.tolist() for name, mask in allocate(limits, order).items()}
    {'conv1': [False, False, True, True], 'conv3': [True, True, True]}
    """
    graph = limits.costs.graph
    sizes_of_blocks = block_sizes(graph, round_to)
    blocks = [_blocks(number, order[group.name], sizes_of_blocks[group.name]) for number, group in enumerate(graph.groups)]
    first = [len(own) if group.name in fixed else 1 for group, own in zip(graph.groups, blocks, strict=True)]
    free = [block for own, held in zip(blocks, first, strict=True) for block in own[held:]]
    free.sort(key=lambda block: (block.mean, block.group, -block.place))
    sizes = torch.tensor([sum(len(block.channels) for block in own) for own in blocks])

    def without(drops: int) -> Tensor:
        counts = sizes.clone()
        for block in free[:drops]:
            counts[block.group] -= len(block.channels)
        return counts

    if not limits.met(without(len(free))):
        least = limits.cost(without(len(free)))
        whole = limits.costs.full
        shares = f"{least.macs / whole.macs:.1%} of {whole.macs:,} multiply-adds and {least.params / whole.params:.1%} of "
        raise OverBudget(f"the smallest network allowed has {shares}{whole.params:,} parameters")
    low, high = 0, len(free)
    while low < high:  # bisection: each drop makes the network cheaper
        middle = (low + high) // 2
        low, high = (low, middle) if limits.met(without(middle)) else (middle + 1, high)
    counts, held, full = without(high), [len(own) for own in blocks], set[int]()
    for block in free[:high]:
        held[block.group] -= 1
    for block in reversed(free[:high]):
        larger = counts.clone()
        larger[block.group] += len(block.channels)
        if block.group not in full and limits.met(larger):
            counts, held[block.group] = larger, held[block.group] + 1
        else:
            full.add(block.group)
    keep = {group.name: torch.zeros(group.channels, dtype=torch.bool) for group in graph.groups}
    for mask, own, number in zip(keep.values(), blocks, held, strict=True):
        mask[torch.cat([block.channels for block in own[:number]])] = True
    return keep


def block_sizes(graph: ChannelGraph, round_to: int) -> dict[str, int]:
    """How many channels of each group go together, so that every layer's width stays a multiple of `round_to`.

    >>> import graphprune
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    >>> block_sizes(graph, 2)
    {'conv1': 2, 'conv3': 2}
    """
    if round_to == 1:
        return dict.fromkeys(graph.slices, 1)
    atoms = {node.name: torch.tensor(node.atoms) for node in graph.nodes}
    found = {}
    for group in graph.groups:
        span, alike = graph.slices[group.name], 0  # how many of a layer's channels are one of the group's
        for layer in group.layers:
            own = atoms[layer] if layer in atoms else torch.arange(span.start, span.stop)
            alike = math.gcd(alike, int(((own >= span.start) & (own < span.stop)).sum()) // group.channels)
        found[group.name] = round_to // math.gcd(round_to, alike or 1)
    return found


class _Block(NamedTuple):
    """Channels of one group that stay or go together: its number, its place from the highest down, and their mean."""

    group: int
    place: int
    mean: float
    channels: Tensor


def _blocks(group: int, order: Tensor, size: int) -> list[_Block]:
    """One group's channels, highest first, in blocks; order: (C,)."""
    values = order.detach().cpu().double()
    parts = values.flip(0).argsort(descending=True, stable=True)  # of equals the first goes first
    parts = (len(values) - 1 - parts).split(size)
    return [_Block(group, place, float(values[own].mean()), own) for place, own in enumerate(parts)]


def order_of(how: str | Order, graph: ChannelGraph, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The order of dropping, group -> (C,), by name or by a function of one's own.

    Raises:
        ValueError: an unknown name, or an order that does not fit the graph. TypeError: neither a name nor a function.
    """
    if isinstance(how, str):
        if how not in ORDERS:
            names = ", ".join(map(repr, (*ORDERS, "searched")))
            raise ValueError(f"how={how!r}: must be one of {names}, or a function (graph, scores) -> order of dropping")
        how = ORDERS[how]
    if not callable(how):
        raise TypeError(f"how={how!r}: must be a name such as 'uniform', or a function (graph, scores) -> order of dropping")
    return as_scores(graph, how(graph, scores), "how(graph, scores)")
