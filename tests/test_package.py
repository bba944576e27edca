"""Subpackages stand on levels, imports point down, and importing the package is light."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import graphprune

LIB = Path(graphprune.__file__).parent
TESTS = Path(__file__).parent
LEVELS = [  # a subpackage imports itself and the levels below it; what stands at the top of the package imports anything
    {"runs"},
    {"graph"},
    {"training"},
    {"pruning"},
    {"compression", "encoders", "neurons", "rl", "spectral"},
    {"search", "exact", "ranking"},
    {"studies", "report"},
]
LEVEL = {subpackage: level for level, subpackages in enumerate(LEVELS) for subpackage in subpackages}
FILES = sorted(LIB.rglob("*.py"))


def module(path: Path) -> str:
    """The dotted name of a file below the package, "graph.rules.labels"; a subpackage's `__init__` goes by its name."""
    return ".".join(path.relative_to(LIB).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {module(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """The package's modules that a file imports: anywhere in it, for type annotations as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; write graphprune.subpackage.module"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("graphprune."):
                parts = name.split(".")[1:]
                while parts and ".".join(parts) not in MODULES:
                    parts.pop()
                found.add(".".join(parts))
    return found


def subpackage(name: str) -> str:
    return name.partition(".")[0]


def test_every_folder_is_a_subpackage_with_a_level() -> None:
    assert {path.parent.name for path in LIB.glob("*/__init__.py")} == set(LEVEL)


@pytest.mark.parametrize("name", [name for name in MODULES if subpackage(name) in LEVEL])
def test_a_subpackage_imports_itself_and_lower_levels_only(name: str) -> None:
    others = {subpackage(other) for other in imported(MODULES[name])} - {subpackage(name)}
    assert others <= LEVEL.keys(), "the library's modules import each other from their homes"
    assert {other for other in others if LEVEL[other] >= LEVEL[subpackage(name)]} == set()


def test_there_is_no_import_circle() -> None:
    order = TopologicalSorter({name: imported(path) - {name} for name, path in MODULES.items()})
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(f"an import cycle: {' -> '.join(error.args[1])}")


def test_the_top_of_the_package_holds_no_method() -> None:
    assert {path.name for path in LIB.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_every_module_has_its_tests_at_the_same_place() -> None:
    """`graph/rules/labels.py` in `graph/rules/test_labels.py`; an `__init__` only names what is tested at its home."""
    modules = [path.relative_to(LIB) for path in FILES if path.name != "__init__.py"]
    places = {str(path): TESTS / path.with_name(f"test_{path.stem.strip('_')}.py") for path in modules}
    assert [name for name, place in places.items() if not place.is_file() or "\ndef test_" not in place.read_text()] == []


def test_tests_of_a_subpackage_stand_in_a_folder_of_its_name() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")} - {Path()}
    assert folders == {path.parent.relative_to(LIB) for path in FILES} - {Path()}


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


def test_tab_completion_of_public_modules_offers_their_public_names_only() -> None:
    others = ["compression", "exact", "neurons", "search", "spectral"]  # the subpackages that hold more than modules
    offered = [*graphprune._MODULE_HOME, *others]
    assert {"agent", "contrast", "environment", "figures", "tabular"} < set(offered)
    for public in map(graphprune.__getattr__, offered):
        assert dir(public) == sorted(public.__all__)
        assert all(hasattr(public, name) for name in public.__all__)


def test_help_begins_with_where_to_start() -> None:
    assert graphprune.__doc__ is not None
    assert graphprune.__doc__.split("\n\n")[1].startswith("Start here: `prune_to`")


def test_a_public_module_is_the_one_at_its_home() -> None:
    import graphprune.train
    import graphprune.training.train

    assert graphprune.train is graphprune.training.train
    assert graphprune.train.__spec__.name == "graphprune.training.train"
