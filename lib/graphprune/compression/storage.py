"""What a pruned graph network needs: bytes of the file that is written, latency of what runs, peak memory; and theory, apart.

Zeros save nothing by themselves. A file has to say which weights they are, and a kernel has to skip them.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as packed
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from graphprune.compression.replacement import replace
from graphprune.compression.sparse_features import multiply, to_csr
from graphprune.graph.copies import copy_model
from graphprune.pruning.weight_masks import prunable
from graphprune.runs import runtime, safe_files, store


def layout(model: nn.Module, *more: object) -> str:
    """Eight hexadecimal digits that stand for the names, types and shapes of a network's state, and which of it is shared.

    They are in the metadata of a file in the place of a version: a file of other layers is refused, and takes no byte more.

    Args:
        more: what else a file must agree with.

    >>> layout(nn.Linear(2, 3)) == layout(nn.Linear(2, 3)), layout(nn.Linear(2, 3)) == layout(nn.Linear(3, 2))
    (True, False)
    """
    state, firsts = model.state_dict(keep_vars=True), first_names(model)
    about = [(name, firsts[name], str(value.dtype), tuple(value.shape)) for name, value in state.items()]
    return hashlib.sha256(repr((about, more)).encode()).hexdigest()[:8]


def first_names(model: nn.Module) -> dict[str, str]:
    """For each name in the state of a network the first name of the same tensor; only one that layers share has several.

    >>> tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> tied[1].weight = tied[0].weight
    >>> first_names(tied)
    {'0.weight': '0.weight', '1.weight': '0.weight'}
    """
    found: dict[int, str] = {}
    return {name: found.setdefault(id(value), name) for name, value in model.state_dict(keep_vars=True).items()}


def pack(model: nn.Module) -> bytes:
    """The network's state as a safetensors file, each weight in the smallest of three forms.

    A weight is stored dense; as a bitmap (a bit for each weight, then the values that are not zero); or as rows (CSR: how many
    values each row has, the column of each as int16 or int32, and the values); a convolution's rows are its output channels.
    Everything else is stored dense. A tensor that layers share is stored once.

    >>> layer = nn.Linear(100, 100, bias=False)
    >>> whole = len(pack(layer))
    >>> with torch.no_grad():
    ...     _ = layer.weight.mul_(torch.rand(100, 100) < 0.1)
    >>> len(pack(layer)) < 0.15 * whole
    True
    """
    weights = prunable(model)
    tensors: dict[str, Tensor] = {}
    state = model.state_dict()
    for name in dict.fromkeys(first_names(model).values()):
        value = state[name].detach().cpu()
        forms = _forms(name, value) if name in weights else [{name: value.clone().contiguous()}]
        tensors |= min(forms, key=lambda form: sum(t.numel() * t.element_size() for t in form.values()))
    return bytes(packed(tensors, metadata={"kind": _kind(model)}))


def _kind(model: nn.Module) -> str:
    return f"graphprune weights {layout(model)}"


def _forms(name: str, weight: Tensor) -> list[dict[str, Tensor]]:
    there = weight != 0
    values = weight[there]
    bitmap = torch.from_numpy(np.packbits(there.numpy()))
    there = there.flatten(1)
    columns = there.nonzero()[:, 1].to(torch.int16 if there.shape[1] < 2**15 else torch.int32)
    rows = {f"{name}:counts": there.sum(1).to(torch.int32), f"{name}:columns": columns, f"{name}:values": values}
    return [{name: weight.clone().contiguous()}, {f"{name}:bitmap": bitmap, f"{name}:values": values}, rows]


def save(path: str | os.PathLike[str], model: nn.Module) -> Path:
    """Write `pack(model)`, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    content = pack(model)
    store.demand_writable(Path(path), len(content))
    store.replace(Path(path), content)
    return Path(path)


