"""What is stored in every notebook: nbval compares outputs, and would pass a notebook that stores none."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from test_readme import anchors

from graphprune.report import notebook

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# An address of a package index, or the home or work folder of whoever ran the notebook.
TELLTALE = re.compile(r"\S*(?:/simple/|/packages/|pypi|index-url)\S*|(?<![\w.])/(?:home|root|Users|tmp|work|mnt|opt|var)/\S+")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[Any]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(path: Path) -> list[Any]:
    return [output for cell in code_cells(path) for output in cell.outputs]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS, "the tests below would all pass without one"


@each_notebook
def test_notebook_was_run_from_top_to_bottom(path: Path) -> None:
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))


@each_notebook
def test_notebook_stores_outputs_and_figures(path: Path) -> None:
    kinds = {kind for output in outputs(path) for kind in output.get("data", {})}
    assert len(outputs(path)) >= 3
    assert "image/png" in kinds


@each_notebook
def test_every_figure_is_described_for_those_who_do_not_see_it(path: Path) -> None:
    pictures = [output for output in outputs(path) if "image/png" in output.get("data", {})]
    assert [n for n, output in enumerate(pictures) if not output.metadata.get("image/png", {}).get("alt")] == []


@each_notebook
def test_notebook_stores_no_error_and_no_stderr(path: Path) -> None:
    bad = [output for output in outputs(path) if output.output_type == "error" or output.get("name") == "stderr"]
    assert bad == []


@each_notebook
def test_notebook_tells_nothing_of_the_machine(path: Path) -> None:
    texts = [output.get("text", "") for output in outputs(path)]
    texts += [str(text) for output in outputs(path) for kind, text in output.get("data", {}).items() if "image" not in kind]
    assert [found for text in texts for found in TELLTALE.findall(text)] == []


@pytest.mark.parametrize("text", ["/root/.venv/lib", "see /tmp/x.csv", "https://pypi.example/simple/torch"])
def test_telltale_finds_paths_and_registries(text: str) -> None:
    assert TELLTALE.search(text)


@pytest.mark.parametrize("text", ["reports/runs/laptop/03_search", "params/macs", "../tmp/x", "R(r)/1"])
def test_telltale_leaves_relative_paths_alone(text: str) -> None:
    assert not TELLTALE.search(text)


@each_notebook
def test_links_lead_somewhere(path: Path) -> None:
    texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    lost = []
    for target in re.findall(r"\]\(([^)\s]+\.(?:md|ipynb)(?:#[^)\s]*)?)\)", "\n".join(texts)):
        page, _, anchor = target.partition("#")
        there = path.parent / page
        if "://" not in target and (
            not there.exists() or (anchor and anchor not in anchors(there.read_text(encoding="utf-8")))
        ):
            lost.append(target)
    assert lost == []


@each_notebook
def test_notebook_takes_the_profile_as_parameter(path: Path) -> None:
    assert notebook.parameters(path)["profile"] == "laptop"


@pytest.mark.parametrize("profile", [name for name in notebook.profiles() if name != "laptop"])
def test_profile_fits_the_notebooks_it_names(profile: str) -> None:
    named = notebook.notebooks(profile)
    assert set(named) <= {path.stem for path in NOTEBOOKS}
    assert [notebook.settings(ROOT / "notebooks" / f"{stem}.ipynb", profile)["profile"] for stem in named] == [profile] * len(
        named
    )
