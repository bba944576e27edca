"""The configurations at the cost aimed at: R(r) high enough, and the MACs between two shares of the base network's.

SACP asks for R(r) >= tau alone (eq. 4), but networks of one R(r) differ in MACs by a factor, and a comparison is fair
at equal MACs only; so a window of MACs is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import LongTensor, Tensor

from graphprune import runtime
from graphprune.costs import CostModel
from graphprune.graph import ChannelGraph
from graphprune.space import RateSpace, kept_table

PATIENCE = 1 << 20  # draws before a window is given up as empty


@dataclass(frozen=True, eq=False)
class Window:
    """Which configurations are candidates.

    Attributes:
        graph: the traced network.
        example: an input of the shape the MACs are counted at.
        min_ratio: the paper's tau, R(r) >= min_ratio.
        macs: (low, high), shares of the base network's MACs, both ends included.

    Raises:
        ValueError: the graph has no group, or a bound is out of its range or out of reach.

    >>> import torch, graphprune
    >>> example = torch.zeros(1, 1, 8, 8)
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), example)
    >>> window = Window(graph, example, macs=(0.2, 0.3))
    >>> window.allows(window.draw(5, graphprune.runtime.seed_generator(0))).tolist()
    [True, True, True, True, True]
    """

    graph: ChannelGraph
    example: Tensor
    min_ratio: float = 0.0
    macs: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.macs
        if not 0 <= self.min_ratio <= self.space.max_ratio:
            raise ValueError(f"min_ratio={self.min_ratio!r}: must lie in [0, {self.space.max_ratio}]")
        if not 0 <= low < high <= 1:
            raise ValueError(f"macs_window={self.macs}: must be shares of the full MACs, 0 <= low < high <= 1")
        least = self.shares(self.table[:, -1:].T).item()
        if high < least:
            raise ValueError(f"macs_window={self.macs}: out of reach, every rate at its highest leaves {least:.4f}")

    @cached_property
    def space(self) -> RateSpace:
        return RateSpace(self.graph)

    @cached_property
    def costs(self) -> CostModel:
        return CostModel(self.graph, self.example)

    @cached_property
    def table(self) -> Tensor:
        """(groups, rates) channels kept."""
        return kept_table(self.graph)

    def counts(self, indices: Tensor) -> Tensor:
        """(B, groups) rate indices -> (B, groups) channels kept."""
        return self.table[torch.arange(len(self.table)), indices]

    def shares(self, counts: Tensor) -> Tensor:
        """(B, groups) channels kept -> (B,) share of the base network's MACs, float64."""
        return self.costs.of_counts(counts)[0].double() / self.costs.full.macs

    def allows(self, indices: Tensor) -> Tensor:
        """(B, groups) rate indices -> (B,) bool."""
        low, high = self.macs
        shares = self.shares(self.counts(indices))
        return (shares >= low) & (shares <= high) & (self.space.ratio(indices) >= self.min_ratio)

    def draw(self, n: int, generator: torch.Generator) -> LongTensor:
        """Draw n configurations, exactly uniformly from all that are allowed (with replacement), (n, groups) rate
        indices.

        R(r) holds by construction (`RateSpace.sample`), the MACs by rejection.

        Raises:
            ValueError: hardly any configuration lies in the window.
        """
        allowed, found, drawn, low, high = [], 0, 0, 1.0, 0.0
        batch, limit = min(max(n, 4096), 1 << 18), max(PATIENCE, 100 * n)
        for _ in runtime.progress(range(0, limit, batch), "drawing candidates"):
            indices = self.space.sample(batch, self.min_ratio, generator)
            shares = self.shares(self.counts(indices))
            inside = (shares >= self.macs[0]) & (shares <= self.macs[1])
            allowed.append(indices[inside])
            found += len(allowed[-1])
            low, high = min(low, shares.min().item()), max(high, shares.max().item())
            drawn += batch
            if found >= n:
                return torch.cat(allowed)[:n]  # type: ignore[return-value]
            if drawn >= PATIENCE and found * limit < n * drawn:
                break  # at this rate they will not come together
        raise ValueError(
            f"macs_window={self.macs}, min_ratio={self.min_ratio}: {found} of {drawn} draws are in it, {n} are needed; "
            f"the shares of MACs drawn range from {low:.3f} to {high:.3f}: move or widen the window"
        )
