"""A study of masks on single weights: networks pruned in many ways and at many sparsities, measured before and after training.

One row a network, start, way, sparsity and seed. A network through which no path is left is not trained: it says the same
of every image, whatever its weights are.
"""

from __future__ import annotations

import copy
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
    """How a network of the study is trained: before pruning, after it, and from its initial weights when pruned there."""

    base: Recipe
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
    """The network trained by `plan.base`; trained once and stored in `folder`."""
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
) -> pd.DataFrame:
    """Prune one network in every way at every sparsity, from each start, and measure what is left.

    Args:
        name: of the network, see `build`. plan: how it is trained. seed: of its weights, the draws and all training.
        sparsities: shares of the weights to prune; the row of sparsity 0 is the network with the same training after.
        folder: where rows are stored, a file a network, start and seed, so that a stopped study goes on.
        ways: label -> way; for stored rows, labels stand for the ways.
        starts: `trained` and `untrained`.
        spectra: measure singular values too (slow for wide layers).
        label: part of the file's name; give another for other ways.
    Returns:
        columns network, start, way, sparsity, seed, kept, before_val, before_test, val, test (shares of images; before and
        after training), dead, components, inputs, outputs (shares), connected, collapsed, error, normalised_error.
    """
    frames = []
    for start in starts:
        parameters = {
            "name": name, "start": start, "data": data.fingerprint(), "plan": plan, "sparsities": list(sparsities),
            "seed": seed, "ways": list(ways), "spectra": spectra,
        }  # fmt: skip
        path = Path(folder) / f"weight-study-{data.name}-{name}-{start}-{label}-seed{seed}.parquet"

        def measured(start: str = start) -> pd.DataFrame:
            model = load_or_train(name, data, plan, seed, folder) if start == "trained" else build(name, data, seed)
            recipe = plan.tune if start == "trained" else plan.scratch
            todo = [("dense", 0.0), *((way, sparsity) for way in ways for sparsity in sparsities)]
            rows = [
                {"network": name, "start": start, "way": way, "sparsity": sparsity, "seed": seed}
                | _row(model, data, recipe, seed, ways.get(way), sparsity, spectra)
                for way, sparsity in runtime.progress(todo, f"{name}, {start}, seed {seed}", len(todo))
            ]
            return pd.DataFrame(rows)

        frames.append(store.stage(path, measured, parameters=parameters, modules=("studies.weight_study",)))
    return pd.concat(frames, ignore_index=True)


def _row(
    model: nn.Module, data: Dataset, recipe: Recipe, seed: int, way: Way | None, sparsity: float, spectra: bool
) -> dict[str, Any]:
    weights = weight_masks.prunable(model)
    mask = way(model, data, sparsity, seed) if way else {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()}
    pruned = weight_masks.apply(model, mask)
    train.reestimate_bn(pruned, data, seed=seed)
    left = spectral.connectivity(model, data.example(), mask)
    tuned = weight_masks.finetune(model, mask, data, recipe, seed=seed) if left.connected else copy.deepcopy(pruned)
    row: dict[str, Any] = {"kept": weight_masks.count(mask).kept}
    for prefix, network in (("before_", pruned), ("", tuned)):
        row[f"{prefix}val"] = train.evaluate(network, data.val).accuracy
        row[f"{prefix}test"] = train.evaluate(network, data.test).accuracy
    row |= {"dead": left.dead / left.neurons, "components": left.components / left.nodes}
    row |= {"inputs": left.inputs, "outputs": left.outputs, "connected": left.connected, "collapsed": bool(left.collapsed)}
    if spectra:
        row["error"] = spectral.mean_spectral_error(model, mask)
        row["normalised_error"] = spectral.mean_spectral_error(model, mask, normalised=True)
    return row
