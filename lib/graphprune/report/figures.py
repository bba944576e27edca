"""One look for every figure, a network drawn as a graph, and a file for each figure that only changes when the figure does."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from math import pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.report.layout import RADIUS, Layout, Place, Point, layout
from graphprune.runs import safe_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from graphprune.graph.channel_graph import ChannelGraph, Group, Node

__all__ = ["draw_graph", "save", "style"]


def __dir__() -> list[str]:
    return __all__


FROZEN = "#b5b5b5"
FREE = "#ffffff"  # groups of one layer
INK = "#333333"  # outlines
KINDS = {
    "conv": "convolution",
    "bn": "batch normalisation",
    "norm": "other normalisation",
    "pool": "pooling",
    "fc": "fully connected",
}
LISTED = 9  # coupled groups the legend names; there are as many strong colours
LETTERS = 12  # of a layer's name in a line
CENTRED: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 5}


def style() -> None:
    """Seaborn's white grid with a colour-blind safe palette, for all figures of a notebook."""
    import seaborn

    seaborn.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc={"figure.dpi": 100, "svg.hashsalt": "0"})


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without the date or the software's name, so that equal figures are equal files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:], dpi=110, bbox_inches="tight", metadata={"Software": None})
    safe_files.replace(path, picture.getvalue())


# a network as a graph ---------------------------------------------------------------------------------------------


def draw_graph(graph: ChannelGraph, title: str = "", columns: int = 20, scale: float = 0.4, names: bool = False) -> Figure:
    """Draw a network as the graph an encoder sees: shape = kind of layer, colour and number = coupled group, grey = frozen.

    Groups that couple several layers have strong colours; groups of one layer are white. A layer that carries the channels
    of several groups (after a concatenation) has a stripe for each, as high as its share; there a group of one layer has a
    pale colour. Above a layer stands how many channels it has, where the layer on its left has another number. Nodes and
    edges are those of SACP, section 3.2; an edge that jumps over layers is an arc.

    Args:
        graph: the traced network.
        title: above the drawing.
        columns: the most layers side by side.
        scale: inches from one column to the next.
        names: write under each layer the part of its name in which it differs from the layer on its left.

    Raises:
        ValueError: `columns` is below 2.

    >>> import torch, graphprune
    >>> figure = draw_graph(graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8)), "tiny_cnn")
    >>> [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    ['tiny_cnn']
    """
    from matplotlib import pyplot as plt

    labels = _labels(graph, layout(graph, columns)) if names else [""] * len(graph.nodes)
    letters = max(len(line) for label in labels for line in label.split("\n"))
    size = min(12.0, 110 * scale / max(1, letters))  # points
    below = (0.15 + max(label.count("\n") + 1 for label in labels) * 1.3 * size / 72 / scale) if names else 0.0
    drawing = layout(graph, columns, below)
    wide, low = max(x for x, _ in drawing.points), min(y for _, y in drawing.points) - below - 0.7
    top = drawing.gutters[0] + 0.25
    figure, axes = plt.subplots(figsize=((wide + 1.6) * scale, (top - low) * scale))
    figure.subplots_adjust(0, 0, 1, 1)
    for source, target in graph.edge_index.T.tolist():
        _edge(axes, drawing, source, target)
    colours = _colours(graph)
    for node, label, (x, y) in zip(graph.nodes, labels, drawing.points, strict=True):
        _node(axes, node, _parts(graph, node), colours, (x, y), 22 * scale)
        axes.text(x, y - RADIUS - 0.1, label, ha="center", va="top", fontsize=size, linespacing=1.1)
    _widths(axes, graph, drawing, max(6.5, min(9.0, 16 * scale)))
    axes.set(xlim=(-0.9, wide + 0.7), ylim=(low, top), aspect="equal")
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=13, x=0.04)
    axes.legend(
        *zip(*_legend(graph, colours), strict=True), loc="upper left", bbox_to_anchor=(0, 0), ncols=2 if wide < 12 else 3,
        frameon=False, fontsize=9, handler_map=_handlers(),
    )  # fmt: skip
    return figure


