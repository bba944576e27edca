"""What notebook 07 teaches: the exercise whose check tells right from wrong, and cells that can be read."""

import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "07_mip_neurons.ipynb"


def cells(kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == kind]


def scope() -> dict[str, Any]:
    """The exercise's check and what it needs, as the notebook defines them."""
    found: dict[str, Any] = {"np": np}
    for start in ("def allowed", "def lowest_allowed", "def check"):
        exec(next(cell.source for cell in cells("code") if cell.source.startswith(start)), found)
    return found


def test_the_exercise_as_given_is_told_to_be_unfinished(capsys):
    found = scope()
    assert found["check"](found["lowest_allowed"]).startswith("Not yet: with h=1, l=-1, u=3 (an open gate) it is 0.33")


def test_the_folded_solution_is_right():
    found = scope()
    folded = next(cell.source for cell in cells("markdown") if "Solution" in cell.source)
    exec(re.findall(r"```python\n(.*?)```", folded, re.DOTALL)[0], found)
    assert found["check"](found["lowest_allowed"]) == "Right."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda h, low, high: max(0, 1 - h / high), "h=1, l=-1, u=3"),
        (lambda h, low, high: max(0, 1 - (h - low) / high), "a neuron that is on"),
        (lambda h, low, high: max(0, 1 - (h - min(low, 0)) / high), "off for sure"),
        (lambda h, low, high: 0.0 if high <= 0 else 1 - (h - min(low, 0)) / high, "a score is at least 0"),
    ],
)
def test_wrong_answers_are_told_why(wrong, message):
    assert message in scope()["check"](wrong)


def test_notebook_cells_are_short():
    lengths = [len(cell.source.splitlines()) for cell in cells("code") if cell.metadata.get("tags") != ["parameters"]]
    assert max(lengths) <= 20
