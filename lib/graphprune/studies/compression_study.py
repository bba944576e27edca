"""A study of pruned graph networks: trained, pruned in several ways at several levels, measured before and after more training.

Every row is paired with the unpruned network of its seed, and with the control: the unpruned network with the same training
after. A gain that the control has too comes from the training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from graphprune.compression import graph_data, networks, recipes, regularization, storage, training
from graphprune.compression.recipes import Recipe
from graphprune.compression.tasks import Task
from graphprune.compression.training import Step
from graphprune.compression.weight_pruning import prune_each, prune_globally, tune
from graphprune.compression.width_pruning import TooNarrowError, prune_width
from graphprune.pruning import weight_baselines, weight_masks
from graphprune.pruning.latency import latency
from graphprune.pruning.weight_masks import WeightMask
from graphprune.runs import store
from graphprune.studies.quantization_study import CONTROL, file_name, load_or_train

DENSE = "dense"
ONE_SHOT = ", one-shot"
MODULES = ("studies.compression_study",)


@dataclass(frozen=True, eq=False)
class Case:
    """A task and a seed, and three networks trained from the same weights: as it is, with L1, with group lasso.

    Each is trained when it is first asked for, once: the weights are stored in `folder`.
    """

    task: Task
    name: str
    recipe: Recipe
    seed: int
    folder: Path

    @cached_property
    def model(self) -> nn.Module:
        return self._trained("", None)

    @cached_property
    def l1(self) -> nn.Module:
        return self._trained("L1", regularization.l1(self.recipe.l1))

    @cached_property
    def group_lasso(self) -> nn.Module:
        units = regularization.hidden_units(networks.build(self.name, self.task, self.recipe, self.seed), self.task)
        return self._trained("group-lasso", regularization.group_lasso(self.recipe.group_lasso, units))

    def _trained(self, label: str, step: Step | None) -> nn.Module:
        return load_or_train(self.task, self.name, self.recipe, self.seed, self.folder, label=label, step=step)


Way = Callable[[Case, float], tuple[nn.Module, WeightMask]]
"""(case, sparsity) -> the pruned network before any training, and the mask to train under; {} where nothing is masked."""


def _masked(model: nn.Module, mask: WeightMask) -> tuple[nn.Module, WeightMask]:
    return weight_masks.apply(model, mask), mask


WAYS: dict[str, Way] = {
    "per tensor": lambda case, s: _masked(case.model, prune_each(case.model, s)),
    "global": lambda case, s: _masked(case.model, prune_globally(case.model, s)),
    "random": lambda case, s: _masked(case.model, weight_baselines.random(case.model, None, s, seed=case.seed)),
    "L1, global": lambda case, s: _masked(case.l1, prune_globally(case.l1, s)),
    "width": lambda case, s: (prune_width(case.model, case.task, s), {}),
    "group lasso, width": lambda case, s: (prune_width(case.group_lasso, case.task, s), {}),
}
"""What notebook 08 compares. `random` keeps as many weights as `global`, drawn with equal chances."""


@lru_cache(maxsize=4)
def task_for(name: str, seed: int = 0) -> Task:
    """The task of a seed: seeds of `proteins` take its folds in turn, all others have one split."""
    return graph_data.load(name, fold=seed % graph_data.FOLDS) if name == "proteins" else _only_split(name)


@lru_cache(maxsize=4)
def _only_split(name: str) -> Task:
    return graph_data.load(name)


def measure(network: nn.Module, task: Task) -> dict[str, float]:
    """The task's metric on the test part in %, and what the network needs.

    Returns:
        score, zeros (share of the weights of linear maps that are zero), weights (those that are not), bytes (of the file that
        is written) and theoretical_bytes (see `storage`).
    """
    weights = weight_masks.prunable(network).values()
    return {
        "score": 100 * training.evaluate(network, task, "test").scores[task.metric],
        "zeros": regularization.count_zeros(network),
        "weights": sum(int(w.count_nonzero()) for w in weights),
        "bytes": len(storage.pack(network)),
        "theoretical_bytes": storage.count_theoretical_bytes(network),
    }


def _rows(case: Case, way: str, level: float) -> list[dict[str, Any]]:
    """A row before training and one after; none where a width cannot be had."""
    if way == DENSE:
        tuned, _ = tune(case.model, {}, case.task, case.recipe, seed=case.seed)
        return [
            {"method": DENSE, "level": "0 %", "sparsity": 0.0} | measure(case.model, case.task),
            {"method": CONTROL, "level": "0 %", "sparsity": 0.0} | measure(tuned, case.task),
        ]
    try:
        network, mask = WAYS[way](case, level)
    except TooNarrowError:
        return []
    tuned, _ = tune(network, mask, case.task, case.recipe, seed=case.seed)
    about = {"level": f"{100 * level:g} %", "sparsity": level}
    before = {"method": way + ONE_SHOT} | about | measure(network, case.task)
    return [before, {"method": way} | about | measure(tuned, case.task)]


def study(
    task: str,
    model: str,
    seeds: Sequence[int],
    levels: Sequence[float],
    folder: Path,
    *,
    ways: Sequence[str] = tuple(WAYS),
    recipe: Recipe | None = None,
) -> pd.DataFrame:
    """Every way at every level under every seed. A file for each is stored at once, so that a stopped study goes on.

    Args:
        task, model: see `graph_data.load` and `networks.build`. recipe: of the table, unless given.
        levels: shares of the weights pruned, above 0 and below 1.
    Returns:
        columns task, model, method, level, sparsity, seed, and those of `measure`; methods that end in ", one-shot" are not
        trained after pruning, all others are; `dense` is the unpruned network, `dense, tuned` the control.
    Raises:
        ValueError: a way is unknown, a level out of range.
    """
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        raise ValueError(f"ways: {unknown[0]!r} is unknown; choose from {', '.join(WAYS)}")
    if wrong := [level for level in levels if not 0 < level < 1]:
        raise ValueError(f"levels: {wrong[0]!r} must be above 0 and below 1")
    chosen = recipe or recipes.find(task, model)
    found: list[dict[str, Any]] = []
    for seed in seeds:
        case = Case(task_for(task, seed), model, chosen, seed, Path(folder))
        about = {"task": case.task.fingerprint(), "model": model, "recipe": chosen, "seed": seed}
        for way, level in ((DENSE, 0.0), *((way, level) for way in ways for level in levels)):
            path = Path(folder) / f"compression-{task}-{model}-{file_name(way, f'{100 * level:g}')}-seed{seed}.json"
            parameters = about | {"way": way, "level": level}
            rows = store.stage(path, partial(_rows, case, way, level), parameters=parameters, modules=MODULES)
            found += [{"task": task, "model": model, "seed": seed} | row for row in rows]
    table = pd.DataFrame(found)
    front = ["task", "model", "method", "level", "sparsity", "seed"]
    return table[[*front, *table.columns.difference(front, sort=False)]]


def baselines(task: str, models: Sequence[str], seeds: Sequence[int], folder: Path) -> pd.DataFrame:
    """The unpruned networks of several models, among them `mlp`, which sees no edges: columns task, model, seed, score (%).

    Args, Raises: as `study`; recipes are those of the table.
    """

    def rows(model: str, seed: int) -> pd.DataFrame:
        case = Case(task_for(task, seed), model, recipes.find(task, model), seed, Path(folder))
        score = 100 * training.evaluate(case.model, case.task, "test").scores[case.task.metric]
        return pd.DataFrame([{"task": task, "model": model, "seed": seed, "score": score}])

    return pd.concat([rows(model, seed) for model in models for seed in seeds], ignore_index=True)


def convergence(task: str, model: str, seeds: Sequence[int], folder: Path, *, recipe: Recipe | None = None) -> pd.DataFrame:
    """The metric on validation after every epoch of training, without and with regularization.

    Returns:
        columns task, model, regularization (none, L1, group lasso), seed, epoch, score (%).
    """
    chosen = recipe or recipes.find(task, model)

    def rows(seed: int, data: Task) -> pd.DataFrame:
        units = regularization.hidden_units(networks.build(model, data, chosen, seed), data)
        steps = {"none": None, "L1": regularization.l1(chosen.l1)}
        steps["group lasso"] = regularization.group_lasso(chosen.group_lasso, units)
        found = []
        for name, step in steps.items():
            history = training.fit(networks.build(model, data, chosen, seed), data, chosen, seed=seed, after_step=step).frame()
            score = {"score": 100 * history[f"{data.metric}_val"], "epoch": history["epoch"]}
            found.append(pd.DataFrame(score).assign(task=task, model=model, regularization=name, seed=seed))
        return pd.concat(found, ignore_index=True)

    frames = []
    for seed in seeds:
        data = task_for(task, seed)
        parameters = {"task": data.fingerprint(), "model": model, "recipe": chosen, "seed": seed}
        path = Path(folder) / f"compression-{task}-{model}-convergence-seed{seed}.parquet"
        frames.append(store.stage(path, partial(rows, seed, data), parameters=parameters, modules=MODULES))
    return pd.concat(frames, ignore_index=True)


def epochs_to(curves: pd.DataFrame, share: float = 0.95) -> pd.DataFrame:
    """The first epoch whose score reaches `share` of the best that the seed's training without regularization reaches.

    Returns:
        columns task, model, regularization, seed, epoch; no number where a training never gets there.
    """
    keys = ["task", "model", "seed"]
    best = curves[curves["regularization"] == "none"].groupby(keys)["score"].max().rename("best")
    there = curves.join(best, on=keys)
    there = there[there["score"] >= share * there["best"]]
    first = there.groupby([*keys, "regularization"])["epoch"].min()
    every = pd.MultiIndex.from_frame(curves[[*keys, "regularization"]].drop_duplicates())
    return first.reindex(every).reset_index()[["task", "model", "regularization", "seed", "epoch"]]


def measure_speed(case: Case, levels: Sequence[float], repeats: int = 30) -> pd.DataFrame:
    """One pass over the test part on one thread: dense, with zeros skipped by CSR weights, and with fewer hidden units.

    Returns:
        columns form, level, median_ms, low_ms, high_ms (10 and 90 %), peak_bytes (of what the pass makes), task.
    """
    inputs = next(case.task.batches("test", 512)).inputs
    networks_ = [("dense", 0.0, case.model)]
    for level in levels:
        small, _ = _masked(case.model, prune_globally(case.model, level))
        networks_ += [("zeros, dense kernel", level, small), ("zeros, CSR kernel", level, storage.with_sparse_weights(small))]
        with suppress(TooNarrowError):
            networks_.append(("width", level, prune_width(case.model, case.task, level)))
    rows = []
    for form, level, network in networks_:
        time = latency(network, inputs, repeats, threads=1)
        row = {"form": form, "level": f"{100 * level:g} %", "median_ms": time.median_ms, "low_ms": time.low_ms}
        row |= {"high_ms": time.high_ms, "peak_bytes": storage.measure_peak_memory(network, inputs)}
        rows.append(row)
    return pd.DataFrame(rows).assign(task=case.task.name)
