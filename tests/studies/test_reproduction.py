"""A table made in pieces, killed and moved, is the table made at once, and every ranker is prepared once."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from graphprune import data, train
from graphprune.pruning import window
from graphprune.ranking import learners, regression
from graphprune.search import algorithm1
from graphprune.search.funnel import sort_trials
from graphprune.studies import paper
from graphprune.studies.reproduction import (  # fmt: skip
    ANY,
    COLUMNS,
    TABLES,
    Experiment,
    Outcome,
    format_outcome,
    light_rows,
    publish,
    reproduce,
    run_light,
    run_regression,
)

COMMAND = ["reproduce", "table3", "--net", "resnet8", "--recipe", "tiny", "--folder"]


def tiny(folder: Path, minutes: float | None, table: str = "table3") -> Outcome:
    return reproduce(table, "resnet8", "tiny", minutes, folder)


def bits(outcome: Outcome) -> pd.DataFrame:
    return outcome.table.drop(columns="core-hours")


def experiment(folder: Path) -> Experiment:
    return Experiment("resnet8", data.load("digits"), paper.TINY, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Table 3 in one go."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, tiny(folder, None)


def killed(folder: Path, networks: int) -> None:
    """A process that is killed when it has trained so many networks."""
    process = subprocess.Popen([sys.executable, "-m", "graphprune", *COMMAND, str(folder)])
    while len(list(folder.glob("light/[!.]*.json"))) < networks:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_moved_and_in_pieces_it_is_the_same_table(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    killed(tmp_path / "here", networks=3)
    (tmp_path / "here").rename(tmp_path / "there")
    outcomes = [tiny(tmp_path / "there", 0.01)]
    while not outcomes[-1].done:
        assert len(outcomes) < 200
        outcomes.append(tiny(tmp_path / "there", 0.01 + 0.001 * len(outcomes)))  # longer and longer: a busy machine ends too
    assert len(outcomes) > 3
    assert any("step" in outcome.says for outcome in outcomes), "none was stopped in the middle of a training"
    assert bits(outcomes[-1]).equals(bits(whole[1]))
    assert not list((tmp_path / "there").rglob("*.training"))


def test_a_complete_table_has_no_empty_row_and_trains_nothing_again(
    whole: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, outcome = whole
    assert outcome.done
    assert outcome.says == "table3 resnet8: 7 of 7 rows; complete"
    first = outcome.table[outcome.table["method"] != "Base"]
    assert (first[COLUMNS[:8]] != "").all(axis=None)
    monkeypatch.setattr(train, "fit", None)
    assert tiny(folder, None).table.equals(outcome.table)


def test_rows_not_done_are_empty_and_those_done_are_shown(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    outcome = tiny(tmp_path, 1e-6)
    assert "0 of 7 rows" in outcome.says
    assert "stopped in 'Base' (base network, step 1)" in outcome.says
    assert (outcome.table.drop(columns="method") == "").all(axis=None)
    assert format_outcome(outcome).count(f"|{'  |' * (len(COLUMNS) - 1)}\n") == 7
    other = tiny(whole[0], 1e-6, "table4").table.set_index("method")
    assert (other.loc["SACP"] != "").sum() > 10  # of networks that table 3 has trained
    assert (other.loc["SACP-1"] == "").all()


def test_figure_2_and_table_4_share_what_table_3_trained(whole: tuple[Path, Outcome]) -> None:
    for table, rows in (("table4", 4), ("figure2", 4)):
        outcome = tiny(whole[0], None, table)
        assert outcome.done
        assert len(outcome.table) == rows
    best = outcome.table.set_index("method")["accuracy, %"]
    assert best["m = 4, k = 2"] == whole[1].table.set_index("method")["accuracy, %"]["SACP"]


def test_sacp_2_is_the_best_light_network_on_validation_not_retrained(whole: tuple[Path, Outcome]) -> None:
    one = experiment(whole[0])
    light = light_rows(one.sacp(ANY))
    best = sort_trials(light, "accuracy").iloc[0]
    row = run_light(one)
    assert len(light) == row["networks"] == 4
    assert row["epochs"] == pytest.approx(4 * 0.3)
    assert row["accuracy, %"] == 100 * best["accuracy_test"]
    assert round(1e6 * row["params, M"]) == best["params"]


def test_the_papers_own_choice_is_the_best_on_test_of_the_retrained(whole: tuple[Path, Outcome]) -> None:
    trials = experiment(whole[0]).sacp(ANY).trials
    full = trials[trials["stage"] == "full"]
    assert len(full) == 2
    row = whole[1].table.set_index("method").loc["SACP"]
    assert row["best of k on test, %"] == f"{100 * full['accuracy_test'].max():.2f}"


def test_a_ranker_is_prepared_once_for_any_number_of_blocks(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SACP-1 trained its predictor, and SACP built its scorer, for every block of candidates."""
    predictor, scorer, made = regression.predictor, algorithm1.Scorer, []

    def counted(*arguments: object, **options: object) -> object:
        made.append("predictor")
        return predictor(*arguments, **options)  # type: ignore[arg-type]

    class Counted(scorer):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: object) -> None:
            made.append("scorer")
            super().__init__(*arguments)

    monkeypatch.setattr(window, "BLOCK", 50)
    monkeypatch.setattr(learners.regression, "predictor", counted)
    monkeypatch.setattr(algorithm1, "Scorer", Counted)
    one = replace(experiment(whole[0]), seed=1)
    one.sacp(ANY)
    run_regression(one)
    assert made == ["scorer", "predictor"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"table": "table5"}, "table='table5': there are table3, table4, figure2"),
        ({"net": "resnet50"}, "net='resnet50': recipe tiny has vgg16, resnet18, resnet56, resnet20a, resnet8"),
        ({"recipe": "papr"}, "recipe='papr': there are paper .* and tiny"),
        ({"minutes": 0}, "minutes=0: must be above 0"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(changes: dict[str, object], says: str, tmp_path: Path) -> None:
    arguments = {"table": "table3", "net": "resnet8", "recipe": "tiny", "minutes": 1.0, "folder": tmp_path} | changes
    with pytest.raises(ValueError, match=says):
        reproduce(**arguments)  # type: ignore[arg-type]


def test_published_rows_are_those_of_the_table(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    csv, md = publish(whole[1], "table3", "resnet8")
    assert csv == tmp_path / "reports" / "paper" / "table3-resnet8.csv"
    assert pd.read_csv(csv, dtype=str, keep_default_na=False).equals(whole[1].table)
    assert whole[1].says in md.read_text()


# --- what it needs ------------------------------------------------------------------------------------------------------

BARE = """
import sys
sys.modules.update(dict.fromkeys({absent}))  # to import one fails, as if it were not installed
from graphprune import data
from graphprune.__main__ import main
sys.path[:0] = {tests!r}
from noise import noise
data.load = lambda name: noise(200, 1, 8)
sys.exit(sum(main(command) for command in {commands}))
"""
ABSENT = ["IPython", "ipykernel", "jupyter_core", "nbclient", "nbformat", "papermill", "matplotlib", "seaborn", "timm", "dask"]


def test_it_needs_no_jupyter(tmp_path: Path) -> None:
    commands = [[COMMAND[0], table, *COMMAND[2:], str(tmp_path)] for table in TABLES]
    script = BARE.format(absent=ABSENT, tests=[str(folder) for folder in Path(__file__).parents[:2]], commands=commands)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("; complete") == len(TABLES)
