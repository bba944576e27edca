"""Training of quantized graph networks: learning rates for learned steps and bits, penalties, and weights that stay zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.compression import training
from graphprune.compression.a2q import memory_penalty, training_error
from graphprune.compression.quantized_network import QuantizedLinear, Scheme, learned_parameters, quantize
from graphprune.compression.recipes import Recipe
from graphprune.compression.tasks import Task

LINEAR = (nn.Linear, QuantizedLinear)


@dataclass(frozen=True)
class Learning:
    """How steps and bits are learned; other schemes than A2Q have none.

    Attributes:
        step_lr, bits_lr: Adam's learning rates (the values of the authors' scripts are of this size).
        penalty: the weight of `a2q.memory_penalty`; 0 leaves it out.
        target: of the penalty, in kilobytes.
    """

    step_lr: float = 1e-3
    bits_lr: float = 1e-2
    penalty: float = 0.0
    target: float = 0.0


def parameter_groups(network: nn.Module, recipe: Recipe, learning: Learning) -> list[dict[str, Any]]:
    """Adam's groups: weights by the recipe; steps and bits at rates of their own, without decay."""
    steps, bits = learned_parameters(network)
    known = {id(parameter) for parameter in (*steps, *bits)}
    groups: list[dict[str, Any]] = [{"params": [p for p in network.parameters() if id(p) not in known]}]
    if bits:
        groups += [{"params": steps, "lr": learning.step_lr, "weight_decay": 0.0}]
        groups += [{"params": bits, "lr": learning.bits_lr, "weight_decay": 0.0}]
    return groups


def linear_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights of all linear maps by the paths of their layers, quantized or not."""
    return {path: module.weight for path, module in network.named_modules() if isinstance(module, LINEAR)}


def hold_zeros(network: nn.Module) -> Callable[[nn.Module, torch.optim.Optimizer], None]:
    """What sets the weights of linear maps that are zero now to zero again after each step."""
    pruned = {path: weight.detach() == 0 for path, weight in linear_weights(network).items()}

    def set_to_zero(trained: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for path, weight in linear_weights(trained).items():
                weight.masked_fill_(pruned[path], 0.0)

    return set_to_zero


def tune(network: nn.Module, task: Task, recipe: Recipe, *, seed: int, learning: Learning | None = None) -> nn.Module:
    """Train a quantized network in place; the best epoch on validation is kept, and weights that are zero stay zero.

    Args:
        network: from `quantize`.
        recipe: as in `training.fit`; `recipe.tuning()` is the length of a fine-tuning.
    Raises:
        ValueError: there is a penalty, but no layer learns its bits.
    """
    how = learning or Learning()

    def added(net: nn.Module) -> Tensor:
        error = training_error(net)
        return error + how.penalty * memory_penalty(net, how.target) if how.penalty else error

    training.fit(
        network,
        task,
        recipe,
        seed=seed,
        groups=lambda net, of: parameter_groups(net, of, how),
        penalty=added,
        after_step=hold_zeros(network),
    )
    return network


def quantize_and_tune(
    model: nn.Module, scheme: Scheme, task: Task, recipe: Recipe, *, seed: int, learning: Learning | None = None
) -> nn.Module:
    """A trained network quantized by a scheme, with the ranges of a training batch, and trained on for `recipe.tune_epochs`.

    Args, Raises: as `quantize` and `tune`.

    >>> from graphprune.compression import graph_data, networks, recipes
    >>> from graphprune.compression.quantizer import Uniform
    >>> task, recipe = graph_data.load("karate"), recipes.find("karate", "gcn")
    >>> model = networks.build("gcn", task, recipe, seed=0)
    >>> _ = training.fit(model, task, recipe, seed=0)
    >>> small = quantize_and_tune(model, Uniform(bits=4), task, recipe, seed=0)
    >>> training.evaluate(small, task, "train").scores["accuracy"]
    1.0
    """
    batch = next(task.batches("train", 512))
    return tune(quantize(model, scheme, *batch.inputs), task, recipe.tuning(), seed=seed, learning=learning)
