"""What a ranker is: it says of any configuration of a network how good it is believed to be.

A plain function `(graph, model, indices) -> scores` is one. `Ranker` is for those that do something once for a network, such
as training, before they score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.window import Score
from graphprune.runs.checks import takes

RankFunction = Callable[[ChannelGraph, nn.Module, Tensor], Tensor]
"""A traced network, the trained network, (B, groups) int64 rate indices -> (B,) scores, higher = believed better."""


class Stage(Protocol):
    """Where a ranker stores what took it long, such as `funnel.Funnel.stage`."""

    def __call__(
        self, name: str, compute: Callable[[], dict[str, Tensor]], modules: Sequence[str], **parameters: Any
    ) -> dict[str, Tensor]:
        """Load what `compute` made before, or compute and store it.

        Args:
            name: of a file, ending in `.safetensors`; each set of parameters has a file of its own.
            compute: makes it.
            modules: of graphprune, which it depends on.
            parameters: what else it depends on, besides the network, its graph and the data.
        """


class Ranker(ABC):
    """How good configurations are believed to be: `ranker(graph, model, indices)`, or `prepare` once and score often.

    >>> import torch, graphprune
    >>> from graphprune.ranking.rankers import Params
    >>> example, model = torch.zeros(1, 3, 32, 32), graphprune.models.build("resnet20")
    >>> graph = graphprune.trace(model, example)
    >>> Params(example)(graph, model, torch.zeros(1, len(graph.groups), dtype=torch.int64))
    tensor([272474.], dtype=torch.float64)
    """

    @abstractmethod
    def prepare(self, graph: ChannelGraph, model: nn.Module) -> Score:
        """Whatever needs doing once for a network: (B, groups) int64 rate indices -> (B,) scores comes back.

        Args:
            graph: the trace of `model`.
            model: the unpruned network, trained.
        """

    def prepare_stored(self, graph: ChannelGraph, model: nn.Module, stage: Stage) -> Score:
        """The same; a ranker whose preparation takes long stores it in pieces, so that a killed run repeats none."""
        return self.prepare(graph, model)

    def __call__(self, graph: ChannelGraph, model: nn.Module, indices: Tensor) -> Tensor:
        """(B, groups) int64 rate indices -> (B,) scores, higher = believed better."""
        return self.prepare(graph, model)(indices)


def prepare(ranker: Ranker | RankFunction, graph: ChannelGraph, model: nn.Module, stage: Stage | None = None) -> Score:
    """A ranker of any kind, ready to score one network's configurations.

    Args:
        ranker: a `Ranker`, or a function.
        graph: the trace of `model`.
        model: the unpruned network, trained.
        stage: where it may store what takes long.

    Raises:
        TypeError: `ranker` is neither.

    >>> import torch, graphprune
    >>> model = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(model, torch.zeros(1, 1, 8, 8))
    >>> prepare(lambda graph, model, indices: -indices.sum(1), graph, model)(torch.tensor([[1, 2]]))
    tensor([-3])
    """
    check_ranker(ranker)
    if not isinstance(ranker, Ranker):
        return partial(ranker, graph, model)
    return ranker.prepare(graph, model) if stage is None else ranker.prepare_stored(graph, model, stage)


def check_ranker(ranker: object) -> None:
    """Refuse what is no ranker.

    Raises:
        TypeError: it cannot be called, is a class, or takes other arguments.
    """
    if isinstance(ranker, type) or not callable(ranker):
        wanted = "a rankers.Ranker, e.g. rankers.LogWidths(), or a function (graph, model, indices) -> scores"
        raise TypeError(f"ranker={ranker!r}: must be {wanted}")
    takes("ranker", ranker, ["graph", "model", "indices"])
