"""One small layer drawn as a bipartite graph while it is thinned: by magnitude, and by effective resistance.

Where nobody moves a slider (papermill, nbval, a page) the cell's output is a plain picture of the default sparsity.
"""

from __future__ import annotations

from typing import Any

import seaborn
import torch
from IPython.display import Image, display
from ipywidgets import FloatSlider, Layout
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from graphprune.pruning.weight_budgets import keep_top
from graphprune.report.picture import is_interactive, make_picture
from graphprune.spectral import components, effective_resistance, singular_values


def thinned(weight: Tensor, sparsity: float) -> dict[str, Tensor]:
    """Which edges stay, (out, in) bool, when the largest weights are kept and when the largest leverages are.

    Raises:
        ValueError: the sparsity is out of range.

    >>> {name: int(kept.sum()) for name, kept in thinned(torch.rand(4, 3), 0.5).items()}
    {'magnitude': 6, 'resistance': 6}
    """
    strength = weight.abs().double()
    leverage = torch.where(strength > 0, strength * effective_resistance(weight), 0.0)
    ranked = {"magnitude": strength, "resistance": leverage}
    return {name: keep_top({"layer": score}, sparsity)["layer"] for name, score in ranked.items()}


def draw(weight: Tensor, sparsity: float) -> Figure:
    """Left and middle: the edges that stay, as thick as their weights; right: singular values of |W| before and after.

    Args:
        weight: (out, in), a few nodes a side.
        sparsity: share of the edges that go.
    """
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    axes, colours = figure.subplots(1, 3), seaborn.color_palette("colorblind")
    found = thinned(weight, sparsity)
    for axis, colour, (name, kept) in zip(axes, colours, found.items(), strict=False):
        parts = len(components(weight * kept).unique())
        _graph(axis, weight, kept, colour)
        axis.set_title(f"{name}: {int(kept.sum())} of {kept.numel()} edges, {parts} component{'s' * (parts > 1)}", fontsize=11)
    rows = {"dense": singular_values(weight)} | {n: singular_values(weight * kept) for n, kept in found.items()}
    for place, (name, values) in enumerate(rows.items()):
        at = [i + 1 + 0.26 * (place - 1) for i in range(len(values))]
        axes[2].bar(at, values.tolist(), 0.24, label=name, color=["#777777", *colours][place])
    axes[2].set(xlabel="number of the singular value", ylabel="singular value of |W|", xticks=range(1, len(rows["dense"]) + 1))
    axes[2].legend(fontsize=9)
    seaborn.despine(ax=axes[2])
    return figure


def _graph(axis: Axes, weight: Tensor, kept: Tensor, colour: tuple[float, float, float]) -> None:
    """Inputs on the left, outputs on the right; a pruned edge is dotted."""
    outs, ins = weight.shape
    y_in, y_out = [-i * (outs - 1) / max(1, ins - 1) for i in range(ins)], [-i for i in range(outs)]
    largest = float(weight.abs().max())
    for i, j in weight.nonzero().tolist():
        look: dict[str, Any] = {"lw": 0.8 + 5 * abs(float(weight[i, j])) / largest, "color": colour, "zorder": 1}
        pruned: dict[str, Any] = {"lw": 0.8, "color": "#999999", "ls": ":", "zorder": 0}
        axis.plot([0, 1], [y_in[j], y_out[i]], **(look if kept[i, j] else pruned))
    for x, ys, side in ((0, y_in, "in"), (1, y_out, "out")):
        axis.scatter([x] * len(ys), ys, s=420, color="white", edgecolor="black", zorder=2)
        for number, y in enumerate(ys):
            axis.annotate(f"{side} {number}", (x, y), ha="center", va="center", fontsize=7.5, zorder=3)
    axis.margins(0.2)
    axis.set_axis_off()


def show(weight: Tensor, sparsity: float) -> None:
    """The picture, and below it a slider over the sparsity where a person's notebook runs the cell."""
    picture = display(_png(draw(weight, sparsity), sparsity), display_id=True)
    if picture is not None and is_interactive():
        largest = 1 - 1 / weight.numel()
        wide = {"layout": Layout(width="32em"), "style": {"description_width": "6em"}}
        knob = FloatSlider(sparsity, min=0, max=largest, step=1 / weight.numel(), description="sparsity", **wide)
        knob.observe(lambda change: picture.update(_png(draw(weight, change["new"]), change["new"])), "value")
        display(knob)


def _png(figure: Figure, sparsity: float) -> Image:
    words = (
        f"A small layer as a bipartite graph at {sparsity:.0%} sparsity, pruned by magnitude and by resistance, and its spectra"
    )
    return make_picture(figure, words)
