"""Graph networks: messages are picked and added up by indices, and hidden widths are groups of channels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphprune
from graphprune.graph.cutting import kept_places
from graphprune.runs.runtime import import_pyg

import_pyg()
from torch_geometric.nn import (  # noqa: E402
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GraphConv,
    SAGEConv,
    global_max_pool,
    global_mean_pool,
)

DRAW = torch.Generator().manual_seed(0)
X = torch.randn(12, 7, generator=DRAW, dtype=torch.double)
EDGES = torch.randint(0, 12, (2, 40), generator=DRAW)
MATRIX = torch.rand(12, 12, generator=DRAW, dtype=torch.double).mul(2).sub(1).relu()


class Two(nn.Module):
    """Two layers, and what pools the nodes of a batch of graphs."""

    def __init__(self, first: nn.Module, second: nn.Module, pool: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.a, self.b, self.pool = first, second, pool

    def forward(self, x: Tensor, edges: Tensor, batch: Tensor | None = None) -> Tensor:
        y = self.b(F.elu(self.a(x, edges)), edges)
        return y if self.pool is None else self.pool(y, batch)


def gin(inputs: int, outputs: int) -> nn.Module:
    return GINConv(nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs)))


GRAPHS = torch.arange(12) // 4
NETS: dict[str, tuple[Callable[[], Two], tuple[Tensor, ...], dict[str, int]]] = {
    "gcn": (lambda: Two(GCNConv(7, 16), GCNConv(16, 3)), (X, EDGES), {"a.lin": 16}),
    "gcn cached": (lambda: Two(GCNConv(7, 16, cached=True), GCNConv(16, 3, cached=True)), (X, EDGES), {"a.lin": 16}),
    "gcn pooled": (lambda: Two(GCNConv(7, 16), GCNConv(16, 3), global_mean_pool), (X, EDGES, GRAPHS), {"a.lin": 16}),
    "sage": (lambda: Two(SAGEConv(7, 16), SAGEConv(16, 3)), (X, EDGES), {"a.lin_l": 16}),
    "sage max": (lambda: Two(SAGEConv(7, 16, "max"), SAGEConv(16, 3), global_max_pool), (X, EDGES, GRAPHS), {"a.lin_l": 16}),
    "sage by a sparse matrix": (
        lambda: Two(SAGEConv(7, 16), SAGEConv(16, 3)), (X, MATRIX), {"a.lin_l": 16}
    ),
    "gat": (lambda: Two(GATConv(7, 8, heads=4), GATConv(32, 3, concat=False)), (X, EDGES), {"a.lin": 4}),
    "gat of one head": (lambda: Two(GATConv(7, 16), GATConv(16, 3)), (X, EDGES), {"a.lin": 16}),
    "gat, heads averaged": (lambda: Two(GATConv(7, 16, heads=4, concat=False), GATConv(16, 3)), (X, EDGES), {"a.lin": 16}),
    "gatv2 of one head": (lambda: Two(GATv2Conv(7, 16), GATv2Conv(16, 3)), (X, EDGES), {"a.lin_l": 16}),
    "gatv2, heads averaged": (
        lambda: Two(GATv2Conv(7, 16, heads=2, concat=False), GATv2Conv(16, 3)), (X, EDGES), {"a.lin_l": 16}
    ),
    "gatv2": (lambda: Two(GATv2Conv(7, 8, heads=4), GATv2Conv(32, 3, concat=False)), (X, EDGES), {"a.lin_l": 4}),
    "gin": (lambda: Two(gin(7, 16), gin(16, 3)), (X, EDGES), {"a.nn.0": 16, "a.nn.2": 16, "b.nn.0": 16}),
    "graph": (lambda: Two(GraphConv(7, 16), GraphConv(16, 3)), (X, EDGES), {"a.lin_rel": 16}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", NETS)
def test_a_pruned_graph_network_is_its_masked_twin_forward_and_backward_and_as_a_file(name: str, tmp_path: Path) -> None:
    make, args, groups = NETS[name]
    args = tuple(arg.to_sparse_csr() if arg is MATRIX else arg for arg in args)
    torch.manual_seed(0)
    model = make().double().eval()
    graph = graphprune.trace(model, args)
    assert {group.name: group.channels for group in graph.groups} == groups
    keep = {group.name: torch.arange(group.channels) % 2 == 0 for group in graph.groups}
    small, twin = graphprune.prune(model, graph, keep, check=True), graphprune.masked(model, graph, keep)
    assert sum(p.numel() for p in small.parameters()) <= 0.75 * sum(p.numel() for p in model.parameters())
    found, wanted = small(*args), twin(*args)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-10 * float(wanted.detach().abs().max()))
    found.square().sum().backward()
    wanted.square().sum().backward()
    places = kept_places(graph, graph.flatten(keep))
    for path, parameter in small.named_parameters():
        gradient: Any = twin.get_parameter(path).grad
        for dim in range(gradient.ndim):
            gradient = gradient.index_select(dim, places[path, dim]) if (path, dim) in places else gradient
        assert torch.allclose(parameter.grad, gradient, rtol=0, atol=1e-10 * float(gradient.abs().max()) + 1e-15)
    counted = graphprune.CostModel(graph, args).of_counts(torch.tensor([[int(mask.sum()) for mask in keep.values()]]))
    assert graphprune.Cost(int(counted[0]), int(counted[1])) == graphprune.cost(small, args)
    file = graphprune.save_pruned(tmp_path / "small.safetensors", small, graph, keep)
    assert torch.equal(graphprune.load_pruned(file, make().double().eval())(*args), found)


def test_heads_go_as_a_whole() -> None:
    model = Two(GATConv(7, 8, heads=4), GATConv(32, 3, heads=2, concat=False)).double()
    graph = graphprune.trace(model, (X, EDGES))
    small = graphprune.prune(model, graph, {"a.lin": torch.tensor([True, False, False, True])})
    assert (small.a.heads, small.a.att_src.shape, small.a.lin.weight.shape) == (2, (1, 2, 8), (16, 7))
    assert torch.equal(small.a.att_src, model.a.att_src[:, [0, 3]])
    assert graph.frozen == {"b.lin": "its channels are the network's output"}


class Weighted(nn.Module):
    """A sum over channels, each times a weight, of what a channel that is gone does not leave at 0."""

    def __init__(self, weights: int) -> None:
        super().__init__()
        self.first, self.weight, self.last = nn.Linear(5, 8), nn.Parameter(torch.randn(weights)), nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((self.first(x).sigmoid() * self.weight).sum(-1, keepdim=True))


def test_a_weighted_sum_over_channels_is_read_like_a_linear_layer() -> None:
    torch.manual_seed(0)
    model, x = Weighted(8).double(), torch.randn(4, 5, dtype=torch.float64)
    graph = graphprune.trace(model, x)
    keep = {"first": torch.arange(8) % 3 == 0}
    small = graphprune.prune(model, graph, keep, check=True)
    assert small.weight.shape == (3,)
    assert torch.equal(small.weight, model.weight[::3])
    assert torch.allclose(small(x), graphprune.masked(model, graph, keep)(x), rtol=0, atol=1e-12)


def test_one_weight_for_all_channels_makes_a_sum_that_none_may_leave() -> None:
    assert graphprune.trace(Weighted(1), torch.zeros(4, 5)).frozen["first"] == "sum() at 'sum_1' reduces over it"


def test_one_input_of_a_graph_network_is_a_node() -> None:
    model = Two(GCNConv(7, 16), GCNConv(16, 3))
    assert graphprune.cost(model, (X, EDGES)) == graphprune.Cost(macs=7 * 16 + 16 * 3, params=7 * 16 + 16 + 16 * 3 + 3)
