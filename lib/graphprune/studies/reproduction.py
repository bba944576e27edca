"""The paper's tables at the paper's size: each call does what fits into its minutes, stores it, and goes on from there.

The accuracy of a row is that of the network chosen on the validation split, on the test split; the paper's choice, the best of
the k on the test split, stands in a column of its own. A row that is not done is empty. Every search is one of `search` or
`baselines`, so every network trained is an artefact of its own, and the state of the one in training is stored every minute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.groups import trace
from graphprune.pruning import channels
from graphprune.pruning.cost import cost, paper_flops
from graphprune.pruning.masks import kept_masks
from graphprune.ranking.learners import Regression
from graphprune.ranking.rankers import Ranker
from graphprune.runs import runtime, store
from graphprune.runs.checkpoint import Clock, Paused
from graphprune.search import algorithm1, baselines
from graphprune.search.funnel import AllFailedError, Funnel, SearchResult, sort_trials
from graphprune.search.trial import lock_folder
from graphprune.studies import paper
from graphprune.studies.paper import Printed, Sizes
from graphprune.training import base_network, data, train
from graphprune.training.data import Dataset

Window = tuple[float, float]

ANY: Window = (0.0, 1.0)
COLUMNS = ["method", "accuracy, %", "drop, points", "best of k on test, %", "FLOPs, M", "FLOPs cut, %", "params, M"]
COLUMNS += ["params cut, %", "printed accuracy, %", "printed FLOPs cut, %", "printed params cut, %"]
COLUMNS += ["networks", "failed", "epochs", "core-hours", "hardware"]
NOTE = """accuracy: on the test split, of the network chosen on the validation split. best of k on test: the paper's choice.
FLOPs: in the paper's unit. SACP and random: R(r) >= tau alone; at equal MACs: in a window about the printed FLOPs, too [ours].
SACP-2: the best of SACP's m lightly fine-tuned networks, not retrained.
networks, epochs, core-hours: trained for the row, some for other rows as well. printed: by the paper. Empty: not done, or not
printed."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """One network, its data and the sizes of what is done with it; everything made is stored in its folder.

    Every method makes what it is asked for, or loads it, or raises `checkpoint.Paused`.

    Attributes:
        net: the network's name.
        data: what it is trained on.
        sizes: of the experiment.
        folder: where everything is stored.
        clock: when to stop.
        seed: of the searches; the base network's is 0.
        n_jobs: networks trained at once, as in `Funnel`.
    """

    net: str
    data: Dataset
    sizes: Sizes
    folder: Path
    clock: Clock = field(default_factory=Clock)
    seed: int = 0
    n_jobs: int = 1

    @cached_property
    def model(self) -> nn.Module:
        """The base network."""
        return base_network.network(self.net, self.data, self.sizes.base, seed=0, folder=self.folder, clock=self.clock)

    @cached_property
    def graph(self) -> ChannelGraph:
        return trace(self.model, self.data.example())

    @cached_property
    def whole(self) -> dict[str, Any]:
        """Cost and test accuracy of the base network."""
        tested = self.funnel(ANY).stage(
            "base.json", lambda: asdict(train.evaluate(self.model, self.data.test)), ("training.train",)
        )
        return {"accuracy_test": tested["accuracy"], **self.cost(self.model)}

    def cost(self, model: nn.Module) -> dict[str, Any]:
        """`macs`, `params`, and `flops` in the paper's unit."""
        example, found = self.data.example(), cost(model.cpu(), self.data.example())
        return {"macs": found.macs, "params": found.params, "flops": paper_flops(model, example)}

    def setting(self, window: Window, **changes: Any) -> dict[str, Any]:
        """The fields of `Funnel` beside network, graph and data: R(r) >= tau, and a window of MACs."""
        size = self.sizes
        setting = {"m": size.m, "k": size.k, "light": size.light, "full": size.full, "folder": self.folder, "tested": True}
        setting |= {"min_ratio": size.min_ratio, "macs_window": window, "seed": self.seed, "n_jobs": self.n_jobs}
        return setting | {"clock": self.clock} | changes

    def funnel(self, window: Window) -> Funnel:
        return Funnel(self.model, self.graph, self.data, **self.setting(window))

    def sacp(self, window: Window, ranker: Ranker | None = None, **changes: Any) -> SearchResult:
        """Algorithm 1 at these sizes, by SACP's similarity or by another ranker."""
        size = self.sizes
        ranking: dict[str, Any] = {"n_train": size.n_train, "n_candidates": size.n_candidates, "epochs": size.encoder_epochs}
        ranking["ranker"] = ranker
        return algorithm1.sacp(self.model, self.graph, self.data, **ranking, **self.setting(window, **changes))

    def arm(self, arm: Callable[..., SearchResult], window: Window) -> SearchResult:
        """One of the arms of `graphprune.search.baselines`."""
        return arm(self.model, self.graph, self.data, **self.setting(window))


