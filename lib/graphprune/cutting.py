"""Slices cut out of a network's tensors, and its modules' sizes mended: the mechanics of pruning."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.graph import ChannelGraph
from graphprune.propagation import named_tensors


def without_data(tensor: Tensor) -> Tensor:
    """Its shape on the meta device; floating point as single precision, so that a model and an input always agree."""
    return torch.empty_like(tensor, device="meta", dtype=torch.float32 if tensor.is_floating_point() else tensor.dtype)


def on_meta(model: nn.Module) -> nn.Module:
    """A copy without weights: the same modules, every tensor on the meta device, in single precision. Costs no memory."""
    memo: dict[int, Any] = {}
    for tensor in every_tensor(model):
        empty = without_data(tensor)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo)


def every_tensor(model: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and tensors that are plain attributes of a module."""
    plain = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *plain]


def cut(module: nn.Module, graph: ChannelGraph, kept: Tensor) -> nn.Module:
    """A copy of a module without the pruned slices of its tensors, its modules' sizes mended. kept: (num_atoms,) bool."""
    small = copy.deepcopy(module, smaller_tensors(module, graph, kept))
    for owner in small.modules():
        mend(owner)
    return small


def cut_shell(shell: nn.Module, graph: ChannelGraph, kept: Tensor) -> nn.Module:
    """As `cut`, of a weightless network and for shapes only: what is neither a module nor a tensor is shared."""
    small = light_copy(shell, smaller_tensors(shell, graph, kept))
    for owner in small.modules():
        mend(owner)
    return small


def light_shell(model: nn.Module) -> nn.Module:
    """As `on_meta`, for shapes only: what is neither a module nor a tensor is shared with the model."""
    return light_copy(model, {id(tensor): without_data(tensor) for tensor in every_tensor(model)})


def light_copy(module: nn.Module, swap: dict[int, Any]) -> nn.Module:
    """A copy of the tree of modules, its tensors exchanged by identity."""
    if id(module) in swap:
        return swap[id(module)]
    twin = module.__class__.__new__(module.__class__)
    swap[id(module)] = twin
    twin.__dict__.update({name: swap.get(id(value), value) for name, value in module.__dict__.items()})
    for kind in ("_parameters", "_buffers"):
        twin.__dict__[kind] = {name: swap.get(id(tensor), tensor) for name, tensor in module.__dict__[kind].items()}
    twin.__dict__["_modules"] = {
        name: None if child is None else light_copy(child, swap) for name, child in module._modules.items()
    }
    return twin


def smaller_tensors(module: nn.Module, graph: ChannelGraph, kept: Tensor) -> dict[int, Any]:
    """id of each tensor to cut -> the cut one: what a copy takes in place of the full tensors."""
    stays = kept_classes(graph, kept)
    tensors = named_tensors(module)
    dims: dict[str, dict[int, Tensor]] = {}
    for site in graph.sites:
        dims.setdefault(site.tensor, {})[site.dim] = stays[site.atoms]
    memo: dict[int, Any] = {}
    for name, masks in dims.items():
        old = tensors[name]
        new = renumbered(old, masks) if 1 in masks and old.ndim == 1 else sliced(old, masks)
        memo[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    return memo


def kept_classes(graph: ChannelGraph, kept: Tensor) -> Tensor:
    """(classes + 1,) bool, indexed by a site's atoms: frozen classes and -1 (the last entry) always stay."""
    top = max((int(site.atoms.max()) for site in graph.sites if len(site.atoms)), default=-1)
    stays = torch.ones(max(top + 2, graph.num_atoms + 1), dtype=torch.bool)
    stays[: graph.num_atoms] = kept.cpu()
    return stays


def sliced(tensor: Tensor, masks: Mapping[int, Tensor]) -> Tensor:
    """The tensor without the masked-out slices, its memory its own."""
    data = tensor.detach()
    if data.is_meta:
        return data.new_empty([int(masks[dim].sum()) if dim in masks else size for dim, size in enumerate(data.shape)])
    cuts = [(dim, mask.nonzero().flatten().to(data.device)) for dim, mask in masks.items() if not bool(mask.all())]
    for dim, index in cuts:
        data = data.index_select(dim, index)
    return data if cuts else data.clone()


def renumbered(index: Tensor, masks: Mapping[int, Tensor]) -> Tensor:
    """A `ChannelSelect` index over the kept channels: rows cut, values renumbered, -1 where the source is gone."""
    position = torch.where(masks[1], masks[1].cumsum(0) - 1, -1)
    position = torch.cat([position, position.new_tensor([-1])]).to(index.device)
    if index.is_meta:
        return index.new_empty(int(masks[0].sum()))
    return position[index[masks[0].to(index.device)]]


def mend(module: nn.Module) -> None:
    """Bring a module's recorded sizes in line with its tensors."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd) and weight is not None:
        wide, narrow = weight.shape[0], weight.shape[1]
        if module.groups == module.in_channels and module.groups > 1:  # one input channel a group: groups go
            multiplier = module.out_channels // module.in_channels
            module.groups = wide if module.transposed else wide // multiplier
        sizes = (wide, narrow * module.groups)
        module.in_channels, module.out_channels = sizes if module.transposed else sizes[::-1]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.GroupNorm) and weight is not None:
        module.num_groups = module.num_groups * len(weight) // module.num_channels
        module.num_channels = len(weight)
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        sized = weight if weight is not None else module.running_mean
        module.num_features = len(sized) if sized is not None else module.num_features
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
