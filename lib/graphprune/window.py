"""The configurations at the cost aimed at: R(r) high enough, and the MACs between two shares of the base network's.

SACP asks for R(r) >= tau alone (eq. 4), but networks of one R(r) differ in MACs by a factor, and a comparison is fair
at equal MACs only; so a window of MACs is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor

import numpy as np
import torch
from torch import LongTensor, Tensor

from graphprune import runtime
from graphprune.costs import CostModel
from graphprune.graph import ChannelGraph
from graphprune.space import RateSpace, kept_table
from graphprune.tally import Tally, TooWide

PILOT = 1 << 16  # draws after which a share accepted is believed
PATIENCE = 1 << 20  # draws before a window is given up
Sample = Callable[[int, torch.Generator], Tensor]


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
        shares = self.costs.of_rates(indices)[0].double() / self.costs.full.macs
        return (shares >= low) & (shares <= high) & (self.space.ratio(indices) >= self.min_ratio)

    @cached_property
    def tally(self) -> Tally | None:
        """The configurations allowed, counted; None where the network's groups are coupled too widely for that."""
        low, high = (share * self.costs.full.macs for share in self.macs)
        units, need = self.space.budget(self.min_ratio)
        try:
            return Tally(self.costs.forms[0], self.table.numpy(), (floor(low), ceil(high)), np.array(units), need)
        except TooWide:
            return None

    def draw(self, n: int, generator: torch.Generator) -> LongTensor:
        """Draw n configurations, exactly uniformly from all that are allowed (with replacement), (n, groups) rate
        indices.

        R(r) holds by construction (`RateSpace.sample`), the MACs by rejection. Where that accepts fewer than one draw in
        a hundred, the rest are drawn from the `tally`, which knows both bounds; where it is None, by rejection still.

        Raises:
            ValueError: no configuration, or hardly any, lies in the window.
        """
        rows, share = self._accepted(n, self._by_ratio, max(PILOT, 100 * n), generator)
        if len(rows) < n:
            if self.tally is not None and self.tally.count == 0:
                raise ValueError(f"macs_window={self.macs}, min_ratio={self.min_ratio}: no configuration is in it; widen it")
            sample = self._by_ratio if self.tally is None else self.tally.sample
            more, share = self._accepted(n - len(rows), sample, max(PATIENCE, 1000 * n), generator)
            rows = torch.cat([rows, more])
        if len(rows) < n:
            raise ValueError(
                f"macs_window={self.macs}, min_ratio={self.min_ratio}: only {len(rows)} of the {n} configurations needed were "
                f"found, {share:.2g} of the draws: move or widen the window"
            )
        return rows[:n]  # type: ignore[return-value]

    def _by_ratio(self, n: int, generator: torch.Generator) -> Tensor:
        return self.space.sample(n, self.min_ratio, generator)

    def _accepted(self, n: int, sample: Sample, most: int, generator: torch.Generator) -> tuple[Tensor, float]:
        """At least n draws that are allowed, or fewer where `most` draws would not suffice; the share accepted."""
        allowed, found, drawn, batch = [], 0, 0, min(max(n, 4096), 1 << 18)
        for _ in runtime.progress(range(0, most, batch), "drawing candidates"):
            indices = sample(batch, generator)
            allowed.append(indices[self.allows(indices)])
            found, drawn = found + len(allowed[-1]), drawn + batch
            if found >= n or (drawn >= PILOT and found * most < n * drawn):
                break
        return torch.cat(allowed), found / drawn
