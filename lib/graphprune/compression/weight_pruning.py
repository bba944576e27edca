"""Single weights of a graph network pruned by size with `torch.nn.utils.prune`: in each tensor, or over the whole network.

A method returns a weight mask (see `graphprune.pruning.weight_masks`). The weights of linear maps may go; biases, a GAT's
attention vectors and normalisations stay.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import prune

from graphprune.compression.recipes import Recipe
from graphprune.compression.tasks import Task
from graphprune.compression.training import fit
from graphprune.graph.copies import copy_model
from graphprune.pruning import weight_masks
from graphprune.pruning.weight_budgets import kept_count
from graphprune.pruning.weight_masks import WeightMask
from graphprune.runs.checks import demand_finite
from graphprune.training.history import History


def prune_globally(model: nn.Module, sparsity: float) -> WeightMask:
    """The weights of largest size over all tensors stay, as `torch.nn.utils.prune.global_unstructured` picks them.

    Args:
        sparsity: share of the weights that goes, at least 0 and below 1.
    Raises:
        ValueError: the sparsity is out of range or leaves no weight, or a weight is NaN or infinite.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 2, bias=False))
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.tensor([[4.0, 3.0]])), net[1].weight.copy_(torch.tensor([[1.0], [-2.0]]))
    >>> {name: mask.flatten().tolist() for name, mask in prune_globally(net, 0.5).items()}
    {'0.weight': [True, True], '1.weight': [False, False]}
    """
    places = _copied_layers(model)
    total = sum(weight.numel() for weight in weight_masks.prunable(model).values())
    gone = total - kept_count(total, sparsity)
    prune.global_unstructured([(m, "weight") for m in places.values()], prune.L1Unstructured, amount=gone)
    return _masks(places)


def prune_each(model: nn.Module, sparsity: float) -> WeightMask:
    """The weights of largest size in each tensor stay, the same share of all (fine-grained); each keeps one or more.

    Args, Raises: as `prune_globally`.

    >>> import torch
    >>> net = nn.Linear(4, 1, bias=False)
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(torch.tensor([[4.0, 3.0, -5.0, 0.0]]))
    >>> prune_each(net, 0.5)["weight"].tolist()
    [[True, False, True, False]]
    """
    places = _copied_layers(model)
    kept_count(sum(weight.numel() for weight in weight_masks.prunable(model).values()), sparsity)
    for module in places.values():
        count = module.get_parameter("weight").numel()
        prune.l1_unstructured(module, "weight", amount=min(count - 1, count - round((1 - sparsity) * count)))
    return _masks(places)


def _copied_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Copies of the layers with prunable weights, by the weights' names.

    Raises:
        ValueError: a weight is NaN or infinite: its size says nothing.
    """
    demand_finite(model)
    twin = copy_model(model)
    return {name: twin.get_submodule(name.rpartition(".")[0]) for name in weight_masks.prunable(model)}


def _masks(places: Mapping[str, nn.Module]) -> WeightMask:
    return {name: module.get_buffer("weight_mask").bool() for name, module in places.items()}


def tune(model: nn.Module, mask: Mapping[str, Tensor], task: Task, recipe: Recipe, *, seed: int) -> tuple[nn.Module, History]:
    """A copy without the pruned weights, trained by `recipe.tuning()`; pruned weights stay zero.

    An empty mask gives the control: the dense network with the same training after.

    Args, Raises: as `weight_masks.apply` and `training.fit`.

    >>> from graphprune.compression import graph_data, networks, recipes
    >>> task, recipe = graph_data.load("karate"), recipes.find("karate", "gcn")
    >>> net = networks.build("gcn", task, recipe, seed=0)
    >>> small, _ = tune(net, prune_globally(net, 0.9), task, recipe, seed=0)
    >>> sum(int(weight.count_nonzero()) for weight in weight_masks.prunable(small).values())  # of 576
    58
    """
    small = weight_masks.apply(model, mask)
    with weight_masks.hold_zeros(small, mask):
        history = fit(small, task, recipe.tuning(), seed=seed)
    return small, history
