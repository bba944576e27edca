"""The singular values of a layer's adjacency matrix, and how much of them pruning leaves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphprune.pruning import weight_masks
from graphprune.spectral.resistance import conductances


def singular_values(weight: Tensor, normalised: bool = False) -> Tensor:
    """The singular values of |W|, largest first: the eigenvalues of the bipartite graph's adjacency matrix are +- these.

    Args:
        weight: (out, in).
        normalised: of D_o^-1/2 |W| D_i^-1/2 instead, which lie between 0 and 1 and do not change when the layer is scaled.
    Shapes:
        (out, in) -> (min(out, in),) float64.

    >>> singular_values(torch.tensor([[3.0, 0.0], [0.0, -4.0]])).tolist()
    [4.0, 3.0]
    """
    a = conductances(weight)
    if normalised:
        smallest = torch.finfo(torch.float64).tiny
        a = a / a.sum(1, keepdim=True).clamp(min=smallest).sqrt() / conductances(weight).sum(0).clamp(min=smallest).sqrt()
    return torch.linalg.svdvals(a)


def spectral_error(weight: Tensor, kept: Tensor, normalised: bool = False) -> float:
    """||s - s'|| / ||s||, with s and s' the singular values before and after: 0 is kept whole (also of nothing), 1 is gone.

    Args:
        weight: (out, in). kept: bool (out, in), or the pruned weight itself.
        normalised: see `singular_values`.
    """
    before = singular_values(weight, normalised)
    after = singular_values(weight * kept if kept.dtype == torch.bool else kept, normalised)
    lost = (before - after).norm()
    return float(lost / before.norm()) if lost > 0 else 0.0


def mean_spectral_error(model: nn.Module, mask: Mapping[str, Tensor], normalised: bool = False) -> float:
    """The mean of `spectral_error` over the layers, convolutions unrolled to out x (in k k).

    Raises:
        ValueError: the mask does not fit the network, or a weight has no entry.
    """
    weight_masks.check(model, mask, every=True)
    weights = {name: weight.detach().cpu().flatten(1) for name, weight in weight_masks.prunable(model).items()}
    errors = [spectral_error(weight, mask[name].cpu().flatten(1), normalised) for name, weight in weights.items()]
    return sum(errors) / len(errors)
