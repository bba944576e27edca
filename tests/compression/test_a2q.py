"""Learned steps and bits: values and gradients by hand and by finite differences."""

import math

import pytest
import torch

from graphprune.compression.a2q import (
    A2Q,
    ChannelQuantizer,
    NodeQuantizer,
    levels,
    mean_bits,
    memory_penalty,
    quantize_learned,
    training_error,
)
from graphprune.compression.sparse_features import to_csr


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.double)[:, None].requires_grad_()


def test_values_and_gradients_of_the_signed_grid():
    x, step, bits = leaf(0.3, -0.9, 5.0, -7.0), leaf(0.4, 0.4, 0.4, 0.4), leaf(3, 3, 3, 3)
    y = quantize_learned(x, step, bits)
    y.sum().backward()
    assert y.flatten().tolist() == pytest.approx([0.4, -0.8, 1.2, -1.2])
    assert x.grad.flatten().tolist() == [1, 1, 0, 0]
    assert step.grad.flatten().tolist() == pytest.approx([0.25, 0.25, 3, -3])  # 1 - 0.75, -(2 - 2.25), q, -q
    assert bits.grad.flatten().tolist() == pytest.approx([0, 0, 1.6 * math.log(2), -1.6 * math.log(2)])


def test_the_gradient_of_the_bits_is_that_of_the_largest_value():
    """By finite differences of x_q = sign(x) (2^(b - 1) - 1) a, in which b is not rounded."""
    x, step, bits = leaf(5.0, -7.0), leaf(0.4, 0.3), leaf(3.0, 4.0)
    quantize_learned(x, step, bits).sum().backward()
    with torch.no_grad():
        at = [x.sign() * (2 ** (bits + shift - 1) - 1) * step for shift in (1e-6, -1e-6)]
    assert torch.allclose(bits.grad, (at[0] - at[1]) / 2e-6, atol=1e-6)


def test_the_gradient_of_the_step_beyond_the_grid_is_that_of_the_largest_value():
    x, step, bits = leaf(5.0, -7.0), leaf(0.4, 0.3), leaf(3.0, 4.0)
    quantize_learned(x, step, bits).sum().backward()
    with torch.no_grad():
        at = [quantize_learned(x, step + shift, bits) for shift in (1e-6, -1e-6)]
    assert torch.allclose(step.grad, (at[0] - at[1]) / 2e-6, atol=1e-6)


def test_a_step_shared_by_a_row_gets_the_sum_of_its_gradients():
    x, step, bits = torch.tensor([[0.3, -0.9, 5.0]]), torch.tensor([[0.4]], requires_grad=True), torch.tensor([[3.0]])
    quantize_learned(x, step, bits).sum().backward()
    assert step.grad.item() == pytest.approx(0.25 + 0.25 + 3)


def test_bits_are_rounded_and_at_least_one():
    assert levels(torch.tensor([0.2, 1.4, 2.6, -2.6]), unsigned=True).tolist() == [1, 1, 7, 7]
    assert levels(torch.tensor([1.0, 4.0]), unsigned=False).tolist() == [0, 7]


def test_one_unsigned_bit_tells_small_from_large():
    y = quantize_learned(torch.tensor([[0.1], [0.9]]), torch.tensor([[1.0]]), torch.tensor([[1.0]]), unsigned=True)
    assert y.flatten().tolist() == [0.0, 1.0]


def test_first_steps_reach_the_largest_value_of_each_node():
    of = A2Q(bits=2).activation(torch.tensor([[0.0, 3.0], [6.0, 1.0]]))
    assert of.step.flatten().tolist() == [1.0, 2.0]
    assert of(torch.tensor([[0.0, 3.0], [6.0, 1.4]])).tolist() == [[0.0, 3.0], [6.0, 2.0]]
    signed = A2Q(bits=2).activation(torch.tensor([[-1.0, 0.5]]))
    assert signed.step.item() == 1.0  # one level on either side


