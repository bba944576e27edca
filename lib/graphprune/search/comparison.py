"""Ways of choosing channels side by side: one budget, one training, several seeds, differences with intervals."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.allocation import Limits, Order, allocate, order_of
from graphprune.pruning.cost import CostModel
from graphprune.pruning.criterion import score_channels
from graphprune.runs import runtime, store
from graphprune.runs.checkpoint import Clock
from graphprune.runs.checks import takes
from graphprune.runs.description import network
from graphprune.search.trial import Task, Trial, run_all
from graphprune.training.data import Dataset
from graphprune.training.dataset import check_dataset
from graphprune.training.train import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ["method", "macs", "params", "accuracy", "low", "high", "against", "difference", "difference_low", "difference_high"]


def compare(
    methods: Mapping[str, Any],
    model: nn.Module,
    graph: ChannelGraph,
    data: Dataset,
    *,
    recipe: Recipe,
    folder: str | Path,
    macs: float = 0.5,
    seeds: int | Sequence[int] = 5,
    how: str | Order = "uniform",
    round_to: int = 1,
    against: str | None = None,
    n_jobs: int = 1,
    threads: int = 1,
    clock: Clock | None = None,
) -> pd.DataFrame:
    """Compare methods at equal multiply-adds and equal training, over several seeds, on the test split.

    Every method's network is pruned to the budget as `prune_to` does it, gets its BN statistics re-estimated and is trained by
    the recipe, once for each seed. Nothing is chosen by the test split. A seed decides the order and the augmentation of the
    images (and a method's own randomness), not the network that all start from: the intervals say how far the outcome for
    *this* network depends on chance. Let `graphprune.importance.random` stand among the methods: it is what they have to beat.

    Args:
        methods: name -> scores, group -> (C,), or a function (model, graph) that returns them, or that returns a `keep` (masks
            of bool), which must be within the budget itself. A function with a parameter `data`, `seed` or `generator` is
            given it.
        model: the trained network.
        graph: its trace.
        data: trained on `.train`, measured on `.test`.
        recipe: of the training after pruning.
        folder: where every training is stored; the same call again repeats none.
        macs: the share of the multiply-adds that may stay.
        seeds: how many, or which.
        how, round_to: as `prune_to` takes them, but "searched".
        against: the method that the others are compared with; the last one unless given.
        n_jobs, threads: as in `Funnel`.
        clock: when to stop, by `checkpoint.Paused`.

    Returns:
        One row a method: macs and params (shares of the whole), accuracy on test (or the data's metric; mean over the seeds)
        with its 95 % t interval low .. high; `difference` to the method named in `against`, paired by seed, with its interval;
        and `accuracies`, one for each seed. An interval that holds 0 is no difference shown. One seed gives no interval (NaN).

    Raises:
        ValueError, TypeError: an argument is out of its range, a method's answer does not fit, or a training failed.

    >>> import tempfile, graphprune
    >>> digits, model = graphprune.data.load("digits", device="cpu"), graphprune.models.seeded("tiny_cnn", 0, in_channels=1)
    >>> graph, recipe = graphprune.trace(model, digits.example()), graphprune.train.Recipe(epochs=0.2, lr=0.05, batch_size=64)
    >>> methods = {"L1": graphprune.importance.l1, "random": graphprune.importance.random}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = compare(methods, model, graph, digits, recipe=recipe, folder=folder, seeds=2)
    >>> table["method"].tolist(), bool((table["macs"] <= 0.5).all())
    (['L1', 'random'], True)
    """
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    beside = against if against is not None else list(methods)[-1] if methods else None
    _check(methods, beside, numbers, recipe, data)
    costs = CostModel(graph, data.example())
    limits = Limits(costs, macs=int(macs * costs.full.macs))
    task = Task(
        model=model,
        costs=costs,
        data=data,
        base=store.digest([network(model), graph.fingerprint(), data.fingerprint()]),
        recipe=recipe,
        inherit=True,
        threads=threads,
        folder=Path(folder).absolute() / "compared",
        store_weights=False,
        tested=True,
        clock=clock or Clock(),
    )
    trials = []
    for name, method in methods.items():
        for seed in numbers:
            keep = _keep(name, method, seed, model, graph, data, limits, how, round_to)
            trials.append(Trial(task, graph.flatten(keep), 1000 * seed))
    rows = pd.DataFrame(run_all(trials, n_jobs, "comparison"))
    if (rows["failed"] != "").any():
        reason = rows.loc[rows["failed"] != "", "failed"].iloc[0]
        raise ValueError(f"a training failed: {reason}; see the files in {task.folder}")
    rows["method"] = [name for name in methods for _ in numbers]
    assert beside is not None
    return _summed(rows, list(methods), beside, costs)


def _check(methods: Mapping[str, Any], against: str | None, seeds: Sequence[int], recipe: Recipe, data: Dataset) -> None:
    if not isinstance(methods, Mapping) or not methods:
        raise ValueError('methods: must be a dictionary, e.g. {"mine": my_function, "L1": graphprune.importance.l1}')
    if against not in methods:
        raise ValueError(f"against={against!r}: must be one of the methods {', '.join(methods)}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)}: must be at least one, each once")
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe={recipe!r}: must be a train.Recipe, e.g. Recipe(epochs=2, lr=0.01, batch_size=128)")
    check_dataset(data)
    data.demand("train", "val", "test")


def _keep(
    name: str,
    method: Any,
    seed: int,
    model: nn.Module,
    graph: ChannelGraph,
    data: Dataset,
    limits: Limits,
    how: str | Order,
    round_to: int,
) -> dict[str, Tensor]:
    """What a method keeps of the network, within the budget."""
    argument = f"methods[{name!r}]"
    if callable(method):
        takes(argument, method, ["model", "graph"], ["data", "seed", "generator"])
        more = {"data": data, "seed": seed, "generator": runtime.seed_generator(seed, "method", name)}
        known = inspect.signature(method).parameters
        method = method(model, graph, **{key: value for key, value in more.items() if key in known})
    if isinstance(method, Mapping) and method and all(map(_is_mask, method.values())):
        kept = graph.flatten(method)
        counts = torch.stack([kept[span].sum() for span in graph.slices.values()])
        if not limits.met(counts):
            got = limits.cost(counts).macs
            raise ValueError(f"{argument} keeps {got:,} multiply-adds, more than the {limits.macs:,} allowed; or return scores")
        return graph.unflatten(kept)
    return allocate(limits, order_of(how, graph, score_channels(method, model, graph, data, argument)), round_to)


def _is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bool


def _summed(rows: pd.DataFrame, names: list[str], against: str, costs: CostModel) -> pd.DataFrame:
    accuracies = {name: rows.loc[rows["method"] == name, "accuracy_test"].tolist() for name in names}
    found = []
    for name in names:
        own = rows[rows["method"] == name]
        gaps = [a - b for a, b in zip(accuracies[name], accuracies[against], strict=True)]
        mean, low, high = interval(accuracies[name])
        shares = (own["macs"].mean() / costs.full.macs, own["params"].mean() / costs.full.params)
        found.append([name, *shares, mean, low, high, against, *interval(gaps)])
    return pd.DataFrame(found, columns=COLUMNS).assign(accuracies=pd.Series([accuracies[name] for name in names]))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and the ends of its 95 % t interval; NaN for a single value.

    >>> [round(value, 3) for value in interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * spread
    return mean, mean - reach, mean + reach


def draw_comparison(table: pd.DataFrame) -> Figure:
    """What `compare` returned as a picture: the differences with their intervals, and every seed's accuracy.

    >>> rows = [["mine", 0.5, 0.5, 0.9, 0.8, 1.0, "L1", 0.1, 0.0, 0.2], ["L1", 0.5, 0.5, 0.8, 0.7, 0.9, "L1", 0.0, 0.0, 0.0]]
    >>> table = pd.DataFrame(rows, columns=COLUMNS).assign(accuracies=[[0.9], [0.8]])
    >>> [axis.get_xlabel() for axis in draw_comparison(table).axes]
    ['accuracy on test', 'difference to L1, 95 % interval']
    """
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 1 + 0.5 * len(table)), sharey=True, layout="constrained")
    for place, row in enumerate(table.to_dict("records")):
        left.scatter(row["accuracies"], [place] * len(row["accuracies"]), alpha=0.6)
        left.plot([row["low"], row["high"]], [place, place])
        right.plot([row["difference_low"], row["difference_high"]], [place, place])
        right.scatter([row["difference"]], [place])
    left.set_yticks(range(len(table)), table["method"])
    left.invert_yaxis()
    left.set_xlabel("accuracy on test")
    right.axvline(0, color="grey", linewidth=1)
    right.set_xlabel(f"difference to {table['against'].iloc[0]}, 95 % interval")
    plt.close(figure)  # the caller shows it, once
    return figure
