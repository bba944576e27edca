"""Table 3 at desk size: CIFAR-10 networks trained to the end in hours on one core, all arms at equal MACs and equal retraining.

The base networks have public weights, so that validation and test are the two halves of the test images
(`Dataset.for_public_weights`). A run is one network, one share of MACs removed, one arm and one seed: m light fine-tunings,
k retrained, one chosen on validation. Runs are done in the order of `PLAN` and are kept in reports/paper/table3_desk_runs.csv
once published; a run that stands there is not made again. What is not done is an empty row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from graphprune.pruning import latency
from graphprune.ranking.class_means import ClassMeans
from graphprune.ranking.distilled import Distilled, Lessons
from graphprune.ranking.surrogate import tilted
from graphprune.runs import runtime, store
from graphprune.runs.checkpoint import Paused
from graphprune.runs.description import described, modules
from graphprune.runs.runtime import seed_generator
from graphprune.search import baselines
from graphprune.search.funnel import AllFailedError, SearchResult, sort_trials
from graphprune.studies import paper
from graphprune.studies.census import LOOKED
from graphprune.studies.paper import Sizes
from graphprune.studies.reproduction import Experiment, light_rows, lock_results, make_clock
from graphprune.training import data
from graphprune.training.splits import TensorSplit, stratified

PLAN: tuple[tuple[str, float, int], ...] = (  # network, share of MACs removed, seed: the most telling first
    ("resnet20a", 0.50, 0),
    ("resnet20a", 0.50, 1),
    ("resnet56a", 0.781, 0),
    ("resnet56a", 0.50, 0),
    ("resnet20a", 0.60, 0),
    ("resnet56a", 0.781, 1),
    ("resnet56a", 0.50, 1),
    ("resnet20a", 0.60, 1),
)
NETWORKS = tuple(dict.fromkeys(network for network, _, _ in PLAN))
ARMS = ("uniform L1", "SACP", "random", "class means", "global L1")
KEY = ["network", "aim", "arm", "seed", "recipe"]
LATENCY = {"batch": 64, "repeats": 60}
BLOCK = 32  # looks stored at a time


@dataclass(frozen=True)
class Run:
    """One arm on one network at one cost under one seed.

    Attributes:
        aim: share of the MACs removed, at least; at most a hundredth more.
    """

    network: str
    aim: float
    arm: str
    seed: int

    @property
    def window(self) -> tuple[float, float]:
        """Shares of MACs that stay."""
        return round(1 - self.aim - 0.01, 6), round(1 - self.aim, 6)


def plan_runs(networks: Iterable[str]) -> list[Run]:
    """All runs on these networks, in the order in which they are done."""
    wanted = set(networks)
    return [Run(network, aim, arm, seed) for network, aim, seed in PLAN if network in wanted for arm in ARMS]


# --- one run ------------------------------------------------------------------------------------------------------------


def complete_run(experiment: Experiment, run: Run) -> dict[str, Any]:
    """A run's row: made, or loaded where it was made before.

    Raises:
        checkpoint.Paused: the experiment's time is up.
    """
    sizes = experiment.sizes
    parameters = {"aim": run.aim, "arm": run.arm, "sizes": sizes, "net": experiment.net}
    row: dict[str, Any] = experiment.funnel(run.window).stage(
        "run.json", lambda: _row(experiment, run), ("studies.desk",), **parameters
    )
    return row


def _row(experiment: Experiment, run: Run) -> dict[str, Any]:
    result, before = _searched(experiment, run)
    full, light = result.trials[result.trials["stage"] == "full"], light_rows(result)
    small, whole = experiment.cost(result.model), experiment.whole
    example = experiment.data.example(LATENCY["batch"])
    ms = [latency.latency(net, example, LATENCY["repeats"], threads=1).low_ms for net in (result.model, experiment.model)]
    return {
        "network": run.network,
        "aim": run.aim,
        "arm": run.arm,
        "seed": run.seed,
        "recipe": name_recipe(experiment.sizes),
        "accuracy": 100 * result.best["accuracy_test"],
        "base accuracy": 100 * whole["accuracy_test"],
        "best of k on test": 100 * float(full["accuracy_test"].max()),
        "not retrained": None if light.empty else 100 * float(sort_trials(light, "accuracy")["accuracy_test"].iloc[0]),
        "validation accuracy": 100 * result.best["accuracy_val"],
        "macs": small["macs"],
        "MACs removed": 100 * (1 - small["macs"] / whole["macs"]),
        "FLOPs removed": 100 * (1 - small["flops"] / whole["flops"]),
        "params": small["params"],
        "params removed": 100 * (1 - small["params"] / whole["params"]),
        "latency": ms[0],
        "base latency": ms[1],
        "core-hours": (result.core_seconds + before) / 3600,
        "ranking core-hours": (result.ranking_seconds + before) / 3600,
        "epochs": result.epochs,
        "networks": len(result.trials),
        "failed": int((result.trials["failed"] != "").sum()),
        "hardware": runtime.hardware(),
        "light": list_light(light),
        "widths": list_widths(result.keep),
    }


def list_light(light: pd.DataFrame) -> list[dict[str, Any]]:
    """A run's lightly fine-tuned networks in the order of their ranks, accuracies in per cent.

    >>> trial = {"rank": 1, "macs": 500, "params": 40, "accuracy_val": 0.5, "accuracy_test": 0.25, "seconds": 3.0}
    >>> list_light(pd.DataFrame([trial]))
    [{'rank': 1, 'macs': 500, 'params': 40, 'validation accuracy': 50.0, 'accuracy': 25.0}]
    """
    ordered = light.sort_values("rank")
    columns = {name: ordered[name] for name in ("rank", "macs", "params")}
    columns |= {"validation accuracy": 100 * ordered["accuracy_val"], "accuracy": 100 * ordered["accuracy_test"]}
    rows: list[dict[Any, Any]] = pd.DataFrame(columns).to_dict("records")
    return rows


def list_widths(keep: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """What the chosen network keeps of every group, in the order of the data flow.

    >>> list_widths({"conv1": torch.tensor([True, False, True])})
    [{'group': 'conv1', 'channels': 3, 'kept': 2}]
    """
    return [{"group": name, "channels": len(mask), "kept": int(mask.sum())} for name, mask in keep.items()]


def _searched(experiment: Experiment, run: Run) -> tuple[SearchResult, float]:
    """What a run found, and the processor time of what came before its ranking."""
    if run.arm == "SACP":
        return experiment.sacp(run.window), 0.0
    if run.arm == "class means":
        ranker, seconds = teach_class_means(experiment, run)
        return experiment.sacp(run.window, ranker), seconds
    arm = {"uniform L1": baselines.uniform_l1, "global L1": baselines.global_l1, "random": baselines.random_search}[run.arm]
    return experiment.arm(arm, run.window), 0.0


def teach_class_means(experiment: Experiment, run: Run) -> tuple[Distilled, float]:
    """The suite's own ranker, with what its teacher says, stored as it is said; and the processor time of all looks."""
    funnel, teacher = experiment.funnel(run.window), ClassMeans(_looked(experiment.data), seed=experiment.seed)
    generator = seed_generator(experiment.seed, "lessons")
    indices = tilted(len(experiment.graph.groups), experiment.sizes.looks, generator)
    known = {"teacher": described(teacher), "looks": len(indices)}

    def look(rows: Tensor) -> dict[str, Tensor]:
        started = time.process_time()
        with runtime.threads(1):
            taught = teacher(experiment.graph, experiment.model, rows)
        return {"taught": taught, "core_seconds": torch.tensor(time.process_time() - started, dtype=torch.float64)}

    parts = [
        funnel.stage("looks.safetensors", partial(look, rows), ("ranking.surrogate", *modules(teacher)), block=number, **known)
        for number, rows in enumerate(indices.split(BLOCK))
    ]
    lessons = Lessons(indices, torch.cat([part["taught"] for part in parts]))
    seconds = sum(part["core_seconds"].item() for part in parts)
    return Distilled(teacher, len(indices), seed=experiment.seed, lessons=lessons), seconds


