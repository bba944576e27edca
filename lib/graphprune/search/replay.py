"""SACP's funnel replayed on a table of true accuracies: m candidates fine-tuned lightly, k of them fully, one chosen.

It is Algorithm 1, lines 13-16 (Liu et al., section 3.5), with every training looked up instead of run: a thousand runs at
every m and k take milliseconds. Validation chooses, as in `funnel`; the test accuracy of the one chosen is only reported.

A replay resamples the candidates with replacement (a bootstrap) in the ranker's order, and draws one seed of the light
and one of the full trainings for the run. A candidate drawn twice stands for two networks that are alike in everything:
both take a place among the m, both may take one among the k, and both cost. So the replays' mean lies a little below
the run on the table as it is, which `surface` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from graphprune.runs.checks import at_least

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Criterion = Literal["accuracy", "loss"]

GRID = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 75, 90, 105, 120, 135, 150)
"""Values of m."""

ARRAYS = ("light_accuracy", "light_loss", "full_accuracy", "full_loss", "full_test")


@dataclass(frozen=True, eq=False)
class Candidates:
    """What is known of n networks, in the ranker's order, best first; a row of each array for each seed of the training.

    Attributes:
        light_accuracy, light_loss: (S, n) on the validation split after the light training.
        full_accuracy, full_loss: (F, n) on the validation split after the full one.
        full_test: (F, n) accuracy on the test split after the full one.
        light_epochs, full_epochs: what a training costs, in passes over the training images.

    Raises:
        ValueError: no candidate, shapes that do not match, numbers that are not finite, or a cost that is not positive.
    """

    light_accuracy: Floats
    light_loss: Floats
    full_accuracy: Floats
    full_loss: Floats
    full_test: Floats
    light_epochs: float = 1.0
    full_epochs: float = 5.0

    def __post_init__(self) -> None:
        arrays = {name: np.atleast_2d(np.asarray(getattr(self, name), np.float64)) for name in ARRAYS}
        for name, array in arrays.items():
            like = "light_accuracy" if name.startswith("light") else "full_accuracy"
            if array.shape != arrays[like].shape or array.shape[1] != arrays["light_accuracy"].shape[1] or not array.size:
                raise ValueError(f"{name}: shape {array.shape}, must be (seeds, n) as {like}'s, of the same n > 0 candidates")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: holds numbers that are not finite; leave those candidates out")
            object.__setattr__(self, name, array)
        if not (self.light_epochs > 0 and self.full_epochs > 0):
            raise ValueError(f"light_epochs={self.light_epochs}, full_epochs={self.full_epochs}: must be positive")

    def __len__(self) -> int:
        return self.full_test.shape[1]

    def oracle(self) -> Candidates:
        """The same networks, the best test accuracy (mean over seeds) first: what a perfect ranker would hand over."""
        order = np.argsort(-self.full_test.mean(0), kind="stable")
        return replace(self, **{name: getattr(self, name)[:, order] for name in ARRAYS})

    def places(self, criterion: Criterion, light: int, full: int) -> tuple[Ints, Ints]:
        """Each candidate's place after the light and after the full training of those seeds, 0 = the best, (n,) each.

        Ties go to the other measure; then to the ranker's order after the light, and to the light place after the full.
        """
        n = np.arange(len(self))
        first = _places(criterion, self.light_accuracy[light], self.light_loss[light], n)
        return first, _places(criterion, self.full_accuracy[full], self.full_loss[full], first)


def _places(criterion: Criterion, accuracy: Floats, loss: Floats, last: Ints) -> Ints:
    if criterion not in ("accuracy", "loss"):
        raise ValueError(f"criterion={criterion!r}: must be 'accuracy' or 'loss'")
    order = np.lexsort((last, loss, -accuracy) if criterion == "accuracy" else (last, -accuracy, loss))
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places


def candidates(table: pd.DataFrame, order: ArrayLike, *, light_epochs: float = 1.0, full_epochs: float = 5.0) -> Candidates:
    """The candidates that stand in a table of true accuracies (one row a configuration and seed).

    Args:
        table: columns `indices`, `seed`, `accuracy_val`, `loss_val`, `full_accuracy_val`, `full_loss_val`,
            `full_accuracy_test`; the full ones may be NaN under some of the seeds, but are used only of seeds under which
            every candidate has them.
        order: a number a row, the lowest is the ranker's first (a column of ranks, or scores times -1); NaN = no candidate.
        light_epochs, full_epochs: what a training costs, in passes over the training images.

    Raises:
        ValueError: no candidates, or some lack a light training, or all full ones.

    >>> import graphprune
    >>> table = graphprune.tabular.load("digits")
    >>> table = table[table.full_accuracy_test.notna()].head(20)
    >>> top = candidates(table, -table.score_default)
    """
    place = np.asarray(order, np.float64)
    if len(place) != len(table):
        raise ValueError(f"order: {len(place)} numbers for {len(table)} rows of the table, must be one a row")
    rows = table.assign(place=place).dropna(subset="place").sort_values("place", kind="stable")
    if rows.empty:
        raise ValueError("order: NaN in every row, so that there is no candidate")
    rows["candidate"] = pd.factorize(rows["indices"].map(tuple))[0]  # numbered in the ranker's order
    wide = rows.pivot(index="seed", columns="candidate")
    full = [wide[f"full_{name}"].to_numpy(np.float64) for name in ("accuracy_val", "loss_val", "accuracy_test")]
    done = np.isfinite(full).all((0, 2))  # (seeds,)
    if not done.any():
        raise ValueError("table: under no seed are all candidates fully trained; leave out those that are not (NaN)")
    accuracy, loss, test = (array[done] for array in full)
    light = [wide[name].to_numpy(np.float64) for name in ("accuracy_val", "loss_val")]
    return Candidates(light[0], light[1], accuracy, loss, test, light_epochs, full_epochs)


@dataclass(frozen=True)
class Run:
    """One run of the funnel.

    Attributes:
        finalists: the candidates fully trained, in the order of their light results (0 = the ranker's first).
        chosen: the one of them that is best on validation.
        test: its test accuracy.
    """

    finalists: tuple[int, ...]
    chosen: int
    test: float


def replay_once(
    given: Candidates, m: int, k: int, criterion: Criterion = "accuracy", *, light_seed: int = 0, full_seed: int = 0
) -> Run:
    """One run on the candidates as they are: of the first m the k best after light training, of those the best after full.

    SACP-2 (table 4: no top-k stage) is k = 1: the best after light training is the one trained fully.

    Raises:
        ValueError: not 1 <= k <= m <= n.

    >>> three = Candidates([[0.8, 0.9, 0.7]], [[1, 1, 1]], [[0.9, 0.8, 0.99]], [[1, 1, 1]], [[0.91, 0.82, 0.97]])
    >>> found = replay_once(three, 2, 2)
    >>> found.finalists, found.chosen, found.test
    ((1, 0), 0, 0.91)
    """
    if not 1 <= k <= m <= len(given):
        raise ValueError(f"k={k}, m={m}: must be 1 <= k <= m <= {len(given)}, the number of candidates")
    light, full = given.places(criterion, light_seed, full_seed)
    finalists = np.argsort(light[:m])[:k]
    chosen = int(finalists[full[finalists].argmin()])
    return Run(tuple(finalists.tolist()), chosen, float(given.full_test[full_seed, chosen]))


@dataclass(frozen=True, eq=False)
class Replays:
    """Many runs at every m and k.

    Attributes:
        m: (M,).
        k: (K,) = 1, 2 ... K.
        test: (replays, M, K) test accuracy of the network chosen; NaN where k > m.
        cost: (M, K) m light and k full trainings, in passes over the training images; NaN where k > m.
    """

    m: Ints
    k: Ints
    test: Floats
    cost: Floats

    def frame(self) -> pd.DataFrame:
        """The m x k surface, a row a point: `m`, `k`, `cost`, `mean`, `low` and `high` (95 % of the replays), `error`.

        `error` is the replays' standard deviation: the bootstrap's standard error of what one run finds.
        """
        at, by = np.nonzero(np.isfinite(self.cost))
        test = self.test[:, at, by]
        low, high = np.quantile(test, [0.025, 0.975], axis=0)
        columns = {"m": self.m[at], "k": self.k[by], "cost": self.cost[at, by], "mean": test.mean(0), "low": low, "high": high}
        return pd.DataFrame(columns | {"error": test.std(0)})

    def against_k(self, m: int) -> pd.DataFrame:
        """The curve at one m: the rows of `frame` (figure 2 has m = 150).

        Raises:
            ValueError: this m was not replayed.
        """
        return self._curve("m", m)

    def against_m(self, k: int) -> pd.DataFrame:
        """The curve at one k: the rows of `frame` (figure 2 has k = 10).

        Raises:
            ValueError: this k was not replayed.
        """
        return self._curve("k", k)

    def _curve(self, name: str, value: int) -> pd.DataFrame:
        frame = self.frame()
        if not (frame[name] == value).any():
            raise ValueError(f"{name}={value}: not replayed, there are {sorted(set(frame[name]))}")
        return frame[frame[name] == value].reset_index(drop=True)

    def best_value(self) -> pd.Series:
        """The point of best value by the one-standard-error rule (Breiman et al. 1984, section 3.4.3), a row of `frame`.

        It is the cheapest (m, k) whose mean is within one standard error of the highest mean, the error being the one
        there. Ties in cost go to the higher mean, then to the smaller m.
        """
        frame = self.frame()
        top = frame.sort_values(["mean", "cost"], ascending=[False, True]).iloc[0]
        good = frame[frame["mean"] >= top["mean"] - top["error"]]
        return good.sort_values(["cost", "mean", "m"], ascending=[True, False, True]).iloc[0]


def replays(
    given: Candidates,
    m: Sequence[int] = GRID,
    k: int = 10,
    criterion: Criterion = "accuracy",
    *,
    count: int = 1000,
    shuffled: bool = False,
    seed: int = 0,
) -> Replays:
    """Replay the funnel many times at every m, and k = 1 ... `k`, on candidates resampled anew each time.

    Args:
        given: the candidates; `given.oracle()` for an upper bound.
        m: how many are lightly trained; values above n are left out.
        criterion: what chooses on validation: "accuracy" (ties by loss) or "loss" (ties by accuracy).
        count: replays.
        shuffled: the candidates stand in random order in each replay: the same networks, unranked.
        seed: of all draws. Equal seeds draw equal places, so that runs on equally many candidates are paired.

    Raises:
        ValueError: an argument below 1, or every m above n.
    """
    sizes, n = _sizes(m, k, len(given)), len(given)
    at_least(1, remedy=", such as 1000", count=count)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(n, size=(count, n))
    light = generator.integers(len(given.light_accuracy), size=count)
    full = generator.integers(len(given.full_accuracy), size=count)
    test = _tests(given, drawn if shuffled else np.sort(drawn, 1), light, full, sizes, k, criterion)
    ks = np.arange(1, k + 1)
    cost = sizes[:, None] * given.light_epochs + ks * given.full_epochs
    return Replays(sizes, ks, test, np.where(ks <= sizes[:, None], cost, np.nan))


def surface(given: Candidates, m: Sequence[int] = GRID, k: int = 10, criterion: Criterion = "accuracy") -> Floats:
    """The test accuracy of the funnel on the candidates as they are, not resampled, the mean over seeds: (M, K).

    Arguments and errors as in `replays`.
    """
    sizes = _sizes(m, k, len(given))
    light, full = (np.ravel(seeds) for seeds in np.indices((len(given.light_accuracy), len(given.full_accuracy))))
    drawn = np.tile(np.arange(len(given)), (len(light), 1))
    return _tests(given, drawn, light, full, sizes, k, criterion).mean(0)


def _sizes(m: Sequence[int], k: int, n: int) -> Ints:
    sizes = np.array([size for size in m if size <= n], np.int64)
    if k < 1 or not len(sizes) or sizes.min() < 1:
        raise ValueError(f"m={tuple(m)}, k={k}: must be at least 1, and one m at most {n}, the number of candidates")
    return sizes


def _tests(given: Candidates, drawn: Ints, light: Ints, full: Ints, sizes: Ints, k: int, criterion: Criterion) -> Floats:
    """Test accuracies (R, M, K) of candidates drawn (R, n) under seeds (R,) each."""
    pairs = [[given.places(criterion, s, f) for f in range(len(given.full_test))] for s in range(len(given.light_loss))]
    first, last = (np.array([[pair[i] for pair in row] for row in pairs]) for i in (0, 1))  # (S, F, n) places
    owner = np.argsort(last, axis=2)  # whose place it is
    places, at = first[light[:, None], full[:, None], drawn], np.argsort(first[:, 0], axis=1)
    out = np.full((len(drawn), len(sizes), k), np.nan)
    for j, m in enumerate(sizes):
        some = min(k, m)
        top = np.sort(np.partition(places[:, :m], some - 1, axis=1)[:, :some], 1)  # (R, some) light places, the best first
        finalists = at[light[:, None], top]
        best = np.minimum.accumulate(last[light[:, None], full[:, None], finalists], 1)  # of the first 1, 2 ... k
        out[:, j, :some] = given.full_test[full[:, None], owner[light[:, None], full[:, None], best]]
    return out
