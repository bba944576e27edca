"""The networks are PyG's, whatever order they multiply in; `trace` finds their widths."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv

import graphprune
from graphprune.compression import graph_data, networks
from graphprune.compression.recipes import RECIPES, Recipe, find
from graphprune.compression.sparse_features import to_csr

DRAW = torch.Generator().manual_seed(0)
X = torch.rand(9, 12, generator=DRAW, dtype=torch.double) * (torch.rand(9, 12, generator=DRAW) < 0.3)
EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 5, 6, 0, 4], [1, 0, 2, 1, 3, 2, 6, 5, 4, 0]])  # 7 and 8 have no neighbours
NONE = EDGES[:, :0]


def gin(inputs: int, outputs: int) -> GINConv:
    return GINConv(nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs)))


PYG = {
    "gcn": lambda: (GCNConv(12, 6), GCNConv(6, 3)),
    "sage": lambda: (SAGEConv(12, 6), SAGEConv(6, 3)),
    "gin": lambda: (gin(12, 6), gin(6, 3)),
    "gat": lambda: (GATConv(12, 6, heads=2), GATConv(12, 3, heads=1, concat=False)),
}


class Nodes:
    name, features, outputs, metric, pooled = "nodes", 12, 3, "accuracy", False


class Graphs(Nodes):
    pooled = True


def ours(model: str) -> networks.GraphNetwork:
    return networks.build(model, Nodes(), Recipe(hidden=6, heads=2, dropout=0.5), seed=0).double().eval()


@pytest.mark.parametrize("edges", [EDGES, NONE], ids=["edges", "no edges"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("model", PYG)
def test_a_network_computes_what_pygs_layers_compute(model: str, sparse: bool, edges: Tensor) -> None:
    net, (first, second) = ours(model), (layer.double() for layer in PYG[model]())
    first.load_state_dict(net.layers[0].state_dict())
    second.load_state_dict(net.layers[1].state_dict())
    wanted = second((F.elu if model == "gat" else F.relu)(first(X, edges)), edges)
    found = net(to_csr(X) if sparse else X, edges)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-14)
    layers = {f"layers.{i}.{name}": p for i, layer in enumerate((first, second)) for name, p in layer.named_parameters()}
    assert {name for name, _ in net.named_parameters()} == set(layers)
    found.square().sum().backward()
    wanted.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert torch.allclose(parameter.grad, layers[name].grad, rtol=0, atol=1e-12)


def test_a_network_without_edges_does_not_see_them() -> None:
    net = ours("mlp")
    assert torch.equal(net(X, EDGES), net(X, NONE))


def test_isolated_nodes_of_a_gcn_see_themselves_alone() -> None:
    net = ours("gcn")
    assert torch.allclose(net(X, EDGES)[7:], net(X[7:], NONE), rtol=0, atol=1e-15)


GROUPS = {"gcn": {"layers.0.lin": 6}, "sage": {"layers.0.lin_l": 6}, "gat": {"layers.0.lin": 2}, "mlp": {"layers.0.lin": 6}}
GROUPS["gin"] = {"layers.0.nn.0": 6, "layers.0.nn.2": 6, "layers.1.nn.0": 3}


@pytest.mark.parametrize("pooled", [False, True], ids=["nodes", "graphs"])
@pytest.mark.parametrize("model", networks.MODELS)
def test_hidden_widths_are_groups_and_half_of_them_goes(model: str, pooled: bool) -> None:
    task = Graphs() if pooled else Nodes()
    net = networks.build(model, task, Recipe(hidden=6, heads=2), seed=0).double().eval()
    graph = graphprune.trace(net, networks.example_input(task))
    found = {group.name: group.channels for group in graph.groups}
    assert GROUPS[model].items() <= found.items() if not pooled else len(found) >= 2
    keep = {name: torch.arange(channels) % 2 == 0 for name, channels in found.items()}
    small, twin = graphprune.prune(net, graph, keep), graphprune.masked(net, graph, keep)
    inputs = (X, EDGES, torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2])) if pooled else (X, EDGES)
    assert torch.allclose(small(*inputs), twin(*inputs), rtol=0, atol=1e-12)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
    if not pooled:
        assert torch.allclose(small(to_csr(X), EDGES), twin(X, EDGES), rtol=0, atol=1e-12)


def test_a_seed_gives_the_same_weights_and_leaves_the_worlds_randomness_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (networks.build("gin", Nodes(), Recipe(), seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    pairs = list(zip(first.parameters(), second.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="model='gcm': unknown; choose from gcn, gin, gat, sage, mlp"):
        networks.build("gcm", Nodes(), Recipe(), seed=0)


@pytest.mark.parametrize("name", ["karate", "atlas"])
def test_every_recipe_of_the_embedded_tasks_builds_a_network_that_runs(name: str) -> None:
    task = graph_data.load(name)
    for model in (m for t, m in RECIPES if t == name):
        net = networks.build(model, task, find(name, model), seed=0)
        batch = next(task.batches("val", 16))
        assert net(*batch.inputs).shape == ((16, 2) if name == "atlas" else (34, 2))
