"""Link prediction: which two nodes of a graph are linked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from graphprune.compression.tasks import PARTS, Batch, check_graph, check_metric, check_part, plain, rank_scores
from graphprune.runs import store
from graphprune.runs.checks import at_least


@dataclass(frozen=True, eq=False)
class LinkTask:
    """Is there a link between two nodes? A pair's logit is the dot product of the nodes' outputs.

    Each epoch of training draws as many pairs without a link as there are training links.

    Args:
        messages: `train`, `val`, `test` -> (2, E) edges that messages flow along; none of them is asked about.
        pairs: part -> (2, P) pairs asked about; of `train` the links alone.
        labels: part -> (P,) int64, 1 where there is a link.
        outputs: width of the network's output a node.
        metric: `auc` or `ap`.
    Raises:
        ValueError: as `NodeTask`, or a part is missing.
    """

    name: str
    x: Tensor
    messages: Mapping[str, Tensor]
    pairs: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    outputs: int = 32
    metric: str = "auc"
    pooled: bool = False

    def __post_init__(self) -> None:
        at_least(1, outputs=self.outputs)
        check_metric(self.metric, ("auc", "ap"))
        for name in ("messages", "pairs", "labels"):
            if set(getattr(self, name)) != set(PARTS):
                raise ValueError(f"{name}: must be of train, val and test; got {', '.join(getattr(self, name)) or 'none'}")
        for part in PARTS:
            check_graph(self.x, self.messages[part])
            check_graph(self.x, self.pairs[part])
            self._check_labels(part)

    def _check_labels(self, part: str) -> None:
        y, count = self.labels[part], self.pairs[part].shape[1]
        fits = y.shape == (count,) and y.dtype == torch.int64 and count
        if not fits or bool(((y != 1) & ((y != 0) | (part == "train"))).any()):
            allowed = "1, as all pairs of train are links" if part == "train" else "0 or 1"
            raise ValueError(
                f"labels: of {part} they must be int64 ({count},), one a pair and at least one, each {allowed}; "
                f"got {y.dtype} {tuple(y.shape)} of {y.unique().tolist()[:5]}"
            )

    @property
    def features(self) -> int:
        return self.x.shape[1]

    def batches(self, part: str, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        pairs, labels = self.pairs[check_part(part)], self.labels[part]
        if part == "train":
            drawn = draw_non_links(pairs, len(self.x), pairs.shape[1], generator or torch.Generator().manual_seed(0))
            labels = torch.cat([labels, torch.zeros(drawn.shape[1], dtype=torch.int64)])
            pairs = torch.cat([pairs, drawn], dim=1)
        yield Batch(self.x, self.messages[part], labels, chosen=pairs)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(_pair_logits(output, batch), batch.target.to(output.dtype))

    def measure(self, results: Sequence[tuple[Tensor, Batch]]) -> dict[str, float]:
        ((output, batch),) = results
        return rank_scores(batch.target, _pair_logits(output, batch))

    def fingerprint(self) -> str:
        return store.digest([self.name, plain(self.x), dict(self.messages), dict(self.pairs), dict(self.labels), self.outputs])


def _pair_logits(output: Tensor, batch: Batch) -> Tensor:
    assert batch.chosen is not None
    return (output[batch.chosen[0]] * output[batch.chosen[1]]).sum(1)


def draw_non_links(links: Tensor, nodes: int, count: int, generator: torch.Generator) -> Tensor:
    """Pairs of different nodes (2, count) that are no link in either direction; a pair may come twice.

    Raises:
        ValueError: every pair is a link.

    >>> draw_non_links(torch.tensor([[0], [1]]), 2, 1, torch.Generator())
    Traceback (most recent call last):
    ValueError: links: all pairs of the 2 nodes are linked, so none without a link can be drawn
    """
    linked = torch.unique(torch.cat([links[0] * nodes + links[1], links[1] * nodes + links[0]]))
    if int((linked // nodes != linked % nodes).sum()) >= nodes * (nodes - 1):
        raise ValueError(f"links: all pairs of the {nodes} nodes are linked, so none without a link can be drawn")
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:
        drawn = torch.randint(nodes * nodes, (2 * count,), generator=generator)
        fits = (drawn // nodes != drawn % nodes) & ~torch.isin(drawn, linked)
        found = torch.cat([found, drawn[fits]])
    return torch.stack([found[:count] // nodes, found[:count] % nodes])
