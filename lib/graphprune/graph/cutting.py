"""Slices cut out of a network's tensors, and its modules' sizes mended: the mechanics of pruning."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.parts import Parts, named_modules, named_tensors
from graphprune.graph.rules.operation import NumberKey
from graphprune.graph.weightless import copy_network, copy_shell, like

Places = Mapping[tuple[str, int], Tensor]
"""(tensor, dim) -> the indices that stay along that dimension."""

Numbers = Mapping[NumberKey, int | float]
"""A number that a module keeps -> what it is in a pruned network."""

BLOCK = 1 << 20
"""Elements of a large tensor cut at a time: they fit the cache."""


def kept_places(graph: ChannelGraph, kept: Tensor) -> Places:
    """What a mask over all atoms, (num_atoms,) bool, leaves of each site."""
    stays = kept_classes(graph, kept).numpy()
    distinct = {id(site.atoms): site.atoms for site in graph.sites}
    found = {key: torch.from_numpy(np.flatnonzero(stays[atoms.numpy()])) for key, atoms in distinct.items()}
    return {(site.tensor, site.dim): found[id(site.atoms)] for site in graph.sites}


def kept_classes(graph: ChannelGraph, kept: Tensor) -> Tensor:
    """(classes + 1,) bool, indexed by a site's atoms: frozen classes and -1 (the last entry) always stay."""
    stays = torch.ones(graph.num_classes + 1, dtype=torch.bool)
    stays[: graph.num_atoms] = kept.cpu()
    return stays


def kept_numbers(graph: ChannelGraph, kept: Tensor) -> Numbers:
    """What a mask over all atoms leaves of each number that a module keeps."""
    stays = kept_classes(graph, kept)
    return {count.key: int(stays[count.atoms].sum()) for count in graph.numbers}


def cut(module: nn.Module, places: Places, numbers: Numbers | None = None) -> nn.Module:
    """A copy of a module with only these slices of its tensors, its modules' sizes mended, and these numbers in its modules."""
    tensors = named_tensors(module)
    swap = smaller_tensors(tensors, places)
    owners = owners_of(tensors, swap)
    small = copy_network(module, {key: like(old, new) for key, (old, new) in swap.items()})
    modules = named_modules(small)
    for path in owners:
        mend(modules[path])
    for (path, name, place), value in (numbers or {}).items():
        set_number(modules[path], name, place, value)
    return small


def set_number(module: nn.Module, name: str, place: int | None, value: int | float) -> None:
    """A number that a module keeps, or of a list of numbers the one at `place`."""
    if place is not None:
        before = list(getattr(module, name))
        before[place] = value
        setattr(module, name, type(getattr(module, name))(before))
    elif getattr(module, name) != value:
        setattr(module, name, value)


def cut_parts(parts: Parts, places: Places, numbers: Numbers) -> Parts:
    """As `cut`, of a weightless network and for shapes only: a module that changes is copied, all else is shared."""
    swap: dict[int, Any] = {key: new for key, (_, new) in smaller_tensors(parts.tensors, places).items()}
    owners = owners_of(parts.tensors, swap)
    own = {key: value for key, value in numbers.items() if key[0] in parts.modules}
    counting = {path for path, *_ in own}
    tensors = {path: swap.get(id(tensor), tensor) for path, tensor in parts.tensors.items()}
    touched = {path: module for path, module in parts.modules.items() if path in owners | counting or module._modules}
    changed = {path: copy_shell(module, swap) for path, module in touched.items()}
    for path in owners & changed.keys():
        mend(changed[path])
    for (path, name, place), value in own.items():
        set_number(changed[path], name, place, value)
    return replace(parts, modules={**parts.modules, **changed}, tensors=tensors)


def smaller_tensors(tensors: Mapping[str, Tensor], places: Places) -> dict[int, tuple[Tensor, Tensor]]:
    """id -> each tensor to cut, and what is left of it."""
    dims: dict[str, dict[int, Tensor]] = {}
    for (name, dim), index in places.items():
        dims.setdefault(name, {})[dim] = index
    return {id(tensors[name]): (tensors[name], cut_tensor(tensors[name], indices)) for name, indices in dims.items()}


