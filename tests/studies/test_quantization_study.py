"""The study of quantized graph networks: rows, files, paired verdicts."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from graphprune.compression import graph_data, recipes, storage
from graphprune.compression.packed import quantized_layers
from graphprune.compression.quantized_training import linear_weights
from graphprune.report import notebook
from graphprune.studies import quantization_study as study

TASK = graph_data.load("karate")
RECIPE = study.shorter(recipes.find("karate", "gcn"), 6, 3)


def case(folder: Path) -> study.Case:
    return study.Case(study.load_or_train(TASK, "gcn", RECIPE, 0, folder), TASK, RECIPE, 0)


def test_only_the_lengths_of_a_recipe_change():
    assert (RECIPE.epochs, RECIPE.tune_epochs, RECIPE.hidden) == (6, 3, recipes.find("karate", "gcn").hidden)
    assert study.shorter(RECIPE, None, None) == RECIPE


def test_a_study_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = study.study(TASK, "gcn", RECIPE, [0, 1], tmp_path, ["dense", "PTQ"])
    assert list(zip(first["method"], first["level"], first["seed"], strict=True)) == [
        *(("dense", "float32", 0), ("PTQ", "INT8", 0), ("PTQ", "INT4", 0)),
        *(("dense", "float32", 1), ("PTQ", "INT8", 1), ("PTQ", "INT4", 1)),
    ]
    monkeypatch.setattr(study, "measure", lambda *args: pytest.fail("it was measured again"))
    pd.testing.assert_frame_equal(study.study(TASK, "gcn", RECIPE, [0, 1], tmp_path, ["dense", "PTQ"]), first)


def test_an_unknown_method_is_refused_before_any_work(tmp_path: Path):
    with pytest.raises(ValueError, match="methods: 'QTP' is unknown; use some of"):
        study.study(TASK, "gcn", RECIPE, [0], tmp_path, ["QTP"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("method", "level"), study.METHODS)
def test_every_method_gives_a_network_that_is_measured(method: str, level: str, tmp_path: Path):
    row = study.measure(case(tmp_path), method, level)
    assert 0 <= row["score"] <= 100
    assert row["bytes"] > 500
    assert (row["bits_hidden"] == row["bits_hidden"]) == method.startswith("A2Q")


def test_both_orders_leave_the_share_of_weights_that_they_say(tmp_path: Path):
    for method in ("prune, then quantize", "quantize, then prune"):
        network = study.METHODS[method, "90 %, INT4"](case(tmp_path))
        weights = torch.cat([layer.weight.flatten() for _, layer in quantized_layers(network)])
        assert (weights == 0).sum().item() == round(0.9 * len(weights))


def test_the_smallest_weights_of_all_tensors_become_zero():
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight[:], model[1].weight[:] = torch.tensor([[4.0, -3.0]]), torch.tensor([[1.0], [-2.0]])
    study.zero_smallest(model, 0.5)
    assert [weight.flatten().tolist() for weight in linear_weights(model).values()] == [[4.0, -3.0], [0.0, 0.0]]


def test_files_are_those_that_are_written(tmp_path: Path):
    of = case(tmp_path)
    assert study.file_bytes(of.model) == len(storage.pack(of.model))
    small = study.METHODS["PTQ", "INT4"](of)
    assert study.file_bytes(small) < study.file_bytes(of.model)


def test_the_table_by_degree_has_every_node_once(tmp_path: Path):
    found = study.by_degree(case(tmp_path))
    assert found["nodes"].sum() == 34
    assert found["degree"].tolist() == sorted(set(torch.bincount(TASK.edge_index[1]).tolist()))
    assert (found["error"] >= 0).all()
    assert found["bits"].between(1, 8).all()


def rows(scores: dict[str, list[float]]) -> pd.DataFrame:
    parts = [
        {"task": "t", "model": "m", "method": method, "level": "", "seed": seed, "score": score, "bytes": 10}
        for method, values in scores.items()
        for seed, score in enumerate(values)
    ]
    return pd.DataFrame(parts)


def test_differences_are_paired_and_judged_by_their_intervals():
    table = rows({
        study.CONTROL: [80.0, 70.0, 60.0, 50.0], "near": [80.1, 69.9, 60.2, 50.1], "far": [75.0, 66.0, 55.0, 46.0],
        "above": [85.0, 74.0, 65.0, 54.0], "wide": [90.0, 60.0, 70.0, 40.0], "alike": [80.5, 70.5, 60.5, 50.5],
    })  # fmt: skip
    found = study.compare(table).set_index("method")
    assert found["shown"].to_dict() == {
        **{study.CONTROL: "open", "near": "equal", "far": "worse", "above": "better", "wide": "open", "alike": "open"}
    }
    assert found.loc["far", "difference"] == pytest.approx(-4.5)
    half = 3.182446 * 0.5773503 / 2  # t of 3 degrees of freedom, spread of -5, -4, -5, -4
    assert found.loc["far", ["low", "high"]].tolist() == pytest.approx([-4.5 - half, -4.5 + half], abs=1e-5)


def test_a_worse_method_within_the_margin_is_equal():
    table = rows({study.CONTROL: [80.0, 70.0, 60.0], "little": [79.9, 69.8, 59.9]})
    assert study.compare(table).set_index("method").loc["little", "shown"] == "equal"
    assert study.compare(table, margin=0.1).set_index("method").loc["little", "shown"] != "equal"


def test_the_published_rows_have_five_seeds_of_every_method():
    found = notebook.published("gnn", "quantization_rows")
    assert found is not None
    counted = found.groupby(["model", "method", "level"])["seed"].nunique()
    assert set(counted) == {5}
    assert {(method, level) for _, method, level in counted.index} == set(study.METHODS)
    assert notebook.published("gnn", "nothing") is None
