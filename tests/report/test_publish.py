"""What publish copies, and what it leaves byte for byte as committed."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from graphprune.__main__ import main
from graphprune.report import publish
from graphprune.runs import store

HEADER = "name,value,unit,n,low,high,seeds,hardware,volatile,note\n"
RESULTS = HEADER + "accuracy,0.98,share,5,,,0-4,{cpu},no,\nspeed,{ms},ms,1,,,,{cpu},yes,\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "graphprune"\n')
    monkeypatch.chdir(tmp_path)
    finish(tmp_path, "01_a", {"results.csv": RESULTS.format(cpu="2 cores", ms="3.1"), "t.csv": "rate,macs\n0.1,90\n"})
    return tmp_path


def finish(project: Path, stem: str, files: dict[str, str]) -> Path:
    """A finished run of the notebook `stem` that wrote `files`."""
    folder = project / "reports/runs/laptop" / stem
    folder.mkdir(parents=True, exist_ok=True)
    folder.with_suffix(".ipynb").write_text("{}")
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def published(project: Path) -> dict[str, str]:
    folder = project / "reports/laptop"
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*.csv"))}


def test_results_are_merged_with_a_row_a_number(project: Path) -> None:
    finish(project, "02_b", {"results.csv": HEADER + "rho,0.10,,1,,,0,2 cores,no,\n"})
    changed = [path.as_posix() for path in publish.publish()]
    assert changed == ["reports/laptop/01_a/t.csv", "reports/laptop/results.csv"]
    assert published(project) == {
        "01_a/t.csv": "rate,macs\n0.1,90\n",
        "results.csv": f"notebook,{HEADER}"
        "01_a,accuracy,0.98,share,5,,,0-4,2 cores,no,\n"
        "01_a,speed,3.1,ms,1,,,,2 cores,yes,\n"
        "02_b,rho,0.10,,1,,,0,2 cores,no,\n",
    }
    assert not list((project / "reports/laptop").rglob("*.ipynb"))


def test_what_varies_from_run_to_run_changes_nothing(project: Path) -> None:
    finish(project, "01_a", {"u.csv": 'rate,seconds,latency_ms,"latency, %"\n0.1,5.0,2.2,20\n'})
    publish.publish()
    before = published(project)
    finish(
        project,
        "01_a",
        {
            "results.csv": RESULTS.format(cpu="64 cores", ms="0.2"),
            "u.csv": 'rate,seconds,latency_ms,"latency, %"\n0.1,6.0,2.9,30\n',
        },
    )
    assert publish.publish() == []
    assert published(project) == before


def test_one_changed_number_renews_its_notebook_alone(project: Path) -> None:
    finish(project, "02_b", {"results.csv": RESULTS.format(cpu="2 cores", ms="3.1")})
    publish.publish()
    finish(project, "01_a", {"results.csv": RESULTS.format(cpu="2 cores", ms="4.4").replace("0.98", "0.97")})
    finish(project, "02_b", {"results.csv": RESULTS.format(cpu="2 cores", ms="5.5")})
    assert publish.compare()[-2:] == [
        "laptop/results.csv: 1 of 20 values differ",
        "  01_a accuracy value: 0.98 -> 0.97",
    ]
    publish.publish()
    values = [line.split(",")[:3] for line in published(project)["results.csv"].splitlines()[1:]]
    assert values == [
        ["01_a", "accuracy", "0.97"],
        ["01_a", "speed", "4.4"],
        ["02_b", "accuracy", "0.98"],
        ["02_b", "speed", "3.1"],
    ]


def test_failed_notebook_keeps_its_committed_results(project: Path) -> None:
    publish.publish()
    before = published(project)
    finish(project, "01_a", {"t.csv": "rate,macs\n0.1,0\n"})
    (project / "reports/runs/laptop/01_a.failed.ipynb").write_text("{}")
    finish(project, "02_b", {"t.csv": "a\n1\n"})
    publish.publish()
    assert published(project) == before | {"02_b/t.csv": "a\n1\n"}


def test_table_that_is_no_longer_written_is_removed(project: Path) -> None:
    publish.publish()
    (project / "reports/runs/laptop/01_a/t.csv").unlink()
    assert [path.as_posix() for path in publish.publish()] == ["reports/laptop/01_a/t.csv"]
    assert list(published(project)) == ["results.csv"]


def test_figure_changes_with_its_picture_only(project: Path) -> None:
    folder = project / "reports/runs/laptop/01_a"
    matplotlib.image.imsave(folder / "f.png", np.eye(3), metadata={"Software": "one"})
    publish.publish()
    matplotlib.image.imsave(folder / "f.png", np.eye(3), metadata={"Software": "two"})
    assert publish.publish() == []
    matplotlib.image.imsave(folder / "f.png", np.eye(4))
    assert [path.name for path in publish.publish()] == ["f.png"]


def test_figure_of_latencies_is_published_once(project: Path) -> None:
    folder = project / "reports/runs/laptop/01_a"
    matplotlib.image.imsave(folder / "pareto_latency.png", np.eye(3))
    assert "pareto_latency.png" in [path.name for path in publish.publish()]
    matplotlib.image.imsave(folder / "pareto_latency.png", np.eye(4))
    assert publish.publish() == []


def test_svg_ids_and_dates_are_no_change(project: Path) -> None:
    svg = '<svg><dc:date>{0}</dc:date><clipPath id="p{0}"/><path clip-path="url(#p{0})" d="M {1}"/></svg>'
    finish(project, "01_a", {"f.svg": svg.format("2025", 1)})
    publish.publish()
    finish(project, "01_a", {"f.svg": svg.format("2026", 1)})
    assert publish.publish() == []
    finish(project, "01_a", {"f.svg": svg.format("2026", 2)})
    assert [path.name for path in publish.publish()] == ["f.svg"]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("rate,macs\n0.1,90\n", "laptop/01_a/t.csv: as committed"),
        ("rate,macs\n0.1,91\n", "laptop/01_a/t.csv: 1 of 2 values differ"),
        ("rate,macs\n0.1,90\n0.2,80\n", "laptop/01_a/t.csv: 1 rows before, 2 now"),
        ("rate,params\n0.1,90\n", "laptop/01_a/t.csv: columns were rate, macs and are rate, params"),
    ],
)
def test_compare_says_what_differs(project: Path, table: str, line: str) -> None:
    assert publish.compare()[0] == "laptop/01_a/t.csv: new, 1 rows"
    publish.publish()
    finish(project, "01_a", {"t.csv": table})
    assert publish.compare()[0] == line


def test_nothing_to_publish_and_unknown_profile_are_errors(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "notebooks/profiles").mkdir(parents=True)
    (project / "notebooks/profiles/cifar.yaml").write_text("01_a: {}\n")
    assert main(["publish", "--profile", "cifar"]) == 2
    assert "has no finished run: make report PROFILE=cifar first" in capsys.readouterr().err
    assert main(["compare", "--profile", "cifra"]) == 2
    assert "profile='cifra' is unknown: use one of laptop, cifar" in capsys.readouterr().err
    assert publish.compare("cifar") == ["cifar: no notebook has finished, nothing to compare"]


def test_volatile_rows_are_those_that_results_marks(project: Path) -> None:
    folder = finish(project, "02_b", {})
    for seconds in (1.0, 2.0):
        results = store.Results(folder / "results.csv")
        results.add("accuracy", 0.98, "share")
        results.add("run time", seconds, "s", volatile=True)
        results.save()
        publish.publish()
    assert "02_b,run time,1," in published(project)["results.csv"]
