"""Cosine similarity to the unpruned network, for millions of configurations, equal to PyG.

All configurations share one topology and differ in the rate of each group, and a group's node features x(r) are one of
ten known vectors. So the first layer before its ReLU is a sum over groups, and node v sees few of them, its scope S_v:

    a_v(r) = c_v + sum_(g in S_v) A_(g, r_g, v)

ReLU(a_v) takes |rates|^|S_v| values: a table. The last layer is linear and commutes with the mean over nodes, so with
two layers the embedding is a constant plus a sum of table rows, exactly:

    z(r) = b + sum_v u_v(r_(S_v)),    u_v = 1/nodes sum_t (sum_w M_t[w, v]) ReLU(a_v) W_t^T

and nodes with nested scopes share a table. Deeper GCN and SAGE look ReLU(a_v) up and multiply on; a GAT is embedded
whole, and so is a network where a node sees too many groups.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from graphprune.encoder import GraphEncoder, LinearConv
from graphprune.graph import RATES, ChannelGraph
from graphprune.space import Rate, Scores, check_indices, kept_masks

CHUNK = 8192  # configurations at a time: embeddings stay in the cache
BUDGET = 64 << 20  # bytes of tables; beyond, look-ups miss every cache
FEATURES = 1 << 23  # node features (floats) that exist at a time where no table helps

Scope = tuple[int, ...]
"""The numbers of the groups that something depends on, ascending."""

Table = tuple[Scope, Tensor]
"""A scope and a row for every choice of its rates, the last group's fastest."""


@dataclass(frozen=True)
class Tables:
    """Look-up tables, one below the other: table j holds a row for every choice of rates in its scope.

    Attributes:
        rows: (sum of rates ** |scope|, width).
        strides: (groups, tables) float32, whole numbers: configuration @ strides + offsets = the row of each table.
        offsets: (tables,) where each table starts.
    """

    rows: Tensor
    strides: Tensor
    offsets: Tensor

    @classmethod
    def stack(cls, tables: Sequence[Table], groups: int, rates: int) -> Tables:
        strides = torch.zeros(groups, len(tables))
        for j, (scope, _) in enumerate(tables):
            for place, group in enumerate(reversed(scope)):
                strides[group, j] = rates**place
        starts = [0, *accumulate(len(rows) for _, rows in tables)][:-1]
        rows = torch.cat([rows for _, rows in tables])
        return cls(rows, strides.to(rows.device), torch.tensor(starts, dtype=torch.int32, device=rows.device))

    def find(self, indices: Tensor) -> Tensor:
        """(B, groups) -> (B, tables) int32 rows; float32 is exact here, as BUDGET keeps rows below 2^24."""
        return (indices.float() @ self.strides).int() + self.offsets


class Plan(NamedTuple):
    """How to embed: (B, groups) -> (B, D), how many configurations at a time, and the words for it."""

    embed: Callable[[Tensor], Tensor]
    chunk: int
    words: str


