"""A network by the paths of its modules and tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Parts:
    """What a traced network is run with; another module or tensor under one of the paths makes it another network.

    Attributes:
        root: the network itself, for what is neither a parameter nor a buffer.
        modules: path -> module, of those that the traces call.
        tensors: path -> parameter or buffer; a shared one under each of its paths.
        canonical: path -> the first path of the same tensor.
    """

    root: nn.Module
    modules: Mapping[str, nn.Module]
    tensors: Mapping[str, Tensor]
    canonical: Mapping[str, str]

    def at(self, path: str) -> Any:
        """What a trace reads at a path."""
        return self.tensors[path] if path in self.tensors else functools.reduce(getattr, path.split("."), self.root)


def parts_of(root: nn.Module, *traces: fx.Graph | None) -> Parts:
    """A network's parts, as these traces of it call them."""
    modules, tensors = named_modules(root), named_tensors(root)
    called = {str(node.target) for trace in traces if trace for node in trace.nodes if node.op == "call_module"}
    first: dict[int, str] = {}
    canonical = {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}
    return Parts(root, {path: modules[path] for path in called}, tensors, canonical)


def named_modules(module: nn.Module) -> dict[str, nn.Module]:
    """Path -> module; a shared one under each of its paths."""
    found: dict[str, nn.Module] = {}

    def visit(path: str, module: nn.Module) -> None:
        found[path] = module
        for name, child in module._modules.items():
            if child is not None:
                visit(f"{path}.{name}" if path else name, child)

    visit("", module)
    return found


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Path -> parameter or buffer; a shared one under each of its paths."""
    modules = named_modules(module).items()
    return {
        f"{path}.{name}" if path else name: tensor
        for kind in ("_parameters", "_buffers")
        for path, owner in modules
        for name, tensor in getattr(owner, kind).items()
        if tensor is not None
    }


def unread(parts: Parts, skeleton: fx.Graph) -> set[str]:
    """The parameters that a traced network does not read, by the first of their names."""
    found = {id(parts.tensors.get(str(node.target))) for node in skeleton.nodes if node.op == "get_attr"}
    for called in parts.modules.values():
        for module in named_modules(called).values() if called._modules else (called,):
            found.update(map(id, module._parameters.values()))
    own = {name: tensor for name, tensor in parts.tensors.items() if isinstance(tensor, nn.Parameter)}
    return {name for name, tensor in own.items() if id(tensor) not in found and parts.canonical[name] == name}
