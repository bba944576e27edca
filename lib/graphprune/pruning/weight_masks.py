"""Single weights that stay: a `weight_mask` is a dict parameter name -> BoolTensor in the weight's shape, True = kept.

Methods that remove single weights return one; this module applies it, counts it, trains under it and saves it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from graphprune.graph.copies import copy_model
from graphprune.runs import safe_files, store
from graphprune.runs.checks import demand_network
from graphprune.training import train
from graphprune.training.data import Dataset
from graphprune.training.recipe import Recipe

WeightMask = dict[str, Tensor]
KIND = "graphprune weight_mask 1"


@dataclass(frozen=True)
class Count:
    """How many weights a mask keeps, of how many."""

    kept: int
    total: int

    @property
    def sparsity(self) -> float:
        """The share of the weights that is pruned, 0 to 1."""
        return 1 - self.kept / self.total


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that methods on single weights may prune: of convolutions and linear layers, in the module's order.

    PyG's own `Linear` counts, so that a `GCNConv` has its weight here. Biases and the scales of normalisations stay, and so do
    weights that are no layer's `weight`: `in_proj_weight` of `nn.MultiheadAttention`, those of recurrent layers, PyG's
    `HeteroLinear`. No mask prunes them, and no count of sparsity counts them. A weight that two layers share is there once.

    Raises:
        TypeError: it is no network.
        ValueError: it has no such layer, the weight of one is computed from other tensors, or has no size yet.

    >>> list(prunable(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
    ['0.weight', '2.weight']
    """
    demand_network(model)
    layers: tuple[type[nn.Module], ...] = (nn.Linear, _ConvNd, *_pyg_linear())
    found: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        if isinstance(module, layers):
            weight = module._parameters.get("weight")
            if weight is None:
                raise ValueError(f"model: the weight of layer {path!r} is no parameter; remove its parametrization first")
            if not any(weight is other for other in found.values()):
                found[f"{path}.weight".lstrip(".")] = weight
    if not found:
        raise ValueError("model: it has no convolution and no linear layer, so there are no weights to prune")
    return found


def groups(model: nn.Module) -> dict[str, int]:
    """Of every prunable weight the groups of its layer: 1 but for grouped convolutions.

    >>> groups(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 2, 1)))
    {'0.weight': 2, '1.weight': 1}
    """
    layers = {name: model.get_submodule(name.rpartition(".")[0]) for name in prunable(model)}
    return {name: layer.groups if isinstance(layer, _ConvNd) else 1 for name, layer in layers.items()}


def _pyg_linear() -> tuple[type[nn.Module], ...]:
    """PyG's own linear layer, which is no `nn.Linear`; whoever has a network with one has imported it."""
    pyg = sys.modules.get("torch_geometric.nn.dense.linear")
    return () if pyg is None else (pyg.Linear,)


def check(model: nn.Module, mask: Mapping[str, Tensor], *, every: bool = False) -> None:
    """Raise a ValueError unless every entry is a bool tensor in the shape of a prunable weight of the model.

    Args:
        every: whether each prunable weight must have an entry.
    """
    weights = prunable(model)
    if every and (missing := [name for name in weights if name not in mask]):
        raise ValueError(f"mask: it has no entry for {missing[0]!r}; give one for every weight, all True where none is pruned")
    for name, kept in mask.items():
        if name not in weights:
            raise ValueError(f"mask: {name!r} is no prunable weight of this network; it has {', '.join(weights)}")
        if kept.dtype != torch.bool or kept.shape != weights[name].shape:
            raise ValueError(
                f"mask: {name!r} is {kept.dtype} {tuple(kept.shape)}, "
                f"but must be torch.bool {tuple(weights[name].shape)}; make the mask from this network"
            )


def count(mask: Mapping[str, Tensor]) -> Count:
    """The weights kept and the weights there are, over all entries.

    >>> count({"weight": torch.tensor([True, False, False, False])}).sparsity
    0.75
    """
    if not mask:
        raise ValueError("mask: it has no entry, so there is nothing to count")
    return Count(sum(int(kept.sum()) for kept in mask.values()), sum(kept.numel() for kept in mask.values()))


def apply(model: nn.Module, mask: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the network in which the pruned weights are zero; the input model is untouched.

    Args:
        model: the network.
        mask: parameter name -> bool tensor, True = kept; weights without an entry stay whole.
    Raises:
        ValueError: the mask does not fit the network.

    >>> apply(nn.Linear(2, 1, bias=False), {"weight": torch.tensor([[False, False]])})(torch.ones(1, 2)).item()
    0.0
    """
    check(model, mask)
    twin = copy_model(model)
    weights = prunable(twin)
    with torch.no_grad():
        for name, kept in mask.items():
            weights[name].masked_fill_(~kept.to(weights[name].device), 0.0)
    return twin


@contextmanager
def hold_zeros(model: nn.Module, mask: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside the block, pruned weights get no gradient: SGD leaves a weight that is zero at zero, decay included."""

    def without_pruned(kept: Tensor, gradient: Tensor) -> Tensor:
        return gradient * kept.to(gradient.device)

    weights = prunable(model)
    hooks = [weights[name].register_hook(lambda g, kept=kept: without_pruned(kept, g)) for name, kept in mask.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def finetune(model: nn.Module, mask: Mapping[str, Tensor], data: Dataset, recipe: Recipe, *, seed: int) -> nn.Module:
    """Train a copy under a mask: pruned weights are zero before, during and after; BN statistics are re-estimated first.

    Args, Raises: as `apply` and `train.fit`.

    >>> from graphprune import data, models
    >>> net, digits = models.seeded("tiny_cnn", 0, in_channels=1), data.load("digits")
    >>> mask = {name: weight.abs() > weight.abs().median() for name, weight in prunable(net).items()}
    >>> small = finetune(net, mask, digits, Recipe(epochs=1, lr=0.05, batch_size=64), seed=0)
    >>> all(bool((weight[~mask[name].to(weight.device)] == 0).all()) for name, weight in prunable(small).items())
    True
    """
    tuned = apply(model, mask)
    train.reestimate_bn(tuned, data, seed=seed)
    with hold_zeros(tuned, mask):
        train.fit(tuned, data, recipe, seed=seed, desc="fine-tuning")
    return tuned


def save(path: str | os.PathLike[str], mask: Mapping[str, Tensor]) -> Path:
    """Write a mask to a safetensors file, whole or not at all: a file that was there stays until the new one is complete.

    Raises:
        TypeError: an entry is no bool tensor. OSError: the folder cannot be written.
    """
    from safetensors.torch import save as packed

    for name, kept in mask.items():
        if not isinstance(kept, Tensor) or kept.dtype != torch.bool:
            raise TypeError(f"mask: {name!r} is no bool tensor, so it does not say which weights stay")
    content = packed({name: kept.cpu().contiguous() for name, kept in mask.items()}, metadata={"kind": KIND})
    store.demand_writable(Path(path), len(content))
    store.replace(Path(path), content)
    return Path(path)


def load(path: str | os.PathLike[str], model: nn.Module | None = None) -> WeightMask:
    """Read a mask that `save` wrote, and check that it fits `model` if one is given.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no weight mask, is cut short, or does not fit.
    """
    mask = safe_files.read_kind(path, KIND, "weight mask", "weight_masks.save")
    if model is not None:
        check(model, mask)
    return mask
