"""Uniform grids: values and gradients by hand."""

import pytest
import torch
from torch import nn

from graphprune.compression.quantizer import (
    RangeQuantizer,
    Uniform,
    WeightQuantizer,
    affine_grid,
    check_bits,
    fake_quantize,
    symmetric_grid,
    to_integers,
    value_range,
)
from graphprune.compression.sparse_features import to_csr


def test_an_affine_grid_holds_zero_and_both_ends():
    grid = affine_grid(torch.tensor(-1.0), torch.tensor(2.0), 2)
    assert (grid.step.item(), grid.zero.item(), grid.low, grid.high) == (1.0, 1, 0, 3)
    x = torch.tensor([-1.0, 0.0, 0.4, 0.6, 2.0, 9.0, -9.0])
    assert to_integers(x, grid).tolist() == [0, 1, 1, 2, 3, 3, 0]
    assert fake_quantize(x, grid).tolist() == [-1.0, 0.0, 0.0, 1.0, 2.0, 2.0, -1.0]


@pytest.mark.parametrize(("low", "high"), [(1.0, 3.0), (-3.0, -1.0), (0.0, 0.0)])
def test_zero_stays_zero_where_the_range_does_not_hold_it(low, high):
    grid = affine_grid(torch.tensor(low), torch.tensor(high), 4)
    assert fake_quantize(torch.zeros(1), grid).item() == 0


def test_gradients_pass_inside_the_range_and_stop_beyond_it():
    x = torch.tensor([-0.6, 0.2, 1.9, 2.6, 40.0], requires_grad=True)
    (fake_quantize(x, affine_grid(torch.tensor(-1.0), torch.tensor(2.0), 2)) * torch.tensor([1.0, 2, 3, 4, 5])).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 3.0, 0.0, 0.0]


def test_a_weight_is_on_a_symmetric_grid_that_ends_at_its_largest_entry():
    weight = torch.tensor([[3.0, -0.6], [1.4, -2.6]], requires_grad=True)
    quantized = WeightQuantizer(3)(weight)
    quantized.sum().backward()
    assert quantized.tolist() == [[3.0, -1.0], [1.0, -3.0]]
    assert weight.grad.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert symmetric_grid(torch.tensor(7.0), 4).step.item() == 1.0


def test_a_weight_of_zeros_stays_zero():
    assert WeightQuantizer(4)(torch.zeros(2, 2)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_percentiles_cut_the_same_share_off_both_ends():
    low, high = value_range(torch.arange(1001.0).flip(0), 0.01)
    assert (low.item(), high.item()) == (10.0, 990.0)
    assert [end.item() for end in value_range(torch.tensor([5.0]), 0.4)] == [5.0, 5.0]


def test_the_range_moves_by_its_momentum_in_training_only():
    quantizer = RangeQuantizer(torch.tensor([0.0, 3.0]), 2, momentum=0.25)
    quantizer(torch.tensor([-4.0, 7.0]))
    assert (quantizer.low.item(), quantizer.high.item()) == (-1.0, 4.0)
    quantizer.eval()(torch.tensor([-40.0, 70.0]))
    assert (quantizer.low.item(), quantizer.high.item()) == (-1.0, 4.0)


def test_the_range_survives_a_state_dict():
    first, second = Uniform(4).activation(torch.tensor([0.0, 3.0])), Uniform(4).activation(torch.tensor([0.0, 1.0]))
    second.load_state_dict(first.state_dict())
    assert second.grid().step.item() == pytest.approx(3.0 / 15)


def test_the_values_that_a_sparse_matrix_stores_are_quantized():
    dense = torch.tensor([[0.0, 1.4], [7.0, 0.0], [2.6, 3.0]])
    quantizer: nn.Module = RangeQuantizer(to_csr(dense), 3).eval()
    assert quantizer(to_csr(dense)).to_dense().tolist() == quantizer(dense).tolist() == [[0.0, 1.0], [7.0, 0.0], [3.0, 3.0]]


@pytest.mark.parametrize("bits", [1, 17, 4.0, True])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match=f"bits={bits!r}: must be a whole number from 2 to 16"):
        check_bits(bits)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"percentile": 0.5}, "percentile=0.5"), ({"momentum": 0.0}, "momentum=0.0"), ({"momentum": 1.5}, "momentum=1.5")],
)
def test_other_arguments_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        RangeQuantizer(torch.ones(3), 8, **wrong)


def test_integers_are_those_of_the_simulated_grid_at_ties_too():
    x = torch.arange(-254, 255).float() * 0.0037
    for grid in (symmetric_grid(x.max(), 8), affine_grid(x.min(), x.max(), 8)):
        assert torch.equal((to_integers(x, grid) - grid.zero) * grid.step, fake_quantize(x, grid))


def test_a_percentile_hides_no_value_that_is_not_finite():
    with pytest.raises(ValueError, match="NaN or infinite"):
        value_range(torch.cat([torch.arange(1000.0), torch.tensor([float("nan")])]), 0.01)


def test_nothing_has_the_range_of_zero():
    assert [end.item() for end in value_range(torch.empty(0), 0.1)] == [0.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_passes_in_evaluation_and_is_refused_in_training(bad):
    quantizer, x = RangeQuantizer(torch.tensor([0.0, 3.0]), 2), torch.tensor([bad, 1.4])
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantizer(x)
    assert quantizer.eval()(x).nan_to_num(9.0).tolist() == torch.tensor([bad, 1.0]).nan_to_num(9.0).tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinite"):
        RangeQuantizer(torch.tensor([1.0, bad]), 8)
    with pytest.raises(ValueError, match="empty"):
        RangeQuantizer(torch.ones(0, 3), 8)
