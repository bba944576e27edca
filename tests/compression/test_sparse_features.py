"""Features in sparse form give the same products and gradients as dense ones."""

import pytest
import torch

from graphprune.compression.sparse_features import Linear, drop, multiply, pattern_of, to_csr, with_values

X = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 3.0], [0.0, 4.0, 0.0]], dtype=torch.double)
W = torch.tensor([[1.0, -1.0, 0.5], [2.0, 0.0, 1.0]], dtype=torch.double)
B = torch.tensor([10.0, 20.0], dtype=torch.double)


def test_a_product_by_hand() -> None:
    assert multiply(to_csr(X), W, B).tolist() == [[8.0, 20.0], [10.0, 20.0], [12.5, 25.0], [6.0, 20.0]]
    assert torch.equal(to_csr(X).to_dense(), X)


def test_weights_and_values_get_the_gradients_of_the_dense_product() -> None:
    x = to_csr(X)
    values = x.values().clone().requires_grad_()
    weight = W.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: multiply(with_values(x, v), w), (values, weight))


def test_a_row_and_a_column_without_values_are_zero() -> None:
    x = to_csr(torch.zeros(2, 3, dtype=torch.double))
    weight = W.clone().requires_grad_()
    product = multiply(x, weight)
    product.sum().backward()
    assert product.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert torch.equal(weight.grad, torch.zeros_like(W))


def test_the_pattern_is_worked_out_once_for_one_matrix_and_anew_for_another() -> None:
    x = to_csr(X)
    first = pattern_of(x)
    assert pattern_of(with_values(x, x.values() * 2)) is first
    assert pattern_of(to_csr(X)) is not first
    assert first.transposed_crow.tolist() == [0, 1, 3, 4]
    assert first.transposed_col.tolist() == [2, 0, 3, 2]


def test_dropout_keeps_zeros_and_scales_what_stays() -> None:
    torch.manual_seed(0)
    dropped = drop(to_csr(torch.ones(200, 1)), 0.5, training=True).values()
    assert set(dropped.tolist()) == {0.0, 2.0}
    x = to_csr(X)
    assert drop(x, 0.5, training=False) is x
    with pytest.raises(ValueError, match="p=2: must be a number from 0 to 1"):
        drop(x, 2, training=True)


def test_the_layer_takes_both_forms() -> None:
    layer = Linear(3, 2).double()
    assert torch.allclose(layer(to_csr(X)), layer(X), rtol=0, atol=1e-15)
