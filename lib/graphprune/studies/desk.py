"""Table 3 at desk size: CIFAR-10 networks trained to the end in hours on one core, all arms at equal MACs and equal retraining.

The base networks have public weights, so that validation and test are the two halves of the test images
(`Dataset.for_public_weights`). A run is one network, one share of MACs removed, one arm and one seed: m light fine-tunings,
k retrained, one chosen on validation. Runs are done in the order of `PLAN` and are kept in reports/paper/table3_desk_runs.csv
once published; a run that stands there is not made again. What is not done is an empty row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from graphprune.pruning import latency
from graphprune.ranking.class_means import ClassMeans
from graphprune.ranking.distilled import Distilled, Lessons
from graphprune.ranking.surrogate import tilted
from graphprune.report import figures
from graphprune.runs import runtime, store
from graphprune.runs.checkpoint import Paused
from graphprune.runs.description import described, modules
from graphprune.runs.runtime import seed_generator
from graphprune.search import baselines
from graphprune.search.funnel import SearchResult, ordered
from graphprune.studies import paper
from graphprune.studies.census import LOOKED
from graphprune.studies.paper import Sizes
from graphprune.studies.reproduction import Experiment, as_text, clock_of, light_of, lines_of, owned
from graphprune.training import data, train
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
ARMS = ("uniform L1", "SACP", "random", "class means", "global L1")
KEY = ["network", "aim", "arm", "seed", "recipe"]
LATENCY = {"batch": 64, "repeats": 60}
BLOCK = 32  # looks stored at a time

NOTE = """accuracy: on the report half of the test images, of the network chosen on the validation half, after its last
epoch; means over the seeds. best of k on test: the paper's own selection; with k = 1 it is the same network. not retrained:
the best of the m lightly fine-tuned on validation, on the report half (for SACP this is what table 4 calls SACP-2). At equal
cost: every arm has the same MACs and the same passes over the training images; uniform and global L1 search nothing, so what
the others spend on m light fine-tunings is added to their retraining. What class means pays for its looks, and SACP for its
encoder, comes on top and is counted in core-hours, which are processor time. latency: of {batch} images on one thread, the
unpruned network's beside it; the fastest tenth of {repeats} passes, as the machine was in use. published: as named there,
each from its own base network, in its own unit of FLOPs, chosen by its own rule. Empty: not done, or not published."""


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


def planned(networks: Iterable[str]) -> list[Run]:
    """All runs on these networks, in the order in which they are done."""
    wanted = set(networks)
    return [Run(network, aim, arm, seed) for network, aim, seed in PLAN if network in wanted for arm in ARMS]


# --- one run ------------------------------------------------------------------------------------------------------------


def done(experiment: Experiment, run: Run) -> dict[str, Any]:
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
    full, light = result.trials[result.trials["stage"] == "full"], light_of(result)
    small, whole = experiment.cost(result.model), experiment.whole
    example = experiment.data.example(LATENCY["batch"])
    ms = [latency.latency(net, example, LATENCY["repeats"], threads=1).low_ms for net in (result.model, experiment.model)]
    return {
        "network": run.network,
        "aim": run.aim,
        "arm": run.arm,
        "seed": run.seed,
        "recipe": name_of(experiment.sizes),
        "accuracy": 100 * result.best["accuracy_test"],
        "base accuracy": 100 * whole["accuracy_test"],
        "best of k on test": 100 * float(full["accuracy_test"].max()),
        "not retrained": None if light.empty else 100 * float(ordered(light, "accuracy")["accuracy_test"].iloc[0]),
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
    }


def _searched(experiment: Experiment, run: Run) -> tuple[SearchResult, float]:
    """What a run found, and the processor time of what came before its ranking."""
    if run.arm == "SACP":
        return experiment.sacp(run.window), 0.0
    if run.arm == "class means":
        ranker, seconds = class_means(experiment, run)
        return experiment.sacp(run.window, ranker), seconds
    arm = {"uniform L1": baselines.uniform_l1, "global L1": baselines.global_l1, "random": baselines.random_search}[run.arm]
    return experiment.arm(arm, run.window), 0.0


def class_means(experiment: Experiment, run: Run) -> tuple[Distilled, float]:
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


def name_of(sizes: Sizes) -> str:
    """A short name for all numbers of a recipe."""
    return store.digest(sizes)[:12]


# --- all runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What there is so far: a row for each run that is done, and a line that says how far it is."""

    runs: pd.DataFrame
    done: bool
    says: str


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
    mine = planned([net])
    for what, asked, known in (
        ("net", [net], {run.network for run in planned({network for network, _, _ in PLAN})}),
        ("seeds", seeds, {run.seed for run in mine}),
        ("removed", removed, {run.aim for run in mine}),
        ("names", names, set(ARMS)),
    ):
        if wrong := [value for value in asked or [] if value not in known]:
            raise ValueError(f"{what}={wrong[0]!r}: the plan of recipe desk has {', '.join(map(str, sorted(known)))}")
    mine = [run for run in mine if run.seed in (seeds or [run.seed]) and run.aim in (removed or [run.aim])]
    mine = [run for run in mine if run.arm in (names or ARMS)]
    clock, folder = clock_of(minutes), folder or runtime.run_dir("reproduce") / f"desk-{net}"
    loaded = data.load(name)
    with owned(folder):
        images = loaded.for_public_weights() if sizes.base is None else loaded
        first = Experiment(net, images, sizes, folder, clock, n_jobs=n_jobs)
        return _all(first, mine, committed(sizes))


