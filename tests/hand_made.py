"""Channel graphs written by hand."""

import torch

from graphprune.graph.channel_graph import ChannelGraph, Group, Node


def chain(*shapes: tuple[int, int]) -> ChannelGraph:
    """A chain with one group a layer, each of (channels, width)."""
    nodes, groups, start = [], [], 0
    for i, (channels, width) in enumerate(shapes):
        nodes.append(Node(f"conv{i}", "conv", channels, tuple(range(start, start + channels))))
        groups.append(Group(f"conv{i}", channels, (f"conv{i}",), width))
        start += channels
    edges = torch.tensor([list(range(len(shapes) - 1)), list(range(1, len(shapes)))])
    return ChannelGraph(nodes=tuple(nodes), edge_index=edges, groups=tuple(groups))
