"""A network as a graph over its channels and layers: what a policy that chooses channels sees (graph RL, our reading).

A node is an atom (channels whose masks are tied are one) or a layer, an edge joins two atoms that a weight joins or a layer
and its channels, and all numbers are relative: to the atom's group, to the edge's target, to the whole network. So a policy
can be carried to another network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.channels import check_same
from graphprune.rl.edges import edges_of, joining_weights, memberships
from graphprune.rl.nodes import SHARED, of_channels, of_groups, of_layers
from graphprune.runs.checks import at_least

if TYPE_CHECKING:
    from graphprune.training.data import Dataset

NAMES = (
    *("l1", "l2", "gamma", "beta", "activation"),  # of the channel
    *SHARED,  # of its group
    *("is_input", "is_class"),
    *("reads", "taylor", "is_layer"),  # the first two of the channel
)


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
    if strongest is not None:
        at_least(1, " edge into a node; None keeps all", strongest=strongest)
    at_least(1, ", the activations are measured on them; 256 is the default", images=images)
    if not graph.groups:
        raise ValueError("graph has no prunable group, so there is no channel to observe; graph.frozen says why")
    check_same(model, graph)
    weights = list(joining_weights(model, graph))
    by_group = of_layers(model, graph, data)
    columns = of_channels(model, graph, data, weights, images, seed) | of_groups(graph, by_group)
    layers = [(group, row) for group, rows in enumerate(by_group) for row in rows]
    x, place, atoms = torch.zeros(graph.num_atoms + 2 + len(layers), len(NAMES)), NAMES.index, graph.num_atoms
    for name, values in columns.items():
        x[:atoms, place(name)] = values
    x[atoms, place("is_input")] = x[atoms + 1, place("is_class")] = 1
    x[atoms + 2 :, place("is_layer")] = 1
    x[atoms + 2 :, [place(name) for name in SHARED]] = torch.tensor([row for _, row in layers])
    edge_index, edge_attr = edges_of(weights, graph, strongest)
    members = memberships(graph, [group for group, _ in layers])
    both = torch.cat([edge_index, members, members.flip(0)], 1)
    belongs = torch.tensor([0.0, 0.0, 1.0]).repeat(2 * members.shape[1], 1)
    return Observation(x, both, torch.cat([edge_attr, belongs]), NAMES)