def test_sparse_features_are_quantized_node_by_node_and_their_steps_get_gradients():
    dense = torch.tensor([[0.0, 3.0], [6.0, 1.4]])
    grads = []
    for x in (dense, to_csr(dense)):
        of = A2Q(bits=2).activation(x)
        out = of(x)
        (out if out.layout == torch.strided else out.values()).sum().backward()
        grads.append(of.step.grad.flatten().tolist())
        assert (out if out.layout == torch.strided else out.to_dense()).tolist() == [[0.0, 3.0], [6.0, 2.0]]
    assert grads[0] == grads[1] == pytest.approx([0.0, 0.3])  # 1 - 1.4 / 2


def test_an_unseen_node_takes_the_pair_whose_range_is_nearest():
    of = NodeQuantizer(torch.tensor([[1.0], [2.0], [8.0]]), bits=2, groups=3, local=False)
    assert (of.step * 3).flatten().tolist() == [1.0, 2.0, 8.0]
    x = torch.tensor([[0.2], [1.4], [1.6], [4.9], [5.1], [99.0]])
    assert of.choose(x).tolist() == [0, 0, 1, 1, 2, 2]
    assert of(x).flatten().tolist() == pytest.approx([1 / 3, 1.0, 4 / 3, 2.0, 16 / 3, 8.0])
    assert of.row_bits().tolist() == [2.0] * 6
    assert NodeQuantizer(torch.ones(2, 1), 2, 1, False)(torch.ones(4, 1)).tolist() == [[1.0]] * 4


def test_a_node_without_features_does_no_harm():
    of = A2Q().activation(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert of(torch.zeros(2, 2)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_weights_have_a_step_for_each_output_channel_at_four_bits():
    of = ChannelQuantizer(torch.tensor([[7.0, -3.2], [0.7, 0.04]]))
    assert of(torch.tensor([[7.0, -3.2], [0.7, 0.04]])).flatten().tolist() == pytest.approx([7.0, -3.0, 0.7, 0.0])


def test_the_penalty_is_the_square_of_the_kilobytes_above_the_target():
    network = torch.nn.Sequential(A2Q(bits=4).activation(torch.ones(128, 64)))  # 128 x 64 x 4 bits = 4 kB
    loss = memory_penalty(network, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(9.0)
    assert network[0].bits.grad.flatten()[0].item() == pytest.approx(2 * 3 * 64 / 8 / 1024)
    assert memory_penalty(network, 5.0).item() == 0
    with pytest.raises(ValueError, match="no layer learns its bits"):
        memory_penalty(torch.nn.Linear(1, 1), 1.0)


def test_locally_trained_steps_learn_from_the_rounding_error_alone():
    network = torch.nn.Sequential(A2Q(bits=2, local=True).activation(torch.tensor([[3.0], [6.0]])))
    x = torch.tensor([[1.4], [9.0]], requires_grad=True)
    (network(x) * 5).sum().backward()
    assert network[0].step.grad is None
    assert x.grad.flatten().tolist() == [5.0, 0.0]
    network(x)
    training_error(network).backward()
    assert training_error(network).item() == pytest.approx(0.4 + 3.0)
    assert network[0].step.grad.flatten().tolist() == pytest.approx([-1 * (1 - 1.4), -3.0])
    network.eval()(x)
    assert training_error(network).item() == 0


def test_mean_bits_are_those_used():
    network = torch.nn.Sequential(A2Q(bits=4).activation(torch.ones(2, 1)))
    with torch.no_grad():
        network[0].bits[:] = torch.tensor([[1.6], [4.4]])
    assert mean_bits(network) == [3.0]


@pytest.mark.parametrize("wrong", [{"bits": 1}, {"bits": 9}, {"bits": 2.5}, {"groups": 0}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        A2Q(**wrong).activation(torch.ones(2, 2))


def test_other_numbers_of_nodes_and_bad_features_are_refused():
    with pytest.raises(ValueError, match=r"x has 3 rows, but steps and bits were made for 2 nodes"):
        A2Q().activation(torch.ones(2, 1))(torch.ones(3, 1))
    with pytest.raises(ValueError, match="NaN"):
        A2Q().activation(torch.tensor([[float("nan")]]))
