"""What notebook 09 teaches: the exercise whose check tells right from wrong, and cells that can be read."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "09_your_own_network.ipynb"


def cells(kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == kind]


def scope() -> dict[str, Any]:
    """The exercise and its check, as the notebook defines them."""
    found: dict[str, Any] = {"torch": torch}
    metrics = next(cell.source for cell in cells("code") if cell.source.startswith("def dice("))
    exec(metrics.partition("\n\n\npages")[0], found)
    for start in ("def iou", "def check"):
        source = next(cell.source for cell in cells("code") if cell.source.startswith(start))
        exec(source, found)
    return found


def test_the_exercise_as_given_is_told_to_be_unfinished() -> None:
    found = scope()
    assert found["check"](found["iou"]) == (
        "Not yet: half of the image is found where all of it is ink. The IoU is 0.5, not 0.714."
    ), "Dice with its + 1: (2 * 2 + 1) / (2 + 4 + 1)"


def test_the_folded_solution_is_right() -> None:
    found = scope()
    folded = next(cell.source for cell in cells("markdown") if "Solution" in cell.source)
    exec(re.findall(r"```python\n(.*?)```", folded, re.DOTALL)[0], found)
    assert found["check"](found["iou"]) == "Right."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda o, t: ((o > 0) & (t > 0)).float().mean(), "four images have four values"),
        (lambda o, t: ((o > 0) & (t > 0)).sum((1, 2, 3)) / ((o > 0) | (t > 0)).sum((1, 2, 3)), "two empty masks"),
        (
            lambda o, t: (o.sigmoid() * t).sum((1, 2, 3)).add(1e-9) / (o.sigmoid() + t - o.sigmoid() * t).sum((1, 2, 3)),
            "it counts in full",
        ),
    ],
)
def test_wrong_answers_are_told_why(wrong: Any, message: str) -> None:
    assert message in scope()["check"](wrong)


def test_notebook_cells_are_short() -> None:
    lengths = [len(cell.source.splitlines()) for cell in cells("code") if cell.metadata.get("tags") != ["parameters"]]
    assert max(lengths) <= 20
