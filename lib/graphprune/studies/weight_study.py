"""A study of masks on single weights: networks pruned in many ways and at many sparsities, measured before and after training.

One row a network, start, way, sparsity and seed. A network through which no path is left is not trained: it says the same
of every image, whatever its weights are. Nothing is chosen, so that validation images are not looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from graphprune import spectral
from graphprune.pruning import weight_baselines as baselines
from graphprune.pruning import weight_masks
from graphprune.pruning.weight_masks import WeightMask
from graphprune.runs import runtime, store
from graphprune.training import base_network, models, train
from graphprune.training.data import Dataset
from graphprune.training.recipe import Recipe

Way = Callable[[nn.Module, Dataset, float, int], WeightMask]  # (model, data, sparsity, seed)
SYNFLOW_ROUNDS = 50  # half of the paper's, to save time; the two were not compared
BATCH = 64  # images a pass when accuracy is measured: ResNet-20 takes half of the time it takes with 512


def _spectral(**reading: str) -> Way:
    return lambda model, data, sparsity, seed: spectral.prune_weights(model, data, sparsity, seed=seed, **reading)


def _magnitude(budget: str) -> Way:
    return lambda model, data, sparsity, seed: baselines.magnitude(model, data, sparsity, budget=budget)


WAYS: dict[str, Way] = {
    "random, ER": lambda model, data, sparsity, seed: baselines.random(model, data, sparsity, budget="er", seed=seed),
    "magnitude, layer": _magnitude("layer"),
    "magnitude, global": _magnitude("global"),
    "magnitude, ER": _magnitude("er"),
    "SNIP": lambda model, data, sparsity, seed: baselines.snip(model, data, sparsity, seed=seed),
    "GraSP": lambda model, data, sparsity, seed: baselines.grasp(model, data, sparsity, seed=seed),
    "SynFlow (iterative)": lambda model, data, sparsity, seed: baselines.synflow(model, data, sparsity, rounds=SYNFLOW_ROUNDS),
    "resistance sampled, global": _spectral(pick="sample"),
    "resistance top, global": _spectral(),
    "resistance top, ER": _spectral(budget="er"),
    "adjacency top, ER": _spectral(rule="adjacency", budget="er"),
    "paths, global (ours)": _spectral(rule="paths"),
}
"""What notebook 06 compares. Every way but SynFlow is one-shot."""

READINGS: dict[str, Way] = {
    "resistance top, layer": _spectral(budget="layer"),
    "resistance sampled, layer": _spectral(pick="sample", budget="layer"),
    "degree top, global": _spectral(rule="degree"),
    "degree top, ER": _spectral(rule="degree", budget="er"),
    "degree sampled, global": _spectral(rule="degree", pick="sample"),
    "node rule sampled, ER": _spectral(rule="node", pick="sample", budget="er"),
    "adjacency top, global": _spectral(rule="adjacency"),
    "adjacency sampled, ER": _spectral(rule="adjacency", pick="sample", budget="er"),
    "resistance top, global, channels": _spectral(conv="channels"),
    "resistance top, ER, channels": _spectral(conv="channels", budget="er"),
    "paths, ER (ours)": _spectral(rule="paths", budget="er"),
}
"""More readings of the same paper, which notebook 06 looks at for one sparsity."""


@dataclass(frozen=True)
class Plan:
    """How a network of the study is trained: before pruning, after it, and from its initial weights when pruned there.

    Attributes:
        base: None for the public weights, see `base_network.network`.
    """

    base: Recipe | None
    tune: Recipe
    scratch: Recipe


def build(name: str, data: Dataset, seed: int) -> nn.Module:
    """`mlp` (two hidden layers of 128), `small_conv` (12, 24 and 24 channels, BN), or what `models.build` knows.

    >>> from graphprune import data
    >>> sum(w.numel() for w in weight_masks.prunable(build("mlp", data.load("digits"), 0)).values())
    25856
    """
    channels, height, width = data.input_shape
    if name not in ("mlp", "small_conv"):
        return models.seeded(name, seed, num_classes=data.num_classes, in_channels=channels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if name == "mlp":
            first = [nn.Flatten(), nn.Linear(channels * height * width, 128), nn.ReLU()]
            return nn.Sequential(*first, nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, data.num_classes))
        blocks = [layer for a, b, stride in ((channels, 12, 1), (12, 24, 2), (24, 24, 2)) for layer in _block(a, b, stride)]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, data.num_classes))


def _block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def load_or_train(name: str, data: Dataset, plan: Plan, seed: int, folder: Path) -> nn.Module:
    """The network trained by `plan.base`, once, and stored in `folder`; or with its public weights."""
    if plan.base is None:
        return base_network.network(name, data, None, seed=seed, folder=folder).to(runtime.device())
    model = base_network.load_or_train(
        build(name, data, seed), name, data, plan.base, seed=seed, folder=folder, label="weight-study"
    )
    return model.to(runtime.device())


def study(
    name: str,
    data: Dataset,
    plan: Plan,
    sparsities: Sequence[float],
    seed: int,
    folder: Path,
    *,
    ways: Mapping[str, Way] = WAYS,
    starts: Sequence[str] = ("trained", "untrained"),
    spectra: bool = True,
    label: str = "ways",
    train_at: Mapping[str, Sequence[float]] | None = None,
) -> pd.DataFrame:
    """Prune one network in every way at every sparsity, from each start, and measure what is left.

    Args:
        name: of the network, see `build`. plan: how it is trained. seed: of its weights, the draws and all training.
        sparsities: shares of the weights to prune; the row of sparsity 0 is the network with the same training after.
        folder: where rows are stored, a file a network, start, sparsity and seed, so that a stopped study goes on.
        ways: label -> way; for stored rows, labels stand for the ways.
        starts: `trained` and `untrained`.
        spectra: measure singular values too (slow for wide layers).
        label: part of the file's name; give another for other ways.
        train_at: way -> the sparsities at which its networks are trained after pruning; None: all are.
    Returns:
        columns network, start, way, sparsity, seed, kept, before_test, test (shares of the test images; before and after
        training, NaN if not trained), dead, components, inputs, outputs (shares), connected, collapsed, error,
        normalised_error.
    """

    def level(start: str, sparsity: float) -> pd.DataFrame:
        todo = list(ways) if sparsity else ["dense"]
        trained = [way for way in todo if train_at is None or way == "dense" or sparsity in train_at.get(way, ())]
        parameters = {
            "name": name, "start": start, "data": data.fingerprint(), "plan": plan, "sparsity": sparsity, "seed": seed,
            "ways": todo, "trained": trained, "spectra": spectra,
        }  # fmt: skip
        about = f"{start}-{label}-{100 * sparsity:g}-seed{seed}"

        def measured() -> pd.DataFrame:
            model = load_or_train(name, data, plan, seed, folder) if start == "trained" else build(name, data, seed)
            recipe = plan.tune if start == "trained" else plan.scratch
            rows = [
                {"network": name, "start": start, "way": way, "sparsity": sparsity, "seed": seed}
                | _row(model, data, recipe if way in trained else None, seed, ways.get(way), sparsity, spectra)
                for way in runtime.progress(todo, f"{name}, {about}", len(todo))
            ]
            return pd.DataFrame(rows)

        path = Path(folder) / f"weight-study-{data.name}-{name}-{about}.parquet"
        return store.stage(path, measured, parameters=parameters, modules=("studies.weight_study",))

    return pd.concat([level(*which) for which in itertools.product(starts, (0.0, *sparsities))], ignore_index=True)


def _row(
    model: nn.Module, data: Dataset, recipe: Recipe | None, seed: int, way: Way | None, sparsity: float, spectra: bool
) -> dict[str, Any]:
    weights = weight_masks.prunable(model)
    mask = way(model, data, sparsity, seed) if way else {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()}
    pruned = weight_masks.apply(model, mask)
    train.reestimate_bn(pruned, data, seed=seed)
    left = spectral.connectivity(model, data.example(), mask)
    before = train.evaluate(pruned, data.test, batch_size=BATCH).accuracy
    row: dict[str, Any] = {"kept": weight_masks.count(mask).kept, "before_test": before, "test": float("nan")}
    if recipe is not None and left.connected:
        with weight_masks.hold_zeros(pruned, mask):
            train.fit(pruned, data, recipe, seed=seed, desc="training after pruning")
    if recipe is not None:
        row["test"] = train.evaluate(pruned, data.test, batch_size=BATCH).accuracy
    row |= {"dead": left.dead / left.neurons, "components": left.components / left.nodes}
    row |= {"inputs": left.inputs, "outputs": left.outputs, "connected": left.connected, "collapsed": bool(left.collapsed)}
    if spectra:
        row["error"] = spectral.mean_spectral_error(model, mask)
        row["normalised_error"] = spectral.mean_spectral_error(model, mask, normalised=True)
    return row
