"""The ablation's encoder learns what it is told."""

import pytest
import torch

from graphprune import importance, models, trace
from graphprune.ranking.regression import predictor


def test_predicted_accuracies_order_configurations_as_the_true_ones_do() -> None:
    net = models.seeded("tiny_cnn", 0, in_channels=1)
    traced = trace(net, torch.zeros(1, 1, 8, 8))
    indices = torch.randint(10, (96, len(traced.groups)), generator=torch.Generator().manual_seed(0))
    truth = 1 - indices.double().mean(1) / 10
    scorer, direction = predictor(traced, importance.l1(net, traced), indices[:64], truth[:64], lr=1e-2)
    found = torch.stack([scorer.embed(indices[64:]) @ direction, truth[64:].float()])
    assert torch.corrcoef(found)[0, 1] > 0.8


def test_an_accuracy_for_each_configuration_is_asked_for() -> None:
    net = models.seeded("tiny_cnn", 0, in_channels=1)
    traced = trace(net, torch.zeros(1, 1, 8, 8))
    indices = torch.zeros(3, len(traced.groups), dtype=torch.int64)
    with pytest.raises(ValueError, match=r"accuracies: got \(2,\) for 3 configurations"):
        predictor(traced, importance.l1(net, traced), indices, torch.zeros(2))
