"""A figure with sliders: the funnel's k and m, the ranker and the MACs budget, re-read live from a table of true accuracies.

Where a notebook runs without anybody to move a slider (papermill, nbval, nbconvert) and where it is only read (GitHub,
HTML), the cell's output is a plain picture of the default values and nothing else, the same bytes each time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import seaborn
from IPython.display import display
from ipywidgets import Dropdown, IntSlider, Layout, SelectionSlider, VBox
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphprune.report.picture import is_interactive, make_picture
from graphprune.search.replay import Candidates, candidates, replay_once, replays

WIDTH = 0.1
"""Networks stand at a budget whose MACs differ from it by this part of it at most."""
FEWEST = 5  # networks at a budget that the slider offers
SCORE = "score_"
WORDS = (
    "Left: accuracy after light and after full training of the networks at one budget, and which of them the funnel takes; "
    "right: test accuracy of the network that it chooses in a ranker's, in random and in oracle order"
)


def rankers(table: pd.DataFrame) -> list[str]:
    """The rankers whose scores a table holds, in its order."""
    return [name.removeprefix(SCORE) for name in table.columns if name.startswith(SCORE)]


def at_budget(table: pd.DataFrame, ranker: str, budget: float) -> Candidates:
    """The networks at a budget, in the ranker's order; those alone that are fully trained under the first seed.

    Args:
        table: columns as in `replay.candidates`, and `macs_share` and `score_<ranker>` (`tabular.Table` has them).
        ranker: one of `rankers(table)`.
        budget: a share of the whole network's multiply-adds.

    Raises:
        ValueError: an unknown ranker, or no such network.
    """
    if ranker not in rankers(table):
        raise ValueError(f"ranker={ranker!r}: the table holds the scores of {rankers(table)}")
    rows = table[(table["macs_share"] / budget - 1).abs() <= WIDTH]
    rows = rows[_complete(rows) & rows[SCORE + ranker].notna()]
    if rows.empty:
        raise ValueError(
            f"budget={budget}: the table has no fully trained network within {WIDTH:.0%} of it; see budgets(table)"
        )
    return candidates(rows, -rows[SCORE + ranker])


def _complete(rows: pd.DataFrame) -> pd.Series:
    """(rows,) bool: of networks trained lightly under every seed, and fully under the first."""
    key, first = rows["indices"].map(tuple), rows["seed"] == rows["seed"].min()
    light = rows["accuracy_val"].notna().groupby(key).transform("all")
    return light & (rows["full_accuracy_test"].notna() & first).groupby(key).transform("any")


def budgets(table: pd.DataFrame, count: int = 15) -> dict[float, int]:
    """Where the slider may stand: up to `count` shares of the MACs, equal factors apart, each with its number of networks.

    Raises:
        ValueError: there are fewer than 5 fully trained networks everywhere.
    """
    rows = table[_complete(table) & (table["seed"] == table["seed"].min())]
    shares = rows["macs_share"].to_numpy(np.float64)
    found = {}
    for value in np.geomspace(shares.min(), shares.max(), count).round(4).tolist() if len(shares) else ():
        near = int((np.abs(shares / value - 1) <= WIDTH).sum())
        if near >= FEWEST:
            found[value] = near
    if not found:
        raise ValueError(f"table: fewer than {FEWEST} fully trained networks within {WIDTH:.0%} of any share of the MACs")
    return found


# --- the picture ------------------------------------------------------------------------------------------------------


def draw(table: pd.DataFrame, ranker: str, budget: float, m: int, k: int) -> Figure:
    """Left: light against full accuracy of the networks at a budget, and which of them the funnel takes; right: what it finds.

    Intervals are 95 % of 1,000 bootstrap replays (`replay.replays`). Random and oracle order are of the same networks.
    Where fewer than m networks are there, m is all of them, and k at most m.

    Args:
        table, ranker, budget: as in `at_budget`. To judge a ranker, give the rows it was not designed on alone.
        m: how many networks are lightly trained.
        k: how many of them are fully trained.

    Raises:
        ValueError: m or k below 1, an unknown ranker, or no network at this budget.

    >>> import graphprune
    >>> table = graphprune.tabular.load("digits")
    >>> len(draw(table, "default", max(budgets(table)), m=150, k=10).axes)
    2
    """
    networks = at_budget(table, ranker, budget)
    m = min(m, len(networks))
    k = min(k, m)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
    _funnel(left, networks, m, k)
    left.set_title(f"{len(networks)} networks at {budget:.3g} of the MACs, ± {WIDTH:.0%}", fontsize=11)
    _found(right, networks, ranker, m, k)
    right.set_title(f"m = {m} light, k = {k} full trainings", fontsize=11)
    seaborn.despine(figure)
    return figure


def _funnel(axes: Axes, networks: Candidates, m: int, k: int) -> None:
    """Validation accuracy after light and full training under the first seeds, the networks taken marked."""
    one = replay_once(networks, m, k)
    stage = np.full(len(networks), f"not among the first {m}", object)
    stage[:m] = f"first {m}: lightly trained"
    stage[list(one.finalists)] = f"best {k} of them: fully trained"
    stage[one.chosen] = f"chosen: test accuracy {one.test:.1%}"
    colours = seaborn.color_palette("colorblind")
    looks = {f"not among the first {m}": (".", "#b5b5b5", 50), f"first {m}: lightly trained": ("o", colours[0], 30)}
    looks |= {
        f"best {k} of them: fully trained": ("D", colours[1], 45),
        f"chosen: test accuracy {one.test:.1%}": ("*", "k", 260),
    }
    for label, (marker, colour, size) in looks.items():
        at = stage == label
        x, y = 100 * networks.light_accuracy[0, at], 100 * networks.full_accuracy[0, at]
        if at.any():
            seaborn.scatterplot(x=x, y=y, ax=axes, label=label, marker=marker, color=colour, s=size, legend=False)
    axes.set(xlabel="validation accuracy after light training (%)", ylabel="validation accuracy after full training (%)")
    axes.legend(fontsize=8, loc="best")


def _found(axes: Axes, networks: Candidates, ranker: str, m: int, k: int) -> None:
    """The test accuracy of the network chosen, in three orders of the same networks."""
    runs = {
        f"{ranker}": replays(networks, [m], k),
        "random order": replays(networks, [m], k, shuffled=True),
        "oracle order": replays(networks.oracle(), [m], k),
    }
    points = pd.concat([found.against_k(m).tail(1).assign(order=name) for name, found in runs.items()], ignore_index=True)
    points[["mean", "low", "high"]] *= 100
    seaborn.scatterplot(points, x="mean", y="order", hue="order", s=80, ax=axes, legend=False, palette="colorblind", zorder=3)
    axes.hlines(points["order"], points["low"], points["high"], color="#555555", linewidth=2, zorder=2)
    for name, mean in zip(points["order"], points["mean"], strict=True):
        axes.annotate(f"{mean:.2f}", (mean, name), xytext=(0, 9), textcoords="offset points", ha="center")
    best = 100 * networks.full_test.mean(0).max()
    axes.axvline(best, color="#555555", linestyle=":", linewidth=1.2, label=f"the best there is: {best:.2f}")
    axes.set(xlabel="test accuracy of the network chosen (%)", ylabel="", ylim=(2.5, -0.6))
    axes.legend(fontsize=8, loc="lower left")


# --- the sliders ------------------------------------------------------------------------------------------------------


def controls(table: pd.DataFrame, update: Callable[[Figure], None], ranker: str, budget: float, m: int, k: int) -> VBox:
    """Sliders that draw the figure anew whenever one is moved.

    Args:
        table: as in `draw`.
        update: what to do with each new figure.
        ranker, budget, m, k: where they stand first; the budget is one of `budgets(table)`.
    """
    options = [(f"{value:.3g} ({near} networks)", value) for value, near in budgets(table).items()]
    wide = {"layout": Layout(width="32em"), "style": {"description_width": "6em"}}
    live = {"continuous_update": False, **wide}
    knobs = {
        "ranker": Dropdown(options=rankers(table), value=ranker, description="ranker", **wide),
        "budget": SelectionSlider(options=options, value=budget, description="MACs share", **live),
        "m": IntSlider(m, 1, max(150, m), description="m (light)", **live),
        "k": IntSlider(k, 1, max(20, k), description="k (full)", **live),
    }

    def moved(_: object) -> None:
        update(draw(table, **{name: knob.value for name, knob in knobs.items()}))

    for knob in knobs.values():
        knob.observe(moved, "value")
    return VBox(list(knobs.values()))


def show(table: pd.DataFrame, ranker: str = "default", budget: float | None = None, m: int = 150, k: int = 10) -> None:
    """The figure as a picture; and below it, where a person's notebook runs the cell, sliders that redraw the picture.

    Args:
        table, ranker, m, k: as in `draw`.
        budget: one of `budgets(table)`; by default the one with the most networks.

    Raises:
        ValueError: as in `draw`.

    >>> import graphprune
    >>> show(graphprune.tabular.load("digits"))  # a terminal shows no picture
    <IPython.core.display.Image object>
    """
    offered = budgets(table)
    budget = max(offered, key=lambda value: offered[value]) if budget is None else budget
    if budget not in offered:
        raise ValueError(f"budget={budget}: must be one of {list(offered)}")
    picture = display(make_picture(draw(table, ranker, budget, m, k), WORDS), display_id=True)
    if picture is not None and is_interactive():
        display(controls(table, lambda figure: picture.update(make_picture(figure, WORDS)), ranker, budget, m, k))
