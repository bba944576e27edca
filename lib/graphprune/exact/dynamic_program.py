"""Sums of tables under an integer budget, z(r) = b + sum_j T_j[r_(S_j)]: the best of all configurations for any weight.

The groups are settled one by one. A table counts as soon as the last group of its scope is settled, so what is still to
come depends on few of the groups settled before, the frontier F_t, and on the units s that the budget still needs:

    V_t(x_(F_t), s) = max_i  <w, f_t(x_(F_t), i)> + V_(t+1)(x_(F_(t+1)), max(s - units_t(i), 0)),    V_T(., s) = 0 if s = 0

is the exact value to go. The K best follow from it without a queue: the best completion of a prefix has the value
<w, z(prefix)> + V_t, prefixes of one length have different completions, so at each length only the K highest can lead to
the K best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.pruning.settling_order import Scope, frontiers, narrow

STATES = 1 << 23  # values to go of one weight: 64 MiB
ROWS = 1 << 25  # numbers in the tables of one level: 256 MiB


@dataclass(frozen=True, eq=False)
class Level:
    """One group to settle.

    Attributes:
        group: its number.
        frontier: the settled groups that matter from here on, F_t.
        rows: (states * rates, width) f_t, the sum of the tables that this group completes.
        step: (states, rates) the state of the next level.
        units: (rates,) what a rate adds to the budget.
        low, high: the needs s that can occur and be met, both included.
    """

    group: int
    frontier: Scope
    rows: np.ndarray
    step: np.ndarray
    units: np.ndarray
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class ToGo:
    """The value to go of one weight.

    Attributes:
        weight: (width,) w.
        local: for each level (states, rates), <w, f_t>.
        best: for each level and the end (states, needs + 1), V_t by need - low; the last column is out of reach.
    """

    weight: np.ndarray
    local: list[np.ndarray]
    best: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Configurations of which the first groups of the order are settled.

    Attributes:
        rates: (B, level) rate of each settled group, in the order of elimination.
        state: (B,) the frontier's rates as one number.
        need: (B,) units that the budget still needs.
        z: (B, width) b plus the tables completed.
    """

    rates: np.ndarray
    state: np.ndarray
    need: np.ndarray
    z: np.ndarray

    def __len__(self) -> int:
        return len(self.state)

    @property
    def level(self) -> int:
        return self.rates.shape[1]

    def __getitem__(self, at: np.ndarray | slice) -> Prefixes:
        return Prefixes(self.rates[at], self.state[at], self.need[at], self.z[at])


@dataclass(frozen=True, eq=False)
class Children:
    """Prefixes with one more group settled, before they are made: (children,) each.

    Attributes:
        parent: number of the prefix.
        rate: of the group settled.
        row: its row of the level's f_t.
        state: the frontier's rates afterwards.
        place: the need afterwards, less the next level's low.
    """

    parent: np.ndarray
    rate: np.ndarray
    row: np.ndarray
    state: np.ndarray
    place: np.ndarray

    def __getitem__(self, at: np.ndarray) -> Children:
        return Children(self.parent[at], self.rate[at], self.row[at], self.state[at], self.place[at])


