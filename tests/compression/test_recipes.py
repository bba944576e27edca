"""The table of recipes, and what a recipe refuses."""

from typing import Any

import pytest

from graphprune.compression import graph_data, networks
from graphprune.compression.recipes import RECIPES, Recipe, find


def test_every_task_has_a_network_and_one_without_edges() -> None:
    for task in graph_data.TASKS:
        models = {model for t, model in RECIPES if t == task}
        assert "mlp" in models
        assert models & {"gcn", "gin"}
        assert models <= set(networks.MODELS)


def test_tuning_changes_the_epochs_alone() -> None:
    assert Recipe(epochs=9, tune_epochs=4, hidden=3).tuning() == Recipe(epochs=4, tune_epochs=4, hidden=3)


def test_an_unknown_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="no recipe for task='cora', model='gru'; known are gcn, gin, gat, sage, mlp"):
        find("cora", "gru")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr=0.0"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"dropout": 1.5}, "dropout"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**change)