# --- how rows are made --------------------------------------------------------------------------------------------------

Maker = Callable[[Experiment], dict[str, Any]]


@dataclass(frozen=True)
class Line:
    """A row of a table: how it is made (None: the paper's only), and what the paper prints for it."""

    method: str
    make: Maker | None
    printed: Printed | None = None


def measure_base(experiment: Experiment) -> dict[str, Any]:
    """The base network."""
    whole, recipe = experiment.whole, experiment.sizes.base
    return _row(experiment, whole["accuracy_test"], experiment.model) | {"epochs": float(recipe.epochs if recipe else 0)}


def run_sacp(experiment: Experiment, window: Window, **changes: Any) -> dict[str, Any]:
    """SACP (Algorithm 1) on all candidates with R(r) >= tau, or on those in a window of MACs, too."""
    return make_row(experiment, experiment.sacp(window, **changes))


def run_baseline(experiment: Experiment, arm: Callable[..., SearchResult], window: Window) -> dict[str, Any]:
    """An arm that SACP is compared with."""
    return make_row(experiment, experiment.arm(arm, window))


def run_regression(experiment: Experiment) -> dict[str, Any]:
    """SACP-1: the encoder learns accuracies instead, those of the m random networks after light fine-tuning [ours]."""
    known = light_rows(experiment.arm(baselines.random_search, ANY))
    known = known[known["failed"] == ""]
    indices, accuracies = torch.tensor(known["indices"].tolist()), torch.tensor(known["accuracy_val"].tolist())
    return make_row(experiment, experiment.sacp(ANY, Regression(indices, accuracies, seed=experiment.seed)))


def run_light(experiment: Experiment) -> dict[str, Any]:
    """SACP-2: the best of the m lightly fine-tuned, not retrained."""
    light = light_rows(experiment.sacp(ANY))
    best = sort_trials(light, "accuracy").iloc[0]
    masks = kept_masks(experiment.graph, torch.tensor([best["indices"]]), experiment.funnel(ANY).scores)
    small = channels.prune(experiment.model, experiment.graph, experiment.graph.unflatten(masks[0]))
    return _row(experiment, best["accuracy_test"], small) | _spent(light)


def light_rows(result: SearchResult) -> pd.DataFrame:
    """The rows of the m lightly fine-tuned."""
    return result.trials[result.trials["stage"] == "light"]


def make_row(experiment: Experiment, result: SearchResult) -> dict[str, Any]:
    """A row: the network chosen on validation, beside the base, and what it took."""
    full = result.trials[result.trials["stage"] == "full"]
    row = _row(experiment, result.best["accuracy_test"], result.model) | _spent(result.trials)
    row |= {"best of k on test, %": 100 * full["accuracy_test"].max(), "core-hours": result.core_seconds / 3600}
    return row | {"hardware": runtime.hardware()}


def _row(experiment: Experiment, accuracy: float, model: nn.Module) -> dict[str, Any]:
    whole, small = experiment.whole, experiment.cost(model)
    return {
        "accuracy, %": 100 * accuracy,
        "drop, points": 100 * (whole["accuracy_test"] - accuracy),
        "FLOPs, M": small["flops"] / 1e6,
        "FLOPs cut, %": 100 * (1 - small["flops"] / whole["flops"]),
        "params, M": small["params"] / 1e6,
        "params cut, %": 100 * (1 - small["params"] / whole["params"]),
    }


def _spent(trials: pd.DataFrame) -> dict[str, Any]:
    failed = int((trials["failed"] != "").sum())
    return {"networks": len(trials), "failed": failed, "epochs": float(trials["epochs"].sum())}


# --- tables -------------------------------------------------------------------------------------------------------------


def table3(net: str, sizes: Sizes) -> list[Line]:
    """SACP as printed, and beside it what a fair comparison needs: other ways to choose a network of the same MACs."""
    printed, window = paper.TABLE3.get(net, {}), sizes.macs_window
    rivals = {"random": baselines.random_search, "uniform L1": baselines.uniform_l1, "global L1": baselines.global_l1}
    rivals["bee colony"] = baselines.bee_colony
    return [
        Line("Base", measure_base, printed.get("Base")),
        *[Line(name, None, row) for name, row in printed.items() if name not in ("Base", "SACP")],
        Line("SACP", partial(run_sacp, window=ANY), printed.get("SACP")),
        Line("SACP at equal MACs", partial(run_sacp, window=window), printed.get("SACP")),
        *[Line(f"{name} at equal MACs", partial(run_baseline, arm=arm, window=window)) for name, arm in rivals.items()],
    ]


def table4(net: str, sizes: Sizes) -> list[Line]:
    """The ablations, and chance; all with R(r) >= tau alone."""
    printed = paper.TABLE4 if net == "resnet18" else {}
    makers: dict[str, Maker] = {"SACP-1": run_regression, "SACP-2": run_light, "SACP": partial(run_sacp, window=ANY)}
    lines = [Line(name, make, printed.get(name)) for name, make in makers.items()]
    return [*lines, Line("random", partial(run_baseline, arm=baselines.random_search, window=ANY))]


