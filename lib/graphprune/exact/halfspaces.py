"""Upper bounds on a cosine: half-spaces that hold every embedding z(r) of a set of configurations.

With t the unit vector of the unpruned network, c >= 0 and any unit vector u, |z| >= <u, z>, so

    <t, z> / |z| > c    implies    <t - c u, z> > 0,

and where dynamic programming finds no configuration with <t - c u, z> > 0, none has a cosine above c. The best u is the
projection p of t on the cone of all z(r), and the best c is |p|. The cone is found by columns: project on those known,
let dynamic programming find the z furthest outside, repeat. A limit such as the MACs is one more coordinate s_j(r) >= 0
of z, which enters with a multiplier, <t - c u, z> + <m, s> > 0 with m >= 0, and in the projection as sum_i x_i s(r_i) >= 0.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from graphprune.exact.dynamic_program import Elimination, Prefixes, ToGo

STIFF = 1e3  # weight of the limits in the projection
TIGHT = 1e-4  # a projection whose furthest column is outside by less than this sine is good enough
DINKELBACH = 30


@dataclass(frozen=True, eq=False)
class Problem:
    """Which configuration has the highest cosine, among those within the limits?

    Attributes:
        sums: z(r), the embedding and then a coordinate for each limit, s_j(r) >= 0.
        target: (D,) t, of length 1.
        limits: the values to go of each s_j.
        sizes: (limits,) about how large each s_j is.
    """

    sums: Elimination
    target: np.ndarray
    limits: list[ToGo]
    sizes: np.ndarray

    def allowed(self, z: np.ndarray) -> np.ndarray:
        """Whether the limits hold, (B, width) -> (B,)."""
        return np.asarray((z[:, len(self.target) :] >= 0).all(1))

    def cosines(self, z: np.ndarray) -> np.ndarray:
        """(B, width) -> (B,)."""
        z = z[:, : len(self.target)]
        return z @ self.target / np.maximum(np.linalg.norm(z, axis=1), 1e-12)


def make_problem(sums: Elimination, target: np.ndarray, sizes: np.ndarray) -> Problem:
    """The problem of a target (D,) and sums of width D + limits."""
    axes = np.eye(len(sums.constant))[len(target) :]
    return Problem(sums, target / np.linalg.norm(target), [sums.togo(axis) for axis in axes], sizes)


@dataclass(frozen=True, eq=False)
class Direction:
    """A u and multipliers of the limits."""

    u: np.ndarray
    multipliers: np.ndarray

    def weight(self, problem: Problem, c: float) -> np.ndarray:
        """(t - c u, m), which only configurations with a cosine above c make positive."""
        return np.concatenate([problem.target - c * self.u, self.multipliers])


def project(problem: Problem, atoms: np.ndarray) -> tuple[Direction, float, np.ndarray] | None:
    """The projection of t on the cone of some z(r), (n, width).

    Returns:
        Its direction, its length |p|, and the atoms it is made of; None where the solver finds no projection.
    """
    width = len(problem.target)
    columns = (atoms / np.maximum(np.linalg.norm(atoms[:, :width], axis=1, keepdims=True), 1e-12)).T
    slacks = columns[width:] / problem.sizes[:, None]
    count = len(slacks)
    system = np.block([[columns[:width], np.zeros((width, count))], [STIFF * slacks, -STIFF * np.eye(count)]])
    try:
        x, _ = nnls(system, np.concatenate([problem.target, np.zeros(count)]), maxiter=30 * system.shape[1] + 100)
    except (RuntimeError, ValueError):  # too many iterations, or numbers too large: the caller goes on without
        return None
    p, used = columns[:width] @ x[: len(atoms)], x[: len(atoms)] > 0
    short = STIFF**2 * (x[len(atoms) :] - slacks @ x[: len(atoms)])
    length = float(np.linalg.norm(p))
    u = p / length if length > 1e-9 else np.zeros(width)
    return Direction(u, np.maximum(short, 0) / problem.sizes), length, atoms[used]


def bound(
    problem: Problem, prefixes: Prefixes, deadline: float = np.inf, patience: int = 60
) -> tuple[float, Direction, Prefixes]:
    """An upper bound on the cosine of every completion of some prefixes.

    Args:
        problem: the problem.
        prefixes: the prefixes.
        deadline: by `time.monotonic()`, when to stop; one step is always made.
        patience: projections that are tried.

    Returns:
        The bound (at least 0; 1 if nothing better holds, or was found in time), its direction, and the configurations that
        were the columns.
    """
    width = len(problem.sums.constant)
    direction, c, atoms = Direction(np.zeros(len(problem.target)), np.zeros(len(problem.sizes))), 0.0, np.zeros((0, width))
    found: list[Prefixes] = []
    for _ in range(patience):
        best, values = pick_furthest(problem, prefixes, direction.weight(problem, c), 6)
        if not len(best):
            return 0.0, direction, prefixes[:0] if not found else join(found)
        found.append(best)
        if values[0] <= 0 or (len(atoms) and values[0] < TIGHT * np.linalg.norm(best.z[0, : len(problem.target)])):
            break
        if time.monotonic() > deadline:
            return 1.0, direction, join(found)
        projection = project(problem, np.concatenate([atoms, best.z[values > 0]]))
        if projection is None:
            break
        direction, c, atoms = projection
    for _ in range(DINKELBACH):  # c = max_r (<t, z> + <m, s>) / <u, z> by Newton's method: from here on a bound is proven
        if values[0] <= 0:
            return c, direction, join(found)
        z = best.z[0]
        along = float(z[: len(problem.target)] @ direction.u)
        if along <= 0 or time.monotonic() > deadline:
            break
        c = max(c, float(z @ direction.weight(problem, 0.0)) / along) * (1 + 1e-15) + 1e-12
        best, values = pick_furthest(problem, prefixes, direction.weight(problem, c), 1)
        found.append(best)
    return 1.0, direction, join(found)


def separate(
    problem: Problem, prefixes: Prefixes, c: float, atoms: np.ndarray, deadline: float = np.inf, patience: int = 12
) -> tuple[ToGo | None, list[Prefixes]]:
    """A direction that shows that no completion of some prefixes has a cosine above c, if one is soon found.

    Args:
        problem: the problem.
        prefixes: the prefixes.
        c: the cosine, at least 0.
        atoms: (n, width) some of their completions.
        deadline: by `time.monotonic()`, when to stop.
        patience: projections that are tried.

    Returns:
        The values to go of its weight, or None, and the completions met on the way.
    """
    found: list[Prefixes] = []
    for _ in range(patience):
        if time.monotonic() > deadline or (projection := project(problem, atoms)) is None:
            break
        direction, length, atoms = projection
        if length > c or length < 1e-9:
            break
        togo = problem.sums.togo(direction.weight(problem, c), prefixes.level)
        best, values, _ = problem.sums.beam(prefixes, [togo], 2)
        if not len(best) or values[0] <= 0:
            return togo, found
        found.append(best)
        atoms = np.concatenate([atoms, best.z])
    return None, found


def pick_furthest(problem: Problem, prefixes: Prefixes, weight: np.ndarray, k: int) -> tuple[Prefixes, np.ndarray]:
    """The k completions of highest <w, z>, and these."""
    best, values, _ = problem.sums.beam(prefixes, [problem.sums.togo(weight, prefixes.level)], k)
    return best, values


def join(parts: list[Prefixes]) -> Prefixes:
    """Prefixes of one length as one."""
    return Prefixes(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("rates", "state", "need", "z")))
