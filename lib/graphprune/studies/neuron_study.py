"""A study of neurons scored by programs and by their rivals: scored, removed for real, measured before and after training.

One row a network, seed, way to score and share of the neurons removed. Scores are stored with their status, bound and
seconds, so that a run that is repeated solves nothing again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphprune import neurons
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.graph.groups import trace
from graphprune.neurons import Scores
from graphprune.pruning import importance
from graphprune.pruning.channels import prune
from graphprune.pruning.importance import per_atom
from graphprune.runs import runtime, store
from graphprune.training import base_network, models, train
from graphprune.training.data import Dataset
from graphprune.training.recipe import Recipe
from graphprune.training.splits import TensorSplit


@dataclass(frozen=True)
class Settings:
    """Of the programs: see `neurons.scores`. `class_seconds` is the time limit of each class's own program."""

    lam: float = 5.0
    radius: float = 1e-5
    time_limit: float = 10.0
    class_seconds: float = 1.0
    per_class: int = 1
    head_images: int = 500


@dataclass(frozen=True, eq=False)
class Case:
    """A trained network, and what a way to score it may look at."""

    name: str
    model: nn.Module
    graph: ChannelGraph
    data: Dataset
    images: Tensor
    labels: Tensor
    seed: int
    settings: Settings


Way = Callable[[Case], Mapping[str, Tensor]]


def _options(case: Case, program: str) -> dict[str, Any]:
    """What `neurons.scores` and `neurons.per_class` take alike."""
    radius = case.settings.radius if program == "published" else 0.0
    return {"program": program, "lam": case.settings.lam, "radius": radius, "seed": case.seed, "graph": case.graph}


def _program(program: str, solver: str) -> Callable[[Case], Scores]:
    def score(case: Case) -> Scores:
        limit, options = case.settings.time_limit, _options(case, program)
        return neurons.scores(case.model, case.images, case.labels, solver=solver, time_limit=limit, **options)

    return score


def _per_class(program: str) -> Callable[[Case], Scores]:
    def score(case: Case) -> Scores:
        limit = case.settings.class_seconds * case.data.num_classes
        return neurons.per_class(case.model, case.images, case.labels, time_limit=limit, **_options(case, program))

    return score


def _decoupled(case: Case) -> Scores:
    x, y = _some(case.data, case.settings.head_images, case.seed)
    s = case.settings
    return neurons.decoupled(case.model, case.images, case.labels, x, y, lam=s.lam, time_limit=s.time_limit, graph=case.graph)


def _snip(case: Case) -> dict[str, Tensor]:
    """|w dL/dw| summed over a unit's incoming weights (Lee et al. 2019), on one batch of 256 training images."""
    x, y = _some(case.data, 256, case.seed)
    named = {name: case.model.get_submodule(name).get_parameter("weight") for g in case.graph.groups for name in g.layers}
    place = next(iter(named.values())).device
    gradients = torch.autograd.grad(F.cross_entropy(case.model(x.to(place)), y.to(place)), list(named.values()))
    rows = {name: (g * w).detach().abs().flatten(1).sum(1) for (name, w), g in zip(named.items(), gradients, strict=True)}
    total, _ = per_atom(case.graph, rows)
    return {name: total[span].clone() for name, span in case.graph.slices.items()}


def _turned(found: Scores) -> Scores:
    """The same scores with their order turned round."""
    about = (found.status, found.objective, found.bound, found.seconds, found.sizes)
    return Scores({name: -part for name, part in found.items()}, *about)


def _random(case: Case) -> dict[str, Tensor]:
    return importance.random(case.model, case.graph, runtime.seed_generator(case.seed, "neuron_study.random"))


