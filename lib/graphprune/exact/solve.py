"""The proven best of all configurations: no sample needed.

Where every node of the graph sees few groups, an embedding is a sum of table rows, whatever the encoder (`scorer`). So
dynamic programming finds the configuration with the highest dot product among all 10^groups, within the pruning ratio
exactly (`dynamic_program`); the highest cosine follows by half-spaces that rule out all others (`halfspaces`,
`branch_and_bound`). A window of MACs is a quadratic form in the kept counts, another sum of tables, and so is the number
of groups in which two configurations agree.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linprog
from torch import LongTensor, Tensor

from graphprune.encoders.scorer import Scorer
from graphprune.exact.branch_and_bound import TIE, Incumbents, find_incumbents, prove
from graphprune.exact.halfspaces import Problem
from graphprune.exact.problem import Terms, distance_limit, make_terms
from graphprune.pruning.cost import CostModel
from graphprune.pruning.rates import RateSpace
from graphprune.runs.checks import at_least

WIDEST = 1 << 17  # prefixes of one length in the search for the highest dot products


@dataclass(frozen=True, repr=False)
class Optimum:
    """The best configurations, highest first, and what is known of all others.

    Attributes:
        indices: (n, groups) int64 rate indices; n < k only where no more are allowed, or none was found in time.
        scores: (n,) float64, cosines or dot products.
        bounds: (n,) float64: no other configuration that could stand in this place scores higher (to 1e-9).
        seconds: how long it took.
    """

    indices: LongTensor
    scores: Tensor
    bounds: Tensor
    seconds: float

    def __repr__(self) -> str:
        if not len(self.scores):
            return f"Optimum(none found, {self.seconds:.2f} s)"
        known = "proven" if self.proven else f"bound {self.bound:.6f}"
        more = f" of {len(self.indices)}" if len(self.indices) > 1 else ""
        return f"Optimum(score {self.score:.6f}{more}, {known}, {self.seconds:.2f} s)"

    @property
    def score(self) -> float:
        """The highest score."""
        return float(self.scores[0])

    @property
    def bound(self) -> float:
        """No allowed configuration scores higher."""
        return float(self.bounds[0])

    @property
    def gap(self) -> float:
        """By how much at most a place could be filled better; 0 with proof."""
        return float((self.bounds - self.scores).max())

    @property
    def proven(self) -> bool:
        """Whether these are the best of all."""
        return self.gap <= TIE


def optimum(
    scorer: Scorer,
    space: RateSpace,
    *,
    min_ratio: float = 0.0,
    k: int = 1,
    costs: CostModel | None = None,
    macs: tuple[float, float] = (0.0, 1.0),
    apart: int = 1,
    seconds: float = 60.0,
) -> Optimum:
    """The k configurations of the highest cosine similarity to the unpruned network, with proof.

    Args:
        scorer: one whose embedding is a sum of tables (`Scorer.tables`); scores are its, in float64.
        space: of the scorer's graph and rates.
        min_ratio: tau, R(r) >= min_ratio.
        k: how many.
        costs: counts the MACs, if `macs` is given.
        macs: (low, high) shares of the unpruned network's MACs, both ends included.
        apart: in how many groups any two must differ at least. The first is the best of all, each next one the best of
            those that far from all before it.
        seconds: when to stop; the bounds then say what is not proven. Exceeded by making the tables, and by one step of
            the search, which is always made.

    Raises:
        ValueError: an argument out of range, no allowed configuration, or an encoder or network for which the tables are
            not there or too large (`plan` says so before).

    >>> import torch, graphprune
    >>> net = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    >>> encoder = graphprune.GraphEncoder.seeded(0, graph.feature_index.shape[1])
    >>> scorer = graphprune.Scorer(encoder, graph, graphprune.importance.l1(net, graph))
    >>> best = optimum(scorer, graphprune.RateSpace(graph), min_ratio=0.5, k=3)
    >>> best.indices.shape, best.proven
    (torch.Size([3, 2]), True)
    """
    start = time.monotonic()
    terms = make_terms(scorer, space, min_ratio, costs, macs)
    _check(k, apart, space.groups, seconds)
    if apart == 1:
        rows, scores, bounds = find_highest(terms, k, start + seconds)
    else:
        rows, scores, bounds = find_spread(terms, k, apart, start + seconds)
    return _result(rows, scores, bounds, start)


def top_dot(
    scorer: Scorer,
    space: RateSpace,
    *,
    min_ratio: float = 0.0,
    k: int = 1,
    weight: Tensor | None = None,
    costs: CostModel | None = None,
    macs: tuple[float, float] = (0.0, 1.0),
) -> Optimum:
    """The k configurations of the highest dot product <z(r), w>, w by default the unpruned network's embedding.

    Other arguments and errors as in `optimum`. Within the pruning ratio alone this takes milliseconds; with a window of
    MACs the search widens until nothing left out can be better.
    """
    start = time.monotonic()
    terms = make_terms(scorer, space, min_ratio, costs, macs)
    _check(k, 1, space.groups, 1.0)
    w = terms.target if weight is None else weight.detach().cpu().double().numpy()
    if w.shape != terms.target.shape:
        raise ValueError(f"weight must have shape {terms.target.shape}, got {w.shape}")
    return _result(*find_highest_dot(terms, w, k), start)


def plan(
    scorer: Scorer,
    space: RateSpace,
    *,
    min_ratio: float = 0.0,
    costs: CostModel | None = None,
    macs: tuple[float, float] = (0.0, 1.0),
) -> str:
    """What `optimum` would do, in words, or why it cannot."""
    try:
        sums = make_terms(scorer, space, min_ratio, costs, macs).problem().sums
    except ValueError as error:
        return f"no exact optimum: {error}"
    widest = max(len(level.frontier) for level in sums.levels)
    return (
        f"dynamic programming over {sums.groups} groups, at most {widest} open at once: {sums.states:,} values to go, "
        f"{8e-6 * sums.states:.1f} MB, a direction; then prefixes that a direction does not rule out"
    )


def find_highest(terms: Terms, k: int, deadline: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k highest cosines: rates (n, groups), scores (n,), bounds (n,)."""
    problem = terms.problem()
    found = Incumbents(problem, k)
    return _places(problem, found, deadline)


