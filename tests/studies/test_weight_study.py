"""A study of weight masks: rows are complete, exact in size, stored, and skip the training of what is cut in two."""

import pytest
import torch

from graphprune import data
from graphprune.pruning import weight_masks
from graphprune.studies import weight_study
from graphprune.train import Recipe

SHORT = Recipe(epochs=0.2, lr=0.05, batch_size=64, augment=False)
PLAN = weight_study.Plan(SHORT, SHORT, SHORT)
FEW = {name: weight_study.WAYS[name] for name in ("random, ER", "magnitude, global", "resistance top, global")}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", device="cpu")


def test_rows_are_complete_exact_and_the_same_again(digits, tmp_path):
    table = weight_study.study("mlp", digits, PLAN, [0.5, 0.999], 0, tmp_path, ways=FEW)
    assert len(table) == 2 * (1 + 3 * 2)
    assert not table.isna().any().any()
    assert set(table.loc[table["sparsity"] == 0.999, "kept"]) == {26}
    assert set(table.loc[table["way"] == "dense", "kept"]) == {25856}
    assert table.equals(weight_study.study("mlp", digits, PLAN, [0.5, 0.999], 0, tmp_path, ways=FEW))


def test_a_network_without_a_path_is_not_trained(digits, tmp_path):
    table = weight_study.study("mlp", digits, PLAN, [0.999], 0, tmp_path, ways=FEW)
    cut = table[~table["connected"]]
    assert len(cut) > 0
    assert (cut["test"] == cut["before_test"]).all()
    assert cut["test"].max() < 0.2


def test_networks_are_those_of_their_seed(digits):
    a, b, c = (weight_study.build("small_conv", digits, seed) for seed in (0, 0, 1))
    assert torch.equal(a[0].weight, b[0].weight)
    assert not torch.equal(a[0].weight, c[0].weight)
    assert sum(w.numel() for w in weight_masks.prunable(a).values()) == 108 + 2592 + 5184 + 240
    assert weight_study.build("resnet8", digits, 0).linear.out_features == 10


@pytest.mark.parametrize("name", [*weight_study.WAYS, *weight_study.READINGS])
def test_every_way_keeps_exactly_what_the_sparsity_says(digits, name):
    way = (weight_study.WAYS | weight_study.READINGS)[name]
    mask = way(weight_study.build("small_conv", digits, 0), digits, 0.95, 0)
    assert weight_masks.count(mask).kept == round(0.05 * 8124)


def test_readings_are_no_second_copy_of_ways():
    assert not set(weight_study.WAYS) & set(weight_study.READINGS)
