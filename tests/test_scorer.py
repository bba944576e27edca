import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from graphprune import importance, models, space
from graphprune import scorer as scorer_module
from graphprune.encoder import KINDS, GraphEncoder
from graphprune.graph import ChannelGraph, Group, Node, trace
from graphprune.scorer import Scorer


def residual(blocks: int = 3, channels: int = 6) -> ChannelGraph:
    """A residual stage: conv and BN in each block, the stream shared, a tail whose channels come from two groups."""
    nodes, edges, groups = [], [], []
    stream = tuple(range(channels))
    layers, inner, start = ["stem"], [], channels

    def add(name, kind, atoms, *sources):
        nodes.append(Node(name, kind, len(atoms), atoms))
        edges.extend((source, len(nodes) - 1) for source in sources)
        return len(nodes) - 1

    end = add("stem.bn", "bn", stream, add("stem", "conv", stream))
    for b in range(blocks):
        own = tuple(range(start, start + 4 + b))
        start += len(own)
        inner.append(Group(f"b{b}.conv1", len(own), (f"b{b}.conv1",), len(own)))
        middle = add(f"b{b}.bn1", "bn", own, add(f"b{b}.conv1", "conv", own, end))
        end = add(f"b{b}.bn2", "bn", stream, add(f"b{b}.conv2", "conv", stream, middle), end)
        layers.append(f"b{b}.conv2")
    groups = [Group("stem", channels, tuple(layers), channels * len(layers)), *inner]
    cat = add("cat", "bn", (*stream, *own, -1), end, middle)
    add("fc", "fc", (-1,) * 10, add("pool", "pool", (*stream, *own, -1), cat))
    return ChannelGraph(tuple(nodes), torch.tensor(edges).T.contiguous(), tuple(groups))


GRAPH = residual()
SCORES = {g.name: torch.rand(g.channels, generator=torch.Generator().manual_seed(i)) for i, g in enumerate(GRAPH.groups)}


def draw(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(10, (n, len(GRAPH.groups)), generator=torch.Generator().manual_seed(seed))


def by_pyg(encoder: GraphEncoder, graph: ChannelGraph, kept: torch.Tensor) -> torch.Tensor:
    x = graph.features(kept)
    return encoder(Batch.from_data_list([Data(x=row, edge_index=graph.edge_index) for row in x]))


def with_biases(encoder: GraphEncoder) -> GraphEncoder:
    """PyG starts biases at zero, where a forgotten one would not show."""
    for parameter in encoder.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(len(parameter)))
    return encoder


@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_and_cosines_equal_pyg(kind, layers, undirected):
    width = GRAPH.feature_index.shape[1]
    encoder = GraphEncoder.seeded(0, width, kind=kind, hidden=16, layers=layers, undirected=undirected)
    with_biases(encoder)
    score, indices = Scorer(encoder, GRAPH, SCORES), draw(60)
    with torch.no_grad():
        z = by_pyg(encoder, GRAPH, space.kept_masks(GRAPH, indices, SCORES))
        whole = by_pyg(encoder, GRAPH, torch.ones(1, GRAPH.num_atoms, dtype=torch.bool))
    torch.testing.assert_close(score.embed(indices), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(score(indices), F.cosine_similarity(z, whole), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["resnet20a", "resnet18"])
@pytest.mark.parametrize("kind", ["gcn", "sage"])
def test_the_tables_of_a_real_network_equal_pyg(name, kind):
    net = models.seeded(name, 0)
    graph = trace(net, torch.zeros(1, 3, 32, 32))
    scores = importance.l1(net, graph)
    encoder = with_biases(GraphEncoder.seeded(0, graph.feature_index.shape[1], kind=kind))
    score = Scorer(encoder, graph, scores)
    assert "merged tables" in score.plan
    indices = torch.randint(10, (50, len(graph.groups)), generator=torch.Generator().manual_seed(0))
    whole = torch.ones(1, graph.num_atoms, dtype=torch.bool)
    with torch.no_grad():
        z, z0 = by_pyg(encoder, graph, space.kept_masks(graph, indices, scores)), by_pyg(encoder, graph, whole)
    torch.testing.assert_close(score(indices), F.cosine_similarity(z, z0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [2, 3])
def test_tables_over_the_budget_give_way_to_whole_graphs(monkeypatch, layers):
    encoder = with_biases(GraphEncoder.seeded(0, GRAPH.feature_index.shape[1], hidden=8, layers=layers))
    expected = Scorer(encoder, GRAPH, SCORES).embed(draw(40))
    monkeypatch.setattr(scorer_module, "BUDGET", 1000)
    score = Scorer(encoder, GRAPH, SCORES)
    assert score.plan == "whole graphs, in chunks: a node sees 2 groups, too many to tabulate"
    torch.testing.assert_close(score.embed(draw(40)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "gcn"}, "merged tables"),
        ({"kind": "sage"}, "merged tables"),
        ({"kind": "gcn", "layers": 1}, "4 tables, one a group"),
        ({"kind": "sage", "layers": 3}, "first layer from 17 node tables"),
        ({"kind": "gat"}, "attention depends on the features"),
    ],
)
def test_the_plan_says_what_it_does(options, words):
    assert words in Scorer(GraphEncoder(hidden=8, **options), GRAPH, SCORES).plan


