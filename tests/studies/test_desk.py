"""Table 3 at desk size, rehearsed on digits: whole rows, empty rows, the same result in pieces, and nothing made twice."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import graphprune
from graphprune import models, train
from graphprune.runs import checkpoint
from graphprune.search.funnel import AllFailedError
from graphprune.studies import desk, desk_light, desk_table, paper, reproduction
from graphprune.studies.desk import ARMS, Outcome, Run
from graphprune.training.recipe import Recipe

FULL = Recipe(epochs=0.6, lr=0.05, batch_size=64, precision="bfloat16", distil=True)
SIZES = replace(paper.TINY, m=3, k=1, looks=8, light=replace(FULL, epochs=0.3), full=FULL, n_candidates=200)
PLAN = (("resnet8", 0.5, 0), ("resnet8", 0.5, 1), ("resnet20", 0.6, 0))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plan on digits, and a folder of its own for what is published."""
    monkeypatch.setattr(desk, "BLOCK", 4)
    for module in (desk, desk_table):
        monkeypatch.setattr(module, "PLAN", PLAN)
        monkeypatch.setattr(module, "results_folder", lambda: tmp_path / "published")


def table3(folder: Path, **options: object) -> Outcome:
    return desk.table3("resnet8", folder=folder, name="digits", sizes=SIZES, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk, "PLAN", PLAN)
        patch.setattr(desk, "BLOCK", 4)
        patch.setattr(desk, "results_folder", lambda: folder / "published")
        return folder, table3(folder, seeds=[0])


def test_all_arms_have_equal_macs_and_equal_passes_over_the_images(whole: tuple[Path, Outcome]) -> None:
    runs = whole[1].runs
    assert runs["arm"].tolist() == list(ARMS)
    assert runs["MACs removed"].between(50, 51).all()
    assert runs["epochs"].tolist() == pytest.approx([3 * 0.3 + 0.6] * 5)
    assert runs["networks"].tolist() == [1, 4, 4, 4, 1]
    assert runs["not retrained"].notna().tolist() == [False, True, True, True, False]
    assert (runs["best of k on test"] == runs["accuracy"]).all()  # k = 1
    assert (runs[["core-hours", "latency", "base latency"]] > 0).all(axis=None)


def test_the_lightly_fine_tuned_networks_of_every_searching_arm_are_listed(whole: tuple[Path, Outcome]) -> None:
    light, runs = whole[1].light, whole[1].runs.set_index("arm")
    assert light.groupby("arm", sort=False)["rank"].agg(list).to_dict() == {
        arm: [1, 2, 3] for arm in ("SACP", "random", "class means")
    }
    assert (light["recipe"] == desk.name_recipe(SIZES)).all()
    for arm, part in light.groupby("arm"):
        assert part.loc[part["validation accuracy"].idxmax(), "accuracy"] == pytest.approx(runs.loc[arm, "not retrained"])


def test_the_widths_listed_for_every_run_are_those_of_a_network_with_its_cost(whole: tuple[Path, Outcome]) -> None:
    widths, runs = whole[1].widths, whole[1].runs.set_index("arm")
    model, image = models.build("resnet8", in_channels=1), torch.zeros(1, 1, 8, 8)
    graph = graphprune.trace(model, image)
    for arm, part in widths.groupby("arm"):
        assert part["group"].tolist() == [group.name for group in graph.groups]
        first = [torch.arange(c) < k for c, k in zip(part["channels"], part["kept"], strict=True)]
        small = graphprune.prune(model, graph, dict(zip(part["group"], first, strict=True)))
        assert (graphprune.cost(small, image).macs, graphprune.cost(small, image).params) == tuple(
            runs.loc[arm, ["macs", "params"]]
        )
    assert set(widths["arm"]) == set(ARMS)


def test_what_class_means_pays_for_its_looks_is_counted(whole: tuple[Path, Outcome]) -> None:
    runs = whole[1].runs.set_index("arm")
    assert len(list(whole[0].glob("looks-*.safetensors"))) == 2  # 8 looks, 4 at a time
    assert 0 < runs.loc["class means", "ranking core-hours"] < runs.loc["class means", "core-hours"]
    assert runs.loc["uniform L1", "ranking core-hours"] == 0


class ThirtyLooks(checkpoint.Clock):
    """Time is up when it has been asked for thirty times, on however slow a machine."""

    looks = 0

    @property
    def late(self) -> bool:
        self.looks += 1
        return self.looks > 30


