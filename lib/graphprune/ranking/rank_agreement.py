"""Does a score put networks in the order of their true quality? Rank correlations with intervals, regret, noise ceiling.

Small networks are worse, so every score that falls with size ranks well over a wide range of sizes. What a score knows
beyond size shows within bands of equal cost: the correlation inside each band, averaged over the bands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from graphprune.ranking.correlation import Floats, kendall, partial, spearman
from graphprune.runs.checks import at_least

__all__ = [
    "Agreement", "agreement", "bands", "ceiling", "difference", "kendall", "partial", "picked", "regret", "share", "spearman",
]  # fmt: skip

Statistic = Callable[[Floats, Floats], Floats]
"""Scores (..., N) and truths (..., N) -> (...), how well the former order the latter."""


@dataclass(frozen=True)
class Agreement:
    """A mean rank correlation, or another statistic.

    Attributes:
        value: the mean over scorers and truths.
        low, high: the ends of its 95 % percentile bootstrap interval.
        runs: (S,) each scorer's own, the mean over truths.
        n: the number of networks ranked.
    """

    value: float
    low: float
    high: float
    runs: tuple[float, ...]
    n: int


def bands(sizes: ArrayLike, count: int = 5) -> NDArray[np.int64]:
    """Split networks by size into `count` bands of (nearly) equal number, 0 = the smallest: (N,) -> (N,).

    Raises:
        ValueError: `count` < 1, or fewer than 4 networks a band.

    >>> bands([30, 10, 20, 40, 80, 70, 60, 50], 2).tolist()
    [0, 0, 0, 0, 1, 1, 1, 1]
    """
    order = rankdata(np.asarray(sizes), method="ordinal") - 1
    if not 1 <= count <= len(order) // 4:
        raise ValueError(f"count={count}: {len(order)} networks allow 1 to {len(order) // 4} bands of at least 4")
    return order * count // len(order)


# --- top k --------------------------------------------------------------------------------------------------------------


def picked(scores: ArrayLike, truths: ArrayLike, k: int) -> Floats:
    """The truths of the k highest scored networks, the highest score first: (..., N), (..., N) -> (..., k).

    Among equal scores the worst truth comes first, so that no score gains by not deciding.

    Raises:
        ValueError: `k` outside 1 .. N.

    >>> picked([1, 5, 5, 2], [0.9, 0.8, 0.7, 0.6], 2).tolist()
    [0.7, 0.8]
    """
    score, truth = np.broadcast_arrays(np.asarray(scores, np.float64), np.asarray(truths, np.float64))
    if not 1 <= k <= score.shape[-1]:
        raise ValueError(f"k={k}: must be 1 to {score.shape[-1]}, the networks there are")
    return np.take_along_axis(truth, np.lexsort((truth, -score), axis=-1)[..., :k], -1)


def regret(scores: ArrayLike, truths: ArrayLike, k: int) -> Floats:
    """What the k highest scored networks miss: the best truth of all minus the best among them, (..., N) -> (...) >= 0.

    Raises:
        ValueError: as `picked`.

    >>> regret([1, 5, 5, 2], [0.9, 0.8, 0.7, 0.6], 2).round(6).item()
    0.1
    """
    return np.asarray(np.max(np.asarray(truths, np.float64), -1) - picked(scores, truths, k).max(-1))


# --- with intervals -----------------------------------------------------------------------------------------------------


def agreement(
    scores: ArrayLike,
    truths: ArrayLike,
    band: ArrayLike | None = None,
    *,
    statistic: Statistic = spearman,
    covariates: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """How well scores order networks as measured truths do, overall or with size held fixed.

    The bootstrap draws networks (inside each band) and scorers anew, so that the interval holds the spread over both.

    Args:
        scores: (N,), or (S, N) of S scorers that differ in their seed; higher = believed better.
        truths: (N,), or (T, N) of T measurements of the same networks; higher = better.
        band: (N,) whole numbers, e.g. from `bands`: correlate inside each band and average. None = all at once.
        statistic: `spearman`, `kendall`, or any other.
        covariates: (N,) or (C, N), what is held fixed besides: Spearman's correlation becomes the `partial` one.
        resamples: bootstrap draws.
        seed: of the draws.

    Raises:
        ValueError: shapes that do not match, numbers that are not finite, or fewer than 4 networks in a band.

    >>> found = agreement([1, 2, 3, 4, 5], [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    >>> found.value, found.runs
    (0.0, (0.0,))
    """
    given, measured, draws = _checked(scores, truths, band, statistic, covariates, resamples, seed)
    return _summary(*draws.of(given, measured), given.shape[1])


def ceiling(
    truths: ArrayLike,
    band: ArrayLike | None = None,
    *,
    statistic: Statistic = spearman,
    covariates: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """How well one measurement of the networks orders another: the mean over pairs of the T measurements.

    Args:
        truths: (T, N), two or more.
        band, statistic, covariates, resamples, seed: as `agreement`, whose errors it raises.

    >>> ceiling([[1, 2, 3, 4], [1, 2, 4, 3]]).value.__round__(6)
    0.8
    """
    measured, _, draws = _checked(truths, truths, band, statistic, covariates, resamples, seed)
    return _summary(*draws.between(measured), measured.shape[1])


def share(
    scores: ArrayLike,
    truths: ArrayLike,
    band: ArrayLike | None = None,
    *,
    statistic: Statistic = spearman,
    covariates: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """An agreement as a share of the noise ceiling: agreement / ceiling, the interval from the same bootstrap draws.

    1 = as good as having measured each network once. That is no upper bound: a score free of noise could reach about
    1 / sqrt(ceiling), since the ceiling carries the noise of two measurements, an agreement that of one.

    Args:
        truths: (T, N), two or more.
        scores, band, statistic, covariates, resamples, seed: as `agreement`.

    Raises:
        ValueError: as `agreement`; or the measurements do not agree with each other, so that there is no share.

    >>> share([1, 2, 3, 4], [[1, 2, 3, 4], [1, 2, 4, 3]]).value.__round__(6)
    1.125
    """
    given, measured, draws = _checked(scores, truths, band, statistic, covariates, resamples, seed)
    (runs, spread), (most, most_spread) = draws.of(given, measured), draws.between(measured)
    if most.mean() <= 0:
        raise ValueError(f"truths: their ceiling is {most.mean():.3f}, not above 0, so nothing is a share of it")
    return _summary(runs / most.mean(), spread / np.where(most_spread > 0, most_spread, np.nan), given.shape[1])


def difference(
    scores: ArrayLike,
    others: ArrayLike,
    truths: ArrayLike,
    band: ArrayLike | None = None,
    *,
    statistic: Statistic = spearman,
    covariates: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """How much better one ranker's scores agree with the truths than another's, paired: each draw of networks judges both.

    Two rankers may be told apart though their own intervals overlap, since both are good or bad on the same networks.

    Args:
        scores, others: (N,), or (S, N) of S scorers that differ in their seed; the two may have different S.
        truths, band, statistic, covariates, resamples, seed: as `agreement`, whose errors it raises.

    Returns:
        The first's agreement minus the second's; `runs` are the first's scorers, each minus the second's mean.

    >>> found = difference([1, 2, 3, 4], [1, 2, 4, 3], [1, 2, 3, 4])
    >>> found.value.__round__(6), found.low
    (0.2, 0.0)
    """
    given, measured, draws = _checked(scores, truths, band, statistic, covariates, resamples, seed)
    against, _, _ = _checked(others, truths, band, statistic, covariates, resamples, seed)
    (runs, spread), (other_runs, other_spread) = draws.of(given, measured), draws.of(against, measured)
    return _summary(runs - other_runs.mean(), spread - other_spread, given.shape[1])


def _summary(runs: Floats, spread: Floats, n: int) -> Agreement:
    low, high = np.nanquantile(spread, [0.025, 0.975])
    return Agreement(float(runs.mean()), float(low), float(high), tuple(map(float, runs)), n)


@dataclass(frozen=True, eq=False)
class _Draws:
    """How the bootstrap draws networks and what it works out of them; arguments as `agreement`'s, checked."""

    place: Floats
    statistic: Statistic
    fixed: Floats | None
    resamples: int
    seed: int

    def of(self, given: Floats, measured: Floats) -> tuple[Floats, Floats]:
        """Each scorer's statistic, (S,), and that of scorers drawn as well, of every draw, (resamples,)."""
        generator = np.random.default_rng(self.seed)
        values, drawn = [], []
        for columns in (np.flatnonzero(self.place == b) for b in np.unique(self.place)):
            values.append(self._mean(given, measured, columns))
            again = columns[generator.integers(len(columns), size=(self.resamples, len(columns)))]
            drawn.append(self._mean(given, measured, again))  # (S, resamples)
        runs, spread = np.mean(values, 0), np.mean(drawn, 0)
        scorers = generator.integers(len(given), size=spread.shape)
        return runs, np.take_along_axis(spread, scorers, 0).mean(0)

    def between(self, measured: Floats) -> tuple[Floats, Floats]:
        """As `of` for each pair of measurements, from the same draws of networks: (pairs,), (resamples,)."""
        if len(measured) < 2:
            raise ValueError("truths: a ceiling needs 2 measurements of each network or more, (T, N), got 1")
        found = [self.of(one[None], other[None]) for one, other in combinations(measured, 2)]
        return np.concatenate([value for value, _ in found]), np.mean([spread for _, spread in found], 0)

    def _mean(self, given: Floats, measured: Floats, columns: NDArray[np.int64]) -> Floats:
        """Each scorer's mean statistic over the truths, of some networks, columns (..., n) -> (S, ...)."""
        chosen = given[:, columns]
        if self.fixed is not None:
            held = self.fixed[:, None, columns]  # (C, 1, ..., n), the same for all scorers
            return np.mean([partial(chosen, truth[columns], held) for truth in measured], axis=0)
        return np.mean([self.statistic(chosen, truth[columns]) for truth in measured], axis=0)


def _checked(
    scores: ArrayLike,
    truths: ArrayLike,
    band: ArrayLike | None,
    statistic: Statistic,
    covariates: ArrayLike | None,
    resamples: int,
    seed: int,
) -> tuple[Floats, Floats, _Draws]:
    given, measured = (np.atleast_2d(np.asarray(values, np.float64)) for values in (scores, truths))
    fixed = None if covariates is None else np.atleast_2d(np.asarray(covariates, np.float64))
    place = np.zeros(given.shape[1]) if band is None else np.asarray(band, np.float64)
    if given.ndim != 2 or measured.ndim != 2 or not given.shape[1] == measured.shape[1] == place.size:
        shapes = f"{given.shape}, {measured.shape} and {place.shape}"
        raise ValueError(f"scores (S, N), truths (T, N) and band (N,) must be of the same N networks, got {shapes}")
    if fixed is not None and statistic is not spearman:
        raise ValueError("covariates: held fixed for spearman alone; leave out the statistic or the covariates")
    if fixed is not None and fixed.shape[1:] != (place.size,):
        raise ValueError(f"covariates must be (C, N) of the {place.size} networks, got {fixed.shape}")
    for name, values in (("scores", given), ("truths", measured), ("covariates", fixed)):
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"{name} holds numbers that are not finite: leave those networks out")
    if (least := np.unique(place, return_counts=True)[1].min()) < 4:
        raise ValueError(f"band: one holds {least} networks, a correlation needs at least 4: make fewer bands")
    at_least(1, remedy=", such as 1000", resamples=resamples)
    return given, measured, _Draws(place, statistic, fixed, resamples, seed)
