"""The network run with scores: its values at every operation, and the objective of the program at these scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from graphprune.neurons.bounds import Bounds
from graphprune.neurons.chain import Chain, Score


def values(chain: Chain, bounds: Bounds, images: Tensor, s: Sequence[Tensor]) -> list[Tensor]:
    """What leaves each operation, the logits last.

    Args:
        s: for each scored layer (C,) float64.
    """
    x, left, found = images, iter(s), []
    for place, op in enumerate(chain.operations):
        x = op(x, next(left), bounds.caps[place]) if isinstance(op, Score) else op(x)
        found.append(x)
    return found


def sparsity(s: Sequence[Tensor]) -> Tensor:
    """The sum of the L - 1 largest of I_l = mean_j(s_lj - 2) over the L scored layers; with one layer that one.

    >>> sparsity([torch.ones(2), torch.zeros(3)]).item()
    -1.0
    """
    means = torch.stack([(part - 2).mean() for part in s])
    return means.sort(descending=True).values[: max(1, len(means) - 1)].sum()


def objective(chain: Chain, bounds: Bounds, images: Tensor, labels: Tensor, s: Sequence[Tensor], lam: float) -> Tensor:
    """lam times the mean cross-entropy of the logits, plus `sparsity`: what the program minimises."""
    return lam * F.cross_entropy(values(chain, bounds, images, s)[-1], labels) + sparsity(s)


def ones(chain: Chain) -> list[Tensor]:
    """All scores 1: the unpruned network."""
    return [torch.ones(score.channels, dtype=torch.float64) for score in chain.scored]
