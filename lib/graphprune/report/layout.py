"""Where the layers of a network are drawn, and along which lines the data flows: a drawing is read like text.

Rows go down, columns to the right. Lane 0 of a row holds the longest path through the network, a parallel branch lies in a
lane of its own below it, and no line runs through a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from networkx import DiGraph

    from graphprune.graph.channel_graph import ChannelGraph

RADIUS = 0.33  # of a node, where neighbouring columns are 1 apart
GAP = RADIUS + 0.06  # from a node's centre to an arrow's tip
Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """Where a layer is drawn: rows go down, columns to the right, and lane 0 holds the longest path through the network."""

    row: int
    column: int
    lane: int


@dataclass(frozen=True)
class Layout:
    """The places of a network's layers, and the same in coordinates.

    Attributes:
        places: one for each of `graph.nodes`; no two are the same.
        points: the centre of each node, where neighbouring columns are 1 apart; y is negative downwards.
        gutters: for each row the height above it where lines from other rows come in.
    """

    places: tuple[Place, ...]
    points: tuple[Point, ...]
    gutters: tuple[float, ...]

    @cached_property
    def _taken(self) -> frozenset[Place]:
        return frozenset(self.places)

    def is_arc(self, source: int, target: int) -> bool:
        """Whether an edge jumps over layers of its own lane (or goes back), so that it is drawn as an arc."""
        a, b = self.places[source], self.places[target]
        same = (a.row, a.lane) == (b.row, b.lane)
        return same and (b.column < a.column or not self._free(a.lane, a, b))

    def _free(self, lane: int, a: Place, b: Place) -> bool:
        """Whether nothing lies in a lane of `a`'s row between the columns of `a` and `b`."""
        return not any(Place(a.row, column, lane) in self._taken for column in range(a.column + 1, b.column))

    def route(self, source: int, target: int) -> list[Point]:
        """The corners of an edge, from a node's middle to the rim of the other; an arc is its ends and their control point."""
        a, b = self.places[source], self.places[target]
        (x, y), (u, v) = self.points[source], self.points[target]
        if self.is_arc(source, target):
            ends = (x + 0.06, y + RADIUS / 2), (u - 0.1, v + RADIUS)
            return [ends[0], ((x + u) / 2, 2 * (y + peak(u - x)) - (ends[0][1] + ends[1][1]) / 2), ends[1]]
        if a.row != b.row:  # out at the right, and in between the rows
            return [(x, y), (x + 0.5, y), (x + 0.5, self.gutters[b.row]), *self._enter(b, (u, v))]
        if a.lane == b.lane:
            return [(x, y), (u - GAP, v)]
        there, here = self._free(b.lane, a, b), self._free(a.lane, a, b)
        turn = x + 0.5 if there and (b.lane > a.lane or not here) else u - 0.5  # a branch runs in its own lane, if it can
        return [(x, y), (turn, y), (turn, v), (u - GAP, v)]

    def _enter(self, b: Place, end: Point) -> Iterator[Point]:
        """From the gutter above its row to a node: from above if nothing lies there, else from the left."""
        (u, v), gutter = end, self.gutters[b.row]
        if b.column and not b.lane:
            return iter([(u, gutter), (u, v + GAP)])
        side = u - 0.5 if b.column else u - 0.7
        return iter([(side, gutter), (side, v), (u - GAP, v)])


def layout(graph: ChannelGraph, columns: int = 20, below: float = 0.0) -> Layout:
    """Place the layers like text: by depth from left to right, a new row where the network grows wider, or at the margin.

    A row ends where few edges have to go on to the next one.

    Args:
        graph: the traced network.
        columns: the most columns a row has.
        below: room for text under each node, in columns.

    Raises:
        ValueError: `columns` is below 2.

    >>> import torch, graphprune
    >>> layout(graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))).places[0]
    Place(row=0, column=0, lane=0)
    """
    if not isinstance(columns, int) or columns < 2:
        raise ValueError(f"columns={columns!r}: a row needs at least 2")
    flow = acyclic(graph)
    levels = _levels(flow)
    starts = _row_starts(graph, flow, levels, columns)
    rows = [levels[start:end] for start, end in zip(starts, [*starts[1:], len(levels)], strict=True)]
    places: dict[int, Place] = {}
    for number, row in enumerate(rows):
        column = {node: i for i, level in enumerate(row) for node in level}
        lanes = _lanes(flow, row, column)
        places |= {node: Place(number, column[node], lanes[node]) for node in column}
    ordered = tuple(places[node] for node in range(len(graph.nodes)))
    return _coordinates(ordered, graph.edge_index.T.tolist(), below)


