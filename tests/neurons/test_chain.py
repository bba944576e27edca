"""The operations of a chain by hand."""

import numpy as np
import torch

from graphprune.neurons.chain import Flatten, MaxPool, Relu, Score


def test_windows_of_a_pooling_name_its_inputs():
    assert MaxPool((2, 2), (2, 2), False).windows(torch.Size([1, 2, 4])).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    ceiling = MaxPool((2, 2), (2, 2), True).windows(torch.Size([1, 3, 3]))
    assert ceiling.tolist() == [[0, 1, 3, 4], [2, -1, 5, -1], [6, 7, -1, -1], [8, -1, -1, -1]]


def test_operations_by_hand():
    h = torch.tensor([[2.0, -1.0]])
    assert Score("a", 2, True)(h, torch.tensor([0.5, 1.0]), torch.tensor([[3.0, 0.0]])).tolist() == [[0.5, 0.0]]
    assert Score("a", 2, False)(h, torch.tensor([0.0, 1.0]), torch.tensor([[3.0, 0.0]])).tolist() == [[-1.0, -1.0]]
    assert Relu()(h).tolist() == [[2.0, 0.0]]
    assert Flatten()(torch.zeros(2, 3, 4)).shape == (2, 12)
    assert np.isclose(MaxPool((1, 2), (1, 2), False)(torch.tensor([[[[1.0, 2.0]]]])).item(), 2.0)
