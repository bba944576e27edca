"""What paired differences show, and what of it is left where many comparisons are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05


def judge(differences: NDArray[np.float64], margin: float) -> dict[str, Any]:
    """The 95 % interval of a mean difference by Student's t, the p values of two tests, and what they show.

    Args:
        differences: one for each seed. margin: within which two methods count as equal, above 0.
    Returns:
        low, high, p_differs (that the mean is not 0, two-sided), p_equal (that it lies within the margin, two one-sided tests),
        and shown, see `verdict`. Where all differences are alike nothing tells how far they scatter: no numbers, and "open".

    >>> judge(np.array([-0.1, 0.1, 0.0]), margin=1.0)["shown"]
    'equal'
    """
    error = stats.sem(differences) if len(differences) > 1 else 0.0
    if not error:
        return dict.fromkeys(("low", "high", "p_differs", "p_equal"), float("nan")) | {"shown": "open"}
    mean, t = differences.mean(), stats.t(len(differences) - 1)
    differs = 2 * t.sf(abs(mean) / error)
    equal = t.sf((margin - abs(mean)) / error)
    wide = t.ppf(1 - LEVEL / 2) * error
    about = {"low": mean - wide, "high": mean + wide, "p_differs": differs, "p_equal": equal}
    return about | {"shown": verdict(mean, differs, equal)}


def verdict(difference: float, p_differs: float, p_equal: float) -> str:
    """What two tests at 5 % show: "equal" within the margin, else "worse" or "better", else "open".

    >>> verdict(-0.3, 0.04, 0.03), verdict(-3.0, 0.04, 0.9), verdict(-3.0, 0.06, 0.9)
    ('equal', 'worse', 'open')
    """
    if p_equal < LEVEL:
        return "equal"
    return ("worse" if difference < 0 else "better") if p_differs < LEVEL else "open"


def adjust_holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """The p values of one family adjusted by Holm's method (1979), which bounds the chance of any false verdict among them.

    Those that are no numbers stay as they are, and do not count.

    >>> adjust_holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    found = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    found[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1.0)
    return found


def adjust(table: pd.DataFrame, family: Sequence[str] = ()) -> pd.DataFrame:
    """A table of comparisons with the column `adjusted`: what is shown when each family's p values are adjusted by Holm.

    The two tests (whether a difference is there, whether it is within the margin) are two questions, adjusted on their own.

    Args:
        table: with difference, p_differs and p_equal.
        family: columns whose equal values make a family; none for one family of all rows.
    """
    keys = [table[name] for name in family] or [pd.Series(0, index=table.index)]
    both = {name: table.groupby(keys, sort=False)[name].transform(_holm) for name in ("p_differs", "p_equal")}
    rows = zip(table["difference"], both["p_differs"], both["p_equal"], strict=True)
    return table.assign(adjusted=[verdict(*row) for row in rows])


def _holm(p: pd.Series) -> pd.Series:
    return pd.Series(adjust_holm(p.to_numpy(float)), index=p.index)
