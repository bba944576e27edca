"""A tally of the configurations inside a window of MACs and above a pruning ratio: counted, and drawn uniformly.

The MACs are a quadratic form in the kept counts, so they are a sum over groups of what a group costs next to the few
others it is coupled with. Settle the groups one by one; F_t are the settled groups that a later one is coupled with, b the
MACs so far in bins, s the units of R(r) so far. The number of ways to go on,

    N_t(x_(F_t), b, s) = sum_i N_(t+1)(x_(F_(t+1)), b + bins_t(x_(F_t), i), s + units_t(i)),

ends with 1 inside both bounds and 0 outside, and rate i is drawn with its share of the sum. Every addend is rounded down
to bins once and the bounds are widened by what that can lose, so the tally holds every configuration allowed, and few
others: rejecting those by their exact MACs leaves exactly the uniform distribution. With bins of one unit none is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
import torch
from torch import LongTensor

from graphprune.pruning.settling_order import frontiers, narrow

CELLS = 1 << 25  # counts held: 256 MiB
LEAST = 64  # bins of each bound below which counting is no use
CHUNK = 16_384  # samples drawn at a time: their state stays in the cache


class TooWide(ValueError):
    """The counts would not fit."""


@dataclass(frozen=True, eq=False)
class Step:
    """One group to settle.

    Attributes:
        group: its number.
        next: (states * rates,) the state after it; a state is the rates of F_t.
        bins: (states * rates,) what it adds to b.
        units: (rates,) what it adds to s.
    """

    group: int
    next: np.ndarray
    bins: np.ndarray
    units: np.ndarray


class CountTable:
    """The configurations with low <= MACs <= high and at least `need` units, and few others.

    Args:
        form: (groups + 1, groups + 1) whole numbers, upper triangular: MACs = x^T form x with x = (kept counts, 1).
        kept: (groups, rates) channels kept, falling with the rate.
        macs: (low, high), both included.
        units: (groups, rates) what a rate adds to R(r), rising.
        need: the least sum of units.
        cells: the most counts held; more make finer bins.

    Attributes:
        count: how many configurations the tally holds, in float64: exact below 2^53.
        exact: whether these are the allowed ones alone.

    Raises:
        TooWide: so many groups are coupled with one another that the counts would not fit.

    >>> import numpy as np
    >>> forms, kept = np.array([[0, 3, 0], [0, 0, 0], [0, 0, 0]]), np.array([[2, 1], [2, 1]])
    >>> tally = CountTable(forms, kept, (3, 6), np.zeros((2, 2), int), 0)
    >>> tally.count, tally.exact  # MACs 3 k_0 k_1: 12, 6, 6 and 3
    (3.0, True)
    """

    def __init__(
        self,
        form: np.ndarray,
        kept: np.ndarray,
        macs: tuple[int, int],
        units: np.ndarray,
        need: int,
        cells: int = CELLS,
    ) -> None:
        self.rates = kept.shape[1]
        pairs = [(i, j) for i, j in np.argwhere(np.triu(form[:-1, :-1], 1)).tolist()]
        self.order = narrow(pairs, weights=[1] * len(kept), start=0)
        self.frontiers = frontiers(pairs, self.order)[:-1]
        states = sum(self.rates ** len(frontier) for frontier in self.frontiers)
        if cells < LEAST**2 * states:
            widest = max(map(len, self.frontiers))
            raise TooWide(f"up to {widest} groups are coupled with later ones at once: too many to count with {cells:,} cells")
        addends = [_addend(form, kept, group, frontier) for group, frontier in zip(self.order, self.frontiers, strict=True)]
        side = int((cells // states) ** 0.5)
        units, self._cap, self._saturates, fine = _needed(units, need, side)
        bins, self._bounds, self.exact = _binned(addends, int(form[-1, -1]), macs, cells // states // (self._cap + 2))
        self.exact &= fine
        later = [*self.frontiers[1:], ()]
        self.steps = [
            Step(g, _successors(self.rates, now, g, then), row.ravel(), units[g])
            for g, now, then, row in zip(self.order, self.frontiers, later, bins, strict=True)
        ]

    @property
    def count(self) -> float:
        return float(self._ways[0][0, 0, 0])

    @cached_property
    def _ways(self) -> list[np.ndarray]:
        """N_t, (states, bins + 1, units + 1): the last bin is over the bound, the last unit over or, saturated, enough."""
        low, high = self._bounds
        width = self._cap + (1 if self._saturates else 2)
        end = np.zeros((1, high + 2, width))
        end[:, low : high + 1, slice(-1, None) if self._saturates else slice(-1)] = 1
        ways = [end]
        for step in reversed(self.steps):
            after = ways[-1]
            now = np.zeros((len(step.next) // self.rates, *end.shape[1:]))
            for branch, (state, bins) in enumerate(zip(step.next, step.bins, strict=True)):
                rows, unit = high + 1 - min(int(bins), high + 1), min(int(step.units[branch % self.rates]), width)
                ahead, into = after[state, bins : bins + rows], now[branch // self.rates, :rows]
                into[:, : width - unit] += ahead[:, unit:]
                into[:, width - unit :] += ahead[:, -1:]
            ways.append(now)
        return ways[::-1]

    def sample(self, n: int, generator: torch.Generator) -> LongTensor:
        """Draw n of the tally's configurations uniformly, (n, groups) int64 rate indices.

        The probabilities are ratios of float64 sums of positive numbers, each off by less than 1e-12.

        Raises:
            ValueError: the tally is empty.
        """
        if self.count == 0:
            raise ValueError("no configuration is inside the bounds")
        out = np.empty((n, len(self.order)), np.int64)
        for start in range(0, n, CHUNK):
            self._draw(out[start : start + CHUNK], generator)
        return torch.from_numpy(out)  # type: ignore[return-value]

    def _draw(self, rows: np.ndarray, generator: torch.Generator) -> None:
        uniform = torch.rand(len(self.order), len(rows), dtype=torch.float64, generator=generator).numpy()
        state, bins, units = np.zeros((3, len(rows)), np.int64)
        for t, step in enumerate(self.steps):
            after = self._ways[t + 1]
            _, height, width = after.shape
            share = np.empty((self.rates, len(rows)))
            for i in range(self.rates):
                branch = state * self.rates + i
                at = (step.next.take(branch) * height + np.minimum(bins + step.bins.take(branch), height - 1)) * width
                share[i] = after.take(at + np.minimum(units + step.units[i], width - 1))
            np.cumsum(share, 0, out=share)
            share[:-1] /= share[-1]
            choice = (uniform[t] >= share[:-1]).sum(0)
            branch = state * self.rates + choice
            state, bins = step.next.take(branch), bins + step.bins.take(branch)
            units = np.minimum(units + step.units.take(choice), width - 1)
            rows[:, step.group] = choice


def _addend(form: np.ndarray, kept: np.ndarray, group: int, frontier: tuple[int, ...]) -> np.ndarray:
    """What a group adds to the MACs next to the settled ones, (rates ** |frontier|, rates)."""
    k = kept[group].astype(np.int64)
    grid = form[group, group] * k**2 + form[group, -1] * k
    for other in reversed(frontier):
        pair = (form[group, other] + form[other, group]) * kept[other].astype(np.int64)[:, None] * k
        grid = pair.reshape(len(pair), *[1] * (grid.ndim - 1), len(k)) + grid
    return grid.reshape(-1, len(k))


def _successors(rates: int, frontier: tuple[int, ...], group: int, later: tuple[int, ...]) -> np.ndarray:
    """The state after settling a group, for every state before it and every rate."""
    settled = (*frontier, group)
    digits = np.indices([rates] * len(settled)).reshape(len(settled), -1)
    state = np.zeros(digits.shape[1], np.int64)
    for other in later:
        state = state * rates + digits[settled.index(other)]
    return state


def _needed(units: np.ndarray, need: int, most: int) -> tuple[np.ndarray, int, bool, bool]:
    """Units counted from the nearer end in at most about `most` steps: units, their bound, whether it is reached, exact."""
    spare = int(units.max(1).sum()) - need
    saturates = need <= spare
    counted = units if saturates else units.max(1, keepdims=True) - units
    bound = max(need, 0) if saturates else spare
    coarse = max(1, -(-bound // most))
    if saturates:
        return -(-counted // coarse), -(-bound // coarse), True, coarse == 1
    return counted // coarse, bound // coarse if spare >= 0 else -1, False, coarse == 1


def _binned(
    addends: Sequence[np.ndarray], constant: int, macs: tuple[int, int], most: int
) -> tuple[list[np.ndarray], tuple[int, int], bool]:
    """The MACs counted from the nearer end in at most about `most` bins: bins, their bounds, whether they are exact."""
    least, full = (constant + sum(int(end(addend)) for addend in addends) for end in (np.min, np.max))
    low, high = macs[0] - least, macs[1] - least
    over = [addend - addend.min() for addend in addends]
    if full - macs[0] < high:
        low, high = full - macs[1], full - macs[0]
        over = [addend.max() - addend for addend in addends]
    unit = gcd(*(int(np.gcd.reduce(addend, axis=None)) for addend in over)) or 1
    width = max(1, -(-max(high, 0) // unit // most))
    bins = [addend // unit // width for addend in over]
    lowest = -(-(-(-low // unit) - len(over) * (width - 1)) // width)
    return bins, (max(lowest, 0), max(high // unit // width, -1)), width == 1
