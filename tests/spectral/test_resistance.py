"""Effective resistances: by hand on 4 + 3 nodes, by NetworkX, by the pseudo-inverse, and by what holds for every graph."""

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.spectral import components, degree_resistance, effective_resistance

# Outputs 0 and 1 with inputs 0 and 1 are a ring, output 2 hangs on input 1, output 3 and input 2 are on their own.
BY_HAND = torch.tensor([[1.0, -2.0, 0.0], [1.0, 2.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, -5.0]])


def pseudo_inverse(weight):
    """The textbook formula on all nodes."""
    a = weight.double().abs()
    n = len(a)
    laplacian = torch.zeros(sum(a.shape), sum(a.shape), dtype=torch.float64)
    laplacian[:n, n:], laplacian[n:, :n] = -a, -a.T
    laplacian -= torch.diag(laplacian.sum(1))
    inverse = torch.linalg.pinv(laplacian, hermitian=True)
    own = inverse.diagonal()
    return own[:n, None] + own[None, n:] - 2 * inverse[:n, n:]


def matrices(smallest=0.0):
    entry = st.one_of(st.just(0.0), st.floats(0.01, 100)) if smallest == 0 else st.floats(smallest, 100)
    shape = st.tuples(st.integers(1, 6), st.integers(1, 6))
    return shape.flatmap(
        lambda s: st.lists(entry, min_size=s[0] * s[1], max_size=s[0] * s[1]).map(
            lambda row: torch.tensor(row, dtype=torch.float64).reshape(s)
        )
    )


def test_ring_bridge_and_lone_edge_by_hand():
    """Ring: 1 beside 1/2 + 1/2 + 1 is 2/3, and 1/2 beside 1 + 1 + 1/2 is 5/12. Bridge 1/4, lone edge 1/5."""
    inf = torch.inf
    expected = [[2 / 3, 5 / 12, inf], [2 / 3, 5 / 12, inf], [1.0, 1 / 4, inf], [inf, inf, 1 / 5]]
    torch.testing.assert_close(effective_resistance(BY_HAND), torch.tensor(expected, dtype=torch.float64))


def test_complete_graph_of_four_and_three_nodes():
    torch.testing.assert_close(effective_resistance(torch.ones(4, 3)), torch.full((4, 3), 0.5, dtype=torch.float64))


def test_components_by_hand():
    assert components(BY_HAND).tolist() == [0, 0, 0, 1, 0, 0, 1]
    assert components(torch.zeros(2, 1)).tolist() == [0, 1, 2]


def test_degree_rule_by_hand():
    found = degree_resistance(BY_HAND)
    assert found[0].tolist() == pytest.approx([1 / 3 + 1 / 2, 1 / 3 + 1 / 8, 1 / 3 + 1 / 5])
    assert found[2, 1].item() == pytest.approx(1 / 4 + 1 / 8)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6), (6, 1)])
def test_networkx_agrees(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    graph = networkx.Graph()
    for i, row in enumerate(weight.abs().double().tolist()):
        for j, conductance in enumerate(row):
            graph.add_edge(("out", i), ("in", j), weight=conductance)
    distance = networkx.resistance_distance(graph, weight="weight", invert_weight=False)
    expected = [[distance["out", i]["in", j] for j in range(shape[1])] for i in range(shape[0])]
    torch.testing.assert_close(effective_resistance(weight), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_schur_complement_equals_the_pseudo_inverse(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(effective_resistance(weight), pseudo_inverse(weight), rtol=1e-9, atol=0)


@given(matrices())
@settings(deadline=None)
def test_leverages_add_up_to_nodes_minus_components(weight):
    found = effective_resistance(weight)
    leverage = torch.where(weight > 0, weight * found, 0.0)
    parts = len(components(weight).unique())
    assert float(leverage.sum()) == pytest.approx(sum(weight.shape) - parts, rel=1e-6)
    assert bool((leverage <= 1 + 1e-6).all())
    assert bool((leverage[weight > 0] > 0).all())


@given(matrices(0.01), st.floats(1e-6, 1e6))
@settings(deadline=None)
def test_resistance_is_inverse_to_the_scale_and_blind_to_sides_and_signs(weight, scale):
    found = effective_resistance(weight)
    torch.testing.assert_close(effective_resistance(-scale * weight) * scale, found, rtol=1e-6, atol=0)
    torch.testing.assert_close(effective_resistance(weight.T).T, found, rtol=1e-6, atol=0)


@given(matrices(0.01), st.floats(0.1, 10))
@settings(deadline=None)
def test_a_thicker_edge_raises_no_resistance(weight, more):
    """Rayleigh's law of monotonicity."""
    thicker = weight.clone()
    thicker[0, 0] += more
    assert bool((effective_resistance(thicker) <= effective_resistance(weight) * (1 + 1e-9)).all())


def test_an_input_whose_weights_are_tiny_keeps_its_digits():
    """A blank pixel: its edges are 1e-9 of the others, and together still one edge of every spanning tree."""
    weight = torch.rand(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    weight[:, 2] *= 1e-9
    for layer in (weight, weight.T):
        leverage = layer * effective_resistance(layer)
        blank = leverage[:, 2] if layer is weight else leverage[2]
        assert float(blank.sum()) == pytest.approx(1, rel=1e-7)
        assert float(leverage.sum()) == pytest.approx(12, rel=1e-9)


def test_a_convolution_of_512_by_4608_is_solved_whole():
    weight = torch.randn(512, 4608, generator=torch.Generator().manual_seed(0))
    assert float((weight.abs() * effective_resistance(weight)).sum()) == pytest.approx(5119, rel=1e-9)


@pytest.mark.parametrize("solve", [effective_resistance, degree_resistance])
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(2, 2, 3, 3), r"weight of shape \(2, 2, 3, 3\): must be \(out, in\)"),
        (torch.ones(0, 3), r"weight of shape \(0, 3\)"),
        (torch.tensor([[1.0, torch.nan]]), "not finite"),
        (torch.tensor([[1.0, torch.inf]]), "not finite"),
    ],
)
def test_what_is_no_layer_is_refused(solve, weight, message):
    with pytest.raises(ValueError, match=message):
        solve(weight)


def test_weights_that_no_float_can_tell_apart_are_refused():
    """Three pairs joined by edges so thin that their Laplacian is, in a float64, nearly that of three graphs."""
    for thin in (1e-30, 1e-18, 1e-14):
        with pytest.raises(ValueError, match="span more orders of magnitude"):
            effective_resistance(torch.eye(3, dtype=torch.float64) + thin)
