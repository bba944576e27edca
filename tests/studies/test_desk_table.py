"""The table at desk size from hand-made runs: means over seeds, empty rows, paired intervals, what is published."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from graphprune.studies import desk, desk_table, paper
from graphprune.studies.desk import Outcome

SIZES = replace(paper.TINY, m=3)
PLAN = (("resnet8", 0.5, 0), ("resnet8", 0.5, 1), ("resnet20", 0.6, 0))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A plan of two networks, and a folder of its own for what is published."""
    for module in (desk, desk_table):
        monkeypatch.setattr(module, "PLAN", PLAN)
        monkeypatch.setattr(module, "results_folder", lambda: tmp_path / "published")
    return tmp_path / "published"


def run(arm: str, accuracy: float, seed: int = 0, network: str = "resnet8", **changes: object) -> dict[str, object]:
    """A row as `desk.table3` makes it: half of 2 million MACs, of 10,000 parameters and of the time are gone."""
    row = {"network": network, "aim": 0.5, "arm": arm, "seed": seed, "recipe": desk.name_recipe(SIZES)}
    row |= {"accuracy": accuracy, "base accuracy": 90.0, "best of k on test": accuracy, "not retrained": None}
    row |= {"macs": 1e6, "MACs removed": 50.0, "FLOPs removed": 49.0, "params": 5e3, "params removed": 50.0}
    row |= {"latency": 1.0, "base latency": 2.0, "core-hours": 0.5, "ranking core-hours": 0.25}
    return row | {"epochs": 1.5, "networks": 4, "failed": 0, "hardware": "2 cores"} | changes


def outcome(*rows: dict[str, object]) -> Outcome:
    return Outcome(pd.DataFrame(rows), True, "")


def published(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "table3_desk.csv", dtype=str, keep_default_na=False)


def test_a_row_is_the_mean_over_its_seeds_and_what_was_spent_is_summed(folder: Path) -> None:
    rows = [run("SACP", 82.0, seed=1, **{"not retrained": 71.0}), run("SACP", 80.0, seed=0, **{"not retrained": 70.0})]
    found = desk_table.make_table(pd.DataFrame(rows)).set_index("method").loc["SACP"].iloc[0].to_dict()
    assert found == {
        "network": "resnet8", "by": "ours, at least 50.0% of the MACs removed", "n": "2", "seeds": "0 1",
        "accuracy, %": "81.00", "drop, points": "9.00", "best of k on test, %": "81.00", "not retrained, %": "70.50",
        "MACs, M": "1.00", "MACs removed, %": "50.00", "FLOPs removed, %": "49.00",
        "params, k": "5.00", "params removed, %": "50.00", "latency, ms": "1.00", "unpruned, ms": "2.00",
        "core-hours": "1.00", "of it ranking": "0.50", "epochs": "1.50", "networks": "8", "hardware": "2 cores",
    }  # fmt: skip


def test_rows_not_done_are_empty_and_the_table_says_so(folder: Path) -> None:
    files = desk_table.publish(outcome(run("uniform L1", 80.0), run("SACP", 79.5)), SIZES)
    assert [file.name for file in files] == [
        *("table3_desk_runs.csv", "table3_desk.csv", "table3_desk.md", "table3_desk_light.csv", "table3_desk_widths.csv"),
        "results.csv",
    ]
    assert all(file.parent == folder for file in files)
    table = published(folder)
    assert table["n"].tolist() == ["1", "1", "0", "0", "0", *["0"] * 5]
    assert (table.loc[2:, desk_table.COLUMNS[4:]] == "").all(axis=None)
    assert table["accuracy, %"].tolist()[:2] == ["80.00", "79.50"]
    text = (folder / "table3_desk.md").read_text()
    assert "2 of 15 runs are done. Rows with n = 0 are not done yet." in text
    assert "SACP minus uniform L1: -0.50 points, a single run (seed 0): no interval" in text


def test_runs_are_added_in_the_plans_order_and_one_made_again_takes_the_place_of_the_old(folder: Path) -> None:
    desk_table.publish(outcome(run("SACP", 79.0), run("random", 70.0, seed=1)), SIZES)
    desk_table.publish(outcome(run("SACP", 81.0), run("uniform L1", 80.0, seed=1)), SIZES)
    runs = desk.load_committed(SIZES)
    assert list(zip(runs["seed"], runs["arm"], runs["accuracy"], strict=True)) == [
        (0, "SACP", 81.0),
        (1, "uniform L1", 80.0),
        (1, "random", 70.0),
    ]
    assert desk.load_committed(replace(SIZES, m=4)).empty  # another recipe's rows are not these


