"""What notebook 01 teaches: the exercise whose check tells right from wrong, and label propagation in twenty lines."""

import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import nbformat
import networkx
import pytest
import torch
from torch import fx, nn

from graphprune import models, trace

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "01_graph_construction.ipynb"
ALL = nbformat.read(NOTEBOOK, as_version=4).cells
DIGIT = torch.zeros(1, 1, 8, 8)


def defined(*starts: str) -> dict[str, Any]:
    """What the definitions of cells that begin in these ways make, without what these cells run."""
    found: dict[str, Any] = {"torch": torch, "nn": nn, "fx": fx, "trace": trace, "combinations": combinations}
    found |= {"networkx": networkx, "Counter": Counter}
    for start in starts:
        source = next(cell.source for cell in ALL if cell.cell_type == "code" and cell.source.startswith(start))
        exec(source.split("\n\n\ndeep = ")[0], found)
    return found


LESSON = defined("class Mine", "def check", "class Labels", "def propagate")
SOLUTION = re.findall(r"```python\n(.*?)```", next(cell.source for cell in ALL if "Solution" in cell.source), re.DOTALL)[0]


def check(prediction: Any, model: nn.Module | None = None) -> str:
    return str(LESSON["check"](prediction, model or LESSON["Mine"](), DIGIT))


def solution() -> Any:
    found: dict[str, Any] = {}
    exec(SOLUTION, found)
    return found["prediction"]


def test_the_exercise_as_given_is_told_to_be_unfinished() -> None:
    assert check(LESSON["prediction"]) == "Not yet: fc stands in no group, because its channels are the network's output."


def test_the_folded_solution_is_right() -> None:
    assert check(solution()) == "Right."
    assert check(list(reversed(solution()))) == "Right."


def test_the_second_task_is_solved_as_the_text_says() -> None:
    class More(LESSON["Mine"]):  # type: ignore[misc, name-defined]
        def forward(self, x: torch.Tensor) -> Any:
            a = self.a(x)
            b = self.b(a.relu())
            c = self.c(b.relu()) + a
            return self.fc(self.d(torch.cat([b + a, c], 1).relu()).relu().mean((2, 3)))

    assert check([{"a", "b", "c"}, {"d"}], More()) == "Right."
    assert check(solution(), More()).startswith("Not yet: a and b go together.")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([{"a"}, {"b"}, {"c"}, {"d"}], "a and c go together"),
        ([{"a", "c", "b"}, {"d"}], "a and b are apart"),
        ([{"a", "c"}, {"b", "d"}], "b and d are apart"),
        ([{"a", "c"}, {"d"}], "b is missing"),
        ([{"a", "c"}, {"b"}, {"d", "b"}], "b stands in two groups"),
        ([{"a", "c"}, {"b"}, {"d"}, {"relu"}], "relu has no channels to prune"),
        ([{"a", "c"}, {"b"}, {"d", "fc"}], "fc stands in no group"),
    ],
)
def test_wrong_answers_are_told_why(wrong: Any, message: str) -> None:
    assert check(wrong).startswith(f"Not yet: {message}")


@pytest.mark.parametrize("name", ["tiny_cnn", "resnet8", "resnet18", "vgg16"])
def test_the_twenty_lines_find_the_groups_of_trace(name: str) -> None:
    model, x = models.build(name, in_channels=1), torch.zeros(1, 1, 32, 32)
    groups = trace(model, x).groups
    assert LESSON["propagate"](model, x) == {tuple(sorted(group.layers)): group.channels for group in groups}


def test_a_concatenation_ties_nothing_in_the_twenty_lines() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 3, 1), nn.Conv2d(5, 4, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return self.c(torch.cat([self.a(x), self.b(x)], 1))

    assert LESSON["propagate"](Beside(), DIGIT) == {("a",): 2, ("b",): 3}


def test_cells_are_short_but_for_the_parameters() -> None:
    short = [c for c in ALL if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", [])]
    assert max(len(cell.source.splitlines()) for cell in short) <= 20


def test_every_picture_of_a_cell_has_a_description() -> None:
    pictures = [o for cell in ALL for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 10
    assert all(output["metadata"].get("image/png", {}).get("alt") for output in pictures)
