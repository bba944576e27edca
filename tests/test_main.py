"""The command line: what it hands on, what it prints, and what it answers to bad input."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from graphprune.__main__ import main
from graphprune.report import notebook, publish
from graphprune.studies import contest, desk, reproduction

REPRODUCE = ["reproduce", "table3", "--net", "resnet8"]


class Noted:
    """A function that notes what it was called with, and gives `answer` or raises it."""

    def __init__(self, answer: Any = None) -> None:
        self.answer, self.calls = answer, list[Any]()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(args if not kwargs else (args, kwargs))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Noted:
    noted = Noted()
    monkeypatch.setattr(notebook, "run", noted)
    return noted


# --- run --------------------------------------------------------------------------------------------------------------


def test_run_takes_the_laptops_profile_unless_told(run: Noted) -> None:
    assert main(["run", "a.ipynb"]) == main(["run", "a.ipynb", "--profile", "cifar"]) == 0
    assert run.calls == [(Path("a.ipynb"), "laptop", {}), (Path("a.ipynb"), "cifar", {})]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-0.5", -0.5), ("1e-3", 0.001), ("True", True), ("true", True), ("None", None), ("null", None),
        ("[0, 1]", [0, 1]), ("(0, 1)", (0, 1)), ('{"a": true}', {"a": True}), ("'5'", "5"), ("l1", "l1"), ("", ""),
        ("1 +", "1 +"),
    ],
)  # fmt: skip
def test_a_parameter_is_a_literal_of_python_or_json_or_else_text(run: Noted, text: str, value: object) -> None:
    assert main(["run", "a.ipynb", "-p", "x", text]) == 0
    assert run.calls == [(Path("a.ipynb"), "laptop", {"x": value})]
    assert type(run.calls[0][2]["x"]) is type(value)


def test_several_parameters_are_all_handed_on(run: Noted) -> None:
    assert main(["run", "a.ipynb", "-p", "m", "5", "-p", "profile", "mine"]) == 0
    assert run.calls == [(Path("a.ipynb"), "laptop", {"m": 5, "profile": "mine"})]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (notebook.NotebookFailed("cell 3 failed"), 1, "cell 3 failed\n"),
        (ValueError("lr=0: must be above 0"), 2, "error: lr=0: must be above 0\n"),
        (TypeError("m='5' is text"), 2, "error: m='5' is text\n"),
        (FileNotFoundError("a.ipynb does not exist"), 2, "error: a.ipynb does not exist\n"),
    ],
)
def test_a_failure_is_one_line_and_a_number(
    run: Noted, capsys: pytest.CaptureFixture[str], error: Exception, code: int, says: str
) -> None:
    run.answer = error
    assert main(["run", "a.ipynb"]) == code
    assert capsys.readouterr() == ("", says)


def test_a_fault_of_ours_is_not_hidden(run: Noted) -> None:
    run.answer = KeyError("ours")
    with pytest.raises(KeyError):
        main(["run", "a.ipynb"])


@pytest.mark.parametrize("arguments", [[], ["rnu"], ["run"], ["run", "a.ipynb", "-p", "m"], ["reproduce", "table3"]])
def test_an_incomplete_command_says_how_it_goes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m graphprune")


def test_the_module_answers_as_main_does() -> None:
    done = subprocess.run([sys.executable, "-m", "graphprune", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"\n    {command}" in done.stdout for command in ("run", "compare", "publish", "tabular", "reproduce"))
    wrong = subprocess.run([sys.executable, "-m", "graphprune", "run", "gone.ipynb"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")


# --- compare, publish, tabular ----------------------------------------------------------------------------------------


def test_compare_prints_its_lines_and_publish_what_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compared, published = Noted(["a.csv: as committed", "b.csv: new, 1 rows"]), Noted([Path("b.csv")])
    monkeypatch.setattr(publish, "compare", compared)
    monkeypatch.setattr(publish, "publish", published)
    assert main(["compare", "--profile", "cifar"]) == main(["publish"]) == 0
    assert capsys.readouterr().out == "a.csv: as committed\nb.csv: new, 1 rows\nchanged b.csv\n"
    assert (compared.calls, published.calls) == ([("cifar",)], [("laptop",)])
    published.answer = []
    assert main(["publish"]) == 0
    assert capsys.readouterr().out == "the committed results are up to date\n"


def test_tabular_says_what_it_wrote(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    build = Noted(Path("digits.parquet"))
    monkeypatch.setattr(contest, "build", build)
    assert main(["tabular", "digits"]) == 0
    assert (build.calls, capsys.readouterr().out) == ([("digits",)], "wrote digits.parquet\n")


# --- reproduce --------------------------------------------------------------------------------------------------------


def test_reproduce_hands_its_limits_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done = reproduction.Outcome(pd.DataFrame({"method": ["Base"]}), True, "table3 resnet8: complete")
    noted = Noted(done)
    monkeypatch.setattr(reproduction, "reproduce", noted)
    assert main([*REPRODUCE, "--recipe", "tiny", "--minutes", "0.5", "--folder", "x", "--n-jobs", "2"]) == 0
    assert noted.calls == [("table3", "resnet8", "tiny", 0.5, Path("x"), None, 2)]
    assert "table3 resnet8: complete" in capsys.readouterr().out


def test_recipe_desk_does_the_runs_it_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    noted = Noted(desk.Outcome(pd.DataFrame(), False, "0 of 1 runs"))
    monkeypatch.setattr(desk, "table3", noted)
    only = ["--seeds", "0", "1", "--removed", "0.5", "--arms", "uniform L1", "SACP"]
    assert main(["reproduce", "table3", "--net", "resnet20a", "--recipe", "desk", *only, "--data", "digits"]) == 0
    chosen = {"seeds": [0, 1], "removed": [0.5], "names": ["uniform L1", "SACP"]}
    assert noted.calls == [(("resnet20a",), chosen | {"minutes": None, "folder": None, "name": "digits", "n_jobs": 1})]
    assert capsys.readouterr().out == "0 of 1 runs\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*REPRODUCE, "--recipe", "tiny", "--publish"], "--recipe paper and desk alone, not of 'tiny'"),
        ([*REPRODUCE, "--recipe", "tiny", "--seeds", "1"], "--seeds: recipe desk alone has it, not 'tiny'"),
        ([*REPRODUCE, "--arms", "SACP"], "--arms: recipe desk alone has it, not 'paper'"),
        ([*REPRODUCE, "--recipe", "dusk"], "recipe='dusk': there are paper (the paper's sizes), desk (table3 alone) and tiny"),
        (["reproduce", "table4", "--net", "resnet20a", "--recipe", "desk"], "table='table4': recipe desk has table3 alone"),
    ],
)
def test_a_recipe_that_has_no_such_thing_says_so(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- own --------------------------------------------------------------------------------------------------------------


def test_own_prunes_and_says_where_it_wrote_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    quick = ["--data", "digits", "--epochs", "0.1", "--round-to", "2", "--macs", "0.6"]
    assert main(["own", "tiny_cnn", *quick, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for name in ("small.safetensors", "small.onnx", "result.json", "report.html"):
        assert f"wrote {out / name}" in printed
        assert (out / name).is_file()
    assert "macs: 18,462 -> " in printed


def test_own_answers_bad_input_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["own", "nothing:here", "--data", "digits", "--out", str(tmp_path)]) == 2
    assert "error: model='nothing:here'" in capsys.readouterr().err
