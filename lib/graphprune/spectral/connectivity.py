"""What a mask leaves connected: components of each layer, neurons that no path crosses, inputs that reach an output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphprune.pruning import weight_masks
from graphprune.pruning.weight_paths import flow
from graphprune.spectral.edges import layer_edges
from graphprune.spectral.resistance import components


@dataclass(frozen=True)
class Connectivity:
    """Counts over a masked network.

    Attributes:
        components: connected components of the layers' graphs, added up; a node without an edge is one.
        nodes: nodes of those graphs.
        dead: outputs of layers that no path from input to output crosses.
        neurons: outputs of layers.
        inputs: share of the inputs that reach an output.
        outputs: share of the outputs that an input reaches.
        collapsed: the layers without any weight.
    """

    components: int
    nodes: int
    dead: int
    neurons: int
    inputs: float
    outputs: float
    collapsed: tuple[str, ...]

    @property
    def connected(self) -> bool:
        """Whether any path leads from input to output; without one the network says the same of every image."""
        return self.outputs > 0


def connectivity(model: nn.Module, example: Tensor, mask: Mapping[str, Tensor]) -> Connectivity:
    """Count what `mask` leaves connected. Convolutions are unrolled; the network is as `weight_paths.flow` wants it.

    Args:
        example: one input; only its shape counts.
        mask: one entry for every prunable weight.
    Raises:
        ValueError: the mask does not fit, or a weight has no entry.
    """
    weight_masks.check(model, mask, every=True)
    unrolled = {name: [graph for graph in layer_edges(kept.float()).graphs] for name, kept in mask.items()}
    labels = [components(graph) for graphs in unrolled.values() for graph in graphs]
    # Divided by the largest sum of a row, so that a deep network neither overflows nor vanishes.
    ones = {name: kept.double() / kept.flatten(1).sum(1).max().clamp(min=1) for name, kept in mask.items()}
    found = flow(model, example, ones)
    crossed = torch.cat([through > 0 for through in found.neurons.values()])
    return Connectivity(
        components=sum(len(label.unique()) for label in labels),
        nodes=sum(len(label) for label in labels),
        dead=int((~crossed).sum()),
        neurons=len(crossed),
        inputs=float((found.inputs > 0).double().mean()),
        outputs=float((found.outputs > 0).double().mean()),
        collapsed=tuple(name for name, kept in mask.items() if not bool(kept.any())),
    )
