"""Whole hidden units of a graph network removed by `graphprune.prune_to`: what is left is a smaller dense network."""

from __future__ import annotations

from torch import nn

from graphprune.compression.networks import example_input
from graphprune.compression.tasks import Task
from graphprune.pruning.allocation import OverBudget
from graphprune.pruning.goal import prune_to
from graphprune.runs.checks import share


class TooNarrowError(ValueError):
    """Even the smallest network is too large: a hidden width cannot be less than 1."""


def prune_width(model: nn.Module, task: Task, sparsity: float) -> nn.Module:
    """A narrower network with at most (1 - sparsity) of the multiply-adds; each hidden width loses about the same share.

    The units of smallest L1 norm go, of a GAT whole heads. A linear map takes one multiply-add for each weight and node, so
    this is the share of weights too, but for the head that classifies graphs.

    Args:
        sparsity: share of the multiply-adds that goes, at least 0 and below 1.
    Raises:
        ValueError: the sparsity is out of range.
        TooNarrowError: even the smallest network, with one unit in each hidden layer, takes more.

    >>> from graphprune.compression import graph_data, networks, recipes
    >>> task = graph_data.load("karate")
    >>> net = networks.build("gcn", task, recipes.find("karate", "gcn"), seed=0)
    >>> prune_width(net, task, 0.5).layers[0].lin.out_features
    8
    """
    share(sparsity=sparsity)
    if sparsity == 1:
        raise ValueError("sparsity=1: must be below 1, or nothing is left")
    try:
        return prune_to(model, example_input(task), macs=round(1 - sparsity, 12)).network
    except ValueError as error:
        if isinstance(error.__context__, OverBudget):
            raise TooNarrowError(f"sparsity={sparsity!r} is out of reach for a width: {error.__context__}") from error
        raise
