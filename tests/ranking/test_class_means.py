"""The nearest class mean of a pruned network's features, against scikit-learn's and `prune`."""

import pytest
import torch
from digits_task import task
from sklearn.neighbors import NearestCentroid
from torch import nn

from graphprune import importance, trace, train
from graphprune.pruning.channels import prune
from graphprune.pruning.masks import keep_from_rates
from graphprune.ranking.class_means import ClassMeans, classifier, features, nearest
from graphprune.runs import runtime


def test_nearest_is_scikit_learns_nearest_centroid() -> None:
    generator = torch.Generator().manual_seed(0)
    known, asked = torch.randn(60, 5, generator=generator), torch.randn(40, 5, generator=generator)
    labels = torch.randint(4, (60,), generator=generator) * 2  # class numbers with gaps
    expected = NearestCentroid().fit(known.numpy(), labels.numpy()).predict(asked.numpy())
    assert nearest(known, labels, asked).tolist() == expected.tolist()


def test_it_measures_the_network_that_prune_makes() -> None:
    model, traced, digits = task()
    indices = torch.randint(1, 10, (3, len(traced.groups)), generator=torch.Generator().manual_seed(1))
    found = ClassMeans(digits, images=96, seed=3)(traced, model, indices)
    scores, generator = importance.l1(model, traced), runtime.seed_generator(3, "class means")
    x, y = next(digits.train.batches(96, shuffle=True, generator=generator))
    shown, labels = next(digits.val.batches(300))
    name = classifier(traced, model)
    for row, accuracy in zip(indices, found, strict=True):
        small = prune(model, traced, keep_from_rates(traced, row, scores))
        train.calibrate(small, [x])
        fit = NearestCentroid().fit(features(small, name, x).numpy(), y.numpy())
        assert accuracy == pytest.approx(
            (fit.predict(features(small, name, shown).numpy()) == labels.numpy()).mean(), abs=1 / 150
        )


def test_features_times_the_classifier_are_the_logits() -> None:
    model, traced, digits = task()
    x, _ = next(digits.val.batches(8))
    name = classifier(traced, model)
    last = model.get_submodule(name)
    torch.testing.assert_close(last(features(model, name, x)), model(x))
    assert not last._forward_pre_hooks


def test_a_network_without_linear_layer_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    traced = trace(net, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="has no linear layer"):
        classifier(traced, net)
