"""What notebook 02 teaches: the exercise whose check tells right from wrong, and the graph convolution in ten lines."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

import graphprune
from graphprune import contrast
from graphprune.encoders.encoder import GraphEncoder

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "02_contrastive_training.ipynb"
ALL = nbformat.read(NOTEBOOK, as_version=4).cells


def defined(name: str) -> dict[str, Any]:
    """What the cell that begins with a function defines, and torch."""
    found: dict[str, Any] = {"torch": torch}
    exec(next(cell.source for cell in ALL if cell.cell_type == "code" and cell.source.startswith(f"def {name}")), found)
    return found


CHECK = re.sub(r"\nprint\(.*", "", next(cell.source for cell in ALL if cell.source.startswith("def check")))


def check(answer: Any) -> str:
    found: dict[str, Any] = {"torch": torch}
    exec(CHECK, found)
    return str(found["check"](answer))


def test_the_exercise_as_given_is_told_to_be_unfinished() -> None:
    assert check(defined("repel_all")["repel_all"]).startswith("Not yet: all negatives moved away and the loss did not change")


def test_the_folded_solution_is_right_and_equals_the_library() -> None:
    found: dict[str, Any] = {"torch": torch}
    folded = next(cell.source for cell in ALL if "Solution" in cell.source)
    exec(re.findall(r"```python\n(.*?)```", folded, re.DOTALL)[0], found)
    assert check(found["repel_all"]) == "Right."
    z = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    similar = [contrast.similarity(z[0], z[k], 1.0) for k in (1, 2)]
    assert found["repel_all"](*similar).item() == pytest.approx(contrast.loss_repel_all(*z, 1.0).item(), abs=1e-5)


def rows(denominator: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    return (denominator.log() - own).mean()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p, n: (p.exp().sum(1) + n.exp().sum(1)).log() - p.diagonal(), "shape (2,)"),
        (lambda p, n: rows(p.exp().sum(1) + n.exp().sum(1), p.diagonal() + n.diagonal()), "above the fraction line"),
        (lambda p, n: rows(p.exp().sum(1) + n.diagonal().exp(), p.diagonal()), "only a row's own negative"),
        (lambda p, n: rows(p.diagonal().exp() + n.exp().sum(1), p.diagonal()), "positives of the other rows"),
        (lambda p, n: 2 * rows(p.exp().sum(1) + n.exp().sum(1), p.diagonal()), "by hand it is 1.0334"),
    ],
)
def test_wrong_answers_are_told_why(wrong: Any, message: str) -> None:
    assert message in check(wrong)


@torch.no_grad()
def test_the_ten_lines_are_the_encoder() -> None:
    net = graphprune.models.tiny_cnn()
    graph = graphprune.trace(net, torch.zeros(1, 1, 8, 8))
    x = torch.randn(len(graph.nodes), 10, generator=torch.Generator().manual_seed(0))
    encoder = GraphEncoder.seeded(1, 10, hidden=6)
    found, _ = defined("gcn")["gcn"](x, graph.edge_index, encoder)
    assert torch.allclose(found, encoder.embed(x[None], graph.edge_index)[0], atol=1e-6)


def test_cells_are_short_but_for_the_parameters() -> None:
    short = [c for c in ALL if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", [])]
    assert max(len(cell.source.splitlines()) for cell in short) <= 20


def test_every_picture_of_a_cell_has_a_description() -> None:
    pictures = [o for cell in ALL for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures
    assert all(output["metadata"].get("image/png", {}).get("alt") for output in pictures)
