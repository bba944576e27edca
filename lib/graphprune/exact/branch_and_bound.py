"""The highest cosines of all configurations, with proof: search for good ones, then rule out every other.

Prefixes grow group by group. One is dropped as soon as some direction (`halfspaces`) shows that none of its completions has a
cosine above the k-th best found, or that none is within a limit. Where many are left, a direction is made for one of
them: it drops its kind too. What is left at full length is scored. Blocks of prefixes go depth first, so what is in
memory stays small, and when time is up the blocks still open have a bound: the gap is known.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from graphprune.exact.dynamic_program import Prefixes, ToGo
from graphprune.exact.halfspaces import Direction, Problem, bound, separate
from graphprune.pruning.best import Best

TIE = 1e-9  # cosines closer than this count as equal; rounding is 1e-13
BLOCK = 8192  # prefixes that grow together
CROWD = 512  # more prefixes than this are worth a direction of their own
DIRECTIONS = 10  # tried on each prefix: the first one and the latest
ATOMS = 4  # of these, that first say where a prefix can lead
KEPT = 1024  # best configurations remembered
STARTS = 8  # of the local search
BOUNDING = 0.1  # share of the time that is left for bounds of what could not be searched


class Incumbents:
    """The best configurations met so far, highest cosine first.

    Attributes:
        rows: (n, groups) rate indices.
        scores: (n,) cosines.
    """

    def __init__(self, problem: Problem, k: int) -> None:
        self.problem, self.k, self._best = problem, k, Best(max(k, KEPT), sorted_ties=True)

    def __len__(self) -> int:
        return len(self._best)

    @property
    def rows(self) -> np.ndarray:
        return self._best.rows.numpy().reshape(-1, self.problem.sums.groups)

    @property
    def scores(self) -> np.ndarray:
        return self._best.scores.numpy()

    @property
    def threshold(self) -> float:
        """The k-th best cosine: what another configuration has to beat."""
        return float(self.scores[self.k - 1]) if len(self) >= self.k else -1.0

    def add(self, rows: np.ndarray, z: np.ndarray) -> None:
        """Take in those within the limits, (B, groups) and (B, width)."""
        allowed = self.problem.allowed(z)
        scores = self.problem.cosines(z)
        self._best.add(torch.from_numpy(rows[allowed]), torch.from_numpy(scores[allowed]))

    def complete(self, prefixes: Prefixes) -> None:
        """Take in whole prefixes."""
        if len(prefixes):
            self.add(self.problem.sums.configurations(prefixes), prefixes.z)


def find_incumbents(problem: Problem, found: Incumbents, deadline: float) -> tuple[float, Direction]:
    """Fill `found` with good configurations, at least with those that one bound and one beam meet, until the deadline.

    Returns:
        An upper bound on the cosine of all, 1 where there was no time for one, and its direction.
    """
    sums = problem.sums
    highest, direction, atoms = bound(problem, sums.root(), deadline)
    found.complete(atoms)
    while True:
        before, near = found.threshold, direction
        c = float(found.scores[0]) if len(found) else 0.0
        if c < 0:  # |z| >= <v, z>: what the highest dot product with t - c v improves is better
            z = sums.embed(found.rows[:1])[0, : len(problem.target)]
            near = replace(direction, u=z / np.linalg.norm(z))
        for weight in (near.weight(problem, c), near.weight(problem, highest)):
            found.complete(sums.beam(sums.root(), [sums.togo(weight)], KEPT, problem.limits)[0])
            if time.monotonic() > deadline:
                return highest, direction
        improve(problem, found, deadline)
        if found.threshold <= before + TIE or time.monotonic() > deadline:
            return highest, direction


def improve(problem: Problem, found: Incumbents, deadline: float) -> None:
    """Steepest ascent from the best configurations over moves of one group and of two in opposite directions."""
    sums = problem.sums
    moves = _moves(sums.groups, sums.rates)
    for row in found.rows[:STARTS]:
        score = -np.inf
        while time.monotonic() <= deadline:
            near = row + moves
            near = near[((near >= 0) & (near < sums.rates)).all(1)]
            near = near[np.take_along_axis(sums.units, near.T, 1).sum(0) >= sums.need]
            z = sums.embed(near)
            found.add(near, z)
            scores = np.where(problem.allowed(z), problem.cosines(z), -np.inf)
            best = int(scores.argmax())
            if scores[best] <= score + TIE:
                break
            row, score = near[best], scores[best]


def _moves(groups: int, rates: int) -> np.ndarray:
    one = np.eye(groups, dtype=np.int64)
    single = [step * one for step in range(1 - rates, rates)]
    pairs = [(up * one[:, None] - down * one[None]).reshape(-1, groups) for up in (1, 2) for down in (1, 2)]
    return np.concatenate(single + pairs)


def prove(problem: Problem, found: Incumbents, highest: float, direction: Direction, deadline: float) -> float:
    """Rule out every configuration that is not among the first k of `found`, and add those better.

    Args:
        problem: the problem.
        found: what `find_incumbents` found.
        highest, direction: an upper bound on every cosine, and a direction, such as its.
        deadline: by `time.monotonic()`, when to stop. The last tenth of the time there is goes to bounds of what is open.

    Returns:
        No configuration outside the k has a cosine above this (to 1e-9): their k-th score, or more if time ran out.
    """
    sums = problem.sums
    now = time.monotonic()
    search_until = deadline - BOUNDING * max(deadline - now, 0) if deadline < np.inf else deadline
    first = sums.togo(direction.weight(problem, max(found.threshold, 0) + TIE))
    stack = [(sums.root(), [first])]
    while stack:
        if time.monotonic() > search_until:
            still = open_bound(problem, [prefixes for prefixes, _ in stack], highest, deadline)
            return max(found.threshold, min(still, 1.0))
        prefixes, togos = stack.pop()
        prefixes = grow(problem, prefixes, togos, found.threshold)
        if prefixes.level == sums.groups:
            found.complete(prefixes)
            continue
        prefixes, togos = thin(problem, prefixes, togos, found, search_until)
        stack.extend((prefixes[i : i + BLOCK], togos) for i in range(0, len(prefixes), BLOCK))
    return found.threshold if found.threshold >= 0 else prove_negative(problem, found, deadline)


def open_bound(problem: Problem, blocks: list[Prefixes], highest: float, deadline: float) -> float:
    """An upper bound on every completion of blocks of prefixes: `highest`, unless there is time for a better one."""
    still = -1.0
    for prefixes in blocks:
        if still >= highest or time.monotonic() > deadline:
            return highest
        still = max(still, bound(problem, prefixes, deadline, patience=8)[0])
    return min(highest, still)


def prove_negative(problem: Problem, found: Incumbents, deadline: float) -> float:
    """As `prove`, where the k-th cosine c found is below 0 and no other configuration has one of 0 or more.

    Half-spaces rule out none here. But cos > c means <t, z> - c |z| > 0, and by the triangle inequality

        |z| <= |z(prefix) + sum_(t to come) mean f_t| + sum_(t to come) |f_t - mean f_t|,

    where the last sum and <t, z> are sums of table entries.
    """
    sums, width = problem.sums, len(problem.target)
    means = [level.rows[:, :width].mean(0) for level in sums.levels]
    spreads = [np.linalg.norm(level.rows[:, :width] - mean, axis=1) for level, mean in zip(sums.levels, means, strict=True)]
    centre = np.concatenate([np.cumsum(means[::-1], 0)[::-1], np.zeros((1, width))])
    weight = np.concatenate([problem.target, np.zeros(len(problem.limits))])
    stack, c, togo = [sums.root()], 1.0, None
    while stack:
        if time.monotonic() > deadline:
            return 0.0
        if togo is None or found.threshold > c:
            c = found.threshold
            togo = sums.togo(weight, extra=[-c * spread for spread in spreads])
        prefixes = grow(problem, stack.pop(), [], c)
        if prefixes.level == sums.groups:
            found.complete(prefixes)
            continue
        length = np.linalg.norm(prefixes.z[:, :width] + centre[prefixes.level], axis=1)
        prefixes = prefixes[sums.now(prefixes, togo) - (c + TIE) * length >= 0]
        stack.extend(prefixes[i : i + BLOCK] for i in range(0, len(prefixes), BLOCK))
    return found.threshold


def grow(problem: Problem, prefixes: Prefixes, togos: list[ToGo], threshold: float) -> Prefixes:
    """One more group, without what a limit or a direction rules out; whole configurations, without those below `threshold`."""
    sums = problem.sums
    children = sums.children(prefixes)
    for limit in problem.limits:
        children = children[sums.values(prefixes, children, limit) >= 0]
    for togo in reversed(togos):
        children = children[sums.values(prefixes, children, togo) > 0]
    if prefixes.level == sums.groups - 1:
        children = children[last_group(problem, prefixes, threshold)[children.parent, children.rate]]
    return sums.extend(prefixes, children)


def last_group(problem: Problem, prefixes: Prefixes, threshold: float) -> np.ndarray:
    """Which rates of the last group may give a cosine of `threshold`, (B, rates): <t, z> >= threshold |z| but for rounding.

    With |z + f|^2 = |z|^2 + 2 <z, f> + |f|^2 no z + f is made.
    """
    level, width = problem.sums.levels[-1], len(problem.target)
    z, f = prefixes.z[:, :width], level.rows[:, :width].reshape(*level.step.shape, width)  # (B, D), (states, rates, D)
    product = np.empty((len(z), f.shape[1]))
    for state in np.unique(prefixes.state):
        at = prefixes.state == state
        product[at] = z[at] @ f[state].T
    own = (z**2).sum(1, keepdims=True)
    square = own + 2 * product + (f**2).sum(2)[prefixes.state]
    along = (z @ problem.target)[:, None] + (f @ problem.target)[prefixes.state]
    rounding = 1e-7 * (np.sqrt(own) + np.linalg.norm(f, axis=2).max())  # the square of it is far above 1e-16
    return np.asarray(along - threshold * np.sqrt(np.maximum(square, 0)) >= -rounding)


def thin(
    problem: Problem, prefixes: Prefixes, togos: list[ToGo], found: Incumbents, deadline: float
) -> tuple[Prefixes, list[ToGo]]:
    """Make directions for single prefixes until few are left, two do not help, or the deadline; they go with the prefixes."""
    failures, turn, left = 0, 0, np.arange(len(prefixes))
    while len(left) > CROWD and failures < 2 and prefixes.level < problem.sums.groups - 1 and time.monotonic() <= deadline:
        turn += 1
        at = left[turn * 7919 % len(left)]
        one = prefixes[at : at + 1]
        atoms = np.concatenate([problem.sums.beam(one, [togo], 1)[0].z for togo in togos[-ATOMS:]])
        togo, met = separate(problem, one, max(found.threshold, 0) + TIE, atoms, deadline)
        for whole in met:
            found.complete(whole)
        if togo is None:
            failures += 1
            continue
        kept = left[problem.sums.now(prefixes, togo)[left] > 0]
        failures += len(kept) > 0.9 * len(left)
        left, togos = kept, [togos[0], *[*togos[1:], togo][1 - DIRECTIONS :]]
    return prefixes[left], togos