def _key(row: Any) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY[:4])


def _all(first: Experiment, runs: list[Run], before: pd.DataFrame) -> Outcome:
    rows, stopped = [], ""
    known: dict[tuple[Any, ...], dict[Any, Any]] = {_key(row): row for row in before.to_dict("records")}
    for run in runs:
        if (row := known.get((run.network, run.aim, run.arm, run.seed))) is None:
            try:
                row = done(replace(first, seed=run.seed), run)
            except Paused as pause:
                stopped = stopped or f"{run.arm!r} at {run.aim:.1%} removed, seed {run.seed} ({pause})"
                continue
            except RuntimeError as error:
                if "trainings failed" not in str(error):
                    raise
                stopped = stopped or f"{run.arm!r}: {error}"
                continue
        rows.append(row)
        print(
            f"{run.network}, {run.aim:.1%} of the MACs removed, {run.arm}, seed {run.seed}: {row['accuracy']:.2f} %", flush=True
        )
    says = f"table3 {first.net}, recipe desk: {len(rows)} of {len(runs)} runs; "
    says += f"stopped in {stopped}, the same command goes on from there" if stopped else "complete"
    return Outcome(pd.DataFrame(rows), not stopped, says)


# --- what is published --------------------------------------------------------------------------------------------------

COLUMNS = ["network", "method", "by", "n", "seeds", "accuracy, %", "drop, points", "best of k on test, %", "not retrained, %"]
COLUMNS += ["MACs, M", "MACs removed, %", "FLOPs removed, %", "params, k", "params removed, %", "latency, ms", "unpruned, ms"]
COLUMNS += ["core-hours", "of it ranking", "epochs", "networks", "hardware"]


def place() -> Path:
    return runtime.root() / "reports" / "paper"


