"""The study of pruned graph networks: its rows, its controls, and that it goes on where it stopped."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from graphprune.compression import recipes, training
from graphprune.studies import compression_study as study
from graphprune.studies.quantization_study import CONTROL

RECIPE = replace(recipes.find("karate", "gcn"), epochs=12, tune_epochs=6)
LEVELS = (0.5, 0.95)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return study.study("karate", "gcn", [0], LEVELS, folder, recipe=RECIPE)


def test_every_way_has_a_row_before_and_after_training_and_the_dense_network_its_control(rows: pd.DataFrame) -> None:
    assert list(rows.columns[:6]) == ["task", "model", "method", "level", "sparsity", "seed"]
    counts = rows.groupby("method", sort=False).size().to_dict()
    assert counts.pop(study.DENSE) == counts.pop(CONTROL) == 1
    assert counts == {way + end: 1 if "width" in way else 2 for way in study.WAYS for end in (study.ONE_SHOT, "")}


def test_rows_hold_the_sparsity_that_was_asked_for(rows: pd.DataFrame) -> None:
    zeros = rows.set_index(["method", "level"])["zeros"]
    for way in ("global", "random", "L1, global"):
        assert zeros[way, "50 %"] == pytest.approx(0.5)
        assert zeros[way, "95 %"] == pytest.approx(1 - 29 / 576)
    assert zeros["width", "50 %"] == 0  # what is left is dense
    narrow = rows[(rows["method"] == "width")].iloc[0]
    assert (narrow["weights"], narrow["theoretical_bytes"]) == (8 * 36, 4 * (8 * 36 + 8 + 2))


def test_a_stopped_study_goes_on_and_trains_nothing_again(
    rows: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "fit", None)
    monkeypatch.setattr(study, "tune", None)
    again = study.study("karate", "gcn", [0], LEVELS, folder, recipe=RECIPE)
    pd.testing.assert_frame_equal(again, rows)


def test_a_gain_that_the_control_has_too_is_seen_as_one(rows: pd.DataFrame, folder: Path) -> None:
    task = study.task_for("karate")
    case = study.Case(task, "gcn", RECIPE, 0, folder)
    score = 100 * training.evaluate(case.model, task, "test").scores["accuracy"]
    assert rows.set_index("method").loc[study.DENSE, "score"] == score


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ways": ["globl"]}, "ways: 'globl' is unknown"), ({"levels": [1.0]}, "levels: 1.0 must be above 0 and below 1")],
)
def test_what_cannot_be_studied_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    arguments = {"task": "karate", "model": "gcn", "seeds": [0], "levels": LEVELS, "folder": tmp_path} | change
    with pytest.raises(ValueError, match=message):
        study.study(**arguments)


def test_folds_of_proteins_follow_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.graph_data, "load", lambda name, fold=0: (name, fold))
    study.task_for.cache_clear()
    study._only_split.cache_clear()
    assert [study.task_for("proteins", seed) for seed in (0, 3, 13)] == [("proteins", 0), ("proteins", 3), ("proteins", 3)]
    assert study.task_for("bbbp", 3) == ("bbbp", 0)
    study.task_for.cache_clear()
    study._only_split.cache_clear()


def test_epochs_to_a_share_of_the_best_by_hand() -> None:
    scores = {"none": [50.0, 95.0, 100.0], "L1": [10.0, 20.0, 96.0], "group lasso": [10.0, 20.0, 30.0]}
    curves = pd.concat([
        pd.DataFrame({"score": values, "epoch": [1.0, 2.0, 3.0], "task": "t", "model": "m", "regularization": name, "seed": 0})
        for name, values in scores.items()
    ])  # fmt: skip
    first = study.epochs_to(curves).set_index("regularization")["epoch"]
    assert (first["none"], first["L1"], bool(pd.isna(first["group lasso"]))) == (2.0, 3.0, True)


def test_curves_have_a_row_an_epoch_for_each_regularization(folder: Path) -> None:
    curves = study.convergence("karate", "gcn", [0], folder, recipe=replace(RECIPE, epochs=4))
    assert curves.groupby("regularization")["epoch"].apply(list).to_dict() == {
        name: [1.0, 2.0, 3.0, 4.0] for name in ("none", "L1", "group lasso")
    }


def test_baselines_are_the_unpruned_networks(rows: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "find", lambda task, model: RECIPE)
    found = study.baselines("karate", ["gcn", "mlp"], [0], folder).set_index("model")["score"]
    assert found["gcn"] == rows.set_index("method").loc[study.DENSE, "score"]
    assert found["mlp"] < found["gcn"]


def test_speed_is_measured_for_what_runs(folder: Path) -> None:
    case = study.Case(study.task_for("karate"), "gcn", RECIPE, 0, folder)
    found = study.measure_speed(case, [0.5, 0.99], repeats=2)
    assert list(zip(found["form"], found["level"], strict=True)) == [
        ("dense", "0 %"), ("zeros, dense kernel", "50 %"), ("zeros, CSR kernel", "50 %"), ("width", "50 %"),
        ("zeros, dense kernel", "99 %"), ("zeros, CSR kernel", "99 %"),
    ]  # fmt: skip
    assert bool((found["median_ms"] > 0).all())
    assert found.set_index(["form", "level"])["peak_bytes"]["width", "50 %"] < found["peak_bytes"].iloc[0]
