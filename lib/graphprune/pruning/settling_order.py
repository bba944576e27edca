"""In which order to settle groups, so that few tables are half settled at any time (a narrow path decomposition)."""

from __future__ import annotations

from collections.abc import Sequence

Scope = tuple[int, ...]
"""The numbers of the groups that a table depends on."""


def shared_with(scopes: Sequence[Scope], groups: int) -> list[int]:
    """For each group the set of those that share a table with it, as bits.

    >>> [bin(bits) for bits in shared_with([(0, 1), (1, 2)], 3)]
    ['0b11', '0b111', '0b110']
    """
    shared = [0] * groups
    for scope in scopes:
        for g in scope:
            shared[g] |= sum(1 << h for h in scope)
    return shared


def frontiers(scopes: Sequence[Scope], order: Sequence[int]) -> list[Scope]:
    """Before each place of the order, and at its end: the settled groups that share a table with one that is not.

    >>> frontiers([(0, 1), (1, 2)], [0, 1, 2])
    [(), (0,), (1,), ()]
    """
    shared, settled = shared_with(scopes, len(order)), 0
    found: list[Scope] = [()]
    for t, group in enumerate(order):
        settled |= 1 << group
        found.append(tuple(sorted(g for g in order[: t + 1] if shared[g] & ~settled)))
    return found


def narrow(scopes: Sequence[Scope], weights: Sequence[int], start: int) -> list[int]:
    """An order from `start` on that keeps the frontier narrow: next comes the group that leaves the fewest open.

    Among equals the heaviest: what moves the sum most is settled first, so bounds are tight early.

    >>> narrow([(0, 1), (0, 2), (0, 3)], weights=[1, 1, 5, 2], start=0)
    [0, 2, 3, 1]
    """
    shared = shared_with(scopes, len(weights))
    order, settled, frontier = [start], 1 << start, [start]
    rest = [g for g in range(len(weights)) if g != start]

    def left(group: int) -> list[int]:
        return [g for g in [*frontier, group] if shared[g] & ~(settled | 1 << group)]

    while rest:
        group = min(rest, key=lambda g: (len(left(g)), -weights[g], g))
        frontier = left(group)
        settled |= 1 << group
        order.append(group)
        rest.remove(group)
    return order
