"""The network of notebook 07 that is solved by hand, drawn with its scores, beside the objective as one score moves.

Where nobody moves a slider (papermill, nbval, a page) the cell's output is a plain picture of the default scores.
"""

from __future__ import annotations

import math

import seaborn
from IPython.display import Image, display
from ipywidgets import FloatSlider, Layout
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphprune.report.picture import is_interactive, make_picture

INPUT = [(0, 0), (1, 1), (2, 0), (2, 1)]  # edges of weight 1: hidden unit, input
OUTPUT = {(0, 0): 2, (1, 0): -2, (0, 1): -2, (1, 1): 2}  # output, hidden unit


def objective(s: tuple[float, float, float], lam: float) -> float:
    """Of the 2-3-2 network on the images (1, 0) and (0, 1): lam mean_b log(1 + exp(-4 s_b)) + mean(s - 2).

    >>> round(objective((1.0, 1.0, 1.0), 5.0), 4)
    -0.9093
    """
    losses = [math.log1p(math.exp(-4 * s[0])), math.log1p(math.exp(-4 * s[1]))]
    return lam * sum(losses) / 2 + sum(s) / 3 - 2


def best(lam: float) -> float:
    """The optimal score of units 0 and 1: log(6 lam - 1) / 4, between 0 and 1; where 6 lam <= 2 it is 0.

    >>> round(best(5.0), 4)
    0.8418
    """
    return min(1.0, max(0.0, math.log(max(1e-9, 6 * lam - 1)) / 4))


def draw(score: float, lam: float = 5.0) -> Figure:
    """Left: the network, each hidden unit filled as far as its score; right: the objective against unit 0's score.

    Args:
        score: of hidden unit 0; the others have their optimal ones.
    Raises:
        ValueError: the score is not between 0 and 1.
    """
    if not 0 <= score <= 1:
        raise ValueError(f"score={score!r}: must be between 0 and 1")
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    s, colours = (score, best(lam), 0.0), seaborn.color_palette("colorblind")
    _network(left, s, colours[0])
    grid = [i / 100 for i in range(101)]
    right.plot(grid, [objective((value, s[1], s[2]), lam) for value in grid], color=colours[0], lw=2, label="objective")
    right.plot(score, objective(s, lam), "o", color=colours[1], ms=10, label=f"score {score:.2f}")
    right.axvline(best(lam), color="0.4", ls="--", lw=1.2, label=f"optimum log(6 λ - 1) / 4 = {best(lam):.3f}")
    right.set(xlabel="score s0 of hidden unit 0", ylabel="objective", title=f"λ = {lam:g}: objective {objective(s, lam):.4f}")
    right.legend(fontsize=9)
    seaborn.despine(ax=right)
    return figure


def _network(axis: Axes, s: tuple[float, float, float], colour: tuple[float, float, float]) -> None:
    """Inputs, hidden units and outputs from left to right; an edge with its weight, a dotted one where it is 0."""
    ins, hidden, outs = {0: -0.5, 1: -1.5}, {0: 0.0, 1: -1.0, 2: -2.0}, {0: -0.5, 1: -1.5}
    for unit, y in hidden.items():
        for source, y_in in ins.items():
            _edge(axis, (0, y_in), (1, y), 1 if (unit, source) in INPUT else 0)
        for out, y_out in outs.items():
            _edge(axis, (1, y), (2, y_out), OUTPUT.get((out, unit), 0))
    for x, ys, word in ((0, ins, "in"), (2, outs, "class")):
        axis.scatter([x] * len(ys), list(ys.values()), s=1500, color="white", edgecolor="black", zorder=2)
        for number, y in ys.items():
            axis.annotate(f"{word} {number}", (x, y), ha="center", va="center", fontsize=9, zorder=3)
    for number, y in hidden.items():
        shade = [1 - s[number] * (1 - part) * 0.8 for part in colour]
        axis.scatter([1], [y], s=1500, color=[shade], edgecolor="black", zorder=2)
        axis.annotate(f"unit {number}\n{s[number]:.2f}", (1, y), ha="center", va="center", fontsize=9, zorder=3)
    axis.margins(0.14)
    axis.set_axis_off()


def _edge(axis: Axes, start: tuple[float, float], end: tuple[float, float], weight: int) -> None:
    look = {"lw": 1.8, "color": "0.3"} if weight else {"lw": 0.7, "color": "0.7", "ls": ":"}
    axis.plot([start[0], end[0]], [start[1], end[1]], zorder=1, **look)  # type: ignore[arg-type]
    if weight:
        place = (start[0] + 0.68 * (end[0] - start[0]), start[1] + 0.68 * (end[1] - start[1]) + 0.08)
        axis.annotate(f"{weight:+d}", place, fontsize=8.5, color="0.2", ha="center")


def show(score: float, lam: float = 5.0) -> None:
    """The picture, and below it a slider over the score where a person's notebook runs the cell."""
    picture = display(_png(draw(score, lam), score), display_id=True)
    if picture is not None and is_interactive():
        wide = {"layout": Layout(width="32em"), "style": {"description_width": "6em"}}
        knob = FloatSlider(score, min=0, max=1, step=0.02, description="score s0", **wide)
        knob.observe(lambda change: picture.update(_png(draw(change["new"], lam), change["new"])), "value")
        display(knob)


def _png(figure: Figure, score: float) -> Image:
    words = f"A network of two inputs, three scored hidden units and two classes, and its objective at a score of {score:.2f}"
    return make_picture(figure, words)
