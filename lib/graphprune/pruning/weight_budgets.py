"""How many weights each layer may keep at a sparsity, and the mask of the highest scores within that.

A budget says which weights compete: those of one layer (`layer`, `er`) or all (`global`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphprune.runs.checks import demand_number

Pool = tuple[tuple[str, ...], int]  # names of the weights that compete, how many of theirs are kept


def pools(weights: Mapping[str, Tensor], sparsity: float, budget: str, groups: Mapping[str, int] | None = None) -> list[Pool]:
    """The pools of weights that compete, and how many are kept in each; together exactly round((1 - sparsity) total).

    Args:
        weights: name -> (out, in, ...), weights or anything in their shape.
        sparsity: the share of all weights to prune, 0 <= sparsity < 1.
        budget: `global`: one pool. `layer`: the same share of every layer. `er`: a layer gets weights in proportion to
            its nodes, out + in with a convolution unrolled to out x (in k k), and at most all (Erdos-Renyi; Mocanu et al.
            2018, "Scalable training of artificial neural networks with adaptive sparse connectivity", eq. 3).
        groups: name -> groups of a convolution, for `er`, see `weight_masks.groups`; 1 where there is no entry. Each
            group is a graph of its own, and a weight's shape does not tell how many there are.
    Raises:
        TypeError: the sparsity is no number.
        ValueError: it is out of range or leaves no weight, or the budget is unknown.

    >>> pools({"a": torch.zeros(4, 4), "b": torch.zeros(2, 4)}, 0.5, "layer")
    [(('a',), 8), (('b',), 4)]
    """
    sizes = torch.tensor([weight.numel() for weight in weights.values()], dtype=torch.float64)
    kept = kept_count(int(sizes.sum()), sparsity)
    if budget == "global":
        return [(tuple(weights), kept)]
    parts = groups or {}
    inputs = [weight[0].numel() * parts.get(name, 1) for name, weight in weights.items()]
    nodes = torch.tensor([len(w) + n for w, n in zip(weights.values(), inputs, strict=True)], dtype=torch.float64)
    if budget not in ("layer", "er"):
        raise ValueError(f"budget={budget!r} is unknown: use 'layer', 'er' or 'global'")
    counts = _apportion(sizes if budget == "layer" else nodes, sizes, kept)
    return [((name,), int(number)) for name, number in zip(weights, counts.tolist(), strict=True)]


def kept_count(total: int, sparsity: float) -> int:
    """How many of `total` weights stay.

    Raises:
        TypeError: the sparsity is no number. ValueError: it is out of range, or no weight would stay.
    """
    demand_number("e.g. 0.9 to prune nine weights in ten", sparsity=sparsity)
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity!r}: must be at least 0 and below 1, e.g. 0.9 to prune nine weights in ten")
    if (kept := round((1 - sparsity) * total)) < 1:
        raise ValueError(f"sparsity={sparsity!r} keeps none of {total} weights: use at most {1 - 1 / total:.6g}")
    return kept


def _apportion(shares: Tensor, sizes: Tensor, kept: int) -> Tensor:
    """Whole numbers in proportion to `shares`, at most `sizes`, that add up to `kept` (largest remainders first)."""
    full = torch.zeros(len(sizes), dtype=torch.bool)
    while True:
        left = kept - sizes[full].sum()
        exact = torch.where(full, sizes, left * shares / shares[~full].sum().clamp(min=1e-300))
        if not bool((over := (exact > sizes) & ~full).any()):
            break
        full |= over
    counts = exact.floor()
    rest = (exact - counts).masked_fill(counts >= sizes, -1.0)
    counts[rest.argsort(descending=True, stable=True)[: kept - int(counts.sum())]] += 1
    return counts


def keep_top(
    scores: Mapping[str, Tensor], sparsity: float, budget: str = "global", groups: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """The weight mask of the highest scores. Of equal scores the earlier weight stays.

    Args:
        scores: name -> a score for each weight, in the weight's shape.
        sparsity, budget, groups: as in `pools`.
    Raises:
        TypeError, ValueError: as `pools`, or a score is not a number.

    >>> keep_top({"a": torch.tensor([[3.0, 1.0], [2.0, 4.0]])}, 0.5)["a"].tolist()
    [[True, False], [False, True]]
    """
    check_numbers(scores)
    mask: dict[str, Tensor] = {}
    for names, kept in pools(scores, sparsity, budget, groups):
        row = torch.cat([scores[name].flatten() for name in names])
        chosen = torch.zeros(len(row), dtype=torch.bool, device=row.device)
        chosen[row.argsort(descending=True, stable=True)[:kept]] = True
        mask |= split(chosen, scores, names)
    return {name: mask[name] for name in scores}


def split(row: Tensor, like: Mapping[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """One value a weight of a pool, (weights,), as tensors in the shapes of `like`."""
    parts = row.split([like[name].numel() for name in names])
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}


def check_numbers(scores: Mapping[str, Tensor]) -> None:
    """Raise a ValueError that names the first weight with a score that is not a number."""
    for name, score in scores.items():
        if bool(score.isnan().any()):
            raise ValueError(f"scores: {name!r} has scores that are not a number; are the network's weights finite?")