def test_in_pieces_it_is_the_same(whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in whole[0].glob("base-*"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(checkpoint, "Clock", ThirtyLooks)
    monkeypatch.setattr(reproduction, "Clock", ThirtyLooks)
    arms = ["uniform L1", "class means"]
    outcomes = [table3(tmp_path, seeds=[0], names=arms, minutes=1)]
    while not outcomes[-1].done:
        assert len(outcomes) < 200
        assert "the same command goes on from there" in outcomes[-1].says
        outcomes.append(table3(tmp_path, seeds=[0], names=arms, minutes=1))
    assert any(re.search(r"full training \w+, step \d", outcome.says) for outcome in outcomes)
    expected = whole[1].runs[whole[1].runs["arm"].isin(arms)].reset_index(drop=True)
    facts = ["arm", "accuracy", "not retrained", "validation accuracy", "macs", "params", "epochs"]
    pd.testing.assert_frame_equal(outcomes[-1].runs[facts], expected[facts])
    assert not list(tmp_path.rglob("*.training"))


KILLED = """
    import sys; sys.path[:0] = {tests!r}
    import test_desk
    from pathlib import Path
    from graphprune.runs import checkpoint
    from graphprune.studies import desk
    checkpoint.EVERY, desk.PLAN, desk.results_folder = 0.0, test_desk.PLAN, lambda: Path({folder!r})
    test_desk.table3(Path({folder!r}), seeds=[0], names=["uniform L1"])
"""


def test_killed_within_a_training_it_goes_on_with_it(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = textwrap.dedent(KILLED).format(tests=[str(folder) for folder in Path(__file__).parents[:2]], folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "GRAPHPRUNE_QUIET": "1"})
    while not list(tmp_path.glob("full/*.training")):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    (state,) = tmp_path.glob("full/*.training")
    begun, steps, step = state.exists(), [], train._step
    monkeypatch.setattr(train, "_step", lambda *options: steps.append(1) or step(*options))  # type: ignore[func-returns-value]
    again = table3(tmp_path, seeds=[0], names=["uniform L1"])
    assert begun
    assert len(steps) < FULL.steps_per_epoch(1137) * 1.5  # some were done before
    assert again.runs["accuracy"].tolist() == whole[1].runs["accuracy"].tolist()[:1]
    assert not state.exists()


def test_a_run_without_a_network_left_is_no_end_for_the_others_and_a_defect_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(experiment: object, run: Run) -> dict[str, object]:
        raise AllFailedError("all 3 have failed") if run.arm == "SACP" else RuntimeError("trainings failed, says another error")

    monkeypatch.setattr(desk, "complete_run", fail)
    outcome = table3(tmp_path, seeds=[0], names=["SACP"])
    assert not outcome.done
    assert "0 of 1 runs; stopped in 'SACP': all 3 have failed" in outcome.says
    with pytest.raises(RuntimeError, match="says another error"):
        table3(tmp_path, seeds=[0], names=["random"])


# --- what is published --------------------------------------------------------------------------------------------------


def test_a_published_run_is_not_made_again_and_others_are_added(
    whole: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk_table.publish(replace(whole[1], runs=whole[1].runs[:2]), SIZES)
    monkeypatch.setattr(desk, "complete_run", None)
    again = table3(tmp_path / "empty", seeds=[0], names=["SACP"])
    assert again.done
    assert again.runs["accuracy"].tolist() == pytest.approx(whole[1].runs["accuracy"].tolist()[1:2], rel=1e-5)
    assert desk.load_committed(replace(SIZES, m=4)).empty  # another recipe's rows are not these
    desk_table.publish(replace(whole[1], runs=whole[1].runs[2:]), SIZES)
    assert desk.load_committed(SIZES)["arm"].tolist() == list(ARMS)
    light = desk_light.load_light(SIZES)
    assert light[["arm", "rank"]].to_numpy().tolist() == [
        [arm, rank] for arm in ("SACP", "random", "class means") for rank in (1, 2, 3)
    ]


def test_the_plan_holds_the_order_and_the_window() -> None:
    assert Run("resnet56a", 0.781, "SACP", 0).window == (0.209, 0.219)
    runs = desk.plan_runs(["resnet8"])
    assert [(run.seed, run.arm) for run in runs] == [(seed, arm) for seed in (0, 1) for arm in ARMS]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"net": "vgg16"}, "net='vgg16': the plan of recipe desk has resnet20, resnet8"),
        ({"net": "resnet8", "removed": [0.7]}, "removed=0.7: the plan of recipe desk has 0.5"),
        ({"net": "resnet8", "seeds": [5]}, "seeds=5: the plan of recipe desk has 0, 1"),
        ({"net": "resnet8", "names": ["sacp"]}, "names='sacp': the plan of recipe desk has SACP, class means"),
        ({"net": "resnet8", "minutes": -1}, "minutes=-1: must be above 0"),
    ],
)
def test_what_is_not_planned_is_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        desk.table3(**arguments)  # type: ignore[arg-type]
