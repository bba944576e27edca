"""What an edge is worth to the spectrum of its layer's graph, and the chance with which a sampling rule keeps it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from graphprune.spectral.edges import Edges, edges
from graphprune.spectral.paths import strongest
from graphprune.spectral.resistance import conductances, degree_resistance, effective_resistance
from graphprune.training.data import Dataset

Scores = dict[str, Tensor]


def polar(weight: Tensor) -> Tensor:
    """|U V^T| for |W| = U diag(s) V^T: how fast the sum of the adjacency's singular values changes with each entry.

    The derivative of the nuclear norm sum_k s_k by W_ij is sum_k U_ik V_jk. |W_ij| times it is what an edge brings to the
    spectrum, to first order [our reading of "preserving the spectrum of the adjacency matrix"].

    Shapes: (out, in) -> (out, in) float64.

    >>> polar(torch.tensor([[3.0, 0.0], [0.0, 2.0]])).round().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    u, _, v = torch.linalg.svd(conductances(weight), full_matrices=False)
    return (u @ v).abs()


FACTORS: dict[str, Callable[[Tensor], Tensor]] = {
    "resistance": effective_resistance,
    "degree": degree_resistance,
    "adjacency": polar,
}


def scores(model: nn.Module, data: Dataset | None, rule: str = "resistance", conv: str = "unrolled") -> Scores:
    """A score for every prunable weight, in its shape, float64 and at least 0; higher = worth more.

    Args:
        data: for `paths` alone, which needs the shape of an input.
        rule: `resistance`: |w| R with the exact effective resistance, the edge's leverage. `degree`: |w| (1/d_i + 1/d_j).
            `adjacency`: |w| |U V^T|, see `polar`. `paths`: ours, not the paper's: see `paths.strongest`.
        conv: see `layer_edges`.
    Raises:
        ValueError: the rule is unknown, or as `edges` and `effective_resistance`.
    """
    if rule == "paths":
        return strongest(model, data, {name: layer.strengths for name, layer in edges(model, conv).items()})
    if rule not in FACTORS:
        known = ", ".join(map(repr, (*FACTORS, "paths")))
        if rule == "node":
            raise ValueError(
                f"rule='node': it gives chances (keep_chances) and no scores; use {known}; 'degree' ranks as it does"
            )
        raise ValueError(f"rule={rule!r} is unknown: use {known}, or to sample by, 'node'")
    return {name: _of_layer(name, layer, FACTORS[rule]) for name, layer in edges(model, conv).items()}


def _of_layer(name: str, layer: Edges, factor: Callable[[Tensor], Tensor]) -> Tensor:
    try:
        pairs = torch.stack([factor(graph) for graph in layer.graphs])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    strengths = layer.strengths
    return torch.where(strengths > 0, strengths * layer.per_weight(pairs), 0.0)  # no edge, no score: 0 * inf
