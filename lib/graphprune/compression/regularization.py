"""Regularization that makes weights exactly zero in training: L1, and group lasso over hidden units, by proximal steps.

Adam divides each weight's gradient by sqrt(v), the root of its running mean square. A proximal step in the same measure
divides its threshold likewise: lr lambda / sqrt(v). With plain thresholds, lr lambda, the networks collapsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphprune.compression.networks import example_input
from graphprune.compression.tasks import Task
from graphprune.compression.training import Step
from graphprune.graph.groups import trace
from graphprune.pruning.weight_masks import prunable


@dataclass(frozen=True)
class Units:
    """Hidden units of one layer: how many, and the weights whose rows come into them, `rows / count` rows a unit."""

    count: int
    weights: tuple[str, ...]


def l1(strength: float) -> Step:
    """For `training.fit(after_step=)`: the proximal step of strength x sum |w| over all prunable weights.

    Source: soft thresholding, Parikh and Boyd 2014, "Proximal algorithms", section 6.5.2, in Adam's measure.

    Args:
        strength: lambda, in nats for a weight of size 1.
    Raises:
        ValueError: it is negative or no number.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(torch.tensor([[1.0, -0.001]]))
    >>> adam = torch.optim.Adam(net.parameters(), lr=0.01)
    >>> net(torch.ones(1, 2)).sum().backward()  # a gradient of 1 for both: sqrt(v) = 1
    >>> adam.step()
    >>> l1(0.5)(net, adam)
    >>> [round(w, 4) for w in net.weight[0].tolist()]  # one step of 0.01, then 0.5 x 0.01 nearer to zero
    [0.985, -0.006]
    """
    _check(strength)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for weight in prunable(model).values():
                if (scale := _scale(optimizer, weight)) is not None:
                    weight.copy_(weight.sign() * (weight.abs() - strength * scale).clamp(min=0))

    return step


def group_lasso(strength: float, units: Sequence[Units]) -> Step:
    """The proximal step of strength x sum over hidden units of sqrt(size) x norm of its incoming weights.

    Source: Yuan and Lin 2006, "Model selection and estimation in regression with grouped variables", eq. 2.1. A group has
    one threshold, with the mean of sqrt(v) over its weights: our choice, as Adam's measure differs within a group.

    Args:
        strength: as for `l1`.
        units: see `hidden_units`.
    """
    _check(strength)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        weights = prunable(model)
        with torch.no_grad():
            for layer in units:
                rows = [weights[name].view(layer.count, -1) for name in layer.weights]
                scales = [s for name in layer.weights if (s := _scale(optimizer, weights[name])) is not None]
                if len(scales) < len(rows):
                    continue
                inverse = torch.cat([1 / scale.view(layer.count, -1) for scale in scales], dim=1)
                threshold = strength * inverse.shape[1] ** 0.5 / inverse.mean(1)
                norm = torch.cat(rows, dim=1).norm(dim=1)
                factor = (1 - threshold / norm.clamp(min=1e-12)).clamp(min=0)
                for row in rows:
                    row.mul_(factor[:, None])

    return step


def hidden_units(model: nn.Module, task: Task) -> list[Units]:
    """The hidden units of each layer, found by `graphprune.trace`; of a GAT, a head is a unit.

    >>> from graphprune.compression import graph_data, networks, recipes
    >>> task = graph_data.load("karate")
    >>> hidden_units(networks.build("sage", task, recipes.find("karate", "sage"), seed=0), task)
    [Units(count=16, weights=('layers.0.lin_l.weight', 'layers.0.lin_r.weight'))]
    """
    graph, weights = trace(model, example_input(task)), prunable(model)
    named = [(group.channels, [f"{layer}.weight" for layer in group.layers]) for group in graph.groups]
    return [Units(count, tuple(name for name in names if name in weights)) for count, names in named]


def count_zeros(model: nn.Module) -> float:
    """The share of prunable weights that are exactly zero.

    >>> with torch.no_grad():
    ...     layer = nn.Linear(4, 1)
    ...     _ = layer.weight.copy_(torch.tensor([[0.0, 1.0, 0.0, 2.0]]))
    >>> count_zeros(layer)
    0.5
    """
    weights = prunable(model).values()
    return 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


def _scale(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> Tensor | None:
    """lr / sqrt(v) of each weight, v without its bias towards zero; None where Adam has taken no step."""
    state = optimizer.state.get(weight)
    if not state:
        return None
    group = next(g for g in optimizer.param_groups if any(p is weight for p in g["params"]))
    unbiased = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return group["lr"] / (unbiased.sqrt() + group["eps"])


def _check(strength: float) -> None:
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength < float("inf"):
        raise ValueError(f"strength={strength!r}: must be a finite number of at least 0")
