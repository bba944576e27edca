"""What notebook 03 teaches: the exercise and its check, Algorithm 1 as a loop, and cells that can be read."""

import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from scipy import stats

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "03_search.ipynb"
ALL = nbformat.read(NOTEBOOK, as_version=4).cells
CODE = [cell for cell in ALL if cell.cell_type == "code"]


def begins_with(text: str) -> Any:
    return next(cell for cell in CODE if cell.source.startswith(text))


def check(answer: Any) -> str:
    found: dict[str, Any] = {"np": np, "stats": stats}
    exec(re.sub(r"\nprint\(.*", "", begins_with("def check").source), found)
    return str(found["check"](answer))


def test_the_exercise_as_given_is_told_to_be_unfinished() -> None:
    found: dict[str, Any] = {"np": np}
    exec(begins_with("def verdict").source, found)
    assert check(found["verdict"]).startswith("Not yet: the means differ")
    stored = begins_with("def check").outputs[0]["text"]
    assert stored.strip() == check(found["verdict"])


def test_the_folded_solution_is_right() -> None:
    found: dict[str, Any] = {"np": np, "stats": stats}
    exec(
        re.findall(r"```python\n(.*?)```", next(cell.source for cell in ALL if "Solution" in cell.source), re.DOTALL)[0], found
    )
    assert check(found["verdict"]) == "Right."


def judge(reach: Any, paired: bool = True) -> Any:
    """A verdict from differences and the number of standard errors that an interval reaches."""

    def verdict(a: Any, b: Any) -> str:
        gap, error = np.mean(a) - np.mean(b), stats.sem(np.subtract(a, b))
        error = error if paired else np.hypot(stats.sem(a), stats.sem(b))
        if abs(gap) <= reach(len(a)) * error:
            return "no difference shown"
        return "a is better" if gap > 0 else "b is better"

    return verdict


def t(n: int) -> float:
    return float(stats.t.ppf(0.975, n - 1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda a, b: "no difference shown", "within each seed"),
        (judge(t, paired=False), "within each seed"),
        (lambda a, b: judge(t)(a, b).replace("b is better", "a is better"), "exchanged"),
        (judge(lambda n: 1.96), "Student's t"),
    ],
)
def test_wrong_answers_are_told_why(wrong: Any, message: str) -> None:
    assert message in check(wrong)


def test_the_loop_of_algorithm_1_calls_no_search_and_is_compared_with_the_library() -> None:
    loop = next(cell.source for cell in CODE if "def algorithm_1(" in cell.source)
    assert "search." not in loop
    compared = next(cell.source for cell in CODE if "search.sacp(tiny" in cell.source)
    assert "assert torch.equal(mine, theirs)" in compared


def test_cells_are_short_but_for_the_parameters() -> None:
    short = [cell for cell in CODE if "parameters" not in cell.metadata.get("tags", [])]
    assert max(len(cell.source.splitlines()) for cell in short) <= 20


def test_every_picture_of_a_cell_has_a_description() -> None:
    pictures = [o for cell in CODE for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    described = [output for output in pictures if output["metadata"].get("image/png", {}).get("alt")]
    assert len(described) >= 5
    assert len(pictures) - len(described) <= 1  # the figure of section 6, which is made by the library
