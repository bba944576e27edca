"""Single weights pruned in one shot by what they are worth to the spectrum of their layer's graph."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphprune.graph.copies import copy_model
from graphprune.pruning import weight_masks
from graphprune.pruning.weight_budgets import keep_top, pools
from graphprune.pruning.weight_masks import WeightMask, prunable
from graphprune.runs import runtime
from graphprune.spectral.edges import edges
from graphprune.spectral.sampling import draw, inclusion_chances, node_chances
from graphprune.spectral.scores import scores
from graphprune.training.data import Dataset

PICKS = ("top", "sample")


def prune_weights(
    model: nn.Module,
    data: Dataset | None,
    sparsity: float,
    *,
    rule: str = "resistance",
    budget: str = "global",
    pick: str = "top",
    conv: str = "unrolled",
    seed: int = 0,
) -> WeightMask:
    """The weights that a spectral rule keeps, in one shot: round((1 - sparsity) total) of them, exactly.

    Source: Laenen 2023, "One-Shot Neural Network Pruning via Spectral Graph Sparsification" (abstract); after Spielman and
    Srivastava 2011, "Graph sparsification by effective resistances". The abstract leaves the rule open, and so each of the
    arguments below is a reading of ours.

    Args:
        data: for the rule `paths` alone.
        sparsity: share of all convolution and linear weights to prune, 0 <= sparsity < 1.
        rule: `resistance`, `degree`, `adjacency`, `paths` (see `scores`), or `node` (see `sampling.node_chances`).
        budget: which weights compete: `global`, `layer` or `er`, see `weight_budgets.pools`.
        pick: `top` keeps the highest scores, `sample` draws with chances proportional to them.
        conv: how a convolution is a graph, see `edges.layer_edges`.
        seed: of the draw.
    Raises:
        TypeError: the sparsity is no number.
        ValueError: an argument is out of its range, or the network has a layer that is not supported.

    >>> import graphprune
    >>> from graphprune.pruning import weight_masks
    >>> net = graphprune.models.seeded("tiny_cnn", 0, in_channels=1)
    >>> weight_masks.count(prune_weights(net, None, 0.9)).kept  # of 318 weights
    32
    """
    if pick not in PICKS:
        raise ValueError(f"pick={pick!r} is unknown: use 'top' or 'sample'")
    if pick == "sample":
        chances = keep_chances(model, data, sparsity, rule=rule, budget=budget, conv=conv)
        generator, mask = runtime.seed_generator(seed, "spectral.prune_weights"), WeightMask()
        for names, _ in pools(chances, sparsity, budget, weight_masks.groups(model)):
            mask |= draw({name: chances[name] for name in names}, generator)
        return {name: mask[name] for name in chances}
    if rule == "node":
        raise ValueError("rule='node' with pick='top': it is a rule to sample by; its ranking is that of 'degree'")
    pools(prunable(model), sparsity, budget)  # a wrong budget or sparsity is told before any work
    return keep_top(scores(model, data, rule, conv), sparsity, budget, weight_masks.groups(model))


def keep_chances(
    model: nn.Module,
    data: Dataset | None,
    sparsity: float,
    *,
    rule: str = "resistance",
    budget: str = "global",
    conv: str = "unrolled",
) -> dict[str, Tensor]:
    """The chance with which `prune_weights(..., pick="sample")` keeps each weight; they add up to the number kept.

    Args, Raises: as `prune_weights`.
    """
    pools(prunable(model), sparsity, budget)
    if rule != "node":
        return inclusion_chances(scores(model, data, rule, conv), sparsity, budget, weight_masks.groups(model))
    layers = edges(model, conv)
    if any(layer.conductances.shape[-1] > 1 or len(layer.conductances) > 1 for layer in layers.values()):
        raise ValueError(f"rule='node' with conv={conv!r}: it takes no parallel edges and no grouped layer; use 'unrolled'")
    found = node_chances({name: layer.graphs[0] for name, layer in layers.items()}, sparsity, budget)
    return {name: p.reshape(layers[name].shape) for name, p in found.items()}


def reweight(model: nn.Module, mask: Mapping[str, Tensor], chances: Mapping[str, Tensor]) -> nn.Module:
    """A pruned copy in which every kept weight is divided by its chance: each layer's graph is right on average.

    It is how a spectral sparsifier is made; weights that were kept against the odds become large.

    Args:
        mask: what was drawn. chances: what it was drawn by (`keep_chances`).
    Raises:
        ValueError: the mask or the chances do not fit the network, or a kept weight has the chance 0.
    """
    weight_masks.check(model, mask)
    for name, kept in mask.items():
        if name not in chances or chances[name].shape != kept.shape:
            raise ValueError(
                f"chances: {name!r} needs one for each weight, {tuple(kept.shape)}; give what keep_chances returned"
            )
    if impossible := [name for name, kept in mask.items() if bool((chances[name][kept] == 0).any())]:
        raise ValueError(f"chances: {impossible[0]!r} keeps a weight whose chance is 0; give the chances it was drawn by")
    twin = copy_model(model)
    weights = prunable(twin)
    with torch.no_grad():
        for name, kept in mask.items():
            factor = torch.where(kept, 1 / chances[name], 0.0)
            weights[name].mul_(factor.to(weights[name]))
    return twin
