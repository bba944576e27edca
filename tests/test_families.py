"""Networks of other packages are measured by a benchmark; that it sees what is wrong is tested here."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

import graphprune
from benchmarks import conformance_families as conformance
from benchmarks import families


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(conformance, "TABLE", tmp_path / "families.csv")
    monkeypatch.setattr(conformance, "REPORT", tmp_path / "families.md")
    monkeypatch.setattr(conformance, "onnx", lambda *_: "yes")  # an export takes seconds
    return tmp_path / "families.csv"


def test_every_network_has_a_name_of_its_own() -> None:
    assert len(families.names()) == len(set(families.names())) >= 50
    assert len(families.HUGGING_FACE) >= 26


def test_a_row_says_what_holds_and_what_torch_pruning_gives(table: Path) -> None:
    row = conformance.check("own:siamese", "whole")
    assert (row["status"], row["loaded"], row["groups"]) == ("ok", "yes", 2)
    assert max(row["forward"], row["backward"]) <= 1e-10
    assert row["left"] == pytest.approx(row["tp_left"]) == pytest.approx(0.264, abs=1e-3)
    assert float(row["tp_error"]) <= 1e-10
    conformance.append(row)
    conformance.append(row | {"groups": 3})  # in place of the older one
    conformance.report()
    assert [line["groups"] for line in csv.DictReader(table.read_text().splitlines())] == ["3"]
    assert "1 of 1 cases hold" in conformance.REPORT.read_text()


def test_a_network_that_is_pruned_wrongly_is_seen(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = graphprune.masked

    def off(*args: Any) -> torch.nn.Module:
        twin = honest(*args)
        twin.head.bias.data += 1e-8
        return twin

    monkeypatch.setattr(graphprune, "masked", off)
    assert conformance.check("own:siamese", "whole")["status"] == "masked and pruned disagree"
    monkeypatch.setattr(conformance, "build", lambda name: 1 / 0)
    assert conformance.check("own:siamese", "whole")["status"] == "ZeroDivisionError: division by zero"
