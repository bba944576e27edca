"""What notebook 06 teaches: the picture of the small layer, and the exercise whose check tells right from wrong."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "06_spectral_pruning.ipynb"


def cells(kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == kind]


def scope() -> dict[str, Any]:
    """The exercise's check, as the notebook defines it."""
    found: dict[str, Any] = {"torch": torch}
    exec(next(text for text in cells("code") if text.startswith("def chances_of")), found)
    exec(next(text for text in cells("code") if text.startswith("def check")), found)
    return found


def test_the_exercise_as_given_is_told_to_be_unfinished():
    found = scope()
    assert found["check"](found["chances_of"]).startswith("Not yet: the largest chance is 1.25")


def test_the_folded_solution_is_right():
    found = scope()
    folded = next(text for text in cells("markdown") if "Solution" in text)
    exec(re.findall(r"```python\n(.*?)```", folded, re.DOTALL)[0], found)
    assert found["check"](found["chances_of"]) == "Right."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s, k: (k * s / s.sum()).clamp(max=1), "add up to 1.75"),
        (lambda s, k: torch.full_like(s, k / len(s)), "not in proportion"),
        (lambda s, k: torch.cat([torch.ones(1).double(), (k - 1) * s[1:] / s[1:].sum()]), "capping once"),
    ],
)
def test_wrong_answers_are_told_why(wrong, message):
    assert message in scope()["check"](wrong)


def test_notebook_cells_are_short():
    assert max(len(text.splitlines()) for text in cells("code")) <= 20