def _places(problem: Problem, found: Incumbents, deadline: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    least = prove(problem, found, *find_incumbents(problem, found, deadline), deadline)
    rows, scores = found.rows[: found.k], found.scores[: found.k]
    return rows, scores, np.maximum(scores, least)


def find_spread(terms: Terms, k: int, apart: int, deadline: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k highest cosines, each the highest of those that differ from all before it in `apart` groups or more."""
    groups = len(terms.units)
    rows, scores, bounds = np.zeros((0, groups), np.int64), np.zeros(0), np.zeros(0)
    known = rows
    for place in range(k):
        now = time.monotonic()
        if place and now > deadline:
            break
        problem = terms.problem()
        found = Incumbents(problem, 1)
        found.add(known, problem.sums.embed(known))
        row, score, above = _places(problem, found, now + (deadline - now) / (k - place))
        if not len(row):
            break
        known = found.rows
        rows, scores, bounds = np.concatenate([rows, row]), np.append(scores, score), np.append(bounds, above)
        terms = replace(terms, limits=(*terms.limits, distance_limit(row[0], len(terms.units[0]), apart)))
    return rows, scores, bounds


def find_highest_dot(terms: Terms, w: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k highest <w, z>: rates, scores, bounds.

    With limits, <w, z> <= <w, z> + <m, s> for any m >= 0 bounds them; m is chosen by Kelley's cutting planes.
    """
    problem = terms.problem()
    sums, root, width = problem.sums, problem.sums.root(), len(w)
    weights = [np.concatenate([w, np.zeros(len(problem.sizes))])]
    if problem.limits:
        weights.append(np.concatenate([w, find_multipliers(problem, w)]))
    togos = [sums.togo(weight) for weight in weights]
    wide = k
    while True:
        whole, _, dropped = sums.beam(root, togos, wide, problem.limits)
        whole = whole[problem.allowed(whole.z)]
        scores = whole.z[:, :width] @ w
        order = np.argsort(-scores, kind="stable")[:k]
        rows, scores = sums.configurations(whole)[order], scores[order]
        if dropped == -np.inf or (len(order) == k and dropped <= scores[-1]) or wide >= WIDEST:
            return rows, scores, np.maximum(scores, dropped)
        wide *= 8


def find_multipliers(problem: Problem, w: np.ndarray) -> np.ndarray:
    """m >= 0 with about the least max_r <w, z> + <m, s>."""
    sums, width = problem.sums, len(w)
    m, planes = np.zeros(len(problem.sizes)), []
    for _ in range(12):
        best, _, _ = sums.beam(sums.root(), [sums.togo(np.concatenate([w, m / problem.sizes]))], 1)
        value, slack = best.z[0, :width] @ w, best.z[0, width:] / problem.sizes
        planes.append((-float(value), np.append(slack, -1.0)))
        upper, rows = np.array([b for b, _ in planes]), np.array([row for _, row in planes])
        largest = 1e3 * max(np.abs(upper).max(), 1e-12)
        cost = np.append(np.zeros(len(m)), 1.0)
        solved = linprog(cost, A_ub=rows, b_ub=upper, bounds=[*[(0, largest)] * len(m), (None, None)])
        if not solved.success:  # any m >= 0 bounds
            break
        m = solved.x[:-1]
    return m / problem.sizes


def _check(k: int, apart: int, groups: int, seconds: float) -> None:
    at_least(1, k=k)
    if not 1 <= apart <= groups:
        raise ValueError(f"apart={apart}: must lie in 1 .. {groups}, the number of groups")
    if not seconds > 0:
        raise ValueError(f"seconds={seconds}: must be positive")


def _result(rows: np.ndarray, scores: np.ndarray, bounds: np.ndarray, start: float) -> Optimum:
    if not len(rows):
        raise ValueError("no allowed configuration was found: lower min_ratio, or move or widen macs")
    tensors = (torch.from_numpy(rows), torch.from_numpy(scores), torch.from_numpy(bounds))
    return Optimum(*tensors, time.monotonic() - start)  # type: ignore[arg-type]
