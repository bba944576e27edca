"""Normalisations over channels: found by what they compute, and run over the kept channels alone.

LayerNorm's mean and variance run over all channels of a place. A pruned network takes them over the kept ones, and that is
not what the network with zeros computes. With `trace(..., norms="kept")` the masked twin takes them over the kept channels too.
RMSNorm is the exception: zeros add nothing to its sum of squares, so that a larger weight makes up for their number.
"""

from __future__ import annotations

import math
import types
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph, Norm
from graphprune.graph.cutting import Numbers, Places, cut, kept_classes, kept_numbers
from graphprune.graph.parts import named_modules
from graphprune.graph.rules.operation import NumberKey
from graphprune.graph.weightless import copy_network, like

TOLERANCE = 1e-3
"""How well a module must meet what defines a normalisation, next to results of about 1; it may compute in single precision."""


def find_norms(model: nn.Module) -> dict[str, int]:
    """The modules of a network that normalise over one dimension: path -> that dimension, -1 or 1.

    torch's own are known by their class, others by what they do: see `normalised_dim`.

    >>> find_norms(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GroupNorm(1, 8), nn.GroupNorm(2, 8)))
    {'1': -1, '2': 1}
    """
    known: dict[Any, int | None] = {}  # a network has few kinds of norms, each many times
    found = {}
    for path, module in named_modules(model).items():
        if module._modules or isinstance(module, nn.modules.batchnorm._NormBase):
            continue
        numbers = {name: value for name, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
        kind = type(module), repr(numbers), tuple(p is None or p.shape for p in module._parameters.values())
        if kind not in known:
            known[kind] = normalised_dim(module)
        if (dim := known[kind]) is not None:
            found[path] = dim
    return found


def normalised_dim(module: nn.Module) -> int | None:
    """The one dimension that a module normalises, or None if it is no such module.

    A normalisation has parameters of one number a channel, treats all channels alike, mixes them, and gives the same for an
    input that is twice as large. A convolution, an activation, a softmax, a batch normalisation fails in one of these.
    """
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and type(module).forward in (nn.LayerNorm.forward, nn.RMSNorm.forward):
        return -1 if len(module.normalized_shape) == 1 else None
    if type(module).forward is nn.GroupNorm.forward:
        return 1 if module.num_groups == 1 else None  # type: ignore[comparison-overlap]
    shapes = {tuple(p.shape) for p in module._parameters.values() if p is not None}
    if len(shapes) != 1 or any(buffer is not None for buffer in module._buffers.values()):
        return None
    (shape,) = shapes
    if len(shape) != 1 or shape[0] < 2:
        return None
    return next((dim for dim in (-1, 1) if _normalises(module, dim, shape[0])), None)


def _normalises(module: nn.Module, dim: int, channels: int) -> bool:
    draw = torch.Generator().manual_seed(0)
    weights = [p for p in module._parameters.values() if p is not None]
    drawn = [torch.rand(channels, generator=draw) + 0.5 for _ in weights]
    order = torch.arange(channels).roll(1)
    x = 100 * torch.randn((2, 3, channels) if dim == -1 else (2, channels, 3, 3), generator=draw)
    other = x.index_fill(dim, torch.tensor([0]), 100.0)
    try:
        with torch.no_grad():
            same, turned = (
                copy_network(module, {id(p): like(p, w) for p, w in zip(weights, given, strict=True)}).eval()
                for given in (drawn, [w[order] for w in drawn])
            )
            out = same(x)
            return (
                isinstance(out, Tensor)
                and out.shape == x.shape
                and near(same(2 * x), out)
                and near(turned(x.index_select(dim, order)), out.index_select(dim, order))
                and not near(same(other).narrow(dim, 1, channels - 1), out.narrow(dim, 1, channels - 1))
            )
    except Exception:  # it takes something else
        return False


def near(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).abs().max() <= TOLERANCE * wanted.abs().max())


# the masked twin ------------------------------------------------------------------------------------------------------


def run_over_kept(model: nn.Module, graph: ChannelGraph, kept: Tensor) -> None:
    """Let the normalisations of a masked network take their statistics over the kept channels; in place.

    Args:
        model: the masked network.
        graph: its trace.
        kept: (num_atoms,) bool.
    """
    modules, stays, numbers = named_modules(model), kept_classes(graph, kept), kept_numbers(graph, kept)
    for norm in graph.norms:
        index = stays[norm.atoms].nonzero().flatten()
        if norm.kept and len(index) < len(norm.atoms):
            module = modules[norm.path]
            module.__dict__["_graphprune_norm"] = (small_norm(module, norm, index, numbers), norm.dim, index)
            module.__dict__["forward"] = types.MethodType(over_kept, module)


def small_norm(module: nn.Module, norm: Norm, index: Tensor, numbers: Numbers) -> nn.Module:
    """A normalisation of the kept channels alone."""
    names = [name for name, parameter in module._parameters.items() if parameter is not None]
    places: Places = {(name, 0): index for name in names}
    return cut(module, places, {("", *key[1:]): number for key, number in numbers.items() if key[0] == norm.path})


def over_kept(module: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The forward of such a normalisation: of the kept channels as in the pruned network, zeros in place of the others."""
    small, dim, index = module._graphprune_norm  # type: ignore[misc]
    index = index.to(x.device)  # type: ignore[has-type]
    weights = {name: p.index_select(0, index) for name, p in module._parameters.items() if p is not None}
    out = torch.func.functional_call(small, weights, (x.index_select(dim, index), *args), kwargs)  # type: ignore[has-type]
    return out.new_zeros(x.shape).index_copy(dim, index, out)  # type: ignore[has-type]


# the pruned network ---------------------------------------------------------------------------------------------------


def make_up(small: nn.Module, graph: ChannelGraph, kept: Tensor) -> dict[NumberKey, float]:
    """Let the RMSNorms of a pruned network give what they gave with zeros in place of what is gone; in place.

    With d of D channels left, x / sqrt(sum x^2 / D + eps) w is x / sqrt(sum x^2 / d + eps D / d) w sqrt(D / d). An eps of None
    is the rounding of the numbers, and stays.

    Args:
        small: the pruned network.
        graph: the trace of the one it was pruned from.
        kept: (num_atoms,) bool.

    Returns:
        The numbers that the modules now keep.
    """
    modules, stays = named_modules(small), kept_classes(graph, kept)
    changed: dict[NumberKey, float] = {}
    for norm in graph.norms:
        share = len(norm.atoms) / max(int(stays[norm.atoms].sum()), 1)
        if norm.kept or share == 1:
            continue
        module = modules[norm.path]
        with torch.no_grad():
            module.weight.mul_(math.sqrt(share))  # type: ignore[operator, union-attr]
        if module.eps is not None:
            module.eps = changed[norm.path, "eps", None] = module.eps * share  # type: ignore[operator, assignment]
    return changed
