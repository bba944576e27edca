"""What a graph network is asked: a label for each node, whether a link is there, or a label for each graph.

A task holds the data and its splits, and knows its loss and its metric. Training and pruning are the same for all three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from graphprune.runs import store

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Batch:
    """What a network reads at once, and what its output is compared with.

    Attributes:
        x: node features (N, F), dense or CSR.
        edge_index: (2, E) int64, messages flow from row 0 to row 1; an undirected edge is there twice.
        target: labels int64, one for each of `chosen`, or one for each graph.
        graph: the graph of each node, (N,) int64; None where there is one graph only.
        chosen: nodes (P,) or pairs of nodes (2, P) that `target` is about; None where it is about graphs.
    """

    x: Tensor
    edge_index: Tensor
    target: Tensor
    graph: Tensor | None = None
    chosen: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The arguments of the network's forward."""
        return (self.x, self.edge_index) if self.graph is None else (self.x, self.edge_index, self.graph)


class Task(Protocol):
    """What training needs to know; `outputs` is the width of a network's output, `metric` what validation chooses by."""

    @property
    def name(self) -> str: ...
    @property
    def features(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def pooled(self) -> bool:
        """Whether the network makes one output a graph, not one a node."""

    def batches(self, part: str, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """The batches of one pass over `train`, `val` or `test`; a generator shuffles and draws."""

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The mean loss of a batch, in nats."""

    def measure(self, results: Sequence[tuple[Tensor, Batch]]) -> dict[str, float]:
        """The metrics over all batches of a part, each from 0 to 1."""

    def fingerprint(self) -> str:
        """A hash of the data and the splits."""


@dataclass(frozen=True, eq=False)
class NodeTask:
    """A class for each node of one graph. All nodes and edges are seen in training, the labels of `train` alone.

    Args:
        y: (N,) int64 classes.
        nodes: `train`, `val`, `test` -> (P,) node numbers.
        metric: `accuracy`.
    Raises:
        ValueError: features that are no numbers, edges to nodes that do not exist, labels, parts or a metric that do not fit.
    """

    name: str
    x: Tensor
    edge_index: Tensor
    y: Tensor
    nodes: Mapping[str, Tensor]
    metric: str = "accuracy"
    pooled: bool = False

    def __post_init__(self) -> None:
        check_graph(self.x, self.edge_index)
        check_labels(self.y, len(self.x), "node")
        check_parts(self.nodes, len(self.x))
        check_metric(self.metric, ("accuracy",))

    @property
    def features(self) -> int:
        return self.x.shape[1]

    @property
    def outputs(self) -> int:
        return int(self.y.max()) + 1

    def batches(self, part: str, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        chosen = self.nodes[check_part(part)]
        yield Batch(self.x, self.edge_index, self.y[chosen], chosen=chosen)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(output[batch.chosen], batch.target)

    def measure(self, results: Sequence[tuple[Tensor, Batch]]) -> dict[str, float]:
        ((output, batch),) = results
        return {"accuracy": float((output[batch.chosen].argmax(1) == batch.target).double().mean())}

    def fingerprint(self) -> str:
        return store.digest([self.name, plain(self.x), self.edge_index, self.y, dict(self.nodes)])


def rank_scores(target: Tensor, logits: Tensor) -> dict[str, float]:
    """Area under the ROC curve (`auc`) and average precision (`ap`) of logits (P,) for labels of 0 and 1 (P,).

    Raises:
        ValueError: all labels are the same.

    >>> rank_scores(torch.tensor([0, 1, 0, 1]), torch.tensor([-1.0, 2.0, 0.0, 0.5]))
    {'auc': 1.0, 'ap': 1.0}
    """
    check_two_classes(target, "a part")
    y, score = target.numpy(), logits.detach().numpy()
    return {"auc": float(roc_auc_score(y, score)), "ap": float(average_precision_score(y, score))}


def plain(x: Tensor) -> Any:
    """A tensor as its hash can be taken: of a CSR matrix its three parts."""
    return [x.crow_indices(), x.col_indices(), x.values(), list(x.shape)] if x.layout == torch.sparse_csr else x


def check_graph(x: Tensor, edge_index: Tensor) -> None:
    """Raise a ValueError unless `x` is (N, F) of finite numbers and `edge_index` (2, E) int64 of node numbers.

    A graph may have no edges, and nodes no neighbours.

    >>> check_graph(torch.tensor([[float("nan")]]), torch.empty(2, 0, dtype=torch.int64))
    Traceback (most recent call last):
    ValueError: x: node 0 has features that are not finite; fill or drop them first
    """
    if x.ndim != 2 or not x.is_floating_point() or not len(x):
        raise ValueError(f"x: must be floating-point (nodes, features) of 1 node or more, got {x.dtype} {tuple(x.shape)}")
    if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype != torch.int64:
        raise ValueError(f"edge_index: must be int64 (2, edges), got {edge_index.dtype} {tuple(edge_index.shape)}")
    wrong = edge_index[(edge_index < 0) | (edge_index >= len(x))]
    if len(wrong):
        raise ValueError(f"edge_index: names node {int(wrong[0])}, but x has the nodes 0 to {len(x) - 1}")
    bad = ~x.values().isfinite() if x.layout == torch.sparse_csr else ~x.isfinite()
    if bool(bad.any()):
        place = int(bad.nonzero()[0, 0])
        node = int((x.crow_indices() <= place).sum()) - 1 if x.layout == torch.sparse_csr else place
        raise ValueError(f"x: node {node} has features that are not finite; fill or drop them first")


def check_labels(y: Tensor, count: int, what: str) -> None:
    if y.shape != (count,) or y.dtype != torch.int64 or bool((y < 0).any()):
        raise ValueError(f"y: must be int64 classes of at least 0, one a {what} ({count},), got {y.dtype} {tuple(y.shape)}")
    if int(y.max()) < 1:
        raise ValueError(f"y: every {what} has class 0; there is nothing to tell apart")


def check_parts(parts: Mapping[str, Tensor], count: int) -> None:
    if set(parts) != set(PARTS) or not all(len(part) for part in parts.values()):
        raise ValueError(
            f"splits: must be train, val and test, none of them empty; got { {k: len(v) for k, v in parts.items()} }"
        )
    together = torch.cat(list(parts.values()))
    if len(together.unique()) < len(together) or int(together.min()) < 0 or int(together.max()) >= count:
        raise ValueError(f"splits: train, val and test must not overlap, and be numbers from 0 to {count - 1}")


def check_metric(metric: str, known: Sequence[str]) -> None:
    if metric not in known:
        raise ValueError(f"metric={metric!r}: unknown for this task; choose from {', '.join(known)}")


def check_two_classes(target: Tensor, part: str) -> None:
    if len(target.unique()) < 2:
        raise ValueError(
            f"y: all {len(target)} labels of {part} are {int(target[0])}, so the area under its curve is undefined; "
            "split so that each part has both classes, or measure the accuracy"
        )


def check_part(part: str) -> str:
    if part not in PARTS:
        raise ValueError(f"part={part!r}: must be one of {', '.join(PARTS)}")
    return part
