"""The artificial bee colony (Karaboga 2005) on pruning rates, as ABCPruner uses it (Lin et al. 2020, arXiv 2001.08565).

A food source is a configuration. Employed bees try a neighbour of each source, onlookers neighbours of the better
ones, and a scout replaces a source that nobody could improve. It knows nothing of networks: only what `fitness` says.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def forage(
    fitness: Callable[[Tensor], Tensor],
    draw: Callable[[int], Tensor],
    repair: Callable[[Tensor], Tensor],
    network: Callable[[Tensor], Tensor],
    *,
    evaluations: int,
    foods: int,
    limit: int,
    changes: int,
    rates: int = 10,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Employed bees, onlookers and a scout, round after round, until the evaluations are spent.

    Args:
        fitness: (n, groups) rate indices -> (n,) positive, higher is better; called with networks not seen before only.
        draw: n -> (n, groups) feasible configurations.
        repair: (n, groups) -> the same, made feasible.
        network: (n, groups) -> (n, groups); configurations it maps to the same row are one network.
        evaluations: configurations that fitness may be asked about.
        rates: how many there are for a group; indices are below it.

    Returns:
        The configurations evaluated, (evaluations, groups), and their fitness, in the order of evaluation; fewer if
        100 rounds bring nothing new.
    """
    rows: list[Tensor] = []
    known: dict[tuple[int, ...], float] = {}

    def taste(flown: Tensor) -> Tensor:
        """Fitness of the places flown to; -inf for new ones beyond the budget."""
        keys = [tuple(row) for row in network(flown).tolist()]
        fresh = [i for i, key in enumerate(keys) if key not in known and key not in keys[:i]][: evaluations - len(rows)]
        if fresh:
            rows.extend(flown[fresh])
            known.update(zip([keys[i] for i in fresh], fitness(flown[fresh]).tolist(), strict=True))
        return torch.tensor([known.get(key, float("-inf")) for key in keys], dtype=torch.float64)

    def visit(bees: Tensor) -> None:
        """Each bee flies from its source towards or away from another; where it is better there, the source moves."""
        flown = repair(neighbours(sources, bees, changes, generator, rates))
        for bee, place, value in zip(bees.tolist(), flown, taste(flown), strict=True):
            better = bool(value > nectar[bee])
            failures[bee] = 0 if better else failures[bee] + 1
            if better:
                sources[bee], nectar[bee] = place, value

    sources = draw(foods).clone()
    nectar, failures, idle = taste(sources), torch.zeros(foods, dtype=torch.int64), 0
    while len(rows) < evaluations and idle < 100:
        before = len(rows)
        visit(torch.arange(foods))  # employed bees
        chance = 0.9 * nectar / nectar.max().clamp_min(1e-12) + 0.1
        visit(torch.multinomial(chance.clamp_min(0), foods, replacement=True, generator=generator))  # onlookers
        oldest = int(failures.argmax())
        if failures[oldest] >= limit:  # a scout
            sources[oldest] = draw(1)[0]
            nectar[oldest], failures[oldest] = taste(sources[oldest : oldest + 1])[0], 0
        idle = idle + 1 if len(rows) == before else 0
    return torch.stack(rows), torch.tensor(list(known.values()), dtype=torch.float64)


def neighbours(sources: Tensor, bees: Tensor, changes: int, generator: torch.Generator, rates: int = 10) -> Tensor:
    """Where bees fly from their sources x: x_j + u (x_j - y_j) in `changes` random groups j, u in [-1, 1].

    y is another source. A change is at least one step [our reading].

    Shapes: sources (foods, groups), bees (n,) their sources' numbers -> (n, groups).
    """
    foods, groups = sources.shape
    others = (bees + torch.randint(1, foods, bees.shape, generator=generator)) % foods
    where = torch.rand(len(bees), groups, generator=generator).argsort(1)[:, :changes]
    own, other = sources[bees].gather(1, where), sources[others].gather(1, where)
    u = torch.rand(where.shape, generator=generator) * 2 - 1
    moved = (own + (u * (own - other)).round().long()).clamp(0, rates - 1)
    one = torch.where((own == 0) | ((own < rates - 1) & (u > 0)), 1, -1)  # inwards at the ends
    return sources[bees].scatter(1, where, torch.where(moved == own, own + one, moved))
