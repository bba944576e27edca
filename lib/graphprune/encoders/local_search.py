"""Searches for the configurations that a score believes in most: local search and evolution, in a window of cost.

The best of a million draws is far from a score's maximum. Whether going further up still buys true accuracy, or only
what the score gets wrong (Goodhart's law), shows when the networks found are trained. The proven maximum of a
similarity is `exact.optimum`; these two ask for nothing but a score, and prove nothing.

A network is written in levels, one a group: level i is the i-th largest number of channels that a rate can leave there.
So networks are different if and only if their levels are. In rates, a level is the highest rate that leaves so many,
where R(r) is highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import LongTensor, Tensor

from graphprune.pruning.best import Best
from graphprune.pruning.window import Score, Window
from graphprune.runs import runtime
from graphprune.runs.checks import at_least

VALUES = 1 << 22  # levels of neighbours that exist at a time
TRIES = 50  # batches of mutants drawn for one generation before it makes do with fewer


@dataclass(frozen=True, eq=False)
class Ascent:
    """What a search found.

    Attributes:
        indices: (n, groups) rate indices of the best networks it scored, no network twice, the best first; n < k only
            where it scored fewer.
        scores: (n,) theirs.
        scored: how many configurations were scored; those met again count again.
        curve: (rounds,) the best score so far after each round, the first being that of the starting points.
    """

    indices: LongTensor
    scores: Tensor
    scored: int
    curve: Tensor


@dataclass(frozen=True, eq=False)
class Levels:
    """The networks of a window, written in levels."""

    window: Window

    @cached_property
    def of_rate(self) -> Tensor:
        """(groups, rates) the level of each rate."""
        return torch.cat([torch.zeros_like(self.window.table[:, :1]), (self.window.table.diff(dim=1) != 0).cumsum(1)], 1)

    @cached_property
    def top(self) -> Tensor:
        """(groups,) the highest level, the fewest channels."""
        return self.of_rate[:, -1]

    @cached_property
    def to_rate(self) -> Tensor:
        """(groups, rates) the highest rate of each level."""
        return (self.of_rate[:, None] <= torch.arange(self.of_rate.shape[1])[:, None]).sum(2) - 1

    def rates(self, levels: Tensor) -> Tensor:
        """(B, groups) levels -> (B, groups) rate indices."""
        return self.to_rate[torch.arange(len(self.top)), levels]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n of the window's configurations in levels, uniformly, with replacement."""
        return self.of_rate[torch.arange(len(self.top)), self.window.draw(n, generator)]

    def inside(self, levels: Tensor) -> Tensor:
        """(B, groups) -> (B,) bool: levels that exist, of networks that the window allows."""
        there = ((levels >= 0) & (levels <= self.top)).all(1)
        there[there.clone()] = self.window.allows(self.rates(levels[there]))
        return there

    def scores(self, score: Score, levels: Tensor) -> Tensor:
        """(B, groups) -> (B,)."""
        found = score(self.rates(levels)).detach().cpu()
        if found.shape != (len(levels),) or not found.isfinite().all():
            raise ValueError(f"score: must give one finite number for each of {len(levels)} rows, got {tuple(found.shape)}")
        return found


class History:
    """The k best different networks scored so far, in levels, and how the search came to them.

    Attributes:
        best: of the networks.
        scored: how many were scored.
        curve: the best score after each round so far.
    """

    def __init__(self, k: int) -> None:
        self.best, self.scored, self.curve = Best(k), 0, [float("-inf")]

    def add(self, levels: Tensor, scores: Tensor) -> None:
        """Scored networks, (B, groups) and (B,); the curve's last point follows."""
        self.best.add(levels, scores)
        self.scored += len(levels)
        self.curve[-1] = float(self.best.scores[0])

    def result(self, levels: Levels) -> Ascent:
        """What the search found."""
        rates: LongTensor = levels.rates(self.best.rows)  # type: ignore[assignment]
        return Ascent(rates, self.best.scores, self.scored, torch.tensor(self.curve, dtype=torch.float64))


# --- local search -----------------------------------------------------------------------------------------------------


