"""Which rule an operation goes by."""

import operator
from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, fx, nn

from graphprune.graph.channel_select import ChannelSelect
from graphprune.graph.rules import data_movement, elementwise, indexing, layers, normalisation, output_shapes
from graphprune.graph.rules.operation import unknown
from graphprune.graph.rules.table import BY_MODULE, formula_of, module_base, reads_weight, rule_of


class Own(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Named(nn.Conv2d):
    """A convolution by another name."""


def relu(x: Tensor) -> Tensor:
    """A function of somebody's own, of a name that torch has too."""
    return x


@pytest.mark.parametrize(
    ("op", "rule"),
    [
        (operator.add, elementwise.elementwise), (operator.iadd, elementwise.elementwise),
        (torch.add, elementwise.elementwise), ("add", elementwise.elementwise), ("add_", elementwise.elementwise),
        (F.relu, elementwise.elementwise), (nn.ReLU(), elementwise.elementwise),
        (nn.Identity(), elementwise.elementwise), (nn.Dropout(), elementwise.elementwise),
        (torch.nn.functional.dropout, elementwise.elementwise), (torchvision.ops.stochastic_depth, elementwise.elementwise),
        (nn.Conv1d(1, 1, 1), layers.convolution), (nn.ConvTranspose3d(1, 1, 1), layers.convolution),
        (F.conv2d, layers.convolution), (Named(1, 1, 1), layers.convolution), (ChannelSelect([0]), layers.channel_select),
        (nn.Linear(1, 1), layers.linear), (F.linear, layers.linear),
        (nn.BatchNorm1d(1), normalisation.batch_norm), (nn.BatchNorm3d(1), normalisation.batch_norm),
        (nn.InstanceNorm2d(1), normalisation.instance_norm), (nn.RMSNorm(1), normalisation.layer_norm),
        (nn.Softmax(1), normalisation.softmax), (nn.PReLU(), layers.prelu), (nn.GLU(), data_movement.glu),
        (nn.MaxPool3d(1), layers.pooling), ("mean", layers.reduction), (torch.cat, data_movement.concatenate),
        (operator.getitem, indexing.getitem), (nn.Flatten(), data_movement.flatten), ("permute", data_movement.execute),
        (nn.ReflectionPad2d(1), data_movement.pad), (namedtuple("Pair", "a b"), data_movement.collection),
    ],
)  # fmt: skip
def test_operations_go_by_name_and_modules_by_class(op: Any, rule: Any) -> None:
    assert rule_of(op) is rule


@pytest.mark.parametrize("op", [relu, Own(1, 1, 1), nn.MaxUnpool2d(1), "somebodys_own", torch.fft.fft, nn.Sequential()])
def test_what_is_not_known_is_unknown(op: Any) -> None:
    assert rule_of(op) is unknown


def test_a_module_goes_by_the_class_whose_forward_it_uses() -> None:
    assert module_base(Named(1, 1, 1)) is nn.Conv2d
    assert module_base(Own(1, 1, 1)) is None
    assert module_base(nn.BatchNorm2d(1)).__name__ == "_BatchNorm"


def test_every_activation_of_torch_has_a_rule() -> None:
    assert {nn.ReLU, nn.GELU, nn.Hardswish, nn.Mish, nn.LogSigmoid, nn.Dropout2d} <= set(BY_MODULE)


def test_a_formula_of_shape_goes_with_the_rule() -> None:
    assert formula_of(nn.Conv2d(1, 1, 1), layers.convolution) is output_shapes.convolution
    assert formula_of(operator.add, elementwise.elementwise) is output_shapes.elementwise
    assert formula_of(nn.ReLU(), elementwise.elementwise) is output_shapes.elementwise
    assert formula_of("float", elementwise.elementwise) is None, "the dtype changes"
    assert formula_of("view", data_movement.reshape) is None


def test_a_parameter_is_a_weight_where_a_layer_reads_it_behind_its_input() -> None:
    graph = fx.Graph()
    x, weight = graph.placeholder("x"), graph.get_attr("weight")
    for function, args, reads in (
        (F.linear, (x, weight), True),
        (F.linear, (weight, x), False),
        (torch.mul, (x, weight), False),
    ):
        node = graph.call_function(function, args)
        node.meta["rule"] = rule_of(function)
        assert reads_weight(node, weight) is reads