class Scorer:
    """Embeds and scores configurations of one network with one encoder (SACP, section 3.5), by the fastest exact plan.

    The encoder's weights are copied: train first, then make a scorer.

    Args:
        encoder: the graph encoder.
        graph: the network's channel graph.
        scores: which channels survive, highest first.
        rates: what the indices index.

    Attributes:
        plan: what it does and why, in words.
        tables: b (D,) and the tables whose rows add up to an embedding; None where the encoder is no such sum.

    Raises:
        ValueError: `scores` do not fit the graph, or it has no prunable group.

    >>> import torch, graphprune
    >>> net = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    >>> score = Scorer(graphprune.GraphEncoder(), graph, graphprune.importance.l1(net, graph))
    >>> bool(torch.isclose(score(torch.zeros(1, len(graph.groups), dtype=torch.long)), torch.ones(1)))
    True
    """

    tables: tuple[Tensor, list[Table]] | None = None

    @torch.no_grad()
    def __init__(self, encoder: GraphEncoder, graph: ChannelGraph, scores: Scores, rates: Sequence[Rate] = RATES) -> None:
        if not graph.groups:
            raise ValueError("graph has no prunable group, so there is nothing to score; graph.frozen says why")
        encoder.materialise(graph.feature_index.shape[1])
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.device = next(self.encoder.parameters()).device
        self.graph, self.scores, self.rates = graph, scores, tuple(rates)
        self._embed, self._chunk, self.plan = self._choose()
        whole = graph.features(torch.ones(1, graph.num_atoms, dtype=torch.bool))
        self.reference = self.encoder.embed(whole.to(self.device), graph.edge_index)[0]

    @torch.no_grad()
    def __call__(self, indices: Tensor) -> Tensor:
        """Cosine similarity to the unpruned network, (B, groups) int64 -> (B,) float32."""
        target = F.normalize(self.reference, dim=0)
        return self._map(indices, lambda z: (z @ target) / z.norm(dim=1).clamp(min=1e-12))

    @torch.no_grad()
    def embed(self, indices: Tensor) -> Tensor:
        """The embeddings z, (B, groups) int64 -> (B, D) float32."""
        return self._map(indices, lambda z: z)

    def _map(self, indices: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        check_indices(indices, len(self.graph.groups), len(self.rates))
        parts = [reduce(self._embed(part.to(self.device))) for part in indices.split(self._chunk)]
        return torch.cat(parts).to(indices.device)

    def _choose(self) -> Plan:
        """The fastest way to embed that the encoder and the network allow."""
        whole = max(1, min(CHUNK, FEATURES // self.graph.feature_index.numel()))
        if self.encoder.kind == "gat":
            why = "attention depends on the features, so nothing is tabulated"
            return Plan(self._whole, whole, f"whole graphs, in chunks: {why}")
        convs = self.encoder.linear(self.graph.edge_index, len(self.graph.nodes))
        constant, parts, scopes = self._first_layer(convs[0])
        tables: list[Table]
        if len(convs) == 1:
            tables = [((g,), part.mean(1)) for g, part in enumerate(parts)]
            words = f"{len(tables)} tables, one a group: one layer is linear"
            return Plan(self._merged(tables, constant.mean(0)), CHUNK, words)
        merged = merge(scopes)
        if len(convs) == 2 and self._bytes(merged) <= BUDGET:
            tables = [(scope, self._summed(scope, at, constant, parts, convs[1])) for scope, at in merged.items()]
            words = f"{len(tables)} merged tables, {self._bytes(merged) / 1e6:.1f} MB: exact for two layers"
            return Plan(self._merged(tables, convs[1].bias), CHUNK, words)
        if self._bytes(scopes) <= BUDGET:
            tables = [(scope, self._hidden(scope, v, constant, parts)) for v, scope in enumerate(scopes)]
            words = f"first layer from {len(tables)} node tables, {self._bytes(scopes) / 1e6:.1f} MB; then matrix products"
            chunk = max(1, min(CHUNK, FEATURES // (len(tables) * self.encoder.hidden)))
            return Plan(self._looked_up(tables, convs[1:]), chunk, words)
        why = f"a node sees {max(map(len, scopes))} groups, too many to tabulate"
        return Plan(self._whole, whole, f"whole graphs, in chunks: {why}")

    def _bytes(self, scopes: Iterable[Scope]) -> int:
        """Of the float32 tables that these scopes need."""
        return 4 * self.encoder.hidden * sum(len(self.rates) ** len(scope) for scope in scopes)

    def _first_layer(self, conv: LinearConv) -> tuple[Tensor, list[Tensor], list[Scope]]:
        """c (nodes, D), for each group A_g (rates, nodes, D), and for each node its scope S_v."""
        zero = torch.zeros(1, len(self.graph.groups), dtype=torch.long)
        base = self._features(zero)
        linked = (conv.mix != 0).any(0).float()
        parts, seen = [], []
        for g in range(len(self.graph.groups)):
            indices = zero.repeat(len(self.rates), 1)
            indices[:, g] = torch.arange(len(self.rates))
            change = self._features(indices) - base
            parts.append(conv(change) - conv.bias)
            seen.append(linked @ (change != 0).any(2).any(0).float() > 0)
        reach = torch.stack(seen, 1)  # (nodes, groups)
        return conv(base)[0], parts, [tuple(row.nonzero()[:, 0].tolist()) for row in reach]

    def _features(self, indices: Tensor) -> Tensor:
        kept = kept_masks(self.graph, indices, self.scores, self.rates)
        return self.graph.features(kept).to(self.device)

    def _hidden(self, scope: Scope, v: int, constant: Tensor, parts: list[Tensor]) -> Tensor:
        """ReLU(a_v) for every choice of rates in the scope, (rates ** |scope|, D)."""
        grid = constant[v].expand(*[len(self.rates)] * len(scope), -1)
        for axis, g in enumerate(scope):
            shape = [1] * len(scope) + [-1]
            shape[axis] = len(self.rates)
            grid = grid + parts[g][:, v].reshape(shape)
        return grid.relu().flatten(0, -2) if scope else grid.relu()[None]

    def _summed(self, scope: Scope, nodes: list[int], constant: Tensor, parts: list[Tensor], last: LinearConv) -> Tensor:
        """The sum of u_v over the nodes that share a table, (rates ** |scope|, D)."""
        share = last.mix.mean(1)  # (T, nodes)
        total = constant.new_zeros(len(self.rates) ** len(scope), len(share), constant.shape[1])  # (rows, T, D)
        for v in nodes:
            total += self._hidden(scope, v, constant, parts)[:, None] * share[:, v, None]
        return total.flatten(1) @ last.weight.transpose(1, 2).flatten(0, 1)

    def _merged(self, tables: list[Table], bias: Tensor) -> Callable[[Tensor], Tensor]:
        self.tables = (bias, tables)
        stacked = Tables.stack(tables, len(self.graph.groups), len(self.rates))
        return lambda indices: F.embedding_bag(stacked.find(indices), stacked.rows, mode="sum") + bias

    def _looked_up(self, tables: list[Table], rest: list[LinearConv]) -> Callable[[Tensor], Tensor]:
        stacked = Tables.stack(tables, len(self.graph.groups), len(self.rates))

        def embed(indices: Tensor) -> Tensor:
            h = F.embedding(stacked.find(indices), stacked.rows)
            for conv in rest[:-1]:
                h = conv(h).relu()
            return rest[-1].mean(h)

        return embed

    def _whole(self, indices: Tensor) -> Tensor:
        return self.encoder.embed(self._features(indices), self.graph.edge_index)


def merge(scopes: Sequence[Scope]) -> dict[Scope, list[int]]:
    """Nodes by the table they go to: a scope inside a larger one joins it.

    >>> merge([(0,), (0, 1), (1, 2), ()])
    {(0, 1): [1, 0, 3], (1, 2): [2]}
    """
    merged: dict[Scope, list[int]] = {}
    for v in sorted(range(len(scopes)), key=lambda v: -len(scopes[v])):
        home = next((scope for scope in merged if set(scopes[v]) <= set(scope)), scopes[v])
        merged.setdefault(home, []).append(v)
    return merged
