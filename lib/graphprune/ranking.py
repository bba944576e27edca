"""Does a score put networks in the order of their true quality? Spearman's rank correlation, with intervals.

Small networks are worse, so every score that falls with size ranks well over a wide range of sizes. What a score knows
beyond size shows within bands of equal cost: the correlation inside each band, averaged over the bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """A mean Spearman correlation.

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


def spearman(scores: ArrayLike, truths: ArrayLike) -> Floats:
    """Spearman's rank correlation along the last axis, ties sharing their mean rank: (..., N), (..., N) -> (...).

    Scores that are all equal order nothing: 0.

    >>> spearman([[1, 2, 3], [3, 2, 1], [1, 1, 1]], [10, 20, 90]).round(6).tolist()
    [1.0, -1.0, 0.0]
    """
    a, b = _standard(rankdata(scores, axis=-1)), _standard(rankdata(truths, axis=-1))
    return np.asarray((a * b).sum(-1))


def _standard(ranks: Floats) -> Floats:
    centred = ranks - ranks.mean(-1, keepdims=True)
    norm = np.sqrt((centred**2).sum(-1, keepdims=True))
    return centred / np.where(norm > 0, norm, 1)


def agreement(
    scores: ArrayLike, truths: ArrayLike, band: ArrayLike | None = None, *, resamples: int = 1000, seed: int = 0
) -> Agreement:
    """How well scores order networks as measured truths do, overall or with size held fixed.

    The bootstrap draws networks (inside each band) and scorers anew, so that the interval holds the spread over both.

    Args:
        scores: (N,), or (S, N) of S scorers that differ in their seed; higher = believed better.
        truths: (N,), or (T, N) of T measurements of the same networks; higher = better.
        band: (N,) whole numbers, e.g. from `bands`: correlate inside each band and average. None = all at once.
        resamples: bootstrap draws.
        seed: of the draws.

    Raises:
        ValueError: shapes that do not match, numbers that are not finite, or fewer than 4 networks in a band.

    >>> found = agreement([1, 2, 3, 4, 5], [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    >>> found.value, found.runs
    (0.0, (0.0,))
    """
    given, measured, place = _checked(scores, truths, band, resamples)
    generator = np.random.default_rng(seed)
    values, drawn = [], []
    for columns in (np.flatnonzero(place == b) for b in np.unique(place)):
        values.append(_pairs(given[:, columns], measured[:, columns]))
        again = columns[generator.integers(len(columns), size=(resamples, len(columns)))]
        drawn.append(_pairs(given[:, again], measured[:, again]))  # (S, resamples)
    runs, spread = np.mean(values, 0), np.mean(drawn, 0)
    scorers = generator.integers(len(given), size=spread.shape)
    low, high = np.quantile(np.take_along_axis(spread, scorers, 0).mean(0), [0.025, 0.975])
    return Agreement(float(runs.mean()), float(low), float(high), tuple(map(float, runs)), given.shape[1])


def _pairs(scores: Floats, truths: Floats) -> Floats:
    """Each scorer's mean correlation with the truths, (S, ..., n), (T, ..., n) -> (S, ...)."""
    return np.mean([spearman(scores, truth) for truth in truths], axis=0)


def _checked(scores: ArrayLike, truths: ArrayLike, band: ArrayLike | None, resamples: int) -> tuple[Floats, Floats, Floats]:
    given, measured = (np.atleast_2d(np.asarray(values, np.float64)) for values in (scores, truths))
    place = np.zeros(given.shape[1]) if band is None else np.asarray(band, np.float64)
    if given.ndim != 2 or measured.ndim != 2 or not given.shape[1] == measured.shape[1] == place.size:
        shapes = f"{given.shape}, {measured.shape} and {place.shape}"
        raise ValueError(f"scores (S, N), truths (T, N) and band (N,) must be of the same N networks, got {shapes}")
    for name, values in (("scores", given), ("truths", measured)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds numbers that are not finite: leave those networks out")
    if (least := np.unique(place, return_counts=True)[1].min()) < 4:
        raise ValueError(f"band: one holds {least} networks, a correlation needs at least 4: make fewer bands")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: must be at least 1, such as 1000")
    return given, measured, place
