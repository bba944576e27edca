"""A layer pruned and quantized: the staircase that its weights go through, beside the accuracy at every sparsity and width.

Where nobody moves a slider (papermill, nbval, a page) the cell's output is a plain picture of the default values.
"""

from __future__ import annotations

import pandas as pd
import seaborn
import torch
from IPython.display import Image, display
from ipywidgets import Layout, SelectionSlider, VBox
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from graphprune.compression.quantizer import fake_quantize, symmetric_grid
from graphprune.report.picture import is_interactive, make_picture
from graphprune.runs import checks


def staircase(values: Tensor, weight: Tensor, sparsity: float, bits: int) -> Tensor:
    """What values become: 0 where they are among the smallest, else the grid value next to them.

    Args:
        values: (n,).
        weight: whose smallest entries are pruned and whose largest one is the end of the grid.
        sparsity: the share pruned, 0 to 1. bits: 2 to 16.

    >>> staircase(torch.tensor([0.2, 1.4, 2.6]), torch.tensor([0.2, 1.4, 2.6, 3.0]), 0.5, 3).tolist()
    [0.0, 0.0, 3.0]
    """
    checks.share(sparsity=sparsity)
    size = weight.abs().flatten().sort().values
    pruned = round(sparsity * len(size))
    threshold = size[pruned - 1] if pruned else torch.tensor(-1.0)
    return torch.where(values.abs() <= threshold, 0.0, fake_quantize(values, symmetric_grid(size[-1], bits)))


def draw(weight: Tensor, accuracy: pd.DataFrame, sparsity: float, bits: int) -> Figure:
    """Left: the staircase, with the layer's weights on the axis; right: accuracy, the sparsity and bits of the left marked.

    Args:
        weight: of one layer.
        accuracy: %, an index of sparsities and columns of bits.
        sparsity, bits: one of the index and of the columns.
    Raises:
        ValueError: the table has no such row or column.
    """
    if sparsity not in accuracy.index or bits not in accuracy.columns:
        raise ValueError(
            f"sparsity={sparsity!r}, bits={bits!r}: the table has the sparsities {list(accuracy.index)} "
            f"and the bits {list(accuracy.columns)}"
        )
    figure = Figure(figsize=(11.5, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
    _stairs(left, weight.detach().flatten(), sparsity, bits)
    seaborn.heatmap(accuracy, annot=True, fmt=".0f", cmap="viridis", ax=right, cbar_kws={"label": "test accuracy (%)"})
    row = [*map(str, accuracy.index)].index(str(sparsity))
    column = [*map(str, accuracy.columns)].index(str(bits))
    right.add_patch(_frame(column, row))
    kept = round((1 - sparsity) * weight.numel())
    right.set(xlabel="bits of a weight", ylabel="share of weights pruned", title="pruned, then rounded; not trained on")
    left.set_title(f"{kept} of {weight.numel()} weights stay, {bits} bits each")
    return figure


def _frame(column: int, row: int) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle((column, row), 1, 1, fill=False, edgecolor=seaborn.color_palette("colorblind")[3], lw=4)


def _stairs(axis: Axes, weight: Tensor, sparsity: float, bits: int) -> None:
    colours, end = seaborn.color_palette("colorblind"), float(weight.abs().max())
    values = torch.linspace(-1.1 * end, 1.1 * end, 2001)
    axis.plot(values, values.clamp(-end, end), color="0.6", ls="--", lw=1.2, label="what gradients see: slope 1, then 0")
    axis.plot(values, staircase(values, weight, sparsity, bits), color=colours[0], lw=2, label="what the layer computes with")
    axis.plot(weight, torch.full_like(weight, -1.25 * end), "|", color=colours[1], alpha=0.5, label="the layer's weights")
    axis.set(xlabel="weight", ylabel="weight, pruned and rounded", ylim=(-1.4 * end, 1.25 * end))
    axis.legend(fontsize=8, loc="upper left")
    seaborn.despine(ax=axis)


def show(weight: Tensor, accuracy: pd.DataFrame, sparsity: float, bits: int) -> None:
    """The picture, and below it sliders over sparsity and bits where a person's notebook runs the cell.

    Args, Raises: as `draw`.
    """
    picture = display(_png(weight, accuracy, sparsity, bits), display_id=True)
    if picture is None or not is_interactive():
        return
    wide = {"layout": Layout(width="32em"), "style": {"description_width": "6em"}, "continuous_update": False}
    knobs = {
        "sparsity": SelectionSlider(options=list(accuracy.index), value=sparsity, description="pruned", **wide),
        "bits": SelectionSlider(options=list(accuracy.columns), value=bits, description="bits", **wide),
    }

    def moved(_: object) -> None:
        picture.update(_png(weight, accuracy, knobs["sparsity"].value, knobs["bits"].value))

    for knob in knobs.values():
        knob.observe(moved, "value")
    display(VBox(list(knobs.values())))


def _png(weight: Tensor, accuracy: pd.DataFrame, sparsity: float, bits: int) -> Image:
    words = (
        f"The staircase of a layer with {sparsity:.0%} of its weights pruned and {bits} bits, and accuracies of all such pairs"
    )
    return make_picture(draw(weight, accuracy, sparsity, bits), words)