def test_nothing_done_is_a_table_too(folder: Path) -> None:
    desk_table.publish(outcome(), SIZES)
    assert published(folder)["n"].tolist() == ["0"] * 10
    assert "Nothing to compare yet." in (folder / "table3_desk.md").read_text()
    assert desk_table.compare_arms(pd.DataFrame()) == []


def test_two_seeds_have_a_paired_interval() -> None:
    row = {"network": "resnet8", "aim": 0.5, "recipe": "x"}
    values = {("uniform L1", 0): 80.0, ("uniform L1", 1): 82.0, ("SACP", 0): 79.0, ("SACP", 1): 83.0}
    runs = pd.DataFrame([{**row, "arm": arm, "seed": seed, "accuracy": value} for (arm, seed), value in values.items()])
    # gaps -1 and +1: mean 0, standard error 1, t(0.975, 1) = 12.706
    assert desk_table.compare_arms(runs) == [
        "- resnet8, 50.0% of the MACs removed, SACP minus uniform L1: +0.00 points [-12.71, +12.71], 2 seeds"
    ]


def test_published_figures_stand_beside_ours() -> None:
    table = desk_table.make_table(pd.DataFrame()).set_index("method")
    sacp = table[table["by"] == "published (SACP, table 3)"].loc["SACP"]
    assert (sacp["network"], sacp["accuracy, %"], sacp["FLOPs removed, %"], sacp["n"]) == ("resnet56a", "90.06", "78.06", "")
    assert {"FPGM", "HRank", "CHIP", "ABCPruner-70%"} <= set(table.index)


def test_numbers_bear_names_and_have_an_interval_from_two_seeds_on(folder: Path) -> None:
    desk_table.publish(outcome(run("SACP", 82.0, seed=1), run("SACP", 80.0), run("uniform L1", 79.0)), SIZES)
    rows = pd.read_csv(folder / "results.csv", dtype=str, keep_default_na=False).set_index("name")
    both, one = (rows.loc[f"resnet8, 50.0% of the MACs removed, {arm}: accuracy"] for arm in ("SACP", "uniform L1"))
    columns = ["notebook", "value", "n", "low", "high", "seeds"]
    assert both[columns].tolist() == ["table3_desk", "81", "2", "68.2938", "93.7062", "0 1"]
    assert one[["value", "unit", "n", "low", "high"]].tolist() == ["79", "%", "1", "", ""]
    assert rows.loc["resnet8, 50.0% of the MACs removed, SACP: latency saved", ["value", "volatile"]].tolist() == ["50", "yes"]


def test_the_mean_of_lightly_fine_tuned_networks_is_a_row_with_an_interval_over_them(folder: Path) -> None:
    light = pd.DataFrame(
        {"network": "resnet8", "aim": 0.5, "arm": "SACP", "seed": 0, "recipe": desk.name_recipe(SIZES)}
        | {"rank": rank, "macs": 5, "params": 2, "validation accuracy": 60.0, "accuracy": accuracy}
        for rank, accuracy in ((1, 60.0), (2, 70.0), (3, 80.0))
    )
    desk_table.publish(replace(outcome(run("SACP", 79.5, **{"not retrained": 60.0})), light=light), SIZES)
    rows = pd.read_csv(folder / "results.csv").set_index("name")
    row = rows.loc["resnet8, 50.0% of the MACs removed, SACP: mean of m fine-tuned lightly, seed 0"]
    assert (row["value"], row["unit"], row["n"]) == (70.0, "%", 3)
    assert (row["low"], row["high"]) == pytest.approx((70 - 4.302653 * 10 / 3**0.5, 70 + 4.302653 * 10 / 3**0.5), rel=1e-5)
    assert rows.loc["resnet8, 50.0% of the MACs removed, SACP: best of m, not retrained", "value"] == 60.0
    assert desk_table.load_light(SIZES)["rank"].tolist() == [1, 2, 3]
