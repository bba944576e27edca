"""Copies of networks that hold more than parameters and buffers: results of a forward, locks, open files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from graphprune.graph.cutting import Numbers, Places, cut
from graphprune.graph.inputs import Inputs
from graphprune.graph.parts import named_modules
from graphprune.graph.weightless import copy_network, zeroed

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


@dataclass(frozen=True, eq=False)
class Fresh:
    """Where throwaway copies of a network come from, to be recorded.

    Attributes:
        model, shell: the network, and its weightless copy.
        inputs, weightless, over_kept: as of a `ChannelGraph`.
    """

    model: nn.Module
    shell: nn.Module
    inputs: Inputs
    weightless: bool
    over_kept: Mapping[str, int]

    @cached_property
    def zeroed(self) -> nn.Module | None:
        """As of a `ChannelGraph`."""
        return None if self.weightless else zeroed(self.model)

    def cut(self, places: Places, numbers: Numbers) -> nn.Module:
        """A pruned copy."""
        return cut(self.shell if self.weightless else self.model, places, numbers)
