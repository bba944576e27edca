"""How alike two orders are: Spearman's and Kendall's rank correlation, and Spearman's with other quantities held fixed.

All work along the last axis and broadcast over the others, so that a thousand bootstrap draws are one call. Scores that
are all equal order nothing: 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


def spearman(scores: ArrayLike, truths: ArrayLike) -> Floats:
    """Spearman's rank correlation along the last axis, ties sharing their mean rank: (..., N), (..., N) -> (...).

    >>> spearman([[1, 2, 3], [3, 2, 1], [1, 1, 1]], [10, 20, 90]).round(6).tolist()
    [1.0, -1.0, 0.0]
    """
    a, b = _standard(rankdata(scores, axis=-1)), _standard(rankdata(truths, axis=-1))
    return np.asarray((a * b).sum(-1))


def partial(scores: ArrayLike, truths: ArrayLike, covariates: ArrayLike) -> Floats:
    """Spearman's rank correlation with covariates held fixed: what a score says beyond them.

    Pearson's correlation of what least squares on the covariates' ranks (and a constant) leaves of either rank. A score
    that the covariates' ranks explain entirely says nothing: 0.

    Shapes: (..., N), (..., N), (C, ..., N) -> (...).

    >>> partial([1, 2, 4, 3], [1, 3, 4, 2], [[1, 2, 3, 4]]).round(6).item()
    0.872872
    """
    basis: list[Floats] = []  # orthonormal, of the centred ranks of the covariates
    for covariate in np.asarray(covariates):
        basis.append(_standard(_residual(_standard(rankdata(covariate, axis=-1)), basis)))
    a, b = (_standard(_residual(_standard(rankdata(values, axis=-1)), basis)) for values in (scores, truths))
    return np.asarray((a * b).sum(-1))


def kendall(scores: ArrayLike, truths: ArrayLike) -> Floats:
    """Kendall's tau-b along the last axis (Kendall 1945): (..., N), (..., N) -> (...).

        tau_b = (P - D) / sqrt((n - t_x) (n - t_y)),    n = N (N - 1) / 2 pairs,

    with P pairs in the same order, D in the opposite one, t_x and t_y tied in a score or a truth. D is the number of
    inversions of the truths sorted by scores (Knight 1966), a pair counted at the highest bit in which its ranks differ.

    >>> kendall([[1, 2, 3], [3, 2, 1], [1, 1, 1]], [10, 20, 90]).round(6).tolist()
    [1.0, -1.0, 0.0]
    """
    x, y = np.broadcast_arrays(*(rankdata(values, "dense", axis=-1).astype(np.int64) for values in (scores, truths)))
    pair = x * (y.max(initial=0) + 1) + y
    opposite = _inversions(np.take_along_axis(y, pair.argsort(-1, kind="stable"), -1))
    pairs, tied_x, tied_y, tied = x.shape[-1] * (x.shape[-1] - 1) // 2, _tied(x), _tied(y), _tied(pair)
    product = (pairs - tied_x).astype(np.float64) * (pairs - tied_y)
    return np.asarray((pairs - tied_x - tied_y + tied - 2 * opposite) / np.sqrt(np.where(product > 0, product, 1)))


def _tied(values: Whole) -> Whole:
    """Pairs of equal values, none of them negative, (..., N) -> (...)."""
    row, place = np.sort(values, -1), np.arange(values.shape[-1])
    first = np.where(np.diff(row, axis=-1, prepend=-1) > 0, place, 0)
    return (place - np.maximum.accumulate(first, -1)).sum(-1)  # of each value, how many before it equal it


def _inversions(ranks: Whole) -> Whole:
    """Pairs i < j with ranks[i] > ranks[j], (..., N) -> (...)."""
    found = np.zeros(ranks.shape[:-1], np.int64)
    for bit in range(int(ranks.max(initial=0)).bit_length()):
        order = (ranks >> bit + 1).astype(np.uint32).argsort(-1, kind="stable")
        row = np.take_along_axis(ranks, order, -1)
        high, low = row >> bit + 1, row >> bit & 1
        before = low.cumsum(-1) - low  # ones so far, from which those of other blocks of equal higher bits are taken
        first = np.where(np.diff(high, axis=-1, prepend=-1) > 0, before, 0)
        here = before - np.maximum.accumulate(first, -1)
        found += (here * (1 - low)).sum(-1)
    return found


def _residual(ranks: Floats, basis: list[Floats]) -> Floats:
    for direction in basis:
        ranks = ranks - (ranks * direction).sum(-1, keepdims=True) * direction
    return np.where((ranks**2).sum(-1, keepdims=True) > 1e-18, ranks, 0.0)  # of unit length before: the rest is rounding


def _standard(ranks: Floats) -> Floats:
    centred = ranks - ranks.mean(-1, keepdims=True)
    norm = np.sqrt((centred**2).sum(-1, keepdims=True))
    return centred / np.where(norm > 0, norm, 1)