def load(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Read what `save` wrote into a network of the same layers, bit for bit; returns it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut short, or was saved from layers of other names, types or shapes; the network is untouched.
    """
    found = safe_files.read_kind(path, _kind(model), "layers with the names, types and shapes of this network", "storage.save")
    state = model.state_dict()
    tensors = {name: _dense(name, state[name], found) for name in set(first_names(model).values())}
    model.load_state_dict({name: tensors[first] for name, first in first_names(model).items()})
    return model


def _dense(name: str, like: Tensor, found: dict[str, Tensor]) -> Tensor:
    if name in found:
        return found[name]
    weight, values = torch.zeros(like.shape, dtype=like.dtype), found[f"{name}:values"]
    if f"{name}:bitmap" in found:
        there = np.unpackbits(found[f"{name}:bitmap"].numpy(), count=like.numel()).astype(bool)
        weight[torch.from_numpy(there).reshape(like.shape)] = values
        return weight
    rows = torch.repeat_interleave(torch.arange(len(like)), found[f"{name}:counts"].long())
    weight.flatten(1)[rows, found[f"{name}:columns"].long()] = values
    return weight


def count_theoretical_bytes(model: nn.Module) -> int:
    """What papers print: 4 bytes for each weight that is not zero, without a word on where they are. Theory, not a file.

    >>> with torch.no_grad():
    ...     layer = nn.Linear(3, 1)
    ...     _ = layer.weight.copy_(torch.tensor([[0.0, 1.0, 0.0]]))
    >>> count_theoretical_bytes(layer)  # one weight and the bias
    8
    """
    weights = prunable(model)
    rest = sum(p.numel() for name, p in model.named_parameters() if name not in weights)
    return 4 * (rest + sum(int(w.count_nonzero()) for w in weights.values()))


class SparseLinear(nn.Module):
    """A linear layer whose weight is a CSR matrix, for inference; CSR features are multiplied by the dense weight."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.dense, self.bias = layer.weight.detach(), layer.bias
        self.sparse = to_csr(self.dense)

    @property
    def weight(self) -> Tensor:
        return self.dense

    def forward(self, x: Tensor) -> Tensor:
        if x.layout == torch.sparse_csr:
            return multiply(x, self.dense, self.bias)
        product = (self.sparse @ x.t()).t()
        return product if self.bias is None else product + self.bias


def with_sparse_weights(model: nn.Module) -> nn.Module:
    """A copy whose linear layers multiply by CSR matrices: what skips zeros for real. Its time is to be measured.

    Layers that are not called as a whole (GIN and SAGE where they multiply first) keep dense weights there, and convolutions
    do altogether.

    Raises:
        ValueError: no layer is linear.
    """
    weights = prunable(model)
    linear = {name for name, weight in weights.items() if weight.ndim == 2}
    if not linear:
        raise ValueError(f"model: of {', '.join(weights)} none is the weight of a linear layer; no other multiplies by CSR")
    twin: Any = copy_model(model)
    for path, layer in list(twin.named_modules()):
        if isinstance(layer, nn.Linear) or f"{path}.weight".lstrip(".") in linear:
            twin = replace(twin, layer, SparseLinear(layer))
    return twin


class _Live(TorchDispatchMode):
    """Adds up the bytes of all tensors that operations make, as long as they live; a view of what was there is not made."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.users: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = {part.untyped_storage().data_ptr() for part in _strided((args, kwargs))}
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                where = tensor.untyped_storage().data_ptr()
                if where in self.users or where not in read:
                    self._add(where, tensor)
        return result

    def _add(self, where: int, tensor: Tensor) -> None:
        size = tensor.untyped_storage().nbytes()
        if where not in self.users:
            self.users[where] = 0
            self.now += size
            self.peak = max(self.peak, self.now)
        self.users[where] += 1
        weakref.finalize(tensor, self._drop, where, size)

    def _drop(self, where: int, size: int) -> None:
        self.users[where] -= 1
        if not self.users[where]:
            del self.users[where]
            self.now -= size


def _strided(arguments: Any) -> Iterator[Tensor]:
    """The tensors of an operation's arguments; of a CSR matrix its three parts."""
    for tensor in tree_leaves(arguments):
        if isinstance(tensor, Tensor) and tensor.layout == torch.sparse_csr:
            yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
        elif isinstance(tensor, Tensor) and tensor.layout == torch.strided:
            yield tensor


def measure_peak_memory(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """The most bytes that tensors made in one forward pass hold at a time; weights and inputs are not counted.

    >>> measure_peak_memory(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), (torch.zeros(10, 4),))  # 2 x 10 x 8 numbers
    640
    """
    with runtime.evaluating(model), torch.no_grad(), _Live() as live:
        model(*inputs)
    return live.peak
