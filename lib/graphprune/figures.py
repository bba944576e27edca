"""One look for every figure, a network drawn as a graph, and a file for each figure that only changes when the figure does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from graphprune.graph import ChannelGraph

FROZEN = "#b5b5b5"
KINDS = {
    "conv": "convolution",
    "bn": "batch normalisation",
    "norm": "other normalisation",
    "pool": "pooling",
    "fc": "fully connected",
}
RADIUS = 0.33  # of a node, where neighbouring columns are 1 apart
Point = tuple[float, float]


def style() -> None:
    """Seaborn's white grid with a colour-blind safe palette, for all figures of a notebook."""
    import seaborn

    seaborn.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc={"figure.dpi": 100, "svg.hashsalt": "0"})


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without the date or the software's name, so that equal figures are equal files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})


# a network as a graph ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a layer is drawn: rows go down, columns to the right, and lane 0 holds the longest path through the network."""

    row: int
    column: int
    lane: int


def layout(graph: ChannelGraph, columns: int = 20) -> list[Place]:
    """Place the layers like text: by depth from left to right, a new row wherever the network grows wider, or at the margin.

    Args:
        graph: the traced network.
        columns: the most columns a row has.

    Returns:
        one place for each of `graph.nodes`; no two are the same.
    Raises:
        ValueError: `columns` is below 2.
    """
    import networkx

    if not isinstance(columns, int) or columns < 2:
        raise ValueError(f"columns={columns!r}: a row needs at least 2")
    flow = networkx.DiGraph()
    flow.add_nodes_from(range(len(graph.nodes)))
    for source, target in sorted(graph.edge_index.T.tolist(), key=lambda edge: edge[0] > edge[1]):
        if source < target or not networkx.has_path(flow, target, source):  # merging an addition may close a cycle
            flow.add_edge(source, target)
    levels = [sorted(level) for level in networkx.topological_generations(flow)]
    height = {node: i for i, level in enumerate(networkx.topological_generations(flow.reverse())) for node in level}
    places: dict[int, Place] = {}
    row, column, widest = 0, -1, 0
    for level in levels:
        level.sort(key=lambda node: -height[node])  # the longest path comes first
        main, column = graph.nodes[level[0]], column + 1
        wider = main.kind == "conv" and main.channels > widest
        widest = main.channels if wider else widest
        if column and (wider or column == columns):
            row, column = row + 1, 0
        places |= {node: Place(row, column, lane) for lane, node in enumerate(level)}
    return [places[node] for node in range(len(graph.nodes))]


def draw_graph(graph: ChannelGraph, title: str = "", columns: int = 20, scale: float = 0.5, names: bool = False) -> Figure:
    """Draw a network as the graph an encoder sees: shape = kind of layer, colour and number = coupled group, grey = frozen.

    Groups that couple several layers have strong colours; groups of one layer have pale ones. Nodes and edges are those of
    SACP, section 3.2; an edge that jumps over layers is an arc.

    Args:
        graph: the traced network.
        title: above the drawing.
        columns: the most layers side by side.
        scale: inches from one column to the next.
        names: write each layer's name under it.

    Raises:
        ValueError: `columns` is below 2.

    >>> figure = draw_graph(graphprune.trace(model, torch.zeros(1, 3, 32, 32)), "ResNet-20")
    """
    from matplotlib import pyplot as plt

    places = layout(graph, columns)
    points = positions(places)
    wide, high = max(x for x, _ in points), -min(y for _, y in points)
    figure, axes = plt.subplots(figsize=((wide + 2.6) * scale, (high + 2.6) * scale + 0.5))
    for source, target in graph.edge_index.T.tolist():
        _edge(axes, places[source], places[target], points[source], points[target])
    colours = _colours(graph)
    for node, (x, y) in zip(graph.nodes, points, strict=True):
        group = _group(graph, node.atoms)
        axes.add_patch(_shape(node.kind, x, y, facecolor=colours[group], edgecolor="#333333", linewidth=0.8, zorder=3))
        if group >= 0:
            ink = "white" if len(graph.groups[group].layers) > 1 else "black"
            axes.text(x, y - 0.02, str(group), ha="center", va="center", fontsize=17 * scale, color=ink, zorder=4)
        if names:
            axes.text(x, y - 0.5, node.name, ha="center", va="top", fontsize=12)
    for row in sorted({place.row for place in places}):
        _width_of_row(axes, graph, places, points, row)
    axes.set(xlim=(-1.9, wide + 0.7), ylim=(-high - (1.1 if names else 0.7), 1.3), aspect="equal")
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=13, x=0.04)
    axes.legend(
        *zip(*_legend(graph, colours), strict=True), loc="upper left", bbox_to_anchor=(0, 0), ncols=2 if wide < 12 else 3,
        frameon=False, fontsize=9, handler_map=_handlers(),
    )  # fmt: skip
    return figure


def positions(places: list[Place]) -> list[Point]:
    """The centre of each node: a row is as high as its lanes, with room for arcs above it."""
    lanes = {row: max(p.lane for p in places if p.row == row) for row in sorted({p.row for p in places})}
    top = [sum(2.0 + lanes[above] for above in range(row)) for row in lanes]
    return [(float(place.column), -(top[place.row] + place.lane)) for place in places]


def _group(graph: ChannelGraph, atoms: tuple[int, ...]) -> int:
    """The number of the group of a layer's first prunable channel, -1 if it has none."""
    first = next((atom for atom in atoms if atom >= 0), None)
    spans = graph.slices.values()
    return -1 if first is None else next(i for i, span in enumerate(spans) if span.start <= first < span.stop)


