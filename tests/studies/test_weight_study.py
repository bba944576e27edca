"""A study of weight masks: rows are complete, exact in size, stored, and skip the training of what is cut in two."""

import pytest
import torch

from graphprune import data, train
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


def test_networks_are_trained_where_they_are_to_be_and_the_others_measured_alone(digits, tmp_path):
    few = {"train_at": {"random, ER": [0.9]}, "ways": FEW, "starts": ["trained"]}
    table = weight_study.study("mlp", digits, PLAN, [0.5, 0.9], 0, tmp_path, **few)
    trained = table[table["test"].notna()]
    assert list(zip(trained["way"], trained["sparsity"], strict=True)) == [("dense", 0.0), ("random, ER", 0.9)]
    assert table["before_test"].notna().all()
    whole = weight_study.study("mlp", digits, PLAN, [0.9], 0, tmp_path, ways=FEW, starts=["trained"])
    assert trained["test"].tolist() == whole.loc[whole["way"].isin(["dense", "random, ER"]), "test"].tolist()


def test_training_under_the_mask_is_that_of_the_masks_own_function(digits, tmp_path):
    table = weight_study.study("small_conv", digits, PLAN, [0.9], 0, tmp_path, ways=FEW, starts=["trained"])
    model = weight_study.load_or_train("small_conv", digits, PLAN, 0, tmp_path)
    tuned = weight_masks.finetune(model, FEW["magnitude, global"](model, digits, 0.9, 0), digits, SHORT, seed=0)
    assert table.set_index("way").loc["magnitude, global", "test"] == train.evaluate(tuned, digits.test).accuracy


def test_public_weights_take_the_place_of_training(tmp_path):
    plan = weight_study.Plan(None, SHORT, SHORT)
    with pytest.raises(ValueError, match="public weights have seen all 50,000"):
        weight_study.load_or_train("resnet20a", data.load("digits", device="cpu"), plan, 0, tmp_path)


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
