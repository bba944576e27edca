"""Copies of networks that hold more than parameters and buffers: results of a forward, locks, open files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from graphprune.graph.parts import named_modules
from graphprune.graph.weightless import copy_network

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
        copied: nn.Module = copy_network(model, {})
        return copied


@contextmanager
def naming_attributes(model: nn.Module) -> Iterator[None]:
    """An error meanwhile is laid to the attribute of the model that cannot be copied, if there is one.

    Raises:
        TypeError: there is one; the message names it.
    """
    try:
        yield
    except Exception as error:
        for path, module in named_modules(model).items():
            for name, value in vars(module).items():
                try:
                    copy_network(value if name not in OWN else None, {})
                except Exception as reason:
                    full = f"{path}.{name}" if path else name
                    raise TypeError(
                        f"model: its attribute {full!r}, a {type(value).__name__}, cannot be copied ({reason}); "
                        f"set it to None, prune, and put it back into both networks"
                    ) from error
        raise
