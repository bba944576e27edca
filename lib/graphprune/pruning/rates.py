"""The rate space {0, 0.1, ..., 0.9}^groups: counted exactly, sampled exactly uniformly, turned into masks.

How many configurations reach a pruning ratio, and which, is a question about an integer sum: with the weight w_g of a
group and rates a_i / D, R(r) >= tau means sum_g w_g a_(r_g) >= ceil(tau D sum_g w_g). Let N_t(s) be the number of ways
in which the groups t, t+1, ... add at least s more units. Then

    N_T(s) = [s <= 0],    N_t(s) = sum_i N_(t+1)(s - w_t a_i),

N_0 is the count, and rate i of group t is drawn with probability N_(t+1)(s - w_t a_i) / N_t(s): every feasible
configuration is equally likely, at any tau, with nothing rejected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise
from math import gcd, lcm

import numpy as np
import torch
from torch import LongTensor, Tensor

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.runs.checks import at_least

Rate = float | Fraction
RATES = tuple(i / 10 for i in range(10))
"""The paper's pruning rates (eq. 3): 0, 0.1, ..., 0.9."""

CHUNK = 16_384  # samples drawn at a time: their state stays in the cache


def kept_counts(channels: int, rates: Sequence[Rate] = RATES) -> Tensor:
    """Channels kept of C at each rate, (rates,): max(1, floor((1 - r) C)), the only place where this is calculated.

    Source: SACP eq. 2, where r = 0.1 is 1/10 and not the nearest double: in floating point many C are one off at r = 0.8
    and 0.9.

    >>> kept_counts(16).tolist()
    [16, 14, 12, 11, 9, 8, 6, 4, 3, 1]
    >>> kept_counts(16, (0, 0.25, 0.5)).tolist()
    [16, 12, 8]
    """
    return torch.tensor([max(1, math.floor((1 - Fraction(str(rate))) * channels)) for rate in rates])


def exact_rates(rates: Sequence[Rate]) -> tuple[Fraction, ...]:
    """The rates as exact fractions: 0.1 is 1/10, not the nearest double.

    Raises:
        ValueError: no rate, one outside [0, 1), or not strictly increasing.

    >>> exact_rates((0, 0.25))
    (Fraction(0, 1), Fraction(1, 4))
    """
    exact = tuple(_fraction("rates", rate) for rate in rates)
    if not exact or not all(0 <= rate < 1 for rate in exact):
        raise ValueError(f"rates={tuple(rates)}: give at least one rate, each in [0, 1), such as (0, 0.5)")
    if any(low >= high for low, high in pairwise(exact)):
        raise ValueError(f"rates={tuple(rates)}: must be strictly increasing, such as (0, 0.25, 0.5)")
    return exact


def _fraction(name: str, value: Rate) -> Fraction:
    try:
        return Fraction(str(value))
    except ValueError:
        raise ValueError(f"{name}={value!r}: must be a finite number or a Fraction") from None