class Elimination:
    """A sum of tables made ready for dynamic programming.

    Args:
        constant: (width,) b.
        tables: scope (ascending) and rows (rates ** |scope|, width), the last group's rate fastest.
        units: (groups, rates) whole numbers >= 0 that each rate adds.
        need: least sum of units.

    Raises:
        ValueError: the values to go would not fit: the frontiers are too wide, or the budget too fine.

    >>> import numpy as np
    >>> tables = [((0,), np.array([[3.0], [1.0]])), ((1,), np.array([[2.0], [1.0]]))]
    >>> total = Elimination(np.zeros(1), tables, units=[[0, 1], [0, 1]], need=1)
    >>> best, values, _ = total.beam(total.root(), [total.togo(np.ones(1))], 2)
    >>> total.configurations(best).tolist(), values.tolist()
    ([[0, 1], [1, 0]], [4.0, 3.0])
    """

    def __init__(
        self, constant: np.ndarray, tables: Sequence[tuple[Scope, np.ndarray]], units: Sequence[Sequence[int]], need: int
    ) -> None:
        self.units = np.asarray(units, np.int64)
        self.groups, self.rates = self.units.shape
        self.need = int(need)
        if self.need > self.units.max(1).sum():
            raise ValueError(f"need={need}: out of reach, all groups together add at most {self.units.max(1).sum()} units")
        fixed = [np.asarray(rows[0], np.float64) for scope, rows in tables if not scope]
        self.constant = sum(fixed, np.asarray(constant, np.float64))
        scopes = [scope for scope, _ in tables]
        self.order = self._choose(scopes)
        widest, states = max(map(len, frontiers(scopes, self.order))), self._states(scopes, self.order)
        if states > STATES or self.rates ** (widest + 1) * len(self.constant) > ROWS:
            raise ValueError(
                f"up to {widest} groups are open at once and the budget has {self.need:,} units: {states:,} values to go, "
                f"where at most {STATES:,} are tabulated; use fewer rates, or rank a sample with Scorer instead"
            )
        self.levels = self._levels(tables)

    def _choose(self, scopes: Sequence[Scope]) -> list[int]:
        """Of the orders from every start that need at most twice the least states, the one with the most units first."""
        weights = self.units.max(1).tolist()
        orders = [narrow(scopes, weights, start) for start in range(self.groups)]
        states = [self._states(scopes, order) for order in orders]
        late = [sum(t * weights[g] for t, g in enumerate(order)) for order in orders]
        return orders[min((i for i in range(self.groups) if states[i] <= 2 * min(states)), key=lambda i: late[i])]

    @property
    def states(self) -> int:
        """The number of values to go of one weight."""
        return sum(len(level.step) * (level.high - level.low + 2) for level in self.levels)

    def _needs(self, order: Sequence[int]) -> list[tuple[int, int]]:
        """Before each group and at the end: the least and the greatest need that can occur and be met."""
        most = self.units.max(1)[order]
        used = np.concatenate([[0], most.cumsum()])
        return [(max(0, self.need - int(u)), min(self.need, int(used[-1] - u))) for u in used]

    def _states(self, scopes: Sequence[Scope], order: Sequence[int]) -> int:
        spans = self._needs(order)[:-1]
        sizes = [self.rates ** len(frontier) for frontier in frontiers(scopes, order)]
        return sum(size * (max(high - low, 0) + 2) for size, (low, high) in zip(sizes, spans, strict=False))

    def _levels(self, tables: Sequence[tuple[Scope, np.ndarray]]) -> list[Level]:
        place = {group: t for t, group in enumerate(self.order)}
        open_at, needs = frontiers([scope for scope, _ in tables], self.order), self._needs(self.order)
        levels = []
        for t, group in enumerate(self.order):
            bag, later = (*open_at[t], group), open_at[t + 1]
            rows = np.zeros((*[self.rates] * len(bag), len(self.constant)))
            for scope, table in tables:
                if scope and max(place[g] for g in scope) == t:
                    rows += self._spread(scope, np.asarray(table, np.float64), bag)
            grid = np.indices([self.rates] * len(bag)).reshape(len(bag), -1)
            step = np.zeros(grid.shape[1], np.int64)
            for g in later:
                step = step * self.rates + grid[bag.index(g)]
            flat, by_state = rows.reshape(-1, len(self.constant)), step.reshape(-1, self.rates)
            levels.append(Level(group, open_at[t], flat, by_state, self.units[group], *needs[t]))
        return levels

    def _spread(self, scope: Scope, table: np.ndarray, bag: Scope) -> np.ndarray:
        """A table with an axis for every group of the bag."""
        axes = sorted(range(len(scope)), key=lambda a: bag.index(scope[a]))
        grid = table.reshape(*[self.rates] * len(scope), -1).transpose(*axes, len(scope))
        return grid.reshape(*[self.rates if g in scope else 1 for g in bag], -1)

    def togo(self, weight: np.ndarray, start: int = 0, extra: Sequence[np.ndarray] = ()) -> ToGo:
        """V_t from level `start` on, for w of shape (width,); `extra` has a number for each row of each level, if given."""
        local: list[np.ndarray] = [np.empty(0)] * self.groups
        best: list[np.ndarray] = [np.empty(0)] * self.groups + [np.array([[0.0, -np.inf]])]
        low = 0
        for t in range(self.groups - 1, start - 1, -1):
            level, after = self.levels[t], best[t + 1]
            local[t] = (level.rows @ weight + (extra[t] if extra else 0)).reshape(level.step.shape)
            needs = np.arange(level.low, level.high + 1)
            column = np.minimum(np.maximum(needs - level.units[:, None], 0) - low, after.shape[1] - 1)  # (rates, needs)
            value = np.full((len(level.step), len(needs) + 1), -np.inf)
            for i in range(self.rates):
                ahead = after[:, column[i]][level.step[:, i]]
                ahead += local[t][:, i, None]
                np.maximum(value[:, :-1], ahead, out=value[:, :-1])
            best[t], low = value, level.low
        return ToGo(weight, local, best)

    def root(self) -> Prefixes:
        """The one prefix with nothing settled."""
        zero = np.zeros(1, np.int64)
        return Prefixes(np.zeros((1, 0), np.int8), zero, zero + self.need, self.constant[None])

    def children(self, prefixes: Prefixes) -> Children:
        """Every prefix with one more group settled, of those that can still meet the budget."""
        level, last = self.levels[prefixes.level], prefixes.level + 1 == self.groups
        low, high = (0, 0) if last else (self.levels[prefixes.level + 1].low, self.levels[prefixes.level + 1].high)
        need = np.maximum(prefixes.need[:, None] - level.units, 0)
        parent, rate = np.nonzero(need <= high)
        row = prefixes.state[parent] * self.rates + rate
        return Children(parent, rate, row, level.step.ravel()[row], need[parent, rate] - low)

    def values(self, prefixes: Prefixes, children: Children, togo: ToGo) -> np.ndarray:
        """The greatest <w, z(r)> of all completions of each child, (children,)."""
        t = prefixes.level
        after = togo.best[t + 1]
        ahead = after.ravel()[children.state * after.shape[1] + children.place]
        return (prefixes.z @ togo.weight)[children.parent] + togo.local[t].ravel()[children.row] + ahead

    def extend(self, prefixes: Prefixes, children: Children) -> Prefixes:
        """Children as prefixes."""
        t, parent = prefixes.level, children.parent
        low = self.levels[t + 1].low if t + 1 < self.groups else 0
        rates = np.concatenate([prefixes.rates[parent], children.rate[:, None].astype(np.int8)], 1)
        z = prefixes.z[parent] + self.levels[t].rows[children.row]
        return Prefixes(rates, children.state, children.place + low, z)

    def now(self, prefixes: Prefixes, togo: ToGo) -> np.ndarray:
        """The greatest <w, z(r)> of all completions of each prefix, (B,)."""
        return prefixes.z @ togo.weight + self.ahead(prefixes, togo)

    def ahead(self, prefixes: Prefixes, togo: ToGo) -> np.ndarray:
        """What the groups not yet settled add to it at most, (B,)."""
        t = prefixes.level
        low = self.levels[t].low if t < self.groups else 0
        return togo.best[t][prefixes.state, prefixes.need - low]

    def beam(
        self, prefixes: Prefixes, togos: Sequence[ToGo], k: int, limits: Sequence[ToGo] = ()
    ) -> tuple[Prefixes, np.ndarray, float]:
        """Complete prefixes, at each length the k of the highest bound: the least of the values in `togos`.

        Args:
            prefixes: where to start.
            togos: what counts; with one, and no limits, the configurations are the k best of all.
            k: how many are kept.
            limits: a prefix goes where its value in one of these is below 0.

        Returns:
            The configurations, their bounds, descending, and the highest bound of anything dropped for want of room.
        """
        dropped, bound = -np.inf, np.full(len(prefixes), np.inf)
        while prefixes.level < self.groups:
            children = self.children(prefixes)
            for limit in limits:
                children = children[self.values(prefixes, children, limit) >= 0]
            bound = np.minimum.reduce([self.values(prefixes, children, togo) for togo in togos])
            order = np.argsort(-bound, kind="stable")
            if len(order) > k:
                dropped = max(dropped, float(bound[order[k]]))
            prefixes, bound = self.extend(prefixes, children[order[:k]]), bound[order[:k]]
        return prefixes, bound, dropped

    def embed(self, indices: np.ndarray) -> np.ndarray:
        """z of whole configurations, (B, groups) -> (B, width)."""
        z, state = np.repeat(self.constant[None], len(indices), 0), np.zeros(len(indices), np.int64)
        for level in self.levels:
            row = state * self.rates + indices[:, level.group]
            z += level.rows[row]
            state = level.step.ravel()[row]
        return z

    def configurations(self, prefixes: Prefixes) -> np.ndarray:
        """The rates in the order of the groups, (B, groups) int64."""
        rows = np.empty((len(prefixes), self.groups), np.int64)
        rows[:, self.order] = prefixes.rates
        return rows
