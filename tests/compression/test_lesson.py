"""What notebook 08 teaches: the exercise whose check tells right from wrong, and cells that can be read."""

import math
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

from graphprune.compression.a2q import quantize_learned

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "08_gnn_compression.ipynb"


def cells(kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == kind]


def scope() -> dict[str, Any]:
    """The exercise's check and what it needs, as the notebook defines them."""
    found: dict[str, Any] = {"math": math, "torch": torch, "quantize_learned": quantize_learned}
    for start in ("def bits_needed", "def check"):
        exec(next(cell.source for cell in cells("code") if cell.source.startswith(start)), found)
    return found


def test_the_exercise_as_given_is_told_to_be_unfinished():
    found = scope()
    assert found["check"](found["bits_needed"]) == "Not yet: largest=2.6, step=0.5 (an ordinary node) needs 3 bits, not 8."


def test_the_folded_solution_is_right():
    found = scope()
    folded = next(cell.source for cell in cells("markdown") if "Solution" in cell.source)
    exec(re.findall(r"```python\n(.*?)```", folded, re.DOTALL)[0], found)
    assert found["check"](found["bits_needed"]) == "Right."


def steps(largest: float, step: float) -> int:
    return math.floor(largest / step + 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda largest, step: math.ceil(math.log2(steps(largest, step) + 1)), "no features"),
        (lambda largest, step: max(1, math.ceil(math.log2(max(1, steps(largest, step))))), "half a step above"),
        (lambda largest, step: max(1, math.ceil(math.log2(largest / step + 1))), "just below half a step"),
    ],
)
def test_wrong_answers_are_told_why(wrong, message):
    assert message in scope()["check"](wrong)


def test_notebook_cells_are_short():
    lengths = [len(cell.source.splitlines()) for cell in cells("code") if cell.metadata.get("tags") != ["parameters"]]
    assert max(lengths) <= 20
