"""Nodes protected by degree: chances, ranges, values and gradients by hand."""

import pytest
import torch
from three_nodes import PATH

from graphprune.compression.degree_quant import DegreeQuant, ProtectedQuantizer, protection
from graphprune.compression.sparse_features import to_csr

STAR = torch.tensor([[1, 2, 3, 0, 0, 0], [0, 0, 0, 1, 2, 3]])


def test_protection_grows_with_the_share_of_nodes_of_at_most_this_degree():
    assert protection(STAR, 5, 0.1, 0.6).tolist() == pytest.approx([0.6, 0.5, 0.5, 0.5, 0.2])  # node 4 has no neighbour


def test_without_edges_all_nodes_have_the_largest_chance():
    assert protection(torch.empty(2, 0, dtype=torch.int64), 3, 0.0, 0.1).tolist() == pytest.approx([0.1, 0.1, 0.1])


def quantizer(bits: int = 2) -> ProtectedQuantizer:
    return DegreeQuant(bits, percentile=0.0, momentum=1.0).activation(torch.tensor([[0.0], [1.0], [3.0]]))


@pytest.mark.parametrize("pack", [lambda x: x, to_csr])
def test_a_spared_node_stays_as_it_is_and_does_not_move_the_range(pack):
    of = quantizer()
    of.chances = torch.tensor([0.0, 1.0, 0.0])
    x = torch.tensor([[0.6], [9.4], [3.0]])
    found = of(pack(x))
    assert (found if found.layout == torch.strided else found.to_dense()).flatten().tolist() == pytest.approx([1.0, 9.4, 3.0])
    assert (of.low.item(), of.high.item()) == (pytest.approx(0.6), 3.0)  # the grid begins at 0 all the same


def test_a_spared_node_gets_its_gradient_beyond_the_range():
    of = quantizer()
    of.momentum = 1e-9
    x = torch.tensor([[0.6], [9.4], [8.0]], requires_grad=True)
    of.chances = torch.tensor([0.0, 1.0, 0.0])
    y = of(x)
    y.sum().backward()
    assert y.flatten().tolist() == pytest.approx([1.0, 9.4, 3.0])
    assert x.grad.flatten().tolist() == [1.0, 1.0, 0.0]


def test_in_evaluation_all_nodes_are_quantized():
    of = quantizer().eval()
    of.chances = torch.ones(3)
    assert of(torch.tensor([[0.6], [9.4], [2.2]])).flatten().tolist() == [1.0, 3.0, 2.0]


def test_rows_that_are_no_nodes_are_not_spared():
    of = quantizer()
    of.chances = torch.ones(3)
    assert of(torch.tensor([[0.6], [3.0]])).flatten().tolist() == [1.0, 3.0]


def test_nodes_are_spared_as_often_as_their_chance_says():
    of = DegreeQuant(2, percentile=0.0, momentum=1e-9).activation(torch.full((1000, 1), 3.0))
    of.chances = torch.full((1000,), 0.3)
    torch.manual_seed(0)
    spared = (of(torch.full((1000, 1), 1.4)) == 1.4).sum().item()
    assert abs(spared - 300) < 60  # four standard deviations


def test_percentiles_are_the_published_ones():
    sample = torch.arange(1000.0)[:, None]
    assert [DegreeQuant(bits).activation(sample).percentile for bits in (8, 4)] == [0.001, 0.01]


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.5), (0.0, 1.1), (0.6, 0.5)])
def test_chances_out_of_range_are_refused(low, high):
    with pytest.raises(ValueError, match=r"low=|high="):
        protection(PATH, 3, low, high)
    with pytest.raises(ValueError, match=r"low=|high="):
        DegreeQuant(8, low, high).activation(torch.ones(2, 1))
