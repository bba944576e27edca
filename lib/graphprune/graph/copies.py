"""Copies of networks that hold more than parameters and buffers: results of a forward, locks, open files."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from graphprune.graph.parts import named_modules

OWN = ("_parameters", "_buffers", "_modules")


def copy_model(model: nn.Module) -> nn.Module:
    """A deep copy; of tensors that a forward computed and left in an attribute it has the values, not their history.

    Raises:
        TypeError: an attribute cannot be copied; the message names it.

    >>> import torch
    >>> layer = nn.Linear(2, 1)
    >>> layer.seen = layer(torch.ones(1, 2))
    >>> copy_model(layer).seen.requires_grad
    False
    """
    with naming_attributes(model):
        return copy.deepcopy(model, _values(model))


def without_history(model: nn.Module) -> nn.Module:
    """The model itself, or a `copy_model` of it if modules hold tensors that a forward computed: torch does not copy these."""
    return copy_model(model) if _values(model) else model


@contextmanager
def naming_attributes(model: nn.Module) -> Iterator[None]:
    """An error meanwhile is laid to the attribute of the model that cannot be copied, if there is one.

    Raises:
        TypeError: there is one; the message names it.
    """
    try:
        yield
    except Exception as error:
        values = _values(model)
        for path, module in named_modules(model).items():
            for name, value in vars(module).items():
                try:
                    copy.deepcopy(value if name not in OWN else None, dict(values))
                except Exception as reason:
                    full = f"{path}.{name}" if path else name
                    raise TypeError(
                        f"model: its attribute {full!r}, a {type(value).__name__}, cannot be copied ({reason}); "
                        f"set it to None, prune, and put it back into both networks"
                    ) from error
        raise


def _values(model: nn.Module) -> dict[int, Any]:
    """id -> a copy without history of each computed tensor among the attributes of modules, and in containers there."""
    found: dict[int, Any] = {}

    def visit(value: Any, depth: int) -> None:
        if isinstance(value, Tensor):
            if value.grad_fn is not None:
                found[id(value)] = value.detach().clone()
        elif depth and isinstance(value, Mapping | list | tuple | set):
            for item in value.values() if isinstance(value, Mapping) else value:
                visit(item, depth - 1)

    for module in named_modules(model).values():
        for name, value in vars(module).items():
            visit(value if name not in OWN else None, 4)
    return found