WAYS: dict[str, Way] = {
    "MIP, published": _program("published", "mip"),
    "gradient, exact": _program("exact", "gradient"),
    "per class, exact": _per_class("exact"),
    "decoupled": _decoupled,
    "L1": lambda case: importance.l1(case.model, case.graph),
    "Taylor": lambda case: importance.taylor(case.model, case.graph, case.data, seed=case.seed),
    "SNIP": _snip,
    "random": _random,
    "critical": lambda case: _turned(_program("published", "mip")(case)),
}
"""What notebook 07 compares. `critical` removes what the published program wants most."""

SOLVERS: dict[str, Way] = {
    "relaxation, published": _program("published", "relaxation"),
    "gradient, published": _program("published", "gradient"),
    "relaxation, exact": _program("exact", "relaxation"),
    "MIP, exact": _program("exact", "mip"),
    "per class, published": _per_class("published"),
}
"""More ways to solve the programs, compared on fewer networks."""


def _some(data: Dataset, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clean training images (B, C, H, W) and labels (B,)."""
    generator = runtime.seed_generator(seed, "neuron_study.images")
    return next(data.train.batches(count, shuffle=True, generator=generator))


def build(name: str, data: Dataset, seed: int) -> nn.Module:
    """`fc-32-16`: hidden layers of 32 and 16 neurons; `lenet5`; or what `models.build` knows.

    Raises:
        ValueError: the name is unknown, or LeNet-5 is given images below 28 x 28.

    >>> from graphprune import data
    >>> [layer.out_features for layer in build("fc-32-16", data.load("digits"), 0) if isinstance(layer, nn.Linear)]
    [32, 16, 10]
    """
    channels, height, width = data.input_shape
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if re.fullmatch(r"fc(-\d+)+", name):
            sizes = [channels * height * width, *map(int, name.split("-")[1:])]
            hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
            return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], data.num_classes))
        if name == "lenet5":
            return _lenet(channels, height, data.num_classes)
    return models.seeded(name, seed, num_classes=data.num_classes, in_channels=channels)


def _lenet(channels: int, height: int, classes: int) -> nn.Module:
    if height < 28:
        raise ValueError(f"network='lenet5': it needs images of 28 x 28 or more, not {height} x {height}; use 'fc-32-16'")
    maps = [nn.Conv2d(channels, 6, 5, padding=(32 - height) // 2), nn.ReLU(), nn.MaxPool2d(2)]
    maps += [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*maps, nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes))


def load_or_train(name: str, data: Dataset, recipe: Recipe, seed: int, folder: Path) -> nn.Module:
    """The network trained by `recipe`; trained once and stored in `folder`."""
    model = base_network.load_or_train(
        build(name, data, seed), name, data, recipe, seed=seed, folder=folder, label="neuron-study"
    )
    return model.to(runtime.device())


def case_of(
    name: str, data: Dataset, recipe: Recipe, seed: int, folder: Path, settings: Settings, batch: int | None = None
) -> Case:
    """A trained network with the images of its programs, picked by `batch` (by the seed if None)."""
    model = load_or_train(name, data, recipe, seed, folder)
    images, labels = neurons.pick(model, data, settings.per_class, seed if batch is None else batch)
    return Case(name, model, trace(model, data.example()), data, images, labels, seed, settings)


def score(case: Case, way: str, folder: Path, label: str = "") -> Scores:
    """The scores by one of `WAYS` or `SOLVERS`, worked out once and stored in `folder`.

    A way that is no program has the status "formula".

    Args:
        label: part of the file's name, so that other settings do not overwrite these.
    """
    if way == "critical":  # the same program is not solved twice
        return _turned(score(case, "MIP, published", folder, label))

    def worked_out() -> dict[str, Any]:
        found = (WAYS | SOLVERS)[way](case)
        about = {"status": "formula", "objective": 0.0, "bound": 0.0, "seconds": 0.0, "sizes": {}}
        if isinstance(found, Scores):
            about = {key: getattr(found, key) for key in about}
        return about | {"groups": {name: part.tolist() for name, part in found.items()}}

    weights = {name: value.cpu() for name, value in case.model.state_dict().items()}
    parameters = {"weights": weights, "images": case.images, "labels": case.labels, "way": way, "seed": case.seed}
    parameters |= {"data": case.data.fingerprint(), "settings": asdict(case.settings)}
    path = Path(folder) / f"neuron-study-{case.data.name}-{case.name}-{way.replace(', ', '-')}-seed{case.seed}{label}.json"
    stored = store.stage(path, worked_out, parameters=parameters, modules=("studies.neuron_study",))
    groups = {name: torch.tensor(part) for name, part in stored["groups"].items()}
    return Scores(groups, **{key: stored[key] for key in ("status", "objective", "bound", "seconds", "sizes")})


def measure(case: Case, keep: Mapping[str, Tensor], tune: Recipe) -> dict[str, float]:
    """Test accuracy of the network without the units that are not kept, before and after `tune`, in %; what was removed, %."""
    whole = all(bool(mask.all()) for mask in keep.values())
    small = case.model if whole else prune(case.model, case.graph, keep, check=False)
    tuned = train.finetune(small, case.data, tune, seed=case.seed)
    kept, units = sum(int(m.sum()) for m in keep.values()), sum(len(m) for m in keep.values())
    weights = [sum(p.numel() for p in net.parameters()) for net in (small, case.model)]
    return {
        "before": 100 * train.evaluate(small, case.data.test).accuracy,
        "after": 100 * train.evaluate(tuned, case.data.test).accuracy,
        "units": 100 * (1 - kept / units),
        "parameters": 100 * (1 - weights[0] / weights[1]),
    }


def study(case: Case, ways: Sequence[str], shares: Sequence[float], tune: Recipe, folder: Path) -> pd.DataFrame:
    """Every way at every share of each layer's units removed: a row each, and one of the whole network, tuned as well.

    Returns:
        columns way, removed, seed, ties (units that chance chose among), before, after (test accuracy, %), units and
        parameters (removed, %).
    """

    def rows() -> pd.DataFrame:
        found = [{"way": "whole", "removed": 0.0, "ties": 0} | measure(case, case.graph.full(), tune)]
        for way in runtime.progress(ways, f"{case.data.name}, seed {case.seed}", len(ways)):
            scores = score(case, way, folder)
            for removed in shares:
                generator = runtime.seed_generator(case.seed, "neuron_study.ties")
                keep = neurons.keep_share(scores, removed, generator)
                about = {"way": way, "removed": removed, "ties": neurons.tied(scores, removed)}
                found.append(about | measure(case, keep, tune))
        return pd.DataFrame(found).assign(seed=case.seed)

    parameters = {
        "weights": {name: value.cpu() for name, value in case.model.state_dict().items()}, "images": case.images,
        "data": case.data.fingerprint(), "ways": list(ways), "shares": list(shares), "tune": tune, "seed": case.seed,
        "settings": asdict(case.settings),
    }  # fmt: skip
    path = Path(folder) / f"neuron-study-{case.data.name}-{case.name}-contest-seed{case.seed}.parquet"
    return store.stage(path, rows, parameters=parameters, modules=("studies.neuron_study",))


def classes(data: Dataset, chosen: Sequence[int]) -> Dataset:
    """The images of some classes, numbered anew from 0: a task of its own.

    Raises:
        ValueError: the images are streamed from files.
    """
    new = torch.full((data.num_classes,), -1)
    new[list(chosen)] = torch.arange(len(chosen))

    def part(split: Any) -> TensorSplit:
        if not isinstance(split, TensorSplit):
            raise ValueError(f"data={data.name!r}: its images are streamed from files; choose another data set")
        labels = new.to(split.labels.device)[split.labels]
        rest = split.take((labels >= 0).nonzero()[:, 0])
        return replace(rest, labels=labels[labels >= 0])

    name = f"{data.name}-{'-'.join(map(str, chosen))}"
    train_, val, test = (part(split) for split in (data.train, data.val, data.test))
    return replace(data, name=name, num_classes=len(chosen), train=train_, val=val, test=test)
