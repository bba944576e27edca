import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.encoders.encoder import KINDS, GraphEncoder

NODES = 4
graphs = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=10)


def made(kind, edges, undirected=False):
    """PyG's own layer, its form over the topology, the edges it passes messages along, and inputs."""
    encoder = GraphEncoder.seeded(0, 3, kind=kind, hidden=5, layers=1, undirected=undirected)
    for parameter in encoder.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T.contiguous()
    h = torch.randn(6, NODES, 3, generator=torch.Generator().manual_seed(2))
    return encoder.convs[0], encoder.convolutions(edge_index, NODES)[0], edge_index, h


@settings(max_examples=40, deadline=None)
@given(edges=graphs, kind=st.sampled_from(KINDS))
def test_each_form_equals_pygs_layer(edges, kind):
    """Self loops, repeated edges and isolated nodes included."""
    layer, conv, edge_index, h = made(kind, edges)
    with torch.no_grad():
        expected = torch.stack([layer(x, edge_index) for x in h])
        torch.testing.assert_close(conv(h), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(conv.receive(conv.send(h)), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(conv.mean(h), expected.mean(1), atol=1e-5, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(edges=graphs, kind=st.sampled_from(KINDS))
def test_a_single_node_needs_what_it_reads_and_what_reaches_it_alone(edges, kind):
    _, conv, _, h = made(kind, edges)
    with torch.no_grad():
        sent, out = conv.send(h), conv(h)
        for v in range(NODES):
            torch.testing.assert_close(conv.receive_at(v, sent[:, conv.reads(v)]), out[:, v], atol=1e-5, rtol=1e-5)
            parts = [conv.part(v, u, h[:, u]) for u in conv.reach[v].nonzero()[:, 0].tolist()]
            torch.testing.assert_close(sum(parts, conv.offset.expand(6, -1)), sent[:, v], atol=1e-5, rtol=1e-5)


def test_attention_does_not_overflow():
    _, conv, _, h = made("gat", [(0, 1), (1, 2), (3, 2)])
    with torch.no_grad():
        assert bool(conv(1e4 * h).isfinite().all())
        assert bool(conv.mean(1e4 * h).isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_messages_may_pass_against_the_flow(kind):
    _, forward, _, _ = made(kind, [(0, 1)])
    _, both, _, _ = made(kind, [(0, 1)], undirected=True)
    seen = [{u for w in conv.reads(0) for u in conv.reach[w].nonzero()[:, 0].tolist()} for conv in (forward, both)]
    assert seen == [{0}, {0, 1}]