def _parts(graph: ChannelGraph, node: Node) -> dict[int, float]:
    """The groups a layer's channels belong to, -1 for the frozen ones, each with its share, in order of appearance."""
    ends = np.cumsum([group.channels for group in graph.groups])
    atoms = np.array(node.atoms)
    found = Counter(np.where(atoms < 0, -1, np.searchsorted(ends, atoms, side="right")).tolist())
    return {number: count / len(atoms) for number, count in found.items()}


def _colours(graph: ChannelGraph) -> dict[int, Any]:
    """Group number -> colour: strong where several layers are coupled, pale where it is a stripe, else white; -1 is grey."""
    import seaborn

    strong, pale = ([c for i, c in enumerate(seaborn.color_palette(name)) if i != 7] for name in ("colorblind", "pastel"))
    stripes = {number for node in graph.nodes if len(parts := _parts(graph, node)) > 1 for number in parts}
    colours: dict[int, Any] = {-1: FROZEN}
    coupled = single = 0
    for number, group in enumerate(graph.groups):
        if len(group.layers) > 1:
            colours[number], coupled = strong[coupled % len(strong)], coupled + 1
        elif number in stripes:
            colours[number], single = pale[single % len(pale)], single + 1
        else:
            colours[number] = FREE
    return colours


def _node(axes: Axes, node: Node, parts: dict[int, float], colours: dict[int, Any], centre: Point, size: float) -> None:
    """One layer: its shape, a stripe for each of its groups, and their numbers if there is room."""
    from matplotlib.patches import Rectangle

    x, y = centre
    only = colours[next(iter(parts))] if len(parts) == 1 else "none"
    shape = axes.add_patch(_shape(node.kind, x, y, facecolor=only, edgecolor=INK, linewidth=0.8, zorder=4))
    outline = shape.get_path().transformed(shape.get_patch_transform()).get_extents()
    upper = outline.y1
    roomy = len(parts) == 1 or (min(parts.values()) > 0.2 and node.kind != "pool")  # for a number in each stripe
    for number, share in parts.items():
        high, middle = share * outline.height, y - 0.02
        if len(parts) > 1:
            stripe = Rectangle(
                (outline.x0, upper - high), outline.width, high, fc=colours[number], ec=INK, lw=0.4 * roomy, zorder=3
            )
            axes.add_artist(stripe).set_clip_path(shape)
            upper, middle = upper - high, upper - high / 2 - 0.01
        if number >= 0 and roomy:
            points = size * (1.0 if len(parts) == 1 else 0.6) * (0.8 if node.kind in {"pool", "fc"} else 1.0)
            axes.text(x, middle, str(number), fontsize=points, color=_ink(colours[number]), **CENTRED)
    if not roomy:
        axes.text(x, y, f"{len(parts)}×", fontsize=0.8 * size, color="black", **CENTRED)


def _ink(colour: Any) -> str:
    """White or black, whichever has the greater contrast (WCAG 2.2, relative luminance)."""
    from matplotlib.colors import to_rgb

    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return "white" if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.179 else "black"


def _labels(graph: ChannelGraph, drawing: Layout) -> list[str]:
    """For each layer its name without what it shares with the layer on its left, a line for every twelve letters.

    Where none is there, the layer above counts, if it belongs to the same module: an attention's queries, keys and values.
    """
    at = {place: node.name.split(".") for place, node in zip(drawing.places, graph.nodes, strict=True)}
    labels = []
    for place, parts in at.items():
        left = at.get(Place(place.row, place.column - 1, place.lane), [])
        above = at.get(Place(place.row, place.column, place.lane - 1), [])
        left = left or (above if above[:-1] == parts[:-1] else [])
        same = [a == b for a, b in zip(left, parts[:-1], strict=False)]
        shared = [*same, False].index(False)
        while shared and parts[shared].isdigit():  # a number by itself says nothing
            shared -= 1
        lines = [""]
        for piece in re.findall(r"[^._]*[._]?", ".".join(parts[shared:])):
            if len(lines[-1]) + len(piece) <= LETTERS:
                lines[-1] += piece
            else:
                lines.append(piece)
        labels.append("\n".join(lines).strip())
    return labels


