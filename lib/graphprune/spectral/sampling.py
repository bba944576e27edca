"""Draws of weights with unequal chances whose number is exact: the capped chances, and a draw that honours each of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphprune.pruning.weight_budgets import check_numbers, pools, split


def cap_chances(scores: Tensor, kept: int) -> Tensor:
    """Chances p_i = min(1, c s_i) that add up to `kept` exactly. Where too few scores are positive, zeros share the rest.

    Shapes: (N,) -> (N,) float64.

    >>> cap_chances(torch.tensor([8.0, 1.0, 1.0]), 2).tolist()
    [1.0, 0.5, 0.5]
    """
    s = scores.double()
    if (positive := int((s > 0).sum())) <= kept:
        return torch.full_like(s, (kept - positive) / max(1, len(s) - positive)).masked_fill(s > 0, 1.0)
    order = s.argsort(descending=True, stable=True)
    row = s[order]
    tail = row.flip(0).cumsum(0).flip(0)  # what is left from each place on
    certain = torch.arange(len(row))
    # With the t largest at 1, c is (kept - t) / tail_t; the first t at which the next one is not above 1 is right.
    fits = (certain < kept) & ((kept - certain) * row <= tail)
    t = int(fits.long().argmax()) if bool(fits.any()) else kept
    chances = torch.ones_like(row)
    chances[t:] = ((kept - t) / tail[t] if t < len(row) else 0.0) * row[t:]
    return torch.empty_like(chances).scatter_(0, order, chances).clamp(max=1.0)


def inclusion_chances(
    scores: Mapping[str, Tensor], sparsity: float, budget: str = "global", groups: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """The chance with which each weight is kept, proportional to its score within its pool, capped at 1.

    Args:
        scores: name -> a score of at least 0 for each weight.
        sparsity, budget, groups: as in `weight_budgets.pools`; the expected number of weights kept is exact in every pool.
    Raises:
        ValueError: as `pools`, or a score is not a number.
    """
    check_numbers(scores)
    found: dict[str, Tensor] = {}
    for names, kept in pools(scores, sparsity, budget, groups):
        found |= split(cap_chances(torch.cat([scores[name].flatten() for name in names]), kept), scores, names)
    return {name: found[name] for name in scores}


def node_chances(graphs: Mapping[str, Tensor], sparsity: float, budget: str = "global") -> dict[str, Tensor]:
    """The node rule: each end of an edge keeps it with p_u = min(1, c w / d_u); together p = p_u + p_v - p_u p_v.

    c is one number a pool, found by bisection, so that the expected number of weights kept is exact.

    Args:
        graphs: name -> (out, in) conductances, no parallel edges.
    Raises:
        ValueError: as `pools`, or a pool has too few edges.
    """
    halves = {}
    for name, a in graphs.items():
        tiny = torch.finfo(torch.float64).tiny
        halves[name] = torch.stack([a / a.sum(1, keepdim=True).clamp(min=tiny), a / a.sum(0).clamp(min=tiny)])
    found: dict[str, Tensor] = {}
    for names, kept in pools(graphs, sparsity, budget):
        both = torch.cat([halves[name].flatten(1) for name in names], 1)
        if (edges := int((both[0] > 0).sum())) < kept:
            raise ValueError(f"{names[0]}: {edges} weights are not zero, but {kept} are to be kept: use a higher sparsity")
        found |= split(_both_ends(both, kept), graphs, names)
    return {name: found[name] for name in graphs}


def _both_ends(halves: Tensor, kept: int) -> Tensor:
    def chances(log_c: float) -> Tensor:
        p = (halves * torch.tensor(log_c, dtype=torch.float64).exp()).clamp(max=1.0)
        return p[0] + p[1] - p[0] * p[1]

    low, high = -50.0, 700.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float(chances(middle).sum()) < kept else (low, middle)
    return chances(high)


def draw(chances: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """A weight mask in which each weight is kept with its own chance and the number kept is exact.

    Systematic sampling in a random order (Madow 1949): the chances are laid end to end, and a comb with teeth 1 apart and a
    random start picks the weights that its teeth fall on.

    Args:
        chances: name -> chances that add up to a whole number over all entries (to 1e-6).
    Raises:
        ValueError: they are no chances, or do not add up to a whole number.

    >>> draw({"w": torch.tensor([1.0, 0.5, 0.5])}, torch.Generator().manual_seed(0))["w"].sum().item()
    2
    """
    row = torch.cat([p.double().flatten() for p in chances.values()])
    if not bool(((row >= 0) & (row <= 1)).all()):
        raise ValueError("chances: they must lie between 0 and 1")
    total = round(float(row.sum()))
    if abs(float(row.sum()) - total) > 1e-6 * max(1, total):
        raise ValueError(f"chances: they add up to {float(row.sum()):.6g}, which is no whole number")
    order = torch.randperm(len(row), generator=generator)
    laid = row[order].cumsum(0).clamp(max=total)
    laid[-1] = total
    teeth = (laid + torch.rand((), generator=generator, dtype=torch.float64)).floor()
    chosen = torch.zeros(len(row), dtype=torch.bool)
    chosen[order] = teeth.diff(prepend=teeth.new_zeros(1)) > 0
    return split(chosen, chances, tuple(chances))
