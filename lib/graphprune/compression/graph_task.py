"""Graph classification: a class for each of many graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from graphprune.compression.tasks import Batch, check_graph, check_labels, check_metric, check_part, check_parts, rank_scores
from graphprune.runs import store
from graphprune.runs.checks import at_least


@dataclass(frozen=True, eq=False)
class GraphTask:
    """A class for each of many graphs, which lie one after the other.

    Args:
        x: features of all nodes, (N, F) dense.
        edge_index: (2, E), nodes counted over all graphs; edges in the order of the graphs.
        sizes: nodes of each graph, (G,) int64.
        y: (G,) int64.
        graphs: part -> (P,) graph numbers.
        metric: `accuracy`, or `auc` of two classes.
    Raises:
        ValueError: as `NodeTask`, `auc` of more than two classes, an edge between two graphs, a graph without nodes.
    """

    name: str
    x: Tensor
    edge_index: Tensor
    sizes: Tensor
    y: Tensor
    graphs: Mapping[str, Tensor]
    metric: str = "accuracy"
    pooled: bool = True

    def __post_init__(self) -> None:
        check_graph(self.x, self.edge_index)
        check_labels(self.y, len(self.sizes), "graph")
        check_parts(self.graphs, len(self.sizes))
        check_metric(self.metric, ("accuracy", "auc"))
        if self.metric == "auc" and int(self.y.max()) > 1:
            raise ValueError(f"metric='auc': y has {int(self.y.max()) + 1} classes, and the curve needs two; use 'accuracy'")
        if int(self.sizes.sum()) != len(self.x) or bool((self.sizes < 1).any()):
            raise ValueError(f"sizes: they must be at least 1 and add up to the {len(self.x)} nodes of x")
        first, second = self._home[self.edge_index]
        if bool((first != second).any()) or bool((first.diff() < 0).any()):
            raise ValueError("edge_index: every edge must stay in its graph, and edges stand in the order of the graphs")

    @cached_property
    def _home(self) -> Tensor:
        """The graph of each node, (N,)."""
        return torch.repeat_interleave(torch.arange(len(self.sizes)), self.sizes)

    @cached_property
    def _edges(self) -> Tensor:
        """How many edges each graph has, (G,)."""
        return torch.bincount(self._home[self.edge_index[0]], minlength=len(self.sizes))

    @property
    def features(self) -> int:
        return self.x.shape[1]

    @property
    def outputs(self) -> int:
        return int(self.y.max()) + 1

    def take(self, graphs: Tensor) -> Batch:
        """The graphs of these numbers (B,) as one batch."""
        first_node, first_edge = (counts.cumsum(0) - counts for counts in (self.sizes, self._edges))
        nodes, graph = _ranges(first_node[graphs], self.sizes[graphs])
        places, home = _ranges(first_edge[graphs], self._edges[graphs])
        shift = self.sizes[graphs].cumsum(0) - self.sizes[graphs] - first_node[graphs]
        return Batch(self.x[nodes], self.edge_index[:, places] + shift[home], self.y[graphs], graph=graph)

    def batches(self, part: str, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        at_least(1, batch_size=batch_size)
        graphs = self.graphs[check_part(part)]
        if generator is not None:
            graphs = graphs[torch.randperm(len(graphs), generator=generator)]
        yield from (self.take(chosen) for chosen in graphs.split(batch_size))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(output, batch.target)

    def measure(self, results: Sequence[tuple[Tensor, Batch]]) -> dict[str, float]:
        output, target = torch.cat([o for o, _ in results]), torch.cat([batch.target for _, batch in results])
        right = float((output.argmax(1) == target).double().mean())
        if self.metric == "accuracy":
            return {"accuracy": right}
        return rank_scores(target, output[:, 1] - output[:, 0]) | {"accuracy": right}

    def fingerprint(self) -> str:
        return store.digest([self.name, self.x, self.edge_index, self.sizes, self.y, dict(self.graphs), self.metric])


def _ranges(first: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """first[i], first[i] + 1 and so on, counts[i] of them, for each i; and which i each is from."""
    source = torch.repeat_interleave(torch.arange(len(counts)), counts)
    within = torch.arange(len(source)) - (counts.cumsum(0) - counts)[source]
    return first[source] + within, source
