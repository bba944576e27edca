"""A layer's weights as the edges of a bipartite graph, convolutions in two readings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from graphprune.pruning.weight_masks import groups, prunable

READINGS = ("unrolled", "channels")


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of one layer: `groups` graphs (1 but for grouped convolutions), with `parallel` edges between two nodes.

    Attributes:
        conductances: (groups, out, in, parallel) float64, the absolute weights.
        shape: the weight's own.
    """

    conductances: Tensor
    shape: torch.Size

    @property
    def graphs(self) -> Tensor:
        """(groups, out, in): the conductances between two nodes, those of parallel edges added up."""
        return self.conductances.sum(-1)

    def per_weight(self, of_pairs: Tensor) -> Tensor:
        """A number for each pair of nodes, (groups, out, in), as one for each weight, in the weight's shape."""
        return of_pairs[..., None].expand(self.conductances.shape).reshape(self.shape)

    @property
    def strengths(self) -> Tensor:
        """The conductances in the weight's shape."""
        return self.conductances.reshape(self.shape)


def layer_edges(weight: Tensor, groups: int = 1, conv: str = "unrolled") -> Edges:
    """A weight as edges.

    Args:
        weight: (out, in) of a linear layer, (out, in / groups, k, k) of a convolution.
        groups: of the convolution.
        conv: `unrolled`: the inputs are the in k k places a filter looks at. `channels`: the inputs are the channels, and
            the k k weights of a slice are parallel edges, so that the slice's conductance is its L1 norm. For a linear
            layer both are the same.
    Raises:
        ValueError: the reading is unknown, or a weight is not finite.

    >>> layer_edges(torch.ones(8, 4, 3, 3), conv="channels").graphs.unique().item()
    9.0
    """
    if conv not in READINGS:
        raise ValueError(f"conv={conv!r} is unknown: use 'unrolled' or 'channels'")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("weight: it has entries that are not finite numbers; train with a lower learning rate")
    parts = weight.detach().cpu().double().abs().reshape(groups, len(weight) // groups, weight.shape[1], -1)
    if conv == "unrolled":
        parts = parts.flatten(2)[..., None]
    return Edges(parts, weight.shape)


def edges(model: nn.Module, conv: str = "unrolled") -> dict[str, Edges]:
    """The edges of every prunable weight, parameter name -> edges.

    Raises:
        ValueError: as `layer_edges`, or a layer is a transposed convolution.
    """
    found, parts = {}, groups(model)
    for name, weight in prunable(model).items():
        layer = model.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, _ConvTransposeNd):
            raise ValueError(f"model: layer {name.rpartition('.')[0]!r} is a transposed convolution, which is not supported")
        try:
            found[name] = layer_edges(weight, parts[name], conv)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return found