def _colours(graph: ChannelGraph) -> dict[int, Any]:
    """Group number -> colour: strong where several layers are coupled, pale else; -1 is grey."""
    import seaborn

    strong, pale = ([c for i, c in enumerate(seaborn.color_palette(name)) if i != 7] for name in ("colorblind", "pastel"))
    colours: dict[int, Any] = {-1: FROZEN}
    coupled = single = 0
    for number, group in enumerate(graph.groups):
        if len(group.layers) > 1:
            colours[number], coupled = strong[coupled % len(strong)], coupled + 1
        else:
            tint = pale[single % len(pale)]
            colours[number], single = tuple(0.5 + 0.5 * part for part in tint), single + 1
    return colours


def _shape(kind: str, x: float, y: float, radius: float = RADIUS, **look: Any) -> Patch:
    from matplotlib.patches import Circle, Rectangle, RegularPolygon

    if kind == "conv":
        return Rectangle((x - 0.88 * radius, y - 0.88 * radius), 1.76 * radius, 1.76 * radius, **look)
    sides = {"pool": 3, "fc": 4, "norm": 6}
    if kind in sides:
        turn = pi if kind == "pool" else 0.0  # a pooling points down
        return RegularPolygon((x, y), sides[kind], radius=1.15 * radius, orientation=turn, **look)
    return Circle((x, y), radius, **look)


def _edge(axes: Axes, a: Place, b: Place, start: Point, end: Point) -> None:
    """One arrow: straight to the neighbour, an arc over skipped layers, along the margins to another row."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    jump = (a.row, a.lane) == (b.row, b.lane) and b.column - a.column > 1
    look: dict[str, Any] = {
        "arrowstyle": "-|>", "mutation_scale": 7, "linewidth": 1.2 if jump else 0.9, "facecolor": "#555555",
        "edgecolor": "#555555", "zorder": 2, "joinstyle": "round",
    }  # fmt: skip
    if jump:
        span = end[0] - start[0]
        middle = (start[0] + span / 2, start[1] + 0.55 + 2 * min(0.6, 0.11 * span))
        curve = [(start[0] + 0.1, start[1] + RADIUS), middle, (end[0] - 0.1, end[1] + RADIUS)]
        axes.add_patch(FancyArrowPatch(path=Line(curve, [Line.MOVETO, Line.CURVE3, Line.CURVE3]), **look))
    else:
        axes.add_patch(FancyArrowPatch(path=Line(list(_corners(a, b, start, end))), **look))


def _corners(a: Place, b: Place, start: Point, end: Point) -> Iterator[Point]:
    """The corners of an edge that is no arc; it begins in the middle of a node and ends at the rim of the other."""
    (x, y), (u, v) = start, end
    gap = RADIUS + 0.06
    yield start
    if a.row != b.row:  # round the right end of this row, and down between the rows
        gutter = v + b.lane + 1.05
        yield from [(x + 0.6, y), (x + 0.6, gutter)]
        if b.column and not b.lane:
            yield from [(u, gutter), (u, v + gap)]
        else:
            yield from [(-0.7, gutter), (-0.7, v), (u - gap, v)]
    elif b.lane < a.lane and b.column - a.column > 1:
        yield from [(u, y), (u, v - gap)]
    elif b.lane > a.lane and b.column - a.column > 1:
        yield from [(x, v), (u - gap, v)]
    else:
        share = 1 - gap / ((u - x) ** 2 + (v - y) ** 2) ** 0.5
        yield (x + share * (u - x), y + share * (v - y))


def _width_of_row(axes: Axes, graph: ChannelGraph, places: list[Place], points: list[Point], row: int) -> None:
    """Say left of a row how many channels its first layer has."""
    first = min((i for i, place in enumerate(places) if place.row == row), key=lambda i: (places[i].column, places[i].lane))
    text = f"{graph.nodes[first].channels}\nchannels"
    axes.text(-0.95, points[first][1], text, ha="right", va="center", fontsize=9, color="#555555")


def _legend(graph: ChannelGraph, colours: dict[int, Any]) -> Iterator[tuple[Patch, str]]:
    numbers = range(len(graph.groups))
    coupled = [i for i in numbers if len(graph.groups[i].layers) > 1]
    for i in coupled:
        group = graph.groups[i]
        yield _key("", colours[i]), f"group {i}: {group.channels} channels, shared by {len(group.layers)} layers"
    if single := [i for i in numbers if i not in coupled]:
        yield _key("", colours[single[0]]), f"pale: {len(single)} group{'s' * (len(single) > 1)} of one layer"
    yield _key("", FROZEN), "grey: never pruned"
    for kind in dict.fromkeys(node.kind for node in graph.nodes):
        yield _key(kind, "white"), KINDS.get(kind, kind)


def _key(kind: str, colour: Any) -> Patch:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor="#333333", linewidth=0.8, label=kind)


def _handlers() -> dict[Any, Any]:
    """Legend keys: a box for a colour, else the shape of the nodes."""
    from matplotlib.legend_handler import HandlerPatch
    from matplotlib.patches import Patch, Rectangle

    def key(orig_handle: Patch, width: float, height: float, **_: Any) -> Patch:
        kind = str(orig_handle.get_label())
        return _shape(kind, width / 2, height / 2, 0.6 * height) if kind else Rectangle((0, 0), width, height)

    return {Patch: HandlerPatch(patch_func=key)}
