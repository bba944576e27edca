"""Look-up tables over the rates of a few groups: added, merged, and read for many configurations at once.

A table has a scope S, a few groups, and a row for every choice of their rates, the last group's fastest. A sum of tables
with scopes S_1, S_2, ... is itself a table over their union, as long as |rates|^|union| rows can be held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

Scope = tuple[int, ...]
"""The numbers of the groups that something depends on, ascending."""

Table = tuple[Scope, Tensor]
"""A scope and its rows, (rates ** |scope|, width)."""


def union(scopes: Iterable[Scope]) -> Scope:
    """The groups of any of the scopes.

    >>> union([(0, 3), (), (1, 3)])
    (0, 1, 3)
    """
    return tuple(sorted(set().union(*scopes)))


def total(tables: Iterable[Table], scope: Scope, rates: int) -> Tensor:
    """The sum of tables as the rows of one table, (rates ** |scope|, width); `scope` holds all of theirs.

    >>> import torch
    >>> total([((0,), torch.tensor([[1.0], [2.0]])), ((1,), torch.tensor([[10.0], [20.0]]))], (0, 1), 2).flatten().tolist()
    [11.0, 21.0, 12.0, 22.0]
    """
    grid: Tensor | None = None
    for own, rows in tables:
        shape = [rates if group in own else 1 for group in scope]
        grid = rows.reshape(*shape, -1) if grid is None else grid + rows.reshape(*shape, -1)
    assert grid is not None, "a sum of no tables has no width"
    return grid.expand(*[rates] * len(scope), -1).reshape(rates ** len(scope), -1)


def merge(scopes: Sequence[Scope]) -> dict[Scope, list[int]]:
    """Items by the table they go to: a scope inside a larger one joins it.

    >>> merge([(0,), (0, 1), (1, 2), ()])
    {(0, 1): [1, 0, 3], (1, 2): [2]}
    """
    merged: dict[Scope, list[int]] = {}
    for v in sorted(range(len(scopes)), key=lambda v: -len(scopes[v])):
        home = next((scope for scope in merged if set(scopes[v]) <= set(scope)), scopes[v])
        merged.setdefault(home, []).append(v)
    return merged


def fold(scopes: Sequence[Scope], limit: int) -> dict[Scope, list[int]]:
    """Items by the table they go to: scopes join while their union has at most `limit` groups.

    >>> fold([(0,), (1,), (2,), (3, 4, 5)], 2)
    {(3, 4, 5): [3], (0, 1): [0, 1], (2,): [2]}
    """
    bins: list[tuple[Scope, list[int]]] = []
    for v in sorted(range(len(scopes)), key=lambda v: -len(scopes[v])):
        for j, (scope, members) in enumerate(bins):
            both = union([scope, scopes[v]])
            if both == scope or len(both) <= limit:
                bins[j] = (both, [*members, v])
                break
        else:
            bins.append((scopes[v], [v]))
    return dict(bins)


@dataclass(frozen=True)
class Lookup:
    """Sums of tables, ready to be read: the tables one below the other, in bags of which each is one sum.

    Attributes:
        rows: (sum of rates ** |scope|, width).
        strides: (groups, tables) float32, whole numbers: configuration @ strides + offsets = the row of each table.
        offsets: (tables,) where each table starts.
        bags: (sums,) the first table of each sum.
    """

    rows: Tensor
    strides: Tensor
    offsets: Tensor
    bags: Tensor

    @classmethod
    def stack(cls, sums: Sequence[Sequence[Table]], groups: int, rates: int) -> Lookup:
        tables = [table for tables in sums for table in tables]
        strides = torch.zeros(groups, len(tables))
        for j, (scope, _) in enumerate(tables):
            for place, group in enumerate(reversed(scope)):
                strides[group, j] = rates**place
        starts = [0, *accumulate(len(rows) for _, rows in tables)][:-1]
        rows = torch.cat([rows for _, rows in tables])
        device, bags = rows.device, [0, *accumulate(map(len, sums))][:-1]
        return cls(rows, strides.to(device), *(torch.tensor(x, dtype=torch.int32, device=device) for x in (starts, bags)))

    @property
    def bytes(self) -> int:
        return self.rows.numel() * self.rows.element_size()

    def __call__(self, indices: Tensor) -> Tensor:
        """(B, groups) rate indices -> (B, sums, width)."""
        at = (indices.float() @ self.strides).int() + self.offsets  # exact: rows stay below 2^24
        if len(self.bags) == 1:
            return F.embedding_bag(at, self.rows, mode="sum")[:, None]
        first = torch.arange(len(at), dtype=torch.int32, device=at.device)[:, None] * at.shape[1] + self.bags
        return F.embedding_bag(at.flatten(), self.rows, first.flatten(), mode="sum").unflatten(0, (len(at), -1))
