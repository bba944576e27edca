"""Every number of README's results table has a row in `reports/` that made it."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dask_cluster import cluster

import graphprune

ROOT = Path(__file__).resolve().parent.parent
SOURCE = r"`(?P<profile>\w+)/(?P<notebook>\w+): (?P<name>[^`]+)`"
ROW = re.compile(rf"^\| (?P<what>.+?) \| (?P<value>.+?) \| {SOURCE} \|$", re.MULTILINE)
NUMBER = re.compile(r"[-+−]?\d+(?:\.\d+)?")


def rows() -> list[re.Match[str]]:
    return list(ROW.finditer((ROOT / "README.md").read_text(encoding="utf-8")))


def test_there_is_a_results_table_before_the_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(rows()) >= 10
    assert rows()[0].start() < readme.index("make report")


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['profile']}: {row['name']}")
def test_numbers_are_those_of_the_report(row: re.Match[str]) -> None:
    results = pd.read_csv(ROOT / "reports" / row["profile"] / "results.csv", dtype=str, keep_default_na=False)
    found = results[(results["notebook"] == row["notebook"]) & (results["name"] == row["name"])]
    assert len(found) == 1, f"no row {row['name']!r} of {row['notebook']} in reports/{row['profile']}/results.csv"
    known = [float(text) for text in found[["value", "low", "high"]].iloc[0] if text]
    for text in NUMBER.findall(row["value"].replace("95 %", "").replace("−", "-")):
        digits = len(text.partition(".")[2])
        assert float(text) in {round(number, digits) for number in known}, f"{text} is none of {known}"


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_snippets_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first runs as it is; the search, on digits and a small network, in two ways that end alike."""
    monkeypatch.chdir(tmp_path)
    prune, search, learn, judge, spread = snippets()
    scope: dict[str, Any] = {}
    exec(prune, scope)
    assert graphprune.cost(scope["small"], scope["x"]).macs < 0.4 * graphprune.cost(scope["model"], scope["x"]).macs
    digits = graphprune.data.load("digits")
    scope["model"] = graphprune.models.seeded("resnet8", 0, in_channels=1)
    scope["graph"] = graphprune.trace(scope["model"], digits.example())
    short = {"n_train": 64, "n_candidates": 200, "m": 2, "k": 1, "epochs": 1}
    sacp, recipe = graphprune.search.sacp, graphprune.train.Recipe
    monkeypatch.setattr(graphprune.data, "load", lambda _: digits)
    monkeypatch.setattr(graphprune.search, "sacp", lambda *args, **options: sacp(*args, **options, **short))
    monkeypatch.setattr(graphprune.train, "Recipe", lambda epochs, **options: recipe(epochs=epochs / 40, **options))
    exec(search, scope)
    assert scope["result"].best["ratio"] >= 0.3
    assert set(scope["result"].trials["stage"]) == {"light", "full"}
    alone = scope["result"].trials
    exec(learn.replace("evaluations=512", "evaluations=16"), scope)
    assert (
        graphprune.cost(scope["small"], digits.example()).macs <= 0.5 * graphprune.cost(scope["model"], digits.example()).macs
    )
    observation, _ = scope["env"].reset()
    assert scope["env"].observation_space.contains(observation)
    exec(judge, scope)
    assert 0 < graphprune.ranking.agreement(scope["mine"], scope["truth"], scope["band"]).value < 1
    (tmp_path / "shared").mkdir()
    with cluster(tmp_path / "shared"):
        exec(spread, scope)
    assert scope["result"].trials.drop(columns="seconds").equals(alone.drop(columns="seconds"))