def _looked(images: data.Dataset) -> data.Dataset:
    """The same with a few hundred validation images, as many as an untrained network is judged by."""
    if len(images.val) <= LOOKED or not isinstance(images.val, TensorSplit):
        return images
    return replace(images, val=images.val.take(stratified(images.val.labels, LOOKED)[1]))


def name_recipe(sizes: Sizes) -> str:
    """A short name for all numbers of a recipe."""
    return store.digest(sizes)[:12]


# --- all runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What there is so far.

    Attributes:
        runs: a row for each run that is done.
        done: all runs asked for are.
        says: a line that says how far it is.
        light: a row for each lightly fine-tuned network of the runs made in this folder, with the columns of `KEY`.
        widths: likewise for each group of the network that a run chose.
    """

    runs: pd.DataFrame
    done: bool
    says: str
    light: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=KEY))
    widths: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=KEY))


def table3(
    net: str,
    *,
    seeds: Sequence[int] | None = None,
    removed: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    minutes: float | None = None,
    folder: Path | None = None,
    name: str = "cifar10",
    n_jobs: int = 1,
    sizes: Sizes = paper.DESK,
) -> Outcome:
    """Do the runs planned for a network, and go on where the last call on this folder stopped.

    Args:
        net: "resnet20a" or "resnet56a".
        seeds, removed, names: only those runs of the plan with these seeds, shares of MACs removed and arms; all unless given.
        minutes: when to stop, storing everything; when all is done unless given.
        folder: where everything is stored; reports/runs/reproduce/desk-NET.
        name: the data set's.
        n_jobs: networks trained at once, as in `Funnel`.
        sizes: of the experiment.

    Raises:
        ValueError: no run is planned for the arguments, one is out of its range, or the folder is in use.
    """
    mine = plan_runs([net])
    for what, asked, known in (
        ("net", [net], {run.network for run in plan_runs({network for network, _, _ in PLAN})}),
        ("seeds", seeds, {run.seed for run in mine}),
        ("removed", removed, {run.aim for run in mine}),
        ("names", names, set(ARMS)),
    ):
        if wrong := [value for value in asked or [] if value not in known]:
            raise ValueError(f"{what}={wrong[0]!r}: the plan of recipe desk has {', '.join(map(str, sorted(known)))}")
    mine = [run for run in mine if run.seed in (seeds or [run.seed]) and run.aim in (removed or [run.aim])]
    mine = [run for run in mine if run.arm in (names or ARMS)]
    clock, folder = make_clock(minutes), folder or runtime.run_dir("reproduce") / f"desk-{net}"
    loaded = data.load(name)
    with lock_results(folder):
        images = loaded.for_public_weights() if sizes.base is None else loaded
        first = Experiment(net, images, sizes, folder, clock, n_jobs=n_jobs)
        return _all(first, mine, load_committed(sizes))


def run_key(row: Any) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY[:4])


def _all(first: Experiment, runs: list[Run], before: pd.DataFrame) -> Outcome:
    rows, stopped = [], ""
    parts: dict[str, list[dict[str, Any]]] = {"light": [], "widths": []}  # what a run has several rows of
    known: dict[tuple[Any, ...], dict[Any, Any]] = {run_key(row): row for row in before.to_dict("records")}
    for run in runs:
        if (row := known.get((run.network, run.aim, run.arm, run.seed))) is None:
            try:
                made = complete_run(replace(first, seed=run.seed), run)
            except Paused as pause:
                stopped = stopped or f"{run.arm!r} at {run.aim:.1%} removed, seed {run.seed} ({pause})"
                continue
            except AllFailedError as error:
                stopped = stopped or f"{run.arm!r}: {error}"
                continue
            row = {name: value for name, value in made.items() if name not in parts}
            for name, found in parts.items():
                found += [{key: row[key] for key in KEY} | one for one in made[name]]
        rows.append(row)
        print(
            f"{run.network}, {run.aim:.1%} of the MACs removed, {run.arm}, seed {run.seed}: {row['accuracy']:.2f} %", flush=True
        )
    says = f"table3 {first.net}, recipe desk: {len(rows)} of {len(runs)} runs; "
    says += f"stopped in {stopped}, the same command goes on from there" if stopped else "complete"
    light, widths = (pd.DataFrame(found, columns=None if found else KEY) for found in parts.values())
    return Outcome(pd.DataFrame(rows), not stopped, says, light, widths)


def results_folder() -> Path:
    return runtime.root() / "reports" / "paper"


def load_committed(sizes: Sizes = paper.DESK) -> pd.DataFrame:
    """The runs of these sizes published so far."""
    return load_published("runs", sizes)


def load_published(what: str, sizes: Sizes) -> pd.DataFrame:
    """Rows of reports/paper/table3_desk_WHAT.csv that were made at these sizes; none if there is no such file."""
    path = results_folder() / f"table3_desk_{what}.csv"
    rows = pd.read_csv(path, dtype={"recipe": str}) if path.is_file() else pd.DataFrame(columns=KEY)
    return rows[rows["recipe"] == name_recipe(sizes)]
