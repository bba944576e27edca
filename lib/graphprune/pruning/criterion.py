"""What says how much each channel matters, in any form a user may have it: nothing, scores, or a function of the network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning import importance
from graphprune.pruning.masks import as_scores
from graphprune.runs.checks import takes

if TYPE_CHECKING:
    from graphprune.training.data import Dataset

Criterion = Mapping[str, Any] | Callable[..., Mapping[str, Any]] | None
"""None: L1 norms. Scores: group -> (C,). A function (model, graph) -> scores; with a parameter `data` it is given the data."""


def score_channels(
    criterion: Any, model: nn.Module, graph: ChannelGraph, data: Dataset | None = None, name: str = "scores"
) -> dict[str, Tensor]:
    """The importance of every channel by a criterion of any kind, checked: group -> (C,), higher = more important.

    Args:
        criterion: see `Criterion`; every function of `graphprune.importance` is one.
        model: the network.
        graph: its trace.
        data: what a criterion that looks at data is given.
        name: the argument's name, for errors.

    Raises:
        TypeError: the criterion is none, takes other arguments, or returns no dictionary.
        ValueError: it needs data and there is none, or its scores do not fit the graph.

    >>> import torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> first = {group.name: range(group.channels, 0, -1) for group in graph.groups}
    >>> score_channels(first, model, graph)["conv3"]
    tensor([3, 2, 1])
    >>> score_channels(graphprune.importance.l2, model, graph)["conv3"].shape
    torch.Size([3])
    """
    if criterion is None:
        return importance.l1(model, graph)
    if isinstance(criterion, Mapping):
        return as_scores(graph, criterion, name)
    if isinstance(criterion, type) or not callable(criterion):
        wanted = "a dictionary of scores, group name -> (C,), or a function such as graphprune.importance.l1"
        raise TypeError(f"{name}={criterion!r}: must be {wanted}")
    takes(f"{name}={_called(criterion)}", criterion, ["model", "graph"], ["data"])
    needs = looks_at_data(criterion)
    if needs and data is None:
        raise ValueError(f"{name}={_called(criterion)} looks at data: give data=, such as graphprune.data.from_tensors(...)")
    found = criterion(model, graph, data=data) if needs else criterion(model, graph)
    if not isinstance(found, Mapping):
        got = type(found).__name__
        raise TypeError(f"{name}={_called(criterion)} must return a dictionary, group name -> (C,), and returned a {got}")
    return as_scores(graph, found, f"{_called(criterion)}(model, graph)")


def looks_at_data(criterion: Any) -> bool:
    """Whether a function has a parameter called `data`."""
    try:
        return "data" in inspect.signature(criterion).parameters
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False


def _called(criterion: Any) -> str:
    return getattr(criterion, "__name__", type(criterion).__name__)
