from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from graphprune import importance, models, space
from graphprune import scorer as scorer_module
from graphprune.coupling import trace
from graphprune.encoder import KINDS, GraphEncoder
from graphprune.graph import ChannelGraph, Group, Node
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
@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("budget", [0, 40_000, 400_000])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_budget_changes_the_plan_and_not_the_result(monkeypatch, kind, layers, budget):
    encoder = GraphEncoder.seeded(0, GRAPH.feature_index.shape[1], kind=kind, hidden=8, layers=layers, undirected=True)
    expected = Scorer(with_biases(encoder), GRAPH, SCORES)
    monkeypatch.setattr(scorer_module, "BUDGET", budget)
    score = Scorer(encoder, GRAPH, SCORES)
    if (layers > 1 or kind == "gat") and budget == 0:
        assert score.plan != expected.plan
    torch.testing.assert_close(score.embed(draw(40)), expected.embed(draw(40)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "budget", "words"),
    [
        ({"kind": "gcn"}, None, "3 merged tables, 0.0 MB: exact for 2 layers"),
        ({"kind": "sage", "layers": 1}, None, "4 merged tables, 0.0 MB: exact for 1 layer"),
        ({"kind": "sage", "layers": 3}, None, "merged tables"),
        ({"kind": "gat"}, None, "merged tables"),
        ({"kind": "gcn"}, 0, "0 merged tables of 0 nodes; the other 17 see up to 2 groups, too many to tabulate: "),
        ({"kind": "sage", "layers": 3}, 0, "what 17 nodes send in layer 1 from"),
        ({"kind": "gat", "layers": 3}, 0, "what 17 nodes send in layer 1 from"),
    ],
)
def test_the_plan_says_what_it_does(monkeypatch, options, budget, words):
    monkeypatch.setattr(scorer_module, "BUDGET", scorer_module.BUDGET if budget is None else budget)
    score = Scorer(GraphEncoder(hidden=8, **options), GRAPH, SCORES)
    assert words in score.plan
    assert (score.tables is None) == (budget == 0)


def test_the_tables_add_up_to_the_embedding():
    score = Scorer(with_biases(GraphEncoder.seeded(0, GRAPH.feature_index.shape[1], kind="gat", hidden=8)), GRAPH, SCORES)
    bias, tables = score.tables
    for row, z in zip(draw(20).tolist(), score.embed(draw(20)), strict=True):
        at = [int("".join(str(row[g]) for g in scope) or "0") for scope, _ in tables]  # ten rates: rows count in decimals
        torch.testing.assert_close(
            bias + sum(rows[i] for i, (_, rows) in zip(at, tables, strict=True)), z, atol=1e-5, rtol=1e-5
        )


def kept_shares(kept: torch.Tensor) -> torch.Tensor:
    """Two features a node, of the group of its first channel: how much of it is kept, and whether under a half."""
    shares = torch.stack([kept[:, span].float().mean(1) for span in GRAPH.slices.values()], 1)
    owner = [next((g for g, s in enumerate(GRAPH.slices.values()) if s.start <= n.atoms[0] < s.stop), 0) for n in GRAPH.nodes]
    return torch.stack([shares, (shares < 0.5).float()], 2)[:, owner]


@pytest.mark.parametrize("kind", KINDS)
def test_node_features_may_be_any_function_of_a_groups_rate(kind):
    encoder = with_biases(GraphEncoder.seeded(0, 2, kind=kind, hidden=8))
    score, kept = Scorer(encoder, GRAPH, SCORES, features=kept_shares), space.kept_masks(GRAPH, draw(30), SCORES)
    with torch.no_grad():
        expected = encoder(Batch.from_data_list([Data(x=row, edge_index=GRAPH.edge_index) for row in kept_shares(kept)]))
    torch.testing.assert_close(score.embed(draw(30)), expected, atol=1e-5, rtol=1e-5)
    assert score(torch.zeros(1, 4, dtype=torch.long)).item() == pytest.approx(1, abs=1e-6)


def test_features_that_mix_the_rates_of_groups_are_refused():
    def mixed(kept: torch.Tensor) -> torch.Tensor:
        return kept.float().mean(1).square()[:, None, None].expand(-1, len(GRAPH.nodes), 1)

    with pytest.raises(ValueError, match="features: must add up over groups"):
        Scorer(GraphEncoder(hidden=4), GRAPH, SCORES, features=mixed)


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


@settings(max_examples=60, deadline=None)
@given(
    edges=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    members=st.lists(st.integers(-1, 2), min_size=5, max_size=5),
    kind=st.sampled_from(KINDS),
    layers=st.integers(1, 3),
    undirected=st.booleans(),
    budget=st.sampled_from([0, 3000, 64 << 20]),
)
def test_every_plan_equals_pyg_on_any_graph(edges, sizes, members, kind, layers, undirected, budget):
    starts = [sum(sizes[:g]) for g in range(len(sizes))]
    nodes = [
        Node(f"n{v}", "conv", 2, (-1, -1)) if g < 0 or g >= len(sizes)
        else Node(f"n{v}", "conv", sizes[g], tuple(range(starts[g], starts[g] + sizes[g])))
        for v, g in enumerate(members)
    ]  # fmt: skip
    groups = tuple(Group(f"g{g}", size, (f"n{g}",), size) for g, size in enumerate(sizes))
    graph = ChannelGraph(tuple(nodes), torch.tensor(edges).T.contiguous(), groups)
    scores = space.first_scores(graph)
    options = {"kind": kind, "hidden": 4, "layers": layers, "undirected": undirected}
    encoder = with_biases(GraphEncoder.seeded(0, graph.feature_index.shape[1], **options))
    indices = torch.randint(10, (20, len(sizes)), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = by_pyg(encoder, graph, space.kept_masks(graph, indices, scores))
    with mock.patch.object(scorer_module, "BUDGET", budget):
        score = Scorer(encoder, graph, scores)
    torch.testing.assert_close(score.embed(indices), expected, atol=1e-5, rtol=1e-5)


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
