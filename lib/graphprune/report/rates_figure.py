"""A small network at given pruning rates: its graph channel by channel, its feature matrix, R(r), MACs and parameters.

Where nobody moves a slider (papermill, nbval, a page) the cell's output is a plain picture of the rates given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import seaborn
import torch
from IPython.display import Image, display
from ipywidgets import FloatSlider, Layout, VBox
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning import importance
from graphprune.pruning.cost import CostModel
from graphprune.pruning.masks import kept_masks
from graphprune.pruning.rates import RateSpace
from graphprune.report import layout
from graphprune.report.picture import is_interactive, make_picture

COLOURS = {-1: "#d55e00", 0: "#eeeeee", 1: "#0072b2"}
"""Of a channel that is pruned, of padding, and of a channel that is kept."""


def shares(graph: ChannelGraph, rates: Sequence[float]) -> dict[str, float]:
    """What the rates say and what they cost: R(r), and the shares of multiply-adds and of parameters that are left.

    Args:
        graph: the traced network.
        rates: one for each group, tenths from 0 to 0.9.

    Raises:
        ValueError: a rate is no tenth, or there are not as many as groups.

    >>> import torch, graphprune
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    >>> {name: round(share, 2) for name, share in shares(graph, [0.5, 0]).items()}
    {'channels removed, R(r)': 0.36, 'MACs left': 0.38, 'parameters left': 0.46}
    """
    indices, costs = _indices(graph, rates), CostModel(graph, graph.example)
    macs, params = (int(value) for value in costs.of_rates(indices))
    removed = RateSpace(graph).ratio(indices).item()
    left = {"MACs left": macs / costs.full.macs, "parameters left": params / costs.full.params}
    return {"channels removed, R(r)": removed, **left}


def _indices(graph: ChannelGraph, rates: Sequence[float]) -> Tensor:
    tenths = [round(10 * rate) for rate in rates]
    off = any(abs(10 * rate - tenth) > 1e-6 or not 0 <= tenth <= 9 for rate, tenth in zip(rates, tenths, strict=True))
    if len(rates) != len(graph.groups) or off:
        raise ValueError(f"rates={list(rates)}: give {len(graph.groups)}, one for each group, tenths from 0 to 0.9")
    return torch.tensor([tenths])


def draw(model: nn.Module, graph: ChannelGraph, rates: Sequence[float]) -> Figure:
    """Left: the layers with their channels and the data flow. Middle: the feature matrix. Right: R(r), MACs, parameters.

    In each group the channels with the largest L1 norm stay.

    Args:
        model: a network of a few layers in one row.
        graph: its channel graph.
        rates: as in `shares`.
    """
    kept = kept_masks(graph, _indices(graph, rates), importance.l1(model, graph))
    features = graph.features(kept)[0]
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.35, 1, 0.85])
    _channels(left, graph, features)
    names = [node.name for node in graph.nodes]
    look: dict[str, Any] = {"cmap": ListedColormap(list(COLOURS.values())), "vmin": -1.5, "vmax": 1.5, "cbar": False}
    seaborn.heatmap(features.numpy(), yticklabels=names, linewidths=1, annot=True, fmt=".0f", ax=middle, **look)
    middle.tick_params(axis="y", rotation=0)
    middle.set(title="feature matrix", xlabel="channel")
    _bars(right, shares(graph, rates))
    words = ", ".join(f"{group.name} {rate:.1f}" for group, rate in zip(graph.groups, rates, strict=True))
    figure.suptitle(f"rates of the groups: {words}", fontsize=13)
    return figure


def _channels(axis: Axes, graph: ChannelGraph, features: Tensor) -> None:
    """Each layer a column of squares, one a channel, blue where it stays; arrows where the data flows."""
    at = layout.layout(graph)
    for (x, _), node, row in zip(at.points, graph.nodes, features.int().tolist(), strict=True):
        for channel in range(node.channels):
            axis.add_patch(Rectangle((x - 0.3, -channel - 0.4), 0.6, 0.8, fc=COLOURS[row[channel]], ec="#333333", lw=0.8))
        axis.text(x, -node.channels - 0.1, node.name, ha="center", va="top", fontsize=9)
    for source, target in graph.edge_index.T.tolist():
        (x, _), (u, _) = at.points[source], at.points[target]
        arc = at.is_arc(source, target)
        ends = ((x, 0.45), (u, 0.45)) if arc else ((x + 0.3, 0), (u - 0.3, 0))
        look: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 10, "color": "#555555", "shrinkA": 0, "shrinkB": 0}
        axis.add_patch(FancyArrowPatch(*ends, connectionstyle="arc3,rad=-0.45" if arc else "arc3", **look))
    deepest = max(node.channels for node in graph.nodes)
    axis.set(xlim=(-0.6, max(x for x, _ in at.points) + 0.6), ylim=(-deepest - 1, 2))
    axis.set_axis_off()
    axis.set_title("channels: blue stays, orange goes")


def _bars(axis: Axes, found: dict[str, float]) -> None:
    for place, (name, share) in enumerate(found.items()):
        axis.barh(place, 100, color="#eeeeee", height=0.5)
        axis.barh(place, 100 * share, color=COLOURS[-1 if "removed" in name else 1], height=0.5)
        axis.text(0, place - 0.33, f"{name}: {100 * share:.1f} %", ha="left", va="bottom", fontsize=11)
    axis.set(ylim=(len(found) - 0.5, -0.75), xlim=(0, 100), yticks=[], xlabel="%", title="what it says, what it costs")
    seaborn.despine(ax=axis, left=True)
    axis.grid(visible=False)


def show(model: nn.Module, graph: ChannelGraph, rates: Sequence[float]) -> None:
    """The picture, and below it a slider for each group's rate where a person's notebook runs the cell.

    Args:
        model, graph, rates: as in `draw`; the rates are where the sliders stand first.

    >>> import torch, graphprune
    >>> tiny = graphprune.models.tiny_cnn()
    >>> show(tiny, graphprune.trace(tiny, torch.zeros(1, 1, 8, 8)), [0.5, 0])  # a terminal shows no picture
    <IPython.core.display.Image object>
    """
    picture = display(_png(model, graph, rates), display_id=True)
    if picture is not None and is_interactive():
        wide = {"layout": Layout(width="34em"), "style": {"description_width": "10em"}}
        knobs = [
            FloatSlider(rate, min=0, max=0.9, step=0.1, readout_format=".1f", description=f"rate of {group.name}", **wide)
            for group, rate in zip(graph.groups, rates, strict=True)
        ]
        for knob in knobs:
            knob.observe(lambda _: picture.update(_png(model, graph, [knob.value for knob in knobs])), "value")
        display(VBox(knobs))


def _png(model: nn.Module, graph: ChannelGraph, rates: Sequence[float]) -> Image:
    found = "; ".join(f"{name} {100 * share:.1f} %" for name, share in shares(graph, rates).items())
    return make_picture(draw(model, graph, rates), f"A small network's channels and feature matrix at two rates; {found}")
