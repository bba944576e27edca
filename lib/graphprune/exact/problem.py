"""A scorer's embedding and the budgets as one sum of tables.

The embedding is one by the scorer's plan. The MACs are a quadratic form in the kept counts, so a constant plus tables of
one and of two groups' rates; the number of groups in which a configuration agrees with another is one of single groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphprune.encoders.scorer import Scorer
from graphprune.exact.dynamic_program import Elimination
from graphprune.exact.halfspaces import Problem, make_problem
from graphprune.pruning.cost import CostModel
from graphprune.pruning.rates import RateSpace, exact_rates, kept_table
from graphprune.pruning.settling_order import Scope


@dataclass(frozen=True)
class Limit:
    """A whole number s(r) = constant + sum of table entries that must not be negative; `size` is about how large."""

    constant: int
    tables: list[tuple[Scope, np.ndarray]]
    size: float


@dataclass(frozen=True)
class Terms:
    """Sums of tables to choose from: z(r) = constant + tables, at least `need` units, within the limits."""

    constant: np.ndarray
    tables: list[tuple[Scope, np.ndarray]]
    target: np.ndarray
    units: Sequence[Sequence[int]]
    need: int
    limits: tuple[Limit, ...] = ()

    def problem(self) -> Problem:
        """Ready for dynamic programming; z has a coordinate more for each limit."""
        width = len(self.target)
        parts = [(scope, rows, slice(0, width)) for scope, rows in self.tables]
        for j, limit in enumerate(self.limits):
            parts += [(scope, rows[:, None], slice(width + j, width + j + 1)) for scope, rows in limit.tables]
        padded = []
        for scope, rows, columns in parts:
            whole = np.zeros((len(rows), width + len(self.limits)))
            whole[:, columns] = rows
            padded.append((scope, whole))
        constant = np.concatenate([self.constant, [limit.constant for limit in self.limits]])
        sizes = np.array([limit.size for limit in self.limits])
        return make_problem(Elimination(constant, padded, self.units, self.need), self.target, sizes)


def make_terms(scorer: Scorer, space: RateSpace, min_ratio: float, costs: CostModel | None, macs: tuple[float, float]) -> Terms:
    """The scorer's tables with the budgets."""
    if scorer.tables is None:
        raise ValueError(
            f"scorer ({scorer.plan}) is no sum of tables: use an encoder of fewer layers, or a directed one, or rank a "
            "sample with Scorer"
        )
    units, need = space.budget(min_ratio)
    if len(units) != len(scorer.graph.groups) or space.rates != exact_rates(scorer.rates):
        rates = ", ".join(map(str, space.rates))
        raise ValueError(
            f"space has {len(units)} groups at the rates {rates}, scorer others: make both from one graph and rates"
        )
    constant, tables = scorer.tables
    return Terms(
        constant.cpu().double().numpy(),
        [(scope, rows.cpu().double().numpy()) for scope, rows in tables],
        scorer.reference.cpu().double().numpy(),
        units,
        need,
        macs_limits(costs, kept_table(scorer.graph, scorer.rates), macs),
    )


def macs_limits(costs: CostModel | None, kept: Tensor, macs: tuple[float, float]) -> tuple[Limit, ...]:
    """high * M - macs(r) >= 0 and macs(r) - low * M >= 0 in whole MACs, those that can fail.

    The MACs are m(k) = m_0 + sum_i a_i (k_i - k_i0) + sum_(i<j) q_ij (k_i - k_i0)(k_j - k_j0) + squares: read off by moving
    one and two groups at a time.
    """
    low, high = macs
    if not 0 <= low < high <= 1:
        raise ValueError(f"macs={macs}: must be shares of the full MACs, 0 <= low < high <= 1")
    if macs == (0.0, 1.0):
        return ()
    if costs is None:
        raise ValueError(f"macs={macs}: give costs=CostModel(graph, example_input) too, to count them")
    constant, tables = macs_tables(costs, kept)
    full = costs.full.macs
    most, least = int(high * full), int(low * full)
    most += ((most + 1) / full <= high) - (most / full > high)
    least += (least / full < low) - ((least - 1) / full >= low)
    above = Limit(most - constant, [(scope, -rows) for scope, rows in tables], full)
    below = Limit(constant - least, tables, full)
    return tuple(limit for limit, wanted in ((above, high < 1), (below, low > 0)) if wanted)


def macs_tables(costs: CostModel, kept: Tensor) -> tuple[int, list[tuple[Scope, np.ndarray]]]:
    """The MACs as a constant and tables of the rates of one and of two groups; kept: (groups, rates)."""
    groups, rates = kept.shape

    def count(rows: list[tuple[tuple[int, int], ...]]) -> np.ndarray:
        indices = torch.zeros(len(rows), groups, dtype=torch.long)
        for row, settings in zip(indices, rows, strict=True):
            for group, rate in settings:
                row[group] = rate
        return costs.of_counts(kept[torch.arange(groups), indices])[0].numpy()

    base = int(count([()])[0])
    alone = count([((g, i),) for g in range(groups) for i in range(rates)]).reshape(groups, rates) - base
    pairs = [(g, h) for g in range(groups) for h in range(g + 1, groups)]
    last = rates - 1
    both = count([((g, last), (h, last)) for g, h in pairs]) - base if pairs else np.empty(0, np.int64)
    change = (kept - kept[:, :1]).numpy()
    tables: list[tuple[Scope, np.ndarray]] = [((g,), alone[g]) for g in range(groups)]
    for (g, h), value in zip(pairs, both, strict=True):
        if shared := int(value - alone[g, last] - alone[h, last]):
            factor = shared // int(change[g, last] * change[h, last])  # exact: the MACs are a quadratic form of integers
            tables.append(((g, h), factor * np.outer(change[g], change[h]).ravel()))
    return base, tables


def distance_limit(row: np.ndarray, rates: int, apart: int) -> Limit:
    """Configurations that differ from `row` (groups,) in at least `apart` groups."""
    same: list[tuple[Scope, np.ndarray]] = [((g,), -(np.arange(rates) == rate).astype(np.int64)) for g, rate in enumerate(row)]
    return Limit(len(row) - apart, same, len(row))
