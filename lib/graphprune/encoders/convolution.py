"""Graph convolutions over one fixed topology, each as an affine step between nodes and what follows it.

    p = send(h),  (B, nodes, in) -> (B, nodes, P), affine in h;        conv(h) = receive(p),  (B, nodes, out)

GCN and GraphSAGE are affine altogether, conv(h) = sum_t M_t h W_t^T + b with constant matrices M_t of the topology, and
receive is the identity. In GATv2 a node sends its two projections, and receive is the attention over its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

Edges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LinearConv:
    """A graph convolution as h -> sum_t mix[t] @ h @ weight[t].T + bias.

    Attributes:
        mix: (T, nodes, sources), target by source; sources = nodes unless nodes share rows. GCN has T = 1, SAGE 2: the
            mean of the neighbours, and the node itself.
        weight: (T, out, in).
        bias: (out,).
    """

    mix: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, h: Tensor) -> Tensor:
        """(B, sources, in) -> (B, nodes, out)."""
        terms, out, _ = self.weight.shape
        sent = (h @ self.weight.flatten(0, 1).T).unflatten(2, (terms, out))  # (B, sources, T, out)
        return self.mix.transpose(0, 1).flatten(1) @ sent.transpose(1, 2).flatten(1, 2) + self.bias

    def mean(self, h: Tensor) -> Tensor:
        """(B, sources, in) -> (B, out), the mean over nodes of the call; it commutes with the linear map."""
        pooled = self.mix.mean(1) @ h  # (B, T, in)
        return pooled.flatten(1) @ self.weight.transpose(1, 2).flatten(0, 1) + self.bias

    def carried(self, carries: Tensor, sources: int) -> LinearConv:
        """The same map from `sources` distinct rows, of which node v carries number carries[v]."""
        mix = self.mix.new_zeros(*self.mix.shape[:2], sources).index_add_(2, carries, self.mix)
        return LinearConv(mix, self.weight, self.bias)

    @property
    def offset(self) -> Tensor:
        """What is sent where h = 0, (P,)."""
        return self.bias

    @cached_property
    def reach(self) -> Tensor:
        """(nodes, sources) bool: what node v sends depends on h[u]."""
        return (self.mix != 0).any(0)

    def send(self, h: Tensor) -> Tensor:
        return self(h)

    def part(self, v: int, u: int, h: Tensor) -> Tensor:
        """What h[u] adds to what node v sends, (rows, in) -> (rows, P)."""
        return torch.einsum("t,toi,ri->ro", self.mix[:, v, u], self.weight, h)

    def reads(self, v: int) -> list[int]:
        """The nodes whose sent values node v receives."""
        return [v]

    def receive(self, p: Tensor) -> Tensor:
        return p

    def receive_at(self, v: int, p: Tensor) -> Tensor:
        """Node v alone, (rows, len(reads(v)), P) -> (rows, out)."""
        return p[:, 0]


@dataclass(frozen=True)
class AttentionConv:
    """GATv2 with one head (Brody et al. 2022): out_v = sum_u alpha_vu l_u + bias, l = W_l h + b_l, r = W_r h + b_r,
    alpha_v = softmax over the edges u -> v of a . LeakyReLU(l_u + r_v).

    Attributes:
        source, target: (E,) the edges with a self loop at every node.
        nodes: their number.
        weight: (2 out, in) W_l above W_r.
        offset: (2 out,) b_l, b_r: what is sent where h = 0.
        attention: (out,) a.
        slope: of the LeakyReLU.
        bias: (out,).
    """

    source: Tensor
    target: Tensor
    nodes: int
    weight: Tensor
    offset: Tensor
    attention: Tensor
    slope: float
    bias: Tensor

    def __call__(self, h: Tensor) -> Tensor:
        """(B, nodes, in) -> (B, nodes, out)."""
        return self.receive(self.send(h))

    def mean(self, h: Tensor) -> Tensor:
        """(B, nodes, in) -> (B, out), the mean over nodes of the call."""
        return self.received_mean(self.send(h))

    @cached_property
    def reach(self) -> Tensor:
        """(nodes, nodes) bool: what node v sends depends on h[v] alone."""
        return torch.eye(self.nodes, dtype=torch.bool, device=self.source.device)

    def send(self, h: Tensor) -> Tensor:
        return F.linear(h, self.weight, self.offset)

    def part(self, v: int, u: int, h: Tensor) -> Tensor:
        """What h[u] adds to what node v sends, (rows, in) -> (rows, P)."""
        return h @ self.weight.T

    def reads(self, v: int) -> list[int]:
        """The nodes whose sent values node v receives, v first."""
        found = self.source[self.target == v].tolist()
        return [v, *sorted(set(found) - {v})]

    def receive(self, p: Tensor) -> Tensor:
        left, right = p.chunk(2, 2)
        messages = self._alpha(left, right)[..., None] * left[:, self.source]
        return torch.zeros_like(left).index_add_(1, self.target, messages) + self.bias

    def received_mean(self, p: Tensor) -> Tensor:
        """The mean of `receive` over nodes, (B, nodes, P) -> (B, out): each l_u counts by the attention it gets in all."""
        left, right = p.chunk(2, 2)
        share = left.new_zeros(len(p), self.nodes).index_add_(1, self.source, self._alpha(left, right)) / self.nodes
        return (share[:, None] @ left)[:, 0] + self.bias

    def receive_at(self, v: int, p: Tensor) -> Tensor:
        """Node v alone, (rows, len(reads(v)), P) -> (rows, out)."""
        reads = self.reads(v)
        left, right = p.chunk(2, 2)
        left = left[:, [reads.index(u) for u in self.source[self.target == v].tolist()]]  # repeated edges count twice
        alpha = self._logits(left, right[:, :1]).softmax(1)
        return (alpha[:, None] @ left)[:, 0] + self.bias

    def _logits(self, left: Tensor, right: Tensor) -> Tensor:
        return F.leaky_relu(left + right, self.slope) @ self.attention

    def _alpha(self, left: Tensor, right: Tensor) -> Tensor:
        """(B, E), the softmax over the edges into each node."""
        logits = self._logits(left[:, self.source], right[:, self.target])
        target = self.target.expand_as(logits)
        top = logits.new_full((len(logits), self.nodes), -torch.inf).scatter_reduce_(1, target, logits, "amax")
        weight = (logits - top[:, self.target]).exp()
        return weight / logits.new_zeros(len(logits), self.nodes).scatter_add_(1, target, weight)[:, self.target]


Conv = LinearConv | AttentionConv


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # a cached tensor may be used in training later
def topology(edges: Edges, nodes: int, undirected: bool) -> Tensor:
    """The edges messages pass along, (2, E)."""
    from torch_geometric.utils import to_undirected

    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T.contiguous()
    return to_undirected(edge_index, num_nodes=nodes) if undirected else edge_index


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def mixing_matrix(kind: str, edges: Edges, nodes: int, undirected: bool) -> Tensor:
    """The matrices M_t, (T, nodes, nodes): GCN's normalised adjacency with self loops, or SAGE's mean and identity."""
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    edge_index = topology(edges, nodes, undirected)
    weight = torch.ones(edge_index.shape[1])
    if kind == "gcn":
        edge_index, weight = gcn_norm(edge_index, None, nodes, dtype=torch.float32)
    mix = torch.zeros(nodes, nodes).index_put_((edge_index[1], edge_index[0]), weight, accumulate=True)
    if kind == "gcn":
        return mix[None]
    return torch.stack([mix / mix.sum(1, keepdim=True).clamp(min=1), torch.eye(nodes)])


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def loop_edges(edges: Edges, nodes: int, undirected: bool) -> Tensor:
    """The edges with exactly one self loop at every node, as GATv2 has them, (2, E)."""
    from torch_geometric.utils import add_self_loops, remove_self_loops

    return add_self_loops(remove_self_loops(topology(edges, nodes, undirected))[0], num_nodes=nodes)[0]


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def block_diagonal(edges: Edges, nodes: int, copies: int, undirected: bool) -> Tensor:
    """The edges of `copies` graphs side by side, (2, copies * E)."""
    edge_index = topology(edges, nodes, undirected)
    return (edge_index[:, None] + nodes * torch.arange(copies)[:, None]).flatten(1)
