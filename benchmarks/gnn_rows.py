"""The rows of chapter 08 on real data: every table of reports/gnn.

    python benchmarks/gnn_rows.py                                  all of them: some two hours of one core
    python benchmarks/gnn_rows.py --only pruning_rows/cora/gcn     what is named, a table or a part of it

Each row is stored when it is there (reports/runs/gnn), so that a run that was stopped goes on. A part that is done takes the
place of its rows in the table; those of other parts stay. Data sets lie in GRAPHPRUNE_DATA or are downloaded.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from graphprune.compression import recipes
from graphprune.runs import runtime, safe_files
from graphprune.studies import compression_study, quantization_study

REPORTS = Path(__file__).resolve().parent.parent / "reports" / "gnn"
FOLDER = runtime.run_dir("gnn") / "artifacts" / "gnn"
SEEDS = (0, 1, 2, 3, 4)
FRESH = tuple(range(5, 25))
CLAIMS = ((quantization_study.CONTROL, "float32"), ("PTQ", "INT8"), ("Degree-Quant", "INT4"), ("global", "50 %"))
CLAIMS += (("per tensor", "50 %"),)
SHORT = ("dense", quantization_study.CONTROL, "PTQ", "uniform", "Degree-Quant")
Make = Callable[[str, str], pd.DataFrame]
"""(task, model) -> their rows."""


@dataclass(frozen=True)
class Part:
    """The rows of a task and a network in the table `<table>.csv`."""

    table: str
    task: str
    model: str
    make: Make

    @property
    def name(self) -> str:
        return f"{self.table}/{self.task}/{self.model}"

    def within(self, name: str) -> bool:
        """Whether it is what `name` names, or a part of it."""
        return f"{self.name}/".startswith(f"{name}/")


def quantization(methods: Sequence[str] | None = None) -> Make:
    """The networks quantized by these methods; None for all."""

    def make(task: str, model: str) -> pd.DataFrame:
        recipe = recipes.find(task, model)
        found = []
        for seed in SEEDS:
            data = compression_study.task_for(task, seed)
            found.append(quantization_study.study(data, model, recipe, [seed], FOLDER, methods))
        table = pd.concat(found, ignore_index=True)
        front = ["task", "model", "method", "level", "seed"]
        return table[[*front, *table.columns.difference(front, sort=False)]]

    return make


def pruning(*grids: tuple[Sequence[str], Sequence[float]]) -> Make:
    """The networks pruned: grids of ways and levels."""

    def make(task: str, model: str) -> pd.DataFrame:
        found = [compression_study.study(task, model, SEEDS, levels, FOLDER, ways=ways) for ways, levels in grids]
        return pd.concat(found, ignore_index=True).drop_duplicates(["method", "level", "seed"])

    return make


def claims(task: str, model: str) -> pd.DataFrame:
    """Four claims, read off the rows of `SEEDS`, tested on seeds of their own: rows of their methods and of the control."""
    data, recipe = compression_study.task_for(task), recipes.find(task, model)
    named = (quantization_study.CONTROL, "PTQ", "Degree-Quant")
    quantized = quantization_study.study(data, model, recipe, FRESH, FOLDER, named)
    pruned = compression_study.study(task, model, FRESH, [0.5], FOLDER, ways=("global", "per tensor"))
    table = pd.concat([quantized, pruned], ignore_index=True)
    pairs = pd.MultiIndex.from_frame(table[["method", "level"]])
    return table.loc[pairs.isin(CLAIMS), ["task", "model", "method", "level", "seed", "score", "bytes"]]


def baselines(task: str, model: str) -> pd.DataFrame:
    """The unpruned networks; of those with a score to compare with in the literature twice as many seeds."""
    seeds = range(10) if (task, model) in (("cora", "gcn"), ("cora", "gat")) else SEEDS
    return compression_study.baselines(task, [model], seeds, FOLDER)


def degrees(task: str, model: str) -> pd.DataFrame:
    """Rounding errors and learned bits by degree, of the first seed."""
    data, recipe = compression_study.task_for(task), recipes.find(task, model)
    network = quantization_study.load_or_train(data, model, recipe, 0, FOLDER)
    return quantization_study.by_degree(quantization_study.Case(network, data, recipe, 0))


def convergence(task: str, model: str) -> pd.DataFrame:
    """The score on validation by epoch, without and with regularization."""
    return compression_study.convergence(task, model, SEEDS, FOLDER)


def speed(task: str, model: str) -> pd.DataFrame:
    """What one pass takes; no two runs give the same."""
    case = compression_study.Case(compression_study.task_for(task), model, recipes.find(task, model), 0, FOLDER)
    found = compression_study.measure_speed(case, (0.5, 0.9, 0.99)).rename(columns={"median_ms": "ms"})
    return found.assign(model=model)[["task", "model", "form", "level", "ms", "peak_bytes"]]


LEVELS, ALL_WAYS = (0.5, 0.9), tuple(compression_study.WAYS)
GCN = pruning((ALL_WAYS, (0.5, 0.9, 0.99)), (("global",), (0.8, 0.95)))
NODES = pruning((("per tensor", "global", "width"), LEVELS))
GRAPHS = pruning((("global", "random", "width"), LEVELS))
PARTS = (
    Part("quantization_rows", "cora", "gcn", quantization()),
    Part("pruning_rows", "cora", "gcn", GCN),
    Part("quantization_rows", "cora", "gin", quantization()),
    Part("quantization_rows_other_tasks", "proteins", "gin", quantization(SHORT)),
    Part("quantization_rows_other_tasks", "bbbp", "gin", quantization(SHORT)),
    Part("claims_rows", "cora", "gcn", claims),
    Part("pruning_rows", "cora", "sage", NODES),
    Part("pruning_rows_other_tasks", "cora-links", "gcn", NODES),
    Part("quantization_rows_other_tasks", "cora-links", "gcn", quantization(SHORT)),
    Part("pruning_rows", "cora", "gat", NODES),
    Part("pruning_rows_other_tasks", "proteins", "gin", GRAPHS),
    Part("pruning_rows_other_tasks", "bbbp", "gin", GRAPHS),
    Part("convergence_rows", "cora", "gcn", convergence),
    Part("convergence_rows", "proteins", "gin", convergence),
    *(Part("baselines", "cora", model, baselines) for model in ("gcn", "mlp", "sage", "gat")),
    *(Part("baselines", task, model, baselines) for task in ("proteins", "bbbp") for model in ("gin", "mlp")),
    Part("degree_cora", "cora", "gcn", degrees),
    *(Part("speed_rows", "cora", model, speed) for model in ("gcn", "sage")),
)
"""In the order in which they are made."""


def write(path: Path, rows: pd.DataFrame) -> None:
    """Put the rows of a task and network into a table, in place of those it has of them; sorted by task and network."""
    keys = [key for key in ("task", "model") if key in rows]
    if keys and path.is_file():
        old = pd.read_csv(path)
        theirs = pd.MultiIndex.from_frame(old[keys]).isin(pd.MultiIndex.from_frame(rows[keys]))
        rows = pd.concat([old[~theirs], rows], ignore_index=True).sort_values(keys, kind="stable")
    path.parent.mkdir(parents=True, exist_ok=True)
    safe_files.replace(path, rows.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


def chosen(only: Sequence[str]) -> list[Part]:
    """The parts that one of `only` names; all where it is empty.

    Raises:
        ValueError: there is no such part.
    """
    known = ", ".join(part.name for part in PARTS)
    for name in only:
        if not any(part.within(name) for part in PARTS):
            raise ValueError(f"--only {name!r}: no such part; there are {known}")
    return [part for part in PARTS if not only or any(part.within(name) for name in only)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="table, table/task or table/task/model")
    try:
        parts = chosen(parser.parse_args(argv).only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    for part in parts:
        start = time.process_time()
        rows = part.make(part.task, part.model)
        write(REPORTS / f"{part.table}.csv", rows)
        print(f"{part.name}: {len(rows)} rows, {time.process_time() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
