"""The house: imports point down, and importing the package is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import graphprune

LIB = Path(graphprune.__file__).parent
FLOORS = [
    {"correlation"},
    {
        "description",
        "provenance",
        "labels",
        "networks",
        "bees",
        "recipe",
        "layout",
        "ordering",
        "parts",
        "tables",
        "convolution",
        "rewards",
        "sizes",
    },
    {"runtime", "tally", "copying"},
    {"artifacts", "call", "figures", "jobs", "inputs"},
    {"shapes", "tabular"},
    {"splits", "models", "checkpoint", "records"},
    {"data", "movement", "course", "paper"},
    {"layers"},
    {"rules"},
    {"propagation", "recording"},
    {"graph", "ranking", "replay"},
    {"cutting", "slider"},
    {"tracing"},
    {"proving", "checking"},
    {"coupling"},
    {"costs", "pruning", "importance", "train"},
    {"space", "encoder", "base", "observation", "evaluator", "budget"},
    {"scorer", "window", "elimination", "environment"},
    {"agent", "rivals", "contrast", "trial", "cone", "regression", "ascent", "shares"},
    {"funnel", "proof", "terms", "rankers", "census", "surrogate"},
    {"search", "arms", "exact", "pieces", "learners", "proxies", "nested"},
    {"reproduce", "hive", "means", "distilled"},
    {"entrants"},
    {"contest"},
    {"report"},
    {"publishing"},
    {"__main__"},
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}


def imported(path: Path) -> set[str]:
    """The package's modules that a module imports when it is run (not those imported for type annotations only)."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(n)
        for top in tree.body
        if isinstance(top, ast.If) and "TYPE_CHECKING" in ast.unparse(top.test)
        for n in ast.walk(top)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in guarded:
            if node.module == "graphprune":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("graphprune."):
                found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", sorted(LIB.glob("*.py")), ids=lambda path: path.stem)
def test_imports_point_down(path: Path) -> None:
    if path.stem == "__init__":
        return
    assert path.stem in FLOOR, f"say on which floor {path.name} stands"
    upward = {name for name in imported(path) if FLOOR[name] >= FLOOR[path.stem]}
    assert upward == set()


def test_the_package_is_light_to_import() -> None:
    script = (
        "import sys, graphprune; print([m for m in ('torch_geometric', 'pandas', 'matplotlib', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert all(getattr(graphprune, name) is not None for name in graphprune.__all__)
    assert set(graphprune.__all__) <= set(dir(graphprune))
    with pytest.raises(AttributeError, match="module 'graphprune' has no attribute 'prnue'"):
        graphprune.prnue  # noqa: B018
