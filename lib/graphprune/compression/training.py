"""Train and evaluate a graph network on a task; the same seed gives the same bits on the CPU.

Any module will do whose forward takes `Batch.inputs` and returns the task's outputs: pruned and quantized ones as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.compression.recipes import Recipe
from graphprune.compression.tasks import Task, check_two_classes
from graphprune.runs import runtime
from graphprune.training.history import History

RANKS = ("auc", "ap")
"""Metrics that need two classes."""
Groups = Callable[[nn.Module, Recipe], list[dict[str, Any]]]
"""(network, recipe) -> parameter groups of Adam; a group may set its own `lr` and `weight_decay`."""
Step = Callable[[nn.Module, torch.optim.Optimizer], None]
"""What happens after each step of Adam, such as a proximal step."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured: the task's metrics, shares from 0 to 1, and the mean loss in nats."""

    scores: dict[str, float]
    loss: float


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """All parameters, with the recipe's learning rate and weight decay."""
    return [{"params": [p for p in model.parameters() if p.requires_grad]}]


def fit(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    groups: Groups = parameter_groups,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    after_step: Step | None = None,
    best: bool = True,
) -> History:
    """Train a network in place by Adam; it ends in evaluation mode with the weights of its best epoch on validation.

    Ties are broken by the loss on validation, then the first epoch stays. The test part is not looked at.

    Args:
        model: any module of `(x, edge_index)`, or `(x, edge_index, graph)` where graphs are classified.
        recipe: `lr`, `weight_decay`, `epochs` and `batch_size` count.
        seed: of the order of graphs, of drawn pairs, and of what dropout drops.
        groups: the optimizer's parameter groups.
        penalty: added to the loss of every batch.
        after_step: called after every step.
        best: False keeps the last epoch's weights.
    Returns:
        a row an epoch: epoch, loss, loss_val, and each metric on validation as `<metric>_val`.
    Raises:
        ValueError: the metric is `auc` or `ap`, and validation has one class only.
        FloatingPointError: the loss is no number.

    >>> from graphprune.compression import graph_data, networks, recipes
    >>> task, recipe = graph_data.load("karate"), recipes.find("karate", "gcn")
    >>> net = networks.build("gcn", task, recipe, seed=0)
    >>> history = fit(net, task, recipe, seed=0)
    >>> len(history), evaluate(net, task, "train").scores["accuracy"]
    (50, 1.0)
    """
    if task.metric in RANKS:
        check_two_classes(torch.cat([batch.target for batch in task.batches("val", recipe.batch_size)]), "val")
    optimizer = torch.optim.Adam(groups(model, recipe), lr=recipe.lr, weight_decay=recipe.weight_decay)
    generator = runtime.seed_generator(seed, "compression.training")
    history, chosen, top = History(), None, (-1.0, 0.0)
    with runtime.seeded(seed):
        for epoch in range(1, recipe.epochs + 1):
            loss = _train_epoch(model, task, recipe, optimizer, generator, penalty, after_step)
            if loss != loss:
                raise FloatingPointError(f"the loss is no number in epoch {epoch}: lower recipe.lr={recipe.lr!r}")
            found = evaluate(model, task, "val")
            scores = {f"{name}_val": value for name, value in found.scores.items()}
            history.append({"epoch": float(epoch), "loss": loss, "loss_val": found.loss, **scores})
            rank = (found.scores[task.metric], -found.loss)
            if best and (chosen is None or rank > top):
                top, chosen = rank, {name: value.detach().clone() for name, value in model.state_dict().items()}
    if chosen is not None:
        model.load_state_dict(chosen)
    model.eval()
    return history


def _train_epoch(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    penalty: Callable[[nn.Module], Tensor] | None,
    after_step: Step | None,
) -> float:
    """The mean loss of the epoch's batches."""
    model.train()
    losses = []
    for batch in task.batches("train", recipe.batch_size, generator):
        optimizer.zero_grad()
        loss = task.loss(model(*batch.inputs), batch)
        if penalty is not None:
            loss = loss + penalty(model)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if after_step is not None:
            after_step(model, optimizer)
        losses.append(loss.item())
    return sum(losses) / len(losses)


def evaluate(model: nn.Module, task: Task, part: str, batch_size: int = 512) -> Evaluation:
    """The metrics and the loss of a network on `train`, `val` or `test`, in evaluation mode."""
    with runtime.evaluating(model), torch.no_grad():
        results = [(model(*batch.inputs), batch) for batch in task.batches(part, batch_size)]
    counts = [len(batch.target) for _, batch in results]
    losses = [task.loss(output, batch).item() for output, batch in results]
    loss = sum(n * value for n, value in zip(counts, losses, strict=True)) / sum(counts)
    return Evaluation(task.measure(results), loss)