def test_the_unpruned_network_is_most_similar_to_itself():
    score = Scorer(GraphEncoder.seeded(0, GRAPH.feature_index.shape[1]), GRAPH, SCORES)
    assert score(torch.zeros(1, 4, dtype=torch.long)).item() == pytest.approx(1, abs=1e-6)
    assert score(draw(200)).max() <= 1 + 1e-6


def test_chunks_do_not_show(monkeypatch):
    encoder = GraphEncoder.seeded(0, GRAPH.feature_index.shape[1], hidden=8)
    expected = Scorer(encoder, GRAPH, SCORES)(draw(50))
    monkeypatch.setattr(scorer_module, "CHUNK", 7)
    torch.testing.assert_close(Scorer(encoder, GRAPH, SCORES)(draw(50)), expected)


def test_a_scorer_keeps_the_weights_it_was_made_with():
    encoder = GraphEncoder.seeded(0, GRAPH.feature_index.shape[1], kind="gat", hidden=8)
    score = Scorer(encoder, GRAPH, SCORES)
    before = score(draw(5))
    for parameter in encoder.parameters():
        parameter.data.normal_()
    assert torch.equal(score(draw(5)), before)


def test_other_rates_without_zero():
    rates = (0.25, 0.5)
    encoder = with_biases(GraphEncoder.seeded(0, GRAPH.feature_index.shape[1], hidden=8))
    indices = draw(30) % 2
    z = Scorer(encoder, GRAPH, SCORES, rates).embed(indices)
    with torch.no_grad():
        expected = by_pyg(encoder, GRAPH, space.kept_masks(GRAPH, indices, SCORES, rates))
    torch.testing.assert_close(z, expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    edges=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    members=st.lists(st.integers(-1, 2), min_size=5, max_size=5),
    kind=st.sampled_from(("gcn", "sage")),
)
def test_tables_equal_pyg_on_any_graph(edges, sizes, members, kind):
    starts = [sum(sizes[:g]) for g in range(len(sizes))]
    nodes = [
        Node(f"n{v}", "conv", 2, (-1, -1)) if g < 0 or g >= len(sizes)
        else Node(f"n{v}", "conv", sizes[g], tuple(range(starts[g], starts[g] + sizes[g])))
        for v, g in enumerate(members)
    ]  # fmt: skip
    groups = tuple(Group(f"g{g}", size, (f"n{g}",), size) for g, size in enumerate(sizes))
    graph = ChannelGraph(tuple(nodes), torch.tensor(edges).T.contiguous(), groups)
    scores = space.first_scores(graph)
    encoder = with_biases(GraphEncoder.seeded(0, graph.feature_index.shape[1], kind=kind, hidden=4))
    indices = torch.randint(10, (20, len(sizes)), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = by_pyg(encoder, graph, space.kept_masks(graph, indices, scores))
    torch.testing.assert_close(Scorer(encoder, graph, scores).embed(indices), expected, atol=1e-5, rtol=1e-5)


def test_bad_arguments_are_named():
    score = Scorer(GraphEncoder(hidden=4), GRAPH, SCORES)
    with pytest.raises(ValueError, match=r"indices must be int64 of shape \(B, 4\)"):
        score(torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 10\)"):
        score(torch.full((2, 4), 10))
    with pytest.raises(ValueError, match="no entry for group 'stem'"):
        Scorer(GraphEncoder(hidden=4), GRAPH, {})
    with pytest.raises(ValueError, match="no prunable group"):
        Scorer(GraphEncoder(), ChannelGraph((Node("a", "conv", 1, (-1,)),), torch.zeros(2, 0).long(), ()), {})