class RateSpace:
    """All configurations of one rate a group, with R(r) = sum_g w_g r_g / sum_g w_g (SACP, eq. 1 and 3).

    Everything is exact integer arithmetic: a configuration exactly at `min_ratio` is in.

    Args:
        graph: the traced network; w_g is `graph.groups[g].width`.
        rates: the rates, increasing, in [0, 1); a configuration holds an index into them for each group.

    Raises:
        ValueError: the graph has no prunable group, or `rates` are out of range.

    >>> import torch, graphprune
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    >>> space = RateSpace(graph, rates=(0, 0.5))
    >>> space.count(0) == 2 ** len(graph.groups), space.count(0.5)
    (True, 1)
    """

    def __init__(self, graph: ChannelGraph, rates: Sequence[Rate] = RATES) -> None:
        self.rates = exact_rates(rates)
        if not graph.groups:
            raise ValueError("graph has no prunable group, so there is no rate to choose; graph.frozen says why")
        denominator = lcm(*(rate.denominator for rate in self.rates))
        units = [[int(group.width * rate * denominator) for rate in self.rates] for group in graph.groups]
        scale = gcd(*(unit for row in units for unit in row)) or 1
        self._units = [[unit // scale for unit in row] for row in units]
        self._steps: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._total = Fraction(denominator * sum(group.width for group in graph.groups), scale)  # R = 1, in units

    @property
    def groups(self) -> int:
        """The number of groups, a configuration's length."""
        return len(self._units)

    @property
    def max_ratio(self) -> float:
        """The largest R(r) there is: every group at the highest rate."""
        return float(self.rates[-1])

    def count(self, min_ratio: Rate = 0) -> int:
        """The exact number of configurations with R(r) >= min_ratio.

        Raises:
            ValueError: `min_ratio` is negative or above `max_ratio`.
        """
        return int(self._ways[0][self._need(min_ratio)])

    def ratio(self, indices: Tensor) -> Tensor:
        """R(r) of many configurations, (B, groups) rate indices -> (B,) float64."""
        check_indices(indices, self.groups, len(self.rates))
        units = torch.tensor(self._units, device=indices.device)
        total = units[torch.arange(self.groups, device=indices.device), indices].sum(1)
        return total.double() * self._total.denominator / self._total.numerator

    def budget(self, min_ratio: Rate = 0) -> tuple[list[list[int]], int]:
        """R(r) >= min_ratio in whole numbers: what each group's rates add, and the least sum.

        Raises:
            ValueError: `min_ratio` is negative or above `max_ratio`.
        """
        return self._units, self._need(min_ratio)

    def sample(
        self, n: int, min_ratio: Rate = 0, generator: torch.Generator | None = None, distinct: bool = False
    ) -> LongTensor:
        """Draw n configurations uniformly from { r : R(r) >= min_ratio }.

        The probabilities are exact ratios of integers rounded once to float64: each is off by less than 1e-15.

        Args:
            n: how many.
            min_ratio: tau, in [0, max_ratio].
            generator: the only source of randomness, and so never left out: the same state gives the same samples.
            distinct: no configuration twice (then a uniform ordered n-subset).

        Returns:
            (n, groups) int64 rate indices.

        Raises:
            TypeError: no generator.
            ValueError: `n` < 1, `min_ratio` out of reach, or fewer than n distinct configurations exist.

        >>> import torch, graphprune
        >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
        >>> RateSpace(graph).sample(3, 0.5, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
        """
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"generator={generator!r}: give torch.Generator().manual_seed(0), so that samples can be repeated")
        at_least(1, n=n)
        need = self._need(min_ratio)
        if not distinct:
            return torch.from_numpy(self._draw(n, need, generator))  # type: ignore[return-value]
        return self._draw_distinct(n, self.count(min_ratio), need, generator)

    def unrank(self, ranks: Tensor | Sequence[int], min_ratio: Rate = 0) -> LongTensor:
        """The configurations at the given places of the lexicographic list of { r : R(r) >= min_ratio }.

        With `ranks = torch.arange(space.count(tau))` it is the whole list.

        Args:
            ranks: (n,) whole numbers in [0, count(min_ratio)); a list, where the space has more than an int64 can number.

        Returns:
            (n, groups) int64 rate indices.

        Raises:
            ValueError: a rank is no whole number, or out of range.
        """
        need, count = self._need(min_ratio), self.count(min_ratio)
        given = ranks.tolist() if isinstance(ranks, Tensor) else list(ranks)
        if wrong := [rank for rank in given if not isinstance(rank, int)]:
            raise ValueError(f"ranks must be (n,) whole numbers, got {wrong[0]!r}")
        if given and not (min(given) >= 0 and max(given) < count):
            raise ValueError(f"ranks must lie in [0, {count}), got {min(given)} to {max(given)}")
        whole = np.int64 if count < 2**63 else object  # Python's integers where int64 would overflow
        left, rest = np.array(given, object).astype(whole), np.full(len(given), need)
        out = np.empty((len(given), self.groups), np.int64)
        for t, units in enumerate(self._units):
            states, row = np.unique(rest, return_inverse=True)
            ways = self._branches(t, states)
            edges = np.cumsum(np.hstack([np.zeros((len(ways), 1), object), ways]), 1).astype(whole)
            choice = (left[:, None] >= edges[row, 1:-1]).sum(1)
            left = left - edges[row, choice]
            rest = np.maximum(rest - np.asarray(units)[choice], 0)
            out[:, t] = choice
        return torch.from_numpy(out)  # type: ignore[return-value]

    @cached_property
    def _ways(self) -> list[np.ndarray]:
        """N_t(s) for s = 0 .. the most the groups t, t+1, ... can add, as Python integers."""
        ways = [np.ones(1, object)]
        for units in reversed(self._units):
            later, size = ways[-1], len(ways[-1]) + units[-1]
            total = np.zeros(size, object)
            for unit in units:
                total[:unit] += later[0]  # s < unit: nothing more is needed
                total[unit : unit + len(later)] += later
            ways.append(total)
        return ways[::-1]

    def _branches(self, t: int, states: np.ndarray) -> np.ndarray:
        """N_(t+1)(s - w_t a_i) for every state s and rate i, (states, rates) Python integers."""
        later = self._ways[t + 1]
        left = np.maximum(states[:, None] - np.asarray(self._units[t]), 0)
        return np.where(left < len(later), later[np.minimum(left, len(later) - 1)], 0)

    def _need(self, min_ratio: Rate) -> int:
        """The least integer sum of units with R(r) >= min_ratio."""
        exact = _fraction("min_ratio", min_ratio)
        if not 0 <= exact <= self.rates[-1]:
            raise ValueError(
                f"min_ratio={min_ratio}: must be in [0, {self.max_ratio}]; "
                f"{self.max_ratio} is R(r) with every group at the highest rate"
            )
        return -int(-exact * self._total // 1)

    def _draw(self, n: int, need: int, generator: torch.Generator) -> np.ndarray:
        out = np.empty((n, self.groups), np.int64)
        steps = self._thresholds(need)
        for start in range(0, n, CHUNK):
            rows = out[start : start + CHUNK]
            uniform = torch.rand(self.groups, len(rows), dtype=torch.float64, generator=generator).numpy()
            state = np.zeros(len(rows), np.int64)
            for t, (thresholds, successor) in enumerate(steps):
                choice = np.zeros(len(rows), np.min_scalar_type(len(self.rates)))
                for threshold in thresholds:
                    choice += (uniform[t] >= threshold.take(state)).view(np.uint8)
                state = successor.take(state * len(self.rates) + choice)
                rows[:, t] = choice
        return out

    def _thresholds(self, need: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each group: cumulative probabilities (rates - 1, reachable states), next state (states * rates,)."""
        if need in self._steps:
            return self._steps[need]
        steps, states = self._steps.setdefault(need, []), np.array([need])
        for t, units in enumerate(self._units):
            cumulative = np.cumsum(self._branches(t, states), 1)
            probability = (cumulative[:, :-1] / cumulative[:, -1:]).astype(np.float64).T  # int / int rounds once
            left = np.maximum(states[:, None] - np.asarray(units), 0)
            alive = left < len(self._ways[t + 1])
            states = np.unique(left[alive])
            steps.append((np.ascontiguousarray(probability), np.searchsorted(states, np.where(alive, left, 0)).ravel()))
        return steps

    def _draw_distinct(self, n: int, count: int, need: int, generator: torch.Generator) -> LongTensor:
        if n > count:
            raise ValueError(f"n={n}: only {count} distinct configurations have this min_ratio; ask for at most {count}")
        if 2 * n > count:  # repeats would be the rule: draw ranks without replacement
            ranks = torch.randperm(count, generator=generator)[:n]
            return self.unrank(ranks, Fraction(need) / self._total)
        rows = self._draw(n, need, generator)
        while len(first := _first_seen(rows)) < n:
            rows = np.concatenate([rows[first], self._draw(n - len(first), need, generator)])
        return torch.from_numpy(rows)  # type: ignore[return-value]


def _first_seen(rows: np.ndarray) -> np.ndarray:
    """The places of the first of each distinct row, in order."""
    odd = np.random.default_rng(0).integers(2**62, size=rows.shape[1]) * 2 + 1
    if len(np.unique(rows @ odd)) == len(rows):  # a hash that never repeats proves that no row does
        return np.arange(len(rows))
    return np.sort(np.unique(rows, axis=0, return_index=True)[1])


def check_indices(indices: Tensor, groups: int, rates: int) -> None:
    """Raise ValueError unless `indices` is (B, groups) int64 with entries in [0, rates)."""
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64 or indices.ndim != 2 or indices.shape[1] != groups:
        got = f"{indices.dtype} {tuple(indices.shape)}" if isinstance(indices, Tensor) else type(indices).__name__
        raise ValueError(f"indices must be int64 of shape (B, {groups}), one rate index a group, got {got}")
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < rates):
        raise ValueError(f"indices must lie in [0, {rates}), got {int(indices.min())} to {int(indices.max())}")


def kept_table(graph: ChannelGraph, rates: Sequence[Rate] = RATES) -> LongTensor:
    """Channels kept in each group at each rate, (groups, rates): `kept_counts` of every group (SACP, eq. 2)."""
    return _kept_table(tuple(group.channels for group in graph.groups), tuple(rates)).clone()  # type: ignore[return-value]


@lru_cache(maxsize=32)
def _kept_table(channels: tuple[int, ...], rates: tuple[Rate, ...]) -> Tensor:
    exact = exact_rates(rates)
    return torch.stack([kept_counts(count, exact) for count in channels])
