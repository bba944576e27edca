"""From scores to masks: equal counts in every group, a threshold, ties, and how much masks have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphprune.runs.checks import share as check_share

Keep = dict[str, Tensor]
WITHIN = 1e-6  # scores as near as this are equal


def keep_share(scores: Mapping[str, Tensor], removed: float, generator: torch.Generator) -> Keep:
    """The highest scores of every group, with `removed` of its units gone; at least one stays. Ties go by chance.

    Args:
        removed: share of each group's units, 0 to 1, rounded to whole units.
        generator: what equal scores are ordered by.
    Raises:
        ValueError: the share is out of range.

    >>> keep_share({"fc": torch.tensor([0.1, 0.9, 0.5, 0.7])}, 0.5, torch.Generator())["fc"].tolist()
    [False, True, False, True]
    """
    check_share(removed=removed)
    found = {}
    for name, score in scores.items():
        shuffled = torch.randperm(len(score), generator=generator)
        order = shuffled[score.cpu()[shuffled].argsort(descending=True, stable=True)]
        kept = torch.zeros(len(score), dtype=torch.bool)
        kept[order[: max(1, len(score) - round(removed * len(score)))]] = True
        found[name] = kept
    return found


def keep_above(scores: Mapping[str, Tensor], threshold: float) -> Keep:
    """The units whose score is at least the threshold, the paper's rule; the highest of a group stays in any case.

    Raises:
        ValueError: the threshold is not between 0 and 1.

    >>> keep_above({"fc": torch.tensor([0.1, 0.3])}, 0.5)["fc"].tolist()
    [False, True]
    """
    check_share(threshold=threshold)
    return {name: ((s >= threshold) | (torch.arange(len(s)) == int(s.argmax()))).cpu() for name, s in scores.items()}


def tied(scores: Mapping[str, Tensor], removed: float) -> int:
    """How many units share the score at which `keep_share` cuts, so that chance decides between them; 0 if it need not.

    >>> tied({"fc": torch.tensor([0.0, 0.0, 0.0, 1.0])}, 0.5)
    3
    """
    count = 0
    for score in scores.values():
        row = score.sort(descending=True).values
        kept = max(1, len(row) - round(removed * len(row)))
        if kept < len(row) and abs(float(row[kept - 1] - row[kept])) <= WITHIN:
            count += int(((row - row[kept]).abs() <= WITHIN).sum())
    return count


def overlap(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Of the units that either mask removes, the share that both do (Jaccard's index); 1 where neither removes any.

    >>> overlap({"fc": torch.tensor([True, False, False])}, {"fc": torch.tensor([True, True, False])})
    0.5
    """
    gone_a, gone_b = (~torch.cat([mask[name] for name in a]) for mask in (a, b))
    either = int((gone_a | gone_b).sum())
    return int((gone_a & gone_b).sum()) / either if either else 1.0
