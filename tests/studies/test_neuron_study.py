"""A study of scored neurons: equal counts, stored scores, tasks made of classes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from graphprune import data
from graphprune.studies import neuron_study
from graphprune.studies.neuron_study import Settings
from graphprune.train import Recipe

BASE = Recipe(epochs=4, lr=0.1, batch_size=64, augment=False)
SHORT = Recipe(epochs=0.2, lr=0.05, batch_size=64, augment=False)
QUICK = Settings(time_limit=5.0, class_seconds=0.2, head_images=100)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("neuron-study")


@pytest.fixture(scope="module")
def case(digits, folder):
    return neuron_study.case_of("fc-12-8", digits, BASE, 0, folder, QUICK)


def test_every_way_removes_as_many_neurons_and_is_the_same_again(case, folder):
    ways = list(neuron_study.WAYS)
    table = neuron_study.study(case, ways, [0.5], SHORT, folder)
    assert list(table["way"]) == ["whole", *ways]
    assert set(table.loc[table["way"] != "whole", "units"]) == {50.0}
    assert table.loc[table["way"] == "whole", "parameters"].item() == 0
    assert not table.isna().any().any()
    assert table.equals(neuron_study.study(case, ways, [0.5], SHORT, folder))


def test_scores_are_stored_with_their_proof(case, folder):
    first = neuron_study.score(case, "MIP, published", folder)
    again = neuron_study.score(case, "MIP, published", folder)
    assert first.status == again.status == "optimal"
    assert first.seconds == again.seconds
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert neuron_study.score(case, "L1", folder).status == "formula"


def test_critical_turns_the_published_order_round(case, folder):
    scores, critical = (neuron_study.score(case, way, folder) for way in ("MIP, published", "critical"))
    assert all(torch.equal(critical[name], -scores[name]) for name in scores)
    assert torch.equal(neuron_study.WAYS["critical"](case)["1"], critical["1"])


def test_other_settings_are_other_scores(case, folder):
    other = neuron_study.score(replace(case, settings=replace(QUICK, lam=500.0)), "MIP, published", folder, "-lam")
    assert other["1"].mean() > neuron_study.score(case, "MIP, published", folder)["1"].mean()


@pytest.mark.parametrize("way", neuron_study.SOLVERS)
def test_more_ways_to_solve(case, folder, way):
    quick = replace(case, settings=replace(QUICK, time_limit=0.5))
    found = neuron_study.score(quick, way, folder)
    assert {name: len(part) for name, part in found.items()} == {"1": 12, "3": 8}
    assert found.status in ("relaxation", "local", "optimal", "time limit")


def test_networks_by_name(digits):
    big = replace(digits, input_shape=(1, 28, 28))
    assert sum(p.numel() for p in neuron_study.build("lenet5", big, 0).parameters()) == 61_706
    assert neuron_study.build("resnet8", digits, 0).linear.out_features == 10
    net = neuron_study.build("fc-5", digits, 0)
    assert [layer.out_features for layer in net if isinstance(layer, nn.Linear)] == [5, 10]
    assert torch.equal(net[1].weight, neuron_study.build("fc-5", digits, 0)[1].weight)
    with pytest.raises(ValueError, match="28 x 28 or more, not 8 x 8"):
        neuron_study.build("lenet5", digits, 0)


def test_classes_make_a_task_of_their_own(digits):
    task = neuron_study.classes(digits, [7, 3])
    assert task.num_classes == 2
    assert task.name == "digits-7-3"
    assert len(task.test) == int(((digits.test.labels == 7) | (digits.test.labels == 3)).sum())
    seven = digits.test.images[digits.test.labels == 7]
    assert torch.equal(task.test.images[task.test.labels == 0], seven)
    with pytest.raises(ValueError, match="streamed from files"):
        neuron_study.classes(replace(digits, train=object()), [0])
