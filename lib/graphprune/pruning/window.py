"""The configurations at the cost aimed at: R(r) high enough, and the MACs between two shares of the base network's.

SACP asks for R(r) >= tau alone (eq. 4), but networks of one R(r) differ in MACs by a factor, and a comparison is fair
at equal MACs only; so a window of MACs is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor

import numpy as np
import torch
from torch import LongTensor, Tensor

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.best import Best
from graphprune.pruning.cost import CostModel
from graphprune.pruning.counting import CountTable, TooWide
from graphprune.pruning.rates import RATES, Rate, RateSpace, kept_table
from graphprune.runs import runtime

PILOT = 1 << 16  # draws after which a share accepted is believed
PATIENCE = 1 << 20  # draws before a window is given up
BLOCK = 1 << 16  # draws at a time: they stay in the cache

Sample = Callable[[int, torch.Generator], Tensor]
"""A number n and a generator -> those of n draws that are allowed, (at most n, groups) rate indices."""

Score = Callable[[Tensor], Tensor]
"""(B, groups) rate indices -> (B,) scores, higher is better."""


@dataclass(frozen=True, eq=False)
class Window:
    """Which configurations are candidates.

    Attributes:
        graph: the traced network.
        example: an input of the shape the MACs are counted at.
        min_ratio: the paper's tau, R(r) >= min_ratio.
        macs: (low, high), shares of the base network's MACs, both ends included.
        rates: those a group can be pruned at, the pruning granularity; what rate indices index.

    Raises:
        ValueError: the graph has no group, `rates` are no rates, or a bound is out of its range or out of reach.

    >>> import torch, graphprune
    >>> example = torch.zeros(1, 1, 8, 8)
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), example)
    >>> window = Window(graph, example, macs=(0.2, 0.3))
    >>> window.allows(window.draw(5, runtime.seed_generator(0))).tolist()
    [True, True, True, True, True]
    """

    graph: ChannelGraph
    example: Tensor
    min_ratio: float = 0.0
    macs: tuple[float, float] = (0.0, 1.0)
    rates: Sequence[Rate] = RATES

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
        return RateSpace(self.graph, self.rates)

    @cached_property
    def costs(self) -> CostModel:
        return CostModel(self.graph, self.example)

    @cached_property
    def table(self) -> Tensor:
        """(groups, rates) channels kept."""
        return kept_table(self.graph, self.rates)

    def counts(self, indices: Tensor) -> Tensor:
        """(B, groups) rate indices -> (B, groups) channels kept."""
        return self.table[torch.arange(len(self.table)), indices]

    def shares(self, counts: Tensor) -> Tensor:
        """(B, groups) channels kept -> (B,) share of the base network's MACs, float64."""
        return self.costs.of_counts(counts)[0].double() / self.costs.full.macs

    def allows(self, indices: Tensor) -> Tensor:
        """(B, groups) rate indices -> (B,) bool."""
        return self._inside(indices) & (self.space.ratio(indices) >= self.min_ratio)

    def _inside(self, indices: Tensor) -> Tensor:
        """(B, groups) rate indices -> (B,) bool, the MACs alone."""
        low, high = self.macs
        shares = self.costs.of_rates(indices, self.rates)[0].double() / self.costs.full.macs
        return (shares >= low) & (shares <= high)

    @cached_property
    def tally(self) -> CountTable | None:
        """The configurations allowed, counted; None where the network's groups are coupled too widely for that."""
        low, high = (share * self.costs.full.macs for share in self.macs)
        units, need = self.space.budget(self.min_ratio)
        try:
            return CountTable(self.costs.forms[0], self.table.numpy(), (floor(low), ceil(high)), np.array(units), need)
        except TooWide:
            return None

    def draw(self, n: int, generator: torch.Generator) -> LongTensor:
        """Draw n configurations, exactly uniformly from all that are allowed (with replacement), (n, groups) rate
        indices.

        R(r) holds by construction (`RateSpace.sample`), the MACs by rejection. Where that accepts fewer than one draw in
        a hundred, the rest are drawn from the `counting`, which knows both bounds; where it is None, by rejection still.

        Raises:
            ValueError: no configuration, or hardly any, lies in the window.
        """
        return torch.cat(list(self.stream(n, generator)))  # type: ignore[return-value]

    def stream(self, n: int, generator: torch.Generator) -> Iterator[Tensor]:
        """The same draws, BLOCK at a time: more of them than memory holds."""
        waiting, held = [], 0
        for rows in self._allowed_draws(n, generator):
            waiting.append(rows)
            held += len(rows)
            while held >= BLOCK:
                block, rest = torch.cat(waiting).split([BLOCK, held - BLOCK])
                waiting, held = [rest], len(rest)
                yield block
        if held:
            yield torch.cat(waiting)

    def best(self, score: Score, n: int, k: int, generator: torch.Generator) -> tuple[LongTensor, Tensor]:
        """The k best of n draws, exactly, no network twice: rates that keep the same channels everywhere count as one.

        Draws are made, costed, scored and forgotten BLOCK by BLOCK, so that n may be millions.

        Args:
            score: (B, groups) rate indices -> (B,), higher is better; called with one block after the other.
            n: how many draws.
            k: how many of them to keep.
            generator: as in `draw`, which it gives the same draws as.

        Returns:
            (k, groups) rate indices, the best first, ties in the order of the draws, and (k,) their scores. Fewer where
            there are not k different networks among the draws.

        Raises:
            ValueError: as in `draw`, or the scores are not one finite number a row.
            TypeError: the scores are no numbers.
        """
        best = Best(k, key=self.counts)
        for block in self.stream(n, generator):
            scores = _as_scores(score(block))
            if scores.shape != (len(block),) or not scores.isfinite().all():
                raise ValueError(f"ranker: must give one finite score for each of {len(block)} rows, got {tuple(scores.shape)}")
            best.add(block, scores)
        return best.rows, best.scores  # type: ignore[return-value]

    def _allowed_draws(self, n: int, generator: torch.Generator) -> Iterator[Tensor]:
        """n draws that are allowed, piece by piece."""
        found = 0
        for rows in self._accepted(n, self._by_ratio, max(PILOT, 100 * n), generator):
            found += len(rows)
            yield rows
        if found < n:
            if self.tally is not None and self.tally.count == 0:
                raise ValueError(f"macs_window={self.macs}, min_ratio={self.min_ratio}: no configuration is in it; widen it")
            sample = self._by_ratio if self.tally is None else self._by_tally
            for rows in self._accepted(n - found, sample, max(PATIENCE, 1000 * n), generator):
                found += len(rows)
                yield rows
        if found < n:
            raise ValueError(
                f"macs_window={self.macs}, min_ratio={self.min_ratio}: only {found} of the {n} configurations needed were "
                "found, so few are in it: move or widen the window"
            )

    def _by_ratio(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws with R(r) >= tau; those of them that are allowed."""
        rows = self.space.sample(n, self.min_ratio, generator)
        return rows if self.macs == (0.0, 1.0) else rows[self._inside(rows)]

    def _by_tally(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws from the tally; those of them that are allowed."""
        assert self.tally is not None
        rows = self.tally.sample(n, generator)
        return rows[self.allows(rows)]

    def _accepted(self, n: int, sample: Sample, most: int, generator: torch.Generator) -> Iterator[Tensor]:
        """n draws that are allowed, piece by piece; fewer where `most` draws would not suffice."""
        found, drawn, batch = 0, 0, max(n, 4096) if n < 4 * BLOCK else BLOCK
        for _ in runtime.progress(range(0, most, batch), "drawing candidates"):
            rows = sample(batch, generator)[: n - found]
            yield rows
            found, drawn = found + len(rows), drawn + batch
            if found == n or (drawn >= PILOT and found * most < n * drawn):
                return


def into_window(window: Window, indices: Tensor, generator: torch.Generator) -> Tensor:
    """(n, groups) -> the same inside the window: one random group a step up or down at a time; else drawn anew."""
    return torch.stack([_into_window(window, row, generator) for row in indices])


def _into_window(window: Window, row: Tensor, generator: torch.Generator) -> Tensor:
    low, _high = window.macs
    last = len(window.space.rates) - 1
    for _ in range(last * len(row)):
        if window.allows(row[None])[0]:
            return row
        share = window.shares(window.counts(row[None]))[0]
        step = -1 if share < low else 1  # fewer channels where R(r) is too small, too
        free = ((row + step >= 0) & (row + step <= last)).nonzero().flatten()
        if not len(free):
            break
        row = row.clone()
        row[free[torch.randint(len(free), (1,), generator=generator)]] += step
    return window.draw(1, generator)[0]


def _as_scores(scores: object) -> Tensor:
    """What a ranker gave, as a tensor; arrays and lists of numbers will do."""
    try:
        return torch.as_tensor(scores).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"ranker: must give a tensor of scores, (B,), and gave a {type(scores).__name__}") from error
