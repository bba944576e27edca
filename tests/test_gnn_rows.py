"""The maker of chapter 08's rows: its parts, and tables that take a part's new rows and keep all others."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def maker() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("gnn_rows")


@pytest.fixture
def fake(maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Two tables of rows that take no time."""

    def make(task: str, model: str) -> pd.DataFrame:
        return pd.DataFrame({"task": [task], "model": [model], "score": [1 / 3]})

    parts = [maker.Part(table, task, "gcn", make) for table, task in (("b", "cora"), ("b", "bbbp"), ("a", "cora-links"))]
    monkeypatch.setattr(maker, "PARTS", parts)
    monkeypatch.setattr(maker, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(maker, "FOLDER", tmp_path / "stored")
    return maker


def test_a_part_takes_the_place_of_its_rows_and_the_others_stay(maker: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    old = pd.DataFrame({"task": ["cora", "cora", "bbbp"], "model": ["gcn", "gin", "gin"], "score": [1.0, 2.0, 3.0]})
    maker.write(path, old)
    maker.write(path, pd.DataFrame({"task": "cora", "model": "gin", "score": [4.0, 5.0 / 3]}))
    assert path.read_text() == "task,model,score\nbbbp,gin,3\ncora,gcn,1\ncora,gin,4\ncora,gin,1.66667\n"


def test_a_table_without_tasks_is_written_anew(maker: ModuleType, tmp_path: Path) -> None:
    for degree in (1, 2):
        maker.write(tmp_path / "rows.csv", pd.DataFrame({"degree": [degree]}))
    assert (tmp_path / "rows.csv").read_text() == "degree\n2\n"


def test_every_part_is_made_and_some_when_they_are_named(fake: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake.main(["--only", "b/cora"]) == 0
    assert [path.name for path in fake.REPORTS.iterdir()] == ["b.csv"]
    assert fake.main([]) == 0
    assert (fake.REPORTS / "b.csv").read_text() == "task,model,score\nbbbp,gcn,0.333333\ncora,gcn,0.333333\n"
    assert (fake.REPORTS / "a.csv").is_file()
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        *("b/cora/gcn", "b/cora/gcn", "b/bbbp/gcn", "a/cora-links/gcn")
    ]


def test_a_part_that_is_not_there_is_named(fake: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake.main(["--only", "b/cor"]) == 2
    assert "--only 'b/cor': no such part; there are b/cora/gcn, b/bbbp/gcn" in capsys.readouterr().err
    assert not fake.REPORTS.exists()


def test_the_committed_tables_hold_parts_of_the_maker(maker: ModuleType) -> None:
    known = {(part.table, part.task, part.model) for part in maker.PARTS}
    for path in (ROOT / "reports" / "gnn").glob("*.csv"):
        table = pd.read_csv(path)
        if "task" in table:
            assert {(path.stem, *pair) for pair in table[["task", "model"]].itertuples(index=False, name=None)} <= known
        else:
            assert path.stem in {name for name, _, _ in known}


def test_claims_are_tested_on_seeds_that_no_other_table_has_seen(maker: ModuleType) -> None:
    assert not set(maker.FRESH) & set(maker.SEEDS)
    table = pd.read_csv(ROOT / "reports" / "gnn" / "claims_rows.csv")
    counts = table.groupby(["method", "level"])["seed"].apply(sorted).to_dict()
    assert counts == {claim: list(maker.FRESH) for claim in maker.CLAIMS}
