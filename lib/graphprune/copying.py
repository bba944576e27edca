"""Copies of a network, some of its tensors exchanged on the way: weightless, or with slices cut out."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

ATOMS = {bool, int, float, complex, str, bytes, type(None), type(Ellipsis), torch.dtype, torch.device}


def without_data(tensor: Tensor) -> Tensor:
    """Its shape on the meta device; floating point as single precision, so that a model and an input always agree."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")


def on_meta(model: nn.Module) -> nn.Module:
    """A copy without weights: the same modules, every tensor on the meta device, in single precision. Costs no memory."""
    memo: dict[int, Any] = {}
    for tensor in every_tensor(model):
        memo[id(tensor)] = like(tensor, without_data(tensor))
    return twin(model, memo)


def like(tensor: Tensor, data: Tensor) -> Tensor:
    """The data as a parameter if the tensor is one."""
    return nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data


def every_tensor(model: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and tensors that are plain attributes of a module."""
    found = []
    for module in model.modules():
        for holder in (module._parameters, module._buffers, vars(module)):
            found += [value for value in holder.values() if isinstance(value, Tensor)]
    return found


def twin(value: Any, memo: dict[int, Any]) -> Any:
    """What `copy.deepcopy(value, memo)` gives, in a fifth of its time: a module's state is mostly empty dictionaries of hooks.

    Args:
        value: a module, or anything that it holds.
        memo: id -> what takes the place of a value; copies are noted there.
    """
    kind = type(value)
    if kind in ATOMS or (kind is tuple and all(type(item) in ATOMS for item in value)):
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind is dict or kind is OrderedDict:
        made = memo[id(value)] = kind()
        made.update((twin(key, memo), twin(item, memo)) for key, item in value.items())
        return made
    if not isinstance(value, nn.Module) or not plain(kind):
        return copy.deepcopy(value, memo)
    made = memo[id(value)] = kind.__new__(kind)
    state = value.__getstate__()
    memo.setdefault(id(memo), []).append(state)  # as deepcopy does: an id stands for its value only while that lives
    made.__setstate__({name: twin(item, memo) for name, item in state.items()})
    return made


@functools.cache
def plain(kind: type[nn.Module]) -> bool:
    """Whether a class of modules leaves it to nn.Module how it is copied."""
    names = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__", "__getstate__")
    return all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in names)