def committed(sizes: Sizes = paper.DESK) -> pd.DataFrame:
    """The runs of these sizes published so far."""
    path = place() / "table3_desk_runs.csv"
    runs = pd.read_csv(path, dtype={"recipe": str}) if path.is_file() else pd.DataFrame(columns=KEY)
    return runs[runs["recipe"] == name_of(sizes)]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """All rows planned, as text: a mean over the seeds each, empty where no seed is done; the published ones beside them."""
    rows = []
    for network in dict.fromkeys(network for network, _, _ in PLAN):
        for aim in dict.fromkeys(aim for name, aim, _ in PLAN if name == network):
            for arm in ARMS:
                rows.append(_ours(runs, network, aim, arm))
        published = sorted(paper.PUBLISHED.get(network.removesuffix("a"), {}).items(), key=lambda item: item[1].flops_cut)
        for method, row in published:
            values: dict[str, Any] = {"network": network, "method": method, "by": f"published ({row.source})"}
            values |= {"accuracy, %": row.accuracy, "FLOPs removed, %": row.flops_cut, "params removed, %": row.params_cut}
            rows.append(values)
    return pd.DataFrame([{column: as_text(row.get(column)) for column in COLUMNS} for row in rows], columns=COLUMNS)


def _ours(runs: pd.DataFrame, network: str, aim: float, arm: str) -> dict[str, Any]:
    row: dict[str, Any] = {"network": network, "method": arm, "by": f"ours, at least {aim:.1%} of the MACs removed", "n": 0}
    if runs.empty:
        return row
    own = runs[(runs["network"] == network) & (runs["aim"] == aim) & (runs["arm"] == arm)].sort_values("seed")
    if own.empty:
        return row
    mean = own.mean(numeric_only=True)
    row |= {"n": len(own), "seeds": " ".join(map(str, own["seed"]))}
    row |= {"accuracy, %": mean["accuracy"], "drop, points": mean["base accuracy"] - mean["accuracy"]}
    row |= {f"{name}, %": mean.get(name) for name in ("best of k on test", "not retrained")}
    row |= {f"{name}, %": mean[name] for name in ("MACs removed", "FLOPs removed", "params removed")}
    row |= {"MACs, M": mean["macs"] / 1e6, "params, k": mean["params"] / 1e3}
    row |= {"latency, ms": mean["latency"], "unpruned, ms": mean["base latency"]}
    row |= {"core-hours": own["core-hours"].sum(), "of it ranking": own["ranking core-hours"].sum()}
    row |= {
        "epochs": mean["epochs"],
        "networks": int(own["networks"].sum()),
        "hardware": " and ".join(sorted(set(own["hardware"]))),
    }
    return row


def against(runs: pd.DataFrame) -> list[str]:
    """For every arm its accuracy minus uniform L1's, paired by seed: 95 % t intervals from two seeds on."""
    if runs.empty:
        return []
    lines, pivot = [], runs.pivot_table("accuracy", ["network", "aim", "seed"], "arm")
    for (network, aim), part in pivot.groupby(level=["network", "aim"], sort=False):
        for arm in (arm for arm in ARMS[1:] if {arm, ARMS[0]} <= set(part)):
            gaps = (part[arm] - part[ARMS[0]]).dropna()
            if len(gaps) == 0:
                continue
            words = f"{gaps.mean():+.2f} points"
            if len(gaps) > 1:
                half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.sem()
                words += f" [{gaps.mean() - half:+.2f}, {gaps.mean() + half:+.2f}], {len(gaps)} seeds"
            else:
                words += f", a single run (seed {gaps.index[0][2]}): no interval"
            lines.append(f"- {network}, {aim:.1%} of the MACs removed, {arm} minus {ARMS[0]}: {words}")
    return lines


