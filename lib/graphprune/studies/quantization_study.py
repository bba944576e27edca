"""A study of quantized graph networks: trained, quantized by every method, trained on, measured; one row each.

The control is the network in floating point with the same training on: a gain by more training is no gain by quantization.
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from graphprune.compression import networks, packed, storage, training
from graphprune.compression.a2q import A2Q, mean_bits, node_quantizers
from graphprune.compression.degree_quant import DegreeQuant
from graphprune.compression.packed import quantized_layers
from graphprune.compression.post_training import calibrate
from graphprune.compression.quantized_network import Scheme, layer_output, node_errors
from graphprune.compression.quantized_training import Learning, hold_zeros, linear_weights, quantize_and_tune, tune
from graphprune.compression.quantizer import Uniform
from graphprune.compression.recipes import Recipe
from graphprune.compression.tasks import Task
from graphprune.compression.training import Step
from graphprune.runs import store
from graphprune.studies import verdicts

CONTROL = "dense, tuned"
TWICE = "dense, tuned twice"
MARGIN = 1.0
"""Points within which two methods count as equal; fixed beforehand."""
PENALTY = Learning(penalty=1e-4, target=0.0)


@dataclass(frozen=True, eq=False)
class Case:
    """A trained network in floating point, its task and recipe, and the seed of all that follows."""

    model: nn.Module
    task: Task
    recipe: Recipe
    seed: int

    @property
    def example(self) -> tuple[Any, ...]:
        """Training data that sets the first ranges."""
        return next(self.task.batches("train", 512)).inputs


Method = Callable[[Case], nn.Module]


def _tuned(case: Case, times: int = 1) -> nn.Module:
    model = copy.deepcopy(case.model)
    for turn in range(times):
        training.fit(model, case.task, case.recipe.tuning(), seed=case.seed + turn)
    return model


def _trained(scheme: Scheme, learning: Learning | None = None) -> Method:
    return lambda case: quantize_and_tune(case.model, scheme, case.task, case.recipe, seed=case.seed, learning=learning)


def _a2q(local: bool) -> Method:
    def make(case: Case) -> nn.Module:
        scheme = A2Q(4, groups=1000 if case.task.pooled else None, local=local)
        return _trained(scheme, Learning() if local else PENALTY)(case)

    return make


def zero_smallest(network: nn.Module, share: float) -> None:
    """Set the smallest weights of all linear maps to zero in place, by their size over the whole network.

    >>> layer = nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[3.0, -1.0]]))
    >>> zero_smallest(layer, 0.5)
    >>> layer.weight.tolist()
    [[3.0, 0.0]]
    """
    weights = list(linear_weights(network).values())
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    smallest = torch.zeros(len(sizes), dtype=torch.bool)
    smallest[sizes.argsort(stable=True)[: round(share * len(sizes))]] = True
    with torch.no_grad():
        for weight, zeros in zip(weights, smallest.split([w.numel() for w in weights]), strict=True):
            weight.masked_fill_(zeros.view_as(weight), 0.0)


def _prune_then_quantize(share: float, bits: int) -> Method:
    def make(case: Case) -> nn.Module:
        model = copy.deepcopy(case.model)
        zero_smallest(model, share)
        training.fit(model, case.task, case.recipe.tuning(), seed=case.seed, after_step=hold_zeros(model))
        return quantize_and_tune(model, Uniform(bits), case.task, case.recipe, seed=case.seed + 1)

    return make


def _quantize_then_prune(share: float, bits: int) -> Method:
    def make(case: Case) -> nn.Module:
        network = _trained(Uniform(bits))(case)
        zero_smallest(network, share)
        return tune(network, case.task, case.recipe.tuning(), seed=case.seed + 1)

    return make


METHODS: dict[tuple[str, str], Method] = {
    ("dense", "float32"): lambda case: case.model,
    (CONTROL, "float32"): _tuned,
    (TWICE, "float32"): lambda case: _tuned(case, 2),
    ("PTQ", "INT8"): lambda case: calibrate(case.model, 8, *case.example),
    ("PTQ", "INT4"): lambda case: calibrate(case.model, 4, *case.example),
    ("PTQ, least error", "INT4"): lambda case: calibrate(case.model, 4, *case.example, least_error=True),
    ("uniform", "INT8"): _trained(Uniform(8)),
    ("uniform", "INT4"): _trained(Uniform(4)),
    ("Degree-Quant", "INT8"): _trained(DegreeQuant(8)),
    ("Degree-Quant", "INT4"): _trained(DegreeQuant(4)),
    ("its ranges alone", "INT4"): _trained(DegreeQuant(4, 0.0, 0.0)),
    ("its protection alone", "INT4"): _trained(DegreeQuant(4, percentile=0.0)),
    ("A2Q", "learned"): _a2q(local=False),
    ("A2Q, local gradient", "learned"): _a2q(local=True),
    ("prune, then quantize", "50 %, INT8"): _prune_then_quantize(0.5, 8),
    ("quantize, then prune", "50 %, INT8"): _quantize_then_prune(0.5, 8),
    ("prune, then quantize", "90 %, INT4"): _prune_then_quantize(0.9, 4),
    ("quantize, then prune", "90 %, INT4"): _quantize_then_prune(0.9, 4),
}
"""(method, level) -> the network; PTQ is quantization without training."""


def load_or_train(
    task: Task, model: str, recipe: Recipe, seed: int, folder: Path, *, label: str = "", step: Step | None = None
) -> nn.Module:
    """A network trained by its recipe, once: its weights are stored in `folder`.

    Args:
        label, step: what is done after each step of Adam, such as a regularization of the recipe's strength, and its name.
    """
    network = networks.build(model, task, recipe, seed)

    def trained() -> dict[str, torch.Tensor]:
        training.fit(network, task, recipe, seed=seed, after_step=step)
        return network.state_dict()

    path = Path(folder) / f"trained-{'-'.join(filter(None, (task.name, model, label)))}-seed{seed}.safetensors"
    parameters = {"task": task.fingerprint(), "model": model, "recipe": recipe, "seed": seed}
    modules = ("compression.training", "compression.networks", "compression.regularization")
    network.load_state_dict(store.stage(path, trained, parameters=parameters, modules=modules))
    return network.eval()


def measure(case: Case, method: str, level: str) -> dict[str, Any]:
    """A row: the task's metric on the test part in %, the bytes of the file that really is written, mean bits of features."""
    network = METHODS[method, level](case)
    score = training.evaluate(network, case.task, "test").scores[case.task.metric]
    row = {"task": case.task.name, "method": method, "level": level, "seed": case.seed, "score": 100 * score}
    row |= {"bytes": file_bytes(network), "bits_inputs": float("nan"), "bits_hidden": float("nan")}
    learned = mean_bits(network)
    if learned:
        row |= {"bits_inputs": learned[0], "bits_hidden": sum(learned[1:]) / max(1, len(learned) - 1)}
    return row


