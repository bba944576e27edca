"""Training quantized networks: groups of parameters, penalties, zeros that stay."""

import pytest
import torch
from torch import nn

from graphprune.compression import graph_data, networks, recipes, training
from graphprune.compression.a2q import A2Q, memory_penalty, node_quantizers
from graphprune.compression.packed import quantized_layers
from graphprune.compression.quantized_network import quantize
from graphprune.compression.quantized_training import Learning, parameter_groups, quantize_and_tune, tune
from graphprune.compression.quantizer import Uniform

TASK, RECIPE = graph_data.load("karate"), recipes.find("karate", "gcn")


def trained() -> nn.Module:
    model = networks.build("gcn", TASK, RECIPE, seed=0)
    training.fit(model, TASK, RECIPE, seed=0)
    return model


def test_steps_and_bits_have_learning_rates_of_their_own():
    network = quantize(trained(), A2Q(), TASK.x, TASK.edge_index)
    groups = parameter_groups(network, RECIPE, Learning(step_lr=0.1, bits_lr=0.2))
    assert [len(group["params"]) for group in groups] == [4, 4, 2]  # weights and biases; steps of nodes and channels; bits
    assert [(group.get("lr"), group.get("weight_decay")) for group in groups] == [(None, None), (0.1, 0.0), (0.2, 0.0)]
    assert len(parameter_groups(quantize(trained(), Uniform(8), TASK.x, TASK.edge_index), RECIPE, Learning())) == 1


def test_weights_that_are_zero_stay_zero_in_training():
    network = quantize(trained(), Uniform(8), TASK.x, TASK.edge_index)
    before = {}
    for path, layer in quantized_layers(network):
        with torch.no_grad():
            layer.weight[0] = 0.0
        before[path] = layer.weight.detach().clone()
    tune(network, TASK, RECIPE, seed=0)
    for path, layer in quantized_layers(network):
        assert bool((layer.weight[0] == 0).all())
        assert not torch.equal(layer.weight, before[path])


def test_the_penalty_lowers_the_bits():
    network = quantize(trained(), A2Q(bits=4), TASK.x, TASK.edge_index)
    before = memory_penalty(network, 0.0).item()
    tune(network, TASK, RECIPE, seed=0, learning=Learning(penalty=10.0, bits_lr=0.05))
    assert memory_penalty(network, 0.0).item() < before
    with pytest.raises(ValueError, match="no layer learns its bits"):
        tune(quantize(trained(), Uniform(8), TASK.x, TASK.edge_index), TASK, RECIPE, seed=0, learning=Learning(penalty=1.0))


def test_local_training_moves_the_steps_of_nodes_without_labels():
    network = quantize_and_tune(trained(), A2Q(bits=2, local=True), TASK, RECIPE, seed=0)
    first = quantize(trained(), A2Q(bits=2), TASK.x, TASK.edge_index)
    for now, then in zip(node_quantizers(network), node_quantizers(first), strict=True):
        assert now.step.shape == then.step.shape
    hidden = [list(node_quantizers(net))[1].step for net in (network, first)]
    assert bool((hidden[0] != hidden[1])[TASK.nodes["test"]].any())


def test_the_same_seed_gives_the_same_bits():
    first, second = (quantize_and_tune(trained(), A2Q(), TASK, RECIPE, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
