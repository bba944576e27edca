"""The m lightly fine-tuned networks of every run at desk size, and what fewer of them would have found (SACP, figure 2).

At desk size one network a run is retrained (k = 1), so that accuracy against k cannot be drawn, and accuracy against m only
after light fine-tuning.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import comb

from graphprune.studies import paper
from graphprune.studies.desk import KEY, load_published
from graphprune.studies.paper import Sizes

Array = npt.NDArray[np.float64]

UNRANKED = "random"
"""The arm whose networks come in no order."""


def load_light(sizes: Sizes = paper.DESK) -> pd.DataFrame:
    """The lightly fine-tuned networks published so far: a row each, with its run's `desk.KEY`; empty if there are none."""
    return load_published("light", sizes)


def follow_m(light: pd.DataFrame, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The accuracy that m = 1, 2, ... lightly fine-tuned networks lead to, for every run.

    Of m networks the one with the highest validation accuracy is chosen. A ranked arm looks at its m highest ranks; random
    search at any m of its networks, so that its curve is the mean over all subsets of m.

    Args:
        light: rows as `load_light` gives them.
        draws: bootstrap samples; a sample draws a run's networks with replacement and keeps their order.
        seed: of these samples.

    Returns:
        `network`, `aim`, `arm`, `seed`, `m`, and in per cent on the report half of the test images `accuracy`, with the ends
        `low` and `high` of its 95 % bootstrap interval.

    >>> rows = [("random", 1, 60.0, 61.0), ("random", 2, 70.0, 71.0), ("SACP", 1, 60.0, 61.0), ("SACP", 2, 70.0, 71.0)]
    >>> light = pd.DataFrame(rows, columns=["arm", "rank", "validation accuracy", "accuracy"])
    >>> follow_m(light.assign(network="resnet20a", aim=0.5, seed=0))["accuracy"].tolist()
    [66.0, 71.0, 61.0, 71.0]
    """
    parts = []
    for (network, aim, arm, run), part in light.groupby(["network", "aim", "arm", "seed"], sort=False):
        ordered = part.sort_values("rank")
        validation, test = (ordered[name].to_numpy(float) for name in ("validation accuracy", "accuracy"))
        follow = _mean_over_subsets if arm == UNRANKED else _in_order
        generator = np.random.default_rng(seed)
        drawn = np.sort(generator.integers(len(test), size=(draws, len(test))))
        low, high = np.percentile([follow(validation[rows], test[rows]) for rows in drawn], [2.5, 97.5], axis=0)
        curve = {"m": range(1, len(test) + 1), "accuracy": follow(validation, test), "low": low, "high": high}
        parts.append(pd.DataFrame({"network": network, "aim": aim, "arm": arm, "seed": run} | curve))
    columns = ["network", "aim", "arm", "seed", "m", "accuracy", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _in_order(validation: Array, test: Array) -> Array:
    """Test accuracy of the best on validation among the first m, for every m."""
    return test[[np.argmax(validation[:m]) for m in range(1, len(test) + 1)]]


def _mean_over_subsets(validation: Array, test: Array) -> Array:
    """The same, as a mean over all subsets of m: the i-th best is chosen if it is drawn with m - 1 of those below it."""
    ordered, n = test[np.argsort(-validation, kind="stable")], len(test)
    below = n - 1 - np.arange(n)
    return np.array([ordered @ comb(below, m - 1) / comb(n, m) for m in range(1, n + 1)])


def summarise(light: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of a run's lightly fine-tuned networks, and the best of them on validation.

    Returns:
        `network`, `aim`, `arm`, `seed`, `networks`, and in per cent `mean`, `lowest`, `highest` and `best on validation` of
        the accuracy on the report half of the test images.
    """
    if light.empty:
        return pd.DataFrame(columns=[*KEY[:4], "networks", "mean", "lowest", "highest", "best on validation"])
    groups = light.groupby(KEY[:4], sort=False)
    found = groups["accuracy"].agg(networks="size", mean="mean", lowest="min", highest="max").reset_index()
    chosen = light.loc[groups["validation accuracy"].idxmax()].set_index(KEY[:4])["accuracy"]
    return found.join(chosen.rename("best on validation"), on=KEY[:4])
