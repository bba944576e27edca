"""Cosine similarity to the unpruned network, for millions of configurations, equal to PyG.

All configurations share one topology and differ in the rate of each group, and a group's node features x(r) are one of
ten known vectors. So what a node sends in the first layer is a sum over its groups, and after k layers its value depends
on few groups, its scope S_v: those within k steps against the edges,

    h_k[v](r) = h_k[v](r_(S_v)),    |rates|^|S_v| values: a table.

The last layer of a GCN or SAGE is linear and commutes with the mean over nodes; a GAT's last output is one more table.
Either way the embedding is a constant plus a sum of table rows, exactly, and nodes with nested scopes share a table:

    z(r) = b + sum_j T_j[r_(S_j)]

Where some scopes are too wide, the longest prefix that tables allow is looked up and the rest is computed: for GCN and
SAGE a node's value before its ReLU is still a sum of smaller tables, for GAT what the nodes send is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from graphprune.encoders.convolution import AttentionConv, Conv, LinearConv
from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.lookup import Lookup, Scope, Table, fold, merge, total, union
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.masks import Scores, kept_masks
from graphprune.pruning.rates import RATES, Rate, check_indices

CHUNK = 8192  # configurations at a time: embeddings stay in the cache
BUDGET = 64 << 20  # bytes of tables; beyond, look-ups miss every cache
VALUES = 1 << 20  # node values (floats) that exist at a time where layers are computed

Features = Callable[[Tensor], Tensor]
"""(B, num_atoms) bool, True = kept -> (B, nodes, d) node features."""


class Plan(NamedTuple):
    """How to embed: (B, groups) -> (B, D), how many configurations at a time, the words for it, and b with the tables."""

    embed: Callable[[Tensor], Tensor]
    chunk: int
    words: str
    tables: tuple[Tensor, list[Table]] | None = None


class Scorer:
    """Embeds and scores configurations of one network with one encoder (SACP, section 3.5), by the fastest exact plan.

    The encoder's weights are copied: train first, then make a scorer.

    Args:
        encoder: the graph encoder.
        graph: the network's channel graph.
        scores: which channels survive, highest first.
        rates: what the indices index.
        features: node features of masks; the paper's +1, -1, 0 by default. Each of them may depend on the rate of one
            group in any way, and on several groups by a sum.

    Attributes:
        plan: what it does and why, in words.
        tables: b (D,) and the tables whose rows add up to an embedding; None where the encoder is no such sum.

    Raises:
        ValueError: `scores` do not fit the graph, it has no prunable group, or `features` do not add up over groups.

    >>> import torch, graphprune
    >>> net = graphprune.models.tiny_cnn()
    >>> graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    >>> score = Scorer(graphprune.GraphEncoder(), graph, graphprune.importance.l1(net, graph))
    >>> bool(torch.isclose(score(torch.zeros(1, len(graph.groups), dtype=torch.long)), torch.ones(1)))
    True
    """

    @torch.no_grad()
    def __init__(
        self,
        encoder: GraphEncoder,
        graph: ChannelGraph,
        scores: Scores,
        rates: Sequence[Rate] = RATES,
        features: Features | None = None,
    ) -> None:
        if not graph.groups:
            raise ValueError("graph has no prunable group, so there is nothing to score; graph.frozen says why")
        self.graph, self.scores, self.rates = graph, scores, tuple(rates)
        self._features_of = features or graph.features
        whole = self._features_of(torch.ones(1, graph.num_atoms, dtype=torch.bool))
        encoder.materialise(whole.shape[2])
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.device = next(self.encoder.parameters()).device
        self._embed, self._chunk, self.plan, self.tables = self._choose()
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
        convs = self.encoder.convolutions(self.graph.edge_index, len(self.graph.nodes))
        sums = self._first_sent(convs[0])
        for k, conv in enumerate(convs):  # sums: of every node the tables that add up to what it sends in this layer
            rest = convs[k + 1 :]
            scopes = [union(scope for u in conv.reads(v) for scope, _ in sums[u]) for v in range(len(sums))]
            if not rest and isinstance(conv, LinearConv):
                return self._merged(self._mean_sent(sums), conv.bias.new_zeros(()), len(convs))
            if len(rest) == 1 and isinstance(rest[0], LinearConv):
                return self._linear_end(k, sums, scopes, rest[0])
            if self._bytes(scopes if rest else merge(scopes)) > BUDGET:
                break
            if not rest:
                return self._merged(self._mean_received(conv, sums, scopes), conv.bias, len(convs))
            hidden = [(scope, self._received(conv, sums, v, scope).relu()) for v, scope in enumerate(scopes)]
            sums = [_sent(rest[0], hidden, v) for v in range(len(hidden))]
        return self._computed(k, sums, scopes, convs)

    def _bytes(self, scopes: Iterable[Scope]) -> int:
        """Of the float32 tables that these scopes need."""
        return 4 * self.encoder.hidden * sum(len(self.rates) ** len(scope) for scope in scopes)

    def _first_sent(self, conv: Conv) -> list[list[Table]]:
        """Of each node: the constant, and for each group it depends on a table of its own, of what the node sends first."""
        zero = torch.zeros(1, len(self.graph.groups), dtype=torch.long)
        base = self._features(zero)
        self._check_additive(base)
        constant = conv.send(base)[0]
        sums: list[list[Table]] = [[((), row[None])] for row in constant]
        for g in range(len(self.graph.groups)):
            indices = zero.repeat(len(self.rates), 1)
            indices[:, g] = torch.arange(len(self.rates))
            change = self._features(indices) - base
            sent = conv.send(change) - conv.offset
            for v in (conv.reach.float() @ (change != 0).any(2).any(0).float()).nonzero()[:, 0].tolist():
                sums[v].append(((g,), sent[:, v]))
        return sums

    def _features(self, indices: Tensor) -> Tensor:
        return self._features_of(kept_masks(self.graph, indices, self.scores, self.rates)).to(self.device)

    def _check_additive(self, base: Tensor) -> None:
        """Two configurations that part the groups between them must share their changes of the features."""
        groups, last = len(self.graph.groups), len(self.rates) - 1
        odd = torch.arange(groups) % 2
        rows = self._features(last * torch.stack([odd, 1 - odd, torch.ones_like(odd)])) - base
        if not torch.allclose(rows[0] + rows[1], rows[2], atol=1e-4):
            raise ValueError("features: must add up over groups, one group's rate changing a feature by the same at all others")

    def _received(self, conv: Conv, sums: list[list[Table]], v: int, scope: Scope) -> Tensor:
        """What node v puts out for every choice of rates in a scope that holds its own, (rates ** |scope|, D)."""
        p = torch.stack([total(sums[u], scope, len(self.rates)) for u in conv.reads(v)], 1)
        return conv.receive_at(v, p)

    def _mean_sent(self, sums: list[list[Table]]) -> list[Table]:
        """The mean over nodes of one linear layer."""
        tables = [(scope, rows / len(sums)) for own in sums for scope, rows in own]
        return self._joined(tables, merge([scope for scope, _ in tables]))

    def _mean_received(self, conv: Conv, sums: list[list[Table]], scopes: list[Scope]) -> list[Table]:
        """The mean over nodes of a last layer, without its bias."""
        tables = []
        for scope, nodes in merge(scopes).items():
            rows = torch.stack([self._received(conv, sums, v, scope) - conv.bias for v in nodes]).sum(0)
            tables.append((scope, rows / len(sums)))
        return tables

    def _joined(self, tables: list[Table], homes: dict[Scope, list[int]]) -> list[Table]:
        return [(scope, total([tables[j] for j in members], scope, len(self.rates))) for scope, members in homes.items()]

    def _merged(self, tables: list[Table], bias: Tensor, layers: int) -> Plan:
        """z = b + sum of tables."""
        lookup = Lookup.stack([tables], len(self.graph.groups), len(self.rates))
        words = f"{len(tables)} merged tables, {lookup.bytes / 1e6:.1f} MB: exact for {layers} layer{'s' * (layers > 1)}"
        return Plan(lambda indices: lookup(indices)[:, 0] + bias, CHUNK, words, (bias.expand(tables[0][1].shape[1]), tables))

    def _linear_end(self, k: int, sums: list[list[Table]], scopes: list[Scope], last: LinearConv) -> Plan:
        """Tables of the nodes that see few groups; the others' values before the ReLU are summed from smaller tables."""
        widest = max(map(len, scopes))
        limit = next(m for m in range(widest, -2, -1) if self._bytes(merge([s for s in scopes if len(s) <= m])) <= BUDGET)
        few = [v for v, scope in enumerate(scopes) if len(scope) <= limit]
        merged = merge([scopes[v] for v in few])
        tables = [(scope, self._summed(scope, [few[j] for j in at], sums, last)) for scope, at in merged.items()]
        if len(few) == len(scopes):
            return self._merged(tables, last.bias, k + 2)
        wide = [v for v, scope in enumerate(scopes) if len(scope) > limit]
        values, share = self._folded([sums[v] for v in wide], max(limit, 1)), last.mix.mean(1)[:, wide]  # (T, wide)
        weight = last.weight.transpose(1, 2).flatten(0, 1)
        look = Lookup.stack([tables], len(self.graph.groups), len(self.rates)) if tables else None

        def embed(indices: Tensor) -> Tensor:
            z = (share @ values(indices).relu()).flatten(1) @ weight + last.bias
            return z if look is None else z + look(indices)[:, 0]

        words = (
            f"{len(tables)} merged tables of {len(few)} nodes; the other {len(wide)} see up to {widest} groups, too many to "
            f"tabulate: {len(values.offsets)} smaller tables are added, then ReLU; {values.bytes / 1e6:.1f} MB"
        )
        return Plan(embed, self._rows(len(wide)), words)

    def _summed(self, scope: Scope, nodes: list[int], sums: list[list[Table]], last: LinearConv) -> Tensor:
        """The sum over nodes of ReLU(a_v), weighted as the last layer and the mean do, (rates ** |scope|, D)."""
        share = last.mix.mean(1)  # (T, nodes)
        added = last.weight.new_zeros(len(self.rates) ** len(scope), len(share), last.weight.shape[2])  # (rows, T, D)
        for v in nodes:
            added += total(sums[v], scope, len(self.rates)).relu()[:, None] * share[:, v, None]
        return added.flatten(1) @ last.weight.transpose(1, 2).flatten(0, 1)

    def _computed(self, k: int, sums: list[list[Table]], scopes: list[Scope], convs: list[Conv]) -> Plan:
        """What the nodes send in layer k + 1 from tables, and all that follows computed."""
        conv, rest, sent = convs[k], convs[k + 1 :], self._folded(sums, max(map(len, scopes)))

        def embed(indices: Tensor) -> Tensor:
            p = sent(indices)
            if not rest:
                assert isinstance(conv, AttentionConv)
                return conv.received_mean(p)
            h = conv.receive(p).relu()
            for inner in rest[:-1]:
                h = inner(h).relu()
            return rest[-1].mean(h)

        words = (
            f"what {len(sums)} nodes send in layer {k + 1} from {len(sent.offsets)} tables, {sent.bytes / 1e6:.1f} MB; then a "
            f"node sees up to {max(map(len, scopes))} groups, too many to tabulate, and the rest is computed"
        )
        return Plan(embed, self._rows(len(sums)), words)

    def _folded(self, sums: list[list[Table]], most: int) -> Lookup:
        """The same sums of fewer tables, of `most` groups at most and as wide as the budget allows."""
        scopes = [[scope for scope, _ in own] for own in sums]
        fits = (m for m in range(most, 1, -1) if self._bytes(s for own in scopes for s in fold(own, m)) <= BUDGET)
        limit = next(fits, 1)
        folded = [self._joined(own, fold([scope for scope, _ in own], limit)) for own in sums]
        return Lookup.stack(folded, len(self.graph.groups), len(self.rates))

    def _rows(self, nodes: int) -> int:
        """Configurations at a time where the values of so many nodes are computed."""
        return max(1, min(CHUNK, VALUES // (nodes * self.encoder.hidden)))


def _sent(conv: Conv, hidden: list[Table], v: int) -> list[Table]:
    """The tables that add up to what node v sends, from those of the layer below."""
    sources = conv.reach[v].nonzero()[:, 0].tolist()
    return [((), conv.offset[None]), *((hidden[u][0], conv.part(v, u, hidden[u][1])) for u in sources)]
