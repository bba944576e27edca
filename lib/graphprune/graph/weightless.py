"""Copies of a network, some of its tensors exchanged on the way: weightless, or with slices cut out."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from graphprune.graph.parts import named_modules, named_tensors

HOOKS = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules"}
FORWARD_HOOKS = {name for name in HOOKS if name.startswith("_forward")}
ATOMS = {bool, int, float, complex, str, bytes, type(None), type(Ellipsis), torch.dtype, torch.device}
PLAIN = {*ATOMS, dict, OrderedDict, tuple, list, set}


def without_data(tensor: Tensor) -> Tensor:
    """Its shape on the meta device; floating point as single precision, so that a model and an input always agree."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")


class SinglePrecision(TorchFunctionMode):
    """What a forward computes on the meta device is in single precision, as weightless copies are, whatever it casts to."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        low = isinstance(out, Tensor) and out.is_meta and out.is_floating_point() and out.dtype is not torch.float32
        return out.float() if low else out


def on_meta(model: nn.Module) -> nn.Module:
    """A copy without weights: the same modules, every tensor on the meta device, in single precision. Costs no memory."""
    return copy_network(model, {id(tensor): like(tensor, without_data(tensor)) for tensor in every_tensor(model)})


def zeroed(model: nn.Module) -> nn.Module:
    """A copy whose parameters are zeros without memory of their own; all else has its values. For shapes that values decide."""
    swap = {id(p): like(p, torch.zeros((), dtype=p.dtype, device=p.device).expand(p.shape)) for p in model.parameters()}
    return copy_network(model, swap).eval()


def light_shell(model: nn.Module) -> nn.Module:
    """As `on_meta`, for shapes only: what is neither a module nor a tensor is shared with the model."""
    return copy_shell(model, {id(tensor): without_data(tensor) for tensor in every_tensor(model)})


def like(tensor: Tensor, data: Tensor) -> Tensor:
    """The data as a parameter if the tensor is one."""
    return nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data


def every_tensor(model: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and tensors that are plain attributes of a module."""
    modules = named_modules(model).values()
    plain = [v for module in modules for v in vars(module).values() if type(v) not in PLAIN and isinstance(v, Tensor)]
    return [*named_tensors(model).values(), *plain]


def copy_network(value: Any, memo: dict[int, Any]) -> Any:
    """What `copy.deepcopy(value, memo)` gives, in a fifth of its time: a module's state is mostly empty dictionaries of hooks.

    Args:
        value: a module, or anything that it holds.
        memo: id -> what takes the place of a value; copies are noted there.
    """
    if id(value) in memo:
        return memo[id(value)]
    kind: Any = type(value)
    if kind is tuple and ATOMS.issuperset(map(type, value)):
        return value
    if not isinstance(value, nn.Module) or not plain(kind):
        return copied(value, memo)
    made = memo[id(value)] = kind.__new__(kind)
    state: Any = value.__getstate__()
    memo.setdefault(id(memo), []).append(state)  # as deepcopy does: an id stands for its value only while that lives
    for name, item in state.items():
        if (kind := type(item)) not in ATOMS:
            state[name] = copy_network(item, memo) if name not in HOOKS or item else kind()
    made.__setstate__(state)
    return made


def copied(value: Any, memo: dict[int, Any]) -> Any:
    """What is no module, as `copy.deepcopy` copies it."""
    kind: Any = type(value)
    if (kind is set or kind is list) and ATOMS.issuperset(map(type, value)):
        memo[id(value)] = kind(value)
    elif kind is dict or kind is OrderedDict:
        made = memo[id(value)] = kind()
        for key, item in value.items():
            found = item if type(item) in ATOMS else memo.get(id(item))
            made[key if type(key) in ATOMS else copy_network(key, memo)] = copy_network(item, memo) if found is None else found
    elif kind is Tensor and value.ndim == 0 and value.grad_fn is None:  # a counter
        memo[id(value)] = value.clone()
    elif isinstance(value, Tensor) and value.grad_fn is not None:  # what a forward or a hook computed: without its history
        memo[id(value)] = value.detach().clone()
    elif kind is list:
        items: list[Any] = []
        memo[id(value)] = items
        items.extend(copy_network(item, memo) for item in value)
    elif kind is tuple or kind is set:
        memo[id(value)] = kind(copy_network(item, memo) for item in value)
    else:
        memo[id(value)] = copy.deepcopy(value, memo)
    return memo[id(value)]


def copy_shell(module: nn.Module, swap: dict[int, Any]) -> nn.Module:
    """A copy of the tree of modules for shapes only, tensors exchanged by identity; all else is shared.

    Args:
        swap: id -> what takes the place of a tensor or module; copies are noted there.
    """
    if id(module) in swap:
        return swap[id(module)]
    if "_parameters" not in vars(module):  # a scripted or traced one, whose state lies elsewhere
        return module
    kind: Any = type(module)
    made = swap[id(module)] = kind.__new__(kind)
    made.__dict__.update(vars(module))
    if not swap.keys().isdisjoint(map(id, vars(module).values())):
        made.__dict__ |= {name: swap.get(id(value), value) for name, value in vars(module).items()}
    for name in ("_parameters", "_buffers"):
        made.__dict__[name] = {path: swap.get(id(tensor), tensor) for path, tensor in vars(module)[name].items()}
    made.__dict__["_modules"] = {path: child and copy_shell(child, swap) for path, child in module._modules.items()}
    return made


def copy_for_run(module: nn.Module) -> nn.Module:
    """A copy to run a forward on: the modules and the containers in their attributes are its own, tensors are shared."""
    swap: dict[int, Any] = {}
    made = copy_shell(module, swap)
    for copied in named_modules(made).values():
        state = vars(copied)
        for name, value in state.items():
            if type(value) in (list, tuple, set, dict, OrderedDict) and name not in HOOKS and value:
                state[name] = exchange_items(value, swap)
        for name in FORWARD_HOOKS & state.keys():  # a forward may register some
            state[name] = OrderedDict(state[name])
    return made


def exchange_items(value: Any, swap: dict[int, Any]) -> Any:
    """A container of its own, with what takes the place of its items."""
    kind: Any = type(value)
    if kind in (dict, OrderedDict):
        return kind((key, exchange_items(item, swap)) for key, item in value.items())
    return kind(exchange_items(item, swap) for item in value) if kind in (list, tuple, set) else swap.get(id(value), value)


@functools.cache
def plain(kind: type[nn.Module]) -> bool:
    """Whether a class of modules leaves it to nn.Module how it is copied."""
    names = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__", "__getstate__")
    return all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in names)
