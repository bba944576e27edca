"""`make bench` gathers what the benchmarks measure; that they measure is left to it."""

import importlib.util
import shutil
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
FAKE = """
def rows():
    about = {"work": "a | b", "unit": "rows/s", "against": "a peer", "n": 3, "spread": "1 to 2"}
    return [about | {"ours": 12345678.0, "theirs": 0.5, "ratio": 2.4e7}, about | {"ours": 2, "theirs": 1.0, "ratio": None}]
"""


def load(folder: Path):
    spec = importlib.util.spec_from_file_location("gather", folder / "gather.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gather(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "reports").mkdir()
    shutil.copy(BENCHMARKS / "gather.py", tmp_path / "benchmarks")
    for name in ("fake", "other"):
        (tmp_path / "benchmarks" / f"{name}.py").write_text(FAKE)
    (tmp_path / "benchmarks" / "helper.py").write_text("def row(): ...\n")
    return load(tmp_path / "benchmarks")


def in_this_process(gather, monkeypatch):
    """Without a process each: what runs is the same function."""
    space: dict = {}
    exec(FAKE, space)
    monkeypatch.setattr(gather, "run", lambda name: space["rows"]())


def test_rows_go_into_a_table_and_a_report(gather, monkeypatch):
    in_this_process(gather, monkeypatch)
    assert gather.main([]) == 0
    table = pd.read_csv(gather.TABLE)
    assert table["benchmark"].tolist() == ["fake"] * 2 + ["other"] * 2
    assert table["ours"].tolist() == [12_345_700, 2] * 2
    assert table["hardware"].notna().all()
    assert "| a / b | 12,300,000 | rows/s | a peer | 0.5 | 24,000,000 | 3 | 1 to 2 |" in gather.REPORT.read_text()
    assert "| a / b | 2 | rows/s | a peer | 1 |  | 3 | 1 to 2 |" in gather.REPORT.read_text()


def test_a_benchmark_runs_in_a_process_of_its_own(gather):
    assert [row["ours"] for row in gather.run("fake")] == [12345678.0, 2]


def test_a_benchmark_that_fails_keeps_its_rows_and_is_named(gather, monkeypatch):
    in_this_process(gather, monkeypatch)
    gather.main([])
    monkeypatch.setattr(gather, "run", lambda name: None)
    assert gather.main(["other"]) == 1
    assert pd.read_csv(gather.TABLE)["benchmark"].tolist() == ["fake"] * 2 + ["other"] * 2
    assert "Did not run, so that its rows, if any, are older: other." in gather.REPORT.read_text()


def test_an_unknown_benchmark_is_named(gather):
    with pytest.raises(SystemExit, match=r"'fke' is no benchmark with rows\(\); there are: fake, other"):
        gather.main(["fke"])


def test_the_benchmarks_of_scoring_sampling_and_growth_are_there():
    assert {"growth", "sampling", "scoring"} <= set(load(BENCHMARKS).names())