def climb(score: Score, window: Window, *, k: int = 1, restarts: int = 64, reach: int = 2, seed: int = 0) -> Ascent:
    """Steepest ascent from many starting points at once, each until no neighbour is better.

    A neighbour prunes one group by up to `reach` levels more or less, or one group more and another less: those swaps go
    along a narrow window of MACs, which single steps would leave. The starting points are drawn uniformly from the window.

    Args:
        score: (B, groups) rate indices -> (B,), higher is better.
        window: what is allowed; nothing outside is scored.
        k: how many of the networks scored to return.
        restarts: starting points.
        reach: levels by which a group changes in one move, at most.
        seed: of the starting points.

    Raises:
        ValueError: `k`, `restarts` or `reach` below 1, an empty window, or scores that are not one finite number a row.

    >>> import torch, graphprune
    >>> from graphprune.pruning.window import Window
    >>> example = torch.zeros(1, 1, 8, 8)
    >>> window = Window(graphprune.trace(graphprune.models.tiny_cnn(), example), example, macs=(0.2, 0.4))
    >>> climb(lambda indices: -indices[:, 0].float(), window).indices[:, 0].tolist()
    [5]
    """
    at_least(1, k=k, restarts=restarts, reach=reach)
    levels, history = Levels(window), History(k)
    moves = steps(len(levels.top), reach)
    at = levels.draw(restarts, runtime.seed_generator(seed, "ascent", "climb"))
    height = levels.scores(score, at)
    history.add(at, height)
    while len(at):
        history.curve.append(history.curve[-1])
        parts = at.split(max(1, VALUES // moves.numel()))
        at, height = _ascended(score, levels, history, moves, parts, height)
    return history.result(levels)


def _ascended(
    score: Score, levels: Levels, history: History, moves: Tensor, parts: tuple[Tensor, ...], height: Tensor
) -> tuple[Tensor, Tensor]:
    """The best neighbours of places of that height (B,), and their heights; of those places alone that have a better one."""
    ats, heights = [], []
    for part, own in zip(parts, height.split(len(parts[0])), strict=True):
        near = (part[:, None] + moves).flatten(0, 1)
        inside = levels.inside(near)
        found = torch.full((len(near),), float("-inf"), dtype=own.dtype)
        if inside.any():
            found[inside] = levels.scores(score, near[inside])
            history.add(near[inside], found[inside])
        highest, move = found.reshape(len(part), -1).max(1)
        up = highest > own
        ats.append((part + moves[move])[up])
        heights.append(highest[up])
    return torch.cat(ats), torch.cat(heights)


def steps(groups: int, reach: int) -> Tensor:
    """All moves: one group up to `reach` levels up or down, or one up and another down,
    (2 reach groups + reach^2 groups (groups - 1), groups)."""
    one = torch.cat([size * torch.eye(groups, dtype=torch.long) for size in range(1, reach + 1)])
    swaps = (one[:, None] - one).flatten(0, 1)
    return torch.cat([one, -one, swaps[(swaps != 0).sum(1) == 2]])


# --- evolution --------------------------------------------------------------------------------------------------------


def evolve(
    score: Score,
    window: Window,
    *,
    k: int = 1,
    population: int = 256,
    children: int = 1024,
    generations: int = 100,
    seed: int = 0,
) -> Ascent:
    """A (mu + lambda) evolution strategy (Beyer and Schwefel 2002) on whole generations at a time.

    Each child has one parent, or (every other one) two, from each of which a group comes with equal chance. Then each
    group moves with probability 2 / groups, one at least, by one or two levels up or down. Of parents and children
    together, the best different networks are the next parents. Survival is by score alone, not by age as in regularised
    evolution (Real et al. 2019, arXiv 1802.01548): that guards against scores that are noise, and these are exact.

    Args:
        score: (B, groups) rate indices -> (B,), higher is better.
        window: what is allowed; children outside are drawn again.
        k: how many of the networks scored to return.
        population: mu, parents; the first are drawn uniformly from the window.
        children: lambda, a generation.
        generations: how many.
        seed: of all draws.

    Raises:
        ValueError: `k`, `population`, `children` or `generations` below 1, an empty window, or scores that are not one
            finite number a row.
    """
    at_least(1, k=k, population=population, children=children, generations=generations)
    generator = runtime.seed_generator(seed, "ascent", "evolve")
    levels, history, parents = Levels(window), History(k), Best(population)
    first = levels.draw(population, generator)
    scores = levels.scores(score, first)
    for pool in (history, parents):
        pool.add(first, scores)
    for _ in runtime.progress(range(generations), "generations"):
        history.curve.append(history.curve[-1])
        born = _born(levels, parents.rows, children, generator)
        if len(born):
            scores = levels.scores(score, born)
            for pool in (history, parents):
                pool.add(born, scores)
    return history.result(levels)


def _born(levels: Levels, parents: Tensor, children: int, generator: torch.Generator) -> Tensor:
    """Children inside the window, (at most `children`, groups)."""
    born: list[Tensor] = []
    for _ in range(TRIES):
        drawn = mutate(parents, children, generator)
        born.append(drawn[levels.inside(drawn)])
        if sum(map(len, born)) >= children:
            break
    return torch.cat(born)[:children]


def mutate(parents: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Children of parents drawn at random, inside the window or not, (mu, groups) -> (n, groups)."""
    groups = parents.shape[1]
    mother, father = parents[torch.randint(len(parents), (2, n), generator=generator)]
    crossed = torch.randint(2, (n, groups), generator=generator).bool() & (torch.arange(n) % 2 == 1)[:, None]
    moved = torch.rand(n, groups, generator=generator) < 2 / groups
    moved[torch.arange(n), torch.randint(groups, (n,), generator=generator)] = True
    size = torch.randint(1, 3, (n, groups), generator=generator) * (2 * torch.randint(2, (n, groups), generator=generator) - 1)
    return torch.where(crossed, father, mother) + moved * size