def owners_of(tensors: Mapping[str, Tensor], chosen: Container[int]) -> set[str]:
    """The paths of the modules that hold some of these tensors (by id)."""
    return {path.rpartition(".")[0] for path, tensor in tensors.items() if id(tensor) in chosen}


def cut_tensor(tensor: Tensor, indices: Mapping[int, Tensor]) -> Tensor:
    """A tensor with only these slices; one dimension cut along two is the index of a `ChannelSelect`."""
    return renumber_index(tensor, indices) if 1 in indices and tensor.ndim == 1 else slice_tensor(tensor, indices)


def slice_tensor(tensor: Tensor, indices: Mapping[int, Tensor]) -> Tensor:
    """The tensor with only these slices, its memory its own. Rows go first: they are cheap, and leave less to go over."""
    shape = list(tensor.shape)
    if tensor.is_meta:
        for dim, index in indices.items():
            shape[dim] = index.numel()
        return torch.empty(shape, dtype=tensor.dtype, device="meta")
    data = tensor.detach()
    cuts = [(dim, index.to(data.device)) for dim, index in sorted(indices.items()) if index.numel() < shape[dim]]
    if len(cuts) == 2 and cuts[0][0] == 0 and data.numel() > BLOCK and data.device.type == "cpu":
        return slice_rows(data, cuts[0][1], *cuts[1])
    for dim, index in cuts:
        data = data.index_select(dim, index)
    return data if cuts else data.clone()


def slice_rows(data: Tensor, rows: Tensor, dim: int, index: Tensor) -> Tensor:
    """These rows, and of them these slices: some rows at a time, so that they are still in cache when they are cut."""
    shape = list(data.shape)
    shape[0], shape[dim] = len(rows), len(index)
    out, step = data.new_empty(shape), max(1, BLOCK // data[0].numel())
    for block, part in zip(rows.split(step), out.split(step), strict=True):
        torch.index_select(data.index_select(0, block), dim, index, out=part)
    return out


def renumber_index(index: Tensor, indices: Mapping[int, Tensor]) -> Tensor:
    """A `ChannelSelect` index over the kept channels: rows cut, values renumbered, -1 where the source is gone."""
    rows, sources = (indices[dim].to(index.device) for dim in (0, 1))
    if index.is_meta:
        return index.new_empty(len(rows))
    position = index.new_full((int(max(index.max(), sources.max())) + 2,), -1)  # the last is -1's own
    position[sources] = torch.arange(len(sources), device=index.device)
    return position[index[rows]]


def mend(module: nn.Module) -> None:
    """Bring a module's recorded sizes in line with its tensors."""
    sizes: dict[str, int] = {}
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd) and weight is not None:
        wide, narrow = weight.shape[0], weight.shape[1]
        groups, transposed = module.groups, module.transposed
        if groups == module.in_channels and groups > 1:  # one input channel a group: groups go
            groups = wide if transposed else wide // (module.out_channels // groups)
        inputs, outputs = (wide, narrow * groups) if transposed else (narrow * groups, wide)
        sizes = {"in_channels": inputs, "out_channels": outputs, "groups": groups}
    elif isinstance(module, nn.Linear):
        outputs, inputs = module.weight.shape
        sizes = {"in_features": inputs, "out_features": outputs}
    elif isinstance(module, nn.GroupNorm) and weight is not None:
        groups = max(module.num_groups * len(weight) // module.num_channels, 1)
        sizes = {"num_groups": groups, "num_channels": len(weight)}
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        sized = weight if weight is not None else module.running_mean
        sizes = {"num_features": len(sized)} if sized is not None else {}
    elif isinstance(module, nn.Embedding):
        sizes = {"embedding_dim": int(module.weight.shape[1])}
    elif isinstance(module, nn.RNNBase):
        sizes = {"input_size": int(vars(module)["_parameters"]["weight_ih_l0"].shape[1])}
    elif isinstance(module, nn.PReLU):
        sizes = {"num_parameters": module.weight.numel()}
    vars(module).update(sizes)  # plain numbers: what a module's own setattr does besides takes its time
