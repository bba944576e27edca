"""The graph encoder: message passing over the layers of a network, and the mean of the nodes as its embedding.

    h_0 = x,    h_k = ReLU(conv_k(h_(k-1))) for k < layers,    z = mean over nodes of conv_layers(h_(layers-1))

(SACP, section 3.4; the paper names a GCN and gives no sizes: two layers, 64 wide, a linear last layer and the mean
readout are our reading.) A graph convolution whose coefficients do not depend on the features is linear,

    conv(h) = sum_t M_t h W_t^T + b,

with constant matrices M_t of the topology. Many pruned networks share one topology, so `embed` uses this form: two
matrix products a layer in place of gathers and scatters, and in the last layer the mean over nodes is taken first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphprune.encoders.convolution import AttentionConv, Conv, Edges, LinearConv, block_diagonal, loop_edges, mixing_matrix
from graphprune.runs.checks import at_least
from graphprune.runs.runtime import import_pyg, seeded

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

KINDS = ("gcn", "gat", "sage")


class GraphEncoder(nn.Module):
    """GCN, GAT or GraphSAGE over a channel graph, mean readout (SACP, section 3.4).

    The first layer takes its input width from the first graph it sees. Initial weights come from the global random
    generator; `GraphEncoder.seeded` draws them from a seed.

    Args:
        kind: "gcn" (Kipf and Welling 2017), "gat" (GATv2 with one head, Brody et al. 2022) or "sage" (Hamilton et al.
            2017, mean aggregation).
        hidden: D, the width of every layer and of the embedding.
        layers: number of convolutions; ReLU after all but the last.
        undirected: also pass messages against the data flow (an ablation; the paper's graph is directed).

    Raises:
        ValueError: an unknown kind, or `hidden` or `layers` < 1.

    >>> import torch, graphprune
    >>> graph = graphprune.trace(graphprune.models.tiny_cnn(), torch.zeros(1, 1, 8, 8))
    >>> GraphEncoder("sage", hidden=8)(graph.to_pyg(graph.full())).shape
    torch.Size([1, 8])
    """

    def __init__(self, kind: str = "gcn", hidden: int = 64, layers: int = 2, undirected: bool = False) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: must be one of {', '.join(map(repr, KINDS))}")
        at_least(1, hidden=hidden, layers=layers)
        super().__init__()
        import_pyg()
        from torch_geometric.nn import GATv2Conv, GCNConv, SAGEConv

        conv: Any = {"gcn": GCNConv, "gat": GATv2Conv, "sage": SAGEConv}[kind]
        self.kind, self.hidden, self.undirected = kind, hidden, undirected
        self.convs = nn.ModuleList(conv(-1 if k == 0 else hidden, hidden) for k in range(layers))

    @classmethod
    def seeded(cls, seed: int, in_channels: int, **options: Any) -> GraphEncoder:
        """An encoder whose initial weights depend on the seed alone; `in_channels` is d, the node features' width."""
        with seeded(seed):
            return cls(**options).materialise(in_channels)

    @property
    def ready(self) -> bool:
        """Whether the first layer knows its input width."""
        return not any(nn.parameter.is_lazy(parameter) for parameter in self.parameters())

    def materialise(self, in_channels: int) -> GraphEncoder:
        """Give the first layer its input width, if it has none yet, so that weights can be trained and loaded."""
        at_least(1, ", the width d of the node features", in_channels=in_channels)
        if not self.ready:
            with torch.no_grad():
                self.convs[0](torch.zeros(1, in_channels), torch.zeros(2, 0, dtype=torch.long))
        return self

    def forward(self, data: Data | Batch) -> Tensor:
        """One graph or a batch of them -> (B, D), by PyG's own layers."""
        from torch_geometric.nn import global_mean_pool
        from torch_geometric.utils import to_undirected

        edge_index = data.edge_index
        if self.undirected:
            edge_index = to_undirected(edge_index, num_nodes=data.num_nodes)
        return global_mean_pool(self._nodes(data.x, edge_index), data.batch)

    def embed(self, x: Tensor, edge_index: Tensor, carries: Tensor | None = None) -> Tensor:
        """Many graphs of one topology at once; the same numbers as a call on their `Batch`.

        Args:
            x: (B, nodes, d) node features, or (B, distinct, d) with `carries`.
            edge_index: (2, E) of a single graph.
            carries: (nodes,) which row of x each node carries (a BN carries its convolution's); by default its own.

        Returns:
            (B, D) embeddings.

        Raises:
            ValueError: `x` or `edge_index` of the wrong shape, or an edge to a node that is not there.
        """
        edges, nodes = _checked(x, edge_index, carries)
        self.materialise(x.shape[2])
        if self.kind == "gat":
            x = x if carries is None else x[:, carries]
            big = block_diagonal(edges, nodes, len(x), self.undirected).to(x.device)
            return self._nodes(x.flatten(0, 1), big).unflatten(0, x.shape[:2]).mean(1)
        first, *rest = self._linear(edges, nodes)
        if carries is not None:
            first = first.carried(carries, x.shape[1])
        *inner, last = first, *rest
        for conv in inner:
            x = conv(x).relu()
        return last.mean(x)

    def convolutions(self, edge_index: Tensor, nodes: int) -> list[Conv]:
        """The layers as maps over one topology, with the encoder's own weights."""
        edges = _pairs(edge_index)
        if self.kind == "gat":
            source, target = loop_edges(edges, nodes, self.undirected).to(next(self.parameters()).device)
            return [_attention(conv, source, target, nodes) for conv in self.convs]
        return list(self._linear(edges, nodes))

    def _linear(self, edges: Edges, nodes: int) -> list[LinearConv]:
        """The layers of a GCN or SAGE encoder."""
        mix = mixing_matrix(self.kind, edges, nodes, self.undirected).to(next(self.parameters()))
        if self.kind == "gcn":
            return [LinearConv(mix, conv.lin.weight[None], conv.bias) for conv in self.convs]  # type: ignore
        weights = [torch.stack([conv.lin_l.weight, conv.lin_r.weight]) for conv in self.convs]  # type: ignore
        return [LinearConv(mix, weight, conv.lin_l.bias) for weight, conv in zip(weights, self.convs, strict=True)]  # type: ignore

    def _nodes(self, x: Tensor, edge_index: Tensor) -> Tensor:
        *inner, last = self.convs
        for conv in inner:
            x = conv(x, edge_index).relu()
        return last(x, edge_index)


def _attention(conv: Any, source: Tensor, target: Tensor, nodes: int) -> AttentionConv:
    weight = torch.cat([conv.lin_l.weight, conv.lin_r.weight])
    offset = torch.cat([conv.lin_l.bias, conv.lin_r.bias])
    return AttentionConv(source, target, nodes, weight, offset, conv.att[0, 0], conv.negative_slope, conv.bias)


def _pairs(edge_index: Tensor) -> Edges:
    return tuple(zip(*edge_index.tolist(), strict=True))


def _checked(x: Tensor, edge_index: Tensor, carries: Tensor | None) -> tuple[Edges, int]:
    """The edges and the number of nodes of a single graph."""
    if x.ndim != 3:
        raise ValueError(f"x must have shape (B, nodes, d), got {tuple(x.shape)}; graph.features makes it")
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index must have shape (2, E), got {tuple(edge_index.shape)}")
    edges, nodes = _pairs(edge_index), x.shape[1] if carries is None else len(carries)
    if any(not 0 <= node < nodes for edge in edges for node in edge):
        raise ValueError(f"edge_index names a node outside 0 .. {nodes - 1}: pass the graph that x was made from")
    return edges, nodes
