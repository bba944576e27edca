"""One layer of a network in the place of another."""

from __future__ import annotations

from torch import nn


def replace(network: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put a layer in the place of another in place, under all the names it has; returns the network.

    Where `old` is the network itself, that is `new`.

    >>> layer = nn.Linear(2, 2)
    >>> replace(nn.Sequential(layer, nn.ReLU(), layer), layer, nn.Identity())
    Sequential(
      (0): Identity()
      (1): ReLU()
      (2): Identity()
    )
    """
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)
    return new if network is old else network
