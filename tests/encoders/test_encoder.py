import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from graphprune.encoders.encoder import KINDS, GraphEncoder

CHAIN = torch.tensor([[0, 1], [1, 2]])
SKIP = torch.tensor([[0, 1, 2, 0, 3], [1, 2, 3, 3, 4]])


def batch(x: torch.Tensor, edge_index: torch.Tensor) -> Batch:
    return Batch.from_data_list([Data(x=row, edge_index=edge_index) for row in x])


def by_hand(kind: str, weight: float) -> GraphEncoder:
    """One wide, every weight matrix the same number, no bias."""
    encoder = GraphEncoder.seeded(0, 1, kind=kind, hidden=1)
    for parameter in encoder.parameters():
        parameter.data.fill_(weight if parameter.ndim == 2 else 0.0)
    return encoder


def test_a_directed_gcn_by_hand():
    # In-degrees with self loops: 1, 2, 2. M = [[1, 0, 0], [1/sqrt2, 1/2, 0], [0, 1/2, 1/2]].
    # x = (1, -1, 1): M x = (1, .2071, 0); ReLU leaves it; M again: (1, .8107, .1036), mean .6381; weights 2 * 2 = 4.
    z = by_hand("gcn", 2.0)(Data(x=torch.tensor([[1.0], [-1.0], [1.0]]), edge_index=CHAIN))
    assert z.tolist() == [[pytest.approx(4 * 0.63807, abs=1e-4)]]


def test_an_undirected_sage_by_hand():
    # Neighbour means of (1, -1, 4): (-1, 2.5, -1); plus itself: (0, 1.5, 3).
    # Their neighbour means (1.5, 1.5, 1.5); plus itself: (1.5, 3, 4.5).
    encoder = by_hand("sage", 1.0)
    encoder.undirected = True
    z = encoder(Data(x=torch.tensor([[1.0], [-1.0], [4.0]]), edge_index=CHAIN))
    assert z.tolist() == [[3.0]]


def test_the_last_layer_is_linear():
    assert by_hand("gcn", -1.0)(Data(x=-torch.ones(3, 1), edge_index=CHAIN)).item() < 0


@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_embed_equals_a_call_on_the_batch(kind, layers, undirected):
    encoder = GraphEncoder.seeded(1, 6, kind=kind, hidden=16, layers=layers, undirected=undirected)
    x = torch.randn(7, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = encoder(batch(x, SKIP))
    assert expected.shape == (7, 16)
    torch.testing.assert_close(encoder.embed(x, SKIP), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(encoder(Data(x=x[2], edge_index=SKIP)), expected[2:3])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_nodes_may_share_feature_rows(kind, layers):
    encoder = GraphEncoder.seeded(1, 6, kind=kind, hidden=16, layers=layers)
    x, carries = torch.randn(7, 3, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 0, 1, 2])
    torch.testing.assert_close(encoder.embed(x, SKIP, carries), encoder(batch(x[:, carries], SKIP)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_embed_has_the_gradients_of_the_call(kind):
    encoder = GraphEncoder.seeded(1, 6, kind=kind, hidden=4)
    x = torch.randn(3, 5, 6)
    expected = torch.autograd.grad(encoder(batch(x, SKIP)).square().sum(), list(encoder.parameters()))
    got = torch.autograd.grad(encoder.embed(x, SKIP).square().sum(), list(encoder.parameters()))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    edges=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12),
    kind=st.sampled_from(KINDS),
    undirected=st.booleans(),
)
def test_embed_equals_pyg_on_any_topology(edges, kind, undirected):
    """Self loops, repeated edges and isolated nodes included."""
    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T.contiguous()
    encoder = GraphEncoder.seeded(2, 3, kind=kind, hidden=4, undirected=undirected)
    x = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(encoder.embed(x, edge_index), encoder(batch(x, edge_index)), atol=1e-5, rtol=1e-4)


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    one, same, other = (GraphEncoder.seeded(seed, 5).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_goes_through_safetensors(kind, tmp_path):
    from safetensors.torch import load_file, save_file

    encoder = GraphEncoder.seeded(0, 6, kind=kind, hidden=4)
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    twin = GraphEncoder(kind, hidden=4).materialise(6)
    twin.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    x = torch.randn(2, 5, 6)
    assert torch.equal(twin.embed(x, SKIP), encoder.embed(x, SKIP))


def test_the_input_width_comes_from_the_first_graph():
    encoder = GraphEncoder(hidden=4)
    assert not encoder.ready
    assert encoder.embed(torch.ones(2, 3, 9), CHAIN).shape == (2, 4)
    assert encoder.ready


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_under_inference_mode_does_not_spoil_training(kind):
    encoder = GraphEncoder.seeded(0, 2, kind=kind, hidden=3)
    edge_index = torch.tensor([[0, 1, 2, 3], [4, 4, 4, 4]])
    with torch.inference_mode():
        encoder.embed(torch.ones(1, 5, 2), edge_index)
    encoder.embed(torch.ones(1, 5, 2), edge_index).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="kind='mlp': must be one of 'gcn', 'gat', 'sage'"):
        GraphEncoder("mlp")
    with pytest.raises(ValueError, match="hidden=0"):
        GraphEncoder(hidden=0)
    with pytest.raises(ValueError, match="layers=0"):
        GraphEncoder(layers=0)
    with pytest.raises(ValueError, match="in_channels=0"):
        GraphEncoder.seeded(0, 0)
    with pytest.raises(ValueError, match=r"x must have shape \(B, nodes, d\)"):
        GraphEncoder().embed(torch.ones(3, 4), CHAIN)
    with pytest.raises(ValueError, match=r"edge_index must have shape \(2, E\)"):
        GraphEncoder().embed(torch.ones(1, 3, 4), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"outside 0 .. 1"):
        GraphEncoder().embed(torch.ones(1, 2, 4), CHAIN)