def _shape(kind: str, x: float, y: float, radius: float = RADIUS, **look: Any) -> Patch:
    from matplotlib.patches import Circle, Rectangle, RegularPolygon

    if kind == "conv":
        return Rectangle((x - 0.88 * radius, y - 0.88 * radius), 1.76 * radius, 1.76 * radius, **look)
    sides = {"pool": 3, "fc": 4, "norm": 6}
    if kind in sides:
        turn = pi if kind == "pool" else 0.0  # a pooling points down
        return RegularPolygon((x, y), sides[kind], radius=1.15 * radius, orientation=turn, **look)
    return Circle((x, y), radius, **look)


def _edge(axes: Axes, drawing: Layout, source: int, target: int) -> None:
    """One arrow: straight to the neighbour, an arc over skipped layers, with corners to another lane or row."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    arc = drawing.is_arc(source, target)
    corners = drawing.route(source, target)
    codes = [Line.MOVETO, Line.CURVE3, Line.CURVE3] if arc else None
    look: dict[str, Any] = {
        "arrowstyle": "-|>", "mutation_scale": 7, "linewidth": 1.2 if arc else 0.9, "facecolor": "#555555",
        "edgecolor": "#555555", "zorder": 2, "joinstyle": "round",
    }  # fmt: skip
    axes.add_patch(FancyArrowPatch(path=Line(corners, codes), **look))


def _widths(axes: Axes, graph: ChannelGraph, drawing: Layout, size: float) -> None:
    """Say above a layer how many channels it has, where the layer on its left in the same lane has another number."""
    at = {place: node.channels for place, node in zip(drawing.places, graph.nodes, strict=True)}
    for (place, channels), (x, y) in zip(at.items(), drawing.points, strict=True):
        if at.get(Place(place.row, place.column - 1, place.lane)) != channels:
            look: dict[str, Any] = {"va": "bottom", "fontsize": size, "color": "#555555", "zorder": 5}
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.85}
            axes.text(x + 0.02, y + RADIUS + 0.03, f"{channels} ch", bbox=paper, **look)


def _legend(graph: ChannelGraph, colours: dict[int, Any]) -> Iterator[tuple[Patch, str]]:
    numbers = range(len(graph.groups))
    coupled = [i for i in numbers if len(graph.groups[i].layers) > 1]
    for i in coupled[:LISTED]:
        yield _key("", colours[i]), f"group {i}: {_choices(graph.groups[i])}, shared by {len(graph.groups[i].layers)} layers"
    if len(coupled) > LISTED:
        yield _key("", "white"), f"and {len(coupled) - LISTED} more: colours come again, numbers do not"
    singles = [i for i in numbers if i not in coupled]
    if free := [i for i in singles if colours[i] == FREE]:
        yield _key("", FREE), f"white: {len(free)} group{'s' * (len(free) > 1)} of one layer"
    if pale := [i for i in singles if colours[i] != FREE]:
        yield _key("", colours[pale[0]]), f"pale: {len(pale)} group{'s' * (len(pale) > 1)} of one layer, read beside others"
    if any(len(_parts(graph, node)) > 1 for node in graph.nodes):
        yield _key("", "white"), "stripes: channels of several groups (3×: of three)"
    yield _key("", FROZEN), "grey: never pruned"
    for kind in dict.fromkeys(node.kind for node in graph.nodes):
        yield _key(kind, "white"), KINDS.get(kind, kind)


def _choices(group: Group) -> str:
    """How many channels a group has; where a choice takes several channels of every layer, the choices and how many each."""
    each, rest = divmod(group.width, group.channels * len(group.layers))
    if rest:
        return f"{group.channels} choices of several channels"
    return f"{group.channels} channels" if each == 1 else f"{group.channels} choices × {each} channels"


def _key(kind: str, colour: Any) -> Patch:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor=INK, linewidth=0.8, label=kind)


def _handlers() -> dict[Any, Any]:
    """Legend keys: a box for a colour, else the shape of the nodes."""
    from matplotlib.legend_handler import HandlerPatch
    from matplotlib.patches import Patch, Rectangle

    def key(orig_handle: Patch, width: float, height: float, **_: Any) -> Patch:
        kind = str(orig_handle.get_label())
        return _shape(kind, width / 2, height / 2, 0.6 * height) if kind else Rectangle((0, 0), width, height)

    return {Patch: HandlerPatch(patch_func=key)}
