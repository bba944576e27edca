"""What notebooks 02 and 03 gave on a processor without AVX-512: the sentences about it against the rows that it left."""

from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "reports" / "processors"


def text(stem: str, cell: str) -> str:
    cells = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    found: str = next(one.source for one in cells if one.id == cell)
    return found


def test_what_the_page_says_of_notebook_02() -> None:
    fixed = pd.read_csv(ROWS / "02_ranking_without_avx512.csv", index_col="ranker")["MACs held fixed"]
    trained = fixed[fixed.index.str.startswith("(")]
    page = (ROOT / "docs" / "reading_the_numbers.md").read_text()
    here = pd.read_csv(ROOT / "reports" / "laptop" / "02_contrastive_training" / "ranking.csv", index_col="ranker")
    assert trained.idxmax() == here["MACs held fixed"][trained.index].idxmax()
    formula, literal = "sum of log kept widths", "(c) first, printed"
    for words, name in {
        "the formula\nhad {} where {} is stated": formula,
        "the best reading {} where {} is": trained.idxmax(),
        "the most literal one {} where {} is": literal,
    }.items():
        assert words.format(f"{fixed[name]:.2f}", f"{here['MACs held fixed'][name]:.2f}") in page


def test_what_notebook_03_says_of_its_shorter_study() -> None:
    said = text("03_search", "search-36")
    paired = pd.read_csv(ROWS / "03_paired_without_avx512.csv", index_col="name")
    assert len(paired) == 14
    assert (paired["verdict"] == "no difference shown").all()
    assert ((paired["low"] < 0) & (paired["high"] > 0)).all()
    overall = paired.loc["resnet20.all budgets.uniform L1 - SACP.accuracy", ["value", "low", "high"]]
    assert "uniform L1 minus SACP is {:.1f} [{:.1f}, {:.1f}] points".format(*overall).replace("-", "−") in said
    runs = pd.read_csv(ROWS / "03_runs_without_avx512.csv")
    lost = runs.groupby(["budget", "arm"])["lost"].mean().unstack()
    others = lost.drop(columns="SACP").max(axis=1)
    assert lost.index[lost["SACP"] > others + 1e-3].tolist() == ["30 %", "60 %"]
    assert lost.loc["50 %", "SACP"] == pytest.approx(lost.loc["50 %", "random search"], abs=1e-3)
    assert "the largest of the three at 30 and 60 % alone; at 50 % it equals random search's" in said
    assert "it is the largest at two of the four" in text("03_search", "search-00")