def figure2(net: str, sizes: Sizes) -> list[Line]:
    """Accuracy against k and against m; the paper prints the figure only, without numbers."""
    points = [(sizes.m, k) for k in range(1, sizes.k + 1)] + [(m, sizes.k) for m in sizes.many if m != sizes.m]
    return [Line(f"m = {m}, k = {k}", partial(run_sacp, window=ANY, m=m, k=k)) for m, k in points]


TABLES = {"table3": table3, "table4": table4, "figure2": figure2}


@dataclass(frozen=True)
class Outcome:
    """How far a table is: its rows as text (empty where not done), and a line that says so."""

    table: pd.DataFrame
    done: bool
    says: str


def reproduce(
    table: str,
    net: str,
    recipe: str,
    minutes: float | None = None,
    folder: Path | None = None,
    name: str | None = None,
    n_jobs: int = 1,
) -> Outcome:
    """Do what fits into the minutes of a table, and go on where the last call on this folder stopped.

    Args:
        table: "table3", "table4" or "figure2".
        net, recipe: as `paper.sizes` takes them.
        minutes: when to stop; exceeded by what cannot be stopped, such as ranking. Some work is always done. None: when all is
            done.
        folder: where everything is stored; reports/runs/reproduce/RECIPE-NET.
        name: the data set's; cifar10 (recipe paper) or digits (tiny).
        n_jobs: networks trained at once, as in `Funnel`.

    Raises:
        ValueError: an argument is unknown or out of its range, or the folder is in use.
    """
    sizes = paper.sizes(net, recipe)
    if table not in TABLES:
        raise ValueError(f"table={table!r}: there are {', '.join(TABLES)}")
    clock = make_clock(minutes)
    folder = folder or runtime.run_dir("reproduce") / f"{recipe}-{net}"
    loaded = data.load(name or ("cifar10" if recipe == "paper" else "digits"))
    with lock_results(folder):
        images = loaded.for_public_weights() if sizes.base is None else loaded
        experiment = Experiment(net, images, sizes, folder, clock, n_jobs=n_jobs)
        return _so_far(experiment, f"{table} {net}", TABLES[table](net, sizes))


def make_clock(minutes: float | None) -> Clock:
    """The time of one call.

    Raises:
        ValueError: it is not above 0.
    """
    if minutes is None:
        return Clock()
    if not minutes > 0:
        raise ValueError(f"minutes={minutes}: must be above 0, e.g. 9")
    return Clock(60 * minutes)


def lock_results(folder: Path) -> Any:
    """A context in which no other process works in the folder.

    Raises:
        ValueError: one does.
    """
    try:
        return lock_folder(folder)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _so_far(experiment: Experiment, title: str, lines: list[Line]) -> Outcome:
    rows, stopped = [], ""
    for line in lines:
        row: dict[str, Any] = {"method": line.method}
        if line.printed is not None:
            printed = (line.printed.accuracy, line.printed.flops_cut, line.printed.params_cut)
            row |= dict(zip(COLUMNS[8:11], printed, strict=True))
        try:
            row |= line.make(experiment) if line.make is not None else {}
        except Paused as pause:  # later rows may be done: what would take work pauses at once
            stopped = stopped or f"{line.method!r} ({pause})"
        except AllFailedError:
            row |= {"failed": "all"}
        rows.append({column: format_value(row.get(column)) for column in COLUMNS})
    ours = [row for row, line in zip(rows, lines, strict=True) if line.make is not None]
    done = sum(row["accuracy, %"] != "" or row["failed"] == "all" for row in ours)
    says = f"{title}: {done} of {len(ours)} rows; "
    says += f"stopped in {stopped}, the same command goes on from there" if stopped else "complete"
    return Outcome(pd.DataFrame(rows, columns=COLUMNS), not stopped, says)


def format_value(value: Any) -> str:
    return "" if value is None or value != value else f"{value:.2f}" if isinstance(value, float) else str(value)


def format_outcome(outcome: Outcome) -> str:
    """The table as Markdown, under the line that says how far it is."""
    return f"{outcome.says}\n\n{format_table(outcome.table)}\n{NOTE}\n"


def format_table(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    lines = [table.columns.tolist(), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def publish(outcome: Outcome, table: str, net: str) -> list[Path]:
    """Write the rows to reports/paper/TABLE-NET.csv and .md, whatever is done of them."""
    folder = runtime.root() / "reports" / "paper"
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"csv": outcome.table.to_csv(index=False, lineterminator="\n"), "md": format_outcome(outcome)}
    for suffix, content in contents.items():
        store.replace(folder / f"{table}-{net}.{suffix}", content.encode())
    return [folder / f"{table}-{net}.{suffix}" for suffix in contents]
