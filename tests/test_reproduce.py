"""A table made in pieces, killed and moved, is the table made at once; it is small enough to carry and needs little."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from noise import noise

from graphprune import paper
from graphprune.__main__ import main
from graphprune.checkpoint import Clock, Paused
from graphprune.pieces import Pieces
from graphprune.recipe import Recipe
from graphprune.reproduce import COLUMNS, LIMIT, TABLES, Outcome, markdown, publish, reproduce
from graphprune.space import kept_masks

COMMAND = ["reproduce", "table3", "--net", "resnet8", "--recipe", "tiny", "--folder"]


def tiny(folder: Path, minutes: float, table: str = "table3") -> Outcome:
    return reproduce(table, "resnet8", "tiny", minutes, folder)


def bits(outcome: Outcome) -> pd.DataFrame:
    return outcome.table.drop(columns="hours")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Table 3 in one go."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, tiny(folder, 10)


def killed(folder: Path, networks: int) -> None:
    """A process that is killed when it has trained so many networks."""
    process = subprocess.Popen([sys.executable, "-m", "graphprune", *COMMAND, str(folder), "--minutes", "10"])
    results = folder / "results.jsonl"
    while not results.exists() or results.read_text().count('["network ') < networks:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_moved_and_in_pieces_it_is_the_same_table(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    killed(tmp_path / "here", networks=3)
    (tmp_path / "here").rename(tmp_path / "there")
    outcomes = [tiny(tmp_path / "there", 0.01)]
    while not outcomes[-1].done:
        assert len(outcomes) < 100
        outcomes.append(tiny(tmp_path / "there", 0.01))
    assert len(outcomes) > 3
    assert any("step" in outcome.says for outcome in outcomes), "none was stopped in the middle of a training"
    assert bits(outcomes[-1]).equals(bits(whole[1]))
    assert not list((tmp_path / "there" / "training").iterdir())


def test_a_complete_table_has_no_empty_row_and_is_not_made_again(whole: tuple[Path, Outcome]) -> None:
    folder, outcome = whole
    assert outcome.done
    assert outcome.says.startswith("table3 resnet8: 7 of 7 rows")
    assert (outcome.table[COLUMNS[:8]] != "").all(axis=None)
    started = time.process_time()
    assert tiny(folder, 1e-6).table.equals(outcome.table)
    assert time.process_time() - started < 2


def test_rows_not_done_are_empty_and_those_done_are_shown(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    outcome = tiny(tmp_path, 1e-6)
    assert "0 of 7 rows" in outcome.says
    assert "stopped in 'Base' (base network, step 1)" in outcome.says
    assert (outcome.table.drop(columns="method") == "").all(axis=None)
    assert markdown(outcome).count(f"|{'  |' * (len(COLUMNS) - 1)}\n") == 7
    other = tiny(whole[0], 1e-6, "table4").table.set_index("method")
    assert (other.loc["SACP-2"] != "").sum() == (other.loc["SACP"] != "").sum() > 10  # of networks that table 3 has trained
    assert (other.loc["SACP-1"] == "").all()


def test_figure_2_and_table_4_share_what_table_3_trained(whole: tuple[Path, Outcome]) -> None:
    for table, rows in (("table4", 4), ("figure2", 4)):
        outcome = tiny(whole[0], 10, table)
        assert outcome.done
        assert len(outcome.table) == rows
    best = outcome.table.set_index("method")["accuracy, %"]
    assert best["m = 4, k = 2"] == whole[1].table.set_index("method")["accuracy, %"]["SACP"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"table": "table5"}, "table='table5': there are table3, table4, figure2"),
        ({"net": "resnet50"}, "net='resnet50': recipe tiny has vgg16, resnet18, resnet56, resnet20a, resnet8"),
        ({"recipe": "papr"}, "recipe='papr': there are paper .* and tiny"),
        ({"minutes": 0}, "minutes=0: must be above 0"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(changes: dict[str, object], says: str, tmp_path: Path) -> None:
    arguments = {"table": "table3", "net": "resnet8", "recipe": "tiny", "minutes": 1.0, "folder": tmp_path} | changes
    with pytest.raises(ValueError, match=says):
        reproduce(**arguments)  # type: ignore[arg-type]


def test_a_folder_of_another_experiment_is_refused(whole: tuple[Path, Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["reproduce", "table3", "--net", "resnet18", "--recipe", "tiny", "--minutes", "1", "--folder", str(whole[0])]) == 2
    )
    assert "holds another experiment" in capsys.readouterr().err


def test_only_the_papers_size_is_published(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*COMMAND, str(tmp_path), "--minutes", "1", "--publish"]) == 2
    assert "--recipe paper alone" in capsys.readouterr().err


def test_published_rows_are_those_of_the_table(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    csv, md = publish(whole[1], "table3", "resnet8")
    assert csv == tmp_path / "reports" / "paper" / "table3-resnet8.csv"
    assert pd.read_csv(csv, dtype=str, keep_default_na=False).equals(whole[1].table)
    assert whole[1].says in md.read_text()


# --- what it needs, what is carried ------------------------------------------------------------------------------------

BARE = """
import sys
sys.modules.update(dict.fromkeys({absent}))  # to import one fails, as if it were not installed
from graphprune import data
from graphprune.__main__ import main
sys.path.insert(0, {tests!r})
from noise import noise
data.load = lambda name: noise(200, 1, 8)
sys.exit(sum(main(command) for command in {commands}))
"""
ABSENT = ["IPython", "ipykernel", "jupyter_core", "nbclient", "nbformat", "papermill", "pyarrow", "matplotlib", "seaborn"]
ABSENT += ["scipy", "sklearn", "joblib", "cloudpickle", "safetensors", "yaml", "timm", "dask"]


def test_it_needs_neither_jupyter_nor_scipy(tmp_path: Path) -> None:
    commands = [[COMMAND[0], table, *COMMAND[2:], str(tmp_path), "--minutes", "5"] for table in TABLES]
    script = BARE.format(absent=ABSENT, tests=str(Path(__file__).parent), commands=commands)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("; complete") == len(TABLES)


def carried(folder: Path) -> int:
    """Bytes in all; no file has more than 16 MiB."""
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    assert max(sizes) <= 16 << 20
    return sum(sizes)


def test_vgg16_at_the_papers_size_stays_below_48_mib(tmp_path: Path) -> None:
    """14.7 million parameters: the base network in training, the same when done, and beside it the largest pruned one."""
    step = Recipe(epochs=1, lr=0.01, batch_size=2)
    sizes = replace(paper.SIZES["vgg16"], base=step, full=step)

    def pieces() -> Pieces:
        return Pieces("vgg16", noise(4, 3, 32), sizes, tmp_path, Clock(0))

    for _ in range(2):
        with pytest.raises(Paused, match="base network, step"):
            _ = pieces().base
        assert 42 << 20 < carried(tmp_path) <= LIMIT
    model, row = pieces().base
    assert row["rounded"] == 2
    assert 28 << 20 < carried(tmp_path) < 29 << 20
    assert sum(parameter.numel() for parameter in model.parameters()) == 14_728_266
    found = pieces()
    indices = torch.tensor([9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0])  # tau = 0.6 leaves at most this many parameters
    assert 0.57 < found.funnel().window.space.ratio(indices[None]).item() < 0.6
    kept = kept_masks(found.graph, indices[None], found.scores)
    with pytest.raises(Paused, match="retraining 1 of 1, step 1"):
        found.networks("retraining", kept, sizes.full)
    assert 42 << 20 < carried(tmp_path) <= LIMIT


def test_small_networks_in_training_are_carried_exactly(tmp_path: Path) -> None:
    sizes = replace(paper.SIZES["resnet56"], base=Recipe(epochs=1, lr=0.01, batch_size=2))
    for _ in range(2):
        with pytest.raises(Paused):
            _ = Pieces("resnet56", noise(4, 3, 8), sizes, tmp_path, Clock(0)).base
    assert Pieces("resnet56", noise(4, 3, 8), sizes, tmp_path, Clock(0)).base[1]["rounded"] == 0


@pytest.mark.parametrize("net", ["vgg16", "resnet18", "resnet56"])
def test_the_printed_cost_lies_in_the_window(net: str) -> None:
    low, high = paper.SIZES[net].macs_window
    assert low < 1 - paper.TABLE3[net]["SACP"].flops_cut / 100 < high
