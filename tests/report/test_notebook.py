"""A notebook run under a profile: parameters are checked first, and only a whole run leaves an executed copy."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

from graphprune.__main__ import main
from graphprune.report import notebook

PARAMETERS = 'profile = "laptop"  # where results go\nseeds = 2\nlr = 1e-3\nnames = ["a"]'
WRITE = (
    "from pathlib import Path\n"
    "from graphprune.runs import runtime\n"
    'out = runtime.run_dir(profile) / "01_tiny"\n'
    "out.mkdir(parents=True, exist_ok=True)\n"
    '(out / "seeds.csv").write_text(f"seeds\\n{seeds}\\n")'
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "graphprune"\n')
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "big.yaml").write_text("01_tiny: {seeds: 5}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(notebook.__file__).parents[2]))
    return tmp_path


def write(project: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    """A notebook `01_tiny` with a parameters cell and `cells`."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    made = nbformat.v4.new_notebook(cells=[tagged, *map(nbformat.v4.new_code_cell, cells)])
    path = project / "notebooks" / "01_tiny.ipynb"
    nbformat.write(made, path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*"))


def texts(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_run_takes_the_profile_and_leaves_one_executed_copy(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(project, WRITE, "import os; print(seeds, profile, os.path.basename(os.getcwd()))")
    stale = project / "reports/runs/big/01_tiny/old.csv"
    stale.parent.mkdir(parents=True)
    stale.write_text("a\n1\n")
    os.utime(stale, (1e9, 1e9))
    done = notebook.run(path, "big")
    assert done == project / "reports/runs/big/01_tiny.ipynb"
    assert texts(done).strip() == "5 big notebooks"
    assert names(done.parent / "01_tiny") == ["seeds.csv"]
    assert [name for name in names(done.parent) if not name.startswith(".")] == ["01_tiny", "01_tiny.ipynb"]
    assert capsys.readouterr().out.startswith("01_tiny [big]: started\n01_tiny [big]: done in ")


def test_failing_cell_keeps_the_copy_with_the_error_on_top(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = notebook.run(write(project, "print('good')"))
    path = write(project, "raise ValueError('tau=2 is no ratio')")
    assert main(["run", str(path)]) == 1
    failed = project / "reports/runs/laptop/01_tiny.failed.ipynb"
    first = nbformat.read(failed, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert "An Exception was encountered" in first.source
    error = capsys.readouterr().err
    assert "tau=2 is no ratio" in error
    assert str(failed) in error
    assert texts(good).strip() == "good"
    notebook.run(write(project, "print('better')"))
    assert not failed.exists()


def test_dead_kernel_is_a_failure(project: Path) -> None:
    path = write(project, "import os; os._exit(3)")
    with pytest.raises(notebook.NotebookFailed, match="Kernel died"):
        notebook.run(path)
    failed = project / "reports/runs/laptop/01_tiny.failed.ipynb"
    assert nbformat.read(failed, as_version=4).cells[0].source.startswith("**DeadKernelError**")
    assert not (project / "reports/runs/laptop/01_tiny.ipynb").exists()


def test_killed_run_leaves_nothing_that_looks_finished(project: Path) -> None:
    path = write(project, "open('started', 'w').close()", "import time; time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-m", "graphprune", "run", str(path)], start_new_session=True)
    for _ in range(600):
        if (project / "notebooks" / "started").exists():
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (project / "notebooks" / "started").exists()
    assert [name for name in names(project / "reports/runs/laptop") if not name.startswith(".")] == []


def test_hand_given_parameters_go_to_a_folder_of_their_own(project: Path) -> None:
    path = write(project, "print(seeds, lr, names, profile)")
    assert main(["run", str(path), "-p", "lr", "1", "-p", "names", "['x']"]) == 0
    assert texts(project / "reports/runs/custom/01_tiny.ipynb").strip() == "2 1 ['x'] custom"
    assert names(project / "reports/runs") == ["custom"]


def asked(monkeypatch: pytest.MonkeyPatch, path: Path, name: str, text: str) -> dict[str, Any]:
    """What `python -m graphprune run -p NAME TEXT` hands to the notebook."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(notebook, "_execute", lambda _notebook, _output, values: found.update(values))
    assert main(["run", str(path), "-p", name, text]) == 0
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [("c", ["c"]), ("'c'", ["c"]), ("['c', 'd']", ["c", "d"]), ('["c"]', ["c"]), ("'c', 'd'", ["c", "d"]), ("[]", [])],
)
def test_a_list_takes_one_value_or_several(
    project: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: list[str]
) -> None:
    assert asked(monkeypatch, write(project), "names", text)["names"] == expected


def test_a_list_of_numbers_takes_one_number_from_anywhere(project: Path) -> None:
    path = write(project, parameters="profile = 'laptop'\nseeds = [0, 1]\nsizes = []\non = False")
    (project / "notebooks/profiles/big.yaml").write_text("01_tiny: {seeds: 5}\n")
    assert notebook.settings(path, "big")["seeds"] == [5]
    assert notebook.settings(path, overrides={"seeds": 3, "sizes": "x"}) == {"seeds": [3], "sizes": ["x"], "profile": "custom"}
    assert notebook.settings(path, overrides={"seeds": (0, 1.5)})["seeds"] == [0, 1.5]


def test_json_is_read_where_python_does_not_understand_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(project, parameters="profile = 'laptop'\non = False\nsize = 3")
    assert asked(monkeypatch, path, "on", "true")["on"] is True
    assert asked(monkeypatch, path, "size", "null")["size"] is None


def test_the_profile_is_told_by_the_parameters_alone(project: Path) -> None:
    write(project)
    default = {"seeds": 2, "lr": 0.001, "names": ["a"], "profile": "laptop", "something else": 1}
    assert notebook.profile_of("01_tiny", default) == "laptop"
    assert notebook.profile_of("01_tiny", default | {"profile": "custom"}) == "laptop"
    assert notebook.profile_of("01_tiny", default | {"seeds": 5}) == "big"
    assert notebook.profile_of("01_tiny", default | {"seeds": 3}) is None
    assert notebook.profile_of("01_tiny", default | {"names": ["a", "b"]}) is None
    assert notebook.profile_of("02_elsewhere", default) is None


@pytest.mark.parametrize(("capability", "alike"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_trainings_end_alike_on_processors_with_the_same_instructions(
    capability: str, alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert notebook.trains_alike() is alike


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        ("laptop", {"names": 3}, "names=[3] of 01_tiny: 3 in it must be text, as in ['a']"),
        ("laptop", {"names": {"a": 1}}, "names=[{'a': 1}] of 01_tiny: {'a': 1} in it must be text, as in ['a']"),
        ("laptop", {"names": ["b", True]}, "names=['b', True] of 01_tiny: True in it must be text"),
        ("laptop", {"seeds": [1]}, "seeds=[1] of 01_tiny is a list, but must be a number like 2"),
        ("laptop", {"sedes": 3}, "'sedes' is no parameter of 01_tiny: its parameters are profile, seeds, lr, names"),
        ("biig", {}, "profile='biig' is unknown: use one of laptop, big"),
        ("laptop", {"lr": "1e-3"}, "lr='1e-3' of 01_tiny is text, but must be a number like 0.001"),
        ("laptop", {"seeds": True}, "seeds=True of 01_tiny is a truth value, but must be a number like 2"),
        ("laptop", {"profile": "big", "seeds": 1}, "profile='big' would overwrite that profile's own run"),
    ],
)
def test_wrong_settings_are_named_before_anything_runs(
    project: Path, profile: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        notebook.run(write(project), profile, overrides)
    assert not (project / "reports").exists()


def test_mistyped_name_in_a_profile_is_an_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "notebooks/profiles/big.yaml").write_text("01_tiny: {seds: 5}\n")
    assert main(["run", str(write(project)), "--profile", "big"]) == 2
    assert capsys.readouterr().err.startswith("error: 'seds' is no parameter of 01_tiny")


@pytest.mark.parametrize("content", ["", "01_tiny: 5\n", "- 01_tiny\n"])
def test_profile_that_is_not_nested_by_notebook_is_an_error(project: Path, content: str) -> None:
    (project / "notebooks/profiles/big.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"big\.yaml: must map notebook names"):
        notebook.settings(write(project), "big")


def test_a_table_of_another_profile_is_read_as_it_was_committed(project: Path) -> None:
    folder = project / "reports" / "big"
    assert notebook.published("big", "rows") is None
    folder.mkdir(parents=True)
    (folder / "rows.csv").write_text("way,test\nrandom,0.5\n")
    found = notebook.published("big", "rows")
    assert found is not None
    assert found.to_dict("records") == [{"way": "random", "test": 0.5}]
    with pytest.raises(ValueError, match="profile='cifra' is unknown"):
        notebook.published("cifra", "rows")


def test_profile_runs_the_notebooks_it_names(project: Path) -> None:
    write(project)
    assert notebook.notebooks() == notebook.notebooks("big") == ["01_tiny"]
    (project / "notebooks/profiles/big.yaml").write_text("02_more: {}\n")
    with pytest.raises(ValueError, match="has no entry for '01_tiny': it names 02_more"):
        notebook.settings(write(project), "big")


def test_parameters_are_read_without_running(project: Path) -> None:
    expected = {"profile": "laptop", "seeds": 2, "lr": 0.001, "names": ["a"]}
    assert notebook.parameters(write(project)) == expected
    assert notebook.parameters(write(project, parameters="profile = 'x'\nrates: list = [\n  1,\n  2]")) == {
        "profile": "x",
        "rates": [1, 2],
    }


@pytest.mark.parametrize("line", ["seeds = 2 * 3", "import os", "a, b = 1, 2", "a.b = 1"])
def test_parameters_cell_holds_literals_alone(project: Path, line: str) -> None:
    with pytest.raises(ValueError, match="among the parameters is no literal"):
        notebook.parameters(write(project, parameters=line))


def test_missing_notebook_and_missing_cell_are_named(project: Path) -> None:
    path = write(project)
    with pytest.raises(FileNotFoundError, match="does not exist; notebooks there: 01_tiny"):
        notebook.run(path.with_name("01_tyni.ipynb"))
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(ValueError, match="has 0 cells tagged 'parameters'"):
        notebook.run(path)


def test_long_run_says_how_far_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notebook, "HEARTBEAT", 0.2)
    notebook.run(write(project, "1", "import time; time.sleep(1)"))
    assert "01_tiny [laptop]: 3 of 4 cells" in capsys.readouterr().out
