"""Node features that say how much of each layer is left, in place of which channels.

SACP's node carries +1 or -1 for each channel (section 3.2), so that an embedding turns on which channels those are, and
fits one network only. Here [ours] a node v carries numbers that every network has,

    x_v = [ 1, s_v ] (x) [ 1, t_v, t_v^2, t_v^3 ] (x) [ 1, w_v ],

with s_v = log(kept channels / channels), t_v its depth from -1 to 1 in the order of execution, and w_v = log2(1 + layers) - 1,
the layers that share its channels (a residual stage's trunk has many, an inner convolution one: w = 0). An encoder trained
on one network reads any other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphprune.encoders.scorer import Features
from graphprune.graph.channel_graph import ChannelGraph

POWERS = 4
WIDTH = 2 * POWERS * 2


def shares(graph: ChannelGraph) -> Features:
    """The node features of one network's pruned versions.

    Where a node's channels belong to several groups (a concatenation), s and w are means over its channels; channels that
    are never pruned count as s = 0, w = -1.

    Returns:
        (B, num_atoms) bool, True = kept, at least one channel a group -> (B, nodes, 16) float32, the order of the factors as
        above; a sum over groups, as `Scorer` needs it.

    >>> import torch, graphprune
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    >>> shares(graph)(torch.ones(1, graph.num_atoms, dtype=torch.bool)).shape == (1, len(graph.nodes), WIDTH)
    True
    """
    sizes = torch.tensor([group.channels for group in graph.groups])
    member = torch.zeros(graph.num_atoms, len(sizes))
    member[torch.arange(graph.num_atoms), graph.owner] = 1 / sizes[graph.owner]
    part, place = _parts(graph), _places(graph)

    def features(kept: Tensor) -> Tensor:
        logs = (kept.float() @ member.to(kept.device)).log()  # (B, groups)
        own = logs @ part.T.to(kept.device)  # (B, nodes)
        numbers = torch.stack([torch.ones_like(own), own], 2)  # (B, nodes, 2)
        return (numbers[..., None] * place[:, None].to(kept.device)).flatten(2)

    return features


def _parts(graph: ChannelGraph) -> Tensor:
    """(nodes, groups): which part of a node's channels belongs to which group."""
    part = torch.zeros(len(graph.nodes), len(graph.groups))
    for row, node in zip(part, graph.nodes, strict=True):
        atoms = torch.tensor([atom for atom in node.atoms if atom >= 0], dtype=torch.int64)
        row.index_add_(0, graph.owner[atoms], torch.full((len(atoms),), 1 / max(node.channels, 1)))
    return part


def _places(graph: ChannelGraph) -> Tensor:
    """(nodes, 8): powers of the depth, each by itself and times w."""
    depth = torch.linspace(-1, 1, len(graph.nodes))
    powers = depth[:, None] ** torch.arange(POWERS)
    layers = torch.tensor([float(len(group.layers)) for group in graph.groups])
    shared = _parts(graph) @ (layers + 1).log2() - 1
    return torch.stack([powers, powers * shared[:, None]], 2).flatten(1)
