"""What a pruned network may cost, and the largest network within it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphprune.pruning.cost import CostModel


@dataclass(frozen=True, eq=False, repr=False)
class Budget:
    """A share of the whole network's multiply-adds, or of its parameters.

    Attributes:
        costs: of the network's pruned versions.
        share: of the whole network's cost that may stay, above what one channel a group costs, at most 1.
        of: what is counted, "macs" or "params".

    Raises:
        ValueError: a share that no network, or every network, meets; or another unit.

    >>> import torch, graphprune
    >>> example = torch.zeros(1, 1, 8, 8)
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), example)
    >>> budget = Budget(graphprune.CostModel(graph, example), 0.5)
    >>> kept = budget.fit(torch.rand(1, graph.num_atoms))
    >>> bool(budget.shares(kept) <= 0.5)
    True
    """

    costs: CostModel
    share: float
    of: Literal["macs", "params"] = "macs"

    def __post_init__(self) -> None:
        if self.of not in ("macs", "params"):
            raise ValueError(f"of={self.of!r}: must be 'macs' (multiply-adds) or 'params' (parameters)")
        if not self.costs.graph.groups:
            raise ValueError("costs: the graph has no group to prune; graph.frozen says why")
        least = float(self.shares_of_counts(torch.ones(1, len(self.costs.graph.groups), dtype=torch.int64)))
        if not least <= self.share <= 1:
            raise ValueError(f"share={self.share}: one channel a group costs {least:.4f} of the {self.of}, so {least:.4f} .. 1")

    def __repr__(self) -> str:
        return f"at most {self.share:.1%} of the {self.of}"

    def counts(self, kept: Tensor) -> Tensor:
        """Channels kept in each group. (B, num_atoms) bool -> (B, groups) int64."""
        graph = self.costs.graph
        return torch.zeros(len(kept), len(graph.groups), dtype=torch.int64).index_add_(1, graph.owner, kept.cpu().long())

    def shares(self, kept: Tensor) -> Tensor:
        """What masks leave of the cost. (B, num_atoms) bool -> (B,) float64, 1 = the whole network's."""
        return self.shares_of_counts(self.counts(kept))

    def fit(self, priority: Tensor) -> Tensor:
        """Drop channels in the order of `priority`, lowest first, until the cost is within the budget.

        A group's highest is never dropped; ties go in the order of the atoms. Of all networks on this path it is the
        largest one within the budget.

        Args:
            priority: (B, num_atoms), any numbers but NaN.

        Returns:
            (B, num_atoms) bool, True = kept.
        """
        graph = self.costs.graph
        if priority.ndim != 2 or priority.shape[1] != graph.num_atoms or bool(priority.isnan().any()):
            raise ValueError(f"priority: must be (B, {graph.num_atoms}) without NaN, got {tuple(priority.shape)}")
        order = self._protected(priority.double().cpu()).argsort(dim=1, stable=True)
        place = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
        low = torch.zeros(len(order), dtype=torch.int64)  # drops that may be too few
        high = torch.full_like(low, graph.num_atoms - len(graph.groups))  # drops that are enough
        while bool((low < high).any()):  # bisection: each drop costs less than the one before
            middle = (low + high) // 2
            met = self.shares(place >= middle[:, None]) <= self.share
            low, high = torch.where(met, low, middle + 1), torch.where(met, middle, high)
        return (place >= high[:, None]).to(priority.device)

    def _protected(self, priority: Tensor) -> Tensor:
        """`priority` with each group's highest made the last to go."""
        last = [span.start + priority[:, span].argmax(1) for span in self.costs.graph.slices.values()]
        return priority.clone().scatter_(1, torch.stack(last, 1), float("inf"))

    def shares_of_counts(self, counts: Tensor) -> Tensor:
        """The same by kept channels. (B, groups), fractions of channels allowed -> (B,) float64."""
        macs, params = self.costs.of_counts(counts)
        return macs.double() / self.costs.full.macs if self.of == "macs" else params.double() / self.costs.full.params
