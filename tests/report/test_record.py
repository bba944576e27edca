"""A notebook's record: what is shown is what is written."""

from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from graphprune.report import record
from graphprune.report.record import Record
from graphprune.runs.store import Results

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@pytest.fixture
def kept(tmp_path: Path) -> Record:
    return Record(tmp_path / "new", Results(tmp_path / "new" / "results.csv"))


def test_a_figure_is_displayed_from_its_file_with_its_description(kept: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    figure, _ = plt.subplots()
    kept.figure(figure, "line.png", "a line")
    assert shown[0].data == (kept.folder / "line.png").read_bytes()
    assert shown[0].alt == "a line"
    assert not plt.fignum_exists(figure.number)


def test_a_table_comes_back_as_it_was_and_is_rounded_in_its_file_alone(kept: Record) -> None:
    table = pd.DataFrame({"network": ["a"], "MACs": [1 / 3]})
    assert kept.table(table, "costs.csv", digits=2) is table
    assert (kept.folder / "costs.csv").read_text() == "network,MACs\na,0.33\n"
    kept.table(table, "costs.csv")
    assert (kept.folder / "costs.csv").read_text() == "network,MACs\na,0.3333333333333333\n"


def test_rows_share_their_unit_and_what_else_is_said(kept: Record) -> None:
    kept.rows({"one": 1, "two": 2.5}, "ms", n=3, volatile=True)
    assert kept.results.frame()[["name", "value", "unit", "n", "volatile"]].to_numpy().tolist() == [
        ["one", "1", "ms", "3", "yes"],
        ["two", "2.5", "ms", "3", "yes"],
    ]


def test_a_notebooks_record_lies_in_its_profiles_folder() -> None:
    assert Record.of("laptop", "01_graph_construction").folder == record.runtime.run_dir("laptop") / "01_graph_construction"