def file_bytes(network: nn.Module) -> int:
    """The size of the file that holds a network: packed where it is quantized, else float32 without the zeros."""
    if not any(True for _ in quantized_layers(network)):
        return len(storage.pack(network))
    with tempfile.TemporaryDirectory() as folder:
        return packed.save(Path(folder) / "network", network)


def study(
    task: Task, model: str, recipe: Recipe, seeds: Sequence[int], folder: Path, methods: Sequence[str] | None = None
) -> pd.DataFrame:
    """Every method under every seed. Each row is stored when it is there, so that a run that was stopped goes on.

    Args:
        methods: names among `METHODS`; None for all.
    Raises:
        ValueError: a method is unknown.
    """
    known = list(dict.fromkeys(name for name, _ in METHODS))
    unknown = [name for name in methods or () if name not in known]
    if unknown:
        raise ValueError(f"methods: {unknown[0]!r} is unknown; use some of {known}")

    def stored(seed: int, method: str, level: str) -> dict[str, Any]:
        def row() -> dict[str, Any]:
            case = Case(load_or_train(task, model, recipe, seed, folder), task, recipe, seed)
            return measure(case, method, level) | {"model": model}

        parameters = {"task": task.fingerprint(), "model": model, "recipe": recipe, "seed": seed, "method": [method, level]}
        path = Path(folder) / f"quantization-{task.name}-{model}-{file_name(method, level)}-seed{seed}.json"
        return store.stage(path, row, parameters=parameters, modules=("studies.quantization_study",))

    chosen = [pair for pair in METHODS if methods is None or pair[0] in methods]
    return pd.DataFrame([stored(seed, *pair) for seed in seeds for pair in chosen])


def file_name(*words: str) -> str:
    """Words as a part of a file's name: letters and digits, with lines between.

    >>> file_name("prune, then quantize", "50 %, INT8")
    'prune-then-quantize-50-INT8'
    """
    return "-".join(re.findall(r"\w+", " ".join(words)))


def compare(rows: pd.DataFrame, control: str = CONTROL, margin: float = MARGIN) -> pd.DataFrame:
    """Each method paired with the control by task, model and seed.

    Returns:
        task, model, method, level, n, score and bytes (means), difference, and what `verdicts.judge` says of it.
    """
    keys, found = ["task", "model", "seed"], []
    base = rows[rows["method"] == control].set_index(keys)["score"]
    for about, part in rows.groupby(["task", "model", "method", "level"], sort=False):
        paired = part.set_index(keys)["score"] - base
        d = paired.dropna().to_numpy()
        row = dict(zip(("task", "model", "method", "level"), about, strict=True)) | {"n": len(d), "score": part["score"].mean()}
        row |= {"bytes": part["bytes"].mean(), "difference": d.mean()} | verdicts.judge(d, margin)
        found.append(row)
    return pd.DataFrame(found)


def by_degree(case: Case, bits: int = 4) -> pd.DataFrame:
    """The rounding error of the first layer's sums by PTQ, and the bits that A2Q learned for the hidden features, by degree.

    Returns:
        a row a degree: degree, nodes, error and size (mean Euclidean norms of the error and of the sums), bits, bits_local
        (with the local gradient).
    """
    x, edge_index = case.example[:2]
    layer, small = "layers.0", calibrate(case.model, bits, *case.example)
    error = node_errors(case.model, small, layer, *case.example)
    size = layer_output(case.model, layer, *case.example).norm(dim=1)
    degree = torch.bincount(edge_index[1], minlength=x.shape[0])
    table = {"degree": degree.numpy(), "nodes": 1, "error": error.numpy(), "size": size.numpy()}
    for name, method in (("bits", "A2Q"), ("bits_local", "A2Q, local gradient")):
        network = METHODS[method, "learned"](case)
        table[name] = list(node_quantizers(network))[1].row_bits().numpy()
    found = pd.DataFrame(table).groupby("degree", as_index=False)
    return found.agg({"nodes": "sum", "error": "mean", "size": "mean", "bits": "mean", "bits_local": "mean"})


def shorter(recipe: Recipe, epochs: int | None, tune_epochs: int | None) -> Recipe:
    """The recipe with other lengths; None leaves a length as it is."""
    return replace(recipe, epochs=epochs or recipe.epochs, tune_epochs=tune_epochs or recipe.tune_epochs)