def acyclic(graph: ChannelGraph) -> DiGraph:
    """The data flow without the few edges that would close a cycle (merging an addition into a layer may make one)."""
    import networkx

    flow = networkx.DiGraph()
    flow.add_nodes_from(range(len(graph.nodes)))
    for source, target in sorted(graph.edge_index.T.tolist(), key=lambda edge: edge[0] > edge[1]):
        if source < target or not networkx.has_path(flow, target, source):
            flow.add_edge(source, target)
    return flow


def peak(span: float) -> float:
    """How high above its nodes' centres an arc over `span` columns rises."""
    return 0.44 + min(1.3, 0.11 * abs(span))


def _levels(flow: DiGraph) -> list[list[int]]:
    """The nodes by depth, the one on the longest path first in each level."""
    import networkx

    levels = [sorted(level) for level in networkx.topological_generations(flow)]
    height = {node: i for i, level in enumerate(networkx.topological_generations(flow.reverse())) for node in level}
    main = -1
    for level in levels:
        level.sort(key=lambda node: (-height[node], not flow.has_edge(main, node)))
        main = level[0]
    return levels


def _row_starts(graph: ChannelGraph, flow: DiGraph, levels: list[list[int]], columns: int) -> list[int]:
    """The levels at which rows begin: the cheapest breaks, as a paragraph is broken into lines (Knuth and Plass, 1981)."""
    price = _prices(graph, flow, levels)
    best: list[tuple[float, list[int]]] = [(0.0, [])]  # for the first n levels
    for end in range(1, len(levels) + 1):
        starts = range(max(0, end - columns), end)
        ragged = {start: (1 - (end - start) / columns) ** 2 for start in starts}
        start = min(starts, key=lambda start: best[start][0] + price[start] + ragged[start])
        best.append((best[start][0] + price[start] + ragged[start], [*best[start][1], start]))
    return best[-1][1]


def _prices(graph: ChannelGraph, flow: DiGraph, levels: list[list[int]]) -> list[float]:
    """What a break before each level costs: more for each layer that is read beyond it, less where the network grows wider."""
    depth = {node: i for i, level in enumerate(levels) for node in level}
    last = {node: max([depth[reader] for reader in flow.successors(node)], default=depth[node]) for node in flow}
    prices, widest = [], 0
    for at, level in enumerate(levels):
        main = graph.nodes[level[0]]
        crossing = sum(depth[node] < at <= last[node] for node in flow)
        wider = main.kind == "conv" and main.channels > widest
        widest = max(widest, main.channels) if main.kind == "conv" else widest
        prices.append(-1.5 if wider and crossing == 1 else 2.0 * crossing - 1 + 0.7 * (main.kind == "bn"))
    return prices


def _lanes(flow: DiGraph, row: list[list[int]], column: dict[int, int]) -> dict[int, int]:
    """The lane of each node of a row: a branch takes the first one that is free from where it leaves to where it ends."""
    lanes = {level[0]: 0 for level in row}
    taken: list[tuple[int, int, int]] = []  # lane, first and last column
    for node in (node for level in row for node in level):
        chain = [node] if node not in lanes else []
        while chain and (more := [n for n in flow.successors(chain[-1]) if n in column and n not in lanes and n not in chain]):
            chain.append(min(more, key=lambda n: column[n]))
        if chain:
            first = min([column[n] + 1 for n in flow.predecessors(chain[0]) if n in column] + [column[chain[0]]])
            last = max([column[n] for link in chain for n in flow.successors(link) if n in column] + [column[chain[-1]]])
            blocked = {lane for lane, start, end in taken if start <= last and first <= end}
            lane = next(lane for lane in range(1, len(taken) + 2) if lane not in blocked)
            taken.append((lane, first, last))
            lanes |= dict.fromkeys(chain, lane)
    return lanes


def _coordinates(places: tuple[Place, ...], edges: list[list[int]], below: float) -> Layout:
    """Rows and lanes as far apart as the arcs above them and the text below them need."""
    flat = Layout(places, (), ())
    heads: dict[tuple[int, int], float] = {(place.row, place.lane): 0.0 for place in places}
    for source, target in edges:
        if flat.is_arc(source, target):
            a, b = places[source], places[target]
            heads[a.row, a.lane] = max(heads[a.row, a.lane], peak(b.column - a.column))
    heights, gutters, y = {}, [], 0.0
    for (row, lane), head in sorted(heads.items()):
        head = max(head, 0.5)
        if lane:
            y -= max(1.0, head + RADIUS + 0.15) + below
        elif row:
            y -= RADIUS + 0.22 + below + max(1.05, head + 0.12)
        if not lane:
            gutters.append(y + max(1.05, head + 0.12))
        heights[row, lane] = y
    points = tuple((float(place.column), heights[place.row, place.lane]) for place in places)
    return Layout(places, points, tuple(gutters))
