"""What notebook 05 teaches: its exercise and its check, with the solution, with what is given, and with wrong answers."""

import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from graphprune.pruning.rates import RATES, exact_rates, kept_counts
from graphprune.ranking import rank_agreement
from graphprune.studies import tabular

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "05_ablations.ipynb"
ALL = nbformat.read(NOTEBOOK, as_version=4).cells
CODE = [cell for cell in ALL if cell.cell_type == "code"]
LAYERS = np.array([4, 1, 1, 1, 1, 4, 1, 1, 1, 4, 1, 1])
CHANNELS = [16] * 4 + [32] * 4 + [64] * 4  # of a ResNet-20's groups


def begins_with(text: str) -> Any:
    return next(cell for cell in CODE if cell.source.startswith(text))


@pytest.fixture(scope="module")
def check() -> Any:
    """The check of the notebook, on the networks that it judges by."""
    table = tabular.load("digits")
    rows = tabular.once(table)
    mask = ((rows["stratum"] == "U") & (rows["part"] == "report")).to_numpy()
    judged = rows[mask].reset_index(drop=True)
    found: dict[str, Any] = {"np": np, "rank_agreement": rank_agreement, "layers": LAYERS}
    counts = np.stack([kept_counts(channels, exact_rates(RATES)).numpy() for channels in CHANNELS])
    found["widths"] = counts[np.arange(len(CHANNELS)), tabular.rates(judged).numpy()].astype(float)
    found["measured"] = tabular.truths(table, "accuracy_test")[:, mask]
    found["band"] = rank_agreement.bands(judged["macs"], 20)
    exec(re.sub(r"\nprint\(.*", "", begins_with("def check").source), found)
    return found["check"]


def test_the_exercise_as_given_is_told_to_be_unfinished(check: Any) -> None:
    found: dict[str, Any] = {"np": np}
    exec(begins_with("widths = ").source.split("\n\n\n")[1], found)
    assert check(found["score"]).startswith("Not yet: -0.")
    assert begins_with("def check").outputs[0]["text"].startswith("Not yet: -0.29. At equal cost")


def test_the_folded_solution_is_right(check: Any) -> None:
    (code,) = (re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)[0] for cell in ALL if "Solution" in cell.source)
    found: dict[str, Any] = {"np": np}
    exec(code, found)
    assert check(found["score"]).startswith("Right: +0.4")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda widths, layers: np.ones(len(widths)), "not the same for every network"),
        (lambda widths, layers: widths, "one number a network is (1064,)"),
        (lambda widths, layers: np.log(widths).sum(axis=1), "less than log widths"),
    ],
)
def test_other_answers_are_told_what_is_missing(check: Any, answer: Any, said: str) -> None:
    assert said in check(answer)
