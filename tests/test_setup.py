"""pyproject.toml, requirements.lock, environment.yml, Makefile and .gitignore agree with each other."""

import re
import subprocess
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(.*)$", LOCK, flags=re.MULTILINE)
PINNED = {canonicalize_name(name): Version(number) for name, number, _ in PINS}
EXTRAS = [line for lines in PROJECT["optional-dependencies"].values() for line in lines if not line.startswith("graphprune[")]
DEPENDENCIES = PROJECT["dependencies"] + EXTRAS


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("line", DEPENDENCIES)
def test_lock_satisfies_dependency(line: str) -> None:
    wanted = Requirement(line)
    assert wanted.specifier.contains(PINNED[canonicalize_name(wanted.name)])


def test_every_locked_package_is_pinned_and_hashed() -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE), flags=re.MULTILINE)
    entries = [entry for entry in entries if entry.strip()]
    assert len(entries) == len(PINS) > 100
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_lock_holds_no_address() -> None:
    assert re.findall(r".*(?:://|index-url|find-links).*", re.sub(r"--no-emit-\S+", "", LOCK)) == []


def test_torch_and_torchvision_are_locked_as_a_pair() -> None:
    markers = {name: rest.split("\\")[0].strip() for name, _, rest in PINS if name in {"torch", "torchvision"}}
    assert markers == {"torch": "", "torchvision": ""}, "one version for every platform"
    if version("torchvision") == str(PINNED["torchvision"]):  # else this is no environment made from the lock
        (wanted,) = (Requirement(line) for line in requires("torchvision") or [] if Requirement(line).name == "torch")
        assert wanted.specifier.contains(PINNED["torch"])


def test_conda_environment_hands_pip_the_lock_alone() -> None:
    # pip refuses an editable install beside hashed requirements, and conda makes one requirements file of this section.
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, section = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert python == f"python{PROJECT['requires-python']}"
    assert pip == "pip"
    assert section == {"pip": ["-r requirements.lock"]}


def test_lock_was_resolved_for_the_lowest_python() -> None:
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"--python-version {lowest} " in LOCK.splitlines()[1]


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    assert phony is not None
    listed = dict(re.findall(r"^  make ([\w-]+) +(\S.*)$", run("make", "--no-print-directory", "help"), flags=re.MULTILINE))
    assert set(phony[1].split()) - {"runs"} == set(listed)
    assert {"report", "test", "test-lib", "test-notebooks", "lab", "publish", "lint", "help"} <= set(listed)


def test_make_names_the_profiles_when_one_is_unknown() -> None:
    got = subprocess.run(["make", "report", "PROFILE=cifra"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert got.returncode == 2
    assert "PROFILE=cifra is unknown: use one of laptop" in got.stderr


def recipe(target: str) -> str:
    return run("make", "--no-print-directory", "--dry-run", f"--assume-old={ROOT}/.venv/.from-lock", "JOBS=3", target)


def test_the_halves_of_make_test_are_the_whole() -> None:
    """What pytest collects when nothing is named is what the two halves name."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    command = next(line for line in recipe("test").splitlines() if "-m pytest" in line)
    assert {"--durations=10", "-n", "--dist"} <= set(command.split())
    halves = [
        next(line for line in recipe(f"test-{half}").splitlines() if "-m pytest" in line) for half in ("lib", "notebooks")
    ]
    assert halves == [f"{command} tests lib/graphprune", f"{command} notebooks"]
    assert options["testpaths"] == ["tests", "lib/graphprune", "notebooks"]
    assert "--doctest-modules" in options["addopts"]


def test_a_notebook_is_run_again_when_a_module_in_any_folder_changes(tmp_path: Path) -> None:
    modules = ["__init__.py", "__main__.py", "report/notebook.py", "graph/rules/table.py", "search/funnel.py"]
    for module in modules:
        path = tmp_path / "lib" / "graphprune" / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    database = run(
        "make", "--directory", str(tmp_path), "--file", str(ROOT / "Makefile"), "--print-data-base", "--dry-run", "help"
    )
    sources = re.search(r"^SOURCES := (.*)$", database, flags=re.MULTILINE)
    assert sources is not None
    depends = ["__init__.py", "graph/rules/table.py", "search/funnel.py"]  # and not on what runs and compares notebooks
    assert sources[1].split() == [f"lib/graphprune/{module}" for module in depends]


def ignored(*paths: str) -> set[str]:
    got = subprocess.run(["git", "check-ignore", "--no-index", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    return set(got.stdout.split())


def test_gitignore_leaves_the_sources_alone() -> None:
    sources = [
        str(file.relative_to(ROOT)) for folder in ("lib", "tests", "notebooks") for file in (ROOT / folder).rglob("*.py")
    ]
    sources += ["lib/graphprune/data.py", "lib/graphprune/build.py", "data/README.md", "reports/laptop/results.csv"]
    assert ignored(*sources) == set()


def test_gitignore_keeps_data_and_runs_out() -> None:
    out = {
        "data/cifar-10-batches-py/test_batch",
        "reports/runs/laptop/03_search.ipynb",
        ".venv/bin/python",
        ".data/MNIST",
    }
    assert ignored(*out) == out


def test_citation_names_the_five_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    first = [paper["authors"][0]["family-names"] for paper in citation["references"]]
    assert first == ["Liu", "Balemans", "Laenen", "ElAraby", "Khedri"]
    assert citation["license"] == PROJECT["license"] == "MIT"
