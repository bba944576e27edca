"""What a new way to prune single weights is compared with: random, magnitude, SNIP, GraSP, SynFlow.

Every function takes (model, data, sparsity) first and returns a weight mask, so that a comparison is a loop over a dict.
All are one-shot but `synflow`, which prunes in 100 rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphprune.graph.copies import copy_model
from graphprune.pruning.weight_budgets import keep_top, kept_count, pools
from graphprune.pruning.weight_masks import WeightMask, groups, prunable
from graphprune.pruning.weight_paths import flow_through, skeleton
from graphprune.runs import runtime
from graphprune.runs.checks import at_least
from graphprune.training.data import Dataset


def random(model: nn.Module, data: Dataset | None, sparsity: float, *, budget: str = "global", seed: int = 0) -> WeightMask:
    """Weights kept at random, all of a pool with the same chance. `data` is not looked at.

    Args:
        budget: `layer`, `er` or `global`, see `weight_budgets.pools`.
    Raises:
        TypeError, ValueError: the sparsity or the budget is wrong.
    """
    generator = runtime.seed_generator(seed, "weight_baselines.random")
    scores = {name: torch.rand(w.shape, generator=generator) for name, w in prunable(model).items()}
    return keep_top(scores, sparsity, budget, groups(model))


def magnitude(model: nn.Module, data: Dataset | None, sparsity: float, *, budget: str = "global") -> WeightMask:
    """The weights of largest |w| (Han et al. 2015). `data` is not looked at. Arguments and errors as `random`."""
    scores = {name: weight.detach().abs() for name, weight in prunable(model).items()}
    return keep_top(scores, sparsity, budget, groups(model))


def snip(model: nn.Module, data: Dataset, sparsity: float, *, images: int = 256, seed: int = 0) -> WeightMask:
    """The weights of largest |w dL/dw| over all layers (Lee et al. 2019, "SNIP", eq. 4).

    Args:
        images: how many training images the loss is measured on, in one batch.
        seed: which images.
    """
    pools(prunable(model), sparsity, "global")  # a wrong sparsity is told before any work
    twin, (x, y) = _batch(model, data, images, seed)
    weights = prunable(twin)
    gradients = torch.autograd.grad(F.cross_entropy(twin(x), y), list(weights.values()))
    return keep_top(_products(weights, gradients, absolute=True), sparsity)


def grasp(
    model: nn.Module, data: Dataset, sparsity: float, *, images: int = 256, temperature: float = 200.0, seed: int = 0
) -> WeightMask:
    """The weights of largest w (H g), over all layers (Wang et al. 2020, "GraSP", eq. 8, with the sign turned).

    g is the gradient of the loss of logits / temperature, H its Hessian. The authors remove the largest -w (H g).
    Arguments as `snip`.
    """
    pools(prunable(model), sparsity, "global")  # a wrong sparsity is told before any work
    twin, (x, y) = _batch(model, data, images, seed)
    weights = prunable(twin)
    gradients = torch.autograd.grad(F.cross_entropy(twin(x) / temperature, y), list(weights.values()), create_graph=True)
    steered = torch.stack([(g * g.detach()).sum() for g in gradients]).sum()
    return keep_top(_products(weights, torch.autograd.grad(steered, list(weights.values()))), sparsity)


def synflow(model: nn.Module, data: Dataset, sparsity: float, *, rounds: int = 100) -> WeightMask:
    """The weights that most flows through, pruned in rounds (Tanaka et al. 2020, algorithm 1). Only `data.input_shape` counts.

    Round r of n keeps a share (1 - sparsity)^(r / n). Normalisations are left out of the flow, see `weight_paths.flow`.

    Args:
        rounds: 100 in the paper; 1 makes it one-shot.
    Raises:
        ValueError: the sparsity is out of range, or `rounds` is below 1.
    """
    at_least(1, remedy="; the paper has 100", rounds=rounds)
    strength = {name: weight.detach().abs().double().cpu() for name, weight in prunable(model).items()}
    scale = {name: value / value.mean().clamp(min=1e-300) for name, value in strength.items()}
    total = sum(value.numel() for value in strength.values())
    kept_count(total, sparsity)
    mask = {name: torch.ones_like(value, dtype=torch.bool) for name, value in scale.items()}
    twin, example = skeleton(model), data.example()
    for r in range(1, rounds + 1):
        through = flow_through(twin, example, {name: value * mask[name] for name, value in scale.items()}).weights
        through = {name: value.masked_fill(~mask[name], -1.0) for name, value in through.items()}
        mask = keep_top(through, 1 - (1 - sparsity) ** (r / rounds) if r < rounds else sparsity)
    return mask


def _batch(model: nn.Module, data: Dataset, images: int, seed: int) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A copy in evaluation mode, and one batch of training images on its device."""
    at_least(1, remedy=", e.g. 256", images=images)
    generator = runtime.seed_generator(seed, "weight_baselines.images")
    x, y = next(iter(data.train.batches(images, shuffle=True, generator=generator)))
    twin = copy_model(model).eval().requires_grad_(True)
    place = next(twin.parameters()).device
    return twin, (x.to(place), y.to(place))


def _products(weights: dict[str, nn.Parameter], others: Sequence[Tensor], absolute: bool = False) -> dict[str, Tensor]:
    found = {name: (w * other).detach() for (name, w), other in zip(weights.items(), others, strict=True)}
    return {name: value.abs() for name, value in found.items()} if absolute else found
