"""Methods side by side: equal cost, equal training, intervals by hand; nothing is trained twice."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import graphprune
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.search.comparison import compare, draw_comparison, interval
from graphprune.train import Recipe

RECIPE = Recipe(epochs=0.2, lr=0.05, batch_size=64)


@pytest.fixture(scope="module")
def digits() -> graphprune.data.Dataset:
    return graphprune.data.load("digits", device="cpu")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return graphprune.models.seeded("tiny_cnn", 0, in_channels=1)


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> ChannelGraph:
    return graphprune.trace(model, torch.zeros(1, 1, 8, 8))


def mine(network: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    return {group.name: torch.arange(group.channels) for group in graph.groups}


@pytest.fixture(scope="module")
def table(
    model: nn.Module, graph: ChannelGraph, digits: graphprune.data.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("compared")
    methods = {"mine": mine, "again": mine, "random": graphprune.importance.random, "L1": graphprune.importance.l1}
    found = compare(methods, model, graph, digits, recipe=RECIPE, folder=folder, seeds=3)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    second = compare(methods, model, graph, digits, recipe=RECIPE, folder=folder, seeds=3)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")} == before, "nothing is trained twice"
    pd.testing.assert_frame_equal(found, second)
    return found


def test_every_method_has_the_same_cost_and_a_run_for_each_seed(table: pd.DataFrame) -> None:
    assert table["method"].tolist() == ["mine", "again", "random", "L1"]
    assert set(table["macs"]) == {6_942 / 18_462}
    assert [len(runs) for runs in table["accuracies"]] == [3, 3, 3, 3]


def test_differences_are_paired_by_seed(table: pd.DataFrame) -> None:
    ours, l1 = table["accuracies"].iloc[0], table["accuracies"].iloc[3]
    gaps = [a - b for a, b in zip(ours, l1, strict=True)]
    assert set(table["against"]) == {"L1"}
    assert table["difference"].iloc[0] == pytest.approx(sum(gaps) / 3)
    known = stats.ttest_rel(ours, l1).confidence_interval()
    found = (table["difference_low"].iloc[0], table["difference_high"].iloc[0])
    assert found == pytest.approx((known.low, known.high)) or gaps == [gaps[0]] * 3
    assert table["accuracies"].iloc[0] == table["accuracies"].iloc[1], "the same method, the same seeds"
    assert table[["difference", "difference_low", "difference_high"]].iloc[3].tolist() == [0, 0, 0]


def test_intervals_by_hand() -> None:
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    mean, low, high = interval([5.0])
    assert mean == 5.0
    assert math.isnan(low)
    assert math.isnan(high)


def test_a_method_may_give_masks_within_the_budget(
    model: nn.Module, graph: ChannelGraph, digits: graphprune.data.Dataset, tmp_path: Path
) -> None:
    half = {"conv1": torch.tensor([True, True, False, False]), "conv3": torch.tensor([True, False, False])}

    def masks(network: nn.Module, its_graph: ChannelGraph, *, data: object, seed: int) -> dict[str, Tensor]:
        assert (network, its_graph, data) == (model, graph, digits)
        assert seed == 7
        return half

    found = compare({"masks": masks}, model, graph, digits, recipe=RECIPE, folder=tmp_path, seeds=[7])
    assert found["macs"].tolist() == [4_618 / 18_462]
    assert math.isnan(found["low"].iloc[0])
    with pytest.raises(ValueError, match=r"methods\['whole'\] keeps 18,462 multiply-adds, more than the 9,231 allowed"):
        compare({"whole": lambda m, g: g.full()}, model, graph, digits, recipe=RECIPE, folder=tmp_path)


def test_what_is_wrong_is_named_before_any_training(
    model: nn.Module, graph: ChannelGraph, digits: graphprune.data.Dataset, tmp_path: Path
) -> None:
    def call(methods: object, **more: object) -> None:
        settings = {"recipe": RECIPE, "folder": tmp_path, **more}
        compare(methods, model, graph, digits, **settings)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="methods: must be a dictionary"):
        call({})
    with pytest.raises(ValueError, match="against='L2': must be one of the methods mine"):
        call({"mine": mine}, against="L2")
    with pytest.raises(ValueError, match=r"seeds=\[\]"):
        call({"mine": mine}, seeds=0)
    with pytest.raises(TypeError, match=r"methods\['mine'\]: the function must take \(model, graph\), and takes \(model\)"):
        call({"mine": lambda model: {}}, seeds=1)
    with pytest.raises(TypeError, match="recipe=None"):
        call({"mine": mine}, recipe=None)
    with pytest.raises(ValueError, match=r"methods\['mine'\] has no entry for group 'conv1'"):
        call({"mine": {}}, seeds=1)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_shows_every_run_and_every_difference(table: pd.DataFrame) -> None:
    left, right = draw_comparison(table).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["mine", "again", "random", "L1"]
    assert right.get_xlabel() == "difference to L1, 95 % interval"
    assert len(left.collections) == 4
