"""The figure of our runs beside what others have published: every point where its row says."""

from collections.abc import Iterator

import matplotlib
import pandas as pd
import pytest

from graphprune.report.published import draw_accuracy_against_cut, draw_best_of_m
from graphprune.studies.paper import Printed

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

ROW = {"network": "resnet20a", "arm": "L1", "accuracy": 90.0, "MACs removed": 50.0, "base accuracy": 91.7}
OTHERS = {"resnet56": {"FPGM": Printed(93.0, 52.6, None), "HRank": Printed(92.2, 50.0, 43.0)}}


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def points(axis: Axes) -> list[list[list[float]]]:
    return [group.get_offsets().tolist() for group in axis.collections]


def labels(axis: Axes) -> list[str]:
    return axis.get_legend_handles_labels()[1]


def test_a_panel_holds_its_networks_runs_arm_by_arm_and_the_unpruned_one() -> None:
    rows = [ROW, ROW | {"accuracy": 89.0, "MACs removed": 60.0}, ROW | {"arm": "SACP", "accuracy": 88.5}]
    rows += [ROW | {"network": "resnet56", "accuracy": 80.0, "base accuracy": 94.6}]
    left, right = draw_accuracy_against_cut(pd.DataFrame(rows), ["SACP", "none", "L1"], {"resnet20a": {}} | OTHERS).axes
    assert (left.get_title(), right.get_title()) == ("resnet20a", "resnet56")
    assert points(left) == [[[50.0, 88.5]], [[50.0, 90.0], [60.0, 89.0]]]
    assert [line.get_ydata()[0] for line in left.lines] == [91.7]
    assert labels(left) == ["SACP", "L1", "unpruned, ours"]
    assert points(right) == [[[50.0, 80.0]], [[52.6, 93.0]], [[50.0, 92.2]]]
    assert [line.get_ydata()[0] for line in right.lines] == [94.6]


def test_a_published_point_bears_its_methods_name() -> None:
    (axis,) = draw_accuracy_against_cut(pd.DataFrame([ROW | {"network": "resnet56"}]), ["L1"], OTHERS).axes
    assert {text.get_text(): text.xy for text in axis.texts} == {"FPGM": (52.6, 93.0), "HRank": (50.0, 92.2)}


def test_an_arm_keeps_its_mark_and_colour_where_another_is_missing() -> None:
    rows = pd.DataFrame([ROW | {"arm": "SACP"}, ROW | {"network": "resnet56"}, ROW | {"network": "resnet56", "arm": "SACP"}])
    left, right = draw_accuracy_against_cut(rows, ["L1", "SACP"], {"resnet20a": {}, "resnet56": {}}).axes
    assert left.collections[0].get_facecolor().tolist() == right.collections[1].get_facecolor().tolist()
    assert left.collections[0].get_facecolor().tolist() != right.collections[0].get_facecolor().tolist()
    assert left.collections[0].get_paths()[0].vertices.tolist() == right.collections[1].get_paths()[0].vertices.tolist()


def test_without_runs_the_published_points_stand_alone() -> None:
    (axis,) = draw_accuracy_against_cut(pd.DataFrame(), ["L1"], OTHERS).axes
    assert points(axis) == [[[52.6, 93.0]], [[50.0, 92.2]]]
    assert axis.get_legend() is None


def test_a_panel_for_each_cost_holds_a_line_for_each_run_with_its_interval() -> None:
    row = {"network": "resnet20a", "aim": 0.5, "arm": "SACP", "seed": 0, "low": 60.0, "high": 70.0}
    curves = [row | {"m": m, "accuracy": 64.0 + m} for m in (1, 2)]
    curves += [row | {"m": m, "accuracy": 66.0, "seed": 1} for m in (1, 2)]
    curves += [row | {"m": 1, "accuracy": 50.0, "aim": 0.6, "arm": "random"}]
    left, right = draw_best_of_m(pd.DataFrame(curves), ["random", "SACP"]).axes
    assert (left.get_title(), right.get_title()) == (
        "resnet20a, 50.0% of the MACs removed",
        "resnet20a, 60.0% of the MACs removed",
    )
    assert [line.get_ydata().tolist() for line in left.lines] == [[65.0, 66.0], [66.0, 66.0]]
    assert labels(left) == ["SACP, seed 0", "SACP, seed 1"]
    assert [line.get_color() for line in (*left.lines, *right.lines)] == ["C1", "C1", "C0"]
    assert left.collections[0].get_datalim(left.transData).y1 == 70.0