def markdown(runs: pd.DataFrame, sizes: Sizes = paper.DESK) -> str:
    """The table as Markdown, with what is missing, the comparison with uniform L1, and the recipe."""
    full, light = sizes.full, sizes.light
    wanted = len(planned({network for network, _, _ in PLAN}))
    recipe = f"m = {sizes.m} networks fine-tuned lightly ({_words(light)}), k = {sizes.k} retrained ({_words(full)}); "
    recipe += f"R(r) >= {sizes.min_ratio}, {sizes.n_candidates:,} candidates, SACP's encoder trained on {sizes.n_train:,}; "
    recipe += f"class means looks at {sizes.looks} networks"
    missing = "Rows with n = 0 are not done yet." if len(runs) < wanted else "All rows are done."
    parts = [
        f"# Table 3 at desk size\n\n{len(runs)} of {wanted} runs are done. {missing}\n\nRecipe {name_of(sizes)}: {recipe}."
    ]
    parts.append(lines_of(table(runs)).strip())
    parts.append("## Against uniform L1, paired by seed\n\n" + ("\n".join(against(runs)) or "Nothing to compare yet."))
    parts.append(NOTE.format(**LATENCY))
    return "\n\n".join(parts) + "\n"


def _words(recipe: train.Recipe) -> str:
    words = (
        f"{recipe.epochs:g} epochs of SGD, batch {recipe.batch_size}, cosine from {recipe.lr:g}, warm-up {recipe.warmup:g}, "
    )
    words += f"weight decay {recipe.weight_decay:g}, {recipe.precision}"
    return words + (", distilled from the unpruned network" if recipe.distil else "")


def draw(runs: pd.DataFrame) -> Any:
    """Accuracy against what was removed, a panel for each network: our runs, and every published point."""
    import matplotlib.pyplot as plt

    figures.style()
    networks = list(dict.fromkeys(network for network, _, _ in PLAN))
    figure, axes = plt.subplots(1, len(networks), figsize=(6.5 * len(networks), 4.8), squeeze=False)
    for ax, network in zip(axes[0], networks, strict=True):
        own = runs[runs["network"] == network] if len(runs) else runs
        for number, arm in enumerate(ARMS):
            part = own[own["arm"] == arm] if len(own) else own
            if len(part):
                ax.scatter(
                    part["MACs removed"],
                    part["accuracy"],
                    s=44,
                    color=f"C{number}",
                    marker="os^Dv"[number],
                    label=arm,
                    zorder=3,
                )
        if len(own):
            ax.axhline(own["base accuracy"].iloc[0], color="0.5", ls="--", lw=1, label="unpruned, ours")
        for method, row in paper.PUBLISHED.get(network.removesuffix("a"), {}).items():
            ax.scatter(row.flops_cut, row.accuracy, s=40, facecolor="none", edgecolor="0.4")
            ax.annotate(method, (row.flops_cut, row.accuracy), (4, 4), textcoords="offset points", fontsize=8, color="0.3")
        ax.set(title=network, xlabel="MACs removed, % (published: FLOPs)", ylabel="accuracy, %")
        if ax.get_legend_handles_labels()[1]:
            ax.legend(fontsize=8)
    figure.tight_layout()
    return figure


def publish(outcome: Outcome, sizes: Sizes = paper.DESK) -> list[Path]:
    """Write what is done, with the runs published before, to reports/paper/table3_desk.csv, .md, .png and _runs.csv."""
    before, folder = committed(sizes), place()
    parts = [part for part in (before, outcome.runs) if len(part)]
    runs = pd.concat(parts, ignore_index=True).drop_duplicates(KEY[:4], keep="last") if parts else before
    folder.mkdir(parents=True, exist_ok=True)
    if len(runs):
        order = [(run.network, run.aim, run.arm, run.seed) for run in planned({network for network, _, _ in PLAN})]
        rows: list[dict[Any, Any]] = runs.to_dict("records")
        runs = pd.DataFrame(sorted(rows, key=lambda row: order.index(_key(row))))
    contents = {"_runs.csv": runs.to_csv(index=False, lineterminator="\n", float_format="%.6g")}
    contents |= {".csv": table(runs).to_csv(index=False, lineterminator="\n"), ".md": markdown(runs, sizes)}
    for suffix, content in contents.items():
        store.replace(folder / f"table3_desk{suffix}", content.encode())
    figures.save(draw(runs), folder / "table3_desk.png")
    return [folder / f"table3_desk{suffix}" for suffix in (*contents, ".png")]
