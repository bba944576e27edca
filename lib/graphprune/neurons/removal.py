"""Masking as the paper does it, and the same units removed for real, with what their biases still say folded in."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.copies import copy_model
from graphprune.neurons.chain import Affine
from graphprune.neurons.reading import read
from graphprune.pruning.channels import prune


def mask_units(model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor]) -> nn.Module:
    """A copy in which the weights of every unit that is not kept are zero and its bias, and the BN after it, are not.

    A masked unit so says the same of every image, ReLU(b), not nothing. The paper masks weights; that the bias stays is our
    reading of it.

    Raises:
        ValueError: `keep` does not fit the graph.
    """
    graph.flatten(keep)
    twin = copy_model(model)
    with torch.no_grad():
        for group in graph.groups:
            for name in group.layers:
                twin.get_submodule(name).get_parameter("weight")[~keep[group.name]] = 0
    return twin


def remove(model: nn.Module, graph: ChannelGraph, keep: Mapping[str, Tensor], images: Tensor) -> nn.Module:
    """The network without the units that are not kept, equal to `mask_units`: constants go into the next layer's bias.

    `graphprune.prune` by itself equals the network in which a removed unit says 0; with this, its ReLU(b) is kept.

    Args:
        images: (B, *input shape), any; the network is run on them to find its layers.
    Raises:
        ValueError: a constant cannot be folded exactly: the next layer pads with zeros, or has no bias.
    """
    masked = mask_units(model, graph, keep).eval()
    layers = [op.name for op in read(model, images).operations if isinstance(op, Affine) and op.weighted]
    groups = {name: group.name for group in graph.groups for name in group.layers}
    folded = copy_model(model)
    for name, following in pairwise(layers):
        gone = ~keep[groups[name]]
        if bool(gone.any()):
            _fold(folded, masked, name, following, gone, images)
    return prune(folded, graph, keep)


def _fold(folded: nn.Module, masked: nn.Module, name: str, following: str, gone: Tensor, images: Tensor) -> None:
    """Add what the masked units of layer `name` give `following` to its bias."""
    reader = folded.get_submodule(following)
    given: list[Tensor] = []
    handle = masked.get_submodule(following).register_forward_hook(lambda _layer, entered, _made: given.append(entered[0]))
    with torch.no_grad():
        masked(images[:1])
    handle.remove()
    wide = gone.repeat_interleave(given[0].shape[1] // len(gone))  # a flattened channel is many inputs
    constant = given[0][0] * wide.reshape(-1, *[1] * (given[0].ndim - 2))
    if not bool((constant != 0).any()):
        return
    with torch.no_grad():
        made = (reader(constant[None]) - reader(torch.zeros_like(constant)[None]))[0]
        made = made.reshape(len(made), -1)
        if float((made.amax(1) - made.amin(1)).max()) > 1e-6 * float(made.abs().max()):
            raise ValueError(
                f"keep: units of layer {name!r} give {following!r} something that differs from pixel to pixel (it pads with "
                "zeros), so that it is no bias; use graphprune.prune, which makes removed units say 0"
            )
        if reader.bias is None:
            raise ValueError(
                f"keep: units of layer {name!r} give a constant to {following!r}, which has no bias to take it; build it with "
                "bias=True, or use graphprune.prune, which makes removed units say 0"
            )
        reader.bias += made[:, 0]
